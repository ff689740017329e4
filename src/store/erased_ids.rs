//! Which ids the enrolment folder must not enrol anybody by: whoever was called so was erased.
//!
//! In: ids of subjects that are erased or enrolled. Out: hashes of ids, since the names are erased, too.
//! Drops: an id that somebody is enrolled by again, or whose directory was away.
//! Must not know: the folder.

use std::collections::HashSet;

use rusqlite::Connection;
use sha2::{Digest, Sha256};

use super::writer::Effect;
use super::{Store, StoreError};
use crate::subject::{SubjectId, SubjectUid};

/// What is kept of an id.
pub type IdHash = [u8; 32];

/// The hash that an erased id is known by.
pub fn hash(id: &SubjectId) -> IdHash {
    hash_text(id.as_str())
}

fn hash_text(id: &str) -> IdHash {
    Sha256::digest(id.as_bytes()).into()
}

impl Store {
    /// The ids of those who were erased, and that nobody was enrolled by since.
    pub async fn erased_ids(&self) -> Result<HashSet<IdHash>, StoreError> {
        self.0.readers.read(|db| Ok(all(db)?.into_iter().collect())).await
    }

    /// Forgets ids: their directories were away, so whoever is put there next was put there since.
    pub async fn forget_erased_ids(&self, ids: Vec<IdHash>) -> Result<(), StoreError> {
        let forget = move |db: &Connection| {
            let mut delete = db.prepare_cached("DELETE FROM erased_ids WHERE id_sha256 = ?1")?;
            ids.iter().try_for_each(|id| delete.execute([id]).map(drop))?;
            Ok(())
        };
        self.0.writer.write(Effect::Keeps, forget).await
    }
}

pub(super) fn all(db: &Connection) -> Result<Vec<IdHash>, StoreError> {
    db.prepare_cached("SELECT id_sha256 FROM erased_ids")?.query_and_then([], |row| Ok(row.get(0)?))?.collect()
}

pub(super) fn note(db: &Connection, id: &IdHash) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO erased_ids (id_sha256) VALUES (?1) ON CONFLICT DO NOTHING")?.execute([id])?;
    Ok(())
}

/// Notes whatever the subject was called, before that is gone.
pub(super) fn note_of(db: &Connection, subject: SubjectUid) -> Result<(), StoreError> {
    let ids: Vec<String> = db
        .prepare_cached("SELECT id FROM subjects WHERE uid = ?1 UNION SELECT id FROM subject_history WHERE uid = ?1")?
        .query_and_then([subject.0.into_bytes()], |row| Ok(row.get(0)?))?
        .collect::<Result<_, StoreError>>()?;
    ids.iter().try_for_each(|id| note(db, &hash_text(id)))
}

/// Somebody is enrolled by this id.
pub(super) fn forget(db: &Connection, id: &SubjectId) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM erased_ids WHERE id_sha256 = ?1")?.execute([hash(id)])?;
    Ok(())
}
