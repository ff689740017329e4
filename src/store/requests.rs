//! Requests that were carried out, so that a repeat is answered and not made again.
//!
//! In: request keys and answers, in the change's own transaction. Out: the first answers.
//! An answer about a person is erased with the person; its key stays, so that a late repeat does
//! not bring the person back.
//! Must not know: how answers are encoded.

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::subject::SubjectUid;

/// A request by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// Under which it is kept.
    pub key: String,
    /// A hash of the call and of all that it asked: another one under the same id is a mistake, and no repeat.
    pub asked: [u8; 32],
}

/// Refuses a change whose request was carried out before.
pub(super) fn refuse_repeat(db: &Connection, key: Option<&str>) -> Result<(), StoreError> {
    let Some(key) = key else { return Ok(()) };
    let known = db.prepare_cached("SELECT 1 FROM requests WHERE key = ?1")?.exists([key])?;
    if known { Err(StoreError::RequestRepeated) } else { Ok(()) }
}

/// Keeps the answer to `(key, answer, time)`, which tells something of `people`.
pub(super) fn keep(db: &Connection, (key, answer, time): (&str, Vec<u8>, Timestamp), people: &[SubjectUid]) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO requests (key, answer, time_us) VALUES (?1, ?2, ?3)")?.execute(params![
        key,
        answer,
        time.as_micros()
    ])?;
    let mut about = db.prepare_cached("INSERT INTO request_subjects (subject, request) VALUES (?1, ?2)")?;
    for person in people {
        about.execute(params![person.0.into_bytes(), key])?;
    }
    Ok(())
}

/// Erases the answers that tell something of `person`.
pub(super) fn erase_about(db: &Connection, person: SubjectUid) -> Result<(), StoreError> {
    let uid = person.0.into_bytes();
    db.prepare_cached("UPDATE requests SET answer = NULL WHERE key IN (SELECT request FROM request_subjects WHERE subject = ?1)")?
        .execute([uid])?;
    db.prepare_cached("DELETE FROM request_subjects WHERE subject = ?1")?.execute([uid])?;
    Ok(())
}

/// The first answer to `key`.
pub(super) fn answer(db: &Connection, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let mut found = db.prepare_cached("SELECT answer FROM requests WHERE key = ?1")?;
    match found.query_row([key], |row| row.get::<_, Option<Vec<u8>>>(0)).optional()? {
        Some(None) => Err(StoreError::AnswerErased),
        Some(answer) => Ok(answer),
        None => Ok(None),
    }
}
