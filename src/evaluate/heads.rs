//! Trains a verification head on faces of known people, and measures it on others.
//!
//! In: faces by person, or labelled pairs of them. Out: a head, how it compares with the cosine on people that it did not
//! learn from, and the calibration of others.
//! Must not know: photos, files.

use std::collections::BTreeSet;

use super::EvaluateError;
use super::compare::{Judgement, compare};
use super::identification::Known;
use crate::calibration::{Calibration, Measured, PEOPLE_MIN, Scored, measure};
use crate::config::MirrorChoice;
use crate::face::{TemplateSpace, dot};
use crate::head::{Head, Rule};
use crate::train::logistic::{LogisticSettings, fit};
use crate::train::split_people;

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
    /// What `infer.mirror` was when they were made.
    pub mirror: MirrorChoice,
    /// Whose photos, in words, and the command.
    pub origin: (&'a str, &'a str),
}

/// A head that is worth something only once it is judged and calibrated.
pub struct LearntHead {
    /// The head, with a calibration of nobody.
    pub head: Head,
    /// Pairs of one person that it learnt from.
    pub mated: usize,
    /// Pairs of different people.
    pub non_mated: usize,
}

/// What a head is worth.
pub struct Assessed {
    /// The head with a calibration.
    pub head: Head,
    /// By some of the people that it did not learn from; `None` where they are too few to tell.
    pub judgement: Option<Judgement>,
    /// How many people judged.
    pub judges: usize,
    /// Whether the people who judged are also those of the calibration, since there are too few for both: what is accepted
    /// because it did well on them may do a little worse on others.
    pub judges_calibrate: bool,
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

/// Learns from `pairs` of `training`.
///
/// # Errors
/// [`EvaluateError::Train`] when the pairs are of one kind, or nothing was learnt.
pub fn learn(training: &[Known], pairs: &Pairs, settings: &HeadSettings<'_>) -> Result<LearntHead, EvaluateError> {
    let rule = settings.rule;
    let labels: Vec<bool> = pairs.iter().map(|(a, b)| training[*a].person == training[*b].person).collect();
    let mated = labels.iter().filter(|same| **same).count();
    let weighing = if rule == Rule::Euclidean {
        (Vec::new(), 0.0)
    } else {
        let features: Vec<Vec<f32>> = pairs.iter().map(|(a, b)| rule.features(&training[*a].values, &training[*b].values)).collect();
        let logistic = fit(&features, &labels, &LogisticSettings { l2: settings.l2, ..LogisticSettings::default() })?;
        (logistic.weights.iter().map(|weight| *weight as f32).collect(), logistic.bias as f32)
    };
    // The score needs no calibration, and the calibration needs the score.
    let of_nobody = calibration(rule, settings, Measured { people: 0, photos: 0, bands: Vec::new() });
    Ok(LearntHead { head: Head::new(rule, weighing, of_nobody), mated, non_mated: labels.len() - mated })
}

/// Has half of the people of `held_out` judge the head, by pictures as they came, and makes the calibration of the other half, by those
/// that were made worse as well. So nothing is chosen on those whose rates are told; where there are too few for that, all do both.
///
/// # Errors
/// [`EvaluateError::TooFew`] where they are too few for a calibration.
pub fn assess(learnt: LearntHead, held_out: &[Scored], settings: &HeadSettings<'_>) -> Result<Assessed, EvaluateError> {
    let people: Vec<usize> = held_out.iter().map(|face| face.person).collect();
    let count = |people: &mut dyn Iterator<Item = usize>| people.collect::<BTreeSet<_>>().len();
    let (found, needed) = (count(&mut people.iter().copied()), PEOPLE_MIN as usize);
    if found < needed {
        return Err(EvaluateError::TooFew(format!(
            "{found} people are held out, and a head is measured on {needed} at least; give photos of more people"
        )));
    }
    let judges_calibrate = found < 2 * needed;
    let everybody = || (0..held_out.len()).collect::<Vec<_>>();
    let (judges, others) = if judges_calibrate { (everybody(), everybody()) } else { split_people(&people, 0.5, settings.seed) };
    let of = |places: &[usize]| places.iter().map(|place| held_out[*place].clone()).collect::<Vec<_>>();
    let LearntHead { mut head, .. } = learnt;
    let score = |a: &[f32], b: &[f32]| head.score(a, b);
    let as_they_came = of(&judges).into_iter().filter(|face| !face.is_worsened);
    let known: Vec<Known> = as_they_came.map(|face| Known { person: face.person, values: face.values }).collect();
    let judgement = compare(&known, &dot, &score);
    let measured = measure(&of(&others), head.rule.range(), &score);
    head.calibration = calibration(head.rule, settings, measured);
    let judges = count(&mut judges.iter().map(|place| people[*place]));
    Ok(Assessed { head, judgement, judges, judges_calibrate })
}

fn calibration(rule: Rule, settings: &HeadSettings<'_>, measured: Measured) -> Calibration {
    Calibration::new(settings.space, rule.name(), settings.origin, measured).with_mirror(settings.mirror)
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
        HeadSettings { rule, l2: 1e-3, seed: SEED, space, mirror: MirrorChoice::Off, origin: ("planted", "none") }
    }

