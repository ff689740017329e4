//! Looks several probes up at once, on as many cores as it pays.
//!
//! In: segments, probes. Out: for each probe the best distinct subjects; the same for any number of
//! probes, segments and cores.
//! Drops: rows of subjects that have expired or are not asked for.
//! Must not know: versions, templates' space.
//!
//! [`search`] is where a GPU would take part, should there ever be millions of subjects: it is asked with whole segments and
//! several probes, and answers with exact similarities. Below that the host's memory is fast enough (`script/bench gallery`).

use std::ops::Range;
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
use crate::subject::SubjectUid;
use doorward_kernels::simd::{at_least, prefetch, widest_vectors};

/// Numbers that are scanned while a thread is started and awaited, some times over: below, another
/// core costs more than it gives (`script/bench gallery` shows both).
const NUMBERS_A_CORE_MIN: usize = 8 << 20;
/// Bands that are scanned before what seems likely among the best is compared.
const STRETCH: usize = 32;
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
        let mut bounds = Bounds::default();
        let mut next = 0;
        while next < segment.codes.bands() {
            // The first rows tell little of the best, and whatever may be among the best is kept: better little by little.
            let stretch = next..segment.codes.bands().min(next + next.clamp(BANDS, STRETCH));
            next = stretch.end;
            self.scan(segment, stretch, &mut bounds);
            self.lookups.iter_mut().for_each(|lookup| lookup.compare_likely(eligible));
        }
    }

    /// Notes the rows of some bands that may be among the best of what is known so far.
    fn scan(&mut self, segment: &'a Segment, stretch: Range<usize>, bounds: &mut Bounds<N>) {
        let wanted: [f32; N] = std::array::from_fn(|n| self.lookups[n].nearest.wanted());
        for first in stretch.clone().step_by(BANDS) {
            segment.codes.bound(&self.probes, first..stretch.end.min(first + BANDS), bounds);
            for (n, (bounds, wanted)) in bounds.of_rows.iter().zip(wanted).enumerate() {
                let mut passing = at_least(wanted, bounds);
                while passing != 0 {
                    let at = passing.trailing_zeros() as usize;
                    passing &= passing - 1;
                    let row = first * ROWS + at;
                    if row < segment.rows() {
                        let estimate = bounds[at] - segment.codes.slack(&self.probes, n, row);
                        self.lookups[n].note(Passing { bound: bounds[at], segment, row }, estimate);
                    }
                }
            }
        }
    }
}

widest_vectors! {
    /// The same bits as [`dot`] gives anywhere.
    fn similarity(row: &[f32], probe: &[f32]) -> f32 {
        dot(row, probe)
    }
}

/// A row that may be similar enough, and is no more similar than `bound`.
#[derive(Clone, Copy)]
struct Passing<'a> {
    bound: f32,
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
    /// Rows that are as similar as the best so far, as it seems: they are compared in full soon.
    likely: Vec<Passing<'a>>,
    /// The others that may be. It is put off to compare them: the better the best become, the fewer of them have to be.
    pending: Vec<Passing<'a>>,
}

impl<'a> Lookup<'a> {
    fn of(values: &'a [f32], k: usize) -> Self {
        Self { values, nearest: Nearest::of(k), likely: Vec::new(), pending: Vec::new() }
    }

    fn note(&mut self, row: Passing<'a>, estimate: f32) {
        if self.nearest.is_full() && estimate >= self.nearest.wanted() {
            prefetch(row.vector());
            self.likely.push(row);
        } else {
            self.pending.push(row);
        }
    }

    /// Compares rows that are likely among the best, and all when too many wait.
    fn compare_likely(&mut self, eligible: Eligible<'_>) {
        if !self.nearest.is_full() && self.pending.len() > FIRST_COMPARED {
            self.pending.select_nth_unstable_by(FIRST_COMPARED, |a, b| b.bound.total_cmp(&a.bound));
            self.likely.extend(self.pending.drain(..FIRST_COMPARED));
        }
        let mut likely = std::mem::take(&mut self.likely);
        self.compare(&likely, eligible);
        likely.clear();
        self.likely = likely;
        if self.pending.len() > PUT_OFF_MAX {
            let wanted = self.nearest.wanted();
            self.pending.retain(|row| row.bound >= wanted);
        }
        if self.pending.len() > PUT_OFF_MAX {
            self.compare_pending(eligible);
        }
    }

    /// Compares whatever was put off.
    fn compare_pending(&mut self, eligible: Eligible<'_>) {
        let wanted = self.nearest.wanted();
        let mut all = std::mem::take(&mut self.pending);
        all.retain(|row| row.bound >= wanted);
        self.compare(&all, eligible);
        all.clear();
        self.pending = all;
    }

    fn finish(mut self, eligible: Eligible<'_>) -> Nearest {
        self.compare_pending(eligible);
        self.nearest
    }

    /// Compares rows in full, and takes in those subjects that are among the best.
    fn compare(&mut self, rows: &[Passing<'a>], eligible: Eligible<'_>) {
        for (at, Passing { bound, segment, row }) in rows.iter().enumerate() {
            if let Some(later) = rows.get(at + AHEAD) {
                prefetch(later.vector());
            }
            if *bound < self.nearest.wanted() {
                continue;
            }
            let is_eligible = || segment.expires[*row] > eligible.now && (eligible.admits)(segment.subjects[*row]);
            // Until the best are known every row comes here, and it is cheaper to ask than to compare; then nearly none is similar
            // enough, and whose it is need not be read.
            if !self.nearest.is_full() && !is_eligible() {
                continue;
            }
            let similarity = similarity(segment.vector(*row), self.values);
            if self.nearest.may_take(similarity) && is_eligible() {
                let candidate = Candidate { subject: segment.subjects[*row], similarity };
                if !eligible.negatives.forbid(candidate, self.values) {
                    self.nearest.offer(candidate);
                }
            }
        }
    }
}
