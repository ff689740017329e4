//! A camera's events on their way to the log, and their pictures behind them.
//!
//! In: what the scene told, with best shots, and whose earlier ones are. Out: events in the log, in order, and their pictures after them,
//! since drawing those takes longer than everything else and nobody at a door waits for it. While the disk is full they wait here
//! and recognition goes on; of too many the oldest are given up and counted.
//! Must not know: how the log writes.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::drawing::{Picture, Undrawn, split};
use super::scene::Pending;
use crate::event::{Event, SnapshotId};
use crate::event_log::{EventLog, EventLogError};
use crate::store::StoreError;
use crate::subject::SubjectUid;

/// How long events and pictures wait before they are offered to a full disk again.
const ROOM_WAIT: Duration = Duration::from_secs(1);
/// How many events of a camera wait for room on a full disk, and how many pictures. The oldest go first; each is counted.
const WAITING_MAX: usize = 4_096;
const WAITING_PICTURES_MAX: usize = 64;
/// How many best shots wait to be drawn, or are being drawn: each holds a frame.
const UNDRAWN_MAX: usize = 64;

/// Events that are on their way to the log, or wait for room there.
#[derive(Default)]
pub(super) struct Unwritten {
    events: VecDeque<Event>,
    /// Best shots of events that are in the log, or wait above.
    undrawn: VecDeque<Undrawn>,
    /// How many others are being drawn and kept, by one who does so at a time.
    drawing: usize,
    pictures: VecDeque<Picture>,
    /// Whether it was said that these find no room.
    is_waiting_told: bool,
    /// Pictures that went out as nobody's, and whose they are.
    named: Vec<(SnapshotId, SubjectUid)>,
    /// When a full disk is tried again, for events and for pictures.
    retry: Option<Instant>,
    retry_pictures: Option<Instant>,
    /// Whether the camera is watched no longer, so that what finds no room is lost.
    is_last: bool,
    lost: Lost,
}

/// What was given up.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Lost {
    events: usize,
    pictures: usize,
    names: usize,
}

impl Lost {
    fn tell(self, camera: &str, why: &str) {
        let Self { events, pictures, names } = self;
        if events + pictures + names > 0 {
            tracing::error!(camera, events, pictures, names, "events, their pictures, or whom these show, were lost: {why}");
        }
    }
}

impl Unwritten {
    /// Writes what the scene told, behind what waits, and takes note of whose pictures of earlier events are. Its pictures are still to
    /// be drawn.
    pub(super) async fn tell(
        &mut self,
        (told, named): (Vec<Pending>, Vec<(SnapshotId, SubjectUid)>),
        log: &EventLog,
    ) -> Result<(), EventLogError> {
        self.name(named);
        for pending in told {
            let (event, undrawn) = split(pending, log);
            self.events.push_back(event);
            self.undrawn.extend(undrawn);
        }
        let excess = (self.undrawn.len() + self.drawing).saturating_sub(UNDRAWN_MAX).min(self.undrawn.len());
        self.undrawn.drain(..excess);
        self.lost.pictures += excess;
        self.write_events(log).await
    }

    fn name(&mut self, named: Vec<(SnapshotId, SubjectUid)>) {
        for (id, subject) in &named {
            self.undrawn.iter_mut().for_each(|undrawn| undrawn.name(*id, *subject));
            for picture in self.pictures.iter_mut().filter(|picture| picture.snapshot.id == *id) {
                picture.snapshot.subject.get_or_insert(*subject);
            }
        }
        self.named.extend(named);
        let excess = self.named.len().saturating_sub(WAITING_MAX);
        self.named.drain(..excess);
        self.lost.names += excess;
    }

    /// What is to be drawn now; then [`drawn`](Self::drawn) has to follow. None while another draws, who comes back for it.
    pub(super) fn begin_drawing(&mut self) -> Vec<Undrawn> {
        if self.drawing > 0 {
            return Vec::new();
        }
        self.drawing = self.undrawn.len();
        self.undrawn.drain(..).collect()
    }

    /// Whether the events of pictures that are drawn are in the log, so that they can be kept.
    pub(super) fn has_told_all(&self) -> bool {
        self.events.is_empty()
    }

    /// What was to be drawn is drawn; these found no room yet.
    pub(super) fn drawn(&mut self, unkept: Vec<Picture>) {
        self.drawing = 0;
        self.pictures.extend(unkept);
        let excess = self.pictures.len().saturating_sub(WAITING_PICTURES_MAX);
        self.pictures.drain(..excess);
        self.lost.pictures += excess;
    }

    /// Whether nothing is to be drawn, waits, or is to be told as lost.
    pub(super) fn is_settled(&self) -> bool {
        let is_empty = self.events.is_empty() && self.undrawn.is_empty() && self.pictures.is_empty() && self.named.is_empty();
        is_empty && self.lost == Lost::default()
    }

