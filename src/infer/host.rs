//! Letterboxes a frame straight into a detector's input tensor, in the host's memory; fills an encoder's.
//!
//! In: a frame, a region of it, a canvas; aligned faces. Out: planes of bytes or of f32, and where the picture lies in them.
//! Drops, by design, samples of live video between the taps (`taps`).
//! Must not know: sessions, what a detector is.

use super::taps::{self, Sampling, Taps, WEIGHT_SUM};
use crate::camera::NormalisedRect;
use crate::colour::{ToRgb, component_row, level};
use crate::face::{ALIGNED_SIDE, AlignedFace, Point};
use crate::frame::{Frame, PixelLayout, Size};
use crate::models::{Colour as ColourOrder, InputEntry};
use crate::simd::widest_vectors;

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

/// One colour component of a frame: where its samples lie.
struct Samples<'a> {
    plane: &'a [u8],
    stride: usize,
    /// Distance between neighbours of a row.
    step: usize,
    offset: usize,
    /// First column and row of the region.
    origin: (usize, usize),
    /// Columns and rows of the region.
    size: (usize, usize),
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
    /// Of luma (or of all of RGB), and of chroma.
    columns: [Taps; 2],
    rows: [Taps; 2],
    sums: Vec<u16>,
    luma: Vec<f32>,
    /// U and V, one sample for two pixels of the canvas.
    chroma: [Vec<f32>; 2],
    /// What chroma adds to red, green and blue, one sample a pixel.
    shifts: [Vec<f32>; 3],
    /// The canvas of whom f32 is asked for.
    canvas: Vec<u8>,
}

impl Letterbox {
    /// Fills the canvas with the picture, in whole levels as detectors are trained with. What the picture does not cover is black.
    pub(super) fn fill(&mut self, frame: &Frame, placement: &Placement, canvas: &mut Canvas<'_>) {
        fill(self, frame, placement, canvas);
    }

    /// Fills a tensor of f32 with the same, in the units of its model.
    pub(super) fn fill_tensor(&mut self, frame: &Frame, placement: &Placement, target: &mut Target<'_>) {
        let area = placement.canvas.width as usize * placement.canvas.height as usize;
        let mut bytes = std::mem::take(&mut self.canvas);
        bytes.resize(3 * area, 0);
        self.fill(frame, placement, &mut Canvas { colour: target.input.colour, bytes: &mut bytes });
        let planes = target.values.chunks_exact_mut(area).zip(bytes.chunks_exact(area));
        for (index, (plane, bytes)) in planes.enumerate() {
            normalise(target.input, index, (bytes.iter().copied(), plane));
        }
        self.canvas = bytes;
    }

    #[inline(always)]
    fn fill_rows(&mut self, frame: &Frame, placement: &Placement, canvas: &mut Canvas<'_>) {
        let area = placement.canvas.width as usize * placement.canvas.height as usize;
        let (first, rest) = canvas.bytes.split_at_mut(area);
        let (second, third) = rest.split_at_mut(area);
        let mut rgb = match canvas.colour {
            ColourOrder::Rgb => [first, second, &mut third[..area]],
            ColourOrder::Bgr => [&mut third[..area], second, first],
        };
        let is_rgb = frame.format().layout == PixelLayout::Rgb8;
        self.plan(is_rgb, placement);
        let (width, canvas_width) = (placement.content.width as usize, placement.canvas.width as usize);
        let components = components(frame, placement);
        let colour = ToRgb::new(frame.format().matrix, frame.format().range);
        for row in 0..placement.content.height as usize {
            let at = row * canvas_width;
            let mut out = rgb.each_mut().map(|plane| &mut plane[at..at + canvas_width]);
            for line in &mut out {
                line[width..].fill(0);
            }
            let out = out.map(|line| &mut line[..width]);
            if is_rgb {
                self.rgb_row(&components, row, out);
            } else {
                self.yuv_row(&components, row, (&colour, out));
            }
        }
        let covered = placement.content.height as usize * canvas_width;
        for plane in &mut rgb {
            plane[covered..].fill(0);
        }
    }

    fn plan(&mut self, is_rgb: bool, placement: &Placement) {
        let (region, content) = (placement.region, placement.content);
        let sampling = placement.sampling.unwrap_or(if is_rgb { Sampling::Exact } else { Sampling::Video });
        // Chroma has half the width and height in the frame, and gets no more on the canvas.
        for (kind, divisor) in [(0, 1), (1, 2)] {
            let part = |length: u32| length.div_ceil(divisor) as usize;
            self.columns[kind].refill(part(region.width), part(content.width), sampling);
            self.rows[kind].refill(part(region.height), part(content.height), sampling);
        }
        let width = content.width as usize;
        self.luma.resize(width, 0.0);
        self.chroma.iter_mut().for_each(|line| line.resize(width.div_ceil(2), 0.0));
        self.shifts.iter_mut().for_each(|line| line.resize(width.next_multiple_of(2), 0.0));
    }

