//! Cuts a face out of the full-resolution frame into the encoder's pose.
//!
//! In: a frame and five landmarks. Out: 112×112 RGB bytes; black where the frame ends.
//! Drops, of faces much larger than the crop, what lies between its pixels ([`SPREAD`]).
//! Must not know: which encoder sees it.

use super::colour::Colour;
use crate::face::{ALIGNED_SIDE, AlignedFace, Landmarks, Point};
use crate::frame::{Frame, PixelLayout};

/// Where the landmarks of a face lie in the crop: the template that `ArcFace` (Deng et al., 2019)
/// and `SFace` were trained with.
pub(super) const TEMPLATE: [Point; 5] = [
    Point { x: 38.2946, y: 51.6963 },
    Point { x: 73.5318, y: 51.5014 },
    Point { x: 56.0252, y: 71.7366 },
    Point { x: 41.5493, y: 92.3655 },
    Point { x: 70.7299, y: 92.2041 },
];

/// How much of a pixel of the crop its samples are spread over. Encoders were trained on crops that
/// were sampled at one point a pixel; the mean of all that a pixel covers is smoother than anything
/// they saw (cosine to the reference chain 0.975 to 0.988 for faces of 250 pixels and more), one
/// point aliases, and the middle half keeps both in bounds (0.993 and above).
const SPREAD: f32 = 0.5;
/// A bilinear sample reaches one pixel to each side: wider steps would leave pixels out.
const STEP_MAX: f32 = 2.0;
/// The most samples a pixel and axis. A face of 32 times the crop's size is 3,500 pixels wide.
const SAMPLES_MAX: usize = 16;

/// A similarity transform of the plane as a complex map: `z ↦ a·z + b`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Similarity {
    a: (f32, f32),
    b: (f32, f32),
}

impl Similarity {
    /// The least-squares similarity that takes `from` to `to`: Umeyama (1991), equations 40 to 43,
    /// which in the plane, without reflection, is `a = Σ conj(z)·w / Σ |z|²` over centred points.
    /// Points that all fall together give a map onto one point.
    pub(super) fn between(from: &[Point; 5], to: &[Point; 5]) -> Self {
        let mean = |points: &[Point; 5]| points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.x / 5.0, y + p.y / 5.0));
        let (from_mean, to_mean) = (mean(from), mean(to));
        let (mut real, mut imaginary, mut spread) = (0.0_f32, 0.0_f32, 0.0_f32);
        for (p, q) in from.iter().zip(to) {
            let (zx, zy) = (p.x - from_mean.0, p.y - from_mean.1);
            let (wx, wy) = (q.x - to_mean.0, q.y - to_mean.1);
            real += zx * wx + zy * wy;
            imaginary += zx * wy - zy * wx;
            spread += zx * zx + zy * zy;
        }
        let a = if spread > f32::EPSILON { (real / spread, imaginary / spread) } else { (0.0, 0.0) };
        let b = (to_mean.0 - (a.0 * from_mean.0 - a.1 * from_mean.1), to_mean.1 - (a.1 * from_mean.0 + a.0 * from_mean.1));
        Self { a, b }
    }

    /// Where a point goes.
    pub(super) fn apply(&self, x: f32, y: f32) -> (f32, f32) {
        (self.a.0 * x - self.a.1 * y + self.b.0, self.a.1 * x + self.a.0 * y + self.b.1)
    }

    /// How much longer lengths become.
    fn scale(&self) -> f32 {
        self.a.0.hypot(self.a.1)
    }

    /// The way back; the zero map goes back to one point.
    fn inverse(&self) -> Self {
        let square = self.a.0 * self.a.0 + self.a.1 * self.a.1;
        let a = if square > f32::EPSILON { (self.a.0 / square, -self.a.1 / square) } else { (0.0, 0.0) };
        Self { a, b: (-(a.0 * self.b.0 - a.1 * self.b.1), -(a.1 * self.b.0 + a.0 * self.b.1)) }
    }
}

