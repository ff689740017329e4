//! A decoded picture in device memory.
//!
//! In: an address, its format, whatever keeps the memory. Out: a value that lets go of it when dropped.
//! Drops nothing.
//! Must not know: who decoded it, kernels.

use std::fmt;
use std::sync::Arc;

use super::CudaError;
use crate::frame::{DevicePixels, Frame, PixelFormat, PixelLayout};

/// One NV12 picture in device memory. Clones share the pixels.
#[derive(Clone)]
pub struct Surface {
    format: PixelFormat,
    pixels: Arc<dyn DevicePixels>,
}

/// Taps count pixels in 16 bits. No decoder makes pictures that are wider.
const SIDE_MAX: u32 = u16::MAX as u32;

impl Surface {
    /// A picture over `pixels`; offsets of the planes count from their address.
    ///
    /// # Errors
    /// [`CudaError::BadSurface`] where the layout is not NV12, or the planes reach beyond the pixels.
    pub fn new(format: PixelFormat, pixels: Arc<dyn DevicePixels>) -> Result<Self, CudaError> {
        let refused = |reason: &'static str| Err(CudaError::BadSurface { format: Box::new(format), reason });
        if format.layout != PixelLayout::Nv12 {
            return refused("the kernels read NV12");
        }
        if format.size.width > SIDE_MAX || format.size.height > SIDE_MAX {
            return refused("a side has more than 65,535 pixels");
        }
        match format.bytes_needed() {
            None => refused("a row does not fit its stride"),
            Some(needed) if needed > pixels.bytes() => refused("the planes reach beyond the memory"),
            Some(needed) if i32::try_from(needed).is_err() => refused("it is larger than 2 GiB"),
            Some(_) => Ok(Self { format, pixels }),
        }
    }

    /// The picture of a frame whose pixels are in device memory; `None` of any other.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn of(frame: &Frame) -> Option<Result<Self, CudaError>> {
        frame.device_pixels().map(|pixels| Self::new(*frame.format(), Arc::clone(pixels)))
    }

    /// The pixels themselves.
    pub fn pixels(&self) -> &Arc<dyn DevicePixels> {
        &self.pixels
    }

    /// How the pixels lie.
    pub fn format(&self) -> &PixelFormat {
        &self.format
    }

    /// The device address that offsets of planes count from.
    pub fn address(&self) -> u64 {
        self.pixels.address()
    }
}

impl fmt::Debug for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surface").field("format", &self.format).finish_non_exhaustive()
    }
}
