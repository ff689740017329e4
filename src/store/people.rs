//! The reading side of the gallery: rows as subjects, samples and templates.
//!
//! In: questions. Out: the values as they were committed; a row that is no value any more is
//! reported as damage, never left out.
//! Must not know: the gallery in memory, requests.

use std::collections::HashMap;

use rusqlite::{Connection, Row, ToSql, named_params, params};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::face::{Quality, Template, TemplateSpace};
use crate::store::failure::damaged;
use crate::store::{StoreError, StoredTemplate};
use crate::subject::{Origin, Sample, SampleId, Subject, SubjectId, SubjectUid};

/// What is stated of a subject, in the order in which [`subject_of`] reads it.
pub(super) const SUBJECT_COLUMNS: &str = "id, uid, display_name, watchlists, attributes, consent_reference, expire_time_us, origin, \
                                          create_time_us, update_time_us, revision";
/// Joins what a sample's template is: the one of the space called `:space` where there is one, else the one
/// that was made when the sample came.
const TEMPLATE_JOIN: &str = "JOIN templates t ON t.sample = s.number LEFT JOIN later_templates l
                             ON l.sample = s.number AND l.space = (SELECT number FROM spaces WHERE name = :space)";
/// Its space and its vector.
const TEMPLATE: &str = "coalesce(l.space, t.space), coalesce(l.vector, t.vector)";
const SAMPLE: &str = "SELECT s.id, s.subject, s.quality, s.content_sha256, s.create_time_us, s.folder_path, s.negative";

/// Subjects by id, after `after`, on `watchlist` if given.
pub(super) fn subjects(
    db: &Connection,
    after: Option<&SubjectId>,
    watchlist: Option<&str>,
    limit: usize,
) -> Result<Vec<Subject>, StoreError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    db.prepare_cached(&format!(
        "SELECT {SUBJECT_COLUMNS} FROM subjects WHERE id > ?1 AND (?2 IS NULL OR EXISTS (SELECT 1 FROM json_each(watchlists) WHERE value = ?2)) ORDER BY id LIMIT ?3"
    ))?
    .query_and_then(params![after.map_or("", SubjectId::as_str), watchlist, limit], subject_of)?
    .collect()
}

/// One subject.
pub(super) fn subject(db: &Connection, id: &SubjectId) -> Result<Option<Subject>, StoreError> {
    db.prepare_cached(&format!("SELECT {SUBJECT_COLUMNS} FROM subjects WHERE id = ?1"))?
        .query_and_then([id.as_str()], subject_of)?
        .next()
        .transpose()
}

/// The subject that events call `uid`.
pub(super) fn subject_with_uid(db: &Connection, uid: SubjectUid) -> Result<Option<Subject>, StoreError> {
    db.prepare_cached(&format!("SELECT {SUBJECT_COLUMNS} FROM subjects WHERE uid = ?1"))?
        .query_and_then([uid.0.into_bytes()], subject_of)?
        .next()
        .transpose()
}

/// Whether the sample is in the gallery.
pub(super) fn holds_sample(db: &Connection, sample: SampleId) -> Result<bool, StoreError> {
    Ok(db.prepare_cached("SELECT 1 FROM samples WHERE id = ?1")?.exists([sample.0.into_bytes()])?)
}

/// What is known of a sample that is in the gallery.
pub(super) fn sample(db: &Connection, sample: SampleId) -> Result<Option<Sample>, StoreError> {
    let mut found = db.prepare_cached(&format!("{SAMPLE} FROM samples s WHERE s.id = ?1"))?;
    found.query_and_then([sample.0.into_bytes()], sample_of)?.next().transpose()
}

/// A sample that is in the gallery or was retired, with its template.
pub(super) fn sample_wherever(
    db: &Connection,
    sample: SampleId,
    space: Option<&TemplateSpace>,
) -> Result<Option<(Sample, Template)>, StoreError> {
    let mut spaces = Spaces::of(db)?;
    for table in ["samples", "retired_samples"] {
        let mut found = db.prepare_cached(&format!("{SAMPLE}, {TEMPLATE} FROM {table} s {TEMPLATE_JOIN} WHERE s.id = :id"))?;
        let values = named_params! { ":space": space.map(TemplateSpace::as_str), ":id": sample.0.into_bytes() };
        let mut found = found.query_and_then(values, |row| Ok((sample_of(row)?, spaces.template(row, 7)?)))?;
        if let Some(found) = found.next() {
            return found.map(Some);
        }
    }
    Ok(None)
}

/// One subject's samples with templates, oldest first.
pub(super) fn samples(db: &Connection, subject: SubjectUid, space: Option<&TemplateSpace>) -> Result<Vec<(Sample, Template)>, StoreError> {
    let values = named_params! { ":space": space.map(TemplateSpace::as_str), ":subject": subject.0.into_bytes() };
    samples_with_templates(db, &format!("samples s {TEMPLATE_JOIN} WHERE s.subject = :subject"), values)
}