    /// Writes what waits for the last time; what still finds no room is lost, and told. Who draws meanwhile does the same with what
    /// comes of it.
    pub(super) async fn write_or_lose(&mut self, log: &EventLog, camera: &str) -> Result<(), EventLogError> {
        self.is_last = true;
        while self.write(log, camera).await? {}
        Ok(())
    }

    /// Writes what waits, in order, but of pictures one; on a full disk it goes on waiting, and is not tried at every frame. Answers
    /// whether more can be written at once.
    pub(super) async fn write(&mut self, log: &EventLog, camera: &str) -> Result<bool, EventLogError> {
        if self.is_last {
            (self.retry, self.retry_pictures) = (None, None);
        }
        self.write_events(log).await?;
        // Of an event that is not in the log no picture is kept.
        if self.events.is_empty() && self.write_picture(log, camera).await? {
            return Ok(true);
        }
        let is_all_written = self.events.is_empty() && self.pictures.is_empty();
        // A picture has to be there before it is named.
        if is_all_written && self.undrawn.is_empty() && self.drawing == 0 && self.name_kept(log).await? {
            std::mem::take(&mut self.lost).tell(camera, "more came than wait while the disk is full, or than the machine can draw");
        }
        // Whoever draws comes back for what is still to be drawn.
        if self.is_last && self.drawing == 0 && self.undrawn.is_empty() {
            self.lose_rest(camera);
        }
        Ok(false)
    }

    fn lose_rest(&mut self, camera: &str) {
        let Self { events, undrawn, pictures, named, lost, .. } = std::mem::replace(self, Self { is_last: true, ..Self::default() });
        let lost = Lost {
            events: lost.events + events.len(),
            pictures: lost.pictures + undrawn.len() + pictures.len(),
            names: lost.names + named.len(),
        };
        lost.tell(camera, "the disk is full or the machine too slow, and the camera is watched no longer");
    }

    async fn write_events(&mut self, log: &EventLog) -> Result<(), EventLogError> {
        if self.events.is_empty() || self.retry.is_some_and(|retry| Instant::now() < retry) {
            self.give_up_oldest();
            return Ok(());
        }
        if has_room(log.append(self.events.iter().cloned().collect()).await)? {
            self.events.clear();
            self.retry = None;
        } else {
            self.retry = Some(Instant::now() + ROOM_WAIT);
            self.give_up_oldest();
        }
        Ok(())
    }

    fn give_up_oldest(&mut self) {
        let excess = self.events.len().saturating_sub(WAITING_MAX);
        self.events.drain(..excess);
        self.lost.events += excess;
    }

    /// Writes the picture that waited longest; room for one is not room for all. Answers whether there are more.
    async fn write_picture(&mut self, log: &EventLog, camera: &str) -> Result<bool, EventLogError> {
        if self.retry_pictures.is_some_and(|retry| Instant::now() < retry) {
            return Ok(false);
        }
        if let Some(picture) = self.pictures.front() {
            if !has_room(log.put_snapshots(vec![(picture.event.clone(), picture.snapshot.clone())]).await)? {
                self.retry_pictures = Some(Instant::now() + ROOM_WAIT);
                if !std::mem::replace(&mut self.is_waiting_told, true) {
                    tracing::error!(camera, "there is no room for pictures: they wait, and events are told without them");
                }
                return Ok(false);
            }
            self.pictures.pop_front();
        }
        (self.retry_pictures, self.is_waiting_told) = (None, false);
        Ok(!self.pictures.is_empty())
    }

    /// Whether all are named that were to be.
    async fn name_kept(&mut self, log: &EventLog) -> Result<bool, EventLogError> {
        if self.named.is_empty() {
            return Ok(true);
        }
        let has_room = has_room(log.name_snapshots(self.named.clone()).await)?;
        if has_room {
            self.named.clear();
        }
        Ok(has_room)
    }
}

