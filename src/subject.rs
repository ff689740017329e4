//! Subjects: enrolled people, the samples given for them, and who may be called what.
//!
//! In: what an operator states. Out: values that are valid once they exist.
//! Must not know: templates' numbers, the database, the wire.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::face::Quality;

/// The longest allowed [`SubjectId`], in bytes.
pub const SUBJECT_ID_BYTES_MAX: usize = 128;
/// The longest allowed display name, in bytes.
pub const DISPLAY_NAME_BYTES_MAX: usize = 256;

/// The operator's name of a subject: 1 to 128 bytes of letters, digits, `-`, `_` and `.`,
/// beginning with a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectId(Arc<str>);

/// Why a text is no subject id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("subject id {id:?} is not allowed: use 1 to 128 bytes of letters, digits, '-', '_' and '.', beginning with a letter or a digit")]
pub struct InvalidSubjectId {
    /// The refused text, cut to a printable length.
    pub id: String,
}

impl SubjectId {
    /// Checks `id` and makes it a subject id.
    ///
    /// # Errors
    /// [`InvalidSubjectId`] when a character or the length is not allowed.
    pub fn parse(id: &str) -> Result<Self, InvalidSubjectId> {
        let begins_well = id.chars().next().is_some_and(char::is_alphanumeric);
        let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if begins_well && id.len() <= SUBJECT_ID_BYTES_MAX && id.chars().all(allowed) {
            Ok(Self(id.into()))
        } else {
            Err(InvalidSubjectId { id: id.chars().take(80).collect() })
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What stands for a subject in logs that are never rewritten: random, and meaningless once the
/// subject is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubjectUid(pub Uuid);

/// One sample's name: random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SampleId(pub Uuid);

/// By which door a subject came into the gallery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Enrolled by RPC: a reload of the folder never touches it.
    Rpc,
    /// Found in the enrolment folder: a reload may change or remove it.
    Folder,
}

/// An enrolled person.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// The operator's id, free again after erasure.
    pub id: SubjectId,
    /// The random name that events carry.
    pub uid: SubjectUid,
    /// What people call the subject; may be empty.
    pub display_name: String,
    /// The watchlists the subject stands on, sorted, without repeats.
    pub watchlists: Vec<String>,
    /// The operator's own notes.
    pub attributes: BTreeMap<String, String>,
    /// Where the subject's consent is filed; may be empty.
    pub consent_reference: String,
    /// When the subject stops matching.
    pub expire_time: Option<Timestamp>,
    /// How the subject came in.
    pub origin: Origin,
    /// When it was enrolled.
    pub create_time: Timestamp,
    /// When it last changed.
    pub update_time: Timestamp,
    /// Counts the changes of this subject; a part of its etag.
    pub revision: u64,
}

impl Subject {
    /// What a change that was made from an older state is told by: of this person, not of whoever has the id after them.
    pub fn etag(&self) -> String {
        let (_, person) = self.uid.0.as_u64_pair();
        format!("{}-{person:016x}", self.revision)
    }
}

#[cfg(test)]
impl Subject {
    /// Somebody of whom a test needs no more than who it is.
    pub(crate) fn made_up(id: &str, uid: u128) -> Self {
        Self {
            id: SubjectId::parse(id).expect("a good id"),
            uid: SubjectUid(Uuid::from_u128(uid)),
            display_name: String::new(),
            watchlists: Vec::new(),
            attributes: BTreeMap::new(),
            consent_reference: String::new(),
            expire_time: None,
            origin: Origin::Rpc,
            create_time: Timestamp::default(),
            update_time: Timestamp::default(),
            revision: 1,
        }
    }
}

impl Subject {
    /// Whether it stands on one of `watchlists` at least; an empty set asks for none.
    pub fn is_on_any(&self, watchlists: &HashSet<String>) -> bool {
        watchlists.is_empty() || self.watchlists.iter().any(|list| watchlists.contains(list))
    }
}

/// A photo given for enrolment, without its picture or its template.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its name.
    pub id: SampleId,
    /// Whose it is.
    pub subject: SubjectUid,
    /// How usable its face is.
    pub quality: Quality,
    /// SHA-256 of the photo's bytes as they were given.
    pub content_sha256: [u8; 32],
    /// When it was given.
    pub create_time: Timestamp,
    /// The path below the enrolment folder, for samples found there.
    pub folder_path: Option<String>,
    /// Whether it shows somebody else, who must never be taken for the subject.
    pub negative: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_ids_name_no_path() {
        for good in ["anna", "E-1234", "joão_2", "a.b"] {
            assert!(SubjectId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "../etc", "a/b", ".hidden", "a b", &"x".repeat(10_000)] {
            assert!(SubjectId::parse(bad).is_err(), "{bad}");
        }
    }
}
