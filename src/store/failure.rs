//! What SQLite and the file system say, in the store's own errors.
//!
//! In: their errors. Out: [`StoreError`] by what the caller does. No message holds a value that
//! was stored: `SQLite` names tables and columns only.
//! Must not know: what was attempted.

use std::fmt::Display;
use std::io;
use std::path::Path;

use rusqlite::ErrorCode;

use crate::store::StoreError;

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error as Sql;
        match &error {
            Sql::FromSqlConversionFailure(..) | Sql::IntegralValueOutOfRange(..) | Sql::InvalidColumnType(..) => damaged(error),
            Sql::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => damaged(error),
                ErrorCode::DiskFull => Self::Full,
                ErrorCode::ConstraintViolation => Self::Contradiction(error.to_string()),
                _ => Self::Failed(error.to_string()),
            },
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Something stored is not what was written.
pub(super) fn damaged(reason: impl Display) -> StoreError {
    StoreError::Damaged { reason: reason.to_string() }
}

/// The file system refused the new file `path`, which may lie on another disk than the data directory.
pub(super) fn of_new_file(path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::NoRoom(path.to_owned()),
        io::ErrorKind::AlreadyExists => StoreError::Exists(path.to_owned()),
        _ => StoreError::NoAccess { path: path.to_owned(), reason: error.to_string() },
    }
}

/// The file system refused `path`.
pub(super) fn of_file(path: &Path, error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full,
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => StoreError::NotADirectory(path.to_owned()),
        _ => StoreError::NoAccess { path: path.to_owned(), reason: error.to_string() },
    }
}
