//! Where the learning of a projection begins: as near to the identity as its dimensions allow.
//!
//! In: the vectors to train with. Out: the identity, or the directions in which the vectors are largest.
//! Must not know: whose the vectors are.

use super::{Photos, Weights, add_scaled, dot};

/// Each pass makes the wanted directions outgrow the others by the ratio of their eigenvalues. They need
/// not be exact, since they are only the start.
const PASSES: usize = 30;
/// What is added to every eigenvalue, as a share of their mean: it changes no direction, and keeps the
/// rows independent where there are fewer vectors than rows.
const SHIFT: f64 = 1e-6;

/// `dimension` orthonormal rows, at most as many as the vectors have values. The fewer are the principal
/// directions of the vectors about 0, not about their mean: of all projections those keep the vectors'
/// inner products best (Eckart & Young, 1936).
pub(super) fn weights(photos: &Photos, dimension: usize) -> Weights {
    let input_dimension = photos.dimension;
    if dimension == input_dimension {
        let values = (0..dimension * dimension).map(|i| if i % (dimension + 1) == 0 { 1.0 } else { 0.0 }).collect();
        return Weights { input_dimension, values };
    }
    let moments = second_moments(photos);
    // Directions that are drawn are orthogonal to none that is looked for.
    let mut random = fastrand::Rng::with_seed(0);
    let mut rows: Vec<f64> = (0..dimension * input_dimension).map(|_| random.f64() - 0.5).collect();
    orthonormalise(&mut rows, input_dimension);
    for _ in 0..PASSES {
        let grown = rows.chunks_exact(input_dimension).flat_map(|row| moments.chunks_exact(input_dimension).map(|moment| dot(moment, row)));
        rows = grown.collect();
        orthonormalise(&mut rows, input_dimension);
    }
    Weights { input_dimension, values: rows }
}

/// The mean of x xᵀ, and the shift on its diagonal.
fn second_moments(photos: &Photos) -> Vec<f64> {
    let size = photos.dimension;
    let mut moments = vec![0.0; size * size];
    for vector in &photos.vectors {
        for (row, value) in moments.chunks_exact_mut(size).zip(vector) {
            add_scaled(row, value / photos.vectors.len() as f64, vector);
        }
    }
    let trace: f64 = moments.iter().step_by(size + 1).sum();
    moments.iter_mut().step_by(size + 1).for_each(|moment| *moment += (SHIFT * trace / size as f64).max(f64::EPSILON));
    moments
}

/// Makes the rows orthogonal to each other and of length 1 (modified Gram-Schmidt). What rounding leaves
/// of nearly dependent rows in one pass is gone in the next.
fn orthonormalise(rows: &mut [f64], size: usize) {
    for i in 0..rows.len() / size {
        let (done, open) = rows.split_at_mut(i * size);
        let row = &mut open[..size];
        done.chunks_exact(size).for_each(|other| add_scaled(row, -dot(row, other), other));
        let length = dot(row, row).sqrt();
        row.iter_mut().for_each(|value| *value /= length);
    }
}
