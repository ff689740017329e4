//! A daemon whose models take long to open, as those of a GPU do while an engine is built.
//!
//! In: a model file that is a pipe, so that the daemon waits for its bytes as long as the test likes. Out: what is said meanwhile.
//! Must not know: what the models are.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use doorward::pb::GetStatusRequest;
use doorward::pb::system_service_client::SystemServiceClient;
use tempfile::TempDir;
use tonic::Code;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

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
