//! Looks what of CUDA is on this machine: the driver, its devices, and the libraries that inference on them needs.
//!
//! In: the machine's libraries, by the names under which they are loaded. Out: [`Cuda`], facts with their mends.
//! Drops nothing. Nothing is linked: each library is opened here, and where it is not there that is a fact.
//! Must not know: what is chosen, sessions.

use std::error::Error;
use std::ffi::c_int;

use cudarc::driver::{result, sys};
use libloading::Library;

/// The oldest driver interface that CUDA 12 runs on, as `cuDriverGetVersion` counts.
const DRIVER_MIN: i32 = 12_000;
/// The oldest compute capability that TensorRT 10 and doorward's kernels are made for: Turing.
pub(super) const COMPUTE_MIN: (i32, i32) = (7, 5);

/// The driver, as far as it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// There is none.
    Missing,
    /// It does not work, with its own words.
    Broken(String),
    /// It works, and knows these devices.
    Works {
        /// As `cuDriverGetVersion` counts: 12080 is 12.8.
        version: i32,
        /// Its own number, like 580.159.04, where its file says it.
        release: Option<String>,
        /// By their numbers.
        devices: Vec<Gpu>,
    },
}

/// One CUDA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Compute capability, major and minor.
    pub compute: (i32, i32),
    /// Its memory in bytes.
    pub memory_bytes: u64,
}

/// Whether inference needs a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing runs on a GPU without it.
    All,
    /// Without it the CUDA provider runs the models, which is slower than TensorRT.
    TensorRt,
}

/// A library that inference on a GPU loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryFact {
    /// What it is called.
    pub name: &'static str,
    /// The file that is loaded.
    pub file: &'static str,
    /// What it is needed for.
    pub need: Need,
    /// Its version, empty where it tells none; or why it cannot be used.
    pub found: Result<String, String>,
    /// The package that carries it, by the names of NVIDIA's Debian repository and of PyPI.
    pub package: &'static str,
}

/// What of CUDA is on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuda {
    /// The driver.
    pub driver: Driver,
    /// The libraries; none is looked for without a driver.
    pub libraries: Vec<LibraryFact>,
}

