//! Every error has a code and a reason that clients can rely on, and gives no secret away.

use std::path::PathBuf;

use super::*;
use crate::camera::CameraId;
use crate::event_log::Position;
use crate::face::TemplateSpace;
use crate::quality::Fault;
use crate::subject::SubjectId;

fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().expect("every status has an ErrorInfo");
    assert_eq!(info.domain, "doorward.v1");
    info.reason
}

fn anna() -> SubjectId {
    SubjectId::parse("anna").expect("good")
}

fn entrance() -> CameraId {
    CameraId::parse("entrance").expect("good")
}

fn failed() -> StoreError {
    StoreError::Failed("the disk is full".into())
}

fn enrolment() -> Vec<(EnrolError, Code, &'static str)> {
    let quality = Box::new(Quality { overall: 0.1, size_pixels: 17.0, ..Quality::default() });
    vec![
        (PhotoError::BadImage("no JPEG".into()).into(), Code::InvalidArgument, "BAD_IMAGE"),
        (PhotoError::NoFace.into(), Code::InvalidArgument, "NO_FACE"),
        (PhotoError::SeveralFaces(2).into(), Code::InvalidArgument, "SEVERAL_FACES"),
        (PhotoError::Infer(InferError::Busy).into(), Code::ResourceExhausted, "INFERENCE_BUSY"),
        (PhotoError::Infer(InferError::Stopped).into(), Code::Unavailable, "STOPPING"),
        (PhotoError::Infer(InferError::NoRoom("x".into())).into(), Code::ResourceExhausted, "INFERENCE_NO_ROOM"),
        (PhotoError::Infer(InferError::NotNow("x".into())).into(), Code::Unavailable, "INFERENCE_NOT_NOW"),
        (PhotoError::Infer(InferError::Session("x".into())).into(), Code::Internal, "INFERENCE_FAILED"),
        (EnrolError::PossibleDuplicate { other: anna(), similarity: 0.8 }, Code::AlreadyExists, "POSSIBLE_DUPLICATE"),
        (EnrolError::SubjectExists(anna()), Code::AlreadyExists, "SUBJECT_EXISTS"),
        (EnrolError::NegativeShowsSubject { similarity: 0.9 }, Code::InvalidArgument, "NEGATIVE_SHOWS_SUBJECT"),
        (EnrolError::Inconsistent { similarity: 0.1 }, Code::InvalidArgument, "INCONSISTENT_SAMPLE"),
        (EnrolError::SubjectUnknown("anna".into()), Code::NotFound, "SUBJECT_NOT_FOUND"),
        (EnrolError::SampleUnknown("1".into()), Code::NotFound, "SAMPLE_NOT_FOUND"),
        (EnrolError::NoSample, Code::InvalidArgument, "NO_SAMPLE"),
        (EnrolError::BadField { field: "display_name", reason: "is too long".into() }, Code::InvalidArgument, "BAD_FIELD"),
        (EnrolError::StaleEtag { current: "7".into() }, Code::Aborted, "STALE_ETAG"),
        (EnrolError::SnapshotUnknown("1".into()), Code::NotFound, "SNAPSHOT_NOT_FOUND"),
        (EnrolError::NoFolder, Code::FailedPrecondition, "NO_ENROLMENT_FOLDER"),
        (
            EnrolError::FolderUnreadable { folder: PathBuf::from("/people"), reason: "no such folder".into() },
            Code::FailedPrecondition,
            "FOLDER_UNREADABLE",
        ),
        (EnrolError::VersionUnknown { version: 3, oldest: 5 }, Code::NotFound, "VERSION_NOT_FOUND"),
        (EnrolError::MassRemoval { removed: 9, total: 10 }, Code::FailedPrecondition, "MASS_REMOVAL"),
        (EnrolError::RequestReused, Code::InvalidArgument, "REQUEST_ID_REUSED"),
        (failed().into(), Code::Internal, "STORE_FAILED"),
        (StoreError::Locked(PathBuf::from("/data")).into(), Code::FailedPrecondition, "STORE_LOCKED"),
        (StoreError::Full.into(), Code::ResourceExhausted, "DISK_FULL"),
        (StoreError::NotYet.into(), Code::Unavailable, "SNAPSHOT_NOT_READY"),
        (StoreError::Stopped.into(), Code::Unavailable, "STOPPING"),
        (StoreError::NotADirectory(PathBuf::from("/data")).into(), Code::FailedPrecondition, "STORE_UNUSABLE"),
        (
            StoreError::NoAccess { path: PathBuf::from("/data"), reason: "not yours".into() }.into(),
            Code::FailedPrecondition,
            "STORE_UNUSABLE",
        ),
        (StoreError::TooNew { found: 9, known: 1 }.into(), Code::FailedPrecondition, "STORE_TOO_NEW"),
        (StoreError::Damaged { reason: "x".into() }.into(), Code::DataLoss, "STORE_DAMAGED"),
        (StoreError::Contradiction("x".into()).into(), Code::Aborted, "STORE_CONTRADICTION"),
        (StoreError::RequestRepeated.into(), Code::AlreadyExists, "REQUEST_REPEATED"),
        (StoreError::AnswerErased.into(), Code::FailedPrecondition, "ANSWER_ERASED"),
        (TemplateError::NoDirection.into(), Code::Internal, "TEMPLATE_WITHOUT_DIRECTION"),
        (EnrolError::Unusable { fault: Fault::TooSmall, quality }, Code::InvalidArgument, "FACE_UNUSABLE"),
    ]
}

