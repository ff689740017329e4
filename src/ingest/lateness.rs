//! Decides which access units are decoded when decoding falls behind.
//!
//! In: how long an access unit has waited, and whether it is a keyframe. Out: decode it or not.
//! What waits for more than a second is skipped, up to the next keyframe that does not; the caller
//! counts it. Without this rule an overloaded machine would recognise people half a minute late,
//! from a queue that grows in memory.
//! Must not know: GStreamer, what an access unit holds.

use std::time::Duration;

const LAG_MAX: Duration = Duration::from_secs(1);

/// The rule's memory: whether it is skipping.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    is_skipping: bool,
}

impl Lateness {
    /// Whether to decode an access unit that arrived `lag` ago.
    pub(super) fn admits(&mut self, lag: Duration, is_keyframe: bool) -> bool {
        let is_late = lag > LAG_MAX;
        // Pictures between a skipped one and the next keyframe refer to what was not decoded.
        self.is_skipping = is_late || (self.is_skipping && !is_keyframe);
        !self.is_skipping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_falling_behind_decoding_begins_again_at_a_punctual_keyframe() {
        let mut lateness = Lateness::default();
        let admitted: Vec<bool> = [(900, false), (1_100, false), (1_500, true), (300, false), (200, true), (100, false)]
            .map(|(lag_ms, is_keyframe)| lateness.admits(Duration::from_millis(lag_ms), is_keyframe))
            .into();
        assert_eq!(admitted, [true, false, false, false, true, true]);
    }
}
