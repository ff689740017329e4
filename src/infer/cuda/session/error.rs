//! Why the graphs cannot be opened on a GPU.
//!
//! In: nothing. Out: [`GraphsError`], whose message names the model, what should run it, and the mend.
//! Drops nothing.
//! Must not know: how sessions are opened.

use std::path::PathBuf;

use super::super::CudaError;
use crate::device::Device;
use crate::infer::OpenError;
use crate::models::ModelsError;

/// The graphs cannot be opened on a GPU. Nothing else is taken in their place.
#[derive(Debug, thiserror::Error)]
pub enum GraphsError {
    /// The device is none that these sessions run on.
    #[error("{0} is no GPU, and only on a GPU graphs run where their input lies")]
    Device(Device),
    /// A model or the runtime library cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// bf16 was asked for.
    #[error("infer.precision = \"bf16\" is for processors, and a GPU runs the models; set it to auto, fp16 or f32")]
    Bf16,
    /// fp16 was asked for, and TensorRT, which makes it, is not there.
    #[error("infer.precision = \"fp16\" needs TensorRT, which cannot be had: {reason}; install it, or set infer.precision to auto or f32")]
    Fp16WithoutTensorRt {
        /// Why.
        reason: String,
    },
    /// A graph's input is not what the manifest says.
    #[error(
        "the graph of {model}, {graph}, has the inputs {found}, and the manifest says {wanted}; correct the model's entry in manifest.toml"
    )]
    Inputs {
        /// The manifest's name of the model.
        model: String,
        /// Its file.
        graph: PathBuf,
        /// What it has.
        found: String,
        /// What it should have.
        wanted: String,
    },
    /// A graph is for so many pictures and no others.
    #[error(
        "the graph of {model}, {graph}, is for exactly {batch} pictures, and a GPU needs any number; export the model with a free batch, or set infer.device = \"cpu\""
    )]
    StaticBatch {
        /// The manifest's name of the model.
        model: String,
        /// Its file.
        graph: PathBuf,
        /// How many.
        batch: i64,
    },
    /// A provider cannot run a graph.
    #[error(
        "the {provider} provider cannot run {model} in {precision}: {reason}; `doorward doctor` says which of NVIDIA's libraries are missing, script/bootstrap --gpu takes the runtime library that has the provider, and infer.device = \"cpu\" does without"
    )]
    Provider {
        /// The manifest's name of the model.
        model: String,
        /// What should run it.
        provider: &'static str,
        /// In what arithmetic.
        precision: &'static str,
        /// What the runtime says.
        reason: String,
    },
    /// The engine is not kept, and this is no time to build one.
    #[error(
        "the engine of {0} is not kept, and to build one takes minutes in which nobody is recognised: the next start builds it; name a folder in infer.engine_cache_dir"
    )]
    NotKept(String),
    /// Somebody holds the engines, and this is no time to wait for long.
    #[error(
        "engines are being built in {0}, by this process or another, which takes minutes: what is kept there can be had when that is done"
    )]
    Busy(PathBuf),
    /// Engines cannot be kept.
    #[error(
        "engines cannot be kept in {path}: {source}; make it writable for the daemon's user, or name another place in infer.engine_cache_dir"
    )]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A call of the driver failed.
    #[error(transparent)]
    Cuda(#[from] CudaError),
}

impl From<ModelsError> for GraphsError {
    fn from(error: ModelsError) -> Self {
        Self::Open(error.into())
    }
}

impl GraphsError {
    /// The same in the words of whoever opens a worker ([`Worker::open`](super::super::Worker::open)).
    pub fn into_cuda(self) -> CudaError {
        match self {
            Self::Cuda(error) => error,
            busy @ Self::Busy(_) => CudaError::EnginesHeld(busy.to_string()),
            other => CudaError::Graph { graph: "opening of the graphs", reason: other.to_string() },
        }
    }
}
