//! Cameras, credentials, events, visits and snapshots come back as they went in.
//!
//! In: values. Out: verdicts. Must not know: subscribers, sources.

use std::sync::Arc;
use std::time::Duration;

use url::Url;
use uuid::Uuid;

use super::{keyed, no_answer, started, store};
use crate::camera::{Camera, CameraId, Credential, NormalisedPoint, NormalisedRect, Region, Role, Secret, Transport};
use crate::clock::{Clock, SimulatedClock, Timestamp};
use crate::event::{BoxInFrame, Candidate, Decision, Event, EventKind, Purpose, SnapshotId, TrackId, VisitId};
use crate::store::writer::Effect;
use crate::store::{CredentialChange, LogSpan, OpenVisit, Past, RequestKey, Retention, Snapshot, Store, StoreError, schema};
use crate::subject::SubjectUid;
use crate::telling::{EventRule, SnapshotPolicy, Telling};

fn id(text: &str) -> CameraId {
    CameraId::parse(text).expect("a good id")
}

fn request(key: &str, asked: u8) -> Option<RequestKey> {
    Some(RequestKey { key: key.into(), asked: [asked; 32] })
}

pub(super) fn camera(name: &str) -> Camera {
    let point = |x, y| NormalisedPoint { x, y };
    Camera {
        id: id(name),
        url: Url::parse("rtsps://10.0.0.7:8554/stream?profile=1").expect("a good URL"),
        has_credential: false,
        display_name: "Front \"door\"".into(),
        role: Role::Entry,
        telling: Telling {
            actionable_ms: Some(900),
            snapshots: SnapshotPolicy::Crop,
            blur_others: true,
            rules: vec![EventRule { types: vec![EventKind::Entry], days: vec![6, 7], from_minute: 60, until_minute: 59 }],
        },
        transport: Transport::Udp,
        lines: vec![Region { name: "threshold".into(), points: vec![point(0.1, 0.2), point(1.0, 1.0 / 3.0)] }],
        zones: vec![Region { name: "mat".into(), points: vec![point(0.0, 0.0), point(0.3, 0.0), point(0.3, 0.7)] }],
        analysis_fps_max: Some(7.3),
        detector_side: Some(640),
        region_of_interest: Some(NormalisedRect { x: 0.1, y: 0.2, width: 0.3, height: 0.7 }),
        face_pixels_min: 40,
        threshold: Some(0.363),
        target_fpir: Some(1e-4),
        enabled: true,
        create_time: Timestamp::from_micros(1),
        update_time: Timestamp::from_micros(-2),
        revision: u64::MAX,
    }
}

#[tokio::test]
async fn cameras_come_back_as_they_were_configured() {
    let (directory, store) = store();
    let plain = Camera {
        role: Role::Interior,
        transport: Transport::Tcp,
        lines: vec![],
        zones: vec![],
        analysis_fps_max: None,
        detector_side: None,
        region_of_interest: None,
        threshold: None,
        target_fpir: None,
        enabled: false,
        ..camera("a-hall")
    };
    let mut door = camera("door");
    store.put_camera(door.clone(), CredentialChange::Keep, request("create-door", 1)).await.expect("it is put");
    store.put_camera(plain.clone(), CredentialChange::Keep, None).await.expect("it is put");
    assert_eq!(store.put_camera(camera("else"), CredentialChange::Keep, request("create-door", 1)).await, Err(StoreError::RequestRepeated));
    assert_eq!(store.request_answer("create-door").await, Ok(Some(vec![1; 32])));
    door.role = Role::Exit;
    store.put_camera(door.clone(), CredentialChange::Keep, None).await.expect("it is replaced");
    drop(store);
    let store = Store::open(directory.path()).expect("it opens again");
    assert_eq!(store.cameras().await, Ok(vec![plain.clone(), door]));
    assert_eq!(store.erase_camera(&id("door"), None).await, Ok(true));
    assert_eq!(store.erase_camera(&id("door"), None).await, Ok(false));
    assert_eq!(store.cameras().await, Ok(vec![plain]));
}

