//! A camera that is decoded on the device, while calls of the driver fail: each function that it calls, once. And the look for devices.
//!
//! In: the name of a function, and which of its calls fails. Out: frames again, what decodes them and why, and nothing held.
//! Must not know: how ingest works.

use std::path::Path;
use std::sync::{Arc, Mutex};

use doorward::camera::Decoding;
use doorward::device::{self, Driver};
use doorward::frame::Frame;
use doorward::ingest::Decode;

use crate::clip::ClipSettings;
use crate::decode::{Seen, Watched, clip, clip_of, nv12, teach, which, with_gstreamer};
use crate::driver::{StandIn, over_the_stand_in};

/// What a driver may answer: no memory, a kernel that failed, a lost device.
const CODES: [(i32, &str); 3] = [(2, "CUDA_ERROR_OUT_OF_MEMORY"), (719, "CUDA_ERROR_LAUNCH_FAILED"), (999, "CUDA_ERROR_UNKNOWN")];
/// All that a camera calls from the opening of the device to its end: for the device and its contexts, for memory, to copy pictures, and
/// to decode them.
const CALLS: [&[&str]; 4] = [
    &[
        "cuInit",
        "cuDeviceGet",
        "cuDeviceGetAttribute",
        "cuDevicePrimaryCtxRetain",
        "cuDevicePrimaryCtxRelease",
        "cuCtxPushCurrent",
        "cuCtxPopCurrent",
        "cuStreamCreate",
        "cuStreamDestroy",
    ],
    &["cuMemAlloc", "cuMemAllocPitch", "cuMemFree"],
    &["cuStreamSynchronize", "cuMemcpy2DAsync"],
    &["cuvidCreateDecoder", "cuvidDestroyDecoder", "cuvidDecodePicture", "cuvidMapVideoFrame", "cuvidUnmapVideoFrame"],
];
/// GStreamer's decoder (1.22) never gives back the picture that it could not fill, nor by that the pool with those before it.
const PICTURE_LOST: [&str; 2] = ["cuMemcpy2DAsync", "cuvidMapVideoFrame"];
const SIZE: (u32, u32) = (322, 242);
/// So many calls of each function fail, one at a time: those of the opening and of the first pictures, of which each takes up to four.
const CALLS_MAX: u64 = 12;
/// Pictures a second: each failure costs a camera as long as its first pictures take.
const FPS: u32 = 100;

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Of this process, from now on.
    fn begin() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
        log
    }

    /// What came since the last time.
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A camera up to its twelfth frame.
fn watch(file: &Path) -> Seen {
    let watched = Watched::begin(&[file.to_owned()], Decode::on_cuda(0), 12);
    watched.taker.wait("frames", |seen| seen.offered >= 12 && seen.decoding().is_some());
    watched.end()
}

/// Holds that frames came, whole and with a reason where the processor decoded them; answers what did.
fn goes_on(seen: &Seen, pictures: &[Frame], (name, code): (&str, &str), log: &str) -> String {
    for frame in &seen.frames {
        if frame.device_pixels().is_some() {
            which(frame, pictures);
        } else {
            assert!(pictures.iter().any(|picture| nv12(picture) == nv12(frame)), "{name}: the processor's are whole");
        }
    }
    match seen.decoding() {
        Some(Decoding::OnDevice(device)) => device.clone(),
        Some(Decoding::InPlaceOfDevice(why)) => {
            assert!(why.contains("until it connects again after 10 min"), "{why}");
            assert!(log.contains(why), "{name}: the log says it, too: {log}");
            let is_named = why.contains(&format!("{name}: {code}")) || log.contains(&format!("CUDA call failed: {code}"));
            assert!(is_named, "{name}, {code}: nothing names what failed: {why}\n{log}");
            format!("cpu, {why}")
        }
        other => panic!("{name}: {other:?}"),
    }
}

/// Lets calls of these functions fail, one at a time, and holds what comes of a camera to the promise.
fn each_fails(test: &str, functions: &[&str]) {
    with_gstreamer(test, &[], |stand_in, folder| {
        let (log, file) = (Log::begin(), clip_of(folder, ClipSettings { size: SIZE, fps: FPS, is_h265: false }));
        let pictures = teach(stand_in, &file);
        // GStreamer's plugin looks at the device once a process, before its first camera.
        drop(watch(&file));
        stand_in.fail(None, 0, 0);
        drop(watch(&file));
        let counts: Vec<(&str, u64)> = CALLS.concat().into_iter().map(|name| (name, stand_in.calls(name))).collect();
        let counted: u64 = counts.iter().map(|(_, count)| count).sum();
        assert!(counts.iter().all(|(_, count)| *count > 0), "{counts:?}");
        assert_eq!(counted, stand_in.calls_in_all(), "nothing else is called: {counts:?}");
        let failing = counts.iter().filter(|(name, _)| functions.contains(name));
        let cases = failing.flat_map(|(name, count)| (1..=CALLS_MAX.min(*count)).map(move |nth| (*name, nth)));
        for ((name, nth), (code, code_name)) in cases.zip(CODES.into_iter().cycle()) {
            let held = stand_in.held();
            log.take();
            stand_in.fail(Some(name), nth, code);
            let seen = watch(&file);
            let failed = stand_in.failed();
            if failed.is_some() {
                stand_in.fail(None, 0, 0);
            }
            let by = goes_on(&seen, &pictures, (name, code_name), &log.take());
            // Frames hold the context.
            drop(seen);
            let failed = failed.or_else(|| stand_in.failed());
            assert_eq!(failed.as_deref(), Some(name), "call {nth} came");
            stand_in.fail(None, 0, 0);
            println!("{name}, call {nth}, {code_name}: {by}");
            let lost = if PICTURE_LOST.contains(&name) { nth } else { 0 };
            assert!((held..=held + lost).contains(&stand_in.held()), "{name}, call {nth}: {} held after {held}", stand_in.held());
            assert_eq!(stand_in.wrong(), None, "{name}, call {nth}");
        }
    });
}

