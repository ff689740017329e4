//! Backups: the whole database as one file with its checksum, taken while a daemon runs, and put
//! back while none does.
//!
//! In: a data directory, a file. Out: a file that `sha256sum --check` vouches for; a data directory
//! that holds what the file holds, without those who were erased since.
//! A backup holds everything the database holds: faces, names, cameras with their passwords. It is 0600.
//! Must not know: who asks.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::mutation::Mutation;
use crate::store::history::{self, VersionChange};
use crate::store::new_file::{NewFile, SIDE_FILES, beside};
use crate::store::{Committed, IdHash, RESTORED, StoreError, data_dir, erased_ids, failure, mutations, schema};
use crate::subject::{SampleId, SubjectUid};

/// Pages between two questions whether the copy is still wanted: 16 MiB.
const PAGES_AT_ONCE: i32 = 4_096;

/// What a backup holds, or what was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupFacts {
    /// The gallery's version.
    pub version: u64,
    /// Subjects.
    pub subjects: u64,
    /// Samples, each with its photo.
    pub samples: u64,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// What putting a backup back did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What the data directory holds now.
    pub facts: BackupFacts,
    /// Subjects of the backup who had been erased since it was taken, and were erased again.
    pub erased_again: u32,
    /// Where the database that was replaced lies: it is to be deleted once all is well. `None` where
    /// there was none.
    pub replaced: Option<PathBuf>,
    /// Why the erasures since the backup could not be read from the replaced database.
    pub erasures_unknown: Option<String>,
}

/// Writes what the database of `data_dir` holds at this moment to `file`, which must not exist, and its
/// checksum beside it. A daemon that is at work there goes on. Ends early when `is_stopped` says so, which is
/// asked now and then. Blocks on the disk.
///
/// # Errors
/// [`StoreError::Exists`], [`StoreError::NoAccess`], [`StoreError::NoRoom`], [`StoreError::Interrupted`],
/// [`StoreError::Damaged`]; no file is left then.
pub fn back_up(data_dir: &Path, file: &Path, is_stopped: &dyn Fn() -> bool) -> Result<BackupFacts, StoreError> {
    let database = data_dir.join(data_dir::DATABASE);
    let source = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| StoreError::NoAccess { path: database, reason: error.to_string() })?;
    source.busy_timeout(schema::READER_PATIENCE)?;
    // Made here, so that nobody else can ever read them.
    let ((new, _), (sum, out)) = (NewFile::begin(file)?, NewFile::begin(&checksum_file(file))?);
    let facts = write_backup(&source, new.unfinished(), is_stopped).map_err(|error| match error {
        StoreError::Full => StoreError::NoRoom(file.to_owned()),
        other => other,
    })?;
    let line = format!("{}  {}\n", checksum(new.unfinished())?, file.file_name().unwrap_or_default().to_string_lossy());
    write_whole(out, &line).map_err(|error| failure::of_new_file(&checksum_file(file), &error))?;
    new.publish()?;
    // A backup that nothing vouches for is none.
    sum.publish().inspect_err(|_| drop(std::fs::remove_file(file)))?;
    Ok(facts)
}

