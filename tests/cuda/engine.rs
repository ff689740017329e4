//! The engine of a device, as the pipeline and enrolment use it: frames come there once and stay there.
//!
//! In: frames of noise in which the stand-ins for models see one face each. Out: what the host's path gives, to the bit.
//! Must not know: models.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use doorward::config::{InferConfig, MirrorChoice};
use doorward::face::{AlignedFace, Detection, Photometry, Template};
use doorward::frame::{Frame, PixelFormat, PixelLayout, Size};
use doorward::infer::cuda::{CudaError, DeviceSession, Gpu, Graphs, Plan, Worker};
use doorward::infer::{CutFace, DetectRequest, Engine, EngineFacts, FaceOnDevice, InferError, Inference, Lane, align};
use doorward::quality;

use crate::driver::{StandIn, image, over_the_stand_in};
use crate::flow::{Decoder, manifest, noise, open};
use crate::graphs::{DIMENSION, detector_bytes, expected, fails, fails_once, graphs};

const SIZE: (usize, usize) = (641, 359);
/// The bytes of the sums over the rows of one face.
const SUMS_BYTES: usize = 80 * 4 * 8;
/// How far measures may be from the host's, in parts: sums are rounded in another order.
const PARTS_MAX: f32 = 1e-6;

pub fn facts(mirror: MirrorChoice) -> EngineFacts {
    let said = || "over the stand-in".to_owned();
    EngineFacts {
        device: said(),
        device_reason: said(),
        device_facts: Vec::new(),
        provider: said(),
        precision: said(),
        precision_reason: said(),
        mirror,
        sessions: 1,
        runtime_version: said(),
        dimension: 0,
        space: manifest().space(),
        threshold: 0.363,
        calibration: None,
        models: Vec::new(),
    }
}

pub fn opened(stand_in: &'static StandIn) -> Result<Worker, CudaError> {
    let gpu = Gpu::open(0)?;
    open(&gpu, &image(&gpu), stand_in)
}

/// The same; where there are words, each of its graphs fails once with them.
fn opened_failing(stand_in: &'static StandIn, words: Option<&'static str>) -> Result<Worker, CudaError> {
    opened_over(stand_in, |graphs| match words {
        Some(words) => fails_once(graphs, words),
        None => graphs,
    })
}

/// A worker over what is made of its graphs.
pub fn opened_over(stand_in: &'static StandIn, made: impl FnOnce(Graphs) -> Graphs) -> Result<Worker, CudaError> {
    let gpu = Gpu::open(0)?;
    let (manifest, config) = (manifest(), InferConfig::default());
    let plan = Plan { gpu: &gpu, image: &image(&gpu), manifest: &manifest, config: &config, frames_max: 4 };
    Worker::open(&plan, |_| Ok(made(graphs(stand_in, &manifest.encoder.output))))
}

fn engine(stand_in: &'static StandIn, mirror: MirrorChoice) -> Engine {
    let session = DeviceSession::new(Box::new(move || opened(stand_in))).unwrap();
    Engine::of_device_sessions(vec![session], facts(mirror), 4).unwrap()
}

pub fn request(frame: &Frame) -> DetectRequest {
    DetectRequest { frame: frame.clone(), detector_side: Some(320), region_of_interest: None, score_min: None, face_pixels_min: 0 }
}

/// A frame of a decoder on the device.
pub fn decoded(decoder: &Decoder, like: &Frame) -> Frame {
    let surface = decoder.decode();
    Frame::on_device(like.camera.clone(), like.capture_time, *surface.format(), surface.pixels().clone()).unwrap()
}

pub fn on_device(frames: &[Frame], found: &[Vec<Detection>]) -> Vec<FaceOnDevice> {
    let of = |(frame, faces): (&Frame, &Vec<Detection>)| FaceOnDevice {
        frame: frame.clone(),
        landmarks: faces[0].landmarks,
        is_mirrored: false,
    };
    frames.iter().zip(found).map(of).collect()
}

