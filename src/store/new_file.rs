//! A file that gets its name when it is whole. Until then it lies beside it under another, which says that it is unfinished.
//!
//! In: the name that it is to have. Out: a private file to write to. What has the name by then stays as it is.
//! Drops: what was written and not published.
//! Must not know: what is written.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use uuid::Uuid;

use crate::store::{StoreError, failure};

/// What SQLite may leave beside a database.
pub(super) const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A file that is being written.
pub(super) struct NewFile {
    name: PathBuf,
    unfinished: PathBuf,
}

impl NewFile {
    /// Begins the file that is to be called `name`.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::NoRoom`], [`StoreError::NoAccess`].
    pub fn begin(name: &Path) -> Result<(Self, File), StoreError> {
        if name.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(name.to_owned()));
        }
        let unfinished = beside(name, &format!(".{}.unfinished", Uuid::new_v4().simple()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished);
        let file = file.map_err(|error| failure::of_new_file(name, &error))?;
        Ok((Self { name: name.to_owned(), unfinished }, file))
    }

    /// Where it lies until it is published.
    pub fn unfinished(&self) -> &Path {
        &self.unfinished
    }

    /// Gives the file its name, for good.
    ///
    /// # Errors
    /// As [`begin`](Self::begin): somebody else may have taken the name meanwhile.
    pub fn publish(self) -> Result<(), StoreError> {
        let named = match renameat_with(CWD, &self.unfinished, CWD, &self.name, RenameFlags::NOREPLACE) {
            // Network file systems do not know how.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.named_otherwise(),
            renamed => renamed.map_err(io::Error::from),
        };
        let parent = self.name.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let published = named.and_then(|()| {
            let synced = File::open(parent).and_then(|directory| directory.sync_all());
            // Some file systems have no directories to sync.
            let synced = synced.or_else(|error| if error.kind() == io::ErrorKind::InvalidInput { Ok(()) } else { Err(error) });
            // Whoever is told of an error must not find the file all the same.
            synced.inspect_err(|_| drop(std::fs::remove_file(&self.name)))
        });
        published.map_err(|error| failure::of_new_file(&self.name, &error))
    }
}

impl NewFile {
    /// By a second name or, where a file has but one, in place of an empty file that nobody else made.
    fn named_otherwise(&self) -> io::Result<()> {
        match std::fs::hard_link(&self.unfinished, &self.name) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.name)?;
                std::fs::rename(&self.unfinished, &self.name).inspect_err(|_| drop(std::fs::remove_file(&self.name)))
            }
            linked => linked,
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // What is not there any more was published; a leftover that cannot be removed is seen beside the others.
        for side in SIDE_FILES.into_iter().chain([""]) {
            let _ = std::fs::remove_file(beside(&self.unfinished, side));
        }
    }
}

pub(super) fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
