//! Finds faces in frames, turns aligned faces into templates, and says how much a face looks alive.
//!
//! In: frames, aligned faces. Out: detections in pixels of the frame, templates, live scores.
//! Drops: detections below the asked score or size. Waiting photos beyond sixteen are refused.
//! Must not know: where frames come from, what a template is compared with.

mod align;
mod border;
mod compare;
mod condition;
pub mod cuda;
mod cut;
mod decode;
mod engine;
mod host;
mod job;
mod liveness;
mod meter;
mod onnx;
mod opening;
mod pool;
mod provider;
mod queue;
mod worker;

use std::path::PathBuf;

pub use align::align;
pub use border::with_border;
pub use compare::{GraphDifference, compare_graphs};
pub use condition::Condition;
pub use cut::{CutFace, FaceOnDevice};
pub use engine::{Engine, SessionPermit};
pub use liveness::FaceInFrame;
pub use queue::PHOTOS_MAX;

use cuda::{CudaError, GraphsError};

use crate::camera::NormalisedRect;
use crate::config::MirrorChoice;
use crate::device::DeviceFact;
use crate::face::{AlignedFace, Detection, Photometry, Template, TemplateSpace};
use crate::frame::Frame;
use crate::models::ModelsError;

/// Whose work it is; live frames go before photos, photos never starve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Camera frames.
    Live,
    /// Photos by RPC.
    Photo,
}

/// A frame to look for faces in, and how.
#[derive(Clone, Debug)]
pub struct DetectRequest {
    /// The picture.
    pub frame: Frame,
    /// Longer side of the detector's input, in pixels, a multiple of 32; `None` takes the
    /// configured one.
    pub detector_side: Option<u32>,
    /// Only here; `None` looks everywhere.
    pub region_of_interest: Option<NormalisedRect>,
    /// Detections below this score are dropped; `None` takes the configured one.
    pub score_min: Option<f32>,
    /// Faces whose smaller side has fewer pixels are dropped; 0 drops none.
    pub face_pixels_min: u32,
}

/// What runs, for the log and `GetStatus`.
#[derive(Clone, Debug)]
pub struct EngineFacts {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Why this device.
    pub device_reason: String,
    /// What a GPU stands on, as far as it was looked at.
    pub device_facts: Vec<DeviceFact>,
    /// What runs the models, in words.
    pub provider: String,
    /// `f32` or `bf16`.
    pub precision: String,
    /// Why this precision.
    pub precision_reason: String,
    /// Which faces are encoded together with their mirror image.
    pub mirror: MirrorChoice,
    /// How many session threads there are.
    pub sessions: usize,
    /// The runtime library, by the manifest's name.
    pub runtime_version: String,
    /// The space that templates live in.
    pub space: TemplateSpace,
    /// Numbers of a template.
    pub dimension: usize,
    /// The manifest's cosine threshold of the encoder.
    pub threshold: f32,
    /// Where the manifest says that the encoder's calibration lies.
    pub calibration: Option<PathBuf>,
    /// The detector, the encoder, and the antispoof model where it is in use.
    pub models: Vec<ModelFacts>,
}

#[cfg(test)]
impl EngineFacts {
    /// Of an engine that a test makes up: one session on no device, without models.
    pub(crate) fn made_up(space: TemplateSpace) -> Self {
        let said = || "made up".to_owned();
        Self {
            device: said(),
            device_reason: said(),
            device_facts: Vec::new(),
            provider: said(),
            precision: said(),
            precision_reason: said(),
            mirror: MirrorChoice::Off,
            sessions: 1,
            runtime_version: said(),
            space,
            dimension: 8,
            threshold: 0.5,
            calibration: None,
            models: Vec::new(),
        }
    }
}

/// One model, as the manifest states it.
#[derive(Clone, Debug)]
pub struct ModelFacts {
    /// `detector`, `encoder` or `antispoof`.
    pub role: String,
    /// Its name.
    pub name: String,
    /// The published file.
    pub file: String,
    /// The published file's SHA-256.
    pub sha256: String,
    /// Its licence.
    pub licence: String,
}

/// CPU time strictly inside the runtime since the engine was opened, over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InferenceCpu {
    /// Nanoseconds in the detector.
    pub detect_ns: u64,
    /// Runs of the detector.
    pub detect_runs: u64,
    /// Nanoseconds in the encoder.
    pub encode_ns: u64,
    /// Runs of the encoder.
    pub encode_runs: u64,
    /// Nanoseconds in the antispoof model.
    pub live_ns: u64,
    /// Runs of the antispoof model.
    pub live_runs: u64,
}

