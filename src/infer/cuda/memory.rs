//! Memory of a device, pinned memory of the host, and the way from one to the other.
//!
//! In: sizes, bytes. Out: buffers that are freed when dropped.
//! Drops nothing. What is queued is waited for before its memory is written or freed.
//! Must not know: what the bytes mean.

use std::sync::Arc;

use cudarc::driver::sys;

use super::CudaError;
use super::driver::{Event, Gpu, Stream, checked, given_back};

/// Memory of a device.
pub struct DeviceBuffer {
    gpu: Arc<Gpu>,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl DeviceBuffer {
    /// Allocates `bytes` (at least one) on the device; what is in them is left as it was.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`], or the call that failed.
    pub fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Self, CudaError> {
        gpu.bind()?;
        let (mut address, bytes) = (0, bytes.max(1));
        // SAFETY: the context is current; `drop` frees it.
        checked("cuMemAlloc", unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes) }, bytes)?;
        Ok(Self { gpu: gpu.clone(), address, bytes })
    }

    /// The device address of the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        self.gpu.bind_to_give_back();
        // SAFETY: it was allocated once.
        given_back("cuMemFree", unsafe { sys::cuMemFree_v2(self.address) });
    }
}

/// Memory of the host that a device reads and writes by itself.
pub struct PinnedBuffer {
    gpu: Arc<Gpu>,
    pointer: *mut u8,
    bytes: usize,
}

// SAFETY: it is plain memory, owned by this value alone.
unsafe impl Send for PinnedBuffer {}
// SAFETY: as above.
unsafe impl Sync for PinnedBuffer {}

impl PinnedBuffer {
    /// Allocates `bytes` (at least one), all 0.
    ///
    /// # Errors
    /// [`CudaError::OutOfMemory`], or the call that failed.
    pub fn new(gpu: &Arc<Gpu>, bytes: usize) -> Result<Self, CudaError> {
        gpu.bind()?;
        let (mut pointer, bytes) = (std::ptr::null_mut(), bytes.max(1));
        // SAFETY: the context is current; `drop` frees it.
        checked("cuMemHostAlloc", unsafe { sys::cuMemHostAlloc(&raw mut pointer, bytes, 0) }, bytes)?;
        let pointer: *mut u8 = pointer.cast();
        // SAFETY: the driver gave that many bytes.
        unsafe { pointer.write_bytes(0, bytes) };
        Ok(Self { gpu: gpu.clone(), pointer, bytes })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: that many bytes were allocated and initialised, and a copy into them is waited for
        // before anybody sees them (`Stream::fetch`).
        unsafe { std::slice::from_raw_parts(self.pointer, self.bytes) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and a copy out of them is waited for before they are written (`Staging`).
        unsafe { std::slice::from_raw_parts_mut(self.pointer, self.bytes) }
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        self.gpu.bind_to_give_back();
        // SAFETY: it was allocated once, and every copy was waited for.
        given_back("cuMemFreeHost", unsafe { sys::cuMemFreeHost(self.pointer.cast()) });
    }
}

impl Stream {
    /// Copies the first `bytes` of a device's memory to the host, after what is queued, and waits. For
    /// the answers of graphs: pixels have no reason to come this way.
    ///
    /// # Errors
    /// The call that failed. What `to` holds then is not defined.
    ///
    /// # Panics
    /// Where `bytes` are more than one of both has.
    pub fn fetch(&self, from: &DeviceBuffer, to: &mut PinnedBuffer, bytes: usize) -> Result<(), CudaError> {
        assert!(bytes <= from.bytes, "there are that many bytes");
        self.fetch_from(from.address, to, bytes)
    }

    /// The same from an address in memory that the worker owns.
    pub(super) fn fetch_from(&self, address: u64, to: &mut PinnedBuffer, bytes: usize) -> Result<(), CudaError> {
        assert!(bytes <= to.bytes, "there is room for that many bytes");
        self.gpu().bind()?;
        // SAFETY: both hold that many bytes. The copy is waited for below.
        let answer = unsafe { sys::cuMemcpyDtoHAsync_v2(to.pointer.cast(), address, bytes, self.raw()) };
        checked("cuMemcpyDtoHAsync", answer, bytes)?;
        let waited = self.synchronise();
        if waited.is_err() {
            // The copy must not outlive this call: the caller may free its target.
            let _ = self.synchronise();
        }
        waited
    }

