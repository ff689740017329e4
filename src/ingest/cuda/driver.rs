//! The driver's calls that decoding needs: the primary context, waiting, one copy to the host.
//!
//! In: an ordinal, addresses. Out: a retained context, bytes.
//! Drops nothing: each failed call is told with its name.
//! Must not know: GStreamer, pictures.

use cudarc::driver::sys::{self, CUresult};

/// A device's primary context, retained: the one that inference uses, too.
pub(super) struct Primary {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

// SAFETY: a context may be used by any thread that makes it current, and by several at once; `within` does so.
unsafe impl Send for Primary {}
// SAFETY: as above; the fields never change.
unsafe impl Sync for Primary {}

fn checked(call: &str, answer: CUresult) -> Result<(), String> {
    if answer == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(format!("{call}: {answer:?}")) }
}

impl Primary {
    /// Retains the primary context of the device of this number.
    pub(super) fn retain(ordinal: u32) -> Result<Self, String> {
        // SAFETY: it only tries to load the library; cudarc panics later where it is missing.
        if !unsafe { sys::is_culib_present() } {
            return Err("libcuda.so is not there, so no NVIDIA driver is installed".into());
        }
        // SAFETY: the library is there; the flags must be 0.
        checked("cuInit", unsafe { sys::cuInit(0) })?;
        let (mut device, mut context) = (0, std::ptr::null_mut());
        // SAFETY: the device is written where it lies. What is beyond an i32 is no device either.
        checked("cuDeviceGet", unsafe { sys::cuDeviceGet(&raw mut device, i32::try_from(ordinal).unwrap_or(i32::MAX)) })?;
        // SAFETY: the device is the driver's; `drop` releases what is retained.
        checked("cuDevicePrimaryCtxRetain", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut context, device) })?;
        Ok(Self { device, context })
    }

    /// The driver's handles: context and device.
    pub(super) fn handles(&self) -> (sys::CUcontext, sys::CUdevice) {
        (self.context, self.device)
    }

    /// Does `work` while the context is this thread's, which afterwards has the one that it had.
    fn within(&self, work: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        // SAFETY: the context is retained.
        checked("cuCtxPushCurrent", unsafe { sys::cuCtxPushCurrent_v2(self.context) })?;
        let done = work();
        let mut before = std::ptr::null_mut();
        // SAFETY: the context was pushed above.
        let popped = checked("cuCtxPopCurrent", unsafe { sys::cuCtxPopCurrent_v2(&raw mut before) });
        done.and(popped)
    }

    /// Waits for the default stream, and by that for what decoders queue in streams that wait for it. Inference's streams
    /// do not: a camera never waits for inference here.
    pub(super) fn wait(&self) -> Result<(), String> {
        // SAFETY: null is the default stream of the current context.
        self.within(|| checked("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(std::ptr::null_mut()) }))
    }

    /// Copies `bytes` from the device to the host, and waits for them.
    ///
    /// # Safety
    /// So many bytes lie at `address` in this context's memory.
    pub(super) unsafe fn to_host(&self, address: u64, bytes: usize) -> Result<Vec<u8>, String> {
        let mut host = vec![0_u8; bytes];
        // SAFETY: there is room for as many bytes; that they lie at the address is the caller's to know.
        self.within(|| checked("cuMemcpyDtoH", unsafe { sys::cuMemcpyDtoH_v2(host.as_mut_ptr().cast(), address, bytes) }))?;
        Ok(host)
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        // SAFETY: it was retained once.
        if let Err(error) = checked("cuDevicePrimaryCtxRelease", unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) }) {
            tracing::warn!(%error, "the driver reported an error when the context was given back");
        }
    }
}
