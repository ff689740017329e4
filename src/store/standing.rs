//! What an import has to know of whoever is there already, or was.
//!
//! In: ids, contents of photos. Out: whether they are free. Also a place for the file while it is read.
//! Must not know: the file's inside, what is refused.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

use rusqlite::Connection;
use uuid::Uuid;

use crate::store::{Store, StoreError, erased_ids, failure, people};
use crate::subject::{SampleId, SubjectId, SubjectUid};

/// Whether a subject can come in under its uid and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    Free,
    /// It is there already: the same uid under the same id.
    Present,
    /// Somebody else has the id.
    IdTaken,
    /// The same person is there under another id.
    UidTaken,
    /// The same person was taken out of the gallery and is kept for a rollback.
    Retired,
    /// The same person was erased, or somebody who was called so, and nobody was enrolled by that id since.
    Erased,
}

/// What is asked of somebody who may come in.
#[derive(Clone, Debug)]
pub struct Candidature {
    /// The random name.
    pub uid: SubjectUid,
    /// The operator's name.
    pub id: SubjectId,
    /// The samples, each with the hash of its photo.
    pub samples: Vec<(SampleId, [u8; 32])>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Of the subject.
    pub standing: Standing,
    /// Of each sample: whether its photo was erased with its person, or its id is taken.
    pub samples: Vec<(bool, bool)>,
}

/// What is known of photos of one content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownContent {
    /// Whose samples they are.
    pub owners: Vec<SubjectId>,
    /// Whether they were erased with their subject.
    pub is_erased: bool,
}

impl Store {
    /// What is known of photos of these contents, in their order.
    pub async fn known_contents(&self, sha256s: Vec<[u8; 32]>) -> Result<Vec<KnownContent>, StoreError> {
        self.0.readers.read(move |db| sha256s.iter().map(|sha256| known_content(db, *sha256)).collect()).await
    }

    /// Looks all of `candidates` up, at one moment.
    pub async fn standings(&self, candidates: Vec<Candidature>) -> Result<Vec<Findings>, StoreError> {
        self.0.readers.read(move |db| candidates.iter().map(|candidate| findings(db, candidate)).collect()).await
    }

    /// An empty file in the data directory that has no name and is gone when it is dropped, or when the
    /// daemon ends however: for what is larger than memory and must not stay.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::NoAccess`].
    pub fn scratch_file(&self) -> Result<File, StoreError> {
        let path = self.0.data_dir.join(format!("scratch-{}", Uuid::new_v4().simple()));
        let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let unnamed = made.and_then(|file| std::fs::remove_file(&path).map(|()| file));
        unnamed.map_err(|error| failure::of_file(&path, &error))
    }

    /// What writing to a [`scratch_file`](Self::scratch_file) failed of.
    pub fn scratch_failure(&self, error: &std::io::Error) -> StoreError {
        failure::of_file(&self.0.data_dir, error)
    }
}

/// Whom a sample of this content shows, and whether it was erased with its subject.
fn known_content(db: &Connection, sha256: [u8; 32]) -> Result<KnownContent, StoreError> {
    let owners = db
        .prepare_cached(
            "SELECT DISTINCT subjects.id FROM samples JOIN subjects ON subjects.uid = samples.subject WHERE samples.content_sha256 = ?1 AND NOT samples.negative",
        )?
        .query_and_then([sha256], |row| SubjectId::parse(row.get_ref(0)?.as_str().map_err(failure::damaged)?).map_err(failure::damaged))?
        .collect::<Result<_, StoreError>>()?;
    Ok(KnownContent { owners, is_erased: people::is_erased_content(db, sha256)? })
}

fn findings(db: &Connection, candidate: &Candidature) -> Result<Findings, StoreError> {
    let exists = |query: &str, value: [u8; 16]| -> Result<bool, StoreError> { Ok(db.prepare_cached(query)?.exists([value])?) };
    let uid = candidate.uid.0.into_bytes();
    let is_there = exists("SELECT 1 FROM subjects WHERE uid = ?1", uid)?;
    let same = "SELECT 1 FROM subjects WHERE id = ?1 AND uid = ?2";
    let standing = if is_there {
        if db.prepare_cached(same)?.exists((candidate.id.as_str(), uid))? { Standing::Present } else { Standing::UidTaken }
    } else if exists("SELECT 1 FROM mutations WHERE subject = ?1 AND kind = 'erase_subject'", uid)? {
        Standing::Erased
    } else if exists("SELECT 1 FROM subject_history WHERE uid = ?1 UNION SELECT 1 FROM retired_samples WHERE subject = ?1", uid)? {
        Standing::Retired
    } else if db.prepare_cached("SELECT 1 FROM subjects WHERE id = ?1")?.exists([candidate.id.as_str()])? {
        Standing::IdTaken
    } else if erased_ids::is_noted(db, &candidate.id)? {
        Standing::Erased
    } else {
        Standing::Free
    };
    let mut samples = Vec::with_capacity(candidate.samples.len());
    for (sample, content) in &candidate.samples {
        let is_erased = db.prepare_cached("SELECT 1 FROM erased_content WHERE sha256 = ?1")?.exists([content])?;
        let known = "SELECT 1 FROM samples WHERE id = ?1 UNION SELECT 1 FROM retired_samples WHERE id = ?1";
        samples.push((is_erased, exists(known, sample.0.into_bytes())?));
    }
    Ok(Findings { standing, samples })
}
