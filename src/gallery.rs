//! All subjects in memory, searched exactly. Readers hold an immutable version and never wait.
//!
//! In: mutations that are on disk already. Out: versions, each whole, published by one atomic
//! pointer. A change copies the segments that it touches and no others.
//! Drops: templates of another space; they are left out and counted.
//! Must not know: the database, photos, thresholds.

mod change;
mod closeness;
mod codes;
mod nearest;
mod negatives;
mod pages;
mod products;
mod scan;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use dashmap::DashMap;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::event::Candidate;
use crate::face::{Template, TemplateError, TemplateSpace};
use crate::mutation::Mutation;
use crate::subject::{Subject, SubjectUid};
use change::Change;
pub use change::Row;
pub use closeness::{Closeness, Score};
use nearest::Nearest;
use negatives::Negatives;
use scan::Eligible;
use segment::Segment;

/// The most rows of a segment, and the most numbers: 1 MiB of them, what a small change has to copy.
const SEGMENT_ROWS_MAX: usize = 4096;
const SEGMENT_NUMBERS_MAX: usize = 256 << 10;

/// What subjects are called.
type Names = Arc<DashMap<SubjectUid, Arc<Subject>>>;

/// A handle on the gallery. Clones share it.
#[derive(Clone)]
pub struct Gallery {
    shared: Arc<Shared>,
}

struct Shared {
    space: TemplateSpace,
    clock: Arc<dyn Clock>,
    segment_rows_max: usize,
    cores: usize,
    current: ArcSwap<GalleryVersion>,
    /// What subjects are called. Names change nothing about matching, so they stand beside the
    /// versions: put in before a version that can match them, taken out after the last one.
    subjects: Names,
    /// Counts the changes of `subjects`.
    names_revision: AtomicU64,
    /// Held by the one change that is being applied: how many templates each subject has.
    writer: Mutex<HashMap<SubjectUid, u32>>,
    foreign: AtomicU64,
}

/// One immutable version.
pub struct GalleryVersion {
    version: u64,
    space: TemplateSpace,
    clock: Arc<dyn Clock>,
    /// Numbers of a template; 0 until the first one came.
    dimension: usize,
    /// All but the last are at least half full.
    segments: Vec<Arc<Segment>>,
    /// What speaks against a candidate.
    negatives: Arc<Negatives>,
    names: Names,
    subject_count: u64,
    template_count: u64,
    /// Cores of this process.
    cores: usize,
}

/// What is asked of a version.
pub struct Search<'a> {
    /// How many subjects.
    pub k: usize,
    /// Which subjects; asked of those only that are similar enough.
    pub admits: &'a (dyn Fn(SubjectUid) -> bool + Sync),
    /// The most cores; `None` for as many as this process may use. A search takes no more than pay.
    pub cores_max: Option<usize>,
}

impl Search<'_> {
    /// For the best `k` of all subjects.
    pub fn best(k: usize) -> Self {
        Self { k, admits: &|_| true, cores_max: None }
    }
}

impl Gallery {
    /// An empty gallery for templates of `space`, where subjects expire by the system's clock.
    pub fn new(space: TemplateSpace) -> Self {
        Self::with_clock(space, Arc::new(SystemClock::new()))
    }

    /// An empty gallery for templates of `space`, where subjects expire by `clock`.
    pub fn with_clock(space: TemplateSpace, clock: Arc<dyn Clock>) -> Self {
        Self::with_segments_of(SEGMENT_ROWS_MAX, space, clock)
    }

