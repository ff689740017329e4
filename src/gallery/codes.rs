//! Vectors in six bits a number: what a scan reads to leave out rows that cannot be among the best,
//! without ever leaving out one that is.
//!
//! In: unit vectors. Out: for a probe, a number that no row's similarity exceeds.
//! Drops nothing: whatever six bits cannot tell is in the bound.
//! Must not know: whose rows these are, which are wanted.
//!
//! A vector x is kept as `x̂ = s·(c − 31)` with codes c, and how far it is off, `‖x − x̂‖`. The probe q
//! is kept as `q̂ = t·p` with bytes p. Then, by Cauchy and Schwarz,
//!
//! ```text
//! ⟨x, q⟩ = ⟨x̂, q̂⟩ + ⟨x − x̂, q⟩ + ⟨x̂, q − q̂⟩
//!        ≤ s·t·(⟨c, p⟩ − 31·Σp) + ‖x − x̂‖·‖q‖ + (‖x‖ + ‖x − x̂‖)·‖q − q̂‖
//! ```
//!
//! where `⟨c, p⟩` and `Σp` are exact. What the rounding of a similarity in f32 adds is bounded too
//! ([`rounding`]), so that the bound holds for the number that [`dot`](crate::face::dot) gives.
//!
//! Six bits, since fewer let too many rows through that then have to be compared in full, and more
//! are read in vain: of a million normal vectors one in some thousand passes.

use std::ops::Range;

use super::pages;
use super::products::{BANDS, Block, Bytes, CODE_MAX, ROWS, Sums, WIDTH, byte_max, products};
use crate::face::LANES;
use doorward_kernels::simd::widest_vectors;

/// The code of zero; as many codes stand for numbers below as above.
const MIDDLE: f32 = (CODE_MAX / 2) as f32;
/// Templates are unit vectors within 0.001 ([`Template`](crate::face::Template)).
const NORM_MAX: f32 = 1.001;

/// What `dot` and the arithmetic of a bound may be off together, for unit vectors of `dimension`
/// numbers: lanes of `dimension / LANES` products each, then their additions in pairs (Higham, Accuracy
/// and Stability of Numerical Algorithms, 2nd ed., section 3.1: `γ_n = n·u / (1 − n·u)`), and
/// another two dozen operations. It is in proportion to `‖x‖ + ‖x − x̂‖`, since no number that occurs
/// is greater than twice that.
fn rounding(dimension: usize) -> f32 {
    const UNIT: f32 = f32::EPSILON / 2.0;
    let steps = (dimension.div_ceil(LANES) + LANES.ilog2() as usize + 1 + 48) as f32;
    NORM_MAX * NORM_MAX * steps * UNIT / (1.0 - steps * UNIT)
}

/// The rows of a segment as codes, in bands of [`ROWS`].
pub(super) struct Codes {
    /// Blocks of a band.
    blocks: usize,
    rows: usize,
    packed: Vec<Block>,
    /// Each row's step s, and 0 for those that the last band does not have.
    steps: Vec<f32>,
    /// How far each row is off, rounded up.
    off: Vec<f32>,
}

impl Codes {
    /// No rows yet, with room for `rows`.
    pub fn with_room_for(rows: usize, dimension: usize) -> Self {
        let (bands, blocks) = (rows.div_ceil(ROWS), dimension.div_ceil(WIDTH));
        let numbers = || Vec::with_capacity(bands * ROWS);
        Self { blocks, rows: 0, packed: Vec::with_capacity(bands * blocks), steps: numbers(), off: numbers() }
    }

    /// These rows, with room for `rows` in all.
    pub fn copy_with_room_for(&self, rows: usize) -> Self {
        let mut copy = Self::with_room_for(rows, self.blocks * WIDTH);
        copy.packed.extend_from_slice(&self.packed);
        copy.steps.extend_from_slice(&self.steps);
        copy.off.extend_from_slice(&self.off);
        Self { rows: self.rows, ..copy }
    }

    /// Prepares for being scanned many times.
    pub fn settle(&self) {
        pages::enlarge(&self.packed);
    }

