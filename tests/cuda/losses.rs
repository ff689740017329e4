//! Calls of the driver fail below the engine: each of them once, and all from one on.
//!
//! In: the number of a call. Out: answers that are right or name a call, an engine that goes on or tells why it does not.
//! Must not know: models.

use std::fmt::Debug;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use doorward::config::MirrorChoice;
use doorward::face::{Detection, Template};
use doorward::frame::{Frame, PixelFormat, PixelLayout, Size};
use doorward::infer::cuda::{DeviceSession, Gpu};
use doorward::infer::{CutFace, DetectRequest, Engine, InferError, Lane, align};
use doorward::quality;

use crate::driver::{StandIn, over_the_stand_in};
use crate::engine::{decoded, facts, is_near, on_device, request};
use crate::faults::{CODES, GIVING_BACK, image};
use crate::flow::{Decoder, manifest, noise, open};
use crate::graphs::expected;

const SIZE: (usize, usize) = (162, 92);
/// What a driver answers to every call while the device is lost, and may be had again: it is taken, it is not ready, something unknown.
const LOST: [(i32, &str); 3] = [(46, "CUDA_ERROR_DEVICE_UNAVAILABLE"), (802, "CUDA_ERROR_SYSTEM_NOT_READY"), (999, "CUDA_ERROR_UNKNOWN")];
/// What a process does not survive.
const LOST_FOR_GOOD: [(i32, &str); 3] =
    [(700, "CUDA_ERROR_ILLEGAL_ADDRESS"), (715, "CUDA_ERROR_ILLEGAL_INSTRUCTION"), (719, "CUDA_ERROR_LAUNCH_FAILED")];
/// So many tries of one kind of work in a row end an engine: docs/gpu.md.
const TRIES: u32 = 5;
/// Nothing here takes seconds.
const SOON: Duration = Duration::from_secs(60);

/// What an engine is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Place,
    Detect,
    Measure,
    Encode,
}

/// An engine of one session, which opens its device anew at once.
fn engine(stand_in: &'static StandIn) -> Engine {
    engine_with_tries(stand_in, Duration::ZERO)
}

/// The same, whose device is not opened anew so soon after it was well.
fn engine_with_tries(stand_in: &'static StandIn, apart: Duration) -> Engine {
    let gpu = Gpu::open(0).unwrap();
    let session = DeviceSession::new(Box::new(move || open(&gpu, &image(), stand_in))).unwrap();
    Engine::of_device_sessions(vec![session.with_tries_apart(apart)], facts(MirrorChoice::Off), 4).unwrap()
}

/// Why the engine has failed, if it has by now.
fn failure(engine: &Engine) -> Option<String> {
    match std::pin::pin!(engine.failed()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(reason) => Some(reason),
        Poll::Pending => None,
    }
}

/// What cameras and people send: a frame of the host, one of a decoder, a photo.
struct Sent {
    host: [Frame; 2],
    decoder: Decoder,
    photo: Frame,
}

impl Sent {
    fn new(stand_in: &'static StandIn) -> Self {
        let host = [noise(7, SIZE, PixelLayout::I420), noise(8, SIZE, PixelLayout::Nv12)];
        let decoder = Decoder::new(&Gpu::open(0).unwrap(), stand_in, host[1].clone()).unwrap();
        let bytes = (0..101 * 83 * 3).map(|at| (at * 31 % 251) as u8).collect::<Vec<u8>>();
        let format = PixelFormat::rgb8(Size { width: 101, height: 83 });
        let photo = Frame::new(host[0].camera.clone(), host[0].capture_time, format, Arc::new(bytes)).unwrap();
        Self { host, decoder, photo }
    }

    /// Asks for everything that is asked of a batch and a photo, as the pipeline and enrolment do; answers what became of each.
    /// What comes is held to be right.
    async fn ask(&self, engine: &Engine) -> Vec<Answer> {
        in_time(self.ask_in_any_time(engine)).await
    }

    /// Asks for nothing but a frame to be brought to the device.
    async fn ask_to_place(&self, engine: &Engine) -> Result<Vec<Frame>, InferError> {
        in_time(engine.place(vec![self.host[0].clone()])).await
    }

