//! Enrolment: photo → detect → quality → template → store and gallery.
//!
//! In: what operators state and give by RPC, and the enrolment folder. Out: changes that are on
//! disk and matching when they are answered. The only writer of the gallery: one change at a
//! time, others wait for it; photos are encoded before a change takes its turn. A change that has
//! begun ends, whether or not its caller still waits.
//! Drops: nothing; a refusal stores nothing and says why.
//! Must not know: the wire, SQL, sessions.

mod answer;
mod check;
mod doubt;
mod error;
mod fields;
mod folder;
mod gallery_file;
mod import;
mod plan;
mod prepare;
mod reencode;
mod register;
mod reload;
mod request;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::clock::{Clock, Timestamp};
use crate::decide::{Policy, ThresholdFacts};
use crate::event::SnapshotId;
use crate::face::TemplateSpace;
use crate::gallery::Gallery;
use crate::photo::PhotoAnalyst;
use crate::store::{Committed, Difference, Store, VersionInfo};
use crate::subject::{Sample, SampleId, Subject, SubjectId, SubjectUid};
pub use check::{Findings, LookAlike, Misfit};
pub use error::EnrolError;
pub use folder::FolderWatch;
pub use gallery_file::{ImportOptions, ImportReport, ImportStep, RefusedImport};
use import::{GROUP_WAIT, Import};
pub use import::{ImportItem, ImportResult, Imported};
use prepare::Prepared;
pub use reencode::{OpenEncoder, OtherEncoder, ReencodeProgress, ReencodeReport, ReencodeStep, RefusedTemplate};
use register::{Addition, Creation, Register};
use reload::{BUSY_WAIT, Prepare, Reload};
use request::Request;
pub use versions::{Rollback, RollbackReport};

/// The most samples of one call.
pub const SAMPLES_A_CALL_MAX: usize = 10;
/// The most samples of one subject.
pub const SAMPLES_A_SUBJECT_MAX: usize = 100;

/// Where a sample comes from.
#[derive(Clone, Debug)]
pub enum SampleInput {
    /// A JPEG or PNG photo.
    Image(Arc<[u8]>),
    /// An event's best shot.
    Snapshot(SnapshotId),
}

/// What the operator states of a subject. `None` leaves what is there; at creation, empty.
#[derive(Clone, Debug, Default)]
pub struct SubjectFields {
    /// What people call the subject: at most 256 bytes.
    pub display_name: Option<String>,
    /// At most 32 lists of 64 bytes; sorted, repeats dropped.
    pub watchlists: Option<Vec<String>>,
    /// At most 64 attributes: names of 64 bytes, values of 1024.
    pub attributes: Option<BTreeMap<String, String>>,
    /// Where the consent is filed: at most 512 bytes.
    pub consent_reference: Option<String>,
    /// When the subject stops matching; `Some(None)` is never.
    pub expire_time: Option<Option<Timestamp>>,
}

/// Doubts about a photo that do not refuse it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// It is close to another subject: a twin, or somebody who is enrolled twice.
    pub duplicate: bool,
    /// It does not look like the subject's other photos.
    pub inconsistent: bool,
}

/// A subject to be enrolled.
#[derive(Clone, Debug, Default)]
pub struct NewSubject {
    /// Its id; `None` has one made.
    pub id: Option<SubjectId>,
    /// What is stated of it.
    pub fields: SubjectFields,
    /// One to ten photos.
    pub samples: Vec<SampleInput>,
    /// What is enrolled all the same.
    pub allowed: Allowed,
    /// Makes a repeat return the first answer; empty is none.
    pub request_id: String,
}

/// A change of what is stated of a subject.
#[derive(Clone, Debug)]
pub struct SubjectUpdate {
    /// Whose.
    pub id: SubjectId,
    /// What is to change.
    pub fields: SubjectFields,
    /// Where not empty, the subject must still have it.
    pub etag: String,
    /// Makes a repeat return the first answer; empty is none.
    pub request_id: String,
}

/// A photo to be added.
#[derive(Clone, Debug)]
pub struct NewSample {
    /// Whose.
    pub subject: SubjectId,
    /// The photo.
    pub sample: SampleInput,
    /// Whether it shows somebody else, who must never be taken for the subject.
    pub negative: bool,
    /// What is added all the same.
    pub allowed: Allowed,
    /// Makes a repeat return the first answer; empty is none.
    pub request_id: String,
}

