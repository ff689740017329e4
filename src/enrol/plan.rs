//! What a reload changes: the folder's photos beside what is enrolled. Pure.
//!
//! In: a listing, what is known, prepared photos. Out: mutations of one commit, and the report.
//! Only subjects that came from the folder are touched, and a refusal takes nothing away: where a
//! photo is refused, the sample it was to replace stays. Who left the folder and is there again with a
//! photo of then is the same person, of whom everything still holds that was stated.
//! Must not know: files, the store, inference.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::folder::{FoundPhoto, Listing};
use super::prepare::Prepared;
use super::register::{new_sample, new_subject};
use super::{EnrolError, FileRemark, ReloadReport, SAMPLES_A_SUBJECT_MAX};
use crate::clock::Timestamp;
use crate::mutation::Mutation;
use crate::store::{IdHash, RetiredPerson, erased_id};
use crate::subject::{Origin, Sample, Subject, SubjectId, SubjectUid};

/// Who is enrolled, and the samples that came from the folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub subjects: BTreeMap<SubjectId, Subject>,
    pub samples: HashMap<SubjectUid, Vec<Sample>>,
    /// How many samples each subject of the folder has besides.
    pub other_samples: HashMap<SubjectUid, usize>,
    /// Who left the folder before and is there again.
    pub returning: BTreeMap<SubjectId, RetiredPerson>,
    /// The ids of those who were erased, and that nobody has now.
    pub erased_ids: HashSet<IdHash>,
}

const ERASED: &str =
    "the person of this name was erased; take the directory away and reload before somebody else is put there, or enrol them by RPC";

/// What became of the photos that had to be looked at, by path.
pub(super) type PreparedPhotos = HashMap<String, Result<Prepared, FileRemark>>;

/// A reload, ready to be committed.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub mutations: Vec<Mutation>,
    /// Still without a version.
    pub report: ReloadReport,
}

impl Known {
    fn folder_subjects(&self) -> impl Iterator<Item = &Subject> {
        self.subjects.values().filter(|subject| subject.origin == Origin::Folder)
    }

    /// The samples of the folder subject called `id`, or that it left with; none for others.
    fn folder_samples(&self, id: &SubjectId) -> &[Sample] {
        let subject = self.subjects.get(id).filter(|subject| subject.origin == Origin::Folder);
        let subject = subject.or_else(|| self.returning.get(id).map(|person| &person.subject));
        subject.and_then(|subject| self.samples.get(&subject.uid)).map_or(&[], Vec::as_slice)
    }

    /// The uid of whoever is called `id`, or was and is there again.
    pub(super) fn uid(&self, id: &SubjectId) -> Option<SubjectUid> {
        self.subjects.get(id).or_else(|| self.returning.get(id).map(|person| &person.subject)).map(|subject| subject.uid)
    }

    /// How many samples of whoever is called `id`, or was and is there again, did not come from the folder.
    fn other_samples(&self, id: &SubjectId) -> usize {
        let of_returning = |person: &RetiredPerson| person.samples.iter().filter(|(sample, _)| sample.folder_path.is_none()).count();
        match self.subjects.get(id) {
            Some(subject) => self.other_samples.get(&subject.uid).copied().unwrap_or(0),
            None => self.returning.get(id).map_or(0, of_returning),
        }
    }

    /// The directories of nobody who is enrolled.
    pub(super) fn new_ids(&self, listing: &Listing) -> Vec<SubjectId> {
        let ids = listing.photos.chunk_by(|a, b| a.subject == b.subject).filter_map(|photos| photos.first());
        ids.map(|photo| &photo.subject).filter(|id| !self.subjects.contains_key(*id)).cloned().collect()
    }

    /// Takes those of `retired` in who are there again: a photo of then is in their directory. By the name alone it may be
    /// somebody else, who must not have what the one before was allowed.
    pub(super) fn take_returning(&mut self, listing: &Listing, retired: Vec<RetiredPerson>) {
        let present: HashSet<(&SubjectId, [u8; 32])> = listing.photos.iter().map(|photo| (&photo.subject, photo.content_sha256)).collect();
        // One picture cannot show two people: what is somebody's by now is looked at as if it were new, and refused.
        let mut taken: HashSet<[u8; 32]> =
            listing.photos.iter().filter(|photo| self.is_unchanged(photo)).map(|photo| photo.content_sha256).collect();
        for mut person in retired {
            person.samples.retain(|(sample, _)| sample.folder_path.is_none() || !taken.contains(&sample.content_sha256));
            let id = &person.subject.id;
            let of_folder: Vec<Sample> =
                person.samples.iter().map(|(sample, _)| sample).filter(|sample| sample.folder_path.is_some()).cloned().collect();
            let is_there = of_folder.iter().any(|sample| present.contains(&(id, sample.content_sha256)));
            if is_there && !self.returning.contains_key(id) {
                taken.extend(of_folder.iter().map(|sample| sample.content_sha256));
                self.samples.insert(person.subject.uid, of_folder);
                self.returning.insert(id.clone(), person);
            }
        }
    }

