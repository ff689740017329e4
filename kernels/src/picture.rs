//! How a picture's samples lie in memory.
//!
//! In: nothing. Out: [`PixelFormat`], which says where the samples are, and [`Picture`], which lets them be read.
//! Must not know: where pixels come from, who took them, when.

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

impl PixelLayout {
    /// How many planes it has.
    pub fn planes(self) -> usize {
        match self {
            Self::I420 => 3,
            Self::Nv12 => 2,
            Self::Rgb8 => 1,
        }
    }
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

/// Pixels in the host's memory, as loops over them see them.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// How they lie.
    pub format: &'a PixelFormat,
    /// All planes as one run of bytes: [`PixelFormat::bytes_needed`] of them, or whoever reads them panics.
    pub bytes: &'a [u8],
}

impl<'a> Picture<'a> {
    /// The bytes from the start of plane `index` on; none where there are none.
    #[inline]
    pub fn plane(&self, index: usize) -> &'a [u8] {
        self.bytes.get(self.format.planes[index].offset..).unwrap_or_default()
    }
}
