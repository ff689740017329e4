//! The whole daemon, as its users meet it: a real RTSP camera of real faces, the real models, a
//! real client.

use std::path::PathBuf;
use std::time::Duration;

use doorward::pb;
use doorward::pb::camera_service_client::CameraServiceClient;
use doorward::pb::event_service_client::EventServiceClient;
use doorward::pb::gallery_service_client::GalleryServiceClient;
use doorward::pb::sample_source::Source;
use doorward::pb::system_service_client::SystemServiceClient;
use doorward::pb::{EventType, VisitEndReason};
use doorward::store::Store;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::transport::Channel;

use crate::ingest::support::CameraProcess;
use crate::support::{Clip, Daemon, resources};

/// How long an event may take to come: far beyond what it takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn enrol(channel: &Channel, id: &str, photo: PathBuf) -> pb::CreateSubjectResponse {
    let image = std::fs::read(photo).expect("the photo is there");
    let request = pb::CreateSubjectRequest {
        subject: Some(pb::Subject { id: id.into(), display_name: id.to_uppercase(), ..Default::default() }),
        samples: vec![pb::SampleSource { source: Some(Source::Image(image)) }],
        ..Default::default()
    };
    let mut client = GalleryServiceClient::new(channel.clone());
    client.create_subject(request).await.expect("the photo enrols").into_inner()
}

pub async fn add_camera(channel: &Channel, id: &str, url: &str) {
    let camera = pb::Camera { id: id.into(), url: url.into(), role: pb::CameraRole::Entry.into(), ..Default::default() };
    let mut client = CameraServiceClient::new(channel.clone());
    let request = pb::CreateCameraRequest { camera: Some(camera), ..Default::default() };
    client.create_camera(request).await.expect("the camera is created");
}

