//! A camera that is decoded on the device: a real RTSP server, GStreamer's own elements for CUDA, and a decoder that knows
//! the clips' pictures by heart.
//!
//! In: clips made here. Out: assertions on frames, states, and counts of the stand-in.
//! Prints what is left out where a resource is missing.
//! Must not know: how ingest works.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use clap::Parser;
use doorward::camera::{CameraId, CameraState, Decoding, OfflineReason, Skipped, Transport};
use doorward::clock::{SimulatedClock, SystemClock, Timestamp};
use doorward::frame::{Frame, PixelLayout};
use doorward::infer::cuda::{Gpu, Surface};
use doorward::ingest::{self, Decode, FrameSink, Sinks, SourceSettings, StateSink};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use image::{Rgb, RgbImage};
use tokio_util::sync::CancellationToken;

use crate::clip::{ClipSettings, can_encode_h265, encode};
use crate::driver::{StandIn, over_the_stand_in};
use crate::faces;
use crate::recognise::{FOUND_ON_HOST, Row, assert_alike, found_in, found_on_host, open};
use crate::rtsp_server::{TestCamera, serve};

const SOON: Duration = Duration::from_secs(30);
const SIZE: (u32, u32) = (322, 242);
/// Where the process that runs over the stand-in finds the clip of faces.
const CLIP: &str = "DOORWARD_CLIP_OF_FACES";

/// What came of a camera.
#[derive(Default)]
pub struct Seen {
    pub frames: Vec<Frame>,
    pub states: Vec<CameraState>,
    /// Frames that came, kept or not.
    pub offered: usize,
    pub refused: usize,
    pub damaged: usize,
}

impl Seen {
    /// Why it was offline, the first time that it was.
    pub fn offline(&self) -> Option<(OfflineReason, &str)> {
        self.states.iter().find_map(|state| match state {
            CameraState::Offline { reason, message, .. } => Some((*reason, message.as_str())),
            _ => None,
        })
    }

    /// What decoded it when it was last online.
    pub fn decoding(&self) -> Option<&Decoding> {
        self.states.iter().rev().find_map(|state| match state {
            CameraState::Online { decoding, .. } => Some(decoding),
            _ => None,
        })
    }
}

/// Keeps the first frames of a camera; later ones are let go of at once.
pub struct Taker {
    keeps: usize,
    seen: Mutex<Seen>,
    changed: Condvar,
}

impl Taker {
    pub fn new(keeps: usize) -> Self {
        Self { keeps, seen: Mutex::default(), changed: Condvar::new() }
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
        self.changed.notify_all();
    }

    pub fn wait(&self, what: &str, is_so: impl Fn(&Seen) -> bool) {
        let seen = self.seen.lock().unwrap();
        let (seen, timeout) = self.changed.wait_timeout_while(seen, SOON, |seen| !is_so(seen)).unwrap();
        assert!(!timeout.timed_out(), "{what}: {} frames, {} refused, {:?}", seen.offered, seen.refused, seen.states);
    }

    pub fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl FrameSink for Taker {
    fn offer(&self, frame: Frame) {
        self.change(|seen| {
            seen.offered += 1;
            if seen.frames.len() < self.keeps {
                seen.frames.push(frame);
            }
        });
    }

    fn refused(&self) {
        self.change(|seen| seen.refused += 1);
    }

    fn skipped(&self, why: Skipped) {
        self.change(|seen| seen.damaged += usize::from(why == Skipped::Damaged));
    }
}

impl StateSink for Taker {
    fn state(&self, _: &CameraId, state: CameraState) {
        self.change(|seen| seen.states.push(state));
    }
}

/// Serves a camera, in this process; answers how it is watched.
pub fn served(camera: TestCamera, decode: Decode) -> SourceSettings {
    let (told, url) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || serve(&camera, |url| told.send(url.to_owned()).unwrap()));
    let url = url.recv_timeout(SOON).unwrap().parse().unwrap();
    let camera = CameraId::parse("door").unwrap();
    SourceSettings { camera, url, credential: None, transport: Transport::Tcp, ca_file: None, decode }
}

/// A camera that is watched over the device, in this process.
pub struct Watched {
    pub taker: Arc<Taker>,
    cancel: CancellationToken,
    runtime: tokio::runtime::Runtime,
    task: tokio::task::JoinHandle<()>,
}

impl Watched {
    pub fn begin(files: &[PathBuf], decode: Decode, keeps: usize) -> Self {
        Self::begin_losing(0, files, decode, keeps)
    }