/// Whether the disk took it.
fn has_room(written: Result<(), EventLogError>) -> Result<bool, EventLogError> {
    match written {
        Err(EventLogError::Store(StoreError::Full)) => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::CameraId;
    use crate::clock::Timestamp;
    use crate::event::EventKind;
    use crate::store::{Snapshot, Store};
    use crate::telemetry::tests::Lines;

    const ID: SnapshotId = SnapshotId(uuid::Uuid::from_u128(1));
    const ANNA: SubjectUid = SubjectUid(uuid::Uuid::from_u128(2));

    async fn open() -> (tempfile::TempDir, Store, EventLog) {
        let directory = tempfile::tempdir().expect("a folder");
        let store = Store::open(directory.path()).expect("it opens");
        let log = EventLog::open(store.clone(), 16).await.expect("it opens");
        (directory, store, log)
    }

    fn event() -> Event {
        Event { snapshot: Some(ID), ..Event::new(EventKind::Unidentified, "door", Timestamp::default()) }
    }

    fn picture(log: &EventLog, bytes: usize) -> Picture {
        let camera = CameraId::parse("door").expect("a good id");
        let capture_time = Timestamp::default();
        let snapshot = Snapshot { id: ID, camera, capture_time, subject: None, crop_jpeg: vec![1; bytes], frame_jpeg: Vec::new() };
        Picture { event: event(), snapshot, _coming: log.coming(vec![ID]) }
    }

    async fn subject_of_kept(store: &Store) -> Option<Option<SubjectUid>> {
        store.snapshot(ID).await.expect("it is readable").map(|kept| kept.subject)
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_room_is_written_when_its_camera_goes_although_it_is_not_due_to_be_tried() {
        let (_directory, store, log) = open().await;
        let mut event = event();
        event.message = Some("x".repeat(1 << 20));
        let mut unwritten = Unwritten { events: VecDeque::from([event]), ..Unwritten::default() };
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
        let (_directory, store, log) = open().await;
        let mut unwritten = Unwritten { events: VecDeque::from([event()]), ..Unwritten::default() };
        unwritten.drawn(vec![picture(&log, 1)]);
        unwritten.write(&log, "door").await.expect("written");
        assert_eq!(subject_of_kept(&store).await, Some(None));
        unwritten.tell((Vec::new(), vec![(ID, ANNA)]), &log).await.expect("nothing to write");
        unwritten.write(&log, "door").await.expect("written");
        assert_eq!(subject_of_kept(&store).await, Some(Some(ANNA)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_picture_that_finds_no_room_holds_up_no_event_and_is_of_whom_its_visit_turned_out_to_be() {
        let (_directory, store, log) = open().await;
        let mut unwritten = Unwritten { events: VecDeque::from([event()]), ..Unwritten::default() };
        unwritten.drawn(vec![picture(&log, 1 << 20)]);
        store.limit_growth(Some(2)).await;
        unwritten.write(&log, "door").await.expect("the picture waits");
        unwritten.tell((Vec::new(), vec![(ID, ANNA)]), &log).await.expect("nothing to write");
        unwritten.events.push_back(event());
        unwritten.write(&log, "door").await.expect("the picture waits");
        assert_eq!((log.position().sequence, *log.disk_full().borrow()), (2, false), "events have room");
        assert_eq!(store.snapshot(ID).await, Err(StoreError::NotYet), "it is neither there nor gone");
        store.limit_growth(None).await;
        unwritten.write_or_lose(&log, "door").await.expect("written");
        assert_eq!(subject_of_kept(&store).await, Some(Some(ANNA)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_named_in_a_picture_that_is_still_being_drawn_and_then_it_is() {
        let (_directory, store, log) = open().await;
        let mut unwritten = Unwritten { events: VecDeque::from([event()]), drawing: 1, ..Unwritten::default() };
        unwritten.tell((Vec::new(), vec![(ID, ANNA)]), &log).await.expect("written");
        unwritten.write_or_lose(&log, "door").await.expect("it waits for who draws");
        unwritten.drawn(vec![picture(&log, 1)]);
        unwritten.write(&log, "door").await.expect("written");
        assert_eq!(subject_of_kept(&store).await, Some(Some(ANNA)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_picture_that_is_drawn_while_its_camera_goes_and_finds_no_room_is_told_as_lost_once() {
        let (_directory, store, log) = open().await;
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let mut unwritten = Unwritten { events: VecDeque::from([event()]), drawing: 1, ..Unwritten::default() };
        unwritten.write_or_lose(&log, "door").await.expect("the event is written, and somebody draws");
        store.limit_growth(Some(0)).await;
        let lost = || lines.text().lines().filter(|line| line.contains("were lost")).map(ToOwned::to_owned).collect::<Vec<_>>();
        assert!(lost().is_empty(), "there may be room for the picture");
        unwritten.drawn(vec![picture(&log, 1 << 20)]);
        assert!(!unwritten.is_settled(), "who has drawn it writes what is left");
        unwritten.write(&log, "door").await.expect("there is no room");
        unwritten.write(&log, "door").await.expect("nothing is left");
        let lost = lost();
        let [line] = lost.as_slice() else { panic!("{lost:?}") };
        assert!(line.contains("ERROR") && line.contains("camera=\"door\" events=0 pictures=1 names=0"), "{line}");
        assert_eq!(store.snapshot(ID).await, Ok(None), "nobody waits for it any more");
    }

    #[tokio::test(start_paused = true)]
    async fn pictures_that_waited_are_written_one_at_a_time_so_that_events_have_their_turn() {
        let (_directory, store, log) = open().await;
        let mut unwritten = Unwritten { events: VecDeque::from([event()]), ..Unwritten::default() };
        let other = SnapshotId(uuid::Uuid::from_u128(3));
        let mut second = picture(&log, 1);
        second.snapshot.id = other;
        unwritten.drawn(vec![picture(&log, 1), second]);
        assert_eq!(unwritten.write(&log, "door").await, Ok(true), "one is written, and there is another");
        assert!(store.snapshot(other).await.is_ok_and(|kept| kept.is_none()), "its turn is the next");
        assert_eq!(unwritten.write(&log, "door").await, Ok(false));
        assert!(unwritten.is_settled());
    }
}
