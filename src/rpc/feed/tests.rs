//! What a subscriber sees, with time stopped.

use prost::Message;
use uuid::Uuid;

use super::*;
use crate::clock::{SimulatedClock, Timestamp};
use crate::event::{Event, EventKind, SnapshotId};
use crate::face::TemplateSpace;
use crate::mutation::Mutation;
use crate::store::LogSpan;
use crate::subject::{Subject, SubjectUid};

const EPOCH: Uuid = Uuid::from_u128(7);
const ANNA: SubjectUid = SubjectUid(Uuid::from_u128(1));
const GONE: SubjectUid = SubjectUid(Uuid::from_u128(2));

fn logged(sequence: u64, kind: EventKind, camera: &str, subject: Option<SubjectUid>) -> LoggedEvent {
    let mut event = Event::new(kind, camera, Timestamp::from_micros(1_000_000));
    event.subject = subject;
    event.snapshot = Some(SnapshotId(Uuid::from_u128(u128::from(sequence))));
    event.stage_times = Some(crate::event::StageTimes::default());
    LoggedEvent { sequence, epoch: EPOCH, log_time: Timestamp::from_micros(1_002_500), event: Arc::new(event) }
}

fn gallery() -> Gallery {
    let gallery = Gallery::new(TemplateSpace::new("test"));
    let subject = Subject { uid: ANNA, display_name: "Anna".into(), watchlists: vec!["staff".into()], ..Subject::made_up("anna", 0) };
    gallery.apply(1, &[Mutation::PutSubject(subject)]);
    gallery
}

fn view(request: &pb::SubscribeRequest) -> View {
    View {
        filter: Filter::read(&request.into()).expect("a good filter"),
        gallery: gallery(),
        encoded: Arc::new(EncodedEvents::new()),
        clock: Arc::new(SimulatedClock::at(Timestamp::from_micros(9_000_000))),
        position: Position { epoch: EPOCH, sequence: 40 },
        disk_full: watch::Sender::new(false).subscribe(),
        newest_at_start: 40,
    }
}

fn decoded(bytes: &Bytes) -> pb::Event {
    pb::Event::decode(bytes.clone()).expect("an event")
}

fn sequences(response: &EncodedSubscribeResponse) -> Vec<u64> {
    response.events.iter().map(|bytes| decoded(bytes).sequence).collect()
}

type Given = Result<Vec<LoggedEvent>, SubscriptionEnded>;

/// A feed on a log that the test plays.
fn feed(
    request: &pb::SubscribeRequest,
) -> (mpsc::Sender<Given>, mpsc::Receiver<EncodedSubscribeResponse>, tokio::task::JoinHandle<Status>) {
    let (log, mut taken) = mpsc::channel::<Given>(64);
    let (out, responses) = mpsc::channel(1);
    let view = view(request);
    let task =
        tokio::spawn(async move { run(async move || taken.recv().await.unwrap_or(Err(SubscriptionEnded::Closed)), view, out).await });
    (log, responses, task)
}

fn position(response: &EncodedSubscribeResponse) -> u64 {
    response.position.as_ref().map_or(0, |p| p.sequence)
}

#[tokio::test]
async fn a_subscriber_learns_at_once_that_it_is_subscribed() {
    let (_log, mut responses, _task) = feed(&pb::SubscribeRequest::default());
    let first = responses.recv().await.expect("at once");
    assert!(first.events.is_empty());
    assert_eq!(position(&first), 40);
    assert_eq!(first.server_time.map(|t| t.seconds), Some(9));
    assert_eq!(first.position.map(|p| p.cursor), Some(cursor(EPOCH, 40)));
}

