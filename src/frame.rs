//! One decoded picture with its capture time.
//!
//! In: what a source measured. Out: a value that every stage can read and share cheaply.
//! Must not know: GStreamer, tensors, GPUs. Pixels stay where the decoder put them, behind
//! [`HostPixels`], so that no stage copies a frame to look at it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

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

/// How the samples of a picture lie in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelLayout {
    /// Three planes: Y, then U and V at half width and half height.
    I420,
    /// Two planes: Y, then interleaved UV at half width and half height.
    Nv12,
    /// One plane of interleaved R, G, B bytes: photos.
    Rgb8,
}

/// The matrix between YCbCr and RGB (ITU-R BT.601 or BT.709).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColourMatrix {
    /// Standard definition.
    Bt601,
    /// High definition.
    Bt709,
}

/// How luma and chroma use the byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColourRange {
    /// 16…235 and 16…240, as nearly all cameras send.
    Limited,
    /// 0…255.
    Full,
}

/// Where a plane begins and how far its rows are apart, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plane {
    /// Offset of the first sample from the start of the pixels.
    pub offset: usize,
    /// Distance between the first samples of two rows.
    pub stride: usize,
}

/// Width and height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
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

/// What a frame says of its pixels: enough to read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelFormat {
    /// Width and height of the picture.
    pub size: Size,
    /// How samples lie.
    pub layout: PixelLayout,
    /// The matrix of YCbCr layouts; without meaning for RGB.
    pub matrix: ColourMatrix,
    /// The range of YCbCr layouts; without meaning for RGB.
    pub range: ColourRange,
    /// One, two or three planes, as the layout has.
    pub planes: [Plane; 3],
}

impl PixelFormat {
    /// The format of a tightly packed RGB picture.
    pub fn rgb8(size: Size) -> Self {
        let stride = size.width as usize * 3;
        Self {
            size,
            layout: PixelLayout::Rgb8,
            matrix: ColourMatrix::Bt601,
            range: ColourRange::Full,
            planes: [Plane { offset: 0, stride }, Plane::default(), Plane::default()],
        }
    }

    /// The number of bytes that the planes reach into, or `None` where a row does not fit its
    /// stride: such caps lie, and nothing may be read by them.
    pub fn bytes_needed(&self) -> Option<usize> {
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let (half_width, half_height) = (width.div_ceil(2), height.div_ceil(2));
        let planes: &[(usize, usize)] = match self.layout {
            PixelLayout::I420 => &[(width, height), (half_width, half_height), (half_width, half_height)],
            PixelLayout::Nv12 => &[(width, height), (half_width * 2, half_height)],
            PixelLayout::Rgb8 => &[(width * 3, height)],
        };
        let mut needed = 0;
        for (plane, &(row_bytes, rows)) in self.planes.iter().zip(planes) {
            if plane.stride < row_bytes || rows == 0 || row_bytes == 0 {
                return None;
            }
            let end = (rows - 1).checked_mul(plane.stride)?.checked_add(row_bytes)?;
            needed = needed.max(plane.offset.checked_add(end)?);
        }
        Some(needed)
    }
}

/// Why pixels and their description do not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {width}x{height} {layout:?} picture does not fit in {bytes} bytes by the strides it states")]
pub struct BadPixels {
    width: u32,
    height: u32,
    layout: PixelLayout,
    bytes: usize,
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
    pixels: Arc<dyn HostPixels>,
}

impl Frame {
    /// A frame over `pixels`, captured and decoded at `capture_time`, number 0 of its connection.
    ///
    /// # Errors
    /// [`BadPixels`] when the planes would reach beyond the pixels: no later stage needs to check.
    pub fn new(camera: CameraId, capture_time: Timestamp, format: PixelFormat, pixels: Arc<dyn HostPixels>) -> Result<Self, BadPixels> {
        let bytes = pixels.bytes().len();
        if format.bytes_needed().is_none_or(|needed| needed > bytes) {
            let Size { width, height } = format.size;
            return Err(BadPixels { width, height, layout: format.layout, bytes });
        }
        Ok(Self { camera, sequence: 0, capture_time, decode_time: capture_time, camera_delay: None, format, pixels })
    }

    /// How the pixels lie.
    pub fn format(&self) -> &PixelFormat {
        &self.format
    }

    /// Width and height.
    pub fn size(&self) -> Size {
        self.format.size
    }

    /// The same picture in memory of its own, so that the decoder gets its buffer back.
    pub fn copied(&self) -> Self {
        Self { pixels: Arc::new(self.pixels.bytes().to_vec()), ..self.clone() }
    }

    /// The bytes from the start of plane `index` on.
    pub fn plane(&self, index: usize) -> &[u8] {
        &self.pixels.bytes()[self.format.planes[index].offset..]
    }
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

    #[test]
    fn a_frame_whose_strides_lie_is_refused() {
        let mut format = PixelFormat::rgb8(Size { width: 4, height: 2 });
        let pixels: Arc<dyn HostPixels> = Arc::new(vec![0_u8; 24]);
        let camera = CameraId::parse("c").expect("a good id");
        assert!(Frame::new(camera.clone(), Timestamp::default(), format, pixels.clone()).is_ok());
        format.planes[0].stride = 11;
        assert!(Frame::new(camera.clone(), Timestamp::default(), format, pixels.clone()).is_err());
        format.planes[0].stride = 13;
        assert!(Frame::new(camera, Timestamp::default(), format, pixels).is_err());
    }
}
