//! What runs in the shadow, through the doors that users have: it sees a real camera's visitors, is compared, and never acts.
//!
//! Must not know: the insides of any stage.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use doorward::pb;
use doorward::pb::EventType;
use doorward::pb::camera_service_client::CameraServiceClient;
use doorward::pb::shadow_service_client::ShadowServiceClient;
use tonic::transport::Channel;

use crate::daemon::{add_camera, enrol, events_until, identified, of_type, subscribe};
use crate::ingest::support::CameraProcess;
use crate::model_change::{SECOND, with_second_encoder};
use crate::support::{Clip, Daemon, resources};

const PATIENCE: Duration = Duration::from_secs(30);

fn doorward(server: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_doorward")).args(["--server", server]).args(arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The shadow's tallies, once `enough` says that all is in them.
async fn tallies(channel: &Channel, enough: impl Fn(&pb::GetShadowResponse) -> bool) -> pb::GetShadowResponse {
    let mut client = ShadowServiceClient::new(channel.clone());
    let began = Instant::now();
    loop {
        let shadow = client.get_shadow(pb::GetShadowRequest {}).await.expect("there is a shadow").into_inner();
        if enough(&shadow) {
            return shadow;
        }
        assert!(began.elapsed() < PATIENCE, "it never came to that: {shadow:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Obama, who is enrolled, and a stranger stand before the camera once at least; then the camera is removed, which ends their visits.
async fn two_visitors(channel: &Channel, url: &str) -> Vec<pb::Event> {
    let mut stream = subscribe(channel).await;
    add_camera(channel, "front-door", url).await;
    let events = events_until(&mut stream, |seen| identified(seen, "obama") && !of_type(seen, EventType::Unidentified).is_empty()).await;
    let request = pb::DeleteCameraRequest { id: "front-door".into(), ..Default::default() };
    CameraServiceClient::new(channel.clone()).delete_camera(request).await.expect("removed");
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_policy_in_the_shadow_is_reported_with_pictures_and_names_are_told_as_before() {
    let Some(faces) = resources("a policy in the shadow") else { return };
    let clip = Clip::of(&[faces.join("obama2.jpg"), faces.join("biden.jpg")]);
    let camera = CameraProcess::start(&["--file", &clip.file().display().to_string()]);
    let settings = ["shadow.threshold=0.99", "recognition.visit_resume_ms=0"];
    let mut daemon = Daemon::start(&settings).await;
    let channel = daemon.channel().await;
    enrol(&channel, "obama", faces.join("obama.jpg")).await;
    two_visitors(&channel, camera.url.as_str()).await;

    let shadow = tallies(&channel, |shadow| shadow.would_not_name_count > 0 && shadow.agree_count > 0).await;
    assert_eq!((shadow.would_name_count, shadow.would_rename_count, shadow.unanswered_count), (0, 0, 0), "{shadow:?}");
    assert_eq!(shadow.description, "threshold 0.99");
    let request = pb::ListShadowVerdictsRequest::default();
    let listed = ShadowServiceClient::new(channel.clone()).list_shadow_verdicts(request).await.expect("listed").into_inner();
    let verdict = &listed.verdicts[0];
    let (told, would) = (verdict.decision.as_ref().expect("told"), verdict.shadow_decision.as_ref().expect("compared"));
    assert_eq!(verdict.subject.as_ref().map(|subject| subject.id.as_str()), Some("obama"));
    assert!(verdict.shadow_subject.is_none() && would.threshold == 0.99 && told.threshold < 0.9, "{verdict:?}");

    let dir = tempfile::tempdir().expect("a folder");
    let page = dir.path().join("shadow.html");
    let output = doorward(daemon.server(), &["shadow", "report", "--report", &page.display().to_string()]);
    let said = text(&output.stdout);
    assert!(output.status.success() && said.contains("nobody would be named") && said.contains("obama \"OBAMA\""), "{output:?}");
    let page = std::fs::read_to_string(page).expect("the page was written");
    assert!(page.contains("data:image/jpeg;base64,/9j/") && page.contains("obama"), "the best shot is in it");

    // The same shadow goes on counting after a restart; without one there is nothing to report.
    daemon.kill();
    let data_dir = daemon.data_dir().to_owned();
    let mut again = Daemon::start_in(&data_dir, &settings).await;
    let now = tallies(&again.channel().await, |_| true).await;
    assert_eq!(
        (now.start_time, now.agree_count, now.would_not_name_count),
        (shadow.start_time, shadow.agree_count, shadow.would_not_name_count)
    );
    again.kill();
    let without = Daemon::start_in(&data_dir, &[]).await;
    let output = doorward(without.server(), &["shadow", "report"]);
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("NO_SHADOW"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_in_the_shadow_knows_who_is_enrolled_while_it_runs() {
    let left_out = "an encoder in the shadow";
    let (Some(faces), Some(models)) = (resources(left_out), crate::faces::models_dir(left_out)) else { return };
    let models = with_second_encoder(&models);
    let clip = Clip::of(&[faces.join("obama2.jpg"), faces.join("biden.jpg")]);
    let camera = CameraProcess::start(&["--file", &clip.file().display().to_string()]);
    let settings = [format!("models_dir={}", models.path().display()), format!("shadow.encoder={SECOND}")];
    let settings: Vec<&str> = settings.iter().map(String::as_str).chain(["recognition.visit_resume_ms=0"]).collect();
    let daemon = Daemon::start(&settings).await;
    let channel = daemon.channel().await;
    let enrolled = enrol(&channel, "obama", faces.join("obama.jpg")).await;
    // Templates of the other encoder are made of the kept photo, and only then can it be compared.
    tallies(&channel, |shadow| shadow.gallery_version >= enrolled.gallery_version && shadow.gallery_template_count == 1).await;
    let events = two_visitors(&channel, camera.url.as_str()).await;

    let shadow = tallies(&channel, |shadow| shadow.agree_count >= 2).await;
    let differing = (shadow.would_name_count, shadow.would_not_name_count, shadow.would_rename_count, shadow.unanswered_count);
    assert_eq!(differing, (0, 0, 0, 0), "the other encoder is the same, turned around: {shadow:?}");
    // What is told is told by the encoder in force.
    let spaces: Vec<_> =
        events.iter().filter_map(|event| event.decision.as_ref()).map(|decision| decision.template_space.clone()).collect();
    assert!(!spaces.is_empty() && spaces.iter().all(|space| *space == spaces[0]), "{spaces:?}");
}

#[tokio::test]
async fn a_shadow_that_cannot_decide_keeps_the_daemon_from_starting() {
    let Some(_) = resources("a shadow that cannot decide") else { return };
    let dir = tempfile::tempdir().expect("a folder");
    for (setting, words) in [
        ("shadow.encoder=nobody", "nobody"),
        ("shadow.calibration=/nowhere/c.json", "/nowhere/c.json"),
        ("shadow.target_fpir=2", "shadow.target_fpir"),
    ] {
        let refused = Daemon::refusal(dir.path(), &[setting]);
        assert!(refused.contains(words), "{setting}: {refused}");
    }
}
