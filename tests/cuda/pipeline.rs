//! The whole pipeline on a device: slots, a session over the stand-in, tracks, the gallery and the log, while calls of the driver fail.
//!
//! In: frames of three cameras, two decoded on the host and one on the device, in each of which the stand-in for a detector sees one
//! face. Out: frames that were analysed or are counted as lost, events in the log, what the engine says of its condition.
//! Must not know: models, how a batch is looked at.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use doorward::batch::{SlotPolicy, SlotSettings};
use doorward::camera::{CameraId, FrameCounts, Role};
use doorward::clock::{Clock, SimulatedClock, Timestamp};
use doorward::config::{Config, MirrorChoice};
use doorward::decide::Policy;
use doorward::event::{EndReason, EventKind, LoggedEvent};
use doorward::event_log::{EventLog, Subscription};
use doorward::face::Quality;
use doorward::frame::{Frame, PixelLayout};
use doorward::gallery::Gallery;
use doorward::infer::cuda::{DeviceSession, Gpu};
use doorward::infer::{DetectRequest, Engine, Lane, align};
use doorward::ingest::FrameSink;
use doorward::mutation::Mutation;
use doorward::pipeline::{Pipeline, PipelineError, SceneSettings, Watch};
use doorward::store::Store;
use doorward::subject::{Origin, Sample, SampleId, Subject, SubjectId, SubjectUid};
use doorward::visit::VisitPolicy;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::driver::{StandIn, over_the_stand_in};
use crate::engine::{decoded, facts, request};
use crate::faults::image;
use crate::flow::{Decoder, manifest, noise, open};
use crate::graphs::expected;

const SIZE: (usize, usize) = (162, 92);
/// A canvas that is soon filled.
const SIDE: Option<u32> = Some(160);
const FRAME_EVERY: Duration = Duration::from_millis(100);
/// The cameras, and how what they show is laid out. The last one's pictures are decoded on the device.
const CAMERAS: [(&str, PixelLayout); 3] = [("door", PixelLayout::Nv12), ("hall", PixelLayout::I420), ("yard", PixelLayout::Nv12)];
/// Whoever stands before the first camera, the only one who is enrolled.
const ANNA: SubjectUid = SubjectUid(Uuid::from_u128(7));
/// What a call may fail with: no memory; a kernel that failed before, a lost device.
const OUT_OF_MEMORY: i32 = 2;
const FAILED: [i32; 2] = [719, 999];
/// Nothing here takes seconds.
const SOON: Duration = Duration::from_secs(60);

/// One camera: what it shows, all the time, and where that goes while it is watched.
struct Camera {
    id: CameraId,
    shown: Frame,
    sink: Option<Arc<dyn FrameSink>>,
}

/// The daemon without its edges, and three cameras.
struct House {
    engine: Engine,
    pipeline: Pipeline,
    events: EventLog,
    subscription: Subscription,
    clock: Arc<SimulatedClock>,
    cameras: Vec<Camera>,
    decoder: Decoder,
    /// How often the device was opened.
    opens: Arc<AtomicUsize>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), PipelineError>>,
    /// Frames of each camera since it is watched, and of all time.
    looks: (usize, usize),
    _data: TempDir,
}

