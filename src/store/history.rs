//! Versions of the gallery: which there were, what lies between two of them, and what is kept so
//! that one can be gone back to.
//!
//! In: what commits replace or retire, inside their transactions. Out: versions and differences.
//! Drops: what is older than the history that is kept; what is erased is not kept at all.
//! Must not know: the gallery in memory, what a rollback may do.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, Row, params};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::face::{Template, TemplateSpace};
use crate::store::people::{self, SUBJECT_COLUMNS};
use crate::store::{Committed, Store, StoreError, mutations};
use crate::subject::{Origin, Sample, SampleId, Subject, SubjectId, SubjectUid};

/// The columns of a sample, retired or not.
const SAMPLE_COLUMNS: &str = "number, id, subject, quality, content_sha256, create_time_us, folder_path, negative";
/// Retired samples that are erased in one transaction.
const RETIRED_PRUNED_AT_ONCE: u32 = 500;

/// What a commit did to the gallery, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VersionChange {
    /// Subjects that came in.
    pub subjects_added: u32,
    /// Subjects of whom something else is stated now.
    pub subjects_changed: u32,
    /// Subjects that went.
    pub subjects_removed: u32,
    /// Samples that came in.
    pub samples_added: u32,
    /// Samples that went.
    pub samples_removed: u32,
}

/// One version of the gallery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionInfo {
    /// Its number: the sequence of its last mutation.
    pub version: u64,
    /// When it was committed.
    pub time: Timestamp,
    /// The call that made it, such as `create_subject`.
    pub cause: String,
    /// What that call did.
    pub change: VersionChange,
    /// Subjects in this version, of every template space.
    pub subjects: u64,
    /// Samples in this version.
    pub samples: u64,
}

/// What differs between two versions, seen from the earlier one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Difference {
    /// Subjects that are there in one version only, or are stated differently: earlier and later.
    pub subjects: BTreeMap<SubjectUid, (Option<Subject>, Option<Subject>)>,
    /// Samples that were there earlier and are not later, each with what brings it back.
    pub samples_gone: Vec<(Sample, Template)>,
    /// Samples that are there later and were not earlier.
    pub samples_come: Vec<(SubjectUid, SampleId)>,
    /// Subjects that were there earlier and have been erased since: nothing brings them back.
    pub subjects_erased: u32,
}

/// Somebody who was retired, and can be restored.
#[derive(Clone, Debug)]
pub struct RetiredPerson {
    /// What was stated last.
    pub subject: Subject,
    /// What the person left with: photos that were replaced before, or erased with somebody, are not among them.
    pub samples: Vec<(Sample, Template)>,
}

/// Of a row of `retired_samples`: whether its subject left with it, and had not lost it before.
pub(super) const LEFT_WITH: &str =
    "retired_us = (SELECT time_us FROM subject_history WHERE uid = retired_samples.subject ORDER BY sequence DESC LIMIT 1)";

impl Store {
    /// Versions after `after`, oldest first, at most `limit`.
    pub async fn gallery_versions_after(&self, after: Option<u64>, limit: usize) -> Result<Vec<VersionInfo>, StoreError> {
        let after = after.map_or(-1, u64::cast_signed);
        self.0.readers.read(move |db| versions(db, ("version > ?1 ORDER BY version", after), limit)).await
    }

    /// Versions before `before`, newest first, at most `limit`.
    pub async fn gallery_versions_before(&self, before: Option<u64>, limit: usize) -> Result<Vec<VersionInfo>, StoreError> {
        let before = before.map_or(i64::MAX, u64::cast_signed);
        self.0.readers.read(move |db| versions(db, ("version < ?1 ORDER BY version DESC", before), limit)).await
    }

    /// How many subjects there are.
    pub async fn subject_count(&self) -> Result<usize, StoreError> {
        let newest = self.gallery_versions_before(None, 1).await?;
        Ok(newest.first().map_or(0, |newest| usize::try_from(newest.subjects).unwrap_or(usize::MAX)))
    }

    /// What differs between version `from` and the later version `to`; `None` is the newest. `None`
    /// is answered when one of them is not kept.
    pub async fn gallery_difference(&self, from: u64, to: Option<u64>) -> Result<Option<Difference>, StoreError> {
        let space = self.space_in_force();
        self.0.readers.read(move |db| difference(db, (from, to), space.as_ref())).await
    }

    /// The subjects called `id` that were retired and not restored.
    pub async fn retired_subjects(&self, id: &SubjectId) -> Result<Vec<SubjectUid>, StoreError> {
        let id = id.clone();
        self.0.readers.read(move |db| retired(db, &id)).await
    }

