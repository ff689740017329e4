//! Looks several probes up at once, on as many cores as it pays.
//!
//! In: segments, probes. Out: for each probe the best distinct subjects; the same for any number of
//! probes, segments and cores.
//! Drops: rows of subjects that have expired or are not asked for.
//! Must not know: versions, templates' space.

use std::sync::Arc;
use std::thread;

use super::codes::{Bounds, Probes};
use super::nearest::Nearest;
use super::negatives::Negatives;
use super::products::{BANDS, ROWS};
use super::segment::Segment;
use crate::clock::Timestamp;
use crate::event::Candidate;
use crate::face::dot;
use crate::simd::{at_least, prefetch, widest_vectors};
use crate::subject::SubjectUid;

/// Numbers that are scanned while a thread is started and awaited, some times over: below, another
/// core costs more than it gives (`script/bench gallery` shows both).
const NUMBERS_A_CORE_MIN: usize = 8 << 20;
/// Rows with the highest bounds that are compared first of all, so that something is known of the best.
const FIRST_COMPARED: usize = 16;
/// Rows of which it is put off to compare them: most turn out not to need it.
const PUT_OFF_MAX: usize = 256;
/// So many rows before it is compared, a row's vector is asked for.
const AHEAD: usize = 3;

/// Which rows are looked for.
#[derive(Clone, Copy)]
pub(super) struct Eligible<'a> {
    /// Those of subjects who have not expired at this moment.
    pub now: Timestamp,
    /// Those of subjects that this admits. It is asked of the few that are similar enough, and of all
    /// until the best are known: it must be quick, and answer the same throughout.
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
struct Lookups<'a> {
    eights: Vec<Group<'a, 8>>,
    fours: Vec<Group<'a, 4>>,
    ones: Vec<Group<'a, 1>>,
}

impl<'a> Lookups<'a> {
    fn of(probes: &[&'a [f32]], k: usize) -> Self {
        let (eights, rest) = probes.as_chunks();
        let (fours, ones) = rest.as_chunks();
        Self {
            eights: eights.iter().map(|probes| Group::of(*probes, k)).collect(),
            fours: fours.iter().map(|probes| Group::of(*probes, k)).collect(),
            ones: ones.iter().map(|probe| Group::of([probe], k)).collect(),
        }
    }

    /// Searches `segments`; the answers are in the order of the probes.
    fn search(mut self, segments: &'a [Arc<Segment>], eligible: Eligible<'_>) -> Vec<Nearest> {
        for segment in segments {
            self.eights.iter_mut().for_each(|group| group.search(segment, eligible));
            self.fours.iter_mut().for_each(|group| group.search(segment, eligible));
            self.ones.iter_mut().for_each(|group| group.search(segment, eligible));
        }
        let eights = self.eights.into_iter().flat_map(|group| group.lookups);
        let fours = self.fours.into_iter().flat_map(|group| group.lookups);
        let ones = self.ones.into_iter().flat_map(|group| group.lookups);
        eights.chain(fours).chain(ones).map(|lookup| lookup.finish(eligible)).collect()
    }
}

/// `N` probes that are compared with each row together.
struct Group<'a, const N: usize> {
    probes: Probes<N>,
    lookups: [Lookup<'a>; N],
}

impl<'a, const N: usize> Group<'a, N> {
    fn of(probes: [&'a [f32]; N], k: usize) -> Self {
        Self { probes: Probes::of(probes), lookups: probes.map(|probe| Lookup::of(probe, k)) }
    }

    /// Looks for rows that may be among the best: most are left out by their codes alone.
    fn search(&mut self, segment: &'a Segment, eligible: Eligible<'_>) {
        let wanted: [f32; N] = std::array::from_fn(|n| self.lookups[n].nearest.wanted());
        let mut bounds = Bounds::default();
        for first in (0..segment.codes.bands()).step_by(BANDS) {
            let bands = first..segment.codes.bands().min(first + BANDS);
            segment.codes.bound(&self.probes, bands, &mut bounds);
            for (n, (bounds, wanted)) in bounds.of_rows.iter().zip(wanted).enumerate() {
                let mut passing = at_least(wanted, bounds);
                while passing != 0 {
                    let at = passing.trailing_zeros() as usize;
                    passing &= passing - 1;
                    let row = first * ROWS + at;
                    if row < segment.rows() {
                        let estimate = bounds[at] - segment.codes.slack(&self.probes, n, row);
                        self.lookups[n].note(Passing { bound: bounds[at], estimate, segment, row });
                    }
                }
            }
        }
        self.lookups.iter_mut().for_each(|lookup| lookup.compare_likely(eligible));
    }
}

widest_vectors! {
    /// The same bits as [`dot`] gives anywhere.
    fn similarity(row: &[f32], probe: &[f32]) -> f32 {
        dot(row, probe)
    }
}

/// A row that may be similar enough.
#[derive(Clone, Copy)]
struct Passing<'a> {
    /// It is no more similar than this,
    bound: f32,
    /// and about as similar as this.
    estimate: f32,
    segment: &'a Segment,
    row: usize,
}

impl<'a> Passing<'a> {
    fn vector(&self) -> &'a [f32] {
        self.segment.vector(self.row)
    }
}