    /// Bands, of which the last may have less rows than the others.
    pub fn bands(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// Adds a unit vector.
    pub fn push(&mut self, vector: &[f32]) {
        let (step, inverse) = step(vector, MIDDLE);
        let mut square = 0.0;
        let (band, row) = self.add_row();
        for (numbers, block) in vector.chunks(WIDTH).zip(band) {
            let mut codes = [0; WIDTH];
            for (value, code) in numbers.iter().zip(&mut codes) {
                let whole = rounded(*value * inverse).clamp(-MIDDLE, MIDDLE);
                *code = (whole + MIDDLE) as u8;
                square += f64::from(*value - whole * step).powi(2);
            }
            block.put(row, &codes[..numbers.len()]);
        }
        self.set_scale((step, norm_above(square)));
    }

    /// Adds a row of other codes as it is.
    pub fn push_from(&mut self, other: &Self, from: usize) {
        let (band, row) = self.add_row();
        for (block, other) in band.iter_mut().zip(&other.packed[from / ROWS * other.blocks..]) {
            block.copy_row(row, other, from % ROWS);
        }
        self.set_scale((other.steps[from], other.off[from]));
    }

    /// Makes room for a row: the last band, and which of its rows it is.
    fn add_row(&mut self) -> (&mut [Block], usize) {
        let row = self.rows % ROWS;
        if row == 0 {
            self.packed.resize(self.packed.len() + self.blocks, Block::EMPTY);
            self.steps.resize(self.steps.len() + ROWS, 0.0);
            self.off.resize(self.off.len() + ROWS, 0.0);
        }
        self.rows += 1;
        let first = self.packed.len() - self.blocks;
        (&mut self.packed[first..], row)
    }

    /// Of the row that was added last.
    fn set_scale(&mut self, (step, off): (f32, f32)) {
        (self.steps[self.rows - 1], self.off[self.rows - 1]) = (step, off);
    }

    /// By how much the bound of a row is above what its codes say of its similarity to probe `n`.
    pub fn slack<const N: usize>(&self, probes: &Probes<N>, n: usize, row: usize) -> f32 {
        probes.terms[n].slack(self.off[row])
    }

    /// For each row of some bands, at most [`BANDS`], a number that its similarity to each probe does not
    /// exceed. What stands for rows that the last band does not have means nothing.
    pub fn bound<const N: usize>(&self, probes: &Probes<N>, bands: Range<usize>, bounds: &mut Bounds<N>) {
        products(&self.packed[bands.start * self.blocks..bands.end * self.blocks], &probes.bytes, &mut bounds.sums);
        let rows = bands.start * ROWS..bands.end * ROWS;
        let scales = (&self.steps[rows.clone()], &self.off[rows]);
        for ((terms, sums), bounds) in probes.terms.iter().zip(&bounds.sums).zip(&mut bounds.of_rows) {
            bounds_of(terms, scales, sums.as_flattened(), bounds);
        }
    }
}

widest_vectors! {
    fn bounds_of(terms: &Terms, scales: (&[f32], &[f32]), sums: &[i32], bounds: &mut [f32]) {
        let (steps, off) = scales;
        for (((bound, sum), step), off) in bounds.iter_mut().zip(sums).zip(steps).zip(off) {
            *bound = terms.product(*sum) * step + terms.slack(*off);
        }
    }
}

/// What no similarity of some rows to each of `N` probes exceeds.
pub(super) struct Bounds<const N: usize> {
    sums: [Sums; N],
    /// For each probe, by row.
    pub of_rows: [[f32; BANDS * ROWS]; N],
}

impl<const N: usize> Default for Bounds<N> {
    fn default() -> Self {
        Self { sums: [[[0; ROWS]; BANDS]; N], of_rows: [[0.0; BANDS * ROWS]; N] }
    }
}

/// Probes as bytes, side by side.
pub(super) struct Probes<const N: usize> {
    bytes: Vec<[Bytes; N]>,
    terms: [Terms; N],
}

/// What a probe puts into a bound.
#[derive(Clone, Copy)]
struct Terms {
    /// `t` and `31·Σp`.
    step: f32,
    middle_sums: i32,
    /// `‖q − q̂‖`, and what rounding adds.
    off: f32,
}

impl Terms {
    /// `t·(⟨c, p⟩ − 31·Σp)` of the sum of products `⟨c, p⟩`.
    #[inline(always)]
    fn product(&self, sum: i32) -> f32 {
        (sum - self.middle_sums) as f32 * self.step
    }

