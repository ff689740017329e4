//! Trains a verification head on faces of known people, and measures it on others.
//!
//! In: faces by person, or labelled pairs of them. Out: a head with the calibration of people that it did not learn from,
//! and how it compares with the cosine on them.
//! Must not know: photos, files.

use super::EvaluateError;
use super::compare::{Judgement, compare};
use super::identification::Known;
use crate::calibration::{Calibration, Measured, PEOPLE_MIN, Scored, measure};
use crate::face::{TemplateSpace, dot};
use crate::head::{Head, Rule};
use crate::train::logistic::{LogisticSettings, fit};

/// Pairs of different people that each face is trained with.
const STRANGERS_A_FACE: usize = 20;
/// The most pairs that are trained with: what they say is known long before.
const PAIRS_MAX: usize = 40_000;

/// How a head is trained.
pub struct HeadSettings<'a> {
    /// What its features are.
    pub rule: Rule,
    /// How strongly weights are held near zero.
    pub l2: f64,
    /// What chance begins with.
    pub seed: u64,
    /// The space of the templates.
    pub space: &'a TemplateSpace,
    /// Whose photos, in words, and the command.
    pub origin: (&'a str, &'a str),
}

/// A trained head with what it is worth.
pub struct TrainedHead {
    /// The head.
    pub head: Head,
    /// On the people that it did not learn from; `None` where they are too few to tell.
    pub judgement: Option<Judgement>,
    /// Pairs of one person that it learnt from.
    pub mated: usize,
    /// Pairs of different people.
    pub non_mated: usize,
}

/// Pairs to learn from, as places in the faces.
pub type Pairs = Vec<(usize, usize)>;

/// Every pair of one person, and for each face a few of different people, by chance.
pub fn all_pairs(faces: &[Known], seed: u64) -> Pairs {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pairs = Pairs::new();
    for (index, face) in faces.iter().enumerate() {
        pairs.extend((index + 1..faces.len()).filter(|other| faces[*other].person == face.person).map(|other| (index, other)));
        let others = (0..STRANGERS_A_FACE).map(|_| random.usize(0..faces.len())).filter(|other| faces[*other].person != face.person);
        pairs.extend(others.map(|other| (index, other)));
    }
    random.shuffle(&mut pairs);
    pairs.truncate(PAIRS_MAX);
    pairs
}

/// Trains on `pairs` of `training` and measures on `held_out`.
///
/// # Errors
/// [`EvaluateError::Train`] when the pairs are of one kind, or nothing was learnt.
pub fn train(training: &[Known], pairs: &Pairs, held_out: &[Known], settings: &HeadSettings<'_>) -> Result<TrainedHead, EvaluateError> {
    let rule = settings.rule;
    let labels: Vec<bool> = pairs.iter().map(|(a, b)| training[*a].person == training[*b].person).collect();
    let mated = labels.iter().filter(|same| **same).count();
    let (weights, bias) = if rule == Rule::Euclidean {
        (Vec::new(), 0.0)
    } else {
        let features: Vec<Vec<f32>> = pairs.iter().map(|(a, b)| rule.features(&training[*a].values, &training[*b].values)).collect();
        let logistic = fit(&features, &labels, &LogisticSettings { l2: settings.l2, ..LogisticSettings::default() })?;
        (logistic.weights.iter().map(|weight| *weight as f32).collect(), logistic.bias as f32)
    };
    // The score needs no calibration, and the calibration needs the score.
    let uncalibrated = |measured| Calibration::new(settings.space, rule.name(), settings.origin, measured);
    let scores = Head::new(rule, (weights.clone(), bias), uncalibrated(Measured { people: 0, photos: 0, bands: Vec::new() }));
    let measured = measure(&scored(held_out), rule.range(), &|a, b| scores.score(a, b));
    if measured.people < PEOPLE_MIN {
        let found = measured.people;
        return Err(EvaluateError::TooFew(format!(
            "{found} people are held out, and a head is measured on {PEOPLE_MIN} at least; give photos of more people"
        )));
    }
    let judgement = compare(held_out, &dot, &|a, b| scores.score(a, b));
    let head = Head::new(rule, (weights, bias), uncalibrated(measured));
    Ok(TrainedHead { head, judgement, mated, non_mated: labels.len() - mated })
}

/// Faces as good as they came.
pub fn scored(faces: &[Known]) -> Vec<Scored> {
    let face = |(photo, face): (usize, &Known)| Scored {
        person: face.person,
        photo,
        quality: 1.0,
        is_worsened: false,
        values: face.values.clone(),
    };
    faces.iter().enumerate().map(face).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 23;

    /// Unit vectors of 12 numbers of which the first `telling` say who it is and the others are noise.
    fn faces(people: std::ops::Range<usize>, telling: usize) -> Vec<Known> {
        let mut faces = Vec::new();
        for person in people {
            let mut who = fastrand::Rng::with_seed(person as u64 + 1);
            let own: Vec<f32> = (0..telling).map(|_| who.f32() - 0.5).collect();
            for photo in 0..3 {
                let mut random = fastrand::Rng::with_seed(SEED + 1_000 * person as u64 + photo);
                let mut values: Vec<f32> = own.iter().map(|value| value + 0.1 * (random.f32() - 0.5)).collect();
                values.resize_with(12, || 2.0 * (random.f32() - 0.5));
                let norm = dot(&values, &values).sqrt();
                faces.push(Known { person, values: values.iter().map(|value| value / norm).collect() });
            }
        }
        faces
    }

    fn settings(rule: Rule, space: &TemplateSpace) -> HeadSettings<'_> {
        HeadSettings { rule, l2: 1e-3, seed: SEED, space, origin: ("planted", "none") }
    }

    #[test]
    fn a_head_learns_which_numbers_tell_people_apart() {
        println!("seed {SEED}");
        let space = TemplateSpace::new("s");
        let (training, held_out) = (faces(0..60, 6), faces(60..120, 6));
        for rule in [Rule::AbsDiff, Rule::Chi2] {
            let trained = train(&training, &all_pairs(&training, SEED), &held_out, &settings(rule, &space)).expect("it learns");
            let judgement = trained.judgement.expect("there are enough");
            assert!(judgement.is_better(), "{rule:?}: {judgement:?}");
            assert_eq!((trained.mated, trained.head.calibration.people), (180, 60));
        }
    }

    #[test]
    fn what_brings_nothing_is_not_called_better() {
        let space = TemplateSpace::new("s");
        // Every number tells as much as every other: nothing is to be learnt beyond the cosine.
        let (training, held_out) = (faces(0..60, 12), faces(60..120, 12));
        for rule in [Rule::Euclidean, Rule::AbsDiff] {
            let trained = train(&training, &all_pairs(&training, SEED), &held_out, &settings(rule, &space)).expect("it learns");
            assert!(!trained.judgement.is_some_and(|judgement| judgement.is_better()), "{rule:?}");
        }
    }

    #[test]
    fn pairs_of_one_kind_teach_nothing() {
        let space = TemplateSpace::new("s");
        let training = faces(0..10, 6);
        let only_strangers: Pairs = vec![(0, 3), (0, 6), (3, 6)];
        let outcome = train(&training, &only_strangers, &faces(10..50, 6), &settings(Rule::Chi2, &space));
        assert!(matches!(outcome, Err(EvaluateError::Train(_))));
    }
}
