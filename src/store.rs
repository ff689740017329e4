//! The embedded database: one data directory, locked; everything at rest passes through here.
//!
//! In: mutations, cameras, credentials, events and, after them, their pictures. Out: the same values, after a
//! restart too. A call that changes something is answered only when it is on disk (WAL,
//! `synchronous=FULL`); changes that are queued together share one transaction and its sync.
//! Drops: the pictures of an event whose subject was erased before they arrived; counted.
//! A caller that stops waiting takes nothing back: what was queued is still carried out.
//! At rest nothing is encrypted: credentials and pictures are as safe as the directory (0700) and
//! its files (0600).
//! Must not know: what the values mean to the gallery, the log or the wire.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use crate::camera::{Camera, CameraId, Credential};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::event::{Event, SnapshotId, VisitId};
use crate::face::{Template, TemplateSpace};
use crate::mutation::Mutation;
use crate::store::readers::Readers;
use crate::store::writer::{Effect, Writer};
use crate::subject::{Sample, SampleId, Subject, SubjectId, SubjectUid};

mod backup;
mod cameras;
mod data_dir;
mod erased_ids;
mod events;
mod export;
mod failure;
mod history;
mod mutations;
mod new_file;
mod people;
mod readers;
mod reencode;
mod requests;
mod retention;
mod schema;
mod shadow;
mod snapshots;
mod standing;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub use backup::{BackupFacts, Restored, back_up, restore};
pub use erased_ids::{IdHash, hash as erased_id};
pub use export::{Export, ExportFacts, cameras as cameras_in, export, templates};
pub use history::{Difference, RetiredPerson, VersionChange, VersionInfo};
pub use reencode::Lacking;
pub use requests::RequestKey;
pub use retention::Retention;
pub use shadow::ShadowFacts;
pub use snapshots::Coming;
pub use standing::{Candidature, Findings, KnownContent, Standing};

/// How long the answer to a request is kept for its repeats.
const ANSWER_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// A file of this name, left by whoever put a backup back, begins a new epoch.
const RESTORED: &str = "restored";

/// Storing failed; the variants differ in what the caller does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Give up: another daemon holds the directory.
    #[error("{0} is in use by another doorward; stop it or give another data_dir")]
    Locked(PathBuf),
    /// Give up: the path is something else.
    #[error("{0} is not a directory; give another data_dir")]
    NotADirectory(PathBuf),
    /// Give up: the daemon's user may not read or write there.
    #[error("{path} cannot be used ({reason}); let the daemon's user own it, or give another data_dir")]
    NoAccess {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Give another name: nothing is overwritten.
    #[error("{0} exists and is not overwritten; give another name")]
    Exists(PathBuf),
    /// Try again later or elsewhere: where the file was to lie there is no room.
    #[error("there is no room for {0}; free some, or give a name on another disk")]
    NoRoom(PathBuf),
    /// Try again later: what is asked for is not on disk yet.
    #[error("the picture is on its way and finds no room yet, or the daemon is busy; ask again in a few seconds")]
    NotYet,
    /// Nothing was done: whoever asked wanted it no longer.
    #[error("it was stopped; nothing of it is left")]
    Interrupted,
    /// Give up: a newer doorward wrote the database.
    #[error(
        "the database has schema version {found} and this doorward knows up to {known}; run the newer doorward, or restore a backup made before the upgrade"
    )]
    TooNew {
        /// The database's version.
        found: u32,
        /// The newest version this program can read.
        known: u32,
    },
    /// Give up: what is on disk is not what was written.
    #[error(
        "the database is damaged ({reason}); stop the daemon and put a backup back with `doorward gallery restore`, or move data_dir away to start empty and enrol again"
    )]
    Damaged {
        /// What was found.
        reason: String,
    },
    /// Refuse: the file is no whole backup; nothing was changed.
    #[error("{file} cannot be restored: {reason}; take another backup")]
    BadBackup {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Try again later: the change was not made because there is no room.
    #[error("the disk of data_dir is full; free space or shorten events.retention_days, then try again")]
    Full,
    /// Refuse the call: the change contradicts what is stored, and nothing of it was made.
    #[error("the change contradicts what is stored: {0}")]
    Contradiction(String),
    /// Answer with [`Store::request_answer`]: this request was carried out before.
    #[error("this request was carried out before")]
    RequestRepeated,
    /// Refuse the call: this request was carried out before, and whom it was about is erased.
    #[error("this request was carried out before, and its answer was erased with the person it was about; use a new request_id")]
    AnswerErased,
    /// Give up: the store's writer has ended.
    #[error("the store has stopped; restart the daemon")]
    Stopped,
    /// Try again or give up: reading or writing failed otherwise.
    #[error("reading or writing the database failed: {0}")]
    Failed(String),
}

