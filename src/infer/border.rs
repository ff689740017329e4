//! Puts a border around a picture, for photos so tight that the detector sees no face.
//!
//! In: a frame. Out: a larger one, RGB, whose border repeats the edge pixels.
//! Drops the frame's number and its times but for the capture: photos have none.
//! Must not know: why it is asked.

use std::sync::Arc;

use doorward_kernels::colour::ToRgb;

use crate::frame::{BadPixels, Frame, PixelFormat, PixelLayout, Size};

/// The picture with `pixels` more on each side, filled with the nearest pixel of the edge.
/// Coordinates in the answer are larger by `pixels` than in `frame`.
///
/// Reads pixel by pixel: for photos, not for video.
///
/// # Errors
/// [`BadPixels`] when so large a picture cannot be described.
pub fn with_border(frame: &Frame, pixels: u32) -> Result<Frame, BadPixels> {
    let Size { width, height } = frame.size();
    let size = Size { width: width + 2 * pixels, height: height + 2 * pixels };
    let mut bytes = Vec::with_capacity(size.width as usize * size.height as usize * 3);
    for y in 0..size.height {
        let row = y.saturating_sub(pixels).min(height - 1) as usize;
        for x in 0..size.width {
            bytes.extend(rgb_at(frame, x.saturating_sub(pixels).min(width - 1) as usize, row));
        }
    }
    Frame::new(frame.camera.clone(), frame.capture_time, PixelFormat::rgb8(size), Arc::new(bytes))
}

/// One pixel, with the chroma of its two by two block.
fn rgb_at(frame: &Frame, x: usize, y: usize) -> [u8; 3] {
    let format = frame.format();
    let byte = |plane: usize, x: usize, y: usize| frame.plane(plane)[y * format.planes[plane].stride + x];
    let (half_x, half_y) = (x / 2, y / 2);
    let (u, v) = match format.layout {
        PixelLayout::Rgb8 => return [0, 1, 2].map(|component| byte(0, x * 3 + component, y)),
        PixelLayout::I420 => (byte(1, half_x, half_y), byte(2, half_x, half_y)),
        PixelLayout::Nv12 => (byte(1, half_x * 2, half_y), byte(1, half_x * 2 + 1, half_y)),
    };
    let colour = ToRgb::new(format.matrix, format.range);
    colour.rgb(f32::from(byte(0, x, y)), f32::from(u), f32::from(v)).map(|c| (c + 0.5) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::frame::CameraId;

    #[test]
    fn a_border_repeats_the_edge_pixels() {
        let pixels = vec![1, 1, 1, 2, 2, 2];
        let camera = CameraId::parse("c").expect("a good id");
        let format = PixelFormat::rgb8(Size { width: 2, height: 1 });
        let frame = Frame::new(camera, Timestamp::default(), format, Arc::new(pixels)).expect("it fits");
        let bordered = with_border(&frame, 1).expect("it fits");
        assert_eq!(bordered.size(), Size { width: 4, height: 3 });
        let reds: Vec<u8> = bordered.plane(0).iter().step_by(3).copied().collect();
        assert_eq!(reds, [1, 1, 2, 2].repeat(3));
    }
}
