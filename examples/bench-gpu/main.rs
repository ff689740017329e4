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
mod trace;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::Parser;
use doorward::config::PrecisionChoice;
use doorward::face::Detection;
use doorward::frame::Frame;
use doorward::infer::cuda::{Batch, FaceRequest, GpuChoice, GpuProvider, SurfaceRequest, Worker};
use image::imageops::{self, FilterType};
use serde_json::{Value, json};

use rig::{Rig, request};
use stills::{Showing, show};
use trace::Doing;

/// What is missing is no failure of what was measured.
const NO_GPU: u8 = 3;
const BATCHES: [usize; 5] = [1, 2, 4, 8, 16];
/// What takes time, in the order in which a picture goes through it.
const STEPS: [&str; 5] = ["decode", "upload", "kernels", "detector", "encoder"];
/// The picture of a usual camera.
const SIZE: (u32, u32) = (1920, 1080);
/// The values that the detector answers for a cell of each stride.
const CELL_VALUES: usize = 16;
/// What copies may have beyond their values: outputs begin at multiples of 256.
const ALIGNMENT_BYTES: f64 = 8_192.0;
/// How long it is recorded what the device does.
const RECORDED: Duration = Duration::from_millis(500);
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
    let unrecorded = trace::obstacle();
    let workers = [rig.worker()?, rig.worker()?];
    let (answer_bytes, is_exact) = (answer_bytes(&rig), choice.provider == GpuProvider::TensorRt);
    let mut bench = Bench { workers, frames, decode: None, unrecorded, copies: Arc::default(), answer_bytes, is_exact };
    let opened_s = began.elapsed().as_secs_f64();
    println!("opened in {opened_s:.1} s; pictures of {}x{}, uploaded from the host", SIZE.0, SIZE.1);
    println!("\"there\" is frames a second of pictures that are on the GPU already, as its decoder leaves them; \"two\" of two threads");
    match decode_s(&arguments.decoder, &photos) {
        Ok(seconds) => {
            println!("{}: {:.2} ms a picture, in a unit of its own beside all else", arguments.decoder, 1e3 * seconds);
            bench.decode = Some(seconds);
        }
        Err(error) => println!("LEFT OUT: the share of decoding: {error:#}"),
    }
    println!("{:>6} {:>10} {:>10} {:>10} {}", "batch", "frames/s", "there", "two", STEPS.map(|step| format!("{step:>9}")).join(" "));
    let lasting = Duration::from_secs_f64(arguments.seconds);
    let batches = BATCHES.into_iter().map(|batch| bench.measured(batch, lasting)).collect::<anyhow::Result<Vec<_>>>()?;
    match &bench.unrecorded {
        None => tell_device(&batches),
        Some(reason) => println!("LEFT OUT: what the device does, and the bytes that come back to the host: {reason}"),
    }
    let copies = bench.copies.load(Ordering::Relaxed);
    let result = json!({
        "gpu": rig.gpu_words(), "provider": bench.workers[0].runs_on(), "precision": choice.precision.name(), "opened_s": opened_s,
        "decoder": arguments.decoder, "decode_ms": bench.decode.map(|seconds| 1e3 * seconds), "detector_side": rig.config.detector_side,
        "batches": batches, "unrecorded": bench.unrecorded, "pictures_copied_to_host": copies,
    });
    println!("{result}");
    ensure!(copies == 0, "{copies} pictures were copied back to the host, and none may be");
    Ok(ExitCode::SUCCESS)
}

/// What the device did, by its own records, for two threads at once.
fn tell_device(batches: &[Value]) {
    println!("by the device's own records, for two threads, a frame: microseconds of each copy and kernel, and bytes that came back");
    let columns = ["busy_us_a_frame", "kernels_us", "graphs_us", "copies_us", "copies_to_host_us", "bytes_to_host_a_frame"];
    let heads = ["busy", "kernels", "graphs", "copies", "to host", "bytes"];
    println!("{:>6} {} {:>11}", "batch", heads.map(|head| format!("{head:>9}")).join(" "), "overlapped");
    for row in batches {
        let (batch, device) = (&row["batch"], &row["device"]);
        let cells = columns.map(|column| format!("{:>9.0}", device[column].as_f64().unwrap_or_default())).join(" ");
        println!("{batch:>6} {cells} {:>9.0} %", 100.0 * device["overlapped"].as_f64().unwrap_or_default());
    }
}

