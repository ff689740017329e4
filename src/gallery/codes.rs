//! Vectors as two half-bytes a number: what a scan reads to leave out rows that cannot be among
//! the best, without ever leaving out one that is.
//!
//! In: unit vectors. Out: for a probe, a number that no row's similarity exceeds: a loose one from
//! the coarse halves, an eighth of the memory, and a close one from both.
//! Drops nothing: whatever half-bytes cannot tell is in the bound.
//! Must not know: whose rows these are, which are wanted.
//!
//! A vector x is kept as `x̂ = s·(h − 7.5)` with half-bytes h, the rest as `s'·(h' − 7.5)`, and with
//! each how far it is off, `‖x − x̂‖`. The probe q is kept as `q̂ = t·p` with bytes p. Then, by Cauchy
//! and Schwarz,
//!
//! ```text
//! ⟨x, q⟩ = ⟨x̂, q̂⟩ + ⟨x − x̂, q⟩ + ⟨x̂, q − q̂⟩
//!        ≤ s·t·(⟨h, p⟩ − 7.5·Σp) + ‖x − x̂‖·‖q‖ + (‖x‖ + ‖x − x̂‖)·‖q − q̂‖
//! ```
//!
//! where `⟨h, p⟩` and `Σp` are exact. What the rounding of a similarity in f32 adds is bounded too
//! ([`rounding`]), so that the bound holds for the number that [`dot`](crate::face::dot) gives.

use std::ops::Range;

use super::products::{BLOCK, Bytes, Halves, pack, product, products};
use crate::simd::{prefetch, widest_vectors};

/// Half-bytes stand for numbers on both sides of zero.
const HALF_MAX: f32 = 15.0;
const MIDDLE: f32 = HALF_MAX / 2.0;
/// The largest byte of a probe. Symmetric, so that each has a negative.
const BYTE_MAX: f32 = 127.0;
/// The step that quantises normal numbers of deviation 1 to sixteen values with the least error
/// (Max, Quantizing for Minimum Distortion, IRE Trans. Information Theory 6, 1960, table II).
const NORMAL_STEP: f32 = 0.3352;
/// Templates are unit vectors within 0.001 ([`Template`](crate::face::Template)).
const NORM_MAX: f32 = 1.001;
/// Rows whose bounds are computed together: their coarse halves fit in the nearest cache.
pub(super) const BLOCK_ROWS: usize = 64;

/// What `dot` and the arithmetic of a bound may be off together, for unit vectors of `dimension`
/// numbers: sixteen lanes of `dimension / 16` products each, then four additions (Higham, Accuracy
/// and Stability of Numerical Algorithms, 2nd ed., section 3.1: `γ_n = n·u / (1 − n·u)`), and
/// another two dozen operations. It is in proportion to `‖x‖ + ‖x − x̂‖`, since no number that occurs
/// is greater than twice that.
fn rounding(dimension: usize) -> f32 {
    const UNIT: f32 = f32::EPSILON / 2.0;
    let steps = (dimension.div_ceil(16) + 5 + 48) as f32;
    NORM_MAX * NORM_MAX * steps * UNIT / (1.0 - steps * UNIT)
}

/// One half-byte of each number of all rows.
struct Plane {
    halves: Vec<Halves>,
    /// For each row its step s and how far it is off with this plane and those before, rounded up.
    steps: Vec<(f32, f32)>,
}

/// The rows of a segment as half-bytes.
pub(super) struct Codes {
    /// Blocks of a row.
    blocks: usize,
    coarse: Plane,
    fine: Plane,
}

impl Plane {
    fn with_room_for(rows: usize, blocks: usize) -> Self {
        Self { halves: Vec::with_capacity(rows * blocks), steps: Vec::with_capacity(rows) }
    }

    fn push(&mut self, halves: &[u8], step: f32, off: f32) {
        self.halves.extend(halves.chunks(BLOCK).map(pack));
        self.steps.push((step, off));
    }

    fn extend(&mut self, from: &Self, rows: Range<usize>, blocks: usize) {
        self.halves.extend_from_slice(&from.halves[rows.start * blocks..rows.end * blocks]);
        self.steps.extend_from_slice(&from.steps[rows]);
    }
}

impl Codes {
    /// No rows yet, with room for `rows`.
    pub fn with_room_for(rows: usize, dimension: usize) -> Self {
        let blocks = dimension.div_ceil(BLOCK);
        Self { blocks, coarse: Plane::with_room_for(rows, blocks), fine: Plane::with_room_for(rows, blocks) }
    }

