//! Tests of decoding: limits before memory, upright pixels, every pixel format; and of how many photos wait.
//!
//! In: pictures made here. Out: an analyst with which many photos wait, for the tests of who asks. Must not know: models.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;

use image::{DynamicImage, GenericImageView, ImageFormat};

use super::*;
use crate::face::{ALIGNED_SIDE, Landmarks, Point, Rect, TemplateSpace};
use crate::infer::{EngineFacts, Inference};

fn encoded(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).expect("an encodable picture");
    bytes.into_inner()
}

fn pixel(frame: &Frame, x: u32, y: u32) -> [u8; 3] {
    let at = y as usize * frame.format().planes[0].stride + x as usize * 3;
    frame.plane(0)[at..at + 3].try_into().expect("three bytes")
}

fn refusal(image: &[u8]) -> String {
    match decode::upright(image) {
        Err(PhotoError::BadImage(reason)) => reason,
        Err(other) => panic!("refused as {other:?}"),
        Ok(frame) => panic!("decoded as {frame:?}"),
    }
}

/// A PNG of one chunk: enough for a header, and no pixels at all.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend_from_slice(&width.to_be_bytes());
    header.extend_from_slice(&height.to_be_bytes());
    header.extend_from_slice(&[8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend_from_slice(&header);
    png.extend_from_slice(&crc32(&header).to_be_bytes());
    let data = b"IDAT";
    png.extend_from_slice(&[0, 0, 0, 0]);
    png.extend_from_slice(data);
    png.extend_from_slice(&crc32(data).to_be_bytes());
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes
        .iter()
        .fold(!0_u32, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |c, _| if c & 1 == 1 { (c >> 1) ^ 0xEDB8_8320 } else { c >> 1 }))
}

#[test]
fn a_picture_beyond_the_limits_is_refused_by_its_header_with_size_and_limit() {
    for (width, height) in [(30_000, 30_000), (16_385, 16), (7_072, 7_072)] {
        let reason = refusal(&png_header(width, height));
        for part in [format!("{width}x{height}"), "50 megapixels".into(), "16384 pixels".into()] {
            assert!(reason.contains(&part), "{reason}");
        }
    }
    // Not even one row of it would fit.
    assert!(refusal(&png_header(u32::MAX >> 1, u32::MAX >> 1)).contains("50 megapixels"));
    let mut pnm = b"P5\n30000 30000\n255\n".to_vec();
    pnm.resize(1000, 7);
    assert!(refusal(&pnm).contains("30000x30000"));
    let tiny = encoded(&DynamicImage::new_rgb8(15, 400), ImageFormat::Png);
    assert!(refusal(&tiny).contains("at least 16"), "{}", refusal(&tiny));
}

#[test]
fn what_is_no_picture_is_refused() {
    assert!(refusal(b"").contains("no JPEG"));
    assert!(refusal(b"<svg></svg>").contains("no JPEG"));
    assert!(refusal(&png_header(400, 400)).contains("cannot be decoded"));
    assert!(refusal(b"\xff\xd8\xff\xe0garbage").contains("cannot be decoded"));
}

#[test]
fn every_pixel_format_becomes_rgb() {
    let (width, height) = (20, 18);
    let rgba = DynamicImage::ImageRgba8(image::RgbaImage::from_fn(width, height, |x, _| image::Rgba([200, 100, x as u8, 255])));
    for picture in [
        DynamicImage::ImageLuma8(rgba.to_luma8()),
        DynamicImage::ImageLumaA8(rgba.to_luma_alpha8()),
        DynamicImage::ImageLuma16(rgba.to_luma16()),
        DynamicImage::ImageRgb8(rgba.to_rgb8()),
        rgba.clone(),
        DynamicImage::ImageRgb16(rgba.to_rgb16()),
        DynamicImage::ImageRgba16(rgba.to_rgba16()),
    ] {
        let frame = decode::upright(&encoded(&picture, ImageFormat::Png)).expect("a good picture");
        assert_eq!(frame.size(), Size { width, height });
        let wanted = picture.to_rgb8().get_pixel(7, 5).0;
        assert_eq!(pixel(&frame, 7, 5), wanted, "{:?}", picture.color());
    }
    let grey = DynamicImage::ImageLuma8(rgba.to_luma8());
    for format in [ImageFormat::Pnm, ImageFormat::Jpeg] {
        let frame = decode::upright(&encoded(&grey, format)).expect("a good picture");
        let [r, g, b] = pixel(&frame, 3, 3);
        assert!(r == g && g == b && r.abs_diff(grey.get_pixel(3, 3).0[0]) <= 2, "{format:?}");
    }
}

