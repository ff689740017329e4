//! Resolves which device inference runs on, once, with the reason.
//!
//! In: the configured choice. Out: [`ResolvedDevice`], or an error that says why there is none.
//! Drops nothing. `auto` may fall back to the CPU and says why; `cuda:N` never does.
//! Must not know: sessions, models.

mod cuda;

use std::fmt;

use crate::config::DeviceChoice;
pub use cuda::{Cuda, Driver, Gpu, LibraryFact, Need, missing_libraries, probe};

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
    /// What was looked at, and what would mend what is missing; empty where nothing was looked at.
    pub facts: Vec<DeviceFact>,
    /// Why `TensorRT` cannot run the models, where it cannot; of no meaning on the CPU.
    pub without_tensorrt: Option<String>,
    /// Whether another device may be taken where this one fails.
    pub may_fall_back: bool,
}

/// Something that inference on a GPU stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFact {
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub found: String,
    /// What to do; empty for what works.
    pub mend: String,
}

/// Why no device could be had.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A GPU was asked for and cannot be used.
    #[error("no usable CUDA device {ordinal}: {reason}; {mend}, or set infer.device to auto or cpu")]
    NoCuda {
        /// The number that was asked for.
        ordinal: u32,
        /// Why it cannot be used.
        reason: String,
        /// What would mend that.
        mend: String,
    },
}

impl ResolvedDevice {
    /// The CPU, for this reason, and nothing else looked at.
    pub fn cpu(reason: impl Into<String>) -> Self {
        Self { device: Device::Cpu, reason: reason.into(), facts: Vec::new(), without_tensorrt: None, may_fall_back: false }
    }

    /// Itself, if it is what inference runs on, `used` by name; else the CPU, for the reason that inference gives.
    #[must_use]
    pub fn as_used(self, used: &str, reason: &str) -> Self {
        if self.device.to_string() == used { self } else { Self::cpu(reason) }
    }

    /// The CPU in its place, since `reason` came up only when it was used.
    #[must_use]
    pub fn fallen_back(self, reason: impl fmt::Display) -> Self {
        Self { facts: self.facts, ..Self::cpu(format!("{} cannot be used: {reason}", self.device)) }
    }
}

/// Resolves the choice: `auto` takes the first GPU where everything that it needs is there, else the CPU, and says why.
///
/// # Errors
/// [`DeviceError::NoCuda`] for `cuda:N`, with the precise reason and its mend.
pub fn resolve(choice: &DeviceChoice) -> Result<ResolvedDevice, DeviceError> {
    resolve_with(choice, probe)
}

fn resolve_with(choice: &DeviceChoice, probe: impl Fn() -> Cuda) -> Result<ResolvedDevice, DeviceError> {
    if *choice == DeviceChoice::Cpu {
        return Ok(ResolvedDevice::cpu("configured"));
    }
    let cuda = probe();
    let ordinal = if let DeviceChoice::Cuda(ordinal) = choice { *ordinal } else { first_usable(&cuda) };
    let facts = facts(&cuda);
    let is_auto = *choice == DeviceChoice::Auto;
    match cuda.obstacle(ordinal) {
        Some((reason, _)) if is_auto => Ok(ResolvedDevice { facts, ..ResolvedDevice::cpu(reason) }),
        Some((reason, mend)) => Err(DeviceError::NoCuda { ordinal, reason, mend }),
        None => {
            let reason =
                if is_auto { format!("everything that {} needs is there", gpu_words(&cuda, ordinal)) } else { "configured".into() };
            let without_tensorrt = cuda.tensorrt().err();
            Ok(ResolvedDevice { device: Device::Cuda(ordinal), reason, facts, without_tensorrt, may_fall_back: is_auto })
        }
    }
}

/// The first device that can be used; where none can, the first one is spoken of.
fn first_usable(cuda: &Cuda) -> u32 {
    (0..cuda.driver.devices().len() as u32).find(|ordinal| cuda.obstacle(*ordinal).is_none()).unwrap_or(0)
}

/// What the fact is called that stands for all libraries where none was looked at.
pub const LIBRARIES: &str = "libraries";