/// The bytes that the graphs answer for a picture with one face: the detector for each cell, the encoder for the face.
fn answer_bytes(rig: &Rig) -> usize {
    let side = rig.config.detector_side as usize;
    let height = (side * SIZE.1 as usize / SIZE.0 as usize).next_multiple_of(32);
    let cells: usize = [8, 16, 32].iter().map(|stride| (side / stride) * (height / stride)).sum();
    (cells * CELL_VALUES + rig.manifest.encoder.dimension) * size_of::<f32>()
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
    /// Two, as the daemon has: while one waits for its graphs, the device works for the other.
    workers: [Worker; 2],
    frames: Vec<Frame>,
    /// Seconds that a picture takes to be decoded, where there is a decoder.
    decode: Option<f64>,
    /// Why it is not recorded what the device does, where it cannot be.
    unrecorded: Option<String>,
    /// How many pictures doorward itself fetched back.
    copies: Arc<AtomicUsize>,
    /// What the graphs answer for a picture with one face.
    answer_bytes: usize,
    /// Whether graphs are run for as many pictures as there are.
    is_exact: bool,
}

/// What a worker did in some time.
#[derive(Default)]
struct Run {
    frames: usize,
    faces: usize,
    seconds: f64,
    /// With those of the first batches, which are not measured.
    frames_in_all: usize,
}

impl Run {
    fn frames_per_s(&self) -> f64 {
        self.frames as f64 / self.seconds
    }
}

impl Bench {
    /// Frames a second, uploaded and on the device already, and the shares of the time, step by step.
    fn measured(&mut self, batch: usize, lasting: Duration) -> anyhow::Result<Value> {
        let pictures = (self.frames.as_slice(), &self.copies);
        let [first, _] = &mut self.workers;
        let mut at = 0;
        let uploaded = looked_at(first, lasting, |worker| {
            at += batch;
            requests(worker, pictures, (batch, at - batch))
        })?;
        let there = requests(first, pictures, (batch, 0))?;
        let alone = looked_at(first, lasting, |_| Ok(there.clone()))?;
        drop(there);
        let two = self.both(batch, lasting)?;
        let decode = self.decode.unwrap_or_default() * batch as f64;
        let [upload, kernels, detector, encoder] = self.steps(batch)?;
        let steps = [decode, upload, kernels, detector, encoder];
        let all: f64 = steps.iter().sum();
        let is_measured = |step: &str| step != "decode" || self.decode.is_some();
        let shares = STEPS.into_iter().zip(steps).filter(|(step, _)| is_measured(step)).map(|(step, seconds)| (step, seconds / all));
        let shares: BTreeMap<_, _> = shares.collect();
        let device = self.device(batch)?;
        let words = |step| shares.get(step).map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share));
        let percent = STEPS.map(|step| format!("{:>9}", words(step))).join(" ");
        let (uploaded, alone, two, faces) =
            (uploaded.frames_per_s(), alone.frames_per_s(), two.frames_per_s(), uploaded.faces as f64 / uploaded.frames.max(1) as f64);
        println!("{batch:>6} {uploaded:>10.1} {alone:>10.1} {two:>10.1} {percent}");
        Ok(json!({
            "batch": batch, "frames_per_s": uploaded, "frames_per_s_there": alone, "frames_per_s_there_by_two": two,
            "faces_per_frame": faces, "step_by_step_ms": 1e3 * (all - decode), "share": shares, "device": device,
        }))
    }

    /// Both workers at once, each with pictures that are on the device already.
    fn both(&mut self, batch: usize, lasting: Duration) -> anyhow::Result<Run> {
        let pictures = (self.frames.as_slice(), &self.copies);
        let runs = std::thread::scope(|scope| {
            let threads = self.workers.each_mut().map(|worker| {
                scope.spawn(move || {
                    let there = requests(worker, pictures, (batch, 0))?;
                    looked_at(worker, lasting, |_| Ok(there.clone()))
                })
            });
            threads.map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked"))))
        });
        let [one, other] = runs;
        let (one, other) = (one?, other?);
        let frames_per_s = one.frames_per_s() + other.frames_per_s();
        let frames = one.frames + other.frames;
        Ok(Run {
            frames,
            faces: one.faces + other.faces,
            seconds: frames as f64 / frames_per_s,
            frames_in_all: one.frames_in_all + other.frames_in_all,
        })
    }

    /// What the device did for both workers at once, by its own records.
    fn device(&mut self, batch: usize) -> anyhow::Result<Value> {
        if self.unrecorded.is_some() {
            return Ok(Value::Null);
        }
        let (record, run) = trace::recorded(|| self.both(batch, RECORDED))?;
        let frames = run.frames_in_all as f64;
        let bytes_to_host = record.bytes_to_host as f64 / frames;
        // The CUDA provider runs a graph for more pictures than there are.
        let run = if self.is_exact { batch } else { BATCHES.into_iter().step_by(2).find(|run| *run >= batch).unwrap_or(batch) };
        let answers = (run * self.answer_bytes) as f64 / batch as f64 + ALIGNMENT_BYTES;
        ensure!(
            (1.0..=answers).contains(&bytes_to_host),
            "{bytes_to_host} bytes a frame came back to the host; what the graphs answer is {answers} at most, and pixels may not come"
        );
        let us_a_frame = |doing| record.by_doing_ns.get(&doing).copied().unwrap_or_default() as f64 / 1e3 / frames;
        Ok(json!({
            "bytes_to_host_a_frame": bytes_to_host, "largest_copy_to_host": record.largest_to_host,
            "busy_us_a_frame": record.busy_ns as f64 / 1e3 / frames, "overlapped": record.overlapped_ns as f64 / record.busy_ns.max(1) as f64,
            "kernels_us": us_a_frame(Doing::Kernels), "graphs_us": us_a_frame(Doing::Graphs),
            "copies_us": us_a_frame(Doing::Copies), "copies_to_host_us": us_a_frame(Doing::CopiesToHost),
        }))
    }

    /// Seconds of upload, letterboxing, detector and encoder (with alignment), each waited for. What cannot be waited for by
    /// itself is the difference of two: a batch that is dropped waits for its letterboxing, and that for the uploads.
    fn steps(&mut self, batch: usize) -> anyhow::Result<[f64; 4]> {
        const ROUNDS: usize = 20;
        let mut sums = [0.0; 4];
        let seconds = |began: Instant| began.elapsed().as_secs_f64();
        let Self { workers: [worker, _], frames, copies, .. } = self;
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let requests = requests(worker, (frames, copies), (batch, 0))?;
            drop(worker.prepare(requests.clone())?);
            let with_upload = seconds(began);
            let began = Instant::now();
            drop(worker.prepare(requests.clone())?);
            let kernels = seconds(began);
            let began = Instant::now();
            let mut prepared = worker.prepare(requests)?;
            let found = worker.detect(&mut prepared)?;
            let detector = seconds(began);
            let began = Instant::now();
            worker.encode(&mut prepared, &wanted(&found))?;
            for (sum, own) in sums.iter_mut().zip([with_upload - kernels, kernels, detector - kernels, seconds(began)]) {
                *sum += own.max(0.0) / ROUNDS as f64;
            }
        }
        Ok(sums)
    }
}

