//! Whether a face looks alive, with the real model: its published answers, and what a daemon and a replay say of it.
//!
//! In: models, two pictures of attacks and one of somebody alive where they are there. Out: verdicts.
//! Prints what is left out without them.
//! Must not know: how faces are cut out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use doorward::config::{DeviceChoice, InferConfig};
use doorward::device;
use doorward::frame::Frame;
use doorward::infer::{Engine, FaceInFrame, Lane};
use doorward::pb::recognition_service_client::RecognitionServiceClient;
use doorward::pb::verify_request::Claim;
use doorward::pb::{self, EventType};
use doorward::pb::{DetectFacesRequest, IdentifyRequest, VerifyRequest};

use crate::daemon::{add_camera, enrol, events_until, identified, of_type, subscribe};
use crate::faces;
use crate::ingest::support::CameraProcess;
use crate::replay::{events, people, replay};
use crate::support::{Clip, Daemon, resources};

/// The pictures that Silent-Face-Anti-Spoofing publishes as examples, and what the model answers to each where `OpenCV` cuts
/// and resizes the face: somebody alive, and two attacks.
const REFERENCE: [(&str, f32); 3] = [("image_T1.jpg", 0.950), ("image_F1.jpg", 0.000), ("image_F2.jpg", 0.007)];
/// How far from it an answer may be: the detector finds the face a pixel beside where `OpenCV`'s does.
const TOLERANCE: f32 = 0.03;
/// The same for a camera's frames: half of the chroma is gone.
const VIDEO_TOLERANCE: f32 = 0.08;

fn attacks(left_out: &str) -> Option<PathBuf> {
    faces::models_dir(left_out)?;
    faces::shared_data("spoof", left_out)
}

