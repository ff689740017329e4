//! Reads the few fields of RTP and RTCP packets that tell when a picture was taken and whether
//! decoding can begin with it.
//!
//! In: bytes from the network, which may be anything. Out: values, or nothing.
//! Must not know: GStreamer, clocks.

/// The clock rate of every RTP video payload used here, in ticks a second (RFC 6184, section 8.2.1;
/// RFC 7798, section 7.1).
pub(super) const VIDEO_CLOCK_RATE: i64 = 90_000;

/// What an RTP packet says of its picture (RFC 3550, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RtpHeader {
    /// The sender's name of the stream.
    pub(super) ssrc: u32,
    /// When the picture was sampled, in ticks from a random beginning.
    pub(super) rtp_time: u32,
}

/// Which packet of its stream one is, and what it carries (RFC 3550, section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    /// The sender's name of the stream.
    pub(super) ssrc: u32,
    /// What kind of thing it carries; its meaning is agreed on elsewhere.
    pub(super) payload_type: u8,
    /// Rises by one from packet to packet of the stream, of whatever type they are.
    pub(super) sequence: u16,
}

/// A sender's statement that a moment of its clock is a moment of its RTP clock (RFC 3550, section
/// 6.4.1). The moment itself (the NTP time) is not read: cameras' clocks are hours off, and
/// the report's arrival serves as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SenderReport {
    /// The sender's name of the stream.
    pub(super) ssrc: u32,
    /// The RTP time at which the report was sent.
    pub(super) rtp_time: u32,
}

const SENDER_REPORT: u8 = 200;

/// Reads the header of an RTP packet.
pub(super) fn header(packet: &[u8]) -> Option<RtpHeader> {
    let (first, rtp_time, ssrc) = (*packet.first()?, word(packet, 4)?, word(packet, 8)?);
    (first >> 6 == 2).then_some(RtpHeader { ssrc, rtp_time })
}

/// Reads which packet of its stream one is.
pub(super) fn numbered(packet: &[u8]) -> Option<Numbered> {
    let [first, kind, high, low, ..] = *packet else { return None };
    let (ssrc, sequence) = (word(packet, 8)?, u16::from_be_bytes([high, low]));
    (first >> 6 == 2).then_some(Numbered { ssrc, payload_type: kind & 0x7F, sequence })
}

/// Finds the sender report in a compound RTCP packet.
pub(super) fn sender_report(mut compound: &[u8]) -> Option<SenderReport> {
    while let [first, kind, high, low, ..] = *compound {
        if first >> 6 != 2 {
            return None;
        }
        let length = (usize::from(u16::from_be_bytes([high, low])) + 1) * 4;
        let packet = compound.get(..length)?;
        if kind == SENDER_REPORT {
            return Some(SenderReport { ssrc: word(packet, 4)?, rtp_time: word(packet, 16)? });
        }
        compound = &compound[length..];
    }
    None
}

/// The payload of an RTP packet: what follows its header, contributors and extension.
pub(super) fn payload(packet: &[u8]) -> Option<&[u8]> {
    let first = *packet.first()?;
    let mut start = 12 + usize::from(first & 0x0F) * 4;
    if first & 0x10 != 0 {
        let words = packet.get(start + 2..start + 4)?;
        start += 4 + usize::from(u16::from_be_bytes([words[0], words[1]])) * 4;
    }
    packet.get(start..)
}

/// Whether an H.264 payload holds (a part of) a picture that can be decoded alone: NAL unit type 5,
/// plain, first in a STAP-A behind its parameter sets, or in pieces as FU-A (RFC 6184, section 5.2).
pub(super) fn is_h264_keyframe(payload: &[u8]) -> bool {
    const IDR: u8 = 5;
    match *payload {
        [first, second, ..] if first & 0x1F == 28 => second & 0x1F == IDR,
        [first, ..] if first & 0x1F == 24 => aggregated(&payload[1..]).any(|unit| unit[0] & 0x1F == IDR),
        [first, ..] => first & 0x1F == IDR,
        [] => false,
    }
}

