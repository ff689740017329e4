//! Real faces, found and encoded by the real models, over the device's path and over the host's.
//!
//! In: photos, as cameras send them. Out: the same boxes, landmarks and templates.
//! Prints what is left out where a resource is missing.
//! Must not know: how either path works.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use doorward::config::{InferConfig, PrecisionChoice};
use doorward::device::Device;
use doorward::face::{Detection, Point, Template};
use doorward::frame::{Frame, PixelFormat, PixelLayout, Plane};
use doorward::infer::cuda::{Gpu, Graphs, Plan, Surface, SurfaceRequest, Worker};
use doorward::infer::{Lane, align};
use doorward::models::{Manifest, Role};

use crate::driver::{StandIn, image, over_the_stand_in};
use crate::faces;
use crate::flow::{Decoder, all_faces};
use crate::session::HostSession;

/// Where the faces that the host found are told to the process that runs over the stand-in.
pub const FOUND_ON_HOST: &str = "DOORWARD_FOUND_ON_HOST";
/// How far a box's edge or a landmark may be from the host's, in pixels of the frame: what two
/// providers' sums may differ by.
const PIXELS_MAX: f32 = 0.25;
/// How alike the two templates of a face have to be.
const COSINE_MIN: f32 = 0.999;

/// A face as a row of numbers: box, five landmarks, template.
pub type Row = Vec<f32>;

fn row(face: &Detection, template: &Template) -> Row {
    let place = face.box_in_frame;
    let points = face.landmarks.0.iter().flat_map(|Point { x, y }| [*x, *y]);
    [place.x, place.y, place.width, place.height].into_iter().chain(points).chain(template.values().iter().copied()).collect()
}

/// The photos as cameras would send them.
fn frames(photos: &Path) -> Vec<Frame> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(photos).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jpg"));
    files.sort();
    files.iter().map(|file| faces::as_video(&faces::photo(file))).collect()
}

/// The same picture as a decoder on the device gives it.
fn as_nv12(frame: &Frame) -> Frame {
    let PixelFormat { size, planes, .. } = *frame.format();
    let (width, height) = (size.width as usize, size.height as usize);
    let pairs = frame.plane(1)[..width * height / 4].iter().zip(frame.plane(2)).flat_map(|(u, v)| [*u, *v]);
    let bytes = frame.plane(0)[..width * height].iter().copied().chain(pairs).collect::<Vec<_>>();
    let planes = [planes[0], Plane { offset: width * height, stride: width }, Plane::default()];
    let format = PixelFormat { layout: PixelLayout::Nv12, planes, ..*frame.format() };
    Frame::new(frame.camera.clone(), frame.capture_time, format, Arc::new(bytes)).unwrap()
}

/// What the host's path finds in each frame.
pub fn found_on_host(models: &Path, frames: &[Frame]) -> Vec<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let engine = faces::engine_in(models, PrecisionChoice::F32);
        let mut all = Vec::new();
        for frame in frames {
            let found = faces::detect_in(&engine, Lane::Live, (frame, InferConfig::default().detection_score_min)).await;
            let crops = found.iter().map(|face| align(frame, &face.landmarks)).collect();
            let templates = engine.encode(Lane::Live, crops).await.unwrap();
            all.push(found.iter().zip(&templates).map(|(face, template)| row(face, template)).collect());
        }
        all
    })
}

/// A worker whose graphs are the real models.
pub fn open(stand_in: &'static StandIn, gpu: &Arc<Gpu>, models: &Path) -> Worker {
    let manifest = Manifest::load(models).unwrap();
    let environment = Arc::new(ort::init_from(manifest.verified_runtime(Device::Cpu).unwrap()).unwrap().with_name("test").build().unwrap());
    let session = |role| Box::new(HostSession::new(stand_in, &environment, manifest.prepared(role).unwrap().path));
    let config = InferConfig::default();
    let plan = Plan { gpu, image: &image(gpu), manifest: &manifest, config: &config, frames_max: 4 };
    Worker::open(&plan, |_| Ok(Graphs { detector: session(Role::Detector), encoder: session(Role::Encoder) })).unwrap()
}

