//! The writing side of the gallery: ordered mutations, and what each of them changes.
//!
//! In: [`Mutation`]s of one call, inside its transaction. Out: the version and counts of what was
//! erased. Every mutation leaves a record that names subject and sample by their random ids.
//! Must not know: the gallery in memory, files, commits.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::face::Template;
use crate::mutation::Mutation;
use crate::store::history::VersionChange;
use crate::store::people::SHOWN_CONTENT;
use crate::store::{Committed, StoreError, erased_ids, history, people, reencode, requests, shadow};
use crate::subject::{Sample, SampleId, Subject, SubjectUid};

/// Snapshots that show subject `?1`: those that say so, those that a sample was made of, those of
/// events that name the subject, and those of every event of the visits these events belong to.
const SHOWN_SNAPSHOTS: &str = "
    WITH shown (snapshot) AS (
        SELECT id FROM snapshots WHERE subject = ?1
        UNION SELECT id FROM snapshots WHERE crop_sha256 IN (
            SELECT content_sha256 FROM samples WHERE subject = ?1 AND NOT negative
            UNION SELECT content_sha256 FROM retired_samples WHERE subject = ?1 AND NOT negative)
        UNION SELECT snapshot FROM events WHERE subject = ?1 AND snapshot IS NOT NULL
    ), visits (visit) AS (
        SELECT visit FROM events WHERE subject = ?1 AND visit IS NOT NULL
        UNION SELECT visit FROM events WHERE snapshot IN (SELECT snapshot FROM shown) AND visit IS NOT NULL
    )
    UPDATE snapshots SET subject = NULL, crop_sha256 = NULL, crop_jpeg = x'', frame_jpeg = x''
    WHERE crop_sha256 IS NOT NULL AND id IN (
        SELECT snapshot FROM shown
        UNION SELECT snapshot FROM events WHERE visit IN (SELECT visit FROM visits) AND snapshot IS NOT NULL
    )";

/// Carries out `mutations`, which `cause` asked for, in order.
pub(super) fn commit(db: &Connection, mutations: &[Mutation], (cause, time): (&str, Timestamp)) -> Result<Committed, StoreError> {
    let (mut done, mut change) = (Committed::default(), VersionChange::default());
    for mutation in mutations {
        let at = record(db, mutation, time)?;
        match mutation {
            Mutation::PutSubject(subject) => {
                if history::keep_subject(db, subject.uid, at)? {
                    change.subjects_changed += 1;
                } else {
                    change.subjects_added += 1;
                }
                put_subject(db, subject)?;
            }
            Mutation::PutSample { sample, template, photo } => {
                put_sample(db, sample, template, photo)?;
                change.samples_added += 1;
            }
            Mutation::RetireSubject(subject) => {
                // Those that were not named: a photo that was added by RPC to somebody of the folder.
                for sample in history::samples_of(db, *subject)? {
                    record(db, &Mutation::RetireSample { subject: *subject, sample }, time)?;
                    history::retire_sample(db, *subject, sample, time)?;
                    change.samples_removed += 1;
                }
                history::retire_subject(db, *subject, at)?;
                change.subjects_removed += 1;
            }
            Mutation::RetireSample { subject, sample } => {
                history::retire_sample(db, *subject, *sample, time)?;
                change.samples_removed += 1;
            }
            Mutation::RestoreSubject(subject) => {
                put_subject(db, subject)?;
                change.subjects_added += 1;
            }
            Mutation::RestoreSample { sample, .. } => {
                history::restore_sample(db, sample.subject, sample.id)?;
                change.samples_added += 1;
            }
            Mutation::PutTemplate { sample, template } => reencode::put_template(db, sample.id, template)?,
            Mutation::EraseSubject(subject) => {
                if let Some(samples) = erase_subject(db, *subject, time, &mut done)? {
                    change.subjects_removed += 1;
                    change.samples_removed += samples;
                }
            }
            Mutation::EraseSample { subject, sample } => {
                erase_sample(db, *subject, *sample, &mut done)?;
                change.samples_removed += 1;
            }
        }
    }
    if mutations.iter().any(|mutation| matches!(mutation, Mutation::EraseSubject(_))) {
        // Last: of whoever goes under several names, which had the same photos, every name is noted before it is forgotten.
        history::forget_retired_without_samples(db)?;
    }
    done.version = version(db)?;
    if !mutations.is_empty() {
        history::keep_version(db, (done.version, time, cause), &change)?;
    }
    Ok(done)
}

