//! Frames that lie on a device are followed, cut out and encoded there: the same is told as of frames in the host's memory.

use std::sync::Weak;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::event::Event;
use crate::face::Photometry;
use crate::frame::DevicePixels;
use crate::infer::{FaceOnDevice, align};
use crate::quality;

/// The host's memory, standing for a device's.
struct Memory(Vec<u8>, Arc<Copies>);

impl Drop for Memory {
    fn drop(&mut self) {
        self.1.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often pictures came back from the device, and how often the scene was locked all the while.
#[derive(Default)]
struct Copies {
    pipeline: OnceLock<Weak<Shared>>,
    all: AtomicUsize,
    under_lock: AtomicUsize,
    /// Pictures that were brought to the device, and those whose memory is held there.
    placed: AtomicUsize,
    held: AtomicUsize,
}

impl Copies {
    fn count(&self) {
        let cell = self.pipeline.get().and_then(Weak::upgrade).and_then(|shared| Pipeline(shared).cell(&camera("door")));
        // Somebody else may be at it for a moment.
        let is_free = |cell: Arc<SceneCell>| {
            (0..200).any(|_| {
                std::thread::sleep(Duration::from_millis(1));
                cell.scene.try_lock().is_ok()
            })
        };
        self.all.fetch_add(1, Ordering::Relaxed);
        self.under_lock.fetch_add(usize::from(!cell.is_none_or(is_free)), Ordering::Relaxed);
    }
}

impl DevicePixels for Memory {
    fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }

    fn bytes(&self) -> usize {
        self.0.len()
    }

    fn to_host(&self) -> Result<Vec<u8>, String> {
        self.1.count();
        Ok(self.0.clone())
    }
}

/// What the made-up sessions do on the host, of frames that are on a device.
struct OnDevice {
    host: MadeUp,
    measured: Arc<AtomicUsize>,
    copies: Arc<Copies>,
}

/// A look at the pixels where they are, which nobody but the device has.
fn seen(frame: &Frame) -> Frame {
    let pixels = frame.device_pixels().expect("it was brought to the device");
    // SAFETY: the memory is the host's, and the frame holds it.
    let bytes = unsafe { std::slice::from_raw_parts(pixels.address() as *const u8, pixels.bytes()) };
    let mut there = Frame::new(frame.camera.clone(), frame.capture_time, *frame.format(), Arc::new(bytes.to_vec())).expect("it fits");
    there.sequence = frame.sequence;
    there
}

fn crop(face: &FaceOnDevice) -> AlignedFace {
    align(&seen(&face.frame), &face.landmarks)
}

impl Inference for OnDevice {
    fn place(&mut self, frames: Vec<Frame>) -> Result<Vec<Frame>, InferError> {
        let place = |frame: Frame| {
            let bytes = frame.copied().expect("it is in the host's memory").plane(0).to_vec();
            self.copies.held.fetch_add(1, Ordering::Relaxed);
            self.copies.placed.fetch_add(1, Ordering::Relaxed);
            frame.moved_to_device(*frame.format(), Arc::new(Memory(bytes, Arc::clone(&self.copies)))).expect("it fits")
        };
        Ok(frames.into_iter().map(place).collect())
    }

    fn detect(&mut self, requests: &[DetectRequest], lane: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        let there = requests.iter().map(|request| DetectRequest { frame: seen(&request.frame), ..request.clone() });
        self.host.detect(&there.collect::<Vec<_>>(), lane)
    }

    fn measure(&mut self, faces: &[FaceOnDevice]) -> Result<Vec<Photometry>, InferError> {
        let count = self.measured.fetch_add(faces.len(), Ordering::Relaxed);
        self.host.fails(("measure", count), self.host.faults.encode_percent)?;
        Ok(faces.iter().map(|face| quality::photometry(&crop(face))).collect())
    }

    fn encode(&mut self, _: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        panic!("no face is cut out on the host");
    }

