//! Says that inference fails, without filling the log when it fails at frame rate.
//!
//! In: failures. Out: a warning for the first one, then at most one every [`EVERY`], with how many
//! frames were lost since the last.
//! Must not know: what failed.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// Warnings are at least this far apart.
const EVERY: Duration = Duration::from_secs(10);

/// What was not told yet.
#[derive(Debug)]
pub struct Complaint {
    words: &'static str,
    untold: Mutex<Untold>,
}

#[derive(Debug, Default)]
struct Untold {
    frames: usize,
    told: Option<Timestamp>,
}

impl Complaint {
    /// One that says `words`.
    pub fn of(words: &'static str) -> Self {
        Self { words, untold: Mutex::default() }
    }

    /// `frames` were lost at `now` because of `error`.
    pub fn tell(&self, error: &dyn Display, frames: usize, now: Timestamp) {
        if let Some(frames) = self.due(frames, now) {
            tracing::warn!(%error, frames, "{}", self.words);
        }
    }

    /// How many frames to tell of, when it is time to.
    fn due(&self, frames: usize, now: Timestamp) -> Option<usize> {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        untold.frames += frames;
        if untold.told.is_some_and(|told| now.since(told) < EVERY) {
            return None;
        }
        untold.told = Some(now);
        Some(std::mem::take(&mut untold.frames))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_at_once_and_the_others_together() {
        let complaint = Complaint::of("it failed");
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        assert_eq!(complaint.due(1, at(5)), Some(1));
        assert_eq!((complaint.due(2, at(6)), complaint.due(3, at(14))), (None, None));
        assert_eq!(complaint.due(4, at(15)), Some(9));
        assert_eq!(complaint.due(1, at(16)), None);
    }
}