/// What a worker finds in each picture of a batch.
pub fn found_in(worker: &mut Worker, surfaces: Vec<Surface>) -> Vec<Vec<Row>> {
    let requests = surfaces.into_iter().map(|surface| SurfaceRequest {
        surface,
        detector_side: None,
        region_of_interest: None,
        score_min: None,
        face_pixels_min: 0,
    });
    let mut batch = worker.prepare(requests.collect()).unwrap();
    let found = worker.detect(&mut batch).unwrap();
    let mut templates = worker.encode(&mut batch, &all_faces(&found)).unwrap().into_iter();
    found.iter().map(|faces| faces.iter().map(|face| row(face, &templates.next().unwrap())).collect()).collect()
}

/// What the device's path finds, batch by batch.
fn found_on_device(stand_in: &'static StandIn, models: &Path, frames: &[Frame]) -> Vec<Vec<Row>> {
    let gpu = Gpu::open(0).unwrap();
    let mut worker = open(stand_in, &gpu, models);
    let mut all = Vec::new();
    for frames in frames.chunks(4) {
        // Every other frame is a decoder's.
        let decoders: Vec<_> = frames.iter().map(|frame| Decoder::new(&gpu, stand_in, as_nv12(frame)).unwrap()).collect();
        let surfaces = frames.iter().zip(&decoders).enumerate();
        let surfaces = surfaces.map(|(at, (frame, decoder))| if at % 2 == 0 { worker.upload(frame).unwrap() } else { decoder.decode() });
        let surfaces = surfaces.collect();
        all.extend(found_in(&mut worker, surfaces));
    }
    drop((worker, gpu));
    assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    all
}

/// Asserts that the same faces were found, as near as two providers' sums are.
pub fn assert_alike(host: &[Vec<Row>], device: &[Vec<Row>]) {
    assert_eq!(host.iter().map(Vec::len).collect::<Vec<_>>(), device.iter().map(Vec::len).collect::<Vec<_>>(), "as many faces a picture");
    let (mut faces, mut pixels, mut cosine) = (0, 0.0_f32, 1.0_f32);
    for (host, device) in host.iter().flatten().zip(device.iter().flatten()) {
        let ((host, one), (device, other)) = (host.split_at(14), device.split_at(14));
        pixels = host.iter().zip(device).map(|(a, b)| (a - b).abs()).fold(pixels, f32::max);
        cosine = cosine.min(one.iter().zip(other).map(|(a, b)| a * b).sum());
        faces += 1;
    }
    println!("{faces} faces of {} pictures: at most {pixels} pixels apart, cosine at least {cosine}", host.len());
    assert!(faces >= 4, "the pictures show faces: {faces}");
    assert!(pixels <= PIXELS_MAX && cosine >= COSINE_MIN, "{pixels} pixels, cosine {cosine}");
}

#[test]
fn the_device_finds_the_faces_that_the_host_finds_and_makes_the_same_templates() {
    const NAME: &str = "recognise::the_device_finds_the_faces_that_the_host_finds_and_makes_the_same_templates";
    let left_out = "faces over the device's path";
    let (Some(models), Some(photos)) = (faces::models_dir(left_out), faces::bootstrapped("photos", left_out)) else { return };
    let frames = frames(&photos);
    let folder = tempfile::tempdir().unwrap();
    let told = std::env::var_os(FOUND_ON_HOST).map_or_else(|| folder.path().join("found.json"), PathBuf::from);
    if std::env::var_os(FOUND_ON_HOST).is_none() {
        std::fs::write(&told, serde_json::to_vec(&found_on_host(&models, &frames)).unwrap()).unwrap();
    }
    over_the_stand_in(NAME, &[(FOUND_ON_HOST, &told)], |stand_in| {
        let host: Vec<Vec<Row>> = serde_json::from_slice(&std::fs::read(&told).unwrap()).unwrap();
        let device = found_on_device(stand_in, &models, &frames);
        assert_alike(&host, &device);
    });
}
