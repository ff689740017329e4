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
    /// By people that it did not learn from; `None` where they are too few to tell.
    pub judgement: Option<Judgement>,
}

/// Who of the people that a head does not learn from does what, as places in what was given.
pub struct Panel {
    /// Those who judge it.
    pub judging: Vec<usize>,
    /// Those whose scores are its calibration.
    pub calibrating: Vec<usize>,
    /// Whether both are the same people, since there are too few for two parts: what is accepted because it did well on them may
    /// do a little worse on others.
    pub is_one: bool,
}

impl Panel {
    /// Of the people that faces are of: half of them each, so that nothing is chosen on those whose rates are told; where there are
    /// too few for that, all do both.
    ///
    /// # Errors
    /// [`EvaluateError::TooFew`] where they are too few for a calibration.
    pub fn of(people: &[usize], seed: u64) -> Result<Self, EvaluateError> {
        let (found, needed) = (people.iter().collect::<BTreeSet<_>>().len(), PEOPLE_MIN as usize);
        if found < needed {
            return Err(EvaluateError::TooFew(format!(
                "{found} people are held out, and a head is measured on {needed} at least; give photos of more people"
            )));
        }
        let everybody = || (0..people.len()).collect::<Vec<_>>();
        if found < 2 * needed {
            return Ok(Self { judging: everybody(), calibrating: everybody(), is_one: true });
        }
        let (judging, calibrating) = split_people(people, 0.5, seed);
        Ok(Self { judging, calibrating, is_one: false })
    }
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

/// Has the head judged by the faces `judging`, and makes its calibration of `calibrating`.
pub fn assess(learnt: LearntHead, judging: &[Known], calibrating: &[Scored], settings: &HeadSettings<'_>) -> Assessed {
    let LearntHead { mut head, .. } = learnt;
    let score = |a: &[f32], b: &[f32]| head.score(a, b);
    let judgement = compare(judging, &dot, &score);
    let measured = measure(calibrating, head.rule.range(), &score);
    head.calibration = calibration(head.rule, settings, measured);
    Assessed { head, judgement }
}

fn calibration(rule: Rule, settings: &HeadSettings<'_>, measured: Measured) -> Calibration {
    Calibration::new(settings.space, rule.name(), settings.origin, measured).with_mirror(settings.mirror)
}

/// Faces as good as they came.
pub fn scored(faces: &[Known]) -> Vec<Scored> {
    let face = |(photo, face): (usize, &Known)| Scored {
        person: face.person,
        photo,
        quality: face.quality,
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
                faces.push(Known { person, quality: 1.0, values: values.iter().map(|value| value / norm).collect() });
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
        let panel = panel(held_out).expect("they are enough");
        let of = |places: &[usize]| places.iter().map(|place| held_out[*place].clone()).collect::<Vec<_>>();
        assess(learnt, &of(&panel.judging), &scored(&of(&panel.calibrating)), &settings)
    }

    fn panel(faces: &[Known]) -> Result<Panel, EvaluateError> {
        Panel::of(&faces.iter().map(|face| face.person).collect::<Vec<_>>(), SEED)
    }

    #[test]
    fn a_head_learns_which_numbers_tell_people_apart() {
        for rule in [Rule::AbsDiff, Rule::Chi2] {
            let trained = trained(rule, &faces(0..60, 6), &faces(60..180, 6));
            let judgement = trained.judgement.expect("there are enough");
            assert!(judgement.is_better(), "{rule:?}: {judgement:?}");
            assert_eq!(trained.head.calibration.people, 60);
        }
    }

    #[test]
    fn who_judges_a_head_does_not_calibrate_it_unless_there_are_too_few_people_for_both() {
        let of = |people: usize| {
            let faces = faces(0..people, 6);
            let Panel { judging, calibrating, is_one } = panel(&faces).expect("they are enough");
            let people = |places: &[usize]| places.iter().map(|place| faces[*place].person).collect::<BTreeSet<_>>();
            let (judging, calibrating) = (people(&judging), people(&calibrating));
            (judging.len(), calibrating.len(), judging.intersection(&calibrating).count(), is_one)
        };
        assert_eq!(of(80), (40, 40, 0, false));
        assert_eq!(of(59), (59, 59, 59, true));
        assert!(matches!(panel(&faces(0..29, 6)), Err(EvaluateError::TooFew(_))));
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
    fn pairs_of_one_kind_teach_nothing() {
        let space = TemplateSpace::new("s");
        let settings = settings(Rule::Chi2, &space);
        let training = faces(0..10, 6);
        let only_strangers: Pairs = vec![(0, 3), (0, 6), (3, 6)];
        assert!(matches!(learn(&training, &only_strangers, &settings), Err(EvaluateError::Train(_))));
    }
}
