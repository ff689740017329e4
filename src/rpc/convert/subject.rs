//! Subjects and samples between wire and domain.
//!
//! In: what an operator says of a subject, what enrolment answers. Out: the other.
//! Must not know: how anybody is enrolled.

use std::sync::Arc;

use tonic::Status;

use super::super::status::{Refusal, bad_field};
use super::{moment, quality, time, uuid};
use crate::enrol::{SampleInfo, SampleInput, SubjectFields};
use crate::event::SnapshotId;
use crate::pb;
use crate::subject::{Origin, Subject, SubjectId};

/// What `UpdateSubject` can change; an empty mask or `*` means all.
const MUTABLE: [&str; 5] = ["display_name", "watchlists", "attributes", "consent_reference", "expire_time"];

/// A subject id that a client stated in `field`.
pub(in super::super) fn subject_id(text: &str, field: &str) -> Result<SubjectId, Status> {
    SubjectId::parse(text).map_err(|error| Refusal::invalid("BAD_SUBJECT_ID", error).field(field).into())
}

/// The fields that `mask` names, as `wire` states them.
pub(in super::super) fn fields(wire: pb::Subject, mask: Option<prost_types::FieldMask>) -> Result<SubjectFields, Status> {
    let paths = paths(mask, &MUTABLE)?;
    let asked = |path: &str| paths.contains(&path);
    let expire_time = match &wire.expire_time {
        Some(stamp) if asked("expire_time") => Some(moment(stamp, "subject.expire_time")?),
        _ => None,
    };
    Ok(SubjectFields {
        display_name: asked("display_name").then_some(wire.display_name),
        watchlists: asked("watchlists").then_some(wire.watchlists),
        attributes: asked("attributes").then(|| wire.attributes.into_iter().collect()),
        consent_reference: asked("consent_reference").then_some(wire.consent_reference),
        expire_time: asked("expire_time").then_some(expire_time),
    })
}

/// The paths of a field mask, each of which must be one of `known`; an empty mask or `*` means
/// all of them (AIP-134).
pub(in super::super) fn paths(mask: Option<prost_types::FieldMask>, known: &[&'static str]) -> Result<Vec<&'static str>, Status> {
    let asked = mask.map(|mask| mask.paths).unwrap_or_default();
    if asked.is_empty() || asked == ["*"] {
        return Ok(known.to_vec());
    }
    let find = |path: String| {
        known.iter().copied().find(|k| *k == path).ok_or_else(|| {
            let path: String = path.chars().take(80).collect();
            let allowed = known.join(", ");
            Refusal::invalid("UNKNOWN_FIELD", format!("update_mask: {path:?} cannot be changed; these can: {allowed}"))
                .with("path", path)
                .field("update_mask")
                .into()
        })
    };
    asked.into_iter().map(find).collect()
}

/// Where a sample comes from, which `field` states.
pub(in super::super) fn sample_input(source: Option<pb::SampleSource>, field: &str) -> Result<SampleInput, Status> {
    use pb::sample_source::Source;
    match source.and_then(|source| source.source) {
        Some(Source::Image(bytes)) if bytes.is_empty() => {
            Err(bad_field(format!("{field}.image"), "is empty; give JPEG or PNG bytes").into())
        }
        Some(Source::Image(bytes)) => Ok(SampleInput::Image(Arc::from(bytes))),
        Some(Source::SnapshotId(id)) => Ok(SampleInput::Snapshot(SnapshotId(uuid(&id, &format!("{field}.snapshot_id"))?))),
        None => Err(bad_field(field, "needs an image or a snapshot_id").into()),
    }
}

/// A subject as the wire has it.
pub(in super::super) fn subject(subject: &Subject, sample_count: u32) -> pb::Subject {
    pb::Subject {
        id: subject.id.to_string(),
        uid: subject.uid.0.to_string(),
        display_name: subject.display_name.clone(),
        watchlists: subject.watchlists.clone(),
        attributes: subject.attributes.clone().into_iter().collect(),
        consent_reference: subject.consent_reference.clone(),
        expire_time: subject.expire_time.map(time),
        create_time: Some(time(subject.create_time)),
        update_time: Some(time(subject.update_time)),
        etag: subject.etag(),
        sample_count,
        origin: match subject.origin {
            Origin::Rpc => pb::SubjectOrigin::Rpc,
            Origin::Folder => pb::SubjectOrigin::Folder,
        }
        .into(),
    }
}

/// A sample as the wire has it.
pub(in super::super) fn sample(info: &SampleInfo) -> pb::Sample {
    let sample = &info.sample;
    pb::Sample {
        id: sample.id.0.to_string(),
        quality: Some(quality(&sample.quality)),
        similarity_to_rest: info.similarity_to_rest,
        create_time: Some(time(sample.create_time)),
        content_sha256: sample.content_sha256.to_vec(),
        folder_path: sample.folder_path.clone().unwrap_or_default(),
        negative: sample.negative,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
        Some(prost_types::FieldMask { paths: paths.iter().map(|p| (*p).to_owned()).collect() })
    }

    fn anna() -> pb::Subject {
        pb::Subject { id: "anna".into(), display_name: "Anna".into(), watchlists: vec!["staff".into()], ..pb::Subject::default() }
    }

    #[test]
    fn a_mask_changes_only_what_it_names() {
        let changed = fields(anna(), mask(&["display_name"])).expect("a known path");
        assert_eq!(changed.display_name.as_deref(), Some("Anna"));
        assert!(changed.watchlists.is_none() && changed.attributes.is_none() && changed.expire_time.is_none());
    }

    #[test]
    fn an_empty_mask_changes_all_five_fields() {
        for all in [None, mask(&[]), mask(&["*"])] {
            let changed = fields(anna(), all).expect("all");
            assert_eq!(changed.watchlists, Some(vec!["staff".to_owned()]));
            assert_eq!(changed.expire_time, Some(None), "no expiry means that it is taken away");
            assert!(changed.attributes.is_some() && changed.consent_reference.is_some());
        }
    }

    #[test]
    fn an_unknown_path_is_refused_by_name() {
        let status = fields(anna(), mask(&["display_name", "uid"])).expect_err("uid cannot be changed");
        assert!(status.message().contains("\"uid\""), "{}", status.message());
    }

    #[test]
    fn an_expiry_is_kept_and_a_bad_one_refused() {
        let at = |seconds| pb::Subject { expire_time: Some(prost_types::Timestamp { seconds, nanos: 0 }), ..anna() };
        assert_eq!(fields(at(5), None).expect("good").expire_time, Some(Some(Timestamp::from_micros(5_000_000))));
        assert!(fields(at(i64::MAX), None).is_err());
        assert!(fields(at(i64::MAX), mask(&["watchlists"])).is_ok(), "what the mask leaves out is not looked at");
    }

    #[test]
    fn a_sample_needs_a_picture() {
        use pb::sample_source::Source;
        let source = |source| Some(pb::SampleSource { source: Some(source) });
        assert!(matches!(sample_input(source(Source::Image(vec![1])), "sample"), Ok(SampleInput::Image(_))));
        assert!(sample_input(None, "sample").is_err() && sample_input(source(Source::Image(vec![])), "sample").is_err());
        assert!(sample_input(source(Source::SnapshotId("../etc".into())), "sample").is_err());
    }
}