pub fn is_near(found: &Photometry, expected: &Photometry) -> bool {
    let pairs = [(found.sharpness, expected.sharpness), (found.brightness, expected.brightness), (found.contrast, expected.contrast)];
    pairs.iter().all(|(found, expected)| (found - expected).abs() <= expected.abs() * PARTS_MAX)
}

#[test]
fn frames_go_to_the_device_once_and_what_comes_back_is_what_the_host_finds() {
    const NAME: &str = "engine::frames_go_to_the_device_once_and_what_comes_back_is_what_the_host_finds";
    over_the_stand_in(NAME, &[], |stand_in| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(analyse(stand_in))).join().unwrap());
        drop(runtime);
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

async fn analyse(stand_in: &'static StandIn) {
    let host = [noise(7, SIZE, PixelLayout::Nv12), noise(8, SIZE, PixelLayout::I420), noise(9, SIZE, PixelLayout::Nv12)];
    let engine = engine(stand_in, MirrorChoice::Off);
    let gpu = Gpu::open(0).unwrap();
    let decoder = Decoder::new(&gpu, stand_in, host[2].clone()).unwrap();
    stand_in.fail(None, 0, 0);
    let frames = engine.place(vec![host[0].clone(), host[1].clone(), decoded(&decoder, &host[2])]).await.unwrap();
    assert!(frames.iter().all(|frame| frame.device_pixels().is_some()));
    let up = stand_in.bytes_up();
    assert!(engine.place(frames.clone()).await.unwrap().len() == 3 && stand_in.bytes_up() == up, "what is there stays");

    let found = engine.detect(Lane::Live, frames.iter().map(request).collect()).await.unwrap();
    assert!(found.iter().all(|faces| faces.len() == 1), "{found:?}");
    let faces = on_device(&frames, &found);
    let crops: Vec<AlignedFace> = host.iter().zip(&found).map(|(frame, faces)| align(frame, &faces[0].landmarks)).collect();
    let measured = engine.measure(Lane::Live, faces.clone()).await.unwrap();
    for (found, crop) in measured.iter().zip(&crops) {
        let expected = quality::photometry(crop);
        assert!(is_near(found, &expected), "{found:?} and {expected:?}");
    }
    let space = manifest().space();
    let templates = engine.encode(Lane::Live, faces.into_iter().map(CutFace::Device).collect()).await.unwrap();
    assert_eq!(templates, crops.iter().map(|crop| expected(crop, &space)).collect::<Vec<Template>>());
    let answers = detector_bytes(3, (320, 192)) + 3 * DIMENSION * size_of::<f32>() + 3 * SUMS_BYTES;
    assert_eq!(stand_in.bytes_down(), answers as u64, "no pixel comes back");

    // What people look at is copied: an upload from where it went through, without the device.
    let copied = frames[1].copied().unwrap();
    assert!(copied.device_pixels().is_none() && copied.plane(0)[..SIZE.0] == host[1].plane(0)[..SIZE.0]);
    assert!(frames[2].copied().is_err(), "this decoder gives nothing");
    drop(frames);
    assert_eq!(decoder.returned.load(Ordering::Relaxed), 1, "the decoder has its surface back");
    photos(&engine, &space).await;
}

/// Photos are letterboxed and cut out on the host.
async fn photos(engine: &Engine, space: &doorward::face::TemplateSpace) {
    let size = Size { width: 301, height: 203 };
    let bytes: Vec<u8> = (0..size.width as usize * size.height as usize * 3).map(|at| (at * 31 % 251) as u8).collect();
    let like = noise(1, SIZE, PixelLayout::Nv12);
    let photo = Frame::new(like.camera.clone(), like.capture_time, PixelFormat::rgb8(size), Arc::new(bytes)).unwrap();
    let found = engine.detect(Lane::Photo, vec![request(&photo)]).await.unwrap();
    let crop = align(&photo, &found[0][0].landmarks);
    let templates = engine.encode(Lane::Photo, vec![crop.clone()]).await.unwrap();
    assert_eq!(templates, [expected(&crop, space)]);
}

