//! Pictures of one size on a GPU: what is kept for them, which of what is kept will do, and when it must go.
//!
//! In: sizes, numbers of pictures, how runs ended. Out: memory and bindings; choices, which are pure.
//! Must not know: how sessions are opened and run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::CudaError;
use super::super::driver::Gpu;
use super::super::graph::RunError;
use super::super::memory::{DeviceBuffer, PinnedBuffer};
use super::contract::OutputShape;
use super::error::GraphsError;
use super::source::BindingSession;

/// How long no session is opened after one that could not be, or where memory was wanting: to try takes the time of several batches.
const OPENS_APART: Duration = Duration::from_secs(1);
/// What ran so short a time ago will run again at once.
const IN_USE_FOR: Duration = Duration::from_secs(10);
/// So often in a row a session that ran well may fail before another takes its place.
const FAILURES_MAX: u32 = 3;
/// Outputs begin at multiples of it, as the device's allocations do.
const ALIGNMENT: usize = 256;

/// Pictures of one size: memory for their outputs, and bindings by how many are run.
pub(super) struct Canvas<S: BindingSession> {
    /// Height and width.
    pub(super) size: (usize, usize),
    /// The place is the number of pictures, less one; there is room for the outputs of as many as there are places.
    pub(super) bound: Vec<Option<S::Bound>>,
    /// The CUDA provider's session for exactly as many pictures as there is room for; without it the engine runs any number.
    pub(super) own: Option<S>,
    pub(super) health: Health,
    pub(super) outputs: Vec<OutputShape>,
    pub(super) device: DeviceBuffer,
    pub(super) pinned: PinnedBuffer,
}

impl<S: BindingSession> Canvas<S> {
    /// Memory for the outputs of up to `room` pictures of a size.
    pub(super) fn new(
        gpu: &Arc<Gpu>,
        (size, room): ((usize, usize), usize),
        own: Option<S>,
        outputs: Vec<OutputShape>,
    ) -> Result<Self, CudaError> {
        let (_, bytes) = layout(&outputs, room);
        let (device, pinned) = (DeviceBuffer::new(gpu, bytes)?, PinnedBuffer::new(gpu, bytes)?);
        Ok(Self { size, bound: (0..room).map(|_| None).collect(), own, health: Health::default(), outputs, device, pinned })
    }

    pub(super) fn room(&self) -> usize {
        self.bound.len()
    }

    /// How many pictures are run where there are `pictures`.
    pub(super) fn run_with(&self, pictures: usize) -> usize {
        if self.own.is_some() { self.room() } else { pictures }
    }
}

/// Where each output of so many pictures begins, and how many bytes there are in all.
pub(super) fn layout(outputs: &[OutputShape], pictures: usize) -> (Vec<usize>, usize) {
    let mut end = 0_usize;
    let offsets = outputs.iter().map(|output| {
        let begin = end.next_multiple_of(ALIGNMENT);
        end = begin + pictures * output.values() * size_of::<f32>();
        begin
    });
    (offsets.collect(), end)
}

/// How the runs of a canvas ended.
#[derive(Default)]
pub(super) struct Health {
    ran_well: Option<Instant>,
    /// In a row, since then.
    failures: u32,
}

impl Health {
    pub(super) fn ran_well(&mut self, now: Instant) {
        (self.ran_well, self.failures) = (Some(now), 0);
    }

    pub(super) fn failed(&mut self) {
        self.failures += 1;
    }

    /// Whether it is likely to run again at once.
    pub(super) fn is_in_use(&self, now: Instant) -> bool {
        self.ran_well.is_some_and(|at| now.duration_since(at) < IN_USE_FOR)
    }

    /// Whether another session in its place may do better: it was never well, or is no longer.
    pub(super) fn is_broken(&self) -> bool {
        self.failures >= if self.ran_well.is_some() { FAILURES_MAX } else { 1 }
    }
}

/// A time in which no session is opened.
#[derive(Default)]
pub(super) struct Pause(Option<(Instant, String)>);

impl Pause {
    /// Begins one, if none is under way: one that is ends when it was meant to, however often it refuses somebody.
    pub(super) fn begin(&mut self, now: Instant, why: String) {
        if self.why(now).is_none() {
            self.0 = Some((now + OPENS_APART, why));
        }
    }

    /// Why no session is opened at `now`, where none is.
    pub(super) fn why(&self, now: Instant) -> Option<&str> {
        self.0.as_ref().filter(|(end, _)| now < *end).map(|(_, why)| why.as_str())
    }
}

/// What a canvas must be for pictures that came.
pub(super) struct Wanted {
    /// Height and width.
    pub(super) size: (usize, usize),
    pub(super) pictures: usize,
    /// For how many there should be room.
    pub(super) room: usize,
    /// For how many there may be, where another room will do: behind the pictures there is no more memory.
    pub(super) room_max: Option<usize>,
}

impl Wanted {
    /// The place of the best of canvases, each by its size and room: the one that is made to measure, else the smallest that will do.
    pub(super) fn best_of(&self, kept: impl Iterator<Item = ((usize, usize), usize)> + Clone) -> Option<usize> {
        let of_size = kept.enumerate().filter(|(_, (size, _))| *size == self.size).map(|(place, (_, room))| (room, place));
        let made_to_measure = of_size.clone().find(|(room, _)| *room == self.room);
        let will_do = |(room, _): &(usize, usize)| self.room_max.is_some_and(|max| (self.pictures..=max).contains(room));
        made_to_measure.or_else(|| of_size.filter(will_do).min()).map(|(_, place)| place)
    }
}