    /// Adds a unit vector.
    pub fn push(&mut self, vector: &[f32]) {
        let mut halves = vec![0; vector.len()];
        let mut rest = vector.to_vec();
        let step = coarse_step(vector);
        quantise(&mut rest, step, &mut halves);
        self.coarse.push(&halves, step, norm_above(&rest));
        let step = largest(&rest) / MIDDLE;
        quantise(&mut rest, step, &mut halves);
        self.fine.push(&halves, step, norm_above(&rest));
    }

    /// Adds `rows` of other codes as they are.
    pub fn extend(&mut self, from: &Self, rows: Range<usize>) {
        self.coarse.extend(&from.coarse, rows.clone(), self.blocks);
        self.fine.extend(&from.fine, rows, self.blocks);
    }

    /// Compares `rows`, at most [`BLOCK_ROWS`], with what is wanted of each probe.
    pub fn scan<const N: usize>(&self, probes: &Probes<N>, rows: Range<usize>, found: &mut Excess<N>) {
        let (sums, by) = (&mut found.sums[..rows.len()], &mut found.by[..rows.len()]);
        products(&self.coarse.halves[rows.start * self.blocks..rows.end * self.blocks], &probes.bytes, sums);
        exceed(&self.coarse.steps[rows], sums, (&probes.terms, &found.wanted), by);
    }

    /// A close bound of the similarity of `row` to the probe, given the sum of its coarse products.
    pub fn close_bound(&self, probe: &Probes<1>, row: usize, sum: i32) -> f32 {
        let fine = product(self.fine_halves(row), &probe.bytes);
        let ((step, _), (fine_step, off), terms) = (self.coarse.steps[row], self.fine.steps[row], &probe.terms[0]);
        terms.product(sum) * step + terms.product(fine) * fine_step + terms.slack(off)
    }

    /// Has what [`close_bound`](Self::close_bound) will read brought close.
    pub fn await_row(&self, row: usize) {
        prefetch(self.fine_halves(row));
        prefetch(&self.fine.steps[row..=row]);
    }

    fn fine_halves(&self, row: usize) -> &[Halves] {
        &self.fine.halves[row * self.blocks..(row + 1) * self.blocks]
    }
}

widest_vectors! {
    /// By how much each row's loose bound is above what is wanted of each probe.
    fn exceed [const N: usize] (
        steps: &[(f32, f32)], sums: &[[i32; N]], probes: (&[Terms; N], &[f32; N]), excess: &mut [[f32; N]],
    ) {
        let (terms, wanted) = probes;
        for ((excess, sums), (step, off)) in excess.iter_mut().zip(sums).zip(steps) {
            for n in 0..N {
                excess[n] = terms[n].product(sums[n]) * step + terms[n].slack(*off) - wanted[n];
            }
        }
    }
}

/// What a scan of some rows finds.
pub(super) struct Excess<const N: usize> {
    /// Put in before: the similarity that is wanted of each probe.
    pub wanted: [f32; N],
    /// For each row the sum of its coarse products with each probe.
    pub sums: [[i32; N]; BLOCK_ROWS],
    /// For each row by how much its loose bound is above what is wanted.
    pub by: [[f32; N]; BLOCK_ROWS],
}

