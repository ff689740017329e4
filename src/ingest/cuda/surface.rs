//! A picture in a device's memory, as the decoder left it, without a copy.
//!
//! In: the decoder's buffer. Out: its pixels, or that it is no memory of the shared context.
//! The buffer stays mapped until the last clone of the frame is dropped; then the decoder's pool has it back.
//! Must not know: caps, frames' times.

use std::sync::Arc;

use gstreamer as gst;

use super::SharedContext;
use crate::frame::DevicePixels;

/// `GST_MAP_CUDA`: the device's address is asked for, not bytes.
const MAP_CUDA: gst::ffi::GstMapFlags = gst::ffi::GST_MAP_FLAG_LAST << 1;

/// A mapped buffer with one memory, which is the device's.
pub(crate) struct Surface {
    memory: *mut gst::ffi::GstMemory,
    map: gst::ffi::GstMapInfo,
    /// Keeps the memory, and goes back to its pool when dropped, before the context may go.
    _buffer: gst::Buffer,
    shared: Arc<SharedContext>,
}

// SAFETY: GStreamer counts references to buffers and memory atomically, memory may be unmapped by any thread, and the
// mapping is only read.
unsafe impl Send for Surface {}
// SAFETY: as above.
unsafe impl Sync for Surface {}

impl Surface {
    /// Maps `buffer`, once the device has written it; says why where it cannot be used.
    pub(crate) fn map(buffer: gst::Buffer, shared: &Arc<SharedContext>) -> Result<Self, String> {
        if buffer.n_memory() != 1 {
            return Err(format!("the decoder gives a picture in {} pieces", buffer.n_memory()));
        }
        let memory = buffer.peek_memory(0).as_ptr().cast_mut();
        // SAFETY: the buffer keeps the memory alive.
        if !unsafe { shared.library().is_of(memory, shared.primary()) } {
            return Err("the decoder gives a picture that is not in the memory of the shared context".into());
        }
        // SAFETY: it is such memory, as was asked above.
        unsafe { shared.library().wait_for(memory, shared.primary()) }?;
        let mut map = std::mem::MaybeUninit::uninit();
        // SAFETY: the memory is alive, and what is written is unmapped once, by `drop`.
        if unsafe { gst::ffi::gst_memory_map(memory, map.as_mut_ptr(), gst::ffi::GST_MAP_READ | MAP_CUDA) } == 0 {
            return Err("the decoder's picture cannot be mapped".into());
        }
        // SAFETY: it was mapped, so the mapping is written.
        let map = unsafe { map.assume_init() };
        Ok(Self { memory, map, _buffer: buffer, shared: shared.clone() })
    }

    /// Where the planes begin and how far their rows are apart, as the memory was allocated.
    pub(crate) fn layout(&self) -> ([usize; 4], [i32; 4]) {
        // SAFETY: `map` has asked whether it is such memory, and the buffer keeps it alive.
        unsafe { self.shared.library().layout(self.memory) }
    }
}

impl DevicePixels for Surface {
    fn address(&self) -> u64 {
        self.map.data as u64
    }

    fn bytes(&self) -> usize {
        self.map.size
    }

    fn to_host(&self) -> Result<Vec<u8>, String> {
        // SAFETY: the mapping says so, and lasts as long as `self`.
        unsafe { self.shared.primary().to_host(self.address(), self.bytes()) }
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        // SAFETY: it was mapped once, and the buffer still keeps the memory.
        unsafe { gst::ffi::gst_memory_unmap(self.memory, &raw mut self.map) };
    }
}
