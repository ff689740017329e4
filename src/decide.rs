//! Similarity, gallery and policy → a decision with its reason. Pure.
//!
//! In: the closest subjects and the policy in force. Out: [`Decision`]s that say what they rest on.
//! The set is open: whoever is not close enough is nobody.
//! Must not know: templates, how candidates were found, time.

mod policy;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::calibration::Asked;
use crate::event::{Candidate, Decision, Purpose, Rejection};
use crate::subject::{Subject, SubjectUid};
pub use policy::{InForce, Policy, PolicyError, TARGET_RATE_DEFAULT, Target, ThresholdFacts};

/// What a probe was compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The closest subjects, best first; at least [`candidates_needed`] where the gallery has them.
    pub candidates: Vec<Candidate>,
    /// What is known of the closest one, whose own target decides where there is one.
    pub closest: Option<Arc<Subject>>,
    /// How good the probe was, overall, 0 to 1.
    pub quality: f32,
    /// How many subjects the gallery holds.
    pub gallery_subjects: u64,
    /// How often somebody was compared: as many templates as they have, for one picture; for a visit,
    /// [`visit_comparisons`] of them.
    pub comparisons: u64,
    /// The gallery's version.
    pub gallery_version: u64,
    /// The template space.
    pub space: String,
    /// The trained head that put the candidates in order, where one did; see [`rerank`].
    pub head: Option<&'static str>,
}

/// A visit is asked several times, each time with one shot more, and is decided by the first answer that suffices: strangers who
/// come nearer over four shots were named 1.6 times as often as by one good photo (`script/bench accuracy`, when this was first
/// measured: 1.3 % of visits beside 0.83 % of photos, with 200 people enrolled; it also tells what each half of the people says
/// of the other).
const LOOKS_OF_A_VISIT: f64 = 1.6;

/// As how many independent comparisons a visit counts in a gallery of `templates`: the rate that is asked for is one of visits.
pub fn visit_comparisons(templates: u64) -> u64 {
    (templates as f64 * LOOKS_OF_A_VISIT).ceil() as u64
}

/// How many of the closest subjects are put in order by a trained head, where one is in force.
const RERANKED: usize = 5;

/// How many of the closest subjects a decision needs: the second is told, and a head puts more in order.
pub fn candidates_needed(policy: &Policy) -> usize {
    if policy.chooser().is_some() { RERANKED } else { 2 }
}

/// Puts the subject first that the head in force finds closest, of those that would match. Who would not match by the cosine is
/// never brought in by it, so strangers are taken for somebody exactly as often as before: only who that is changes.
///
/// `who` is what is known of a candidate; `score` is how the head scores the probe beside their templates. They are asked only where
/// two of the candidates would match.
pub fn rerank(
    policy: &Policy,
    compared: &mut Compared,
    (who, score): (impl Fn(SubjectUid) -> Option<Arc<Subject>>, impl Fn(SubjectUid) -> Option<f32>),
) {
    if policy.chooser().is_none() {
        return;
    }
    let asked = Asked { comparisons: compared.comparisons, quality: compared.quality };
    let matches = |candidate: &Candidate| {
        let subject = who(candidate.subject);
        verify(policy.in_force(Purpose::Identify, subject.as_deref(), asked).threshold, candidate.similarity)
    };
    let nearest = compared.candidates.iter().take(RERANKED).enumerate();
    let matching: Vec<usize> = nearest.filter(|(_, candidate)| matches(candidate)).map(|(index, _)| index).collect();
    // Where the closest does not match, nobody does: those behind it may have laxer targets, and would never be asked.
    if matching.len() < 2 || matching[0] != 0 {
        return;
    }
    let scored = matching.into_iter().filter_map(|index| Some((score(compared.candidates[index].subject)?, index)));
    // Of equal scores the more similar one stays before the other.
    let Some((_, best)) = scored.reduce(|best, next| if next.0 > best.0 { next } else { best }) else { return };
    compared.candidates[..=best].rotate_right(1);
    compared.closest = who(compared.candidates[0].subject);
    compared.head = policy.chooser().map(|head| head.rule.name());
}

/// The open-set decision: the closest subject when `similarity >= threshold`, else nobody.
/// Without candidates the gallery is empty, or everybody in it has expired.
pub fn identify(policy: &Policy, compared: &Compared) -> Decision {
    let mut decision = undecided(policy, compared);
    let Some(best) = compared.candidates.first() else {
        decision.rejection = Some(Rejection::EmptyGallery);
        return decision;
    };
    decision.similarity = Some(best.similarity);
    decision.runner_up = compared.candidates.get(1).copied();
    decision.margin = decision.runner_up.map(|runner_up| best.similarity - runner_up.similarity);
    if verify(decision.threshold, best.similarity) {
        decision.subject = Some(best.subject);
    } else {
        decision.rejection = Some(Rejection::BelowThreshold);
    }
    decision
}

/// The 1:1 decision: `similarity >= threshold` is a match. NaN never is.
pub fn verify(threshold: f32, similarity: f32) -> bool {
    similarity >= threshold
}

/// A decision without a comparison: no shot was usable.
pub fn undecidable(policy: &Policy, compared: &Compared) -> Decision {
    Decision { rejection: Some(Rejection::NoUsableShot), ..undecided(policy, compared) }
}

fn undecided(policy: &Policy, compared: &Compared) -> Decision {
    let asked = Asked { comparisons: compared.comparisons, quality: compared.quality };
    let InForce { threshold, target_rate, expected_rate, basis, scope, .. } =
        policy.in_force(Purpose::Identify, compared.closest.as_deref(), asked);
    Decision {
        purpose: Purpose::Identify,
        subject: None,
        rejection: None,
        similarity: None,
        threshold,
        target_rate,
        expected_rate,
        basis: Some(basis),
        scope: Some(scope),
        runner_up: None,
        margin: None,
        gallery_subjects: compared.gallery_subjects,
        gallery_version: compared.gallery_version,
        space: compared.space.clone(),
        head: compared.head.map(str::to_owned),
    }
}
