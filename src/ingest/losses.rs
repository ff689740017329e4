//! Decides which access units are whole enough to be decoded, since decoders show pictures with missing parts.
//!
//! In: the packets of a stream, in order, and which of them follow a gap; its access units, in order of decoding. Out: decode it or not.
//! What follows a lost packet is skipped, up to the next whole keyframe; the caller counts it. A face with missing parts
//! must not be recognised as somebody. A stream without keyframes is refreshed bit by bit: it is skipped for as long as that usually
//! takes, and what a slower camera shows then may have missing parts.
//! Must not know: GStreamer, what an access unit holds.

/// How long a camera that sends no keyframes usually takes to send a whole picture bit by bit, in nanoseconds.
const REFRESH: u64 = 2_000_000_000;

/// The rule's memory of one connection. Times are presentation times in nanoseconds.
///
/// Made by `default`, it lets the decoder find its own beginning: the processor's keeps back what comes before it, and knows
/// streams that have no keyframes, too.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The time of the packet before.
    previous: Option<u64>,
    /// Whether the camera sends keyframes, so that waiting for one has an end.
    has_keyframes: bool,
    phase: Phase,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Decoding,
    /// A keyframe from this time on ends the skipping.
    Waiting { from: u64, since: Option<u64> },
    /// Behind a keyframe come pictures that are shown before it and may refer to what was skipped.
    Leading { keyframe: u64 },
}

impl Losses {
    /// For a decoder that shows whatever it is given, so that it has to begin with a keyframe.
    pub(super) fn before_a_keyframe() -> Self {
        Self { phase: Phase::Waiting { from: 0, since: None }, ..Self::default() }
    }

    /// Takes note of a packet, by whether others are missing before it and by its picture's time.
    pub(super) fn packet(&mut self, follows_gap: bool, time: Option<u64>) {
        if follows_gap {
            // The picture of this packet may have lost its beginning, and the one before its end. Either may be shown later.
            let damaged = self.previous.max(time).map_or(0, |time| time.saturating_add(1));
            let from = if let Phase::Waiting { from, .. } = self.phase { from.max(damaged) } else { damaged };
            self.phase = Phase::Waiting { from, since: time };
        }
        self.previous = time.or(self.previous);
    }

    /// Whether to decode the access unit of this time. Whether it is a keyframe is asked only where that decides.
    pub(super) fn admits(&mut self, time: Option<u64>, is_keyframe: impl FnOnce() -> bool) -> bool {
        let is_asked = !self.has_keyframes || matches!(self.phase, Phase::Waiting { .. });
        let is_keyframe = is_asked && is_keyframe();
        self.has_keyframes |= is_keyframe;
        match &mut self.phase {
            Phase::Decoding => true,
            Phase::Waiting { from, .. } if is_keyframe && time.is_none_or(|time| time >= *from) => {
                self.phase = time.map_or(Phase::Decoding, |keyframe| Phase::Leading { keyframe });
                true
            }
            Phase::Waiting { since, .. } => {
                let lasts = time.map_or(0, |time| time.saturating_sub(*since.get_or_insert(time)));
                let is_refreshed = !self.has_keyframes && lasts >= REFRESH;
                if is_refreshed {
                    self.phase = Phase::Decoding;
                }
                is_refreshed
            }
            Phase::Leading { keyframe } => {
                let is_after = time.is_none_or(|time| time >= *keyframe);
                if is_after {
                    self.phase = Phase::Decoding;
                }
                is_after
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is admitted of access units that are told by time and by whether they are keyframes.
    fn admitted<const N: usize>(losses: &mut Losses, units: [(u64, bool); N]) -> [bool; N] {
        units.map(|(time, is_keyframe)| losses.admits(Some(time), || is_keyframe))
    }

    #[test]
    fn after_a_lost_packet_decoding_begins_again_at_the_next_whole_keyframe() {
        let mut losses = Losses::before_a_keyframe();
        losses.packet(false, Some(100));
        assert_eq!(admitted(&mut losses, [(100, false)]), [false], "nothing refers to what was before the connection");
        assert_eq!(admitted(&mut Losses::default(), [(100, false)]), [true], "but a decoder that knows it is given everything");
        losses.packet(false, Some(200));
        assert_eq!(admitted(&mut losses, [(200, true), (300, false)]), [true, true]);
        // The end of the picture of 300 is lost, or the beginning of that of 400.
        losses.packet(true, Some(400));
        let units = [(300, true), (400, true), (500, false), (600, true), (700, false)];
        assert_eq!(admitted(&mut losses, units), [false, false, false, true, true]);
    }

    #[test]
    fn a_damaged_keyframe_that_is_shown_after_its_successors_ends_no_skipping() {
        let mut losses = Losses::default();
        losses.packet(false, Some(600));
        losses.packet(true, Some(520));
        losses.packet(true, Some(560));
        assert_eq!(admitted(&mut losses, [(600, true), (520, false), (560, false), (840, true)]), [false, false, false, true]);
    }

    #[test]
    fn pictures_before_the_keyframe_that_ends_the_skipping_refer_to_what_was_skipped() {
        let mut losses = Losses::default();
        losses.packet(true, Some(100));
        let units = [(600, true), (520, false), (560, false), (720, false), (640, false), (840, true), (760, false)];
        assert_eq!(admitted(&mut losses, units), [true, false, false, true, true, true, true], "later ones have all they refer to");
    }

    #[test]
    fn a_stream_that_never_sent_a_keyframe_is_dark_for_two_seconds_and_one_that_did_until_the_next() {
        let second = 1_000_000_000;
        for has_keyframes in [false, true] {
            let mut losses = Losses::default();
            assert_eq!(admitted(&mut losses, [(second, has_keyframes)]), [true]);
            losses.packet(true, Some(2 * second));
            let units = [(2 * second, false), (4 * second - 1, false), (4 * second, false), (5 * second, false)];
            assert_eq!(admitted(&mut losses, units), [false, false, !has_keyframes, !has_keyframes]);
        }
        let units = [(second, false), (3 * second - 1, false), (3 * second, false)];
        assert_eq!(admitted(&mut Losses::before_a_keyframe(), units), [false, false, true], "the same at the beginning");
    }

    #[test]
    fn a_stream_that_is_whole_is_not_looked_into() {
        let mut losses = Losses::before_a_keyframe();
        assert!(losses.admits(Some(100), || true));
        assert!(losses.admits(Some(200), || unreachable!("it has keyframes, and nothing is missing")));
    }
}
