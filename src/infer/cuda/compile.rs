//! Compiles the kernels for a device, at run time.
//!
//! In: kernels.cu, a compute capability. Out: an [`Image`] that a driver loads.
//! Drops nothing.
//! Must not know: contexts, frames.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::{result, sys};

use super::CudaError;

/// The kernels' source, one for every device.
pub const KERNELS: &str = include_str!("kernels.cu");
/// The kernels, by the names that they are looked up by.
pub const KERNEL_NAMES: [&CStr; 3] = [c"letterbox_nv12", c"align_nv12", c"measure_crops"];

/// The compute capability of a device: 8.6 is an Ampere of the second kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Capability {
    /// The generation.
    pub major: i32,
    /// Its variant.
    pub minor: i32,
}

impl Capability {
    fn number(self) -> i32 {
        self.major * 10 + self.minor
    }
}

/// Compiled kernels: a cubin, or PTX that ends in a zero.
#[derive(Clone, Debug)]
pub struct Image(Vec<u8>);

impl Image {
    /// Compiled kernels from elsewhere.
    ///
    /// # Errors
    /// [`CudaError::Compile`] where it is neither a cubin nor PTX: a driver would read beyond it.
    pub fn new(mut bytes: Vec<u8>) -> Result<Self, CudaError> {
        if bytes.starts_with(b"\x7fELF") {
            return Ok(Self(bytes));
        }
        if !bytes.is_ascii() || bytes[..bytes.len().saturating_sub(1)].contains(&0) {
            return Err(CudaError::Compile { reason: "the image is neither a cubin nor PTX".into() });
        }
        if bytes.last() != Some(&0) {
            bytes.push(0);
        }
        Ok(Self(bytes))
    }

    /// Compiles [`KERNELS`] for devices of `capability`, which takes some hundred milliseconds. The
    /// answer is machine code, which a driver older than the compiler loads as well; for a device that
    /// is newer than the compiler it is PTX, which the driver translates.
    ///
    /// # Errors
    /// [`CudaError::NoCompiler`] without the library, [`CudaError::Compile`] with the compiler's words.
    pub fn compile(capability: Capability) -> Result<Self, CudaError> {
        // SAFETY: it only tries to load the library; cudarc panics later where it is missing.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoCompiler);
        }
        let known = architectures()?;
        if known.contains(&capability.number()) {
            return Program::compile(&format!("sm_{}", capability.number()))?.machine_code();
        }
        let older = known.into_iter().filter(|known| *known < capability.number()).max();
        let older = older.ok_or_else(|| CudaError::Compile {
            reason: format!("compute capability {}.{} is older than the compiler knows", capability.major, capability.minor),
        })?;
        Program::compile(&format!("compute_{older}"))?.ptx()
    }

    /// The bytes, as `cuModuleLoadData` takes them.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What the compiler knows, as 75 for 7.5.
fn architectures() -> Result<Vec<i32>, CudaError> {
    let mut count = 0;
    // SAFETY: the library is there, and the number is written where it lies.
    checked("nvrtcGetNumSupportedArchs", unsafe { sys::nvrtcGetNumSupportedArchs(&raw mut count) })?;
    let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: the list has room for as many as were counted.
    checked("nvrtcGetSupportedArchs", unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) })?;
    Ok(known)
}

/// A program of the compiler's, destroyed when dropped.
struct Program(sys::nvrtcProgram);

impl Program {
    fn compile(architecture: &str) -> Result<Self, CudaError> {
        let source = CString::new(KERNELS).map_err(|_| CudaError::Compile { reason: "the source holds a zero".into() })?;
        let program = result::create_program(&source, Some(c"kernels.cu"));
        let program = Self(program.map_err(|error| refused("nvrtcCreateProgram", error.0))?);
        // Without contraction every f32 operation is the host's own (kernels.cu).
        let options = [format!("--gpu-architecture={architecture}"), "--fmad=false".into(), "--std=c++17".into()];
        // SAFETY: the program was created above and is destroyed in `drop`.
        match unsafe { result::compile_program(program.0, &options) } {
            Ok(()) => Ok(program),
            Err(error) => Err(CudaError::Compile { reason: format!("{:?} for {architecture}: {}", error.0, program.log()) }),
        }
    }

    fn log(&self) -> String {
        // SAFETY: the program is alive.
        let log = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        let text: Vec<u8> = log.into_iter().map(c_char::cast_unsigned).filter(|byte| *byte != 0).collect();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    fn machine_code(&self) -> Result<Image, CudaError> {
        let mut size = 0;
        // SAFETY: the program is alive and was compiled.
        checked("nvrtcGetCUBINSize", unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut size) })?;
        let mut code = vec![0_u8; size];
        // SAFETY: there is room for as many bytes as the compiler stated.
        checked("nvrtcGetCUBIN", unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast()) })?;
        Image::new(code)
    }

    fn ptx(&self) -> Result<Image, CudaError> {
        // SAFETY: the program is alive and was compiled.
        let text = unsafe { result::get_ptx(self.0) }.map_err(|error| refused("nvrtcGetPTX", error.0))?;
        Image::new(text.into_iter().map(c_char::cast_unsigned).collect())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it was created by the compiler and is destroyed once. What that answers changes nothing.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn checked(call: &'static str, answer: sys::nvrtcResult) -> Result<(), CudaError> {
    if answer == sys::nvrtcResult::NVRTC_SUCCESS { Ok(()) } else { Err(refused(call, answer)) }
}

fn refused(call: &'static str, answer: sys::nvrtcResult) -> CudaError {
    CudaError::Compile { reason: format!("{call} answered {answer:?}") }
}
