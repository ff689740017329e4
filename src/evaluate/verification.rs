//! Errors of 1:1 comparisons, from scores whose truth is known.
//!
//! In: scores with their labels and folds. Out: accuracy by cross-validation (LFW View 2), TAR at given FARs, the
//! errors at a threshold, the curve of both errors. A pair of which a photo shows no face is never accepted.
//! Must not know: photos, templates.

use crate::rates::{Interval, mean_and_deviation, rule_of_three, wilson};

/// FARs at which the TAR is told.
pub const FARS: [f64; 3] = [1e-2, 1e-3, 1e-4];

/// A comparison whose truth is known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// How alike both are; `None` where one of them shows no face.
    pub score: Option<f32>,
    /// Whether both show one person.
    pub same: bool,
    /// In which fold it is tested.
    pub fold: usize,
}

/// A share of comparisons.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// How many.
    pub events: u64,
    /// Of how many.
    pub trials: u64,
}

impl Share {
    /// As a number, 0 without trials.
    pub fn rate(self) -> f64 {
        self.events as f64 / self.trials.max(1) as f64
    }

    /// With 95 % confidence, as of independent trials.
    pub fn interval(self) -> Interval {
        wilson(self.events, self.trials)
    }
}

/// The true accept rate where strangers are accepted at the rate `far`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrueAccepts {
    /// The false accept rate asked for.
    pub far: f64,
    /// The threshold at which it is kept.
    pub threshold: f32,
    /// Mated comparisons that reach it.
    pub accepted: Share,
    /// Whether there are comparisons enough (the rule of three).
    pub is_supported: bool,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// Accuracy of each fold, at the threshold that is best on the others.
    pub folds: Vec<f64>,
    /// The thresholds of the folds.
    pub thresholds: Vec<f32>,
    /// By FAR.
    pub true_accepts: Vec<TrueAccepts>,
    /// Comparisons with a photo that shows no face.
    pub without_face: u64,
    /// Each threshold with the share of strangers that reach it and of mates that do not: FMR and FNMR, by rising threshold.
    pub curve: Vec<(f32, f64, f64)>,
}

impl Verification {
    /// Of `comparisons`, of which there are mated and non-mated ones.
    pub fn of(comparisons: &[Comparison]) -> Self {
        let folds = comparisons.iter().map(|comparison| comparison.fold + 1).max().unwrap_or(0);
        let mut accuracies = Vec::with_capacity(folds);
        let mut thresholds = Vec::with_capacity(folds);
        for fold in 0..folds {
            let (tested, others): (Vec<_>, Vec<_>) = comparisons.iter().copied().partition(|comparison| comparison.fold == fold);
            // A list of one fold is tested on itself, for want of others.
            let threshold = best_threshold(if others.is_empty() { &tested } else { &others });
            accuracies.extend((!tested.is_empty()).then(|| accuracy(&tested, threshold)));
            thresholds.push(threshold);
        }
        let curve = curve(comparisons);
        let true_accepts = FARS.map(|far| true_accepts(comparisons, far)).to_vec();
        let without_face = comparisons.iter().filter(|comparison| comparison.score.is_none()).count() as u64;
        Self { folds: accuracies, thresholds, true_accepts, without_face, curve }
    }

    /// Mean and standard deviation over the folds.
    pub fn accuracy(&self) -> (f64, f64) {
        mean_and_deviation(&self.folds)
    }

    /// The rate at which both errors are equal, in between the two thresholds where they cross; `None` where they do not, since too many
    /// pairs were not compared.
    pub fn equal_error_rate(&self) -> Option<f64> {
        // Above all scores nobody is accepted.
        let points = self.curve.iter().map(|(_, fmr, fnmr)| (*fmr, *fnmr)).chain(std::iter::once((0.0, 1.0)));
        let mut before = None;
        for (fmr, fnmr) in points {
            if fnmr >= fmr {
                let (fmr_before, fnmr_before) = before?;
                let share = (fmr_before - fnmr_before) / (fmr_before - fnmr_before + fnmr - fmr);
                return Some(fmr_before + share * (fmr - fmr_before));
            }
            before = Some((fmr, fnmr));
        }
        None
    }
}

/// Strangers that `threshold` accepts, and mates that it rejects: FMR and FNMR.
pub fn errors_at(comparisons: &[Comparison], threshold: f32) -> (Share, Share) {
    let accepted = |comparison: &&Comparison| comparison.score.is_some_and(|score| score >= threshold);
    let of = |same: bool| comparisons.iter().filter(move |comparison| comparison.same == same);
    let false_matches = Share { events: of(false).filter(accepted).count() as u64, trials: of(false).count() as u64 };
    let matches = of(true).filter(accepted).count() as u64;
    let mated = of(true).count() as u64;
    (false_matches, Share { events: mated - matches, trials: mated })
}

/// The share of comparisons that are decided rightly.
fn accuracy(comparisons: &[Comparison], threshold: f32) -> f64 {
    let right = comparisons.iter().filter(|comparison| comparison.score.is_some_and(|score| score >= threshold) == comparison.same);
    right.count() as f64 / comparisons.len().max(1) as f64
}

/// The threshold with the best accuracy: midway to the next lower score, as nothing tells where between.
fn best_threshold(comparisons: &[Comparison]) -> f32 {
    let mut scored: Vec<(f32, bool)> = comparisons.iter().filter_map(|comparison| Some((comparison.score?, comparison.same))).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    // Accepting nobody, all strangers are decided rightly.
    let (mut right, mut best, mut best_right) = (0_i64, f32::INFINITY, 0_i64);
    for (index, (score, same)) in scored.iter().enumerate() {
        right += if *same { 1 } else { -1 };
        let next = scored.get(index + 1).map_or(score - 1.0, |(next, _)| *next);
        if right > best_right && next < *score {
            (best, best_right) = (f32::midpoint(*score, next), right);
        }
    }
    best
}

