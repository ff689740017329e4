//! Events, the visits they leave open, and their pictures as rows.
//!
//! In: events in order. Out: their sequences; open visits; snapshots. Events are written once and
//! only ever deleted by age. Drops: pictures of a subject who was erased before they came; counted.
//! Must not know: subscribers.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::{Event, EventKind, SnapshotId, VisitId};
use crate::frame::CameraId;
use crate::store::failure::damaged;
use crate::store::{Counts, NewEvent, OpenVisit, Snapshot, StoreError};
use crate::subject::SubjectUid;

/// Rows that one step of pruning takes from each table: a few milliseconds of the writer's time.
const PRUNED_AT_ONCE: i64 = 256;
/// Snapshots, which are large, that one step takes.
const SNAPSHOTS_PRUNED_AT_ONCE: i64 = 32;

/// An event, ready to be written.
pub(super) struct Prepared {
    event: Event,
    body: String,
    snapshot: Option<(Snapshot, [u8; 32])>,
}

/// Does on the caller's thread what needs no database.
///
/// # Errors
/// [`StoreError::Contradiction`] for an event that could not be read again, such as one with a
/// similarity that is no number: it would stand in the way of every later start.
pub(super) fn prepare(events: Vec<NewEvent>) -> Result<Vec<Prepared>, StoreError> {
    let unreadable = |e: serde_json::Error| StoreError::Contradiction(format!("an event cannot be kept as it is: {e}"));
    let prepare = |NewEvent { event, snapshot }: NewEvent| {
        let body = serde_json::to_string(&event).map_err(unreadable)?;
        serde_json::from_str::<Event>(&body).map_err(unreadable)?;
        let snapshot = snapshot.map(|s| {
            let hash = Sha256::digest(&s.crop_jpeg).into();
            (s, hash)
        });
        Ok(Prepared { event, body, snapshot })
    };
    events.into_iter().map(prepare).collect()
}

/// Writes `events` in order and answers the first one's sequence.
pub(super) fn append(db: &Connection, events: &[Prepared], counts: &Counts) -> Result<u64, StoreError> {
    let mut first = None;
    let mut insert = db.prepare_cached(
        "INSERT INTO events (kind, camera, capture_time_us, visit, subject, snapshot, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for Prepared { event, body, snapshot } in events {
        insert.execute(params![
            kind_name(event.kind),
            &*event.camera,
            event.capture_time_us,
            event.visit.map(|v| v.0.into_bytes()),
            event.subject.map(|s| s.0.into_bytes()),
            event.snapshot.map(|s| s.0.into_bytes()),
            body
        ])?;
        let sequence = db.last_insert_rowid();
        first.get_or_insert(sequence.cast_unsigned());
        follow_visit(db, event, sequence)?;
        if let Some((snapshot, crop_sha256)) = snapshot {
            if is_of_erased(db, [event.subject, snapshot.subject])? {
                counts.snapshots_of_erased.fetch_add(1, Ordering::Relaxed);
            } else {
                put_snapshot(db, snapshot, crop_sha256)?;
            }
        }
    }
    first.map_or_else(|| Ok(last_sequence(db)? + 1), Ok)
}

/// The newest event's sequence, even when it was pruned since.
pub(super) fn last_sequence(db: &Connection) -> Result<u64, StoreError> {
    let newest: Option<i64> =
        db.prepare_cached("SELECT max(seq) FROM sqlite_sequence WHERE name = 'events'")?.query_row([], |row| row.get(0))?;
    Ok(newest.unwrap_or_default().cast_unsigned())
}

/// Visits that are still open, oldest first.
pub(super) fn open_visits(db: &Connection) -> Result<Vec<OpenVisit>, StoreError> {
    db.prepare_cached("SELECT v.visit, e.body FROM open_visits v JOIN events e ON e.sequence = v.sequence ORDER BY v.sequence")?
        .query_and_then([], |row| {
            let started = serde_json::from_str(row.get_ref(1)?.as_str().map_err(damaged)?).map_err(damaged)?;
            Ok(OpenVisit { visit: VisitId(Uuid::from_bytes(row.get(0)?)), started })
        })?
        .collect()
}