async fn live_score(engine: &Engine, (lane, frame): (Lane, &Frame)) -> f32 {
    let face = faces::detect_in(engine, lane, (frame, 0.7)).await.first().expect("a face").box_in_frame;
    let asked = FaceInFrame { frame: frame.clone(), face };
    engine.live_scores(lane, vec![asked]).await.expect("it is asked")[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_face_and_two_attacks_score_as_published() {
    let Some((pictures, models)) = attacks("live scores").zip(faces::models_dir("live scores")) else { return };
    let device = device::resolve(&DeviceChoice::Cpu).expect("there is a CPU");
    let engine = Engine::open(&InferConfig { antispoof: true, ..InferConfig::default() }, &models, &device).expect("the models are good");
    assert!(engine.has_live_scores());
    assert!(engine.facts().models.iter().any(|model| model.role == "antispoof"), "GetStatus says that it runs");
    for (name, expected) in REFERENCE {
        let photo = faces::photo(&pictures.join(name));
        let as_photo = live_score(&engine, (Lane::Photo, &photo)).await;
        let as_video = live_score(&engine, (Lane::Live, &faces::as_video(&photo))).await;
        println!("{name}: {as_photo:.4} as a photo, {as_video:.4} as video, {expected:.4} expected");
        assert!((as_photo - expected).abs() <= TOLERANCE, "{name}: {as_photo}");
        assert!((as_video - expected).abs() <= VIDEO_TOLERANCE, "{name} as video: {as_video}");
    }
    let cpu = engine.inference_cpu();
    assert_eq!(cpu.live_runs, 6);
    println!("{:.2} ms of CPU a face", cpu.live_ns as f64 / cpu.live_runs as f64 / 1e6);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_nobody_is_asked_and_without_the_model_the_setting_is_refused() {
    let Some(models) = faces::models_dir("a daemon without live scores") else { return };
    let engine = faces::engine(&models);
    assert!(!engine.has_live_scores() && engine.live_scores(Lane::Photo, Vec::new()).await.is_err());
    let dir = tempfile::tempdir().expect("a folder");
    let text = std::fs::read_to_string(models.join("manifest.toml")).expect("read");
    let entries: Vec<&str> = text.split("[[model]]").filter(|entry| !entry.contains("role = \"antispoof\"")).collect();
    std::fs::write(dir.path().join("manifest.toml"), entries.join("[[model]]")).expect("written");
    for entry in std::fs::read_dir(models.canonicalize().expect("it is there")).expect("listed").map(|entry| entry.expect("an entry")) {
        // The manifest is there already.
        let _ = std::os::unix::fs::symlink(entry.path(), dir.path().join(entry.file_name()));
    }
    let setting = format!("models_dir={}", dir.path().display());
    let data = tempfile::tempdir().expect("a folder");
    let said = Daemon::refusal(data.path(), &["infer.antispoof=true", &setting]);
    for part in ["role = \"antispoof\"", "infer.antispoof", "manifest.toml", "script/bootstrap"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_refuses_attacks_names_nobody_by_a_picture_of_a_picture() {
    let Some(pictures) = attacks("questions about attacks") else { return };
    let daemon = Daemon::start(&["infer.antispoof=true", "infer.sessions=1", "recognition.suspected_attack=refuse"]).await;
    let mut recognition = RecognitionServiceClient::new(daemon.channel().await);
    let read = |name: &str| std::fs::read(pictures.join(name)).expect("it can be read");
    for (name, expected) in REFERENCE {
        let found = recognition.detect_faces(DetectFacesRequest { image: read(name) }).await.expect("answered").into_inner();
        let score = found.faces[0].live_score.expect("it is measured");
        assert!((score - expected).abs() <= TOLERANCE, "{name}: {score}");
        let is_attack = expected < 0.5;
        let claim = Some(Claim::OtherImage(read(name)));
        let verified = recognition.verify(VerifyRequest { image: read(name), claim }).await.expect("answered").into_inner();
        assert!(verified.similarity > 0.99, "the same picture");
        assert_eq!((verified.r#match, verified.suspected_attack), (!is_attack, is_attack), "{name}");
        let asked = IdentifyRequest { image: read(name), candidates_max: 1 };
        let identified = recognition.identify(asked).await.expect("answered").into_inner();
        assert_eq!(identified.identifications[0].suspected_attack, is_attack, "{name}");
    }
}

/// Who was named in a clip, and the live scores of the decisions, with whether each was suspicious.
fn replayed(clip: &Clip, known: &Path, options: &[&str]) -> (BTreeSet<String>, Vec<(f64, bool)>) {
    let (printed, exit_code) = replay(clip.file(), known, options);
    assert_eq!(exit_code, 0);
    let told = events(&printed);
    let named = told.iter().filter_map(|event| event["subject"]["id"].as_str().map(str::to_owned)).collect();
    let decisions =
        told.iter().filter(|event| ["EVENT_TYPE_IDENTIFIED", "EVENT_TYPE_UNIDENTIFIED"].map(Some).contains(&event["type"].as_str()));
    let scores = decisions.map(|event| {
        let is_suspected = event["suspected_attack"].as_bool().unwrap_or_default();
        (event["live_score"].as_f64().unwrap_or(-1.0), is_suspected)
    });
    (named, scores.collect())
}

#[test]
fn a_recordings_events_say_how_alive_the_visitor_looks_and_a_picture_is_named_only_where_that_is_merely_reported() {
    let Some(photos) = resources("live scores of a recording") else { return };
    let known = people(&[("obama", photos.join("obama.jpg"))]);
    // A photo that is moved before a grey wall is what it looks like: 0.16 where this was written.
    let clip = Clip::of(&[photos.join("obama2.jpg")]);
    let measuring = ["--set", "infer.antispoof=true"];
    let (named, scores) = replayed(&clip, known.path(), &measuring);
    println!("{scores:?}");
    assert_eq!(named.iter().collect::<Vec<_>>(), ["obama"], "it is reported, and named");
    assert!(scores.len() == 1 && (0.0..0.5).contains(&scores[0].0) && scores[0].1, "{scores:?}");
    let refusing = [&measuring[..], &["--set", "recognition.suspected_attack=refuse"]].concat();
    let (named, scores) = replayed(&clip, known.path(), &refusing);
    assert!(named.is_empty() && scores.len() == 1 && scores[0].1, "{named:?} {scores:?}");
    let (named, unmeasured) = replayed(&clip, known.path(), &[]);
    assert_eq!((named.len(), unmeasured), (1, vec![(-1.0, false)]), "nothing is said without the setting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_before_a_real_camera_opens_no_door_where_attacks_are_refused() {
    let Some(photos) = resources("a picture held up before a camera").filter(|_| faces::models_dir("a picture before a camera").is_some())
    else {
        return;
    };
    let clip = Clip::of(&["obama2.jpg", "biden.jpg"].map(|name| photos.join(name)));
    let camera = CameraProcess::start(&["--file", &clip.file().display().to_string()]);
    let daemon = Daemon::start(&["infer.antispoof=true", "recognition.suspected_attack=refuse"]).await;
    let channel = daemon.channel().await;
    enrol(&channel, "obama", photos.join("obama.jpg")).await;
    let mut stream = subscribe(&channel).await;
    add_camera(&channel, "front-door", camera.url.as_str()).await;
    let told = events_until(&mut stream, |seen| of_type(seen, EventType::Unidentified).len() >= 2 || identified(seen, "obama")).await;
    assert!(told.iter().all(|event| event.subject.is_none() || event.r#type() == EventType::GalleryChanged), "{told:?}");
    let similar = |event: &&pb::Event| {
        event.decision.as_ref().is_some_and(|decision| decision.similarity.is_some_and(|similarity| similarity >= decision.threshold))
    };
    let held_up: Vec<_> = of_type(&told, EventType::Unidentified).into_iter().filter(similar).collect();
    let [held_up] = held_up[..] else { panic!("of the two one is similar enough: {told:?}") };
    assert!(held_up.suspected_attack && held_up.live_score.is_some_and(|score| score < 0.5), "{held_up:?}");
}
