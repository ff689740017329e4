//! A daemon in a process of its own, and what it needs to live: models, a data directory, people
//! on a clip, a camera that plays it.
//!
//! In: the environment. Out: things that end when they are dropped.
//! Must not know: what the tests assert.

use std::ffi::OsStr;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use doorward::pb::GetStatusRequest;
use doorward::pb::system_service_client::SystemServiceClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::clip::{ClipSettings, encode};
use crate::faces;
use crate::stills::{Showing, show};

/// How long a daemon may take to be ready: it loads models, on a slow machine beside other tests.
const READY_MAX: Duration = Duration::from_secs(60);

/// The models and the folder of photos, if both are there.
pub fn resources(left_out: &str) -> Option<PathBuf> {
    faces::models_dir(left_out)?;
    faces::bootstrapped("photos", left_out)
}

/// A clip in which each photo is shown for three seconds.
pub struct Clip {
    _dir: TempDir,
    file: PathBuf,
}

impl Clip {
    pub fn of(photos: &[PathBuf]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("clip.mp4");
        let (size, fps) = ((640, 360), 15);
        let pictures = show(photos, Showing { size, fps, seconds_per_photo: 3.0, seconds_between: 3.0 }).expect("the photos are there");
        encode(&file, ClipSettings { size, fps, is_h265: false }, pictures).expect("the clip is encoded");
        Self { _dir: dir, file }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }
}

/// A daemon in a process of its own; killed when dropped.
pub struct Daemon {
    child: Child,
    server: String,
    data: Option<TempDir>,
    data_dir: PathBuf,
}

impl Daemon {
    /// Starts a daemon on new data and waits until it answers.
    pub async fn start(settings: &[&str]) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let data_dir = data.path().join("data");
        let mut daemon = Self::start_in(&data_dir, settings).await;
        daemon.data = Some(data);
        daemon
    }

    /// Starts a daemon on data that is there, which says into `log` what it says by default, as JSON.
    pub async fn start_in_telling(data_dir: &Path, log: &Path) -> Self {
        let log = std::fs::File::create(log).expect("a log");
        let mut daemon = Self::spawn((data_dir, &["log.filter=info", "log.json=true"]), &[], log.into());
        daemon.until_ready().await;
        daemon
    }

    /// Starts a daemon on data that is there.
    pub async fn start_in(data_dir: &Path, settings: &[&str]) -> Self {
        let mut daemon = Self::begin(data_dir, settings);
        daemon.until_ready().await;
        daemon
    }

    /// Starts a daemon and does not wait for it.
    pub fn begin(data_dir: &Path, settings: &[&str]) -> Self {
        Self::begin_with(data_dir, settings, &[])
    }

    /// The same, with more variables in its environment.
    pub fn begin_with(data_dir: &Path, settings: &[&str], variables: &[(&str, &OsStr)]) -> Self {
        Self::spawn((data_dir, settings), variables, Stdio::inherit())
    }

    fn spawn((data_dir, settings): (&Path, &[&str]), variables: &[(&str, &OsStr)], log: Stdio) -> Self {
        // The port is free at this moment, and nobody else on the machine is told of it.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let mut command = command(data_dir, &format!("127.0.0.1:{port}"), settings);
        let child = command.envs(variables.iter().copied()).stderr(log).spawn().expect("it starts");
        Self { child, server: format!("http://127.0.0.1:{port}"), data: None, data_dir: data_dir.into() }
    }

    /// Waits until it answers.
    pub async fn until_ready(&mut self) {
        let began = Instant::now();
        loop {
            if let Ok(channel) = self.endpoint().connect().await
                && SystemServiceClient::new(channel).get_status(GetStatusRequest {}).await.is_ok()
            {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                panic!("the daemon ended before it was ready: {status}");
            }
            assert!(began.elapsed() < READY_MAX, "the daemon was not ready within {READY_MAX:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a daemon says that does not start.
    pub fn refusal(data_dir: &Path, settings: &[&str]) -> String {
        let mut child = command(data_dir, "127.0.0.1:0", settings).stderr(Stdio::piped()).spawn().expect("it starts");
        let (began, mut said) = (Instant::now(), String::new());
        while child.try_wait().expect("it can be asked").is_none() {
            if began.elapsed() > READY_MAX {
                child.kill().and_then(|()| child.wait()).expect("it is killed");
                panic!("it was to refuse, and runs");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.stderr.take().expect("its log").read_to_string(&mut said).expect("text");
        assert!(!child.wait().expect("it ends").success(), "it was to refuse: {said}");
        said
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(self.server.clone()).expect("a URL").connect_timeout(Duration::from_secs(1))
    }

    pub async fn channel(&self) -> Channel {
        self.endpoint().connect().await.expect("it listens")
    }

    pub fn server(&self) -> &str {
        &self.server
    }

    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// As `systemctl reload` does.
    pub fn reload(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success());
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it has ended");
    }

    /// Waits until it has ended by itself.
    pub async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be asked") {
                return status;
            }
            assert!(began.elapsed() < limit, "the daemon did not end within {limit:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(data_dir: &Path, listen: &str, settings: &[&str]) -> Command {
    let models = faces::models_dir("a daemon").expect("the caller asked for resources first");
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.arg("serve").args(["--set", &format!("data_dir={}", data_dir.display()), "--set", &format!("models_dir={}", models.display())]);
    command.args(["--set", &format!("server.listen={listen}"), "--set", "log.filter=warn"]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    command.stdin(Stdio::null());
    command
}
