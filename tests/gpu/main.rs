//! The real models on a real GPU, held to the CPU, where there is one with everything that it needs.
//!
//! In: a GPU, the runtime library for it, the models, photos. Prints what is left out where one is missing.
//! Lines that begin with PARITY are figures, as JSON.
//! Must not know: the insides of any stage.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should panic, in its helpers too")]

#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../it/faces.rs"]
mod faces;
mod rig;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use doorward::config::{InferConfig, PrecisionChoice};
use doorward::device::ResolvedDevice;
use doorward::face::{Detection, Template};
use doorward::frame::Frame;
use doorward::infer::cuda::{FaceRequest, Worker};
use doorward::infer::{CutFace, Engine, FaceOnDevice, Lane, align};
use doorward::quality;

use rig::{FRAMES_MAX, Rig, request};

/// How alike the two templates of a face have to be.
const COSINE_MIN: f32 = 0.999;
/// How far a landmark may be from the CPU's, in shares of the face's width: what 16-bit sums may differ by.
const SHIFT_MAX: f32 = 0.02;
/// How far the measures of a face may be from the host's, in parts: sums are rounded in another order.
const PARTS_MAX: f32 = 1e-3;
/// How much the process may grow over runs that only repeat.
const GROWTH_BYTES_MAX: usize = 16 << 20;

/// One test at a time has the GPU.
fn alone() -> MutexGuard<'static, ()> {
    static GPU: Mutex<()> = Mutex::new(());
    GPU.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A GPU with the models' folder and photos as cameras send them, or a line that says what is missing.
fn rig(left_out: &str, precision: PrecisionChoice) -> Option<(Rig, PathBuf, Vec<Frame>)> {
    let (models, photos) = faces::models_dir(left_out).zip(faces::bootstrapped("photos", left_out))?;
    let rig = Rig::find(&models, precision).map_err(|reason| println!("LEFT OUT: {left_out}: {reason}")).ok()?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(photos).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jpg"));
    files.sort();
    Some((rig, models, files.iter().map(|file| faces::as_video(&faces::photo(file))).collect()))
}

/// Faces of each frame with their templates, `batch` frames at a time.
fn found_on_gpu(worker: &mut Worker, frames: &[Frame], batch: usize) -> Vec<Vec<(Detection, Template)>> {
    let copies = Arc::new(AtomicUsize::new(0));
    let mut all = Vec::new();
    for frames in frames.chunks(batch) {
        let requests = frames.iter().map(|frame| request(worker, frame, &copies).unwrap()).collect();
        let mut batch = worker.prepare(requests).unwrap();
        let found = worker.detect(&mut batch).unwrap();
        let faces = found
            .iter()
            .enumerate()
            .flat_map(|(frame, faces)| faces.iter().map(move |face| FaceRequest { frame, landmarks: face.landmarks, is_mirrored: false }));
        let faces: Vec<FaceRequest> = faces.collect();
        let mut templates = worker.encode(&mut batch, &faces).unwrap().into_iter();
        all.extend(found.into_iter().map(|faces| faces.into_iter().map(|face| (face, templates.next().unwrap())).collect::<Vec<_>>()));
    }
    assert_eq!(copies.load(Ordering::Relaxed), 0, "no picture comes back to the host");
    all
}

/// The same on the CPU, in f32, by the library that the process has loaded.
fn found_on_cpu(models: &std::path::Path, frames: &[Frame]) -> Vec<Vec<(Detection, Template)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = InferConfig { sessions: 1, precision: PrecisionChoice::F32, ..InferConfig::default() };
        let engine = Engine::open(&config, models, &ResolvedDevice::cpu("the tests compare with it")).unwrap();
        assert_eq!((engine.facts().provider.as_str(), engine.facts().precision.as_str()), ("CPU", "f32"));
        let mut all = Vec::new();
        for frame in frames {
            let found = faces::detect_in(&engine, Lane::Live, (frame, config.detection_score_min)).await;
            let crops = found.iter().map(|face| align(frame, &face.landmarks)).collect();
            let templates = engine.encode(Lane::Live, crops).await.unwrap();
            all.push(found.into_iter().zip(templates).collect());
        }
        all
    })
}

/// Holds one side's faces to the other's, and tells the figures.
fn compared(what: &str, one: &[Vec<(Detection, Template)>], other: &[Vec<(Detection, Template)>]) {
    let counts = |all: &[Vec<(Detection, Template)>]| all.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(counts(one), counts(other), "{what}: as many faces a picture");
    let (mut faces, mut shift, mut cosine) = (0, 0.0_f32, 1.0_f32);
    for ((a, left), (b, right)) in one.iter().flatten().zip(other.iter().flatten()) {
        let points = a.landmarks.0.iter().zip(&b.landmarks.0);
        let apart = points.map(|(a, b)| (a.x - b.x).hypot(a.y - b.y)).fold(0.0, f32::max);
        shift = shift.max(apart / a.box_in_frame.width);
        cosine = cosine.min(left.values().iter().zip(right.values()).map(|(a, b)| a * b).sum());
        faces += 1;
    }
    println!("PARITY {}", serde_json::json!({ "what": what, "faces": faces, "cosine_least": cosine, "landmark_shift_most": shift }));
    assert!(faces >= 4, "the photos show faces: {faces}");
    assert!(cosine >= COSINE_MIN && shift <= SHIFT_MAX, "{what}: cosine {cosine}, shift {shift}");
}