    fn with_segments_of(segment_rows_max: usize, space: TemplateSpace, clock: Arc<dyn Clock>) -> Self {
        let names = Names::default();
        let empty = GalleryVersion {
            version: 0,
            space: space.clone(),
            clock: Arc::clone(&clock),
            dimension: 0,
            segments: Vec::new(),
            negatives: Arc::default(),
            names: Arc::clone(&names),
            subject_count: 0,
            template_count: 0,
            cores: 1,
        };
        let shared = Shared {
            space,
            clock,
            segment_rows_max,
            cores: std::thread::available_parallelism().map_or(1, NonZero::get),
            current: ArcSwap::from_pointee(empty),
            subjects: names,
            names_revision: AtomicU64::new(0),
            writer: Mutex::default(),
            foreign: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The version in force; holding it keeps it.
    pub fn current(&self) -> Arc<GalleryVersion> {
        self.shared.current.load_full()
    }

    /// The space that its templates live in.
    pub fn space(&self) -> &TemplateSpace {
        &self.shared.space
    }

    /// Applies committed mutations, in order, and publishes `version` atomically. Templates of
    /// another space are left out and counted. Takes time in proportion to the mutations, the
    /// segments that they touch and, where they erase or change an expiry, one look at each row's
    /// owner.
    pub fn apply(&self, version: u64, mutations: &[Mutation]) {
        let mut change = Change::default();
        // A template that was made for another encoder is no row of this gallery, nor is it missing one.
        let is_elsewhere =
            |mutation: &&Mutation| matches!(mutation, Mutation::PutTemplate { template, .. } if template.space() != &self.shared.space);
        for mutation in mutations.iter().filter(|mutation| !is_elsewhere(mutation)) {
            change.note(mutation);
        }
        self.publish(version, change);
    }

    /// Fills an empty gallery with what the store holds and publishes `version`, as a whole: rows are
    /// taken in one by one, so a million of them need not be in memory twice.
    ///
    /// # Errors
    /// The first error of `templates`; then nothing was published.
    pub fn fill<E>(&self, version: u64, subjects: Vec<Subject>, templates: impl Iterator<Item = Result<Row, E>>) -> Result<(), E> {
        let mut templates_of = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        for subject in subjects {
            self.shared.subjects.insert(subject.uid, Arc::new(subject));
        }
        let (mut segments, mut tail, mut dimension) = (Vec::new(), None, 0);
        let mut negatives = Negatives::default();
        for row in templates {
            let row = row?;
            let length = row.template.values().len();
            if row.template.space() != &self.shared.space || (dimension != 0 && length != dimension) {
                self.shared.foreign.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            dimension = length;
            if row.negative {
                negatives.push(row.subject, (row.sample, row.template));
                continue;
            }
            let tail = tail.get_or_insert_with(|| Tail::after(&mut segments, usize::MAX, (self.rows_max(length), length)));
            *templates_of.entry(row.subject).or_insert(0) += 1;
            let expire = self.expiry_of(row.subject);
            tail.push(&mut segments, |segment| segment.push(&row, expire));
        }
        if let Some(tail) = tail {
            tail.close(&mut segments);
        }
        self.store_version(version, (dimension, segments, Arc::new(negatives)), templates_of.len() as u64);
        self.shared.names_revision.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// What the subject is called now, `None` once erased: joined when events are delivered.
    pub fn subject(&self, uid: SubjectUid) -> Option<Arc<Subject>> {
        self.shared.subjects.get(&uid).map(|subject| Arc::clone(subject.value()))
    }

    /// Everybody of whom `is` holds at this moment; takes a look at each.
    pub fn subjects_who(&self, is: impl Fn(&Subject) -> bool) -> HashSet<SubjectUid> {
        self.shared.subjects.iter().filter(|subject| is(subject)).map(|subject| *subject.key()).collect()
    }

    /// Another number after each change of what [`subject`](Self::subject) answers: what was read
    /// before is as it was while this is the same before and after.
    pub fn names_revision(&self) -> u64 {
        self.shared.names_revision.load(Ordering::Acquire)
    }

    /// How many templates were left out since the start because they live in another space.
    pub fn foreign_template_count(&self) -> u64 {
        self.shared.foreign.load(Ordering::Relaxed)
    }

    fn publish(&self, version: u64, mut change: Change) {
        let mut templates_of = self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.put_names(&mut change);
        let old = self.current();
        let (dimension, added) = self.acceptable(&change, old.dimension);
        let (negative, added): (Vec<_>, Vec<_>) = added.into_iter().partition(|row| row.negative);
        let expiries: Vec<Timestamp> = added.iter().map(|row| self.expiry_of(row.subject)).collect();
        let (mut segments, loose) = untouched_or_rewritten(&old.segments, &change, &mut templates_of);

        let row_count = loose.iter().map(Segment::rows).sum::<usize>() + added.len();
        let mut tail = Tail::after(&mut segments, row_count, (self.rows_max(dimension), dimension));
        for rows in &loose {
            for row in 0..rows.rows() {
                tail.push(&mut segments, |segment| segment.push_from(rows, row));
            }
        }
        for (row, expire) in added.into_iter().zip(expiries) {
            *templates_of.entry(row.subject).or_insert(0) += 1;
            tail.push(&mut segments, |segment| segment.push(row, expire));
        }
        tail.close(&mut segments);

        let mut negatives = Arc::clone(&old.negatives);
        if !negative.is_empty() || negatives.are_touched_by(&change) {
            let negatives = Arc::make_mut(&mut negatives);
            negatives.remove(&change);
            negative.into_iter().for_each(|row| negatives.push(row.subject, (row.sample, row.template.clone())));
        }
        self.store_version(version, (dimension, segments, negatives), templates_of.len() as u64);
        for (uid, _) in change.subjects.iter().filter(|(_, subject)| subject.is_none()) {
            self.shared.subjects.remove(uid);
        }
        self.shared.names_revision.fetch_add(1, Ordering::Release);
    }

    fn store_version(
        &self,
        version: u64,
        (dimension, segments, negatives): (usize, Vec<Arc<Segment>>, Arc<Negatives>),
        subject_count: u64,
    ) {
        self.shared.current.store(Arc::new(GalleryVersion {
            version,
            space: self.shared.space.clone(),
            clock: Arc::clone(&self.shared.clock),
            dimension,
            template_count: segments.iter().map(|segment| segment.rows() as u64).sum(),
            segments,
            negatives,
            names: Arc::clone(&self.shared.subjects),
            subject_count,
            cores: self.shared.cores,
        }));
    }

    /// The most rows of a segment whose vectors have `dimension` numbers.
    fn rows_max(&self, dimension: usize) -> usize {
        self.shared.segment_rows_max.min(SEGMENT_NUMBERS_MAX / dimension.max(1)).max(1)
    }

    /// Makes the changed subjects known, and notes whose rows have to learn of another expiry.
    fn put_names(&self, change: &mut Change) {
        for (uid, subject) in &change.subjects {
            let Some(subject) = subject else { continue };
            let before = self.shared.subjects.insert(*uid, Arc::clone(subject));
            if before.is_some_and(|before| before.expire_time != subject.expire_time) {
                change.expiry_changed.insert(*uid, subject.expire_time.unwrap_or(NEVER));
            }
        }
    }

    fn expiry_of(&self, uid: SubjectUid) -> Timestamp {
        self.shared.subjects.get(&uid).and_then(|subject| subject.expire_time).unwrap_or(NEVER)
    }

    /// The rows to add, without those of another space or size, which are counted, and those
    /// that a later mutation of the same call erased again.
    fn acceptable<'a>(&self, change: &'a Change, dimension: usize) -> (usize, Vec<&'a Row>) {
        let mut dimension = dimension;
        let mut foreign = 0;
        let mut rows = Vec::with_capacity(change.added.len());
        for (index, row) in change.added.iter().enumerate() {
            let length = row.template.values().len();
            if row.template.space() != &self.shared.space || (dimension != 0 && length != dimension) {
                foreign += 1;
            } else if change.keeps_added(index, row) {
                dimension = length;
                rows.push(row);
            }
        }
        self.shared.foreign.fetch_add(foreign, Ordering::Relaxed);
        (dimension, rows)
    }
}

impl GalleryVersion {
    /// The space its templates live in.
    pub fn space(&self) -> &TemplateSpace {
        &self.space
    }

    /// Its number.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What the subject is called now, `None` once erased: names are not bound to versions.
    pub fn subject(&self, uid: SubjectUid) -> Option<Arc<Subject>> {
        self.names.get(&uid).map(|subject| Arc::clone(subject.value()))
    }

    /// Subjects with at least one template. Those who expired count until they are erased.
    pub fn subject_count(&self) -> u64 {
        self.subject_count
    }

    /// Templates.
    pub fn template_count(&self) -> u64 {
        self.template_count
    }

    /// The `k` closest subjects at this moment, best first, best template each; ties by uid.
    /// Exact. Subjects who have expired are not among them, nor those who have a negative sample that
    /// is at least as close to the probe as they are.
    ///
    /// # Errors
    /// [`TemplateError::SpaceMismatch`] for a probe of another space or size.
    pub fn search(&self, probe: &Template, k: usize) -> Result<Vec<Candidate>, TemplateError> {
        self.search_at(probe, k, self.clock.now())
    }

    /// As [`search`](Self::search), at the moment `now`: the same version, probe and moment give
    /// the same answer to the bit.
    ///
    /// # Errors
    /// [`TemplateError::SpaceMismatch`] for a probe of another space or size.
    pub fn search_at(&self, probe: &Template, k: usize, now: Timestamp) -> Result<Vec<Candidate>, TemplateError> {
        let found = self.look_up(&[probe], &Search::best(k), now)?;
        Ok(found.into_iter().next().unwrap_or_default())
    }

    /// As [`search`](Self::search) for each of `probes`, in less time than one by one.
    ///
    /// # Errors
    /// [`TemplateError::SpaceMismatch`] for a probe of another space or size.
    pub fn search_all(&self, probes: &[&Template], search: &Search<'_>) -> Result<Vec<Vec<Candidate>>, TemplateError> {
        self.look_up(probes, search, self.clock.now())
    }

    /// As [`search_all`](Self::search_all), among those who have expired as well: they are still enrolled, and may be extended.
    ///
    /// # Errors
    /// [`TemplateError::SpaceMismatch`] for a probe of another space or size.
    pub fn search_enrolled(&self, probes: &[&Template], search: &Search<'_>) -> Result<Vec<Vec<Candidate>>, TemplateError> {
        self.look_up(probes, search, BEFORE_ALL)
    }

    fn look_up(&self, probes: &[&Template], search: &Search<'_>, now: Timestamp) -> Result<Vec<Vec<Candidate>>, TemplateError> {
        probes.iter().try_for_each(|probe| self.check(probe))?;
        let values: Vec<&[f32]> = probes.iter().map(|probe| probe.values()).collect();
        let eligible = Eligible { now, admits: search.admits, negatives: &self.negatives };
        let found = scan::search(&self.segments, &values, search.k, (eligible, search.cores_max.unwrap_or(self.cores)));
        Ok(found.into_iter().map(Nearest::into_candidates).collect())
    }

    /// Whether the subject has templates here, expired or not. Looks at each row's owner.
    pub fn holds(&self, subject: SubjectUid) -> bool {
        self.segments.iter().any(|segment| segment.subjects.contains(&subject))
    }

    fn check(&self, probe: &Template) -> Result<(), TemplateError> {
        if probe.space() == &self.space && (self.dimension == 0 || probe.values().len() == self.dimension) {
            return Ok(());
        }
        Err(TemplateError::SpaceMismatch { left: probe.space().clone(), right: self.space.clone() })
    }
}

/// The expiry of subjects that stay.
const NEVER: Timestamp = Timestamp::from_micros(i64::MAX);

/// A moment at which nobody has expired yet.
const BEFORE_ALL: Timestamp = Timestamp::from_micros(i64::MIN);

/// The segments that `change` leaves as they are or only shortens, and the rows of those that it
/// leaves less than half full: they move to the end, so that erasing never frays the gallery.
fn untouched_or_rewritten(
    segments: &[Arc<Segment>],
    change: &Change,
    templates_of: &mut HashMap<SubjectUid, u32>,
) -> (Vec<Arc<Segment>>, Vec<Segment>) {
    if change.touches_nothing_old() {
        return (segments.to_vec(), Vec::new());
    }
    let (mut kept, mut loose) = (Vec::with_capacity(segments.len() + 1), Vec::new());
    for segment in segments {
        match segment.rewritten(change, templates_of) {
            None => kept.push(Arc::clone(segment)),
            Some(rest) if rest.rows() == segment.rows() || rest.rows() * 2 >= rest.rows_max() => {
                rest.settle();
                kept.push(Arc::new(rest));
            }
            Some(rest) => loose.push(rest),
        }
    }
    (kept, loose)
}

/// The segment at the end that new rows are written to.
struct Tail {
    segment: Segment,
    /// Rows still to come: no segment reserves room for more.
    awaited: usize,
}

impl Tail {
    /// Continues the last of `segments` where it has room, on a copy, when rows are to come.
    fn after(segments: &mut Vec<Arc<Segment>>, awaited: usize, (rows_max, dimension): (usize, usize)) -> Self {
        let room = segments.last().is_some_and(|last| last.rows() < rows_max);
        let segment = match segments.pop_if(|_| room && awaited > 0) {
            Some(last) => last.copy_with_room_for(awaited),
            None => Segment::with_room_for(awaited, rows_max, dimension),
        };
        Self { segment, awaited }
    }

    fn push(&mut self, segments: &mut Vec<Arc<Segment>>, write: impl FnOnce(&mut Segment)) {
        if self.segment.is_full() {
            let next = self.segment.next_with_room_for(self.awaited);
            self.segment.settle();
            segments.push(Arc::new(std::mem::replace(&mut self.segment, next)));
        }
        write(&mut self.segment);
        self.awaited -= 1;
    }

    fn close(self, segments: &mut Vec<Arc<Segment>>) {
        if self.segment.is_full() {
            self.segment.settle();
        }
        if self.segment.rows() > 0 {
            segments.push(Arc::new(self.segment));
        }
    }
}