/// Everything that was looked at, for people.
pub fn facts(cuda: &Cuda) -> Vec<DeviceFact> {
    let fact = |what: &str, found: String, mend: String| DeviceFact { what: what.to_owned(), found, mend };
    let mend_of = |obstacle: Option<(String, String)>| obstacle.map_or_else(String::new, |(_, mend)| mend);
    let Driver::Works { version, release, devices } = &cuda.driver else {
        let (found, mend) = cuda.driver.obstacle().unwrap_or_default();
        let unlooked = "not looked at, since without a driver they are of no use; `doorward doctor` names those that are missing";
        return vec![fact("driver", found, mend), fact(LIBRARIES, unlooked.to_owned(), String::new())];
    };
    let release = release.as_ref().map_or_else(String::new, |release| format!("{release}, "));
    let found = format!("{release}for CUDA {}, {} devices", cuda::dotted(*version), devices.len());
    let mut facts = vec![fact("driver", found, mend_of(cuda.driver.obstacle()))];
    // Where one can be used nobody has to mend the others.
    let has_usable = cuda.obstacle(first_usable(cuda)).is_none();
    for (ordinal, gpu) in devices.iter().enumerate() {
        let obstacle = gpu.obstacle().filter(|_| !has_usable);
        facts.push(fact(&format!("cuda:{ordinal}"), gpu_words(cuda, ordinal as u32), mend_of(obstacle)));
    }
    for library in &cuda.libraries {
        facts.push(match &library.found {
            Ok(version) if version.is_empty() => fact(library.name, library.file.to_owned(), String::new()),
            Ok(version) => fact(library.name, format!("{version} ({})", library.file), String::new()),
            Err(words) => fact(library.name, words.clone(), format!("apt-get install {}", library.package)),
        });
    }
    facts
}

