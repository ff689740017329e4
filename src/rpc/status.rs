//! What goes wrong → what the wire says: one exhaustive match per domain error.
//!
//! In: the errors of the stages and of reading requests. Out: gRPC statuses, each with a
//! `google.rpc.ErrorInfo` in the domain `doorward.v1`, a stable reason and what a client needs to
//! go on (the measured quality, the current etag, the other subject).
//! Drops nothing: a message is the error's own, and those are written to hold no secret.
//! Must not know: any service.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::cameras::CamerasError;
use crate::enrol::EnrolError;
use crate::event_log::{EventLogError, SubscribeError, SubscriptionEnded};
use crate::face::{Quality, TemplateError};
use crate::infer::InferError;
use crate::photo::PhotoError;
use crate::portable::{FORMAT_VERSION, PortableError};
use crate::recognise::RecogniseError;
use crate::store::{LogSpan, StoreError};

/// The domain of every reason (`google.rpc.ErrorInfo.domain`).
pub(super) const DOMAIN: &str = "doorward.v1";
/// When a caller may try again after the queue of photos was full.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// Why a call is refused or failed, before it becomes a status.
#[derive(Clone, Debug)]
pub(super) struct Refusal(Box<Told>);

#[derive(Clone, Debug)]
struct Told {
    code: Code,
    reason: &'static str,
    message: String,
    metadata: HashMap<String, String>,
    field: Option<String>,
    retry: Option<Duration>,
}

impl Refusal {
    /// A refusal with a stable `reason` (`SCREAMING_SNAKE_CASE`) and a message for people.
    pub(super) fn new(code: Code, reason: &'static str, message: impl Display) -> Self {
        let message = message.to_string();
        Self(Box::new(Told { code, reason, message, metadata: HashMap::new(), field: None, retry: None }))
    }

    /// A request that cannot be understood or is not allowed.
    pub(super) fn invalid(reason: &'static str, message: impl Display) -> Self {
        Self::new(Code::InvalidArgument, reason, message)
    }

