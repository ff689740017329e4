//! Best shots as rows.
//!
//! In: the pictures of events, after them; whom earlier ones turned out to show. Out: the same pictures, until they
//! are too old or whom they show is erased; who asks for one that is on its way waits for it. Drops: pictures of a subject who
//! was erased before they came; counted.
//! Must not know: JPEG.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, params};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::{Event, SnapshotId};
use crate::frame::CameraId;
use crate::store::failure::damaged;
use crate::store::writer::Effect;
use crate::store::{Counts, Snapshot, Store, StoreError};
use crate::subject::SubjectUid;

/// How long a picture that is on its way is waited for: far longer than it takes where there is room for it.
const COMING_WAIT_MAX: Duration = Duration::from_secs(5);

/// Pictures that are on their way: their events may be told before they are kept. Until this is dropped, who asks for one waits.
#[derive(Debug)]
pub struct Coming {
    all: watch::Sender<HashSet<SnapshotId>>,
    these: Vec<SnapshotId>,
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.all.send_modify(|all| all.retain(|id| !self.these.contains(id)));
    }
}

impl Store {
    /// One snapshot; `None` when it was never kept, was erased, or is too old. One that is on its way is waited for.
    ///
    /// # Errors
    /// [`StoreError::NotYet`] when it does not come within seconds.
    pub async fn snapshot(&self, id: SnapshotId) -> Result<Option<Snapshot>, StoreError> {
        let mut coming = self.0.coming.subscribe();
        let comes = coming.wait_for(|coming| !coming.contains(&id));
        // The sender lives as long as the store.
        let _ = tokio::time::timeout(COMING_WAIT_MAX, comes).await.map_err(|_| StoreError::NotYet)?;
        self.0.readers.read(move |db| snapshot(db, id)).await
    }

    /// Says that these pictures are on their way.
    pub fn coming(&self, these: Vec<SnapshotId>) -> Coming {
        self.0.coming.send_modify(|all| all.extend(&these));
        Coming { all: self.0.coming.clone(), these }
    }

    /// Keeps pictures of events that are in the log already.
    ///
    /// # Errors
    /// [`StoreError::Full`] and others; none of them is kept then.
    pub async fn put_snapshots(&self, pictures: Vec<(Event, Snapshot)>) -> Result<(), StoreError> {
        if pictures.is_empty() {
            return Ok(());
        }
        let counts = Arc::clone(&self.0.counts);
        let pictures: Vec<_> = pictures.into_iter().map(|(event, snapshot)| (event, hashed(snapshot))).collect();
        let work = move |db: &_| pictures.iter().try_for_each(|(event, snapshot)| put(db, snapshot, event, &counts));
        self.0.writer.write(Effect::KeepsAlone, work).await
    }

    /// Says of pictures that were kept as nobody's whom their visits turned out to be of, so that they go with that person. Those of
    /// somebody who was erased meanwhile go now.
    pub async fn name_snapshots(&self, named: Vec<(SnapshotId, SubjectUid)>) -> Result<(), StoreError> {
        if named.is_empty() {
            return Ok(());
        }
        let erased = self.0.writer.write(Effect::Keeps, move |db| name(db, &named)).await?;
        if erased > 0 { self.0.writer.write(Effect::Erases, |_| Ok(())).await } else { Ok(()) }
    }
}

/// Answers how many pictures were of somebody who is erased.
fn name(db: &Connection, named: &[(SnapshotId, SubjectUid)]) -> Result<usize, StoreError> {
    let mut label = db.prepare_cached("UPDATE snapshots SET subject = ?2 WHERE id = ?1 AND subject IS NULL AND crop_sha256 IS NOT NULL")?;
    let mut erase =
        db.prepare_cached("UPDATE snapshots SET subject = NULL, crop_sha256 = NULL, crop_jpeg = x'', frame_jpeg = x'' WHERE id = ?1")?;
    let mut erased = 0;
    for (id, subject) in named {
        if is_of_erased(db, [Some(*subject), None, None])? {
            erased += erase.execute([id.0.into_bytes()])?;
        } else {
            label.execute([id.0.into_bytes(), subject.0.into_bytes()])?;
        }
    }
    Ok(erased)
}

fn snapshot(db: &Connection, id: SnapshotId) -> Result<Option<Snapshot>, StoreError> {
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

/// With the SHA-256 of the crop, by which a sample made of it is known.
fn hashed(snapshot: Snapshot) -> (Snapshot, [u8; 32]) {
    let hash = Sha256::digest(&snapshot.crop_jpeg).into();
    (snapshot, hash)
}

/// Keeps the pictures of `event`, given with the SHA-256 of the crop.
fn put(db: &Connection, (snapshot, crop_sha256): &(Snapshot, [u8; 32]), event: &Event, counts: &Counts) -> Result<(), StoreError> {
    // One that comes after its event was cut from the log would be tied to nobody.
    let mut is_told = db.prepare_cached("SELECT 1 FROM events WHERE snapshot = ?1")?;
    if !is_told.exists([snapshot.id.0.into_bytes()])? {
        return Ok(());
    }
    if is_of_erased(db, [event.subject, event.previous_subject, snapshot.subject])? || is_of_visit_of_erased(db, event)? {
        counts.snapshots_of_erased.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
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

/// Whether one of `subjects` was erased: a search may have found somebody who is gone by now.
fn is_of_erased(db: &Connection, subjects: [Option<SubjectUid>; 3]) -> Result<bool, StoreError> {
    let mut erased = db.prepare_cached("SELECT 1 FROM mutations WHERE kind = 'erase_subject' AND subject = ?1")?;
    for subject in subjects.into_iter().flatten() {
        if erased.exists([subject.0.into_bytes()])? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the visit was taken for somebody's who was erased since, or a picture of it was erased with somebody: then whoever is still
/// before the camera, without a name by now, is most likely that person.
fn is_of_visit_of_erased(db: &Connection, event: &Event) -> Result<bool, StoreError> {
    let Some(visit) = event.visit else { return Ok(false) };
    let mut of_erased = db.prepare_cached(
        "SELECT 1 FROM events e JOIN mutations m ON m.subject = e.subject AND m.kind = 'erase_subject' WHERE e.visit = ?1
         UNION ALL
         SELECT 1 FROM events e JOIN snapshots s ON s.id = e.snapshot AND s.crop_sha256 IS NULL WHERE e.visit = ?1",
    )?;
    Ok(of_erased.exists([visit.0.into_bytes()])?)
}
