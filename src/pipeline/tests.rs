//! The pipeline on made-up faces: real slots, session threads, tracks, visits, gallery and log; a
//! detector and an encoder that read who is there off the picture, and fail when a seed says so.
//!
//! In: frames of a clock that the test drives. Out: the events that are told.
//! Must not know: models, cameras.

mod changing;
mod device;
mod full_disk;
mod liveness;
mod rates;
mod shadow;
mod telling;
mod token;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::sweeping::SWEEP_EVERY;
use super::*;
use crate::batch::SlotPolicy;
use crate::camera::Role;
use crate::clock::SimulatedClock;
use crate::config::Config;
use crate::decide::Policy;
use crate::event::{EndReason, EventKind, LoggedEvent, Rejection};
use crate::event_log::Subscription;
use crate::face::{ALIGNED_SIDE, AlignedFace, Landmarks, Point, Quality, TemplateSpace};
use crate::frame::{PixelFormat, Size};
use crate::infer::{DetectRequest, EngineFacts, FaceInFrame, Inference, Lane};
use crate::ingest::FrameSink;
use crate::mutation::Mutation;
use crate::store::Store;
use crate::subject::{Sample, SampleId, Subject, SubjectUid};
use crate::track::TrackPolicy;
use crate::visit::VisitPolicy;

const SIZE: Size = Size { width: 320, height: 240 };
/// Where faces are from the top, and how far frames are apart.
const FACE_TOP: usize = 60;
const FRAME_EVERY: Duration = Duration::from_millis(100);
/// A person is seen for this many frames, then nobody for as many as end the visit.
const SEEN_FRAMES: usize = 25;
const CYCLE_FRAMES: usize = 40;
/// Blue is the person's number times this; where nobody is there is none.
const BLUE_STEP: u8 = 40;
/// How the landmarks of a frontal face lie in its square.
const LANDMARKS: [(f32, f32); 5] = [(38.3, 51.6), (73.5, 51.6), (56.0, 71.7), (41.5, 92.3), (70.7, 92.3)];

fn space() -> TemplateSpace {
    TemplateSpace::new("made-up")
}

/// The template of person `number`: an axis of its own, so that strangers have nothing in common.
fn template(number: usize) -> Template {
    let axis: Vec<f32> = (0..8).map(|i| if i == number { 1.0 } else { 0.0 }).collect();
    Template::normalised(space(), &axis).expect("it has a direction")
}

/// How often inference fails, in percent, and by which seed. A frame's fate does not depend on when
/// its turn comes, so that a run can be repeated.
#[derive(Clone, Copy, Default)]
struct Faults {
    seed: u64,
    detect_percent: u64,
    encode_percent: u64,
    /// `None` has no antispoof model.
    live_percent: Option<u64>,
}

struct MadeUp {
    faults: Faults,
    encoded: u64,
}

impl MadeUp {
    fn fails(&self, what: impl Hash, percent: u64) -> Result<(), InferError> {
        let mut hasher = DefaultHasher::new();
        (self.faults.seed, what).hash(&mut hasher);
        if hasher.finish() % 100 < percent { Err(InferError::Session("as the seed wants".into())) } else { Ok(()) }
    }
}

impl Inference for MadeUp {
    fn detect(&mut self, requests: &[DetectRequest], _: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        let mut found = Vec::new();
        for DetectRequest { frame, face_pixels_min, .. } in requests {
            self.fails((&frame.camera, frame.capture_time.as_micros()), self.faults.detect_percent)?;
            let row = &frame.plane(0)[(FACE_TOP + 50) * SIZE.width as usize * 3..][..SIZE.width as usize * 3];
            let (pixels, _) = row.as_chunks::<3>();
            let left = pixels.iter().position(|pixel| pixel[2] > 0);
            let faces = left.map(|left| face_at(left as f32, person_of(pixels[left][2]))).into_iter();
            // Somebody far away, whose small face comes first.
            let far_away = frame.plane(0).last() > Some(&0) && *face_pixels_min <= telling::FAR_AWAY.width as u32;
            found.push(far_away.then(telling::far_away).into_iter().chain(faces).collect());
        }
        Ok(found)
    }