    /// The same, of a camera that loses something each time that so much has gone out.
    fn begin_losing(lose_every: u32, files: &[PathBuf], decode: Decode, keeps: usize) -> Self {
        let arguments =
            std::iter::once("test-camera".into()).chain(files.iter().flat_map(|file| ["--file".into(), file.clone().into_os_string()]));
        let camera = TestCamera { lose_every, ..TestCamera::parse_from::<_, std::ffi::OsString>(arguments) };
        let settings = served(camera, decode);
        let taker = Arc::new(Taker::new(keeps));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let cancel = CancellationToken::new();
        let sinks = Sinks { frames: taker.clone(), states: taker.clone() };
        let task = runtime.spawn(ingest::watch(settings, sinks, Arc::new(SystemClock::new()), cancel.clone()));
        Self { taker, cancel, runtime, task }
    }

    /// Ends the watching, and gives what was seen.
    pub fn end(self) -> Seen {
        self.cancel.cancel();
        self.runtime.block_on(self.task).unwrap();
        self.taker.take()
    }
}

/// The frames of a file, decoded by the processor.
pub fn by_cpu(file: &Path) -> Vec<Frame> {
    struct All(Mutex<Vec<Frame>>);
    impl FrameSink for All {
        fn offer(&self, frame: Frame) {
            self.0.lock().unwrap().push(frame.copied().unwrap());
        }

        fn refused(&self) {
            panic!("a clip of ours");
        }
    }
    let all = All(Mutex::default());
    ingest::replay(file, &CameraId::parse("file").unwrap(), &all, &SimulatedClock::at(Timestamp::default())).unwrap();
    all.0.into_inner().unwrap()
}

/// A frame's pixels as NV12, rows close to each other.
pub fn nv12(frame: &Frame) -> Vec<u8> {
    let (width, height) = (frame.size().width as usize, frame.size().height as usize);
    let row = |plane: usize, row: usize, bytes: usize| &frame.plane(plane)[row * frame.format().planes[plane].stride..][..bytes];
    let mut bytes: Vec<u8> = (0..height).flat_map(|at| row(0, at, width).to_vec()).collect();
    for at in 0..height.div_ceil(2) {
        match frame.format().layout {
            PixelLayout::Nv12 => bytes.extend(row(1, at, width)),
            _ => bytes.extend(row(1, at, width / 2).iter().zip(row(2, at, width / 2)).flat_map(|(u, v)| [*u, *v])),
        }
    }
    bytes
}

/// The access units of a clip.
fn units(file: &Path, is_h265: bool) -> Vec<Vec<u8>> {
    let codec = if is_h265 { "h265" } else { "h264" };
    let description = format!(
        "filesrc name=file ! qtdemux ! {codec}parse ! video/x-{codec},stream-format=byte-stream,alignment=au ! appsink name=units sync=false"
    );
    let pipeline = gst::parse::launch(&description).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.by_name("file").unwrap().set_property("location", file);
    let sink = pipeline.by_name("units").and_downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut units = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        units.push(sample.buffer().unwrap().map_readable().unwrap().to_vec());
    }
    pipeline.set_state(gst::State::Null).unwrap();
    units
}

/// Teaches the stand-in's decoder a clip of H.264; gives its pictures.
pub fn teach(stand_in: &StandIn, file: &Path) -> Vec<Frame> {
    teach_codec(stand_in, file, false)
}

fn teach_codec(stand_in: &StandIn, file: &Path, is_h265: bool) -> Vec<Frame> {
    ingest::init().unwrap();
    let (units, frames) = (units(file, is_h265), by_cpu(file));
    assert_eq!(units.len(), frames.len(), "a picture each");
    for (unit, frame) in units.iter().zip(&frames) {
        stand_in.teach((unit, is_h265), (frame.size().width, frame.size().height), &nv12(frame));
    }
    frames
}

/// A clip of 25 pictures that differ.
pub fn clip(folder: &Path, size: (u32, u32)) -> PathBuf {
    clip_of(folder, ClipSettings { size, fps: 25, is_h265: false })
}

/// The same of any kind.
pub fn clip_of(folder: &Path, settings: ClipSettings) -> PathBuf {
    let (width, height) = settings.size;
    let file = folder.join(format!("{width}x{height}.mp4"));
    let wave = |v: u32, number: u32| ((v * 3 + number * 7) % 160 + 40) as u8;
    let picture = |number| RgbImage::from_fn(width, height, |x, y| Rgb([wave(x, number), wave(y, number), wave(x + y, number)]));
    encode(&file, settings, (0..25).map(picture)).unwrap();
    file
}