#[test]
fn what_one_session_has_uploaded_is_whole_for_any_other() {
    over_the_stand_in("engine::what_one_session_has_uploaded_is_whole_for_any_other", &[], |stand_in| {
        let session = || DeviceSession::new(Box::new(move || opened(stand_in))).unwrap();
        let (mut one, mut other) = (session(), session());
        let host = noise(7, SIZE, PixelLayout::I420);
        // The same memory again and again: what an earlier picture left there must not be seen.
        for seed in [8, 9, 7] {
            let host = noise(seed, SIZE, PixelLayout::I420);
            let frames = one.place(vec![host]).unwrap();
            assert_eq!(frames.len(), 1);
        }
        let frames = one.place(vec![host.clone()]).unwrap();
        assert_eq!(stand_in.queued(), 0, "nothing is on its way any more");
        let found = other.detect(&[request(&frames[0])], Lane::Live).unwrap();
        let crop = align(&host, &found[0][0].landmarks);
        assert_eq!(other.encode_on_device(&on_device(&frames, &found)).unwrap(), [expected(&crop, &manifest().space())]);
    });
}

#[test]
fn mirror_images_are_taken_in_on_the_device_too() {
    over_the_stand_in("engine::mirror_images_are_taken_in_on_the_device_too", &[], |stand_in| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let host = noise(7, SIZE, PixelLayout::I420);
            let engine = engine(stand_in, MirrorChoice::All);
            let frames = engine.place(vec![host.clone()]).await.unwrap();
            let found = engine.detect(Lane::Live, frames.iter().map(request).collect()).await.unwrap();
            let crop = align(&host, &found[0][0].landmarks);
            let faces = on_device(&frames, &found).into_iter().map(CutFace::Device).collect();
            let space = manifest().space();
            let both = expected(&crop, &space).mean(&expected(&crop.mirrored(), &space)).unwrap();
            assert_eq!(engine.encode(Lane::Live, faces).await.unwrap(), [both]);
        });
    });
}

#[test]
fn a_device_that_failed_is_opened_anew_and_the_next_batch_goes_through() {
    over_the_stand_in("engine::a_device_that_failed_is_opened_anew_and_the_next_batch_goes_through", &[], |stand_in| {
        let opens = Arc::new(AtomicUsize::new(0));
        let counted = opens.clone();
        let session = DeviceSession::new(Box::new(move || {
            let is_first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            opened_failing(stand_in, is_first.then_some("it is not ready"))
        }));
        let engine = Engine::of_device_sessions(vec![session.unwrap()], facts(MirrorChoice::Off), 4).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let frames = engine.place(vec![noise(7, SIZE, PixelLayout::I420)]).await.unwrap();
            let failed = engine.detect(Lane::Live, frames.iter().map(request).collect()).await;
            assert!(matches!(&failed, Err(InferError::Session(words)) if words.contains("not ready")), "{failed:?}");
            // Frames that are on the device outlive the worker that brought them there.
            let found = engine.detect(Lane::Live, frames.iter().map(request).collect()).await.unwrap();
            assert_eq!((found[0].len(), opens.load(Ordering::Relaxed)), (1, 2));
            let condition = engine.condition().borrow().clone();
            assert!(condition.failures == 1 && condition.reason.contains("not ready") && condition.does_all, "{condition:?}");
        });
    });
}

#[test]
fn a_device_that_cannot_be_opened_anew_ends_the_engine_with_the_reason() {
    over_the_stand_in("engine::a_device_that_cannot_be_opened_anew_ends_the_engine_with_the_reason", &[], |stand_in| {
        let mut is_first = true;
        let session = DeviceSession::new(Box::new(move || {
            if std::mem::take(&mut is_first) { opened_failing(stand_in, Some("it is not ready")) } else { Err(CudaError::NoDriver) }
        }));
        let session = session.unwrap().with_tries_apart(std::time::Duration::ZERO);
        let engine = Engine::of_device_sessions(vec![session], facts(MirrorChoice::Off), 4).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let frames = engine.place(vec![noise(7, SIZE, PixelLayout::I420)]).await.unwrap();
            let ask = || engine.detect(Lane::Live, frames.iter().map(request).collect());
            // Each batch tries once more, for a while.
            for _ in 0..8 {
                assert!(ask().await.is_err());
            }
            let reason = tokio::time::timeout(std::time::Duration::from_secs(30), engine.failed()).await.unwrap();
            assert!(reason.contains("cannot be opened anew") && reason.contains("no NVIDIA driver"), "{reason}");
        });
    });
}