    /// Adds what a program needs to go on.
    pub(super) fn with(mut self, key: &str, value: impl Display) -> Self {
        self.0.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Names the field of the request that is to blame.
    pub(super) fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// The same of another field, in other words; what no field is to blame for stays as it is.
    fn of(mut self, field: &str, message: String) -> Self {
        if matches!(self.0.code, Code::InvalidArgument | Code::AlreadyExists) {
            (self.0.field, self.0.message) = (Some(field.to_owned()), message);
        }
        self
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry = Some(wait);
        self
    }
}

impl From<Refusal> for Status {
    fn from(Refusal(refusal): Refusal) -> Self {
        let mut details = ErrorDetails::with_error_info(refusal.reason, DOMAIN, refusal.metadata);
        if let Some(field) = refusal.field {
            details.set_bad_request(vec![FieldViolation { field, description: refusal.message.clone(), ..FieldViolation::default() }]);
        }
        if let Some(wait) = refusal.retry {
            details.set_retry_info(Some(wait));
        }
        Self::with_error_details(refusal.code, refusal.message, details)
    }
}

/// A field of the request that holds what it must not.
pub(super) fn bad_field(field: impl Into<String>, why: impl Display) -> Refusal {
    let field = field.into();
    Refusal::invalid("BAD_FIELD", format!("{field}: {why}")).field(field)
}

/// The daemon stops: what every open stream ends with.
pub(super) fn stopping() -> Refusal {
    Refusal::new(Code::Unavailable, "STOPPING", "the daemon is stopping; connect again when it is back")
}

fn not_found(reason: &'static str, message: impl Display) -> Refusal {
    Refusal::new(Code::NotFound, reason, message)
}

fn stale(message: impl Display, current: &str) -> Refusal {
    Refusal::new(Code::Aborted, "STALE_ETAG", message).with("etag", current).field("etag")
}

fn with_quality(refusal: Refusal, quality: &Quality) -> Refusal {
    refusal
        .with("overall", quality.overall)
        .with("size_pixels", quality.size_pixels)
        .with("sharpness", quality.sharpness)
        .with("brightness", quality.brightness)
        .with("contrast", quality.contrast)
        .with("yaw_degrees", quality.yaw_degrees)
        .with("pitch_degrees", quality.pitch_degrees)
        .with("roll_degrees", quality.roll_degrees)
        .with("detection_score", quality.detection_score)
}

impl From<EnrolError> for Refusal {
    fn from(error: EnrolError) -> Self {
        let message = error.to_string();
        match error {
            EnrolError::Photo(photo) => photo.into(),
            EnrolError::Unusable { fault, quality } => {
                with_quality(Self::invalid("FACE_UNUSABLE", message).with("fault", fault.name()), &quality)
            }
            EnrolError::PossibleDuplicate { other, similarity } => {
                Self::new(Code::AlreadyExists, "POSSIBLE_DUPLICATE", message).with("subject_id", other).with("similarity", similarity)
            }
            EnrolError::NegativeShowsSubject { similarity } => {
                Self::invalid("NEGATIVE_SHOWS_SUBJECT", message).with("similarity", similarity)
            }
            EnrolError::Inconsistent { similarity } => Self::invalid("INCONSISTENT_SAMPLE", message).with("similarity", similarity),
            EnrolError::SubjectExists(id) => Self::new(Code::AlreadyExists, "SUBJECT_EXISTS", message).with("subject_id", id),
            EnrolError::FromFolder(id) => Self::new(Code::AlreadyExists, "SUBJECT_EXISTS", message).with("subject_id", id),
            EnrolError::PhotoOfAnother(id) => Self::new(Code::AlreadyExists, "PHOTO_OF_ANOTHER_SUBJECT", message).with("subject_id", id),
            EnrolError::ErasedPerson | EnrolError::ErasedId(_) => Self::new(Code::FailedPrecondition, "ERASED_PERSON", message),
            EnrolError::TooManyPhotos(_) => Self::new(Code::FailedPrecondition, "TOO_MANY_PHOTOS", message),
            EnrolError::SubjectUnknown(id) => not_found("SUBJECT_NOT_FOUND", message).with("subject_id", id),
            EnrolError::SampleUnknown(id) => not_found("SAMPLE_NOT_FOUND", message).with("sample_id", id),
            EnrolError::NoSample => Self::invalid("NO_SAMPLE", message).field("samples"),
            EnrolError::BadField { field, reason } => bad_field(field, reason),
            EnrolError::StaleEtag { current } => stale(message, &current),
            EnrolError::SnapshotUnknown(id) => not_found("SNAPSHOT_NOT_FOUND", message).with("snapshot_id", id),
            EnrolError::NoFolder => Self::new(Code::FailedPrecondition, "NO_ENROLMENT_FOLDER", message),
            EnrolError::FolderUnreadable { folder, .. } => {
                Self::new(Code::FailedPrecondition, "FOLDER_UNREADABLE", message).with("folder", folder.display())
            }
            EnrolError::MassRemoval { removed, total } => {
                Self::new(Code::FailedPrecondition, "MASS_REMOVAL", message).with("removed", removed).with("total", total)
            }
            EnrolError::VersionUnknown { version, oldest } => {
                not_found("VERSION_NOT_FOUND", message).with("version", version).with("oldest_version", oldest)
            }
            EnrolError::Portable(portable) => portable.into(),
            EnrolError::EncoderUnavailable(_) => Self::new(Code::FailedPrecondition, "ENCODER_UNAVAILABLE", message).field("encoder"),
            EnrolError::ReencodeBusy => Self::new(Code::Aborted, "REENCODE_BUSY", message).retry_after(BUSY_RETRY),
            EnrolError::ImportBusy => Self::new(Code::Aborted, "IMPORT_BUSY", message).retry_after(BUSY_RETRY),
            EnrolError::OfSample { index, error } => Self::from(*error).of(&format!("samples[{index}]"), message),
            EnrolError::RequestReused => Self::invalid("REQUEST_ID_REUSED", message).field("request_id"),
            EnrolError::Template(template) => template.into(),
            EnrolError::Store(store) => store.into(),
        }
    }
}

impl From<PhotoError> for Refusal {
    fn from(error: PhotoError) -> Self {
        let message = error.to_string();
        match error {
            PhotoError::BadImage(_) => Self::invalid("BAD_IMAGE", message).field("image"),
            PhotoError::NoFace => Self::invalid("NO_FACE", message).field("image"),
            PhotoError::SeveralFaces(faces) => Self::invalid("SEVERAL_FACES", message).field("image").with("faces", faces),
            PhotoError::Infer(infer) => infer.into(),
        }
    }
}

impl From<PortableError> for Refusal {
    fn from(error: PortableError) -> Self {
        let message = error.to_string();
        match error {
            PortableError::NotOurs(_) => Self::invalid("NO_GALLERY_FILE", message),
            PortableError::WrongVersion { found } => {
                Self::invalid("GALLERY_FILE_VERSION", message).with("found", found).with("known", FORMAT_VERSION)
            }
            PortableError::Cut(_) => Self::invalid("GALLERY_FILE_CUT", message),
            PortableError::Altered { name } => Self::invalid("GALLERY_FILE_ALTERED", message).with("part", name),
            PortableError::BadLine { file, line, .. } => {
                Self::invalid("GALLERY_FILE_BAD_LINE", message).with("part", file).with("line", line)
            }
            PortableError::BadTemplate { line, .. } => Self::invalid("GALLERY_FILE_BAD_TEMPLATE", message).with("line", line),
            PortableError::Unreadable(_) => Self::new(Code::Internal, "GALLERY_FILE_UNREADABLE", message),
        }
    }
}

impl From<InferError> for Refusal {
    fn from(error: InferError) -> Self {
        let message = error.to_string();
        match error {
            InferError::Busy => Self::new(Code::ResourceExhausted, "INFERENCE_BUSY", message).retry_after(BUSY_RETRY),
            InferError::Stopped => stopping(),
            InferError::NoRoom(_) => Self::new(Code::ResourceExhausted, "INFERENCE_NO_ROOM", message).retry_after(BUSY_RETRY),
            InferError::NotNow(_) => Self::new(Code::Unavailable, "INFERENCE_NOT_NOW", message).retry_after(BUSY_RETRY),
            InferError::Session(_) | InferError::BadPicture(_) => Self::new(Code::Internal, "INFERENCE_FAILED", message),
        }
    }
}

impl From<RecogniseError> for Refusal {
    fn from(error: RecogniseError) -> Self {
        let message = error.to_string();
        match error {
            RecogniseError::Photo(photo) => photo.into(),
            RecogniseError::Unusable { fault, quality } => {
                with_quality(Self::invalid("FACE_UNUSABLE", message).with("fault", fault.name()), &quality)
            }
            RecogniseError::OfOther(error) => Self::from(*error).of("other_image", message),
            RecogniseError::NoTemplate(id) => Self::new(Code::FailedPrecondition, "NO_TEMPLATE", message).with("subject_id", id),
            RecogniseError::Expired(id) => Self::new(Code::FailedPrecondition, "SUBJECT_EXPIRED", message).with("subject_id", id),
            RecogniseError::Template(template) => template.into(),
        }
    }
}

impl From<TemplateError> for Refusal {
    fn from(error: TemplateError) -> Self {
        let message = error.to_string();
        match error {
            TemplateError::NoDirection => Self::new(Code::Internal, "TEMPLATE_WITHOUT_DIRECTION", message),
            TemplateError::SpaceMismatch { left, right } => {
                Self::new(Code::FailedPrecondition, "TEMPLATE_SPACE_MISMATCH", message).with("left", left).with("right", right)
            }
        }
    }
}

impl From<CamerasError> for Refusal {
    fn from(error: CamerasError) -> Self {
        let message = error.to_string();
        match error {
            CamerasError::Exists(id) => Self::new(Code::AlreadyExists, "CAMERA_EXISTS", message).with("camera_id", id),
            CamerasError::Unknown(id) => not_found("CAMERA_NOT_FOUND", message).with("camera_id", id),
            CamerasError::BadField { field: "url", .. } => Self::invalid("BAD_CAMERA_URL", message).field("camera.url"),
            CamerasError::BadField { field, .. } => Self::invalid("BAD_CAMERA", message).field(format!("camera.{field}")),
            CamerasError::CredentialInUrl => Self::invalid("CREDENTIAL_IN_URL", message).field("camera.url"),
            CamerasError::RequestReused => Self::invalid("REQUEST_ID_REUSED", message).field("request_id"),
            CamerasError::StaleEtag { current } => stale(message, &current),
            CamerasError::NoFrame(id) => Self::new(Code::FailedPrecondition, "NO_FRAME", message).with("camera_id", id),
            CamerasError::Picture(_) => Self::new(Code::Internal, "PICTURE_FAILED", message),
            CamerasError::Store(store) => store.into(),
            CamerasError::Pipeline(_) => Self::new(Code::Internal, "PIPELINE_FAILED", message),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Locked(_) => Self::new(Code::FailedPrecondition, "STORE_LOCKED", message),
            StoreError::NotADirectory(_) | StoreError::NoAccess { .. } => Self::new(Code::FailedPrecondition, "STORE_UNUSABLE", message),
            StoreError::Exists(_) => Self::new(Code::AlreadyExists, "FILE_EXISTS", message),
            StoreError::NoRoom(_) => Self::new(Code::ResourceExhausted, "DISK_FULL", message),
            StoreError::NotYet => Self::new(Code::Unavailable, "SNAPSHOT_NOT_READY", message),
            StoreError::Interrupted => Self::new(Code::Cancelled, "INTERRUPTED", message),
            StoreError::TooNew { .. } => Self::new(Code::FailedPrecondition, "STORE_TOO_NEW", message),
            StoreError::Damaged { .. } => Self::new(Code::DataLoss, "STORE_DAMAGED", message),
            StoreError::BadBackup { .. } => Self::invalid("BAD_BACKUP", message),
            StoreError::Full => Self::new(Code::ResourceExhausted, "DISK_FULL", message),
            StoreError::Contradiction(_) => Self::new(Code::Aborted, "STORE_CONTRADICTION", message),
            StoreError::RequestRepeated => Self::new(Code::AlreadyExists, "REQUEST_REPEATED", message),
            StoreError::AnswerErased => Self::new(Code::FailedPrecondition, "ANSWER_ERASED", message),
            StoreError::Stopped => stopping(),
            StoreError::Failed(_) => Self::new(Code::Internal, "STORE_FAILED", message),
        }
    }
}

impl From<EventLogError> for Refusal {
    fn from(error: EventLogError) -> Self {
        match error {
            EventLogError::Store(store) => store.into(),
        }
    }
}

impl From<SubscribeError> for Refusal {
    fn from(error: SubscribeError) -> Self {
        let message = error.to_string();
        match error {
            SubscribeError::OtherEpoch { asked, current } => Self::new(Code::OutOfRange, "CURSOR_OTHER_EPOCH", message)
                .with("cursor_epoch", asked)
                .with("epoch", current.epoch)
                .with("newest_sequence", current.sequence)
                .field("cursor"),
            SubscribeError::TooOld { span, .. } => too_old(message, span),
            SubscribeError::InFuture { newest, .. } => {
                Self::new(Code::OutOfRange, "CURSOR_IN_FUTURE", message).with("newest_sequence", newest).field("cursor")
            }
            SubscribeError::Store(store) => store.into(),
        }
    }
}

impl From<SubscriptionEnded> for Refusal {
    fn from(error: SubscriptionEnded) -> Self {
        let message = error.to_string();
        match error {
            SubscriptionEnded::TooSlow { span, .. } => too_old(message, span),
            SubscriptionEnded::Store(store) => store.into(),
            SubscriptionEnded::Closed => stopping(),
        }
    }
}

fn too_old(message: String, span: LogSpan) -> Refusal {
    let refusal = Refusal::new(Code::OutOfRange, "CURSOR_TOO_OLD", message).field("cursor");
    refusal.with("oldest_sequence", span.oldest).with("newest_sequence", span.newest)
}

/// Lets a service use `?` on the errors of the stages.
macro_rules! status_by_refusal {
    ($($error:ty),+) => {$(
        impl From<$error> for Status {
            fn from(error: $error) -> Self {
                Refusal::from(error).into()
            }
        }
    )+};
}
status_by_refusal!(EnrolError, PhotoError, RecogniseError, CamerasError, StoreError, SubscribeError, SubscriptionEnded);

/// Whether a status is the daemon's own fault. To the caller it is an answer, so the log is where it is told.
pub(super) fn is_own_fault(status: &Status) -> bool {
    !status.details().is_empty() && matches!(status.code(), Code::Internal | Code::DataLoss | Code::Unknown)
}

/// Explains a status that the transport made, which carries no reason yet: a message that is no
/// protobuf or too long, a method that does not exist.
pub(super) fn explained(status: &Status) -> Status {
    let reason = match status.code() {
        Code::Unimplemented => "UNKNOWN_METHOD",
        Code::OutOfRange | Code::ResourceExhausted => "MESSAGE_TOO_LARGE",
        Code::Internal | Code::InvalidArgument => "MALFORMED_MESSAGE",
        Code::NotFound => "UNKNOWN_SERVICE",
        _ => "TRANSPORT",
    };
    Refusal::new(status.code(), reason, status.message()).into()
}

#[cfg(test)]
mod tests;
