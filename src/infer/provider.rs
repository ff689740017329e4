//! Chooses what runs each model on the CPU, and in what arithmetic, from the processor. Pure.
//!
//! In: the setting, what `/proc/cpuinfo` says, and which build of the runtime is loaded. Out: a [`Choice`] with its reason.
//! Drops nothing.
//! Must not know: sessions.

use crate::config::PrecisionChoice;
use crate::models::RuntimeDevice;

/// A way of running a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    /// ONNX Runtime's own kernels.
    Cpu,
    /// Intel's `OpenVINO` inside ONNX Runtime; it runs on AMD too.
    OpenVino,
}

impl Provider {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::OpenVino => "OpenVINO",
        }
    }
}

/// The arithmetic of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit brain floats.
    Bf16,
}

impl Precision {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// What runs the models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) precision: Precision,
    pub(super) precision_reason: String,
    pub(super) detector: Provider,
    pub(super) encoder: Provider,
    pub(super) antispoof: Provider,
}

impl Choice {
    /// Chooses for the processor that `cpuinfo` describes and the `build` that is loaded; `None` when bf16 was asked for
    /// and the processor has none. The build for GPUs, which is loaded where a GPU failed in use, has no `OpenVINO`:
    /// its own kernels run everything, in f32.
    ///
    /// Measured (ms of CPU, one thread): in bf16 `OpenVINO` runs both models fastest (`YuNet` 640²
    /// 6.0 instead of 9.3, `SFace` 7.9 instead of 14.0). In f32 the CPU provider runs `YuNet`
    /// faster (640×384 on AVX2: 7.3 against 9.1; 640² on AVX-512: 9.3 against 9.8) and `OpenVINO`
    /// runs `SFace` faster (AVX2: 15.7 against 18.5; AVX-512: 13.3 against 14.0), and the antispoof model, always in f32
    /// (AVX-512: 3.5 against 5.2).
    pub(super) fn new(setting: PrecisionChoice, cpuinfo: &str, build: RuntimeDevice) -> Option<Self> {
        if build == RuntimeDevice::Cuda {
            let precision_reason = "the runtime library for GPUs is loaded, which has nothing faster for the processor".to_owned();
            let all = Provider::Cpu;
            return Some(Self { precision: Precision::F32, precision_reason, detector: all, encoder: all, antispoof: all });
        }
        let feature = bf16_feature(cpuinfo);
        let (precision, precision_reason) = match (setting, feature) {
            (PrecisionChoice::F32, _) => (Precision::F32, "configured".to_owned()),
            (PrecisionChoice::Fp16, _) => (Precision::F32, "fp16 is configured, which only a GPU runs, and the CPU is used".to_owned()),
            (PrecisionChoice::Bf16, None) => return None,
            (PrecisionChoice::Bf16, Some(feature)) => (Precision::Bf16, format!("configured; the processor has {feature}")),
            (PrecisionChoice::Auto, Some(feature)) => (Precision::Bf16, format!("the processor has {feature}")),
            (PrecisionChoice::Auto, None) => (Precision::F32, "the processor has neither avx512_bf16 nor amx_bf16".to_owned()),
        };
        let detector = if precision == Precision::Bf16 { Provider::OpenVino } else { Provider::Cpu };
        Some(Self { precision, precision_reason, detector, encoder: Provider::OpenVino, antispoof: Provider::OpenVino })
    }

    /// What runs, in words.
    pub(super) fn provider_words(&self) -> String {
        if self.detector == self.encoder {
            return self.encoder.name().to_owned();
        }
        format!("{} (detector), {} (encoder)", self.detector.name(), self.encoder.name())
    }
}

/// The processor's feature that multiplies in bf16.
fn bf16_feature(cpuinfo: &str) -> Option<&'static str> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    ["amx_bf16", "avx512_bf16"].into_iter().find(|feature| flags.split_whitespace().any(|flag| flag == *feature))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "processor\t: 0\nflags\t\t: fpu avx avx2 fma\n";
    const NEW: &str = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_bf16 fma\n";

    fn on_cpu_build(setting: PrecisionChoice, cpuinfo: &str) -> Option<Choice> {
        Choice::new(setting, cpuinfo, RuntimeDevice::Cpu)
    }

    #[test]
    fn the_build_for_gpus_runs_everything_by_its_own_kernels_and_says_why() {
        for setting in [PrecisionChoice::Auto, PrecisionChoice::F32, PrecisionChoice::Bf16, PrecisionChoice::Fp16] {
            let choice = Choice::new(setting, NEW, RuntimeDevice::Cuda).expect("f32 is everywhere");
            assert_eq!((choice.precision, choice.provider_words().as_str()), (Precision::F32, "CPU"));
            assert!(choice.antispoof == Provider::Cpu && choice.precision_reason.contains("library for GPUs"), "{choice:?}");
        }
    }

    #[test]
    fn what_only_a_gpu_runs_is_not_pretended_on_the_cpu() {
        let choice = on_cpu_build(PrecisionChoice::Fp16, NEW).expect("f32 is everywhere");
        assert!(choice.precision == Precision::F32 && choice.precision_reason.contains("fp16"), "{choice:?}");
    }

    #[test]
    fn bf16_is_taken_where_the_processor_has_it() {
        let new = on_cpu_build(PrecisionChoice::Auto, NEW).expect("auto always finds one");
        assert_eq!((new.precision, new.detector, new.encoder), (Precision::Bf16, Provider::OpenVino, Provider::OpenVino));
        assert!(new.precision_reason.contains("avx512_bf16"));
        let old = on_cpu_build(PrecisionChoice::Auto, OLD).expect("auto always finds one");
        assert_eq!((old.precision, old.detector, old.encoder), (Precision::F32, Provider::Cpu, Provider::OpenVino));
        assert_eq!(on_cpu_build(PrecisionChoice::F32, NEW).expect("f32 is everywhere").precision, Precision::F32);
    }

    #[test]
    fn bf16_is_never_pretended() {
        assert_eq!(on_cpu_build(PrecisionChoice::Bf16, OLD), None);
        assert_eq!(on_cpu_build(PrecisionChoice::Bf16, ""), None);
        assert!(on_cpu_build(PrecisionChoice::Bf16, NEW).is_some());
    }
}
