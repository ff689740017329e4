//! A daemon whose models take long to open, as those of a GPU do while an engine is built; and one that starts after inference failed.
//!
//! In: a model file that is a pipe, so that the daemon waits for its bytes as long as the test likes; a log. Out: what is said.
//! Must not know: what the models are.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use doorward::clock::Timestamp;
use doorward::event::{Event, EventKind};
use doorward::pb::event_service_client::EventServiceClient;
use doorward::pb::subscribe_request::{Earliest, Start};
use doorward::pb::system_service_client::SystemServiceClient;
use doorward::pb::{EventType, GetStatusRequest, SubscribeRequest};
use doorward::store::Store;
use tempfile::TempDir;
use tonic::Code;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::daemon::events_until;
use crate::faces;
use crate::support::{Daemon, resources};

/// How long health may take to answer: far beyond what it takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// The model that comes slowly.
const SLOW: &str = "face_detection_yunet_2023mar.onnx";

/// The models, of which one is a pipe.
struct SlowModels {
    folder: TempDir,
    original: PathBuf,
}

impl SlowModels {
    fn new() -> Self {
        let models = std::path::absolute(faces::models_dir("slow models").expect("the test asked first")).expect("a folder");
        let folder = tempfile::tempdir().expect("a folder");
        for entry in std::fs::read_dir(&models).expect("readable").map(|entry| entry.expect("readable")) {
            std::os::unix::fs::symlink(entry.path(), folder.path().join(entry.file_name())).expect("linked");
        }
        std::fs::remove_file(folder.path().join(SLOW)).expect("it was linked");
        assert!(Command::new("mkfifo").arg(folder.path().join(SLOW)).status().expect("mkfifo runs").success());
        Self { original: models.join(SLOW), folder }
    }

    fn setting(&self) -> String {
        format!("models_dir={}", self.folder.path().display())
    }

    /// Waits until somebody reads the model, who then waits for what is written to it.
    async fn asked_for(&self) -> File {
        let pipe = self.folder.path().join(SLOW);
        tokio::task::spawn_blocking(|| File::options().write(true).open(pipe)).await.expect("no panic").expect("it can be written to")
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.original).expect("the model is there")
    }
}

async fn health(daemon: &Daemon) -> i32 {
    let request = HealthCheckRequest { service: String::new() };
    let mut client = HealthClient::new(daemon.channel().await);
    let answer = tokio::time::timeout(PATIENCE, client.check(request)).await.expect("health does not wait for models");
    answer.expect("health answers").into_inner().status
}

#[tokio::test(flavor = "multi_thread")]
async fn while_models_are_opened_health_says_not_serving_and_calls_are_told_that_the_daemon_starts() {
    let Some(_) = resources("a daemon that starts slowly") else { return };
    let (models, data) = (SlowModels::new(), tempfile::tempdir().expect("a folder"));
    let mut daemon = Daemon::begin(data.path(), &[&models.setting()]);
    let mut pipe = models.asked_for().await;
    assert_eq!(health(&daemon).await, ServingStatus::NotServing as i32);
    let refused = SystemServiceClient::new(daemon.channel().await).get_status(GetStatusRequest {}).await.expect_err("it starts");
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.get_details_error_info().map(|info| info.reason).as_deref(), Some("STARTING"));
    pipe.write_all(&models.bytes()).expect("written");
    drop(pipe);
    daemon.until_ready().await;
    assert_eq!(health(&daemon).await, ServingStatus::Serving as i32);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_told_to_stop_while_models_are_opened_does_not_wait_for_them() {
    let Some(_) = resources("a daemon that is stopped while it starts") else { return };
    let (models, data) = (SlowModels::new(), tempfile::tempdir().expect("a folder"));
    let mut daemon = Daemon::begin(data.path(), &[&models.setting()]);
    let pipe = models.asked_for().await;
    daemon.terminate();
    assert!(daemon.ended_within(Duration::from_secs(11)).await.success(), "an orderly end");
    drop(pipe);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_after_inference_failed_tells_what_does_the_work_now() {
    let Some(_) = resources("a daemon after a failure") else { return };
    let data = tempfile::tempdir().expect("a folder");
    let now = Timestamp::from_micros(1_000_000);
    let event = Event { message: Some("the device is lost".into()), ..Event::new(EventKind::InferenceFailed, "", now) };
    let store = Store::open(data.path()).expect("it opens");
    store.append_events(vec![event]).await.expect("told");
    drop(store);
    let daemon = Daemon::start_in(data.path(), &["infer.device=cpu"]).await;
    let types = vec![EventType::InferenceFailed.into(), EventType::InferenceRestored.into()];
    let request = SubscribeRequest { start: Some(Start::Earliest(Earliest {})), types, ..SubscribeRequest::default() };
    let mut stream = EventServiceClient::new(daemon.channel().await).subscribe(request).await.expect("subscribed").into_inner();
    let events = events_until(&mut stream, |seen| seen.len() == 2).await;
    let told: Vec<_> = events.iter().map(|event| (event.r#type(), event.message.as_str(), event.camera_id.as_str())).collect();
    let restored = (EventType::InferenceRestored, "cpu does the work: configured", "");
    assert_eq!(told, [(EventType::InferenceFailed, "the device is lost", ""), restored]);
}
