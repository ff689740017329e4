//! Tells when a device has had no room for a kind of work for too long.
//!
//! In: each time that there was none, and each that work was done, of all sessions of an engine. Out: whether that is too long.
//! Must not know: what the work is, why there was no room.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// In so many parts of the time it must have been wanting: two moments of it, however far apart, are no long want.
const PARTS: u32 = 5;

/// What no room was found for, by kinds of work.
pub(super) struct Wanting<const KINDS: usize> {
    max: Duration,
    kinds: Mutex<[Option<Want>; KINDS]>,
}

/// A want that is under way.
#[derive(Clone, Copy)]
struct Want {
    /// In how many parts of the time there was no room.
    parts: u32,
    /// When the newest part began.
    newest: Instant,
}

impl<const KINDS: usize> Wanting<KINDS> {
    /// For so long there may be no room.
    pub(super) fn new(max: Duration) -> Self {
        Self { max, kinds: Mutex::new([None; KINDS]) }
    }

    /// Work of a kind was done.
    pub(super) fn was_met(&self, kind: usize) {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)[kind] = None;
    }

    /// There was no room for work of a kind; answers for how long, where that is too long.
    pub(super) fn was_not_met(&self, kind: usize, now: Instant) -> Option<Duration> {
        let want = &mut self.kinds.lock().unwrap_or_else(PoisonError::into_inner)[kind];
        let parts = match want {
            Some(Want { parts, newest }) if now.duration_since(*newest) < self.max / PARTS => return (*parts > PARTS).then_some(self.max),
            Some(Want { parts, .. }) => *parts + 1,
            None => 1,
        };
        *want = Some(Want { parts, newest: now });
        (parts > PARTS).then_some(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(60);

    #[test]
    fn room_that_is_wanting_all_the_time_is_wanting_for_too_long_after_that_time() {
        let (wanting, start) = (Wanting::<2>::new(MAX), Instant::now());
        let over = (0..).find(|second| wanting.was_not_met(0, start + Duration::from_secs(*second)).is_some());
        assert_eq!(over, Some(60));
        assert!(wanting.was_not_met(1, start + MAX).is_none(), "another kind of work has its own time");
    }

    #[test]
    fn room_that_was_found_in_between_or_is_wanting_for_moments_is_no_long_want() {
        let (wanting, start) = (Wanting::<1>::new(MAX), Instant::now());
        for second in 0..600 {
            assert!(wanting.was_not_met(0, start + Duration::from_secs(second)).is_none(), "{second}");
            if second % 50 == 49 {
                wanting.was_met(0);
            }
        }
        let wanting = Wanting::<1>::new(MAX);
        for hour in 0..4 {
            for moment in 0..20 {
                let now = start + Duration::from_secs(3600 * hour) + Duration::from_millis(10 * moment);
                assert!(wanting.was_not_met(0, now).is_none(), "nobody asked between moments of want: {hour}");
            }
        }
    }
}