    async fn ask_in_any_time(&self, engine: &Engine) -> Vec<Answer> {
        let mut answers = Answers { engine, all: Vec::new() };
        self.ask_for_frames(&mut answers).await;
        if let Some(found) = answers.take(Work::Detect, engine.detect(Lane::Photo, vec![small(&self.photo)]).await) {
            let crop = align(&self.photo, &found[0][0].landmarks);
            let templates = engine.encode(Lane::Photo, vec![crop.clone()]).await;
            if let Some(templates) = answers.take(Work::Encode, templates) {
                assert_eq!(templates, [expected(&crop, &manifest().space())]);
            }
        }
        answers.all
    }

    async fn ask_for_frames(&self, answers: &mut Answers<'_>) {
        let engine = answers.engine;
        let batch = vec![self.host[0].clone(), decoded(&self.decoder, &self.host[1])];
        // What cannot be brought to the device is looked at from the host.
        let batch = answers.take(Work::Place, engine.place(batch.clone()).await).unwrap_or(batch);
        let found = engine.detect(Lane::Live, batch.iter().map(small).collect()).await;
        let Some(found) = answers.take(Work::Detect, found) else { return };
        assert!(found.iter().all(|faces| faces.len() == 1), "{found:?}");
        let crops: Vec<_> = self.host.iter().zip(&found).map(|(frame, faces)| align(frame, &faces[0].landmarks)).collect();
        let there: Vec<usize> = (0..2).filter(|place| batch[*place].device_pixels().is_some()).collect();
        let measured =
            engine.measure(Lane::Live, there.iter().map(|place| on_device(&batch[*place..][..1], &found[*place..])[0].clone()).collect());
        let Some(measured) = answers.take(Work::Measure, measured.await) else { return };
        for (found, place) in measured.iter().zip(&there) {
            assert!(is_near(found, &quality::photometry(&crops[*place])), "{found:?}");
        }
        let cut = |place: usize| cut((&batch[place], &self.host[place]), &found[place]);
        if let Some(templates) = answers.take(Work::Encode, engine.encode(Lane::Live, (0..2).map(cut).collect()).await) {
            assert_eq!(templates, crops.iter().map(|crop| expected(crop, &manifest().space())).collect::<Vec<Template>>());
        }
    }
}

/// On a canvas that is soon filled.
fn small(frame: &Frame) -> DetectRequest {
    DetectRequest { detector_side: Some(160), ..request(frame) }
}

/// A face where its frame is.
fn cut((frame, host): (&Frame, &Frame), faces: &[Detection]) -> CutFace {
    match frame.device_pixels() {
        Some(_) => CutFace::Device(on_device(std::slice::from_ref(frame), &[faces.to_vec()])[0].clone()),
        None => align(host, &faces[0].landmarks).into(),
    }
}

/// What became of one thing that was asked for, and why the engine had failed by then, if it had.
#[derive(Debug)]
struct Answer {
    work: Work,
    outcome: Result<(), InferError>,
    ended: Option<String>,
}

struct Answers<'a> {
    engine: &'a Engine,
    all: Vec<Answer>,
}

impl Answers<'_> {
    fn take<T: Debug>(&mut self, work: Work, answer: Result<T, InferError>) -> Option<T> {
        let (outcome, taken) = match answer {
            Ok(taken) => (Ok(()), Some(taken)),
            Err(error) => (Err(error), None),
        };
        self.all.push(Answer { work, outcome, ended: failure(self.engine) });
        taken
    }
}

/// What comes of `work`. Ends the process of the test where nothing does: whoever waits for a thread that hangs would hang, too.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.unwrap_or_else(|_| {
        eprintln!("nothing has come for {SOON:?}: it hangs");
        std::process::exit(101)
    })
}

