//! Says how long to wait before the next attempt to reach a camera.
//!
//! In: how long the last attempt gave frames, and whether the camera refused the credential. Out: a wait.
//! Drops nothing.
//! Must not know: clocks, GStreamer.

use std::time::Duration;

const WAIT_FIRST: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(4);
/// Many cameras lock an account for half an hour after some attempts with a wrong password, also for whoever knows the right
/// one. A new credential is tried at once, whatever the wait was.
const REFUSED_WAIT_MAX: Duration = Duration::from_secs(300);
const GROWTH: f64 = 1.6;
/// The part of each wait that chance decides, so that fifty cameras behind one rebooted switch do
/// not all come back in the same millisecond. It only shortens: the wait never passes `WAIT_MAX`.
const JITTER: f64 = 0.25;
/// An attempt that gave frames for this long was a success: the next failure begins anew.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// Waits of 0.5 s × 1.6ⁿ up to 4 s (5 min where the credential is refused), each shortened by up to a quarter at random.
#[derive(Debug)]
pub(super) struct Backoff {
    random: fastrand::Rng,
    wait: Duration,
}

impl Backoff {
    /// A backoff at its beginning; equal seeds give equal waits.
    pub(super) fn seeded(seed: u64) -> Self {
        Self { random: fastrand::Rng::with_seed(seed), wait: WAIT_FIRST }
    }

    /// The wait after an attempt that gave frames for `good`; `is_refused` where the camera did not take the credential.
    pub(super) fn next(&mut self, good: Duration, is_refused: bool) -> Duration {
        let wait_max = if is_refused { REFUSED_WAIT_MAX } else { WAIT_MAX };
        self.wait = self.wait.min(wait_max);
        if good >= GOOD_AFTER {
            self.wait = WAIT_FIRST;
        }
        let wait = self.wait.mul_f64(1.0 - JITTER * self.random.f64());
        self.wait = self.wait.mul_f64(GROWTH).min(wait_max);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_four_seconds_and_never_pass_it() {
        for seed in 0..200 {
            let mut backoff = Backoff::seeded(seed);
            let waits: Vec<f64> = (0..12).map(|_| backoff.next(Duration::ZERO, false).as_secs_f64()).collect();
            assert!(waits[0] <= 0.5 && waits[0] >= 0.375, "seed {seed}: {waits:?}");
            assert!(waits.iter().all(|&wait| wait <= 4.0), "seed {seed}: {waits:?}");
            assert!(waits[6..].iter().all(|&wait| wait >= 3.0), "seed {seed}: {waits:?}");
        }
    }

    #[test]
    fn a_refused_credential_is_tried_more_and_more_rarely_and_anything_else_as_ever() {
        let mut backoff = Backoff::seeded(2);
        let waits: Vec<f64> = (0..20).map(|_| backoff.next(Duration::ZERO, true).as_secs_f64()).collect();
        assert!(waits[0] <= 0.5 && waits[19] >= 225.0 && waits.iter().all(|&wait| wait <= 300.0), "{waits:?}");
        assert!(waits.iter().take_while(|&&wait| wait < 60.0).count() <= 12, "{waits:?}");
        assert!(backoff.next(Duration::ZERO, false) <= Duration::from_secs(4), "it is on the network again, and was not reached");
    }

    #[test]
    fn ten_seconds_of_good_frames_forgive_what_was_before() {
        let mut backoff = Backoff::seeded(1);
        for _ in 0..8 {
            backoff.next(Duration::from_secs(9), false);
        }
        assert!(backoff.next(Duration::from_secs(9), false) >= Duration::from_secs(3), "nine seconds are not enough");
        assert!(backoff.next(Duration::from_secs(10), false) <= Duration::from_millis(500));
    }

    #[test]
    fn cameras_that_fail_together_do_not_come_back_together() {
        let waits: Vec<Duration> = (0..50).map(|seed| Backoff::seeded(seed).next(Duration::ZERO, false)).collect();
        let (least, most) = (waits.iter().min().expect("waits"), waits.iter().max().expect("waits"));
        assert!(*most - *least >= Duration::from_millis(60), "{least:?} to {most:?}");
    }
}
