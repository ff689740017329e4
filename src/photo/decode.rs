//! Picture bytes → an upright RGB frame, within limits that are checked before memory is taken.
//!
//! In: JPEG, PNG or PNM bytes. Out: a [`Frame`]. Colour profiles are not applied; transparency is
//! dropped.
//! Must not know: faces, inference.

use std::io::Cursor;
use std::sync::Arc;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::{PHOTO_PIXELS_MAX, PHOTO_SIDE_MAX, PHOTO_SIDE_MIN, PhotoError};
use crate::clock::Timestamp;
use crate::frame::{CameraId, Frame, PixelFormat, Size};

/// The most that a decoder may take for itself: a picture at the limit with four 16-bit channels.
const DECODER_BYTES_MAX: u64 = PHOTO_PIXELS_MAX * 8;

/// Decodes the picture and turns it upright as its EXIF orientation says.
pub(super) fn upright(image: &[u8]) -> Result<Frame, PhotoError> {
    let mut reader = ImageReader::new(Cursor::new(image)).with_guessed_format().map_err(undecodable)?;
    if reader.format().is_none() {
        return Err(PhotoError::BadImage("this is no JPEG, PNG or PNM picture; give one of those".into()));
    }
    if reader.format() == Some(ImageFormat::Jpeg) && is_cut(image) {
        return Err(PhotoError::BadImage("the JPEG is cut: its end is missing; give the whole file".into()));
    }
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(DECODER_BYTES_MAX);
    reader.limits(limits);
    // The decoder has read the header only; pixels get their memory when it is asked for them.
    let mut decoder = reader.into_decoder().map_err(|error| match error {
        // One row of the picture would take more than the largest picture may.
        image::ImageError::Limits(_) => too_large("one that takes too much memory"),
        error => undecodable(error),
    })?;
    let (width, height) = decoder.dimensions();
    check(Size { width, height })?;
    // A picture whose EXIF data are broken is shown as it lies, as viewers do.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    picture.apply_orientation(orientation);
    let rgb = picture.into_rgb8();
    let size = Size { width: rgb.width(), height: rgb.height() };
    frame(size, rgb.into_raw())
}

/// Whether a JPEG's data end without its end marker: the decoder would fill the rest with grey. What
/// phones put behind the picture is not looked at, nor the small picture in its header.
fn is_cut(jpeg: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    let mut place = 2;
    // Segments begin with a marker and the length of what follows it.
    while let Some([0xff, marker, high, low]) = jpeg.get(place..place + 4) {
        if *marker == START_OF_SCAN {
            return !jpeg[place..].windows(2).any(|pair| pair == [0xff, 0xd9]);
        }
        place += 2 + usize::from(u16::from_be_bytes([*high, *low]));
    }
    // No scan at all, or something odd: the decoder says what.
    false
}

fn check(Size { width, height }: Size) -> Result<(), PhotoError> {
    if width.max(height) > PHOTO_SIDE_MAX || u64::from(width) * u64::from(height) > PHOTO_PIXELS_MAX {
        return Err(too_large(&format!("{width}x{height}")));
    }
    if width.min(height) < PHOTO_SIDE_MIN {
        let reason = format!("the picture is {width}x{height}; give one of at least {PHOTO_SIDE_MIN} pixels a side");
        return Err(PhotoError::BadImage(reason));
    }
    Ok(())
}

fn too_large(what: &str) -> PhotoError {
    let megapixels = PHOTO_PIXELS_MAX / 1_000_000;
    PhotoError::BadImage(format!("the picture is {what}; give one of at most {megapixels} megapixels and {PHOTO_SIDE_MAX} pixels a side"))
}

fn frame(size: Size, rgb: Vec<u8>) -> Result<Frame, PhotoError> {
    let camera = CameraId::parse("photo").map_err(undecodable)?;
    Frame::new(camera, Timestamp::default(), PixelFormat::rgb8(size), Arc::new(rgb)).map_err(undecodable)
}

fn undecodable(error: impl std::fmt::Display) -> PhotoError {
    PhotoError::BadImage(format!("the picture cannot be decoded ({error}); save it as JPEG or PNG again"))
}
