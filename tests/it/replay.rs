//! Recordings give the same events again, and the right ones.
//!
//! In: clips of photos, a real recording where it is there, people. Out: verdicts on what
//! `doorward replay` prints.
//! Must not know: the pipeline.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use doorward::camera::{Camera, CameraId, Role, Transport};
use doorward::clock::Timestamp;
use doorward::store::{CredentialChange, Store};
use doorward::telling::Telling;
use serde_json::Value;
use url::Url;

use crate::faces;
use crate::support::{Clip, resources};

/// What a run printed, and its exit code.
pub fn replay(video: &Path, people: &Path, options: &[&str]) -> (String, i32) {
    let models = faces::models_dir("a replay").expect("the caller asked for resources first");
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.arg("replay").arg(video).arg("--people").arg(people).args(["--as-fast-as-possible", "--camera", "front"]);
    command.args(["--set", &format!("models_dir={}", models.display())]).args(options);
    let output = command.stderr(Stdio::inherit()).output().expect("it runs");
    (String::from_utf8(output.stdout).expect("text"), output.status.code().expect("it was not killed"))
}

pub fn events(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

/// A folder of people with one photo each.
pub fn people(photos: &[(&str, PathBuf)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (id, photo) in photos {
        let own = folder.path().join(id);
        std::fs::create_dir(&own).expect("made");
        std::fs::copy(photo, own.join(photo.file_name().expect("a name"))).expect("copied");
    }
    folder
}

/// Who was named in which visits.
fn named(events: &[Value]) -> BTreeMap<String, BTreeSet<String>> {
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for event in events {
        if let (Some(who), Some(visit)) = (event["subject"]["id"].as_str(), event["visit_id"].as_str()) {
            named.entry(who.into()).or_default().insert(visit.into());
        }
    }
    named
}

fn count(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|event| event["type"] == format!("EVENT_TYPE_{kind}")).count()
}

#[test]
fn a_recording_gives_the_same_bytes_again_on_one_session_or_two() {
    let Some(photos) = resources("a replay") else { return };
    let people = people(&[("obama", photos.join("obama.jpg"))]);
    let clip = Clip::of(&[photos.join("obama2.jpg"), photos.join("biden.jpg")]);
    let runs = ["1", "2", "2"]
        .map(|sessions| replay(clip.file(), people.path(), &["--role", "entry", "--set", &format!("infer.sessions={sessions}")]));
    let (printed, exit_code) = &runs[0];
    assert_eq!(*exit_code, 0);
    assert!(runs.iter().all(|run| run == &runs[0]), "{runs:?}");
    let told = events(printed);
    let kinds: Vec<&str> = told.iter().map(|event| event["type"].as_str().expect("a type").trim_start_matches("EVENT_TYPE_")).collect();
    let of_obama = ["VISIT_STARTED", "IDENTIFIED", "ENTRY"];
    assert_eq!(&kinds[..3], of_obama, "{kinds:?}");
    assert_eq!((count(&told, "UNIDENTIFIED"), count(&told, "VISIT_STARTED"), count(&told, "VISIT_ENDED")), (1, 2, 2), "{kinds:?}");
    assert!(told.iter().all(|event| event["stage_times"].is_null()), "nothing is measured");
    assert!(told[0]["capture_time"].as_str().expect("a time").starts_with("2026-01-01T00:00:0"), "{}", told[0]);
}

#[tokio::test]
async fn a_folder_of_people_replaces_the_daemons_gallery_and_not_its_camera() {
    let Some(photos) = resources("a replay of a daemon's camera") else { return };
    let people = people(&[("obama", photos.join("obama.jpg"))]);
    let clip = Clip::of(&[photos.join("obama2.jpg")]);
    let data = tempfile::tempdir().expect("a folder");
    let front = Camera {
        id: CameraId::parse("front").expect("a good id"),
        url: Url::parse("rtsp://127.0.0.1:1/front").expect("a good URL"),
        has_credential: false,
        display_name: String::new(),
        role: Role::Exit,
        transport: Transport::Tcp,
        lines: Vec::new(),
        zones: Vec::new(),
        analysis_fps_max: None,
        detector_side: None,
        region_of_interest: None,
        face_pixels_min: 32,
        threshold: None,
        target_fpir: None,
        telling: Telling::default(),
        enabled: true,
        create_time: Timestamp::default(),
        update_time: Timestamp::default(),
        revision: 1,
    };
    Store::open(data.path()).expect("it opens").put_camera(front, CredentialChange::Keep, None).await.expect("it is put");
    let of_daemon = ["--set", &format!("data_dir={}", data.path().display())];
    let told = events(&replay(clip.file(), people.path(), &of_daemon).0);
    assert_eq!((count(&told, "EXIT"), count(&told, "IDENTIFIED")), (1, 1), "it is the way out: {told:?}");
}

#[test]
fn what_differs_from_an_earlier_run_is_told_as_decisions() {
    let Some(photos) = resources("a comparison of replays") else { return };
    let known = people(&[("obama", photos.join("obama.jpg"))]);
    let clip = Clip::of(&[photos.join("obama2.jpg")]);
    let (golden, _) = replay(clip.file(), known.path(), &[]);
    let file = known.path().join("golden.jsonl");
    std::fs::write(&file, &golden).expect("written");
    let expect = ["--expect", &file.display().to_string()];
    let (said, exit_code) = replay(clip.file(), known.path(), &expect);
    assert!(exit_code == 0 && said.contains("as expected"), "{said}");
    let strangers = people(&[("biden", photos.join("biden.jpg"))]);
    let (said, exit_code) = replay(clip.file(), strangers.path(), &expect);
    assert_eq!(exit_code, 1, "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with("missed") && line.contains("IDENTIFIED obama")), "{said}");
    assert!(lines.iter().any(|line| line.starts_with("false") && line.contains("UNIDENTIFIED")), "{said}");
}

#[test]
fn in_a_real_recording_each_of_three_people_is_named_in_one_visit_and_nobody_wrongly() {
    let what = "the replay of a real recording";
    let Some(photos) = resources(what) else { return };
    let Some(video) = faces::shared_data("video/short_hamilton_clip.mp4", what) else { return };
    let still = |name: &str| video.with_file_name(name);
    let known = [("alex", still("alex-lacamoire.png")), ("lin", still("lin-manuel-miranda.png")), ("obama", photos.join("obama.jpg"))];
    let people = people(&known);
    // Alex's face is small in it.
    let (printed, exit_code) = replay(&video, people.path(), &["--face-pixels-min", "0"]);
    assert_eq!(exit_code, 0);
    let told = events(&printed);
    let named = named(&told);
    println!("{named:?}");
    assert_eq!(named.keys().collect::<Vec<_>>(), ["alex", "lin", "obama"]);
    assert!(named.values().all(|visits| visits.len() == 1), "each is here once, over cuts and broken tracks: {named:?}");
    assert_eq!((count(&told, "IDENTIFIED"), count(&told, "IDENTITY_REVISED")), (3, 0), "nobody is named twice, or by mistake");
    assert_eq!(count(&told, "VISIT_STARTED"), count(&told, "VISIT_ENDED"));
    // Where each of them really is in the recording: Lin and Alex in the first scene, Obama in the last.
    for (who, from, until) in [("alex", 0.0, 1.6), ("lin", 0.0, 9.9), ("obama", 7.9, 10.0)] {
        let at = told.iter().find(|event| event["type"] == "EVENT_TYPE_IDENTIFIED" && event["subject"]["id"] == who).expect("named");
        let time: prost_types::Timestamp = at["capture_time"].as_str().expect("a time").parse().expect("a time");
        let seconds = (time.seconds - 1_767_225_600) as f64 + f64::from(time.nanos) / 1e9;
        assert!((from..until).contains(&seconds), "{who} at {seconds} s");
    }
    assert_eq!(replay(&video, people.path(), &["--face-pixels-min", "0", "--set", "infer.sessions=1"]).0, printed, "and the same again");
}
