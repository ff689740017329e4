//! A piece of work for a session thread, and where its answer goes.
//!
//! In: what is to be done. Out: the answer, by oneshot. What fails is tried once more: a device that lost its context is opened
//! anew meanwhile, and no frame is lost by it.
//! Drops a job whose asker is gone.
//! Must not know: what does the work.

use tokio::sync::oneshot;

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
    /// Does it and answers, unless nobody waits for the answer any more.
    pub(super) fn run(self, inference: &mut dyn Inference) {
        match self {
            Self::Detect { requests, lane, reply } => answer(reply, requests, |requests| inference.detect(requests, lane)),
            Self::Encode { faces, reply } => answer(reply, faces, |faces| inference.encode(faces)),
            Self::Place { frames, reply } => answer(reply, frames, |frames| inference.place(frames)),
            Self::Measure { faces, reply } => answer(reply, faces, |faces| inference.measure(faces)),
            Self::EncodeOnDevice { faces, reply } => answer(reply, faces, |faces| inference.encode_on_device(faces)),
            Self::LiveScores { faces, reply } => answer(reply, faces, |faces| inference.live_scores(faces)),
        }
    }
}

/// Does `work`, unless nobody waits for it any more. What it was given has gone before the answer is there: frames are a decoder's
/// memory.
fn answer<A, T>(reply: oneshot::Sender<Result<T, InferError>>, given: A, mut work: impl FnMut(&A) -> Result<T, InferError>) {
    if reply.is_closed() {
        return;
    }
    let done = match work(&given) {
        Err(InferError::Session(_) | InferError::NoRoom(_)) => work(&given),
        done => done,
    };
    drop(given);
    // An answer that nobody takes is no error: the asker gave up meanwhile.
    let _ = reply.send(done);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails so often before it answers that there are no faces.
    struct Failing {
        failures: u32,
        error: fn() -> InferError,
        asked: u32,
    }

    impl Inference for Failing {
        fn detect(&mut self, requests: &[DetectRequest], _: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
            self.asked += 1;
            if self.asked <= self.failures { Err((self.error)()) } else { Ok(vec![Vec::new(); requests.len()]) }
        }

        fn encode(&mut self, _: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
            Err(InferError::Stopped)
        }
    }

    fn detect(mut session: Failing) -> (Result<Vec<Vec<Detection>>, InferError>, u32) {
        let (reply, mut answer) = oneshot::channel();
        Job::Detect { requests: Vec::new(), lane: Lane::Live, reply }.run(&mut session);
        (answer.try_recv().expect("it answers at once"), session.asked)
    }

    #[test]
    fn what_fails_is_tried_once_more() {
        let session = || InferError::Session("the context is lost".into());
        let no_room = || InferError::NoRoom("for so many".into());
        for error in [session, no_room] as [fn() -> InferError; 2] {
            assert!(matches!(detect(Failing { failures: 0, error, asked: 0 }), (Ok(_), 1)));
            assert!(matches!(detect(Failing { failures: 1, error, asked: 0 }), (Ok(_), 2)));
            assert!(matches!(detect(Failing { failures: 2, error, asked: 0 }), (Err(_), 2)));
        }
        let stopped = detect(Failing { failures: 1, error: || InferError::Stopped, asked: 0 });
        assert!(matches!(stopped, (Err(InferError::Stopped), 1)), "what has ended is not asked again");
    }
}
