//! A camera whose pictures a device cannot take, in the same batches as a healthy one.
//!
//! In: frames of noise, some of them none that the kernels read. Out: an error that names what is wrong, and the healthy camera's faces.
//! Must not know: models.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use doorward::config::MirrorChoice;
use doorward::face::Detection;
use doorward::frame::{Frame, PixelFormat, PixelLayout, Size};
use doorward::infer::cuda::{DeviceSession, Gpu};
use doorward::infer::{CutFace, Engine, InferError, Lane, align};

use crate::driver::{StandIn, over_the_stand_in};
use crate::engine::{decoded, facts, on_device, opened, opened_over, request};
use crate::flow::{Decoder, manifest, noise};
use crate::graphs::{expected, fails_for};

const SIZE: (usize, usize) = (641, 359);
/// More batches than a device may fail at in a row.
const BATCHES: usize = 7;

/// An engine of one session, and how often its device was opened.
fn engine(stand_in: &'static StandIn) -> (Engine, Arc<AtomicUsize>) {
    let opens = Arc::new(AtomicUsize::new(0));
    let counted = opens.clone();
    let session = DeviceSession::new(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        opened(stand_in)
    }));
    (Engine::of_device_sessions(vec![session.unwrap()], facts(MirrorChoice::Off), 4).unwrap(), opens)
}

