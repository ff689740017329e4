//! Learns a linear projection of face vectors that brings the photos of a person together: triplet loss.
//!
//! In: unit vectors and whose they are, of some people to train with and of others to validate with.
//! Out: the projection that told the others apart best, and how the training went.
//! The loss is `FaceNet`'s (Schroff, Kalenichenko & Philbin, 2015, eq. 2 and 3) of z = Wx / |Wx|:
//! the mean over triplets of max(|za - zp|² - |za - zn|² + margin, 0), where anchor a and positive p are
//! photos of one person and negative n is of another. Of unit vectors |a - b|² = 2 - 2 a·b, so that it is
//! the mean of max(2 za·zn - 2 za·zp + margin, 0).
//! Must not know: files, galleries, models, where the vectors come from.

use super::{Labelled, TrainError, add_scaled, dimension_of, dot, photos_by_person};

mod start;
#[cfg(test)]
mod tests;

/// Which triplets of a batch are learnt from. People with one photo are negatives only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mining {
    /// For each anchor and each of its positives, the closest of the negatives that are farther than the
    /// positive by less than the margin (`FaceNet`, section 3.2); if there are none, the closest of all.
    SemiHard,
    /// For each anchor, its farthest positive and the closest negative ("batch hard" of Hermans, Beyer &
    /// Leibe, In Defense of the Triplet Loss for Person Re-Identification, 2017, eq. 5).
    Hard,
}

/// How a projection is learnt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TripletSettings {
    /// How many values a projected vector has; never more than the vectors have.
    pub dimension: usize,
    /// How much farther than the positive a negative should be, as a squared distance (0 to 4).
    pub margin: f64,
    /// Which triplets are learnt from.
    pub mining: Mining,
    /// More passes over the people than this are not made.
    pub epochs_max: usize,
    /// Training stops after so many epochs in a row that separate the validation people no better.
    pub patience: usize,
    /// About how many people are compared with each other; 2 at least.
    pub people_per_batch: usize,
    /// Of people with more photos so many are drawn anew in each epoch; 2 at least.
    pub photos_per_person_max: usize,
    /// The step size of Adam: about how much one value of W changes with each batch.
    pub learning_rate: f64,
    /// Decides the batches.
    pub seed: u64,
}

impl Default for TripletSettings {
    fn default() -> Self {
        Self {
            dimension: 128,
            margin: 0.2,
            mining: Mining::SemiHard,
            epochs_max: 200,
            patience: 20,
            people_per_batch: 64,
            photos_per_person_max: 4,
            learning_rate: 1e-3,
            seed: 0,
        }
    }
}

/// One pass over the people to train with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Counts from 1; epoch 0 is the start, at which nothing is learnt.
    pub number: usize,
    /// The mean loss of the triplets mined in training.
    pub loss: f64,
    /// The share of the triplets mined in training whose loss was above 0, from 0 to 1.
    pub active_share: f64,
    /// The mean loss of the triplets mined among the validation people, in the same batches every time.
    pub validation_loss: f64,
    /// How well the validation people are told apart at any threshold: the difference between the mean
    /// cosines of mated and of non-mated pairs, over the root of their mean variance (d' of Daugman,
    /// Biometric Decision Landscapes, 2000). The higher, the better.
    pub separation: f64,
}

/// A linear projection.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// How many values come out.
    pub dimension: usize,
    /// How many values go in.
    pub input_dimension: usize,
    /// The matrix, row after row (`dimension` × `input_dimension`).
    pub values: Vec<f32>,
}

impl Projection {
    /// Projects a `vector` of `input_dimension` values onto `dimension` values, which are not normalised.
    pub fn apply(&self, vector: &[f32]) -> Vec<f32> {
        let rows = self.values.chunks_exact(self.input_dimension);
        rows.map(|row| row.iter().zip(vector).map(|(&weight, &value)| f64::from(weight) * f64::from(value)).sum::<f64>() as f32).collect()
    }
}

/// What was learnt.
#[derive(Clone, Debug, PartialEq)]
pub struct Trained {
    /// The projection after the best epoch.
    pub projection: Projection,
    /// All epochs, the start first.
    pub epochs: Vec<Epoch>,
    /// The number of the epoch with the best separation, to within 0.001 the first of them; 0 if nothing
    /// was gained.
    pub best: usize,
}

