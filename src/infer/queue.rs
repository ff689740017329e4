//! Two lanes of waiting work: live frames before photos, and no photo starves.
//!
//! In: jobs with their lane. Out: the next job for an idle session. While there are live frames, one
//! session is kept free of photos, so that a frame need not wait for one to end.
//! Holds at most [`PHOTOS_MAX`] photos: one more is refused and handed back. Live jobs are bounded
//! by whoever pushes them (`pool`).
//! Must not know: what a job does, threads.

use std::collections::VecDeque;
use std::time::Duration;

use super::Lane;
use crate::clock::Timestamp;

/// The most photos that wait.
pub const PHOTOS_MAX: usize = 16;
/// A photo that has waited so long goes before live frames, once.
const PATIENCE: Duration = Duration::from_secs(1);
/// A session is kept for live frames until so long after the last one.
const LIVE_AWAITED: Duration = Duration::from_secs(3);

/// The waiting jobs.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    sessions: usize,
    live: VecDeque<T>,
    photos: VecDeque<(Timestamp, T)>,
    /// Photos that sessions are at.
    photos_running: usize,
    last_live: Option<Timestamp>,
    /// The job taken last was a photo that overtook live frames: the next one is live.
    overtaken: bool,
}

impl<T> Lanes<T> {
    /// Nothing waits for any of `sessions`.
    pub(super) fn of(sessions: usize) -> Self {
        Self { sessions, live: VecDeque::new(), photos: VecDeque::new(), photos_running: 0, last_live: None, overtaken: false }
    }

    /// Takes a job, or hands it back when it is a photo and there are too many.
    pub(super) fn push(&mut self, lane: Lane, job: T, now: Timestamp) -> Result<(), T> {
        match lane {
            Lane::Live => {
                self.last_live = Some(now);
                self.live.push_back(job);
            }
            Lane::Photo if self.photos.len() >= PHOTOS_MAX => return Err(job),
            Lane::Photo => self.photos.push_back((now, job)),
        }
        Ok(())
    }

    /// The next job: live frames first, but a photo that has waited for a second goes next, and
    /// then at least one live frame. Whoever was given a photo says when it is
    /// [done](Self::photo_done).
    pub(super) fn take(&mut self, now: Timestamp) -> Option<(Lane, T)> {
        let has_room = self.photos_running < self.photos_at_once(now);
        let waited = self.photos.front().is_some_and(|(since, _)| now.since(*since) > PATIENCE);
        let overtakes = has_room && waited && !self.overtaken && !self.live.is_empty();
        self.overtaken = overtakes;
        if !overtakes && let Some(job) = self.live.pop_front() {
            return Some((Lane::Live, job));
        }
        if !has_room {
            return None;
        }
        let (_, job) = self.photos.pop_front()?;
        self.photos_running += 1;
        Some((Lane::Photo, job))
    }

    /// A photo that was taken is no longer worked at.
    pub(super) fn photo_done(&mut self) {
        self.photos_running -= 1;
    }

    /// How many sessions may be at photos.
    fn photos_at_once(&self, now: Timestamp) -> usize {
        let live_is_awaited = self.last_live.is_some_and(|last| now.since(last) < LIVE_AWAITED);
        (self.sessions - usize::from(live_is_awaited)).max(1)
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

    /// All jobs, one after the other.
    fn drain(lanes: &mut Lanes<&'static str>, now: Timestamp) -> Vec<&'static str> {
        let next = || {
            let (lane, job) = lanes.take(now)?;
            if lane == Lane::Photo {
                lanes.photo_done();
            }
            Some(job)
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn live_frames_go_before_photos() {
        let mut lanes = Lanes::of(1);
        for (lane, job) in [(Lane::Photo, "p1"), (Lane::Live, "l1"), (Lane::Photo, "p2"), (Lane::Live, "l2")] {
            lanes.push(lane, job, START).expect("there is room");
        }
        assert_eq!(drain(&mut lanes, START.plus(PATIENCE)), ["l1", "l2", "p1", "p2"]);
    }

    #[test]
    fn a_photo_that_has_waited_for_a_second_overtakes_one_live_frame_at_a_time() {
        let mut lanes = Lanes::of(1);
        for (lane, job) in [(Lane::Photo, "p1"), (Lane::Photo, "p2"), (Lane::Live, "l1"), (Lane::Live, "l2"), (Lane::Live, "l3")] {
            lanes.push(lane, job, START).expect("there is room");
        }
        let late = START.plus(PATIENCE + Duration::from_micros(1));
        assert_eq!(drain(&mut lanes, late), ["p1", "l1", "p2", "l2", "l3"]);
    }

    #[test]
    fn photos_leave_one_of_several_sessions_to_live_frames_until_there_are_none_for_a_second() {
        let mut lanes = Lanes::of(3);
        for photo in ["p1", "p2", "p3", "p4", "p5", "p6"] {
            lanes.push(Lane::Photo, photo, START).expect("there is room");
        }
        let taken = |lanes: &mut Lanes<_>, now| lanes.take(now).map(|(_, job)| job);
        assert_eq!([(); 4].map(|()| taken(&mut lanes, START)), [Some("p1"), Some("p2"), Some("p3"), None], "three sessions are at work");
        lanes.photo_done();
        lanes.push(Lane::Live, "l1", START).expect("there is room");
        assert_eq!(taken(&mut lanes, START), Some("l1"));
        assert_eq!(taken(&mut lanes, START), None, "two are at photos, the third waits for a frame");
        lanes.photo_done();
        assert_eq!([(); 2].map(|()| taken(&mut lanes, START)), [Some("p4"), None]);
        let later = START.plus(LIVE_AWAITED);
        assert_eq!([(); 2].map(|()| taken(&mut lanes, later)), [Some("p5"), None], "no frame came for a second");
    }

    #[test]
    fn the_only_session_is_shared() {
        let mut lanes = Lanes::of(1);
        lanes.push(Lane::Live, "l1", START).expect("there is room");
        lanes.push(Lane::Photo, "p1", START).expect("there is room");
        assert_eq!(drain(&mut lanes, START), ["l1", "p1"]);
    }

    #[test]
    fn the_seventeenth_photo_is_refused_and_live_frames_are_not() {
        let mut lanes = Lanes::of(1);
        for _ in 0..PHOTOS_MAX {
            lanes.push(Lane::Photo, "p", START).expect("there is room");
        }
        assert_eq!(lanes.push(Lane::Photo, "late", START), Err("late"));
        assert_eq!(lanes.push(Lane::Live, "l", START), Ok(()));
        assert_eq!(lanes.take(START), Some((Lane::Live, "l")));
        assert_eq!(lanes.take(START), Some((Lane::Photo, "p")));
        assert_eq!(lanes.push(Lane::Photo, "again", START), Ok(()));
    }
}