    /// Those who were retired, not restored, and left with a photo of `uid`: the same person under another name, as when a directory
    /// was renamed. Whose photo went before them may be somebody else, in whose directory it had lain by mistake.
    pub async fn retired_with_photos_of(&self, uid: SubjectUid) -> Result<Vec<SubjectUid>, StoreError> {
        let sql = format!(
            "SELECT DISTINCT subject FROM retired_samples
             WHERE subject <> ?1 AND NOT negative AND subject NOT IN (SELECT uid FROM subjects) AND {LEFT_WITH}
               AND content_sha256 IN (
                 SELECT content_sha256 FROM samples WHERE subject = ?1 AND NOT negative
                 UNION SELECT content_sha256 FROM retired_samples WHERE subject = ?1 AND NOT negative)"
        );
        let read = move |db: &Connection| {
            db.prepare_cached(&sql)?.query_and_then([uid.0.into_bytes()], |row| Ok(SubjectUid(Uuid::from_bytes(row.get(0)?))))?.collect()
        };
        self.0.readers.read(read).await
    }

    /// The highest revision that a subject who is not there had; `None` of one of whom no history is kept.
    pub async fn last_revision(&self, uid: SubjectUid) -> Result<Option<u64>, StoreError> {
        let sql = "SELECT max(revision) FROM subject_history WHERE uid = ?1";
        let read =
            move |db: &Connection| Ok(db.prepare_cached(sql)?.query_row([uid.0.into_bytes()], |row| row.get::<_, Option<i64>>(0))?);
        Ok(self.0.readers.read(read).await?.map(i64::cast_unsigned))
    }

    /// Those who came from the enrolment folder, were retired and are called as one of `ids`: who left last first.
    pub async fn retired_folder_people(&self, ids: Vec<SubjectId>) -> Result<Vec<RetiredPerson>, StoreError> {
        let space = self.space_in_force();
        self.0.readers.read(move |db| retired_folder_people(db, &ids, space.as_ref())).await
    }

    /// Erases what was retired or replaced before `before`, in steps between which other changes are
    /// made: versions that need it can no longer be gone back to.
    pub async fn prune_gallery_history(&self, before: Timestamp) -> Result<(), StoreError> {
        self.prune_in_steps(move |db| prune_step(db, before)).await
    }
}

/// Keeps the subject as it is before the mutation of this sequence; answers whether there is one.
pub(super) fn keep_subject(db: &Connection, uid: SubjectUid, (sequence, time): (i64, Timestamp)) -> Result<bool, StoreError> {
    let kept = db
        .prepare_cached(&format!(
            "INSERT INTO subject_history (sequence, time_us, {SUBJECT_COLUMNS}) SELECT ?1, ?2, {SUBJECT_COLUMNS} FROM subjects WHERE uid = ?3"
        ))?
        .execute(params![sequence, time.as_micros(), uid.0.into_bytes()])?;
    Ok(kept > 0)
}

/// Takes a subject without samples out of the gallery.
pub(super) fn retire_subject(db: &Connection, uid: SubjectUid, at: (i64, Timestamp)) -> Result<(), StoreError> {
    if !keep_subject(db, uid, at)? {
        return Err(mutations::unknown_subject(uid));
    }
    db.prepare_cached("DELETE FROM subjects WHERE uid = ?1")?.execute([uid.0.into_bytes()])?;
    Ok(())
}

/// The samples of a subject that are in the gallery.
pub(super) fn samples_of(db: &Connection, uid: SubjectUid) -> Result<Vec<SampleId>, StoreError> {
    db.prepare_cached("SELECT id FROM samples WHERE subject = ?1 ORDER BY number")?
        .query_and_then([uid.0.into_bytes()], |row| Ok(SampleId(Uuid::from_bytes(row.get(0)?))))?
        .collect()
}

/// The numbers of retired samples of which `which` is true.
pub(super) fn retired_with(db: &Connection, which: &str, value: [u8; 16]) -> Result<Vec<i64>, StoreError> {
    db.prepare_cached(&format!("SELECT number FROM retired_samples WHERE {which}"))?
        .query_and_then([value], |row| Ok(row.get(0)?))?
        .collect()
}

/// Forgets retired subjects of whom no sample is kept: nobody can be restored without.
pub(super) fn forget_retired_without_samples(db: &Connection) -> Result<(), StoreError> {
    db.prepare_cached(
        "DELETE FROM subject_history
         WHERE uid NOT IN (SELECT uid FROM subjects) AND uid NOT IN (SELECT subject FROM retired_samples)",
    )?
    .execute([])?;
    Ok(())
}