#[tokio::test(start_paused = true)]
async fn an_idle_client_gets_a_bookmark_every_ten_seconds() {
    let (_log, mut responses, _task) = feed(&pb::SubscribeRequest::default());
    responses.recv().await.expect("the first response");
    for _ in 0..3 {
        let before = Instant::now();
        let bookmark = responses.recv().await.expect("a bookmark");
        assert!(bookmark.events.is_empty());
        assert!((Duration::from_secs(9)..=BOOKMARK_INTERVAL).contains(&before.elapsed()), "{:?}", before.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_says_how_far_a_filtered_client_is() {
    let request = pb::SubscribeRequest { camera_ids: vec!["back".into()], ..pb::SubscribeRequest::default() };
    let (log, mut responses, _task) = feed(&request);
    responses.recv().await.expect("the first response");
    let before = Instant::now();
    for sequence in 41..=60 {
        log.send(Ok(vec![logged(sequence, EventKind::VisitStarted, "front", None)])).await.expect("the feed takes it");
        tokio::time::advance(Duration::from_millis(400)).await;
    }
    let bookmark = responses.recv().await.expect("a bookmark");
    assert!(bookmark.events.is_empty());
    assert_eq!(position(&bookmark), 60, "the position is beyond the events that were filtered out");
    assert!(before.elapsed() <= BOOKMARK_INTERVAL + Duration::from_secs(1), "filtered events put no bookmark off: {:?}", before.elapsed());
}

#[tokio::test]
async fn events_that_come_thick_share_a_response() {
    let (log, mut responses, _task) = feed(&pb::SubscribeRequest::default());
    responses.recv().await.expect("the first response");
    let batch = (41..=43).map(|n| logged(n, EventKind::CameraOnline, "front", None)).collect();
    log.send(Ok(batch)).await.expect("the feed takes it");
    let response = responses.recv().await.expect("the events");
    assert_eq!(sequences(&response), [41, 42, 43]);
    assert_eq!(position(&response), 43);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_leaves_events_in_the_log() {
    let (log, mut responses, _task) = feed(&pb::SubscribeRequest::default());
    // The first response fills the queue: nothing more may be taken from the log.
    tokio::time::sleep(Duration::from_secs(60)).await;
    log.send(Ok(vec![logged(41, EventKind::CameraOnline, "front", None)])).await.expect("room");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(log.max_capacity() - log.capacity(), 1, "the event waits where it is bounded");
    responses.recv().await.expect("the first response");
    loop {
        let response = responses.recv().await.expect("the event, perhaps after a bookmark");
        if !response.events.is_empty() {
            assert_eq!(sequences(&response), [41]);
            break;
        }
    }
}

#[tokio::test]
async fn a_client_that_asks_for_what_is_deleted_is_told_so() {
    let (log, mut responses, task) = feed(&pb::SubscribeRequest::default());
    responses.recv().await.expect("the first response");
    let span = LogSpan { oldest: 99, newest: 120 };
    log.send(Err(SubscriptionEnded::TooSlow { at: 40, span })).await.expect("the feed takes it");
    let status = task.await.expect("no panic");
    assert_eq!(status.code(), tonic::Code::OutOfRange);
    assert!(responses.recv().await.is_none());
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_feed() {
    let (_log, responses, task) = feed(&pb::SubscribeRequest::default());
    drop(responses);
    assert_eq!(task.await.expect("no panic").code(), tonic::Code::Cancelled);
}

#[test]
fn an_event_must_pass_every_filter() {
    let sees = |request: pb::SubscribeRequest, logged: &LoggedEvent| view(&request).deliver(logged).is_some();
    let identified = logged(41, EventKind::Identified, "front", Some(ANNA));
    let online = logged(42, EventKind::CameraOnline, "front", None);
    let by = |cameras: &[&str], types: &[pb::EventType], subjects: &[&str], lists: &[&str]| pb::SubscribeRequest {
        camera_ids: cameras.iter().map(|&s| s.into()).collect(),
        types: types.iter().map(|&t| t.into()).collect(),
        subject_ids: subjects.iter().map(|&s| s.into()).collect(),
        watchlists: lists.iter().map(|&s| s.into()).collect(),
        start: None,
        allow_missing: false,
    };
    let known = pb::EventType::Identified;
    for (request, sees_identified, sees_online) in [
        (by(&[], &[], &[], &[]), true, true),
        (by(&["front", "back"], &[], &[], &[]), true, true),
        (by(&["back"], &[], &[], &[]), false, false),
        (by(&[], &[known], &[], &[]), true, false),
        (by(&[], &[], &["anna"], &[]), true, false),
        (by(&[], &[], &["bert"], &[]), false, false),
        (by(&[], &[], &[], &["staff", "visitors"]), true, false),
        (by(&[], &[], &[], &["visitors"]), false, false),
        (by(&["front"], &[known], &["anna"], &["staff"]), true, false),
        (by(&["back"], &[known], &["anna"], &["staff"]), false, false),
    ] {
        assert_eq!(sees(request.clone(), &identified), sees_identified, "{request:?}");
        assert_eq!(sees(request.clone(), &online), sees_online, "{request:?}");
    }
}

#[test]
fn a_filter_that_can_match_nothing_is_refused() {
    for request in [
        pb::SubscribeRequest { camera_ids: vec!["Front Door".into()], ..pb::SubscribeRequest::default() },
        pb::SubscribeRequest { types: vec![99], ..pb::SubscribeRequest::default() },
        pb::SubscribeRequest { types: vec![0], ..pb::SubscribeRequest::default() },
        pb::SubscribeRequest { subject_ids: vec!["../anna".into()], ..pb::SubscribeRequest::default() },
        pb::SubscribeRequest { watchlists: vec!["w".into(); 1_001], ..pb::SubscribeRequest::default() },
    ] {
        assert_eq!(Filter::read(&(&request).into()).expect_err("refused").code(), tonic::Code::InvalidArgument);
    }
}

#[test]
fn an_event_is_delivered_with_todays_name() {
    let event = view(&pb::SubscribeRequest::default())
        .deliver(&logged(41, EventKind::Identified, "front", Some(ANNA)))
        .map(|bytes| decoded(&bytes))
        .expect("seen");
    let subject = event.subject.expect("a subject");
    assert_eq!((subject.id.as_str(), subject.display_name.as_str(), subject.erased), ("anna", "Anna", false));
    assert_eq!((event.epoch, event.sequence), (EPOCH.to_string(), 41));
    assert_eq!(event.snapshot_id, Uuid::from_u128(41).to_string());
    assert_eq!(event.stage_times.map(|t| t.publish_ms), Some(2.5));
}

#[test]
fn an_erased_subject_is_shown_without_name_or_picture() {
    let event = view(&pb::SubscribeRequest::default())
        .deliver(&logged(41, EventKind::Identified, "front", Some(GONE)))
        .map(|bytes| decoded(&bytes))
        .expect("seen");
    let subject = event.subject.expect("a subject");
    assert_eq!((subject.uid, subject.erased), (GONE.0.to_string(), true));
    assert!(subject.id.is_empty() && subject.display_name.is_empty() && event.snapshot_id.is_empty());
    assert_eq!(event.actionable_until, event.capture_time, "no door opens by a decision about somebody who was erased since");
}

#[tokio::test]
async fn a_client_that_begins_in_the_past_learns_when_it_has_caught_up() {
    let (log, mut taken) = mpsc::channel::<Given>(64);
    let (out, mut responses) = mpsc::channel(1);
    let request = pb::SubscribeRequest { camera_ids: vec!["back".into()], ..pb::SubscribeRequest::default() };
    let view = View { newest_at_start: 43, ..view(&request) };
    let _task =
        tokio::spawn(async move { run(async move || taken.recv().await.unwrap_or(Err(SubscriptionEnded::Closed)), view, out).await });
    assert!(!responses.recv().await.expect("at once").caught_up);
    log.send(Ok(vec![logged(41, EventKind::CameraOnline, "back", None)])).await.expect("the feed takes it");
    let response = responses.recv().await.expect("the event");
    assert_eq!((sequences(&response), response.caught_up), (vec![41], false));
    let filtered_out = (42..=43).map(|n| logged(n, EventKind::CameraOnline, "front", None)).collect();
    log.send(Ok(filtered_out)).await.expect("the feed takes it");
    let bookmark = responses.recv().await.expect("a bookmark, without waiting for ten seconds");
    assert_eq!((bookmark.events.len(), position(&bookmark), bookmark.caught_up), (0, 43, true));
}

#[test]
fn an_event_is_encoded_once_for_all_and_anew_when_a_name_has_changed() {
    let view = view(&pb::SubscribeRequest::default());
    let event = logged(41, EventKind::Identified, "front", Some(ANNA));
    let (first, second) = (view.deliver(&event).expect("seen"), view.deliver(&event).expect("seen"));
    assert_eq!(first.as_ptr(), second.as_ptr(), "the same bytes in the same place");
    let renamed = Subject { display_name: "Anne".into(), ..(*view.gallery.subject(ANNA).expect("she is known")).clone() };
    view.gallery.apply(2, &[Mutation::PutSubject(renamed)]);
    let third = decoded(&view.deliver(&event).expect("seen"));
    assert_eq!(third.subject.map(|s| s.display_name).as_deref(), Some("Anne"));
    view.gallery.apply(3, &[Mutation::EraseSubject(ANNA)]);
    assert!(decoded(&view.deliver(&event).expect("seen")).subject.is_some_and(|s| s.erased));
    let another = logged(41 + 8_192, EventKind::CameraOnline, "front", None);
    assert_eq!(decoded(&view.deliver(&another).expect("seen")).sequence, 8_233, "never another event's bytes");
}

#[test]
fn what_the_server_sends_is_what_the_contract_says() {
    let view = view(&pb::SubscribeRequest::default());
    let mut view = View { newest_at_start: 42, ..view };
    let events = [logged(41, EventKind::CameraOnline, "front", None), logged(42, EventKind::Identified, "front", Some(ANNA))];
    let sent = view.pass(&events).expect("both pass");
    let received = pb::SubscribeResponse::decode(sent.encode_to_vec().as_slice()).expect("the contract's own message");
    assert_eq!(received.events.iter().map(|e| e.sequence).collect::<Vec<_>>(), [41, 42]);
    assert!(received.caught_up && received.server_time == sent.server_time && received.position == sent.position);
}

#[tokio::test]
async fn a_client_is_told_at_once_when_the_disk_is_full_and_when_there_is_room_again() {
    let (_log, mut taken) = mpsc::channel::<Given>(64);
    let (out, mut responses) = mpsc::channel(1);
    let disk = watch::Sender::new(false);
    let view = View { disk_full: disk.subscribe(), ..view(&pb::SubscribeRequest::default()) };
    let _task =
        tokio::spawn(async move { run(async move || taken.recv().await.unwrap_or(Err(SubscriptionEnded::Closed)), view, out).await });
    assert!(!responses.recv().await.expect("at once").disk_full);
    for is_full in [true, false] {
        disk.send_replace(is_full);
        let bookmark = responses.recv().await.expect("at once");
        assert_eq!((bookmark.disk_full, bookmark.events.len()), (is_full, 0));
    }
}
