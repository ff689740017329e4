//! The ordered changes that the gallery is a fold of.
//!
//! In: what enrolment decided. Out: values that `store` commits and `gallery` applies.
//! Must not know: the database, the search.

use crate::face::Template;
use crate::subject::{Sample, SampleId, Subject, SubjectUid};

/// One ordered change of the gallery. Several of one call are committed together under one version.
#[derive(Clone, Debug)]
pub enum Mutation {
    /// Inserts the subject, or replaces what was said of the subject with this uid.
    PutSubject(Subject),
    /// Adds a sample with its template.
    PutSample {
        /// What is known of it.
        sample: Sample,
        /// Its vector.
        template: Template,
        /// The photo, as it was given.
        photo: std::sync::Arc<[u8]>,
    },
    /// Takes the subject, whose samples were retired before, out of the gallery. It is kept apart and
    /// can be restored until the history that is kept is shorter.
    RetireSubject(SubjectUid),
    /// Takes one sample out of the gallery, likewise.
    RetireSample {
        /// Whose it is.
        subject: SubjectUid,
        /// Which one.
        sample: SampleId,
    },
    /// Brings a retired subject back, as it is stated here, without samples.
    RestoreSubject(Subject),
    /// Brings a retired sample back.
    RestoreSample {
        /// What is known of it.
        sample: Sample,
        /// Its vector.
        template: Template,
    },
    /// Adds a template of another space to a sample that is there: made by an encoder that came later.
    PutTemplate {
        /// What is known of it.
        sample: Sample,
        /// Its other vector.
        template: Template,
    },
    /// Erases the subject, retired or not, with samples, templates, photos and the snapshots of its events. Photos
    /// of the same content stay blocked in the enrolment folder.
    EraseSubject(SubjectUid),
    /// Erases one sample with its template and photo.
    EraseSample {
        /// Whose it is.
        subject: SubjectUid,
        /// Which one.
        sample: SampleId,
    },
}