    fn raw(&self) -> sys::CUstream {
        self.handle().cast()
    }
}

/// What is known of the copy out of a [`Staging`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copying {
    Done,
    /// The event stands for its end.
    Recorded,
    /// It was queued, and no event stands for it.
    Unrecorded,
}

/// Memory of a device with pinned memory of the same size in front of it. Bytes are written into the
/// pinned memory and copied from there while the host goes on.
pub(super) struct Staging {
    pinned: PinnedBuffer,
    device: DeviceBuffer,
    copied: Event,
    copying: Copying,
    stream: Arc<Stream>,
}

impl Staging {
    /// Memory for `bytes`, filled by copies in `stream`.
    pub(super) fn new(stream: &Arc<Stream>, bytes: usize) -> Result<Self, CudaError> {
        let gpu = stream.gpu();
        let (pinned, device) = (PinnedBuffer::new(gpu, bytes)?, DeviceBuffer::new(gpu, bytes)?);
        Ok(Self { pinned, device, copied: Event::new(gpu)?, copying: Copying::Done, stream: stream.clone() })
    }

    pub(super) fn device(&self) -> &DeviceBuffer {
        &self.device
    }

    /// Makes sure that there is room for `bytes`. Memory that grows may be another one.
    pub(super) fn reserve(&mut self, bytes: usize) -> Result<(), CudaError> {
        if bytes > self.device.bytes {
            // Kernels may still read what is given back.
            self.stream.synchronise()?;
            self.copying = Copying::Done;
            *self = Self::new(&self.stream, bytes.next_power_of_two())?;
        }
        Ok(())
    }

    /// Lets `write` fill the first `bytes` and queues their copy to the device. There is room for them.
    pub(super) fn send(&mut self, bytes: usize, write: impl FnOnce(&mut [u8])) -> Result<(), CudaError> {
        self.stream.gpu().bind()?;
        self.wait()?;
        write(&mut self.pinned.as_mut_slice()[..bytes]);
        let pointer = self.pinned.pointer.cast();
        self.copying = Copying::Unrecorded;
        // SAFETY: both hold that many bytes, since the slice above did, and they are as large as each
        // other; the pinned memory is neither written nor freed before `wait` has come back.
        let answer = unsafe { sys::cuMemcpyHtoDAsync_v2(self.device.address, pointer, bytes, self.stream.raw()) };
        checked("cuMemcpyHtoDAsync", answer, bytes)?;
        self.copied.record(&self.stream)?;
        self.copying = Copying::Recorded;
        Ok(())
    }

    /// The same with as many numbers.
    pub(super) fn send_values(&mut self, count: usize, write: impl FnOnce(&mut [f32])) -> Result<(), CudaError> {
        self.send(count * size_of::<f32>(), |pinned| {
            // SAFETY: any bytes are numbers, and pinned memory begins at a page.
            let (_, values, _) = unsafe { pinned.align_to_mut::<f32>() };
            write(values);
        })
    }

    /// The first `bytes` that were sent last.
    pub(super) fn sent(&self, bytes: usize) -> &[u8] {
        &self.pinned.as_slice()[..bytes]
    }

    /// Waits until the last copy has left the pinned memory.
    fn wait(&mut self) -> Result<(), CudaError> {
        match self.copying {
            Copying::Done => {}
            Copying::Recorded => self.copied.synchronise()?,
            Copying::Unrecorded => self.stream.synchronise()?,
        }
        self.copying = Copying::Done;
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.stream.gpu().bind_to_give_back();
        // The driver must not read pinned memory that is freed. Where waiting for the stream fails too,
        // nothing runs in it any more.
        if let Err(error) = self.wait().or_else(|_| self.stream.synchronise()) {
            error.tell("an upload could not be waited for");
        }
    }
}
