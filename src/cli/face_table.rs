//! Says of faces in a picture where they are and how usable.
//!
//! In: the wire's faces and candidates. Out: cells.
//! Drops: nothing.
//! Must not know: who asked.

use crate::pb;

/// `width×height at x,y`, in pixels of the picture.
pub fn place(face: &pb::Face) -> String {
    let area = face.r#box.unwrap_or_default();
    format!("{:.0}×{:.0} at {:.0},{:.0}", area.width, area.height, area.x, area.y)
}

/// Overall quality with what it is made of.
pub fn quality(face: &pb::Face) -> String {
    let quality = face.quality.unwrap_or_default();
    format!(
        "{:.2} ({:.0} px, sharpness {:.0}, brightness {:.2}, contrast {:.2}, yaw {:+.0}°, pitch {:+.0}°, roll {:+.0}°)",
        quality.overall,
        quality.size_pixels,
        quality.sharpness,
        quality.brightness,
        quality.contrast,
        quality.yaw_degrees,
        quality.pitch_degrees,
        quality.roll_degrees
    )
}

/// `0.95`, or `0.02 (looks like a picture)`; nothing where it was not measured.
pub fn liveness(score: Option<f32>, is_suspected: bool) -> String {
    let verdict = if is_suspected { " (looks like a picture)" } else { "" };
    score.map(|score| format!("{score:.2}{verdict}")).unwrap_or_default()
}

/// `anna "Anna K." 0.712`.
pub fn candidate(candidate: &pb::Candidate) -> String {
    format!("{} {:.3}", who(&candidate.subject_id, &candidate.display_name), candidate.similarity)
}

/// `anna "Anna K."`, or only the id of who has no name.
pub fn who(id: &str, display_name: &str) -> String {
    if display_name.is_empty() { id.to_owned() } else { format!("{id} \"{display_name}\"") }
}

/// Why somebody is unknown.
pub fn why_unknown(rejection: pb::IdentificationRejection) -> &'static str {
    match rejection {
        pb::IdentificationRejection::Unspecified => "unknown",
        pb::IdentificationRejection::EmptyGallery => "unknown (nobody is enrolled)",
        pb::IdentificationRejection::BelowThreshold => "unknown (nobody is close enough)",
        pb::IdentificationRejection::NoUsableShot => "unknown (no usable shot)",
        pb::IdentificationRejection::Conflict => "unknown (somebody else here is a better match)",
        pb::IdentificationRejection::SuspectedAttack => "unknown (looks like a picture that is held up)",
    }
}
