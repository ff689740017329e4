//! A piece of work for a session thread, and where its answer goes.
//!
//! In: what is to be done. Out: the answer, by oneshot.
//! Drops a job whose asker is gone.
//! Must not know: what does the work.

use tokio::sync::oneshot;

use super::{DetectRequest, FaceInFrame, InferError, Inference, Lane};
use crate::face::{AlignedFace, Detection, Template};

/// A piece of work and where its answer goes.
pub(super) enum Job {
    /// Find the faces of each picture.
    Detect { requests: Vec<DetectRequest>, lane: Lane, reply: oneshot::Sender<Result<Vec<Vec<Detection>>, InferError>> },
    /// Turn each face into a template.
    Encode { faces: Vec<AlignedFace>, reply: oneshot::Sender<Result<Vec<Template>, InferError>> },
    /// Say how much each face looks alive.
    LiveScores { faces: Vec<FaceInFrame>, reply: oneshot::Sender<Result<Vec<f32>, InferError>> },
}

impl Job {
    /// Does it and answers, unless nobody waits for the answer any more.
    pub(super) fn run(self, inference: &mut dyn Inference) {
        // An answer that nobody takes is no error: the asker gave up meanwhile.
        match self {
            Self::Detect { reply, .. } if reply.is_closed() => {}
            Self::Encode { reply, .. } if reply.is_closed() => {}
            Self::LiveScores { reply, .. } if reply.is_closed() => {}
            Self::Detect { requests, lane, reply } => {
                let _ = reply.send(inference.detect(&requests, lane));
            }
            Self::Encode { faces, reply } => {
                let _ = reply.send(inference.encode(&faces));
            }
            Self::LiveScores { faces, reply } => {
                let _ = reply.send(inference.live_scores(&faces));
            }
        }
    }
}