    /// All three components lie in the same bytes: their rows are added up once.
    #[inline(always)]
    fn rgb_row(&mut self, components: &[Samples<'_>; 3], row: usize, out: [&mut [u8]; 3]) {
        sum_rows(&components[0], &self.rows[0], row, &mut self.sums);
        for (samples, line) in components.iter().zip(out) {
            gather(&self.sums, &self.columns[0], (samples.step, samples.offset), &mut self.luma);
            line.iter_mut().zip(&self.luma).for_each(|(byte, value)| *byte = level(*value));
        }
    }

    #[inline(always)]
    fn yuv_row(&mut self, components: &[Samples<'_>; 3], row: usize, (colour, out): (&ToRgb, [&mut [u8]; 3])) {
        // A row of chroma serves two rows of luma.
        if row.is_multiple_of(2) {
            self.shift_row(&components[1..], row / 2, colour);
        }
        sum_rows(&components[0], &self.rows[0], row, &mut self.sums);
        gather(&self.sums, &self.columns[0], (1, 0), &mut self.luma);
        colour.stretch(&mut self.luma);
        for (line, shift) in out.into_iter().zip(&self.shifts) {
            component_row(&self.luma, shift, line);
        }
    }

    #[inline(always)]
    fn shift_row(&mut self, chroma: &[Samples<'_>], row: usize, colour: &ToRgb) {
        for (samples, line) in chroma.iter().zip(&mut self.chroma) {
            // U and V of NV12 lie in the same bytes: the sums of U serve V.
            if samples.offset == 0 {
                sum_rows(samples, &self.rows[1], row, &mut self.sums);
            }
            gather(&self.sums, &self.columns[1], (samples.step, samples.offset), line);
        }
        let [red, green, blue] = self.shifts.each_mut().map(|line| line.as_chunks_mut::<2>().0);
        let pairs = red.iter_mut().zip(green).zip(blue);
        for (((red, green), blue), (u, v)) in pairs.zip(self.chroma[0].iter().zip(&self.chroma[1])) {
            let shift = colour.shift(*u, *v);
            (*red, *green, *blue) = ([shift[0]; 2], [shift[1]; 2], [shift[2]; 2]);
        }
    }
}

widest_vectors! {
    fn fill(letterbox: &mut Letterbox, frame: &Frame, placement: &Placement, canvas: &mut Canvas<'_>) {
        letterbox.fill_rows(frame, placement, canvas);
    }
}

/// The three components of the region, as the layout has them: R, G, B or Y, U, V.
fn components<'a>(frame: &'a Frame, placement: &Placement) -> [Samples<'a>; 3] {
    let planes = &frame.format().planes;
    let (x, y) = (placement.origin.0 as usize, placement.origin.1 as usize);
    let (width, height) = (placement.region.width as usize, placement.region.height as usize);
    let samples = |plane: usize, step: usize, offset: usize, halved: bool| Samples {
        plane: frame.plane(plane),
        stride: planes[plane].stride,
        step,
        offset,
        origin: if halved { (x / 2, y / 2) } else { (x, y) },
        size: if halved { (width.div_ceil(2), height.div_ceil(2)) } else { (width, height) },
    };
    match frame.format().layout {
        PixelLayout::Rgb8 => [0, 1, 2].map(|offset| samples(0, 3, offset, false)),
        PixelLayout::I420 => [samples(0, 1, 0, false), samples(1, 1, 0, true), samples(2, 1, 0, true)],
        PixelLayout::Nv12 => [samples(0, 1, 0, false), samples(1, 2, 0, true), samples(1, 2, 1, true)],
    }
}

/// Adds up the rows that make destination row `row`, weighted; all bytes of the region's width.
#[inline(always)]
fn sum_rows(samples: &Samples<'_>, taps: &Taps, row: usize, sums: &mut Vec<u16>) {
    let bytes = samples.size.0 * samples.step;
    sums.resize(bytes, 0);
    let mut begun = false;
    for tap in row * taps.count..(row + 1) * taps.count {
        let weight = taps.weight[tap];
        if weight == 0 {
            continue;
        }
        let start = (samples.origin.1 + taps.index[tap] as usize) * samples.stride + samples.origin.0 * samples.step;
        let line = &samples.plane[start..start + bytes];
        // 255 times the sum of the weights fits in 16 bits.
        if begun {
            sums.iter_mut().zip(line).for_each(|(sum, byte)| *sum += u16::from(*byte) * weight);
        } else {
            sums.iter_mut().zip(line).for_each(|(sum, byte)| *sum = u16::from(*byte) * weight);
            begun = true;
        }
    }
}

/// Adds up the columns that make each sample of a row, and brings it to a byte's units.
#[inline(always)]
fn gather(sums: &[u16], taps: &Taps, place: (usize, usize), out: &mut [f32]) {
    const UNIT: f32 = 1.0 / WEIGHT_SUM as f32;
    // How many source samples there are for each: the usual sizes of video are whole multiples.
    let factor = if place.0 == 1 && sums.len().is_multiple_of(out.len()) { sums.len() / out.len() } else { 0 };
    match (taps.is_mean, factor, taps.count) {
        (true, 1, 1) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out = f32::from(*sum) * UNIT),
        (true, 2, 2) => gather_multiple::<2, 2>(sums, out),
        (true, 3, 3) => gather_multiple::<3, 3>(sums, out),
        (true, 4, 4) => gather_multiple::<4, 4>(sums, out),
        (true, 6, 4) => gather_multiple::<6, 4>(sums, out),
        (true, _, 1) => gather_mean::<1>(sums, taps, place, out),
        (true, _, 2) => gather_mean::<2>(sums, taps, place, out),
        (true, _, 3) => gather_mean::<3>(sums, taps, place, out),
        (true, _, 4) => gather_mean::<4>(sums, taps, place, out),
        (_, _, 2) => gather_weighted::<2>(sums, taps, place, out),
        (_, _, 3) => gather_weighted::<3>(sums, taps, place, out),
        (_, _, 4) => gather_weighted::<4>(sums, taps, place, out),
        (_, _, count) => {
            let tables = taps.index.chunks_exact(count).zip(taps.weight.chunks_exact(count));
            for (out, (index, weight)) in out.iter_mut().zip(tables) {
                let weighted = |(i, w): (&u32, &u16)| u32::from(sums[*i as usize * place.0 + place.1]) * u32::from(*w);
                let sum: u32 = index.iter().zip(weight).map(weighted).sum();
                *out = sum as f32 * UNIT * UNIT;
            }
        }
    }
}

/// The same where each sample is the mean of the same `COUNT` out of its own `FACTOR` samples. Which these are stands in no
/// table, so that the compiler sees it and takes many samples at once.
#[inline(always)]
fn gather_multiple<const FACTOR: usize, const COUNT: usize>(sums: &[u16], out: &mut [f32]) {
    let unit = 1.0 / (f32::from(WEIGHT_SUM) * COUNT as f32);
    for (out, own) in out.iter_mut().zip(sums.as_chunks::<FACTOR>().0) {
        let sum: i32 = (0..COUNT).map(|point| i32::from(own[taps::point_of(point, FACTOR, COUNT)])).sum();
        *out = sum as f32 * unit;
    }
}

/// The same where all weights are equal and their number is known to the compiler.
#[inline(always)]
fn gather_mean<const COUNT: usize>(sums: &[u16], taps: &Taps, (step, offset): (usize, usize), out: &mut [f32]) {
    let unit = 1.0 / (f32::from(WEIGHT_SUM) * COUNT as f32);
    for (out, index) in out.iter_mut().zip(taps.index.as_chunks::<COUNT>().0) {
        let sum: i32 = index.iter().map(|i| i32::from(sums[*i as usize * step + offset])).sum();
        *out = sum as f32 * unit;
    }
}

/// The same where the number of weights is known to the compiler.
#[inline(always)]
fn gather_weighted<const COUNT: usize>(sums: &[u16], taps: &Taps, (step, offset): (usize, usize), out: &mut [f32]) {
    let unit = 1.0 / (f32::from(WEIGHT_SUM) * f32::from(WEIGHT_SUM));
    let tables = taps.index.as_chunks::<COUNT>().0.iter().zip(taps.weight.as_chunks::<COUNT>().0);
    for (out, (index, weight)) in out.iter_mut().zip(tables) {
        let mut sum = 0_u32;
        for tap in 0..COUNT {
            sum += u32::from(sums[index[tap] as usize * step + offset]) * u32::from(weight[tap]);
        }
        *out = sum as f32 * unit;
    }
}

/// Fills an encoder's input with an aligned face.
pub(super) fn fill_face(face: &AlignedFace, target: &mut Target<'_>) {
    let area = ALIGNED_SIDE * ALIGNED_SIDE;
    let (pixels, _) = face.rgb().as_chunks::<3>();
    for (index, plane) in target.values.chunks_exact_mut(area).enumerate() {
        let component = if target.input.colour == ColourOrder::Rgb { index } else { 2 - index };
        normalise(target.input, index, (pixels.iter().map(|pixel| pixel[component]), plane));
    }
}

/// Brings the bytes of a plane to the units of a model: `(byte - mean) * scale`.
fn normalise(input: &InputEntry, plane: usize, (bytes, values): (impl Iterator<Item = u8>, &mut [f32])) {
    let (mean, scale) = (input.mean[plane % input.mean.len()], input.scale);
    values.iter_mut().zip(bytes).for_each(|(value, byte)| *value = (f32::from(byte) - mean) * scale);
}

#[cfg(test)]
mod tests;
