//! Vectors as bytes, a quarter of the memory: what a scan reads to leave out rows that cannot be
//! among the best, without ever leaving out one that is.
//!
//! In: unit vectors. Out: for a probe, a number that no row's similarity exceeds.
//! Drops nothing: whatever bytes cannot tell is in the bound.
//! Must not know: whose rows these are, which are wanted.
//!
//! A vector x is kept as `x̂ = s·c` with integers c from -127 to 127, and how far it is off,
//! `‖x − x̂‖`. The probe q is kept as `q̂ = t·p` with larger integers. Then, by Cauchy and Schwarz,
//!
//! ```text
//! ⟨x, q⟩ = ⟨x̂, q̂⟩ + ⟨x − x̂, q⟩ + ⟨x̂, q − q̂⟩
//!        ≤ s·t·⟨c, p⟩ + ‖x − x̂‖·‖q‖ + (‖x‖ + ‖x − x̂‖)·‖q − q̂‖
//! ```
//!
//! where `⟨c, p⟩` is exact. What the rounding of a similarity in f32 adds is bounded too
//! ([`rounding`]), so that the bound holds for the number that [`dot`](crate::face::dot) gives.

use crate::simd::widest_vectors;

/// The largest code. Symmetric, so that a code has a negative.
const CODE_MAX: f32 = 127.0;
/// The largest integer of a probe; with more than 1,032 numbers it is less, so that the sum of a
/// row fits in 32 bits.
const PROBE_MAX: f32 = 16_383.0;
/// Templates are unit vectors within 0.001 ([`Template`](crate::face::Template)).
const NORM_MAX: f32 = 1.001;
/// Rows whose bounds are computed together: their codes fit in the nearest cache.
pub(super) const BLOCK_ROWS: usize = 32;

/// What `dot` and the arithmetic of the bound may be off together, for unit vectors of `dimension`
/// numbers: sixteen lanes of `dimension / 16` products each, then four additions (Higham, Accuracy
/// and Stability of Numerical Algorithms, 2nd ed., section 3.1: `γ_n = n·u / (1 − n·u)`), and
/// another dozen operations on numbers of at most 2.
fn rounding(dimension: usize) -> f32 {
    const UNIT: f32 = f32::EPSILON / 2.0;
    let steps = (dimension.div_ceil(16) + 5 + 24) as f32;
    NORM_MAX * NORM_MAX * steps * UNIT / (1.0 - steps * UNIT)
}

/// The rows of a segment as bytes.
pub(super) struct Codes {
    dimension: usize,
    bytes: Vec<i8>,
    /// For each row its scale s and how far it is off, rounded up.
    scales: Vec<(f32, f32)>,
}

impl Codes {
    /// No rows yet, with room for `rows`.
    pub fn with_room_for(rows: usize, dimension: usize) -> Self {
        Self { dimension, bytes: Vec::with_capacity(rows * dimension), scales: Vec::with_capacity(rows) }
    }

    /// Adds a unit vector.
    pub fn push(&mut self, vector: &[f32]) {
        let (scale, off) = quantise(vector, CODE_MAX, |code| self.bytes.push(code as i8));
        self.scales.push((scale, off));
    }

    /// Adds a row of other codes as it is.
    pub fn push_from(&mut self, from: &Self, row: usize) {
        self.bytes.extend_from_slice(&from.bytes[row * from.dimension..(row + 1) * from.dimension]);
        self.scales.push(from.scales[row]);
    }

    /// Adds all rows of other codes.
    pub fn extend(&mut self, from: &Self) {
        self.bytes.extend_from_slice(&from.bytes);
        self.scales.extend_from_slice(&from.scales);
    }

