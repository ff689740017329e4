//! A start that does not come to its end.
//!
//! In: a manifest of models that is a pipe, so that whoever reads it waits as long as the test likes. Out: why the start ended.
//! Must not know: what the models are.

use std::fs::File;
use std::net::SocketAddr;
use std::process::Command;

use super::*;
use crate::clock::SimulatedClock;
use crate::config::{DeviceChoice, ServerConfig};

/// How long an end may take to be noticed: far beyond what it takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_while_models_are_opened_ends_the_start_though_they_are_not_open() {
    let (data, models) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let manifest = models.path().join("manifest.toml");
    assert!(Command::new("mkfifo").arg(&manifest).status().expect("mkfifo runs").success());
    // As long as it can be written to, whoever reads it waits.
    let pipe = File::options().read(true).write(true).open(&manifest).expect("it can be opened");
    let config = Config {
        data_dir: data.path().into(),
        models_dir: models.path().into(),
        server: ServerConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..ServerConfig::default() },
        infer: InferConfig { device: DeviceChoice::Cpu, ..InferConfig::default() },
        ..Config::default()
    };
    let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000)));
    let mut tasks = Tasks::default();
    tasks.spawn("the server's stand-in", async { Err::<(), _>("the socket is gone") });
    let opened = tokio::time::timeout(PATIENCE, Daemon::open(&config, clock, &mut tasks)).await;
    // Who opens the pipe only now finds no file, and who waits in it its end.
    drop((models, pipe));
    let why = opened.expect("nobody waits for the models").err().expect("a task has ended");
    let why: Vec<String> = why.chain().map(ToString::to_string).collect();
    assert_eq!(why, ["the daemon cannot go on", "the server's stand-in failed: the socket is gone"]);
}
