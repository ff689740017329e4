//! What the daemon tells the service manager: that it is ready, that it lives, that it reads its files again.
//!
//! In: a socket like systemd's, a camera that is absent, a token file, a folder of people. Out: verdicts on what is told, and when.
//! Must not know: the units, how the daemon recognises.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use doorward::pb;
use doorward::pb::camera_service_client::CameraServiceClient;
use doorward::pb::event_service_client::EventServiceClient;
use doorward::pb::gallery_service_client::GalleryServiceClient;
use doorward::pb::system_service_client::SystemServiceClient;
use doorward::pb::{CameraConnection, EventType};
use tokio::net::UnixDatagram;
use tokio::sync::watch;
use tonic::{Code, Request};

use crate::daemon::{add_camera, events_until};
use crate::support::{Daemon, resources};

/// How long something may take to be told: far beyond what it takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// In place of the unit's `WatchdogSec`, in microseconds.
const WATCHDOG_USEC: &str = "1000000";
/// Fed three times as often as it must be, the watchdog has been fed for longer than three of its times by then.
const FEEDS: usize = 12;
const FIRST: &str = "0123456789abcdef-first";
const SECOND: &str = "0123456789abcdef-second";

/// Hears what the daemon tells. Ends with the test's runtime.
struct Manager {
    told: watch::Receiver<Vec<String>>,
}

impl Manager {
    /// Listens at once and without a pause, as systemd does: a daemon waits for whoever does not read.
    fn listen(socket: &Path) -> Self {
        let socket = UnixDatagram::bind(socket).expect("bound");
        let (heard, told) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut message = [0; 512];
            while let Ok(length) = socket.recv(&mut message).await {
                let text = String::from_utf8_lossy(&message[..length]).into_owned();
                heard.send_modify(|told| told.extend(text.lines().map(str::to_owned)));
            }
        });
        Self { told }
    }

    fn count(&self) -> usize {
        self.told.borrow().len()
    }

    /// Waits until `enough` was told after the first `since` lines.
    async fn until(&mut self, what: &str, since: usize, enough: impl Fn(&[String]) -> bool) {
        let waited = tokio::time::timeout(PATIENCE, self.told.wait_for(|told| enough(&told[since..]))).await;
        let is_told = waited.map(|told| told.expect("it listens").len());
        assert!(is_told.is_ok(), "{what} was not told within {PATIENCE:?}, but {:?}", &self.told.borrow()[since..]);
    }

    /// Waits until the daemon has started.
    async fn until_ready(&mut self) {
        self.until("READY=1", 0, |told| told.iter().any(|line| line == "READY=1")).await;
    }
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
    request
}

/// The camera's state, once it is offline.
async fn offline(client: &mut CameraServiceClient<tonic::transport::Channel>) -> pb::CameraStatus {
    let mut states = client.watch_cameras(pb::WatchCamerasRequest::default()).await.expect("watched").into_inner();
    let offline = async {
        loop {
            let response = states.message().await.expect("it goes on").expect("it does not end");
            if let Some(status) = response.statuses.into_iter().find(|status| status.connection() == CameraConnection::Offline) {
                return status;
            }
        }
    };
    tokio::time::timeout(PATIENCE, offline).await.expect("an absent camera is offline")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_while_every_camera_is_offline() {
    let Some(_) = resources("the watchdog of a daemon whose cameras are offline") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("notify");
    let mut manager = Manager::listen(&socket);
    let variables = [("NOTIFY_SOCKET", socket.as_os_str()), ("WATCHDOG_USEC", OsStr::new(WATCHDOG_USEC))];
    let daemon = Daemon::begin_with(&folder.path().join("data"), &[], &variables);
    manager.until_ready().await;
    let channel = daemon.channel().await;
    add_camera(&channel, "absent", "rtsp://127.0.0.1:9/stream").await;
    let mut client = CameraServiceClient::new(channel);
    let since = offline(&mut client).await.since;
    let count = manager.count();
    let feeds = |told: &[String]| told.iter().filter(|line| *line == "WATCHDOG=1").count();
    manager.until("WATCHDOG=1", count, |told| feeds(told) >= FEEDS).await;
    let request = pb::GetCameraRequest { id: "absent".into() };
    let status = client.get_camera(request).await.expect("it is there").into_inner().status.expect("it has a state");
    assert_eq!(status.since, since, "it was away all the while: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_tokens_and_people_again_and_the_service_manager_is_told() {
    let Some(photos) = resources("SIGHUP") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (socket, tokens, people) = (folder.path().join("notify"), folder.path().join("tokens"), folder.path().join("people"));
    fs::write(&tokens, FIRST).expect("written");
    fs::set_permissions(&tokens, Permissions::from_mode(0o600)).expect("set");
    fs::create_dir(&people).expect("made");
    let mut manager = Manager::listen(&socket);
    let settings = [format!("server.token_file={}", tokens.display()), format!("people_dir={}", people.display())];
    let settings = settings.each_ref().map(String::as_str);
    let daemon = Daemon::begin_with(&folder.path().join("data"), &settings, &[("NOTIFY_SOCKET", socket.as_os_str())]);
    manager.until_ready().await;
    let channel = daemon.channel().await;
    let mut system = SystemServiceClient::new(channel.clone());
    let refused = system.get_status(with_token(SECOND, pb::GetStatusRequest {})).await.expect_err("it is not known yet");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let subscription = pb::SubscribeRequest { types: vec![EventType::GalleryChanged.into()], ..Default::default() };
    let mut events =
        EventServiceClient::new(channel.clone()).subscribe(with_token(FIRST, subscription)).await.expect("let in").into_inner();

    fs::write(&tokens, format!("{FIRST}\n{SECOND}")).expect("written");
    fs::create_dir(people.join("obama")).expect("made");
    fs::copy(photos.join("obama.jpg"), people.join("obama/1.jpg")).expect("copied");
    let count = manager.count();
    daemon.reload();
    manager.until("RELOADING=1, READY=1", count, |told| told == ["RELOADING=1", "READY=1"]).await;
    system.get_status(with_token(SECOND, pb::GetStatusRequest {})).await.expect("it is known");
    events_until(&mut events, |seen| !seen.is_empty()).await;
    let request = with_token(SECOND, pb::GetSubjectRequest { id: "obama".into() });
    GalleryServiceClient::new(channel).get_subject(request).await.expect("the folder was read, too");
}