    /// For each row from `first` on, at most [`BLOCK_ROWS`] and as many as `bounds` has, a number
    /// that its similarity to the probe does not exceed.
    pub fn bounds(&self, probe: &Probe, first: usize, bounds: &mut [f32]) {
        let rows = first..first + bounds.len();
        let bytes = &self.bytes[rows.start * self.dimension..rows.end * self.dimension];
        let mut products = [0; BLOCK_ROWS];
        let products = &mut products[..bounds.len()];
        multiply(bytes, &probe.integers, products);
        for ((bound, product), (scale, off)) in bounds.iter_mut().zip(products).zip(&self.scales[rows]) {
            *bound = *product as f32 * (scale * probe.scale) + off * probe.norm + (NORM_MAX + off) * probe.off + probe.rounding;
        }
    }
}

/// A probe as integers.
pub(super) struct Probe {
    integers: Vec<i16>,
    scale: f32,
    off: f32,
    norm: f32,
    rounding: f32,
}

impl Probe {
    /// The integers of a unit vector.
    pub fn new(vector: &[f32]) -> Self {
        let dimension = vector.len().max(1);
        // The sum of a row is at most 127 · max · dimension.
        let integer_max = PROBE_MAX.min((i32::MAX as f32 / (CODE_MAX * dimension as f32)).floor() - 1.0);
        let mut integers = Vec::with_capacity(vector.len());
        let (scale, off) = quantise(vector, integer_max, |integer| integers.push(integer as i16));
        Self { integers, scale, off, norm: NORM_MAX, rounding: rounding(vector.len()) }
    }
}

/// Gives the integer of each number, from `-max` to `max`, to `take`. Answers the scale and a number
/// that the distance between the vector and its integers, scaled, does not exceed.
fn quantise(vector: &[f32], max: f32, mut take: impl FnMut(f32)) -> (f32, f32) {
    let largest = vector.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    // A largest number so small that dividing by it overflows is as good as none.
    let scale = if largest > f32::MIN_POSITIVE * max { largest / max } else { 0.0 };
    let mut square = 0.0_f64;
    for value in vector {
        let integer = if scale > 0.0 { (value / scale).round().clamp(-max, max) } else { 0.0 };
        take(integer);
        square += (f64::from(*value) - f64::from(scale) * f64::from(integer)).powi(2);
    }
    // In f64 the sum is off by far less than this rounds up.
    (scale, (square.sqrt() * 1.000_001) as f32 * (1.0 + f32::EPSILON) + f32::MIN_POSITIVE)
}

widest_vectors! {
    /// The dot product of each row with the probe, exact.
    fn multiply(bytes: &[i8], probe: &[i16], products: &mut [i32]) {
        for (row, product) in bytes.chunks_exact(probe.len().max(1)).zip(products) {
            *product = row.iter().zip(probe).map(|(code, integer)| i32::from(*code) * i32::from(*integer)).sum();
        }
    }
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
            with(&mut |i, _| if i % 2 == 0 { 1.0 } else { 127.5 / 127.0 }),
        ]
    }

    #[test]
    fn no_similarity_exceeds_its_bound_and_bounds_are_close() {
        for seed in [1, 2, 3] {
            println!("seed {seed}");
            let mut rng = Rng::with_seed(seed);
            for dimension in [1, 2, 16, 31, 128, 512, 4_096] {
                let rows: Vec<Vec<f32>> = (0..5).flat_map(|_| vectors(&mut rng, dimension)).collect();
                let mut codes = Codes::with_room_for(rows.len(), dimension);
                rows.iter().for_each(|row| codes.push(row));
                for probe in vectors(&mut rng, dimension).into_iter().chain(rows.iter().cloned()) {
                    let mut bounds = vec![0.0; rows.len()];
                    codes.bounds(&Probe::new(&probe), 0, &mut bounds);
                    for (row, bound) in rows.iter().zip(bounds) {
                        let similarity = dot(row, &probe);
                        assert!(similarity <= bound, "dimension {dimension}: {similarity} above {bound}");
                        assert!(bound - similarity < 0.2, "dimension {dimension}: {bound} says nothing of {similarity}");
                    }
                }
            }
        }
    }
}
