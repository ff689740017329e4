//! The portable form of the gallery, written while a daemon runs; and what its return has to know.
//!
//! In: a data directory, a file. Out: a file as `portable` describes it, of one moment. Whoever was erased
//! or retired is not in it: neither stands in the tables that are read.
//! Memory: one row at a time.
//! Must not know: the file's inside, who asks.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row};
use uuid::Uuid;

use crate::camera::Camera;
use crate::clock::{Clock, SystemClock};
use crate::face::{Template, TemplateSpace};
use crate::portable::{Lines, Manifest, SpaceFacts, Writer, photo_path};
use crate::store::new_file::NewFile;
use crate::store::people::{self, SUBJECT_COLUMNS, Spaces};
use crate::store::{StoreError, data_dir, failure, mutations, schema};
use crate::subject::{SampleId, SubjectId, SubjectUid};

/// How often progress is told, in samples.
const PROGRESS_EVERY: u64 = 100;
/// In the order of subjects, and of each subject's samples: the file's own. `CROSS JOIN` keeps `SQLite` to
/// it, so that rows are read in this order and never sorted.
const IN_ORDER: &str = "FROM subjects u CROSS JOIN samples s ON s.subject = u.uid CROSS JOIN templates t ON t.sample = s.number
                        CROSS JOIN photos p ON p.sample = s.number";
const ORDER: &str = "ORDER BY u.id, s.number";

/// What is to be exported.
pub struct Export<'a> {
    /// The file to write; it must not exist.
    pub file: &'a Path,
    /// Whether the photos go along. Without them no other encoder can make templates anew.
    pub photos: bool,
    /// Is told how many of all steps are done.
    pub progress: &'a mut dyn FnMut(u64, u64),
    /// Is asked with every step; where it says so, the export ends early and leaves nothing.
    pub is_stopped: &'a dyn Fn() -> bool,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportFacts {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The system or the database failed.
enum Failure {
    File(io::Error),
    Store(StoreError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::File(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Writes the gallery of `data_dir` as it is at this moment. A daemon that is at work there goes on; what
/// it erases meanwhile leaves the disk when the export has ended. Blocks on the disk.
///
/// # Errors
/// [`StoreError::Exists`], [`StoreError::NoAccess`], [`StoreError::NoRoom`], [`StoreError::Interrupted`],
/// [`StoreError::Damaged`], [`StoreError::TooNew`]; no file is left then.
pub fn export(data_dir: &Path, mut export: Export<'_>) -> Result<ExportFacts, StoreError> {
    let db = reader(data_dir)?;
    let (new, out) = NewFile::begin(export.file)?;
    let written = write(&db, out, &mut export).and_then(|manifest| Ok((manifest, new.unfinished().metadata()?.len())));
    let (manifest, bytes) = written.map_err(|failure| match failure {
        Failure::File(error) => failure::of_new_file(export.file, &error),
        Failure::Store(error) => error,
    })?;
    new.publish()?;
    Ok(ExportFacts { manifest, bytes })
}

/// Every template of `space` in `data_dir` as it is at this moment, with whose it is; negative samples are left out. A daemon that
/// is at work there goes on. Blocks on the disk.
///
/// # Errors
/// [`StoreError::NoAccess`], [`StoreError::Damaged`], [`StoreError::TooNew`].
pub fn templates(data_dir: &Path, space: &TemplateSpace) -> Result<Vec<(SubjectUid, Template)>, StoreError> {
    let db = reader(data_dir)?;
    people::read_templates(&db, Some(space), |rows| {
        let own = rows.filter(|row| row.as_ref().map_or(true, |stored| !stored.negative && stored.template.space() == space));
        own.map(|row| row.map(|stored| (stored.subject, stored.template))).collect()
    })?
}

/// The cameras of `data_dir` as they are at this moment. A daemon that is at work there goes on. Blocks on the disk.
///
/// # Errors
/// [`StoreError::NoAccess`], [`StoreError::Damaged`], [`StoreError::TooNew`].
pub fn cameras(data_dir: &Path) -> Result<Vec<Camera>, StoreError> {
    super::cameras::all(&reader(data_dir)?)
}

/// A connection beside the daemon's, which changes nothing.
fn reader(data_dir: &Path) -> Result<Connection, StoreError> {
    let database = data_dir.join(data_dir::DATABASE);
    let db = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(|error| StoreError::NoAccess { path: database, reason: error.to_string() })?;
    db.busy_timeout(schema::READER_PATIENCE)?;
    // Temporary tables hold what the tables hold: not for the disk.
    db.execute_batch("PRAGMA temp_store = MEMORY;")?;
    schema::check_known(&db)?;
    Ok(db)
}

fn write(db: &Connection, out: File, export: &mut Export<'_>) -> Result<Manifest, Failure> {
    // Everything is read in one transaction: of one moment.
    let moment = db.unchecked_transaction()?;
    let manifest = manifest(&moment, export.photos)?;
    let mut steps =
        Steps { done: 0, total: manifest.samples + 2 * manifest.photos, tell: &mut *export.progress, is_stopped: export.is_stopped };
    let mut writer = Writer::begin(BufWriter::with_capacity(1 << 20, out), &manifest)?;
    writer.subjects(|lines| subjects(&moment, lines))?;
    writer.samples(|lines| samples(&moment, lines, (export.photos, &mut steps)))?;
    if export.photos {
        each_photo(&moment, "p.bytes", |path, row| {
            writer.photo(path, row.get_ref(3)?.as_blob().map_err(failure::damaged)?)?;
            steps.step()
        })?;
    }
    let out = writer.finish(|lines| {
        if !export.photos {
            return Ok(());
        }
        each_photo(&moment, "s.content_sha256", |path, row| {
            lines.sum(&row.get(3)?, path)?;
            steps.step()
        })
    })?;
    let mut out = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    out.flush()?;
    out.sync_all()?;
    Ok(manifest)
}

/// Counts what is done.
struct Steps<'a> {
    done: u64,
    total: u64,
    tell: &'a mut dyn FnMut(u64, u64),
    is_stopped: &'a dyn Fn() -> bool,
}

impl Steps<'_> {
    fn step(&mut self) -> Result<(), Failure> {
        if (self.is_stopped)() {
            return Err(StoreError::Interrupted.into());
        }
        self.done += 1;
        if self.done.is_multiple_of(PROGRESS_EVERY) || self.done == self.total {
            (self.tell)(self.done, self.total);
        }
        Ok(())
    }
}

fn manifest(db: &Connection, with_photos: bool) -> Result<Manifest, Failure> {
    let count = |of: &str| -> Result<u64, Failure> { Ok(db.query_row(&format!("SELECT count(*) {of}"), [], |row| row.get(0))?) };
    let mut manifest = Manifest::new(SystemClock::new().now().as_micros());
    manifest.gallery_version = mutations::version(db)?;
    manifest.subjects = count("FROM subjects")?;
    manifest.samples = count("FROM samples")?;
    manifest.photos = if with_photos { count(&format!("{IN_ORDER} WHERE length(p.bytes) > 0"))? } else { 0 };
    let mut spaces = db.prepare(
        "SELECT n.name, max(v.length) / 4, count(*) FROM (
             SELECT t.space, length(t.vector) AS length FROM samples s JOIN templates t ON t.sample = s.number
             UNION ALL SELECT l.space, length(l.vector) FROM samples s JOIN later_templates l ON l.sample = s.number) v
         JOIN spaces n ON n.number = v.space GROUP BY n.number ORDER BY n.name",
    )?;
    let mut rows = spaces.query([])?;
    while let Some(row) = rows.next()? {
        manifest.template_spaces.push(SpaceFacts { name: row.get(0)?, dimension: row.get(1)?, templates: row.get(2)? });
    }
    Ok(manifest)
}

