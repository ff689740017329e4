//! Turns a part of a picture into red, green and blue, for people to look at.
//!
//! In: a picture, a region. Out: bytes, each sample of chroma standing for four pixels.
//! Drops nothing.
//! Must not know: why somebody wants to look.

use crate::colour::{ToRgb, component_row};
use crate::picture::{Picture, PixelLayout};
use crate::simd::widest_vectors;

/// The region of `size` pixels from `origin` on, which lies in the picture and begins in an even column.
///
/// One plane: R, G, B, from the top left, without padding.
pub fn to_rgb(picture: &Picture<'_>, origin: (usize, usize), size: (usize, usize)) -> Vec<u8> {
    let mut bytes = vec![0; size.0 * size.1 * 3];
    if picture.format.layout == PixelLayout::Rgb8 {
        for (row, line) in bytes.chunks_exact_mut((size.0 * 3).max(1)).enumerate() {
            let start = (origin.1 + row) * picture.format.planes[0].stride + origin.0 * 3;
            line.copy_from_slice(&picture.plane(0)[start..start + line.len()]);
        }
    } else {
        convert_rows(picture, origin, &mut bytes, size.0);
    }
    bytes
}

widest_vectors! {
    /// Rows of `width` pixels from luma and chroma, each sample of chroma standing for four pixels.
    fn convert_rows(picture: &Picture<'_>, origin: (usize, usize), bytes: &mut [u8], width: usize) {
        let ((left, top), format) = (origin, picture.format);
        let row_of = |plane: usize, row: usize| &picture.plane(plane)[row * format.planes[plane].stride..];
        let colour = ToRgb::new(format.matrix, format.range);
        let mut luma = vec![0.0_f32; width];
        let mut rgb = [0, 1, 2].map(|_| vec![0_u8; width]);
        // A sample of chroma serves two pixels of the row, the last one perhaps one.
        let mut shifts = [0, 1, 2].map(|_| vec![0.0_f32; width.next_multiple_of(2)]);
        for (row, line) in bytes.chunks_exact_mut((width * 3).max(1)).enumerate() {
            let y = top + row;
            let (u, v, step) = match format.layout {
                PixelLayout::Nv12 => (row_of(1, y / 2), &row_of(1, y / 2)[1..], 2),
                _ => (row_of(1, y / 2), row_of(2, y / 2), 1),
            };
            let (u, v) = (u[left / 2 * step..].iter().step_by(step), v[left / 2 * step..].iter().step_by(step));
            let [red, green, blue] = shifts.each_mut().map(|line| line.as_chunks_mut::<2>().0);
            for (((red, green), blue), (u, v)) in red.iter_mut().zip(green).zip(blue).zip(u.zip(v)) {
                let shift = colour.shift(f32::from(*u), f32::from(*v));
                (*red, *green, *blue) = ([shift[0]; 2], [shift[1]; 2], [shift[2]; 2]);
            }
            luma.iter_mut().zip(&row_of(0, y)[left..]).for_each(|(to, from)| *to = f32::from(*from));
            colour.stretch(&mut luma);
            rgb.iter_mut().zip(&shifts).for_each(|(out, shift)| component_row(&luma, shift, out));
            for (x, pixel) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                *pixel = [rgb[0][x], rgb[1][x], rgb[2][x]];
            }
        }
    }
}
