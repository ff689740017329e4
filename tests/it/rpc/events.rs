//! Subscriptions over a real connection: names, filters, slow clients, the end, and a third party's
//! subscriber.
//!
//! Events are written by the test itself.
//! Must not know: cameras, the pipeline.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use doorward::clock::{Clock, SystemClock};
use doorward::event::{Event, EventKind, SnapshotId, VisitId};
use doorward::frame::CameraId;
use doorward::pb;
use doorward::pb::camera_service_client::CameraServiceClient;
use doorward::pb::correct_event_request::Verdict;
use doorward::pb::event_service_client::EventServiceClient;
use doorward::pb::gallery_service_client::GalleryServiceClient;
use doorward::pb::subscribe_request::Start;
use doorward::store::Snapshot;
use doorward::subject::SubjectUid;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use super::served::{PATIENCE, Served, bytes, new_subject, reason, serve};

fn happened(kind: EventKind, number: u64) -> Event {
    let mut event = Event::new(kind, "front", doorward::clock::Timestamp::from_micros(1_000_000));
    event.message = Some(format!("number {number}, {}", "x".repeat(200)));
    event
}

async fn subscribe(served: &Served, request: pb::SubscribeRequest) -> tonic::Streaming<pb::SubscribeResponse> {
    let mut stream = EventServiceClient::new(served.channel.clone()).subscribe(request).await.expect("subscribed").into_inner();
    let first = next(&mut stream).await.expect("an answer at once");
    assert!(first.events.is_empty() && first.position.is_some() && first.server_time.is_some());
    stream
}

async fn next(stream: &mut tonic::Streaming<pb::SubscribeResponse>) -> Result<pb::SubscribeResponse, Status> {
    tokio::time::timeout(PATIENCE, stream.message()).await.expect("within a minute").map(|m| m.expect("a stream ends with a status"))
}

