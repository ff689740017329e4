//! Chooses which provider runs the models on a GPU, and in what arithmetic. Pure.
//!
//! In: the setting, and why there is no TensorRT, if so. Out: a [`GpuChoice`] with its reasons.
//! Drops nothing.
//! Must not know: sessions.

use super::GraphsError;
use crate::config::PrecisionChoice;

/// What runs graphs on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuProvider {
    /// NVIDIA's TensorRT, which builds an engine for the model and the GPU first.
    TensorRt,
    /// ONNX Runtime's own kernels, with cuDNN.
    Cuda,
}

impl GpuProvider {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TensorRt => "TensorRT",
            Self::Cuda => "CUDA",
        }
    }
}

/// The arithmetic on a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuPrecision {
    /// 16-bit floats where TensorRT finds them exact enough and faster.
    Fp16,
    /// 32-bit floats. TensorRT multiplies them as TF32 where the GPU can.
    F32,
}

impl GpuPrecision {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fp16 => "fp16",
            Self::F32 => "f32",
        }
    }
}

/// What runs the models on a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuChoice {
    /// The provider.
    pub provider: GpuProvider,
    /// Why this provider.
    pub provider_reason: String,
    /// The arithmetic.
    pub precision: GpuPrecision,
    /// Why this arithmetic.
    pub precision_reason: String,
}

impl GpuChoice {
    /// Chooses; `without_tensorrt` says why TensorRT cannot be had, where it cannot.
    ///
    /// # Errors
    /// [`GraphsError::Bf16`], and [`GraphsError::Fp16WithoutTensorRt`].
    pub fn new(setting: PrecisionChoice, without_tensorrt: Option<&str>) -> Result<Self, GraphsError> {
        let (provider, provider_reason) = match without_tensorrt {
            None => (GpuProvider::TensorRt, "TensorRT is there".to_owned()),
            Some(reason) => (GpuProvider::Cuda, format!("TensorRT, which is faster, cannot be had: {reason}")),
        };
        let (precision, precision_reason) = match (setting, without_tensorrt) {
            (PrecisionChoice::Bf16, _) => return Err(GraphsError::Bf16),
            (PrecisionChoice::Fp16, Some(reason)) => return Err(GraphsError::Fp16WithoutTensorRt { reason: reason.to_owned() }),
            (PrecisionChoice::F32 | PrecisionChoice::Fp16, _) => {
                let precision = if setting == PrecisionChoice::Fp16 { GpuPrecision::Fp16 } else { GpuPrecision::F32 };
                (precision, "configured".to_owned())
            }
            (PrecisionChoice::Auto, None) => (GpuPrecision::Fp16, "TensorRT runs in it, and every GPU that is supported has it".to_owned()),
            (PrecisionChoice::Auto, Some(_)) => {
                (GpuPrecision::F32, "the CUDA provider runs graphs as they are; fp16 comes with TensorRT".to_owned())
            }
        };
        Ok(Self { provider, provider_reason, precision, precision_reason })
    }
}
