//! Errors of searches among N people, from templates whose truth is known (open set).
//!
//! In: faces of known people, a rule that gives the threshold for a gallery. Out: FPIR, FNIR and rank-1 with
//! intervals by a bootstrap over people; over random splits where people are enrolled by chance.
//! Must not know: photos, where thresholds come from.

use crate::face::dot;
use crate::rates::Interval;

const RESAMPLES: usize = 1_000;
/// With fewer people on one side a bootstrap is too sure of itself.
const PEOPLE_OF_A_BOOTSTRAP: usize = 10;

/// A face of a known person.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Whose, as a number.
    pub person: usize,
    /// Overall quality, 0 to 1.
    pub quality: f32,
    /// The template's numbers.
    pub values: Vec<f32>,
}

/// What a search found for one probe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Searched {
    /// Whose the probe is, and how good.
    pub person: usize,
    /// See `person`: overall quality, 0 to 1.
    pub quality: f32,
    /// The closest similarity.
    pub best: f32,
    /// Whether the closest is the probe's own person; `None` where the person is not enrolled.
    pub is_right: Option<bool>,
}

/// A rate over searches, with an interval by people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Searches that ended so.
    pub events: u64,
    /// Searches.
    pub trials: u64,
    /// 95 %, by a bootstrap over people: searches of one person are not independent.
    pub interval: Interval,
}

impl Rate {
    /// As a number, 0 without searches.
    pub fn rate(&self) -> f64 {
        self.events as f64 / self.trials.max(1) as f64
    }
}

/// Looks every probe up among `enrolled`.
pub fn search(enrolled: &[Known], probes: &[Known]) -> Vec<Searched> {
    let of = |probe: &Known| {
        let scores = enrolled.iter().map(|known| (dot(&known.values, &probe.values), known.person));
        let (best, closest) = scores.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((-1.0, usize::MAX));
        let is_enrolled = enrolled.iter().any(|known| known.person == probe.person);
        Searched { person: probe.person, quality: probe.quality, best, is_right: is_enrolled.then_some(closest == probe.person) }
    };
    probes.iter().map(of).collect()
}

/// The share of strangers' searches that find somebody at `threshold`: FPIR.
pub fn fpir(searches: &[Searched], threshold: f32, seed: u64) -> Rate {
    rate(searches.iter().filter(|found| found.is_right.is_none()), |found| found.best >= threshold, seed)
}

/// The share of enrolled people's searches that do not find them at `threshold`: FNIR.
pub fn fnir(searches: &[Searched], threshold: f32, seed: u64) -> Rate {
    rate(searches.iter().filter(|found| found.is_right.is_some()), |found| found.best < threshold || found.is_right != Some(true), seed)
}

/// The share of enrolled people's searches whose closest is theirs, whatever the similarity.
pub fn rank_one(searches: &[Searched], seed: u64) -> Rate {
    rate(searches.iter().filter(|found| found.is_right.is_some()), |found| found.is_right == Some(true), seed)
}

/// The lowest threshold at which at most the share `fpir` of strangers' searches find somebody.
pub fn threshold_for(searches: &[Searched], fpir: f64) -> f32 {
    let mut strangers: Vec<f32> = searches.iter().filter(|found| found.is_right.is_none()).map(|found| found.best).collect();
    strangers.sort_by(|a, b| b.total_cmp(a));
    let allowed = (fpir * strangers.len() as f64 + 1e-9) as usize;
    strangers.get(allowed).map_or(-1.0, |score| score.next_up())
}

/// Draws the people anew, with replacement, and takes the middle of the rates that come out.
fn rate<'a>(searches: impl Iterator<Item = &'a Searched>, is_event: impl Fn(&Searched) -> bool, seed: u64) -> Rate {
    let mut by_person = std::collections::BTreeMap::<usize, (u64, u64)>::new();
    for found in searches {
        let (events, trials) = by_person.entry(found.person).or_default();
        *events += u64::from(is_event(found));
        *trials += 1;
    }
    let counts: Vec<(u64, u64)> = by_person.into_values().collect();
    pooled(&counts, seed)
}

/// The rate of what is counted by person, as events and trials.
pub fn pooled(counts: &[(u64, u64)], seed: u64) -> Rate {
    let sum = |counts: &mut dyn Iterator<Item = &(u64, u64)>| counts.fold((0, 0), |(events, trials), (e, t)| (events + e, trials + t));
    let (events, trials) = sum(&mut counts.iter());
    let mut random = fastrand::Rng::with_seed(seed);
    let mut draw = || {
        let (events, trials) = sum(&mut (0..counts.len()).map(|_| &counts[random.usize(0..counts.len())]));
        events as f64 / trials.max(1) as f64
    };
    let resampled = if counts.is_empty() { Vec::new() } else { (0..RESAMPLES).map(|_| draw()).collect() };
    let resampled = Interval::of_resamples(resampled);
    // Where hardly anything, or hardly anything else, was seen the resamples are nearly all alike, and know less than they seem to: then
    // people are the trials, since searches of one are not.
    let people = counts.len() as u64;
    let share = events as f64 / trials.max(1) as f64;
    let counted = crate::rates::wilson((share * people as f64).round() as u64, people);
    let (seen, unseen) = (counts.iter().filter(|(events, _)| *events > 0).count(), counts.iter().filter(|(e, t)| e < t).count());
    let interval = match resampled {
        Some(found) if seen.min(unseen) >= PEOPLE_OF_A_BOOTSTRAP => found,
        Some(found) => Interval { low: found.low.min(counted.low), high: found.high.max(counted.high) },
        None => counted,
    };
    Rate { events, trials, interval }
}

