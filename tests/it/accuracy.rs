//! How right the chain from pixels to templates is, on photos of real people.
//!
//! In: models, shared data and the photos that `script/bootstrap` takes from the registries.
//! Out: nothing. Prints figures, and what is left out where a resource is missing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use doorward::calibration::Asked;
use doorward::camera::{CameraState, Skipped};
use doorward::clock::{SimulatedClock, SystemClock};
use doorward::config::{Config, PrecisionChoice};
use doorward::event::{Purpose, ThresholdBasis};
use doorward::face::{Detection, Point, Quality, Template, TemplateSpace};
use doorward::frame::{CameraId, Frame};
use doorward::ingest::{FrameSink, Sinks, StateSink};
use doorward::{infer, ingest, quality};
use image::RgbImage;
use tokio_util::sync::CancellationToken;

use crate::clip::{ClipSettings, encode};
use crate::faces::{self, Known};
use crate::ingest::support::{CameraProcess, settings};

fn best(_: &Frame, found: &[Detection]) -> Option<Detection> {
    found.first().copied()
}

/// The face in the middle, larger ones preferred: `LFW`'s photos show one person, and passers-by.
fn central(frame: &Frame, found: &[Detection]) -> Option<Detection> {
    let (width, height) = (frame.size().width as f32, frame.size().height as f32);
    let cost = |face: &Detection| {
        let centre = face.box_in_frame.centre();
        (centre.x - width / 2.0).hypot(centre.y - height / 2.0) - 0.3 * face.box_in_frame.width
    };
    found.iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).copied()
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_landmarks_and_templates_are_those_of_the_reference() {
    let Some(models_dir) = faces::models_dir("the golden reference") else { return };
    let Some(golden) = faces::shared_data("golden/reference.jsonl", "the golden reference") else { return };
    let data = golden.parent().and_then(|dir| dir.parent()).expect("it lies in the data").to_owned();
    // The reference computes in f32.
    let engine = faces::engine_in(&models_dir, PrecisionChoice::F32);
    let (mut worst_box, mut worst_landmark, mut worst_cosine) = (0.0_f32, 0.0_f32, 1.0_f32);
    for line in std::fs::read_to_string(&golden).expect("it can be read").lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("it is JSON");
        let name = line["photo"].as_str().expect("a name");
        let path = ["photos", "video", "spoof"].map(|dir| data.join(dir).join(name)).into_iter().find(|path| path.exists());
        let frame = faces::photo(&path.unwrap_or_else(|| panic!("{name} is not there")));
        let found = faces::detect(&engine, &frame, 0.7).await;
        let expected = line["faces"].as_array().expect("faces");
        assert_eq!(found.len(), expected.len(), "{name}");
        for (found, expected) in found.iter().zip(expected) {
            let b = numbers(&expected["box"]);
            let r = found.box_in_frame;
            let off = [r.x - b[0], r.y - b[1], r.width - b[2], r.height - b[3]].iter().fold(0.0, |w: f32, d| w.max(d.abs()));
            let marks: Vec<f32> = expected["landmarks"].as_array().expect("points").iter().flat_map(numbers).collect();
            let apart = |(p, q): (&Point, &[f32])| (p.x - q[0]).abs().max((p.y - q[1]).abs());
            let landmark = found.landmarks.0.iter().zip(marks.chunks(2)).map(apart).fold(0.0, f32::max);
            let template = faces::encode(&engine, infer::align(&frame, &found.landmarks)).await;
            let cosine = template.similarity(&of(&template, &numbers(&expected["template"]))).expect("one space");
            println!("{name}: box {off:.2} px, landmarks {landmark:.2} px, cosine {cosine:.4}");
            (worst_box, worst_landmark, worst_cosine) = (worst_box.max(off), worst_landmark.max(landmark), worst_cosine.min(cosine));
        }
    }
    assert!(worst_box <= 2.0, "boxes differ by up to {worst_box} px");
    assert!(worst_landmark <= 1.5, "landmarks differ by up to {worst_landmark} px");
    assert!(worst_cosine >= 0.99, "templates agree by {worst_cosine}");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_the_precision_finds_the_same_faces_and_makes_the_same_templates() {
    let what = "bf16 beside f32";
    let Some((models_dir, photos)) = faces::models_dir(what).zip(faces::bootstrapped("photos", what)) else { return };
    let (exact, half) = (faces::engine_in(&models_dir, PrecisionChoice::F32), faces::engine(&models_dir));
    if half.facts().precision != "bf16" {
        println!("LEFT OUT: {what}: {}", half.facts().precision_reason);
        return;
    }
    let people = faces::bootstrapped("orl_faces", what).into_iter().flat_map(|dir| (1..=40).map(move |n| dir.join(format!("s{n}/1.pgm"))));
    let mut paths: Vec<PathBuf> = std::fs::read_dir(photos).expect("photos").map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jpg"));
    let (mut overlap, mut of_crop, mut of_photo, mut count) = (1.0_f32, 1.0_f32, 1.0_f32, 0);
    for path in paths.into_iter().chain(people) {
        let frame = infer::with_border(&faces::photo(&path), 40).expect("it fits");
        let (a, b) = (faces::detect(&exact, &frame, 0.7).await, faces::detect(&half, &frame, 0.7).await);
        assert_eq!(a.len(), b.len(), "{}", path.display());
        for (a, b) in a.iter().zip(&b) {
            let crop = infer::align(&frame, &a.landmarks);
            let wanted = faces::encode(&exact, crop.clone()).await;
            let cosine = |template: &Template| wanted.similarity(template).expect("one space");
            overlap = overlap.min(a.box_in_frame.iou(&b.box_in_frame));
            of_crop = of_crop.min(cosine(&faces::encode(&half, crop).await));
            of_photo = of_photo.min(cosine(&faces::encode(&half, infer::align(&frame, &b.landmarks)).await));
            count += 1;
        }
    }
    println!("{count} faces in bf16: boxes overlap by {overlap:.3}, cosine of a crop {of_crop:.5}, of a photo {of_photo:.4}");
    assert!(count >= 4);
    // The same face by the usual measure (Everingham and others, The PASCAL VOC Challenge, 2010, 4.2); of the same crop
    // the encoder alone tells; of a photo landmarks move by parts of a pixel, as in the test below.
    assert!(overlap >= 0.5 && of_crop >= 0.999 && of_photo >= 0.97, "{overlap} {of_crop} {of_photo}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_sees_the_face_that_a_photo_shows() {
    let Some(models_dir) = faces::models_dir("photos as video frames") else { return };
    let Some(photos) = faces::shared_data("photos", "photos as video frames") else { return };
    let engine = faces::engine(&models_dir);
    for name in ["biden.jpg", "obama.jpg", "obama2.jpg", "obama3.jpg"] {
        let photo = faces::photo(&photos.join(name));
        let video = faces::as_video(&photo);
        let in_photo = faces::detect(&engine, &photo, 0.7).await;
        let in_video = faces::detect_in(&engine, infer::Lane::Live, (&video, 0.7)).await;
        assert_eq!((in_photo.len(), in_video.len()), (1, 1), "{name}");
        let overlap = in_photo[0].box_in_frame.iou(&in_video[0].box_in_frame);
        let template = |frame: &Frame, face: &Detection| infer::align(frame, &face.landmarks);
        let a = faces::encode(&engine, template(&photo, &in_photo[0])).await;
        let b = faces::encode(&engine, template(&video, &in_video[0])).await;
        let cosine = a.similarity(&b).expect("one space");
        println!("{name} as I420 by the live lane: boxes overlap by {overlap:.3}, cosine {cosine:.4}");
        // The canvas has another shape and other taps, so the landmarks move by parts of a pixel.
        assert!(overlap >= 0.95 && cosine >= 0.97, "{name}: {overlap} {cosine}");
    }
    let cpu = engine.inference_cpu();
    assert_eq!((cpu.detect_runs, cpu.encode_runs), (8, 8));
    assert!(cpu.detect_ns > 0 && cpu.encode_ns > 0);
}

/// Keeps the last frame of a stream.
#[derive(Default)]
struct LastFrame(Mutex<Option<Frame>>);

impl FrameSink for LastFrame {
    fn offer(&self, frame: Frame) {
        *self.0.lock().expect("no panic") = frame.copied().ok();
    }

    fn refused(&self) {
        panic!("a frame was refused");
    }

    fn skipped(&self, _: Skipped) {
        panic!("a frame was skipped");
    }
}

/// An H.264 stream which shows `picture` for a second, in a folder of its own.
fn clip_of(picture: &RgbImage) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("clip.mp4");
    let settings = ClipSettings { size: picture.dimensions(), fps: 10, is_h265: false };
    encode(&file, settings, std::iter::repeat_n(picture.clone(), 10)).expect("it is encoded");
    (dir, file)
}

