//! A run of gallery rows that lie together in memory and never change once they are published.
//!
//! In: rows. Out: rows, and copies without what a change erases.
//! Must not know: versions, who searches.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::change::{Change, Row};
use super::codes::Codes;
use super::pages;
use crate::clock::Timestamp;
use crate::subject::{SampleId, SubjectUid};

/// Rows, column by column: a scan reads the codes of all rows, and the numbers of a few.
pub(super) struct Segment {
    rows_max: usize,
    dimension: usize,
    numbers: Vec<f32>,
    /// What a scan reads of all rows.
    pub codes: Codes,
    /// Whose each row is.
    pub subjects: Vec<SubjectUid>,
    samples: Vec<SampleId>,
    /// When each row's subject stops matching.
    pub expires: Vec<Timestamp>,
}

impl Segment {
    /// An empty segment of at most `rows_max` rows, with room for `awaited` of them.
    pub fn with_room_for(awaited: usize, rows_max: usize, dimension: usize) -> Self {
        let rows = awaited.min(rows_max);
        Self {
            rows_max,
            dimension,
            numbers: Vec::with_capacity(rows * dimension),
            codes: Codes::with_room_for(rows, dimension),
            subjects: Vec::with_capacity(rows),
            samples: Vec::with_capacity(rows),
            expires: Vec::with_capacity(rows),
        }
    }

    /// An empty segment like this one.
    pub fn next_with_room_for(&self, awaited: usize) -> Self {
        Self::with_room_for(awaited, self.rows_max, self.dimension)
    }

    /// The same rows, to be continued.
    pub fn copy_with_room_for(&self, awaited: usize) -> Self {
        let mut copy = self.next_with_room_for(self.rows() + awaited);
        copy.numbers.extend_from_slice(&self.numbers);
        copy.codes = self.codes.copy_with_room_for(self.rows() + awaited);
        copy.subjects.extend_from_slice(&self.subjects);
        copy.samples.extend_from_slice(&self.samples);
        copy.expires.extend_from_slice(&self.expires);
        copy
    }

    /// Prepares for being scanned many times: no row comes or goes any more.
    pub fn settle(&self) {
        pages::enlarge(&self.numbers);
        self.codes.settle();
    }

    pub fn rows(&self) -> usize {
        self.subjects.len()
    }

    pub fn rows_max(&self) -> usize {
        self.rows_max
    }

    pub fn is_full(&self) -> bool {
        self.rows() >= self.rows_max
    }

    pub fn vector(&self, row: usize) -> &[f32] {
        &self.numbers[row * self.dimension..(row + 1) * self.dimension]
    }

    pub fn push(&mut self, row: &Row, expire: Timestamp) {
        self.numbers.extend_from_slice(row.template.values());
        self.codes.push(row.template.values());
        self.subjects.push(row.subject);
        self.samples.push(row.sample);
        self.expires.push(expire);
    }

    pub fn push_from(&mut self, from: &Self, row: usize) {
        self.numbers.extend_from_slice(from.vector(row));
        self.codes.push_from(&from.codes, row);
        self.subjects.push(from.subjects[row]);
        self.samples.push(from.samples[row]);
        self.expires.push(from.expires[row]);
    }

    /// This segment as `change` leaves it, `None` where it changes nothing. Rows that go are
    /// taken off `templates_of`.
    pub fn rewritten(&self, change: &Change, templates_of: &mut HashMap<SubjectUid, u32>) -> Option<Self> {
        if !change.touches(&self.subjects, &self.samples) {
            return None;
        }
        let goes = |row: usize| change.erases(self.subjects[row], self.samples[row]);
        let mut rest = self.next_with_room_for(self.rows());
        for row in 0..self.rows() {
            let subject = self.subjects[row];
            if goes(row) {
                if let Entry::Occupied(mut count) = templates_of.entry(subject) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
                continue;
            }
            rest.push_from(self, row);
            if let (Some(changed), Some(expire)) = (change.expiry_changed.get(&subject), rest.expires.last_mut()) {
                *expire = *changed;
            }
        }
        Some(rest)
    }
}
