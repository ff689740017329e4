//! Pictures for people: frames and faces as JPEG, with boxes on request.
//!
//! In: a [`Frame`], a rectangle in its pixels. Out: JPEG bytes. At track rate, never at frame rate.
//! Must not know: why somebody wants to look.

use jpeg_encoder::{ColorType, Encoder};

use crate::face::Rect;
use crate::frame::{ColourMatrix, ColourRange, Frame, PixelLayout, Size};

/// JPEG quality of everything that is kept: enough to recognise somebody by.
const JPEG_QUALITY: u8 = 85;
/// A face is shown with this much of its size around it.
const CROP_MARGIN: f32 = 0.5;
/// The colour of a box, R, G, B.
const BOX_COLOUR: [u8; 3] = [64, 220, 96];

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The region is empty, or larger than JPEG allows.
    #[error("a picture of {0}x{1} pixels cannot be made")]
    BadSize(usize, usize),
    /// The encoder failed.
    #[error("cannot encode the picture: {0}")]
    Encode(#[from] jpeg_encoder::EncodingError),
}

/// A picture in memory: interleaved RGB, rows from the top.
struct Rgb {
    width: usize,
    height: usize,
    bytes: Vec<u8>,
}

/// The whole frame as JPEG, with `boxes` drawn in it.
///
/// # Errors
/// [`PictureError`] when the frame is too large for JPEG (65,535 pixels a side).
pub fn frame_jpeg(frame: &Frame, boxes: &[Rect]) -> Result<Vec<u8>, PictureError> {
    let Size { width, height } = frame.size();
    let mut rgb = convert(frame, (0, 0), (width as usize, height as usize));
    for rect in boxes {
        draw_box(&mut rgb, rect);
    }
    encode(&rgb)
}

/// The face in `rect` with some margin, clipped to the frame, as JPEG.
///
/// # Errors
/// [`PictureError`] when nothing of the rectangle lies in the frame.
pub fn crop_jpeg(frame: &Frame, rect: &Rect) -> Result<Vec<u8>, PictureError> {
    let Size { width, height } = frame.size();
    let clip = |from: f32, to: f32, end: u32| (from.clamp(0.0, end as f32) as usize, to.clamp(0.0, end as f32).ceil() as usize);
    let (margin_x, margin_y) = (rect.width * CROP_MARGIN, rect.height * CROP_MARGIN);
    let (left, right) = clip(rect.x - margin_x, rect.x + rect.width + margin_x, width);
    let (top, bottom) = clip(rect.y - margin_y, rect.y + rect.height + margin_y, height);
    encode(&convert(frame, (left, top), (right.saturating_sub(left), bottom.saturating_sub(top))))
}

fn encode(rgb: &Rgb) -> Result<Vec<u8>, PictureError> {
    let bad_size = || PictureError::BadSize(rgb.width, rgb.height);
    let (width, height) = (u16::try_from(rgb.width).map_err(|_| bad_size())?, u16::try_from(rgb.height).map_err(|_| bad_size())?);
    if width == 0 || height == 0 {
        return Err(bad_size());
    }
    let mut jpeg = Vec::with_capacity(rgb.bytes.len() / 8);
    Encoder::new(&mut jpeg, JPEG_QUALITY).encode(&rgb.bytes, width, height, ColorType::Rgb)?;
    Ok(jpeg)
}

/// Y'CbCr to R'G'B' in 16.16 fixed point (ITU-R BT.601-7 section 2.5, BT.709-6 section 3).
struct Coefficients {
    luma_offset: i32,
    luma: i32,
    red_from_cr: i32,
    green_from_cb: i32,
    green_from_cr: i32,
    blue_from_cb: i32,
}

impl Coefficients {
    fn of(matrix: ColourMatrix, range: ColourRange) -> Self {
        let (kr, kb) = match matrix {
            ColourMatrix::Bt601 => (0.299_f64, 0.114_f64),
            ColourMatrix::Bt709 => (0.2126, 0.0722),
        };
        let (luma_offset, luma, chroma) = match range {
            ColourRange::Limited => (16, 255.0 / 219.0, 255.0 / 224.0),
            ColourRange::Full => (0, 1.0, 1.0),
        };
        let kg = 1.0 - kr - kb;
        let fixed = |value: f64| (value * 65_536.0).round() as i32;
        Self {
            luma_offset,
            luma: fixed(luma),
            red_from_cr: fixed(2.0 * (1.0 - kr) * chroma),
            green_from_cb: fixed(-2.0 * kb * (1.0 - kb) / kg * chroma),
            green_from_cr: fixed(-2.0 * kr * (1.0 - kr) / kg * chroma),
            blue_from_cb: fixed(2.0 * (1.0 - kb) * chroma),
        }
    }

    fn rgb(&self, y: u8, cb: u8, cr: u8) -> [u8; 3] {
        let luma = (i32::from(y) - self.luma_offset) * self.luma + 32_768;
        let (cb, cr) = (i32::from(cb) - 128, i32::from(cr) - 128);
        let byte = |value: i32| (value >> 16).clamp(0, 255) as u8;
        [
            byte(luma + self.red_from_cr * cr),
            byte(luma + self.green_from_cb * cb + self.green_from_cr * cr),
            byte(luma + self.blue_from_cb * cb),
        ]
    }
}

