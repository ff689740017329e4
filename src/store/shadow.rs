//! What shadows would have decided otherwise, as rows.
//!
//! In: verdicts. Out: tallies of all of them since the shadow was first seen, and the verdicts that differ, as
//! long as events are kept by their age, and the newest [`KEPT_MAX`] of them. They name subjects by uid, and go with
//! whoever is erased; so does the picture of somebody unknown whom the shadow would have taken for them.
//! Must not know: what a shadow is made of.

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::event::Decision;
use crate::shadow::{Outcome, Tally, Verdict};
use crate::store::failure::damaged;
use crate::store::writer::Effect;
use crate::store::{Store, StoreError};
use crate::subject::SubjectUid;

/// The most verdicts that are kept, of all shadows together.
const KEPT_MAX: i64 = 100_000;

/// What is known of a shadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowFacts {
    /// Since when it runs.
    pub start_time: Timestamp,
    /// The visits that it saw.
    pub tally: Tally,
}

impl Store {
    /// Counts `verdicts` for the shadow of this key, and keeps those that differ.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of it is counted then.
    pub async fn keep_verdicts(&self, shadow: &str, verdicts: Vec<Verdict>) -> Result<(), StoreError> {
        let (shadow, now) = (shadow.to_owned(), self.0.clock.now());
        self.0.writer.write(Effect::Keeps, move |db| keep(db, (&shadow, now), &verdicts)).await
    }

    /// The shadow of this key, `None` before its first [`keep_verdicts`](Self::keep_verdicts).
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn shadow_facts(&self, shadow: &str) -> Result<Option<ShadowFacts>, StoreError> {
        let shadow = shadow.to_owned();
        self.0.readers.read(move |db| facts(db, &shadow)).await
    }

    /// At most `limit` verdicts of a shadow that differ, newest first, those before the number `before`; each with its number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn verdicts(&self, shadow: &str, before: Option<i64>, limit: u32) -> Result<Vec<(i64, Verdict)>, StoreError> {
        let shadow = shadow.to_owned();
        let read = move |db: &Connection| {
            db.prepare_cached(
                "SELECT v.number, v.body FROM shadow_verdicts v JOIN shadows s ON s.number = v.shadow
                 WHERE s.key = ?1 AND v.number < ?2 ORDER BY v.number DESC LIMIT ?3",
            )?
            .query_and_then(params![shadow, before.unwrap_or(i64::MAX), limit], |row| {
                Ok((row.get(0)?, serde_json::from_str(row.get_ref(1)?.as_str().map_err(damaged)?).map_err(damaged)?))
            })?
            .collect()
        };
        self.0.readers.read(read).await
    }
}

fn keep(db: &Connection, (shadow, now): (&str, Timestamp), verdicts: &[Verdict]) -> Result<(), StoreError> {
    let mut tally = Tally::default();
    verdicts.iter().for_each(|verdict| tally.add(verdict.outcome()));
    db.prepare_cached("INSERT INTO shadows (key, start_time_us) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![shadow, now.as_micros()])?;
    let counts = [tally.agrees, tally.would_name, tally.would_not_name, tally.would_rename, tally.unanswered].map(u64::cast_signed);
    db.prepare_cached(
        "UPDATE shadows SET agrees = agrees + ?2, would_name = would_name + ?3, would_not_name = would_not_name + ?4,
                            would_rename = would_rename + ?5, unanswered = unanswered + ?6 WHERE key = ?1",
    )?
    .execute(params![shadow, counts[0], counts[1], counts[2], counts[3], counts[4]])?;
    let mut insert = db.prepare_cached(
        "INSERT INTO shadow_verdicts (shadow, capture_time_us, subject, shadow_subject, snapshot, body)
         SELECT number, ?2, ?3, ?4, ?5, ?6 FROM shadows WHERE key = ?1",
    )?;
    let mut erased = db.prepare_cached("SELECT 1 FROM mutations WHERE kind = 'erase_subject' AND subject IN (?1, ?2)")?;
    for verdict in verdicts.iter().filter(|verdict| verdict.outcome() != Outcome::Agrees) {
        let uid = |decision: Option<&Decision>| decision.and_then(|decision| decision.subject).map(|subject| subject.0.into_bytes());
        let (told, would) = (uid(Some(&verdict.in_force)), uid(verdict.shadow.as_ref()));
        // Somebody may have been erased since the decision.
        if erased.exists(params![told, would])? {
            continue;
        }
        let body = serde_json::to_string(verdict).map_err(|error| StoreError::Failed(error.to_string()))?;
        let snapshot = verdict.snapshot.map(|id| id.0.into_bytes());
        insert.execute(params![shadow, verdict.capture_time_us, told, would, snapshot, body])?;
    }
    Ok(())
}

/// Erases the verdicts that name `person`, and the pictures of somebody unknown whom a shadow would have taken for that person;
/// answers how many pictures those were.
pub(super) fn erase_about(db: &Connection, person: SubjectUid) -> Result<usize, StoreError> {
    let uid = person.0.into_bytes();
    let pictures = db
        .prepare_cached(
            "UPDATE snapshots SET subject = NULL, crop_sha256 = NULL, crop_jpeg = x'', frame_jpeg = x''
             WHERE crop_sha256 IS NOT NULL
               AND id IN (SELECT snapshot FROM shadow_verdicts WHERE shadow_subject = ?1 AND subject IS NULL)",
        )?
        .execute([uid])?;
    db.prepare_cached("DELETE FROM shadow_verdicts WHERE subject = ?1 OR shadow_subject = ?1")?.execute([uid])?;
    Ok(pictures)
}

fn facts(db: &Connection, shadow: &str) -> Result<Option<ShadowFacts>, StoreError> {
    let found = db
        .prepare_cached("SELECT start_time_us, agrees, would_name, would_not_name, would_rename, unanswered FROM shadows WHERE key = ?1")?
        .query_row([shadow], |row| {
            let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let tally = Tally {
                agrees: count(1)?,
                would_name: count(2)?,
                would_not_name: count(3)?,
                would_rename: count(4)?,
                unanswered: count(5)?,
            };
            Ok(ShadowFacts { start_time: Timestamp::from_micros(row.get(0)?), tally })
        })
        .optional()?;
    Ok(found)
}

/// Deletes at most `limit` verdicts that are about pictures from before `since`, or that are too many.
pub(super) fn delete_old(db: &Connection, since: Timestamp, limit: i64) -> Result<usize, StoreError> {
    let sql = "DELETE FROM shadow_verdicts WHERE number IN (
                   SELECT number FROM shadow_verdicts WHERE capture_time_us < ?1
                   UNION SELECT number FROM shadow_verdicts
                         WHERE number <= (SELECT number FROM shadow_verdicts ORDER BY number DESC LIMIT 1 OFFSET ?3)
                   LIMIT ?2)";
    Ok(db.prepare_cached(sql)?.execute(params![since.as_micros(), limit, KEPT_MAX])?)
}
