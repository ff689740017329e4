//! Projections learnt from planted people.
//!
//! In: made-up vectors of people whose identity lies in known coordinates. Out: nothing.
//! Must not know: photos.

use super::*;

const SETTINGS: TripletSettings = TripletSettings {
    dimension: 24,
    margin: 0.2,
    mining: Mining::SemiHard,
    epochs_max: 25,
    patience: 10,
    people_per_batch: 32,
    photos_per_person_max: 4,
    learning_rate: 1e-2,
    seed: 1,
};

/// About normal: the sum of twelve uniform values (Irwin and Hall), of mean 0 and variance 1.
fn normal(random: &mut fastrand::Rng) -> f32 {
    (0..12).map(|_| random.f32()).sum::<f32>() - 6.0
}

fn unit(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    vector.iter().map(|value| value / length).collect()
}

/// Vectors of 24 values, three of each person: the first 8 values are the person's, but for a little
/// noise; the others are noise of the size `noise`.
fn planted(people: usize, (noise, seed): (f32, u64)) -> (Vec<Vec<f32>>, Vec<usize>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut vectors, mut whose) = (Vec::new(), Vec::new());
    for person in 0..people {
        let own: Vec<f32> = (0..8).map(|_| normal(&mut random)).collect();
        for _ in 0..3 {
            let seen = own.iter().map(|value| value + 0.2 * normal(&mut random)).collect::<Vec<_>>();
            let rest: Vec<f32> = (0..16).map(|_| noise * normal(&mut random)).collect();
            vectors.push(unit(&[seen, rest].concat()));
            whose.push(person);
        }
    }
    (vectors, whose)
}

fn labelled((vectors, people): &(Vec<Vec<f32>>, Vec<usize>)) -> Labelled<'_> {
    Labelled { vectors, people }
}

fn trained(noise: f32, settings: &TripletSettings) -> Trained {
    let (training, validation) = (planted(80, (noise, 2)), planted(40, (noise, 3)));
    fit((&labelled(&training), &labelled(&validation)), settings, &mut |_| {}).unwrap()
}

/// Weights that are neither orthogonal nor near the identity.
fn uneven_weights(dimension: usize) -> Weights {
    let mut random = fastrand::Rng::with_seed(9);
    Weights { input_dimension: 24, values: (0..dimension * 24).map(|_| random.f64() - 0.4).collect() }
}

fn one_batch(photos: &Photos) -> Batch<'_> {
    photos.batch(&(0..photos.by_person.len()).collect::<Vec<_>>(), 4, &mut fastrand::Rng::with_seed(4))
}

#[test]
fn the_gradient_is_that_of_the_loss() {
    let source = planted(6, (1.0, 5));
    let photos = Photos::new(&labelled(&source)).unwrap();
    let (batch, mut weights) = (one_batch(&photos), uneven_weights(5));
    let (embedded, triplets) = batch.mine(&weights, &TripletSettings { margin: 0.6, ..SETTINGS });
    let margin = 0.2;
    let active = triplets.iter().filter(|triplet| triplet.loss(&embedded, margin) > 0.0).count();
    assert!(active > 5 && active < triplets.len(), "{active} of {}", triplets.len());
    let gradient = batch.gradient(&weights, (&embedded, &triplets), margin);
    // The loss as the paper writes it.
    let loss = |weights: &Weights| {
        let units: Vec<_> = batch.inputs.iter().map(|input| Embedded::new(weights, input).unit).collect();
        let distance = |a: usize, b: usize| units[a].iter().zip(&units[b]).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        let of = |t: &Triplet| (distance(t.anchor, t.positive) - distance(t.anchor, t.negative) + margin).max(0.0);
        triplets.iter().map(of).sum::<f64>() / triplets.len() as f64
    };
    for (i, slope) in gradient.into_iter().enumerate() {
        let value = weights.values[i];
        weights.values[i] = value + 1e-6;
        let after = loss(&weights);
        weights.values[i] = value - 1e-6;
        let difference = (after - loss(&weights)) / 2e-6;
        weights.values[i] = value;
        assert!((slope - difference).abs() < 1e-8, "{i}: {slope} {difference}");
    }
}

/// The squared distances between all photos of a batch, by their definition.
fn distances(batch: &Batch<'_>, weights: &Weights) -> Vec<Vec<f64>> {
    let project = |input: &&[f64]| -> Vec<f64> {
        let y: Vec<f64> = weights.rows().map(|row| row.iter().zip(*input).map(|(a, b)| a * b).sum()).collect();
        let length = y.iter().map(|y| y * y).sum::<f64>().sqrt();
        y.into_iter().map(|y| y / length).collect()
    };
    let z: Vec<_> = batch.inputs.iter().map(project).collect();
    z.iter().map(|a| z.iter().map(|b| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()).collect()).collect()
}

