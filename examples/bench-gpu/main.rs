//! Measures the real models on a GPU: frames a second by the size of a batch, and what takes the time.
//!
//! In: photos, shown as a camera of 1080p would. Out: a table, and JSON as the last line.
//! Without a GPU it says what is missing and ends with status 3.
//! Must not know: cameras, the pipeline.

#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../../tests/it/clip.rs"]
mod clip;
mod decoding;
#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../../tests/it/faces.rs"]
mod faces;
#[path = "../../tests/gpu/rig.rs"]
mod rig;
#[path = "../../tests/it/stills.rs"]
mod stills;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use doorward::config::PrecisionChoice;
use doorward::face::Detection;
use doorward::frame::Frame;
use doorward::infer::cuda::{Batch, FaceRequest, GpuChoice, SurfaceRequest, Worker};
use image::imageops::{self, FilterType};
use serde_json::{Value, json};

use rig::{Rig, request};
use stills::{Showing, show};

/// What is missing is no failure of what was measured.
const NO_GPU: u8 = 3;
const BATCHES: [usize; 5] = [1, 2, 4, 8, 16];
/// What takes time, in the order in which a picture goes through it.
const STEPS: [&str; 5] = ["decode", "upload", "kernels", "detector", "encoder"];
/// The picture of a usual camera.
const SIZE: (u32, u32) = (1920, 1080);
/// The clip that is decoded: each photo for a second, moving a little.
const SHOWING: Showing = Showing { size: SIZE, fps: 25, seconds_per_photo: 1.0, seconds_between: 0.0 };

/// Measures the real models on a GPU.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder with manifest.toml.
    #[arg(long, default_value = "models")]
    models: PathBuf,
    /// A folder of photos (JPEG) with faces.
    #[arg(long, default_value = "tests/data/photos")]
    photos: PathBuf,
    /// How long each size of a batch is measured.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The GStreamer element that decodes H.264.
    #[arg(long, default_value = "nvh264dec")]
    decoder: String,
    /// In 32-bit floats instead of the GPU's best precision.
    #[arg(long)]
    f32: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let precision = if arguments.f32 { PrecisionChoice::F32 } else { PrecisionChoice::Auto };
    let rig = match Rig::find(&arguments.models, precision) {
        Ok(rig) => rig,
        Err(reason) => {
            eprintln!("nothing is measured: {reason}");
            return Ok(ExitCode::from(NO_GPU));
        }
    };
    let choice = GpuChoice::new(precision, rig.device.without_tensorrt.as_deref())?;
    let photos = photos(&arguments.photos)?;
    println!("{}: {} in {}; {}", rig.gpu_words(), choice.provider.name(), choice.precision.name(), choice.provider_reason);
    let began = Instant::now();
    let frames = photos.iter().map(frame).collect::<anyhow::Result<_>>()?;
    let mut bench = Bench { worker: rig.worker()?, frames, decode: None, copies: Arc::default() };
    let opened_s = began.elapsed().as_secs_f64();
    println!("opened in {opened_s:.1} s; pictures of {}x{}, uploaded from the host", SIZE.0, SIZE.1);
    println!("\"there\" is frames a second of pictures that are on the GPU already, as its decoder leaves them");
    match decode_s(&arguments.decoder, &photos) {
        Ok(seconds) => {
            println!("{}: {:.2} ms a picture, in a unit of its own beside all else", arguments.decoder, 1e3 * seconds);
            bench.decode = Some(seconds);
        }
        Err(error) => println!("the share of decoding is left out: {error:#}"),
    }
    println!("{:>6} {:>10} {:>10} {}", "batch", "frames/s", "there", STEPS.map(|step| format!("{step:>9}")).join(" "));
    let lasting = Duration::from_secs_f64(arguments.seconds);
    let batches = BATCHES.into_iter().map(|batch| bench.measured(batch, lasting)).collect::<anyhow::Result<Vec<_>>>()?;
    let copies = bench.copies.load(Ordering::Relaxed);
    let result = json!({
        "gpu": rig.gpu_words(), "provider": choice.provider.name(), "precision": choice.precision.name(), "opened_s": opened_s,
        "decoder": arguments.decoder, "decode_ms": bench.decode.map(|seconds| 1e3 * seconds), "detector_side": rig.config.detector_side, "batches": batches, "pixel_copies_to_host": copies,
    });
    println!("{result}");
    ensure!(copies == 0, "{copies} pictures were copied back to the host, and none may be");
    Ok(ExitCode::SUCCESS)
}

/// How many seconds a picture takes to be decoded, of a clip of photos.
fn decode_s(decoder: &str, photos: &[PathBuf]) -> anyhow::Result<f64> {
    ensure!(decoding::is_there(decoder), "GStreamer has no {decoder} here");
    let file = tempfile::Builder::new().suffix(".mp4").tempfile()?;
    let settings = clip::ClipSettings { size: SIZE, fps: SHOWING.fps, is_h265: false };
    clip::encode(file.path(), settings, show(photos, SHOWING)?)?;
    decoding::seconds_a_picture(decoder, file.path())
}

/// The photos of a folder.
fn photos(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = std::fs::read_dir(folder).with_context(|| format!("{}; script/bootstrap takes photos", folder.display()))?;
    let mut files = listed.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jpg"));
    files.sort();
    ensure!(!files.is_empty(), "{} holds no JPEG", folder.display());
    Ok(files)
}