/// By how much the separation must rise for an epoch to be better than the best one: once no triplet is
/// active, ever smaller gains of the last steps' momentum would keep the training going.
const GAIN_MIN: f64 = 1e-3;

/// Learns a projection from the people of `training`; the people of `validation` should be others (see
/// [`super::split_people`]). `progress` is told of each epoch, the start included.
///
/// Training begins at the identity, or at the projection onto the principal directions of the vectors if
/// that has fewer dimensions. It never answers what separates the validation people worse than that.
///
/// # Errors
/// If the vectors are of different lengths or not finite, not each has a person, or there are fewer than
/// two people or nobody with two photos, in `training` or in `validation`.
pub fn fit(
    (training, validation): (&Labelled<'_>, &Labelled<'_>),
    settings: &TripletSettings,
    progress: &mut dyn FnMut(&Epoch),
) -> Result<Trained, TrainError> {
    let (training, validation) = (Photos::new(training)?, Photos::new(validation)?);
    if training.dimension != validation.dimension {
        return Err(TrainError::BadVector { index: 0, dimension: training.dimension });
    }
    let mut weights = start::weights(&training, settings.dimension.clamp(1, training.dimension));
    let mut random = fastrand::Rng::with_seed(settings.seed);
    let held_out = validation.batches(settings, &mut random.fork());
    let mut adam = Adam::new(weights.values.len());
    let (mut epochs, mut best, mut best_weights) = (Vec::<Epoch>::new(), 0, weights.clone());
    for number in 0..=settings.epochs_max {
        let mut tally = Tally::default();
        for batch in training.batches(settings, &mut random) {
            let (embedded, triplets) = batch.mine(&weights, settings);
            tally.add(&embedded, &triplets, settings.margin);
            if number > 0 {
                let gradient = batch.gradient(&weights, (&embedded, &triplets), settings.margin);
                adam.step(&mut weights.values, &gradient, settings.learning_rate);
            }
        }
        let mut validated = Tally::default();
        for (embedded, triplets) in held_out.iter().map(|batch| batch.mine(&weights, settings)) {
            validated.add(&embedded, &triplets, settings.margin);
        }
        let (loss, active_share, validation_loss) = (tally.loss(), tally.active_share(), validated.loss());
        let epoch = Epoch { number, loss, active_share, validation_loss, separation: separation(&weights, &validation) };
        progress(&epoch);
        epochs.push(epoch);
        if epoch.separation > epochs[best].separation + GAIN_MIN {
            (best, best_weights) = (number, weights.clone());
        } else if number - best >= settings.patience {
            break;
        }
    }
    Ok(Trained { projection: best_weights.into_projection(), epochs, best })
}

/// The matrix W, row after row, in the precision that it is learnt in.
#[derive(Clone, Debug)]
struct Weights {
    input_dimension: usize,
    values: Vec<f64>,
}

impl Weights {
    fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.values.chunks_exact(self.input_dimension)
    }

    fn into_projection(self) -> Projection {
        let (dimension, values) = (self.rows().count(), self.values.iter().map(|&value| value as f32).collect());
        Projection { dimension, input_dimension: self.input_dimension, values }
    }
}

/// Vectors that can be learnt from, and the photos of each person.
struct Photos {
    dimension: usize,
    vectors: Vec<Vec<f64>>,
    by_person: Vec<Vec<usize>>,
}

impl Photos {
    fn new(labelled: &Labelled<'_>) -> Result<Self, TrainError> {
        let dimension = dimension_of(labelled.vectors, labelled.people.len())?;
        let by_person = photos_by_person(labelled.people);
        if by_person.len() < 2 {
            return Err(TrainError::TooFewPeople { found: by_person.len(), needed: 2 });
        }
        if by_person.iter().all(|photos| photos.len() < 2) {
            return Err(TrainError::TooFewPhotos { needed: 2 });
        }
        let vectors = labelled.vectors.iter().map(|vector| vector.iter().map(|&value| f64::from(value)).collect()).collect();
        Ok(Self { dimension, vectors, by_person })
    }