/// Reads events until `enough` says so; panics when they do not come.
pub async fn events_until(stream: &mut tonic::Streaming<pb::SubscribeResponse>, enough: impl Fn(&[pb::Event]) -> bool) -> Vec<pb::Event> {
    let mut seen = Vec::new();
    let reading = async {
        while !enough(&seen) {
            let response = stream.message().await.expect("the stream goes on").expect("the stream does not end");
            seen.extend(response.events);
        }
    };
    if tokio::time::timeout(PATIENCE, reading).await.is_err() {
        let kinds: Vec<_> = seen.iter().map(|e| (e.r#type(), e.subject.as_ref().map(|s| s.id.clone()))).collect();
        panic!("the events did not come within {PATIENCE:?}; seen: {kinds:?}");
    }
    seen
}

pub fn identified(events: &[pb::Event], id: &str) -> bool {
    events.iter().any(|e| e.r#type() == EventType::Identified && e.subject.as_ref().is_some_and(|s| s.id == id))
}

pub fn of_type(events: &[pb::Event], kind: EventType) -> Vec<&pb::Event> {
    events.iter().filter(|e| e.r#type() == kind).collect()
}

pub async fn subscribe(channel: &Channel) -> tonic::Streaming<pb::SubscribeResponse> {
    let mut client = EventServiceClient::new(channel.clone());
    let mut stream = client.subscribe(pb::SubscribeRequest::default()).await.expect("subscribed").into_inner();
    let first = stream.message().await.expect("it begins").expect("the first response says where");
    assert!(first.events.is_empty() && first.position.is_some() && first.server_time.is_some());
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn a_face_walks_past_a_camera_and_a_subscriber_is_told_who_it_is() {
    let Some(faces) = resources("the daemon with a real camera") else { return };
    let photo = |name: &str| faces.join(name);
    // The photos that enrol are never shown; Biden is a stranger.
    let shown = [photo("obama2.jpg"), photo("biden.jpg")];
    let clip = Clip::of(&shown);
    let camera = CameraProcess::start(&["--file", &clip.file().display().to_string()]);
    // Whoever is out of sight has gone: the clip begins again before a minute is over.
    let mut daemon = Daemon::start(&["recognition.visit_resume_ms=0"]).await;
    let channel = daemon.channel().await;
    enrol(&channel, "obama", photo("obama.jpg")).await;
    let mut stream = subscribe(&channel).await;
    add_camera(&channel, "front-door", camera.url.as_str()).await;

    let events = events_until(&mut stream, |seen| {
        identified(seen, "obama") && !of_type(seen, EventType::Unidentified).is_empty() && of_type(seen, EventType::VisitEnded).len() >= 2
    })
    .await;

    // That somebody was enrolled may be told before or after.
    let of_cameras: Vec<_> = events.iter().filter(|event| event.r#type() != EventType::GalleryChanged).collect();
    assert_eq!(of_cameras[0].r#type(), EventType::CameraOnline);
    let sequences: Vec<u64> = events.iter().map(|e| e.sequence).collect();
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "every event once, in order: {sequences:?}");
    for event in of_type(&events, EventType::Identified) {
        let decision = event.decision.as_ref().expect("it says why");
        assert!(decision.similarity.expect("somebody is enrolled") >= decision.threshold);
        assert_eq!((decision.gallery_subject_count, decision.gallery_version > 0), (1, true));
        let micros =
            |t: &Option<prost_types::Timestamp>| t.as_ref().map(|t| t.seconds * 1_000_000 + i64::from(t.nanos) / 1_000).expect("a time");
        assert_eq!(micros(&event.actionable_until), micros(&event.capture_time) + 5_000_000);
        assert!(micros(&event.decision_time) >= micros(&event.capture_time));
        let times = event.stage_times.as_ref().expect("its stages were measured");
        assert!(times.detect_ms > 0.0 && times.encode_ms > 0.0, "{times:?}");
        assert_eq!(event.subject.as_ref().map(|s| s.display_name.as_str()), Some("OBAMA"));
    }
    for event in of_type(&events, EventType::VisitStarted) {
        let same_visit = |other: &&pb::Event| other.visit_id == event.visit_id;
        let told: Vec<_> = events.iter().filter(same_visit).map(pb::Event::r#type).collect();
        assert!(told.iter().filter(|t| **t == EventType::Identified).count() <= 1, "once a visit: {told:?}");
        assert!(told.iter().filter(|t| **t == EventType::Unidentified).count() <= 1, "once a visit: {told:?}");
    }

    let shown = of_type(&events, EventType::Identified)[0];
    let request = pb::GetSnapshotRequest { snapshot_id: shown.snapshot_id.clone() };
    let snapshot = EventServiceClient::new(channel.clone()).get_snapshot(request).await.expect("the best shot was kept").into_inner();
    for jpeg in [snapshot.crop_jpeg, snapshot.frame_jpeg] {
        image::load_from_memory_with_format(&jpeg, image::ImageFormat::Jpeg).expect("it is a JPEG");
    }

    // A graceful end, with the stream open.
    daemon.terminate();
    let ended = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a stream ends with a status that says why"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    assert!(daemon.ended_within(Duration::from_secs(11)).await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_keeps_what_it_acknowledged_and_ends_the_visits_it_left_open() {
    let Some(faces) = resources("a killed daemon") else { return };
    let photo = |name: &str| faces.join(name);
    let clip = Clip::of(&[photo("obama2.jpg")]);
    let camera = CameraProcess::start(&["--file", &clip.file().display().to_string()]);
    let mut daemon = Daemon::start(&[]).await;
    let channel = daemon.channel().await;
    enrol(&channel, "obama", photo("obama.jpg")).await;
    let mut stream = subscribe(&channel).await;
    add_camera(&channel, "front-door", camera.url.as_str()).await;
    // One response may carry the start together with what follows it.
    let somebody_is_there = |seen: &[pb::Event]| of_type(seen, EventType::VisitStarted).len() > of_type(seen, EventType::VisitEnded).len();
    let before = events_until(&mut stream, somebody_is_there).await;
    // Another threshold neither connects the camera anew nor ends the visit.
    let changed = pb::Camera { id: "front-door".into(), threshold: Some(0.37), ..Default::default() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["threshold".into()] });
    let update = pb::UpdateCameraRequest { camera: Some(changed), update_mask, ..Default::default() };
    CameraServiceClient::new(channel.clone()).update_camera(update).await.expect("changed");
    let offline = pb::ListEventsRequest { types: vec![EventType::CameraOffline.into()], ..Default::default() };
    let offline = EventServiceClient::new(channel.clone()).list_events(offline).await.expect("listed").into_inner();
    let since = before.last().expect("somebody is there").sequence;
    let offline: Vec<_> = offline.events.iter().filter(|event| event.sequence > since).collect();
    assert!(offline.is_empty(), "it was online all the time since: {offline:?}");
    daemon.kill();

    let directory = daemon.data_dir().to_owned();
    let left_open = {
        let store = Store::open(&directory).expect("the lock died with the daemon");
        let mut open = store.open_visits().await.expect("readable");
        assert_eq!(open.len(), 1, "the visit was open when the daemon was killed");
        open.remove(0).visit.0.to_string()
    };
    let log = directory.join("log");
    let again = Daemon::start_in_telling(&directory, &log).await;
    let channel = again.channel().await;
    let subject = pb::GetSubjectRequest { id: "obama".into() };
    GalleryServiceClient::new(channel.clone()).get_subject(subject).await.expect("the subject is there");
    let request = pb::GetCameraRequest { id: "front-door".into() };
    CameraServiceClient::new(channel.clone()).get_camera(request).await.expect("the camera is there");
    let status = SystemServiceClient::new(channel.clone()).get_status(pb::GetStatusRequest {}).await.expect("it answers").into_inner();
    let told = std::fs::read_to_string(&log).expect("its log");
    let ready = told.lines().find(|line| line.contains("inference is ready")).unwrap_or_else(|| panic!("it says what runs: {told}"));
    let ready: serde_json::Value = serde_json::from_str(ready).expect("it is JSON");
    let runs = status.inference.expect("it says what runs");
    for (name, answered) in [("device", &runs.device), ("provider", &runs.provider), ("precision", &runs.precision)] {
        assert!(!answered.is_empty() && ready[name] == **answered, "{name} is {answered}, and the log says: {ready}");
    }
    assert!(runs.sessions > 0 && ready["sessions"] == runs.sessions, "{} sessions, and the log says: {ready}", runs.sessions);
    let last = before.last().expect("there was an event");
    assert_eq!(status.event_epoch, last.epoch, "a restart is no new log");
    let ends = pb::ListEventsRequest { types: vec![EventType::VisitEnded.into()], ..Default::default() };
    let ends = EventServiceClient::new(channel.clone()).list_events(ends).await.expect("listed").into_inner().events;
    let ends: Vec<_> = ends.iter().filter(|end| end.visit_id == left_open).collect();
    let [end] = ends[..] else { panic!("the visit that was open is told to end once: {ends:?}") };
    assert!(end.sequence > last.sequence, "after all that was told before: {end:?}");
    assert_eq!(end.visit_end_reason(), VisitEndReason::DaemonRestarted);
    let mut stream = subscribe(&channel).await;
    let after = events_until(&mut stream, |seen| identified(seen, "obama")).await;
    assert!(after.iter().all(|e| e.sequence > last.sequence), "sequences go on where they were");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_cameras_are_refused_each_with_its_reason_and_the_others_go_on() {
    let Some(_) = resources("bad cameras") else { return };
    let daemon = Daemon::start(&[]).await;
    let channel = daemon.channel().await;
    let mut client = CameraServiceClient::new(channel.clone());
    add_camera(&channel, "absent", "rtsp://127.0.0.1:9/stream").await;
    for (id, url, code) in [
        ("absent", "rtsp://127.0.0.1:9/stream", Code::AlreadyExists),
        ("web", "http://127.0.0.1/stream", Code::InvalidArgument),
        ("secret", "rtsp://admin:hunter2@127.0.0.1/stream", Code::InvalidArgument),
        ("Not an id", "rtsp://127.0.0.1/stream", Code::InvalidArgument),
    ] {
        let camera = pb::Camera { id: id.into(), url: url.into(), ..Default::default() };
        let request = pb::CreateCameraRequest { camera: Some(camera), ..Default::default() };
        let refused = client.create_camera(request).await.expect_err("it is refused");
        assert_eq!(refused.code(), code, "{id}: {refused:?}");
        assert!(!format!("{refused:?}").contains("hunter2"), "a password is never repeated");
    }
    let mut states = client.watch_cameras(pb::WatchCamerasRequest::default()).await.expect("watched").into_inner();
    let offline = async {
        loop {
            let response = states.message().await.expect("it goes on").expect("it does not end");
            if let Some(status) = response.statuses.iter().find(|s| s.connection() == pb::CameraConnection::Offline) {
                return status.clone();
            }
        }
    };
    let status = tokio::time::timeout(PATIENCE, offline).await.expect("an absent camera is offline");
    assert_eq!((status.camera_id.as_str(), status.reason.as_str()), ("absent", "UNREACHABLE"));
    assert!(status.next_attempt_time.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_is_there_all_the_while_that_it_is_connected_to_anew() {
    let Some(_) = resources("a camera that is connected to anew") else { return };
    let camera = CameraProcess::playing();
    let daemon = Daemon::start(&[]).await;
    let channel = daemon.channel().await;
    add_camera(&channel, "front-door", camera.url.as_str()).await;
    let mut client = CameraServiceClient::new(channel.clone());
    let mut states = client.watch_cameras(pb::WatchCamerasRequest::default()).await.expect("watched").into_inner();
    let asked = CancellationToken::new();
    let asking = tokio::spawn({
        let (mut client, asked) = (client.clone(), asked.clone());
        async move {
            let mut answers = 0;
            while !asked.is_cancelled() {
                let request = pb::GetCameraRequest { id: "front-door".into() };
                client.get_camera(request).await.expect("it is there");
                answers += 1;
            }
            answers
        }
    });
    let mut told = Vec::new();
    for change in 0..4 {
        let online = async {
            loop {
                let response = states.message().await.expect("it goes on").expect("it does not end");
                for status in &response.statuses {
                    let state = (status.connection(), status.reason.clone(), status.since);
                    // Neither what was told before the change nor the counts of the same state follow from it.
                    let is_news = told.last() != Some(&state);
                    told.push(state);
                    if is_news && told.len() > 1 && status.connection() == pb::CameraConnection::Online {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, online).await.unwrap_or_else(|_| panic!("online after change {change}: {told:?}"));
        let credential = pb::CameraCredential { username: "admin".into(), password: format!("of change {change}") };
        let set = pb::SetCameraCredentialRequest { camera_id: "front-door".into(), credential: Some(credential), ..Default::default() };
        client.set_camera_credential(set).await.expect("set");
    }
    asked.cancel();
    let answers = asking.await.expect("each question was answered");
    println!("{answers} answers, told {told:?}");
    assert!(told.iter().all(|(_, reason, _)| reason != "REMOVED"), "it was never removed: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_data_is_refused() {
    let Some(_) = resources("a second daemon") else { return };
    let daemon = Daemon::start(&[]).await;
    let refused = Daemon::refusal(daemon.data_dir(), &[]);
    assert!(refused.contains("in use by another doorward"), "{refused}");
}