fn true_accepts(comparisons: &[Comparison], far: f64) -> TrueAccepts {
    let mut strangers: Vec<f32> =
        comparisons.iter().filter(|comparison| !comparison.same).filter_map(|comparison| comparison.score).collect();
    strangers.sort_by(|a, b| b.total_cmp(a));
    let trials = comparisons.iter().filter(|comparison| !comparison.same).count();
    let allowed = (far * trials as f64 + 1e-9) as usize;
    // Just above the closest stranger who must not pass.
    let threshold = strangers.get(allowed).map_or(-1.0, |score| score.next_up());
    let (_, rejected) = errors_at(comparisons, threshold);
    let accepted = Share { events: rejected.trials - rejected.events, trials: rejected.trials };
    TrueAccepts { far, threshold, accepted, is_supported: far >= rule_of_three(trials as u64) }
}

fn curve(comparisons: &[Comparison]) -> Vec<(f32, f64, f64)> {
    let mut scored: Vec<(f32, bool)> = comparisons.iter().filter_map(|comparison| Some((comparison.score?, comparison.same))).collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0));
    let of = |same: bool| comparisons.iter().filter(|comparison| comparison.same == same).count();
    let (mated, non_mated) = (of(true), of(false));
    let without = comparisons.iter().filter(|comparison| comparison.same && comparison.score.is_none()).count();
    let strangers = scored.iter().filter(|(_, same)| !same).count();
    let (mut reach, mut rejected) = (strangers, without);
    let mut points = Vec::with_capacity(scored.len());
    for same_score in scored.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        points.push((same_score[0].0, reach as f64 / non_mated.max(1) as f64, rejected as f64 / mated.max(1) as f64));
        let mates = same_score.iter().filter(|(_, same)| *same).count();
        reach -= same_score.len() - mates;
        rejected += mates;
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(score: f32, same: bool, fold: usize) -> Comparison {
        Comparison { score: Some(score), same, fold }
    }

    /// Ten folds of twenty comparisons, strangers below 0.4 and mates above, but for one of each.
    fn planted() -> Vec<Comparison> {
        let mut all = Vec::new();
        for fold in 0..10 {
            for i in 0..10 {
                all.push(of(0.01 * i as f32 + 0.001 * fold as f32, false, fold));
                all.push(of(0.6 + 0.01 * i as f32 + 0.001 * fold as f32, true, fold));
            }
        }
        all[0] = of(0.7, false, 0);
        all[1] = of(0.05, true, 0);
        all
    }

    #[test]
    fn accuracy_is_that_of_thresholds_chosen_on_other_folds() {
        let found = Verification::of(&planted());
        assert_eq!(found.folds.len(), 10);
        assert_eq!((found.folds[0], found.folds[9]), (0.9, 1.0));
        let (mean, deviation) = found.accuracy();
        assert!((mean - 0.99).abs() < 1e-12 && (deviation - 0.1 / 10_f64.sqrt()).abs() < 1e-12, "{mean} {deviation}");
        assert!(found.thresholds.iter().all(|threshold| (0.1..0.6).contains(threshold)));
    }

    #[test]
    fn a_rate_is_told_with_the_strangers_that_it_lets_in() {
        let found = Verification::of(&planted());
        let [at_percent, at_thousandth, _] = found.true_accepts[..] else { panic!("three") };
        assert!(
            (at_percent.accepted.rate() - 0.99).abs() < 1e-12 && !at_percent.is_supported,
            "100 strangers show 3 % at best: {at_percent:?}"
        );
        assert!(at_thousandth.threshold > 0.7 && at_thousandth.accepted.events == 0, "nobody may pass: {at_thousandth:?}");
        let (fmr, fnmr) = errors_at(&planted(), 0.5);
        assert_eq!((fmr, fnmr), (Share { events: 1, trials: 100 }, Share { events: 1, trials: 100 }));
        assert!(found.equal_error_rate().is_some_and(|rate| (rate - 0.01).abs() < 1e-12));
    }

    #[test]
    fn errors_cross_between_scores_and_nowhere_without_any() {
        let of = |pairs: &[Comparison]| Verification::of(pairs).equal_error_rate();
        let equal = |score| [of_one(score, true), of_one(score, false)];
        assert_eq!(of(&equal(0.4)), Some(0.5), "equal scores tell nobody apart");
        let mut between: Vec<Comparison> = (0..10).map(|_| of_one(0.5, true)).collect();
        between.extend([of_one(0.1, false), of_one(0.9, false)]);
        assert_eq!(of(&between), Some(0.5));
        assert_eq!(of(&[Comparison { score: None, same: true, fold: 0 }, Comparison { score: None, same: false, fold: 0 }]), None);
    }

    fn of_one(score: f32, same: bool) -> Comparison {
        of(score, same, 0)
    }

    #[test]
    fn a_pair_without_a_face_is_never_accepted() {
        let mut all = planted();
        all.push(Comparison { score: None, same: true, fold: 0 });
        all.push(Comparison { score: None, same: false, fold: 0 });
        let (fmr, fnmr) = errors_at(&all, -1.0);
        assert_eq!((fmr, fnmr), (Share { events: 100, trials: 101 }, Share { events: 1, trials: 101 }));
        assert_eq!(Verification::of(&all).without_face, 2);
    }

    #[test]
    fn the_curve_falls_and_rises_from_end_to_end() {
        let curve = Verification::of(&planted()).curve;
        assert!(curve.is_sorted_by(|a, b| a.0 < b.0 && a.1 >= b.1 && a.2 <= b.2));
        assert_eq!((curve[0].1, curve[0].2), (1.0, 0.0));
    }
}