impl House {
    async fn open(stand_in: &'static StandIn) -> Self {
        let gpu = Gpu::open(0).unwrap();
        let shown: Vec<Frame> = (7..).zip(CAMERAS).map(|(seed, (_, layout))| noise(seed, SIZE, layout)).collect();
        let decoder = Decoder::new(&gpu, stand_in, shown[2].clone()).unwrap();
        let opens = Arc::new(AtomicUsize::new(0));
        let counted = opens.clone();
        let session = DeviceSession::new(Box::new(move || {
            counted.fetch_add(1, Ordering::Relaxed);
            open(&gpu, &image(), stand_in)
        }));
        let session = session.unwrap().with_tries_apart(Duration::ZERO);
        let engine = Engine::of_device_sessions(vec![session], facts(MirrorChoice::Off), 4).unwrap();
        let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000_000)));
        let data = tempfile::tempdir().unwrap();
        let events = EventLog::open(Store::open(data.path()).unwrap(), 10_000).await.unwrap();
        let gallery = Gallery::with_clock(manifest().space(), clock.clone());
        enrol(&gallery, &engine, &shown[0]).await;
        let pipeline = Pipeline::new(engine.clone(), gallery, events.clone(), clock.clone());
        let camera = |(shown, (name, _)): (Frame, (&str, _))| Camera { id: CameraId::parse(name).unwrap(), shown, sink: None };
        let (cameras, stop) = (shown.into_iter().zip(CAMERAS).map(camera).collect(), CancellationToken::new());
        let running = tokio::spawn({
            let (pipeline, stop) = (pipeline.clone(), stop.clone());
            async move { pipeline.run(stop).await }
        });
        let subscription = events.subscribe();
        let mut house =
            Self { engine, pipeline, events, subscription, clock, cameras, decoder, opens, stop, running, looks: (0, 0), _data: data };
        house.watch();
        house
    }

    /// The cameras are watched from now on: whoever stands there comes anew.
    fn watch(&mut self) {
        self.looks.0 = 0;
        let slot = SlotSettings { role: Role::Interior, analysis_fps_max: None, policy: SlotPolicy::Wait };
        for Camera { id, sink, .. } in &mut self.cameras {
            *sink = Some(self.pipeline.watch(Watch { camera: id.clone(), slot, scene: scene() }));
        }
    }

    /// Each camera gives a frame, and all are looked at in one batch.
    async fn look(&mut self) {
        self.looks = (self.looks.0 + 1, self.looks.1 + 1);
        let now = self.clock.advance(FRAME_EVERY);
        let frame = |camera: &Camera| {
            let mut frame = camera.shown.clone();
            (frame.camera, frame.capture_time, frame.decode_time) = (camera.id.clone(), now, now);
            frame
        };
        let mut frames: Vec<Frame> = self.cameras.iter().map(frame).collect();
        frames[2] = decoded(&self.decoder, &frames[2]);
        // The pipeline's task has this thread, too: it finds all of them.
        self.cameras.iter().zip(frames).for_each(|(camera, frame)| camera.sink.as_ref().unwrap().offer(frame));
        // Nobody is told when that is.
        in_time(async {
            while !self.pipeline.is_idle() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert_eq!(self.decoder.returned.load(Ordering::Relaxed), self.looks.1, "a surface goes back with its batch");
    }

    /// Looks until a batch makes no memory any more; answers how many calls of the driver one takes, and how many of them bring its
    /// frames to the device.
    async fn settled(&mut self, stand_in: &StandIn) -> (u64, u64) {
        for _ in 0..5 {
            stand_in.fail(None, 0, 0);
            self.look().await;
        }
        let calls = stand_in.calls_in_all();
        stand_in.fail(None, 0, 0);
        self.engine.place(self.cameras[..2].iter().map(|camera| camera.shown.clone()).collect()).await.unwrap();
        (calls, stand_in.calls_in_all())
    }

    /// Holds that of each camera's frames `lost` were lost and all others analysed.
    fn has_lost(&self, lost: u64, when: &str) {
        let received = self.looks.0 as u64;
        let expected = FrameCounts { received, analysed: received - lost, dropped_failed: lost, ..FrameCounts::default() };
        for Camera { id, .. } in &self.cameras {
            assert_eq!(self.pipeline.frame_counts(id), Some(expected), "{when}: {id}");
        }
    }

    /// The cameras are watched no longer: what was told of each since it was.
    async fn told(&mut self) -> Vec<Vec<LoggedEvent>> {
        for camera in &self.cameras {
            self.pipeline.forget(&camera.id, EndReason::CameraRemoved).await.unwrap();
        }
        let mut told = Vec::new();
        let is_end = |logged: &&LoggedEvent| logged.event.kind == EventKind::VisitEnded;
        while told.iter().filter(is_end).count() < self.cameras.len() {
            told.extend(in_time(self.subscription.next()).await.unwrap());
        }
        let of = |camera: &Camera| told.iter().filter(|logged| *logged.event.camera == *camera.id.as_str()).cloned().collect();
        self.cameras.iter().map(of).collect()
    }

    /// Ends, without an error and with nothing left to tell.
    async fn close(mut self) {
        self.stop.cancel();
        in_time(self.running).await.unwrap().unwrap();
        self.events.close();
        assert!(in_time(self.subscription.next()).await.is_err(), "all was told");
    }
}

/// How every camera is analysed: every face of every frame is measured and encoded, so that all batches ask for the same.
fn scene() -> SceneSettings {
    let base = SceneSettings::of(&Config::default(), &Policy::fixed(0.5));
    let visit = VisitPolicy { reassert_every: None, resume_within: Duration::ZERO, ..base.visit };
    SceneSettings { detector_side: SIDE, encode_every_face: true, visit, ..base }
}

/// Enrols whom `frame` shows, by the template that the host's crop has.
async fn enrol(gallery: &Gallery, engine: &Engine, frame: &Frame) {
    let request = DetectRequest { detector_side: SIDE, ..request(frame) };
    let found = engine.detect(Lane::Live, vec![request]).await.unwrap();
    let template = expected(&align(frame, &found[0][0].landmarks), gallery.space());
    let now = Timestamp::default();
    let subject = Subject {
        id: SubjectId::parse("anna").unwrap(),
        uid: ANNA,
        display_name: String::new(),
        watchlists: Vec::new(),
        attributes: BTreeMap::new(),
        consent_reference: String::new(),
        expire_time: None,
        origin: Origin::Rpc,
        create_time: now,
        update_time: now,
        revision: 1,
    };
    let sample = Sample {
        id: SampleId(Uuid::from_u128(8)),
        subject: ANNA,
        quality: Quality::default(),
        content_sha256: [0; 32],
        create_time: now,
        folder_path: None,
        negative: false,
    };
    let put = Mutation::PutSample { sample, template, photo: Arc::new([]) };
    gallery.apply(gallery.current().version() + 1, &[Mutation::PutSubject(subject), put]);
}

/// What comes of `work`. Ends the process of the test where nothing does: whoever waits for a thread that hangs would hang, too.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.unwrap_or_else(|_| {
        eprintln!("nothing has come for {SOON:?}: it hangs");
        std::process::exit(101)
    })
}