/// Passes on a camera's frames as long as somebody takes them.
struct Frames(std::sync::mpsc::Sender<Frame>);

impl FrameSink for Frames {
    fn offer(&self, frame: Frame) {
        let _ = self.0.send(frame.copied().expect("it lies in memory"));
    }

    fn refused(&self) {}

    fn skipped(&self, _: Skipped) {}
}

impl StateSink for Frames {
    fn state(&self, _: &CameraId, _: CameraState) {}
}

/// The tenth frame of a live camera that shows `picture`, over RTSP.
async fn live(picture: &RgbImage) -> Frame {
    let (_dir, file) = clip_of(picture);
    ingest::init().expect("GStreamer and its plugins are installed");
    let camera = CameraProcess::start(&["--file", &file.display().to_string()]);
    let (sender, frames) = std::sync::mpsc::channel();
    let (sink, cancel) = (Arc::new(Frames(sender)), CancellationToken::new());
    let sinks = Sinks { frames: sink.clone(), states: sink };
    let watching = tokio::spawn(ingest::watch(settings(&camera.url), sinks, Arc::new(SystemClock::new()), cancel.clone()));
    let tenth = tokio::task::spawn_blocking(move || {
        let next = || frames.recv_timeout(Duration::from_secs(60)).expect("the camera shows it");
        (0..9).for_each(|_| drop(next()));
        next()
    });
    let frame = tenth.await.expect("no panic");
    cancel.cancel();
    watching.await.expect("watching ends without a panic");
    frame
}

