//! Tells packets that were lost from those that are of no use to the decoder.
//!
//! In: the numbers of a connection's packets, as they arrive and as they reach the depayloader. Out: whether one follows a gap.
//! A gateway may send other payload types under the same numbers: parity, or a sign of life. These never reach the depayloader: the
//! jitter buffer drops what the camera has not described, and behind it each type goes its own way. They are seen where
//! all packets arrive, and so are no gap. At most 1024 of them are remembered.
//! Must not know: GStreamer, bytes, pictures.

use std::collections::VecDeque;

use super::rtp::Numbered;

const OTHERS_MAX: usize = 1024;

/// The numbers of one connection.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// The newest packet that reached the depayloader: what has its source and type is the camera's stream.
    newest: Option<Numbered>,
    /// What has arrived since and is not the stream's, in order of arrival.
    others: VecDeque<Numbered>,
}

impl Numbers {
    /// A packet came from the network.
    pub(super) fn arrived(&mut self, packet: Numbered) {
        let is_other = self.newest.is_none_or(|newest| newest.ssrc == packet.ssrc && newest.payload_type != packet.payload_type);
        // A datagram that comes twice stands for one number.
        if is_other && !self.others.contains(&packet) {
            if self.others.len() == OTHERS_MAX {
                self.others.pop_front();
            }
            self.others.push_back(packet);
        }
    }

    /// A packet of the stream reached the depayloader: whether any were lost before it.
    pub(super) fn follows_gap(&mut self, packet: Numbered) -> bool {
        let Some(newest) = self.newest.replace(packet) else {
            self.forget(packet);
            return false;
        };
        let missing = packet.sequence.wrapping_sub(newest.sequence).wrapping_sub(1);
        let is_missing = |other: &Numbered| packet.sequence.wrapping_sub(other.sequence).wrapping_sub(1) < missing;
        let follows_gap = packet.ssrc != newest.ssrc
            || (missing > 0 && self.others.iter().filter(|other| is_missing(other)).count() != usize::from(missing));
        if missing > 0 {
            self.forget(packet);
        }
        follows_gap
    }

    /// Forgets what is older than a packet of the stream, and what was noted before the stream was known.
    fn forget(&mut self, packet: Numbered) {
        let is_newer = |other: &Numbered| other.sequence.wrapping_sub(packet.sequence) < 1 << 15;
        self.others.retain(|other| other.ssrc == packet.ssrc && other.payload_type != packet.payload_type && is_newer(other));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ssrc: u32, payload_type: u8, sequence: u16) -> Numbered {
        Numbered { ssrc, payload_type, sequence }
    }

    fn video(sequence: u16) -> Numbered {
        of(7, 96, sequence)
    }

    fn parity(sequence: u16) -> Numbered {
        of(7, 127, sequence)
    }

    #[test]
    fn a_number_that_is_missing_is_a_gap_and_numbers_begin_again_at_0() {
        let mut numbers = Numbers::default();
        let gaps = [65_534, 65_535, 0, 2, 3, 3].map(|sequence| {
            numbers.arrived(video(sequence));
            numbers.follows_gap(video(sequence))
        });
        assert_eq!(gaps, [false, false, false, true, false, true], "one that goes back is no successor either");
        assert!(numbers.others.is_empty());
    }

    #[test]
    fn a_packet_of_another_type_is_no_gap_and_hides_none() {
        let mut numbers = Numbers::default();
        for packet in
            [parity(65_533), video(65_534), parity(65_535), video(0), parity(1), parity(1), parity(2), video(4), of(9, 127, 5), video(6)]
        {
            numbers.arrived(packet);
        }
        let gaps = [65_534, 0, 4, 6, 7].map(|sequence| numbers.follows_gap(video(sequence)));
        assert_eq!(gaps, [false, false, true, true, false], "3 is lost, and 5 is another source's");
        assert!(numbers.others.is_empty(), "a whole round later the same number may be lost");
    }

    #[test]
    fn another_source_is_another_stream_and_little_is_remembered() {
        let mut numbers = Numbers::default();
        (0..3000).for_each(|sequence| numbers.arrived(parity(sequence)));
        assert_eq!(numbers.others.len(), OTHERS_MAX);
        assert!(!numbers.follows_gap(video(3000)) && numbers.follows_gap(of(8, 96, 3001)));
    }
}