/// Moves a sample out of the gallery.
pub(super) fn retire_sample(db: &Connection, subject: SubjectUid, sample: SampleId, time: Timestamp) -> Result<(), StoreError> {
    let (id, owner) = (sample.0.into_bytes(), subject.0.into_bytes());
    let moved = db
        .prepare_cached(&format!(
            "INSERT INTO retired_samples ({SAMPLE_COLUMNS}, retired_us) SELECT {SAMPLE_COLUMNS}, ?3 FROM samples WHERE id = ?1 AND subject = ?2"
        ))?
        .execute(params![id, owner, time.as_micros()])?;
    db.prepare_cached("DELETE FROM samples WHERE id = ?1 AND subject = ?2")?.execute([id, owner])?;
    if moved > 0 { Ok(()) } else { Err(StoreError::Contradiction(format!("there is no sample {} of subject {}", sample.0, subject.0))) }
}

/// Moves a retired sample back.
pub(super) fn restore_sample(db: &Connection, subject: SubjectUid, sample: SampleId) -> Result<(), StoreError> {
    let (id, owner) = (sample.0.into_bytes(), subject.0.into_bytes());
    let moved = db
        .prepare_cached(&format!(
            "INSERT INTO samples ({SAMPLE_COLUMNS}) SELECT {SAMPLE_COLUMNS} FROM retired_samples WHERE id = ?1 AND subject = ?2"
        ))?
        .execute([id, owner])?;
    db.prepare_cached("DELETE FROM retired_samples WHERE id = ?1 AND subject = ?2")?.execute([id, owner])?;
    if moved > 0 { Ok(()) } else { Err(StoreError::Contradiction(format!("there is no retired sample {}", sample.0))) }
}

/// Writes down a version with its totals, which follow from those of the version before.
pub(super) fn keep_version(
    db: &Connection,
    (version, time, cause): (u64, Timestamp, &str),
    change: &VersionChange,
) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT OR IGNORE INTO gallery_versions
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, subjects + ?4 - ?6, samples + ?7 - ?8 FROM gallery_versions ORDER BY version DESC LIMIT 1",
    )?
    .execute(params![
        version.cast_signed(),
        time.as_micros(),
        cause,
        change.subjects_added,
        change.subjects_changed,
        change.subjects_removed,
        change.samples_added,
        change.samples_removed
    ])?;
    Ok(())
}

fn versions(db: &Connection, (which, version): (&str, i64), limit: usize) -> Result<Vec<VersionInfo>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    db.prepare_cached(&format!("SELECT * FROM gallery_versions WHERE {which} LIMIT ?2"))?
        .query_and_then([version, limit], version_of)?
        .collect()
}

fn version_of(row: &Row<'_>) -> Result<VersionInfo, StoreError> {
    Ok(VersionInfo {
        version: row.get::<_, i64>(0)?.cast_unsigned(),
        time: Timestamp::from_micros(row.get(1)?),
        cause: row.get(2)?,
        change: VersionChange {
            subjects_added: row.get(3)?,
            subjects_changed: row.get(4)?,
            subjects_removed: row.get(5)?,
            samples_added: row.get(6)?,
            samples_removed: row.get(7)?,
        },
        subjects: row.get::<_, i64>(8)?.cast_unsigned(),
        samples: row.get::<_, i64>(9)?.cast_unsigned(),
    })
}

/// Everything that was touched after a version, as it was in that version.
#[derive(Default)]
struct Then {
    subjects: BTreeMap<SubjectUid, Option<Subject>>,
    samples: BTreeMap<(SubjectUid, SampleId), bool>,
    erased: BTreeSet<SubjectUid>,
}

impl Then {
    /// The first mutation after a version tells how its subject or sample was in that version.
    fn of(db: &Connection, version: u64) -> Result<Self, StoreError> {
        let mut then = Self::default();
        let mut later = db.prepare_cached("SELECT sequence, kind, subject, sample FROM mutations WHERE sequence > ?1 ORDER BY sequence")?;
        let mut rows = later.query([version.cast_signed()])?;
        while let Some(row) = rows.next()? {
            let uid = SubjectUid(Uuid::from_bytes(row.get(2)?));
            let sample = row.get::<_, Option<[u8; 16]>>(3)?.map(|id| (uid, SampleId(Uuid::from_bytes(id))));
            match (row.get_ref(1)?.as_str().map_err(crate::store::failure::damaged)?, sample) {
                ("erase_subject", _) => drop(then.erased.insert(uid)),
                ("put_subject" | "retire_subject" | "restore_subject", _) => {
                    if let Entry::Vacant(first) = then.subjects.entry(uid) {
                        first.insert(subject_before(db, row.get(0)?)?);
                    }
                }
                // Who matches is not what a version holds: the sample was there before.
                ("put_template", _) => {}
                ("retire_sample", Some(sample)) => drop(then.samples.entry(sample).or_insert(true)),
                // An erased sample is there in no version any more.
                (_, Some(sample)) => drop(then.samples.entry(sample).or_insert(false)),
                (_, None) => {}
            }
        }
        then.subjects.retain(|uid, _| !then.erased.contains(uid));
        then.samples.retain(|(uid, _), _| !then.erased.contains(uid));
        Ok(then)
    }
}