    fn encode(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        self.encoded += 1;
        self.fails(("encode", self.encoded), self.faults.encode_percent)?;
        let blue = |face: &AlignedFace| face.rgb()[(ALIGNED_SIDE / 2 * ALIGNED_SIDE + ALIGNED_SIDE / 2) * 3 + 2];
        Ok(faces.iter().map(|face| template(person_of(blue(face)))).collect())
    }

    fn live_scores(&mut self, faces: &[FaceInFrame]) -> Result<Vec<f32>, InferError> {
        self.scores_of(faces)
    }
}

fn person_of(blue: u8) -> usize {
    usize::from((blue + BLUE_STEP / 2) / BLUE_STEP)
}

/// The face of `person`; a lower number has the larger one.
fn face_at(left: f32, person: usize) -> Detection {
    let top = FACE_TOP as f32;
    let landmarks = Landmarks(LANDMARKS.map(|(x, y)| Point { x: left + x, y: top + y }));
    Detection {
        box_in_frame: Rect { x: left + 20.0, y: top + 20.0, width: 90.0 - 12.0 * person as f32, height: 90.0 },
        score: 0.95,
        landmarks,
    }
}

/// A frame in which `person` (or nobody) stands, the left edge of the face `left` pixels from the left.
fn frame(camera: &CameraId, time: Timestamp, person: Option<usize>, left: usize) -> Frame {
    let width = SIZE.width as usize;
    let mut pixels = vec![0; width * SIZE.height as usize * 3];
    if let Some(person) = person {
        for (x, y) in (0..ALIGNED_SIDE * ALIGNED_SIDE).map(|i| (i % ALIGNED_SIDE, i / ALIGNED_SIDE)) {
            let grey = if (x / 4 + y / 4).is_multiple_of(2) { 60 } else { 190 };
            let at = ((FACE_TOP + y) * width + left + x) * 3;
            pixels[at..at + 3].copy_from_slice(&[grey, grey, person as u8 * BLUE_STEP]);
        }
    }
    Frame::new(camera.clone(), time, PixelFormat::rgb8(SIZE), Arc::new(pixels)).expect("the pixels are there")
}

/// Everything from slots to log, with persons 1 and 2 enrolled.
struct House {
    pipeline: Pipeline,
    events: EventLog,
    store: Store,
    subscription: Subscription,
    clock: Arc<SimulatedClock>,
    uids: BTreeMap<usize, SubjectUid>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), PipelineError>>,
    /// How every camera is analysed.
    scene: SceneSettings,
    data: tempfile::TempDir,
}

impl House {
    async fn open(faults: Faults, sessions: usize) -> Self {
        Self::at_rest(faults, sessions).await.running()
    }