/// Runs over the stand-in, and holds that nothing is left behind and nothing was done that a driver would punish.
fn run(test: &str, body: impl AsyncFnOnce(&'static StandIn)) {
    over_the_stand_in(test, &[], |stand_in| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(body(stand_in));
        drop(runtime);
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

/// How many calls all that is asked takes once there is memory for it, and how much is held then.
async fn settled(stand_in: &StandIn, (engine, sent): (&Engine, &Sent)) -> (u64, u64) {
    for _ in 0..3 {
        stand_in.fail(None, 0, 0);
        assert!(sent.ask(engine).await.iter().all(|answer| answer.outcome.is_ok()));
    }
    (stand_in.calls_in_all(), stand_in.held())
}

/// Asks until the engine has ended: at the fifth failure in a row of some kind of work, and not before. Answers the reason.
async fn until_ended(engine: &Engine, sent: &Sent, code: &str) -> String {
    let mut in_a_row = [0; 4];
    for _ in 0..2 * TRIES {
        for Answer { work, outcome, ended } in sent.ask(engine).await {
            let Err(error) = outcome else {
                in_a_row[work as usize] = 0;
                continue;
            };
            assert!(error.to_string().contains("failed with") && error.to_string().contains(code), "{work:?}: {error}");
            in_a_row[work as usize] += 1;
            assert_eq!(ended.is_some(), in_a_row[work as usize] == TRIES, "{in_a_row:?}: {ended:?}");
            if let Some(reason) = ended {
                return reason;
            }
        }
    }
    panic!("the device is lost, and the engine goes on: {in_a_row:?}");
}

#[test]
fn an_engine_whose_device_is_lost_answers_everything_with_the_call_that_fails_and_ends_after_five_tries() {
    const NAME: &str = "losses::an_engine_whose_device_is_lost_answers_everything_with_the_call_that_fails_and_ends_after_five_tries";
    run(NAME, async |stand_in| {
        let (calls, _) = settled(stand_in, (&engine(stand_in), &Sent::new(stand_in))).await;
        for nth in 1..=calls {
            let (engine, sent) = (engine(stand_in), Sent::new(stand_in));
            let (code, name) = LOST[nth as usize % LOST.len()];
            stand_in.lose(nth, code);
            let reason = until_ended(&engine, &sent, name).await;
            let failed = stand_in.failed().unwrap();
            for part in ["infer-0", "5 times in a row", "failed with", name] {
                assert!(reason.contains(part), "{part}, from call {nth} on, {failed}: {reason}");
            }
            let late = sent.ask(&engine).await;
            assert!(late.iter().all(|answer| matches!(&answer.outcome, Err(InferError::Session(words)) if *words == reason)), "{late:?}");
            // All is given back while the device is still lost.
            drop((engine, sent));
            assert_eq!((stand_in.held(), stand_in.wrong()), (0, None), "lost from call {nth} on, {failed}");
            stand_in.fail(None, 0, 0);
        }
        println!("{calls} calls of a batch and a photo: the device was lost at each");
    });
}

#[test]
fn an_engine_whose_device_comes_back_in_time_opens_it_anew_and_is_right_again_however_often() {
    const NAME: &str = "losses::an_engine_whose_device_comes_back_in_time_opens_it_anew_and_is_right_again_however_often";
    run(NAME, async |stand_in| {
        let (engine, sent) = (engine(stand_in), Sent::new(stand_in));
        let (calls, held) = settled(stand_in, (&engine, &sent)).await;
        for nth in 1..=calls {
            let (code, name) = LOST[nth as usize % LOST.len()];
            stand_in.lose(nth, code);
            // Faces are looked for in frames and in a photo: at the most four failures in a row.
            let lost = [sent.ask(&engine).await, sent.ask(&engine).await];
            for answer in lost.iter().flatten() {
                let is_named = |error: &InferError| error.to_string().contains("failed with") && error.to_string().contains(name);
                assert!(
                    answer.outcome.as_ref().err().is_none_or(is_named) && answer.ended.is_none(),
                    "lost from call {nth} on: {answer:?}"
                );
            }
            assert!(lost[1].iter().all(|answer| answer.outcome.is_err()), "{lost:?}");
            let failed = stand_in.failed().unwrap();
            stand_in.fail(None, 0, 0);
            for answer in sent.ask(&engine).await {
                assert!(answer.outcome.is_ok() && answer.ended.is_none(), "lost from call {nth} on, {failed}, and there again: {answer:?}");
            }
        }
        assert!(stand_in.held() <= held, "no loss left anything behind: {} after {held}", stand_in.held());
    });
}

#[test]
fn an_engine_whose_device_is_lost_to_the_process_ends_at_the_first_try_to_open_it_anew() {
    const NAME: &str = "losses::an_engine_whose_device_is_lost_to_the_process_ends_at_the_first_try_to_open_it_anew";
    run(NAME, async |stand_in| {
        for (code, name) in LOST_FOR_GOOD {
            let (engine, sent) = (engine(stand_in), Sent::new(stand_in));
            stand_in.lose(1, code);
            let answers = sent.ask(&engine).await;
            let first = answers[0].outcome.as_ref().err().unwrap().to_string();
            assert!(first.contains(name) && answers[0].ended.is_none(), "what failed is answered by the call: {answers:?}");
            let reason = answers[1].ended.clone().unwrap_or_else(|| panic!("the second work finds no device: {answers:?}"));
            assert!(reason.contains("lost to this process") && reason.contains(name), "{reason}");
            drop((engine, sent));
            assert_eq!((stand_in.held(), stand_in.wrong()), (0, None), "{name}");
            stand_in.fail(None, 0, 0);
        }
    });
}

#[test]
fn everything_is_given_back_while_the_device_is_lost() {
    run("losses::everything_is_given_back_while_the_device_is_lost", async |stand_in| {
        for (code, name) in LOST.into_iter().chain(LOST_FOR_GOOD) {
            for are_frames_first in [false, true] {
                let (engine, sent) = (engine(stand_in), Sent::new(stand_in));
                let frames = engine.place(vec![sent.host[0].clone(), decoded(&sent.decoder, &sent.host[1])]).await.unwrap();
                stand_in.lose(1, code);
                let (told, ended) = tokio::sync::oneshot::channel();
                std::thread::spawn(move || {
                    if are_frames_first {
                        drop((frames, sent, engine));
                    } else {
                        drop((engine, sent, frames));
                    }
                    told.send(()).unwrap();
                });
                in_time(ended).await.unwrap();
                assert_eq!((stand_in.held(), stand_in.wrong()), (0, None), "{name}, frames first: {are_frames_first}");
                stand_in.fail(None, 0, 0);
            }
        }
    });
}

/// Holds that what was asked while one call failed was answered as it should be, and what is asked next is right.
async fn goes_on(stand_in: &StandIn, (engine, sent): (&Engine, &Sent), place: &str) {
    let answers = sent.ask(engine).await;
    let failed = stand_in.failed().unwrap_or_else(|| panic!("there is no such call: {place}"));
    for Answer { work, outcome, ended } in &answers {
        let is_named = |error: &InferError| error.to_string().contains(&failed);
        assert!(outcome.as_ref().err().is_none_or(is_named), "{place}, {failed}: {work:?} is answered by {outcome:?}");
        assert_eq!(*ended, None, "{place}, {failed}");
    }
    let is_told = answers.iter().any(|answer| answer.outcome.is_err());
    assert!(is_told || GIVING_BACK.contains(&failed.as_str()), "{place}, {failed}: nobody was told");
    stand_in.fail(None, 0, 0);
    for answer in sent.ask(engine).await {
        assert!(answer.outcome.is_ok() && answer.ended.is_none(), "after {place}, {failed}: {answer:?}");
    }
    assert_eq!(stand_in.wrong(), None, "after {place}, {failed}");
}

#[test]
fn an_engine_goes_on_after_any_call_that_fails_and_what_is_asked_next_is_right() {
    const NAME: &str = "losses::an_engine_goes_on_after_any_call_that_fails_and_what_is_asked_next_is_right";
    run(NAME, async |stand_in| {
        // As a daemon's: it goes on with a device that was well a moment ago.
        let (kept, sent) = (engine_with_tries(stand_in, Duration::from_secs(3600)), Sent::new(stand_in));
        let (calls, held) = settled(stand_in, (&kept, &sent)).await;
        for nth in 1..=calls {
            stand_in.fail(None, nth, CODES[nth as usize % CODES.len()]);
            goes_on(stand_in, (&kept, &sent), &format!("call {nth} of {calls}, kept")).await;
        }
        assert!(stand_in.held() <= held, "no failure left anything behind: {} after {held}", stand_in.held());
        drop(kept);
        let engine = engine(stand_in);
        let (calls, held) = settled(stand_in, (&engine, &sent)).await;
        for nth in 1..=calls {
            stand_in.fail(None, nth, CODES[nth as usize % CODES.len()]);
            goes_on(stand_in, (&engine, &sent), &format!("call {nth} of {calls}")).await;
        }
        // The same while the device is opened anew, after a failure at the first thing that is asked.
        let close = async || {
            stand_in.fail(Some("cuMemcpyHtoDAsync"), 1, 999);
            sent.ask_to_place(&engine).await.unwrap_err();
            stand_in.fail(None, 0, 0);
        };
        close().await;
        sent.ask_to_place(&engine).await.unwrap();
        let opening = stand_in.calls_in_all();
        for nth in 1..=opening {
            close().await;
            // Of what a process does not survive it is known at once that no try to open the device helps.
            stand_in.fail(None, nth, LOST[nth as usize % LOST.len()].0);
            goes_on(stand_in, (&engine, &sent), &format!("call {nth} of {opening} of opening anew")).await;
        }
        assert!(stand_in.held() <= held, "no failure left anything behind: {} after {held}", stand_in.held());
        println!("{calls} calls of a batch and a photo and {opening} of opening the device anew, each failed once");
    });
}