/// Writes that `mutation` is made; answers its sequence and `time`.
fn record(db: &Connection, mutation: &Mutation, time: Timestamp) -> Result<(i64, Timestamp), StoreError> {
    let (kind, subject, sample) = match mutation {
        Mutation::PutSubject(subject) => ("put_subject", subject.uid, None),
        Mutation::PutSample { sample, .. } => ("put_sample", sample.subject, Some(sample.id)),
        Mutation::RetireSubject(subject) => ("retire_subject", *subject, None),
        Mutation::RetireSample { subject, sample } => ("retire_sample", *subject, Some(*sample)),
        Mutation::RestoreSubject(subject) => ("restore_subject", subject.uid, None),
        Mutation::RestoreSample { sample, .. } => ("restore_sample", sample.subject, Some(sample.id)),
        Mutation::PutTemplate { sample, .. } => ("put_template", sample.subject, Some(sample.id)),
        Mutation::EraseSubject(subject) => ("erase_subject", *subject, None),
        Mutation::EraseSample { subject, sample } => ("erase_sample", *subject, Some(*sample)),
    };
    db.prepare_cached("INSERT INTO mutations (kind, subject, sample, time_us) VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        kind,
        subject.0.into_bytes(),
        sample.map(|s| s.0.into_bytes()),
        time.as_micros()
    ])?;
    Ok((db.last_insert_rowid(), time))
}

/// The sequence of the newest mutation.
pub(super) fn version(db: &Connection) -> Result<u64, StoreError> {
    let newest: Option<i64> = db.prepare_cached("SELECT max(sequence) FROM mutations")?.query_row([], |row| row.get(0))?;
    Ok(newest.unwrap_or_default().cast_unsigned())
}

/// Who is still there after `mutations`: their erasure must take the answer along.
pub(super) fn people_in(mutations: &[Mutation]) -> Vec<SubjectUid> {
    let mut people = BTreeSet::new();
    for mutation in mutations {
        match mutation {
            Mutation::PutSubject(subject) | Mutation::RestoreSubject(subject) => people.insert(subject.uid),
            Mutation::PutSample { sample, .. } | Mutation::RestoreSample { sample, .. } | Mutation::PutTemplate { sample, .. } => {
                people.insert(sample.subject)
            }
            Mutation::EraseSample { subject, .. } | Mutation::RetireSample { subject, .. } | Mutation::RetireSubject(subject) => {
                people.insert(*subject)
            }
            Mutation::EraseSubject(subject) => people.remove(subject),
        };
    }
    people.into_iter().collect()
}

fn put_subject(db: &Connection, subject: &Subject) -> Result<(), StoreError> {
    let taken = db.prepare_cached("SELECT 1 FROM subjects WHERE id = ?1 AND uid <> ?2")?;
    let (id, uid) = (subject.id.as_str(), subject.uid.0.into_bytes());
    if exists(taken, params![id, uid])? {
        return Err(StoreError::Contradiction("the subject id is taken by another subject".into()));
    }
    let encode = |e: serde_json::Error| StoreError::Failed(format!("a subject cannot be encoded: {e}"));
    db.prepare_cached(
        "INSERT INTO subjects (uid, id, display_name, watchlists, attributes, consent_reference, expire_time_us, origin,
                               create_time_us, update_time_us, revision)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (uid) DO UPDATE SET id = ?2, display_name = ?3, watchlists = ?4, attributes = ?5, consent_reference = ?6,
             expire_time_us = ?7, origin = ?8, create_time_us = ?9, update_time_us = ?10, revision = ?11",
    )?
    .execute(params![
        uid,
        id,
        subject.display_name,
        serde_json::to_string(&subject.watchlists).map_err(encode)?,
        serde_json::to_string(&subject.attributes).map_err(encode)?,
        subject.consent_reference,
        subject.expire_time.map(Timestamp::as_micros),
        people::origin_name(subject.origin),
        subject.create_time.as_micros(),
        subject.update_time.as_micros(),
        subject.revision.cast_signed(),
    ])?;
    erased_ids::forget(db, &subject.id)
}

fn put_sample(db: &Connection, sample: &Sample, template: &Template, photo: &[u8]) -> Result<(), StoreError> {
    let owner = sample.subject.0.into_bytes();
    if !exists(db.prepare_cached("SELECT 1 FROM subjects WHERE uid = ?1")?, [owner])? {
        return Err(unknown_subject(sample.subject));
    }
    db.prepare_cached(
        "INSERT INTO samples (id, subject, quality, content_sha256, create_time_us, folder_path, negative)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        sample.id.0.into_bytes(),
        owner,
        people::quality_bytes(&sample.quality),
        sample.content_sha256,
        sample.create_time.as_micros(),
        sample.folder_path,
        sample.negative,
    ])?;
    let number = db.last_insert_rowid();
    let space = template.space().as_str();
    db.prepare_cached("INSERT INTO spaces (name) VALUES (?1) ON CONFLICT DO NOTHING")?.execute([space])?;
    db.prepare_cached("INSERT INTO templates (sample, space, vector) SELECT ?1, number, ?2 FROM spaces WHERE name = ?3")?
        .execute(params![number, people::float_bytes(template.values()), space])?;
    db.prepare_cached("INSERT INTO photos (sample, bytes) VALUES (?1, ?2)")?.execute(params![number, photo])?;
    Ok(())
}