/// What a commit of mutations did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The gallery version: the sequence of the call's last mutation.
    pub version: u64,
    /// Templates that were erased.
    pub templates_erased: u32,
    /// Samples that were erased, each with its photo.
    pub samples_erased: u32,
    /// Snapshots that were erased.
    pub snapshots_erased: u32,
}

/// A template with whose it is.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTemplate {
    /// The sample it was made from.
    pub sample: SampleId,
    /// The person.
    pub subject: SubjectUid,
    /// Whether it shows somebody else, who must never be taken for that person.
    pub negative: bool,
    /// Vector and space.
    pub template: Template,
}

/// Pictures of a best shot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// The camera that took it.
    pub camera: CameraId,
    /// When it was taken.
    pub capture_time: Timestamp,
    /// Whom it shows, if known: it is erased with the subject.
    pub subject: Option<SubjectUid>,
    /// The face with a margin, JPEG. A sample with the same bytes ties the snapshot to its subject.
    pub crop_jpeg: Vec<u8>,
    /// The whole frame, JPEG.
    pub frame_jpeg: Vec<u8>,
}

/// Where appended events stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The sequence of the first; the others follow.
    pub first: u64,
    /// When the log took them, just before they were synced.
    pub time: Timestamp,
}

/// Which events are kept: all from the oldest to the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSpan {
    /// The oldest that is kept; the one after the newest when none is.
    pub oldest: u64,
    /// The newest that was ever written; 0 before the first.
    pub newest: u64,
}

/// Which part of the past is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// Only later events than this sequence.
    pub after: u64,
    /// Only earlier events than this sequence.
    pub before: u64,
    /// Only what was captured at this time or later.
    pub since: Timestamp,
    /// Only what was captured before this time.
    pub until: Timestamp,
    /// The newest come first instead of the oldest.
    pub newest_first: bool,
}

/// A visit of which the log shows a beginning and not its end.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenVisit {
    /// The visit.
    pub visit: VisitId,
    /// Its `VISIT_STARTED` event, or its first `ZONE_ENTERED` where no rule told that it started.
    pub began: Event,
}

/// What the store has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreCounts {
    /// Transactions that reached the disk.
    pub commits: u64,
    /// Snapshots that were not kept because their subject was already erased.
    pub snapshots_of_erased: u64,
}

/// The running counts behind [`StoreCounts`].
#[derive(Debug, Default)]
struct Counts {
    commits: AtomicU64,
    snapshots_of_erased: AtomicU64,
}

/// The call that a commit of mutations is made for.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// What it is called in the list of versions.
    pub method: String,
    /// Under which its answer is kept for repeats.
    pub request_key: Option<String>,
}

/// How a call's answer is made from what was committed, for repeats of its request.
pub type Answer = Box<dyn FnOnce(&Committed) -> Vec<u8> + Send>;
/// Who is told where appended events stand, see [`Store::append_events_then`].
pub type Told = Box<dyn FnOnce(Appended, Vec<Arc<Event>>) + Send>;

/// A handle on the database. Clones share it; the last one waits for queued changes, closes the
/// database and gives the directory free. Reads and writes run on the store's own threads.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// Fields are dropped from the top: the writer finishes before the lock is given back.
struct Inner {
    writer: Writer,
    readers: Readers,
    data_dir: PathBuf,
    epoch: Uuid,
    space: Mutex<Option<TemplateSpace>>,
    clock: Arc<dyn Clock>,
    counts: Arc<Counts>,
    coming: watch::Sender<HashSet<SnapshotId>>,
    _lock: File,
}