/// One probe on its way through the gallery.
struct Lookup<'a> {
    values: &'a [f32],
    nearest: Nearest,
    /// Rows that are not compared in full yet. Those that are likely among the best are compared
    /// soon; the better the best become, the fewer of the others have to be.
    pending: Vec<Passing<'a>>,
}

impl<'a> Lookup<'a> {
    fn of(values: &'a [f32], k: usize) -> Self {
        Self { values, nearest: Nearest::of(k), pending: Vec::new() }
    }

    fn note(&mut self, row: Passing<'a>) {
        if row.estimate >= self.nearest.wanted() && self.nearest.is_full() {
            prefetch(row.vector());
        }
        self.pending.push(row);
    }

    /// Compares rows that are likely among the best, and all when too many wait.
    fn compare_likely(&mut self, eligible: Eligible<'_>) {
        if self.nearest.is_full() {
            let wanted = self.nearest.wanted();
            let likely: Vec<_> = self.pending.extract_if(.., |row| row.estimate >= wanted).collect();
            self.compare(likely, eligible);
        } else if self.pending.len() > FIRST_COMPARED {
            self.pending.select_nth_unstable_by(FIRST_COMPARED, |a, b| b.bound.total_cmp(&a.bound));
            let rest = self.pending.split_off(FIRST_COMPARED);
            let first = std::mem::replace(&mut self.pending, rest);
            self.compare(first, eligible);
        }
        if self.pending.len() > PUT_OFF_MAX {
            let wanted = self.nearest.wanted();
            self.pending.retain(|row| row.bound >= wanted);
        }
        if self.pending.len() > PUT_OFF_MAX {
            let all = std::mem::take(&mut self.pending);
            self.compare(all, eligible);
        }
    }

    /// Compares whatever was put off.
    fn finish(mut self, eligible: Eligible<'_>) -> Nearest {
        let all = std::mem::take(&mut self.pending);
        self.compare(all, eligible);
        self.nearest
    }

    /// Compares rows in full, and takes in those subjects that are among the best.
    fn compare(&mut self, mut rows: Vec<Passing<'a>>, eligible: Eligible<'_>) {
        let wanted = self.nearest.wanted();
        rows.retain(|row| row.bound >= wanted);
        for (at, Passing { bound, segment, row, .. }) in rows.iter().enumerate() {
            if let Some(later) = rows.get(at + AHEAD) {
                prefetch(later.vector());
            }
            if *bound < self.nearest.wanted() || segment.expires[*row] <= eligible.now {
                continue;
            }
            let subject = segment.subjects[*row];
            // Until the best are known every row comes here: it is cheaper to ask than to compare.
            if !self.nearest.is_full() && !(eligible.admits)(subject) {
                continue;
            }
            let candidate = Candidate { subject, similarity: similarity(segment.vector(*row), self.values) };
            let is_eligible =
                |candidate: Candidate| (eligible.admits)(candidate.subject) && !eligible.negatives.forbid(candidate, self.values);
            if self.nearest.may_take(candidate.similarity) && is_eligible(candidate) {
                self.nearest.offer(candidate);
            }
        }
    }
}