/// A JPEG with an EXIF segment that states `orientation`.
fn jpeg_turned(picture: &DynamicImage, orientation: u8) -> Vec<u8> {
    let plain = encoded(picture, ImageFormat::Jpeg);
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0]);
    let mut turned = plain[..2].to_vec();
    turned.extend_from_slice(&[0xff, 0xe1]);
    turned.extend_from_slice(&(exif.len() as u16 + 2).to_be_bytes());
    turned.extend_from_slice(&exif);
    turned.extend_from_slice(&plain[2..]);
    turned
}

#[test]
fn photos_are_turned_upright() {
    // Red above green, 64 wide and 32 high.
    let picture =
        DynamicImage::ImageRgb8(image::RgbImage::from_fn(64, 32, |_, y| image::Rgb(if y < 16 { [255, 0, 0] } else { [0, 255, 0] })));
    let is_red = |frame: &Frame, x, y| pixel(frame, x, y)[0] > 128;
    for (orientation, size, red, green) in [
        (1, (64, 32), (32, 4), (32, 28)),
        (3, (64, 32), (32, 28), (32, 4)),
        (6, (32, 64), (28, 32), (4, 32)),
        (8, (32, 64), (4, 32), (28, 32)),
    ] {
        let frame = decode::upright(&jpeg_turned(&picture, orientation)).expect("a good picture");
        assert_eq!((frame.size().width, frame.size().height), size, "orientation {orientation}");
        assert!(is_red(&frame, red.0, red.1) && !is_red(&frame, green.0, green.1), "orientation {orientation}");
    }
}

#[test]
fn a_border_is_taken_off_the_coordinates() {
    let detection = Detection {
        box_in_frame: Rect { x: 50.0, y: 40.0, width: 5.0, height: 6.0 },
        score: 0.9,
        landmarks: Landmarks([Point { x: 51.0, y: 42.0 }; 5]),
    };
    let within = without_border(detection, 40);
    assert_eq!(within.box_in_frame, Rect { x: 10.0, y: 0.0, width: 5.0, height: 6.0 });
    assert_eq!(within.landmarks.0[4], Point { x: 11.0, y: 2.0 });
}

#[test]
fn a_jpeg_that_is_cut_is_refused_and_one_with_something_behind_it_is_not() {
    let picture = DynamicImage::ImageRgb8(image::RgbImage::from_fn(200, 150, |x, y| image::Rgb([x as u8, y as u8, (x * y) as u8])));
    let whole = encoded(&picture, ImageFormat::Jpeg);
    for kept in [whole.len() - 2, whole.len() * 3 / 4, whole.len() / 2] {
        assert!(refusal(&whole[..kept]).contains("cut"), "{kept} of {} bytes", whole.len());
    }
    let with_film: Vec<u8> = whole.iter().copied().chain(*b"film \xff\xda").collect();
    assert!(decode::upright(&with_film).is_ok());
}

/// A session that finds nobody, and not before it is let go.
struct Held(mpsc::Receiver<()>);

impl Inference for Held {
    fn detect(&mut self, requests: &[DetectRequest], _: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        // Whoever holds it has gone once it need not wait any more.
        let _ = self.0.recv();
        Ok(vec![Vec::new(); requests.len()])
    }

    fn encode(&mut self, _: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        Ok(Vec::new())
    }
}

type Examination<'a> = Pin<Box<dyn Future<Output = Result<Photo, PhotoError>> + 'a>>;

