//! Between wire and domain: times, faces, candidates here; subjects, cameras, events in the folder.
//!
//! In: wire messages and domain values. Out: the other. What a client may not say is refused
//! with the field's name. Wire types go no further than this and the services.
//! Must not know: any stage's work.

use std::time::Duration;

use prost::Message;
use sha2::{Digest, Sha256};
use tonic::Status;
use uuid::Uuid;

use super::status::bad_field;
use crate::clock::Timestamp;
use crate::face::Quality;
use crate::gallery::Gallery;
use crate::pb;
use crate::photo::PhotoFace;
use crate::store::RequestKey;

pub(super) mod camera;
pub(super) mod event;
pub(super) mod policy;
pub(super) mod subject;
mod telling;

/// The last moment that a protobuf timestamp can state: 9999-12-31T23:59:59.999999Z.
const TIMESTAMP_MICROS_MAX: i64 = 253_402_300_799_999_999;
/// The first one: 0001-01-01T00:00:00Z.
const TIMESTAMP_MICROS_MIN: i64 = -62_135_596_800_000_000;

/// A moment as the wire has it.
pub(super) fn time(moment: Timestamp) -> prost_types::Timestamp {
    let micros = moment.as_micros().clamp(TIMESTAMP_MICROS_MIN, TIMESTAMP_MICROS_MAX);
    let nanos = i32::try_from(micros.rem_euclid(1_000_000)).unwrap_or(0) * 1_000;
    prost_types::Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

/// A moment that a client stated in `field`, to the microsecond.
pub(super) fn moment(time: &prost_types::Timestamp, field: &str) -> Result<Timestamp, Status> {
    let micros = i64::checked_mul(time.seconds, 1_000_000).and_then(|whole| whole.checked_add(i64::from(time.nanos) / 1_000));
    match micros {
        Some(micros) if (0..1_000_000_000).contains(&time.nanos) && (TIMESTAMP_MICROS_MIN..=TIMESTAMP_MICROS_MAX).contains(&micros) => {
            Ok(Timestamp::from_micros(micros))
        }
        _ => Err(bad_field(field, "is no timestamp between the years 1 and 9999").into()),
    }
}

/// A span of time as the wire has it.
pub(super) fn duration(span: Duration) -> prost_types::Duration {
    let nanos = i32::try_from(span.subsec_nanos()).unwrap_or(0);
    prost_types::Duration { seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), nanos }
}

/// A UUID that a client stated in `field`.
pub(super) fn uuid(text: &str, field: &str) -> Result<Uuid, Status> {
    Uuid::try_parse(text).map_err(|_| bad_field(field, "is no id that the daemon gave").into())
}

/// A request id: nothing, or a UUID (AIP-155), in its one usual form.
pub(super) fn request_id(text: &str) -> Result<String, Status> {
    if text.is_empty() {
        return Ok(String::new());
    }
    let id = Uuid::try_parse(text).map_err(|_| bad_field("request_id", "must be a UUID, or empty"))?;
    Ok(id.hyphenated().to_string())
}

/// What a repeat of a call is known by. The methods of a `service` share their ids, so that one that was
/// used for another method is noticed; `asked` is the request without its id, which may be spelt in several ways, and
/// without a password: what is kept of a request must not tell it.
pub(super) fn request_key((service, method): (&str, &str), id: &str, asked: &impl Message) -> Result<Option<RequestKey>, Status> {
    let id = request_id(id)?;
    let hash = Sha256::new_with_prefix(method).chain_update(asked.encode_to_vec());
    Ok((!id.is_empty()).then(|| RequestKey { key: format!("{service}/{id}"), asked: hash.finalize().into() }))
}

/// How many candidates a client wants: `default` for 0, at most `max`.
pub(super) fn candidates_max(wish: i32, default: usize, max: usize) -> Result<usize, Status> {
    match usize::try_from(wish) {
        Ok(0) => Ok(default),
        Ok(count) if count <= max => Ok(count),
        _ => Err(bad_field("candidates_max", format!("must be 0 (takes {default}) to {max}")).into()),
    }
}