    /// Before anything runs.
    async fn at_rest(faults: Faults, sessions: usize) -> Self {
        let data = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000_000)));
        let store = Store::open(data.path()).expect("it opens");
        let events = EventLog::open(store.clone(), 10_000).await.expect("it opens");
        let gallery = Gallery::with_clock(space(), clock.clone());
        let uids = BTreeMap::from([1, 2].map(|number| (number, enrol(&gallery, number))));
        let made_up = (0..sessions).map(|_| MadeUp { faults, encoded: 0 }).collect();
        let engine = Engine::of_sessions(made_up, facts(sessions, faults)).expect("threads can be had");
        let pipeline = Pipeline::new(engine, gallery, events.clone(), clock.clone());
        let (stop, running) = (CancellationToken::new(), tokio::spawn(async { Ok(()) }));
        Self { subscription: events.subscribe(), pipeline, events, store, clock, uids, stop, running, scene: scene(), data }
    }

    fn running(self) -> Self {
        let (pipeline, stop) = (self.pipeline.clone(), self.stop.clone());
        Self { running: tokio::spawn(async move { pipeline.run(stop).await }), ..self }
    }

    fn watch(&self, camera: &CameraId, policy: SlotPolicy) -> Arc<dyn FrameSink> {
        let is_live = policy == SlotPolicy::NewestWins;
        let scene = SceneSettings { snapshots: is_live, measure: is_live, ..self.scene.clone() };
        let slot = SlotSettings { role: Role::Entry, analysis_fps_max: None, policy };
        self.pipeline.watch(Watch { camera: camera.clone(), slot, scene })
    }

    /// Ends what is open and answers everything that was told.
    async fn told(mut self, cameras: &[CameraId]) -> Vec<LoggedEvent> {
        for camera in cameras {
            self.pipeline.forget(camera, EndReason::CameraRemoved).await.expect("it is told");
        }
        self.stop.cancel();
        self.running.await.expect("it ends").expect("without an error");
        self.events.close();
        let mut told = Vec::new();
        while let Ok(events) = self.subscription.next().await {
            told.extend(events);
        }
        told
    }
}

/// How every camera is analysed, unless a test says otherwise: whoever comes back begins another visit.
fn scene() -> SceneSettings {
    let base = SceneSettings::of(&Config::default(), &Policy::fixed(0.5));
    let visit = VisitPolicy { decide_after: None, reassert_every: None, resume_within: Duration::ZERO, threshold: 0.363, ..base.visit };
    let track = TrackPolicy { unseen_max: Duration::from_secs(1), ..base.track };
    SceneSettings { track, visit, ..base }
}

fn enrol(gallery: &Gallery, number: usize) -> SubjectUid {
    let uid = SubjectUid(uuid::Uuid::now_v7());
    enrol_as(gallery, (uid, number), template(number));
    uid
}

fn enrol_as(gallery: &Gallery, (uid, number): (SubjectUid, usize), template: Template) {
    let now = Timestamp::default();
    let subject = Subject { uid, ..Subject::made_up(&format!("person-{number}"), 0) };
    let id = SampleId(uuid::Uuid::now_v7());
    let sample = Sample {
        id,
        subject: uid,
        quality: Quality::default(),
        content_sha256: [0; 32],
        create_time: now,
        folder_path: None,
        negative: false,
    };
    let put = Mutation::PutSample { sample, template, photo: Arc::new([]) };
    gallery.apply(gallery.current().version() + 1, &[Mutation::PutSubject(subject), put]);
}

fn facts(sessions: usize, faults: Faults) -> EngineFacts {
    EngineFacts { sessions, models: liveness::models(faults), ..EngineFacts::made_up(space()) }
}

fn camera(name: &str) -> CameraId {
    CameraId::parse(name).expect("a good id")
}

/// Person 1, 2, 3 (a stranger), 1, 2, … walk past, one after the other, on a replay's own time.
fn walk_past(house: &House, name: &str, frames: usize) -> (CameraId, std::thread::JoinHandle<()>) {
    let ([camera], feeding) = walk_past_all(house, [name], frames);
    (camera, feeding)
}

/// The same before several cameras, which see them at the same moments.
fn walk_past_all<const N: usize>(house: &House, names: [&str; N], frames: usize) -> ([CameraId; N], std::thread::JoinHandle<()>) {
    let cameras = names.map(camera);
    let sinks = cameras.each_ref().map(|camera| (camera.clone(), house.watch(camera, SlotPolicy::Wait)));
    let (clock, begin) = (house.clock.clone(), house.clock.now());
    let feeding = std::thread::spawn(move || {
        for number in 0..frames {
            let at = begin.plus(FRAME_EVERY * number as u32);
            clock.advance_to(at);
            let step = number % CYCLE_FRAMES;
            let person = (step < SEEN_FRAMES).then_some(number / CYCLE_FRAMES % 3 + 1);
            sinks.iter().for_each(|(camera, sink)| sink.offer(frame(camera, at, person, 10 + step * 4)));
        }
    });
    (cameras, feeding)
}