/// One snapshot.
pub(super) fn snapshot(db: &Connection, id: SnapshotId) -> Result<Option<Snapshot>, StoreError> {
    db.prepare_cached(
        "SELECT camera, capture_time_us, subject, crop_jpeg, frame_jpeg FROM snapshots WHERE id = ?1 AND crop_sha256 IS NOT NULL",
    )?
    .query_and_then([id.0.into_bytes()], |row| {
        Ok(Snapshot {
            id,
            camera: CameraId::parse(row.get_ref(0)?.as_str().map_err(damaged)?).map_err(damaged)?,
            capture_time: Timestamp::from_micros(row.get(1)?),
            subject: row.get::<_, Option<[u8; 16]>>(2)?.map(|uid| SubjectUid(Uuid::from_bytes(uid))),
            crop_jpeg: row.get(3)?,
            frame_jpeg: row.get(4)?,
        })
    })?
    .next()
    .transpose()
}

/// Deletes some of what is too old and answers how many rows that were; 0 when nothing is left.
pub(super) fn prune_step(db: &Connection, before: Timestamp, answers_before: Timestamp) -> Result<usize, StoreError> {
    let events = db
        .prepare_cached(
            "DELETE FROM events WHERE sequence IN (
                 SELECT sequence FROM events
                 WHERE capture_time_us < ?1 AND sequence NOT IN (SELECT sequence FROM open_visits) LIMIT ?2)",
        )?
        .execute(params![before.as_micros(), PRUNED_AT_ONCE])?;
    let snapshots = db
        .prepare_cached("DELETE FROM snapshots WHERE number IN (SELECT number FROM snapshots WHERE capture_time_us < ?1 LIMIT ?2)")?
        .execute(params![before.as_micros(), SNAPSHOTS_PRUNED_AT_ONCE])?;
    let requests = db
        .prepare_cached("DELETE FROM requests WHERE key IN (SELECT key FROM requests WHERE time_us < ?1 LIMIT ?2)")?
        .execute(params![answers_before.as_micros(), PRUNED_AT_ONCE])?;
    Ok(events + snapshots + requests)
}

/// Opens or closes the event's visit.
fn follow_visit(db: &Connection, event: &Event, sequence: i64) -> Result<(), StoreError> {
    let Some(visit) = event.visit.map(|v| v.0.into_bytes()) else { return Ok(()) };
    match event.kind {
        EventKind::VisitStarted => {
            db.prepare_cached("INSERT INTO open_visits (visit, sequence) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET sequence = ?2")?
                .execute(params![visit, sequence])?;
        }
        EventKind::VisitEnded => {
            db.prepare_cached("DELETE FROM open_visits WHERE visit = ?1")?.execute([visit])?;
        }
        EventKind::Identified | EventKind::Unidentified | EventKind::CameraOnline | EventKind::CameraOffline => {}
    }
    Ok(())
}

/// Whether one of `subjects` was erased: a search may have found somebody who is gone by now.
fn is_of_erased(db: &Connection, subjects: [Option<SubjectUid>; 2]) -> Result<bool, StoreError> {
    let mut erased = db.prepare_cached("SELECT 1 FROM mutations WHERE kind = 'erase_subject' AND subject = ?1")?;
    for subject in subjects.into_iter().flatten() {
        if erased.exists([subject.0.into_bytes()])? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn put_snapshot(db: &Connection, snapshot: &Snapshot, crop_sha256: &[u8; 32]) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO snapshots (id, camera, capture_time_us, subject, crop_sha256, crop_jpeg, frame_jpeg)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        snapshot.id.0.into_bytes(),
        snapshot.camera.as_str(),
        snapshot.capture_time.as_micros(),
        snapshot.subject.map(|s| s.0.into_bytes()),
        crop_sha256,
        snapshot.crop_jpeg,
        snapshot.frame_jpeg
    ])?;
    Ok(())
}

fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::VisitStarted => "visit_started",
        EventKind::Identified => "identified",
        EventKind::Unidentified => "unidentified",
        EventKind::VisitEnded => "visit_ended",
        EventKind::CameraOnline => "camera_online",
        EventKind::CameraOffline => "camera_offline",
    }
}
