//! Decides for one camera whether a device decodes its next connection or the processor does.
//!
//! In: refusals of the device, with their times. Out: a refusal that is in force, or none.
//! Remembers the last refusal. While it is in force the camera's connections are decoded by the processor; a connection
//! that stands is never ended to try the device again.
//! Must not know: GStreamer, CUDA, what a refusal was.

use std::fmt;
use std::time::Duration;

use crate::clock::Timestamp;

/// After a first refusal the processor decodes for this long. Other cameras may have left a decoder by then.
const FOR_FIRST: Duration = Duration::from_secs(10 * 60);
/// A stream that the device cannot decode costs a connection once a day.
const FOR_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Each refusal after a refusal is in force for so much longer.
const GROWTH: u32 = 3;
/// Frames for this long show that the device decodes this camera: the next refusal is a first one.
const GOOD_AFTER: Duration = Duration::from_secs(60);

/// Why, and for how long, the processor decodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: String,
    pub(super) lasts: Duration,
    began: Timestamp,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "decoded by the CPU until it connects again after {} min: {}", self.lasts.as_secs() / 60, self.reason)
    }
}

/// The refusals of one camera.
#[derive(Debug, Default)]
pub(super) struct Fallback {
    last: Option<Refusal>,
}

impl Fallback {
    /// The refusal that is in force at `now`.
    pub(super) fn in_force(&self, now: Timestamp) -> Option<&Refusal> {
        self.last.as_ref().filter(|refusal| now.since(refusal.began) < refusal.lasts)
    }

    /// Takes note that the device refused at `now`.
    pub(super) fn refused(&mut self, reason: String, now: Timestamp) -> &Refusal {
        let lasts = self.last.as_ref().map_or(FOR_FIRST, |last| (last.lasts * GROWTH).min(FOR_MAX));
        self.last.insert(Refusal { reason, lasts, began: now })
    }

    /// Takes note that the device decoded for so long.
    pub(super) fn decoded(&mut self, good: Duration) {
        if good >= GOOD_AFTER {
            self.last = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs(60 * minutes))
    }

    #[test]
    fn a_refused_camera_is_decoded_by_the_processor_until_the_refusal_is_over() {
        let mut fallback = Fallback::default();
        assert_eq!(fallback.in_force(at(0)), None);
        assert_eq!(
            fallback.refused("no more decoders".into(), at(5)).to_string(),
            "decoded by the CPU until it connects again after 10 min: no more decoders"
        );
        assert_eq!(fallback.in_force(at(14)).map(|refusal| refusal.reason.as_str()), Some("no more decoders"));
        assert_eq!(fallback.in_force(at(15)), None, "the next connection tries the device again");
    }

    #[test]
    fn refusals_in_a_row_last_longer_up_to_a_day_and_a_good_minute_forgives() {
        let mut fallback = Fallback::default();
        let minutes: Vec<u64> = (0..7).map(|day| fallback.refused(String::new(), at(day * 2_000)).lasts.as_secs() / 60).collect();
        assert_eq!(minutes, [10, 30, 90, 270, 810, 1_440, 1_440]);
        fallback.decoded(Duration::from_secs(59));
        assert!(fallback.in_force(at(12_001)).is_some(), "frames for a moment forgive nothing");
        fallback.decoded(Duration::from_secs(60));
        assert_eq!(fallback.refused(String::new(), at(20_000)).lasts, FOR_FIRST);
    }
}
