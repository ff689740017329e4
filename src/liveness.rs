//! What live scores say of a visitor: how those of several shots become one, and when that is suspicious. Pure.
//!
//! In: the live score and the quality of each shot. Out: one score, and whether the visitor is suspected to be a picture.
//! Drops all but the newest `SHOTS_MAX` shots: what was alive an hour ago says nothing of what is held up now.
//! Must not know: the model, pixels, who the visitor is.

use std::collections::VecDeque;

use crate::config::{RecognitionConfig, SuspicionChoice};

/// So many shots are put together, the newest.
const SHOTS_MAX: usize = 8;
/// A single shot that looks like a picture is one in six of living people's: two make a suspicion.
const SHOTS_FOR_SUSPICION: usize = 2;
/// Who was named, or refused for looking like a picture, stays so until the score is beyond the least by this much.
const CLEARLY: f32 = 0.1;

/// What is suspicious, and what follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LivePolicy {
    /// Whoever scores less is suspected to be a picture, 0 to 1.
    pub score_min: f32,
    /// Whether nobody is named then.
    pub refuses: bool,
}

impl LivePolicy {
    /// As the configuration says.
    pub fn of(config: &RecognitionConfig) -> Self {
        Self { score_min: config.live_score_min, refuses: config.suspected_attack == SuspicionChoice::Refuse }
    }

    /// Whether a photo's only score is suspicious; where none was measured nothing is.
    pub fn suspects(&self, score: Option<f32>) -> bool {
        score.is_some_and(|score| score < self.score_min)
    }
}

/// Whether a visitor is suspected to be a picture that is held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// Nothing was measured, or it looks alive.
    None,
    /// It looks like a picture, by too little to say so: another shot will tell.
    Unsure,
    /// It looks like a picture.
    Suspected,
}

/// The live scores of one visitor's newest shots.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LiveEvidence {
    /// Score and weight, the newest last.
    shots: VecDeque<(f32, f32)>,
    /// A decision was due, so that one shot has to do.
    due: bool,
}

impl LiveEvidence {
    /// Adds a shot's score, 0 to 1, that weighs as much as its quality, above 0.
    pub fn add(&mut self, score: f32, weight: f32) {
        if self.shots.len() >= SHOTS_MAX {
            self.shots.pop_front();
        }
        self.shots.push_back((score, weight));
    }

    /// The visitor was out of sight: what comes back may be a picture of who was there.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// A decision is due by what there is, if there is anything.
    pub fn decide(&mut self) {
        self.due = !self.shots.is_empty();
    }

    /// The mean of the shots' scores, weighted by quality. Scores lie near 0 or near 1, so that their mean is the share of
    /// the shots that look alive, and 0.5 of it is where their median turns, too; but a mean still says how narrow it was.
    pub fn score(&self) -> Option<f32> {
        let weights: f32 = self.shots.iter().map(|(_, weight)| weight).sum();
        let sum: f32 = self.shots.iter().map(|(score, weight)| score * weight).sum();
        (weights > 0.0).then(|| sum / weights)
    }

    /// What the score amounts to.
    pub fn suspicion(&self, policy: &LivePolicy) -> Suspicion {
        if !policy.suspects(self.score()) {
            Suspicion::None
        } else if self.shots.len() >= SHOTS_FOR_SUSPICION || self.due {
            Suspicion::Suspected
        } else {
            Suspicion::Unsure
        }
    }

    /// Whether it looks so much like a picture that a name is taken back.
    pub fn is_clearly_suspected(&self, policy: &LivePolicy) -> bool {
        // A least score near 0 would be out of reach otherwise.
        let below = LivePolicy { score_min: (policy.score_min - CLEARLY).max(policy.score_min / 2.0), ..*policy };
        self.suspicion(&below) == Suspicion::Suspected
    }

    /// Whether it looks so much alive that a refusal is taken back.
    pub fn is_clearly_alive(&self, policy: &LivePolicy) -> bool {
        // A least score near 1 would be out of reach otherwise.
        self.score().is_none_or(|score| score >= (policy.score_min + CLEARLY).min(1.0 - (1.0 - policy.score_min) / 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: LivePolicy = LivePolicy { score_min: 0.5, refuses: false };

    fn of(shots: &[(f32, f32)]) -> LiveEvidence {
        let mut evidence = LiveEvidence::default();
        shots.iter().for_each(|(score, weight)| evidence.add(*score, *weight));
        evidence
    }

    #[test]
    fn the_score_is_the_mean_of_the_shots_weighted_by_quality() {
        assert_eq!(of(&[]).score(), None);
        assert_eq!(of(&[(0.9, 0.4)]).score(), Some(0.9));
        let score = of(&[(0.8, 0.75), (0.0, 0.25)]).score().expect("two shots");
        assert!((score - 0.6).abs() < 1e-6, "{score}");
    }

    #[test]
    fn only_the_newest_eight_shots_count_and_none_from_before_an_absence() {
        let mut evidence = of(&[(1.0, 1.0); 100]);
        assert_eq!(evidence.score(), Some(1.0));
        (0..8).for_each(|_| evidence.add(0.0, 1.0));
        assert_eq!(evidence.score(), Some(0.0), "an hour of a living face does not vouch for a picture");
        evidence.decide();
        evidence.forget();
        evidence.add(0.1, 1.0);
        assert_eq!(evidence.suspicion(&POLICY), Suspicion::Unsure, "one shot of whoever came back");
    }

    #[test]
    fn one_shot_is_no_suspicion_unless_a_decision_is_due() {
        assert_eq!(of(&[]).suspicion(&POLICY), Suspicion::None, "nothing was measured");
        assert_eq!(of(&[(0.5, 1.0)]).suspicion(&POLICY), Suspicion::None);
        let mut one = of(&[(0.49, 1.0)]);
        assert_eq!(one.suspicion(&POLICY), Suspicion::Unsure);
        one.decide();
        assert_eq!(one.suspicion(&POLICY), Suspicion::Suspected);
        let mut late = of(&[]);
        late.decide();
        late.add(0.2, 1.0);
        assert_eq!(late.suspicion(&POLICY), Suspicion::Unsure, "a decision without a shot says nothing of the first one");
        assert_eq!(of(&[(0.49, 1.0), (0.2, 1.0)]).suspicion(&POLICY), Suspicion::Suspected);
        assert_eq!(of(&[(0.2, 1.0), (0.9, 1.0)]).suspicion(&POLICY), Suspicion::None);
    }

    #[test]
    fn between_two_bounds_whatever_was_told_stays() {
        let around = |score| of(&[(score, 1.0); 2]);
        assert!(!around(0.45).is_clearly_suspected(&POLICY) && around(0.35).is_clearly_suspected(&POLICY));
        assert!(!around(0.55).is_clearly_alive(&POLICY) && around(0.65).is_clearly_alive(&POLICY));
        let strict = LivePolicy { score_min: 0.98, ..POLICY };
        assert!(around(0.995).is_clearly_alive(&strict) && !around(0.985).is_clearly_alive(&strict));
        let lax = LivePolicy { score_min: 0.1, ..POLICY };
        assert!(around(0.04).is_clearly_suspected(&lax) && !around(0.06).is_clearly_suspected(&lax));
    }
}
