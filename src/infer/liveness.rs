//! How much a face looks like a living one: cuts its surroundings out of the full frame and asks the antispoof model.
//!
//! In: a frame and a face's box in it. Out: the share of the live class, 0 to 1.
//! Drops what lies outside the crop.
//! Must not know: visits, what follows from a score.

use super::host::{Letterbox, Placement, Target};
use super::meter::Meter;
use super::onnx::{Session, output};
use crate::face::Rect;
use crate::frame::{Frame, PixelLayout, Size};
use crate::models::AntispoofEntry;

/// A face of a frame, of which a live score is wanted.
#[derive(Clone, Debug)]
pub struct FaceInFrame {
    /// The whole picture: what surrounds the face is evidence.
    pub frame: Frame,
    /// The face's box, in pixels of the frame; it may reach beyond the picture.
    pub face: Rect,
}

/// A part of a frame, in whole pixels; never empty, never beyond the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crop {
    /// Its first column and row.
    pub(super) origin: (u32, u32),
    /// Its columns and rows.
    pub(super) size: Size,
}

impl Crop {
    /// What the model sees of `face` in a picture of `size`: its box made `scale` times as large around its centre, or as
    /// large as the picture allows, and moved back inside where it leaves the picture. So did `MiniVision` cut out the
    /// faces that such models are trained with (Silent-Face-Anti-Spoofing, `generate_patches.py`), its rounding included.
    pub(super) fn around(face: &Rect, size: Size, scale: f32) -> Self {
        let fitting = |picture: u32, length: f32| (picture.saturating_sub(1) as f32 / length.max(1.0)).max(0.0);
        let scale = scale.min(fitting(size.width, face.width)).min(fitting(size.height, face.height));
        let centre = face.centre();
        let (left, width) = span(centre.x, face.width.max(1.0) * scale, size.width);
        let (top, height) = span(centre.y, face.height.max(1.0) * scale, size.height);
        Self { origin: (left, top), size: Size { width, height } }
    }

    /// The same, begun where a frame's chroma begins.
    fn of_layout(self, layout: PixelLayout) -> Self {
        if layout == PixelLayout::Rgb8 {
            return self;
        }
        let (x, y) = (self.origin.0 & 1, self.origin.1 & 1);
        let size = Size { width: self.size.width + x, height: self.size.height + y };
        Self { origin: (self.origin.0 - x, self.origin.1 - y), size }
    }
}

/// First pixel and number of pixels of `length` around `centre`, moved into a line of `picture` pixels.
fn span(centre: f32, length: f32, picture: u32) -> (u32, u32) {
    let last = picture.saturating_sub(1) as f32;
    let begin = (centre - length / 2.0).min(last - length).max(0.0);
    // A box that is no number is taken for the picture's corner.
    let end = (begin + length).min(last);
    let (begin, end) = (begin as u32, end as u32);
    (begin, end.saturating_sub(begin) + 1)
}

/// The antispoof model in one thread.
pub(super) struct LiveScorer {
    session: Session,
    entry: AntispoofEntry,
}

impl LiveScorer {
    pub(super) fn new(session: Session, entry: AntispoofEntry) -> Self {
        Self { session, entry }
    }

    /// How much the face looks alive, 0 to 1.
    pub(super) fn score(&mut self, wanted: &FaceInFrame, letterbox: &mut Letterbox, meter: &Meter) -> Result<f32, String> {
        let FaceInFrame { frame, face } = wanted;
        let crop = Crop::around(face, frame.size(), self.entry.crop_scale).of_layout(frame.format().layout);
        let placement = Placement::stretched(crop.origin, crop.size, self.entry.crop_side);
        let mut target = Target { input: &self.entry.model.input, values: self.session.input_mut() };
        letterbox.fill_tensor(frame, &placement, &mut target);
        let outputs = meter.live.of(|| self.session.run())?;
        share_of(output(&outputs, &self.entry.output)?, self.entry.live_class)
    }
}