#[test]
fn a_device_whose_engines_are_being_built_is_waited_for_however_long_that_takes() {
    over_the_stand_in("engine::a_device_whose_engines_are_being_built_is_waited_for_however_long_that_takes", &[], |stand_in| {
        let mut opens = 0;
        let session = DeviceSession::new(Box::new(move || {
            opens += 1;
            match opens {
                1 => opened_failing(stand_in, Some("it is not ready")),
                2..20 => Err(CudaError::EnginesHeld("engines are being built".into())),
                _ => opened_failing(stand_in, None),
            }
        }));
        let mut session = session.unwrap().with_tries_apart(std::time::Duration::ZERO);
        let frames = session.place(vec![noise(7, SIZE, PixelLayout::I420)]).unwrap();
        let refusals = (0..).take_while(|_| session.detect(&[request(&frames[0])], Lane::Live).is_err()).count();
        assert_eq!(refusals, 19, "the failure and those that met whoever built");
    });
}

#[test]
fn a_device_that_is_lost_is_opened_anew_at_once_also_where_it_did_its_work_a_moment_ago() {
    const NAME: &str = "engine::a_device_that_is_lost_is_opened_anew_at_once_also_where_it_did_its_work_a_moment_ago";
    over_the_stand_in(NAME, &[], |stand_in| {
        let opens = Arc::new(AtomicUsize::new(0));
        let counted = opens.clone();
        let session = DeviceSession::new(Box::new(move || {
            let is_first = counted.fetch_add(1, Ordering::Relaxed) == 0;
            opened_failing(stand_in, is_first.then_some("it is not ready"))
        }));
        let mut session = session.unwrap().with_tries_apart(std::time::Duration::from_secs(3600));
        let frames = session.place(vec![noise(7, SIZE, PixelLayout::I420)]).unwrap();
        let mut look = || session.detect(&[request(&frames[0])], Lane::Live);
        assert!(look().is_err() && look().is_ok(), "it is not ready once");
        stand_in.lose(1, 719);
        assert!(look().is_err());
        stand_in.fail(None, 0, 0);
        assert!(look().is_ok(), "it does not wait for an hour");
        assert_eq!(opens.load(Ordering::Relaxed), 3, "at the start, and after each failure");
    });
}

#[test]
fn a_device_that_takes_frames_and_always_fails_at_what_is_asked_of_them_ends_the_engine() {
    const NAME: &str = "engine::a_device_that_takes_frames_and_always_fails_at_what_is_asked_of_them_ends_the_engine";
    over_the_stand_in(NAME, &[], |stand_in| {
        let session = DeviceSession::new(Box::new(move || opened_failing(stand_in, Some("an illegal address")))).unwrap();
        let mut session = session.with_tries_apart(std::time::Duration::ZERO);
        let tries = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..5 {
                // It takes the frame, and that is no sign that it is well.
                let frames = session.place(vec![noise(7, SIZE, PixelLayout::I420)]).unwrap();
                assert!(session.detect(&[request(&frames[0])], Lane::Live).is_err());
            }
        }));
        let words = *tries.unwrap_err().downcast::<String>().unwrap();
        assert!(words.contains("fails at its work") && words.contains("an illegal address"), "{words}");
    });
}