    fn encode_on_device(&mut self, faces: &[FaceOnDevice]) -> Result<Vec<Template>, InferError> {
        self.host.encode(&faces.iter().map(crop).collect::<Vec<_>>())
    }
}

/// A house whose session is on a device, how often faces are measured there, and what comes back.
async fn on_device(faults: Faults) -> (House, Arc<AtomicUsize>, Arc<Copies>) {
    let mut house = House::at_rest(faults, 1).await;
    let (measured, copies) = (Arc::new(AtomicUsize::new(0)), Arc::new(Copies::default()));
    let sessions = vec![OnDevice { host: MadeUp { faults, encoded: 0 }, measured: Arc::clone(&measured), copies: Arc::clone(&copies) }];
    let engine = Engine::of_device_sessions(sessions, facts(1, faults), 4).expect("a thread");
    let gallery = Gallery::with_clock(space(), house.clock.clone());
    house.uids = BTreeMap::from([1, 2].map(|number| (number, enrol(&gallery, number))));
    house.pipeline = Pipeline::new(engine, gallery, house.events.clone(), house.clock.clone());
    copies.pipeline.get_or_init(|| Arc::downgrade(&house.pipeline.0));
    (house.running(), measured, copies)
}

/// Persons 1, 2 and a stranger walk past. Answers what was told, how often faces were measured, and how many frames were lost.
async fn walked_past(faults: Faults) -> (Vec<LoggedEvent>, usize, u64) {
    let (house, measured, _) = on_device(faults).await;
    let (camera, feeding) = walk_past(&house, "door", 3 * CYCLE_FRAMES);
    until("all frames are analysed", || feeding.is_finished() && house.pipeline.is_idle()).await;
    let lost = house.pipeline.frame_counts(&camera).expect("it is watched").dropped_failed;
    let told = house.told(std::slice::from_ref(&camera)).await;
    (told, measured.load(Ordering::Relaxed), lost)
}

fn decisions(told: &[LoggedEvent]) -> Vec<(EventKind, bool, Option<f32>)> {
    let decided = told.iter().map(|logged| &logged.event).filter(|event| event.kind != EventKind::VisitStarted);
    decided.map(|event| (event.kind, event.subject.is_some(), event.quality)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn visitors_on_a_device_are_told_as_those_on_the_host() {
    let (there, measured, lost) = walked_past(Faults::default()).await;
    let house = House::open(Faults::default(), 1).await;
    let (camera, feeding) = walk_past(&house, "door", 3 * CYCLE_FRAMES);
    until("all frames are analysed", || feeding.is_finished() && house.pipeline.is_idle()).await;
    let here = house.told(std::slice::from_ref(&camera)).await;
    assert_eq!(decisions(&there), decisions(&here));
    assert!(measured > 6 && lost == 0, "{measured} faces were measured on the device, {lost} frames lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_copied_from_a_device_while_nobody_waits_for_the_scene() {
    let (house, _, copies) = on_device(Faults::default()).await;
    let door = camera("door");
    let sink = house.watch(&door, SlotPolicy::NewestWins);
    let next = house.pipeline.next_frame(&door).expect("it is watched");
    for _ in 0..8 {
        sink.offer(frame(&door, house.clock.now(), Some(1), 40));
        until("the frame has left", || house.pipeline.is_idle()).await;
        house.clock.advance(FRAME_EVERY);
    }
    assert!(next.await.expect("it is shown").frame.device_pixels().is_none(), "an onlooker's is a copy, too");
    let told = house.told(&[door]).await;
    let identified = told.iter().find(|logged| logged.event.kind == EventKind::Identified).expect("somebody came");
    assert!(identified.event.snapshot.is_some(), "the picture was kept");
    let counted = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    // Eight frames of one visit have one best shot, as they are alike.
    assert_eq!((counted(&copies.all), counted(&copies.under_lock)), (2, 0));
}

/// Somebody stands at the door for one frame more.
async fn stands(house: &House, sink: &dyn FrameSink) {
    sink.offer(frame(&camera("door"), house.clock.now(), Some(1), 40));
    until("the frame has left", || house.pipeline.is_idle()).await;
    house.clock.advance(FRAME_EVERY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decoder_has_its_surface_back_before_what_was_seen_in_it_is_on_disk() {
    let door = camera("door");
    // How many frames come before the one in which something is to be told.
    let (house, ..) = on_device(Faults::default()).await;
    let (sink, mut before) = (house.watch(&door, SlotPolicy::NewestWins), 0);
    stands(&house, &*sink).await;
    while house.events.position().sequence == 0 {
        before += 1;
        stands(&house, &*sink).await;
    }

    let (house, _, copies) = on_device(Faults::default()).await;
    let sink = house.watch(&door, SlotPolicy::NewestWins);
    for _ in 0..before {
        stands(&house, &*sink).await;
    }
    let ((go, held_up), (entered, is_held_up)) = (std::sync::mpsc::sync_channel::<()>(1), tokio::sync::oneshot::channel());
    let (events, elsewhere) = (house.events.clone(), Event::new(EventKind::CameraOnline, "elsewhere", house.clock.now()));
    let busy = tokio::spawn(async move {
        let hold_up = move |_| {
            entered.send(()).expect("it is awaited");
            held_up.recv().expect("it is sent");
        };
        events.append_then(vec![elsewhere], hold_up).await
    });
    is_held_up.await.expect("the log's own thread waits");
    sink.offer(frame(&door, house.clock.now(), Some(1), 40));
    let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    until("its memory is let go of", || read(&copies.placed) == before + 1 && read(&copies.held) == 0).await;
    assert!(!house.pipeline.is_idle(), "the batch waits for the log");
    go.send(()).expect("it waits");
    busy.await.expect("no panic").expect("written");
    until("the batch has left", || house.pipeline.is_idle()).await;
    assert!(!house.told(&[door]).await.is_empty(), "it was told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_measure_loses_the_frames_of_those_faces_and_they_are_counted() {
    let (told, _, lost) = walked_past(Faults { seed: 5, encode_percent: 40, ..Faults::default() }).await;
    assert!(lost > 0, "some were lost");
    let kinds: Vec<EventKind> = decisions(&told).into_iter().map(|(kind, ..)| kind).filter(|kind| *kind != EventKind::VisitEnded).collect();
    assert_eq!(kinds, [EventKind::Identified, EventKind::Identified, EventKind::Unidentified], "the others were enough");
}

/// What a session is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Detect,
    Measure,
    Encode,
}

/// Fails at one step for a batch in which the camera `odd` is, and for its pictures by themselves.
struct FailsAtOne {
    there: OnDevice,
    step: Step,
    error: fn(String) -> InferError,
    /// How often something of other cameras was refused with it.
    refused: Arc<AtomicUsize>,
}

impl FailsAtOne {
    fn refuses<'a>(&self, step: Step, mut frames: impl Iterator<Item = &'a Frame> + Clone) -> Result<(), InferError> {
        let is_odd = |frame: &Frame| frame.camera.as_str() == "odd";
        if step != self.step || !frames.clone().any(is_odd) {
            return Ok(());
        }
        self.refused.fetch_add(usize::from(!frames.all(is_odd)), Ordering::Relaxed);
        Err((self.error)("it is odd".into()))
    }
}

impl Inference for FailsAtOne {
    fn place(&mut self, frames: Vec<Frame>) -> Result<Vec<Frame>, InferError> {
        self.there.place(frames)
    }

    fn detect(&mut self, requests: &[DetectRequest], lane: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        self.refuses(Step::Detect, requests.iter().map(|request| &request.frame))?;
        self.there.detect(requests, lane)
    }

    fn measure(&mut self, faces: &[FaceOnDevice]) -> Result<Vec<Photometry>, InferError> {
        self.refuses(Step::Measure, faces.iter().map(|face| &face.frame))?;
        self.there.measure(faces)
    }

    fn encode(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        self.there.encode(faces)
    }

    fn encode_on_device(&mut self, faces: &[FaceOnDevice]) -> Result<Vec<Template>, InferError> {
        self.refuses(Step::Encode, faces.iter().map(|face| &face.frame))?;
        self.there.encode_on_device(faces)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_whose_pictures_fail_takes_no_frame_of_another_with_it() {
    for step in [Step::Detect, Step::Measure, Step::Encode] {
        for error in [InferError::NoRoom, InferError::Session, InferError::BadPicture] as [fn(String) -> InferError; 3] {
            println!("{step:?}: {}", error("it is odd".into()));
            fails_at_one(step, error).await;
        }
    }
}

async fn fails_at_one(step: Step, error: fn(String) -> InferError) {
    let faults = Faults::default();
    let mut house = House::at_rest(faults, 1).await;
    let refused = Arc::new(AtomicUsize::new(0));
    let there = OnDevice { host: MadeUp { faults, encoded: 0 }, measured: Arc::default(), copies: Arc::default() };
    let sessions = vec![FailsAtOne { there, step, error, refused: refused.clone() }];
    let engine = Engine::of_device_sessions(sessions, facts(1, faults), 4).expect("a thread");
    let gallery = Gallery::with_clock(space(), house.clock.clone());
    house.uids = BTreeMap::from([1, 2].map(|number| (number, enrol(&gallery, number))));
    house.pipeline = Pipeline::new(engine, gallery, house.events.clone(), house.clock.clone());
    let house = house.running();
    // At the same moments: the clock goes on with the frames alone, and neither camera may be waited for in vain.
    let ([odd, door], feeding) = walk_past_all(&house, ["odd", "door"], 3 * CYCLE_FRAMES);
    until("all frames came", || feeding.is_finished()).await;
    house.clock.advance(Duration::from_secs(2));
    until("all frames are looked at", || house.pipeline.is_idle()).await;
    let counts = |camera| house.pipeline.frame_counts(camera).expect("it is watched");
    assert!(refused.load(Ordering::Relaxed) > 0, "some batches held frames of both");
    assert_eq!(counts(&door).dropped_failed, 0, "its frames went through by themselves");
    assert!(counts(&odd).dropped_failed > 0 && (step != Step::Detect || counts(&odd).analysed == 0));
    let told = house.told(&[odd.clone(), door.clone()]).await;
    let of = |camera: &CameraId| {
        let events = told.iter().map(|logged| &logged.event).filter(|event| *event.camera == *camera.as_str());
        events.map(|event| event.kind).filter(|kind| !matches!(kind, EventKind::VisitStarted | EventKind::VisitEnded)).collect::<Vec<_>>()
    };
    assert_eq!(of(&door), [EventKind::Identified, EventKind::Identified, EventKind::Unidentified]);
    assert!(!of(&odd).contains(&EventKind::Identified), "{:?}", of(&odd));
}
