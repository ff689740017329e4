//! Cameras that are changed while their events are on their way.
//!
//! In: a store that a test holds up, states as a source would report them. Out: what is told.
//! Must not know: RTSP, what is in a frame.

use std::pin::pin;

use tokio_util::sync::CancellationToken;

use super::check::tests::door;
use super::*;
use crate::camera::Decoding;
use crate::clock::SimulatedClock;
use crate::config::Config;
use crate::decide::Policy;
use crate::event::EventKind;
use crate::event_log::EventLog;
use crate::face::{AlignedFace, Detection, Template, TemplateSpace};
use crate::gallery::Gallery;
use crate::infer::{DetectRequest, Engine, EngineFacts, InferError, Inference, Lane};
use crate::store::tests::poll_once;

/// Nobody comes by in these tests.
struct Blind;

impl Inference for Blind {
    fn detect(&mut self, requests: &[DetectRequest], _: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        Ok(vec![Vec::new(); requests.len()])
    }

    fn encode(&mut self, _: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        Ok(Vec::new())
    }
}

/// Cameras that run no source: a test says what their states are.
struct House {
    cameras: Cameras,
    store: Store,
    events: EventLog,
    _data: tempfile::TempDir,
}

impl House {
    async fn open() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000)));
        let store = Store::open(data.path()).expect("it opens");
        let events = EventLog::open(store.clone(), 100).await.expect("it opens");
        let space = TemplateSpace::new("made-up");
        let engine = Engine::of_sessions(vec![Blind], EngineFacts::made_up(space.clone())).expect("a thread");
        let pipeline = Pipeline::new(engine, Gallery::with_clock(space, Arc::clone(&clock)), events.clone(), Arc::clone(&clock));
        let scene = SceneSettings::of(&Config::default(), &Policy::fixed(0.5));
        let defaults = CameraDefaults { scene, ca_file: None, decode: Decode::on_cpu() };
        Self { cameras: Cameras::new(store.clone(), pipeline, clock, defaults), store, events, _data: data }
    }

    /// A camera that is watched and in `state`.
    fn watches(&self, camera: &Camera, state: CameraState) {
        let Shared { pipeline, defaults, clock, .. } = &*self.cameras.0;
        drop(pipeline.watch(as_configured(camera, &defaults.scene)));
        let running = Running { camera: camera.clone(), state, since: clock.now(), announced: None, source: None };
        self.cameras.running().insert(camera.id.clone(), running);
    }
}

fn named(name: &str) -> Camera {
    Camera { id: CameraId::parse(name).expect("a good id"), ..door() }
}

fn online() -> CameraState {
    CameraState::Online { since: Timestamp::default(), decoding: Decoding::default() }
}

#[tokio::test]
async fn a_camera_that_is_ended_while_it_is_announced_is_told_to_be_online_before_it_is_told_to_be_offline() {
    let house = House::open().await;
    let (first, second) = (named("first"), named("second"));
    house.watches(&first, online());
    house.watches(&second, online());
    let mut told = house.events.subscribe();
    let (cameras, stop) = (&house.cameras, CancellationToken::new());
    let release = house.store.hold_writer().await;
    let mut announcing = pin!(cameras.announce(stop.clone()));
    assert!(poll_once(announcing.as_mut()).await.is_none(), "what is told of the first one is not on disk yet");
    let mut ending = pin!(cameras.unwatch(&second.id));
    assert!(poll_once(ending.as_mut()).await.is_none(), "it waits for what is told of the second one");
    stop.cancel();
    drop(release);
    let (announced, ended) = tokio::join!(announcing, ending);
    assert!(announced.is_ok() && ended.is_ok());
    house.events.close();
    let mut events = Vec::new();
    while let Ok(batch) = told.next().await {
        events.extend(batch.iter().map(|logged| (logged.event.kind, logged.event.camera.to_string())));
    }
    let expected = [(EventKind::CameraOnline, "first"), (EventKind::CameraOnline, "second"), (EventKind::CameraOffline, "second")];
    assert_eq!(events, expected.map(|(kind, name)| (kind, name.to_owned())));
}
