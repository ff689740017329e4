//! The best `k` distinct subjects of a scan.
//!
//! In: candidates in any order, several a subject. Out: the best of each subject, best first.
//! Drops: what is worse than the k-th best, by design.
//! Must not know: templates, rows.

use std::cmp::Ordering;

use crate::event::Candidate;

/// At most `k` subjects, best first; equal similarities are ordered by uid.
pub(super) struct Nearest {
    k: usize,
    best: Vec<Candidate>,
}

impl Nearest {
    /// Room for the best `k`.
    pub fn of(k: usize) -> Self {
        Self { k, best: Vec::new() }
    }

    /// Whether there are as many as are looked for.
    pub fn is_full(&self) -> bool {
        self.best.len() >= self.k
    }

    /// The least similarity that could be among the best: nearly every row of a scan has less.
    pub fn wanted(&self) -> f32 {
        if self.is_full() { self.best.last().map_or(f32::INFINITY, |worst| worst.similarity) } else { f32::NEG_INFINITY }
    }

    /// Whether a candidate of this similarity could be among the best.
    pub fn may_take(&self, similarity: f32) -> bool {
        similarity >= self.wanted()
    }

    /// Takes the candidate in, if it belongs there. A subject that was pushed out earlier comes
    /// back with the first row that is good enough, so nothing needs to be remembered of it.
    pub fn offer(&mut self, candidate: Candidate) {
        if let Some(known) = self.best.iter().position(|other| other.subject == candidate.subject) {
            if order(&candidate, &self.best[known]) != Ordering::Less {
                return;
            }
            self.best.remove(known);
        }
        let place = self.best.partition_point(|other| order(other, &candidate) == Ordering::Less);
        self.best.insert(place, candidate);
        self.best.truncate(self.k);
    }

    pub fn into_candidates(self) -> Vec<Candidate> {
        self.best
    }
}

/// Better candidates are less.
fn order(a: &Candidate, b: &Candidate) -> Ordering {
    // Unit vectors give no NaN, and 0 and -0 are one similarity.
    b.similarity.partial_cmp(&a.similarity).unwrap_or(Ordering::Equal).then_with(|| a.subject.cmp(&b.subject))
}