/// Runs over the stand-in, and holds that nothing is left behind and nothing was done that a driver would punish.
fn run<F: Future<Output = ()>>(test: &str, body: impl FnOnce(&'static StandIn) -> F) {
    over_the_stand_in(test, &[], |stand_in| {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(body(stand_in));
        drop(runtime);
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

/// Holds that each of these frames on the device, which show what those of the host do, gives the host's face and template.
async fn are_right(engine: &Engine, frames: &[Frame], host: &[Frame]) -> Vec<Vec<Detection>> {
    let found = engine.detect(Lane::Live, frames.iter().map(request).collect()).await.unwrap();
    assert!(found.iter().all(|faces| faces.len() == 1), "{found:?}");
    let faces = on_device(frames, &found);
    assert_eq!(engine.measure(Lane::Live, faces.clone()).await.unwrap().len(), frames.len());
    let templates = engine.encode(Lane::Live, faces.into_iter().map(CutFace::Device).collect()).await.unwrap();
    let space = manifest().space();
    let of_host = host.iter().zip(&found).map(|(frame, faces)| expected(&align(frame, &faces[0].landmarks), &space));
    assert_eq!(templates, of_host.collect::<Vec<_>>());
    found
}

/// Holds that an answer says which picture is none, and why.
fn is_named<T: std::fmt::Debug>(answer: Result<T, InferError>, parts: [&str; 2]) {
    let error = answer.unwrap_err();
    assert!(matches!(error, InferError::BadPicture(_)), "{error:?}");
    assert!(parts.iter().all(|part| error.to_string().contains(part)), "{parts:?}: {error}");
}

#[test]
fn a_picture_that_the_kernels_cannot_read_is_named_and_its_neighbours_go_through_without_it() {
    const NAME: &str = "neighbours::a_picture_that_the_kernels_cannot_read_is_named_and_its_neighbours_go_through_without_it";
    run(NAME, async |stand_in| {
        let (engine, opens) = engine(stand_in);
        let (host, other) = (noise(7, SIZE, PixelLayout::Nv12), noise(8, SIZE, PixelLayout::I420));
        let gpu = Gpu::open(0).unwrap();
        let decoders = [&host, &other].map(|frame| Decoder::new(&gpu, stand_in, frame.clone()).unwrap());
        let wrong = ["641x359 I420", "the kernels read NV12"];
        for _ in 0..BATCHES {
            let healthy = decoded(&decoders[0], &host);
            // A decoder that hands out another layout than was agreed on: its strides are right, so a frame can be made of it.
            let bad = Frame::on_device(other.camera.clone(), other.capture_time, *other.format(), decoders[1].pixels()).unwrap();
            let batch = engine.place(vec![healthy.clone(), bad.clone()]).await.unwrap();
            is_named(engine.detect(Lane::Live, batch.iter().map(request).collect()).await, wrong);
            is_named(engine.detect(Lane::Live, vec![request(&bad)]).await, wrong);
            let found = are_right(&engine, std::slice::from_ref(&healthy), std::slice::from_ref(&host)).await;

            let faces = on_device(&[healthy, bad], &[found[0].clone(), found[0].clone()]);
            is_named(engine.measure(Lane::Live, faces.clone()).await, wrong);
            is_named(engine.encode(Lane::Live, faces.into_iter().map(CutFace::Device).collect()).await, wrong);
        }
        assert_eq!(opens.load(Ordering::Relaxed), 1, "the device is not at fault, and stays open");
        assert!(decoders.iter().all(|decoder| decoder.returned.load(Ordering::Relaxed) == BATCHES), "each surface went back");
    });
}

/// An engine that fails for the picture that comes with it, and opens its device anew once an hour at most.
fn poisoned(stand_in: &'static StandIn) -> (Engine, Arc<AtomicUsize>, Frame) {
    let opens = Arc::new(AtomicUsize::new(0));
    let counted = opens.clone();
    let session = DeviceSession::new(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        // Of no other picture here is the detector's canvas as wide.
        opened_over(stand_in, |graphs| fails_for(graphs, 64))
    }));
    let session = session.unwrap().with_tries_apart(Duration::from_secs(3600));
    (Engine::of_device_sessions(vec![session], facts(MirrorChoice::Off), 4).unwrap(), opens, noise(8, (96, 640), PixelLayout::I420))
}

/// Holds that these frames fail at the device.
async fn fail(engine: &Engine, frames: &[Frame]) {
    let failed = engine.detect(Lane::Live, frames.iter().map(request).collect()).await;
    assert!(matches!(&failed, Err(InferError::Session(words)) if words.contains("an unlucky width")), "{failed:?}");
}

#[test]
fn a_camera_whose_pictures_fail_at_the_device_does_not_have_it_opened_anew_where_others_go_through() {
    const NAME: &str = "neighbours::a_camera_whose_pictures_fail_at_the_device_does_not_have_it_opened_anew_where_others_go_through";
    run(NAME, async |stand_in| {
        let ((engine, opens, poison), healthy) = (poisoned(stand_in), noise(7, SIZE, PixelLayout::I420));
        let host = std::slice::from_ref(&healthy);
        are_right(&engine, &engine.place(host.to_vec()).await.unwrap(), host).await;
        for _ in 0..BATCHES {
            // As the pipeline asks: together, and then each by itself.
            let batch = engine.place(vec![poison.clone(), healthy.clone()]).await.unwrap();
            fail(&engine, &batch).await;
            fail(&engine, &batch[..1]).await;
            are_right(&engine, &batch[1..], host).await;
        }
        let alone = engine.place(vec![poison]).await.unwrap();
        for _ in 0..BATCHES {
            // More often in a row than a device may fail.
            fail(&engine, &alone).await;
        }
        are_right(&engine, &engine.place(host.to_vec()).await.unwrap(), host).await;
        assert_eq!(opens.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn pictures_that_all_fail_at_the_device_have_it_opened_anew_once_in_a_while() {
    run("neighbours::pictures_that_all_fail_at_the_device_have_it_opened_anew_once_in_a_while", async |stand_in| {
        let ((engine, opens, poison), healthy) = (poisoned(stand_in), noise(7, SIZE, PixelLayout::I420));
        let alone = engine.place(vec![poison]).await.unwrap();
        for _ in 0..BATCHES {
            fail(&engine, &alone).await;
        }
        assert_eq!(opens.load(Ordering::Relaxed), 2, "at the start, and once within the hour");
        let host = std::slice::from_ref(&healthy);
        are_right(&engine, &engine.place(host.to_vec()).await.unwrap(), host).await;
    });
}

#[test]
fn strides_that_lie_make_no_frame_and_what_lies_on_the_host_is_not_measured_on_the_device() {
    const NAME: &str = "neighbours::strides_that_lie_make_no_frame_and_what_lies_on_the_host_is_not_measured_on_the_device";
    run(NAME, async |stand_in| {
        let (engine, opens) = engine(stand_in);
        let host = noise(7, SIZE, PixelLayout::Nv12);
        let gpu = Gpu::open(0).unwrap();
        let decoder = Decoder::new(&gpu, stand_in, host.clone()).unwrap();
        for plane in [0, 1] {
            let mut shorter = *host.format();
            shorter.planes[plane].stride = 640;
            let mut beyond = *host.format();
            beyond.planes[plane].offset += 1 << 20;
            for format in [shorter, beyond] {
                let frame = Frame::on_device(host.camera.clone(), host.capture_time, format, decoder.pixels());
                let error = frame.map(|_| ()).unwrap_err().to_string();
                assert!(error.contains("641x359 Nv12") && error.contains("strides"), "{error}");
            }
        }
        let frames = [decoded(&decoder, &host)];
        let found = are_right(&engine, &frames, std::slice::from_ref(&host)).await;
        let faces = on_device(&[frames[0].clone(), host.clone()], &[found[0].clone(), found[0].clone()]);
        is_named(engine.measure(Lane::Live, faces).await, ["641x359 Nv12", "it is in the host's memory"]);
        are_right(&engine, &frames, std::slice::from_ref(&host)).await;
        assert_eq!(opens.load(Ordering::Relaxed), 1, "the device is not at fault, and stays open");
    });
}

#[test]
fn a_picture_that_cannot_be_uploaded_is_named_and_its_batch_can_be_looked_at_from_the_host() {
    const NAME: &str = "neighbours::a_picture_that_cannot_be_uploaded_is_named_and_its_batch_can_be_looked_at_from_the_host";
    run(NAME, async |stand_in| {
        let (engine, opens) = engine(stand_in);
        let host = noise(7, SIZE, PixelLayout::I420);
        let bytes: Vec<u8> = (0..301 * 203 * 3).map(|at| (at * 31 % 251) as u8).collect();
        let format = PixelFormat::rgb8(Size { width: 301, height: 203 });
        let rgb = Frame::new(host.camera.clone(), host.capture_time, format, Arc::new(bytes)).unwrap();
        let batch = [host.clone(), rgb];
        for _ in 0..BATCHES {
            is_named(engine.place(batch.to_vec()).await, ["301x203 Rgb8", "photos are analysed on the host"]);
            // As the pipeline does with a batch that cannot be brought to the device.
            let found = engine.detect(Lane::Live, batch.iter().map(request).collect()).await.unwrap();
            let crops: Vec<_> = batch.iter().zip(&found).map(|(frame, faces)| align(frame, &faces[0].landmarks)).collect();
            let space = manifest().space();
            assert_eq!(engine.encode(Lane::Live, crops.clone()).await.unwrap(), [expected(&crops[0], &space), expected(&crops[1], &space)]);
            let placed = engine.place(vec![host.clone()]).await.unwrap();
            are_right(&engine, &placed, std::slice::from_ref(&host)).await;
        }
        assert_eq!(opens.load(Ordering::Relaxed), 1, "the device is not at fault, and stays open");
    });
}

#[test]
fn a_camera_that_changes_its_resolution_is_right_before_and_after_and_so_is_its_neighbour() {
    const NAME: &str = "neighbours::a_camera_that_changes_its_resolution_is_right_before_and_after_and_so_is_its_neighbour";
    run(NAME, async |stand_in| {
        let (engine, opens) = engine(stand_in);
        let healthy = noise(1, SIZE, PixelLayout::I420);
        // The same canvas, another canvas, fewer bytes than the memory that the upload before had, more.
        let sizes = [(640, 360), (640, 480), (320, 180), (1282, 722), (320, 180), (96, 640)];
        let changing: Vec<Frame> = (2..).zip(sizes).map(|(seed, size)| noise(seed, size, PixelLayout::Nv12)).collect();
        for pair in changing.windows(2) {
            // Of a batch that holds frames of both sizes, and of the next one, in which the old size is gone.
            let host = [pair[0].clone(), healthy.clone(), pair[1].clone()];
            let frames = engine.place(host.to_vec()).await.unwrap();
            let found = are_right(&engine, &frames, &host).await;
            let (old, after) = (frames[0].clone(), engine.place(host[1..].to_vec()).await.unwrap());
            drop(frames);
            are_right(&engine, &after, &host[1..]).await;
            // A face of the old size that is encoded late.
            let late = on_device(&[old], &found[..1]).into_iter().map(CutFace::Device).collect();
            let template = expected(&align(&host[0], &found[0][0].landmarks), &manifest().space());
            assert_eq!(engine.encode(Lane::Live, late).await.unwrap(), [template]);
        }
        assert_eq!(opens.load(Ordering::Relaxed), 1);
    });
}