#[test]
fn every_enrolment_error_has_its_code_and_reason() {
    for (error, code, expected) in enrolment() {
        let message = error.to_string();
        let status = Status::from(error);
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{message}");
        assert!(!status.message().is_empty());
    }
}

#[test]
fn every_camera_error_has_its_code_and_reason() {
    let bad = |field| CamerasError::BadField { field, reason: "is not allowed".into() };
    let cases: Vec<(CamerasError, Code, &str)> = vec![
        (CamerasError::Exists(entrance()), Code::AlreadyExists, "CAMERA_EXISTS"),
        (CamerasError::Unknown("entrance".into()), Code::NotFound, "CAMERA_NOT_FOUND"),
        (bad("url"), Code::InvalidArgument, "BAD_CAMERA_URL"),
        (bad("threshold"), Code::InvalidArgument, "BAD_CAMERA"),
        (CamerasError::CredentialInUrl, Code::InvalidArgument, "CREDENTIAL_IN_URL"),
        (CamerasError::StaleEtag { current: "7".into() }, Code::Aborted, "STALE_ETAG"),
        (CamerasError::NoFrame(entrance()), Code::FailedPrecondition, "NO_FRAME"),
        (crate::picture::PictureError::BadSize(0, 0).into(), Code::Internal, "PICTURE_FAILED"),
        (CamerasError::Pipeline(InferError::Stopped.into()), Code::Internal, "PIPELINE_FAILED"),
        (failed().into(), Code::Internal, "STORE_FAILED"),
    ];
    for (error, code, expected) in cases {
        let status = Status::from(error);
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected));
    }
}

