//! Looks several probes up at once, on as many cores as it pays.
//!
//! In: segments, probes. Out: for each probe the best distinct subjects; the same for any number of
//! probes, segments and cores.
//! Drops: rows of subjects that have expired or are not asked for.
//! Must not know: versions, templates' space.

use std::sync::Arc;
use std::thread;

use super::codes::{BLOCK_ROWS, Excess, Probes};
use super::nearest::Nearest;
use super::negatives::Negatives;
use super::segment::Segment;
use crate::clock::Timestamp;
use crate::event::Candidate;
use crate::face::dot;
use crate::simd::{prefetch, widest_vectors};
use crate::subject::SubjectUid;

/// Numbers that are scanned while a thread is started and awaited, some times over: below, another
/// core costs more than it gives (`script/bench gallery` shows both).
const NUMBERS_A_CORE_MIN: usize = 8 << 20;
/// Rows that wait to be compared while their vectors are brought from memory.
const PENDING_MAX: usize = 16;
/// Bounds that are looked at together.
const BOUNDS_TOGETHER: usize = 16;

/// Which rows are looked for.
#[derive(Clone, Copy)]
pub(super) struct Eligible<'a> {
    /// Those of subjects who have not expired at this moment.
    pub now: Timestamp,
    /// Those of subjects that this admits. It is asked of the few that are similar enough.
    pub admits: &'a (dyn Fn(SubjectUid) -> bool + Sync),
    /// Those who look more like the probe than what speaks against them. Asked of few, likewise.
    pub negatives: &'a Negatives,
}

/// The best `k` subjects for each probe, of the length that the segments' vectors have.
pub(super) fn search(segments: &[Arc<Segment>], probes: &[&[f32]], k: usize, (eligible, cores): (Eligible<'_>, usize)) -> Vec<Nearest> {
    let numbers = segments.iter().map(|segment| segment.rows()).sum::<usize>() * probes.iter().map(|probe| probe.len()).sum::<usize>();
    let parts = cores.min(numbers / NUMBERS_A_CORE_MIN).clamp(1, segments.len().max(1));
    let mut parts = segments.chunks(segments.len().div_ceil(parts).max(1));
    let first = parts.next().unwrap_or_default();
    thread::scope(|scope| {
        let look_up = move |part| Lookups::of(probes, k).search(part, eligible);
        let others: Vec<_> = parts.map(|part| (part, thread::Builder::new().spawn_scoped(scope, move || look_up(part)))).collect();
        let mut best = Lookups::of(probes, k).search(first, eligible);
        for (part, other) in others {
            let found = match other {
                Ok(other) => other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // No thread can be made: it takes longer, and the answer is the same.
                Err(_) => look_up(part),
            };
            for (best, found) in best.iter_mut().zip(found) {
                found.into_candidates().into_iter().for_each(|candidate| best.offer(candidate));
            }
        }
        best
    })
}

/// What is looked up together, in groups that share each row's way from memory.
struct Lookups<'p> {
    eights: Vec<Group<'p, 8>>,
    fours: Vec<Group<'p, 4>>,
    ones: Vec<Group<'p, 1>>,
}

impl<'p> Lookups<'p> {
    fn of(probes: &[&'p [f32]], k: usize) -> Self {
        let (eights, rest) = probes.as_chunks();
        let (fours, ones) = rest.as_chunks();
        Self {
            eights: eights.iter().map(|probes| Group::of(*probes, k)).collect(),
            fours: fours.iter().map(|probes| Group::of(*probes, k)).collect(),
            ones: ones.iter().map(|probe| Group::of([probe], k)).collect(),
        }
    }

    /// Searches `segments`; the answers are in the order of the probes.
    fn search(mut self, segments: &[Arc<Segment>], eligible: Eligible<'_>) -> Vec<Nearest> {
        for segment in segments {
            self.eights.iter_mut().for_each(|group| group.search(segment, eligible));
            self.fours.iter_mut().for_each(|group| group.search(segment, eligible));
            self.ones.iter_mut().for_each(|group| group.search(segment, eligible));
        }
        let eights = self.eights.into_iter().flat_map(|group| group.lookups);
        let fours = self.fours.into_iter().flat_map(|group| group.lookups);
        let ones = self.ones.into_iter().flat_map(|group| group.lookups);
        eights.chain(fours).chain(ones).map(|lookup| lookup.nearest).collect()
    }
}

/// `N` probes that are compared with each row together.
struct Group<'p, const N: usize> {
    probes: Probes<N>,
    lookups: [Lookup<'p>; N],
}

impl<'p, const N: usize> Group<'p, N> {
    fn of(probes: [&'p [f32]; N], k: usize) -> Self {
        Self { probes: Probes::of(probes), lookups: probes.map(|probe| Lookup::of(probe, k)) }
    }

    /// Offers every row that may be among the best: most are left out by their codes alone.
    fn search(&mut self, segment: &Segment, eligible: Eligible<'_>) {
        let mut found = Excess::default();
        for first in (0..segment.rows()).step_by(BLOCK_ROWS) {
            let rows = first..segment.rows().min(first + BLOCK_ROWS);
            found.wanted = std::array::from_fn(|n| self.lookups[n].nearest.wanted());
            segment.codes.scan(&self.probes, rows.clone(), &mut found);
            for (together, by) in found.by[..rows.len()].as_flattened().chunks(BOUNDS_TOGETHER).enumerate() {
                // Nearly always all are negative, which their signs tell at once.
                if by.iter().fold(u32::MAX, |signs, by| signs & by.to_bits()) >> 31 == 1 {
                    continue;
                }
                for (at, _) in by.iter().enumerate().filter(|(_, by)| **by >= 0.0) {
                    let (row, n) = (first + (together * BOUNDS_TOGETHER + at) / N, at % N);
                    prefetch(segment.vector(row));
                    self.lookups[n].pending.push(row);
                }
            }
            for lookup in self.lookups.iter_mut().filter(|lookup| lookup.pending.len() >= PENDING_MAX) {
                lookup.compare(segment, eligible);
            }
        }
        self.lookups.iter_mut().for_each(|lookup| lookup.compare(segment, eligible));
    }
}

widest_vectors! {
    /// The same bits as [`dot`] gives anywhere.
    fn similarity(row: &[f32], probe: &[f32]) -> f32 {
        dot(row, probe)
    }
}

/// One probe on its way through the gallery.
struct Lookup<'p> {
    values: &'p [f32],
    nearest: Nearest,
    /// Rows of the segment at hand that may be similar enough, while their vectors are brought
    /// from memory.
    pending: Vec<usize>,
}

impl<'p> Lookup<'p> {
    fn of(values: &'p [f32], k: usize) -> Self {
        Self { values, nearest: Nearest::of(k), pending: Vec::with_capacity(PENDING_MAX + BLOCK_ROWS) }
    }

    /// Compares the rows that wait in full, and takes in those subjects that are among the best.
    fn compare(&mut self, segment: &Segment, eligible: Eligible<'_>) {
        for row in self.pending.drain(..) {
            if segment.expires[row] <= eligible.now {
                continue;
            }
            let candidate = Candidate { subject: segment.subjects[row], similarity: similarity(segment.vector(row), self.values) };
            let is_eligible =
                |candidate: Candidate| (eligible.admits)(candidate.subject) && !eligible.negatives.forbid(candidate, self.values);
            if self.nearest.may_take(candidate.similarity) && is_eligible(candidate) {
                self.nearest.offer(candidate);
            }
        }
    }
}