/// For so long something may be awaited, in real time: far longer than anything takes, and less than the minute after which a test
/// counts as hanging.
const PATIENCE: Duration = Duration::from_secs(50);

/// Waits for it. Its patience is a thread's: a clock that is paused says nothing of what session threads take, and stands still in a
/// runtime that never rests.
async fn in_time<T>(what: &str, coming: impl Future<Output = T>) -> T {
    let ((done, is_done), (over, is_over)) = (std::sync::mpsc::sync_channel::<()>(1), oneshot::channel::<()>());
    std::thread::spawn(move || {
        // Nothing is ever sent: that the sender is gone says that nobody waits any more.
        if is_done.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            drop(over);
        }
    });
    let _done = done;
    tokio::select! {
        biased;
        came = coming => came,
        _ = is_over => panic!("it never came to this within {PATIENCE:?}: {what}"),
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let coming = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    in_time(what, coming).await;
}

/// Each visit's events, in the order of their starts.
fn visits(told: &[LoggedEvent], camera: &CameraId) -> Vec<Vec<LoggedEvent>> {
    let mut visits: Vec<Vec<LoggedEvent>> = Vec::new();
    for event in told.iter().filter(|logged| *logged.event.camera == *camera.as_str()) {
        match visits.iter_mut().find(|visit| visit[0].event.visit == event.event.visit) {
            Some(visit) => visit.push(event.clone()),
            None => visits.push(vec![event.clone()]),
        }
    }
    visits
}

