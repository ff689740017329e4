//! Decides which access units are whole enough to be decoded, since decoders show pictures with missing parts.
//!
//! In: the packets of a stream, in order, and which of them follow a gap; its access units. Out: decode it or not.
//! What follows a lost packet is skipped, up to the next whole keyframe; the caller counts it. A face with missing parts
//! must not be recognised as somebody.
//! Must not know: GStreamer, what an access unit holds.

/// The rule's memory of one connection. Times are presentation times in nanoseconds.
///
/// Made by `default`, it lets the decoder find its own beginning: the processor's keeps back what comes before it, and knows
/// streams that have no keyframes, too.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// A keyframe from this time on ends the skipping.
    waits_for: Option<u64>,
}

impl Losses {
    /// For a decoder that shows whatever it is given, so that it has to begin with a keyframe.
    pub(super) fn before_a_keyframe() -> Self {
        Self { waits_for: Some(0) }
    }

    /// Takes note of a packet, by whether others are missing before it and by its picture's time.
    pub(super) fn packet(&mut self, follows_gap: bool, time: Option<u64>) {
        if follows_gap {
            // The picture of this packet may have lost its beginning, and the one before its end.
            self.waits_for = Some(time.map_or(0, |time| time.saturating_add(1)));
        }
    }

    /// Whether to decode the access unit of this time.
    pub(super) fn admits(&mut self, time: Option<u64>, is_keyframe: bool) -> bool {
        let Some(from) = self.waits_for else { return true };
        let is_whole = is_keyframe && time.is_none_or(|time| time >= from);
        if is_whole {
            self.waits_for = None;
        }
        is_whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_lost_packet_decoding_begins_again_at_the_next_whole_keyframe() {
        let mut losses = Losses::before_a_keyframe();
        losses.packet(false, Some(100));
        assert!(!losses.admits(Some(100), false), "nothing refers to what was before the connection");
        assert!(Losses::default().admits(Some(100), false), "but a decoder that knows it is given everything");
        losses.packet(false, Some(200));
        assert!(losses.admits(Some(200), true) && losses.admits(Some(300), false));
        // The end of the picture of 300 is lost, or the beginning of that of 400.
        losses.packet(true, Some(400));
        let admitted = [(300, true), (400, true), (500, false), (600, true), (700, false)]
            .map(|(time, is_keyframe)| losses.admits(Some(time), is_keyframe));
        assert_eq!(admitted, [false, false, false, true, true]);
    }
}
