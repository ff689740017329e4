//! Subscriptions over a real connection: names, filters, slow clients, the end, and a third party's
//! subscriber.
//!
//! Events are written by the test itself.
//! Must not know: cameras, the pipeline.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;

use doorward::clock::{Clock, SystemClock};
use doorward::event::{Event, EventKind};
use doorward::pb;
use doorward::pb::camera_service_client::CameraServiceClient;
use doorward::pb::event_service_client::EventServiceClient;
use doorward::pb::gallery_service_client::GalleryServiceClient;
use doorward::store::NewEvent;
use doorward::subject::SubjectUid;
use tonic::transport::Endpoint;
use tonic::{Code, Status};

use super::served::{PATIENCE, Served, bytes, new_subject, reason, serve};

fn happened(kind: EventKind, number: u64) -> NewEvent {
    let mut event = Event::new(kind, "front", doorward::clock::Timestamp::from_micros(1_000_000));
    event.message = Some(format!("number {number}, {}", "x".repeat(200)));
    NewEvent { event, snapshot: None }
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
        new.event.subject = Some(SubjectUid(uid.parse().expect("a UUID")));
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

    let past =
        pb::SubscribeRequest { start: Some(pb::subscribe_request::Start::Cursor(after.events[0].cursor.clone())), ..Default::default() };
    let refused = EventServiceClient::new(served.channel.clone()).subscribe(past).await.expect_err("not in this version");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unimplemented, "START_NOT_SUPPORTED"));
    let missing = pb::GetSnapshotRequest { snapshot_id: uuid::Uuid::new_v4().to_string() };
    let missing = EventServiceClient::new(served.channel.clone()).get_snapshot(missing).await.expect_err("no such snapshot");
    assert_eq!(reason(&missing), "SNAPSHOT_NOT_FOUND");
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_ended_and_costs_nobody_anything() {
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
    let status = loop {
        match next(&mut idle).await {
            Ok(response) => {
                for event in response.events {
                    last += 1;
                    assert_eq!(event.sequence, last, "nothing is skipped in silence");
                }
            }
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "SUBSCRIBER_TOO_SLOW"), "after {last}: {status:?}");
    assert!(last < BATCHES * BATCH);
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
        NewEvent { event, snapshot: None }
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
    of_nobody.event.subject = Some(SubjectUid(uuid::Uuid::from_u128(1)));
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
