//! Where tests find models and photos, and how they look at them.
//!
//! In: the environment. Out: an engine, frames, faces.
//! Prints what is left out where a resource is missing.
//! Must not know: what the tests assert.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use doorward::clock::Timestamp;
use doorward::config::{DeviceChoice, InferConfig, PrecisionChoice};
use doorward::device;
use doorward::face::{AlignedFace, Detection, Template};
use doorward::frame::{CameraId, ColourMatrix, ColourRange, Frame, PixelFormat, PixelLayout, Plane, Size};
use doorward::infer::{self, DetectRequest, Engine, Lane};
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};

fn from_env(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(default), PathBuf::from)
}

/// The models directory, if it is filled.
pub fn models_dir(left_out: &str) -> Option<PathBuf> {
    let dir = from_env("DOORWARD_MODELS_DIR", "models");
    is_there(&dir.join("face_recognition_sface_2021dec.onnx"), left_out).then_some(dir)
}

/// A part of the shared test data, if it is there.
pub fn shared_data(part: &str, left_out: &str) -> Option<PathBuf> {
    let path = from_env("DOORWARD_TEST_DATA", "../shared/data").join(part);
    is_there(&path, left_out).then_some(path)
}

/// A part of the photos that `script/bootstrap` takes from the registries, if it is there.
pub fn bootstrapped(part: &str, left_out: &str) -> Option<PathBuf> {
    let path = from_env("DOORWARD_FACES", "tests/data").join(part);
    is_there(&path, left_out).then_some(path)
}

fn is_there(path: &Path, left_out: &str) -> bool {
    let is_there = path.exists();
    if !is_there {
        println!("LEFT OUT: {left_out}: {} is not there", path.display());
    }
    is_there
}

/// An engine with a session for each core, in the precision that is best on this processor.
pub fn engine(models_dir: &Path) -> Engine {
    engine_in(models_dir, PrecisionChoice::Auto)
}

/// The same in a precision of choice.
pub fn engine_in(models_dir: &Path, precision: PrecisionChoice) -> Engine {
    let device = device::resolve(&DeviceChoice::Cpu).expect("there is a CPU");
    Engine::open(&InferConfig { precision, ..InferConfig::default() }, models_dir, &device).expect("the models are good")
}

/// A photo as a frame.
pub fn photo(path: &Path) -> Frame {
    as_photo(upright(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).into_rgb8())
}

/// A picture in memory as a frame.
pub fn as_photo(image: RgbImage) -> Frame {
    let format = PixelFormat::rgb8(Size { width: image.width(), height: image.height() });
    let camera = CameraId::parse("photo").expect("a good id");
    Frame::new(camera, Timestamp::default(), format, Arc::new(image.into_raw())).expect("it fits")
}

/// The same picture as a camera sends it: I420, BT.709, limited range. Its size must be even.
pub fn as_video(photo: &Frame) -> Frame {
    let Size { width, height } = photo.size();
    let (width, height) = (width as usize & !1, height as usize & !1);
    let stride = photo.format().planes[0].stride;
    let rgb = |x: usize, y: usize| [0, 1, 2].map(|c| f32::from(photo.plane(0)[y * stride + x * 3 + c]));
    let luma = |[r, g, b]: [f32; 3]| 0.2126 * r + 0.7152 * g + 0.0722 * b;
    let mut bytes: Vec<u8> = Vec::with_capacity(width * height * 3 / 2);
    bytes.extend((0..width * height).map(|i| (16.0 + luma(rgb(i % width, i / width)) * 219.0 / 255.0).round() as u8));
    for (component, range) in [(2, 1.8556), (0, 1.5748)] {
        bytes.extend((0..width * height / 4).map(|i| {
            // The mean of the two rows beside the left column, where chroma is placed.
            let (x, y) = (i % (width / 2) * 2, i / (width / 2) * 2);
            let of = |p: [f32; 3]| (p[component] - luma(p)) / range;
            (128.0 + (of(rgb(x, y)) + of(rgb(x, y + 1))) / 2.0 * 224.0 / 255.0).round() as u8
        }));
    }
    let plane = |offset, stride| Plane { offset, stride };
    let format = PixelFormat {
        size: Size { width: width as u32, height: height as u32 },
        layout: PixelLayout::I420,
        matrix: ColourMatrix::Bt709,
        range: ColourRange::Limited,
        planes: [plane(0, width), plane(width * height, width / 2), plane(width * height * 5 / 4, width / 2)],
    };
    Frame::new(photo.camera.clone(), photo.capture_time, format, Arc::new(bytes)).expect("it fits")
}

fn upright(path: &Path) -> image::ImageResult<DynamicImage> {
    let mut decoder = ImageReader::open(path)?.with_guessed_format()?.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// The faces of a photo, best first.
pub async fn detect(engine: &Engine, frame: &Frame, score_min: f32) -> Vec<Detection> {
    detect_in(engine, Lane::Photo, (frame, score_min)).await
}

/// The faces of a frame in a lane, best first.
pub async fn detect_in(engine: &Engine, lane: Lane, (frame, score_min): (&Frame, f32)) -> Vec<Detection> {
    let request = DetectRequest {
        frame: frame.clone(),
        detector_side: None,
        region_of_interest: None,
        score_min: Some(score_min),
        face_pixels_min: 0,
    };
    engine.detect(lane, vec![request]).await.expect("it is looked at").remove(0)
}

/// The template of a face.
pub async fn encode(engine: &Engine, face: AlignedFace) -> Template {
    engine.encode(Lane::Photo, vec![face]).await.expect("it is encoded").remove(0)
}

/// What is known of the face of a photo.
pub struct Known {
    /// Where it is.
    pub detection: Detection,
    /// The crop.
    pub aligned: AlignedFace,
    /// The vector.
    pub template: Template,
}

/// Picks the face that a photo is about.
pub type Choose = fn(&Frame, &[Detection]) -> Option<Detection>;

/// Looks at each photo on all sessions at once; `choose` picks the face. A photo without one is
/// tried again with a border, as enrolment does.
pub async fn look_at_all(engine: &Engine, photos: &[PathBuf], (score_min, choose): (f32, Choose)) -> Vec<Option<Known>> {
    let (photos, next) = (Arc::new(photos.to_vec()), Arc::new(AtomicUsize::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..engine.facts().sessions {
        let (engine, photos, next) = (engine.clone(), photos.clone(), next.clone());
        tasks.spawn(async move {
            let mut found = Vec::new();
            while let Some((number, path)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, photos.get(n)?))) {
                found.push((number, look_at(&engine, path, (score_min, choose)).await));
            }
            found
        });
    }
    let mut all: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, known)| known).collect()
}

async fn look_at(engine: &Engine, path: &Path, (score_min, choose): (f32, Choose)) -> Option<Known> {
    let mut frame = photo(path);
    let mut found = detect(engine, &frame, score_min).await;
    if found.is_empty() {
        frame = infer::with_border(&frame, 40).expect("it fits");
        found = detect(engine, &frame, score_min).await;
    }
    let detection = choose(&frame, &found)?;
    let aligned = infer::align(&frame, &detection.landmarks);
    let template = encode(engine, aligned.clone()).await;
    Some(Known { detection, aligned, template })
}
