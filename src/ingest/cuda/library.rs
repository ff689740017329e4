//! GStreamer's CUDA library, found at run time. Nothing of it is linked.
//!
//! In: libgstcuda-1.0.so.0. Out: the few of its calls that are needed, with types.
//! Drops nothing. Once loaded it stays: it registers types with GLib, which cannot be taken back.
//! Must not know: pipelines, frames.

use std::error::Error;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use gstreamer as gst;
use gstreamer::glib::translate::from_glib_full;
use gstreamer_video as gst_video;

use super::driver::Primary;

/// The library's file, in Debian's package libgstreamer-plugins-bad1.0-0.
pub(crate) const LIBRARY: &str = "libgstcuda-1.0.so.0";
/// The driver's library of decoders, without which there is no decoder of a device.
pub(crate) const DECODER_LIBRARY: &str = "libnvcuvid.so.1";

/// The public beginning of `GstCudaMemory`, equal in all releases since 1.22.
#[repr(C)]
struct CudaMemory {
    memory: gst::ffi::GstMemory,
    context: *mut c_void,
    info: gst_video::ffi::GstVideoInfo,
}

// SAFETY: these are the signatures of gst/cuda/*.h, equal in all releases since 1.22.
type IsMemory = unsafe extern "C" fn(*mut gst::ffi::GstMemory) -> c_int;
type Handle = unsafe extern "C" fn(*mut c_void) -> *mut c_void;
type WrapContext = unsafe extern "C" fn(*mut c_void, c_int) -> *mut c_void;
type NewContext = unsafe extern "C" fn(*mut c_void) -> *mut gst::ffi::GstContext;
type Synchronise = unsafe extern "C" fn(*mut CudaMemory);

/// The library's calls.
pub(super) struct Library {
    is_memory: IsMemory,
    handle: Handle,
    wrap_context: WrapContext,
    new_context: NewContext,
    /// Since 1.24, where memory knows the stream that writes it.
    synchronise: Option<Synchronise>,
}

/// Whether a library can be loaded.
pub(crate) fn is_there(file: &str) -> bool {
    // SAFETY: these are GStreamer's and the driver's libraries, whose initialisers run wherever a device decodes.
    unsafe { libloading::Library::new(file) }.map(std::mem::forget).is_ok()
}

/// What the loader says, which is the error's cause where there is one.
fn in_words(error: &libloading::Error) -> String {
    error.source().map_or_else(|| error.to_string(), ToString::to_string)
}

impl Library {
    /// The library, loaded at the first call that finds it.
    pub(super) fn loaded() -> Result<&'static Self, String> {
        static LOADED: OnceLock<Library> = OnceLock::new();
        if let Some(loaded) = LOADED.get() {
            return Ok(loaded);
        }
        let loaded = Self::load()?;
        Ok(LOADED.get_or_init(|| loaded))
    }

    fn load() -> Result<Self, String> {
        // SAFETY: GStreamer's own elements load it the same way, and it is never unloaded (below).
        let library = unsafe { libloading::Library::new(LIBRARY) }
            .map_err(|error| format!("{LIBRARY} cannot be loaded: {}; install libgstreamer-plugins-bad1.0-0", in_words(&error)))?;
        let library: &'static libloading::Library = Box::leak(Box::new(library));
        let missing = |error: libloading::Error| format!("{LIBRARY} is of another GStreamer than 1.22 or newer: {}", in_words(&error));
        // SAFETY: the signature is that of gst/cuda/gstcudaloader.h.
        let find_driver = unsafe { library.get::<unsafe extern "C" fn() -> c_int>(b"gst_cuda_load_library\0") }.map_err(missing)?;
        // SAFETY: it takes nothing and may be called again.
        if unsafe { find_driver() } == 0 {
            return Err(format!("{LIBRARY} does not find the NVIDIA driver, or one that is too old: nvidia-smi says more"));
        }
        // SAFETY: the signatures are those of gst/cuda/*.h since 1.22.
        unsafe {
            Ok(Self {
                is_memory: *library.get(b"gst_is_cuda_memory\0").map_err(missing)?,
                handle: *library.get(b"gst_cuda_context_get_handle\0").map_err(missing)?,
                wrap_context: *library.get(b"gst_cuda_context_new_wrapped\0").map_err(missing)?,
                new_context: *library.get(b"gst_context_new_cuda_context\0").map_err(missing)?,
                // SAFETY: as above; it is newer than the others.
                synchronise: library.get(b"gst_cuda_memory_sync\0").ok().map(|symbol| *symbol),
            })
        }
    }

    /// The context as pipelines take it. `primary` has to outlive it.
    pub(super) fn wrap(&self, primary: &Primary) -> Result<gst::Context, String> {
        let (context, device) = primary.handles();
        // SAFETY: the context is retained and of this device.
        let wrapped = unsafe { (self.wrap_context)(context.cast(), device) };
        if wrapped.is_null() {
            return Err(format!("{LIBRARY} does not take the context of cuda:{device}"));
        }
        // SAFETY: it is a context of the library; what is given holds a reference of its own.
        let given = unsafe { (self.new_context)(wrapped) };
        // SAFETY: the reference that `wrap_context` gave is not needed any more; it is a GstObject.
        unsafe { gst::ffi::gst_object_unref(wrapped.cast()) };
        // SAFETY: the reference is ours.
        if given.is_null() { Err("GStreamer gives no context".into()) } else { Ok(unsafe { from_glib_full(given) }) }
    }

    /// Whether the memory is a device's, and lies in the context of `primary`.
    ///
    /// # Safety
    /// The memory is alive.
    pub(super) unsafe fn is_of(&self, memory: *mut gst::ffi::GstMemory, primary: &Primary) -> bool {
        // SAFETY: memory of that type begins as stated above, and keeps its context alive.
        unsafe { (self.is_memory)(memory) != 0 && (self.handle)((*memory.cast::<CudaMemory>()).context) == primary.handles().0.cast() }
    }

    /// Where the planes of a memory begin and how far their rows are apart, as it was allocated.
    ///
    /// # Safety
    /// [`is_of`](Self::is_of) has said yes to the memory, and it is alive.
    pub(super) unsafe fn layout(&self, memory: *mut gst::ffi::GstMemory) -> ([usize; 4], [i32; 4]) {
        // SAFETY: the caller's.
        let info = unsafe { &(*memory.cast::<CudaMemory>()).info };
        (info.offset, info.stride)
    }

    /// Waits until what is queued to write the memory is done.
    ///
    /// # Safety
    /// As for [`layout`](Self::layout).
    pub(super) unsafe fn wait_for(&self, memory: *mut gst::ffi::GstMemory, primary: &Primary) -> Result<(), String> {
        match self.synchronise {
            // SAFETY: the caller's.
            Some(synchronise) => unsafe { synchronise(memory.cast()) },
            // Elements of 1.22 wait for their streams before they hand memory on; it does not say which those are.
            None => primary.wait()?,
        }
        Ok(())
    }
}
