//! Looks a visitor up and decides, by a policy and one version of the gallery.
//!
//! In: a visitor's fused template. Out: decisions.
//! Must not know: tracks, visits, when it is asked.

use crate::decide::{self, Compared, Policy};
use crate::event::{Candidate, Decision};
use crate::face::{Probe, Template, TemplateError};
use crate::gallery::{GalleryVersion, Score, Search};
use crate::subject::SubjectUid;

/// Whom `gallery` knows by `fused`, of those that `in_force` knows, too: in a gallery that follows another one somebody may still
/// stand who was erased there.
pub(super) fn compare(
    policy: &Policy,
    fused: &Probe,
    (gallery, in_force): (&GalleryVersion, &GalleryVersion),
) -> Result<Decision, TemplateError> {
    let is_known = |subject: SubjectUid| in_force.subject(subject).is_some();
    let k = decide::candidates_needed(policy);
    let candidates = if std::ptr::eq(gallery, in_force) {
        gallery.search(&fused.template, k)?
    } else {
        gallery.search_all(&[&fused.template], &Search { k, admits: &is_known, cores_max: None })?.pop().unwrap_or_default()
    };
    let mut compared = compared(candidates, fused.quality, gallery);
    if let Some(head) = policy.chooser() {
        let by_head = |a: &[f32], b: &[f32]| head.score(a, b);
        let score = |subject| gallery.closeness_by(&fused.template, subject, Some(&by_head as Score<'_>)).ok().flatten()?.score;
        decide::rerank(policy, &mut compared, (|subject| gallery.subject(subject), score));
    }
    Ok(decide::identify(policy, &compared))
}

/// Whether a shot by itself is similar enough to the subject of a decision.
pub(super) fn shows(shot: &Template, decision: &Decision, gallery: &GalleryVersion) -> bool {
    let closeness = decision.subject.and_then(|subject| gallery.similarity_to(shot, subject).ok().flatten());
    closeness.is_some_and(|closeness| closeness.similarity >= decision.threshold && !closeness.is_somebody_else)
}

/// As [`compare`]; without a template that can be compared there is nobody to name.
pub(super) fn judge(policy: &Policy, fused: Option<&Probe>, (gallery, in_force): (&GalleryVersion, &GalleryVersion)) -> Decision {
    let decision = fused.and_then(|fused| compare(policy, fused, (gallery, in_force)).ok());
    decision.unwrap_or_else(|| decide::undecidable(policy, &compared(Vec::new(), 0.0, gallery)))
}

fn compared(candidates: Vec<Candidate>, quality: f32, gallery: &GalleryVersion) -> Compared {
    Compared {
        closest: candidates.first().and_then(|closest| gallery.subject(closest.subject)),
        candidates,
        quality,
        comparisons: decide::visit_comparisons(gallery.template_count()),
        gallery_subjects: gallery.subject_count(),
        gallery_version: gallery.version(),
        space: gallery.space().to_string(),
        head: None,
    }
}