#[tokio::test]
async fn a_camera_is_created_together_with_its_credential_or_not_at_all() {
    let (_directory, store) = store();
    let credential = Credential { username: "u".into(), password: Secret::new("p") };
    store.put_camera(camera("door"), CredentialChange::Set(credential.clone()), request("first", 2)).await.expect("it is created");
    assert_eq!(store.credential(&id("door")).await, Ok(Some(credential)));
    assert_eq!(store.request_answer("first").await, Ok(Some(vec![2; 32])));
    let other = CredentialChange::Set(Credential { username: "v".into(), password: Secret::new("q") });
    assert_eq!(store.put_camera(camera("hall"), other, request("first", 2)).await, Err(StoreError::RequestRepeated));
    assert_eq!(store.cameras().await.expect("they are read").len(), 1);
    assert_eq!(store.credential(&id("hall")).await, Ok(None));
}

#[tokio::test]
async fn a_credential_belongs_to_its_camera_and_goes_with_it() {
    let (directory, store) = store();
    let credential = Credential { username: "operator-name".into(), password: Secret::new("correct horse battery") };
    store.put_camera(camera("door"), CredentialChange::Keep, None).await.expect("it is put");
    store.put_camera(camera("door"), CredentialChange::Set(credential.clone()), None).await.expect("it is set");
    store.put_camera(camera("door"), CredentialChange::Keep, None).await.expect("it is replaced");
    assert!(store.cameras().await.expect("they are read")[0].has_credential);
    assert_eq!(store.credential(&id("door")).await, Ok(Some(credential.clone())));

    let rotated = Credential { password: Secret::new("staple"), ..credential };
    store.put_camera(camera("door"), CredentialChange::Set(rotated), None).await.expect("it is rotated");
    for file in directory.path().read_dir().expect("it can be listed") {
        let bytes = std::fs::read(file.expect("an entry").path()).expect("it is read");
        assert!(!bytes.windows(21).any(|w| w == b"correct horse battery"), "the old password is gone from the files");
    }
    store.put_camera(camera("door"), CredentialChange::Remove, None).await.expect("it is removed");
    assert!(!store.cameras().await.expect("they are read")[0].has_credential);
    let again = Credential { username: "u".into(), password: Secret::new("p") };
    store.put_camera(camera("door"), CredentialChange::Set(again), None).await.expect("set");
    store.erase_camera(&id("door"), None).await.expect("it is erased");
    store.put_camera(camera("door"), CredentialChange::Keep, None).await.expect("a new camera of that name");
    assert_eq!(store.credential(&id("door")).await, Ok(None), "never sent to another camera");
}

#[tokio::test]
async fn a_log_has_a_new_epoch_once_after_a_backup_was_put_back() {
    let (directory, store) = store();
    let before = store.epoch();
    drop(store);
    std::fs::write(directory.path().join("restored"), "").expect("written");
    let restored = Store::open(directory.path()).expect("it opens").epoch();
    let later = Store::open(directory.path()).expect("it opens").epoch();
    assert!(restored != before && later == restored);
}

/// A `VISIT_STARTED` event with every number that JSON could bend.
fn detailed() -> Event {
    let mut event = started("door");
    event.track = Some(TrackId(u64::MAX));
    event.box_in_frame = Some(BoxInFrame { x: 0.1, y: 1.0 / 3.0, width: f32::MIN_POSITIVE, height: 1.0 });
    event.shots.rejected.insert("blurred".into(), 4);
    event.decision = Some(Decision {
        purpose: Purpose::Identify,
        subject: None,
        rejection: None,
        similarity: Some(0.362_999_98),
        threshold: 0.363,
        target_rate: Some(1e-4),
        expected_rate: Some(2.5e-4),
        basis: Some(crate::event::ThresholdBasis::Unsupported),
        scope: Some(crate::event::PolicyScope::Watchlist),
        runner_up: Some(Candidate { subject: SubjectUid(Uuid::new_v4()), similarity: -0.000_012_3 }),
        margin: None,
        gallery_subjects: 7,
        gallery_version: 9,
        space: "sface-1".into(),
        head: None,
    });
    event
}

