//! Makes a photo worse: what a small camera or one out of focus would have seen.
//!
//! In: a photo, how large its face is, what is wrong with the other camera. Out: another photo, as PNG.
//! Must not know: how faces are found or compared.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{ImageFormat, RgbImage};

use super::{PHOTO_SIDE_MIN, PhotoError, decode};

/// What is wrong with a photo that was made worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Worsening {
    /// The face has 24 pixels: it is far away.
    Far,
    /// The face has 36 pixels.
    Distant,
    /// A Gaussian blur of one thirtieth of the face: out of focus, or moving.
    Blurred,
}

impl Worsening {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Far, Self::Distant, Self::Blurred];

    /// A stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Far => "far",
            Self::Distant => "distant",
            Self::Blurred => "blurred",
        }
    }
}

/// The photo with `worsening`, where its face's smaller side has `face_side` pixels. `None` where it is that bad already.
///
/// # Errors
/// [`PhotoError::BadImage`].
pub fn worsened(image: &[u8], face_side: f32, worsening: Worsening) -> Result<Option<Vec<u8>>, PhotoError> {
    let frame = decode::upright(image)?;
    let (size, stride) = (frame.size(), frame.format().planes[0].stride);
    let row = |y: u32| &frame.plane(0)[y as usize * stride..][..size.width as usize * 3];
    let pixels: Vec<u8> = (0..size.height).flat_map(|y| row(y).iter().copied()).collect();
    let Some(picture) = RgbImage::from_raw(size.width, size.height, pixels) else { return Ok(None) };
    let worse = match worsening {
        Worsening::Blurred => imageops::blur(&picture, face_side / 30.0),
        Worsening::Far | Worsening::Distant => {
            let factor = if worsening == Worsening::Far { 24.0 } else { 36.0 } / face_side;
            let side = |length: u32| (length as f32 * factor).round() as u32;
            let (width, height) = (side(size.width), side(size.height));
            if factor >= 1.0 || width.min(height) < PHOTO_SIDE_MIN {
                return Ok(None);
            }
            imageops::resize(&picture, width, height, FilterType::Triangle)
        }
    };
    let mut png = Cursor::new(Vec::new());
    worse.write_to(&mut png, ImageFormat::Png).map_err(|error| PhotoError::BadImage(error.to_string()))?;
    Ok(Some(png.into_inner()))
}