/// A batch of people with three photos and of some with one only, and what is mined from it.
fn check_mining(mining: Mining, expected: impl Fn(&[Vec<f64>], &[usize]) -> Vec<Triplet>) {
    let mut source = planted(12, (0.7, 6));
    source.0.truncate(32);
    source.1.truncate(32);
    source.1[31] = 77;
    source.1[30] = 78;
    let photos = Photos::new(&labelled(&source)).unwrap();
    let (batch, weights) = (one_batch(&photos), uneven_weights(10));
    let mined = batch.mine(&weights, &TripletSettings { mining, ..SETTINGS }).1;
    assert_eq!(mined, expected(&distances(&batch, &weights), &batch.people));
}

#[test]
fn hard_mining_takes_the_farthest_positive_and_the_closest_negative() {
    check_mining(Mining::Hard, |distance, people| {
        let mut triplets = Vec::new();
        for anchor in 0..people.len() {
            let (mut positive, mut negative) = (None, None);
            for other in (0..people.len()).filter(|&other| other != anchor) {
                if people[other] == people[anchor] {
                    if positive.is_none_or(|p: usize| distance[anchor][other] > distance[anchor][p]) {
                        positive = Some(other);
                    }
                } else if negative.is_none_or(|n: usize| distance[anchor][other] < distance[anchor][n]) {
                    negative = Some(other);
                }
            }
            triplets.extend(positive.map(|positive| Triplet { anchor, positive, negative: negative.unwrap() }));
        }
        assert_eq!(triplets.len(), 30, "people with one photo are no anchors");
        triplets
    });
}

#[test]
fn semi_hard_mining_takes_the_closest_negative_beyond_the_positive_or_else_the_closest() {
    check_mining(Mining::SemiHard, |distance, people| {
        let (mut triplets, mut without) = (Vec::new(), 0);
        for anchor in 0..people.len() {
            for positive in (0..people.len()).filter(|&other| other != anchor && people[other] == people[anchor]) {
                let mut negatives: Vec<usize> = (0..people.len()).filter(|&other| people[other] != people[anchor]).collect();
                negatives.sort_by(|a, b| distance[anchor][*a].total_cmp(&distance[anchor][*b]));
                let limit = distance[anchor][positive];
                let semi_hard = negatives.iter().find(|&&n| distance[anchor][n] > limit && distance[anchor][n] < limit + 0.2);
                without += usize::from(semi_hard.is_none());
                triplets.push(Triplet { anchor, positive, negative: *semi_hard.unwrap_or(&negatives[0]) });
            }
        }
        assert!(without > 0 && without < triplets.len(), "{without} of {}", triplets.len());
        triplets
    });
}

#[test]
fn an_epoch_shows_every_person_and_no_more_photos_than_asked_for() {
    let source = planted(33, (1.0, 7));
    let photos = Photos::new(&labelled(&source)).unwrap();
    let settings = TripletSettings { people_per_batch: 32, photos_per_person_max: 2, ..SETTINGS };
    let batches = photos.batches(&settings, &mut fastrand::Rng::with_seed(1));
    assert_eq!(batches.iter().map(|batch| batch.people.len()).collect::<Vec<_>>(), [34, 32]);
    let mut people: Vec<usize> = batches.iter().flat_map(|batch| batch.people.clone()).collect();
    people.sort_unstable();
    assert_eq!(people, (0..66).map(|photo| photo / 2).collect::<Vec<_>>());
}

#[test]
fn the_values_that_carry_identity_are_found_among_noise() {
    for mining in [Mining::SemiHard, Mining::Hard] {
        let trained = trained(1.5, &TripletSettings { mining, ..SETTINGS });
        let (start, best) = (trained.epochs[0], trained.epochs[trained.best]);
        assert!(best.separation > 1.6 * start.separation, "{mining:?}: {start:?} {best:?}");
        assert!(best.validation_loss < 0.6 * start.validation_loss, "{mining:?}: {start:?} {best:?}");
        let size = |columns: std::ops::Range<usize>| {
            let rows = trained.projection.values.chunks_exact(24);
            (rows.flat_map(|row| row[columns.clone()].iter()).map(|w| w * w).sum::<f32>() / columns.len() as f32).sqrt()
        };
        assert!(size(0..8) > 2.0 * size(8..24), "{mining:?}: {} {}", size(0..8), size(8..24));
    }
}