/// Cuts a face out of the full-resolution frame into the encoder's pose.
///
/// Bilinear, as `OpenCV`'s warpAffine does it, with the mean of several samples where a pixel
/// of the crop covers more than two of the frame. Landmarks that are no numbers give a black crop.
pub fn align(frame: &Frame, landmarks: &Landmarks) -> AlignedFace {
    let to_frame = Similarity::between(&landmarks.0, &TEMPLATE).inverse();
    let per_axis = ((to_frame.scale() / STEP_MAX).ceil() as usize).clamp(1, SAMPLES_MAX);
    let picture = Picture::new(frame);
    let mut pixels = Box::new([0_u8; ALIGNED_SIDE * ALIGNED_SIDE * 3]);
    for (row, line) in pixels.chunks_exact_mut(ALIGNED_SIDE * 3).enumerate() {
        let mut sums = [[0_u32; ALIGNED_SIDE]; 3];
        // The samples of a pixel lie evenly around its centre. One lies in it.
        let shift = |sample: usize| ((sample as f32 + 0.5) / per_axis as f32 - 0.5) * SPREAD;
        for sample in 0..per_axis * per_axis {
            let (dx, dy) = (shift(sample % per_axis), shift(sample / per_axis));
            picture.add(Walk::new(to_frame, dx, row as f32 + dy), &mut sums);
        }
        let unit = 1.0 / (f32::from(ONE as u16) * f32::from(ONE as u16) * (per_axis * per_axis) as f32);
        picture.write(&sums.map(|sums| sums.map(|sum| sum as f32 * unit)), line);
    }
    AlignedFace::new(pixels)
}

/// Fractions of a pixel are counted in 1/65536; of a weight in 1/[`ONE`].
const FRACTION_BITS: u32 = 16;
/// The weight of a whole pixel. Two weights, a byte and 256 samples fit in 32 bits.
const ONE: u32 = 1 << WEIGHT_BITS;
const WEIGHT_BITS: u32 = 7;
/// Coordinates beyond this are as far outside as it gets; no frame is so large.
const FAR: f32 = 1e8;

/// A row of the crop, seen in the frame: where it begins and how far it moves a column.
#[derive(Clone, Copy)]
struct Walk {
    start: (i64, i64),
    step: (i64, i64),
}

impl Walk {
    fn new(to_frame: Similarity, x: f32, y: f32) -> Self {
        let fixed = |at: f32| (f64::from(at.clamp(-FAR, FAR)) * f64::from(1_u32 << FRACTION_BITS)) as i64;
        let (start_x, start_y) = to_frame.apply(x, y);
        Self { start: (fixed(start_x), fixed(start_y)), step: (fixed(to_frame.a.0), fixed(to_frame.a.1)) }
    }

    fn at(&self, column: usize) -> (i64, i64) {
        (self.start.0 + self.step.0 * column as i64, self.start.1 + self.step.1 * column as i64)
    }

    /// Whether the whole row lies between the centres of the frame's outermost pixels.
    fn is_inside(&self, last: (usize, usize)) -> bool {
        let within = |at: i64, last: usize| at >= 0 && at <= (last as i64) << FRACTION_BITS;
        [0, ALIGNED_SIDE - 1].map(|column| self.at(column)).iter().all(|(x, y)| within(*x, last.0) && within(*y, last.1))
    }
}

/// How much of a bilinear sample lies in the picture along one axis, in 1/[`ONE`]: all inside,
/// nothing from one pixel beyond the edge on.
fn share_inside(at: i64, last: usize) -> u32 {
    let beyond = (-at).max(at - ((last as i64) << FRACTION_BITS)).clamp(0, 1 << FRACTION_BITS);
    ONE - (beyond >> (FRACTION_BITS - WEIGHT_BITS)) as u32
}

/// One component of a picture: where its samples lie.
struct Samples<'a> {
    bytes: &'a [u8],
    stride: usize,
    step: usize,
    last: (usize, usize),
}

/// The four neighbours of a point, as offsets of their samples, and the weights of the farther ones.
#[derive(Clone, Copy)]
struct Neighbours {
    offsets: [usize; 4],
    right: u32,
    lower: u32,
}

impl Samples<'_> {
    /// Neighbours of a point; edge pixels stand for what lies beyond.
    #[inline]
    fn neighbours(&self, (x, y): (i64, i64)) -> Neighbours {
        let x = x.clamp(0, (self.last.0 as i64) << FRACTION_BITS) as usize;
        let y = y.clamp(0, (self.last.1 as i64) << FRACTION_BITS) as usize;
        let (column, row) = (x >> FRACTION_BITS, y >> FRACTION_BITS);
        let weight = |at: usize| (at as u32 & ((1 << FRACTION_BITS) - 1)) >> (FRACTION_BITS - WEIGHT_BITS);
        let (upper, lower) = (row * self.stride, (row + 1).min(self.last.1) * self.stride);
        let (left, right) = (column * self.step, (column + 1).min(self.last.0) * self.step);
        let offsets = [upper + left, upper + right, lower + left, lower + right];
        Neighbours { offsets, right: weight(x), lower: weight(y) }
    }

    /// The value between the neighbours, times [`ONE`] squared.
    #[inline]
    fn blend(&self, at: Neighbours, component: usize) -> u32 {
        let [a, b, c, d] = at.offsets.map(|offset| u32::from(self.bytes[offset + component]));
        let upper = a * (ONE - at.right) + b * at.right;
        let lower = c * (ONE - at.right) + d * at.right;
        upper * (ONE - at.lower) + lower * at.lower
    }
}

