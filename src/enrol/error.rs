//! Why enrolment refuses or fails.
//!
//! In: what was wrong. Out: one variant a thing that a caller may do about it.
//! Must not know: the wire.

use std::path::PathBuf;

use crate::face::{Quality, TemplateError};
use crate::photo::PhotoError;
use crate::portable::PortableError;
use crate::quality::Fault;
use crate::store::StoreError;
use crate::subject::SubjectId;

/// Enrolment refused or failed; each variant has its own reason on the wire.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// The photo cannot be used, or inference failed.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// The face was found and is not good enough; give a better photo.
    #[error("the face cannot be used: {}; give a better photo", .fault.name())]
    Unusable {
        /// What is most wrong with it.
        fault: Fault,
        /// What was measured.
        quality: Box<Quality>,
    },
    /// The face is close to another subject's.
    #[error("the face is already enrolled as {other} (similarity {similarity:.3}); allow_duplicate enrols it all the same")]
    PossibleDuplicate {
        /// Whose it seems to be.
        other: SubjectId,
        /// Cosine similarity to that subject.
        similarity: f32,
    },
    /// The photo is not close to any other of the subject's.
    #[error(
        "the face does not look like the subject's other photos (closest similarity {similarity:.3}); allow_inconsistent takes it all the same"
    )]
    Inconsistent {
        /// Cosine similarity to the closest of them.
        similarity: f32,
    },
    /// The negative sample looks more like the subject than the subject's own photos do.
    #[error(
        "the negative sample shows the subject itself, as it seems (similarity {similarity:.3}): with it, the subject would not be recognised; allow_inconsistent takes it all the same"
    )]
    NegativeShowsSubject {
        /// Cosine similarity to one of the subject's own photos.
        similarity: f32,
    },
    /// The id is taken.
    #[error("subject {0} exists; choose another id, or add samples to it")]
    SubjectExists(SubjectId),
    /// The subject is the enrolment folder's, which alone says what photos it has.
    #[error("subject {0} came from the enrolment folder; put the photo there, or choose another id")]
    FromFolder(SubjectId),
    /// The very picture is a sample of somebody else.
    #[error("the same picture is a sample of {0}; one picture cannot show two people")]
    PhotoOfAnother(SubjectId),
    /// The picture was erased with its subject.
    #[error("the photo was erased with its subject; enrol the person by CreateSubject to bring them back")]
    ErasedPerson,
    /// Whoever was called so was erased, and nobody was enrolled by that id since.
    #[error(
        "{0} was erased, and no import brings anybody of this id back; enrol one photo by CreateSubject (`doorward subject add`), on purpose, then import the others"
    )]
    ErasedId(SubjectId),
    /// The subject has as many samples as one may have.
    #[error("the subject has {0} photos, as many as one may have; keep the best ones")]
    TooManyPhotos(usize),
    /// Nobody has this id.
    #[error("there is no subject {0}")]
    SubjectUnknown(String),
    /// The subject has no such sample.
    #[error("there is no sample {0} of this subject")]
    SampleUnknown(String),
    /// A subject would be without a sample.
    #[error("a subject needs at least one sample; delete the subject to erase its last one")]
    NoSample,
    /// A field is not allowed as it stands.
    #[error("{field}: {reason}")]
    BadField {
        /// Its name on the wire.
        field: &'static str,
        /// What is wrong, and what is allowed.
        reason: String,
    },
    /// Somebody else changed the subject.
    #[error("the subject has changed since: its etag is {current}; read it again")]
    StaleEtag {
        /// The etag it has now.
        current: String,
    },
    /// The snapshot is not there.
    #[error("there is no snapshot {0}, or it is no longer kept")]
    SnapshotUnknown(String),
    /// There is no folder to reload.
    #[error("no enrolment folder is configured: set people_dir")]
    NoFolder,
    /// The folder cannot be read, or changes while it is; nothing was changed.
    #[error("the enrolment folder {folder}: {reason}")]
    FolderUnreadable {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The version never was, or is older than the history that is kept.
    #[error("gallery version {version} is not kept; the oldest one is {oldest}")]
    VersionUnknown {
        /// The version that was asked for.
        version: u64,
        /// The oldest that can be gone back to.
        oldest: u64,
    },
    /// Too many people would go to believe that it is meant.
    #[error("this would remove {removed} of {total} subjects; allow_mass_removal does it all the same")]
    MassRemoval {
        /// Subjects that would go.
        removed: usize,
        /// Subjects that there are, however they were enrolled.
        total: usize,
    },
    /// The file of an import is not what it should be; nothing was changed.
    #[error(transparent)]
    Portable(PortableError),
    /// The encoder cannot be opened.
    #[error("{0}")]
    EncoderUnavailable(String),
    /// Templates are being made already.
    #[error("templates for another encoder are being made already; try again when that has ended")]
    ReencodeBusy,
    /// Another import, or a reload, is under way.
    #[error("another import or a reload is under way; try again when it has ended")]
    ImportBusy,
    /// One of several photos was refused.
    #[error("photo {}: {error}", index + 1)]
    OfSample {
        /// Which, from 0.
        index: usize,
        /// Why.
        #[source]
        error: Box<EnrolError>,
    },
    /// The request id stands for another call, or the same call with other arguments.
    #[error("request_id was used for another call before; make a new one")]
    RequestReused,
    /// The encoder and the gallery do not belong together; nothing was stored.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The database failed; nothing was changed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl EnrolError {
    /// The same, with which of `count` photos it is about; of a single one, and where enrolment itself has failed, there is nothing to say.
    pub(super) fn of_sample(self, (index, count): (usize, usize)) -> Self {
        if count > 1 && self.is_refusal() { Self::OfSample { index, error: Box::new(self) } } else { self }
    }

    /// Whether it is about the one photo and what is stated with it, so that another may do better; else
    /// enrolment itself has failed.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Photo(PhotoError::BadImage(_) | PhotoError::NoFace | PhotoError::SeveralFaces(_))
            | Self::Unusable { .. }
            | Self::PossibleDuplicate { .. }
            | Self::Inconsistent { .. }
            | Self::NegativeShowsSubject { .. }
            | Self::SubjectExists(_)
            | Self::FromFolder(_)
            | Self::PhotoOfAnother(_)
            | Self::ErasedPerson
            | Self::ErasedId(_)
            | Self::TooManyPhotos(_)
            | Self::OfSample { .. }
            | Self::BadField { .. } => true,
            Self::Photo(PhotoError::Infer(_))
            | Self::SubjectUnknown(_)
            | Self::SampleUnknown(_)
            | Self::NoSample
            | Self::StaleEtag { .. }
            | Self::SnapshotUnknown(_)
            | Self::NoFolder
            | Self::FolderUnreadable { .. }
            | Self::VersionUnknown { .. }
            | Self::MassRemoval { .. }
            | Self::Portable(_)
            | Self::EncoderUnavailable(_)
            | Self::ReencodeBusy
            | Self::ImportBusy
            | Self::RequestReused
            | Self::Template(_)
            | Self::Store(_) => false,
        }
    }
}
