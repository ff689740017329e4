//! Tells whether decoding can begin with an access unit: whether it is whole without what came before it.
//!
//! In: an access unit as a byte stream (H.264 or H.265, annex B). Out: yes or no.
//! The parsers do not answer this: to them any intra slice or recovery point makes a keyframe, so that every picture of a stream
//! that is refreshed bit by bit may be called one. Only the first bytes of each unit are read, and nothing is copied.
//! Must not know: GStreamer, packets, what is done with the answer.

/// Whether decoding can begin with an access unit of H.264: an IDR picture, a point at which the encoder promises a whole picture at once, or intra slices alone
/// (sections 7.4.1, 7.4.3 and D.2.8 of the standard).
pub(super) fn is_h264(access_unit: &[u8]) -> bool {
    const SLICE: u8 = 1;
    const PARTITION: u8 = 2;
    const IDR: u8 = 5;
    const SEI: u8 = 6;
    let mut has_slices = false;
    for unit in units(access_unit) {
        let [header, body @ ..] = unit else { continue };
        match header & 0x1F {
            IDR => return true,
            SEI if is_whole_at_once(ended(body)) => return true,
            SLICE | PARTITION if is_intra(body) => has_slices = true,
            SLICE | PARTITION => return false,
            _ => {}
        }
    }
    has_slices
}

/// The same of H.265: a picture of the types 16 to 21 (table 7-1 of the standard), which its first slice tells.
pub(super) fn is_h265(access_unit: &[u8]) -> bool {
    const SLICES_END: u8 = 32;
    let mut kinds = units(access_unit).filter_map(|unit| Some(unit.first()? >> 1 & 0x3F));
    kinds.find(|&kind| kind < SLICES_END).is_some_and(|kind| (16..=21).contains(&kind))
}

/// What follows each start code, to the end of the access unit: whoever needs a unit's end looks for it, since slices are long and
/// their beginning tells enough.
fn units(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        rest = &rest[start_code(rest)? + 3..];
        Some(rest)
    })
}

fn start_code(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|window| window == [0, 0, 1])
}

fn ended(unit: &[u8]) -> &[u8] {
    &unit[..start_code(unit).unwrap_or(unit.len())]
}

/// Whether a slice is of type I: its header begins with two numbers, and the second is the type.
fn is_intra(slice: &[u8]) -> bool {
    let mut bits = unescaped(slice).flat_map(|byte| (0..8).rev().map(move |place| byte >> place & 1 == 1));
    let kind = number(&mut bits).and_then(|_first_macroblock| number(&mut bits));
    matches!(kind, Some(2 | 7))
}

/// An Exp-Golomb number (H.264, section 9.1): as many zeros as there are digits behind the first one.
fn number(bits: &mut impl Iterator<Item = bool>) -> Option<u32> {
    let mut digits = 0;
    while !bits.next()? {
        digits += 1;
        if digits == u32::BITS {
            return None;
        }
    }
    (0..digits).try_fold(1_u32, |value, _| Some(value << 1 | u32::from(bits.next()?))).map(|value| value - 1)
}

/// Whether the messages hold a recovery point after 0 pictures. The message begins with the number of pictures, and 0 is the only
/// number that begins with a one.
fn is_whole_at_once(messages: &[u8]) -> bool {
    const RECOVERY_POINT: usize = 6;
    let mut bytes = unescaped(messages);
    while let (Some(kind), Some(length)) = (sum(&mut bytes), sum(&mut bytes)) {
        if kind == RECOVERY_POINT {
            return bytes.next().is_some_and(|byte| byte & 0x80 != 0);
        }
        bytes.by_ref().take(length).for_each(drop);
    }
    false
}

/// A message's kind or length: bytes are added up to the first that is not 255.
fn sum(bytes: &mut impl Iterator<Item = u8>) -> Option<usize> {
    let mut total = 0_usize;
    loop {
        let byte = bytes.next()?;
        total = total.saturating_add(byte.into());
        if byte != u8::MAX {
            return Some(total);
        }
    }
}