#[test]
fn a_graph_that_finds_no_memory_has_it_given_back_and_the_device_stays_open() {
    over_the_stand_in("engine::a_graph_that_finds_no_memory_has_it_given_back_and_the_device_stays_open", &[], |stand_in| {
        // As the CUDA provider and the runtime's arena say it.
        for words in [
            "CUDA failure 2: out of memory ; GPU=0 ; expr=cudaMalloc((void**)&p, size);",
            "Failed to allocate memory for requested buffer of size 1048576",
            "Available memory of 0 is smaller than requested bytes of 1048576",
            "cuMemAlloc found no room for 5160960 bytes; lower the batch size",
        ] {
            let opens = Arc::new(AtomicUsize::new(0));
            let counted = opens.clone();
            let mut session = DeviceSession::new(Box::new(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                opened_failing(stand_in, Some(words))
            }))
            .unwrap();
            let frames = session.place(vec![noise(7, SIZE, PixelLayout::I420), noise(8, SIZE, PixelLayout::I420)]).unwrap();
            // One picture's memory is held by nobody any more.
            let requests = [request(&frames[0])];
            drop(frames);
            let held = stand_in.held();
            let error = session.detect(&requests, Lane::Live).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert!(stand_in.held() < held, "memory that nobody needs is given back: {} after {held}", stand_in.held());
            let found = session.detect(&requests, Lane::Live).unwrap();
            assert_eq!((found[0].len(), opens.load(Ordering::Relaxed)), (1, 1), "the next batch goes through on the same worker");
        }
    });
}

#[test]
fn a_device_that_has_no_room_for_anything_ends_the_engine_after_a_while_and_one_that_has_it_again_does_not() {
    const NAME: &str = "engine::a_device_that_has_no_room_for_anything_ends_the_engine_after_a_while_and_one_that_has_it_again_does_not";
    const WORDS: &str = "CUDA failure 2: out of memory";
    over_the_stand_in(NAME, &[], |stand_in| {
        let session = |times, wanting_max| {
            let open = move || opened_over(stand_in, |graphs| fails(graphs, WORDS, times));
            DeviceSession::new(Box::new(open)).unwrap().with_wanting_max(wanting_max)
        };
        let (none, an_hour) = (std::time::Duration::ZERO, std::time::Duration::from_secs(3600));
        let looks = |session: &mut DeviceSession| {
            let frames = session.place(vec![noise(7, SIZE, PixelLayout::I420)]).unwrap();
            session.detect(&[request(&frames[0])], Lane::Live).is_ok()
        };
        let mut wanting = session(usize::MAX, none);
        for _ in 0..5 {
            assert!(!looks(&mut wanting), "it is no reason to end at once");
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| looks(&mut wanting)));
        let words = *ended.unwrap_err().downcast::<String>().unwrap();
        assert!(words.contains("no room for its work for") && words.contains(WORDS), "{words}");
        let mut soon = session(usize::MAX, an_hour);
        assert!((0..20).all(|_| !looks(&mut soon)), "the hour has not passed");
        let mut again = session(4, none);
        assert_eq!([(); 8].map(|()| looks(&mut again)), [false, false, false, false, true, true, true, true]);
        let mut beside = DeviceSession::of_one_engine(vec![session(20, none), session(0, none)]);
        for _ in 0..20 {
            assert!(!looks(&mut beside[0]) && looks(&mut beside[1]), "another session does the work");
        }
    });
}

#[test]
fn a_device_that_cannot_be_opened_is_tried_again_after_a_while_and_not_by_every_batch() {
    over_the_stand_in("engine::a_device_that_cannot_be_opened_is_tried_again_after_a_while_and_not_by_every_batch", &[], |stand_in| {
        let opens = Arc::new(AtomicUsize::new(0));
        let counted = opens.clone();
        let session = DeviceSession::new(Box::new(move || match counted.fetch_add(1, Ordering::Relaxed) {
            0 => opened_failing(stand_in, Some("it is not ready")),
            _ => Err(CudaError::NoDriver),
        }));
        let mut session = session.unwrap().with_tries_apart(std::time::Duration::from_secs(3600));
        let frames = session.place(vec![noise(7, SIZE, PixelLayout::I420)]).unwrap();
        for _ in 0..20 {
            assert!(session.detect(&[request(&frames[0])], Lane::Live).is_err());
        }
        assert_eq!(opens.load(Ordering::Relaxed), 2, "at the start, and once within the hour");
    });
}
