//! One decoded picture with its capture time.
//!
//! In: what a source measured. Out: a value that every stage can read and share cheaply.
//! Must not know: GStreamer, tensors, GPUs. Pixels stay where the decoder put them, behind
//! [`HostPixels`] or [`DevicePixels`], so that no stage copies a frame to look at it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use doorward_kernels::picture::Picture;
pub use doorward_kernels::picture::{ColourMatrix, ColourRange, PixelFormat, PixelLayout, Plane, Size};

use crate::clock::Timestamp;

/// The longest allowed [`CameraId`], in bytes.
pub const CAMERA_ID_BYTES_MAX: usize = 63;

/// The operator's name of a camera: 1 to 63 of `a-z`, `0-9` and `-`, beginning with a letter or a
/// digit (AIP-122 resource ids).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CameraId(Arc<str>);

/// Why a text is no camera id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("camera id {id:?} is not allowed: use 1 to 63 characters of a-z, 0-9 and '-', beginning with a letter or a digit")]
pub struct InvalidCameraId {
    /// The refused text, cut to a printable length.
    pub id: String,
}

impl CameraId {
    /// Checks `id` and makes it a camera id.
    ///
    /// # Errors
    /// [`InvalidCameraId`] when a character or the length is not allowed.
    pub fn parse(id: &str) -> Result<Self, InvalidCameraId> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let begins_well = id.bytes().next().is_some_and(|b| b != b'-');
        if begins_well && id.len() <= CAMERA_ID_BYTES_MAX && id.bytes().all(allowed) {
            Ok(Self(id.into()))
        } else {
            Err(InvalidCameraId { id: id.chars().take(80).collect() })
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CameraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Pixels in the host's memory, wherever they came from (a mapped video buffer, a decoded photo).
pub trait HostPixels: Send + Sync {
    /// All planes as one run of bytes.
    fn bytes(&self) -> &[u8];
}

impl HostPixels for Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// Pixels in the memory of a device that analyses them (a decoder's surface, an upload). Whoever makes a frame of them has
/// waited until they are whole, or has queued what makes them where whoever reads them waits for it. Dropping them gives the
/// memory back to whom it belongs.
pub trait DevicePixels: Send + Sync {
    /// The device's address of the first byte.
    fn address(&self) -> u64;
    /// How many bytes there are.
    fn bytes(&self) -> usize;
    /// All of them, copied into the host's memory: for pictures that people look at, never for analysis. It waits for the
    /// device.
    ///
    /// # Errors
    /// The device's own words.
    fn to_host(&self) -> Result<Vec<u8>, String>;
}

/// Where a frame's pixels are.
#[derive(Clone)]
enum Pixels {
    Host(Arc<dyn HostPixels>),
    Device(Arc<dyn DevicePixels>),
}

/// A frame on a device cannot be copied to the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the picture cannot be copied from the device: {0}")]
pub struct NotCopied(String);

/// Why pixels and their description do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {width}x{height} {layout:?} picture does not fit in {bytes} bytes by the strides it states, {strides:?}")]
pub struct BadPixels {
    width: u32,
    height: u32,
    layout: PixelLayout,
    bytes: usize,
    strides: Vec<usize>,
}

/// One decoded picture. Clones share the pixels.
#[derive(Clone)]
pub struct Frame {
    /// The camera that took it.
    pub camera: CameraId,
    /// Counts the frames of one connection, from 0, gaps included.
    pub sequence: u64,
    /// When the camera took it, on the daemon's clock; monotone per camera.
    pub capture_time: Timestamp,
    /// When it left the decoder, on the daemon's clock.
    pub decode_time: Timestamp,
    /// The time the picture spent between the camera's sensor and the decoder's input, where
    /// RTCP sender reports allow an estimate.
    pub camera_delay: Option<Duration>,
    format: PixelFormat,
    pixels: Pixels,
}

impl Frame {
    /// A frame over `pixels`, captured and decoded at `capture_time`, number 0 of its connection.
    ///
    /// # Errors
    /// [`BadPixels`] when the planes would reach beyond the pixels: no later stage needs to check.
    pub fn new(camera: CameraId, capture_time: Timestamp, format: PixelFormat, pixels: Arc<dyn HostPixels>) -> Result<Self, BadPixels> {
        fits(&format, pixels.bytes().len())?;
        let pixels = Pixels::Host(pixels);
        Ok(Self { camera, sequence: 0, capture_time, decode_time: capture_time, camera_delay: None, format, pixels })
    }

    /// The same over pixels in a device's memory; the planes' offsets count from their address.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn on_device(
        camera: CameraId,
        capture_time: Timestamp,
        format: PixelFormat,
        pixels: Arc<dyn DevicePixels>,
    ) -> Result<Self, BadPixels> {
        fits(&format, pixels.bytes())?;
        let pixels = Pixels::Device(pixels);
        Ok(Self { camera, sequence: 0, capture_time, decode_time: capture_time, camera_delay: None, format, pixels })
    }

    /// The same picture with its pixels somewhere else, which lie as `format` says.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn moved_to_device(&self, format: PixelFormat, pixels: Arc<dyn DevicePixels>) -> Result<Self, BadPixels> {
        fits(&format, pixels.bytes())?;
        Ok(Self { format, pixels: Pixels::Device(pixels), ..self.clone() })
    }