#[tokio::test]
async fn events_are_delivered_with_names_until_the_person_is_erased() {
    let left_out = "subscribing by RPC";
    let Some(served) = serve(left_out, 4_096).await else { return };
    let Some(obama) = bytes("obama.jpg", left_out) else { return };
    let mut gallery = GalleryServiceClient::new(served.channel.clone());
    let created = gallery.create_subject(new_subject("obama", &obama)).await.expect("enrolled").into_inner();
    let uid = created.subject.expect("a subject").uid;
    let mut all = subscribe(&served, pb::SubscribeRequest::default()).await;
    let mut staff = subscribe(&served, pb::SubscribeRequest { watchlists: vec!["staff".into()], ..Default::default() }).await;
    let seen = |number| {
        let mut new = happened(EventKind::Identified, number);
        new.subject = Some(SubjectUid(uid.parse().expect("a UUID")));
        new
    };
    served.events.append(vec![happened(EventKind::CameraOnline, 1), seen(2)]).await.expect("written");
    let mut events = Vec::new();
    while events.len() < 2 {
        events.extend(next(&mut all).await.expect("delivered").events);
    }
    assert_eq!(events.iter().map(|e| e.sequence).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(events[1].subject.as_ref().map(|s| (s.id.as_str(), s.erased)), Some(("obama", false)));
    let filtered = next(&mut staff).await.expect("delivered");
    assert_eq!(filtered.events.iter().map(|e| e.sequence).collect::<Vec<_>>(), [2]);

    gallery.delete_subject(pb::DeleteSubjectRequest { id: "obama".into(), ..Default::default() }).await.expect("erased");
    served.events.append(vec![seen(3)]).await.expect("written");
    let after = next(&mut all).await.expect("delivered");
    let subject = after.events[0].subject.as_ref().expect("a uid");
    assert_eq!((subject.uid.as_str(), subject.id.as_str(), subject.erased), (uid.as_str(), "", true));

    let cursor = events[0].cursor.clone();
    let mut resumed = subscribe(&served, from(Start::Cursor(cursor))).await;
    let again = next(&mut resumed).await.expect("delivered");
    assert_eq!(again.events.iter().map(|e| e.sequence).collect::<Vec<_>>(), [2, 3]);
    assert!(again.caught_up);
    let seen_before = again.events[0].subject.as_ref().expect("a uid");
    assert_eq!((seen_before.id.as_str(), seen_before.erased), ("", true), "the past has no name of hers any more");
    let missing = pb::GetSnapshotRequest { snapshot_id: uuid::Uuid::new_v4().to_string() };
    let missing = EventServiceClient::new(served.channel.clone()).get_snapshot(missing).await.expect_err("no such snapshot");
    assert_eq!(reason(&missing), "SNAPSHOT_NOT_FOUND");
}

fn from(start: Start) -> pb::SubscribeRequest {
    pb::SubscribeRequest { start: Some(start), ..Default::default() }
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_costs_nobody_anything_and_loses_nothing() {
    const BATCHES: u64 = 200;
    const BATCH: u64 = 500;
    let Some(served) = serve("a slow subscriber", 1_024).await else { return };
    let mut reading = subscribe(&served, pb::SubscribeRequest::default()).await;
    // A connection of its own: flow control must not stop the other one.
    let apart = Endpoint::from_shared(format!("http://{}", served.address)).expect("a URI").connect().await.expect("connected");
    let mut idle = EventServiceClient::new(apart).subscribe(pb::SubscribeRequest::default()).await.expect("subscribed").into_inner();
    let mut received = 0;
    for batch in 0..BATCHES {
        let events = (0..BATCH).map(|n| happened(EventKind::CameraOnline, batch * BATCH + n)).collect();
        served.events.append(events).await.expect("written");
        while received < (batch + 1) * BATCH {
            for event in next(&mut reading).await.expect("who reads gets everything").events {
                received += 1;
                assert_eq!(event.sequence, received, "in order, without a gap");
            }
        }
    }
    let mut last = 0;
    while last < BATCHES * BATCH {
        for event in next(&mut idle).await.expect("it goes on where it was").events {
            last += 1;
            assert_eq!(event.sequence, last, "nothing is skipped");
        }
    }
}

#[tokio::test]
async fn a_cursor_that_leads_nowhere_is_refused_with_a_reason() {
    let Some(served) = serve("cursors", 16).await else { return };
    served.events.append((1..=9).map(|n| happened(EventKind::CameraOnline, n)).collect()).await.expect("written");
    let mut events = EventServiceClient::new(served.channel.clone());
    let mut refused = async |start| {
        let status = events.subscribe(from(start)).await.expect_err("refused");
        (status.code(), reason(&status))
    };
    let epoch = served.events.position().epoch.simple().to_string();
    for (cursor, code, expected) in [
        (format!("{epoch}-a"), Code::OutOfRange, "CURSOR_IN_FUTURE"),
        (format!("{}-3", uuid::Uuid::from_u128(7).simple()), Code::OutOfRange, "CURSOR_OTHER_EPOCH"),
        ("rubbish".to_owned(), Code::InvalidArgument, "BAD_CURSOR"),
        (String::new(), Code::InvalidArgument, "BAD_CURSOR"),
        (format!("{epoch}-03"), Code::InvalidArgument, "BAD_CURSOR"),
    ] {
        assert_eq!(refused(Start::Cursor(cursor.clone())).await, (code, expected.to_owned()), "{cursor:?}");
    }
    let mut all = subscribe(&served, from(Start::Earliest(pb::subscribe_request::Earliest {}))).await;
    assert_eq!(next(&mut all).await.expect("delivered").events.len(), 9);
}

#[tokio::test]
async fn a_filter_that_names_nothing_is_refused_unless_it_may_wait() {
    let Some(served) = serve("filters that name nothing", 16).await else { return };
    let names = |cameras: &[&str], subjects: &[&str], watchlists: &[&str]| pb::SubscribeRequest {
        camera_ids: cameras.iter().map(|&s| s.into()).collect(),
        subject_ids: subjects.iter().map(|&s| s.into()).collect(),
        watchlists: watchlists.iter().map(|&s| s.into()).collect(),
        ..Default::default()
    };
    for (request, expected) in [
        (names(&["frnt"], &[], &[]), "CAMERA_NOT_FOUND"),
        (names(&[], &["ana"], &[]), "SUBJECT_NOT_FOUND"),
        (names(&[], &[], &["stuff"]), "WATCHLIST_NOT_FOUND"),
    ] {
        let status = EventServiceClient::new(served.channel.clone()).subscribe(request.clone()).await.expect_err("refused");
        assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, expected));
        subscribe(&served, pb::SubscribeRequest { allow_missing: true, ..request }).await;
    }
}

