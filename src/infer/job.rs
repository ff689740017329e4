//! A piece of work for a session thread, and where its answer goes.
//!
//! In: what is to be done. Out: the answer, by oneshot.
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
            Self::Detect { requests, lane, reply } => answer(reply, requests, |requests| inference.detect(&requests, lane)),
            Self::Encode { faces, reply } => answer(reply, faces, |faces| inference.encode(&faces)),
            Self::Place { frames, reply } => answer(reply, frames, |frames| inference.place(frames)),
            Self::Measure { faces, reply } => answer(reply, faces, |faces| inference.measure(&faces)),
            Self::EncodeOnDevice { faces, reply } => answer(reply, faces, |faces| inference.encode_on_device(&faces)),
            Self::LiveScores { faces, reply } => answer(reply, faces, |faces| inference.live_scores(&faces)),
        }
    }
}

/// Does `work`, unless nobody waits for it any more. What it was given has gone before the answer is there: frames are a decoder's
/// memory.
fn answer<A, T>(reply: oneshot::Sender<Result<T, InferError>>, given: A, work: impl FnOnce(A) -> Result<T, InferError>) {
    if !reply.is_closed() {
        let done = work(given);
        // An answer that nobody takes is no error: the asker gave up meanwhile.
        let _ = reply.send(done);
    }
}