/// How usable a face is.
pub(super) fn quality(quality: &Quality) -> pb::Quality {
    pb::Quality {
        overall: quality.overall,
        size_pixels: quality.size_pixels,
        sharpness: quality.sharpness,
        brightness: quality.brightness,
        contrast: quality.contrast,
        yaw_degrees: quality.yaw_degrees,
        pitch_degrees: quality.pitch_degrees,
        roll_degrees: quality.roll_degrees,
        detection_score: quality.detection_score,
    }
}

/// A face of a photo.
pub(super) fn face(face: &PhotoFace) -> pb::Face {
    let place = face.detection.box_in_frame;
    pb::Face {
        r#box: Some(pb::PixelBox { x: place.x, y: place.y, width: place.width, height: place.height }),
        detection_score: face.detection.score,
        landmarks: face.detection.landmarks.0.iter().map(|point| pb::Point { x: point.x, y: point.y }).collect(),
        quality: Some(quality(&face.quality)),
        live_score: face.live_score,
    }
}

/// A subject that a probe may be, as it is called now; without a name once erased.
pub(super) fn candidate(candidate: &crate::event::Candidate, gallery: &Gallery) -> pb::Candidate {
    let subject = gallery.subject(candidate.subject);
    pb::Candidate {
        subject_id: subject.as_ref().map(|s| s.id.to_string()).unwrap_or_default(),
        subject_uid: candidate.subject.0.to_string(),
        display_name: subject.as_ref().map(|s| s.display_name.clone()).unwrap_or_default(),
        similarity: candidate.similarity,
    }
}

/// Why a face is unknown.
pub(super) fn rejection(rejection: Option<crate::event::Rejection>) -> pb::IdentificationRejection {
    use crate::event::Rejection;
    match rejection {
        None => pb::IdentificationRejection::Unspecified,
        Some(Rejection::EmptyGallery) => pb::IdentificationRejection::EmptyGallery,
        Some(Rejection::BelowThreshold) => pb::IdentificationRejection::BelowThreshold,
        Some(Rejection::NoUsableShot) => pb::IdentificationRejection::NoUsableShot,
        Some(Rejection::Conflict) => pb::IdentificationRejection::Conflict,
        Some(Rejection::SuspectedAttack) => pb::IdentificationRejection::SuspectedAttack,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_wire_to_the_microsecond() {
        for micros in [0, 1, -1, 1_700_000_000_123_456, TIMESTAMP_MICROS_MIN, TIMESTAMP_MICROS_MAX] {
            let stamp = Timestamp::from_micros(micros);
            assert_eq!(moment(&time(stamp), "t").expect("in range"), stamp);
            assert!((0..1_000_000_000).contains(&time(stamp).nanos), "{micros}");
        }
        assert_eq!(moment(&time(Timestamp::from_micros(i64::MAX)), "t").expect("clamped").as_micros(), TIMESTAMP_MICROS_MAX);
    }

    #[test]
    fn a_time_out_of_range_is_refused() {
        for (seconds, nanos) in [(i64::MAX, 0), (i64::MIN, 0), (0, -1), (0, 1_000_000_000), (253_402_300_800, 0)] {
            assert!(moment(&prost_types::Timestamp { seconds, nanos }, "t").is_err(), "{seconds} {nanos}");
        }
    }

    #[test]
    fn a_request_id_is_a_uuid_or_nothing() {
        assert_eq!(request_id("").expect("none"), "");
        let id = "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6";
        assert_eq!(request_id(id).expect("a UUID"), id.to_lowercase(), "two spellings are one request");
        assert!(request_id("again").is_err());
    }

    #[test]
    fn a_wish_for_too_many_candidates_is_refused() {
        assert_eq!(candidates_max(0, 5, 100).expect("the default"), 5);
        assert_eq!(candidates_max(100, 5, 100).expect("the most"), 100);
        assert!(candidates_max(101, 5, 100).is_err() && candidates_max(-1, 5, 100).is_err());
    }
}