#[test]
fn the_best_epoch_is_answered_and_training_stops_when_patience_ends() {
    let mut told = Vec::new();
    let (training, validation) = (planted(30, (1.5, 2)), planted(20, (1.5, 3)));
    let settings = TripletSettings { patience: 4, epochs_max: 1000, ..SETTINGS };
    let trained = fit((&labelled(&training), &labelled(&validation)), &settings, &mut |epoch| told.push(*epoch)).unwrap();
    assert_eq!(told, trained.epochs);
    assert_eq!(trained.epochs.len(), trained.best + 5);
    assert!(trained.best > 0);
    let best = trained.epochs[trained.best].separation;
    assert!(trained.epochs.iter().all(|epoch| epoch.separation <= best + GAIN_MIN));
    // What is answered is the best epoch's, not the last one's.
    let values = trained.projection.values.iter().map(|&value| f64::from(value)).collect();
    let answered = separation(&Weights { input_dimension: 24, values }, &Photos::new(&labelled(&validation)).unwrap());
    assert!((answered - best).abs() < 1e-4, "{answered} {best}");
}

#[test]
fn people_who_are_told_apart_perfectly_are_left_as_they_are() {
    let perfect: Vec<Vec<f32>> = (0..48).map(|photo| (0..24).map(|i| if i == photo / 2 { 1.0 } else { 0.0 }).collect()).collect();
    let people: Vec<usize> = (0..48).map(|photo| photo / 2).collect();
    let photos = Labelled { vectors: &perfect, people: &people };
    let trained = fit((&photos, &photos), &SETTINGS, &mut |_| {}).unwrap();
    assert_eq!((trained.best, trained.epochs.len()), (0, 11));
    assert_eq!((trained.epochs[10].loss, trained.epochs[10].active_share), (0.0, 0.0));
    assert_eq!(trained.projection.apply(&perfect[4]), perfect[4]);
}

#[test]
fn a_harmful_training_answers_the_start() {
    // What is the same in the photos of the validation people is noise in those of the training people.
    let (mut training, validation) = (planted(60, (1.0, 2)), planted(60, (0.3, 3)));
    training.0.iter_mut().for_each(|vector| vector.rotate_left(8));
    let settings = TripletSettings { patience: 3, ..SETTINGS };
    let trained = fit((&labelled(&training), &labelled(&validation)), &settings, &mut |_| {}).unwrap();
    assert_eq!((trained.best, trained.epochs.len()), (0, 4), "{:?}", trained.epochs);
    let validation = Photos::new(&labelled(&validation)).unwrap();
    assert_eq!(trained.epochs[0].separation, separation(&start::weights(&validation, 24), &validation));
    let identity: Vec<f32> = (0..24 * 24).map(|i| if i % 25 == 0 { 1.0 } else { 0.0 }).collect();
    assert_eq!(trained.projection, Projection { dimension: 24, input_dimension: 24, values: identity });
}

#[test]
fn the_separation_is_the_difference_of_means_over_the_deviation() {
    // Cosines: mated 1 and 0.6, non-mated 0, 0, 0.8 and 0 (of the pairs in order).
    let vectors = [vec![1.0, 0.0, 0.0], vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![0.0, 0.6, 0.8]];
    let photos = Photos::new(&Labelled { vectors: &vectors, people: &[5, 5, 3, 3] }).unwrap();
    // Means 0.8 and 0; variances 0.04 and 0.
    let found = separation(&start::weights(&photos, 3), &photos);
    assert!((found - 0.8 / 0.02_f64.sqrt()).abs() < 1e-6, "{found}");
}

#[test]
fn fewer_dimensions_begin_at_the_principal_directions() {
    // Most of the vectors' size is in three oblique directions.
    let mut random = fastrand::Rng::with_seed(8);
    let directions: Vec<Vec<f32>> = (0..3).map(|_| (0..24).map(|_| normal(&mut random)).collect()).collect();
    let mut draw = |_| {
        let mut vector: Vec<f32> = (0..24).map(|_| 0.5 * normal(&mut random)).collect();
        for direction in &directions {
            let size = normal(&mut random);
            vector.iter_mut().zip(direction).for_each(|(value, direction)| *value += size * direction);
        }
        unit(&vector)
    };
    let vectors: Vec<_> = (0..100).map(&mut draw).collect();
    let photos = Photos::new(&Labelled { vectors: &vectors, people: &(0..100).map(|i| i / 2).collect::<Vec<_>>() }).unwrap();
    let start = start::weights(&photos, 3);
    for (i, row) in start.rows().enumerate() {
        for (j, other) in start.rows().enumerate() {
            assert!((dot(row, other) - f64::from(u8::from(i == j))).abs() < 1e-12);
        }
    }
    let kept = photos.vectors.iter().map(|vector| start.rows().map(|row| dot(row, vector).powi(2)).sum::<f64>()).sum::<f64>() / 100.0;
    assert!(kept > 0.85, "{kept}");
    // What the second moments make of a principal direction has no part outside of the principal directions.
    for row in start.rows() {
        let mut outside = vec![0.0; 24];
        photos.vectors.iter().for_each(|vector| add_scaled(&mut outside, dot(row, vector) / 100.0, vector));
        for row in start.rows() {
            let along = dot(row, &outside);
            add_scaled(&mut outside, -along, row);
        }
        assert!(dot(&outside, &outside).sqrt() < 1e-9, "{outside:?}");
    }
}