    /// Deals all people into batches of about the same size.
    fn batches(&self, settings: &TripletSettings, random: &mut fastrand::Rng) -> Vec<Batch<'_>> {
        let mut people: Vec<usize> = (0..self.by_person.len()).collect();
        random.shuffle(&mut people);
        let count = people.len().div_ceil(settings.people_per_batch.max(2));
        let dealt = people.chunks(people.len().div_ceil(count));
        dealt.map(|people| self.batch(people, settings.photos_per_person_max.max(2), random)).collect()
    }

    fn batch(&self, people: &[usize], photos_max: usize, random: &mut fastrand::Rng) -> Batch<'_> {
        let mut batch = Batch { inputs: Vec::new(), people: Vec::new() };
        for &person in people {
            let photos = random.choose_multiple(self.by_person[person].iter(), photos_max);
            batch.people.extend(photos.iter().map(|_| person));
            batch.inputs.extend(photos.into_iter().map(|&photo| self.vectors[photo].as_slice()));
        }
        batch
    }
}

/// Photos that are compared with each other: vector `i` is of person `people[i]`.
struct Batch<'a> {
    inputs: Vec<&'a [f64]>,
    people: Vec<usize>,
}

/// A projected vector: its direction, and 1 / |Wx|, or 0 where Wx is 0.
struct Embedded {
    unit: Vec<f64>,
    shrink: f64,
}

impl Embedded {
    fn new(weights: &Weights, input: &[f64]) -> Self {
        let mut unit: Vec<f64> = weights.rows().map(|row| dot(row, input)).collect();
        let length = dot(&unit, &unit).sqrt();
        let shrink = if length > 0.0 { 1.0 / length } else { 0.0 };
        unit.iter_mut().for_each(|value| *value *= shrink);
        Self { unit, shrink }
    }
}

/// Three photos of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Triplet {
    anchor: usize,
    positive: usize,
    negative: usize,
}

impl Triplet {
    fn loss(self, embedded: &[Embedded], margin: f64) -> f64 {
        let cosine = |other: usize| dot(&embedded[self.anchor].unit, &embedded[other].unit);
        (2.0 * (cosine(self.negative) - cosine(self.positive)) + margin).max(0.0)
    }
}

impl Batch<'_> {
    /// Projects the photos, and chooses the triplets to learn from.
    fn mine(&self, weights: &Weights, settings: &TripletSettings) -> (Vec<Embedded>, Vec<Triplet>) {
        let embedded: Vec<_> = self.inputs.iter().map(|input| Embedded::new(weights, input)).collect();
        let mut triplets = Vec::new();
        for anchor in 0..self.people.len() {
            let is_same = |&photo: &usize| self.people[photo] == self.people[anchor];
            let (same, others): (Vec<usize>, Vec<usize>) = (0..self.people.len()).partition(is_same);
            let positives: Vec<usize> = same.into_iter().filter(|&photo| photo != anchor).collect();
            if positives.is_empty() {
                continue;
            }
            let cosines: Vec<f64> = embedded.iter().map(|other| dot(&embedded[anchor].unit, &other.unit)).collect();
            let nearer = |a: &usize, b: &usize| cosines[*a].total_cmp(&cosines[*b]);
            let Some(closest) = others.iter().copied().max_by(nearer) else { continue };
            match settings.mining {
                Mining::Hard => {
                    let farthest = positives.into_iter().min_by(nearer);
                    triplets.extend(farthest.map(|positive| Triplet { anchor, positive, negative: closest }));
                }
                Mining::SemiHard => triplets.extend(positives.into_iter().map(|positive| {
                    let is_semi_hard = |&negative: &usize| {
                        let farther = 2.0 * (cosines[positive] - cosines[negative]);
                        farther > 0.0 && farther < settings.margin
                    };
                    let negative = others.iter().copied().filter(is_semi_hard).max_by(nearer).unwrap_or(closest);
                    Triplet { anchor, positive, negative }
                })),
            }
        }
        (embedded, triplets)
    }

    /// The gradient of the mean loss of `triplets` by W, row after row.
    fn gradient(&self, weights: &Weights, (embedded, triplets): (&[Embedded], &[Triplet]), margin: f64) -> Vec<f64> {
        let dimension = weights.rows().count();
        // By z, but for what is along z, which the normalisation takes away.
        let mut by_unit = vec![None; embedded.len()];
        let each = 2.0 / triplets.len() as f64;
        for triplet in triplets.iter().filter(|triplet| triplet.loss(embedded, margin) > 0.0) {
            let Triplet { anchor, positive, negative } = *triplet;
            let pulls = [(anchor, each, negative), (anchor, -each, positive), (positive, -each, anchor), (negative, each, anchor)];
            for (photo, scale, other) in pulls {
                add_scaled(by_unit[photo].get_or_insert_with(|| vec![0.0; dimension]), scale, &embedded[other].unit);
            }
        }
        let mut gradient = vec![0.0; weights.values.len()];
        for ((slope, Embedded { unit, shrink }), input) in by_unit.iter().zip(embedded).zip(&self.inputs) {
            let Some(slope) = slope else { continue };
            // z = y / |y|, hence dy = (dz - (dz·z) z) / |y|; y = Wx, hence dW = dy xᵀ.
            let along = dot(slope, unit);
            for ((row, slope), unit) in gradient.chunks_exact_mut(weights.input_dimension).zip(slope).zip(unit) {
                add_scaled(row, (slope - along * unit) * shrink, input);
            }
        }
        gradient
    }
}

