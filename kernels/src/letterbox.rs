//! Letterboxes a picture: a region of it, scaled into the corner of a canvas, the rest black.
//!
//! In: a [`Picture`], where it goes. Out: three planes of bytes.
//! Drops, by design, samples of live video between the taps ([`taps`]).
//! Must not know: what the canvas is for.

use crate::colour::{ToRgb, component_row, level};
use crate::picture::{Picture, PixelLayout, Size};
use crate::simd::widest_vectors;
use crate::taps::{self, Sampling, Taps, WEIGHT_SUM};

/// Where a region of a picture lies on a canvas: in its upper left corner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The whole canvas.
    pub canvas: Size,
    /// Left and upper edge of the region, in pixels of the picture; even, so that chroma agrees.
    pub origin: (u32, u32),
    /// The part of the picture that is looked at.
    pub region: Size,
    /// The part of the canvas that it fills.
    pub content: Size,
    /// How the picture is made smaller; `None` as its layout has it: photos exactly, video by some points of each pixel.
    pub sampling: Option<Sampling>,
}

/// A canvas in bytes, to be filled.
pub struct Canvas<'a> {
    /// Whether blue comes first, and not red.
    pub is_bgr: bool,
    /// Three planes.
    pub bytes: &'a mut [u8],
}

/// One colour component of a picture: where its samples lie.
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

/// The scratch memory of one thread's letterboxing. Nothing is allocated once it has grown.
#[derive(Debug, Default)]
pub struct Letterbox {
    /// Of luma (or of all of RGB), and of chroma.
    columns: [Taps; 2],
    rows: [Taps; 2],
    sums: Vec<u16>,
    luma: Vec<f32>,
    /// U and V, one sample for two pixels of the canvas.
    chroma: [Vec<f32>; 2],
    /// What chroma adds to red, green and blue, one sample a pixel.
    shifts: [Vec<f32>; 3],
}

impl Letterbox {
    /// Fills the canvas with the picture, in whole levels as detectors are trained with. What the picture does not cover is black.
    pub fn fill(&mut self, picture: &Picture<'_>, place: &Place, canvas: &mut Canvas<'_>) {
        fill(self, picture, place, canvas);
    }

    #[inline(always)]
    fn fill_rows(&mut self, picture: &Picture<'_>, place: &Place, canvas: &mut Canvas<'_>) {
        let area = place.canvas.width as usize * place.canvas.height as usize;
        let (first, rest) = canvas.bytes.split_at_mut(area);
        let (second, third) = rest.split_at_mut(area);
        let third = &mut third[..area];
        let mut rgb = if canvas.is_bgr { [third, second, first] } else { [first, second, third] };
        let is_rgb = picture.format.layout == PixelLayout::Rgb8;
        self.plan(is_rgb, place);
        let (width, canvas_width) = (place.content.width as usize, place.canvas.width as usize);
        let components = components(picture, place);
        let colour = ToRgb::new(picture.format.matrix, picture.format.range);
        for row in 0..place.content.height as usize {
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
        let covered = place.content.height as usize * canvas_width;
        for plane in &mut rgb {
            plane[covered..].fill(0);
        }
    }

    fn plan(&mut self, is_rgb: bool, place: &Place) {
        let (region, content) = (place.region, place.content);
        let sampling = place.sampling.unwrap_or(if is_rgb { Sampling::Exact } else { Sampling::Video });
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
    fn fill(letterbox: &mut Letterbox, picture: &Picture<'_>, place: &Place, canvas: &mut Canvas<'_>) {
        letterbox.fill_rows(picture, place, canvas);
    }
}

/// The three components of the region, as the layout has them: R, G, B or Y, U, V.
fn components<'a>(picture: &Picture<'a>, place: &Place) -> [Samples<'a>; 3] {
    let planes = &picture.format.planes;
    let (x, y) = (place.origin.0 as usize, place.origin.1 as usize);
    let (width, height) = (place.region.width as usize, place.region.height as usize);
    let samples = |plane: usize, step: usize, offset: usize, halved: bool| Samples {
        plane: picture.plane(plane),
        stride: planes[plane].stride,
        step,
        offset,
        origin: if halved { (x / 2, y / 2) } else { (x, y) },
        size: if halved { (width.div_ceil(2), height.div_ceil(2)) } else { (width, height) },
    };
    match picture.format.layout {
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
