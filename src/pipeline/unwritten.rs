//! A camera's events on their way to the log.
//!
//! In: what the scene told, with best shots, and whose earlier ones are. Out: events in the log, in order, and their pictures after them,
//! since drawing those takes longer than everything else and nobody at a door waits for it. While the disk is full they wait here
//! and recognition goes on; of too many the oldest are given up and counted.
//! Must not know: how the log writes.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::PipelineError;
use super::best_shots::BestShot;
use super::scene::Pending;
use crate::event::{Event, SnapshotId};
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
    /// Pictures of events that are in the log.
    pictures: VecDeque<(Event, Snapshot)>,
    /// Pictures that went out as nobody's, and whose they are.
    named: Vec<(SnapshotId, SubjectUid)>,
    /// When a full disk is tried again.
    retry: Option<Instant>,
    lost: u64,
    /// Pictures of events in the log that were given up.
    unkept: u64,
    /// Pictures whose names were given up.
    unnamed: u64,
}

impl Unwritten {
    /// Writes what the scene told behind what waits. Its pictures are drawn when it is in the log, and who asks for one waits for it.
    pub(super) async fn tell(&mut self, told: Vec<Pending>, log: &EventLog, camera: &str) -> Result<(), PipelineError> {
        let _coming = log.coming(told.iter().filter_map(|told| Some(told.picture.as_ref()?.0)).collect());
        let is_in_log = self.events.is_empty() && self.put_before_pictures(&told, log).await?;
        let drawn_for = camera.to_owned();
        let draw_all = move || told.into_iter().map(|told| draw(told, &drawn_for)).collect::<Vec<_>>();
        let drawn = tokio::task::spawn_blocking(draw_all).await?;
        if is_in_log {
            self.pictures.extend(drawn.into_iter().filter_map(|drawn| Some((drawn.event, drawn.snapshot?))));
            let excess = self.pictures.len().saturating_sub(WAITING_PICTURES_MAX);
            self.pictures.drain(..excess);
            self.unkept += excess as u64;
        } else {
            self.wait(drawn);
        }
        Ok(self.write(log, camera).await?)
    }

    /// Whether the events are in the log now; else the disk is full.
    async fn put_before_pictures(&mut self, told: &[Pending], log: &EventLog) -> Result<bool, EventLogError> {
        let events = told.iter().map(|told| NewEvent { event: told.event.clone(), snapshot: None });
        match log.append(events.collect()).await {
            Err(EventLogError::Store(StoreError::Full)) => {
                self.retry = Some(Instant::now() + ROOM_WAIT);
                Ok(false)
            }
            outcome => outcome.map(|()| true),
        }
    }

    /// Takes note of whose pictures of earlier events are.
    pub(super) fn name(&mut self, named: Vec<(SnapshotId, SubjectUid)>) {
        self.named.extend(named);
        let unnamed = self.named.len().saturating_sub(WAITING_MAX);
        self.named.drain(..unnamed);
        self.unnamed += unnamed as u64;
    }

    /// Lets events wait for room; of too many the oldest are given up, and pictures before that.
    fn wait(&mut self, events: Vec<NewEvent>) {
        self.events.extend(events);
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
        let (lost, unkept) = (self.lost + self.events.len() as u64, self.unkept + self.pictures.len() as u64);
        let unnamed = self.unnamed + self.named.len() as u64;
        if lost + unkept + unnamed > 0 {
            tracing::error!(
                camera,
                lost,
                unkept,
                unnamed,
                "events, their pictures, or whom these show, were lost: the disk is full, and the camera is watched no longer"
            );
        }
        *self = Self::default();
        Ok(())
    }

    /// Writes what waits, in order; on a full disk it goes on waiting, and is not tried at every frame.
    pub(super) async fn write(&mut self, log: &EventLog, camera: &str) -> Result<(), EventLogError> {
        let is_all_written = self.events.is_empty() && self.pictures.is_empty() && self.named.is_empty();
        if is_all_written || self.retry.is_some_and(|retry| Instant::now() < retry) {
            return Ok(());
        }
        match self.try_to_write(log).await {
            Err(EventLogError::Store(StoreError::Full)) => {
                self.retry = Some(Instant::now() + ROOM_WAIT);
                return Ok(());
            }
            outcome => outcome?,
        }
        if self.lost + self.unkept + self.unnamed > 0 {
            let Self { lost, unkept, unnamed, .. } = *self;
            tracing::error!(
                camera,
                lost,
                unkept,
                unnamed,
                "events, their pictures, or whom these show, were lost while the disk was full: more came than wait for room"
            );
        }
        *self = Self::default();
        Ok(())
    }

    /// What is written is forgotten here. Pictures are there before they are named.
    async fn try_to_write(&mut self, log: &EventLog) -> Result<(), EventLogError> {
        log.append(self.events.iter().cloned().collect()).await?;
        self.events.clear();
        log.put_snapshots(self.pictures.iter().cloned().collect()).await?;
        self.pictures.clear();
        log.name_snapshots(self.named.clone()).await
    }
}

/// Makes the pictures of an event; one that cannot be made is left out and said so.
fn draw(pending: Pending, camera: &str) -> NewEvent {
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
        unwritten.wait(vec![NewEvent { event, snapshot: None }]);
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
        unwritten.wait(vec![NewEvent { event, snapshot: Some(pictures) }]);
        unwritten.write(&log, "door").await.expect("written");
        unwritten.name(vec![(id, anna)]);
        unwritten.write(&log, "door").await.expect("written");
        assert_eq!(store.snapshot(id).await.map(|kept| kept.and_then(|kept| kept.subject)), Ok(Some(anna)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_picture_that_finds_no_room_after_its_event_waits_and_is_named_then() {
        let directory = tempfile::tempdir().expect("a folder");
        let store = Store::open(directory.path()).expect("it opens");
        let log = EventLog::open(store.clone(), 16).await.expect("it opens");
        let (id, anna) = (SnapshotId(uuid::Uuid::from_u128(1)), SubjectUid(uuid::Uuid::from_u128(2)));
        let camera = crate::camera::CameraId::parse("door").expect("a good id");
        let capture_time = Timestamp::default();
        let picture = Snapshot { id, camera, capture_time, subject: None, crop_jpeg: vec![1; 1 << 20], frame_jpeg: Vec::new() };
        let event = Event { snapshot: Some(id), ..Event::new(EventKind::Unidentified, "door", capture_time) };
        log.append(vec![NewEvent { event: event.clone(), snapshot: None }]).await.expect("written");
        let mut unwritten = Unwritten { pictures: VecDeque::from([(event, picture)]), ..Unwritten::default() };
        unwritten.name(vec![(id, anna)]);
        store.limit_growth(Some(0)).await;
        unwritten.write(&log, "door").await.expect("it waits");
        assert_eq!(store.snapshot(id).await, Ok(None));
        store.limit_growth(None).await;
        unwritten.write_or_lose(&log, "door").await.expect("written");
        assert_eq!(store.snapshot(id).await.map(|kept| kept.and_then(|kept| kept.subject)), Ok(Some(anna)));
    }
}
