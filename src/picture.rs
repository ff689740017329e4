//! Pictures for people: frames and faces as JPEG, with boxes on request.
//!
//! In: a [`Frame`], a rectangle in its pixels. Out: JPEG bytes. At track rate, never at frame rate.
//! Must not know: why somebody wants to look.

use std::ops::Range;

use doorward_kernels::rgb::to_rgb;
use jpeg_encoder::{ColorType, Encoder};

use crate::face::Rect;
use crate::frame::{Frame, Size};

/// JPEG quality of everything that is kept: enough to recognise somebody by.
const JPEG_QUALITY: u8 = 85;
/// A face is shown with this much of its size around it.
const CROP_MARGIN: f32 = 0.5;
/// A face that is made unrecognisable is this many squares wide; with those around it, so many rows and
/// columns are replaced.
const COARSE_SQUARES: f32 = 5.0;
const COARSE_ROWS: usize = 7;
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

/// Whom a kept picture shows, and whom it must not, in pixels of the frame.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The face that the picture is of: nothing covers it.
    pub face: &'a Rect,
    /// Faces that are made unrecognisable.
    pub others: &'a [Rect],
    /// Parts of the frame of which nothing is left but a colour.
    pub unseen: &'a [Rect],
}

/// The whole frame as JPEG, as far as it is shown.
///
/// # Errors
/// As [`frame_jpeg`].
pub fn blurred_frame_jpeg(frame: &Frame, shown: Shown<'_>) -> Result<Vec<u8>, PictureError> {
    let Size { width, height } = frame.size();
    let mut rgb = convert(frame, (0, 0), (width as usize, height as usize));
    hide(&mut rgb, shown, (0, 0));
    encode(&rgb)
}

/// The face with some margin, clipped to the frame, as JPEG, as far as it is shown.
///
/// # Errors
/// [`PictureError`] when nothing of the face lies in the frame.
pub fn crop_jpeg(frame: &Frame, shown: Shown<'_>) -> Result<Vec<u8>, PictureError> {
    let (origin, size) = crop_region(frame, shown.face);
    let mut rgb = convert(frame, origin, size);
    hide(&mut rgb, shown, origin);
    encode(&rgb)
}

/// Whether [`crop_jpeg`] and [`blurred_frame_jpeg`] find something to draw.
pub fn can_be_drawn(frame: &Frame, face: &Rect) -> bool {
    let (Size { width, height }, (_, crop)) = (frame.size(), crop_region(frame, face));
    crop.0 > 0 && crop.1 > 0 && width.max(height) <= u32::from(u16::MAX)
}

/// Where the face with its margin begins in the frame, and its size.
fn crop_region(frame: &Frame, rect: &Rect) -> ((usize, usize), (usize, usize)) {
    let Size { width, height } = frame.size();
    let clip = |from: f32, to: f32, end: u32| (from.clamp(0.0, end as f32) as usize, to.clamp(0.0, end as f32).ceil() as usize);
    let (margin_x, margin_y) = (rect.width * CROP_MARGIN, rect.height * CROP_MARGIN);
    let (left, right) = clip(rect.x - margin_x, rect.x + rect.width + margin_x, width);
    let (top, bottom) = clip(rect.y - margin_y, rect.y + rect.height + margin_y, height);
    // Chroma has one sample for two columns.
    let left = left & !1;
    ((left, top), (right.saturating_sub(left), bottom.saturating_sub(top)))
}

/// Hides what is not to be shown and leaves the face as it is: people who sit close together overlap, and the picture is of
/// that one. It begins at `origin` of the frame.
fn hide(rgb: &mut Rgb, Shown { face, others, unseen }: Shown<'_>, origin: (usize, usize)) {
    if others.is_empty() && unseen.is_empty() {
        return;
    }
    let before = rgb.bytes.clone();
    for rect in unseen {
        let (columns, rows) = part(rgb, rect, origin);
        fill_with_mean(rgb, &columns, &rows);
    }
    others.iter().for_each(|other| coarsen(rgb, other, origin));
    let (columns, rows) = part(rgb, face, origin);
    for row in rows {
        let line = (row * rgb.width + columns.start) * 3..(row * rgb.width + columns.end) * 3;
        rgb.bytes[line.clone()].copy_from_slice(&before[line]);
    }
}