fn kinds(visit: &[LoggedEvent]) -> Vec<EventKind> {
    visit.iter().map(|logged| logged.event.kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_passer_by_is_told_once_and_as_who_it_is() {
    let house = House::open(Faults::default(), 1).await;
    let (uids, (camera, feeding)) = (house.uids.clone(), walk_past(&house, "door", 3 * CYCLE_FRAMES));
    until("all frames are analysed", || feeding.is_finished() && house.pipeline.is_idle()).await;
    assert_eq!(house.pipeline.counts().frames, 3 * CYCLE_FRAMES as u64);
    // Far less than every face of every frame is encoded.
    assert!(house.pipeline.counts().encoded < house.pipeline.counts().faces / 4, "{:?}", house.pipeline.counts());
    let told = house.told(std::slice::from_ref(&camera)).await;

    let visits = visits(&told, &camera);
    let decided: Vec<_> = visits.iter().map(|visit| (kinds(visit)[1], visit[1].event.subject)).collect();
    assert_eq!(
        decided,
        [(EventKind::Identified, Some(uids[&1])), (EventKind::Identified, Some(uids[&2])), (EventKind::Unidentified, None)]
    );
    for visit in &visits {
        assert_eq!((visit.len(), kinds(visit)[0], kinds(visit)[2]), (3, EventKind::VisitStarted, EventKind::VisitEnded));
        let times: Vec<_> = visit.iter().map(|logged| logged.event.capture_time_us).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
    for pair in visits.windows(2) {
        assert!(pair[0][2].sequence < pair[1][0].sequence, "a visit ends when its visitor has gone, not when the next one has");
    }
    let stranger = visits[2][1].event.decision.as_ref().expect("it says why");
    assert_eq!((stranger.rejection, stranger.gallery_subjects), (Some(Rejection::BelowThreshold), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_inference_loses_frames_and_neither_events_nor_their_order() {
    for seed in [1, 2, 3, 4, 5] {
        println!("seed {seed}");
        let house = House::open(Faults { seed, detect_percent: 20, encode_percent: 30, ..Faults::default() }, 2).await;
        let uids = house.uids.clone();
        let frames = 6 * CYCLE_FRAMES;
        let cameras: Vec<_> = ["door", "hall", "yard"].map(|name| walk_past(&house, name, frames)).into();
        until("all frames have left", || cameras.iter().all(|(_, feeding)| feeding.is_finished()) && house.pipeline.is_idle()).await;
        let cameras: Vec<CameraId> = cameras.into_iter().map(|(camera, _)| camera).collect();
        for camera in &cameras {
            let counts = house.pipeline.frame_counts(camera).expect("it is watched");
            assert_eq!((counts.received, counts.analysed + counts.dropped_failed), (frames as u64, frames as u64), "seed {seed}");
            assert!(counts.dropped_failed > frames as u64 / 10, "seed {seed}: {counts:?}");
        }
        let told = house.told(&cameras).await;
        let sequences: Vec<u64> = told.iter().map(|logged| logged.sequence).collect();
        assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "seed {seed}: each event once and in order");
        for camera in &cameras {
            let expected = [(1, true), (2, true), (3, false), (1, true), (2, true), (3, false)];
            let visits = visits(&told, camera);
            assert_eq!(visits.len(), expected.len(), "seed {seed}, {camera}");
            for (visit, (number, is_known)) in visits.iter().zip(expected) {
                let decision = if is_known { EventKind::Identified } else { EventKind::Unidentified };
                assert_eq!(kinds(visit), [EventKind::VisitStarted, decision, EventKind::VisitEnded], "seed {seed}, {camera}");
                assert_eq!(visit[1].event.subject, uids.get(&number).copied(), "seed {seed}, {camera}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_tells_the_same_whenever_it_is_run() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let house = House::open(Faults { seed: 7, detect_percent: 20, encode_percent: 30, ..Faults::default() }, 1).await;
        let (camera, feeding) = walk_past(&house, "door", 4 * CYCLE_FRAMES);
        until("all frames have left", || feeding.is_finished() && house.pipeline.is_idle()).await;
        let numbers: BTreeMap<SubjectUid, usize> = house.uids.iter().map(|(number, uid)| (*uid, *number)).collect();
        let told = house.told(std::slice::from_ref(&camera)).await;
        let facts = told.iter().map(|logged| {
            let event = &logged.event;
            let who = event.subject.map(|uid| numbers[&uid]);
            (logged.sequence, event.kind, event.capture_time_us, event.decision_time_us, who, event.shots.clone())
        });
        runs.push(facts.collect::<Vec<_>>());
    }
    assert!(runs[0].len() > 8);
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test(start_paused = true)]
async fn a_visitor_whose_face_cannot_be_encoded_is_told_as_unidentified_at_the_deadline() {
    let mut house = House::open(Faults { encode_percent: 100, ..Faults::default() }, 1).await;
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    for number in 1..=5 {
        sink.offer(frame(&camera, house.clock.now(), Some(1), 40));
        until("the frame has left", || house.pipeline.is_idle()).await;
        assert_eq!(house.pipeline.counts().frames, number);
        house.clock.advance(FRAME_EVERY);
    }
    let counts = house.pipeline.frame_counts(&camera).expect("it is watched");
    assert!(counts.dropped_failed >= 2 && counts.analysed + counts.dropped_failed == 5, "{counts:?}");
    let started = house.subscription.next().await.expect("it is told");
    assert_eq!(kinds(&started), [EventKind::VisitStarted]);

    // No frame comes any more; the time that passes is enough. A sweep tells it.
    let before = house.clock.now();
    house.clock.advance(Duration::from_secs(3));
    let told = house.subscription.next().await.expect("it is told");
    let decided = told.iter().find(|logged| logged.event.kind == EventKind::Unidentified).expect("it is decided");
    assert_eq!(decided.event.decision.as_ref().and_then(|decision| decision.rejection), Some(Rejection::NoUsableShot));
    assert!(decided.event.decision_time_us >= before.as_micros());
    house.told(&[camera]).await;
}

#[tokio::test(start_paused = true)]
async fn a_camera_that_delays_its_pictures_has_whole_visits() {
    let house = House::open(Faults::default(), 1).await;
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    for _ in 0..20 {
        // Longer than a track may be unseen.
        sink.offer(frame(&camera, house.clock.now().minus(Duration::from_secs(4)), Some(1), 40));
        until("the frame has left", || house.pipeline.is_idle()).await;
        house.clock.advance(FRAME_EVERY);
        tokio::time::sleep(SWEEP_EVERY * 2).await;
    }
    let told = house.told(&[camera]).await;
    assert_eq!(kinds(&told), [EventKind::VisitStarted, EventKind::Identified, EventKind::VisitEnded]);
    let late = told[1].event.decision_time_us - told[1].event.capture_time_us;
    assert!(late >= 4_000_000, "the decision was taken in the present: {late} us after the picture");
}

#[tokio::test(start_paused = true)]
async fn a_picture_of_whoever_took_a_visitors_place_is_not_kept_as_the_visitors() {
    let house = House::open(Faults::default(), 1).await;
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    // A stranger, too shortly for a decision; then somebody whose face is larger, in the same place.
    for person in [3, 3, 2] {
        sink.offer(frame(&camera, house.clock.now(), Some(person), 40));
        until("the frame has left", || house.pipeline.is_idle()).await;
        house.clock.advance(FRAME_EVERY);
    }
    let store = house.store.clone();
    let told = house.told(&[camera]).await;
    assert_eq!(kinds(&told), [EventKind::VisitStarted, EventKind::Unidentified, EventKind::VisitEnded]);
    let snapshot = told[1].event.snapshot.expect("the stranger has a picture");
    let snapshot = store.snapshot(snapshot).await.expect("it is read").expect("it is there");
    let crop = image::load_from_memory(&snapshot.crop_jpeg).expect("it is a JPEG").into_rgb8();
    // JPEG spreads colour over neighbouring squares: their mean tells.
    let middle = image::imageops::crop_imm(&crop, crop.width() / 2 - 8, crop.height() / 2 - 8, 16, 16).to_image();
    let blue = middle.pixels().map(|pixel| u32::from(pixel[2])).sum::<u32>() / 256;
    assert_eq!(person_of(blue as u8), 3, "blue is {blue}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_camera_ends_its_visits_and_frames_of_its_sink_change_nothing() {
    let house = House::open(Faults::default(), 1).await;
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::Wait);
    for number in 0..5 {
        sink.offer(frame(&camera, house.clock.now().plus(FRAME_EVERY * number), Some(1), 40));
    }
    until("all frames are analysed", || house.pipeline.is_idle()).await;
    house.pipeline.forget(&camera, EndReason::CameraRemoved).await.expect("it is told");
    sink.offer(frame(&camera, house.clock.now().plus(FRAME_EVERY * 9), Some(1), 40));
    let told = house.told(&[]).await;
    assert_eq!(kinds(&told), [EventKind::VisitStarted, EventKind::Identified, EventKind::VisitEnded]);
    assert_eq!(told[2].event.end_reason, Some(EndReason::CameraRemoved));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_ends_the_pipeline_and_says_so() {
    let house = House::open(Faults::default(), 1).await;
    let file = std::fs::read_dir(house.data.path()).expect("it is there").map(|entry| entry.expect("it is there").path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "db" || extension == "sqlite"));
    let db = rusqlite::Connection::open(file.expect("the database")).expect("it opens");
    db.execute_batch("DROP TABLE open_visits").expect("it is damaged");
    let (_, feeding) = walk_past(&house, "door", 10);
    let ended = house.running.await.expect("it ends");
    assert!(matches!(ended, Err(PipelineError::Log(_))), "{ended:?}");
    drop(feeding);
}