/// A subject's samples that were retired at that moment, with templates, oldest first, but for photos that were erased with somebody.
pub(super) fn samples_retired_at(
    db: &Connection,
    (subject, time): (SubjectUid, Timestamp),
    space: Option<&TemplateSpace>,
) -> Result<Vec<(Sample, Template)>, StoreError> {
    let retired = format!(
        "retired_samples s {TEMPLATE_JOIN} WHERE s.subject = :subject AND s.retired_us = :time
         AND s.content_sha256 NOT IN (SELECT sha256 FROM erased_content)"
    );
    let values = named_params! {
        ":space": space.map(TemplateSpace::as_str), ":subject": subject.0.into_bytes(), ":time": time.as_micros()
    };
    samples_with_templates(db, &retired, values)
}

fn samples_with_templates(db: &Connection, which: &str, values: &[(&str, &dyn ToSql)]) -> Result<Vec<(Sample, Template)>, StoreError> {
    let mut spaces = Spaces::of(db)?;
    db.prepare_cached(&format!("{SAMPLE}, {TEMPLATE} FROM {which} ORDER BY s.number"))?
        .query_and_then(values, |row| Ok((sample_of(row)?, spaces.template(row, 7)?)))?
        .collect()
}

/// Gives `take` every sample's template, oldest first, each turned into a value when its turn comes.
pub(super) fn read_templates<T>(
    db: &Connection,
    space: Option<&TemplateSpace>,
    take: impl FnOnce(&mut dyn Iterator<Item = Result<StoredTemplate, StoreError>>) -> T,
) -> Result<T, StoreError> {
    let mut spaces = Spaces::of(db)?;
    let mut rows =
        db.prepare_cached(&format!("SELECT s.id, s.subject, s.negative, {TEMPLATE} FROM samples s {TEMPLATE_JOIN} ORDER BY s.number"))?;
    let mut rows = rows.query_and_then(named_params! { ":space": space.map(TemplateSpace::as_str) }, |row| {
        Ok(StoredTemplate {
            sample: SampleId(uuid(row, 0)?),
            subject: SubjectUid(uuid(row, 1)?),
            negative: row.get(2)?,
            template: spaces.template(row, 3)?,
        })
    })?;
    Ok(take(&mut rows))
}

/// How many samples have no template in `space`.
pub(super) fn foreign_templates(db: &Connection, space: &TemplateSpace) -> Result<u64, StoreError> {
    let count: i64 = db
        .prepare_cached(
            "SELECT count(*) FROM templates t JOIN samples s ON s.number = t.sample
             WHERE t.space IN (SELECT number FROM spaces WHERE name <> ?1)
               AND NOT EXISTS (SELECT 1 FROM later_templates l
                               WHERE l.sample = t.sample AND l.space = (SELECT number FROM spaces WHERE name = ?1))",
        )?
        .query_row([space.as_str()], |row| row.get(0))?;
    Ok(count.cast_unsigned())
}

/// Samples that came from the enrolment folder, oldest first.
pub(super) fn folder_samples(db: &Connection) -> Result<Vec<Sample>, StoreError> {
    db.prepare_cached(&format!("{SAMPLE} FROM samples s WHERE s.folder_path IS NOT NULL ORDER BY s.number"))?
        .query_and_then([], sample_of)?
        .collect()
}

/// How many samples each subject of the folder has that did not come from there.
pub(super) fn samples_beside_the_folder(db: &Connection) -> Result<HashMap<SubjectUid, usize>, StoreError> {
    db.prepare_cached(
        "SELECT s.subject, count(*) FROM subjects u JOIN samples s ON s.subject = u.uid
         WHERE u.origin = ?1 AND s.folder_path IS NULL GROUP BY s.subject",
    )?
    .query_and_then([origin_name(Origin::Folder)], |row| Ok((SubjectUid(uuid(row, 0)?), row.get(1)?)))?
    .collect()
}

/// The contents of pictures that show subject `?1`: its photos, and the best shots of its events.
pub(super) const SHOWN_CONTENT: &str = "
    SELECT content_sha256 FROM samples WHERE subject = ?1 AND NOT negative
    UNION SELECT content_sha256 FROM retired_samples WHERE subject = ?1 AND NOT negative
    UNION SELECT crop_sha256 FROM snapshots WHERE subject = ?1 AND crop_sha256 IS NOT NULL
    UNION SELECT s.crop_sha256 FROM events e JOIN snapshots s ON s.id = e.snapshot WHERE e.subject = ?1 AND s.crop_sha256 IS NOT NULL";