/// Runs over the stand-in with a registry of GStreamer's own, since another one has been written without a device.
pub fn with_gstreamer(test: &str, variables: &[(&str, &Path)], body: impl FnOnce(&'static StandIn, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    let registry = folder.path().join("registry.bin");
    let variables: Vec<(&str, &Path)> = variables.iter().copied().chain([("GST_REGISTRY", registry.as_path())]).collect();
    over_the_stand_in(test, &variables, |stand_in| {
        let missing: Vec<_> = ingest::cuda_plugins().into_iter().filter(|fact| !fact.present).collect();
        if missing.is_empty() {
            body(stand_in, folder.path());
        } else {
            println!("LEFT OUT: {test}: {missing:?}");
        }
    });
}

/// Which of `pictures` a frame on the device shows.
pub fn which(frame: &Frame, pictures: &[Frame]) -> usize {
    assert!(frame.device_pixels().is_some() && frame.format().layout == PixelLayout::Nv12, "it is on the device");
    let pixels = nv12(&frame.copied().unwrap());
    let found = pictures.iter().position(|picture| picture.size() == frame.size() && nv12(picture) == pixels);
    found.expect("it shows a picture of the clip, to the byte")
}

#[test]
fn a_cameras_frames_are_the_decoders_surfaces_and_go_back_to_it() {
    with_gstreamer("decode::a_cameras_frames_are_the_decoders_surfaces_and_go_back_to_it", &[], |stand_in, folder| {
        let file = clip(folder, SIZE);
        let pictures = teach(stand_in, &file);
        let decode = Decode::on_cuda(0);
        let watched = Watched::begin(&[file], decode.clone(), 12);
        watched.taker.wait("a second of frames", |seen| seen.offered >= 25);
        let (allocations, down) = (stand_in.calls("cuMemAllocPitch"), stand_in.bytes_down());
        watched.taker.wait("another second", |seen| seen.offered >= 50);
        assert_eq!(stand_in.calls("cuMemAllocPitch"), allocations, "surfaces that are let go of are used again");
        assert_eq!((stand_in.bytes_up(), down), (0, 0), "no pixel travels");
        assert_eq!(stand_in.calls("cuCtxCreate"), 1, "the plugin looks at the device once; the camera works in the primary context");
        let seen = watched.end();
        assert!(seen.refused == 0 && seen.states.iter().all(|state| !matches!(state, CameraState::Offline { .. })), "{:?}", seen.states);
        let shown: Vec<usize> = seen.frames.iter().map(|frame| which(frame, &pictures)).collect();
        assert!(shown.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 25), "each is whole and in order: {shown:?}");
        assert_eq!(stand_in.unknown(), 0);
        stand_in.fail(Some("cuMemcpyDtoH"), 1, 700);
        assert!(seen.frames[0].copied().is_err_and(|error| error.to_string().contains("cuMemcpyDtoH")), "a picture for people may be lost");
        // Frames outlive their connection, and the context outlives them.
        drop(decode);
        assert!(stand_in.held() >= 12, "the frames are held: {}", stand_in.held());
        drop(seen);
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

#[test]
fn a_camera_that_changes_its_resolution_keeps_its_connection() {
    with_gstreamer("decode::a_camera_that_changes_its_resolution_keeps_its_connection", &[], |stand_in, folder| {
        let files = [clip(folder, SIZE), clip(folder, (640, 360))];
        let pictures: Vec<Frame> = files.iter().flat_map(|file| teach(stand_in, file)).collect();
        let watched = Watched::begin(&files, Decode::on_cuda(0), 80);
        watched.taker.wait("both sizes, and the first again", |seen| seen.offered >= 80);
        let seen = watched.end();
        let shown: Vec<usize> = seen.frames.iter().map(|frame| which(frame, &pictures)).collect();
        assert!(shown.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 50), "no picture is lost at a change: {shown:?}");
        assert_eq!(seen.states.len(), 2, "connecting, online: {:?}", seen.states);
        assert_eq!(seen.refused, 0);
        drop(seen);
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

#[test]
fn h265_is_decoded_on_the_device_like_h264() {
    with_gstreamer("decode::h265_is_decoded_on_the_device_like_h264", &[], |stand_in, folder| {
        if !can_encode_h265() {
            return println!("LEFT OUT: H.265 on the device: there is no x265enc (gstreamer1.0-plugins-bad) to make a clip");
        }
        let file = clip_of(folder, ClipSettings { size: SIZE, fps: 25, is_h265: true });
        let pictures = teach_codec(stand_in, &file, true);
        let watched = Watched::begin(&[file], Decode::on_cuda(0), 40);
        watched.taker.wait("all pictures and some again", |seen| seen.offered >= 40);
        let seen = watched.end();
        let shown: Vec<usize> = seen.frames.iter().map(|frame| which(frame, &pictures)).collect();
        assert!(shown.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 25), "each is whole and in order: {shown:?}");
        drop(seen);
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

#[test]
fn after_a_lost_packet_nothing_is_shown_until_the_next_keyframe() {
    with_gstreamer("decode::after_a_lost_packet_nothing_is_shown_until_the_next_keyframe", &[], |stand_in, folder| {
        let file = clip(folder, SIZE);
        let pictures = teach(stand_in, &file);
        let watched = Watched::begin_losing(45, &[file], Decode::on_cuda(0), 100);
        watched.taker.wait("some gaps", |seen| seen.offered >= 100);
        let seen = watched.end();
        let shown: Vec<usize> = seen.frames.iter().map(|frame| which(frame, &pictures)).collect();
        let gaps: Vec<&[usize]> = shown.windows(2).filter(|pair| pair[1] != (pair[0] + 1) % 25).collect();
        println!("gaps {gaps:?}, {} skipped", seen.damaged);
        assert!(!gaps.is_empty() && gaps.iter().all(|gap| gap[1] == 0), "keyframes are the first of 25: {gaps:?}");
        assert!(seen.damaged > 0 && seen.refused == 0, "what is skipped is counted: {}", seen.damaged);
    });
}

#[test]
fn frames_whose_strides_lie_are_refused_and_the_cpu_decodes_in_the_end() {
    with_gstreamer("decode::frames_whose_strides_lie_are_refused_and_the_cpu_decodes_in_the_end", &[], |stand_in, folder| {
        let file = clip(folder, SIZE);
        teach(stand_in, &file);
        stand_in.pitch(320);
        let watched = Watched::begin(&[file], Decode::on_cuda(0), 12);
        watched.taker.wait("refused frames", |seen| seen.refused >= 10);
        watched.taker.wait("frames of the CPU", |seen| seen.offered >= 12);
        let seen = watched.end();
        assert!(seen.frames.iter().all(|frame| frame.device_pixels().is_none()), "rows of 322 bytes do not fit 320");
        assert!(seen.refused >= 50, "a device that never gives a usable picture is left: {}", seen.refused);
        let named = |said: &str| {
            said.contains("the decoder of cuda:0 refuses: no picture of cuda:0 can be used: a 322x242 Nv12 picture does not fit in ")
                && said.ends_with(" bytes by the strides it states, [320, 320]")
        };
        let offline = seen.offline().filter(|(reason, _)| *reason == OfflineReason::Undecodable);
        assert!(offline.is_some_and(|(_, said)| named(said)), "the lie is named: {offline:?}");
        let decoding = seen.decoding();
        assert!(matches!(decoding, Some(Decoding::InPlaceOfDevice(said)) if named(said)), "also while the CPU decodes: {decoding:?}");
        drop(seen);
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

#[test]
fn a_camera_whose_strides_lie_takes_no_frame_of_another_with_it() {
    with_gstreamer("decode::a_camera_whose_strides_lie_takes_no_frame_of_another_with_it", &[], |stand_in, folder| {
        let file = clip(folder, SIZE);
        let pictures = teach(stand_in, &file);
        let decode = Decode::on_cuda(0);
        let healthy = Watched::begin(std::slice::from_ref(&file), decode.clone(), 1);
        healthy.taker.wait("a second of frames", |seen| seen.offered >= 25);
        // Its surfaces are there; those that are made from now on say that their rows are closer than they are long.
        stand_in.pitch(320);
        let lying = Watched::begin(&[file], decode.clone(), 1);
        lying.taker.wait("refused frames", |seen| seen.refused >= 10);
        drop(healthy.taker.take());
        healthy.taker.wait("frames in the meantime", |seen| seen.offered >= 25);
        lying.taker.wait("frames of the CPU", |seen| seen.offered >= 1);
        assert!(lying.end().frames[0].device_pixels().is_none(), "rows of 322 bytes do not fit 320");
        let seen = healthy.end();
        assert_eq!((seen.refused, seen.damaged, seen.states.len()), (0, 0, 0), "nothing was heard of the other: {:?}", seen.states);
        which(&seen.frames[0], &pictures);
        drop((seen, decode));
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

#[test]
fn a_camera_that_the_device_refuses_is_decoded_by_the_cpu_and_its_state_says_why() {
    with_gstreamer("decode::a_camera_that_the_device_refuses_is_decoded_by_the_cpu_and_its_state_says_why", &[], |stand_in, folder| {
        let file = clip(folder, SIZE);
        let pictures = teach(stand_in, &file);
        let decode = Decode::on_cuda(0);
        stand_in.decoders(1);
        let first = Watched::begin(std::slice::from_ref(&file), decode.clone(), 1);
        first.taker.wait("frames of the first camera", |seen| seen.offered >= 2);
        let second = Watched::begin(&[file], decode.clone(), 12);
        second.taker.wait("frames of the second camera", |seen| seen.offered >= 12);
        let seen = second.end();
        let (reason, message) = seen.offline().expect("the device had one decoder, and the first camera has it");
        println!("{message}");
        assert_eq!(reason, OfflineReason::Undecodable);
        assert!(
            message.starts_with("from now on decoded by the CPU until it connects again after 10 min: the decoder of cuda:0 refuses: "),
            "{message}"
        );
        let by_cpu = seen.decoding().expect("its frames came");
        let words = "decoded by the CPU until it connects again after 10 min: the decoder of cuda:0 refuses: ";
        assert!(matches!(&by_cpu, Decoding::InPlaceOfDevice(said) if said.starts_with(words)), "{by_cpu:?}");
        for frame in &seen.frames {
            assert!(frame.device_pixels().is_none() && pictures.iter().any(|picture| nv12(picture) == nv12(frame)), "the CPU decoded it");
        }
        let first = first.end();
        assert!(first.frames[0].device_pixels().is_some(), "the first camera stays on the device");
        assert_eq!(first.decoding(), Some(&Decoding::OnDevice("cuda:0".into())));
        drop((first, seen, decode));
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

/// A clip that shows each photo for one picture.
fn clip_of_faces(file: &Path, photos: &Path) {
    const SIZE: (u32, u32) = (640, 480);
    let mut files: Vec<PathBuf> = std::fs::read_dir(photos).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jpg"));
    files.sort();
    let picture = |photo: &PathBuf| {
        let mut canvas = RgbImage::from_pixel(SIZE.0, SIZE.1, Rgb([90; 3]));
        image::imageops::overlay(&mut canvas, &image::open(photo).unwrap().thumbnail(SIZE.0, SIZE.1).into_rgb8(), 0, 0);
        canvas
    };
    encode(file, ClipSettings { size: SIZE, fps: 10, is_h265: false }, files.iter().map(picture)).unwrap();
}

#[test]
fn faces_of_a_camera_on_the_device_are_those_that_the_host_finds() {
    const NAME: &str = "decode::faces_of_a_camera_on_the_device_are_those_that_the_host_finds";
    let left_out = "faces of a camera over the device's path";
    let (Some(models), Some(photos)) = (faces::models_dir(left_out), faces::bootstrapped("photos", left_out)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = |variable: &str, name: &str| std::env::var_os(variable).map_or_else(|| folder.path().join(name), PathBuf::from);
    let (file, told) = (path(CLIP, "faces.mp4"), path(FOUND_ON_HOST, "found.json"));
    if std::env::var_os(CLIP).is_none() {
        clip_of_faces(&file, &photos);
        ingest::init().unwrap();
        std::fs::write(&told, serde_json::to_vec(&found_on_host(&models, &by_cpu(&file))).unwrap()).unwrap();
    }
    with_gstreamer(NAME, &[(CLIP, &file), (FOUND_ON_HOST, &told)], |stand_in, _| {
        let host: Vec<Vec<Row>> = serde_json::from_slice(&std::fs::read(&told).unwrap()).unwrap();
        let pictures = teach(stand_in, &file);
        let watched = Watched::begin(std::slice::from_ref(&file), Decode::on_cuda(0), pictures.len());
        watched.taker.wait("every picture", |seen| seen.frames.len() == pictures.len());
        let (gpu, seen) = (Gpu::open(0).unwrap(), watched.end());
        let mut worker = open(stand_in, &gpu, &models);
        let mut device = vec![Vec::new(); pictures.len()];
        for frames in seen.frames.chunks(4) {
            let surfaces = frames.iter().map(|frame| Surface::of(frame).unwrap().unwrap()).collect();
            for (frame, found) in frames.iter().zip(found_in(&mut worker, surfaces)) {
                device[which(frame, &pictures)] = found;
            }
        }
        assert!(stand_in.bytes_up() < 640 * 480, "parameters go up, and no picture: {} bytes", stand_in.bytes_up());
        assert_alike(&host, &device);
        drop((seen, worker, gpu));
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}
