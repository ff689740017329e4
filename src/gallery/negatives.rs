//! Faces that must never be taken for a given subject.
//!
//! In: negative samples, as mutations bring and take them. Out: whether one of them is at least as
//! close to a probe as the subject is.
//! Must not know: segments, versions.

use std::collections::HashMap;

use super::change::Change;
use crate::event::Candidate;
use crate::face::{Template, dot};
use crate::subject::{SampleId, SubjectUid};

/// The negative templates of the few subjects that have any.
#[derive(Clone, Default)]
pub(super) struct Negatives {
    of: HashMap<SubjectUid, Vec<(SampleId, Template)>>,
}

impl Negatives {
    /// Adds a template that speaks against `subject`.
    pub fn push(&mut self, subject: SubjectUid, (sample, template): (SampleId, Template)) {
        self.of.entry(subject).or_default().push((sample, template));
    }

    /// Whether `change` takes any of these away.
    pub fn are_touched_by(&self, change: &Change) -> bool {
        !change.touches_nothing_old() && self.of.iter().any(|(subject, of)| of.iter().any(|(sample, _)| change.erases(*subject, *sample)))
    }

    /// Takes those away that `change` erases.
    pub fn remove(&mut self, change: &Change) {
        self.of.retain(|subject, of| {
            of.retain(|(sample, _)| !change.erases(*subject, *sample));
            !of.is_empty()
        });
    }

    /// Whether the probe is at least as close to a negative sample of the candidate's as to the
    /// candidate: then it is somebody else.
    pub fn forbid(&self, candidate: Candidate, probe: &[f32]) -> bool {
        let Some(of) = self.of.get(&candidate.subject) else { return false };
        of.iter().any(|(_, template)| dot(template.values(), probe) >= candidate.similarity)
    }
}