    /// What a row that is `off` may add to its products.
    #[inline(always)]
    fn slack(&self, off: f32) -> f32 {
        off * NORM_MAX + (NORM_MAX + off) * self.off
    }
}

impl<const N: usize> Probes<N> {
    /// The bytes of `N` unit vectors of one dimension.
    pub fn of(vectors: [&[f32]; N]) -> Self {
        let dimension = vectors.first().map_or(0, |vector| vector.len());
        let mut bytes = vec![[Bytes::default(); N]; dimension.div_ceil(WIDTH)];
        let byte_max = f32::from(byte_max());
        let terms = std::array::from_fn(|n| {
            let (step, inverse) = step(vectors[n], byte_max);
            let (mut sum, mut square) = (0, 0.0);
            for (i, value) in vectors[n].iter().enumerate() {
                let byte = rounded(*value * inverse).clamp(-byte_max, byte_max);
                bytes[i / WIDTH][n].as_flattened_mut()[i % WIDTH] = byte as i8;
                sum += byte as i32;
                square += f64::from(*value - byte * step).powi(2);
            }
            Terms { step, middle_sums: i32::from(CODE_MAX / 2) * sum, off: norm_above(square) + rounding(dimension) }
        });
        Self { bytes, terms }
    }
}

/// The step with which `max` stands for the largest number, and what to multiply with instead of
/// dividing by it: 0 for a step so small that it is as good as none.
fn step(vector: &[f32], max: f32) -> (f32, f32) {
    let step = vector.iter().fold(0.0_f32, |largest, number| largest.max(number.abs())) / max;
    (step, if step > f32::MIN_POSITIVE { 1.0 / step } else { 0.0 })
}

/// The closest whole number of one below 2²²: what is behind the point has no room beside 1.5·2²³.
#[inline(always)]
fn rounded(value: f32) -> f32 {
    const ROUNDER: f32 = 12_582_912.0;
    value + ROUNDER - ROUNDER
}

/// A number that the norm of what codes leave of a unit vector does not exceed, given the sum of the
/// squares: each difference took two roundings, of numbers that together have a norm below 2.
fn norm_above(square: f64) -> f32 {
    (square.sqrt() + 4.0 * f64::from(f32::EPSILON)) as f32 * (1.0 + f32::EPSILON) + f32::MIN_POSITIVE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::{Template, TemplateSpace, dot};
    use fastrand::Rng;

    fn unit(values: &[f32]) -> Vec<f32> {
        Template::normalised(TemplateSpace::new("s"), values).expect("it has a direction").values().to_vec()
    }

    /// Vectors that quantise well, badly and not at all.
    fn vectors(rng: &mut Rng, dimension: usize) -> Vec<Vec<f32>> {
        let mut with = |make: &mut dyn FnMut(usize, &mut Rng) -> f32| unit(&(0..dimension).map(|i| make(i, rng)).collect::<Vec<_>>());
        vec![
            with(&mut |_, rng| rng.f32() - 0.5),
            with(&mut |i, _| if i == 0 { 1.0 } else { 0.0 }),
            with(&mut |i, rng| if i == 0 { 1.0 } else { (rng.f32() - 0.5) * 1e-2 }),
            with(&mut |i, rng| (rng.f32() - 0.5) * 10.0_f32.powi(-(i as i32 % 40))),
            with(&mut |_, _| -1.0),
            with(&mut |i, _| if i % 2 == 0 { 1.0 } else { 30.5 / 31.0 }),
        ]
    }

    #[test]
    fn no_similarity_exceeds_its_bound() {
        for seed in [1, 2, 3] {
            println!("seed {seed}");
            let mut rng = Rng::with_seed(seed);
            for dimension in [1, 2, 16, 31, 64, 65, 128, 512, 4_096] {
                let rows: Vec<Vec<f32>> = (0..5).flat_map(|_| vectors(&mut rng, dimension)).collect();
                let mut codes = Codes::with_room_for(rows.len(), dimension);
                rows.iter().for_each(|row| codes.push(row));
                for probe in vectors(&mut rng, dimension).into_iter().chain(rows.iter().cloned()) {
                    let probes = Probes::of([&probe[..]]);
                    let mut bounds = Bounds::default();
                    codes.bound(&probes, 0..codes.bands(), &mut bounds);
                    for (row, vector) in rows.iter().enumerate() {
                        let similarity = dot(vector, &probe);
                        let bound = bounds.of_rows[0][row];
                        assert!(similarity <= bound, "dimension {dimension}: {similarity} above {bound}");
                        assert!(bound - similarity < 0.5, "dimension {dimension}: {bound} says nothing of {similarity}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_bound_of_an_ordinary_vector_is_close() {
        println!("seed 5");
        let mut rng = Rng::with_seed(5);
        let mut vector = || unit(&(0..512).map(|_| (0..12).map(|_| rng.f32()).sum::<f32>() - 6.0).collect::<Vec<_>>());
        for _ in 0..50 {
            let (row, probe) = (vector(), vector());
            let mut codes = Codes::with_room_for(1, 512);
            codes.push(&row);
            let mut bounds = Bounds::default();
            let probes = Probes::of([&probe[..]]);
            codes.bound(&probes, 0..1, &mut bounds);
            let similarity = dot(&row, &probe);
            let above = bounds.of_rows[0][0] - similarity;
            assert!(above < 0.08, "{above}");
        }
    }
}
