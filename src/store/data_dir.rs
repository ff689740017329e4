//! The data directory: made when it is absent, held by one daemon, closed to other users.
//!
//! In: its path. Out: the lock that holds it, and the database's path. A directory that exists
//! keeps its mode, since the operator may have named one that others use; the files in it are
//! 0600 all the same, and `SQLite` gives its side files the database's mode.
//! Must not know: what is in the database.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::{StoreError, failure};

/// The database's file in the data directory.
pub(super) const DATABASE: &str = "doorward.db";
/// A daemon that ends, or a process that is just being started by this one and still has a copy
/// of its files, lets go of the lock within moments.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(50);

/// Makes `data_dir` if it is absent and holds it until the answer is dropped.
///
/// # Errors
/// [`StoreError::Locked`] when another daemon, or this one, holds it already.
pub(super) fn lock(data_dir: &Path) -> Result<File, StoreError> {
    if !data_dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(|e| failure::of_file(data_dir, &e))?;
    }
    let lock = private_file(&data_dir.join("lock"))?;
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_WAIT),
            Err(TryLockError::Error(error)) => return Err(failure::of_file(data_dir, &error)),
        }
    }
    Err(StoreError::Locked(data_dir.to_owned()))
}

/// The database's path; the file exists after this, empty if it is new.
pub(super) fn database_file(data_dir: &Path) -> Result<PathBuf, StoreError> {
    let path = data_dir.join(DATABASE);
    private_file(&path)?;
    Ok(path)
}

/// Opens or creates a file that only its owner can read and write.
fn private_file(path: &Path) -> Result<File, StoreError> {
    let open = || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(file)
    };
    open().map_err(|e| failure::of_file(path, &e))
}
