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
    /// Between what the change of the FNMR lies, 95 %, by a bootstrap over people, whose thresholds are their own each time;
    /// below zero is better.
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
    let scored = Scored::of(faces, before, after);
    let count = scored.strangers[0].len();
    let fmr = FMRS.into_iter().find(|fmr| fmr * count as f64 >= STRANGERS_MIN)?;
    if (scored.mated.len() as u64) < MATED_MIN {
        return None;
    }
    let once = vec![1; scored.photos.len()];
    let thresholds = scored.thresholds(fmr, &once);
    // By person: rejected before, rejected after, pairs.
    let mut people = BTreeMap::<usize, [u64; 3]>::new();
    for (person, scores) in &scored.mated {
        let of = people.entry(*person).or_default();
        (0..2).for_each(|way| of[way] += u64::from(scores[way] <= thresholds[way]));
        of[2] += 1;
    }
    let people: Vec<[u64; 3]> = people.into_values().collect();
    let mut random = fastrand::Rng::with_seed(SEED);
    let resampled: Vec<[f64; 2]> = (0..RESAMPLES).map(|_| scored.rejected(fmr, &drawn(scored.photos.len(), &mut random))).collect();
    let interval = |of: &dyn Fn(&[f64; 2]) -> f64| Interval::of_resamples(resampled.iter().map(of).collect());
    let rate = |way: usize| {
        let counted = pooled(&people.iter().map(|of| (of[way], of[2])).collect::<Vec<_>>(), SEED);
        let found = interval(&|rejected| rejected[way])?;
        // Where hardly anything was seen the resamples know less than they seem to.
        let Interval { low, high } = counted.interval;
        Some(Rate { interval: Interval { low: low.min(found.low), high: high.max(found.high) }, ..counted })
    };
    let change = interval(&|[before, after]| after - before)?;
    let favour = |is: fn(&u64, &u64) -> bool| people.iter().filter(|[before, after, _]| is(after, before)).count() as u32;
    let by_chance = sign_test(favour(u64::lt), favour(u64::gt));
    Some(Judgement { fmr, strangers: count as u64, before: rate(0)?, after: rate(1)?, change, by_chance })
}

/// How often each person is drawn of as many draws, with replacement.
fn drawn(people: usize, random: &mut fastrand::Rng) -> Vec<u32> {
    let mut times = vec![0; people];
    (0..people).for_each(|_| times[random.usize(0..people)] += 1);
    times
}

/// Every pair's scores by both ways.
struct Scored {
    /// How many photos there are of each person.
    photos: Vec<u64>,
    /// Whose the pair is, and its scores.
    mated: Vec<(usize, [f32; 2])>,
    /// By way, the highest score first: of whom and whom it is.
    strangers: [Vec<(f32, u32, u32)>; 2],
}

impl Scored {
    fn of(faces: &[Known], before: Score<'_>, after: Score<'_>) -> Self {
        let mut places = BTreeMap::<usize, usize>::new();
        let people: Vec<usize> = faces
            .iter()
            .map(|face| {
                let next = places.len();
                *places.entry(face.person).or_insert(next)
            })
            .collect();
        let mut scored = Self { photos: vec![0; places.len()], mated: Vec::new(), strangers: [Vec::new(), Vec::new()] };
        for (index, a) in faces.iter().enumerate() {
            scored.photos[people[index]] += 1;
            for (other, b) in faces.iter().enumerate().skip(index + 1) {
                let scores = [before(&a.values, &b.values), after(&a.values, &b.values)];
                if a.person == b.person {
                    scored.mated.push((people[index], scores));
                } else {
                    let (a, b) = (people[index] as u32, people[other] as u32);
                    scored.strangers.iter_mut().zip(scores).for_each(|(all, score)| all.push((score, a, b)));
                }
            }
        }
        scored.strangers.iter_mut().for_each(|all| all.sort_by(|a, b| b.0.total_cmp(&a.0)));
        scored
    }

    /// The scores that strangers pass at the rate `fmr`, where each person is there so many times.
    fn thresholds(&self, fmr: f64, times: &[u32]) -> [f32; 2] {
        let present = |person: usize| self.photos[person] * u64::from(times[person]);
        let all: u64 = (0..times.len()).map(present).sum();
        let of_one: u64 = (0..times.len()).map(|person| present(person).pow(2)).sum();
        let allowed = (fmr * (all * all - of_one) as f64 / 2.0 + 1e-9) as u64;
        self.strangers.each_ref().map(|strangers| {
            let mut passed = 0;
            let reached = |(_, a, b): &&(f32, u32, u32)| {
                passed += u64::from(times[*a as usize]) * u64::from(times[*b as usize]);
                passed > allowed
            };
            strangers.iter().find(reached).or(strangers.last()).map_or(f32::INFINITY, |(score, ..)| *score)
        })
    }

    /// The shares of mated pairs that both ways reject at the rate `fmr`, where each person is there so many times.
    fn rejected(&self, fmr: f64, times: &[u32]) -> [f64; 2] {
        let thresholds = self.thresholds(fmr, times);
        let (mut rejected, mut trials) = ([0_u64; 2], 0);
        for (person, scores) in &self.mated {
            let times = u64::from(times[*person]);
            trials += times;
            (0..2).for_each(|way| rejected[way] += times * u64::from(scores[way] <= thresholds[way]));
        }
        rejected.map(|events| events as f64 / trials.max(1) as f64)
    }
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
    fn a_threshold_passes_as_many_strangers_as_it_is_asked_to_however_often_people_are_drawn() {
        let faces = faces(30);
        let scored = Scored::of(&faces, &dot, &dot);
        let mut random = fastrand::Rng::with_seed(TEST_SEED);
        for times in [vec![1; 30], drawn(30, &mut random), drawn(30, &mut random)] {
            // The same people as faces of their own.
            let copies = |face: &Known| std::iter::repeat_n(face.clone(), times[face.person] as usize);
            let all: Vec<Known> = faces.iter().flat_map(copies).collect();
            let [threshold, _] = scored.thresholds(0.01, &times);
            let (mut passed, mut equal, mut count) = (0, 0, 0);
            for (index, a) in all.iter().enumerate() {
                for b in all[index + 1..].iter().filter(|b| b.person != a.person) {
                    let score = dot(&a.values, &b.values);
                    (passed, equal, count) = (passed + u64::from(score > threshold), equal + u64::from(score == threshold), count + 1);
                }
            }
            let allowed = count / 100;
            assert!(passed <= allowed && passed + equal > allowed, "{passed} and {equal} of {count}");
        }
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