#[test]
fn more_rows_than_vectors_are_still_orthonormal() {
    let axis = |axis: usize| (0..24).map(|i| if i == axis { 1.0 } else { 0.0 }).collect();
    let photos = Photos::new(&Labelled { vectors: &[axis(3), axis(3), axis(8), axis(20)], people: &[0, 0, 0, 1] }).unwrap();
    let start = start::weights(&photos, 16);
    for (i, row) in start.rows().enumerate() {
        assert!(start.rows().enumerate().all(|(j, other)| (dot(row, other) - f64::from(u8::from(i == j))).abs() < 1e-12));
    }
    assert!(photos.vectors.iter().all(|vector| start.rows().map(|row| dot(row, vector).powi(2)).sum::<f64>() > 0.999_999));
}

#[test]
fn a_projection_onto_fewer_dimensions_is_learnt() {
    let trained = trained(1.5, &TripletSettings { dimension: 8, ..SETTINGS });
    assert_eq!((trained.projection.dimension, trained.projection.values.len()), (8, 8 * 24));
    assert_eq!(trained.projection.apply(&[0.5; 24]).len(), 8);
    assert!(trained.epochs[trained.best].separation > 1.6 * trained.epochs[0].separation, "{:?}", trained.epochs[trained.best]);
}

#[test]
fn more_dimensions_than_the_vectors_have_are_not_made_up() {
    assert_eq!(trained(1.5, &TripletSettings { dimension: 500, epochs_max: 1, ..SETTINGS }).projection.dimension, 24);
}

#[test]
fn a_projection_multiplies_by_its_rows() {
    let projection = Projection { dimension: 2, input_dimension: 3, values: vec![1.0, 2.0, 3.0, 0.0, -1.0, 0.5] };
    assert_eq!(projection.apply(&[1.0, 10.0, 100.0]), [321.0, 40.0]);
}

#[test]
fn the_same_seed_gives_the_same_projection_and_another_one_another() {
    let settings = TripletSettings { epochs_max: 3, ..SETTINGS };
    assert_eq!(trained(1.5, &settings), trained(1.5, &settings));
    assert_ne!(trained(1.5, &settings).projection, trained(1.5, &TripletSettings { seed: 2, ..settings }).projection);
}

#[test]
fn photos_that_cannot_be_learnt_from_are_refused() {
    let good = planted(3, (1.0, 1));
    let refused = |vectors: &[Vec<f32>], people: &[usize]| {
        let bad = Labelled { vectors, people };
        let as_training = fit((&bad, &labelled(&good)), &SETTINGS, &mut |_| {}).unwrap_err();
        assert_eq!(as_training, fit((&labelled(&good), &bad), &SETTINGS, &mut |_| {}).unwrap_err());
        as_training
    };
    let (vectors, mut broken) = (&good.0, good.0.clone());
    broken[4][2] = f32::INFINITY;
    assert_eq!(refused(&vectors[..2], &[1, 1]), TrainError::TooFewPeople { found: 1, needed: 2 });
    assert_eq!(refused(&[], &[]), TrainError::TooFewPeople { found: 0, needed: 2 });
    assert_eq!(refused(&vectors[..2], &[1, 2]), TrainError::TooFewPhotos { needed: 2 });
    assert_eq!(refused(&vectors[..3], &[1, 2]), TrainError::Unlabelled { vectors: 3, labels: 2 });
    assert_eq!(refused(&broken, &good.1), TrainError::BadVector { index: 4, dimension: 24 });
    let short = [vec![1.0], vec![1.0], vec![1.0]];
    let other = Labelled { vectors: &short, people: &[1, 1, 2] };
    let mixed = fit((&labelled(&good), &other), &SETTINGS, &mut |_| {}).unwrap_err();
    assert_eq!(mixed, TrainError::BadVector { index: 0, dimension: 24 });
}
