//! The log of events as rows, and the visits that they leave open.
//!
//! In: events in order. Out: their sequences; the same events from any place in the order; open
//! visits. Events are written once; retention cuts the log at its old end only.
//! Must not know: subscribers, pictures.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::{Event, EventKind, LoggedEvent, VisitId};
use crate::store::failure::damaged;
use crate::store::writer::Effect;
use crate::store::{Appended, LogSpan, OpenVisit, Past, RequestKey, Store, StoreError, Told, requests};

/// What a change of the gallery is called in its column.
const GALLERY_CHANGED: &str = "gallery_changed";

/// What an operator's word is called in its column.
const EVENT_CORRECTED: &str = "event_corrected";

/// The most corrections of one event that are told: what was said last counts.
const CORRECTIONS_MAX: usize = 100;

impl Store {
    /// Names this log; made when the database was created.
    pub fn epoch(&self) -> Uuid {
        self.0.epoch
    }

    /// The newest event's sequence, 0 before the first.
    pub async fn last_sequence(&self) -> Result<u64, StoreError> {
        self.0.readers.read(last_sequence).await
    }

    /// Which events are kept.
    pub async fn log_span(&self) -> Result<LogSpan, StoreError> {
        self.0.readers.read(span).await
    }

    /// At most `limit` kept events after `sequence`, in order, without gaps among them. The first is
    /// a later one than the next only if that is no longer kept.
    pub async fn events_after(&self, sequence: u64, limit: usize) -> Result<Vec<LoggedEvent>, StoreError> {
        let epoch = self.0.epoch;
        self.0.readers.read(move |db| after(db, (epoch, sequence), limit)).await
    }

    /// At most `limit` of the kept events that `past` asks for.
    pub async fn past_events(&self, past: Past, limit: usize) -> Result<Vec<LoggedEvent>, StoreError> {
        let epoch = self.0.epoch;
        self.0.readers.read(move |db| past_events(db, epoch, past, limit)).await
    }

    /// The gallery version that the newest event of a change told; `None` when none is kept.
    pub async fn last_gallery_change(&self) -> Result<Option<u64>, StoreError> {
        let epoch = self.0.epoch;
        self.0
            .readers
            .read(move |db| {
                let sql = "SELECT sequence, log_time_us, body FROM events WHERE kind = ?1 ORDER BY sequence DESC LIMIT 1";
                let mut newest = db.prepare_cached(sql)?;
                let mut found = newest.query_and_then([GALLERY_CHANGED], |row| logged(row, epoch))?;
                Ok(found.next().transpose()?.and_then(|logged| logged.event.gallery_version))
            })
            .await
    }

    /// What was told last of inference: that it failed, or that it was restored; `None` when neither is kept.
    pub async fn last_of_inference(&self) -> Result<Option<LoggedEvent>, StoreError> {
        let epoch = self.0.epoch;
        self.0
            .readers
            .read(move |db| {
                // In the words of the index.
                let sql = "SELECT sequence, log_time_us, body FROM events WHERE kind IN ('inference_failed', 'inference_restored')
                           ORDER BY sequence DESC LIMIT 1";
                let mut newest = db.prepare_cached(sql)?;
                let mut found = newest.query_and_then([], |row| logged(row, epoch))?;
                found.next().transpose()
            })
            .await
    }

    /// One event; `None` when it is not or no longer kept.
    pub async fn event(&self, sequence: u64) -> Result<Option<LoggedEvent>, StoreError> {
        let found = self.events_after(sequence.saturating_sub(1), 1).await?;
        Ok(found.into_iter().find(|logged| logged.sequence == sequence))
    }