fn subjects(db: &Connection, lines: &mut Lines<'_>) -> Result<(), Failure> {
    let mut all = db.prepare(&format!("SELECT {SUBJECT_COLUMNS} FROM subjects u ORDER BY u.id"))?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        lines.subject(&people::subject_of(row)?)?;
    }
    Ok(())
}

fn samples(db: &Connection, lines: &mut Lines<'_>, (with_photos, steps): (bool, &mut Steps<'_>)) -> Result<(), Failure> {
    let mut spaces = Spaces::of(db)?;
    let mut all = db.prepare(&format!(
        "SELECT s.id, s.subject, s.quality, s.content_sha256, s.create_time_us, s.folder_path, s.negative, t.space, t.vector,
                u.id, substr(p.bytes, 1, 8), s.number {IN_ORDER} {ORDER}"
    ))?;
    let mut later = db.prepare("SELECT space, vector FROM later_templates WHERE sample = ?1 AND space IS NOT NULL ORDER BY number")?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let (sample, mut templates) = (people::sample_of(row)?, vec![spaces.template(row, 7)?]);
        let mut others = later.query([row.get::<_, i64>(11)?])?;
        while let Some(other) = others.next()? {
            templates.push(spaces.template(other, 0)?);
        }
        // Of a photo that was left out once, `substr` makes NULL.
        let beginning = row.get_ref(10)?.as_blob_or_null().map_err(failure::damaged)?.unwrap_or_default();
        let photo = (with_photos && !beginning.is_empty()).then(|| photo_path_of(row, (9, 0), beginning)).transpose()?;
        lines.sample(&sample, &templates, photo.as_deref())?;
        steps.step()?;
    }
    Ok(())
}

/// Tells `take` of every photo where it lies in the file, with `column` as the row's fourth.
fn each_photo(db: &Connection, column: &str, mut take: impl FnMut(&str, &Row<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let mut all =
        db.prepare(&format!("SELECT u.id, s.id, substr(p.bytes, 1, 8), {column} {IN_ORDER} WHERE length(p.bytes) > 0 {ORDER}"))?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        let path = photo_path_of(row, (0, 1), row.get_ref(2)?.as_blob().map_err(failure::damaged)?)?;
        take(&path, row)?;
    }
    Ok(())
}

/// Where the photo lies of the subject and the sample that are in these columns.
fn photo_path_of(row: &Row<'_>, (subject, sample): (usize, usize), beginning: &[u8]) -> Result<String, Failure> {
    let subject = SubjectId::parse(row.get_ref(subject)?.as_str().map_err(failure::damaged)?).map_err(failure::damaged)?;
    Ok(photo_path(&subject, SampleId(Uuid::from_bytes(row.get(sample)?)), beginning))
}