/// The softmax of `values` at `class`.
fn share_of(values: &[f32], class: usize) -> Result<f32, String> {
    let own = *values.get(class).ok_or_else(|| format!("the antispoof model answered {} classes; live_class is {class}", values.len()))?;
    let others: f32 = values.iter().map(|value| (value - own).exp()).sum();
    let share = 1.0 / others;
    if share.is_nan() { Err(format!("the antispoof model answered {values:?}, which holds what is no number")) } else { Ok(share) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PICTURE: Size = Size { width: 640, height: 480 };

    fn crop((x, y, width, height): (f32, f32, f32, f32)) -> (u32, u32, u32, u32) {
        let Crop { origin, size } = Crop::around(&Rect { x, y, width, height }, PICTURE, 2.5);
        (origin.0, origin.1, size.width, size.height)
    }

    #[test]
    fn a_crop_lies_around_the_face_and_is_moved_back_into_the_picture() {
        // 40×60 around (320, 240) becomes 100×150; the last row and column belong to it.
        assert_eq!(crop((300.0, 210.0, 40.0, 60.0)), (270, 165, 101, 151), "inside");
        assert_eq!(crop((10.0, 210.0, 40.0, 60.0)), (0, 165, 101, 151), "at the left edge");
        assert_eq!(crop((590.0, 210.0, 40.0, 60.0)), (539, 165, 101, 151), "at the right edge");
        assert_eq!(crop((300.0, 5.0, 40.0, 60.0)), (270, 0, 101, 151), "at the upper edge");
        assert_eq!(crop((300.0, 415.0, 40.0, 60.0)), (270, 329, 101, 151), "at the lower edge");
        assert_eq!(crop((-20.0, -30.0, 40.0, 60.0)), (0, 0, 101, 151), "half outside");
    }

    #[test]
    fn a_face_too_large_for_its_surroundings_gets_as_much_as_the_picture_has() {
        // 2.5 times its height would be 750: 479 rows are there, and as much less of the width.
        let (left, top, width, height) = crop((300.0, 100.0, 200.0, 300.0));
        assert_eq!((top, height), (0, 480));
        assert_eq!((left, width), (240, 320));
        assert_eq!(crop((-200.0, -200.0, 1_000.0, 800.0)), (0, 0, 600, 480), "larger than the picture");
    }

    proptest! {
        #[test]
        fn a_crop_is_never_empty_and_never_beyond_the_picture(
            x in -3_000.0_f32..3_000.0, y in -3_000.0_f32..3_000.0, width in 0.0_f32..5_000.0, height in 0.0_f32..5_000.0,
            columns in 1_u32..3_000, rows in 1_u32..3_000, scale in 1.0_f32..16.0, is_video: bool,
        ) {
            let layout = if is_video { PixelLayout::I420 } else { PixelLayout::Rgb8 };
            let crop = Crop::around(&Rect { x, y, width, height }, Size { width: columns, height: rows }, scale).of_layout(layout);
            prop_assert!(crop.size.width >= 1 && crop.origin.0 + crop.size.width <= columns, "{:?}", crop);
            prop_assert!(crop.size.height >= 1 && crop.origin.1 + crop.size.height <= rows, "{:?}", crop);
            prop_assert!(!is_video || (crop.origin.0.is_multiple_of(2) && crop.origin.1.is_multiple_of(2)), "{:?}", crop);
        }
    }

    #[test]
    fn a_box_that_is_no_number_gives_some_crop() {
        let broken = Rect { x: f32::NAN, y: f32::NEG_INFINITY, width: f32::NAN, height: f32::INFINITY };
        let Crop { origin, size } = Crop::around(&broken, PICTURE, 2.7);
        assert!(origin.0 + size.width <= 640 && origin.1 + size.height <= 480, "{origin:?} {size:?}");
    }

    #[test]
    fn the_score_is_the_live_classs_share() {
        let share = share_of(&[3.133_32, 0.162_504, -3.295_777], 0).expect("three classes");
        assert!((share - 0.949_78).abs() < 1e-5, "{share}");
        assert_eq!(share_of(&[-200.0, 200.0], 0), Ok(0.0), "nothing overflows");
        assert_eq!(share_of(&[200.0, -200.0], 0), Ok(1.0));
        assert!(share_of(&[1.0], 1).is_err() && share_of(&[1.0, f32::NAN], 0).is_err());
    }
}