#[tokio::test]
async fn visits_that_did_not_end_are_found_after_a_restart() {
    let (directory, store) = store();
    let open = detailed();
    let gone = started("door");
    let mut ended = Event::new(EventKind::VisitEnded, "door", Timestamp::from_micros(2_000));
    ended.visit = gone.visit;
    let mut identified = Event::new(EventKind::Identified, "door", Timestamp::from_micros(1_500));
    identified.visit = open.visit;
    assert_eq!(store.append_events(vec![gone, open.clone()]).await, Ok(1));
    assert_eq!(store.append_events(vec![identified, ended.clone()]).await, Ok(3));
    drop(store);
    let store = Store::open(directory.path()).expect("it opens again");
    let visit = open.visit.expect("it has one");
    assert_eq!(store.open_visits().await, Ok(vec![OpenVisit { visit, began: open }]));
    ended.visit = Some(visit);
    store.append_events(vec![ended]).await.expect("appended");
    assert_eq!(store.open_visits().await, Ok(vec![]));
}

#[tokio::test]
async fn an_event_that_could_not_be_read_again_is_refused() {
    let (_directory, store) = store();
    let mut event = detailed();
    event.decision.as_mut().expect("it has one").threshold = f32::NAN;
    let outcome = store.append_events(vec![started("door"), event]).await;
    assert!(matches!(outcome, Err(StoreError::Contradiction(_))), "{outcome:?}");
    assert_eq!(store.last_sequence().await, Ok(0));
}

#[tokio::test]
async fn the_epoch_names_the_log_for_ever() {
    let (directory, first) = store();
    let epoch = first.epoch();
    drop(first);
    assert_eq!(Store::open(directory.path()).expect("it opens again").epoch(), epoch);
    let (_other, second) = store();
    assert_ne!(second.epoch(), epoch);
    assert_eq!(epoch.get_version_num(), 4);
}

/// An event of `kind` at `second`, which names a picture.
fn at(kind: EventKind, second: i64) -> Event {
    let mut event = Event::new(kind, "door", seconds(second));
    event.visit = Some(VisitId(Uuid::new_v4()));
    event.snapshot = Some(SnapshotId(Uuid::new_v4()));
    event
}

fn picture_of(event: &Event) -> Snapshot {
    Snapshot {
        id: event.snapshot.expect("it names one"),
        camera: id("door"),
        capture_time: Timestamp::from_micros(event.capture_time_us),
        subject: None,
        crop_jpeg: vec![1],
        frame_jpeg: vec![2; 9],
    }
}

/// Appends `events` and keeps their pictures after them.
async fn append(store: &Store, events: &[Event]) {
    store.append_events(events.to_vec()).await.expect("appended");
    let pictures = events.iter().map(|event| (event.clone(), picture_of(event)));
    store.put_snapshots(pictures.collect()).await.expect("kept");
}

/// The picture that `event` names, if it is kept.
async fn kept_of(store: &Store, event: &Event) -> Option<Snapshot> {
    store.snapshot(event.snapshot.expect("it names one")).await.expect("it is readable")
}

/// Keeps what was logged and taken at `since` or later, in so much room.
fn kept(since: Timestamp, event_bytes_max: u64, snapshot_bytes_max: u64) -> Retention {
    Retention { events_since: since, event_bytes_max, snapshots_since: since, snapshot_bytes_max }
}

fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

/// How much room `event` takes in the log.
fn size(event: &Event) -> u64 {
    serde_json::to_string(event).expect("JSON").len() as u64
}

#[tokio::test]
async fn a_picture_without_room_takes_no_event_with_it() {
    let (_directory, store) = store();
    let event = at(EventKind::Unidentified, 1);
    let large = Snapshot { frame_jpeg: vec![2; 1 << 20], ..picture_of(&event) };
    store.append_events(vec![event.clone()]).await.expect("appended");
    store.limit_growth(Some(2)).await;
    // While the writer is held up, both wait, to be written together.
    let (go, held_up) = std::sync::mpsc::sync_channel(1);
    let busy = store.0.writer.write(Effect::Keeps, move |_| held_up.recv().map_err(|_| StoreError::Stopped));
    let picture = store.put_snapshots(vec![(event.clone(), large)]);
    let small = store.append_events(vec![Event { snapshot: None, ..event }]);
    let free = async {
        tokio::task::yield_now().await;
        go.send(()).expect("the writer waits");
    };
    let (busy, small, picture, ()) = tokio::join!(busy, small, picture, free);
    assert_eq!((busy, small, picture), (Ok(()), Ok(2), Err(StoreError::Full)));
}

