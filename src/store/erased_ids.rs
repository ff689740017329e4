//! Which ids nobody may be enrolled by unasked: whoever was called so was erased.
//!
//! In: ids of subjects that are erased or enrolled. Out: hashes of ids, since the names are erased, too.
//! Drops: an id that somebody is enrolled by again. One whose directory was away is free for the enrolment folder alone:
//! that it is away says nothing of what an import brings.
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
    /// The ids of those who were erased, that nobody was enrolled by since, and whose directories have not been away.
    pub async fn erased_ids(&self) -> Result<HashSet<IdHash>, StoreError> {
        self.0.readers.read(|db| hashes(db, "SELECT id_sha256 FROM erased_ids WHERE NOT was_away").map(HashSet::from_iter)).await
    }

    /// Whether whoever was called `id` was erased, and nobody was enrolled by it since.
    pub async fn is_erased_id(&self, id: &SubjectId) -> Result<bool, StoreError> {
        let id = id.clone();
        self.0.readers.read(move |db| is_noted(db, &id)).await
    }

    /// Frees ids for the folder: their directories were away, so whoever is put there next was put there since.
    pub async fn free_erased_ids(&self, ids: Vec<IdHash>) -> Result<(), StoreError> {
        let free = move |db: &Connection| {
            let mut update = db.prepare_cached("UPDATE erased_ids SET was_away = 1 WHERE id_sha256 = ?1")?;
            ids.iter().try_for_each(|id| update.execute([id]).map(drop))?;
            Ok(())
        };
        self.0.writer.write(Effect::Keeps, free).await
    }
}

pub(super) fn all(db: &Connection) -> Result<Vec<IdHash>, StoreError> {
    hashes(db, "SELECT id_sha256 FROM erased_ids")
}

fn hashes(db: &Connection, query: &str) -> Result<Vec<IdHash>, StoreError> {
    db.prepare_cached(query)?.query_and_then([], |row| Ok(row.get(0)?))?.collect()
}

pub(super) fn is_noted(db: &Connection, id: &SubjectId) -> Result<bool, StoreError> {
    Ok(db.prepare_cached("SELECT 1 FROM erased_ids WHERE id_sha256 = ?1")?.exists([hash(id)])?)
}

pub(super) fn note(db: &Connection, id: &IdHash) -> Result<(), StoreError> {
    db.prepare_cached("INSERT INTO erased_ids (id_sha256) VALUES (?1) ON CONFLICT DO UPDATE SET was_away = 0")?.execute([id])?;
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