    /// What operators said of an event since, oldest first: the last hundred that are kept.
    pub async fn corrections_of(&self, event: &LoggedEvent) -> Result<Vec<LoggedEvent>, StoreError> {
        let Some(visit) = event.event.visit else { return Ok(Vec::new()) };
        let (epoch, corrected) = (self.0.epoch, event.sequence);
        self.0
            .readers
            .read(move |db| {
                let sql = "SELECT sequence, log_time_us, body FROM events WHERE visit = ?1 AND kind = ?2 ORDER BY sequence";
                let mut of_visit = db.prepare_cached(sql)?;
                let found = of_visit.query_and_then(params![visit.0.into_bytes(), EVENT_CORRECTED], |row| logged(row, epoch))?;
                let mut said = found.collect::<Result<Vec<_>, _>>()?;
                said.retain(|logged| logged.event.corrects == Some(corrected));
                said.drain(..said.len().saturating_sub(CORRECTIONS_MAX));
                Ok(said)
            })
            .await
    }

    /// What is kept of a visit's events, oldest first.
    pub async fn events_of_visit(&self, visit: VisitId) -> Result<Vec<LoggedEvent>, StoreError> {
        let epoch = self.0.epoch;
        self.0
            .readers
            .read(move |db| {
                db.prepare_cached("SELECT sequence, log_time_us, body FROM events WHERE visit = ?1 ORDER BY sequence")?
                    .query_and_then([visit.0.into_bytes()], |row| logged(row, epoch))?
                    .collect()
            })
            .await
    }

    /// Appends durably in order, opening and closing visits as the kinds say; answers the first
    /// sequence. Concurrent appends share a sync (group commit).
    ///
    /// # Errors
    /// [`StoreError::Full`] and others; none of `events` is written then.
    pub async fn append_events(&self, events: Vec<Event>) -> Result<u64, StoreError> {
        self.append_events_then(events, Box::new(|_, _| ())).await
    }

    /// [`append_events`](Self::append_events), and calls `told` with where they stand and with them: after the
    /// commit, before the call is answered, on the writer's thread, in sequence order over all
    /// calls and without gaps, even when the caller no longer waits. It must not wait, and is
    /// not called when nothing was written.
    ///
    /// # Errors
    /// As [`append_events`](Self::append_events).
    pub async fn append_events_then(&self, events: Vec<Event>, told: Told) -> Result<u64, StoreError> {
        let events = prepare(events)?;
        let kept: Vec<_> = events.iter().map(|(event, _)| Arc::clone(event)).collect();
        let clock = Arc::clone(&self.0.clock);
        let work = move |db: &_| append(db, &events, clock.now());
        let appended = self.0.writer.write_then(Effect::Keeps, work, Box::new(move |appended| told(*appended, kept))).await?;
        Ok(appended.first)
    }

    /// Appends one event for a request, once: the request's answer is the event's sequence, eight bytes
    /// from the lowest, and what was asked. `told` as in [`append_events_then`](Self::append_events_then).
    ///
    /// # Errors
    /// [`StoreError::RequestRepeated`] for a key that is known; nothing is written then.
    pub async fn append_event_once(&self, event: Event, request: Option<RequestKey>, told: Told) -> Result<u64, StoreError> {
        let events = prepare(vec![event])?;
        let kept: Vec<_> = events.iter().map(|(event, _)| Arc::clone(event)).collect();
        let clock = Arc::clone(&self.0.clock);
        let work = move |db: &_| {
            requests::refuse_repeat(db, request.as_ref().map(|request| &*request.key))?;
            let appended = append(db, &events, clock.now())?;
            if let Some(RequestKey { key, asked }) = request {
                let answer = [&appended.first.to_le_bytes()[..], &asked].concat();
                requests::keep(db, (&key, answer, appended.time), &[])?;
            }
            Ok(appended)
        };
        let appended = self.0.writer.write_then(Effect::Keeps, work, Box::new(move |appended| told(*appended, kept))).await?;
        Ok(appended.first)
    }

    /// Waits in the writer's queue like any change, and changes nothing: for the watchdog.
    ///
    /// # Errors
    /// [`StoreError`] when the writer has stopped or the disk cannot be written.
    pub async fn pass_token(&self) -> Result<(), StoreError> {
        self.0.writer.write(Effect::Keeps, |_| Ok(())).await
    }

    /// Visits that were started and never ended, oldest first.
    pub async fn open_visits(&self) -> Result<Vec<OpenVisit>, StoreError> {
        self.0.readers.read(open_visits).await
    }
}

