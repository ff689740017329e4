//! Resolves which device inference runs on, once, with the reason.
//!
//! In: the configured choice. Out: [`ResolvedDevice`], or an error that says why there is none.
//! Drops nothing. `auto` may fall back to the CPU and says why; `cuda:N` never does.
//! Must not know: sessions, models.

use std::fmt;

use cudarc::driver::{result, sys};

use crate::config::DeviceChoice;

/// A device that inference can run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The host's processor.
    Cpu,
    /// The CUDA device of this number.
    Cuda(u32),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// The device and why it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedDevice {
    /// Which.
    pub device: Device,
    /// Why.
    pub reason: String,
}

/// Why no device could be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A GPU was asked for and cannot be used.
    #[error("no usable CUDA device {ordinal}: {reason}; set infer.device to auto or cpu")]
    NoCuda {
        /// The number that was asked for.
        ordinal: u32,
        /// Why it cannot be used.
        reason: String,
    },
}

/// What of CUDA is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cuda {
    /// No driver.
    NoLibrary,
    /// A driver that does not work, with its own words.
    Broken(String),
    /// A working driver with so many devices.
    Devices(u32),
}

/// Resolves the choice. This build analyses on the CPU only, so `auto` always answers the CPU and
/// says what there would be besides.
///
/// # Errors
/// [`DeviceError::NoCuda`] for `cuda:N`, with the precise reason.
pub fn resolve(choice: &DeviceChoice) -> Result<ResolvedDevice, DeviceError> {
    resolve_with(choice, probe)
}

fn resolve_with(choice: &DeviceChoice, probe: impl Fn() -> Cuda) -> Result<ResolvedDevice, DeviceError> {
    let cpu = |reason: String| Ok(ResolvedDevice { device: Device::Cpu, reason });
    match choice {
        DeviceChoice::Cpu => cpu("configured".into()),
        DeviceChoice::Auto => cpu(why_not(&probe(), 0)),
        DeviceChoice::Cuda(ordinal) => Err(DeviceError::NoCuda { ordinal: *ordinal, reason: why_not(&probe(), *ordinal) }),
    }
}

fn why_not(cuda: &Cuda, ordinal: u32) -> String {
    match cuda {
        Cuda::NoLibrary => "libcuda.so is not there, so no NVIDIA driver is installed".into(),
        Cuda::Broken(words) => format!("the NVIDIA driver does not work: {words}"),
        Cuda::Devices(count) if *count <= ordinal => format!("the NVIDIA driver knows {count} devices, numbered from 0"),
        Cuda::Devices(_) => "a GPU is there, but this build analyses on the CPU only".into(),
    }
}

fn probe() -> Cuda {
    // SAFETY: it only tries to load the driver's library; cudarc panics later where it is missing,
    // so this has to come first.
    if !unsafe { sys::is_culib_present() } {
        return Cuda::NoLibrary;
    }
    let count = result::init().and_then(|()| result::device::get_count());
    count.map_or_else(|error| Cuda::Broken(format!("{error:?}")), |count| Cuda::Devices(u32::try_from(count).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_cpu_and_says_what_is_missing() {
        let reason = |cuda: Cuda| resolve_with(&DeviceChoice::Auto, || cuda.clone()).expect("auto never fails").reason;
        assert!(reason(Cuda::NoLibrary).contains("libcuda.so is not there"));
        assert!(reason(Cuda::Broken("CUDA_ERROR_NO_DEVICE".into())).contains("CUDA_ERROR_NO_DEVICE"));
        assert!(reason(Cuda::Devices(0)).contains("0 devices"));
        assert!(reason(Cuda::Devices(1)).contains("this build analyses on the CPU only"));
    }

    #[test]
    fn a_gpu_that_was_asked_for_is_never_replaced_in_silence() {
        for cuda in [Cuda::NoLibrary, Cuda::Devices(1), Cuda::Devices(4)] {
            let error = resolve_with(&DeviceChoice::Cuda(2), || cuda.clone()).expect_err("it fails");
            assert!(error.to_string().contains("CUDA device 2"), "{error}");
        }
        assert!(resolve(&DeviceChoice::Cuda(0)).is_err());
    }

    #[test]
    fn the_cpu_is_taken_without_a_look_at_cuda() {
        let resolved = resolve_with(&DeviceChoice::Cpu, || unreachable!("nobody asked for a GPU")).expect("there is a CPU");
        assert_eq!(resolved.device, Device::Cpu);
    }
}
