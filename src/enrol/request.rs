//! Request ids: the same call asked twice is done once.
//!
//! In: a call's name, request id and arguments. Out: the key that its answer is stored under, and
//! the stored answer of a repeat. The arguments are kept as a hash only.
//! Must not know: what calls do.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::answer::Answer;
use super::{EnrolError, NewSample, NewSubject, Rollback, SampleInput, SubjectFields, SubjectUpdate};
use crate::subject::{SampleId, SubjectId};

const REQUEST_ID_BYTES_MAX: usize = 128;

/// One call, as far as a repeat of it must be recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// What the answer is stored under; `None` for a call that cannot be repeated. It is the same
    /// for all methods, so that an id used for another method is noticed.
    pub key: Option<String>,
    method: String,
    arguments: String,
}

/// What is stored of an answer.
#[derive(Serialize, Deserialize)]
struct Envelope<A> {
    method: String,
    arguments: String,
    answer: A,
}

impl Request {
    pub fn create_subject(new: &NewSubject) -> Result<Self, EnrolError> {
        let mut arguments = Arguments::default();
        arguments.add_optional(new.id.as_ref().map(SubjectId::as_str));
        arguments.add_fields(&new.fields);
        new.samples.iter().for_each(|sample| arguments.add_sample(sample));
        arguments.add(&[u8::from(new.allowed.duplicate), u8::from(new.allowed.inconsistent)]);
        Self::new("create_subject", &new.request_id, arguments)
    }

    pub fn update_subject(update: &SubjectUpdate) -> Result<Self, EnrolError> {
        let mut arguments = Arguments::default();
        arguments.add(update.id.as_str().as_bytes());
        arguments.add_fields(&update.fields);
        arguments.add(update.etag.as_bytes());
        Self::new("update_subject", &update.request_id, arguments)
    }

    pub fn delete_subject(request_id: &str, id: &SubjectId, etag: &str) -> Result<Self, EnrolError> {
        let mut arguments = Arguments::default();
        arguments.add(id.as_str().as_bytes());
        arguments.add(etag.as_bytes());
        Self::new("delete_subject", request_id, arguments)
    }

    pub fn create_sample(new: &NewSample) -> Result<Self, EnrolError> {
        let mut arguments = Arguments::default();
        arguments.add(new.subject.as_str().as_bytes());
        arguments.add_sample(&new.sample);
        arguments.add(&[u8::from(new.allowed.duplicate), u8::from(new.allowed.inconsistent), u8::from(new.negative)]);
        Self::new("create_sample", &new.request_id, arguments)
    }

    pub fn delete_sample(request_id: &str, subject: &SubjectId, sample: SampleId) -> Result<Self, EnrolError> {
        let mut arguments = Arguments::default();
        arguments.add(subject.as_str().as_bytes());
        arguments.add(sample.0.as_bytes());
        Self::new("delete_sample", request_id, arguments)
    }

    /// A dry run changes nothing, so nothing of it needs to be kept.
    pub fn reload(request_id: &str, allow_mass_removal: bool, dry_run: bool) -> Result<Self, EnrolError> {
        let mut arguments = Arguments::default();
        arguments.add(&[u8::from(allow_mass_removal)]);
        Self::new("reload", if dry_run { "" } else { request_id }, arguments)
    }

    /// A part of an import, which is repeated by content and needs no id.
    pub fn import_subjects() -> Self {
        Self { key: None, method: "import_subjects".into(), arguments: String::new() }
    }

    /// A dry run changes nothing, so nothing of it needs to be kept.
    pub fn roll_back(request_id: &str, rollback: &Rollback) -> Result<Self, EnrolError> {
        let mut arguments = Arguments::default();
        arguments.add(&rollback.version.to_le_bytes());
        arguments.add(&[u8::from(rollback.allow_mass_removal)]);
        Self::new("roll_back", if rollback.dry_run { "" } else { request_id }, arguments)
    }

    /// A batch of an import: running the import again passes over who is there, so no answer is kept.
    pub fn import_gallery() -> Self {
        Self { key: None, method: "import_gallery".into(), arguments: String::new() }
    }

    /// Templates that begin to match: nobody repeats this by its request.
    pub fn reencode() -> Self {
        Self { key: None, method: "reencode".into(), arguments: String::new() }
    }

    /// What the call is called.
    pub fn method(&self) -> &str {
        &self.method
    }

    fn new(method: &str, request_id: &str, arguments: Arguments) -> Result<Self, EnrolError> {
        if request_id.len() > REQUEST_ID_BYTES_MAX || request_id.chars().any(char::is_control) {
            let reason = format!("give a UUID, or at most {REQUEST_ID_BYTES_MAX} bytes without control characters");
            return Err(EnrolError::BadField { field: "request_id", reason });
        }
        let key = (!request_id.is_empty()).then(|| format!("gallery/{request_id}"));
        Ok(Self { key, method: method.into(), arguments: arguments.into_hex() })
    }

    /// What is to be stored when this call answers `answer`.
    pub fn encode<A: Answer>(&self, answer: &A) -> Vec<u8> {
        let envelope = Envelope { method: self.method.clone(), arguments: self.arguments.clone(), answer: answer.to_record() };
        // Records are plain structs with text keys, which JSON always has a form for; were that
        // ever untrue, a repeat would be refused: an empty answer cannot be decoded.
        serde_json::to_vec(&envelope).unwrap_or_default()
    }

    /// The answer that was stored for this call.
    pub fn decode<A: Answer>(&self, stored: &[u8]) -> Result<A, EnrolError> {
        // An answer of another make is one to another call: that of an older doorward.
        let envelope: Envelope<serde_json::Value> = serde_json::from_slice(stored).map_err(|_| EnrolError::RequestReused)?;
        if envelope.method != self.method || envelope.arguments != self.arguments {
            return Err(EnrolError::RequestReused);
        }
        let record = serde_json::from_value(envelope.answer).map_err(|_| EnrolError::RequestReused)?;
        A::from_record(record).ok_or(EnrolError::RequestReused)
    }
}

/// Hashes arguments, each with its length, so that no two lists of them look alike.
#[derive(Default)]
struct Arguments(Sha256);

impl Arguments {
    fn add(&mut self, part: &[u8]) {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part);
    }

    fn add_optional(&mut self, part: Option<&str>) {
        self.add(&[u8::from(part.is_some())]);
        self.add(part.unwrap_or_default().as_bytes());
    }

    fn add_sample(&mut self, sample: &SampleInput) {
        match sample {
            SampleInput::Image(photo) => {
                self.add(b"image");
                self.add(photo);
            }
            SampleInput::Snapshot(id) => {
                self.add(b"snapshot");
                self.add(id.0.as_bytes());
            }
        }
    }

    fn add_fields(&mut self, fields: &SubjectFields) {
        self.add_optional(fields.display_name.as_deref());
        self.add(&[u8::from(fields.watchlists.is_some())]);
        for watchlist in fields.watchlists.iter().flatten() {
            self.add(watchlist.as_bytes());
        }
        self.add(&[u8::from(fields.attributes.is_some())]);
        for (name, value) in fields.attributes.iter().flatten() {
            self.add(name.as_bytes());
            self.add(value.as_bytes());
        }
        self.add_optional(fields.consent_reference.as_deref());
        let expiry = fields.expire_time.map(|expiry| expiry.map_or_else(|| "never".to_owned(), |at| at.as_micros().to_string()));
        self.add_optional(expiry.as_deref());
    }

    fn into_hex(self) -> String {
        self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