#[tokio::test]
async fn the_past_is_listed_in_pages_and_one_event_by_its_cursor() {
    let Some(served) = serve("the list of events", 16).await else { return };
    let kinds = [EventKind::CameraOnline, EventKind::CameraOffline];
    let appended = (1..=1_200).map(|n| happened(kinds[usize::from(n % 100 == 0)], n)).collect();
    served.events.append(appended).await.expect("written");
    let mut client = EventServiceClient::new(served.channel.clone());
    for newest_first in [false, true] {
        let mut request =
            pb::ListEventsRequest { types: vec![pb::EventType::CameraOffline.into()], newest_first, page_size: 5, ..Default::default() };
        let (mut listed, mut pages) = (Vec::new(), 0);
        loop {
            let page = client.list_events(request.clone()).await.expect("a page").into_inner();
            assert!(page.events.len() <= 5);
            listed.extend(page.events.iter().map(|e| e.sequence));
            pages += 1;
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        let mut expected: Vec<u64> = (1..=12).map(|n| n * 100).collect();
        if newest_first {
            expected.reverse();
        }
        assert_eq!((listed, pages), (expected, 3), "newest first: {newest_first}");
        let of_another = pb::ListEventsRequest { page_token: "x".into(), ..request };
        assert_eq!(reason(&client.list_events(of_another).await.expect_err("refused")), "BAD_PAGE_TOKEN");
    }
    // Of a long past a call searches a part, and is asked again for the next.
    let long = (1..=70_000).map(|n| happened(EventKind::CameraOnline, n)).collect();
    served.events.append(long).await.expect("written");
    let mut request = pb::ListEventsRequest { types: vec![pb::EventType::CameraOffline.into()], newest_first: true, ..Default::default() };
    let first = client.list_events(request.clone()).await.expect("a page").into_inner();
    assert!(first.events.is_empty() && !first.next_page_token.is_empty(), "{} of the newest", first.events.len());
    request.page_token = first.next_page_token;
    assert_eq!(client.list_events(request).await.expect("a page").into_inner().events.len(), 12);

    let cursor = |sequence| format!("{}-{sequence:x}", served.events.position().epoch.simple());
    let one = client.get_event(pb::GetEventRequest { cursor: cursor(700) }).await.expect("kept").into_inner();
    assert_eq!(one.event.map(|e| (e.sequence, e.r#type)), Some((700, pb::EventType::CameraOffline.into())));
    let none = client.get_event(pb::GetEventRequest { cursor: cursor(71_201) }).await.expect_err("not there");
    assert_eq!(reason(&none), "EVENT_NOT_FOUND");
}

/// Tells of a visit that names `subject`, with a best shot that shows `jpeg`.
async fn show(served: &Served, subject: Option<&str>, jpeg: &[u8]) {
    let id = SnapshotId(uuid::Uuid::new_v4());
    let mut event = happened(EventKind::Identified, 1);
    event.message = None;
    event.visit = Some(VisitId(uuid::Uuid::new_v4()));
    event.subject = subject.map(|uid| SubjectUid(uid.parse().expect("a UUID")));
    event.snapshot = Some(id);
    let camera = CameraId::parse("front").expect("a good id");
    let capture_time = doorward::clock::Timestamp::from_micros(1_000_000);
    let snapshot = Snapshot { id, camera, capture_time, subject: None, crop_jpeg: jpeg.to_vec(), frame_jpeg: Vec::new() };
    served.events.append(vec![event.clone()]).await.expect("written");
    served.events.put_snapshots(vec![(event, snapshot)]).await.expect("kept");
}

#[tokio::test]
async fn an_operator_corrects_an_event_and_the_gallery_learns_of_it() {
    let left_out = "corrections";
    let Some(served) = serve(left_out, 64).await else { return };
    let (Some(obama), Some(obama2), Some(biden)) =
        (bytes("obama.jpg", left_out), bytes("obama2.jpg", left_out), bytes("biden.jpg", left_out))
    else {
        return;
    };
    let mut gallery = GalleryServiceClient::new(served.channel.clone());
    let created = gallery.create_subject(new_subject("obama", &obama)).await.expect("enrolled").into_inner();
    let uid = created.subject.expect("a subject").uid;
    show(&served, Some(&uid), &biden).await;
    show(&served, None, &obama2).await;
    let cursor = |sequence| format!("{}-{sequence:x}", served.events.position().epoch.simple());
    let mut client = EventServiceClient::new(served.channel.clone());
    let mut correct = async |request: pb::CorrectEventRequest| client.correct_event(request).await.map(|answer| answer.into_inner());

    let was_not = Verdict::WasNot(pb::correct_event_request::WasNot {});
    let first = pb::CorrectEventRequest {
        cursor: cursor(1),
        verdict: Some(was_not.clone()),
        use_snapshot: true,
        note: "a stranger".into(),
        request_id: uuid::Uuid::new_v4().to_string(),
        ..Default::default()
    };
    let answer = correct(first.clone()).await.expect("corrected");
    let event = answer.event.clone().expect("an event");
    assert_eq!((event.sequence, event.r#type(), event.subject.is_none()), (3, pb::EventType::EventCorrected, true));
    assert_eq!((event.previous_subject.map(|s| s.id).as_deref(), event.corrected_cursor), (Some("obama"), cursor(1)));
    assert_eq!(event.actionable_until, event.capture_time, "no door opens by a correction");
    let again = correct(first).await.expect("a repeat is answered");
    assert_eq!(again.event.map(|e| e.sequence), Some(3), "and not made again");

    let was = pb::CorrectEventRequest {
        cursor: cursor(2),
        verdict: Some(Verdict::WasSubjectId("obama".into())),
        use_snapshot: true,
        ..Default::default()
    };
    let answer = correct(was).await.expect("corrected");
    assert_eq!(answer.event.and_then(|e| e.subject).map(|s| s.id).as_deref(), Some("obama"));
    let samples = gallery.list_samples(pb::ListSamplesRequest { subject_id: "obama".into(), ..Default::default() }).await;
    let samples = samples.expect("listed").into_inner().samples;
    assert_eq!(
        (samples.len(), samples.iter().filter(|sample| sample.negative).count()),
        (3, 1),
        "one more of his, and one of whom he is not"
    );

    let enrol = Verdict::NewSubject(pb::Subject { id: "joe".into(), ..Default::default() });
    let enrol = pb::CorrectEventRequest { cursor: cursor(1), verdict: Some(enrol), allow_duplicate: true, ..Default::default() };
    assert_eq!(correct(enrol).await.expect("enrolled").subject_id, "joe");
    for (request, expected) in [
        (pb::CorrectEventRequest { cursor: cursor(2), verdict: Some(was_not), ..Default::default() }, "EVENT_NAMES_NOBODY"),
        (
            pb::CorrectEventRequest { cursor: cursor(99), verdict: Some(Verdict::WasSubjectId("obama".into())), ..Default::default() },
            "EVENT_NOT_FOUND",
        ),
        (
            pb::CorrectEventRequest { cursor: cursor(1), verdict: Some(Verdict::WasSubjectId("nobody".into())), ..Default::default() },
            "SUBJECT_NOT_FOUND",
        ),
        (pb::CorrectEventRequest { cursor: cursor(1), ..Default::default() }, "BAD_FIELD"),
    ] {
        assert_eq!(reason(&correct(request).await.expect_err(expected)), expected);
    }
    assert_eq!(served.events.position().sequence, 5, "what was refused left no event");
    for (event, expected) in [(1, [3, 5].as_slice()), (2, &[4]), (3, &[])] {
        let shown = client.get_event(pb::GetEventRequest { cursor: cursor(event) }).await.expect("kept").into_inner();
        assert_eq!(shown.corrections.iter().map(|correction| correction.sequence).collect::<Vec<_>>(), expected, "of {event}");
    }
}

#[tokio::test]
async fn what_is_said_of_a_correction_is_said_of_the_event_that_it_was_about() {
    let Some(served) = serve("corrections of corrections", 64).await else { return };
    show(&served, None, b"a picture").await;
    let cursor = |sequence| format!("{}-{sequence:x}", served.events.position().epoch.simple());
    let verdict = Some(Verdict::WasStranger(pb::correct_event_request::Stranger {}));
    let mut client = EventServiceClient::new(served.channel.clone());
    for about in [1, 2, 3] {
        let request = pb::CorrectEventRequest { cursor: cursor(about), verdict: verdict.clone(), ..Default::default() };
        let event = client.correct_event(request).await.expect("corrected").into_inner().event.expect("an event");
        assert_eq!(event.corrected_cursor, cursor(1));
    }
    let shown = client.get_event(pb::GetEventRequest { cursor: cursor(1) }).await.expect("kept").into_inner();
    assert_eq!(shown.corrections.iter().map(|correction| correction.sequence).collect::<Vec<_>>(), [2, 3, 4]);
    // Whom the event named is not whom its correction names.
    for (verdict, use_snapshot) in [(Some(Verdict::WasNot(pb::correct_event_request::WasNot {})), false), (verdict, true)] {
        let request = pb::CorrectEventRequest { cursor: cursor(3), verdict, use_snapshot, ..Default::default() };
        let refused = client.correct_event(request).await.expect_err("not whom?");
        assert!(reason(&refused) == "EVENT_IS_A_CORRECTION" && refused.message().contains(&cursor(1)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_request_id_that_was_used_for_another_change_is_refused() {
    let Some(served) = serve("request ids used twice", 64).await else { return };
    let request_id = || uuid::Uuid::new_v4().to_string();
    show(&served, None, b"a picture").await;
    show(&served, None, b"another").await;
    let cursor = |sequence| format!("{}-{sequence:x}", served.events.position().epoch.simple());
    let verdict = Some(Verdict::WasStranger(pb::correct_event_request::Stranger {}));
    let first = pb::CorrectEventRequest { cursor: cursor(1), verdict, request_id: request_id(), ..Default::default() };
    let mut events = EventServiceClient::new(served.channel.clone());
    events.correct_event(first.clone()).await.expect("corrected");
    let refused = events.correct_event(pb::CorrectEventRequest { cursor: cursor(2), ..first.clone() }).await;
    assert_eq!(reason(&refused.expect_err("it is of another event")), "REQUEST_ID_REUSED");
    let enrol = Some(Verdict::NewSubject(pb::Subject { id: "joe".into(), ..Default::default() }));
    let refused = events.correct_event(pb::CorrectEventRequest { verdict: enrol, ..first.clone() }).await;
    assert_eq!(reason(&refused.expect_err("it is another verdict")), "REQUEST_ID_REUSED", "whether or not its picture could be enrolled");
    let spelt_otherwise = pb::CorrectEventRequest { request_id: first.request_id.to_uppercase(), ..first };
    events.correct_event(spelt_otherwise).await.expect("the same id");
    assert_eq!(served.events.position().sequence, 3, "nothing is made twice, nor lost in silence");

    let camera = |name: &str| pb::Camera {
        id: "door".into(),
        display_name: name.into(),
        url: "rtsp://127.0.0.1:1/a".into(),
        disabled: true,
        ..Default::default()
    };
    let mut cameras = CameraServiceClient::new(served.channel.clone());
    let create = pb::CreateCameraRequest { camera: Some(camera("The door")), request_id: request_id(), ..Default::default() };
    for _ in ["first", "again"] {
        let created = cameras.create_camera(create.clone()).await.expect("a repeat is answered").into_inner();
        assert_eq!(created.camera.map(|camera| camera.display_name).as_deref(), Some("The door"));
    }
    let credential = |password: &str| Some(pb::CameraCredential { username: "u".into(), password: password.into() });
    let set = pb::SetCameraCredentialRequest { camera_id: "door".into(), credential: credential("old"), request_id: request_id() };
    for _ in ["first", "again"] {
        cameras.set_camera_credential(set.clone()).await.expect("a repeat is answered");
    }
    let other = pb::SetCameraCredentialRequest { credential: credential("new"), ..set.clone() };
    assert_eq!(reason(&cameras.set_camera_credential(other).await.expect_err("another password")), "REQUEST_ID_REUSED");
    let update = pb::UpdateCameraRequest { camera: Some(camera("Hall")), request_id: set.request_id, ..Default::default() };
    assert_eq!(reason(&cameras.update_camera(update).await.expect_err("another method")), "REQUEST_ID_REUSED");
}

#[tokio::test]
async fn whoever_is_rightly_unknown_is_confirmed_as_a_stranger() {
    let Some(served) = serve("strangers who are confirmed", 64).await else { return };
    show(&served, None, b"a picture").await;
    let cursor = format!("{}-1", served.events.position().epoch.simple());
    let mut client = EventServiceClient::new(served.channel.clone());
    let verdict = Some(Verdict::WasStranger(pb::correct_event_request::Stranger {}));
    let request = pb::CorrectEventRequest { cursor, verdict, ..Default::default() };
    let event = client.correct_event(request.clone()).await.expect("it names nobody").into_inner().event.expect("an event");
    assert!(event.was_stranger && event.subject.is_none() && event.previous_subject.is_none(), "{event:?}");
    let learns = client.correct_event(pb::CorrectEventRequest { use_snapshot: true, ..request }).await;
    assert_eq!(reason(&learns.expect_err("of nobody there is nothing to learn")), "EVENT_NAMES_NOBODY");
}

#[tokio::test]
async fn a_stop_ends_open_streams_with_unavailable() {
    let Some(served) = serve("a stop with streams open", 4_096).await else { return };
    let mut events = subscribe(&served, pb::SubscribeRequest::default()).await;
    let watch = CameraServiceClient::new(served.channel.clone()).watch_cameras(pb::WatchCamerasRequest::default()).await;
    let mut watch = watch.expect("watched").into_inner();
    watch.message().await.expect("no error").expect("the states at once");
    served.stop.send(()).expect("it runs");
    let ended = next(&mut events).await.expect_err("the stream ends");
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unavailable, "STOPPING"));
    let ended = watch.message().await.expect_err("the stream ends");
    assert_eq!((ended.code(), reason(&ended).as_str()), (Code::Unavailable, "STOPPING"));
    tokio::time::timeout(Duration::from_secs(10), served.ended).await.expect("within the deadline").expect("in order");
}

#[tokio::test]
async fn a_client_that_does_not_read_does_not_hold_up_the_end() {
    let Some(served) = serve("a stop beside a client that does not read", 4_096).await else { return };
    let mut idle = subscribe(&served, pb::SubscribeRequest::default()).await;
    // More than the client's window takes.
    for batch in 0..40 {
        served.events.append((0..500).map(|n| happened(EventKind::CameraOnline, batch * 500 + n)).collect()).await.expect("written");
    }
    served.stop.send(()).expect("it runs");
    tokio::time::timeout(Duration::from_secs(30), served.ended).await.expect("it ends all the same").expect("in order");
    let first = next(&mut idle).await.expect("what was sent is there");
    assert!(!first.events.is_empty());
}

/// The Python that `script/bootstrap` made, or the one named by `PYTHON_WITH_GRPCIO`.
fn python(left_out: &str) -> Option<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("PYTHON_WITH_GRPCIO").map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    if !python.exists() {
        println!("LEFT OUT: {left_out}: {} is not there", python.display());
    }
    python.exists().then_some(python)
}

/// A process that ends with the test.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_python_example_opens_the_door_only_while_it_is_not_too_late() {
    let left_out = "the Python subscriber";
    let Some(python) = python(left_out) else { return };
    let Some(served) = serve(left_out, 4_096).await else { return };
    let Some(obama) = bytes("obama.jpg", left_out) else { return };
    let mut gallery = GalleryServiceClient::new(served.channel.clone());
    let created = gallery.create_subject(new_subject("obama", &obama)).await.expect("enrolled").into_inner();
    let uid: uuid::Uuid = created.subject.expect("a subject").uid.parse().expect("a UUID");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/python/subscribe.py");
    let child = std::process::Command::new(python)
        .arg(script)
        .arg(served.address.to_string())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut child = Ended(child);
    let (line, mut lines) = tokio::sync::mpsc::channel::<String>(64);
    let output = BufReader::new(child.0.stdout.take().expect("piped"));
    std::thread::spawn(move || output.lines().map_while(Result::ok).all(|text| line.blocking_send(text).is_ok()));
    let seen_at = |camera: &str, actionable: Duration| {
        let now = SystemClock::new().now();
        let mut event = Event::new(EventKind::Identified, camera, now);
        event.actionable_until_us = now.plus(actionable).as_micros();
        event.subject = Some(SubjectUid(uid));
        event
    };
    // It subscribes from now on, and only its first line tells when that is.
    let opened = tokio::time::timeout(PATIENCE, async {
        loop {
            served.events.append(vec![seen_at("front", PATIENCE)]).await.expect("written");
            if let Ok(line) = tokio::time::timeout(Duration::from_millis(200), lines.recv()).await {
                break line.expect("it goes on");
            }
        }
    });
    assert!(opened.await.expect("within a minute").contains("front"));
    let mut of_nobody = seen_at("erased", PATIENCE);
    of_nobody.subject = Some(SubjectUid(uuid::Uuid::from_u128(1)));
    let news = vec![seen_at("too-late", Duration::ZERO), of_nobody, seen_at("back", PATIENCE)];
    served.events.append(news).await.expect("written");
    loop {
        let line = tokio::time::timeout(PATIENCE, lines.recv()).await.expect("within a minute").expect("it goes on");
        assert!(!line.contains("too-late") && !line.contains("erased"), "{line}");
        if line.contains("back") {
            break;
        }
    }
}