/// The bytes without those that keep start codes from appearing: a 3 behind two zeros.
fn unescaped(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let mut zeros = 0_usize;
    bytes.iter().copied().filter(move |&byte| {
        let is_escape = zeros >= 2 && byte == 3;
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        !is_escape
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DELIMITER: &[u8] = &[0, 0, 0, 1, 0x09, 0xF0];
    const PARAMETERS: &[u8] = &[0, 0, 0, 1, 0x67, 0x42, 0, 0, 3, 0, 1, 0, 0, 1, 0x68, 0xCE];
    const IDR: &[u8] = &[0, 0, 1, 0x65, 0x88, 0x84];
    /// First macroblock 0; type 7, which is "all slices are I", 2, which is "this one is", and 5, which is "all are P".
    const ALL_INTRA: &[u8] = &[0, 0, 1, 0x41, 0b1000_1000, 0x80];
    const INTRA: &[u8] = &[0, 0, 1, 0x41, 0b1011_1000, 0x80];
    const PREDICTED: &[u8] = &[0, 0, 1, 0x41, 0b1001_1010, 0x80];
    /// First macroblock 65 535, a one between sixteen zeros on each side, behind an escape; type 2.
    const INTRA_FAR: &[u8] = &[0, 0, 1, 0x41, 0, 0, 3, 0b1000_0000, 0, 0b0011_1000];
    const RECOVERED_AT_ONCE: &[u8] = &[0, 0, 1, 0x06, 6, 1, 0xC4, 0x80];
    /// Recovered after four pictures.
    const RECOVERED_IN_TIME: &[u8] = &[0, 0, 1, 0x06, 6, 1, 0b0010_1000, 0x80];

    #[test]
    fn decoding_begins_with_idr_pictures_whole_recovery_points_and_intra_slices_alone() {
        for (parts, is_key, what) in [
            (&[DELIMITER, PARAMETERS, IDR][..], true, "an IDR picture behind its parameter sets"),
            (&[DELIMITER, PREDICTED], false, "a P picture"),
            (&[ALL_INTRA, ALL_INTRA], true, "an I picture of two slices"),
            (&[INTRA, INTRA_FAR], true, "slices that say it of themselves"),
            (&[INTRA, PREDICTED], false, "an intra slice among others: a refresh that rolls"),
            (&[PREDICTED, INTRA], false, "wherever it is"),
            (&[RECOVERED_AT_ONCE, PREDICTED], true, "a recovery point that is whole at once"),
            (&[RECOVERED_IN_TIME, PREDICTED], false, "one that is whole some pictures later"),
            (&[RECOVERED_IN_TIME, INTRA], true, "and yet an I picture"),
            (&[DELIMITER, PARAMETERS], false, "nothing to see"),
            (&[&[0, 0, 1]], false, "an end"),
            (&[&[0, 0, 1, 0x41]], false, "a slice without a header"),
        ] {
            assert_eq!(is_h264(&parts.concat()), is_key, "{what}");
        }
    }

    #[test]
    fn a_recovery_point_is_found_behind_other_messages_and_not_in_them() {
        let unit = |messages: &[u8]| [&[0, 0, 1, 0x06], messages, PREDICTED].concat();
        let long = [&[5, 255, 1][..], &[0, 0, 3, 1].repeat(85), &[9], &[0, 0, 6, 1, 0x80, 0x80]].concat();
        assert!(is_h264(&unit(&long)), "256 bytes without their escapes, and then none");
        assert!(!is_h264(&unit(&[5, 4, 6, 1, 0x80, 0x80, 0x80])), "what looks like one inside another message");
        assert!(!is_h264(&unit(&[6])) && !is_h264(&unit(&[5, 200, 6, 1])), "messages that are cut short");
    }

    #[test]
    fn decoding_of_h265_begins_with_the_types_16_to_21() {
        let unit = |kind: u8| [0, 0, 1, kind << 1, 1, 0xAF];
        let parameters = [unit(32), unit(33), unit(34), unit(39)].concat();
        for kind in 0..32 {
            let access_unit = [&parameters[..], &unit(kind), &unit(kind)].concat();
            assert_eq!(is_h265(&access_unit), (16..=21).contains(&kind), "type {kind}");
        }
        assert!(!is_h265(&parameters) && !is_h265(&[]));
    }

    proptest! {
        #[test]
        fn no_bytes_from_the_network_cause_a_panic(bytes in proptest::collection::vec(0_u8..8, 0..80)) {
            let _ = (is_h264(&bytes), is_h265(&bytes));
        }
    }
}