/// The columns and rows of a picture that begins at `origin` of the frame which `rect` covers.
fn part(rgb: &Rgb, rect: &Rect, origin: (usize, usize)) -> (Range<usize>, Range<usize>) {
    let clip = |at: f32, origin: usize, end: usize| (at - origin as f32).clamp(0.0, end as f32) as usize;
    let columns = clip(rect.x, origin.0, rgb.width)..clip(rect.x + rect.width, origin.0, rgb.width);
    (columns, clip(rect.y, origin.1, rgb.height)..clip(rect.y + rect.height, origin.1, rgb.height))
}

/// Replaces a face, with a little around it, by a few squares of its mean colours: nothing of it can be
/// brought back, as it could from a blur. `rect` is in pixels of the frame, in which the picture begins
/// at `origin`.
fn coarsen(rgb: &mut Rgb, rect: &Rect, origin: (usize, usize)) {
    let side = (rect.width.max(rect.height) / COARSE_SQUARES).max(1.0);
    for (row, column) in (0..COARSE_ROWS).flat_map(|row| (0..COARSE_ROWS).map(move |column| (row, column))) {
        let (x, y) = (rect.x + (column as f32 - 1.0) * side, rect.y + (row as f32 - 1.0) * side);
        let (columns, rows) = part(rgb, &Rect { x, y, width: side, height: side }, origin);
        fill_with_mean(rgb, &columns, &rows);
    }
}

fn fill_with_mean(rgb: &mut Rgb, columns: &Range<usize>, rows: &Range<usize>) {
    let width = rgb.width;
    let line = |row: usize| (row * width + columns.start) * 3..(row * width + columns.end) * 3;
    let mut sums = [0_u64; 3];
    for pixel in rows.clone().flat_map(|row| rgb.bytes[line(row)].as_chunks::<3>().0) {
        sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += u64::from(*value));
    }
    let count = (columns.len() * rows.len()).max(1) as u64;
    let mean = sums.map(|sum| (sum / count) as u8);
    for row in rows.clone() {
        rgb.bytes[line(row)].as_chunks_mut::<3>().0.fill(mean);
    }
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

