//! Two lanes of waiting work: live frames before photos, and no photo starves.
//!
//! In: jobs with their lane. Out: the next job for an idle session.
//! Holds at most [`PHOTOS_MAX`] photos: one more is refused and handed back. Live jobs are bounded
//! by whoever pushes them (`pool`).
//! Must not know: what a job does, threads.

use std::collections::VecDeque;
use std::time::Duration;

use super::Lane;
use crate::clock::Timestamp;

/// The most photos that wait.
pub(super) const PHOTOS_MAX: usize = 16;
/// A photo that has waited so long goes before live frames, once.
const PATIENCE: Duration = Duration::from_secs(1);

/// The waiting jobs.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    live: VecDeque<T>,
    photos: VecDeque<(Timestamp, T)>,
    /// The job taken last was a photo that overtook live frames: the next one is live.
    overtaken: bool,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { live: VecDeque::new(), photos: VecDeque::new(), overtaken: false }
    }
}

impl<T> Lanes<T> {
    /// Takes a job, or hands it back when it is a photo and there are too many.
    pub(super) fn push(&mut self, lane: Lane, job: T, now: Timestamp) -> Result<(), T> {
        match lane {
            Lane::Live => self.live.push_back(job),
            Lane::Photo if self.photos.len() >= PHOTOS_MAX => return Err(job),
            Lane::Photo => self.photos.push_back((now, job)),
        }
        Ok(())
    }

    /// The next job: live frames first, but a photo that has waited for a second goes next, and
    /// then at least one live frame.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<T> {
        let waited = self.photos.front().is_some_and(|(since, _)| now.since(*since) > PATIENCE);
        let overtakes = waited && !self.overtaken && !self.live.is_empty();
        self.overtaken = overtakes;
        let live = if overtakes { None } else { self.live.pop_front() };
        live.or_else(|| self.photos.pop_front().map(|(_, job)| job))
    }

    /// Forgets all jobs, handing them out to be dropped elsewhere.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.live.drain(..).chain(self.photos.drain(..).map(|(_, job)| job)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_micros(1_000_000);

    fn drain(lanes: &mut Lanes<&'static str>, now: Timestamp) -> Vec<&'static str> {
        std::iter::from_fn(|| lanes.take(now)).collect()
    }

    #[test]
    fn live_frames_go_before_photos() {
        let mut lanes = Lanes::default();
        for (lane, job) in [(Lane::Photo, "p1"), (Lane::Live, "l1"), (Lane::Photo, "p2"), (Lane::Live, "l2")] {
            lanes.push(lane, job, START).expect("there is room");
        }
        assert_eq!(drain(&mut lanes, START.plus(PATIENCE)), ["l1", "l2", "p1", "p2"]);
    }

    #[test]
    fn a_photo_that_has_waited_for_a_second_overtakes_one_live_frame_at_a_time() {
        let mut lanes = Lanes::default();
        for (lane, job) in [(Lane::Photo, "p1"), (Lane::Photo, "p2"), (Lane::Live, "l1"), (Lane::Live, "l2"), (Lane::Live, "l3")] {
            lanes.push(lane, job, START).expect("there is room");
        }
        let late = START.plus(PATIENCE + Duration::from_micros(1));
        assert_eq!(drain(&mut lanes, late), ["p1", "l1", "p2", "l2", "l3"]);
    }

    #[test]
    fn the_seventeenth_photo_is_refused_and_live_frames_are_not() {
        let mut lanes = Lanes::default();
        for _ in 0..PHOTOS_MAX {
            lanes.push(Lane::Photo, "p", START).expect("there is room");
        }
        assert_eq!(lanes.push(Lane::Photo, "late", START), Err("late"));
        assert_eq!(lanes.push(Lane::Live, "l", START), Ok(()));
        lanes.take(START);
        lanes.take(START);
        assert_eq!(lanes.push(Lane::Photo, "again", START), Ok(()));
    }
}