/// Inference failed.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// The queue of photos is full: try again later.
    #[error("too many photos are waiting; try again later")]
    Busy,
    /// The engine is shutting down.
    #[error("inference has stopped")]
    Stopped,
    /// A session failed.
    #[error("inference failed: {0}")]
    Session(String),
    /// There was no room for all that was asked at once: less of it may go through.
    #[error("inference failed: {0}")]
    NoRoom(String),
    /// A device failed, or its engines are being built, and it is not open at this moment: it is tried again in a second.
    #[error("inference failed: {0}")]
    NotNow(String),
    /// A picture is none that can be analysed where it is: the others may go through by themselves.
    #[error("inference failed: {0}")]
    BadPicture(String),
}

/// Inference cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A model or the runtime library is not as it should be.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The runtime library cannot be loaded.
    #[error("cannot load the runtime library {path}: {reason}")]
    Runtime {
        /// The library.
        path: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// A session cannot be opened.
    #[error(
        "cannot open {graph} with the {provider} provider in {precision}: {reason}; `doorward doctor` checks the runtime's libraries, and infer.precision = \"f32\" needs the least of the processor"
    )]
    Session {
        /// The rewritten graph.
        graph: PathBuf,
        /// What should run it.
        provider: &'static str,
        /// In what arithmetic.
        precision: &'static str,
        /// What the runtime says.
        reason: String,
    },
    /// bf16 was asked for, and the processor has none.
    #[error("infer.precision = \"bf16\" needs a processor with avx512_bf16 or amx_bf16, and this one has neither; set it to auto or f32")]
    NoBf16,
    /// What is set is there for the CPU alone.
    #[error("{0} is not there on a GPU yet; leave it out, or set infer.device = \"cpu\"")]
    NotOnGpu(&'static str),
    /// The GPU fails.
    #[error("the GPU cannot be used: {0}")]
    Gpu(#[from] CudaError),
    /// The graphs cannot run on a GPU.
    #[error(transparent)]
    Graphs(Box<GraphsError>),
    /// The system gives no more threads.
    #[error("cannot start the session threads: {0}")]
    Threads(std::io::Error),
}

/// What a session thread can do: the models on some device, or in tests what a test makes of it.
/// A panic ends the whole engine.
pub trait Inference: Send + 'static {
    /// Faces of each picture, best score first, in its pixels.
    ///
    /// # Errors
    /// [`InferError::Session`] when the pictures are lost; the next may do better.
    fn detect(&mut self, requests: &[DetectRequest], lane: Lane) -> Result<Vec<Vec<Detection>>, InferError>;

    /// One template a face, in order.
    ///
    /// # Errors
    /// [`InferError::Session`] when the faces are lost; the next may do better.
    fn encode(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, InferError>;

    /// The same pictures on the device that analyses them, where that is another than the host; what is there already stays.
    ///
    /// # Errors
    /// [`InferError::Session`] when the pictures are lost; the next may do better.
    fn place(&mut self, frames: Vec<Frame>) -> Result<Vec<Frame>, InferError> {
        Ok(frames)
    }

    /// What the pixels of each face say of how usable it is, in order.
    ///
    /// # Errors
    /// [`InferError::Session`] as above, and of sessions on the host.
    fn measure(&mut self, _faces: &[FaceOnDevice]) -> Result<Vec<Photometry>, InferError> {
        Err(InferError::Session("these sessions run on the host, and the face is on a device".into()))
    }

    /// One template a face, in order.
    ///
    /// # Errors
    /// As [`measure`](Self::measure).
    fn encode_on_device(&mut self, _faces: &[FaceOnDevice]) -> Result<Vec<Template>, InferError> {
        Err(InferError::Session("these sessions run on the host, and the face is on a device".into()))
    }

    /// How much each face looks alive, 0 to 1, in order.
    ///
    /// # Errors
    /// [`InferError::Session`] as above, and of sessions without the model.
    fn live_scores(&mut self, _faces: &[FaceInFrame]) -> Result<Vec<f32>, InferError> {
        Err(InferError::Session("live scores are not measured; set infer.antispoof = true".into()))
    }
}

impl From<GraphsError> for OpenError {
    fn from(error: GraphsError) -> Self {
        match error {
            GraphsError::Open(error) => error,
            GraphsError::Cuda(error) => Self::Gpu(error),
            other => Self::Graphs(Box::new(other)),
        }
    }
}