impl<const N: usize> Default for Excess<N> {
    fn default() -> Self {
        Self { wanted: [0.0; N], sums: [[0; N]; BLOCK_ROWS], by: [[0.0; N]; BLOCK_ROWS] }
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
    /// `t / 2` and `15·Σp`: doubled, so that both sums are whole numbers.
    half_step: f32,
    fifteen_sums: i32,
    /// `‖q − q̂‖`, and what rounding adds.
    off: f32,
}

impl Terms {
    /// `t·(⟨h, p⟩ − 7.5·Σp)` of the sum of products `⟨h, p⟩`.
    #[inline(always)]
    fn product(&self, sum: i32) -> f32 {
        (2 * sum - self.fifteen_sums) as f32 * self.half_step
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
        let mut bytes = vec![[[0; BLOCK]; N]; dimension.div_ceil(BLOCK)];
        let terms = std::array::from_fn(|n| {
            let step = largest(vectors[n]) / BYTE_MAX;
            let inverse = inverse(step);
            let mut rest = vectors[n].to_vec();
            let mut sum = 0;
            for (i, value) in rest.iter_mut().enumerate() {
                let byte = rounded(*value * inverse).clamp(-BYTE_MAX, BYTE_MAX);
                *value -= byte * step;
                bytes[i / BLOCK][n][i % BLOCK] = byte as i8;
                sum += byte as i32;
            }
            Terms { half_step: step / 2.0, fifteen_sums: 15 * sum, off: norm_above(&rest) + rounding(dimension) }
        });
        Self { bytes, terms }
    }
}

/// The step of the coarse halves with the least error among three: the best for normal numbers, the
/// one that reaches the largest number, and the one between. With the first one less than 1.02 is
/// left of any unit vector.
fn coarse_step(vector: &[f32]) -> f32 {
    let deviation = (vector.iter().map(|value| value * value).sum::<f32>() / vector.len().max(1) as f32).sqrt();
    let (normal, reaching) = (deviation * NORMAL_STEP, largest(vector) / MIDDLE);
    let error = |step: f32| {
        let inverse = inverse(step);
        vector.iter().map(|value| (value - (half(*value, inverse) - MIDDLE) * step).powi(2)).sum::<f32>()
    };
    let steps = [normal, (normal * reaching).sqrt(), reaching].map(|step| (error(step), step));
    steps.into_iter().min_by(|a, b| a.0.total_cmp(&b.0)).map_or(reaching, |(_, step)| step)
}

/// What to multiply with instead of dividing by a step; 0 for a step so small that it is as good as none.
fn inverse(step: f32) -> f32 {
    if step > f32::MIN_POSITIVE { 1.0 / step } else { 0.0 }
}

/// The half-byte that stands for `value`.
#[inline(always)]
fn half(value: f32, inverse: f32) -> f32 {
    rounded(value * inverse + MIDDLE).clamp(0.0, HALF_MAX)
}

/// The closest whole number of one below 2²²: what is behind the point has no room beside 1.5·2²³.
#[inline(always)]
fn rounded(value: f32) -> f32 {
    const ROUNDER: f32 = 12_582_912.0;
    value + ROUNDER - ROUNDER
}

/// Gives each number its half-byte, and leaves what that does not tell.
fn quantise(numbers: &mut [f32], step: f32, halves: &mut [u8]) {
    let inverse = inverse(step);
    for (number, half_byte) in numbers.iter_mut().zip(halves) {
        let half = half(*number, inverse);
        *half_byte = half as u8;
        *number -= (half - MIDDLE) * step;
    }
}

fn largest(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0_f32, |largest, number| largest.max(number.abs()))
}

/// A number that the norm of what is left of a unit vector does not exceed, although each of the at
/// most two planes so far took two roundings, of numbers that together have a norm below 2.1.
fn norm_above(rest: &[f32]) -> f32 {
    let square = rest.iter().map(|number| f64::from(*number) * f64::from(*number)).sum::<f64>();
    (square.sqrt() + 8.0 * f64::from(f32::EPSILON)) as f32 * (1.0 + f32::EPSILON) + f32::MIN_POSITIVE
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
            with(&mut |i, _| if i % 2 == 0 { 1.0 } else { 14.5 / 15.0 }),
        ]
    }

    #[test]
    fn no_similarity_exceeds_its_bounds() {
        for seed in [1, 2, 3] {
            println!("seed {seed}");
            let mut rng = Rng::with_seed(seed);
            for dimension in [1, 2, 16, 31, 64, 65, 128, 512, 4_096] {
                let rows: Vec<Vec<f32>> = (0..5).flat_map(|_| vectors(&mut rng, dimension)).collect();
                let mut codes = Codes::with_room_for(rows.len(), dimension);
                rows.iter().for_each(|row| codes.push(row));
                for probe in vectors(&mut rng, dimension).into_iter().chain(rows.iter().cloned()) {
                    let probes = Probes::of([&probe[..]]);
                    let mut found = Excess::default();
                    codes.scan(&probes, 0..rows.len(), &mut found);
                    for (row, vector) in rows.iter().enumerate() {
                        let similarity = dot(vector, &probe);
                        let (loose, close) = (found.by[row][0], codes.close_bound(&probes, row, found.sums[row][0]));
                        assert!(similarity <= loose, "dimension {dimension}: {similarity} above {loose}");
                        assert!(similarity <= close, "dimension {dimension}: {similarity} above {close}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_bounds_of_an_ordinary_vector_tell_something() {
        println!("seed 5");
        let mut rng = Rng::with_seed(5);
        let mut vector = || unit(&(0..512).map(|_| (0..12).map(|_| rng.f32()).sum::<f32>() - 6.0).collect::<Vec<_>>());
        for _ in 0..50 {
            let (row, probe) = (vector(), vector());
            let mut codes = Codes::with_room_for(1, 512);
            codes.push(&row);
            let mut found = Excess::default();
            let probes = Probes::of([&probe[..]]);
            codes.scan(&probes, 0..1, &mut found);
            let similarity = dot(&row, &probe);
            let (loose, close) = (found.by[0][0] - similarity, codes.close_bound(&probes, 0, found.sums[0][0]) - similarity);
            assert!(loose < 0.17 && close < 0.1, "{loose}, {close}");
        }
    }
}
