//! Analyses frames that lie in a CUDA device's memory, without their pixels ever leaving it.
//!
//! In: surfaces of a decoder, or frames of the host, uploaded once. Out: detections, templates.
//! Drops: faces below the asked size or score; tensors of shapes that were used longest ago.
//! Must not know: who decodes, what runs the graphs.
//!
//! The kernels agree with the host's path to the bit: 0 levels of 255 apart, in letterboxing and in
//! alignment, on noise of every hard shape (`tests`). So templates of both are of one space.

mod batch;
mod compile;
mod driver;
mod graph;
mod inference;
mod layout;
mod memory;
mod photos;
mod session;
mod surface;
mod upload;
mod wanting;
mod worker;

pub use batch::{Batch, FaceRequest, SurfaceRequest};
pub use compile::{Capability, Image, KERNEL_NAMES, KERNELS};
pub use driver::{Gpu, Stream};
pub use graph::{DeviceGraph, DeviceTensor, RunError};
pub use inference::{DeviceSession, OpenWorker};
pub use memory::{DeviceBuffer, PinnedBuffer};
pub use session::{
    BindingSession, GpuChoice, GpuPrecision, GpuProvider, GraphSession, GraphsError, GraphsPlan, OutputShape, Profile, SessionSource,
    graphs,
};
pub use surface::Surface;
pub use worker::{BATCHES_MAX, Graphs, Plan, Worker};

use super::InferError;
use crate::frame::PixelFormat;

/// Something failed on the way to, on or back from a device. Nothing of the batch can be used; what it
/// held is let go. The next batch may do better, unless the device itself is lost, which every call
/// says from then on.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// No driver.
    #[error("libcuda.so is not there, so no NVIDIA driver is installed; install one, or set infer.device to cpu")]
    NoDriver,
    /// No run-time compiler.
    #[error(
        "libnvrtc.so.12 is not there, and the kernels are compiled by it; install CUDA's NVRTC 12 where the loader finds it, or set infer.device to cpu"
    )]
    NoCompiler,
    /// The kernels cannot be compiled for the device.
    #[error("the kernels cannot be compiled: {reason}; a newer NVRTC may know the device")]
    Compile {
        /// The compiler's words.
        reason: String,
    },
    /// The device's or the pinned memory is used up.
    #[error("{call} found no room for {bytes} bytes; lower the batch size or the number of cameras, or free the device")]
    OutOfMemory {
        /// The driver's function.
        call: &'static str,
        /// How many bytes were asked for; 0 where the driver needed them for itself.
        bytes: usize,
    },
    /// A call of the driver failed. The driver also reports by it what failed earlier on the device.
    #[error("{call} failed with {code}; `nvidia-smi` says whether the device is well, and a restart opens it anew")]
    Call {
        /// The driver's function.
        call: &'static str,
        /// The driver's name of what happened.
        code: String,
    },
    /// A graph failed on the device.
    #[error("the {graph} failed: {reason}")]
    Graph {
        /// `detector` or `encoder`.
        graph: &'static str,
        /// The runtime's words.
        reason: String,
    },
    /// What pictures of one shape need could not be had, while others go through.
    #[error("the {graph} cannot take pictures of this size now: {reason}")]
    NoSession {
        /// `detector` or `encoder`.
        graph: &'static str,
        /// The runtime's words.
        reason: String,
        /// Whether it was tried, or is left for a moment.
        was_tried: bool,
    },
    /// The engines are being built, and what is kept of them can be had when that is done: nothing is wrong with the device.
    #[error("{0}")]
    EnginesHeld(String),
    /// A picture is none that the kernels can read.
    #[error("a {}x{} {:?} picture cannot be analysed on the device: {reason}", .format.size.width, .format.size.height, .format.layout)]
    BadSurface {
        /// What it states.
        format: Box<PixelFormat>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// More at once than the buffers are made for.
    #[error("{count} at once, where at most {max} are allowed")]
    TooMany {
        /// How many were asked for.
        count: usize,
        /// How many there may be.
        max: usize,
    },
}

/// The driver's names of what a process does not survive.
const LOST: [&str; 13] = [
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_CONTAINED",
    "CUDA_ERROR_EXTERNAL_DEVICE",
    "CUDA_ERROR_TENSOR_MEMORY_LEAK",
    "CUDA_ERROR_MPS_CLIENT_TERMINATED",
];

impl CudaError {
    /// Whether memory was wanting, on the device or pinned. A runtime that has an allocator of its own says so in words.
    pub fn is_out_of_memory(&self) -> bool {
        // The driver's by cudaMalloc, those of the runtime's arena, of cuDNN and cuBLAS, and this module's own in a graph's mouth.
        const WORDS: [&str; 8] = [
            "out of memory",
            "OUT_OF_MEMORY",
            "Failed to allocate memory",
            "smaller than requested bytes",
            "ALLOC_FAILED",
            "ALLOCATION_FAILED",
            // It fails with an internal error where memory is full, seen on an H200.
            "expr=cudnnCreate",
            "found no room for",
        ];
        match self {
            Self::OutOfMemory { .. } => true,
            Self::Graph { reason, .. } => WORDS.iter().any(|words| reason.contains(words)),
            _ => false,
        }
    }

    /// Whether the device is lost to this process: the driver's documentation (`CUresult`) says of these that every further call fails
    /// alike, and that the process has to be ended and started anew.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Call { code, .. } if LOST.contains(&code.as_str()))
    }

    /// Tells that something failed of which nobody asks for the answer. Of a device that is lost everything does, and what was asked of
    /// it has said so: the log would have hundreds of lines.
    fn tell(&self, what: &'static str) {
        if self.is_lost() {
            tracing::debug!(error = %self, "{what}");
        } else {
            tracing::warn!(error = %self, "{what}");
        }
    }

    /// Whether the device is well, and only had no room for what was asked at once.
    fn is_of_the_batch(&self) -> bool {
        matches!(self, Self::NoSession { .. }) || self.is_out_of_memory()
    }
}

impl From<CudaError> for InferError {
    fn from(error: CudaError) -> Self {
        let words = error.to_string();
        match error {
            CudaError::BadSurface { .. } => Self::BadPicture(words),
            CudaError::EnginesHeld(_) => Self::NotNow(words),
            _ if error.is_of_the_batch() => Self::NoRoom(words),
            _ => Self::Session(words),
        }
    }
}

/// Whoever opens a worker may hand it and its batches to a thread of their own.
const _: () = {
    const fn is_sent<T: Send>() {}
    is_sent::<Worker>();
    is_sent::<Batch>();
};

#[cfg(test)]
mod tests;