/// A sample as it is listed.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleInfo {
    /// What is known of it.
    pub sample: Sample,
    /// Mean cosine similarity to the subject's other samples of the same space, negative ones left
    /// out; `None` for an only sample.
    pub similarity_to_rest: Option<f32>,
}

/// What enrolling a subject or a sample did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Enrolled {
    /// The subject as it now is.
    pub subject: Option<Subject>,
    /// The samples of this call.
    pub samples: Vec<SampleInfo>,
    /// The gallery version that matches them.
    pub version: u64,
}

/// The receipt of an erasure.
#[derive(Clone, Debug)]
pub struct Erased {
    /// What events call the subject for ever.
    pub uid: SubjectUid,
    /// What was erased, and the gallery version without it.
    pub committed: Committed,
    /// When.
    pub time: Timestamp,
}

/// What a reload did, or would do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReloadReport {
    /// The gallery version that matches the folder.
    pub version: u64,
    /// Subjects enrolled.
    pub added: u32,
    /// Subjects that gained or lost samples.
    pub changed: u32,
    /// Subjects taken out of the gallery; they are kept apart for a rollback.
    pub removed: u32,
    /// Samples that stayed as they were.
    pub unchanged_samples: u32,
    /// Files that enrolled nobody: the first 1000, then one entry that counts the rest.
    pub refused: Vec<FileRemark>,
    /// Files that enrolled somebody, and may show somebody else: as many, likewise.
    pub doubtful: Vec<FileRemark>,
}

/// What is to be said of a file of the enrolment folder.
#[derive(Clone, Debug, PartialEq)]
pub struct FileRemark {
    /// Below the folder.
    pub path: String,
    /// A stable name, as in `ErrorInfo`.
    pub reason: &'static str,
    /// What is wrong, for a person.
    pub message: String,
}

/// What the gallery holds.
#[derive(Clone, Debug, PartialEq)]
pub struct GalleryFacts {
    /// Its version.
    pub version: u64,
    /// Subjects with a template.
    pub subjects: u64,
    /// Templates.
    pub templates: u64,
    /// The space they live in.
    pub space: TemplateSpace,
    /// Templates in the store that live in another space and never match.
    pub foreign_templates: u64,
    /// What decides, by purpose and by whose target it is.
    pub thresholds: Vec<ThresholdFacts>,
}

/// What enrolment is opened with.
pub struct EnrolmentParts {
    /// Looks at photos.
    pub photos: PhotoAnalyst,
    /// Keeps subjects and samples.
    pub store: Store,
    /// Still empty: it is filled here, and written by nobody else.
    pub gallery: Gallery,
    /// Tells the time of changes.
    pub clock: Arc<dyn Clock>,
    /// The enrolment folder.
    pub people_dir: Option<PathBuf>,
    /// The least overall quality of a photo that enrols somebody, 0 to 1.
    pub quality_min: f32,
    /// What decides: whoever it would identify by a photo may be that photo's person.
    pub policy: Policy,
}

/// The only writer of the gallery. Clones share it.
///
/// A `request_id` that is not empty makes a call repeatable: its answer is committed together with
/// the change, and a repeat returns it. For another call it is refused.
#[derive(Clone)]
pub struct Enrolment {
    photos: PhotoAnalyst,
    register: Arc<Register>,
    people_dir: Option<PathBuf>,
    quality_min: f32,
    encoders: Option<reencode::Encoders>,
}

impl Enrolment {
    /// Enrolment over an empty gallery. Nothing may be asked of it before [`fill`](Self::fill) has answered.
    pub fn new(parts: EnrolmentParts) -> Self {
        let EnrolmentParts { photos, store, gallery, clock, people_dir, quality_min, policy } = parts;
        let register = Arc::new(Register::new(store, gallery, clock, policy));
        Self { photos, register, people_dir, quality_min, encoders: None }
    }

    /// Fills the gallery from the store; the log tells how far it is.
    ///
    /// # Errors
    /// [`EnrolError::Store`].
    pub async fn fill(&self) -> Result<(), EnrolError> {
        self.register.fill().await
    }

