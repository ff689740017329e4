//! Learns from labelled photos what the models that are bought in were not taught.
//!
//! In: vectors and whose they are. Out: how to split them by person, and what may be wrong with them.
//! The rooms below fit a weighing of features (`logistic`) and a projection of vectors (`triplet`).
//! Must not know: files, galleries, models, where the vectors come from.

use std::collections::BTreeMap;

pub mod logistic;
pub mod triplet;

/// Why nothing was learnt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrainError {
    /// There are not enough people to tell apart.
    #[error("photos of {found} people are too few to tell people apart: give photos of {needed} or more")]
    TooFewPeople {
        /// How many there are.
        found: usize,
        /// How many it takes.
        needed: usize,
    },
    /// Nobody has photos enough to be recognised by.
    #[error("no person has {needed} photos: give {needed} or more photos of a person, best of everyone")]
    TooFewPhotos {
        /// How many photos one person must have.
        needed: usize,
    },
    /// Nothing can be told apart, since all labels are the same.
    #[error("all labels are the same or there are none: give examples of both classes")]
    OneClass,
    /// There is not one label for each vector.
    #[error("{vectors} vectors have {labels} labels: give one label for each vector")]
    Unlabelled {
        /// How many vectors there are.
        vectors: usize,
        /// How many labels there are.
        labels: usize,
    },
    /// A vector is of another length than the first, is empty, or has values that are not finite.
    #[error("vector {index} cannot be used: give vectors of the same length, {dimension}, with finite values only, at least one")]
    BadVector {
        /// Which one.
        index: usize,
        /// The length of the first vector.
        dimension: usize,
    },
    /// The minimum of the loss was not reached.
    #[error("the fit did not converge within {iterations} iterations: give a larger l2, or more iterations")]
    NotConverged {
        /// How many were allowed.
        iterations: usize,
    },
}

/// Vectors and whose they are.
#[derive(Clone, Copy, Debug)]
pub struct Labelled<'a> {
    /// One unit vector for each photo, all of the same length.
    pub vectors: &'a [Vec<f32>],
    /// `vectors[i]` is of person `people[i]`; any numbers will do.
    pub people: &'a [usize],
}

/// Splits photos into those to train with and those to validate with, such that no person is in both:
/// answers the indices of each, in order.
///
/// `people[i]` is whose photo `i` is. `validation_share`, 0 to 1, is of the people, not of the photos.
/// The same `seed` answers the same split.
pub fn split_people(people: &[usize], validation_share: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut persons = photos_by_person(people);
    fastrand::Rng::with_seed(seed).shuffle(&mut persons);
    let held_out = (validation_share.clamp(0.0, 1.0) * persons.len() as f64).round() as usize;
    let mut validation: Vec<usize> = persons.drain(..held_out).flatten().collect();
    let mut training: Vec<usize> = persons.into_iter().flatten().collect();
    training.sort_unstable();
    validation.sort_unstable();
    (training, validation)
}

/// The indices of each person's photos, in the order of the people's numbers.
fn photos_by_person(people: &[usize]) -> Vec<Vec<usize>> {
    let mut photos: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (photo, &person) in people.iter().enumerate() {
        photos.entry(person).or_default().push(photo);
    }
    photos.into_values().collect()
}

/// The length of all `vectors`, which have `labels` labels; 0 if there are none.
fn dimension_of(vectors: &[Vec<f32>], labels: usize) -> Result<usize, TrainError> {
    let dimension = vectors.first().map_or(0, Vec::len);
    if vectors.len() != labels {
        return Err(TrainError::Unlabelled { vectors: vectors.len(), labels });
    }
    let is_bad = |vector: &Vec<f32>| vector.is_empty() || vector.len() != dimension || vector.iter().any(|value| !value.is_finite());
    vectors.iter().position(is_bad).map_or(Ok(dimension), |index| Err(TrainError::BadVector { index, dimension }))
}

/// The inner product of two vectors of the same length.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    // A single sum would have to be added up in order, one value at a time; eight sums are added side by side.
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f64>()
}

/// Adds `scale` times `from` to `to`, which is of the same length.
fn add_scaled(to: &mut [f64], scale: f64, from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += scale * from);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_keeps_every_photo_and_parts_no_person() {
        let people: Vec<usize> = (0..300).map(|photo| 7 * (photo * photo % 101)).collect();
        let (training, validation) = split_people(&people, 0.2, 1);
        let mut all = [training.clone(), validation.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..300).collect::<Vec<_>>());
        assert!(training.iter().all(|&a| validation.iter().all(|&b| people[a] != people[b])));
        let held_out = photos_by_person(&validation.iter().map(|&photo| people[photo]).collect::<Vec<_>>()).len();
        assert_eq!(held_out, (0.2 * photos_by_person(&people).len() as f64).round() as usize);
    }

    #[test]
    fn a_split_is_decided_by_its_seed() {
        let people: Vec<usize> = (0..100).map(|photo| photo / 2).collect();
        assert_eq!(split_people(&people, 0.3, 5), split_people(&people, 0.3, 5));
        assert_ne!(split_people(&people, 0.3, 5), split_people(&people, 0.3, 6));
    }

    #[test]
    fn a_split_of_nothing_or_of_no_share_holds_nobody_out() {
        assert_eq!(split_people(&[], 0.5, 1), (vec![], vec![]));
        assert_eq!(split_people(&[4, 4, 9], 0.0, 1), (vec![0, 1, 2], vec![]));
        assert_eq!(split_people(&[4, 4, 9], 7.0, 1), (vec![], vec![0, 1, 2]));
    }

    #[test]
    fn vectors_that_cannot_be_used_are_named() {
        let bad = |index| Err(TrainError::BadVector { index, dimension: 2 });
        assert_eq!(dimension_of(&[vec![1.0, 0.0], vec![0.0, 1.0]], 2), Ok(2));
        assert_eq!(dimension_of(&[vec![1.0, 0.0], vec![1.0]], 2), bad(1));
        assert_eq!(dimension_of(&[vec![1.0, f32::NAN]], 1), bad(0));
        assert_eq!(dimension_of(&[vec![]], 1), Err(TrainError::BadVector { index: 0, dimension: 0 }));
        assert_eq!(dimension_of(&[vec![1.0]], 3), Err(TrainError::Unlabelled { vectors: 1, labels: 3 }));
    }

    #[test]
    fn an_inner_product_counts_every_value_at_any_length() {
        for length in 0..40_u32 {
            let values: Vec<f64> = (1..=length).map(f64::from).collect();
            assert_eq!(dot(&values, &values), f64::from(length * (length + 1) * (2 * length + 1) / 6));
        }
    }
}
