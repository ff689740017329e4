//! Templates of another encoder beside those that match, made while the old ones go on matching.
//!
//! In: templates of samples that are there, or retired. Out: which samples still lack one; which template
//! of a sample is read: that of the space in force, where there is one.
//! A template that is erased with its person is erased in every space.
//! Must not know: encoders, the gallery in memory.

use std::sync::PoisonError;

use rusqlite::{Connection, params};
use uuid::Uuid;

use crate::face::{Template, TemplateSpace};
use crate::store::failure::damaged;
use crate::store::people;
use crate::store::writer::Effect;
use crate::store::{Store, StoreError, StoredTemplate};
use crate::subject::{Sample, SampleId, SubjectId};

/// A sample that has no template in a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// Its place in the order of arrival.
    pub number: i64,
    /// Its name.
    pub sample: SampleId,
    /// Whose it is, by the operator's name; `None` for somebody who is about to be erased for good.
    pub subject: Option<SubjectId>,
}

/// Samples without a template in the space called `?1`, retired ones too: they may come back. A template
/// without a space is erased.
const LACKING: &str = "
    FROM templates t LEFT JOIN samples s ON s.number = t.sample LEFT JOIN subjects u ON u.uid = s.subject
    LEFT JOIN retired_samples r ON r.number = t.sample
    WHERE t.space IS NOT NULL AND t.space NOT IN (SELECT number FROM spaces WHERE name = ?1)
      AND (s.number IS NOT NULL OR r.number IS NOT NULL)
      AND NOT EXISTS (SELECT 1 FROM later_templates l
                      WHERE l.sample = t.sample AND l.space = (SELECT number FROM spaces WHERE name = ?1))";

impl Store {
    /// From now on a sample's template is that of `space`, where it has one.
    pub fn put_in_force(&self, space: &TemplateSpace) {
        *self.0.space.lock().unwrap_or_else(PoisonError::into_inner) = Some(space.clone());
    }

    pub(super) fn space_in_force(&self) -> Option<TemplateSpace> {
        self.0.space.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives `take` every sample's template, oldest first, those of other spaces too. It runs where it may take long.
    pub async fn read_templates<T, F>(&self, take: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Iterator<Item = Result<StoredTemplate, StoreError>>) -> T + Send + 'static,
    {
        let space = self.space_in_force();
        self.0.readers.read(move |db| people::read_templates(db, space.as_ref(), take)).await
    }

    /// The same with the template of `space` of each sample, where it has one.
    pub async fn read_templates_in<T, F>(&self, space: &TemplateSpace, take: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Iterator<Item = Result<StoredTemplate, StoreError>>) -> T + Send + 'static,
    {
        let space = space.clone();
        self.0.readers.read(move |db| people::read_templates(db, Some(&space), take)).await
    }

    /// How many samples have no template in `space`.
    pub async fn foreign_templates(&self, space: &TemplateSpace) -> Result<u64, StoreError> {
        let space = space.clone();
        self.0.readers.read(move |db| people::foreign_templates(db, &space)).await
    }

    /// At most `limit` samples that lack a template in `space` and came after `after`, oldest first.
    pub async fn samples_lacking(&self, space: &TemplateSpace, after: i64, limit: u32) -> Result<Vec<Lacking>, StoreError> {
        let space = space.clone();
        self.0.readers.read(move |db| lacking(db, &space, (after, limit))).await
    }

    /// How many samples lack a template in `space`, and how many there are, retired ones too.
    pub async fn count_lacking(&self, space: &TemplateSpace) -> Result<(u64, u64), StoreError> {
        let space = space.clone();
        let count = move |db: &Connection| {
            let lacking = db.query_row(&format!("SELECT count(*) {LACKING}"), [space.as_str()], |row| row.get(0))?;
            let all = "SELECT (SELECT count(*) FROM samples) + (SELECT count(*) FROM retired_samples)";
            Ok((lacking, db.query_row(all, [], |row| row.get(0))?))
        };
        self.0.readers.read(count).await
    }

    /// How many subjects have no template in `space` at all, and so match nothing there.
    pub async fn subjects_lacking(&self, space: &TemplateSpace) -> Result<u64, StoreError> {
        let space = space.clone();
        let count = move |db: &Connection| {
            let without = "SELECT count(*) FROM subjects u WHERE NOT EXISTS (
                SELECT 1 FROM samples s JOIN templates t ON t.sample = s.number
                LEFT JOIN later_templates l ON l.sample = s.number AND l.space = (SELECT number FROM spaces WHERE name = ?1)
                WHERE s.subject = u.uid AND NOT s.negative AND (l.space IS NOT NULL OR t.space = (SELECT number FROM spaces WHERE name = ?1)))";
            Ok(db.query_row(without, [space.as_str()], |row| row.get(0))?)
        };
        self.0.readers.read(count).await
    }