/// Runs over the stand-in, and holds that nothing is left behind and nothing was done that a driver would punish. On one thread, so
/// that a batch has let go of its frames when the pipeline is seen to be idle.
fn run(test: &str, body: impl AsyncFnOnce(&'static StandIn)) {
    over_the_stand_in(test, &[], |stand_in| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(body(stand_in));
        drop(runtime);
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

/// Holds that each camera had one visitor, of whom the first was named by the frame of this time, and the others by none.
fn is_one_visit_each(told: &[Vec<LoggedEvent>], named: Timestamp, when: &str) {
    for (told, (name, _)) in told.iter().zip(CAMERAS) {
        let who = if name == "door" { (EventKind::Identified, Some(ANNA)) } else { (EventKind::Unidentified, None) };
        let kinds: Vec<_> = told.iter().map(|logged| (logged.event.kind, logged.event.subject)).collect();
        assert_eq!(kinds, [(EventKind::VisitStarted, None), who, (EventKind::VisitEnded, who.1)], "{when}: {name}");
        if who.1.is_some() {
            let similarity = told[1].event.decision.as_ref().and_then(|decision| decision.similarity).unwrap();
            assert!(similarity > 0.999, "{when}: what was encoded is Anna's face, which is {similarity} like hers");
            assert_eq!(told[1].event.capture_time_us, named.as_micros(), "{when}");
        }
    }
}

#[test]
fn every_frame_is_analysed_on_the_device_and_whoever_is_enrolled_is_named() {
    const NAME: &str = "pipeline::every_frame_is_analysed_on_the_device_and_whoever_is_enrolled_is_named";
    const LOOKS: usize = 30;
    run(NAME, async |stand_in| {
        let mut house = House::open(stand_in).await;
        let named = house.clock.now().plus(2 * FRAME_EVERY);
        for _ in 0..LOOKS {
            house.look().await;
        }
        house.has_lost(0, "without faults");
        let (faces, counts) = (3 * LOOKS as u64, house.pipeline.counts());
        assert_eq!((counts.frames, counts.faces, counts.encoded), (faces, faces, faces));
        assert_eq!(house.opens.load(Ordering::Relaxed), 1);
        is_one_visit_each(&house.told().await, named, "without faults");
        house.close().await;
    });
}

#[test]
fn a_call_of_the_driver_that_fails_once_loses_no_frame_and_no_name_and_is_told() {
    const NAME: &str = "pipeline::a_call_of_the_driver_that_fails_once_loses_no_frame_and_no_name_and_is_told";
    run(NAME, async |stand_in| {
        let mut house = House::open(stand_in).await;
        let (calls, placing) = house.settled(stand_in).await;
        house.told().await;
        for (nth, code) in (1..=calls).flat_map(|nth| [OUT_OF_MEMORY, FAILED[nth as usize % FAILED.len()]].map(|code| (nth, code))) {
            house.watch();
            house.look().await;
            let (opens, before) = (house.opens.load(Ordering::Relaxed), house.engine.condition().borrow().clone());
            stand_in.fail(None, nth, code);
            // Seen for the second time, whoever is there begins a visit, and Anna is named by her first shot.
            house.look().await;
            let named = house.clock.now();
            let failed = stand_in.failed().unwrap_or_else(|| panic!("there is no call {nth} of {calls}"));
            let when = format!("call {nth} of {calls}, {failed}, failed with {code}");
            stand_in.fail(None, 0, 0);
            house.has_lost(0, &when);

            let condition = house.engine.condition().borrow().clone();
            assert!(condition.does_some && condition.does_all, "{when}: what failed was done when it was asked again: {condition:?}");
            // A frame that cannot be brought to the device is looked at from the host, so nothing that was asked of the sessions failed.
            let is_told = nth > placing;
            assert_eq!(condition.failures - before.failures, u64::from(is_told), "{when}: {condition:?}");
            assert!(!is_told || condition.reason.contains(&failed), "{when}: {condition:?}");
            // Want of room is none of the device's faults; and whoever fails to wait for the uploads, by the last two calls, waits once more.
            let is_opened_anew = code != OUT_OF_MEMORY && !(placing - 1..=placing).contains(&nth);
            assert_eq!(house.opens.load(Ordering::Relaxed) - opens, usize::from(is_opened_anew), "{when}");

            house.look().await;
            house.has_lost(0, &format!("after {when}"));
            is_one_visit_each(&house.told().await, named, &when);
            assert_eq!(stand_in.wrong(), None, "{when}");
        }
        let (faces, counts) = (3 * house.looks.1 as u64, house.pipeline.counts());
        assert_eq!((counts.frames, counts.faces, counts.encoded), (faces, faces, faces));
        println!("{calls} calls of a batch, of which {placing} bring it to the device: each failed once in two ways");
        house.close().await;
    });
}

#[test]
fn a_device_that_is_lost_for_one_batch_loses_its_frames_and_no_other_and_its_visits_go_on() {
    const NAME: &str = "pipeline::a_device_that_is_lost_for_one_batch_loses_its_frames_and_no_other_and_its_visits_go_on";
    const LOST: i32 = 999;
    run(NAME, async |stand_in| {
        let mut house = House::open(stand_in).await;
        let named = house.clock.now().plus(2 * FRAME_EVERY);
        let (calls, _) = house.settled(stand_in).await;
        for nth in 1..=calls {
            stand_in.lose(nth, LOST);
            house.look().await;
            let when = format!("lost from call {nth} of {calls} on, {:?}", stand_in.failed());
            stand_in.fail(None, 0, 0);
            // Asked again, frame by frame, it is still lost.
            house.has_lost(nth, &when);
            let condition = house.engine.condition().borrow().clone();
            assert!(!condition.does_some && condition.reason.contains("CUDA_ERROR_UNKNOWN"), "{when}: {condition:?}");
            house.look().await;
            house.has_lost(nth, &format!("there again after {when}"));
            let condition = house.engine.condition().borrow().clone();
            assert!(condition.does_some && condition.does_all, "there again after {when}: {condition:?}");
            assert_eq!(stand_in.wrong(), None, "{when}");
        }
        is_one_visit_each(&house.told().await, named, "a device that was lost time and again");
        house.close().await;
    });
}