    /// The pixels, where they are in a device's memory.
    pub fn device_pixels(&self) -> Option<&Arc<dyn DevicePixels>> {
        match &self.pixels {
            Pixels::Host(_) => None,
            Pixels::Device(pixels) => Some(pixels),
        }
    }

    /// How the pixels lie.
    pub fn format(&self) -> &PixelFormat {
        &self.format
    }

    /// Width and height.
    pub fn size(&self) -> Size {
        self.format.size
    }

    /// The same picture in the host's memory, and in memory of its own, so that the decoder gets its buffer back.
    ///
    /// # Errors
    /// [`NotCopied`] when a device does not give its pixels.
    pub fn copied(&self) -> Result<Self, NotCopied> {
        let bytes = match &self.pixels {
            Pixels::Host(pixels) => pixels.bytes().to_vec(),
            Pixels::Device(pixels) => pixels.to_host().map_err(NotCopied)?,
        };
        fits(&self.format, bytes.len()).map_err(|bad| NotCopied(bad.to_string()))?;
        Ok(Self { pixels: Pixels::Host(Arc::new(bytes)), ..self.clone() })
    }

    /// The pixels as loops over them see them; none of a picture on a device, which only the device looks at.
    pub fn picture(&self) -> Picture<'_> {
        let bytes = match &self.pixels {
            Pixels::Host(pixels) => pixels.bytes(),
            Pixels::Device(_) => &[],
        };
        Picture { format: &self.format, bytes }
    }

    /// The bytes from the start of plane `index` on; none of a picture on a device.
    pub fn plane(&self, index: usize) -> &[u8] {
        self.picture().plane(index)
    }
}

fn fits(format: &PixelFormat, bytes: usize) -> Result<(), BadPixels> {
    if format.bytes_needed().is_none_or(|needed| needed > bytes) {
        let (Size { width, height }, layout) = (format.size, format.layout);
        let strides = format.planes[..layout.planes()].iter().map(|plane| plane.stride).collect();
        return Err(BadPixels { width, height, layout, bytes, strides });
    }
    Ok(())
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("camera", &self.camera)
            .field("sequence", &self.sequence)
            .field("capture_time", &self.capture_time)
            .field("size", &self.format.size)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn camera_ids_are_plain_names() {
        for good in ["front-door", "c1", "1"] {
            assert!(CameraId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-x", "Front", "a/b", "a b", &"x".repeat(64)] {
            assert!(CameraId::parse(bad).is_err(), "{bad}");
        }
    }

    /// A device that gives so many bytes.
    struct Device(usize);

    impl DevicePixels for Device {
        fn address(&self) -> u64 {
            0x1000
        }

        fn bytes(&self) -> usize {
            24
        }

        fn to_host(&self) -> Result<Vec<u8>, String> {
            if self.0 == 0 { Err("it is lost".into()) } else { Ok(vec![7; self.0]) }
        }
    }

    #[test]
    fn a_frame_on_a_device_is_copied_for_people_and_a_device_that_does_not_give_it_is_an_error() {
        let camera = CameraId::parse("c").expect("a good id");
        let format = PixelFormat::rgb8(Size { width: 4, height: 2 });
        let on = |gives: usize| Frame::on_device(camera.clone(), Timestamp::default(), format, Arc::new(Device(gives)));
        let frame = on(24).expect("it fits");
        assert!(frame.device_pixels().is_some() && frame.plane(0).is_empty());
        let copied = frame.copied().expect("it is given");
        assert!(copied.device_pixels().is_none() && copied.plane(0) == [7; 24]);
        assert!(on(0).expect("it fits").copied().is_err_and(|error| error.to_string().contains("it is lost")));
        assert!(on(23).expect("it fits").copied().is_err(), "too few bytes are no picture");
    }

    #[test]
    fn a_frame_whose_strides_lie_is_refused() {
        let mut format = PixelFormat::rgb8(Size { width: 4, height: 2 });
        let pixels: Arc<dyn HostPixels> = Arc::new(vec![0_u8; 24]);
        let camera = CameraId::parse("c").expect("a good id");
        assert!(Frame::new(camera.clone(), Timestamp::default(), format, pixels.clone()).is_ok());
        format.planes[0].stride = 11;
        let said = Frame::new(camera.clone(), Timestamp::default(), format, pixels.clone()).expect_err("11 bytes hold no 4 pixels");
        assert_eq!(said.to_string(), "a 4x2 Rgb8 picture does not fit in 24 bytes by the strides it states, [11]");
        format.planes[0].stride = 13;
        assert!(Frame::new(camera, Timestamp::default(), format, pixels).is_err());
    }
}
