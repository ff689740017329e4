//! `ReloadGallery`: the enrolment folder is read again while recognition goes on.
//!
//! In: the folder. Out: one change that makes its subjects what it holds, or none at all. Photos
//! are listed and encoded first, a few at a time, and only new or changed ones; then one turn
//! commits everything. In memory: of each file its path and hash; of each new photo its template
//! and, until the commit, its bytes, at most 256 MiB in one reload: the photos
//! beyond are refused for this time, and the next reload takes them.
//! Must not know: how photos are encoded, SQL.

mod doubts;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinSet, spawn_blocking};

use super::folder::{self, FoundPhoto, Listing, PASSING, REMARKS_MAX};
use super::plan::{PreparedPhotos, check_mass_removal, erased_and_away, photos_to_prepare, plan};
use super::prepare::Prepared;
use super::register::{Register, stopped};
use super::request::Request;
use super::{EnrolError, FileRemark, ReloadReport};
use crate::infer::InferError;
use crate::photo::PhotoError;
use crate::store::{Committed, IdHash};

/// The most bytes of new photos that one reload holds and commits: events wait behind the commit.
const PHOTO_BYTES_HELD_MAX: usize = 256 << 20;
/// The photos that are encoded at the same time: enough to keep sessions busy between reads.
const PHOTOS_IN_FLIGHT_MAX: usize = 4;
/// How long a photo waits before it asks again: live frames go first.
pub(super) const BUSY_WAIT: Duration = Duration::from_millis(250);
/// How often it asks: a minute in all.
const BUSY_ATTEMPTS_MAX: u32 = 240;
/// From this many photos on, a reload tells how far it is.
const PROGRESS_EVERY: usize = 1000;

/// How a photo is prepared: an argument, so that the order of things can be tested without models.
pub(super) type Prepare = Arc<dyn Fn(Arc<[u8]>) -> Pin<Box<dyn Future<Output = Result<Prepared, EnrolError>> + Send>> + Send + Sync>;

/// One reload.
pub(super) struct Reload<'a> {
    pub register: &'a Arc<Register>,
    pub folder: PathBuf,
    pub allow_mass_removal: bool,
    pub dry_run: bool,
    /// How long a photo waits when inference has no room for it.
    pub busy_wait: Duration,
}

impl Reload<'_> {
    /// Lists, encodes, and commits in one turn. One reload at a time; others wait.
    pub async fn run(self, request: Request, prepare: Prepare) -> Result<ReloadReport, EnrolError> {
        let _one_reload = self.register.reload_turn.lock().await;
        if let Some(first) = self.register.first_answer(&request).await? {
            return Ok(first);
        }
        let root = self.folder.clone();
        let listing = blocking(move || folder::list(&root)).await?;
        let version_before = self.register.gallery.current().version();
        let known = self.register.known_for_reload(&listing).await?;
        if !self.allow_mass_removal {
            check_mass_removal(&listing, &known)?;
        }
        let prepared = self.prepare_all(&photos_to_prepare(&listing, &known), prepare).await?;
        let doubtful = doubts::doubts(self.register, (&listing, &known), &prepared).await?;
        if self.dry_run {
            let report = plan(&listing, &known, prepared, self.register.clock.now())?.report;
            return Ok(finished(ReloadReport { doubtful, ..report }, self.register.gallery.current().version()));
        }
        let allow_mass_removal = self.allow_mass_removal;
        let turn = Turn { listing, prepared, doubtful, version_before, erased_before: known.erased_ids, allow_mass_removal };
        self.register.in_turn(request, |register, request| async move { turn.commit(&register, request).await }).await
    }

    async fn prepare_all(&self, photos: &[&FoundPhoto], prepare: Prepare) -> Result<PreparedPhotos, EnrolError> {
        let mut prepared = PreparedPhotos::with_capacity(photos.len());
        let mut in_flight = JoinSet::new();
        let mut bytes_held = 0;
        for (done, photo) in photos.iter().enumerate() {
            if done > 0 && done % PROGRESS_EVERY == 0 {
                tracing::info!(done, total = photos.len(), "reloading the enrolment folder");
            }
            let bytes = match self.readable(photo, bytes_held).await? {
                Ok(bytes) => bytes,
                Err(refused) => {
                    prepared.insert(photo.path.clone(), Err(refused));
                    continue;
                }
            };
            bytes_held += bytes.len();
            if in_flight.len() >= PHOTOS_IN_FLIGHT_MAX
                && let Some(ended) = in_flight.join_next().await
            {
                bytes_held -= note(&mut prepared, ended.map_err(stopped)?)?;
            }
            let (path, prepare, busy_wait) = (photo.path.clone(), Arc::clone(&prepare), self.busy_wait);
            in_flight.spawn(async move {
                let length = bytes.len();
                (path, length, patiently(&prepare, bytes, busy_wait).await)
            });
        }
        while let Some(ended) = in_flight.join_next().await {
            note(&mut prepared, ended.map_err(stopped)?)?;
        }
        Ok(prepared)
    }

    /// A photo's bytes, or why it is not taken.
    async fn readable(&self, photo: &FoundPhoto, bytes_held: usize) -> Result<Result<Arc<[u8]>, FileRemark>, EnrolError> {
        let refused = |reason, message: &str| Ok(Err(FileRemark { path: photo.path.clone(), reason, message: message.to_owned() }));
        if bytes_held >= PHOTO_BYTES_HELD_MAX {
            return refused("RELOAD_FULL", "one reload takes 256 MiB of new photos; reload again for the next");
        }
        if self.register.store.is_erased_content(photo.content_sha256).await? {
            return refused("ERASED_PERSON", ERASED);
        }
        let (root, wanted) = (self.folder.clone(), photo.clone());
        match blocking(move || folder::read(&root, &wanted)).await? {
            Ok(Some(bytes)) => Ok(Ok(bytes.into())),
            Err(error) => refused(folder::READ_FAILED, &folder::read_failed(&error)),
            Ok(None) => refused("CHANGED_MEANWHILE", "the file changed during the reload; reload again"),
        }
    }
}