/// What the triplets of some batches lost.
#[derive(Default)]
struct Tally {
    triplets: usize,
    active: usize,
    loss: f64,
}

impl Tally {
    fn add(&mut self, embedded: &[Embedded], triplets: &[Triplet], margin: f64) {
        self.triplets += triplets.len();
        for loss in triplets.iter().map(|triplet| triplet.loss(embedded, margin)) {
            self.active += usize::from(loss > 0.0);
            self.loss += loss;
        }
    }

    fn loss(&self) -> f64 {
        self.loss / self.triplets.max(1) as f64
    }

    fn active_share(&self) -> f64 {
        self.active as f64 / self.triplets.max(1) as f64
    }
}

/// Steps down a gradient, each value at its own pace (Kingma & Ba, Adam, 2015, algorithm 1).
struct Adam {
    steps: i32,
    means: Vec<f64>,
    squares: Vec<f64>,
}

impl Adam {
    const MEAN_DECAY: f64 = 0.9;
    const SQUARE_DECAY: f64 = 0.999;
    const EPSILON: f64 = 1e-8;

    fn new(size: usize) -> Self {
        Self { steps: 0, means: vec![0.0; size], squares: vec![0.0; size] }
    }

    fn step(&mut self, values: &mut [f64], gradient: &[f64], learning_rate: f64) {
        self.steps += 1;
        let (mean_share, square_share) = (1.0 - Self::MEAN_DECAY.powi(self.steps), 1.0 - Self::SQUARE_DECAY.powi(self.steps));
        for (((value, slope), mean), square) in values.iter_mut().zip(gradient).zip(&mut self.means).zip(&mut self.squares) {
            *mean += (1.0 - Self::MEAN_DECAY) * (slope - *mean);
            *square += (1.0 - Self::SQUARE_DECAY) * (slope * slope - *square);
            *value -= learning_rate * (*mean / mean_share) / ((*square / square_share).sqrt() + Self::EPSILON);
        }
    }
}

/// See [`Epoch::separation`].
fn separation(weights: &Weights, photos: &Photos) -> f64 {
    let embedded: Vec<_> = photos.vectors.iter().map(|vector| Embedded::new(weights, vector).unit).collect();
    let mut people = vec![0; embedded.len()];
    for (person, photos) in photos.by_person.iter().enumerate() {
        photos.iter().for_each(|&photo| people[photo] = person);
    }
    // Of the non-mated pairs and of the mated ones: how many, the sum of the cosines, and that of their squares.
    let mut sums = [(0.0, 0.0, 0.0); 2];
    for (i, one) in embedded.iter().enumerate() {
        for (j, other) in embedded[..i].iter().enumerate() {
            let (cosine, sum) = (dot(one, other), &mut sums[usize::from(people[i] == people[j])]);
            *sum = (sum.0 + 1.0, sum.1 + cosine, sum.2 + cosine * cosine);
        }
    }
    let [non_mated, mated] = sums.map(|(count, sum, squares)| (sum / count, (squares / count - (sum / count).powi(2)).max(0.0)));
    // Of people who are told apart perfectly no cosine varies.
    (mated.0 - non_mated.0) / (0.5 * (mated.1 + non_mated.1)).max(f64::MIN_POSITIVE).sqrt()
}
