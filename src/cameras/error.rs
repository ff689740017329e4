//! Why cameras refuse a change or a question, each with its reason.
//!
//! In: what was found. Out: words, with the next step.
//! Must not know: status codes.

use crate::camera::CameraId;
use crate::picture::PictureError;
use crate::pipeline::PipelineError;
use crate::store::StoreError;

/// A change was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum CamerasError {
    /// Another camera has this id.
    #[error("camera {0} exists; choose another id, or update it")]
    Exists(CameraId),
    /// No camera has this id.
    #[error("there is no camera {0}")]
    Unknown(String),
    /// A field has a value that is not allowed.
    #[error("{field}: {reason}")]
    BadField {
        /// The field, as the contract calls it.
        field: &'static str,
        /// What is wrong and what is allowed.
        reason: String,
    },
    /// Credentials belong in their own field, where they are never shown.
    #[error("the URL holds a user name, password or token; give it without, and the credential apart")]
    CredentialInUrl,
    /// Somebody else changed the camera first.
    #[error("the camera has changed since it was read: its etag is {current}; read it again")]
    StaleEtag {
        /// The etag that would be accepted.
        current: String,
    },
    /// The request id was used for another call.
    #[error("request_id: was used for another call; repeat a call as it was, or give a new id")]
    RequestReused,
    /// The camera shows nothing at present.
    #[error("camera {0} has shown no frame for 5 s; its state says why")]
    NoFrame(CameraId),
    /// The frame cannot be made a JPEG.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// The store failed; nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The pipeline failed, and the daemon is about to end. What was asked for is kept and in force.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
}
