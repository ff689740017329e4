//! Similarity, gallery and policy → a decision with its reason. Pure.
//!
//! In: the closest subjects and the policy in force. Out: [`Decision`]s that say what they rest on.
//! The set is open: whoever is not close enough is nobody.
//! Must not know: templates, how candidates were found, time.

use crate::event::{Candidate, Decision, Purpose, Rejection};

/// What decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The least cosine similarity that matches: `similarity >= threshold` is a match.
    pub threshold: f32,
    /// The error rate that the threshold stands for, where a calibration says so.
    pub target_rate: Option<f64>,
}

/// What a probe was compared with.
#[derive(Clone, Debug, PartialEq)]
pub struct Compared {
    /// The closest subjects, best first; at least two where the gallery has them.
    pub candidates: Vec<Candidate>,
    /// How many subjects the gallery holds.
    pub gallery_subjects: u64,
    /// The gallery's version.
    pub gallery_version: u64,
    /// The template space.
    pub space: String,
}

/// The open-set decision: the closest subject when `similarity >= threshold`, else nobody.
/// Without candidates the gallery is empty, or everybody in it has expired.
pub fn identify(policy: Policy, compared: &Compared) -> Decision {
    let mut decision = undecided(policy, Purpose::Identify, compared);
    let Some(best) = compared.candidates.first() else {
        decision.rejection = Some(Rejection::EmptyGallery);
        return decision;
    };
    decision.similarity = Some(best.similarity);
    decision.runner_up = compared.candidates.get(1).copied();
    decision.margin = decision.runner_up.map(|runner_up| best.similarity - runner_up.similarity);
    if verify(policy, best.similarity) {
        decision.subject = Some(best.subject);
    } else {
        decision.rejection = Some(Rejection::BelowThreshold);
    }
    decision
}

/// The 1:1 decision: `similarity >= threshold` is a match. NaN never is.
pub fn verify(policy: Policy, similarity: f32) -> bool {
    similarity >= policy.threshold
}

/// A decision without a comparison: no shot was usable.
pub fn undecidable(policy: Policy, purpose: Purpose, compared: &Compared) -> Decision {
    Decision { rejection: Some(Rejection::NoUsableShot), ..undecided(policy, purpose, compared) }
}

fn undecided(policy: Policy, purpose: Purpose, compared: &Compared) -> Decision {
    Decision {
        purpose,
        subject: None,
        rejection: None,
        similarity: None,
        threshold: policy.threshold,
        target_rate: policy.target_rate,
        runner_up: None,
        margin: None,
        gallery_subjects: compared.gallery_subjects,
        gallery_version: compared.gallery_version,
        space: compared.space.clone(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::subject::SubjectUid;

    const POLICY: Policy = Policy { threshold: 0.4, target_rate: Some(1e-3) };

    fn candidate(number: u128, similarity: f32) -> Candidate {
        Candidate { subject: SubjectUid(Uuid::from_u128(number)), similarity }
    }

    fn compared(candidates: &[Candidate]) -> Compared {
        let gallery_subjects = candidates.len() as u64;
        Compared { candidates: candidates.to_vec(), gallery_subjects, gallery_version: 7, space: "space".into() }
    }

    #[test]
    fn a_similarity_of_just_the_threshold_matches_and_the_next_lower_does_not() {
        for (similarity, subject, rejection) in [
            (0.4, Some(SubjectUid(Uuid::from_u128(1))), None),
            (0.4_f32.next_down(), None, Some(Rejection::BelowThreshold)),
            (f32::NAN, None, Some(Rejection::BelowThreshold)),
        ] {
            let decision = identify(POLICY, &compared(&[candidate(1, similarity), candidate(2, 0.1)]));
            assert_eq!((decision.subject, decision.rejection), (subject, rejection), "{similarity}");
            assert_eq!(verify(POLICY, similarity), subject.is_some(), "{similarity}");
        }
    }

    #[test]
    fn a_decision_says_what_it_rests_on() {
        let decision = identify(POLICY, &compared(&[candidate(1, 0.75), candidate(2, 0.25)]));
        assert_eq!((decision.similarity, decision.runner_up, decision.margin), (Some(0.75), Some(candidate(2, 0.25)), Some(0.5)));
        assert_eq!((decision.threshold, decision.target_rate, decision.purpose), (0.4, Some(1e-3), Purpose::Identify));
        assert_eq!((decision.gallery_subjects, decision.gallery_version, decision.space.as_str()), (2, 7, "space"));
    }

    #[test]
    fn an_only_subject_has_no_runner_up_and_an_empty_gallery_nobody() {
        let only = identify(POLICY, &compared(&[candidate(1, 0.9)]));
        assert_eq!((only.runner_up, only.margin), (None, None));
        let nobody = identify(POLICY, &compared(&[]));
        assert_eq!((nobody.subject, nobody.similarity, nobody.rejection), (None, None, Some(Rejection::EmptyGallery)));
    }

    #[test]
    fn without_a_usable_shot_nothing_is_compared() {
        let decision = undecidable(POLICY, Purpose::Identify, &compared(&[candidate(1, 0.9)]));
        assert_eq!((decision.subject, decision.similarity, decision.rejection), (None, None, Some(Rejection::NoUsableShot)));
    }
}