    /// Enrols a person. When it answers, the next frame can match.
    ///
    /// # Errors
    /// Every refusal of [`EnrolError`] that concerns photos, fields and ids.
    pub async fn create_subject(&self, new: NewSubject) -> Result<Enrolled, EnrolError> {
        let request = Request::create_subject(&new)?;
        let NewSubject { id, fields, samples, allowed, .. } = new;
        let fields = fields.checked()?;
        fields::check_sample_count(samples.len())?;
        if let Some(first) = self.register.first_answer(&request).await? {
            return Ok(first);
        }
        if let Some(id) = &id {
            self.register.check_free(id).await?;
        }
        let mut prepared = Vec::with_capacity(samples.len());
        let count = samples.len();
        for (index, sample) in samples.into_iter().enumerate() {
            prepared.push(self.prepare(sample).await.map_err(|error| error.of_sample((index, count)))?);
        }
        self.register.create(request, Creation { id, fields, samples: prepared, allowed }).await
    }

    /// One subject, and how many samples it has.
    ///
    /// # Errors
    /// [`EnrolError::SubjectUnknown`], [`EnrolError::Store`].
    pub async fn subject(&self, id: &SubjectId) -> Result<(Subject, u32), EnrolError> {
        self.register.subject_with_count(id).await
    }

    /// At most `limit` subjects by id, after `after`, on `watchlist` where given, each with its
    /// number of samples.
    ///
    /// # Errors
    /// [`EnrolError::Store`].
    pub async fn subjects(
        &self,
        after: Option<SubjectId>,
        watchlist: Option<String>,
        limit: usize,
    ) -> Result<Vec<(Subject, u32)>, EnrolError> {
        self.register.page(after, watchlist, limit).await
    }

    /// Changes what is stated of a subject.
    ///
    /// # Errors
    /// [`EnrolError::SubjectUnknown`], [`EnrolError::StaleEtag`], [`EnrolError::BadField`].
    pub async fn update_subject(&self, update: SubjectUpdate) -> Result<(Subject, u32), EnrolError> {
        let request = Request::update_subject(&update)?;
        let fields = update.fields.checked()?;
        self.register.update(request, SubjectUpdate { fields, ..update }).await
    }

    /// Erases a subject with everything that shows it. `etag` must be current where not empty.
    ///
    /// # Errors
    /// [`EnrolError::SubjectUnknown`], [`EnrolError::StaleEtag`].
    pub async fn delete_subject(&self, id: &SubjectId, etag: &str, request_id: &str) -> Result<Erased, EnrolError> {
        let request = Request::delete_subject(request_id, id, etag)?;
        self.register.delete(request, id.clone(), etag.to_owned()).await
    }

    /// Adds a photo to a subject.
    ///
    /// # Errors
    /// Every refusal of [`EnrolError`] that concerns photos; [`EnrolError::SubjectUnknown`].
    pub async fn create_sample(&self, new: NewSample) -> Result<Enrolled, EnrolError> {
        let request = Request::create_sample(&new)?;
        if let Some(first) = self.register.first_answer(&request).await? {
            return Ok(first);
        }
        self.register.subject_with_count(&new.subject).await?;
        let sample = self.prepare(new.sample.clone()).await?;
        let NewSample { subject, negative, allowed, .. } = new;
        self.register.add(request, Addition { subject, sample, negative, allowed }).await
    }

    /// A subject's samples, oldest first.
    ///
    /// # Errors
    /// [`EnrolError::SubjectUnknown`], [`EnrolError::Store`].
    pub async fn samples(&self, subject: &SubjectId) -> Result<Vec<SampleInfo>, EnrolError> {
        self.register.samples(subject).await
    }

    /// Erases one sample; answers the gallery version without it. A photo that is still in the
    /// enrolment folder comes back with the next reload.
    ///
    /// # Errors
    /// [`EnrolError::SubjectUnknown`], [`EnrolError::SampleUnknown`], [`EnrolError::NoSample`] for
    /// the last one.
    pub async fn delete_sample(&self, subject: &SubjectId, sample: SampleId, request_id: &str) -> Result<u64, EnrolError> {
        let request = Request::delete_sample(request_id, subject, sample)?;
        self.register.remove(request, subject.clone(), sample).await
    }

