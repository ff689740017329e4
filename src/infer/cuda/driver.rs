//! The driver's calls: a device's primary context, streams, events, kernels.
//!
//! In: an ordinal, a compiled image. Out: values that give back what they hold when dropped.
//! Drops nothing: each failed call is an error with the call's name; one of giving back is logged.
//! Must not know: frames, tensors.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUresult};

use super::compile::{Capability, Image};
use super::layout::MEASURED_SIDE;
use super::{CudaError, KERNEL_NAMES};

/// Streams do not wait for the device's default stream, nor it for them.
const NON_BLOCKING: u32 = 1;
/// Whoever waits for a stream of the context, the runtime that infers too, sleeps: by default it takes a core where there are
/// more cores than contexts.
const SLEEPING: u32 = sys::CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as u32;
/// Events measure nothing, and whoever waits for one sleeps: the cores are for decoding.
const SLEEPING_WITHOUT_TIMES: u32 = 1 | 2;
/// Threads of a block, along each axis.
const BLOCK_SIDE: u32 = 16;

/// Makes an answer of the driver an error that names the call. `bytes` is what was asked for.
pub(super) fn checked(call: &'static str, answer: CUresult, bytes: usize) -> Result<(), CudaError> {
    match answer {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(CudaError::OutOfMemory { call, bytes }),
        other => Err(CudaError::Call { call, code: format!("{other:?}") }),
    }
}

/// Nobody can be told when giving back fails, and nothing can be done: the driver also reports by
/// these calls what failed before.
pub(super) fn given_back(call: &'static str, answer: CUresult) {
    if let Err(error) = checked(call, answer, 0) {
        error.tell("the driver reported an error when memory or a handle of the device was given back");
    }
}