#[test]
fn every_other_error_has_its_code_and_reason() {
    let space = |name| TemplateSpace::new(name);
    let mismatch = TemplateError::SpaceMismatch { left: space("a"), right: space("b") };
    let span = LogSpan { oldest: 5, newest: 7 };
    let current = Position { epoch: uuid::Uuid::max(), sequence: 7 };
    let cases: Vec<(Status, Code, &str)> = vec![
        (RecogniseError::NoTemplate("anna".into()).into(), Code::FailedPrecondition, "NO_TEMPLATE"),
        (RecogniseError::Expired("anna".into()).into(), Code::FailedPrecondition, "SUBJECT_EXPIRED"),
        (RecogniseError::Photo(PhotoError::NoFace).into(), Code::InvalidArgument, "NO_FACE"),
        (RecogniseError::Template(TemplateError::NoDirection).into(), Code::Internal, "TEMPLATE_WITHOUT_DIRECTION"),
        (RecogniseError::Template(mismatch).into(), Code::FailedPrecondition, "TEMPLATE_SPACE_MISMATCH"),
        (SubscriptionEnded::TooSlow { at: 1, span }.into(), Code::OutOfRange, "CURSOR_TOO_OLD"),
        (SubscriptionEnded::Store(failed()).into(), Code::Internal, "STORE_FAILED"),
        (SubscribeError::TooOld { asked: 2, span }.into(), Code::OutOfRange, "CURSOR_TOO_OLD"),
        (SubscribeError::OtherEpoch { asked: uuid::Uuid::nil(), current }.into(), Code::OutOfRange, "CURSOR_OTHER_EPOCH"),
        (SubscribeError::InFuture { asked: 9, newest: 7 }.into(), Code::OutOfRange, "CURSOR_IN_FUTURE"),
        (SubscribeError::Store(failed()).into(), Code::Internal, "STORE_FAILED"),
        (SubscriptionEnded::Closed.into(), Code::Unavailable, "STOPPING"),
        (Refusal::from(EventLogError::Store(failed())).into(), Code::Internal, "STORE_FAILED"),
    ];
    for (status, code, expected) in cases {
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected));
    }
}

#[test]
fn a_cursor_that_is_too_old_is_told_what_is_kept() {
    let status = Status::from(SubscribeError::TooOld { asked: 2, span: LogSpan { oldest: 5, newest: 7 } });
    let metadata = status.get_details_error_info().expect("a reason").metadata;
    assert_eq!((metadata["oldest_sequence"].as_str(), metadata["newest_sequence"].as_str()), ("5", "7"));
}

#[test]
fn reasons_are_stable_names_as_aip_193_wants_them() {
    for (error, ..) in enrolment() {
        let reason = reason(&Status::from(error));
        let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        assert!(reason.len() <= 63 && reason.chars().all(allowed), "{reason}");
    }
}

#[test]
fn a_refused_face_comes_with_its_measured_quality() {
    let (unusable, ..) = enrolment().pop().expect("the last one");
    let info = Status::from(unusable).get_details_error_info().expect("an ErrorInfo");
    assert_eq!(info.metadata["size_pixels"], "17");
    assert_eq!(info.metadata["fault"], Fault::TooSmall.name());
    assert_eq!(info.metadata.len(), 10, "every component: {:?}", info.metadata);
}

#[test]
fn a_program_learns_what_it_needs_to_go_on() {
    let metadata = |error: EnrolError, key: &str| Status::from(error).get_details_error_info().expect("an ErrorInfo").metadata[key].clone();
    assert_eq!(metadata(EnrolError::StaleEtag { current: "7".into() }, "etag"), "7");
    assert_eq!(metadata(EnrolError::PossibleDuplicate { other: anna(), similarity: 0.8 }, "subject_id"), "anna");
    let busy = Status::from(PhotoError::Infer(InferError::Busy));
    assert_eq!(busy.get_details_retry_info().and_then(|retry| retry.retry_delay), Some(BUSY_RETRY));
}

#[test]
fn a_bad_field_is_named_in_a_field_violation() {
    let status = Status::from(bad_field("subject.id", "is empty"));
    let violations = status.get_details_bad_request().expect("a BadRequest").field_violations;
    assert_eq!(violations[0].field, "subject.id");
}

#[test]
fn a_status_of_the_transport_gets_a_reason() {
    for (status, expected) in [
        (Status::unimplemented(""), "UNKNOWN_METHOD"),
        (Status::out_of_range("decoded message length too large"), "MESSAGE_TOO_LARGE"),
        (Status::internal("invalid wire type"), "MALFORMED_MESSAGE"),
    ] {
        let told = explained(&status);
        assert_eq!((told.code(), reason(&told).as_str(), told.message()), (status.code(), expected, status.message()));
    }
}
