//! Cameras that are changed while their events are on their way, and whose store fails.
//!
//! In: a store that a test holds up or damages, states as a source would report them. Out: what is told, kept and in force.
//! Must not know: RTSP, what is in a frame.

use std::pin::pin;

use tokio_util::sync::CancellationToken;

use super::check::tests::door;
use super::state::SOURCE_STUCK_AFTER;
use super::*;
use crate::camera::{Decoding, OfflineReason, Secret, Transport};
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
    clock: Arc<SimulatedClock>,
    _data: tempfile::TempDir,
}

impl House {
    async fn open() -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let moved = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000)));
        let clock: Arc<dyn Clock> = moved.clone();
        let store = Store::open(data.path()).expect("it opens");
        let events = EventLog::open(store.clone(), 100).await.expect("it opens");
        let space = TemplateSpace::new("made-up");
        let engine = Engine::of_sessions(vec![Blind], EngineFacts::made_up(space.clone())).expect("a thread");
        let pipeline = Pipeline::new(engine, Gallery::with_clock(space, Arc::clone(&clock)), events.clone(), Arc::clone(&clock));
        let scene = SceneSettings::of(&Config::default(), &Policy::fixed(0.5));
        let defaults = CameraDefaults { scene, ca_file: None, decode: Decode::on_cpu() };
        Self { cameras: Cameras::new(store.clone(), pipeline, clock, defaults), store, events, clock: moved, _data: data }
    }

    /// A camera that is watched and in `state`.
    fn watches(&self, camera: &Camera, state: CameraState) {
        let Shared { pipeline, defaults, clock, .. } = &*self.cameras.0;
        drop(pipeline.watch(as_configured(camera, &defaults.scene)));
        let running = Running { camera: camera.clone(), state, since: clock.now(), heard_by: clock.now(), announced: None, source: None };
        self.cameras.running().insert(camera.id.clone(), running);
    }

    /// The same with a source, whose reports are the test's.
    fn has_source(&self, camera: &Camera) -> States {
        self.watches(camera, CameraState::Connecting);
        let cancel = CancellationToken::new();
        let source = Some(Source { cancel: cancel.clone(), ended: tokio::spawn(std::future::pending()) });
        self.cameras.running().get_mut(&camera.id).expect("it is watched").source = source;
        States { shared: Arc::downgrade(&self.cameras.0), source: cancel }
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

/// A camera with a credential, watched and kept, of a store in which no credential can be read from now on.
async fn unreadable(house: &House) -> Camera {
    let camera = Camera { has_credential: true, ..door() };
    let credential = CredentialChange::Set(credential());
    house.store.put_camera(camera.clone(), credential, None).await.expect("it is kept");
    house.watches(&camera, online());
    house.store.damage_credentials().await;
    // What begins from now on ends at once: nothing is connected to.
    house.cameras.0.stop.cancel();
    camera
}

fn credential() -> Credential {
    Credential { username: "operator".into(), password: Secret::new("staple") }
}

#[tokio::test]
async fn a_change_whose_credential_cannot_be_read_is_refused_and_leaves_the_camera_as_it_was() {
    let house = House::open().await;
    let camera = unreadable(&house).await;
    let change = Box::new(|camera: &mut Camera| camera.transport = Transport::Udp);
    let update = CameraUpdate { id: camera.id.clone(), etag: String::new(), request: None, change };
    let refused = house.cameras.update(update).await;
    assert!(matches!(refused, Err(CamerasError::Store(_))), "{refused:?}");
    assert_eq!(house.store.cameras().await, Ok(vec![camera.clone()]), "nothing is kept of it");
    assert_eq!(house.cameras.list(), vec![camera]);
    assert_eq!(house.cameras.statuses()[0].state, online(), "its source goes on");
}

#[tokio::test]
async fn a_credential_that_is_kept_is_in_force_without_being_read_again() {
    let house = House::open().await;
    let camera = unreadable(&house).await;
    house.cameras.set_credential(&camera.id, Some(credential()), None).await.expect("it is kept");
    let created = house.cameras.create(named("hall"), Some(credential()), None).await.expect("it is kept");
    assert_eq!(house.cameras.list().iter().map(|camera| camera.revision).collect::<Vec<_>>(), [2, 1]);
    assert!(created.has_credential);
    for status in house.cameras.statuses() {
        assert_eq!(status.state, CameraState::Connecting, "{}", status.camera);
    }
}

#[tokio::test(start_paused = true)]
async fn sources_are_stuck_for_the_watchdog_only_where_none_works_any_more() {
    let house = House::open().await;
    house.watches(&named("disabled"), online());
    house.clock.advance(10 * SOURCE_STUCK_AFTER);
    assert!(house.cameras.stuck().is_none(), "nothing is to be heard where there is no source");
    let (door, hall) = (named("door"), named("hall"));
    let [of_door, of_hall] = [&door, &hall].map(|camera| house.has_source(camera));
    house.clock.advance(SOURCE_STUCK_AFTER - Duration::from_millis(1));
    assert!(house.cameras.stuck().is_none(), "to connect may take this long");
    of_hall.works(&hall.id, house.clock.now());
    house.clock.advance(Duration::from_millis(1));
    assert!(house.cameras.stuck().is_none(), "one is stuck, and the other works");
    house.clock.advance(SOURCE_STUCK_AFTER);
    assert!(house.cameras.stuck().is_some(), "both are stuck");
    // It is away for an hour, and that is no fault of its source.
    let next_attempt_time = Some(house.clock.now().plus(Duration::from_secs(3600)));
    of_door.state(&door.id, CameraState::Offline { reason: OfflineReason::Unauthorised, message: String::new(), next_attempt_time });
    house.clock.advance(Duration::from_secs(3600));
    assert!(house.cameras.stuck().is_none(), "an absent camera is tried again when its time has come");
    // What a source says that another one has replaced is no sign of life.
    of_hall.source.cancel();
    house.clock.advance(SOURCE_STUCK_AFTER);
    of_hall.works(&hall.id, house.clock.now());
    assert!(house.cameras.stuck().is_some());
}
