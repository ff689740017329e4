//! Remembers in a file how far a stream was read, so that the next run goes on from there.
//!
//! In: cursors. Out: the file, which always holds one whole cursor: it is replaced, never written into.
//! Must not know: what a cursor says.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::Context;

/// Where a stream goes on.
pub struct Place {
    file: Option<PathBuf>,
    cursor: Option<String>,
    begun: bool,
    moved: bool,
}

impl Place {
    /// The place that `file` remembers; none yet when it is not there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of(file: Option<PathBuf>) -> anyhow::Result<Self> {
        let Some(path) = &file else { return Ok(Self { file, cursor: None, begun: false, moved: false }) };
        let cursor = match std::fs::read_to_string(path) {
            Ok(text) => Some(text.trim().to_owned()).filter(|cursor| !cursor.is_empty()),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read --resume {}", path.display())),
        };
        Ok(Self { file, cursor, begun: false, moved: false })
    }

    /// The cursor to go on from; `None` before the first.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Whether the stream has said where it is.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether it has moved since this was asked last.
    pub fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Goes on from `cursor` from now on, after a crash too: it is on disk when this returns.
    ///
    /// # Errors
    /// The file cannot be written: going on would repeat or lose events at the next start.
    pub fn reached(&mut self, cursor: &str) -> anyhow::Result<()> {
        self.begun = true;
        if cursor.is_empty() || self.cursor() == Some(cursor) {
            return Ok(());
        }
        self.cursor = Some(cursor.to_owned());
        self.moved = true;
        let Some(path) = &self.file else { return Ok(()) };
        let part = path.with_extension("part");
        let write = || {
            let mut file = File::create(&part)?;
            writeln!(file, "{cursor}")?;
            file.sync_all()?;
            std::fs::rename(&part, path)
        };
        write().with_context(|| format!("cannot write --resume {}", path.display()))
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
        assert_eq!(Place::of(Some(file)).expect("it is readable").cursor(), Some("e-2"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1, "nothing else is left");
    }

    #[test]
    fn a_place_that_cannot_be_remembered_is_an_error() {
        let mut place = Place::of(Some("/nowhere/at/all".into())).expect("none yet");
        assert!(place.reached("e-1").expect_err("no folder").to_string().contains("/nowhere/at/all"));
    }
}