/// The same of H.265: NAL unit types 16 to 21, plain, aggregated or in pieces (RFC 7798, section 4.4).
pub(super) fn is_h265_keyframe(payload: &[u8]) -> bool {
    let kind = |byte: u8| byte >> 1 & 0x3F;
    let is_key = |kind: u8| (16..=21).contains(&kind);
    match *payload {
        [first, _, third, ..] if kind(first) == 49 => is_key(third & 0x3F),
        [first, _, ..] if kind(first) == 48 => aggregated(&payload[2..]).any(|unit| is_key(kind(unit[0]))),
        [first, ..] => is_key(kind(first)),
        [] => false,
    }
}

/// The units of an aggregation packet, each behind its length; none is empty.
fn aggregated(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let [high, low, units @ ..] = rest else { return None };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let unit = units.get(..length).filter(|unit| !unit.is_empty())?;
        rest = &units[length..];
        Some(unit)
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report(ssrc: u32, rtp_time: u32) -> Vec<u8> {
        let mut packet = vec![0x80, SENDER_REPORT, 0, 6];
        packet.extend(ssrc.to_be_bytes());
        packet.extend([0xAA; 8]);
        packet.extend(rtp_time.to_be_bytes());
        packet.extend([0; 8]);
        packet
    }

    #[test]
    fn a_sender_report_is_found_behind_another_packet() {
        let mut compound = vec![0x81, 202, 0, 1, 0, 0, 0, 9];
        compound.extend(report(7, 90_001));
        assert_eq!(sender_report(&compound), Some(SenderReport { ssrc: 7, rtp_time: 90_001 }));
    }

    #[test]
    fn a_report_cut_short_is_none() {
        let whole = report(7, 1);
        for length in 0..whole.len() {
            assert_eq!(sender_report(&whole[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn an_rtp_header_tells_stream_and_time() {
        let packet = [0x80, 96, 0, 1, 0, 0, 1, 0, 0, 0, 0, 5, 1, 2, 3];
        assert_eq!(header(&packet), Some(RtpHeader { ssrc: 5, rtp_time: 256 }));
        assert_eq!(header(&packet[..11]), None);
        let marked = [0x80, 0x80 | 96, 1, 2, 0, 0, 1, 0, 0, 0, 0, 5];
        assert_eq!(numbered(&marked), Some(Numbered { ssrc: 5, payload_type: 96, sequence: 258 }));
        assert_eq!(numbered(&marked[..11]), None);
        assert_eq!(header(&[0x40; 12]), None, "another version of RTP");
    }

    #[test]
    fn keyframes_are_known_by_their_units() {
        for (payload, is_key) in [
            (&[0x65, 1][..], true),
            (&[0x41, 1], false),
            (&[0x7C, 0x85, 9], true),
            (&[0x7C, 0x81, 9], false),
            (&[0x18, 0, 2, 0x67, 1, 0, 2, 0x65, 1], true),
            (&[0x18, 0, 2, 0x67, 1, 0, 9, 0x65], false),
            (&[], false),
        ] {
            assert_eq!(is_h264_keyframe(payload), is_key, "{payload:x?}");
        }
        for (payload, is_key) in [
            (&[19 << 1, 1][..], true),
            (&[1 << 1, 1], false),
            (&[49 << 1, 1, 0x80 | 20], true),
            (&[49 << 1, 1, 0x80 | 1], false),
            (&[48 << 1, 1, 0, 2, 32 << 1, 1, 0, 2, 21 << 1, 1], true),
            (&[], false),
        ] {
            assert_eq!(is_h265_keyframe(payload), is_key, "{payload:x?}");
        }
    }

    #[test]
    fn the_payload_begins_behind_contributors_and_extension() {
        let mut packet = vec![0x91; 12];
        packet.extend([0; 4]);
        packet.extend([0, 0, 0, 1, 9, 9, 9, 9]);
        packet.push(0x65);
        assert_eq!(payload(&packet), Some(&[0x65][..]));
        assert_eq!(payload(&packet[..23]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_from_the_network_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (header(&bytes), numbered(&bytes), sender_report(&bytes), payload(&bytes), is_h264_keyframe(&bytes), is_h265_keyframe(&bytes));
        }
    }
}
