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

use super::products::{self, BLOCK, BYTE_MAX, Bytes, CODE_MAX, pack, products};
use crate::simd::widest_vectors;

/// The code of zero; as many codes stand for numbers below as above.
const MIDDLE: f32 = (CODE_MAX / 2) as f32;
/// Templates are unit vectors within 0.001 ([`Template`](crate::face::Template)).
const NORM_MAX: f32 = 1.001;
/// Rows whose bounds are computed together: their codes fit in the nearest cache.
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

/// The rows of a segment as codes.
pub(super) struct Codes {
    /// Blocks of a row.
    blocks: usize,
    packed: Vec<products::Codes>,
    /// For each row its step s and how far it is off, rounded up.
    steps: Vec<(f32, f32)>,
}

impl Codes {
    /// No rows yet, with room for `rows`.
    pub fn with_room_for(rows: usize, dimension: usize) -> Self {
        let blocks = dimension.div_ceil(BLOCK);
        Self { blocks, packed: Vec::with_capacity(rows * blocks), steps: Vec::with_capacity(rows) }
    }

    /// Adds a unit vector.
    pub fn push(&mut self, vector: &[f32]) {
        let (step, inverse) = step(vector, MIDDLE);
        let mut square = 0.0;
        let mut codes = [0; BLOCK];
        for block in vector.chunks(BLOCK) {
            for (value, code) in block.iter().zip(&mut codes) {
                let whole = rounded(*value * inverse).clamp(-MIDDLE, MIDDLE);
                *code = (whole + MIDDLE) as u8;
                square += f64::from(*value - whole * step).powi(2);
            }
            self.packed.push(pack(&codes[..block.len()]));
        }
        self.steps.push((step, norm_above(square)));
    }

    /// Adds `rows` of other codes as they are.
    pub fn extend(&mut self, from: &Self, rows: Range<usize>) {
        self.packed.extend_from_slice(&from.packed[rows.start * self.blocks..rows.end * self.blocks]);
        self.steps.extend_from_slice(&from.steps[rows]);
    }

    /// Compares `rows`, at most [`BLOCK_ROWS`], with what is wanted of each probe.
    pub fn scan<const N: usize>(&self, probes: &Probes<N>, rows: Range<usize>, found: &mut Excess<N>) {
        let (sums, by) = (&mut found.sums[..rows.len()], &mut found.by[..rows.len()]);
        products(&self.packed[rows.start * self.blocks..rows.end * self.blocks], &probes.bytes, sums);
        exceed(&self.steps[rows], sums, (&probes.terms, &found.wanted), by);
    }
}

widest_vectors! {
    /// By how much each row's bound is above what is wanted of each probe.
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
    sums: [[i32; N]; BLOCK_ROWS],
    /// For each row by how much its bound is above what is wanted.
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
        let mut bytes = vec![[[0; BLOCK]; N]; dimension.div_ceil(BLOCK)];
        let terms = std::array::from_fn(|n| {
            let byte_max = f32::from(BYTE_MAX);
            let (step, inverse) = step(vectors[n], byte_max);
            let (mut sum, mut square) = (0, 0.0);
            for (i, value) in vectors[n].iter().enumerate() {
                let byte = rounded(*value * inverse).clamp(-byte_max, byte_max);
                bytes[i / BLOCK][n][i % BLOCK] = byte as i8;
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
                    let mut found = Excess::default();
                    codes.scan(&probes, 0..rows.len(), &mut found);
                    for (row, vector) in rows.iter().enumerate() {
                        let similarity = dot(vector, &probe);
                        let bound = found.by[row][0];
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
            let mut found = Excess::default();
            let probes = Probes::of([&probe[..]]);
            codes.scan(&probes, 0..1, &mut found);
            let similarity = dot(&row, &probe);
            let above = found.by[0][0] - similarity;
            assert!(above < 0.08, "{above}");
        }
    }
}