/// A device whose primary context is retained, shared with the runtime that infers on it. Everything
/// made on it keeps it.
pub struct Gpu {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

// SAFETY: a context may be used by any thread that makes it current, and by several at once (CUDA
// driver API, context management); `bind` does so before every group of calls.
unsafe impl Send for Gpu {}
// SAFETY: as above; the fields never change.
unsafe impl Sync for Gpu {}

impl Gpu {
    /// Opens the device of this number, from 0.
    ///
    /// # Errors
    /// [`CudaError::NoDriver`] without the driver's library, otherwise the call that failed.
    pub fn open(ordinal: u32) -> Result<Arc<Self>, CudaError> {
        // SAFETY: it only tries to load the library; cudarc panics later where it is missing.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        // SAFETY: the library is there; the flags must be 0.
        checked("cuInit", unsafe { sys::cuInit(0) }, 0)?;
        let mut device = 0;
        // SAFETY: the device is written where it lies. What is beyond an i32 is no device either.
        checked("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut device, i32::try_from(ordinal).unwrap_or(i32::MAX)) }, 0)?;
        // Inference opens the device first: whoever else retains the context, to decode, finds it as it is here.
        // SAFETY: the device is the driver's.
        match unsafe { sys::cuDevicePrimaryCtxSetFlags_v2(device, SLEEPING) } {
            // Older drivers leave a context as it is that somebody has retained.
            CUresult::CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE => {}
            answer => checked("cuDevicePrimaryCtxSetFlags", answer, 0)?,
        }
        let mut context = std::ptr::null_mut();
        // SAFETY: the device is the driver's; `drop` releases what is retained.
        checked("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, device) }, 0)?;
        Ok(Arc::new(Self { device, context }))
    }

    /// Makes the context current in this thread: the calls below belong to the current one.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained.
        checked("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) }, 0)
    }

    /// The same before something is given back.
    pub(super) fn bind_to_give_back(&self) {
        // SAFETY: the context is retained.
        given_back("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) });
    }

    /// The compute capability, which kernels are compiled for.
    ///
    /// # Errors
    /// The call that failed.
    pub fn capability(&self) -> Result<Capability, CudaError> {
        let attribute = |attribute: Attribute| {
            let mut value = 0;
            // SAFETY: the device is the driver's, and the value is written where it lies.
            checked("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, self.device) }, 0)?;
            Ok(value)
        };
        Ok(Capability {
            major: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            minor: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        })
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: it was retained once, and everything that was made on it is gone, since it kept it.
        given_back("cuDevicePrimaryCtxRelease", unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) });
    }
}

/// Work that is done in the order in which it was queued.
pub struct Stream {
    gpu: Arc<Gpu>,
    handle: sys::CUstream,
}

// SAFETY: the driver's streams may be used by any thread in which the context is current.
unsafe impl Send for Stream {}
// SAFETY: as above; calls on one stream from several threads are allowed.
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream of the device, with nothing in it.
    ///
    /// # Errors
    /// The call that failed.
    pub fn new(gpu: &Arc<Gpu>) -> Result<Arc<Self>, CudaError> {
        gpu.bind()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current; `drop` destroys the stream.
        checked("cuStreamCreate", unsafe { sys::cuStreamCreate(&raw mut handle, NON_BLOCKING) }, 0)?;
        Ok(Arc::new(Self { gpu: gpu.clone(), handle }))
    }

    /// The device that it works on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The driver's own handle, a `CUstream`, for a runtime that infers on this stream.
    pub fn handle(&self) -> *mut c_void {
        self.handle.cast()
    }

    /// Waits until everything queued so far is done.
    ///
    /// # Errors
    /// The call that failed, or what failed on the device.
    pub fn synchronise(&self) -> Result<(), CudaError> {
        self.gpu.bind()?;
        // SAFETY: the stream is alive.
        checked("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.handle) }, 0)
    }

    /// Lets what is queued from now on begin after `event`.
    pub(super) fn wait(&self, event: &Event) -> Result<(), CudaError> {
        // SAFETY: both are alive and of this context.
        checked("cuStreamWaitEvent", unsafe { sys::cuStreamWaitEvent(self.handle, event.handle, 0) }, 0)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.gpu.bind_to_give_back();
        // SAFETY: it was created once; the driver ends it after the work that is queued.
        given_back("cuStreamDestroy", unsafe { sys::cuStreamDestroy_v2(self.handle) });
    }
}

/// A point in a stream.
pub(super) struct Event {
    gpu: Arc<Gpu>,
    handle: sys::CUevent,
}

// SAFETY: the driver's events may be used by any thread in which the context is current.
unsafe impl Send for Event {}

impl Event {
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Self, CudaError> {
        gpu.bind()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the context is current; `drop` destroys the event.
        checked("cuEventCreate", unsafe { sys::cuEventCreate(&raw mut handle, SLEEPING_WITHOUT_TIMES) }, 0)?;
        Ok(Self { gpu: gpu.clone(), handle })
    }

    /// Stands for what `stream` has queued so far.
    pub(super) fn record(&self, stream: &Stream) -> Result<(), CudaError> {
        // SAFETY: both are alive and of this context.
        checked("cuEventRecord", unsafe { sys::cuEventRecord(self.handle, stream.handle) }, 0)
    }

    /// Waits until what it stands for is done.
    pub(super) fn synchronise(&self) -> Result<(), CudaError> {
        // SAFETY: the event is alive.
        checked("cuEventSynchronize", unsafe { sys::cuEventSynchronize(self.handle) }, 0)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        self.gpu.bind_to_give_back();
        // SAFETY: it was created once.
        given_back("cuEventDestroy", unsafe { sys::cuEventDestroy_v2(self.handle) });
    }
}

/// The kernels, loaded into a context.
pub(super) struct Kernels {
    gpu: Arc<Gpu>,
    module: sys::CUmodule,
    letterbox: sys::CUfunction,
    align: sys::CUfunction,
    measure: sys::CUfunction,
}

// SAFETY: modules and functions may be used by any thread in which the context is current.
unsafe impl Send for Kernels {}

impl Kernels {
    pub(super) fn load(gpu: &Arc<Gpu>, image: &Image) -> Result<Self, CudaError> {
        gpu.bind()?;
        let mut module = std::ptr::null_mut();
        // SAFETY: the image is a cubin, or PTX that ends in a zero (`Image`); `drop` unloads it.
        checked("cuModuleLoadData", unsafe { sys::cuModuleLoadData(&raw mut module, image.bytes().as_ptr().cast()) }, 0)?;
        let none = std::ptr::null_mut();
        let mut kernels = Self { gpu: gpu.clone(), module, letterbox: none, align: none, measure: none };
        for (place, name) in [&mut kernels.letterbox, &mut kernels.align, &mut kernels.measure].into_iter().zip(KERNEL_NAMES) {
            // SAFETY: the module is loaded, and the function is written where it lies.
            checked("cuModuleGetFunction", unsafe { sys::cuModuleGetFunction(place, module, name.as_ptr()) }, 0)?;
        }
        Ok(kernels)
    }

    /// Queues the letterbox kernel over frames of `size`: the width and height of the largest canvas, and how many there are.
    ///
    /// # Safety
    /// `parameters` are the kernel's, and what they point at lives until the stream has come by.
    pub(super) unsafe fn letterbox(&self, stream: &Stream, size: [u32; 3], parameters: [*mut c_void; 1]) -> Result<(), CudaError> {
        // A thread makes two by two pixels.
        let grid = [size[0].div_ceil(2 * BLOCK_SIDE), size[1].div_ceil(2 * BLOCK_SIDE), size[2]];
        // SAFETY: the caller's.
        unsafe { launch(self.letterbox, stream, (grid, parameters)) }
    }

    /// Queues the alignment kernel over faces of `size`: width, height and how many there are.
    ///
    /// # Safety
    /// As for [`letterbox`](Self::letterbox).
    pub(super) unsafe fn align(&self, stream: &Stream, size: [u32; 3], parameters: [*mut c_void; 2]) -> Result<(), CudaError> {
        let grid = [size[0].div_ceil(BLOCK_SIDE), size[1].div_ceil(BLOCK_SIDE), size[2]];
        // SAFETY: the caller's.
        unsafe { launch(self.align, stream, (grid, parameters)) }
    }

    /// Queues the kernel that adds up the rows of `faces` crops.
    ///
    /// # Safety
    /// As for [`letterbox`](Self::letterbox).
    pub(super) unsafe fn measure(&self, stream: &Stream, faces: u32, parameters: [*mut c_void; 2]) -> Result<(), CudaError> {
        // A thread adds up a row.
        let grid = [(MEASURED_SIDE as u32).div_ceil(BLOCK_SIDE), 1, faces];
        // SAFETY: the caller's.
        unsafe { launch(self.measure, stream, (grid, parameters)) }
    }
}

/// # Safety
/// `parameters` are those of `kernel`, and what they point at lives until the stream has come by.
unsafe fn launch<const N: usize>(
    kernel: sys::CUfunction,
    stream: &Stream,
    (grid, parameters): ([u32; 3], [*mut c_void; N]),
) -> Result<(), CudaError> {
    let mut parameters = parameters;
    let [x, y, z] = grid;
    let block = BLOCK_SIDE;
    // SAFETY: the driver copies the parameters before it returns; the rest is the caller's.
    let answer =
        unsafe { sys::cuLaunchKernel(kernel, x, y, z, block, block, 1, 0, stream.handle, parameters.as_mut_ptr(), std::ptr::null_mut()) };
    checked("cuLaunchKernel", answer, 0)
}

impl Drop for Kernels {
    fn drop(&mut self) {
        self.gpu.bind_to_give_back();
        // SAFETY: it was loaded once, and the worker waited for its streams before.
        given_back("cuModuleUnload", unsafe { sys::cuModuleUnload(self.module) });
    }
}