/// Erases the subject with all that is kept of it, and what is kept of the same photos under another name,
/// as when a directory was renamed. Answers with how many samples it was in the gallery, if it was.
fn erase_subject(db: &Connection, subject: SubjectUid, time: Timestamp, done: &mut Committed) -> Result<Option<u32>, StoreError> {
    let uid = subject.0.into_bytes();
    let same_photos = format!(
        "content_sha256 IN (SELECT content_sha256 FROM samples WHERE subject = ?1 AND NOT negative
                            UNION SELECT content_sha256 FROM retired_samples WHERE subject = ?1 AND NOT negative)
         OR negative AND content_sha256 IN ({SHOWN_CONTENT})"
    );
    // Found before the rows that tell of them go.
    erased_ids::note_of(db, subject)?;
    let under_other_names = history::retired_with(db, &same_photos, uid)?;
    done.snapshots_erased += rows(db.prepare_cached(SHOWN_SNAPSHOTS)?.execute([uid])?);
    done.snapshots_erased += rows(shadow::erase_about(db, subject)?);
    requests::erase_about(db, subject)?;
    db.prepare_cached(
        "INSERT INTO erased_content (sha256, time_us)
         SELECT content_sha256, ?2 FROM samples WHERE subject = ?1 AND NOT negative
         UNION SELECT content_sha256, ?2 FROM retired_samples WHERE subject = ?1 AND NOT negative
         ON CONFLICT DO UPDATE SET time_us = ?2",
    )?
    .execute(params![uid, time.as_micros()])?;
    for sample in &under_other_names {
        erase_samples(db, ("retired_samples", "number = ?1"), sample, done)?;
    }
    let erased_before = done.samples_erased;
    erase_samples(db, ("samples", "subject = ?1"), &uid, done)?;
    let samples = done.samples_erased - erased_before;
    erase_samples(db, ("retired_samples", "subject = ?1"), &uid, done)?;
    let was_retired = db.prepare_cached("DELETE FROM subject_history WHERE uid = ?1")?.execute([uid])? > 0;
    let was_there = db.prepare_cached("DELETE FROM subjects WHERE uid = ?1")?.execute([uid])? > 0;
    // Its history may have been pruned since the subject was found.
    let was_ever = || exists(db.prepare_cached("SELECT 1 FROM mutations WHERE kind = 'put_subject' AND subject = ?1")?, [uid]);
    let is_known = was_there || was_retired || !under_other_names.is_empty() || was_ever()?;
    if is_known { Ok(was_there.then_some(samples)) } else { Err(unknown_subject(subject)) }
}

fn erase_sample(db: &Connection, subject: SubjectUid, sample: SampleId, done: &mut Committed) -> Result<(), StoreError> {
    let owner = db
        .prepare_cached("SELECT subject FROM samples WHERE id = ?1")?
        .query_row([sample.0.into_bytes()], |row| row.get::<_, [u8; 16]>(0))
        .optional()?;
    if owner != Some(subject.0.into_bytes()) {
        return Err(StoreError::Contradiction(format!("there is no sample {} of subject {}", sample.0, subject.0)));
    }
    // A snapshot that the sample was made of still shows the subject: it must be found when the
    // subject is erased, and the sample will not be there to tell.
    db.prepare_cached(
        "UPDATE snapshots SET subject = ?1
         WHERE subject IS NULL AND crop_sha256 = (SELECT content_sha256 FROM samples WHERE id = ?2 AND NOT negative)",
    )?
    .execute(params![subject.0.into_bytes(), sample.0.into_bytes()])?;
    erase_samples(db, ("samples", "id = ?1"), &sample.0.into_bytes(), done)
}

/// Erases the samples of a table, of which `which` is true of `value`. Their templates and photos are
/// emptied in place: the schema says why.
pub(super) fn erase_samples(
    db: &Connection,
    (table, which): (&str, &str),
    value: &dyn rusqlite::ToSql,
    done: &mut Committed,
) -> Result<(), StoreError> {
    let numbers = format!("IN (SELECT number FROM {table} WHERE {which})");
    let run = |change: &str| -> Result<u32, StoreError> { Ok(rows(db.prepare_cached(change)?.execute([value])?)) };
    done.templates_erased += run(&format!("UPDATE templates SET space = NULL, vector = x'' WHERE sample {numbers}"))?;
    done.templates_erased +=
        run(&format!("UPDATE later_templates SET space = NULL, vector = x'' WHERE space IS NOT NULL AND sample {numbers}"))?;
    run(&format!("UPDATE photos SET bytes = x'' WHERE sample {numbers}"))?;
    done.samples_erased += run(&format!("DELETE FROM {table} WHERE {which}"))?;
    Ok(())
}

fn exists(mut query: rusqlite::CachedStatement<'_>, values: impl rusqlite::Params) -> Result<bool, StoreError> {
    Ok(query.exists(values)?)
}

pub(super) fn unknown_subject(subject: SubjectUid) -> StoreError {
    StoreError::Contradiction(format!("there is no subject {}", subject.0))
}

fn rows(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
