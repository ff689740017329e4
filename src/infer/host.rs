//! Letterboxes a frame straight into a detector's input tensor, in the host's memory; fills an encoder's.
//!
//! In: a frame, a region of it, a canvas; aligned faces. Out: planes of bytes or of f32, and where the picture lies in them.
//! The loops are doorward-kernels'. Drops what they drop.
//! Must not know: sessions, what a detector is.

use doorward_kernels::letterbox::{self, Place};
use doorward_kernels::taps::Sampling;
use doorward_kernels::units;

use crate::camera::NormalisedRect;
use crate::face::{ALIGNED_SIDE, AlignedFace, Point};
use crate::frame::{Frame, Size};
use crate::models::{Colour as ColourOrder, InputEntry};

/// The sides of a canvas are multiples of this: the detector's coarsest stride.
const SIDE_MULTIPLE: u32 = 32;

/// The shape of the canvas that a picture is laid on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CanvasShape {
    /// As high and as wide as the picture needs: for cameras, whose shape does not change.
    Fitted,
    /// A square: photos of any shape then share one session.
    Square,
}

/// Where a region of a frame lies on a canvas: in its upper left corner, scaled by one factor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Placement {
    /// The whole canvas.
    pub(super) canvas: Size,
    /// Left and upper edge of the region, in pixels of the frame; even, so that chroma agrees.
    pub(super) origin: (u32, u32),
    /// The part of the frame that is looked at.
    pub(super) region: Size,
    /// The part of the canvas that it fills.
    pub(super) content: Size,
    scale: f32,
    /// How the picture is made smaller; `None` as its layout has it.
    sampling: Option<Sampling>,
}

impl Placement {
    /// Stretches the part of a frame that begins at `origin` over a square of `side` pixels, sampled as `OpenCV`'s resize does
    /// it, which models that see crops were trained with. The origin is even where the frame has chroma. No point or length
    /// of the square is asked for.
    pub(super) fn stretched(origin: (u32, u32), region: Size, side: u32) -> Self {
        let canvas = Size { width: side, height: side };
        Self { canvas, origin, region, content: canvas, scale: 1.0, sampling: Some(Sampling::Points) }
    }

    /// Lays `region` (`None`: all) of a frame of `size` on a canvas whose longer side is `side`.
    pub(super) fn new(size: Size, region: Option<NormalisedRect>, side: u32, shape: CanvasShape) -> Self {
        let (x, width) = span(size.width, region.map(|r| (r.x, r.width)));
        let (y, height) = span(size.height, region.map(|r| (r.y, r.height)));
        let scale = side as f32 / width.max(height) as f32;
        let scaled = |length: u32| ((length as f32 * scale).round() as u32).clamp(1, side);
        let content = Size { width: scaled(width), height: scaled(height) };
        let canvas = match shape {
            CanvasShape::Square => Size { width: side.next_multiple_of(SIDE_MULTIPLE), height: side.next_multiple_of(SIDE_MULTIPLE) },
            CanvasShape::Fitted => {
                Size { width: content.width.next_multiple_of(SIDE_MULTIPLE), height: content.height.next_multiple_of(SIDE_MULTIPLE) }
            }
        };
        Self { canvas, origin: (x, y), region: Size { width, height }, content, scale, sampling: None }
    }

    /// What the loops are told of it.
    pub(super) fn place(&self) -> Place {
        let Self { canvas, origin, region, content, sampling, .. } = *self;
        Place { canvas, origin, region, content, sampling }
    }

    /// A length on the canvas in pixels of the frame.
    pub(super) fn length_in_frame(&self, length: f32) -> f32 {
        length / self.scale
    }

    /// A point on the canvas in pixels of the frame.
    pub(super) fn point_in_frame(&self, point: Point) -> Point {
        Point { x: point.x / self.scale + self.origin.0 as f32, y: point.y / self.scale + self.origin.1 as f32 }
    }
}

/// Begin (even) and length of a part of a line, in pixels; never empty, never beyond the line.
fn span(length: u32, part: Option<(f32, f32)>) -> (u32, u32) {
    let Some((from, extent)) = part else { return (0, length) };
    let edge = |at: f32| ((at.clamp(0.0, 1.0) * length as f32).round() as u32).min(length);
    let begin = edge(from).min(length.saturating_sub(1)) & !1;
    (begin, edge(from + extent).max(begin + 1) - begin)
}

/// A model's input tensor, to be filled.
pub(super) struct Target<'a> {
    /// Order and units of the planes.
    pub(super) input: &'a InputEntry,
    /// Three planes of the canvas.
    pub(super) values: &'a mut [f32],
}

/// A canvas in bytes, to be filled.
pub(super) struct Canvas<'a> {
    /// Order of the planes.
    pub(super) colour: ColourOrder,
    /// Three planes.
    pub(super) bytes: &'a mut [u8],
}

/// The scratch memory of one thread's letterboxing. Nothing is allocated once it has grown.
#[derive(Debug, Default)]
pub(super) struct Letterbox {
    letterbox: letterbox::Letterbox,
    /// The canvas of whom f32 is asked for.
    canvas: Vec<u8>,
}

impl Letterbox {
    /// Fills the canvas with the picture, in whole levels as detectors are trained with. What the picture does not cover is black.
    pub(super) fn fill(&mut self, frame: &Frame, placement: &Placement, canvas: &mut Canvas<'_>) {
        let mut canvas = letterbox::Canvas { is_bgr: canvas.colour == ColourOrder::Bgr, bytes: canvas.bytes };
        self.letterbox.fill(&frame.picture(), &placement.place(), &mut canvas);
    }

    /// Fills a tensor of f32 with the same, in the units of its model.
    pub(super) fn fill_tensor(&mut self, frame: &Frame, placement: &Placement, target: &mut Target<'_>) {
        let area = placement.canvas.width as usize * placement.canvas.height as usize;
        let mut bytes = std::mem::take(&mut self.canvas);
        bytes.resize(3 * area, 0);
        self.fill(frame, placement, &mut Canvas { colour: target.input.colour, bytes: &mut bytes });
        let planes = target.values.chunks_exact_mut(area).zip(bytes.chunks_exact(area));
        for (index, (plane, bytes)) in planes.enumerate() {
            units::of_plane(bytes, units_of(target.input, index), plane);
        }
        self.canvas = bytes;
    }
}

/// Fills an encoder's input with an aligned face.
pub(super) fn fill_face(face: &AlignedFace, target: &mut Target<'_>) {
    let area = ALIGNED_SIDE * ALIGNED_SIDE;
    let (pixels, _) = face.rgb().as_chunks::<3>();
    for (index, plane) in target.values.chunks_exact_mut(area).enumerate() {
        let component = if target.input.colour == ColourOrder::Rgb { index } else { 2 - index };
        units::of_component(pixels, component, units_of(target.input, index), plane);
    }
}

/// Mean and scale of a plane of a model's input.
fn units_of(input: &InputEntry, plane: usize) -> (f32, f32) {
    (input.mean[plane % input.mean.len()], input.scale)
}

#[cfg(test)]
mod tests;
