//! Decisions with known error rates, through the doors that users have: the daemon's thresholds, and the commands that
//! calibrate, evaluate and train on real photos.
//!
//! Must not know: the insides of any stage.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use doorward::evaluate::{Embedder, PhotoFile};
use doorward::face::Template;
use doorward::infer::{Engine, Lane};
use doorward::pb;
use doorward::pb::gallery_service_client::GalleryServiceClient;
use doorward::pb::recognition_service_client::RecognitionServiceClient;
use doorward::pb::{EventType, PolicyScope, Purpose, ThresholdBasis};
use serde_json::Value;
use tonic::transport::Channel;

use crate::daemon::{add_camera, enrol, events_until, identified, of_type, subscribe};
use crate::faces;
use crate::ingest::support::CameraProcess;
use crate::support::{Clip, Daemon, resources};

/// Runs `doorward` with the models that tests use and a cache of its own.
fn doorward(cache: &Path, arguments: &[&str]) -> Output {
    let models = std::env::var("DOORWARD_MODELS_DIR").unwrap_or_else(|_| "models".into());
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(arguments).args(["--set", &format!("models_dir={models}"), "--cache"]).arg(cache);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("doorward runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The last line that a command printed, which is JSON.
fn last_line(output: &Output) -> Value {
    let out = text(&output.stdout);
    serde_json::from_str(out.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error}: {out}{}", text(&output.stderr)))
}

/// A folder of the first `people` of AT&T with `photos` each.
fn some_of_att(root: &Path, (people, photos): (usize, usize)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for person in 1..=people {
        std::fs::create_dir(dir.path().join(format!("s{person}"))).expect("a folder");
        for photo in 1..=photos {
            let name = format!("s{person}/{photo}.pgm");
            std::fs::copy(root.join(&name), dir.path().join(&name)).expect("copied");
        }
    }
    dir
}

async fn gallery_thresholds(channel: &Channel) -> Vec<pb::ThresholdInForce> {
    let mut client = GalleryServiceClient::new(channel.clone());
    let gallery = client.get_gallery(pb::GetGalleryRequest::default()).await.expect("it answers").into_inner();
    assert!(gallery.calibration.is_some_and(|calibration| calibration.comparisons > 100_000), "the encoder ships with one");
    gallery.thresholds
}

/// Those that hold for everybody: to identify, to verify.
async fn thresholds(channel: &Channel) -> (pb::ThresholdInForce, pb::ThresholdInForce) {
    let all = gallery_thresholds(channel).await;
    let of = |purpose: Purpose| all.iter().find(|threshold| threshold.purpose() == purpose).cloned().expect("it is told");
    (of(Purpose::Identify), of(Purpose::Verify))
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_rise_when_people_are_enrolled_and_fall_when_they_leave() {
    let left_out = "thresholds of the daemon";
    let Some((faces, att)) = resources(left_out).zip(faces::bootstrapped("orl_faces", left_out)) else { return };
    let daemon = Daemon::start(&["recognition.target_fpir=0.01", "recognition.watchlists.staff.target_fpir=0.001"]).await;
    let channel = daemon.channel().await;
    enrol(&channel, "obama", faces.join("obama.jpg")).await;
    let (alone, verifying) = thresholds(&channel).await;
    assert_eq!((alone.basis(), alone.scope(), alone.target_rate), (ThresholdBasis::Calibrated, PolicyScope::Purpose, Some(0.01)));
    assert!(alone.expected_rate_low.zip(alone.expected_rate_high).is_some_and(|(low, high)| low < 0.01 && 0.01 < high), "{alone:?}");
    let staff = gallery_thresholds(&channel).await.into_iter().find(|threshold| threshold.name == "staff").expect("a list's own is told");
    assert_eq!((staff.scope(), staff.target_rate), (PolicyScope::Watchlist, Some(0.001)));
    assert!(staff.threshold > alone.threshold, "a tenth of the rate asks for more: {staff:?}");
    for person in 1..=8 {
        enrol(&channel, &format!("s{person}"), att.join(format!("s{person}/1.pgm"))).await;
    }
    let (of_nine, still) = thresholds(&channel).await;
    assert!(of_nine.threshold > alone.threshold + 0.02, "{} after {}", of_nine.threshold, alone.threshold);
    assert_eq!(still.threshold, verifying.threshold, "a verification is of one person, however many there are");

    let image = std::fs::read(faces.join("obama2.jpg")).expect("a photo");
    let mut asking = RecognitionServiceClient::new(channel.clone());
    let found = asking.identify(pb::IdentifyRequest { image: image.clone(), candidates_max: 0 }).await.expect("it answers").into_inner();
    let answer = &found.identifications[0];
    assert_eq!((answer.target_fpir, answer.basis()), (Some(0.01), ThresholdBasis::Calibrated));
    // What is shown is a visit's, which is asked several times.
    assert!(answer.threshold > alone.threshold && answer.threshold <= of_nine.threshold, "{answer:?}");
    assert_eq!(answer.subject.as_ref().map(|subject| subject.subject_id.as_str()), Some("obama"));
    let claim = Some(pb::verify_request::Claim::SubjectId("obama".into()));
    let verified = asking.verify(pb::VerifyRequest { image, claim }).await.expect("it answers").into_inner();
    assert!(verified.r#match && verified.score == verified.similarity, "{verified:?}");
    assert_eq!((verified.head.as_str(), verified.threshold, verified.target_fmr), ("cosine", verifying.threshold, Some(0.001)));

    let mut client = GalleryServiceClient::new(channel.clone());
    for person in 1..=8 {
        let request = pb::DeleteSubjectRequest { id: format!("s{person}"), ..Default::default() };
        client.delete_subject(request).await.expect("erased");
    }
    assert_eq!(thresholds(&channel).await.0.threshold, alone.threshold, "and falls again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gallery_calibrates_itself_beside_its_daemon() {
    let left_out = "calibrating on the gallery";
    let Some((_, att)) = resources(left_out).zip(faces::bootstrapped("orl_faces", left_out)) else { return };
    let daemon = Daemon::start(&[]).await;
    let channel = daemon.channel().await;
    let mut enrolling = GalleryServiceClient::new(channel.clone());
    for person in 1..=32 {
        let image = std::fs::read(att.join(format!("s{person}/1.pgm"))).expect("a photo");
        let request = pb::CreateSubjectRequest {
            subject: Some(pb::Subject { id: format!("s{person}"), ..Default::default() }),
            samples: vec![pb::SampleSource { source: Some(pb::sample_source::Source::Image(image)) }],
            // Some of them look alike, which is what a calibration is about.
            allow_duplicate: true,
            ..Default::default()
        };
        enrolling.create_subject(request).await.expect("the photo enrols");
    }
    let cache = tempfile::tempdir().expect("a folder");
    let (file, data) = (cache.path().join("gallery.json").display().to_string(), format!("data_dir={}", daemon.data_dir().display()));
    let told = last_line(&doorward(cache.path(), &["calibrate", "--from-gallery", "--output", &file, "--json", "--set", &data]));
    let good = told["rates"].as_array().and_then(|rates| rates.last()).expect("rates");
    assert_eq!((&told["people"], &good["comparisons"]), (&32.into(), &496.into()), "{told}");
    // A daemon that uses it cannot promise what 496 comparisons do not show, and says so.
    let calibration = format!("recognition.calibration={file}");
    let other = Daemon::start(&[&calibration, "recognition.target_fmr=0.000001"]).await;
    let mut client = GalleryServiceClient::new(other.channel().await);
    let gallery = client.get_gallery(pb::GetGalleryRequest::default()).await.expect("it answers").into_inner();
    let verifying = gallery.thresholds.iter().find(|threshold| threshold.purpose() == Purpose::Verify).expect("it is told");
    assert_eq!((verifying.basis(), verifying.target_rate), (ThresholdBasis::Unsupported, Some(1e-6)));
    // Nor does it decide more loosely than it would without: the encoder's own knows more.
    let (_, plain) = thresholds(&channel).await;
    assert!(verifying.threshold > plain.threshold && verifying.expected_rate.is_some_and(|rate| rate < 1e-4), "{verifying:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_photo_has_the_same_template_bit_for_bit_by_command_and_by_rpc() {
    let left_out = "templates by two doors";
    let Some((faces, models)) = resources(left_out).zip(faces::models_dir(left_out)) else { return };
    let photo = faces.join("obama.jpg");
    let dir = tempfile::tempdir().expect("a folder");
    {
        let daemon = Daemon::start_in(dir.path(), &[]).await;
        enrol(&daemon.channel().await, "obama", photo.clone()).await;
    }
    let store = doorward::store::Store::open(dir.path()).expect("the daemon has ended");
    let engine: Engine = faces::engine(&models);
    store.put_in_force(&engine.facts().space);
    let stored: Vec<Template> =
        store.read_templates(|rows| rows.map(|row| row.expect("it is whole").template).collect()).await.expect("read");
    let embedder = Embedder::new(engine.clone(), None).expect("no cache");
    let (embedded, _) = embedder.embed(&[PhotoFile { person: 0, path: photo.clone() }], None, || ()).await.expect("it is looked at");
    assert_eq!(stored[0].values(), embedded[0].template.values());
    // And not because every face has the same.
    let frame = faces::photo(&faces.join("biden.jpg"));
    let other = faces::detect_in(&engine, Lane::Photo, (&frame, 0.7)).await;
    let other = faces::encode(&engine, doorward::infer::align(&frame, &other[0].landmarks)).await;
    assert_ne!(stored[0].values(), other.values());
}

#[test]
fn a_site_calibrates_itself_and_the_second_time_from_its_cache() {
    let left_out = "calibrating on photos";
    let Some((_, att)) = faces::models_dir(left_out).zip(faces::bootstrapped("orl_faces", left_out)) else { return };
    let (photos, cache) = (some_of_att(&att, (32, 2)), tempfile::tempdir().expect("a folder"));
    let file = cache.path().join("site.json");
    let arguments = ["calibrate", &photos.path().display().to_string(), "--output", &file.display().to_string(), "--json"];
    let first = doorward(cache.path(), &arguments);
    let told = last_line(&first);
    assert_eq!((&told["people"], &told["photos"]), (&32.into(), &64.into()), "{told}");
    let rates = told["rates"].as_array().expect("rates");
    let good = |target: f64| {
        rates.iter().filter(|rate| rate["quality_min"].as_f64() >= Some(0.5) && rate["target_fmr"] == target).collect::<Vec<_>>()
    };
    // The 496 pairs of 32 people support a rate of 1 in 165.
    assert!(!good(0.01).is_empty() && !good(0.001).is_empty(), "{told}");
    assert!(good(0.01).iter().all(|rate| rate["supported"] == true) && good(0.001).iter().all(|rate| rate["supported"] == false), "{told}");
    assert!(rates.iter().any(|rate| rate["quality_min"] == 0.0), "photos made worse have a band of their own: {told}");
    let written = std::fs::read(&file).expect("written");
    let second = doorward(cache.path(), &arguments);
    assert_eq!((last_line(&second), std::fs::read(&file).expect("written")), (told, written), "the same photos say the same");
}

#[test]
fn pairs_and_searches_are_evaluated_with_a_report() {
    let left_out = "evaluating on photos";
    let Some((_, att)) = faces::models_dir(left_out).zip(faces::bootstrapped("orl_faces", left_out)) else { return };
    let (photos, cache) = (some_of_att(&att, (12, 3)), tempfile::tempdir().expect("a folder"));
    let mut list = String::from("file_a,file_b,same\n");
    for person in 1..=12 {
        list += &format!("s{person}/1.pgm,s{person}/2.pgm,1\ns{person}/1.pgm,s{}/1.pgm,0\n", person % 12 + 1);
    }
    let (pairs, report) = (cache.path().join("pairs.csv"), cache.path().join("report.html"));
    std::fs::write(&pairs, &list).expect("written");
    let (dir, pairs_text, report_text) = (photos.path().display().to_string(), pairs.display().to_string(), report.display().to_string());
    let told =
        last_line(&doorward(cache.path(), &["evaluate", "verification", "--pairs", &pairs_text, &dir, "--report", &report_text, "--json"]));
    assert_eq!((&told["pairs"], &told["fmr"], &told["fnmr"]), (&24.into(), &0.0.into(), &0.0.into()), "{told}");
    // Thresholds come from the other folds, which are small.
    assert!(told["accuracy"].as_f64() >= Some(0.9), "{told}");
    assert_eq!(told["tar_at_far"]["1e-2"]["supported"], false, "12 pairs of two people show nothing of 1 %: {told}");
    let page = std::fs::read_to_string(&report).expect("written");
    assert!(page.matches("<svg").count() == 3 && !page.contains("<script") && !page.contains("src="), "three figures, nothing loaded");

    let told = last_line(&doorward(cache.path(), &["evaluate", "identification", &dir, "--json"]));
    assert_eq!((&told["enrolled"], &told["rank_one"]["rate"]), (&6.into(), &1.0.into()), "{told}");
    assert_eq!(told["fpir_1pct_supported"], false, "{told}");
}

/// What the reference chain reaches on View 2 of Labeled Faces in the Wild: the mean of its ten folds, and their standard deviation.
const LFW_REFERENCE: (f64, f64) = (0.9933, 0.0038);

/// Wants the whole data set, which is nobody's to hand on: a folder with `pairs.txt` of View 2 and the deep-funneled photos.
#[test]
fn all_pairs_of_lfw_are_decided_as_well_as_by_the_reference_chain() {
    let left_out = "all 6,000 pairs of Labeled Faces in the Wild";
    let Some(dir) = std::env::var_os("LFW_DIR").map(PathBuf::from) else {
        println!("LEFT OUT: {left_out}: LFW_DIR names no folder with pairs.txt and the deep-funneled photos");
        return;
    };
    if faces::models_dir(left_out).is_none() {
        return;
    }
    let cache = tempfile::tempdir().expect("a folder");
    let (pairs, dir) = (dir.join("pairs.txt").display().to_string(), dir.display().to_string());
    let told = last_line(&doorward(cache.path(), &["evaluate", "verification", "--pairs", &pairs, &dir, "--json"]));
    println!("{told}");
    assert_eq!(told["pairs"], 6_000, "it is not the whole of View 2");
    let ((mean, deviation), accuracy) = (LFW_REFERENCE, told["accuracy"].as_f64().expect("a number"));
    // Two means of ten folds each differ by so much by chance.
    let by_chance = 2.0 * deviation * (2.0_f64 / 10.0).sqrt();
    assert!(accuracy >= mean - by_chance, "{accuracy} beside {mean}");
}

#[test]
fn what_cannot_be_used_is_refused_with_what_to_do() {
    let left_out = "refusals of training and evaluation";
    let Some((_, att)) = faces::models_dir(left_out).zip(faces::bootstrapped("orl_faces", left_out)) else { return };
    let cache = tempfile::tempdir().expect("a folder");
    let (one, singles, few) = (some_of_att(&att, (1, 3)), some_of_att(&att, (8, 1)), some_of_att(&att, (8, 2)));
    let missing = cache.path().join("missing.csv");
    std::fs::write(&missing, "s1/1.pgm,s1/2.pgm,1\ns1/1.pgm,s9/1.pgm,0\n").expect("written");
    let head = cache.path().join("foreign.json");
    std::fs::write(&head, "{}").expect("written");
    let dir = |dir: &tempfile::TempDir| dir.path().display().to_string();
    let output = cache.path().join("out.json").display().to_string();
    let cases: [(&[&str], &str); 6] = [
        (&["calibrate", &dir(&one), "--output", &output], "photos of 1 people"),
        (&["evaluate", "verification", "--pairs", &missing.display().to_string(), &dir(&one)], "s9/1.pgm"),
        (&["evaluate", "identification", &dir(&singles)], "second photo"),
        (&["train", "verifier", &dir(&singles), "--output", &output], "nobody has two photos"),
        (&["train", "verifier", &dir(&few), "--output", &output], "30 at least"),
        (&["train", "projection", &dir(&singles), "--output", &output], "no person has 2 photos"),
    ];
    for (arguments, part) in cases {
        let refused = doorward(cache.path(), arguments);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains(part), "{arguments:?}: {said}");
        assert!(!PathBuf::from(&output).exists(), "{arguments:?} wrote something");
    }
    let data = tempfile::tempdir().expect("a folder");
    let refused = Daemon::refusal(data.path(), &[&format!("recognition.verifier={}", head.display())]);
    assert!(refused.contains("verification head") && refused.contains("train verifier"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn training_that_is_no_better_is_told_so_and_writes_nothing_unasked() {
    let left_out = "training on photos";
    let Some((_, att)) = faces::models_dir(left_out).zip(faces::bootstrapped("orl_faces", left_out)) else { return };
    let (photos, cache) = (some_of_att(&att, (40, 2)), tempfile::tempdir().expect("a folder"));
    let (dir, output) = (photos.path().display().to_string(), cache.path().join("head.json").display().to_string());
    // Of unit vectors a distance orders pairs as the cosine does: it cannot be better.
    let train = ["train", "verifier", "--head", "euclidean", "--held-out", "0.8", &dir, "--output", &output];
    let refused = doorward(cache.path(), &train);
    assert!(refused.status.code() == Some(1) && text(&refused.stdout).contains("not written"), "{}", text(&refused.stdout));
    assert!(!Path::new(&output).exists());
    let written = doorward(cache.path(), &[&train[..], &["--even-if-no-better"]].concat());
    assert!(written.status.success() && Path::new(&output).exists(), "{}", text(&written.stderr));

    // The daemon verifies by it, and says so; with a similarity stated beside it, it does not start.
    let data = tempfile::tempdir().expect("a folder");
    let setting = format!("recognition.verifier={output}");
    let refused = Daemon::refusal(data.path(), &[&setting, "recognition.threshold=0.4"]);
    assert!(refused.contains("recognition.threshold") && refused.contains("euclidean"), "{refused}");
    let refused = Daemon::refusal(data.path(), &[&setting]);
    assert!(refused.contains("too few people") && refused.contains("target_fmr"), "32 people support no rate of 1 in 1000: {refused}");
    let Some(faces) = resources(left_out) else { return };
    let daemon = Daemon::start(&[&setting, "recognition.target_fmr=0.01"]).await;
    let mut asking = RecognitionServiceClient::new(daemon.channel().await);
    let image = |name: &str| std::fs::read(faces.join(name)).expect("a photo");
    for (other, same) in [("obama2.jpg", true), ("biden.jpg", false)] {
        let claim = Some(pb::verify_request::Claim::OtherImage(image(other)));
        let told = asking.verify(pb::VerifyRequest { image: image("obama.jpg"), claim }).await.expect("it answers").into_inner();
        // ‖x − y‖² = 2 − 2·cos, and the score is the distance below zero.
        assert!((told.score.powi(2) - (2.0 - 2.0 * told.similarity)).abs() < 1e-4 && told.score < 0.0, "{told:?}");
        assert_eq!((told.r#match, told.head.as_str(), told.target_fmr), (same, "euclidean", Some(0.01)));
        assert_eq!(told.r#match, told.score >= told.threshold);
    }
}

/// Puts a mask over mouth and chin of every second photo.
fn put_masks_on(photos: &Path, (people, each): (usize, usize)) {
    for (person, photo) in (1..=people).flat_map(|person| (2..=each).step_by(2).map(move |photo| (person, photo))) {
        let file = photos.join(format!("s{person}/{photo}.pgm"));
        let mut face = image::open(&file).expect("a photo").into_luma8();
        let (width, height) = face.dimensions();
        for (x, y) in (width / 5..width * 4 / 5).flat_map(|x| (height * 3 / 5..height).map(move |y| (x, y))) {
            face.put_pixel(x, y, image::Luma([200]));
        }
        face.save(&file).expect("it is writable");
    }
}

#[test]
fn a_projection_learns_to_see_past_masks_and_is_refused_where_there_is_nothing_to_learn() {
    let left_out = "a projection that is better";
    let Some((_, att)) = faces::models_dir(left_out).zip(faces::bootstrapped("orl_faces", left_out)) else { return };
    let (size, cache) = ((40, 6), tempfile::tempdir().expect("a folder"));
    let (plain, masked) = (some_of_att(&att, size), some_of_att(&att, size));
    put_masks_on(masked.path(), size);
    let output = cache.path().join("projection.onnx").display().to_string();
    let train =
        |photos: &Path| doorward(cache.path(), &["train", "projection", &photos.display().to_string(), "--output", &output, "--json"]);

    let refused = train(plain.path());
    let told = last_line(&refused);
    assert!(refused.status.code() == Some(1) && told["judgement"]["better"] == false && !Path::new(&output).exists(), "{told}");

    let written = train(masked.path());
    let told = last_line(&written);
    println!("{}", told["judgement"]);
    assert!(written.status.success() && told["judgement"]["better"] == true && Path::new(&output).exists(), "{told}");
    assert!(told["judgement"]["fnmr_after"].as_f64() < told["judgement"]["fnmr_before"].as_f64(), "{told}");
    assert!(told["manifest"].as_str().is_some_and(|entry| entry.contains("[model.projection]")), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_say_of_events_becomes_error_rates() {
    let left_out = "error rates of corrected events";
    let Some((faces, att)) = resources(left_out).zip(faces::bootstrapped("orl_faces", left_out)) else { return };
    let clip = Clip::of(&[faces.join("obama2.jpg"), faces.join("biden.jpg")]);
    let camera = CameraProcess::start(&["--file", &clip.file().display().to_string()]);
    let daemon = Daemon::start(&[]).await;
    let channel = daemon.channel().await;
    enrol(&channel, "obama", faces.join("obama.jpg")).await;
    enrol(&channel, "visitor", att.join("s2/1.pgm")).await;
    let mut stream = subscribe(&channel).await;
    add_camera(&channel, "front-door", camera.url.as_str()).await;
    let events = events_until(&mut stream, |seen| identified(seen, "obama") && !of_type(seen, EventType::Unidentified).is_empty()).await;
    let cursor = |kind| of_type(&events, kind)[0].cursor.clone();

    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        let output = command.args(["--server", daemon.server()]).args(arguments).output().expect("it runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output
    };
    assert_eq!(last_line(&run(&["evaluate", "events", "--json"]))["right"], 0, "nothing was looked at yet");
    run(&["event", "correct", &cursor(EventType::Identified), "--was", "obama"]);
    run(&["event", "correct", &cursor(EventType::Unidentified), "--was", "visitor"]);
    let found = last_line(&run(&["evaluate", "events", "--json"]));
    assert_eq!(
        (&found["right"], &found["missed"], &found["another"], &found["stranger_named"]),
        (&1.into(), &1.into(), &0.into(), &0.into()),
        "{found}"
    );
    assert_eq!((&found["false_name_rate"], &found["fnir"]), (&0.0.into(), &0.5.into()), "{found}");
    // What is said last of a visit counts.
    run(&["event", "correct", &cursor(EventType::Identified), "--was-not"]);
    let found = last_line(&run(&["evaluate", "events", "--json"]));
    assert_eq!((&found["right"], &found["not_them"], &found["false_name_rate"]), (&0.into(), &1.into(), &1.0.into()), "{found}");
    // Whoever is enrolled by the event was a stranger at it, and nobody missed them.
    run(&["event", "correct", &cursor(EventType::Unidentified), "--enrol", "newcomer"]);
    let found = last_line(&run(&["evaluate", "events", "--json"]));
    assert_eq!((&found["missed"], &found["stranger_unknown"], &found["fnir"]), (&0.into(), &1.into(), &0.0.into()), "{found}");
    // And who is nobody enrolled: a stranger, whether named or not.
    let report = tempfile::tempdir().expect("a folder");
    let page = report.path().join("events.html").display().to_string();
    run(&["event", "correct", &cursor(EventType::Unidentified), "--was-stranger"]);
    let found = last_line(&run(&["evaluate", "events", "--json", "--report", &page]));
    assert_eq!((&found["stranger_unknown"], &found["fpir"], &found["strangers"]), (&1.into(), &0.0.into(), &1.into()), "{found}");
    assert!(std::fs::read_to_string(&page).expect("written").contains("strangers named (FPIR)"));
    let shown = String::from_utf8(run(&["event", "show", &cursor(EventType::Identified)]).stdout).expect("text");
    let said: Vec<&str> = shown.lines().filter(|line| line.starts_with("since then: ")).collect();
    assert!(matches!(said[..], [was, was_not] if was.contains("CORRECTED obama") && was_not.contains("CORRECTED not obama")), "{shown}");
}