/// What becomes of a camera's credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialChange {
    /// It stays as it is.
    Keep,
    /// There is none any more.
    Remove,
    /// This one, in place of any other.
    Set(Credential),
}

impl Store {
    /// Creates or opens, locks and migrates, on the system's clock. Blocks on the disk.
    ///
    /// # Errors
    /// Any but [`StoreError::RequestRepeated`], [`StoreError::AnswerErased`] and
    /// [`StoreError::Contradiction`].
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        Self::open_with_clock(data_dir, Arc::new(SystemClock::new()))
    }

    /// [`open`](Self::open) with the clock that says when mutations are made and which answers to
    /// requests are too old to keep.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_clock(data_dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let lock = data_dir::lock(data_dir)?;
        let file = data_dir::database_file(data_dir)?;
        let mut connection = schema::writer(&file)?;
        schema::migrate(&mut connection, schema::MIGRATIONS)?;
        schema::renew_epoch(&connection, &data_dir.join(RESTORED))?;
        let epoch = schema::epoch(&connection)?;
        let counts = Arc::new(Counts::default());
        let writer = Writer::start(connection, Arc::clone(&counts))?;
        Ok(Self(Arc::new(Inner {
            writer,
            readers: Readers::new(file),
            data_dir: data_dir.to_owned(),
            epoch,
            space: Mutex::default(),
            clock,
            counts,
            coming: watch::Sender::default(),
            _lock: lock,
        })))
    }

    /// What was done since the store was opened.
    pub fn counts(&self) -> StoreCounts {
        StoreCounts {
            commits: self.0.counts.commits.load(Ordering::Relaxed),
            snapshots_of_erased: self.0.counts.snapshots_of_erased.load(Ordering::Relaxed),
        }
    }

    // Gallery.

    /// Commits all `mutations` of `call` or none, durably, in call order. With a request key the bytes that
    /// `answer` makes of the result are committed with them; `answer` runs on the writer's thread
    /// and must not wait. When something is erased, its bytes are gone from the database's files
    /// before the call is answered, unless another program is reading them: that is logged, and
    /// made good as soon as it stops.
    ///
    /// # Errors
    /// [`StoreError::RequestRepeated`] for a key that is known, [`StoreError::Contradiction`] for
    /// a subject or sample that is not there or a name that is taken; nothing is changed then.
    pub async fn mutate(&self, mutations: Vec<Mutation>, call: Call, answer: Answer) -> Result<Committed, StoreError> {
        let erases = mutations.iter().any(|m| matches!(m, Mutation::EraseSubject(_) | Mutation::EraseSample { .. }));
        let effect = if erases { Effect::Erases } else { Effect::Keeps };
        let time = self.0.clock.now();
        self.0
            .writer
            .write(effect, move |db| {
                requests::refuse_repeat(db, call.request_key.as_deref())?;
                let committed = mutations::commit(db, &mutations, (&call.method, time))?;
                if let Some(key) = call.request_key {
                    requests::keep(db, (&key, answer(&committed), time), &mutations::people_in(&mutations))?;
                }
                Ok(committed)
            })
            .await
    }

    /// The first answer to a repeated request; `None` for a new one.
    ///
    /// # Errors
    /// [`StoreError::AnswerErased`] when the person it was about has been erased since.
    pub async fn request_answer(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = key.to_owned();
        self.0.readers.read(move |db| requests::answer(db, &key)).await
    }

    /// The newest gallery version, 0 before the first change.
    pub async fn gallery_version(&self) -> Result<u64, StoreError> {
        self.0.readers.read(mutations::version).await
    }

    /// All subjects, ordered by id.
    pub async fn subjects(&self) -> Result<Vec<Subject>, StoreError> {
        self.subject_page(None, None, usize::MAX).await
    }

    /// One page of subjects ordered by id, after `after`, on `watchlist` if given.
    pub async fn subject_page(
        &self,
        after: Option<SubjectId>,
        watchlist: Option<String>,
        limit: usize,
    ) -> Result<Vec<Subject>, StoreError> {
        self.0.readers.read(move |db| people::subjects(db, after.as_ref(), watchlist.as_deref(), limit)).await
    }

    /// One subject.
    pub async fn subject(&self, id: &SubjectId) -> Result<Option<Subject>, StoreError> {
        let id = id.clone();
        self.0.readers.read(move |db| people::subject(db, &id)).await
    }

    /// One subject's samples, oldest first, with templates.
    pub async fn samples(&self, subject: SubjectUid) -> Result<Vec<(Sample, Template)>, StoreError> {
        let space = self.space_in_force();
        self.0.readers.read(move |db| people::samples(db, subject, space.as_ref())).await
    }

    /// The negative samples, of whichever subject, that show `uid`: the same photo, or the best shot of
    /// an event of theirs.
    pub async fn negatives_showing(&self, uid: SubjectUid) -> Result<Vec<(SubjectUid, SampleId)>, StoreError> {
        self.0.readers.read(move |db| people::negatives_showing(db, uid)).await
    }

    /// Samples that came from the enrolment folder, oldest first.
    pub async fn folder_samples(&self) -> Result<Vec<Sample>, StoreError> {
        self.0.readers.read(people::folder_samples).await
    }

    /// How many samples each subject of the enrolment folder has that did not come from there, negative ones too.
    pub async fn samples_beside_the_folder(&self) -> Result<HashMap<SubjectUid, usize>, StoreError> {
        self.0.readers.read(people::samples_beside_the_folder).await
    }

    /// Whether photos of this content were erased with their subject.
    pub async fn is_erased_content(&self, sha256: [u8; 32]) -> Result<bool, StoreError> {
        self.0.readers.read(move |db| people::is_erased_content(db, sha256)).await
    }

    // Cameras.

    /// Inserts or replaces a camera and changes its credential, all or nothing. `has_credential` is
    /// not stored: it is read from the credentials. What a request asked is kept as its answer.
    ///
    /// # Errors
    /// [`StoreError::RequestRepeated`] for a key that is known.
    pub async fn put_camera(&self, camera: Camera, change: CredentialChange, request: Option<RequestKey>) -> Result<(), StoreError> {
        let time = self.0.clock.now();
        let effect = if change == CredentialChange::Keep { Effect::Keeps } else { Effect::Erases };
        self.0
            .writer
            .write(effect, move |db| {
                requests::refuse_repeat(db, request.as_ref().map(|request| &*request.key))?;
                cameras::put(db, &camera)?;
                cameras::change_credential(db, &camera.id, &change)?;
                request.map_or(Ok(()), |request| requests::keep(db, (&request.key, request.asked.into(), time), &[]))
            })
            .await
    }

    /// Removes camera and credential; answers whether it was there. What a request asked is kept as its
    /// answer.
    ///
    /// # Errors
    /// [`StoreError::RequestRepeated`] for a key that is known.
    pub async fn erase_camera(&self, id: &CameraId, request: Option<RequestKey>) -> Result<bool, StoreError> {
        let (id, time) = (id.clone(), self.0.clock.now());
        self.0
            .writer
            .write(Effect::Erases, move |db| {
                requests::refuse_repeat(db, request.as_ref().map(|request| &*request.key))?;
                let was_there = cameras::erase(db, &id)?;
                request.map_or(Ok(()), |request| requests::keep(db, (&request.key, request.asked.into(), time), &[]))?;
                Ok(was_there)
            })
            .await
    }

    /// All cameras by id.
    pub async fn cameras(&self) -> Result<Vec<Camera>, StoreError> {
        self.0.readers.read(cameras::all).await
    }

    /// The credential, for the one place that connects to the camera.
    pub async fn credential(&self, camera: &CameraId) -> Result<Option<Credential>, StoreError> {
        let camera = camera.clone();
        self.0.readers.read(move |db| cameras::credential(db, &camera)).await
    }
}