/// What there is to say of a photo by now.
async fn by_now(examination: &mut Examination<'_>) -> Option<Result<Photo, PhotoError>> {
    poll_fn(|context| match examination.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// An analyst, and what its session is held by until that is dropped.
fn held_analyst() -> (PhotoAnalyst, mpsc::SyncSender<()>) {
    let (hold, held) = mpsc::sync_channel(1);
    let engine = Engine::of_sessions(vec![Held(held)], EngineFacts::made_up(TemplateSpace::new("s")));
    (PhotoAnalyst::new(engine.expect("a thread can be had")), hold)
}

/// An analyst with which as many photos are looked at and wait as may, until what comes with it is dropped.
pub(crate) fn crowded() -> (PhotoAnalyst, impl Sized) {
    let (photos, _) = held_analyst();
    let places = Arc::clone(&photos.places).try_acquire_many_owned(EXAMINED_MAX as u32).expect("all are free");
    let waiting = Arc::clone(&photos.waiting).try_acquire_many_owned(WAITING_MAX as u32).expect("nobody waits");
    (photos, (places, waiting))
}

#[tokio::test]
async fn sixteen_photos_wait_one_more_is_refused_as_busy_and_whoever_is_patient_waits_all_the_same() {
    // What is declared last is dropped first: a failed assertion lets the session go before its engine ends.
    let (photos, hold) = held_analyst();
    let image = encoded(&DynamicImage::new_rgb8(32, 32), ImageFormat::Png);
    // All clones share the places, those that score liveness, too.
    let (scoring, patient) = (photos.clone().with_live_scores(), photos.clone().patient());
    let mut waiting: Vec<Examination> = Vec::new();
    for number in 0..EXAMINED_MAX + 16 {
        waiting.push(Box::pin(if number % 2 == 0 { &photos } else { &scoring }.examine(&image)));
        assert!(by_now(&mut waiting[number]).await.is_none(), "photo {number} waits");
    }
    for analyst in [&photos, &scoring] {
        let refused = by_now(&mut (Box::pin(analyst.examine(&image)) as Examination)).await;
        assert!(matches!(refused, Some(Err(PhotoError::Infer(InferError::Busy)))), "too many wait: {:?}", refused.map(|r| r.err()));
    }
    let mut of_folder: Vec<Examination> = (0..3).map(|_| Box::pin(patient.examine(&image)) as Examination).collect();
    for examination in &mut of_folder {
        assert!(by_now(examination).await.is_none(), "it waits");
    }
    // Whoever gives up makes room for another.
    waiting.pop();
    waiting.push(Box::pin(photos.examine(&image)));
    assert!(by_now(&mut waiting[EXAMINED_MAX + 15]).await.is_none(), "there is room again");

    drop(hold);
    for examination in waiting.into_iter().chain(of_folder) {
        assert!(examination.await.expect("it is looked at").faces.is_empty());
    }
    assert!(photos.examine(&image).await.is_ok(), "nobody waits any more");
}

/// Makes of a face a template that points where its first pixel says, of so many at once and no more.
struct Counted(usize);

impl Inference for Counted {
    fn detect(&mut self, requests: &[DetectRequest], _: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        Ok(vec![Vec::new(); requests.len()])
    }

    fn encode(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        assert!(faces.len() <= self.0, "{} faces at once", faces.len());
        let template = |face: &AlignedFace| Template::normalised(TemplateSpace::new("s"), &[f32::from(face.rgb()[0]), 1.0]);
        faces.iter().map(|face| template(face).map_err(|error| InferError::Session(error.to_string()))).collect()
    }
}

#[tokio::test]
async fn a_crowd_keeps_a_session_for_a_few_faces_at_a_time_and_each_has_its_own_template() {
    let facts = EngineFacts::made_up(TemplateSpace::new("s"));
    let photos = PhotoAnalyst::new(Engine::of_sessions(vec![Counted(FACES_AT_ONCE)], facts).expect("a thread"));
    let face = |level: u8| AlignedFace::new(Box::new([level; ALIGNED_SIDE * ALIGNED_SIDE * 3]));
    let templates = photos.encode((1..=20).map(face).collect()).await.expect("encoded");
    let levels: Vec<f32> = templates.iter().map(|template| (template.values()[0] / template.values()[1]).round()).collect();
    assert_eq!(levels, (1..=20_u8).map(f32::from).collect::<Vec<_>>());
    assert!(photos.encode(Vec::new()).await.expect("nothing to do").is_empty());
}

/// A session that finds one face in each picture, and not before it is let go.
struct OneFace(mpsc::Receiver<()>);

impl Inference for OneFace {
    fn detect(&mut self, requests: &[DetectRequest], _: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        let _ = self.0.recv();
        let box_in_frame = Rect { x: 4.0, y: 4.0, width: 24.0, height: 24.0 };
        let found = Detection { box_in_frame, landmarks: Landmarks([Point { x: 16.0, y: 16.0 }; 5]), score: 0.9 };
        Ok(vec![vec![found]; requests.len()])
    }

    fn encode(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        Counted(FACES_AT_ONCE).encode(faces)
    }
}

#[tokio::test]
async fn a_photo_that_was_looked_at_is_encoded_however_many_wait_to_be_looked_at() {
    let (hold, held) = mpsc::sync_channel(1);
    let engine = Engine::of_sessions(vec![OneFace(held)], EngineFacts::made_up(TemplateSpace::new("s")));
    let photos = PhotoAnalyst::new(engine.expect("a thread can be had"));
    let image: Arc<[u8]> = encoded(&DynamicImage::new_rgb8(32, 32), ImageFormat::Png).into();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..EXAMINED_MAX + WAITING_MAX {
        let (photos, image) = (photos.clone(), Arc::clone(&image));
        asked.spawn(async move { photos.only_template(&image).await.map(|_| ()) });
    }
    while photos.waiting.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    drop(hold);
    while let Some(answer) = asked.join_next().await {
        answer.expect("no panic").expect("it is one of those that may wait");
    }
}