/// The same by the whole engine, as the daemon opens it: frames are brought to the device, looked at, measured and cut there.
fn found_by_engine(engine: &Engine, frames: &[Frame]) -> Vec<Vec<(Detection, Template)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut all = Vec::new();
        for host in frames {
            let placed = engine.place(vec![host.clone()]).await.unwrap();
            assert!(placed[0].device_pixels().is_some(), "frames are looked at where the engine computes");
            let found = faces::detect_in(engine, Lane::Live, (&placed[0], InferConfig::default().detection_score_min)).await;
            let on_device =
                found.iter().map(|face| FaceOnDevice { frame: placed[0].clone(), landmarks: face.landmarks, is_mirrored: false });
            let on_device: Vec<_> = on_device.collect();
            for (measured, face) in engine.measure(Lane::Live, on_device.clone()).await.unwrap().iter().zip(&found) {
                let expected = quality::photometry(&align(host, &face.landmarks));
                let pairs = [
                    (measured.sharpness, expected.sharpness),
                    (measured.brightness, expected.brightness),
                    (measured.contrast, expected.contrast),
                ];
                let is_near = |(found, expected): &(f32, f32)| (found - expected).abs() <= expected.abs() * PARTS_MAX;
                assert!(pairs.iter().all(is_near), "{measured:?} and {expected:?}");
            }
            let templates = engine.encode(Lane::Live, on_device.into_iter().map(CutFace::Device).collect()).await.unwrap();
            all.push(found.into_iter().zip(templates).collect());
        }
        all
    })
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn a_gpu_finds_the_faces_that_the_cpu_finds_and_makes_the_same_templates() {
    let _alone = alone();
    for (precision, what) in
        [(PrecisionChoice::Auto, "GPU in its best precision beside CPU"), (PrecisionChoice::F32, "GPU in f32 beside CPU")]
    {
        let Some((rig, models, frames)) = rig(what, precision) else { return };
        let began = Instant::now();
        let mut worker = rig.worker().unwrap();
        println!("{what}: {}, opened in {:.1} s", rig.gpu_words(), began.elapsed().as_secs_f64());
        let gpu = found_on_gpu(&mut worker, &frames, 4);
        compared(what, &gpu, &found_on_cpu(&models, &frames));
    }
}

#[test]
fn the_engine_of_a_daemon_finds_measures_and_encodes_on_the_gpu() {
    let _alone = alone();
    let what = "the daemon's engine on the GPU beside CPU";
    let Some((rig, models, frames)) = rig(what, PrecisionChoice::Auto) else { return };
    let engine = Engine::open(&rig.config, &models, &rig.device).unwrap();
    let facts = engine.facts();
    assert!((facts.provider.starts_with("TensorRT") || facts.provider == "CUDA") && engine.batch_max() > 1, "{facts:?}");
    compared(what, &found_by_engine(&engine, &frames), &found_on_cpu(&models, &frames));
}

#[test]
fn a_batch_of_any_size_gives_what_each_picture_gives_alone() {
    let _alone = alone();
    let what = "batches beside single pictures";
    let Some((rig, _, frames)) = rig(what, PrecisionChoice::Auto) else { return };
    let mut worker = rig.worker().unwrap();
    let many: Vec<Frame> = frames.iter().cycle().take(2 * FRAMES_MAX + 3).cloned().collect();
    let alone = found_on_gpu(&mut worker, &many, 1);
    for batch in [2, 3, 7, FRAMES_MAX] {
        compared(&format!("batches of {batch} beside single pictures"), &found_on_gpu(&mut worker, &many, batch), &alone);
    }
}

#[test]
fn a_canvas_that_the_engine_was_not_built_for_is_run_on_the_gpu_all_the_same() {
    let _alone = alone();
    let Some((rig, _, frames)) = rig("canvases beyond the engine's", PrecisionChoice::Auto) else { return };
    let mut worker = rig.worker().unwrap();
    let copies = Arc::new(AtomicUsize::new(0));
    let mut asked = request(&worker, &frames[0], &copies).unwrap();
    asked.detector_side = Some(2 * rig.config.detector_side);
    let mut batch = worker.prepare(vec![asked]).unwrap();
    let found = worker.detect(&mut batch).unwrap();
    assert!(!found[0].is_empty(), "the face is seen at twice the side");
}

#[test]
fn runs_that_repeat_take_no_more_memory() {
    let _alone = alone();
    let Some((rig, _, frames)) = rig("memory over many runs", PrecisionChoice::Auto) else { return };
    let mut worker = rig.worker().unwrap();
    let mut run = |times: usize| (0..times).for_each(|_| drop(found_on_gpu(&mut worker, &frames, FRAMES_MAX)));
    run(20);
    let before = resident_bytes();
    run(300);
    let grown = resident_bytes().saturating_sub(before);
    println!("PARITY {}", serde_json::json!({ "what": "memory over 300 runs", "grown_bytes": grown }));
    assert!(grown <= GROWTH_BYTES_MAX, "{grown} bytes");
}

#[test]
fn a_kept_engine_is_not_built_again() {
    let _alone = alone();
    let Some((rig, ..)) = rig("opening a kept engine", PrecisionChoice::Auto) else { return };
    drop(rig.worker().unwrap());
    let kept = kept_engines(&rig);
    let began = Instant::now();
    drop(rig.worker().unwrap());
    // Without TensorRT there is none, and nothing to build.
    let what = serde_json::json!({ "what": "opening kept engines", "engine_files": kept.len(), "seconds": began.elapsed().as_secs_f64() });
    println!("PARITY {what}");
    assert_eq!(kept_engines(&rig), kept, "the files are those that were there");
}

/// The files of engines, each with the time it was written.
fn kept_engines(rig: &Rig) -> Vec<(PathBuf, SystemTime)> {
    let mut folders: Vec<PathBuf> = rig.config.engine_cache_dir.iter().cloned().collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "engine") {
                files.push((path.clone(), path.metadata().unwrap().modified().unwrap()));
            }
        }
    }
    files.sort();
    files
}
