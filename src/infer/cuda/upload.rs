//! Brings frames that were decoded on the host into device memory, once each.
//!
//! In: frames in I420 or NV12. Out: NV12 surfaces, whose memory is used again when they are dropped.
//! Drops nothing. Memory that nobody needs any more is freed, beyond [`FREE_MAX`] pictures.
//! Must not know: kernels, who decoded the frames.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::driver::Stream;
use super::memory::Staging;
use super::{CudaError, Surface};
use crate::frame::{DevicePixels, Frame, PixelFormat, PixelLayout, Plane};

/// The most pictures' memory that is kept for frames to come.
const FREE_MAX: usize = 64;
/// Rows begin at multiples of this, in bytes: a warp then reads whole segments.
const STRIDE_MULTIPLE: usize = 128;

type Free = Mutex<VecDeque<Staging>>;

/// Pictures' memory, the one that was let go of first in front.
pub(super) struct SurfacePool {
    stream: Arc<Stream>,
    free: Arc<Free>,
}

/// A picture's memory on loan.
struct Loan {
    address: u64,
    bytes: usize,
    memory: Mutex<Option<Staging>>,
    home: Weak<Free>,
}

impl DevicePixels for Loan {
    fn address(&self) -> u64 {
        self.address
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    /// They came from the host, and still stand in the pinned memory that they went through.
    fn to_host(&self) -> Result<Vec<u8>, String> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.as_ref().map(|memory| memory.sent(self.bytes).to_vec()).ok_or_else(|| "its memory was given back".into())
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let memory = self.memory.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(memory), Some(home)) = (memory, self.home.upgrade()) {
            let mut free = home.lock().unwrap_or_else(PoisonError::into_inner);
            free.push_back(memory);
            let surplus = if free.len() > FREE_MAX { free.pop_front() } else { None };
            drop(free);
            // Freed without the lock: the driver may have to be waited for.
            drop(surplus);
        }
    }
}

impl SurfacePool {
    /// A pool whose uploads are queued in `stream`.
    pub(super) fn new(stream: &Arc<Stream>) -> Self {
        Self { stream: stream.clone(), free: Arc::default() }
    }

    /// Copies a frame through pinned memory and queues its way to the device; whatever reads it has to
    /// be queued in the same stream or wait for it.
    ///
    /// The chroma of I420 is interleaved on the way into the pinned memory: every byte is written there
    /// by the host anyhow, and the kernels then know one layout.
    pub(super) fn upload(&self, frame: &Frame) -> Result<Surface, CudaError> {
        let format = surface_format(frame)?;
        let Some(bytes) = format.bytes_needed() else {
            return Err(CudaError::BadSurface { format: Box::new(format), reason: "a row does not fit its stride" });
        };
        let mut memory = match self.take(bytes) {
            Some(memory) => memory,
            None => Staging::new(&self.stream, bytes)?,
        };
        memory.send(bytes, |pinned| fill(frame, &format, pinned))?;
        let (address, home) = (memory.device().address(), Arc::downgrade(&self.free));
        Surface::new(format, Arc::new(Loan { address, bytes, memory: Mutex::new(Some(memory)), home }))
    }

    /// Frees the memory that nobody holds.
    pub(super) fn give_back_unused(&self) {
        let unused = std::mem::take(&mut *self.free.lock().unwrap_or_else(PoisonError::into_inner));
        // Freed without the lock: the driver may have to be waited for.
        drop(unused);
    }

    fn take(&self, bytes: usize) -> Option<Staging> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free.iter().position(|memory| memory.device().bytes() == bytes)?;
        free.remove(at)
    }
}

/// How a frame lies when it is uploaded.
fn surface_format(frame: &Frame) -> Result<PixelFormat, CudaError> {
    let format = *frame.format();
    if format.layout == PixelLayout::Rgb8 {
        return Err(CudaError::BadSurface { format: Box::new(format), reason: "photos are analysed on the host" });
    }
    let (width, height) = (format.size.width as usize, format.size.height as usize);
    let stride = (width.div_ceil(2) * 2).next_multiple_of(STRIDE_MULTIPLE);
    let planes = [Plane { offset: 0, stride }, Plane { offset: stride * height, stride }, Plane::default()];
    Ok(PixelFormat { layout: PixelLayout::Nv12, planes, ..format })
}

/// Writes the frame's rows as `format` has them. What lies between rows is left as it was.
fn fill(frame: &Frame, format: &PixelFormat, bytes: &mut [u8]) {
    let (width, height) = (format.size.width as usize, format.size.height as usize);
    let (pairs, stride) = (width.div_ceil(2), format.planes[0].stride);
    let (luma, chroma) = bytes.split_at_mut(format.planes[1].offset);
    let row = |plane: usize, row: usize, length: usize| {
        let begin = row * frame.format().planes[plane].stride;
        &frame.plane(plane)[begin..begin + length]
    };
    for (at, line) in luma.chunks_mut(stride).take(height).enumerate() {
        line[..width].copy_from_slice(row(0, at, width));
    }
    for (at, line) in chroma.chunks_mut(stride).take(height.div_ceil(2)).enumerate() {
        let line = &mut line[..2 * pairs];
        if frame.format().layout == PixelLayout::Nv12 {
            line.copy_from_slice(row(1, at, 2 * pairs));
        } else {
            let both = row(1, at, pairs).iter().zip(row(2, at, pairs));
            line.as_chunks_mut::<2>().0.iter_mut().zip(both).for_each(|(pair, (u, v))| *pair = [*u, *v]);
        }
    }
}