/// Looks at batches of what `requests` gives, with one prepared while another is looked at.
fn looked_at(
    worker: &mut Worker,
    lasting: Duration,
    mut requests: impl FnMut(&Worker) -> anyhow::Result<Vec<SurfaceRequest>>,
) -> anyhow::Result<Run> {
    let mut prepared = |worker: &mut Worker| -> anyhow::Result<Batch> {
        let requests = requests(worker)?;
        Ok(worker.prepare(requests)?)
    };
    let mut next = prepared(worker)?;
    let (mut run, mut began) = (Run::default(), Instant::now());
    let mut warming = 3;
    while warming > 0 || began.elapsed() < lasting {
        let mut now = std::mem::replace(&mut next, prepared(worker)?);
        let found = worker.detect(&mut now)?;
        let wanted = wanted(&found);
        worker.encode(&mut now, &wanted)?;
        run.frames_in_all += now.len();
        if warming > 0 {
            (warming, began) = (warming - 1, Instant::now());
        } else {
            (run.frames, run.faces) = (run.frames + now.len(), run.faces + wanted.len());
        }
    }
    run.seconds = began.elapsed().as_secs_f64();
    Ok(run)
}

/// Frames, and the count of those that are fetched back.
type Pictures<'a> = (&'a [Frame], &'a Arc<AtomicUsize>);

/// So many frames, from one place in all of them on, queued for the worker's device.
fn requests(worker: &Worker, (frames, copies): Pictures<'_>, (batch, at): (usize, usize)) -> anyhow::Result<Vec<SurfaceRequest>> {
    let chosen = frames.iter().cycle().skip(at % frames.len()).take(batch);
    chosen.map(|frame| Ok(request(worker, frame, copies)?)).collect()
}

/// Every face of every frame.
fn wanted(found: &[Vec<Detection>]) -> Vec<FaceRequest> {
    let of = |(frame, faces): (usize, &Vec<Detection>)| {
        faces.iter().map(|face| FaceRequest { frame, landmarks: face.landmarks, is_mirrored: false }).collect::<Vec<_>>()
    };
    found.iter().enumerate().flat_map(of).collect()
}