#[tokio::test]
async fn pruning_takes_what_is_old_and_sequences_never_return() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(0)));
    let open = || Store::open_with_clock(directory.path(), Arc::clone(&clock) as Arc<dyn Clock>).expect("it opens");
    let store = open();
    store.mutate(vec![], keyed("old"), no_answer()).await.expect("committed");
    let old: Vec<_> = (0..600).map(|n| at(EventKind::Unidentified, n % 10)).collect();
    append(&store, &old).await;
    append(&store, &[at(EventKind::VisitStarted, 5)]).await;
    clock.advance(Duration::from_secs(10));
    let young = at(EventKind::Unidentified, 10);
    append(&store, std::slice::from_ref(&young)).await;
    clock.advance(Duration::from_secs(24 * 60 * 60));
    store.mutate(vec![], keyed("a day"), no_answer()).await.expect("committed");
    clock.advance(Duration::from_secs(1));

    store.prune(kept(seconds(10), u64::MAX, u64::MAX)).await.expect("pruned");
    for event in &old {
        assert_eq!(kept_of(&store, event).await, None);
    }
    assert_eq!(kept_of(&store, &young).await, Some(picture_of(&young)));
    assert_eq!(store.log_span().await, Ok(LogSpan { oldest: 602, newest: 602 }), "the event that a visit began with goes too");
    assert_eq!(store.open_visits().await.map(|v| v.len()), Ok(1), "and the visit is open all the same");
    assert_eq!(store.request_answer("old").await, Ok(None));
    assert_eq!(store.request_answer("a day").await, Ok(Some(vec![])));

    store.prune(kept(Timestamp::from_micros(i64::MAX), u64::MAX, u64::MAX)).await.expect("pruned");
    assert_eq!(store.log_span().await, Ok(LogSpan { oldest: 603, newest: 602 }), "nothing is kept");
    drop(store);
    let store = open();
    assert_eq!(store.last_sequence().await, Ok(602));
    assert_eq!(store.append_events(vec![at(EventKind::Unidentified, 11)]).await, Ok(603));
}

#[tokio::test]
async fn a_clock_that_was_set_back_leaves_no_gap_in_what_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = |second| {
        let clock = Arc::new(SimulatedClock::at(seconds(second)));
        Store::open_with_clock(directory.path(), clock as Arc<dyn Clock>).expect("it opens")
    };
    // A daemon's own clock never goes back; the machine's may, between two starts.
    for second in [100, 200, 50, 60, 300] {
        append(&open(second), &[at(EventKind::Unidentified, second)]).await;
    }
    let store = open(300);
    store.prune(kept(seconds(150), u64::MAX, u64::MAX)).await.expect("pruned");
    let rest = store.events_after(0, 9).await.expect("read");
    let times: Vec<_> = rest.iter().map(|logged| (logged.sequence, logged.log_time)).collect();
    assert_eq!(times, [(2, seconds(200)), (3, seconds(50)), (4, seconds(60)), (5, seconds(300))]);
}

#[tokio::test]
async fn a_picture_goes_with_the_last_event_that_tells_whom_it_shows() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(SimulatedClock::at(seconds(0)));
    let store = Store::open_with_clock(directory.path(), Arc::clone(&clock) as Arc<dyn Clock>).expect("it opens");
    let (alone, first) = (at(EventKind::Unidentified, 0), at(EventKind::Unidentified, 0));
    let many: Vec<_> = (0..100).map(|_| at(EventKind::Unidentified, 0)).collect();
    append(&store, &[vec![alone.clone(), first.clone()], many.clone()].concat()).await;
    clock.advance(Duration::from_secs(10));
    store.append_events(vec![first.clone()]).await.expect("appended");

    let keep = Retention { snapshots_since: seconds(-1), ..kept(seconds(5), u64::MAX, u64::MAX) };
    store.prune(keep).await.expect("pruned");
    assert_eq!(store.log_span().await, Ok(LogSpan { oldest: 103, newest: 103 }));
    assert_eq!((kept_of(&store, &alone).await, kept_of(&store, &many[99]).await), (None, None));
    assert_eq!(kept_of(&store, &first).await, Some(picture_of(&first)), "a younger event names it");
    store.prune(Retention { events_since: seconds(20), ..keep }).await.expect("pruned");
    assert_eq!(kept_of(&store, &first).await, None);
}