/// A frame that can be sampled between its pixels.
enum Picture<'a> {
    Rgb(Samples<'a>),
    Yuv { luma: Samples<'a>, u: Samples<'a>, v: Samples<'a>, colour: Colour },
}

impl<'a> Picture<'a> {
    fn new(frame: &'a Frame) -> Self {
        let format = frame.format();
        let samples = |plane: usize, (step, offset): (usize, usize), divisor: usize| Samples {
            bytes: &frame.plane(plane)[offset..],
            stride: format.planes[plane].stride,
            step,
            last: last_of(frame, divisor),
        };
        let (u, v) = match format.layout {
            PixelLayout::Rgb8 => return Self::Rgb(samples(0, (3, 0), 1)),
            PixelLayout::I420 => (samples(1, (1, 0), 2), samples(2, (1, 0), 2)),
            PixelLayout::Nv12 => (samples(1, (2, 0), 2), samples(1, (2, 1), 2)),
        };
        Self::Yuv { luma: samples(0, (1, 0), 1), u, v, colour: Colour::new(format.matrix, format.range) }
    }

    /// Adds one sample a column of the row that `walk` sees, times [`ONE`] squared.
    fn add(&self, walk: Walk, sums: &mut [[u32; ALIGNED_SIDE]; 3]) {
        let (main, black) = match self {
            Self::Rgb(samples) => (samples, [0; 3]),
            Self::Yuv { luma, colour, .. } => (luma, [u32::from(colour.luma_of_black()), 128, 128]),
        };
        if walk.is_inside(main.last) {
            self.add_each(walk, sums, |_, values| values);
            return;
        }
        self.add_each(walk, sums, |(x, y), values| {
            let inside = share_inside(x, main.last.0) * share_inside(y, main.last.1);
            let outside = ONE * ONE - inside;
            [0, 1, 2].map(|i| (((values[i] >> WEIGHT_BITS) * inside) >> WEIGHT_BITS) + black[i] * outside)
        });
    }

    /// `finish` makes of a place and its three values what is added.
    #[inline]
    fn add_each(&self, walk: Walk, sums: &mut [[u32; ALIGNED_SIDE]; 3], finish: impl Fn((i64, i64), [u32; 3]) -> [u32; 3]) {
        let [first, second, third] = sums;
        let mut add = |column: usize, values: [u32; 3]| {
            first[column] += values[0];
            second[column] += values[1];
            third[column] += values[2];
        };
        for column in 0..ALIGNED_SIDE {
            let (x, y) = walk.at(column);
            let values = match self {
                Self::Rgb(samples) => {
                    let at = samples.neighbours((x, y));
                    [0, 1, 2].map(|component| samples.blend(at, component))
                }
                Self::Yuv { luma, u, v, .. } => {
                    // H.264 and H.265 place chroma, unless told otherwise, level with the left luma
                    // column and between the two luma rows (ITU-T H.264, 6.2, type 0).
                    let chroma = u.neighbours((x >> 1, (y - (1 << (FRACTION_BITS - 1))) >> 1));
                    [luma.blend(luma.neighbours((x, y)), 0), u.blend(chroma, 0), v.blend(chroma, 0)]
                }
            };
            add(column, finish((x, y), values));
        }
    }

    /// Writes a row of values as RGB bytes.
    fn write(&self, values: &[[f32; ALIGNED_SIDE]; 3], line: &mut [u8]) {
        let mut rgb = *values;
        if let Self::Yuv { colour, .. } = self {
            let mut shifts = [[0.0; ALIGNED_SIDE]; 3];
            for column in 0..ALIGNED_SIDE {
                let shift = colour.shift(values[1][column], values[2][column]);
                [shifts[0][column], shifts[1][column], shifts[2][column]] = shift;
            }
            rgb.iter_mut().zip(&shifts).for_each(|(out, shift)| colour.component_row(&values[0], shift, out));
        }
        for (column, pixel) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            *pixel = [0, 1, 2].map(|component: usize| (rgb[component][column] + 0.5) as u8);
        }
    }
}

/// The last column and row of a plane that is `divisor` times smaller than the frame.
fn last_of(frame: &Frame, divisor: usize) -> (usize, usize) {
    let last = |length: u32| (length as usize).div_ceil(divisor) - 1;
    (last(frame.size().width), last(frame.size().height))
}

#[cfg(test)]
mod tests;