fn gpu_words(cuda: &Cuda, ordinal: u32) -> String {
    cuda.driver.devices().get(ordinal as usize).map_or_else(String::new, |gpu| {
        let (major, minor) = gpu.compute;
        format!("{}, compute capability {major}.{minor}, {} MiB", gpu.name, gpu.memory_bytes >> 20)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(compute: (i32, i32)) -> Gpu {
        Gpu { name: "L4".into(), compute, memory_bytes: 24 << 30 }
    }

    /// A machine that has everything, but for what is left out.
    fn machine(devices: Vec<Gpu>, missing: &[&str]) -> Cuda {
        let library = |name: &'static str, need| LibraryFact {
            name,
            file: "lib.so.1",
            need,
            found: if missing.contains(&name) { Err("lib.so.1 is not there; lib.so.2 is".into()) } else { Ok("1.2".into()) },
            package: "lib-1",
        };
        let libraries = vec![library("cuDNN", Need::All), library("TensorRT", Need::TensorRt)];
        Cuda { driver: Driver::Works { version: 12_040, release: None, devices }, libraries }
    }

    fn without_driver(driver: Driver) -> Cuda {
        Cuda { driver, libraries: Vec::new() }
    }

    #[test]
    fn auto_takes_the_gpu_where_everything_is_there_and_else_says_what_is_missing() {
        let resolved = |cuda: Cuda| resolve_with(&DeviceChoice::Auto, || cuda.clone()).expect("auto never fails");
        let whole = resolved(machine(vec![gpu((8, 9))], &[]));
        assert_eq!((whole.device, whole.without_tensorrt, whole.may_fall_back), (Device::Cuda(0), None, true));
        assert!(whole.reason.contains("L4, compute capability 8.9, 24576 MiB"), "{}", whole.reason);
        for (cuda, words) in [
            (without_driver(Driver::Missing), "libcuda.so is not there"),
            (without_driver(Driver::Broken("CUDA_ERROR_NO_DEVICE".into())), "CUDA_ERROR_NO_DEVICE"),
            (machine(vec![], &[]), "knows no device"),
            (machine(vec![gpu((7, 0))], &[]), "compute capability 7.0, and 7.5 is needed"),
            (machine(vec![gpu((8, 9))], &["cuDNN"]), "cuDNN: lib.so.1 is not there"),
            (
                Cuda { driver: Driver::Works { version: 11_080, release: None, devices: vec![gpu((8, 9))] }, libraries: vec![] },
                "for CUDA 11.8, and 12",
            ),
        ] {
            let resolved = resolved(cuda);
            assert!(resolved.device == Device::Cpu && resolved.reason.contains(words), "{words}: {}", resolved.reason);
        }
    }

    #[test]
    fn auto_passes_over_a_gpu_that_cannot_be_used_where_another_one_can() {
        let resolved = |choice, devices: &[Gpu]| resolve_with(&choice, || machine(devices.to_vec(), &[]));
        let (old, usable) = (gpu((7, 0)), Gpu { name: "H200".into(), ..gpu((9, 0)) });
        let second = resolved(DeviceChoice::Auto, &[old.clone(), usable.clone(), usable.clone()]).expect("auto never fails");
        assert!(second.device == Device::Cuda(1) && second.reason.contains("H200"), "{second:?}");
        let passed_over = second.facts.iter().find(|fact| fact.what == "cuda:0").expect("it was looked at");
        assert!(passed_over.found.contains("7.0") && passed_over.mend.is_empty(), "nobody has to mend it: {passed_over:?}");
        let none = resolved(DeviceChoice::Auto, &[old.clone(), gpu((6, 1))]).expect("auto never fails");
        assert!(none.device == Device::Cpu && none.reason.contains("compute capability 7.0"), "the first one is spoken of: {none:?}");
        assert!(resolved(DeviceChoice::Cuda(0), &[old, usable]).is_err(), "whoever names one gets no other");
    }

    #[test]
    fn whatever_keeps_the_gpu_from_being_used_is_a_fact_with_its_mend() {
        for cuda in [
            without_driver(Driver::Missing),
            without_driver(Driver::Broken("CUDA_ERROR_NO_DEVICE".into())),
            Cuda { driver: Driver::Works { version: 11_080, release: None, devices: vec![gpu((8, 9))] }, libraries: vec![] },
            machine(vec![], &[]),
            machine(vec![gpu((7, 0))], &[]),
            machine(vec![gpu((8, 9))], &["cuDNN"]),
        ] {
            let (_, mend) = cuda.obstacle(0).expect("it cannot be used");
            assert!(facts(&cuda).iter().any(|fact| fact.mend == mend), "{mend}: {:?}", facts(&cuda));
        }
        assert!(
            facts(&machine(vec![gpu((8, 9))], &[])).iter().all(|fact| fact.mend.is_empty()),
            "where nothing does, nothing is to be mended"
        );
    }

    #[test]
    fn without_tensorrt_the_gpu_is_used_and_it_is_said_why() {
        let resolved = resolve_with(&DeviceChoice::Cuda(0), || machine(vec![gpu((8, 6))], &["TensorRT"])).expect("it works");
        assert_eq!((resolved.device, resolved.may_fall_back), (Device::Cuda(0), false));
        assert!(resolved.without_tensorrt.is_some_and(|words| words.contains("lib.so.2 is")));
        let missing = resolved.facts.iter().find(|fact| fact.what == "TensorRT").expect("it was looked at");
        assert_eq!(missing.mend, "apt-get install lib-1");
        assert!(resolved.facts.iter().filter(|fact| fact.mend.is_empty()).count() == 3, "{:?}", resolved.facts);
    }

    #[test]
    fn the_drivers_number_is_told_where_it_is_known() {
        let found = |release: Option<&str>| {
            let driver = Driver::Works { version: 13_000, release: release.map(str::to_owned), devices: vec![gpu((9, 0))] };
            facts(&without_driver(driver))[0].found.clone()
        };
        assert_eq!(found(Some("580.159.04")), "580.159.04, for CUDA 13.0, 1 devices");
        assert_eq!(found(None), "for CUDA 13.0, 1 devices");
    }

    #[test]
    fn a_gpu_that_was_asked_for_is_never_replaced_in_silence() {
        for cuda in [without_driver(Driver::Missing), machine(vec![gpu((9, 0))], &[]), machine(vec![gpu((9, 0)); 2], &["cuDNN"])] {
            let error = resolve_with(&DeviceChoice::Cuda(7), || cuda.clone()).expect_err("it fails");
            assert!(error.to_string().contains("CUDA device 7"), "{error}");
        }
        let one = resolve_with(&DeviceChoice::Cuda(7), || machine(vec![gpu((9, 0))], &[])).expect_err("there is one");
        assert!(one.to_string().contains("knows 1 devices, numbered from 0; nvidia-smi -L lists them"), "{one}");
    }

    #[test]
    fn the_cpu_is_taken_without_a_look_at_cuda() {
        let resolved = resolve_with(&DeviceChoice::Cpu, || unreachable!("nobody asked for a GPU")).expect("there is a CPU");
        assert_eq!((resolved.device, resolved.facts.len()), (Device::Cpu, 0));
    }

    #[test]
    fn a_device_that_fails_in_use_is_replaced_with_the_reason() {
        let whole = resolve_with(&DeviceChoice::Auto, || machine(vec![gpu((8, 9))], &[])).expect("auto never fails");
        let fallen = whole.fallen_back("out of memory");
        assert_eq!((fallen.device, fallen.reason.as_str()), (Device::Cpu, "cuda:0 cannot be used: out of memory"));
        assert!(!fallen.facts.is_empty());
    }
}
