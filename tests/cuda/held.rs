//! How many pictures of a camera that the device decodes are held at once, as docs/gpu.md states it ("Memory").
//!
//! In: a clip from a real RTSP server, a decoder that knows it by heart, a session that is stuck until it is let go. Out: counts of
//! pictures that nobody has given back.
//! Prints what is left out where a resource is missing.
//! Must not know: how ingest and the pipeline work.

use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use clap::Parser;
use doorward::batch::{SlotPolicy, SlotSettings};
use doorward::camera::{CameraId, Role};
use doorward::clock::SystemClock;
use doorward::config::{Config, MirrorChoice};
use doorward::decide::Policy;
use doorward::event::EndReason;
use doorward::event_log::EventLog;
use doorward::face::{AlignedFace, Detection, Template};
use doorward::frame::{DevicePixels, Frame};
use doorward::gallery::Gallery;
use doorward::infer::{DetectRequest, Engine, InferError, Inference, Lane};
use doorward::ingest::{self, Decode, FrameSink, Sinks};
use doorward::pipeline::{Pipeline, SceneSettings, Watch};
use doorward::store::Store;
use tokio_util::sync::CancellationToken;

use crate::decode::{Taker, clip, served, teach, with_gstreamer};
use crate::engine::facts;
use crate::flow::manifest;
use crate::rtsp_server::TestCamera;

const SOON: Duration = Duration::from_secs(30);
/// One in its slot, one in its batch, and one that takes the place of the first.
const HELD_MAX: usize = 3;

/// A session that is at each batch until it is let go, and sees nobody.
struct Stuck(Receiver<()>);

impl Inference for Stuck {
    fn detect(&mut self, requests: &[DetectRequest], _: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        // Once nobody lets it go any more it waits no longer.
        let _ = self.0.recv();
        Ok(vec![Vec::new(); requests.len()])
    }

    fn encode(&mut self, _: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        panic!("nobody was seen")
    }
}

/// Counts the pictures on their way to the pipeline.
struct Counting {
    slot: Arc<dyn FrameSink>,
    counted: Mutex<Counted>,
    changed: Condvar,
}

#[derive(Default)]
struct Counted {
    pictures: Vec<Weak<dyn DevicePixels>>,
    /// The most that were there when one came, itself among them.
    most: usize,
}

impl Counted {
    fn held(&self) -> usize {
        self.pictures.iter().filter(|picture| picture.strong_count() > 0).count()
    }
}

impl Counting {
    /// Waits until so many more have come, and as many were there at once as may be; answers how many were, at the most.
    fn more(&self, count: usize) -> usize {
        let counted = self.counted.lock().unwrap();
        let wanted = counted.pictures.len() + count;
        let (counted, timeout) =
            self.changed.wait_timeout_while(counted, SOON, |counted| counted.pictures.len() < wanted || counted.most < HELD_MAX).unwrap();
        assert!(!timeout.timed_out(), "{} of {wanted} pictures have come, {} at once", counted.pictures.len(), counted.most);
        counted.most
    }
}

impl FrameSink for Counting {
    fn offer(&self, frame: Frame) {
        let mut counted = self.counted.lock().unwrap();
        counted.pictures.push(Arc::downgrade(frame.device_pixels().expect("it is on the device")));
        counted.most = counted.most.max(counted.held());
        drop(counted);
        self.slot.offer(frame);
        self.changed.notify_all();
    }

    fn refused(&self) {
        panic!("every picture is one");
    }
}

#[test]
fn a_camera_holds_three_pictures_at_most_also_while_its_session_is_stuck_and_its_decoder_needs_no_more() {
    const NAME: &str = "held::a_camera_holds_three_pictures_at_most_also_while_its_session_is_stuck_and_its_decoder_needs_no_more";
    with_gstreamer(NAME, &[], |stand_in, folder| {
        let file = clip(folder, (322, 242));
        teach(stand_in, &file);
        let (decode, clock, stop) = (Decode::on_cuda(0), Arc::new(SystemClock::new()), CancellationToken::new());
        let settings = served(TestCamera::parse_from(["test-camera".into(), "--file".into(), file.into_os_string()]), decode.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let data = tempfile::tempdir().unwrap();
        let events = runtime.block_on(EventLog::open(Store::open(data.path()).unwrap(), 100)).unwrap();
        let (go, stuck) = sync_channel(1);
        let engine = Engine::of_device_sessions(vec![Stuck(stuck)], facts(MirrorChoice::Off), 4).unwrap();
        let pipeline = Pipeline::new(engine, Gallery::new(manifest().space()), events, clock.clone());
        let running = runtime.spawn({
            let (pipeline, stop) = (pipeline.clone(), stop.clone());
            async move { pipeline.run(stop).await }
        });
        let door: CameraId = settings.camera.clone();
        let slot = SlotSettings { role: Role::Entry, analysis_fps_max: None, policy: SlotPolicy::NewestWins };
        let scene = SceneSettings::of(&Config::default(), &Policy::fixed(0.5));
        let slot = pipeline.watch(Watch { camera: door.clone(), slot, scene });
        let counting = Arc::new(Counting { slot, counted: Mutex::default(), changed: Condvar::new() });
        let sinks = Sinks { frames: counting.clone(), states: Arc::new(Taker::new(0)) };
        let watching = runtime.spawn(ingest::watch(settings, sinks, clock, stop.clone()));

        assert_eq!(counting.more(15), HELD_MAX, "its session is stuck");
        let surfaces = stand_in.calls("cuMemAllocPitch");
        for _ in 0..10 {
            // From one batch to the next.
            go.send(()).unwrap();
            assert_eq!(counting.more(2), HELD_MAX, "its session goes on");
        }
        assert_eq!(stand_in.calls("cuMemAllocPitch"), surfaces, "its decoder goes on with the surfaces that come back");
        stop.cancel();
        drop(go);
        runtime.block_on(watching).unwrap();
        runtime.block_on(running).unwrap().unwrap();
        runtime.block_on(pipeline.forget(&door, EndReason::CameraRemoved)).unwrap();
        assert_eq!(counting.counted.lock().unwrap().held(), 0, "all went back");
        drop((pipeline, counting, decode, runtime));
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}