/// Negative samples in the gallery that show the subject.
pub(super) fn negatives_showing(db: &Connection, uid: SubjectUid) -> Result<Vec<(SubjectUid, SampleId)>, StoreError> {
    db.prepare_cached(&format!(
        "SELECT subject, id FROM samples WHERE negative AND subject <> ?1 AND content_sha256 IN ({SHOWN_CONTENT}) ORDER BY number"
    ))?
    .query_and_then([uid.0.into_bytes()], |row| Ok((SubjectUid(uuid(row, 0)?), SampleId(uuid(row, 1)?))))?
    .collect()
}

/// Whether a photo with this hash was erased with its subject.
pub(super) fn is_erased_content(db: &Connection, sha256: [u8; 32]) -> Result<bool, StoreError> {
    Ok(db.prepare_cached("SELECT 1 FROM erased_content WHERE sha256 = ?1")?.exists([sha256])?)
}

/// How an origin is written.
pub(super) fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Rpc => "rpc",
        Origin::Folder => "folder",
    }
}

/// The nine numbers of a quality, in the order in which the schema lists them.
pub(super) fn quality_bytes(quality: &Quality) -> Vec<u8> {
    float_bytes(&[
        quality.overall,
        quality.size_pixels,
        quality.sharpness,
        quality.brightness,
        quality.contrast,
        quality.yaw_degrees,
        quality.pitch_degrees,
        quality.roll_degrees,
        quality.detection_score,
    ])
}

/// Numbers as little-endian bytes.
pub(super) fn float_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Result<Vec<f32>, StoreError> {
    let (words, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() { Ok(words.iter().map(|w| f32::from_le_bytes(*w)).collect()) } else { Err(damaged("a vector is cut short")) }
}

fn uuid(row: &Row<'_>, column: usize) -> Result<Uuid, StoreError> {
    Ok(Uuid::from_bytes(row.get(column)?))
}

fn time(row: &Row<'_>, column: usize) -> Result<Timestamp, StoreError> {
    Ok(Timestamp::from_micros(row.get(column)?))
}

pub(super) fn subject_of(row: &Row<'_>) -> Result<Subject, StoreError> {
    let text = |column: usize| row.get_ref(column)?.as_str().map_err(damaged);
    Ok(Subject {
        id: SubjectId::parse(text(0)?).map_err(damaged)?,
        uid: SubjectUid(uuid(row, 1)?),
        display_name: row.get(2)?,
        watchlists: serde_json::from_str(text(3)?).map_err(damaged)?,
        attributes: serde_json::from_str(text(4)?).map_err(damaged)?,
        consent_reference: row.get(5)?,
        expire_time: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_micros),
        origin: match text(7)? {
            "rpc" => Origin::Rpc,
            "folder" => Origin::Folder,
            other => return Err(damaged(format!("a subject's origin is {other:?}"))),
        },
        create_time: time(row, 8)?,
        update_time: time(row, 9)?,
        revision: row.get::<_, i64>(10)?.cast_unsigned(),
    })
}

pub(super) fn sample_of(row: &Row<'_>) -> Result<Sample, StoreError> {
    let numbers = floats(row.get_ref(2)?.as_blob().map_err(damaged)?)?;
    let [overall, size_pixels, sharpness, brightness, contrast, yaw_degrees, pitch_degrees, roll_degrees, detection_score] = numbers[..]
    else {
        return Err(damaged(format!("a quality has {} numbers", numbers.len())));
    };
    Ok(Sample {
        id: SampleId(uuid(row, 0)?),
        subject: SubjectUid(uuid(row, 1)?),
        quality: Quality {
            overall,
            size_pixels,
            sharpness,
            brightness,
            contrast,
            yaw_degrees,
            pitch_degrees,
            roll_degrees,
            detection_score,
        },
        content_sha256: row.get(3)?,
        create_time: time(row, 4)?,
        folder_path: row.get(5)?,
        negative: row.get(6)?,
    })
}

/// The few spaces there are, so that templates share their names.
pub(super) struct Spaces(HashMap<i64, TemplateSpace>);

impl Spaces {
    pub(super) fn of(db: &Connection) -> Result<Self, StoreError> {
        let mut spaces = HashMap::new();
        let mut rows = db.prepare_cached("SELECT number, name FROM spaces")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            spaces.insert(row.get(0)?, TemplateSpace::new(row.get_ref(1)?.as_str().map_err(damaged)?));
        }
        Ok(Self(spaces))
    }

    /// The template whose space and vector are in columns `first` and `first + 1`. Its values keep
    /// their bits: a unit vector of this many dimensions is rounded to itself when it is
    /// normalised again.
    pub(super) fn template(&mut self, row: &Row<'_>, first: usize) -> Result<Template, StoreError> {
        let space = self.0.get(&row.get(first)?).ok_or_else(|| damaged("a template's space is unknown"))?;
        let vector = floats(row.get_ref(first + 1)?.as_blob().map_err(damaged)?)?;
        Template::normalised(space.clone(), &vector).map_err(damaged)
    }
}
