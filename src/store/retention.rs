//! What is no longer kept: events and pictures beyond their age or their room, old answers.
//!
//! In: how much is kept. Out: the same database without the rest. The log is cut at its old end
//! only, so that what is left of it has no gap. Works in steps between which other changes are made.
//! Must not know: why anything is kept.

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::store::writer::Effect;
use crate::store::{ANSWER_KEPT, Store, StoreError, events, shadow};

/// Rows that one step takes from each table: a few milliseconds of the writer's time.
const ROWS_AT_ONCE: i64 = 256;
/// Snapshots, which are large, that one step takes.
const SNAPSHOTS_AT_ONCE: i64 = 32;

/// What is kept of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events that the log took earlier go.
    pub events_since: Timestamp,
    /// The most that events take, in bytes as they are stored, without the database's own overhead.
    pub event_bytes_max: u64,
    /// Pictures that were taken earlier go.
    pub snapshots_since: Timestamp,
    /// The most that pictures take, in bytes of JPEG.
    pub snapshot_bytes_max: u64,
}

impl Store {
    /// Deletes what `kept` does not allow, the oldest first, and request answers older than a day.
    /// An event that an open visit began with goes like any other.
    pub async fn prune(&self, kept: Retention) -> Result<(), StoreError> {
        let answers_since = self.0.clock.now().minus(ANSWER_KEPT);
        let limit = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let snapshots_until = self.0.readers.read(move |db| snapshots_too_many(db, limit(kept.snapshot_bytes_max))).await?;
        self.prune_in_steps(move |db| {
            Ok(cut_log(db, kept.events_since, limit(kept.event_bytes_max))?
                + delete_snapshots(db, kept.snapshots_since, snapshots_until)?
                + shadow::delete_old(db, kept.events_since, ROWS_AT_ONCE)?
                + delete_answers(db, answers_since)?)
        })
        .await
    }

    /// Takes steps, between which other changes are made, until one finds nothing to delete. What they
    /// deleted then leaves the write-ahead log too, once for all of them.
    pub(super) async fn prune_in_steps(
        &self,
        step: impl Fn(&Connection) -> Result<usize, StoreError> + Clone + Send + 'static,
    ) -> Result<(), StoreError> {
        let mut pruned = 0;
        loop {
            match self.0.writer.write(Effect::Keeps, step.clone()).await? {
                0 if pruned == 0 => return Ok(()),
                0 => return self.0.writer.write(Effect::Erases, |_| Ok(())).await,
                deleted => pruned += deleted,
            }
        }
    }
}

/// Deletes some of the oldest events, as far as they are too old or too many without a younger one
/// between them: a clock that was set back keeps them longer, and leaves no gap. Pictures go with the
/// last event that names them: it is events that tell whom a picture shows, and so what goes with an erased person.
fn cut_log(db: &Connection, since: Timestamp, bytes_max: i64) -> Result<usize, StoreError> {
    let offset_min = events::end_offset(db)?.saturating_sub(bytes_max);
    let mut oldest =
        db.prepare_cached("SELECT sequence, log_time_us, log_offset, snapshot IS NOT NULL FROM events ORDER BY sequence LIMIT ?1")?;
    let mut rows = oldest.query([ROWS_AT_ONCE])?;
    let (mut last, mut snapshots): (Option<i64>, i64) = (None, 0);
    while let Some(row) = rows.next()? {
        let (time, offset): (i64, i64) = (row.get(1)?, row.get(2)?);
        if time >= since.as_micros() && offset >= offset_min || snapshots >= SNAPSHOTS_AT_ONCE {
            break;
        }
        last = Some(row.get(0)?);
        snapshots += row.get::<_, i64>(3)?;
    }
    let Some(last) = last else { return Ok(0) };
    db.prepare_cached(
        "DELETE FROM snapshots WHERE id IN (SELECT snapshot FROM events WHERE sequence <= ?1 AND snapshot IS NOT NULL)
         AND NOT EXISTS (SELECT 1 FROM events WHERE snapshot = snapshots.id AND sequence > ?1)",
    )?
    .execute([last])?;
    Ok(db.prepare_cached("DELETE FROM events WHERE sequence <= ?1")?.execute([last])?)
}

/// The number of the newest snapshot that is one too many for the room there is.
fn snapshots_too_many(db: &Connection, bytes_max: i64) -> Result<Option<i64>, StoreError> {
    let mut newest_first = db.prepare_cached(
        "SELECT number FROM (
             SELECT number, sum(length(crop_jpeg) + length(frame_jpeg)) OVER (ORDER BY number DESC) AS bytes FROM snapshots)
         WHERE bytes > ?1 ORDER BY number DESC LIMIT 1",
    )?;
    Ok(newest_first.query_row([bytes_max], |row| row.get(0)).optional()?)
}

fn delete_snapshots(db: &Connection, since: Timestamp, until_number: Option<i64>) -> Result<usize, StoreError> {
    let sql = "DELETE FROM snapshots WHERE number IN (
                   SELECT number FROM snapshots WHERE capture_time_us < ?1 OR number <= ?2 ORDER BY number LIMIT ?3)";
    Ok(db.prepare_cached(sql)?.execute(params![since.as_micros(), until_number.unwrap_or(0), SNAPSHOTS_AT_ONCE])?)
}

fn delete_answers(db: &Connection, since: Timestamp) -> Result<usize, StoreError> {
    let sql = "DELETE FROM requests WHERE key IN (SELECT key FROM requests WHERE time_us < ?1 LIMIT ?2)";
    Ok(db.prepare_cached(sql)?.execute(params![since.as_micros(), ROWS_AT_ONCE])?)
}