/// How a library tells its version.
#[derive(Clone, Copy)]
enum Version {
    /// It is not asked.
    Untold,
    /// It tells none but its interface's; the file's name may: `libnvonnxparser.so.10.9.0`.
    InFileName,
    /// `int f(int* version)`, counted like 12080.
    CudaRuntime(&'static [u8]),
    /// `size_t f()`, or an int, counted by ten thousands: 90801 is 9.8.1.
    Returned(&'static [u8]),
    /// `int f(int* major, int* minor)`.
    Pair(&'static [u8]),
    /// `int f(libraryPropertyType what, int* number)`, without a handle: 0 asks for the major number, 1 for the minor, 2 for the patch.
    Property(&'static [u8]),
}

/// Name, file, need, package, the files of other versions that are found instead, and how it tells its version.
type Wanted = (&'static str, &'static str, Need, &'static str, &'static [&'static str], Version);

const WANTED: [Wanted; 8] = [
    (
        "CUDA runtime",
        "libcudart.so.12",
        Need::All,
        "cuda-cudart-12-8",
        &["libcudart.so.11.0", "libcudart.so.13"],
        Version::CudaRuntime(b"cudaRuntimeGetVersion\0"),
    ),
    (
        "cuBLAS",
        "libcublas.so.12",
        Need::All,
        "libcublas-12-8",
        &["libcublas.so.11", "libcublas.so.13"],
        Version::Property(b"cublasGetProperty\0"),
    ),
    (
        "cuFFT",
        "libcufft.so.11",
        Need::All,
        "libcufft-12-8",
        &["libcufft.so.10", "libcufft.so.12"],
        Version::Property(b"cufftGetProperty\0"),
    ),
    ("cuRAND", "libcurand.so.10", Need::All, "libcurand-12-8", &[], Version::Property(b"curandGetProperty\0")),
    ("cuDNN", "libcudnn.so.9", Need::All, "libcudnn9-cuda-12", &["libcudnn.so.8"], Version::Returned(b"cudnnGetVersion\0")),
    ("NVRTC", "libnvrtc.so.12", Need::All, "cuda-nvrtc-12-8", &["libnvrtc.so.11.2", "libnvrtc.so.13"], Version::Pair(b"nvrtcVersion\0")),
    (
        "TensorRT",
        "libnvinfer.so.10",
        Need::TensorRt,
        "libnvinfer10",
        &["libnvinfer.so.8", "libnvinfer.so.9", "libnvinfer.so.11"],
        Version::Returned(b"getInferLibVersion\0"),
    ),
    // What `getNvOnnxParserVersion` gives is no release: it has been 0.1.0 or 0.2.0 from TensorRT 5 to 10.
    ("TensorRT's parser", "libnvonnxparser.so.10", Need::TensorRt, "libnvonnxparsers10", &[], Version::InFileName),
];

/// Looks. Libraries that are found stay loaded: whoever uses the GPU loads them anyway.
pub fn probe() -> Cuda {
    let driver = driver();
    let libraries = if matches!(driver, Driver::Works { .. }) { WANTED.into_iter().map(library).collect() } else { Vec::new() };
    Cuda { driver, libraries }
}

/// The libraries that cannot be loaded, where there may be no driver: for the doctor. They are asked for nothing, since cuDNN ends a
/// process whose parts do not fit together, and they stay loaded, since not all of them can be unloaded.
pub fn missing_libraries() -> Vec<LibraryFact> {
    let untold =
        WANTED.into_iter().map(|(name, file, need, package, others, _)| library((name, file, need, package, others, Version::Untold)));
    untold.filter(|library| library.found.is_err()).collect()
}

fn driver() -> Driver {
    // SAFETY: it only tries to load the driver's library; cudarc panics later where it is missing, so this has to come first.
    if !unsafe { sys::is_culib_present() } {
        return Driver::Missing;
    }
    let looked = result::init().and_then(|()| {
        let mut version = 0;
        // SAFETY: the driver writes one integer.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result()?;
        let devices = (0..result::device::get_count()?).map(gpu).collect::<Result<Vec<_>, _>>()?;
        Ok((version, devices))
    });
    match looked {
        Ok((version, devices)) => Driver::Works { version, release: release(), devices },
        Err(error) => Driver::Broken(format!("{error:?}")),
    }
}

/// The driver's own number, by the name of its file that was loaded: that one does the work, also where it is newer than the kernel's
/// module. What /proc and /sys say of the module is missing in some containers, and NVML is one more library, which wakes every GPU.
fn release() -> Option<String> {
    let number = number_in_name("libcuda.so")?;
    // Windows' files, as Linux sees them there, are called libcuda.so.1.1 whatever the driver.
    number.split('.').next()?.parse::<u32>().is_ok_and(|major| major > 100).then_some(number)
}

/// What follows `file` in the name of the loaded file that it leads to, if that is a number with a dot in it.
fn number_in_name(file: &str) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| number_after(file, line.rsplit('/').next()?))
}

/// `580.159.04` of libcuda.so.580.159.04, which follows libcuda.so.
fn number_after(file: &str, name: &str) -> Option<String> {
    let number = name.strip_prefix(file)?.strip_prefix('.')?;
    let is_number =
        number.contains('.') && number.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    is_number.then(|| number.to_owned())
}

fn gpu(ordinal: i32) -> Result<Gpu, cudarc::driver::DriverError> {
    let device = result::device::get(ordinal)?;
    // SAFETY: the device was just given by the driver.
    let attribute = |attribute| unsafe { result::device::get_attribute(device, attribute) };
    Ok(Gpu {
        name: result::device::get_name(device)?,
        compute: (
            attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device) }? as u64,
    })
}

fn library((name, file, need, package, others, version): Wanted) -> LibraryFact {
    let found = match open(file) {
        Ok(library) => {
            let told = version_of(&library, (file, version));
            // It is loaded again when it is needed, or by what needs it; closing it now would only cost time.
            std::mem::forget(library);
            Ok(told)
        }
        Err(words) => Err(match others.iter().find(|other| is_absent(file, &words) && open(other).is_ok()) {
            Some(other) => format!("{file} is not there; {other} is, of another version, which cannot be used"),
            None => format!("{file} cannot be loaded: {words}"),
        }),
    };
    LibraryFact { name, file, need, found, package }
}

fn open(file: &str) -> Result<Library, String> {
    // SAFETY: these are NVIDIA's libraries, whose initialisers run in every program that uses CUDA.
    // The loader's own words, which say what is missing, are the error's cause.
    unsafe { Library::new(file) }.map_err(|error| error.source().map_or_else(|| error.to_string(), ToString::to_string))
}

/// Whether a library is not there at all, by the loader's words: one that is found and damaged they name by its path, and one that
/// lacks another by the other's name.
fn is_absent(file: &str, words: &str) -> bool {
    words.strip_prefix(file).is_some_and(|rest| rest.starts_with(':'))
}

fn version_of(library: &Library, (file, version): (&str, Version)) -> String {
    match version {
        Version::Untold => None,
        // The soname ends in the major number, which the file's name goes on from.
        Version::InFileName => file.rsplit_once('.').and_then(|(stem, _)| number_in_name(stem)),
        Version::CudaRuntime(symbol) => cuda_runtime(library, symbol),
        Version::Returned(symbol) => returned(library, symbol),
        Version::Pair(symbol) => pair(library, symbol),
        Version::Property(symbol) => property(library, symbol),
    }
    .unwrap_or_default()
}

fn cuda_runtime(library: &Library, symbol: &[u8]) -> Option<String> {
    // SAFETY: the symbol has this signature in every release of the library.
    let call = unsafe { library.get::<extern "C" fn(*mut c_int) -> c_int>(symbol) }.ok()?;
    let mut version = 0;
    (call(&raw mut version) == 0).then(|| dotted(version))
}

fn returned(library: &Library, symbol: &[u8]) -> Option<String> {
    // SAFETY: as above, where it returns an int in its lower half.
    let counted = unsafe { library.get::<extern "C" fn() -> usize>(symbol) }.ok()?() as u32;
    Some(format!("{}.{}.{}", counted / 10_000, counted % 10_000 / 100, counted % 100))
}

fn pair(library: &Library, symbol: &[u8]) -> Option<String> {
    // SAFETY: as above.
    let call = unsafe { library.get::<extern "C" fn(*mut c_int, *mut c_int) -> c_int>(symbol) }.ok()?;
    let (mut major, mut minor) = (0, 0);
    (call(&raw mut major, &raw mut minor) == 0).then(|| format!("{major}.{minor}"))
}

fn property(library: &Library, symbol: &[u8]) -> Option<String> {
    // SAFETY: as above.
    let call = unsafe { library.get::<extern "C" fn(c_int, *mut c_int) -> c_int>(symbol) }.ok()?;
    let number = |what| {
        let mut number = 0;
        (call(what, &raw mut number) == 0).then_some(number)
    };
    Some(format!("{}.{}.{}", number(0)?, number(1)?, number(2)?))
}

/// Why something cannot be used, and the mend.
type Obstacle = (String, String);

impl Cuda {
    /// Why device `ordinal` cannot be used, with the mend; `None` where it can.
    pub fn obstacle(&self, ordinal: u32) -> Option<Obstacle> {
        if let Some(obstacle) = self.driver.obstacle() {
            return Some(obstacle);
        }
        let devices = self.driver.devices();
        let Some(gpu) = devices.get(ordinal as usize) else {
            return because(format!("the NVIDIA driver knows {} devices, numbered from 0", devices.len()), "nvidia-smi -L lists them");
        };
        if let Some(obstacle) = gpu.obstacle() {
            return Some(obstacle);
        }
        let missing = self.libraries.iter().find(|library| library.need == Need::All && library.found.is_err())?;
        let words = missing.found.as_ref().err().cloned().unwrap_or_default();
        Some((format!("{}: {words}", missing.name), format!("apt-get install {}", missing.package)))
    }

    /// Whether `TensorRT` can be used, and else why not.
    pub fn tensorrt(&self) -> Result<(), String> {
        let missing = self.libraries.iter().find(|library| library.need == Need::TensorRt && library.found.is_err());
        missing.map_or(Ok(()), |library| Err(library.found.as_ref().err().cloned().unwrap_or_default()))
    }
}

fn because(what: String, mend: &str) -> Option<Obstacle> {
    Some((what, mend.to_owned()))
}

impl Driver {
    /// Why no device can be used by it, with the mend.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        match self {
            Self::Missing => {
                because("libcuda.so is not there, so no NVIDIA driver is installed".into(), "apt-get install nvidia-driver, then restart")
            }
            Self::Broken(words) => because(
                format!("the NVIDIA driver does not work: {words}"),
                "nvidia-smi says more; after an upgrade of the driver the machine must restart",
            ),
            Self::Works { version, .. } if *version < DRIVER_MIN => because(
                format!("the NVIDIA driver is for CUDA {}, and 12 is needed", dotted(*version)),
                "install a driver of version 525 or newer",
            ),
            Self::Works { devices, .. } if devices.is_empty() => because(
                "the NVIDIA driver works and knows no device".into(),
                "nvidia-smi -L lists those of the machine; in a container they have to be handed in",
            ),
            Self::Works { .. } => None,
        }
    }

    /// Those that it knows.
    pub(super) fn devices(&self) -> &[Gpu] {
        match self {
            Self::Works { devices, .. } => devices,
            Self::Missing | Self::Broken(_) => &[],
        }
    }
}

impl Gpu {
    /// Why it cannot be used whatever is installed, with the mend.
    pub(super) fn obstacle(&self) -> Option<Obstacle> {
        let (major, minor) = self.compute;
        let what = || format!("{} has compute capability {major}.{minor}, and 7.5 is needed", self.name);
        if self.compute < COMPUTE_MIN { because(what(), "use a GPU of the Turing generation (2018) or newer") } else { None }
    }
}

/// `12.8` for 12080.
pub(super) fn dotted(version: i32) -> String {
    format!("{}.{}", version / 1_000, version % 1_000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_cannot_be_loaded_is_told_in_the_loaders_own_words() {
        let words = open("libnothing-of-the-kind.so.7").expect_err("there is none");
        assert!(words.contains("libnothing-of-the-kind.so.7: cannot open"), "{words}");
    }

    #[test]
    fn a_number_is_taken_from_a_files_name_where_it_is_one() {
        let of = |name| number_after("libcuda.so", name);
        assert_eq!(of("libcuda.so.580.159.04").as_deref(), Some("580.159.04"));
        for name in ["libcuda.so", "libcuda.so.1", "libcuda.so.580.159.04 (deleted)", "libcuda.so.580.", "libcudart.so.12.9.79"] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