    fn is_unchanged(&self, photo: &FoundPhoto) -> bool {
        let same = |sample: &Sample| sample.folder_path.as_ref() == Some(&photo.path) && sample.content_sha256 == photo.content_sha256;
        self.folder_samples(&photo.subject).iter().any(same)
    }

    /// Whether whoever was called so was erased, and the directory has been there ever since.
    fn is_erased(&self, id: &SubjectId) -> bool {
        !self.erased_ids.is_empty() && !self.subjects.contains_key(id) && self.erased_ids.contains(&erased_id(id))
    }

    fn is_enrolled_by_rpc(&self, id: &SubjectId) -> bool {
        self.subjects.get(id).is_some_and(|subject| subject.origin == Origin::Rpc)
    }
}

/// The photos that are new or changed, and so have to be encoded.
pub(super) fn photos_to_prepare<'a>(listing: &'a Listing, known: &Known) -> Vec<&'a FoundPhoto> {
    let photos = listing.photos.iter();
    let is_nobodys = |id: &SubjectId| known.is_enrolled_by_rpc(id) || known.is_erased(id);
    photos.filter(|photo| !is_nobodys(&photo.subject) && !known.is_unchanged(photo)).collect()
}

/// The erased whose directories are away: whoever is put there next was put there since.
pub(super) fn erased_and_away(listing: &Listing, known: &Known, erased_before: &HashSet<IdHash>) -> Vec<IdHash> {
    let is_empty = listing.photos.is_empty() && listing.unread_files.is_empty() && listing.unread_subjects.is_empty();
    if is_empty && known.folder_subjects().next().is_some() {
        // Most likely the folder is not there, and not the directories.
        return Vec::new();
    }
    if known.erased_ids.is_empty() {
        return Vec::new();
    }
    let present: HashSet<IdHash> = listing.present.iter().map(erased_id).collect();
    // Whoever was erased since the folder was looked at may have a directory that was not there then.
    known.erased_ids.intersection(erased_before).filter(|id| !present.contains(*id)).copied().collect()
}

/// Refuses a listing that misses more than a tenth of all subjects, or everybody who came from the
/// folder: most likely the folder is not there, and not the people.
pub(super) fn check_mass_removal(listing: &Listing, known: &Known) -> Result<(), EnrolError> {
    let from_folder = known.folder_subjects().count();
    let removed = known.folder_subjects().filter(|subject| !is_present(listing, &subject.id)).count();
    let total = known.subjects.len();
    if is_mass_removal(removed, total) || (removed > 0 && removed == from_folder) {
        return Err(EnrolError::MassRemoval { removed, total });
    }
    Ok(())
}

/// Whether a change that takes `removed` of `total` subjects away has to be allowed explicitly.
pub(super) fn is_mass_removal(removed: usize, total: usize) -> bool {
    removed * 10 > total
}

/// Compares everything, and says what to change. What `prepared` does not hold of the new photos
/// is left for the next reload.
pub(super) fn plan(listing: &Listing, known: &Known, prepared: PreparedPhotos, now: Timestamp) -> Result<Plan, EnrolError> {
    let mut photos_of: BTreeMap<&SubjectId, Vec<&FoundPhoto>> = BTreeMap::new();
    for subject in known.folder_subjects() {
        photos_of.insert(&subject.id, Vec::new());
    }
    for photo in &listing.photos {
        photos_of.entry(&photo.subject).or_default().push(photo);
    }
    // Whose each picture is: one picture cannot show two people.
    let unchanged = listing.photos.iter().filter(|photo| known.is_unchanged(photo));
    let owners = unchanged.map(|photo| (photo.content_sha256, photo.subject.clone())).collect();
    let mut planner = Planner { listing, known, prepared, now, owners, plan: Plan::default() };
    planner.plan.report.refused.clone_from(&listing.refused);
    for (id, photos) in photos_of {
        planner.subject(id, &photos)?;
    }
    Ok(planner.plan)
}