/// Does on the caller's thread what needs no database: answers each event with its body.
///
/// # Errors
/// [`StoreError::Contradiction`] for an event that could not be read again, such as one with a
/// similarity that is no number: it would stand in the way of every later reader.
fn prepare(events: Vec<Event>) -> Result<Vec<(Arc<Event>, String)>, StoreError> {
    let prepare = |event: Event| {
        if !event.is_finite() {
            return Err(StoreError::Contradiction("an event cannot be kept as it is: one of its numbers is none".into()));
        }
        let unwritable = |e: serde_json::Error| StoreError::Contradiction(format!("an event cannot be kept as it is: {e}"));
        let body = serde_json::to_string(&event).map_err(unwritable)?;
        debug_assert!(serde_json::from_str::<Event>(&body).is_ok(), "{body} cannot be read again");
        Ok((Arc::new(event), body))
    };
    events.into_iter().map(prepare).collect()
}

/// Writes `events` in order at `time` and answers where they stand.
fn append(db: &Connection, events: &[(Arc<Event>, String)], time: Timestamp) -> Result<Appended, StoreError> {
    let first = last_sequence(db)? + 1;
    let mut offset = end_offset(db)?;
    let mut insert = db.prepare_cached(
        "INSERT INTO events (kind, camera, capture_time_us, visit, subject, snapshot, body, log_time_us, log_offset)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    for (event, body) in events {
        insert.execute(params![
            kind_name(event.kind),
            &*event.camera,
            event.capture_time_us,
            event.visit.map(|v| v.0.into_bytes()),
            event.subject.map(|s| s.0.into_bytes()),
            event.snapshot.map(|s| s.0.into_bytes()),
            body,
            time.as_micros(),
            offset
        ])?;
        offset += i64::try_from(body.len()).unwrap_or(i64::MAX);
        follow_visit(db, event, body)?;
    }
    Ok(Appended { first, time })
}

/// The newest event's sequence, even when it was pruned since.
fn last_sequence(db: &Connection) -> Result<u64, StoreError> {
    let newest: Option<i64> =
        db.prepare_cached("SELECT max(seq) FROM sqlite_sequence WHERE name = 'events'")?.query_row([], |row| row.get(0))?;
    Ok(newest.unwrap_or_default().cast_unsigned())
}

/// Where in the log, in bytes of bodies, the next event begins.
pub(super) fn end_offset(db: &Connection) -> Result<i64, StoreError> {
    let mut newest = db.prepare_cached("SELECT log_offset + octet_length(body) FROM events ORDER BY sequence DESC LIMIT 1")?;
    Ok(newest.query_row([], |row| row.get(0)).optional()?.unwrap_or_default())
}

fn span(db: &Connection) -> Result<LogSpan, StoreError> {
    // One statement, so that both are of one moment.
    let mut ends =
        db.prepare_cached("SELECT (SELECT min(sequence) FROM events), (SELECT max(seq) FROM sqlite_sequence WHERE name = 'events')")?;
    let (oldest, newest) = ends.query_row([], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?)))?;
    let newest = newest.unwrap_or_default().cast_unsigned();
    Ok(LogSpan { oldest: oldest.map_or(newest + 1, i64::cast_unsigned), newest })
}

fn after(db: &Connection, (epoch, sequence): (Uuid, u64), limit: usize) -> Result<Vec<LoggedEvent>, StoreError> {
    let mut events = db.prepare_cached("SELECT sequence, log_time_us, body FROM events WHERE sequence > ?1 ORDER BY sequence LIMIT ?2")?;
    events.query_and_then(params![bounded(sequence), bounded(limit as u64)], |row| logged(row, epoch))?.collect()
}

fn past_events(db: &Connection, epoch: Uuid, past: Past, limit: usize) -> Result<Vec<LoggedEvent>, StoreError> {
    let order = if past.newest_first { "DESC" } else { "ASC" };
    let sql = format!(
        "SELECT sequence, log_time_us, body FROM events
         WHERE sequence > ?1 AND sequence < ?2 AND capture_time_us >= ?3 AND capture_time_us < ?4 ORDER BY sequence {order} LIMIT ?5"
    );
    let (since, until) = (past.since.as_micros(), past.until.as_micros());
    let asked = params![bounded(past.after), bounded(past.before), since, until, bounded(limit as u64)];
    db.prepare_cached(&sql)?.query_and_then(asked, |row| logged(row, epoch))?.collect()
}

