//! A camera's events on their way to the log.
//!
//! In: what the scene told, with best shots, and whose earlier ones are. Out: events in the log, in order, with their pictures. While
//! the disk is full they wait here and recognition goes on; of too many the oldest are given up and counted.
//! Must not know: how the log writes.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::best_shots::BestShot;
use super::scene::Pending;
use crate::event::SnapshotId;
use crate::event_log::{EventLog, EventLogError};
use crate::picture::{self, Shown};
use crate::store::{NewEvent, Snapshot, StoreError};
use crate::subject::SubjectUid;

/// How long events wait before they are offered to a full disk again.
const ROOM_WAIT: Duration = Duration::from_secs(1);
/// How many events of a camera wait for room on a full disk, and how many of them with their pictures.
/// The oldest go first; each is counted.
const WAITING_MAX: usize = 4_096;
const WAITING_PICTURES_MAX: usize = 64;
/// Events that are on their way to the log, or wait for room there.
#[derive(Default)]
pub(super) struct Unwritten {
    events: VecDeque<NewEvent>,
    /// Pictures that went out as nobody's, and whose they are.
    named: Vec<(SnapshotId, SubjectUid)>,
    /// When a full disk is tried again.
    retry: Option<Instant>,
    lost: u64,
    /// Pictures whose names were given up.
    unnamed: u64,
}

impl Unwritten {
    /// Adds events; of too many the oldest are given up, and pictures before that. And whose pictures of earlier events are.
    pub(super) fn add(&mut self, events: Vec<NewEvent>, named: Vec<(SnapshotId, SubjectUid)>) {
        self.events.extend(events);
        self.named.extend(named);
        let unnamed = self.named.len().saturating_sub(WAITING_MAX);
        self.named.drain(..unnamed);
        self.unnamed += unnamed as u64;
        let excess = self.events.len().saturating_sub(WAITING_MAX);
        self.events.drain(..excess);
        self.lost += excess as u64;
        let without = self.events.len().saturating_sub(WAITING_PICTURES_MAX);
        for new in self.events.iter_mut().take(without) {
            new.event.snapshot = new.event.snapshot.filter(|_| new.snapshot.take().is_none());
        }
    }

    /// Writes what waits for the last time; what still finds no room is lost, and told.
    pub(super) async fn write_or_lose(&mut self, log: &EventLog, camera: &str) -> Result<(), EventLogError> {
        self.retry = None;
        self.write(log, camera).await?;
        let (lost, unnamed) = (self.lost + self.events.len() as u64, self.unnamed + self.named.len() as u64);
        if lost + unnamed > 0 {
            tracing::error!(
                camera,
                lost,
                unnamed,
                "events, or whom kept pictures show, were lost: the disk is full, and the camera is watched no longer"
            );
        }
        *self = Self::default();
        Ok(())
    }

    /// Writes what waits, in order; on a full disk it goes on waiting, and is not tried at every frame.
    pub(super) async fn write(&mut self, log: &EventLog, camera: &str) -> Result<(), EventLogError> {
        if (self.events.is_empty() && self.named.is_empty()) || self.retry.is_some_and(|retry| Instant::now() < retry) {
            return Ok(());
        }
        let written = match log.append(self.events.iter().cloned().collect()).await {
            Ok(()) => {
                self.events.clear();
                log.name_snapshots(self.named.clone()).await
            }
            full => full,
        };
        match written {
            Err(EventLogError::Store(StoreError::Full)) => {
                self.retry = Some(Instant::now() + ROOM_WAIT);
                return Ok(());
            }
            outcome => outcome?,
        }
        if self.lost + self.unnamed > 0 {
            let Self { lost, unnamed, .. } = *self;
            tracing::error!(
                camera,
                lost,
                unnamed,
                "events, or whom kept pictures show, were lost while the disk was full: more came than wait for room"
            );
        }
        *self = Self::default();
        Ok(())
    }
}

/// Makes the pictures of an event; one that cannot be made is left out and said so.
pub(super) fn draw(pending: Pending, camera: &str) -> NewEvent {
    let Pending { mut event, picture } = pending;
    let snapshot = picture.and_then(|(id, shot)| {
        let shown = Shown { face: &shot.rect, others: &shot.others, unseen: &shot.unseen };
        let whole = |shot: &BestShot| if shot.keeps_frame { picture::blurred_frame_jpeg(&shot.frame, shown) } else { Ok(Vec::new()) };
        let jpegs = picture::crop_jpeg(&shot.frame, shown).and_then(|crop| Ok((crop, whole(&shot)?)));
        match jpegs {
            Ok((crop_jpeg, frame_jpeg)) => {
                let (camera, capture_time) = (shot.frame.camera.clone(), shot.frame.capture_time);
                Some(Snapshot { id, camera, capture_time, subject: event.subject.or(shot.subject), crop_jpeg, frame_jpeg })
            }
            Err(error) => {
                tracing::warn!(%error, camera, "a best shot could not be kept");
                event.snapshot = None;
                None
            }
        }
    });
    NewEvent { event, snapshot }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::event::{Event, EventKind};
    use crate::store::Store;

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_room_is_written_when_its_camera_goes_although_it_is_not_due_to_be_tried() {
        let directory = tempfile::tempdir().expect("a folder");
        let store = Store::open(directory.path()).expect("it opens");
        let log = EventLog::open(store.clone(), 16).await.expect("it opens");
        let mut event = Event::new(EventKind::VisitEnded, "door", Timestamp::default());
        event.message = Some("x".repeat(1 << 20));
        let mut unwritten = Unwritten::default();
        unwritten.add(vec![NewEvent { event, snapshot: None }], Vec::new());
        store.limit_growth(Some(0)).await;
        unwritten.write(&log, "door").await.expect("it waits");
        store.limit_growth(None).await;
        unwritten.write(&log, "door").await.expect("it waits");
        assert_eq!(log.position().sequence, 0, "the disk was tried a moment ago");
        unwritten.write_or_lose(&log, "door").await.expect("written");
        assert_eq!(log.position().sequence, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn pictures_get_their_names_though_no_event_comes_with_them() {
        let directory = tempfile::tempdir().expect("a folder");
        let store = Store::open(directory.path()).expect("it opens");
        let log = EventLog::open(store.clone(), 16).await.expect("it opens");
        let (id, anna) = (SnapshotId(uuid::Uuid::from_u128(1)), SubjectUid(uuid::Uuid::from_u128(2)));
        let camera = crate::camera::CameraId::parse("door").expect("a good id");
        let pictures =
            Snapshot { id, camera, capture_time: Timestamp::default(), subject: None, crop_jpeg: vec![1], frame_jpeg: Vec::new() };
        let event = Event { snapshot: Some(id), ..Event::new(EventKind::Unidentified, "door", Timestamp::default()) };
        let mut unwritten = Unwritten::default();
        unwritten.add(vec![NewEvent { event, snapshot: Some(pictures) }], Vec::new());
        unwritten.write(&log, "door").await.expect("written");
        unwritten.add(Vec::new(), vec![(id, anna)]);
        unwritten.write(&log, "door").await.expect("written");
        assert_eq!(store.snapshot(id).await.map(|kept| kept.and_then(|kept| kept.subject)), Ok(Some(anna)));
    }
}
