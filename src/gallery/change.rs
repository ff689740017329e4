//! What the mutations of one call come to: a fold of their order into sets.
//!
//! In: mutations, in order. Out: which old rows go, which new rows come, who is called what.
//! Must not know: segments, versions.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::face::Template;
use crate::mutation::Mutation;
use crate::subject::{Sample, SampleId, Subject, SubjectUid};

/// A template to be added.
pub struct Row {
    /// Whose it is.
    pub subject: SubjectUid,
    /// The sample that it was made from.
    pub sample: SampleId,
    /// Whether it shows somebody else, who must never be taken for the subject.
    pub negative: bool,
    /// Vector and space.
    pub template: Template,
}

/// The sum of one call's mutations.
#[derive(Default)]
pub(super) struct Change {
    /// What each named subject is at the end; `None` once erased.
    pub subjects: HashMap<SubjectUid, Option<Arc<Subject>>>,
    /// Subjects whose old rows have to learn of another expiry.
    pub expiry_changed: HashMap<SubjectUid, Timestamp>,
    /// Rows in the order of their mutations.
    pub added: Vec<Row>,
    /// Erased subjects and samples, each with the number of rows that were added before: an
    /// erasure reaches what came before it and nothing after.
    erased_subjects: HashMap<SubjectUid, usize>,
    erased_samples: HashMap<SampleId, usize>,
}

impl Change {
    /// Takes the next mutation in.
    pub fn note(&mut self, mutation: &Mutation) {
        match mutation {
            Mutation::PutSubject(subject) | Mutation::RestoreSubject(subject) => self.note_subject(subject.clone()),
            Mutation::PutSample { sample, template, .. }
            | Mutation::RestoreSample { sample, template }
            | Mutation::PutTemplate { sample, template } => {
                let Sample { id, subject, negative, .. } = *sample;
                self.added.push(Row { subject, sample: id, negative, template: template.clone() });
            }
            Mutation::EraseSubject(uid) | Mutation::RetireSubject(uid) => {
                self.subjects.insert(*uid, None);
                self.erased_subjects.insert(*uid, self.added.len());
            }
            Mutation::EraseSample { sample, .. } | Mutation::RetireSample { sample, .. } => {
                self.erased_samples.insert(*sample, self.added.len());
            }
        }
    }

    pub fn note_subject(&mut self, subject: Subject) {
        self.subjects.insert(subject.uid, Some(Arc::new(subject)));
    }

    /// Whether a row that was there before the call goes.
    pub fn erases(&self, subject: SubjectUid, sample: SampleId) -> bool {
        self.erased_subjects.contains_key(&subject) || self.erased_samples.contains_key(&sample)
    }

    /// Whether any of the rows of these owners, in columns, goes or has to learn of another expiry.
    pub fn touches(&self, subjects: &[SubjectUid], samples: &[SampleId]) -> bool {
        is_any_in(&self.erased_subjects, subjects) || is_any_in(&self.expiry_changed, subjects) || is_any_in(&self.erased_samples, samples)
    }

    /// Whether the row added as number `index` is still there at the end of the call.
    pub fn keeps_added(&self, index: usize, row: &Row) -> bool {
        let outlives = |before: Option<&usize>| before.is_none_or(|before| index >= *before);
        outlives(self.erased_subjects.get(&row.subject)) && outlives(self.erased_samples.get(&row.sample))
    }

    /// Whether all rows that were there before the call stay as they are.
    pub fn touches_nothing_old(&self) -> bool {
        self.erased_subjects.is_empty() && self.erased_samples.is_empty() && self.expiry_changed.is_empty()
    }
}

/// Whether a key of `named` is among `ids`. Most changes name one: to look for it among the ids is several times quicker than to
/// look each of the ids up.
fn is_any_in<K: Eq + Hash, V>(named: &HashMap<K, V>, ids: &[K]) -> bool {
    const FEW: usize = 8;
    if named.len() <= FEW { named.keys().any(|key| ids.contains(key)) } else { ids.iter().any(|id| named.contains_key(id)) }
}