fn subject_before(db: &Connection, sequence: i64) -> Result<Option<Subject>, StoreError> {
    db.prepare_cached(&format!("SELECT {SUBJECT_COLUMNS} FROM subject_history WHERE sequence = ?1"))?
        .query_and_then([sequence], people::subject_of)?
        .next()
        .transpose()
}

fn difference(db: &Connection, (from, to): (u64, Option<u64>), space: Option<&TemplateSpace>) -> Result<Option<Difference>, StoreError> {
    let mut is_kept = db.prepare_cached("SELECT 1 FROM gallery_versions WHERE version = ?1")?;
    for version in [Some(from), to].into_iter().flatten() {
        if !is_kept.exists([version.cast_signed()])? {
            return Ok(None);
        }
    }
    let earlier = Then::of(db, from)?;
    let later = to.map_or(Ok(Then::default()), |to| Then::of(db, to))?;
    let mut difference = Difference::default();
    for (uid, then) in earlier.subjects {
        let now = match later.subjects.get(&uid) {
            Some(then) => then.clone(),
            None => people::subject_with_uid(db, uid)?,
        };
        if then != now {
            difference.subjects.insert(uid, (then, now));
        }
    }
    for ((uid, sample), was_there) in earlier.samples {
        let is_there = match later.samples.get(&(uid, sample)) {
            Some(then) => *then,
            None => people::holds_sample(db, sample)?,
        };
        if was_there && !is_there {
            // It may be back already, where the later version is not the newest.
            difference.samples_gone.extend(people::sample_wherever(db, sample, space)?);
        } else if is_there && !was_there {
            difference.samples_come.push((uid, sample));
        }
    }
    for uid in earlier.erased {
        let created: Option<i64> = db
            .prepare_cached("SELECT min(sequence) FROM mutations WHERE subject = ?1 AND kind = 'put_subject'")?
            .query_row([uid.0.into_bytes()], |row| row.get(0))
            .optional()?
            .flatten();
        difference.subjects_erased += u32::from(created.is_some_and(|created| created.cast_unsigned() <= from));
    }
    Ok(Some(difference))
}

fn retired(db: &Connection, id: &SubjectId) -> Result<Vec<SubjectUid>, StoreError> {
    db.prepare_cached("SELECT DISTINCT uid FROM subject_history WHERE id = ?1 AND uid NOT IN (SELECT uid FROM subjects WHERE id = ?1)")?
        .query_and_then([id.as_str()], |row| Ok(SubjectUid(Uuid::from_bytes(row.get(0)?))))?
        .collect()
}

fn retired_folder_people(db: &Connection, ids: &[SubjectId], space: Option<&TemplateSpace>) -> Result<Vec<RetiredPerson>, StoreError> {
    let mut who_left = db.prepare_cached(&format!(
        "SELECT {SUBJECT_COLUMNS}, time_us FROM subject_history h
         WHERE id = ?1 AND origin = ?2 AND uid NOT IN (SELECT uid FROM subjects)
           AND sequence = (SELECT max(sequence) FROM subject_history WHERE uid = h.uid)
         ORDER BY sequence DESC"
    ))?;
    let mut found = Vec::new();
    for id in ids {
        let mut rows = who_left.query(params![id.as_str(), people::origin_name(Origin::Folder)])?;
        while let Some(row) = rows.next()? {
            let subject = people::subject_of(row)?;
            let left = Timestamp::from_micros(row.get("time_us")?);
            let samples = people::samples_retired_at(db, (subject.uid, left), space)?;
            found.push(RetiredPerson { subject, samples });
        }
    }
    Ok(found)
}

/// Erases some of what is too old and answers how many rows that were; 0 when nothing is left.
fn prune_step(db: &Connection, before: Timestamp) -> Result<usize, StoreError> {
    let mut erased = Committed::default();
    let oldest = format!(
        "number IN (SELECT number FROM retired_samples WHERE retired_us < ?1 ORDER BY retired_us, number LIMIT {RETIRED_PRUNED_AT_ONCE})"
    );
    mutations::erase_samples(db, ("retired_samples", &oldest), &before.as_micros(), &mut erased)?;
    let replaced = db.prepare_cached("DELETE FROM subject_history WHERE time_us < ?1")?.execute([before.as_micros()])?;
    // The newest version that is too old still is what the first one that is not was made from.
    db.prepare_cached("DELETE FROM gallery_versions WHERE version < (SELECT max(version) FROM gallery_versions WHERE time_us < ?1)")?
        .execute([before.as_micros()])?;
    Ok(erased.samples_erased as usize + replaced)
}