/// The region of `size` pixels from `origin` on, which lies in the frame.
fn convert(frame: &Frame, origin: (usize, usize), size: (usize, usize)) -> Rgb {
    let format = frame.format();
    let ((left, top), (width, height)) = (origin, size);
    let mut bytes = Vec::with_capacity(width * height * 3);
    let strides = format.planes.map(|plane| plane.stride);
    let coefficients = Coefficients::of(format.matrix, format.range);
    for y in top..top + height {
        match format.layout {
            PixelLayout::Rgb8 => {
                let start = y * strides[0] + left * 3;
                bytes.extend_from_slice(&frame.plane(0)[start..start + width * 3]);
            }
            PixelLayout::I420 => {
                let luma = &frame.plane(0)[y * strides[0]..];
                let (cb, cr) = (&frame.plane(1)[y / 2 * strides[1]..], &frame.plane(2)[y / 2 * strides[2]..]);
                bytes.extend((left..left + width).flat_map(|x| coefficients.rgb(luma[x], cb[x / 2], cr[x / 2])));
            }
            PixelLayout::Nv12 => {
                let luma = &frame.plane(0)[y * strides[0]..];
                let chroma = &frame.plane(1)[y / 2 * strides[1]..];
                bytes.extend((left..left + width).flat_map(|x| coefficients.rgb(luma[x], chroma[x / 2 * 2], chroma[x / 2 * 2 + 1])));
            }
        }
    }
    Rgb { width, height, bytes }
}

fn draw_box(rgb: &mut Rgb, rect: &Rect) {
    let thickness = (rgb.width / 400 + 1) as i64;
    let (left, top) = (rect.x as i64, rect.y as i64);
    let (right, bottom) = ((rect.x + rect.width) as i64, (rect.y + rect.height) as i64);
    let bars = [
        (left, right, top, top + thickness),
        (left, right, bottom - thickness, bottom),
        (left, left + thickness, top, bottom),
        (right - thickness, right, top, bottom),
    ];
    for (from_x, to_x, from_y, to_y) in bars {
        for y in from_y.max(0)..to_y.min(rgb.height as i64) {
            for x in from_x.max(0)..to_x.min(rgb.width as i64) {
                let at = (y as usize * rgb.width + x as usize) * 3;
                rgb.bytes[at..at + 3].copy_from_slice(&BOX_COLOUR);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::camera::CameraId;
    use crate::clock::Timestamp;
    use crate::frame::{PixelFormat, Plane};

    /// A 6×4 picture whose left half is one colour and whose right half another, in Y'CbCr.
    fn two_colours(layout: PixelLayout, left: [u8; 3], right: [u8; 3]) -> Frame {
        let (width, height, stride) = (6_usize, 4_usize, 8_usize);
        let (chroma_stride, chroma_rows) = (8, 2);
        let chroma = stride * height;
        let planes = [
            Plane { offset: 0, stride },
            Plane { offset: chroma, stride: chroma_stride },
            Plane { offset: chroma + chroma_stride * chroma_rows, stride: chroma_stride },
        ];
        let mut bytes = vec![0_u8; chroma + 2 * chroma_stride * chroma_rows];
        for y in 0..height {
            for x in 0..width {
                let colour = if x < 2 { left } else { right };
                bytes[y * stride + x] = colour[0];
                let at = chroma + y / 2 * chroma_stride;
                match layout {
                    PixelLayout::Nv12 => bytes[at + x / 2 * 2..at + x / 2 * 2 + 2].copy_from_slice(&colour[1..]),
                    _ => {
                        bytes[at + x / 2] = colour[1];
                        bytes[at + chroma_stride * chroma_rows + x / 2] = colour[2];
                    }
                }
            }
        }
        let size = Size { width: 6, height: 4 };
        let format = PixelFormat { size, layout, matrix: ColourMatrix::Bt601, range: ColourRange::Limited, planes };
        let camera = CameraId::parse("c").expect("a good id");
        Frame::new(camera, Timestamp::default(), format, Arc::new(bytes)).expect("the planes fit")
    }

    #[test]
    fn colours_are_those_of_the_standard_in_every_layout() {
        for layout in [PixelLayout::I420, PixelLayout::Nv12] {
            // Pure red and pure blue in BT.601, limited range.
            let frame = two_colours(layout, [81, 90, 240], [41, 240, 110]);
            let rgb = convert(&frame, (1, 1), (4, 2));
            for (x, expected) in [(0, [255, 0, 0]), (1, [0, 0, 255]), (3, [0, 0, 255])] {
                let pixel = &rgb.bytes[x * 3..x * 3 + 3];
                assert!(pixel.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 2), "{layout:?} at {x}: {pixel:?}");
            }
        }
    }

    #[test]
    fn a_crop_beyond_the_frame_is_clipped_and_an_empty_one_refused() {
        let frame = two_colours(PixelLayout::I420, [128; 3], [128; 3]);
        let around = Rect { x: -10.0, y: -10.0, width: 100.0, height: 100.0 };
        let jpeg = crop_jpeg(&frame, &around).expect("some of it is there");
        let picture = image::load_from_memory(&jpeg).expect("it is a JPEG");
        assert_eq!((picture.width(), picture.height()), (6, 4));
        let outside = Rect { x: 500.0, y: 0.0, width: 5.0, height: 5.0 };
        assert!(matches!(crop_jpeg(&frame, &outside), Err(PictureError::BadSize(..))));
    }

    #[test]
    fn boxes_are_drawn_where_they_are_and_may_reach_beyond_the_picture() {
        let mut rgb = Rgb { width: 10, height: 10, bytes: vec![0; 300] };
        draw_box(&mut rgb, &Rect { x: 3.0, y: 2.0, width: 50.0, height: 5.0 });
        let pixel = |x: usize, y: usize| &rgb.bytes[(y * 10 + x) * 3..(y * 10 + x) * 3 + 3];
        assert_eq!((pixel(3, 2), pixel(3, 4), pixel(9, 2)), (&BOX_COLOUR[..], &BOX_COLOUR[..], &BOX_COLOUR[..]));
        assert_eq!((pixel(2, 2), pixel(5, 4)), (&[0; 3][..], &[0; 3][..]));
    }
}