const ERASED: &str = "the photo was erased with its subject; enrol the person by RPC to bring them back";

/// What is committed when the reload's turn has come.
struct Turn {
    listing: Listing,
    prepared: PreparedPhotos,
    doubtful: Vec<FileRemark>,
    version_before: u64,
    /// Who was erased when the folder was looked at.
    erased_before: HashSet<IdHash>,
    allow_mass_removal: bool,
}

impl Turn {
    /// Compares once more, with what is enrolled by now, and commits.
    async fn commit(mut self, register: &Register, request: Request) -> Result<ReloadReport, EnrolError> {
        let version = register.gallery.current().version();
        if version != self.version_before {
            self.refuse_what_was_erased_meanwhile(register).await?;
        }
        let known = register.known_for_reload(&self.listing).await?;
        if !self.allow_mass_removal {
            check_mass_removal(&self.listing, &known)?;
        }
        let away = erased_and_away(&self.listing, &known, &self.erased_before);
        if !away.is_empty() {
            register.store.free_erased_ids(away).await?;
        }
        let plan = plan(&self.listing, &known, self.prepared, register.clock.now())?;
        if plan.mutations.is_empty() && request.key.is_none() {
            return Ok(finished(plan.report, version));
        }
        let report = ReloadReport { doubtful: self.doubtful, ..plan.report };
        let answer = move |committed: &Committed| finished(report.clone(), committed.version);
        register.commit(request, plan.mutations, answer).await
    }

    async fn refuse_what_was_erased_meanwhile(&mut self, register: &Register) -> Result<(), EnrolError> {
        for (path, photo) in &mut self.prepared {
            let Ok(prepared) = photo else { continue };
            if register.store.is_erased_content(prepared.content_sha256).await? {
                *photo = Err(FileRemark { path: path.clone(), reason: "ERASED_PERSON", message: ERASED.to_owned() });
            }
        }
        Ok(())
    }
}

/// Notes what became of a photo; answers the bytes that need not be held any longer.
fn note(
    prepared: &mut PreparedPhotos,
    (path, length, outcome): (String, usize, Result<Prepared, EnrolError>),
) -> Result<usize, EnrolError> {
    let (outcome, released) = match outcome {
        Ok(photo) => (Ok(photo), 0),
        Err(error) => (Err(folder::refusal(&path, error)?), length),
    };
    prepared.insert(path, outcome);
    Ok(released)
}

/// Prepares a photo, waiting while inference has no room.
pub(super) async fn patiently(prepare: &Prepare, photo: Arc<[u8]>, busy_wait: Duration) -> Result<Prepared, EnrolError> {
    for _ in 0..BUSY_ATTEMPTS_MAX {
        match prepare(Arc::clone(&photo)).await {
            Err(EnrolError::Photo(PhotoError::Infer(InferError::Busy | InferError::NotNow(_)))) => tokio::time::sleep(busy_wait).await,
            outcome => return outcome,
        }
    }
    Err(PhotoError::Infer(InferError::Busy).into())
}

/// The report with its version, and no more remarks than fit into an answer.
fn finished(mut report: ReloadReport, version: u64) -> ReloadReport {
    report.version = version;
    let refused: HashSet<&str> = report.refused.iter().map(|refused| refused.path.as_str()).collect();
    report.doubtful.retain(|doubtful| !refused.contains(doubtful.path.as_str()));
    // What may be taken by the next reload is told in any case: whoever watches the folder goes by it.
    report.refused.sort_by_key(|refused| !PASSING.contains(&refused.reason));
    for (remarks, reason) in [(&mut report.refused, "MORE_FILES_REFUSED"), (&mut report.doubtful, "MORE_FILES_DOUBTFUL")] {
        let more = remarks.len().saturating_sub(REMARKS_MAX);
        if more > 0 {
            remarks.truncate(REMARKS_MAX);
            let message = format!("and {more} more; see to these and reload again");
            remarks.push(FileRemark { path: String::new(), reason, message });
        }
    }
    report
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, EnrolError> + Send + 'static) -> Result<T, EnrolError> {
    spawn_blocking(work).await.map_err(stopped)?
}