/// Whether the folder holds any photo of the subject, readable or not.
pub(super) fn is_present(listing: &Listing, id: &SubjectId) -> bool {
    let first = listing.photos.partition_point(|photo| photo.subject < *id);
    listing.photos.get(first).is_some_and(|photo| photo.subject == *id) || holds_refused(listing, id)
}

fn holds_refused(listing: &Listing, id: &SubjectId) -> bool {
    let directory = format!("{id}/");
    let next = listing.unread_files.range(directory.clone()..).next();
    listing.unread_subjects.contains(id.as_str()) || next.is_some_and(|path| path.starts_with(&directory))
}

struct Planner<'a> {
    listing: &'a Listing,
    known: &'a Known,
    prepared: PreparedPhotos,
    now: Timestamp,
    owners: HashMap<[u8; 32], SubjectId>,
    plan: Plan,
}

impl Planner<'_> {
    fn subject(&mut self, id: &SubjectId, photos: &[&FoundPhoto]) -> Result<(), EnrolError> {
        if self.known.is_enrolled_by_rpc(id) {
            self.refuse(
                id.as_str(),
                "SUBJECT_EXISTS",
                "a subject of this name was enrolled by RPC; rename the directory, or delete the subject and take the directory away for one reload",
            );
            return Ok(());
        }
        if self.known.is_erased(id) {
            photos.iter().for_each(|photo| self.refuse(&photo.path, "ERASED_PERSON", ERASED));
            return Ok(());
        }
        let samples = self.known.folder_samples(id);
        let refused_before = self.plan.report.refused.len();
        let staying = samples.iter().filter(|sample| self.stays(sample, photos)).count() + self.known.other_samples(id);
        let additions = self.additions(photos, (samples, staying));
        let is_partly_refused = self.plan.report.refused.len() > refused_before || holds_refused(self.listing, id);

        let added_paths: BTreeSet<&String> = additions.iter().map(|(path, _)| path).collect();
        let goes = |sample: &&Sample| {
            let Some(path) = &sample.folder_path else { return false };
            let is_there = photos.iter().any(|photo| photo.path == *path) || self.listing.unread_files.contains(path);
            added_paths.contains(path) || !is_there && !self.listing.unread_subjects.contains(id.as_str())
        };
        let mut retired: Vec<&Sample> = samples.iter().filter(goes).collect();
        if additions.is_empty() && retired.len() == samples.len() && is_partly_refused {
            // Only refused photos are left of somebody: better the old photos than none.
            retired.clear();
        }
        self.plan.report.unchanged_samples += (samples.len() - retired.len()) as u32;
        match self.known.subjects.get(id) {
            Some(subject) if additions.is_empty() && retired.len() == samples.len() && !is_partly_refused => self.remove(subject, samples),
            Some(_) if additions.is_empty() && retired.is_empty() => {}
            Some(subject) => self.change(subject.clone(), &retired, additions),
            None => match self.known.returning.get(id) {
                Some(person) => self.bring_back(person, &retired, additions),
                None => self.add(id, additions)?,
            },
        }
        Ok(())
    }

    /// Whether a sample is kept: its photo lies there as it was, cannot be looked at, or could not be taken.
    fn stays(&self, sample: &Sample, photos: &[&FoundPhoto]) -> bool {
        let Some(path) = &sample.folder_path else { return true };
        let is_unread = self.listing.unread_files.contains(path)
            || path.split_once('/').is_some_and(|(directory, _)| self.listing.unread_subjects.contains(directory));
        let is_kept = |photo: &&FoundPhoto| self.known.is_unchanged(photo) || !matches!(self.prepared.get(path), Some(Ok(_)));
        is_unread || photos.iter().filter(|photo| photo.path == *path).any(is_kept)
    }

    /// The new photos of one subject that can be taken beside so many that stay; the others are refused. Those that replace one are
    /// asked first: where they are refused, what they were to replace stays after all.
    fn additions(&mut self, photos: &[&FoundPhoto], (samples, mut staying): (&[Sample], usize)) -> Vec<(String, Prepared)> {
        let replaces = |photo: &&FoundPhoto| samples.iter().any(|sample| sample.folder_path.as_ref() == Some(&photo.path));
        let changed = photos.iter().filter(|photo| !self.known.is_unchanged(photo)).copied();
        let (replacing, new): (Vec<&FoundPhoto>, Vec<&FoundPhoto>) = changed.partition(replaces);
        let mut additions = Vec::new();
        for (photo, is_replacing) in replacing.into_iter().map(|photo| (photo, true)).chain(new.into_iter().map(|photo| (photo, false))) {
            let prepared = match self.prepared.remove(&photo.path) {
                Some(Ok(prepared)) => prepared,
                Some(Err(refused)) => {
                    self.plan.report.refused.push(refused);
                    continue;
                }
                None => {
                    self.refuse(&photo.path, "CHANGED_MEANWHILE", "the gallery changed during the reload; reload again");
                    continue;
                }
            };
            let owner = self.owners.entry(photo.content_sha256).or_insert_with(|| photo.subject.clone());
            if *owner != photo.subject {
                let message = format!("the same picture lies in the directory of {owner}; one picture cannot show two people");
                self.refuse(&photo.path, "PHOTO_OF_ANOTHER_SUBJECT", &message);
                staying += usize::from(is_replacing);
            } else if staying + additions.len() >= SAMPLES_A_SUBJECT_MAX {
                let message =
                    format!("a subject has at most {SAMPLES_A_SUBJECT_MAX} photos, those added by command among them; keep the best ones");
                self.refuse(&photo.path, "TOO_MANY_PHOTOS", &message);
            } else {
                additions.push((photo.path.clone(), prepared));
            }
        }
        additions
    }

    fn add(&mut self, id: &SubjectId, additions: Vec<(String, Prepared)>) -> Result<(), EnrolError> {
        if additions.is_empty() {
            return Ok(());
        }
        let mut subject = new_subject(Some(id.clone()), Origin::Folder, self.now)?;
        subject.display_name = id.to_string();
        let uid = subject.uid;
        self.plan.mutations.push(Mutation::PutSubject(subject));
        self.put_samples(uid, additions);
        self.plan.report.added += 1;
        Ok(())
    }

    /// Everything that the person left with comes back, but for photos that are not there any more.
    fn bring_back(&mut self, person: &RetiredPerson, gone: &[&Sample], additions: Vec<(String, Prepared)>) {
        let mut subject = person.subject.clone();
        subject.revision += 1;
        subject.update_time = self.now;
        let uid = subject.uid;
        self.plan.mutations.push(Mutation::RestoreSubject(subject));
        let back = person.samples.iter().filter(|(sample, _)| gone.iter().all(|gone| gone.id != sample.id)).cloned();
        self.plan.mutations.extend(back.map(|(sample, template)| Mutation::RestoreSample { sample, template }));
        self.put_samples(uid, additions);
        self.plan.report.added += 1;
    }

    fn change(&mut self, mut subject: Subject, retired: &[&Sample], additions: Vec<(String, Prepared)>) {
        subject.revision += 1;
        subject.update_time = self.now;
        let uid = subject.uid;
        self.plan.mutations.push(Mutation::PutSubject(subject));
        self.retire_samples(retired.iter().copied());
        self.put_samples(uid, additions);
        self.plan.report.changed += 1;
    }

    /// The samples go first. They are retired, not erased: a folder may have lost people by mistake,
    /// and going back to the version before brings them back.
    fn remove(&mut self, subject: &Subject, samples: &[Sample]) {
        self.retire_samples(samples.iter());
        self.plan.mutations.push(Mutation::RetireSubject(subject.uid));
        self.plan.report.removed += 1;
    }

    fn retire_samples<'s>(&mut self, samples: impl Iterator<Item = &'s Sample>) {
        self.plan.mutations.extend(samples.map(|sample| Mutation::RetireSample { subject: sample.subject, sample: sample.id }));
    }

    fn put_samples(&mut self, subject: SubjectUid, additions: Vec<(String, Prepared)>) {
        for (path, prepared) in additions {
            let sample = Sample { folder_path: Some(path), ..new_sample(&prepared, subject, self.now) };
            self.plan.mutations.push(Mutation::PutSample { sample, template: prepared.template, photo: prepared.photo });
        }
    }

    fn refuse(&mut self, path: &str, reason: &'static str, message: &str) {
        self.plan.report.refused.push(FileRemark { path: path.to_owned(), reason, message: message.to_owned() });
    }
}
