//! Cuts a face out of a picture at full resolution into the pose that encoders are trained with.
//!
//! In: a picture and five landmarks. Out: 112×112 RGB bytes; black where the picture ends.
//! Drops, of faces much larger than the crop, what lies between its pixels (`SPREAD`).
//! Must not know: which encoder sees it.

use crate::colour::{ToRgb, component_row, level};
use crate::picture::{Picture, PixelLayout};
use crate::simd::widest_vectors;

/// Side of the square crop that an encoder sees, in pixels.
pub const ALIGNED_SIDE: usize = 112;

/// A point in pixels of the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// From the left edge.
    pub x: f32,
    /// From the top edge.
    pub y: f32,
}

/// Where the landmarks of a face lie in the crop: the template that `ArcFace` (Deng et al., 2019)
/// and `SFace` were trained with.
pub const TEMPLATE: [Point; 5] = [
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
pub struct Similarity {
    /// What turns and scales, real and imaginary.
    pub a: (f32, f32),
    /// What moves, along x and y.
    pub b: (f32, f32),
}

impl Similarity {
    /// The least-squares similarity that takes `from` to `to`: Umeyama (1991), equations 40 to 43,
    /// which in the plane, without reflection, is `a = Σ conj(z)·w / Σ |z|²` over centred points.
    /// Points that all fall together give a map onto one point.
    pub fn between(from: &[Point; 5], to: &[Point; 5]) -> Self {
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
    pub fn apply(&self, x: f32, y: f32) -> (f32, f32) {
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

widest_vectors! {
    /// Fills `pixels`, [`ALIGNED_SIDE`] rows of as many R, G, B bytes, with the face.
    ///
    /// Bilinear, as `OpenCV`'s warpAffine does it, with the mean of several samples where a pixel
    /// of the crop covers more than two of the picture. Landmarks that are no numbers give a black crop.
    ///
    /// # Panics
    /// Where the picture's planes reach beyond its bytes, or these are more than 2 GiB.
    pub fn cut(picture: &Picture<'_>, crop: Crop, pixels: &mut [u8]) {
        assert!(i32::try_from(picture.bytes.len()).is_ok(), "a picture of more than 2 GiB is cut by nobody");
        Source::new(picture).cut(crop, pixels);
    }
}

/// How a face is sampled, on whatever device.
#[derive(Clone, Copy, Debug)]
pub struct Crop {
    /// Takes a pixel of the crop to the frame.
    pub to_frame: Similarity,
    /// Samples of a pixel along each axis.
    pub per_axis: usize,
    /// What brings the sum of a pixel's samples to a byte's units.
    pub unit: f32,
}

impl Crop {
    /// How the face with these landmarks is sampled.
    pub fn of(landmarks: &[Point; 5]) -> Self {
        let to_frame = Similarity::between(landmarks, &TEMPLATE).inverse();
        let per_axis = ((to_frame.scale() / STEP_MAX).ceil() as usize).clamp(1, SAMPLES_MAX);
        Self { to_frame, per_axis, unit: 1.0 / ((ONE * ONE) as f32 * (per_axis * per_axis) as f32) }
    }
}

/// The weight of a whole pixel. Two weights, a byte and 256 samples fit in 32 bits.
const ONE: i32 = 128;

/// One number for each column of a row of the crop.
type Row<T> = [T; ALIGNED_SIDE];

/// A row of the crop, seen in the frame: where it begins and how far it moves a column.
#[derive(Clone, Copy)]
struct Walk {
    start: (f32, f32),
    step: (f32, f32),
}

impl Walk {
    fn new(to_frame: Similarity, x: f32, y: f32) -> Self {
        Self { start: to_frame.apply(x, y), step: to_frame.a }
    }

    fn at(&self, column: usize) -> (f32, f32) {
        (self.start.0 + self.step.0 * column as f32, self.start.1 + self.step.1 * column as f32)
    }

    #[inline(always)]
    fn points(&self) -> (Row<f32>, Row<f32>) {
        let (mut xs, mut ys) = ([0.0; ALIGNED_SIDE], [0.0; ALIGNED_SIDE]);
        for column in 0..ALIGNED_SIDE {
            (xs[column], ys[column]) = self.at(column);
        }
        (xs, ys)
    }

    /// Whether the whole row lies between the centres of the frame's outermost pixels.
    fn is_inside(&self, last: (usize, usize)) -> bool {
        let within = |at: f32, last: usize| at >= 0.0 && at <= last as f32;
        [0, ALIGNED_SIDE - 1].map(|column| self.at(column)).iter().all(|(x, y)| within(*x, last.0) && within(*y, last.1))
    }
}

/// How much of a bilinear sample lies in the picture along one axis, in 1/[`ONE`]: all inside,
/// nothing from one pixel beyond the edge on, nothing at what is no number.
#[inline(always)]
fn share_inside(at: f32, last: usize) -> i32 {
    let beyond = (-at).max(at - last as f32);
    ((1.0 - beyond).clamp(0.0, 1.0) * ONE as f32) as i32
}

/// One component of a picture: where its samples lie.
struct Samples<'a> {
    bytes: &'a [u8],
    stride: usize,
    step: usize,
    last: (usize, usize),
}

/// The four neighbours of each point of a row: the offset of the upper left one, and the weights of
/// the right and of the lower ones in 1/[`ONE`]. Edge pixels stand for what lies beyond.
struct Neighbours {
    offset: Row<i32>,
    right: Row<i32>,
    lower: Row<i32>,
}

impl Samples<'_> {
    #[inline(always)]
    fn neighbours(&self, xs: &Row<f32>, ys: &Row<f32>) -> Neighbours {
        let zero = [0_i32; ALIGNED_SIDE];
        let mut at = Neighbours { offset: zero, right: zero, lower: zero };
        let fixed = |at: f32, last: usize| (at.clamp(0.0, last as f32) * ONE as f32) as i32;
        let (step, stride) = (self.step as i32, self.stride as i32);
        // The outermost pixel is a right or lower neighbour of full weight.
        let (left_max, upper_max) = (self.last.0.saturating_sub(1) as i32, self.last.1.saturating_sub(1) as i32);
        for column in 0..ALIGNED_SIDE {
            let (x, y) = (fixed(xs[column], self.last.0), fixed(ys[column], self.last.1));
            let (left, upper) = ((x / ONE).min(left_max), (y / ONE).min(upper_max));
            at.offset[column] = upper * stride + left * step;
            (at.right[column], at.lower[column]) = (x - left * ONE, y - upper * ONE);
        }
        at
    }

    /// The values between the neighbours, times [`ONE`] squared.
    #[inline(always)]
    fn blend(&self, at: &Neighbours, component: usize) -> Row<i32> {
        let to_right = if self.last.0 == 0 { 0 } else { self.step };
        let to_lower = if self.last.1 == 0 { 0 } else { self.stride };
        // An offset that is negative, as where a picture lies of its size, is a very large one here and below.
        let farthest = at.offset.iter().fold(0, |farthest, offset| farthest.max(*offset as u32)) as usize;
        let end = [component, to_right, to_lower].iter().try_fold(farthest, |end, more| end.checked_add(*more));
        assert!(end.is_some_and(|end| end < self.bytes.len()), "a picture's planes hold all of its rows");
        let mut corners = [[0_u8; ALIGNED_SIDE]; 4];
        let [upper_left, upper_right, lower_left, lower_right] = &mut corners;
        for column in 0..ALIGNED_SIDE {
            let upper = at.offset[column] as u32 as usize + component;
            let lower = upper + to_lower;
            // SAFETY: no offset is larger than `farthest`, and the farthest with all that is added here lies in the bytes.
            unsafe {
                upper_left[column] = *self.bytes.get_unchecked(upper);
                upper_right[column] = *self.bytes.get_unchecked(upper + to_right);
                lower_left[column] = *self.bytes.get_unchecked(lower);
                lower_right[column] = *self.bytes.get_unchecked(lower + to_right);
            }
        }
        let mut values = [0; ALIGNED_SIDE];
        for column in 0..ALIGNED_SIDE {
            let [a, b, c, d] = [0, 1, 2, 3].map(|corner: usize| i32::from(corners[corner][column]));
            let (right, lower) = (at.right[column], at.lower[column]);
            let upper = a * (ONE - right) + b * right;
            values[column] = upper * (ONE - lower) + (c * (ONE - right) + d * right) * lower;
        }
        values
    }
}

/// A picture that can be sampled between its pixels.
enum Source<'a> {
    Rgb(Samples<'a>),
    Yuv { luma: Samples<'a>, u: Samples<'a>, v: Samples<'a>, colour: ToRgb },
}

impl<'a> Source<'a> {
    fn new(picture: &Picture<'a>) -> Self {
        let format = picture.format;
        let samples = |plane: usize, (step, offset): (usize, usize), divisor: usize| Samples {
            bytes: &picture.plane(plane)[offset..],
            stride: format.planes[plane].stride,
            step,
            last: last_of(picture, divisor),
        };
        let (u, v) = match format.layout {
            PixelLayout::Rgb8 => return Self::Rgb(samples(0, (3, 0), 1)),
            PixelLayout::I420 => (samples(1, (1, 0), 2), samples(2, (1, 0), 2)),
            PixelLayout::Nv12 => (samples(1, (2, 0), 2), samples(1, (2, 1), 2)),
        };
        Self::Yuv { luma: samples(0, (1, 0), 1), u, v, colour: ToRgb::new(format.matrix, format.range) }
    }

    /// Fills the crop.
    #[inline(always)]
    fn cut(&self, Crop { to_frame, per_axis, unit }: Crop, pixels: &mut [u8]) {
        for (row, line) in pixels.chunks_exact_mut(ALIGNED_SIDE * 3).enumerate() {
            let mut sums = [[0_i32; ALIGNED_SIDE]; 3];
            // The samples of a pixel lie evenly around its centre. One lies in it.
            let shift = |sample: usize| ((sample as f32 + 0.5) / per_axis as f32 - 0.5) * SPREAD;
            for sample in 0..per_axis * per_axis {
                let (dx, dy) = (shift(sample % per_axis), shift(sample / per_axis));
                let values = self.sample(Walk::new(to_frame, dx, row as f32 + dy));
                for (sums, values) in sums.iter_mut().zip(&values) {
                    sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                }
            }
            self.write(&sums.map(|sums| sums.map(|sum| sum as f32 * unit)), line);
        }
    }

    /// One sample a column of the row that `walk` sees, times [`ONE`] squared.
    #[inline(always)]
    fn sample(&self, walk: Walk) -> [Row<i32>; 3] {
        let (xs, ys) = walk.points();
        let (main, black, mut values) = match self {
            Self::Rgb(samples) => {
                let at = samples.neighbours(&xs, &ys);
                (samples, [0; 3], [0, 1, 2].map(|component| samples.blend(&at, component)))
            }
            Self::Yuv { luma, u, v, colour } => {
                // H.264 and H.265 place chroma, unless told otherwise, level with the left luma
                // column and between the two luma rows (ITU-T H.264, 6.2, type 0).
                let (chroma_xs, chroma_ys) = (xs.map(|x| x * 0.5), ys.map(|y| (y - 0.5) * 0.5));
                let at = u.neighbours(&chroma_xs, &chroma_ys);
                let of_v = (v.stride != u.stride).then(|| v.neighbours(&chroma_xs, &chroma_ys));
                let values = [luma.blend(&luma.neighbours(&xs, &ys), 0), u.blend(&at, 0), v.blend(of_v.as_ref().unwrap_or(&at), 0)];
                (luma, [i32::from(colour.luma_of_black()), 128, 128], values)
            }
        };
        if !walk.is_inside(main.last) {
            for column in 0..ALIGNED_SIDE {
                let inside = share_inside(xs[column], main.last.0) * share_inside(ys[column], main.last.1);
                for (row, black) in values.iter_mut().zip(black) {
                    row[column] = row[column] / ONE * inside / ONE + black * (ONE * ONE - inside);
                }
            }
        }
        values
    }

    /// Writes a row of values as RGB bytes.
    #[inline(always)]
    fn write(&self, values: &[Row<f32>; 3], line: &mut [u8]) {
        let mut rgb = [[0_u8; ALIGNED_SIDE]; 3];
        if let Self::Yuv { colour, .. } = self {
            let mut shifts = [[0.0; ALIGNED_SIDE]; 3];
            for column in 0..ALIGNED_SIDE {
                let shift = colour.shift(values[1][column], values[2][column]);
                [shifts[0][column], shifts[1][column], shifts[2][column]] = shift;
            }
            let mut luma = values[0];
            colour.stretch(&mut luma);
            rgb.iter_mut().zip(&shifts).for_each(|(out, shift)| component_row(&luma, shift, out));
        } else {
            for (bytes, values) in rgb.iter_mut().zip(values) {
                bytes.iter_mut().zip(values).for_each(|(byte, value)| *byte = level(*value));
            }
        }
        for (column, pixel) in line.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            *pixel = [0, 1, 2].map(|component: usize| rgb[component][column]);
        }
    }
}

/// The last column and row of a plane that is `divisor` times smaller than the picture.
fn last_of(picture: &Picture<'_>, divisor: usize) -> (usize, usize) {
    let last = |length: u32| (length as usize).div_ceil(divisor) - 1;
    (last(picture.format.size.width), last(picture.format.size.height))
}

#[cfg(test)]
mod tests;
