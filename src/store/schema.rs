//! The tables, how they came to be, and how a connection to them is set up.
//!
//! In: the database's file. Out: connections, migrated to the newest schema. A migration that was
//! released is never edited: the next one follows it.
//! Must not know: the values.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};
use uuid::{Builder, Uuid};

use crate::store::{StoreError, failure};

/// What brings schema version `n` to `n + 1`, for every `n` from 0.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("schema_1.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
    include_str!("schema_8.sql"),
    include_str!("schema_9.sql"),
    include_str!("schema_10.sql"),
    include_str!("schema_11.sql"),
    include_str!("schema_12.sql"),
];

/// How long the writer waits for readers when it empties the write-ahead log. Events wait behind it.
const WRITER_PATIENCE: Duration = Duration::from_millis(250);
/// How long a reader waits while another connection recovers the write-ahead log.
pub(super) const READER_PATIENCE: Duration = Duration::from_secs(5);
/// What is left of the write-ahead log's file after a burst, in bytes.
const WAL_BYTES_KEPT: u32 = 64 << 20;
/// Prepared statements that a connection keeps: more than there are in this folder.
const STATEMENTS_KEPT: usize = 64;

/// The connection that writes: every commit is synced, what is deleted is overwritten with zeros,
/// and nothing spills into temporary files.
pub(super) fn writer(file: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(file, flags)?;
    db.busy_timeout(WRITER_PATIENCE)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Failed(format!("no write-ahead log is possible here ({mode}); put data_dir on a local file system")));
    }
    db.execute_batch(&format!(
        "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;
         PRAGMA journal_size_limit = {WAL_BYTES_KEPT};"
    ))?;
    Ok(db)
}

/// A connection that can only read.
pub(super) fn reader(file: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(file, flags)?;
    db.busy_timeout(READER_PATIENCE)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    db.execute_batch("PRAGMA temp_store = MEMORY;")?;
    Ok(db)
}

/// Brings the schema up to date, each step whole or not at all.
///
/// # Errors
/// [`StoreError::TooNew`] when a newer doorward has been here; nothing is changed then.
pub(super) fn migrate(db: &mut Connection, migrations: &[&str]) -> Result<(), StoreError> {
    let found = version_among(db, migrations)?;
    if found == 0 {
        tracing::warn!("a new database was created: it knows nobody yet");
    }
    for (migration, version) in migrations.iter().zip(1..).skip(found as usize) {
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        step.execute_batch(migration)?;
        step.pragma_update(None, "user_version", version)?;
        step.commit()?;
    }
    Ok(())
}

fn version_among(db: &Connection, migrations: &[&str]) -> Result<u32, StoreError> {
    let known = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    let found: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if found > known { Err(StoreError::TooNew { found, known }) } else { Ok(found) }
}

/// Whether the tables are those that this program reads, for whoever reads them without migrating.
///
/// # Errors
/// [`StoreError::TooNew`], or [`StoreError::Failed`] for a database that waits for its migration.
pub(super) fn check_known(db: &Connection) -> Result<(), StoreError> {
    let found = version_among(db, MIGRATIONS)?;
    if found as usize == MIGRATIONS.len() {
        return Ok(());
    }
    let reason =
        format!("the database has schema version {found}, of an older doorward: start the daemon of this version once, then try again");
    Err(StoreError::Failed(reason))
}

/// Begins a new epoch of the log of events where the operator has left `marker` beside a database
/// that was put back: its next sequences were used before, for other events.
pub(super) fn renew_epoch(db: &Connection, marker: &Path) -> Result<(), StoreError> {
    if marker.exists() {
        db.execute("UPDATE log SET epoch = randomblob(16)", [])?;
        // Should this fail, the next start begins one more epoch, which harms nobody.
        std::fs::remove_file(marker).map_err(|error| StoreError::NoAccess { path: marker.into(), reason: error.to_string() })?;
        tracing::warn!("a backup was put back: the log of events begins a new epoch");
    }
    Ok(())
}

/// The name of the log of events: random bytes, made by the first migration.
pub(super) fn epoch(db: &Connection) -> Result<Uuid, StoreError> {
    let bytes = db.query_row("SELECT epoch FROM log", [], |row| row.get(0)).optional()?;
    Ok(Builder::from_random_bytes(bytes.ok_or_else(|| failure::damaged("the log of events has no epoch"))?).into_uuid())
}
