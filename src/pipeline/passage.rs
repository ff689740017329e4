//! When a frame and its shots passed which stage.
//!
//! In: moments, as each stage is done. Out: how long each took.
//! Must not know: what the stages do.

use crate::clock::Timestamp;
use crate::event::StageTimes;

/// When a frame and its shots passed which stage.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passage {
    /// Captured, decoded, taken from its slot.
    pub captured: Timestamp,
    /// Left the decoder.
    pub decoded: Timestamp,
    /// Taken from its slot.
    pub taken: Timestamp,
    /// Faces were found.
    pub detected: Timestamp,
    /// Templates were made.
    pub encoded: Timestamp,
    /// The gallery was searched.
    pub matched: Timestamp,
}

impl Passage {
    /// How long each stage took, up to a decision at `decision_time_us`.
    pub fn stage_times(&self, decision_time_us: i64) -> StageTimes {
        let ms = |from: Timestamp, to: Timestamp| to.since(from).as_secs_f32() * 1e3;
        StageTimes {
            decode_ms: ms(self.captured, self.decoded),
            wait_ms: ms(self.decoded, self.taken),
            detect_ms: ms(self.taken, self.detected),
            encode_ms: ms(self.detected, self.encoded),
            match_ms: ms(self.encoded, self.matched),
            decide_ms: ms(self.matched, Timestamp::from_micros(decision_time_us)),
        }
    }
}
