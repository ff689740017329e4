//! Remembers in a file how far a stream was read, so that the next run goes on from there.
//!
//! In: cursors. Out: the file, which always holds one whole cursor: it is replaced, never written into.
//! Must not know: what a cursor says.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::failure::Usage;

/// Where a stream goes on.
pub struct Place {
    file: Option<PathBuf>,
    cursor: Option<String>,
    begun: bool,
    heard: bool,
    /// Held as long as this lives: two commands on one file would both act.
    _lock: Option<File>,
}

impl Place {
    /// The place that `file` remembers; none yet when it is not there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(file: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = &file else { return Ok(Self { file, cursor: None, begun: false, heard: false, _lock: None }) };
        let lock = Some(lock(path)?);
        let cursor = match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => {
                let advice = "it may have been cut; delete it to begin anew, which may miss or repeat events";
                return Err(Usage(format!("--resume {} holds no cursor: {advice}", path.display())).into());
            }
            Ok(text) => Some(text.trim().to_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read --resume {}", path.display())),
        };
        Ok(Self { file, cursor, begun: false, heard: false, _lock: lock })
    }

    /// The cursor to go on from; `None` before the first.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Whether the stream has said where it is.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether the stream has said anything since this was asked last.
    pub fn has_heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }

    /// Goes on from `cursor` from now on, after a crash too: it is on disk when this returns.
    ///
    /// # Errors
    /// The file cannot be written: going on would repeat or lose events at the next start.
    pub fn reached(&mut self, cursor: &str) -> anyhow::Result<()> {
        (self.begun, self.heard) = (true, true);
        if cursor.is_empty() || self.cursor() == Some(cursor) {
            return Ok(());
        }
        self.cursor = Some(cursor.to_owned());
        let Some(path) = &self.file else { return Ok(()) };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
        let mut part = OsString::from(".");
        part.push(path.file_name().unwrap_or_default());
        part.push(format!(".{}.part", std::process::id()));
        let part = folder.join(part);
        let write = || {
            let mut file = File::create(&part)?;
            writeln!(file, "{cursor}")?;
            file.sync_all()?;
            std::fs::rename(&part, path)?;
            // The name, too, must be on disk.
            File::open(folder)?.sync_all()
        };
        write().with_context(|| format!("cannot write --resume {}", path.display()))
    }
}

/// Refuses a file that another command goes on from. The file itself is replaced at each step, so what is
/// locked lies beside it.
fn lock(path: &Path) -> anyhow::Result<File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = File::create(&name).with_context(|| format!("cannot write {}", Path::new(&name).display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(Usage(format!("--resume {} is in use by another command: give each a file of its own", path.display())).into())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", Path::new(&name).display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_run_goes_on_where_the_last_one_was() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("place");
        let mut place = Place::of(Some(file.clone())).expect("none yet");
        assert_eq!(place.cursor(), None);
        for cursor in ["e-1", "e-2", ""] {
            place.reached(cursor).expect("it is writable");
        }
        assert!(Place::of(Some(file.clone())).is_err_and(|error| error.to_string().contains("in use")), "two would both act");
        drop(place);
        assert_eq!(Place::of(Some(file)).expect("it is readable").cursor(), Some("e-2"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 2, "the place, its lock, and nothing else");
    }

    #[test]
    fn a_place_that_was_cut_is_an_error_and_not_a_new_beginning() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("place");
        std::fs::write(&file, "\n").expect("written");
        assert!(Place::of(Some(file)).is_err_and(|error| error.to_string().contains("delete it")));
    }

    #[test]
    fn a_place_that_cannot_be_remembered_is_an_error() {
        let refused = Place::of(Some("/nowhere/at/all".into())).map(|_| ()).expect_err("no folder");
        assert!(refused.to_string().contains("/nowhere/at/all"));
    }
}
