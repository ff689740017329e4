//! What shadows would have decided otherwise, as rows.
//!
//! In: verdicts. Out: tallies of all of them since the shadow was first seen, and the verdicts that differ, as
//! long as events are kept. They name subjects by uid alone, as events do.
//! Must not know: what a shadow is made of.

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::shadow::{Outcome, Tally, Verdict};
use crate::store::failure::damaged;
use crate::store::writer::Effect;
use crate::store::{Store, StoreError};

/// What is known of a shadow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowFacts {
    /// What it is made of.
    pub description: String,
    /// Since when it runs.
    pub start_time: Timestamp,
    /// The visits that it saw.
    pub tally: Tally,
}

impl Store {
    /// Counts `verdicts` for the shadow of this description, and keeps those that differ.
    ///
    /// # Errors
    /// [`StoreError`]; nothing of it is counted then.
    pub async fn keep_verdicts(&self, shadow: &str, verdicts: Vec<Verdict>) -> Result<(), StoreError> {
        let (shadow, now) = (shadow.to_owned(), self.0.clock.now());
        self.0.writer.write(Effect::Keeps, move |db| keep(db, (&shadow, now), &verdicts)).await
    }

    /// The shadow of this description, `None` before its first [`keep_verdicts`](Self::keep_verdicts).
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
                 WHERE s.description = ?1 AND v.number < ?2 ORDER BY v.number DESC LIMIT ?3",
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
    db.prepare_cached("INSERT INTO shadows (description, start_time_us) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?
        .execute(params![shadow, now.as_micros()])?;
    let counts = [tally.agrees, tally.would_name, tally.would_not_name, tally.would_rename, tally.unanswered].map(u64::cast_signed);
    db.prepare_cached(
        "UPDATE shadows SET agrees = agrees + ?2, would_name = would_name + ?3, would_not_name = would_not_name + ?4,
                            would_rename = would_rename + ?5, unanswered = unanswered + ?6 WHERE description = ?1",
    )?
    .execute(params![shadow, counts[0], counts[1], counts[2], counts[3], counts[4]])?;
    let mut insert = db.prepare_cached(
        "INSERT INTO shadow_verdicts (shadow, capture_time_us, body) SELECT number, ?2, ?3 FROM shadows WHERE description = ?1",
    )?;
    for verdict in verdicts.iter().filter(|verdict| verdict.outcome() != Outcome::Agrees) {
        let body = serde_json::to_string(verdict).map_err(|error| StoreError::Failed(error.to_string()))?;
        insert.execute(params![shadow, verdict.capture_time_us, body])?;
    }
    Ok(())
}

fn facts(db: &Connection, shadow: &str) -> Result<Option<ShadowFacts>, StoreError> {
    let found = db
        .prepare_cached(
            "SELECT start_time_us, agrees, would_name, would_not_name, would_rename, unanswered FROM shadows WHERE description = ?1",
        )?
        .query_row([shadow], |row| {
            let count = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let tally = Tally {
                agrees: count(1)?,
                would_name: count(2)?,
                would_not_name: count(3)?,
                would_rename: count(4)?,
                unanswered: count(5)?,
            };
            Ok(ShadowFacts { description: shadow.to_owned(), start_time: Timestamp::from_micros(row.get(0)?), tally })
        })
        .optional()?;
    Ok(found)
}

/// Deletes at most `limit` verdicts about pictures that were taken before `since`.
pub(super) fn delete_old(db: &Connection, since: Timestamp, limit: i64) -> Result<usize, StoreError> {
    let sql = "DELETE FROM shadow_verdicts WHERE number IN (SELECT number FROM shadow_verdicts WHERE capture_time_us < ?1 LIMIT ?2)";
    Ok(db.prepare_cached(sql)?.execute(params![since.as_micros(), limit])?)
}