/// SQLite's numbers are signed.
fn bounded(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn logged(row: &Row<'_>, epoch: Uuid) -> Result<LoggedEvent, StoreError> {
    let event: Event = serde_json::from_str(row.get_ref(2)?.as_str().map_err(damaged)?).map_err(damaged)?;
    let sequence = row.get::<_, i64>(0)?.cast_unsigned();
    Ok(LoggedEvent { sequence, epoch, log_time: Timestamp::from_micros(row.get(1)?), event: Arc::new(event) })
}

fn open_visits(db: &Connection) -> Result<Vec<OpenVisit>, StoreError> {
    db.prepare_cached("SELECT visit, body FROM open_visits ORDER BY sequence")?
        .query_and_then([], |row| {
            let began = serde_json::from_str(row.get_ref(1)?.as_str().map_err(damaged)?).map_err(damaged)?;
            Ok(OpenVisit { visit: VisitId(Uuid::from_bytes(row.get(0)?)), began })
        })?
        .collect()
}

/// Opens or closes the event's visit; the event was inserted just now.
fn follow_visit(db: &Connection, event: &Event, body: &str) -> Result<(), StoreError> {
    let Some(visit) = event.visit.map(|v| v.0.into_bytes()) else { return Ok(()) };
    match event.kind {
        EventKind::VisitStarted => {
            let sql =
                "INSERT INTO open_visits (visit, sequence, body) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET sequence = ?2, body = ?3";
            db.prepare_cached(sql)?.execute(params![visit, db.last_insert_rowid(), body])?;
        }
        EventKind::ZoneEntered => {
            // Where it was not told that the visit began, its stays are told to end all the same.
            let sql = "INSERT INTO open_visits (visit, sequence, body) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            db.prepare_cached(sql)?.execute(params![visit, db.last_insert_rowid(), body])?;
        }
        EventKind::ZoneLeft => {
            let sql = "DELETE FROM open_visits WHERE visit = ?1 AND json_extract(body, '$.kind') = ?2
                       AND (SELECT sum(CASE kind WHEN ?2 THEN 1 WHEN ?3 THEN -1 ELSE 0 END) FROM events WHERE visit = ?1) <= 0";
            db.prepare_cached(sql)?.execute(params![visit, kind_name(EventKind::ZoneEntered), kind_name(EventKind::ZoneLeft)])?;
        }
        EventKind::VisitEnded => {
            db.prepare_cached("DELETE FROM open_visits WHERE visit = ?1")?.execute([visit])?;
        }
        EventKind::Identified
        | EventKind::Unidentified
        | EventKind::IdentityRevised
        | EventKind::Reasserted
        | EventKind::Entry
        | EventKind::Exit
        | EventKind::EventCorrected
        | EventKind::GalleryChanged
        | EventKind::InferenceFailed
        | EventKind::InferenceRestored
        | EventKind::CameraOnline
        | EventKind::CameraOffline => {}
    }
    Ok(())
}

fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::VisitStarted => "visit_started",
        EventKind::Identified => "identified",
        EventKind::Unidentified => "unidentified",
        EventKind::IdentityRevised => "identity_revised",
        EventKind::Reasserted => "reasserted",
        EventKind::Entry => "entry",
        EventKind::Exit => "exit",
        EventKind::ZoneEntered => "zone_entered",
        EventKind::ZoneLeft => "zone_left",
        EventKind::VisitEnded => "visit_ended",
        EventKind::EventCorrected => EVENT_CORRECTED,
        EventKind::GalleryChanged => GALLERY_CHANGED,
        EventKind::InferenceFailed => "inference_failed",
        EventKind::InferenceRestored => "inference_restored",
        EventKind::CameraOnline => "camera_online",
        EventKind::CameraOffline => "camera_offline",
    }
}
