//! A piece of work for a session thread, and where its answer goes.
//!
//! In: what is to be done. Out: the answer, by oneshot. What fails is tried once more: a device that lost its context is opened
//! anew meanwhile, and no frame is lost by it.
//! Drops a job whose asker is gone.
//! Must not know: what does the work.

use tokio::sync::oneshot;

use super::condition::Watched;
use super::{DetectRequest, FaceInFrame, FaceOnDevice, InferError, Inference, Lane};
use crate::face::{AlignedFace, Detection, Photometry, Template};
use crate::frame::Frame;

/// A piece of work and where its answer goes.
pub(super) enum Job {
    /// Find the faces of each picture.
    Detect { requests: Vec<DetectRequest>, lane: Lane, reply: oneshot::Sender<Result<Vec<Vec<Detection>>, InferError>> },
    /// Turn each face into a template.
    Encode { faces: Vec<AlignedFace>, reply: oneshot::Sender<Result<Vec<Template>, InferError>> },
    /// Bring pictures to where they are analysed.
    Place { frames: Vec<Frame>, reply: oneshot::Sender<Result<Vec<Frame>, InferError>> },
    /// Measure the pixels of faces on a device.
    Measure { faces: Vec<FaceOnDevice>, reply: oneshot::Sender<Result<Vec<Photometry>, InferError>> },
    /// Turn each face on a device into a template.
    EncodeOnDevice { faces: Vec<FaceOnDevice>, reply: oneshot::Sender<Result<Vec<Template>, InferError>> },
    /// Say how much each face looks alive.
    LiveScores { faces: Vec<FaceInFrame>, reply: oneshot::Sender<Result<Vec<f32>, InferError>> },
}

impl Job {
    /// Does it and answers, unless nobody waits for the answer any more. `watched` hears how it came out.
    pub(super) fn run(self, inference: &mut dyn Inference, watched: &Watched) {
        match self {
            // The watchdog asks for nothing, to see that this thread is alive: that says nothing of the session.
            Self::Detect { requests, reply, .. } if requests.is_empty() => drop(reply.send(Ok(Vec::new()))),
            Self::Detect { requests, lane, reply } => answer((reply, watched), requests, |requests| inference.detect(requests, lane)),
            Self::Encode { faces, reply } => answer((reply, watched), faces, |faces| inference.encode(faces)),
            Self::Place { frames, reply } => answer((reply, watched), frames, |frames| inference.place(frames)),
            Self::Measure { faces, reply } => answer((reply, watched), faces, |faces| inference.measure(faces)),
            Self::EncodeOnDevice { faces, reply } => answer((reply, watched), faces, |faces| inference.encode_on_device(faces)),
            Self::LiveScores { faces, reply } => answer((reply, watched), faces, |faces| inference.live_scores(faces)),
        }
    }
}

/// Does `work`, unless nobody waits for it any more. What it was given has gone before the answer is there: frames are a decoder's
/// memory.
fn answer<A, T>(
    (reply, watched): (oneshot::Sender<Result<T, InferError>>, &Watched),
    given: A,
    mut work: impl FnMut(&A) -> Result<T, InferError>,
) {
    if reply.is_closed() {
        return;
    }
    let mut attempt = || {
        let done = work(&given);
        watched.note(&done);
        done
    };
    let done = match attempt() {
        Err(InferError::Session(_) | InferError::NoRoom(_)) => attempt(),
        done => done,
    };
    drop(given);
    // An answer that nobody takes is no error: the asker gave up meanwhile.
    let _ = reply.send(done);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails so often before it answers.
    struct Failing {
        failures: u32,
        error: fn() -> InferError,
        asked: u32,
    }

    impl Inference for Failing {
        fn detect(&mut self, _: &[DetectRequest], _: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
            panic!("no picture is asked about")
        }

        fn encode(&mut self, _: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
            self.asked += 1;
            if self.asked <= self.failures { Err((self.error)()) } else { Ok(Vec::new()) }
        }
    }

    /// Whether a session that fails so often answers, how often it was asked, how often it failed as told, and whether it works.
    fn encode(failures: u32, error: fn() -> InferError) -> (bool, u32, u64, bool) {
        let (mut session, watched, (reply, mut answer)) = (Failing { failures, error, asked: 0 }, Watched::new(), oneshot::channel());
        Job::Encode { faces: Vec::new(), reply }.run(&mut session, &watched);
        let condition = watched.watch().borrow().clone();
        assert_eq!(condition.reason.is_empty(), condition.failures == 0);
        (answer.try_recv().expect("it answers at once").is_ok(), session.asked, condition.failures, condition.works)
    }

    #[test]
    fn what_fails_is_tried_once_more_and_each_failure_is_told() {
        let session = || InferError::Session("the context is lost".into());
        let no_room = || InferError::NoRoom("for so many".into());
        for error in [session, no_room] as [fn() -> InferError; 2] {
            assert_eq!(encode(0, error), (true, 1, 0, true));
            assert_eq!(encode(1, error), (true, 2, 1, true));
            assert_eq!(encode(2, error), (false, 2, 2, false));
        }
        assert_eq!(encode(1, || InferError::Stopped), (false, 1, 0, true), "what has ended is not asked again, and is well");
    }

    #[test]
    fn whoever_asks_for_nothing_learns_that_the_thread_lives_and_says_nothing_of_the_session() {
        let (watched, (reply, mut answer)) = (Watched::new(), oneshot::channel());
        watched.note::<()>(&Err(InferError::Session("the context is lost".into())));
        Job::Detect { requests: Vec::new(), lane: Lane::Live, reply }
            .run(&mut Failing { failures: 0, error: || InferError::Stopped, asked: 0 }, &watched);
        assert!(answer.try_recv().expect("it answers at once").is_ok());
        assert!(!watched.watch().borrow().works);
    }
}
