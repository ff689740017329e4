//! Whether a new way of comparing is better than the one in force, on people that it did not learn from.
//!
//! In: faces of known people, two ways to score a pair. Out: the errors of both at one rate of false matches, and whether
//! the difference is more than chance.
//! Must not know: what the ways are.

use std::collections::BTreeMap;

use super::identification::{Known, Rate, pooled};
use crate::rates::Interval;

/// Rates of false matches at which ways are compared: the lowest that there are comparisons enough for.
const FMRS: [f64; 4] = [1e-4, 1e-3, 1e-2, 1e-1];
/// Strangers that must reach a threshold for it to be known well (the rule of thirty, ISO/IEC 19795-1, B.1.2).
const STRANGERS_MIN: f64 = 30.0;
/// Fewer mated pairs show nothing.
const MATED_MIN: u64 = 20;
const RESAMPLES: usize = 2_000;
const SEED: u64 = 20_261_125;

/// How two vectors are scored; higher is closer.
pub type Score<'a> = &'a dyn Fn(&[f32], &[f32]) -> f32;

/// Two ways, compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judgement {
    /// The rate of false matches that both were brought to.
    pub fmr: f64,
    /// How many comparisons of different people that is of.
    pub strangers: u64,
    /// Mated pairs that the way in force rejects, at the threshold that is right for all these people.
    pub before: Rate,
    /// Mated pairs that the new way rejects, likewise.
    pub after: Rate,
    /// Between what the change of the FNMR lies, 95 %, by a bootstrap over people; below zero is better.
    pub change: Interval,
    /// How probable it is that chance alone favours the new way with as many people, or more (the sign test, one-sided).
    pub by_chance: f64,
}

impl Judgement {
    /// Whether the new way is better, and not by chance.
    pub fn is_better(&self) -> bool {
        // A few people who all go one way leave a bootstrap no doubt, and chance plenty.
        self.change.high < 0.0 && self.by_chance <= 0.025
    }
}

/// Compares `before` and `after` on everybody of `faces` with everybody else. `None` where there are too few pairs to tell.
pub fn compare(faces: &[Known], before: Score<'_>, after: Score<'_>) -> Option<Judgement> {
    let mut strangers = [Vec::new(), Vec::new()];
    // Both scores of each mated pair, by person.
    let mut mated = BTreeMap::<usize, Vec<[f32; 2]>>::new();
    for (index, a) in faces.iter().enumerate() {
        for b in &faces[index + 1..] {
            let scores = [before(&a.values, &b.values), after(&a.values, &b.values)];
            if a.person == b.person {
                mated.entry(a.person).or_default().push(scores);
            } else {
                strangers.iter_mut().zip(scores).for_each(|(all, score)| all.push(score));
            }
        }
    }
    let count = strangers[0].len();
    let fmr = FMRS.into_iter().find(|fmr| fmr * count as f64 >= STRANGERS_MIN)?;
    let allowed = (fmr * count as f64) as usize;
    let threshold = |scores: &mut Vec<f32>| {
        scores.sort_by(|a, b| b.total_cmp(a));
        scores.get(allowed).copied()
    };
    let [Some(old), Some(new)] = strangers.each_mut().map(threshold) else { return None };
    // By person: rejected before, rejected after, pairs.
    let rejected = |pairs: &Vec<[f32; 2]>| {
        let of = |way: usize, threshold: f32| pairs.iter().filter(|scores| scores[way] <= threshold).count() as u64;
        [of(0, old), of(1, new), pairs.len() as u64]
    };
    let people: Vec<[u64; 3]> = mated.values().map(rejected).collect();
    let sum = |people: &mut dyn Iterator<Item = &[u64; 3]>| people.fold([0; 3], |sum, of| [0, 1, 2].map(|i| sum[i] + of[i]));
    if sum(&mut people.iter())[2] < MATED_MIN {
        return None;
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut draw = || {
        let [before, after, trials] = sum(&mut (0..people.len()).map(|_| &people[random.usize(0..people.len())]));
        (after as f64 - before as f64) / trials.max(1) as f64
    };
    let change = Interval::of_resamples((0..RESAMPLES).map(|_| draw()).collect())?;
    let rate = |way: usize| pooled(&people.iter().map(|of| (of[way], of[2])).collect::<Vec<_>>(), SEED);
    let favour = |is: fn(&u64, &u64) -> bool| people.iter().filter(|[before, after, _]| is(after, before)).count() as u32;
    let by_chance = sign_test(favour(u64::lt), favour(u64::gt));
    Some(Judgement { fmr, strangers: count as u64, before: rate(0), after: rate(1), change, by_chance })
}

/// The probability that of `better + worse` fair coins at least `better` fall one way.
fn sign_test(better: u32, worse: u32) -> f64 {
    let n = better + worse;
    // C(n, i) / 2^n, from i = 0 upwards.
    let mut term = 0.5_f64.powi(n.min(1_000) as i32);
    let mut sum = 0.0;
    for i in 0..=worse {
        sum += term;
        term *= f64::from(n - i.min(n)) / f64::from(i + 1);
    }
    if n > 1_000 { f64::from(u8::from(better <= worse)) } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::dot;

    const TEST_SEED: u64 = 17;

    /// People whose first two numbers say who they are, beside two that say nothing.
    fn faces(people: usize) -> Vec<Known> {
        println!("seed {TEST_SEED}");
        let mut random = fastrand::Rng::with_seed(TEST_SEED);
        let mut faces = Vec::new();
        for person in 0..people {
            let angle = random.f32() * std::f32::consts::TAU;
            for _ in 0..2 {
                let noise = (random.f32() - 0.5) * 0.05 + angle;
                faces.push(Known {
                    person,
                    quality: 1.0,
                    values: vec![noise.cos(), noise.sin(), 3.0 * (random.f32() - 0.5), 3.0 * (random.f32() - 0.5)],
                });
            }
        }
        faces
    }

    #[test]
    fn a_way_that_leaves_the_noise_out_is_better_and_the_same_way_is_not() {
        let faces = faces(80);
        let (all, known): (Score<'_>, Score<'_>) = (&dot, &|a, b| dot(&a[..2], &b[..2]));
        let better = compare(&faces, all, known).expect("there are enough");
        assert!(better.is_better() && better.after.events < better.before.events, "{better:?}");
        assert!(better.before.interval.holds(better.before.rate()), "{better:?}");
        let same = compare(&faces, all, all).expect("there are enough");
        assert!(!same.is_better() && same.before == same.after, "{same:?}");
        assert!(!compare(&faces, known, all).expect("there are enough").is_better());
    }

    #[test]
    fn a_few_who_all_go_one_way_may_do_so_by_chance() {
        assert!((sign_test(4, 0) - 0.0625).abs() < 1e-12 && (sign_test(6, 0) - 1.0 / 64.0).abs() < 1e-12);
        assert!((sign_test(8, 2) - 56.0 / 1024.0).abs() < 1e-12 && sign_test(0, 0) == 1.0);
    }

    #[test]
    fn a_few_people_show_nothing() {
        assert_eq!(compare(&faces(5), &dot, &dot), None);
        assert_eq!(compare(&[], &dot, &dot), None);
    }
}