/// The region of `size` pixels from `origin` on, which lies in the frame and begins in an even column.
fn convert(frame: &Frame, origin: (usize, usize), (width, height): (usize, usize)) -> Rgb {
    Rgb { width, height, bytes: to_rgb(&frame.picture(), origin, (width, height)) }
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
    use crate::frame::{ColourMatrix, ColourRange, PixelFormat, PixelLayout, Plane};

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
            let rgb = convert(&frame, (0, 1), (5, 2));
            for (x, expected) in [(0, [255, 0, 0]), (1, [255, 0, 0]), (2, [0, 0, 255]), (4, [0, 0, 255])] {
                let pixel = &rgb.bytes[x * 3..x * 3 + 3];
                assert!(pixel.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 2), "{layout:?} at {x}: {pixel:?}");
            }
        }
    }

    #[test]
    fn nothing_of_a_coarsened_face_is_left_and_the_rest_of_the_picture_is_as_it_was() {
        let mut random = fastrand::Rng::with_seed(5);
        let bytes: Vec<u8> = (0..200 * 100 * 3).map(|_| random.u8(..)).collect();
        let before = Rgb { width: 200, height: 100, bytes: bytes.clone() };
        let mut after = Rgb { width: 200, height: 100, bytes };
        // In a picture that begins at (20, 10) of the frame, a face that reaches beyond its right edge.
        coarsen(&mut after, &Rect { x: 190.0, y: 50.0, width: 40.0, height: 40.0 }, (20, 10));
        let pixel = |rgb: &Rgb, x: usize, y: usize| rgb.bytes[(y * rgb.width + x) * 3..][..3].to_vec();
        let face: std::collections::BTreeSet<_> =
            (170..200).flat_map(|x| (40..80).map(move |y| (x, y))).map(|(x, y)| pixel(&after, x, y)).collect();
        assert!(face.len() <= 30, "{} colours are left of 1200 pixels", face.len());
        for (x, y) in [(150, 60), (180, 25), (180, 95), (0, 0)] {
            assert_eq!(pixel(&after, x, y), pixel(&before, x, y), "{x}, {y}");
        }
    }

    #[test]
    fn the_face_that_a_picture_is_of_stays_as_it_is_beside_a_neighbour() {
        let mut random = fastrand::Rng::with_seed(6);
        let bytes: Vec<u8> = (0..100 * 60 * 3).map(|_| random.u8(..)).collect();
        let mut rgb = Rgb { width: 100, height: 60, bytes: bytes.clone() };
        let (own, neighbour) = (Rect { x: 10.0, y: 10.0, width: 30.0, height: 40.0 }, Rect { x: 35.0, y: 10.0, width: 30.0, height: 40.0 });
        hide(&mut rgb, Shown { face: &own, others: &[neighbour], unseen: &[] }, (0, 0));
        for (x, y, kept) in [(12, 12, true), (38, 30, true), (45, 30, false), (60, 45, false), (95, 5, true)] {
            let at = (y * 100 + x) * 3;
            assert_eq!(rgb.bytes[at..at + 3] == bytes[at..at + 3], kept, "{x}, {y}");
        }
    }

    #[test]
    fn of_the_parts_where_nobody_was_looked_for_a_colour_is_left() {
        let mut random = fastrand::Rng::with_seed(7);
        let bytes: Vec<u8> = (0..100 * 60 * 3).map(|_| random.u8(..)).collect();
        let mut rgb = Rgb { width: 100, height: 60, bytes: bytes.clone() };
        let (face, unseen) = (Rect { x: 40.0, y: 20.0, width: 30.0, height: 30.0 }, Rect { x: 50.0, y: 0.0, width: 70.0, height: 80.0 });
        hide(&mut rgb, Shown { face: &face, others: &[], unseen: &[unseen] }, (10, 0));
        let pixel = |bytes: &[u8], x: usize, y: usize| bytes[(y * 100 + x) * 3..][..3].to_vec();
        let colour = pixel(&rgb.bytes, 99, 59);
        for (x, y) in (0..100).flat_map(|x| (0..60).map(move |y| (x, y))) {
            let is_kept = x < 40 || (30..60).contains(&x) && (20..50).contains(&y);
            let wanted = if is_kept { pixel(&bytes, x, y) } else { colour.clone() };
            assert_eq!(pixel(&rgb.bytes, x, y), wanted, "{x}, {y}");
        }
    }

    fn alone(face: &Rect) -> Shown<'_> {
        Shown { face, others: &[], unseen: &[] }
    }

    #[test]
    fn a_crop_beyond_the_frame_is_clipped_and_an_empty_one_refused() {
        let frame = two_colours(PixelLayout::I420, [128; 3], [128; 3]);
        let around = Rect { x: -10.0, y: -10.0, width: 100.0, height: 100.0 };
        let jpeg = crop_jpeg(&frame, alone(&around)).expect("some of it is there");
        let picture = image::load_from_memory(&jpeg).expect("it is a JPEG");
        assert_eq!((picture.width(), picture.height()), (6, 4));
        let outside = Rect { x: 500.0, y: 0.0, width: 5.0, height: 5.0 };
        assert!(matches!(crop_jpeg(&frame, alone(&outside)), Err(PictureError::BadSize(..))));
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
