//! What SQLite and the file system say, in the store's own errors.
//!
//! In: their errors. Out: [`StoreError`] by what the caller does. No message holds a value that
//! was stored: `SQLite` names tables and columns only.
//! Must not know: what was attempted.

use std::fmt::Display;
use std::io;
use std::path::Path;

use rusqlite::{ErrorCode, ffi};

use crate::store::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as Sql;
        // Before anything else, since whatever is called next may set it anew.
        let system = io::Error::last_os_error().kind();
        match &error {
            Sql::FromSqlConversionFailure(..) | Sql::IntegralValueOutOfRange(..) | Sql::InvalidColumnType(..) => damaged(error),
            Sql::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => damaged(error),
                _ if found_no_room(failure, system) => Self::Full,
                ErrorCode::ConstraintViolation => Self::Contradiction(error.to_string()),
                _ => Self::Failed(error.to_string()),
            },
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Whether a failure of `SQLite`'s is want of room, given what the system said last on this thread. `SQLite` has a word of its own for
/// a disk that is full while it writes; of a quota that is used up, and of a full disk below its shared memory, it says only
/// that writing failed. The system's word is taken for such failures alone: others may have left it as it was.
fn found_no_room(failure: &ffi::Error, system: io::ErrorKind) -> bool {
    const OF_WRITING: [i32; 5] = [
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_FSYNC,
        ffi::SQLITE_IOERR_DIR_FSYNC,
        ffi::SQLITE_IOERR_TRUNCATE,
        ffi::SQLITE_IOERR_SHMSIZE,
    ];
    failure.code == ErrorCode::DiskFull || (OF_WRITING.contains(&failure.extended_code) && is_want_of_room(system))
}

/// Whether the system refused for want of room: the disk's, or what a quota leaves of it.
fn is_want_of_room(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Something stored is not what was written.
pub(super) fn damaged(reason: impl Display) -> StoreError {
    StoreError::Damaged { reason: reason.to_string() }
}

/// The file system refused the new file `path`, which may lie on another disk than the data directory.
pub(super) fn of_new_file(path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        kind if is_want_of_room(kind) => StoreError::NoRoom(path.to_owned()),
        io::ErrorKind::AlreadyExists => StoreError::Exists(path.to_owned()),
        _ => StoreError::NoAccess { path: path.to_owned(), reason: error.to_string() },
    }
}

/// The file system refused `path`.
pub(super) fn of_file(path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        kind if is_want_of_room(kind) => StoreError::Full,
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => StoreError::NotADirectory(path.to_owned()),
        _ => StoreError::NoAccess { path: path.to_owned(), reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux numbers them.
    const ENOSPC: i32 = 28;
    const EDQUOT: i32 = 122;
    const EIO: i32 = 5;

    fn judged(extended_code: i32, errno: i32) -> bool {
        found_no_room(&ffi::Error::new(extended_code), io::Error::from_raw_os_error(errno).kind())
    }

    #[test]
    fn a_quota_that_is_used_up_and_a_disk_without_room_for_shared_memory_are_a_full_disk() {
        assert!(judged(ffi::SQLITE_FULL, EIO), "the word of SQLite's own needs no other");
        assert!(judged(ffi::SQLITE_IOERR_WRITE, EDQUOT));
        assert!(judged(ffi::SQLITE_IOERR_FSYNC, EDQUOT), "some file systems say it when they are asked to sync");
        assert!(judged(ffi::SQLITE_IOERR_SHMSIZE, ENOSPC));
        assert!(!judged(ffi::SQLITE_IOERR_WRITE, EIO), "a disk that fails is not full");
        assert!(!judged(ffi::SQLITE_IOERR_READ, ENOSPC), "the system said that of something else, earlier");
        assert!(!judged(ffi::SQLITE_BUSY, EDQUOT));
    }
}