/// A photo in the middle of a camera's picture.
fn frame(file: &PathBuf) -> anyhow::Result<Frame> {
    let photo = image::open(file)?.resize(SIZE.0, SIZE.1, FilterType::Triangle).into_rgb8();
    let mut picture = image::RgbImage::new(SIZE.0, SIZE.1);
    let corner = (i64::from((SIZE.0 - photo.width()) / 2), i64::from((SIZE.1 - photo.height()) / 2));
    imageops::overlay(&mut picture, &photo, corner.0, corner.1);
    Ok(faces::as_video(&faces::as_photo(picture)))
}

struct Bench {
    worker: Worker,
    frames: Vec<Frame>,
    /// Seconds that a picture takes to be decoded, where there is a decoder.
    decode: Option<f64>,
    copies: Arc<AtomicUsize>,
}

impl Bench {
    /// Frames a second, uploaded and on the device already, and the shares of the time, step by step.
    fn measured(&mut self, batch: usize, lasting: Duration) -> anyhow::Result<Value> {
        let (frames_per_s, faces_per_frame) = self.throughput(batch, lasting, None)?;
        let there = self.requests(batch, &mut 0)?;
        let (frames_per_s_there, _) = self.throughput(batch, lasting, Some(&there))?;
        drop(there);
        let decode = self.decode.unwrap_or_default() * batch as f64;
        let [upload, kernels, detector, encoder] = self.steps(batch)?;
        let steps = [decode, upload, kernels, detector, encoder];
        let all: f64 = steps.iter().sum();
        let is_measured = |step: &str| step != "decode" || self.decode.is_some();
        let shares = STEPS.into_iter().zip(steps).filter(|(step, _)| is_measured(step)).map(|(step, seconds)| (step, seconds / all));
        let shares: BTreeMap<_, _> = shares.collect();
        let words = |step| shares.get(step).map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share));
        let percent = STEPS.map(|step| format!("{:>9}", words(step))).join(" ");
        println!("{batch:>6} {frames_per_s:>10.1} {frames_per_s_there:>10.1} {percent}");
        Ok(json!({
            "batch": batch, "frames_per_s": frames_per_s, "frames_per_s_there": frames_per_s_there,
            "faces_per_frame": faces_per_frame, "step_by_step_ms": 1e3 * (all - decode),
            "share": shares,
        }))
    }

    /// Frames a second and faces a frame, with one batch prepared while another is looked at: of pictures that are `there`, or of
    /// pictures that are uploaded each time.
    fn throughput(&mut self, batch: usize, lasting: Duration, there: Option<&Vec<SurfaceRequest>>) -> anyhow::Result<(f64, f64)> {
        let mut at = 0;
        let mut prepared = |bench: &mut Self| match there {
            Some(requests) => Ok(bench.worker.prepare(requests.clone())?),
            None => bench.prepared(batch, &mut at),
        };
        let mut next = prepared(self)?;
        let (mut frames, mut faces, mut began) = (0, 0, Instant::now());
        let mut warming = 3;
        while warming > 0 || began.elapsed() < lasting {
            let mut now = std::mem::replace(&mut next, prepared(self)?);
            let found = self.worker.detect(&mut now)?;
            let wanted = wanted(&found);
            self.worker.encode(&mut now, &wanted)?;
            drop(now);
            if warming > 0 {
                (warming, began) = (warming - 1, Instant::now());
            } else {
                (frames, faces) = (frames + batch, faces + wanted.len());
            }
        }
        drop(next);
        Ok((frames as f64 / began.elapsed().as_secs_f64(), faces as f64 / frames.max(1) as f64))
    }

    fn requests(&self, batch: usize, at: &mut usize) -> anyhow::Result<Vec<SurfaceRequest>> {
        let chosen = self.frames.iter().cycle().skip(*at).take(batch);
        let requests = chosen.map(|frame| Ok(request(&self.worker, frame, &self.copies)?)).collect();
        *at = (*at + batch) % self.frames.len();
        requests
    }

    fn prepared(&mut self, batch: usize, at: &mut usize) -> anyhow::Result<Batch> {
        let requests = self.requests(batch, at)?;
        Ok(self.worker.prepare(requests)?)
    }

    /// Seconds of upload, letterboxing, detector and encoder (with alignment), each waited for. What cannot be waited for by
    /// itself is the difference of two: a batch that is dropped waits for its letterboxing, and that for the uploads.
    fn steps(&mut self, batch: usize) -> anyhow::Result<[f64; 4]> {
        const ROUNDS: usize = 20;
        let mut sums = [0.0; 4];
        let seconds = |began: Instant| began.elapsed().as_secs_f64();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let requests = self.requests(batch, &mut 0)?;
            drop(self.worker.prepare(requests.clone())?);
            let with_upload = seconds(began);
            let began = Instant::now();
            drop(self.worker.prepare(requests.clone())?);
            let kernels = seconds(began);
            let began = Instant::now();
            let mut prepared = self.worker.prepare(requests)?;
            let found = self.worker.detect(&mut prepared)?;
            let detector = seconds(began);
            let began = Instant::now();
            self.worker.encode(&mut prepared, &wanted(&found))?;
            for (sum, own) in sums.iter_mut().zip([with_upload - kernels, kernels, detector - kernels, seconds(began)]) {
                *sum += own.max(0.0) / ROUNDS as f64;
            }
        }
        Ok(sums)
    }
}

/// Every face of every frame.
fn wanted(found: &[Vec<Detection>]) -> Vec<FaceRequest> {
    let of = |(frame, faces): (usize, &Vec<Detection>)| {
        faces.iter().map(|face| FaceRequest { frame, landmarks: face.landmarks, is_mirrored: false }).collect::<Vec<_>>()
    };
    found.iter().enumerate().flat_map(of).collect()
}