#[tokio::test]
async fn what_takes_too_much_room_goes_oldest_first() {
    let (_directory, store) = store();
    let events: Vec<_> = (0..1_000).map(|n| at(EventKind::Unidentified, n)).collect();
    for some in events.chunks(300) {
        append(&store, some).await;
    }
    let last_hundred: u64 = events[900..].iter().map(size).sum();
    let always = Timestamp::from_micros(i64::MIN);
    store.prune(kept(always, last_hundred, 20)).await.expect("pruned");
    assert_eq!(store.log_span().await, Ok(LogSpan { oldest: 901, newest: 1_000 }));
    let has_picture = async |event| kept_of(&store, event).await.is_some();
    assert!(!has_picture(&events[997]).await && has_picture(&events[998]).await && has_picture(&events[999]).await, "ten bytes each");
    append(&store, &events[..1]).await;
    store.prune(kept(always, last_hundred, 20)).await.expect("pruned");
    let span = store.log_span().await.expect("read");
    assert!((901..=903).contains(&span.oldest) && span.newest == 1_001, "{span:?}");
}

#[tokio::test]
async fn the_past_can_be_read_both_ways_and_by_time() {
    let (_directory, store) = store();
    append(&store, &(1..=9).map(|n| at(EventKind::Unidentified, n)).collect::<Vec<_>>()).await;
    let all = Past { after: 0, before: u64::MAX, since: seconds(0), until: seconds(99), newest_first: false };
    let read = async |past, limit| store.past_events(past, limit).await.expect("read").iter().map(|e| e.sequence).collect::<Vec<_>>();
    assert_eq!(read(all, 3).await, [1, 2, 3]);
    assert_eq!(read(Past { after: 3, ..all }, 2).await, [4, 5]);
    assert_eq!(read(Past { newest_first: true, before: 9, ..all }, 2).await, [8, 7]);
    assert_eq!(read(Past { since: seconds(3), until: seconds(5), ..all }, 9).await, [3, 4]);
    assert_eq!(store.event(7).await.expect("read").map(|e| e.sequence), Some(7));
    assert_eq!((store.event(0).await, store.event(10).await), (Ok(None), Ok(None)));
}

#[tokio::test]
async fn a_log_of_an_older_doorward_is_read_on_and_its_open_visits_stay_open() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(Store::open(directory.path()).expect("it opens"));
    let file = directory.path().join("doorward.db");
    std::fs::remove_file(&file).expect("removed");
    let mut old = rusqlite::Connection::open(&file).expect("it opens");
    schema::migrate(&mut old, &schema::MIGRATIONS[..5]).expect("as it was before");
    let events = [started("door"), at(EventKind::Unidentified, 7), started("back")];
    for event in &events {
        let body = serde_json::to_string(event).expect("JSON");
        let values = rusqlite::params![&*event.camera, event.capture_time_us, body];
        old.execute("INSERT INTO events (kind, camera, capture_time_us, body) VALUES ('x', ?1, ?2, ?3)", values).expect("written");
    }
    let visit = events[2].visit.expect("it has one");
    old.execute("INSERT INTO open_visits (visit, sequence) VALUES (?1, 3)", [visit.0.into_bytes()]).expect("written");
    drop(old);

    let store = Store::open(directory.path()).expect("it is migrated");
    let read = store.events_after(0, 9).await.expect("read");
    assert_eq!(read.iter().map(|logged| (*logged.event).clone()).collect::<Vec<_>>(), events);
    assert_eq!(read[1].log_time, seconds(7), "about when it was decided");
    assert_eq!(store.open_visits().await, Ok(vec![OpenVisit { visit, began: events[2].clone() }]));
    append(&store, &[at(EventKind::Unidentified, 9)]).await;
    let last_two = size(&events[2]) + size(&store.event(4).await.expect("read").expect("kept").event);
    store.prune(kept(Timestamp::from_micros(i64::MIN), last_two, u64::MAX)).await.expect("pruned");
    assert_eq!(store.log_span().await, Ok(LogSpan { oldest: 3, newest: 4 }), "the sizes of old events are known");
    assert_eq!(store.open_visits().await.map(|visits| visits.len()), Ok(1));
}