    /// Makes the subjects that came from the enrolment folder what the folder now holds, in one
    /// change; `dry_run` only says what it would do.
    ///
    /// # Errors
    /// [`EnrolError::NoFolder`], [`EnrolError::FolderUnreadable`], [`EnrolError::MassRemoval`],
    /// [`EnrolError::Photo`] when inference failed; then nothing was changed.
    pub async fn reload(&self, allow_mass_removal: bool, dry_run: bool, request_id: &str) -> Result<ReloadReport, EnrolError> {
        let request = Request::reload(request_id, allow_mass_removal, dry_run)?;
        let folder = self.people_dir.clone().ok_or(EnrolError::NoFolder)?;
        let reload = Reload { register: &self.register, folder, allow_mass_removal, dry_run, busy_wait: BUSY_WAIT };
        reload.run(request, self.preparation()).await
    }

    /// Takes photos until there are no more, each on its own, and tells what became of each once it is on
    /// disk and matching. A photo that is there already is told so and not looked at, so an import that
    /// ended early is resumed by repeating it. Dropping it ends it: what was not told may be there or not.
    ///
    /// # Errors
    /// Only what is about no single photo: [`EnrolError::Store`], and [`EnrolError::Photo`] when
    /// inference failed or had no room for a minute. What was told stays.
    pub async fn import(&self, items: mpsc::Receiver<ImportItem>, results: mpsc::Sender<Vec<ImportResult>>) -> Result<(), EnrolError> {
        let register = Arc::clone(&self.register);
        Import { register, prepare: self.preparation(), busy_wait: BUSY_WAIT, group_wait: GROUP_WAIT }.run(items, results).await
    }

    /// Makes the gallery hold what it held in an earlier version, in one change. Who was erased since
    /// stays erased. It can be undone by going back to the version before it.
    ///
    /// # Errors
    /// [`EnrolError::VersionUnknown`], [`EnrolError::MassRemoval`].
    pub async fn roll_back(&self, rollback: Rollback, request_id: &str) -> Result<RollbackReport, EnrolError> {
        let request = Request::roll_back(request_id, &rollback)?;
        self.register.roll_back(request, rollback).await
    }

    /// Whether every version after `version` is there to be told.
    ///
    /// # Errors
    /// [`EnrolError::VersionUnknown`] where some are not kept any more, or where there never was such a version.
    pub async fn check_kept_since(&self, version: u64) -> Result<(), EnrolError> {
        self.register.check_kept_since(version).await
    }

    /// What differs between version `from` and the later version `to`, or the newest.
    ///
    /// # Errors
    /// [`EnrolError::VersionUnknown`], [`EnrolError::BadField`] where `to` is the earlier one.
    pub async fn difference(&self, from: u64, to: Option<u64>) -> Result<Difference, EnrolError> {
        self.register.difference(from, to).await
    }

    /// Versions before `before`, newest first, at most `limit`.
    ///
    /// # Errors
    /// [`EnrolError::Store`].
    pub async fn versions(&self, before: Option<u64>, limit: usize) -> Result<Vec<VersionInfo>, EnrolError> {
        Ok(self.register.store.gallery_versions_before(before, limit).await?)
    }

    /// Versions after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`EnrolError::Store`].
    pub async fn versions_after(&self, after: u64, limit: usize) -> Result<Vec<VersionInfo>, EnrolError> {
        self.register.versions_after(Some(after), limit).await
    }

    /// Changes with every new version: wait on it, then ask [`versions_after`](Self::versions_after).
    pub fn version_changes(&self) -> watch::Receiver<u64> {
        self.register.version_changes.subscribe()
    }

    /// What the gallery holds.
    ///
    /// # Errors
    /// [`EnrolError::Store`].
    pub async fn facts(&self) -> Result<GalleryFacts, EnrolError> {
        self.register.facts().await
    }

    /// For those who bring many photos, a few at a time: what they wait for is their turn, and only a single photo is refused when too
    /// many wait.
    fn preparation(&self) -> Prepare {
        let (photos, quality_min) = (self.photos.clone().patient(), self.quality_min);
        Arc::new(move |photo| {
            let photos = photos.clone();
            Box::pin(async move { Prepared::of(&photos, photo, quality_min).await })
        })
    }

    async fn prepare(&self, sample: SampleInput) -> Result<Prepared, EnrolError> {
        let photo = match sample {
            SampleInput::Image(photo) => photo,
            SampleInput::Snapshot(id) => self.register.best_shot(id).await?,
        };
        Prepared::of(&self.photos, photo, self.quality_min).await
    }
}