fn write_whole(mut file: File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn write_backup(source: &Connection, file: &Path, is_stopped: &dyn Fn() -> bool) -> Result<BackupFacts, StoreError> {
    // Of one moment: while it is read, nothing that is written meanwhile has the copy begin anew.
    let moment = source.unchecked_transaction()?;
    moment.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    // Page by page: what was erased is zeros there and stays zeros, which VACUUM INTO does not promise of the pages that it fills.
    let mut copy = Connection::open(file)?;
    let pages = Backup::new(&moment, &mut copy)?;
    loop {
        if is_stopped() {
            return Err(StoreError::Interrupted);
        }
        match pages.step(PAGES_AT_ONCE)? {
            StepResult::Done => break,
            StepResult::More => {}
            unfinished => return Err(StoreError::Failed(format!("the copy was not finished ({unfinished:?}); try again"))),
        }
    }
    drop(pages);
    // One file, that can be read from a place where nothing can be written.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(()))?;
    let facts = facts_of(&copy, file)?;
    drop(copy);
    File::open(file).and_then(|file| file.sync_all()).map_err(|error| failure::of_new_file(file, &error))?;
    Ok(facts)
}

/// Puts the backup `file` back into `data_dir`, where no daemon may be at work. Whoever was erased since
/// it was taken is erased from it first. The database that was there is kept beside it.
///
/// # Errors
/// [`StoreError::BadBackup`] for a file that is not what its checksum says, or no backup of a doorward;
/// [`StoreError::TooNew`], [`StoreError::Locked`], and what the system says. The data directory is as it
/// was then.
pub fn restore(data_dir: &Path, file: &Path) -> Result<Restored, StoreError> {
    verify(file)?;
    let _lock = data_dir::lock(data_dir)?;
    let (database, incoming) = (data_dir.join(data_dir::DATABASE), data_dir.join("restoring.db"));
    let step = |done: io::Result<()>| done.map_err(|error| no_access(&database, &error));
    // What an earlier attempt left must not be taken for part of this one.
    for leftover in SIDE_FILES.map(|side| beside(&incoming, side)).into_iter().chain([incoming.clone()]) {
        step(if leftover.exists() { std::fs::remove_file(leftover) } else { Ok(()) })?;
    }
    let outcome = prepare(file, &incoming, &database);
    let (facts, erased_again, erasures_unknown) = outcome.inspect_err(|_| {
        let _ = std::fs::remove_file(&incoming);
    })?;
    // First: a database that was put back must not go on counting events where it stood, and one more
    // epoch harms nobody.
    step(File::create(data_dir.join(RESTORED)).and_then(|marker| marker.sync_all()))?;
    let replaced = data_dir.join(format!("replaced-{}.db", Uuid::new_v4().simple()));
    let had_one = database.exists();
    if had_one {
        // A second name for it, so that there is a database under its own at every moment.
        step(std::fs::hard_link(&database, &replaced))?;
    }
    // A write-ahead log that stayed would be replayed over the database that is put back.
    for side in SIDE_FILES {
        let side_file = beside(&database, side);
        step(if side_file.exists() { std::fs::rename(&side_file, beside(&replaced, side)) } else { Ok(()) })?;
    }
    step(std::fs::rename(&incoming, &database))?;
    step(File::open(data_dir).and_then(|directory| directory.sync_all()))?;
    Ok(Restored { facts, erased_again, replaced: had_one.then_some(replaced), erasures_unknown })
}

/// Copies the backup beside the database, checks it, and takes out who was erased since.
fn prepare(file: &Path, incoming: &Path, database: &Path) -> Result<(BackupFacts, u32, Option<String>), StoreError> {
    let mut copy =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(incoming).map_err(|error| no_access(incoming, &error))?;
    let copied = File::open(file).and_then(|mut from| io::copy(&mut from, &mut copy)).and_then(|_| copy.sync_all());
    copied.map_err(|error| no_access(incoming, &error))?;
    let mut db = schema::writer(incoming)?;
    let sound: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    let is_ours = db.query_row("SELECT count(*) FROM sqlite_schema WHERE name IN ('mutations', 'erased_content')", [], |row| row.get(0));
    if sound != "ok" || is_ours != Ok(2) {
        return Err(bad(file, &format!("it is no backup of a doorward, or damaged ({sound})")));
    }
    schema::migrate(&mut db, schema::MIGRATIONS)?;
    let (erased, unknown) = match database.exists().then(|| erasures(database)) {
        Some(Ok(erased)) => (erased, None),
        Some(Err(error)) => (Erasures::default(), Some(error.to_string())),
        None => (Erasures::default(), Some("there is no database to tell".to_owned())),
    };
    let erased_again = erase_again(&mut db, &erased)?;
    let facts = facts_of(&db, file)?;
    // Everything into the one file that is moved, without a log beside it.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    drop(db);
    Ok((facts, erased_again, unknown))
}

/// Who was erased, and which photos must not come back.
#[derive(Default)]
struct Erasures {
    people: Vec<SubjectUid>,
    /// Single samples, those of others that showed somebody among them, and whose they were.
    samples: Vec<(SubjectUid, SampleId)>,
    /// Who is there, or is kept though they have left, and which samples are, all the same: what somebody else was erased with does
    /// not take them along.
    living: (HashSet<SubjectUid>, HashSet<SampleId>),
    content: Vec<([u8; 32], i64)>,
    ids: Vec<IdHash>,
    /// The newest version there was: no number is given twice.
    newest: u64,
}

fn erasures(database: &Path) -> Result<Erasures, StoreError> {
    let db = schema::writer(database)?;
    // Into the one file, so that no log is left beside it.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    let people = ids(&db, "SELECT DISTINCT subject FROM mutations WHERE kind = 'erase_subject'", SubjectUid)?;
    let samples = db
        .prepare("SELECT DISTINCT subject, sample FROM mutations WHERE kind = 'erase_sample' AND sample IS NOT NULL")?
        .query_and_then([], |row| Ok((SubjectUid(Uuid::from_bytes(row.get(0)?)), SampleId(Uuid::from_bytes(row.get(1)?)))))?
        .collect::<Result<_, StoreError>>()?;
    // A database of before has no such tables.
    let has = |table: &str| -> Result<bool, StoreError> { Ok(db.prepare("SELECT 1 FROM sqlite_schema WHERE name = ?1")?.exists([table])?) };
    let (here, kept) = if has("retired_samples")? {
        (
            "SELECT uid FROM subjects UNION SELECT uid FROM subject_history",
            "SELECT id FROM samples UNION ALL SELECT id FROM retired_samples",
        )
    } else {
        ("SELECT uid FROM subjects", "SELECT id FROM samples")
    };
    let living = (ids(&db, here, SubjectUid)?, ids(&db, kept, SampleId)?);
    let content = db
        .prepare("SELECT sha256, time_us FROM erased_content")?
        .query_and_then([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, StoreError>>()?;
    let ids = if has("erased_ids")? { erased_ids::all(&db)? } else { Vec::new() };
    let newest = mutations::version(&db)?;
    Ok(Erasures { ids, people, samples, living, content, newest })
}

/// A column of ids.
fn ids<T, All: FromIterator<T>>(db: &Connection, query: &str, of: fn(Uuid) -> T) -> Result<All, StoreError> {
    db.prepare(query)?.query_and_then([], |row| Ok(of(Uuid::from_bytes(row.get(0)?))))?.collect()
}

fn erase_again(db: &mut Connection, erasures: &Erasures) -> Result<u32, StoreError> {
    let (change, time) = (db.transaction()?, SystemClock::new().now());
    let newest = erasures.newest.cast_signed();
    if change.execute("UPDATE sqlite_sequence SET seq = max(seq, ?1) WHERE name = 'mutations'", [newest])? == 0 {
        // It counts from the first mutation on, and a gallery that was empty has had none.
        change.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('mutations', ?1)", [newest])?;
    }
    let photos = photos_to_erase(&change, erasures)?;
    let people = people_to_erase(&change, erasures, (&photos, time))?;
    // What is single goes first: with its owner it would be gone already.
    let mut all = samples_to_erase(&change, (erasures, &photos), (&people, time))?;
    all.extend(people.iter().map(|uid| Mutation::EraseSubject(*uid)));
    mutations::commit(&change, &all, ("restore", time))?;
    history::forget_retired_without_samples(&change)?;
    if all.is_empty() {
        let version = mutations::version(&change)?;
        history::keep_version(&change, (version, time, "restore"), &VersionChange::default())?;
    }
    for (sha256, erased_at) in &erasures.content {
        change
            .prepare_cached(
                "INSERT INTO erased_content (sha256, time_us) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET time_us = max(time_us, ?2)",
            )?
            .execute(params![sha256, erased_at])?;
    }
    erasures.ids.iter().try_for_each(|id| erased_ids::note(&change, id))?;
    change.commit()?;
    Ok(u32::try_from(people.len()).unwrap_or(u32::MAX))
}

/// A sample of the backup, in its gallery or retired, whose photo was erased since with whomever it showed.
struct ErasedPhoto {
    sample: SampleId,
    owner: SubjectUid,
    is_negative: bool,
    /// Whether the owner has it, or left with it: then they are who was erased, under an earlier name. One that went before them may have
    /// lain among theirs by mistake.
    is_of_owner: bool,
}

fn photos_to_erase(change: &Connection, erasures: &Erasures) -> Result<Vec<ErasedPhoto>, StoreError> {
    let erased_at: HashMap<[u8; 32], i64> = erasures.content.iter().copied().collect();
    let mut found = Vec::new();
    for (table, is_of_owner) in [("samples", "1"), ("retired_samples", history::LEFT_WITH)] {
        let columns = format!("id, subject, negative, content_sha256, create_time_us, {is_of_owner}");
        let mut all = change.prepare(&format!("SELECT {columns} FROM {table} ORDER BY number"))?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            let sample = SampleId(Uuid::from_bytes(row.get(0)?));
            let created: i64 = row.get(4)?;
            if erased_at.get(&row.get::<_, [u8; 32]>(3)?).is_some_and(|erased_at| created <= *erased_at)
                && !erasures.living.1.contains(&sample)
            {
                let owner = SubjectUid(Uuid::from_bytes(row.get(1)?));
                let is_of_owner = row.get::<_, Option<bool>>(5)?.unwrap_or(false);
                found.push(ErasedPhoto { sample, owner, is_negative: row.get(2)?, is_of_owner });
            }
        }
    }
    Ok(found)
}

/// Whom the backup holds of those who were erased. Who is not there is noted as erased, for the backup that is put back next.
fn people_to_erase(
    change: &Connection,
    erasures: &Erasures,
    (photos, time): (&[ErasedPhoto], Timestamp),
) -> Result<Vec<SubjectUid>, StoreError> {
    let mut people = Vec::new();
    for uid in &erasures.people {
        let known = "SELECT 1 FROM subjects WHERE uid = ?1 UNION SELECT 1 FROM subject_history WHERE uid = ?1
                     UNION SELECT 1 FROM retired_samples WHERE subject = ?1";
        if change.prepare_cached(known)?.exists([uid.0.into_bytes()])? {
            people.push(*uid);
        } else {
            change
                .prepare_cached("INSERT INTO mutations (kind, subject, time_us) VALUES ('erase_subject', ?1, ?2)")?
                .execute(params![uid.0.into_bytes(), time.as_micros()])?;
        }
    }
    // The same photo under an earlier name of the person, who goes whole: one picture cannot show two people.
    for photo in photos.iter().filter(|photo| !photo.is_negative && photo.is_of_owner && !erasures.living.0.contains(&photo.owner)) {
        if !people.contains(&photo.owner) {
            people.push(photo.owner);
        }
    }
    Ok(people)
}

/// Single samples that were erased, and those by which somebody who lives was taken for somebody who was erased. Whoever is left
/// without any goes, too: they are retired, and come back with their photos.
fn samples_to_erase(
    change: &Connection,
    (erasures, photos): (&Erasures, &[ErasedPhoto]),
    (people, time): (&[SubjectUid], Timestamp),
) -> Result<Vec<Mutation>, StoreError> {
    let mut single = BTreeMap::new();
    let of_others = photos.iter().filter(|photo| !people.contains(&photo.owner)).map(|photo| (photo.owner, photo.sample));
    for (subject, sample) in erasures.samples.iter().copied().chain(of_others) {
        let id = sample.0.into_bytes();
        mutations::erase_samples(change, ("retired_samples", "id = ?1"), &id, &mut Committed::default())?;
        let mut owner = change.prepare_cached("SELECT subject FROM samples WHERE id = ?1")?;
        match owner.query_row([id], |row| row.get(0)).optional()? {
            Some(owner) => drop(single.insert(sample, SubjectUid(Uuid::from_bytes(owner)))),
            None => drop(
                change
                    .prepare_cached("INSERT INTO mutations (kind, subject, sample, time_us) VALUES ('erase_sample', ?1, ?2, ?3)")?
                    .execute(params![subject.0.into_bytes(), id, time.as_micros()])?,
            ),
        }
    }
    let owners: BTreeSet<SubjectUid> = single.values().copied().filter(|owner| !people.contains(owner)).collect();
    let mut all: Vec<Mutation> =
        single.iter().map(|(sample, subject)| Mutation::EraseSample { subject: *subject, sample: *sample }).collect();
    let mut left = change.prepare_cached("SELECT id, negative FROM samples WHERE subject = ?1")?;
    for subject in owners {
        let rows = left
            .query_and_then([subject.0.into_bytes()], |row| Ok::<_, StoreError>((SampleId(Uuid::from_bytes(row.get(0)?)), row.get(1)?)))?;
        let left: Vec<(SampleId, bool)> =
            rows.filter(|row| !matches!(row, Ok((sample, _)) if single.contains_key(sample))).collect::<Result<_, _>>()?;
        if left.iter().all(|(_, is_negative)| *is_negative) {
            all.extend(left.iter().map(|(sample, _)| Mutation::RetireSample { subject, sample: *sample }));
            all.push(Mutation::RetireSubject(subject));
        }
    }
    Ok(all)
}

/// Compares the file with the checksum beside it.
fn verify(file: &Path) -> Result<(), StoreError> {
    let place = checksum_file(file);
    let line =
        std::fs::read_to_string(&place).map_err(|error| bad(file, &format!("its checksum {} cannot be read: {error}", place.display())))?;
    let wanted = line.split_whitespace().next().unwrap_or_default().to_owned();
    let found = checksum(file)?;
    if wanted == found { Ok(()) } else { Err(bad(file, &format!("it is cut or altered: SHA-256 {found}, where {wanted} was written"))) }
}

fn checksum(file: &Path) -> Result<String, StoreError> {
    let hash = || {
        let (mut from, mut hasher, mut buffer) = (File::open(file)?, Sha256::new(), vec![0; 1 << 20]);
        loop {
            match from.read(&mut buffer)? {
                0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
                read => hasher.update(&buffer[..read]),
            }
        }
    };
    hash().map_err(|error| no_access(file, &error))
}

fn checksum_file(file: &Path) -> PathBuf {
    beside(file, ".sha256")
}

fn facts_of(db: &Connection, file: &Path) -> Result<BackupFacts, StoreError> {
    let count = |table: &str| db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0));
    Ok(BackupFacts {
        version: mutations::version(db)?,
        subjects: count("subjects")?.cast_unsigned(),
        samples: count("samples")?.cast_unsigned(),
        bytes: file.metadata().map_err(|error| no_access(file, &error))?.len(),
    })
}

fn bad(file: &Path, reason: &str) -> StoreError {
    StoreError::BadBackup { file: file.to_owned(), reason: reason.to_owned() }
}

fn no_access(path: &Path, error: &io::Error) -> StoreError {
    match failure::of_file(path, error) {
        StoreError::Full => StoreError::Full,
        _ => StoreError::NoAccess { path: path.to_owned(), reason: error.to_string() },
    }
}