    fn trained(rule: Rule, training: &[Known], held_out: &[Known]) -> Assessed {
        println!("seed {SEED}");
        let space = TemplateSpace::new("s");
        let settings = settings(rule, &space);
        let learnt = learn(training, &all_pairs(training, SEED), &settings).expect("it learns");
        assert_eq!(learnt.mated, training.len(), "three pairs of three photos each");
        assess(learnt, &scored(held_out), &settings).expect("they are enough")
    }

    #[test]
    fn a_head_learns_which_numbers_tell_people_apart() {
        for rule in [Rule::AbsDiff, Rule::Chi2] {
            let trained = trained(rule, &faces(0..60, 6), &faces(60..180, 6));
            let judgement = trained.judgement.expect("there are enough");
            assert!(judgement.is_better(), "{rule:?}: {judgement:?}");
        }
    }

    #[test]
    fn who_judges_a_head_does_not_calibrate_it_unless_there_are_too_few_people_for_both() {
        let of = |people: usize| {
            let assessed = trained(Rule::AbsDiff, &faces(0..60, 6), &faces(60..60 + people, 6));
            (assessed.judges, assessed.head.calibration.people, assessed.judges_calibrate)
        };
        assert_eq!(of(80), (40, 40, false));
        assert_eq!(of(59), (59, 59, true));
        // The calibration is that of the others alone: to judge by other people leaves it as it is.
        let mut held_out = faces(60..140, 6);
        let people: Vec<usize> = held_out.iter().map(|face| face.person).collect();
        let before = trained(Rule::AbsDiff, &faces(0..60, 6), &held_out).head.calibration;
        let (judges, _) = split_people(&people, 0.5, SEED);
        judges.iter().for_each(|place| held_out[*place].values.reverse());
        assert_eq!(trained(Rule::AbsDiff, &faces(0..60, 6), &held_out).head.calibration, before);
    }

    #[test]
    fn poor_pictures_have_a_band_of_their_own_and_judge_nothing() {
        println!("seed {SEED}");
        let space = TemplateSpace::new("s");
        let (training, settings) = (faces(0..60, 6), settings(Rule::AbsDiff, &space));
        let of = |held_out: &[Scored]| {
            let learnt = learn(&training, &all_pairs(&training, SEED), &settings).expect("it learns");
            assess(learnt, held_out, &settings).expect("they are enough")
        };
        let mut held_out = scored(&faces(60..140, 6));
        let plain = of(&held_out);
        let poor: Vec<Scored> = held_out.iter().map(|face| Scored { quality: 0.1, is_worsened: true, ..face.clone() }).collect();
        held_out.extend(poor);
        let found = of(&held_out);
        assert_eq!((found.judgement, found.judges), (plain.judgement, plain.judges));
        assert_eq!((plain.head.calibration.bands.len(), found.head.calibration.bands.len()), (1, 2));
        assert_eq!(found.head.calibration.bands[1].non_mated, plain.head.calibration.bands[0].non_mated);
    }

    #[test]
    fn what_brings_nothing_is_not_called_better() {
        // Every number tells as much as every other: nothing is to be learnt beyond the cosine.
        for rule in [Rule::Euclidean, Rule::AbsDiff] {
            let trained = trained(rule, &faces(0..60, 12), &faces(60..180, 12));
            assert!(!trained.judgement.is_some_and(|judgement| judgement.is_better()), "{rule:?}");
        }
    }

    #[test]
    fn pairs_of_one_kind_or_too_few_people_teach_nothing() {
        let space = TemplateSpace::new("s");
        let settings = settings(Rule::Chi2, &space);
        let training = faces(0..10, 6);
        let only_strangers: Pairs = vec![(0, 3), (0, 6), (3, 6)];
        assert!(matches!(learn(&training, &only_strangers, &settings), Err(EvaluateError::Train(_))));
        let learnt = learn(&training, &all_pairs(&training, SEED), &settings).expect("it learns");
        assert!(matches!(assess(learnt, &scored(&faces(10..39, 6)), &settings), Err(EvaluateError::TooFew(_))));
    }
}