    /// The photo of the sample of this number; `None` where none is kept.
    pub async fn photo(&self, number: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let find = move |db: &Connection| {
            let mut found = db.prepare_cached("SELECT bytes FROM photos WHERE sample = ?1 AND length(bytes) > 0")?;
            let mut rows = found.query([number])?;
            Ok(rows.next()?.map(|row| row.get(0)).transpose()?)
        };
        self.0.readers.read(find).await
    }

    /// Each of the samples, where it is in the gallery.
    pub async fn held_samples(&self, samples: Vec<SampleId>) -> Result<Vec<Option<Sample>>, StoreError> {
        self.0.readers.read(move |db| samples.iter().map(|sample| people::sample(db, *sample)).collect()).await
    }

    /// Keeps templates of samples by their numbers; those that were erased meanwhile are passed over.
    /// The gallery's version stays: nobody matches by them until their space is in force.
    ///
    /// # Errors
    /// [`StoreError`]; none of them is kept then.
    pub async fn keep_later_templates(&self, templates: Vec<(i64, Template)>) -> Result<(), StoreError> {
        let keep = move |db: &Connection| templates.iter().try_for_each(|(number, template)| insert(db, *number, template).map(drop));
        self.0.writer.write(Effect::Keeps, keep).await
    }
}

/// Adds a template to a sample that is in the gallery.
pub(super) fn put_template(db: &Connection, sample: SampleId, template: &Template) -> Result<(), StoreError> {
    let mut found = db.prepare_cached("SELECT number FROM samples WHERE id = ?1")?;
    let mut rows = found.query([sample.0.into_bytes()])?;
    let number = rows.next()?.map(|row| row.get::<_, i64>(0)).transpose()?;
    match number.map(|number| insert(db, number, template)).transpose()? {
        Some(true) => Ok(()),
        _ => Err(StoreError::Contradiction(format!("sample {} is not there, or has this template already", sample.0))),
    }
}

/// Appends a template of a sample that is there; answers whether it is new.
fn insert(db: &Connection, number: i64, template: &Template) -> Result<bool, StoreError> {
    let space = template.space().as_str();
    db.prepare_cached("INSERT INTO spaces (name) VALUES (?1) ON CONFLICT DO NOTHING")?.execute([space])?;
    let added = db
        .prepare_cached(
            "INSERT INTO later_templates (sample, space, vector)
             SELECT t.sample, n.number, ?2 FROM templates t, spaces n
             WHERE t.sample = ?1 AND t.space IS NOT NULL AND t.space <> n.number AND n.name = ?3
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![number, people::float_bytes(template.values()), space])?;
    Ok(added > 0)
}

fn lacking(db: &Connection, space: &TemplateSpace, (after, limit): (i64, u32)) -> Result<Vec<Lacking>, StoreError> {
    let retired_name = "(SELECT h.id FROM subject_history h WHERE h.uid = r.subject ORDER BY h.sequence DESC LIMIT 1)";
    let mut found = db.prepare_cached(&format!(
        "SELECT t.sample, coalesce(s.id, r.id), coalesce(u.id, (SELECT id FROM subjects WHERE uid = r.subject), {retired_name})
         {LACKING} AND t.sample > ?2 ORDER BY t.sample LIMIT ?3"
    ))?;
    found
        .query_and_then(params![space.as_str(), after, limit], |row| {
            Ok(Lacking {
                number: row.get(0)?,
                sample: SampleId(Uuid::from_bytes(row.get(1)?)),
                subject: row.get::<_, Option<String>>(2)?.map(|id| SubjectId::parse(&id)).transpose().map_err(damaged)?,
            })
        })?
        .collect()
}