#[test]
fn a_camera_gives_frames_again_after_any_call_for_the_device_and_its_contexts_that_fails_and_says_why_where_the_cpu_decodes() {
    each_fails(
        "refusals::a_camera_gives_frames_again_after_any_call_for_the_device_and_its_contexts_that_fails_and_says_why_where_the_cpu_decodes",
        CALLS[0],
    );
}

#[test]
fn a_camera_gives_frames_again_after_any_call_for_memory_that_fails_and_says_why_where_the_cpu_decodes() {
    each_fails("refusals::a_camera_gives_frames_again_after_any_call_for_memory_that_fails_and_says_why_where_the_cpu_decodes", CALLS[1]);
}

#[test]
fn a_camera_gives_frames_again_after_any_call_for_copies_that_fails_and_says_why_where_the_cpu_decodes() {
    each_fails("refusals::a_camera_gives_frames_again_after_any_call_for_copies_that_fails_and_says_why_where_the_cpu_decodes", CALLS[2]);
}

#[test]
fn a_camera_gives_frames_again_after_any_call_for_the_decoder_that_fails_and_says_why_where_the_cpu_decodes() {
    each_fails(
        "refusals::a_camera_gives_frames_again_after_any_call_for_the_decoder_that_fails_and_says_why_where_the_cpu_decodes",
        CALLS[3],
    );
}

#[test]
fn a_camera_whose_device_is_lost_is_decoded_by_the_cpu_and_the_process_goes_on() {
    const NAME: &str = "refusals::a_camera_whose_device_is_lost_is_decoded_by_the_cpu_and_the_process_goes_on";
    with_gstreamer(NAME, &[], |stand_in, folder| {
        let (log, file) = (Log::begin(), clip(folder, SIZE));
        let pictures = teach(stand_in, &file);
        let watched = Watched::begin(std::slice::from_ref(&file), Decode::on_cuda(0), 12);
        watched.taker.wait("frames of the device", |seen| seen.offered >= 12 && seen.decoding().is_some());
        drop(watched.taker.take());
        stand_in.lose(1, 719);
        watched.taker.wait("frames of the CPU", |seen| matches!(seen.decoding(), Some(Decoding::InPlaceOfDevice(_))));
        let fallen = watched.taker.take();
        // The driver's own answer, which GStreamer's message to the pipeline does not hold.
        let why = fallen.decoding();
        assert!(matches!(why, Some(Decoding::InPlaceOfDevice(why)) if why.contains("CUDA_ERROR_LAUNCH_FAILED")), "{why:?}");
        println!("{why:?}");
        drop(fallen);
        watched.taker.wait("more of them", |seen| seen.offered >= 12);
        let seen = watched.end();
        assert!(seen.frames.iter().all(|frame| pictures.iter().any(|picture| nv12(picture) == nv12(frame))), "they are whole");
        let said = log.take();
        let warned: Vec<&str> = said.lines().filter(|line| line.contains("GStreamer, which decodes on the device")).collect();
        // GStreamer says the first by nobody, and what comes of the closing by the element in another thread.
        let is_named = |line: &&str| line.contains("CUDA_ERROR_LAUNCH_FAILED") && line.contains("camera=door");
        assert!(warned.first().is_some_and(is_named), "{warned:#?}");
        assert!(warned.iter().any(|line| line.contains("by=\"cuda-decoder-door\"")), "{warned:#?}");
        assert!(said.contains("camera offline: from now on decoded by the CPU") && said.contains("CUDA_ERROR_LAUNCH_FAILED"), "{said}");
        // The next camera does without the device from its beginning.
        let next = watch(&file);
        let words = "decoded by the CPU until it connects again after 10 min: cuInit: CUDA_ERROR_LAUNCH_FAILED";
        assert_eq!(next.decoding(), Some(&Decoding::InPlaceOfDevice(words.into())));
    });
}

#[test]
fn a_look_for_devices_at_which_any_call_fails_says_with_what() {
    over_the_stand_in("refusals::a_look_for_devices_at_which_any_call_fails_says_with_what", &[], |stand_in: &StandIn| {
        stand_in.fail(None, 0, 0);
        let whole = device::probe();
        assert!(matches!(&whole.driver, Driver::Works { devices, .. } if devices.len() == 1), "{whole:?}");
        let calls = stand_in.calls_in_all();
        for nth in 1..=calls {
            for (code, name) in CODES {
                stand_in.fail(None, nth, code);
                let cuda = device::probe();
                let failed = stand_in.failed().unwrap();
                assert!(matches!(&cuda.driver, Driver::Broken(words) if words.contains(name)), "{failed}: {cuda:?}");
                let (what, mend) = cuda.obstacle(0).unwrap();
                assert!(what.contains(name) && mend.contains("nvidia-smi") && cuda.libraries.is_empty(), "{failed}: {what}, {mend}");
                println!("{failed}: {what}");
            }
        }
        stand_in.fail(None, 0, 0);
        assert_eq!(device::probe(), whole, "and afterwards it is seen as before");
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
        println!("{calls} calls of a look for devices, each failed with each of {CODES:?}");
    });
}