/// The last of the frames that a decoder makes of an H.264 stream which shows `picture` for a second.
fn streamed(picture: &RgbImage) -> Frame {
    let (_dir, file) = clip_of(picture);
    let (camera, last) = (CameraId::parse("still").expect("a good id"), LastFrame::default());
    ingest::replay(&file, &camera, &last, &SimulatedClock::default()).expect("it is decoded");
    last.0.into_inner().expect("no panic").expect("there was a frame")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_from_an_h264_stream_is_that_of_the_same_picture_as_a_file() {
    let Some(models_dir) = faces::models_dir("templates from H.264") else { return };
    let Some(photos) = faces::bootstrapped("photos", "templates from H.264") else { return };
    let engine = faces::engine(&models_dir);
    let mut worst = 1.0_f32;
    for name in ["biden.jpg", "obama.jpg", "obama2.jpg", "obama3.jpg"] {
        let photo = image::open(photos.join(name)).expect("a photo").into_rgb8();
        // H.264 in 4:2:0 has even sides.
        let picture = image::imageops::crop_imm(&photo, 0, 0, photo.width() & !1, photo.height() & !1).to_image();
        let videos = [("a file of", streamed(&picture)), ("a live camera's", live(&picture).await)];
        let file = faces::as_photo(picture);
        let in_file = faces::detect(&engine, &file, 0.7).await;
        assert_eq!(in_file.len(), 1, "{name}");
        let a = faces::encode(&engine, infer::align(&file, &in_file[0].landmarks)).await;
        for (by, video) in videos {
            let in_video = faces::detect_in(&engine, infer::Lane::Live, (&video, 0.7)).await;
            assert_eq!(in_video.len(), 1, "{name} by {by} H.264");
            let b = faces::encode(&engine, infer::align(&video, &in_video[0].landmarks)).await;
            let cosine = a.similarity(&b).expect("one space");
            println!("{name} by {by} H.264 at quantiser 20: cosine {cosine:.4}");
            worst = worst.min(cosine);
        }
    }
    // The canvas, the taps and the codec all move the landmarks by parts of a pixel. Mated pairs of
    // different photos have 0.6; the threshold is 0.363.
    assert!(worst >= 0.98, "templates agree by {worst}");
}

fn numbers(value: &serde_json::Value) -> Vec<f32> {
    value.as_array().expect("numbers").iter().map(|v| v.as_f64().expect("a number") as f32).collect()
}

fn of(like: &Template, values: &[f32]) -> Template {
    Template::normalised(TemplateSpace::new(like.space().as_str()), values).expect("it has a direction")
}

/// The pairs (counted from 0) of the 600 that the reference chain decides otherwise than the truth:
/// at 0.363 it rejects three mated pairs. Made by `reference.py --pairs pairs.csv --root lfw-subset`
/// with `onnxruntime` 1.26.0, printing where `accept != same`.
const REFERENCE_WRONG: [usize; 3] = [15, 255, 360];
/// What is left in between when resampling and the decoder of JPEG differ.
const DECISIONS_DIFFER_MAX: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn pairs_of_lfw_are_decided_as_by_the_reference() {
    let Some(models_dir) = faces::models_dir("the pairs of LFW") else { return };
    let Some(root) = faces::shared_data("lfw-subset", "the pairs of LFW") else { return };
    let text = std::fs::read_to_string(root.join("pairs.csv")).expect("it can be read");
    let pairs: Vec<(&str, &str, bool)> = text.lines().skip(1).map(pair).collect();
    let mut names: Vec<&str> = pairs.iter().flat_map(|(a, b, _)| [*a, *b]).collect();
    names.sort_unstable();
    names.dedup();
    let photos: Vec<PathBuf> = names.iter().map(|name| root.join(name)).collect();
    let engine = faces::engine(&models_dir);
    let known = faces::look_at_all(&engine, &photos, (0.5, central)).await;
    let known: Vec<&Known> = known.iter().map(|known| known.as_ref().expect("every photo shows a face")).collect();
    let template = |name: &str| &known[names.binary_search(&name).expect("it was looked at")].template;
    let (mut differ, mut wrong) = (Vec::new(), 0);
    for (number, (a, b, same)) in pairs.iter().enumerate() {
        let accepted = template(a).similarity(template(b)).expect("one space") > engine.facts().threshold;
        let by_reference = *same != REFERENCE_WRONG.contains(&number);
        wrong += usize::from(accepted != *same);
        if accepted != by_reference {
            differ.push(number);
        }
    }
    println!("LFW: {} pairs, {wrong} decided wrongly, {} otherwise than by the reference: {differ:?}", pairs.len(), differ.len());
    print_quality("LFW", known.iter().copied());
    assert!(differ.len() <= DECISIONS_DIFFER_MAX);
    assert_usable("LFW", &known);
}

fn pair(line: &str) -> (&str, &str, bool) {
    let mut fields = line.split(',');
    let mut next = || fields.next().expect("three fields");
    (next(), next(), next() == "1")
}

const PEOPLE: usize = 40;
const PHOTOS: usize = 10;

/// The photos of AT&T: person by person, ten each.
async fn faces_of_att(engine: &infer::Engine, root: &Path) -> Vec<Known> {
    let path = |i: usize| root.join(format!("s{}/{}.pgm", i / PHOTOS + 1, i % PHOTOS + 1));
    let photos: Vec<PathBuf> = (0..PEOPLE * PHOTOS).map(path).collect();
    let known = faces::look_at_all(engine, &photos, (0.7, best)).await;
    known.into_iter().map(|known| known.expect("every photo shows a face")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_of_att_are_told_apart() {
    let Some(models_dir) = faces::models_dir("the people of AT&T") else { return };
    let Some(root) = faces::bootstrapped("orl_faces", "the people of AT&T") else { return };
    let engine = faces::engine(&models_dir);
    let known = faces_of_att(&engine, &root).await;
    let published = engine.facts().threshold;
    // What verifies where the operator says nothing: a target rate, by the encoder's calibration and the worse picture's quality.
    let policy = doorward::app::policy(&Config::default(), engine.facts()).expect("the calibration is there");
    let by_default = |quality: f32| policy.in_force(Purpose::Verify, None, Asked { comparisons: 1, quality });
    let in_force = by_default(1.0);
    println!("AT&T: by default {:?} at {:?} decides, from {:?}", in_force.threshold, in_force.target_rate, in_force.basis);
    assert_eq!(in_force.basis, ThresholdBasis::Calibrated, "a rate is kept by default, and not a number from a paper");
    let of_both =
        [("as published", rates_of_pairs(&known, |_| published)), ("by default", rates_of_pairs(&known, |q| by_default(q).threshold))];
    for (which, rates) in &of_both {
        println!("AT&T 1:1 {which}: {rates:?}");
    }
    print_open_set(&known, published);
    print_quality("AT&T", known.iter());
    for (which, PairRates { fnmr, fmr, .. }) in of_both {
        assert!(fnmr <= 1.0, "{which}: FNMR {fnmr} %");
        assert!(fmr <= 0.5, "{which}: FMR {fmr} %");
    }
    assert_usable("AT&T", &known.iter().collect::<Vec<_>>());
}

/// Of all pairs: how many of one person are rejected, and how many of two are accepted. Rates are in percent.
#[derive(Debug, Default)]
struct PairRates {
    mated: u32,
    rejected: u32,
    non_mated: u32,
    accepted: u32,
    fnmr: f64,
    fmr: f64,
}

/// By the threshold that holds for the worse picture's quality.
fn rates_of_pairs(known: &[Known], threshold: impl Fn(f32) -> f32) -> PairRates {
    let mut rates = PairRates::default();
    let quality: Vec<f32> = known.iter().map(|known| quality_of(known).overall).collect();
    for (i, a) in known.iter().enumerate() {
        for (j, b) in known.iter().enumerate().skip(i + 1) {
            let matches = a.template.similarity(&b.template).expect("one space") >= threshold(quality[i].min(quality[j]));
            if i / PHOTOS == j / PHOTOS {
                rates.mated += 1;
                rates.rejected += u32::from(!matches);
            } else {
                rates.non_mated += 1;
                rates.accepted += u32::from(matches);
            }
        }
    }
    let percent = |part: u32, whole: u32| 100.0 * f64::from(part) / f64::from(whole);
    (rates.fnmr, rates.fmr) = (percent(rates.rejected, rates.mated), percent(rates.accepted, rates.non_mated));
    rates
}

fn quality_of(known: &Known) -> Quality {
    quality::assess(&known.detection, &quality::photometry(&known.aligned))
}

/// The first twenty people are enrolled from their first photo each; their other photos and all
/// photos of the other twenty are probes.
fn print_open_set(known: &[Known], threshold: f32) {
    let enrolled = PEOPLE / 2;
    let (mut missed, mut taken_for_another, mut alarms) = (0_u32, 0_u32, 0_u32);
    for (i, probe) in known.iter().enumerate().filter(|(i, _)| i / PHOTOS >= enrolled || i % PHOTOS != 0) {
        let similarity = |person: usize| probe.template.similarity(&known[person * PHOTOS].template).expect("one space");
        let closest = (0..enrolled).max_by(|a, b| similarity(*a).total_cmp(&similarity(*b))).expect("somebody is enrolled");
        let identified = similarity(closest) >= threshold;
        let person = i / PHOTOS;
        match (person < enrolled, identified) {
            (true, true) if closest != person => taken_for_another += 1,
            (true, false) => missed += 1,
            (false, true) => alarms += 1,
            _ => {}
        }
    }
    let (mated, strangers) = (enrolled * (PHOTOS - 1), (PEOPLE - enrolled) * PHOTOS);
    let percent = |part: u32, whole: usize| 100.0 * f64::from(part) / whole as f64;
    println!(
        "AT&T 1:N at {threshold}, N = {enrolled}, one photo each: {mated} mated probes, FNIR {:.2} % ({missed} unknown, {taken_for_another} taken \
         for another); {strangers} non-mated probes, FPIR {:.2} % ({alarms})",
        percent(missed + taken_for_another, mated),
        percent(alarms, strangers)
    );
}

/// Prints where the components of quality lie, so that their marks can be set.
fn print_quality<'a>(of: &str, known: impl Iterator<Item = &'a Known>) {
    let all: Vec<_> = known.map(quality_of).collect();
    let line = |name: &str, component: &dyn Fn(&Quality) -> f32| {
        let mut values: Vec<f32> = all.iter().map(component).collect();
        values.sort_by(f32::total_cmp);
        let at = |share: f32| values[((values.len() - 1) as f32 * share).round() as usize];
        let quantiles = [0.0, 0.01, 0.05, 0.5, 0.95, 0.99, 1.0].map(|share| format!("{:.3}", at(share)));
        println!("{of} {name} (least, 1 %, 5 %, median, 95 %, 99 %, most): {}", quantiles.join(" "));
    };
    line("overall", &|q| q.overall);
    line("size", &|q| q.size_pixels);
    line("sharpness", &|q| q.sharpness);
    line("brightness", &|q| q.brightness);
    line("contrast", &|q| q.contrast);
    line("yaw", &|q| q.yaw_degrees);
    line("pitch", &|q| q.pitch_degrees);
    line("roll", &|q| q.roll_degrees);
    line("score", &|q| q.detection_score);
}

/// Ordinary photos pass the default quality.
fn assert_usable(of: &str, known: &[&Known]) {
    let minimum = doorward::config::RecognitionConfig::default().enrol_quality_min;
    let faults: Vec<_> = known.iter().filter_map(|known| quality::fault(&quality_of(known), minimum)).collect();
    println!("{of}: {} of {} faces are not usable at {minimum}: {faults:?}", faults.len(), known.len());
    assert!(faults.len() * 100 <= known.len(), "more than 1 % of ordinary photos are refused");
}