/// Who is enrolled in one of several random splits, and who stays a stranger.
pub struct Split {
    /// One face of each enrolled person.
    pub enrolled: Vec<Known>,
    /// The enrolled people's other faces.
    pub mated: Vec<Known>,
    /// One face of everybody else.
    pub strangers: Vec<Known>,
}

/// Enrols `count` people of `faces` by one face each, by chance; of everybody else one face is a probe. `None` where
/// there are not more people than that.
pub fn split(faces: &[Known], count: usize, random: &mut fastrand::Rng) -> Option<Split> {
    let mut by_person = std::collections::BTreeMap::<usize, Vec<&Known>>::new();
    faces.iter().for_each(|face| by_person.entry(face.person).or_default().push(face));
    let mut people: Vec<Vec<&Known>> = by_person.into_values().collect();
    if people.len() <= count {
        return None;
    }
    random.shuffle(&mut people);
    people.iter_mut().for_each(|faces| random.shuffle(faces));
    let (enrolled, strangers) = people.split_at(count);
    let one = |people: &[Vec<&Known>]| people.iter().filter_map(|faces| faces.first().map(|face| (*face).clone())).collect();
    let mated = enrolled.iter().flat_map(|faces| faces.iter().skip(1)).map(|face| (*face).clone()).collect();
    Some(Split { enrolled: one(enrolled), mated, strangers: one(strangers) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 3;

    /// A unit vector at an angle, in degrees.
    fn at(person: usize, degrees: f32) -> Known {
        let (sin, cos) = degrees.to_radians().sin_cos();
        Known { person, quality: 1.0, values: vec![cos, sin] }
    }

    #[test]
    fn everybody_is_found_right_wrongly_or_not_at_all() {
        let enrolled = [at(1, 0.0), at(2, 90.0)];
        let probes = [at(1, 10.0), at(2, 30.0), at(3, 100.0), at(4, 45.0)];
        let found = search(&enrolled, &probes);
        assert_eq!(found.iter().map(|found| found.is_right).collect::<Vec<_>>(), [Some(true), Some(false), None, None]);
        let (strangers, missed) = (fpir(&found, 0.8, SEED), fnir(&found, 0.8, SEED));
        assert_eq!((strangers.events, strangers.trials, missed.events, missed.trials), (1, 2, 1, 2));
        assert_eq!(rank_one(&found, SEED).rate(), 0.5);
        assert!(strangers.interval.holds(0.5), "{strangers:?}");
        let threshold = threshold_for(&found, 0.5);
        assert_eq!(fpir(&found, threshold, SEED).events, 1);
        assert_eq!(fpir(&found, threshold_for(&found, 0.49), SEED).events, 0);
    }

    #[test]
    fn nobody_is_both_enrolled_and_a_stranger() {
        println!("seed {SEED}");
        let faces: Vec<Known> = (0..30).flat_map(|person| [at(person, person as f32), at(person, person as f32 + 0.5)]).collect();
        let mut random = fastrand::Rng::with_seed(SEED);
        let Split { enrolled, mated, strangers } = split(&faces, 10, &mut random).expect("there are enough");
        assert_eq!((enrolled.len(), mated.len(), strangers.len()), (10, 10, 20));
        assert!(strangers.iter().all(|stranger| enrolled.iter().all(|known| known.person != stranger.person)));
        assert!(mated.iter().all(|probe| enrolled.iter().any(|known| known.person == probe.person && known.values != probe.values)));
        assert!(split(&faces, 30, &mut random).is_none());
    }

    #[test]
    fn searches_of_one_person_are_no_independent_trials() {
        let of = |people: usize, each: u64| {
            pooled(&(0..people).map(|i| (if i < people / 2 { each } else { 0 }, each)).collect::<Vec<_>>(), SEED)
        };
        let width = |rate: Rate| rate.interval.high - rate.interval.low;
        assert!(width(of(10, 100)) > 3.0 * width(of(1_000, 1)), "a thousand searches each");
        assert!(pooled(&[(0, 100); 6], SEED).interval.high > 0.3, "nothing seen of six people is not nothing there");
        assert!(pooled(&[(9, 9); 6], SEED).interval.low < 0.7);
        // One error seen shows no less than none.
        let highs: Vec<f64> =
            (0..4).map(|seen| pooled(&(0..600).map(|i| (u64::from(i < seen), 1)).collect::<Vec<_>>(), SEED).interval.high).collect();
        assert!(highs.is_sorted_by(|a, b| a < b), "{highs:?}");
    }
}
