//! Going back to an earlier version of the gallery, and telling what differs between two.
//!
//! In: a version's number. Out: one change after which the gallery holds what it held then, and its
//! report. Nothing is lost by it: what goes is retired, so that going back can itself be undone. Who
//! was erased stays erased.
//! Must not know: how history is kept.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::EnrolError;
use super::answer::Answer;
use super::plan::is_mass_removal;
use super::register::Register;
use super::request::Request;
use crate::mutation::Mutation;
use crate::store::{Committed, Difference, VersionInfo};
use crate::subject::{SampleId, Subject, SubjectUid};

/// What going back did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackReport {
    /// The new version, which holds what the earlier one held; at a dry run the one in force.
    pub version: u64,
    /// Subjects that came back.
    pub subjects_restored: u32,
    /// Subjects of whom the earlier statements hold again.
    pub subjects_changed: u32,
    /// Subjects that had come since.
    pub subjects_removed: u32,
    /// Samples that came back.
    pub samples_restored: u32,
    /// Samples that had come since.
    pub samples_removed: u32,
    /// Subjects that were there then and have been erased since: they stay so.
    pub subjects_erased: u32,
}

impl Answer for RollbackReport {
    type Record = Self;

    fn to_record(&self) -> Self {
        *self
    }

    fn from_record(record: Self) -> Option<Self> {
        Some(record)
    }
}

/// A rollback as it was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Rollback {
    /// The version to go back to.
    pub version: u64,
    /// Go back although more than a tenth of the subjects goes.
    pub allow_mass_removal: bool,
    /// Only say what it would do.
    pub dry_run: bool,
}

impl Register {
    /// Goes back, in one change.
    pub async fn roll_back(self: &Arc<Self>, request: Request, rollback: Rollback) -> Result<RollbackReport, EnrolError> {
        self.in_turn(request, move |register, request| async move { register.roll_back_now(request, rollback).await }).await
    }

    async fn roll_back_now(&self, request: Request, rollback: Rollback) -> Result<RollbackReport, EnrolError> {
        let mut difference = self.difference(rollback.version, None).await?;
        self.leave_a_photo_to_everybody(&mut difference).await?;
        // Whoever comes back is stated by no revision that something else was stated by: a client may still have its etag.
        for (uid, states) in &mut difference.subjects {
            if let (Some(then), None) = states {
                then.revision = self.store.last_revision(*uid).await?.unwrap_or(0).max(then.revision);
            }
        }
        let (mutations, report) = self.plan(difference);
        let current = self.gallery.current();
        let (removed, total) = (report.subjects_removed as usize, self.store.subject_count().await?);
        if is_mass_removal(removed, total) && !rollback.allow_mass_removal {
            return Err(EnrolError::MassRemoval { removed, total });
        }
        if rollback.dry_run || (mutations.is_empty() && request.key.is_none()) {
            return Ok(RollbackReport { version: current.version(), ..report });
        }
        let answer = move |committed: &Committed| RollbackReport { version: committed.version, ..report };
        self.commit(request, mutations, answer).await
    }

    /// Whose photos of then were all erased since keeps the newest of now: nobody stays enrolled without one.
    async fn leave_a_photo_to_everybody(&self, difference: &mut Difference) -> Result<(), EnrolError> {
        let goes = |uid: &SubjectUid| matches!(difference.subjects.get(uid), Some((None, _)));
        let going: HashSet<SampleId> = difference.samples_come.iter().map(|(_, sample)| *sample).collect();
        let gone = difference.samples_gone.iter().filter(|(sample, _)| !sample.negative);
        let restored: HashSet<SubjectUid> = gone.map(|(sample, _)| sample.subject).collect();
        let losing: BTreeSet<SubjectUid> = difference.samples_come.iter().map(|(uid, _)| *uid).filter(|uid| !goes(uid)).collect();
        let mut kept = HashSet::new();
        for uid in losing.into_iter().filter(|uid| !restored.contains(uid)) {
            let samples = self.store.samples(uid).await?;
            let own = || samples.iter().map(|(sample, _)| sample).filter(|sample| !sample.negative);
            if own().all(|sample| going.contains(&sample.id)) {
                kept.extend(own().max_by_key(|sample| sample.create_time).map(|sample| sample.id));
            }
        }
        difference.samples_come.retain(|(_, sample)| !kept.contains(sample));
        // Nor does anybody come back without.
        let lost =
            |uid: &SubjectUid, states: &(Option<Subject>, Option<Subject>)| matches!(states, (Some(_), None)) && !restored.contains(uid);
        let lost: HashSet<SubjectUid> = difference.subjects.iter().filter(|(uid, states)| lost(uid, states)).map(|(uid, _)| *uid).collect();
        difference.subjects.retain(|uid, _| !lost.contains(uid));
        difference.samples_gone.retain(|(sample, _)| !lost.contains(&sample.subject));
        Ok(())
    }