/// Why there is no canvas for pictures that came.
pub(super) enum NoCanvas {
    /// It could not be had.
    NotHad(GraphsError),
    /// Nothing was tried.
    Waiting(String),
}

impl From<GraphsError> for NoCanvas {
    fn from(error: GraphsError) -> Self {
        Self::NotHad(error)
    }
}

impl NoCanvas {
    /// As the worker is told. Where it is the driver's own error, or no canvas is left, it is not these pictures' alone.
    pub(super) fn told(self, is_none_left: bool) -> RunError {
        match self {
            Self::NotHad(GraphsError::Cuda(error)) if !error.is_out_of_memory() => RunError::Failed(error.to_string()),
            Self::NotHad(error) if is_none_left => RunError::Failed(error.to_string()),
            Self::Waiting(why) if is_none_left => RunError::Failed(why),
            Self::NotHad(error) => RunError::NoSession { reason: error.to_string(), was_tried: true },
            Self::Waiting(reason) => RunError::NoSession { reason, was_tried: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_when_it_was_meant_to_however_often_it_refuses() {
        let (began, mut pause) = (Instant::now(), Pause::default());
        assert_eq!(pause.why(began), None);
        pause.begin(began, "the first".into());
        for tenth in 0..10 {
            let now = began + OPENS_APART / 10 * tenth;
            pause.begin(now, "another".into());
            assert_eq!(pause.why(now), Some("the first"));
        }
        assert_eq!(pause.why(began + OPENS_APART), None);
        pause.begin(began + OPENS_APART, "the next".into());
        assert_eq!(pause.why(began + OPENS_APART), Some("the next"));
    }

    #[test]
    fn a_session_that_never_ran_well_goes_at_once_and_one_that_did_after_some_failures_in_a_row() {
        let (now, mut new, mut old) = (Instant::now(), Health::default(), Health::default());
        assert!(!new.is_broken() && !new.is_in_use(now));
        new.failed();
        assert!(new.is_broken() && !new.is_in_use(now));
        old.ran_well(now);
        for _ in 1..FAILURES_MAX {
            old.failed();
            assert!(!old.is_broken());
        }
        old.ran_well(now);
        old.failed();
        assert!(!old.is_broken(), "in a row");
        (1..FAILURES_MAX).for_each(|_| old.failed());
        assert!(old.is_broken());
        assert!(old.is_in_use(now + IN_USE_FOR / 2) && !old.is_in_use(now + IN_USE_FOR));
    }

    #[test]
    fn what_is_wrong_with_all_pictures_is_not_said_of_these_alone() {
        let no_memory = || GraphsError::from(CudaError::OutOfMemory { call: "cuMemAlloc", bytes: 1 });
        let broken = || GraphsError::from(CudaError::Call { call: "cuMemAlloc", code: "CUDA_ERROR_ILLEGAL_ADDRESS".into() });
        let of_these = |error: NoCanvas, is_none_left| matches!(error.told(is_none_left), RunError::NoSession { .. });
        assert!(of_these(no_memory().into(), false) && of_these(NoCanvas::Waiting(String::new()), false));
        assert!(!of_these(no_memory().into(), true) && !of_these(NoCanvas::Waiting(String::new()), true));
        assert!(!of_these(broken().into(), false));
    }

    #[test]
    fn the_session_that_is_made_to_measure_is_taken_and_a_larger_one_only_where_it_may_and_the_memory_is_there() {
        const USUAL: (usize, usize) = (384, 640);
        const TURNED: (usize, usize) = (640, 384);
        let kept = [(USUAL, 16), (TURNED, 4), (USUAL, 1), (USUAL, 4)];
        let best = |kept: &[((usize, usize), usize)], (pictures, room): (usize, usize), room_max| {
            Wanted { size: USUAL, pictures, room, room_max }.best_of(kept.iter().copied())
        };
        for room_max in [None, Some(4), Some(16)] {
            assert_eq!(best(&kept, (1, 1), room_max), Some(2), "whatever stands before it");
            assert_eq!(best(&kept, (3, 4), room_max), Some(3));
        }
        let without = &kept[..2];
        assert_eq!(best(without, (1, 1), None), None, "one is opened");
        assert_eq!(best(without, (1, 1), Some(16)), Some(0), "none may be, and there is memory for sixteen");
        assert_eq!(best(without, (1, 1), Some(4)), None, "never more pictures than there is memory for, and never another size");
        assert_eq!(best(&[(USUAL, 16), (USUAL, 4)], (2, 2), Some(usize::MAX)), Some(1), "the smallest that will do");
        assert_eq!(best(&[(USUAL, 1)], (2, 4), Some(16)), None, "never a smaller one");
    }

    #[test]
    fn outputs_lie_behind_each_other_and_never_in_each_other() {
        let outputs =
            [("a", vec![3]), ("b", vec![5, 7]), ("c", vec![1])].map(|(name, each)| OutputShape { name: name.to_owned(), each }).to_vec();
        for pictures in [1, 2, 100] {
            let (offsets, bytes) = layout(&outputs, pictures);
            let ends: Vec<usize> = outputs.iter().zip(&offsets).map(|(output, begin)| begin + pictures * output.values() * 4).collect();
            assert!(offsets.iter().all(|offset| offset.is_multiple_of(ALIGNMENT)) && offsets[0] == 0);
            assert!(offsets[1..].iter().zip(&ends).all(|(begin, end)| begin >= end) && ends.last() == Some(&bytes));
        }
    }
}