    /// Whether every version after `version` is there to be told.
    pub async fn check_kept_since(&self, version: u64) -> Result<(), EnrolError> {
        // Numbers are left out, and after a restore there are none of what was replaced: what is told begins with a version that was.
        if version == self.gallery.current().version() || self.first_version_after(version.checked_sub(1)).await? == Some(version) {
            return Ok(());
        }
        Err(EnrolError::VersionUnknown { version, oldest: self.first_version_after(None).await?.unwrap_or(0) })
    }

    async fn first_version_after(&self, before: Option<u64>) -> Result<Option<u64>, EnrolError> {
        Ok(self.store.gallery_versions_after(before, 1).await?.first().map(|first| first.version))
    }

    /// What differs between `from` and the later version `to`, or the newest.
    pub async fn difference(&self, from: u64, to: Option<u64>) -> Result<Difference, EnrolError> {
        if let Some(to) = to.filter(|to| *to < from) {
            let reason = format!("version {from} is later than {to}; give the earlier one first");
            return Err(EnrolError::BadField { field: "from_version", reason });
        }
        match self.store.gallery_difference(from, to).await? {
            Some(difference) => Ok(difference),
            None => {
                let is_from_kept = self.first_version_after(from.checked_sub(1)).await? == Some(from);
                let version = to.filter(|_| is_from_kept).unwrap_or(from);
                Err(EnrolError::VersionUnknown { version, oldest: self.first_version_after(None).await?.unwrap_or(0) })
            }
        }
    }

    /// Versions after `after`, oldest first, at most `limit`.
    pub async fn versions_after(&self, after: Option<u64>, limit: usize) -> Result<Vec<VersionInfo>, EnrolError> {
        Ok(self.store.gallery_versions_after(after, limit).await?)
    }

    /// The mutations that undo `difference`, in an order in which each is possible.
    fn plan(&self, difference: Difference) -> (Vec<Mutation>, RollbackReport) {
        let mut report = RollbackReport {
            samples_removed: count(difference.samples_come.len()),
            samples_restored: count(difference.samples_gone.len()),
            subjects_erased: difference.subjects_erased,
            ..RollbackReport::default()
        };
        let mut mutations: Vec<Mutation> =
            difference.samples_come.into_iter().map(|(subject, sample)| Mutation::RetireSample { subject, sample }).collect();
        let (mut retired, mut restored) = (Vec::new(), Vec::new());
        for (uid, states) in difference.subjects {
            match states {
                (None, _) => retired.push(Mutation::RetireSubject(uid)),
                (Some(mut then), now) => {
                    then.revision = now.as_ref().map_or(then.revision, |now| now.revision);
                    self.revise(&mut then);
                    if now.is_some() {
                        report.subjects_changed += 1;
                        restored.push(Mutation::PutSubject(then));
                    } else {
                        report.subjects_restored += 1;
                        restored.push(Mutation::RestoreSubject(then));
                    }
                }
            }
        }
        report.subjects_removed = count(retired.len());
        // An id must be free before it is somebody else's again.
        mutations.append(&mut retired);
        mutations.append(&mut restored);
        mutations.extend(difference.samples_gone.into_iter().map(|(sample, template)| Mutation::RestoreSample { sample, template }));
        (mutations, report)
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
