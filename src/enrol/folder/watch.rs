//! When the enrolment folder is to be read again by itself.
//!
//! In: a path, an interval. Out: a wait that ends when names, sizes or times below the folder have
//! changed since it was read, and have kept still for one interval: whoever copies photos is not
//! interrupted in the middle. Nothing is opened for it, and network file systems, which tell nobody of
//! changes, are seen too. A folder of which the disk does not give a file is read again more and more rarely.
//! Drops: a folder that cannot be looked into counts as one that has not changed; it is told once.
//! Must not know: subjects, the store, what reading the folder does.

#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::{ENTRIES_MAX, READ_FAILED, sorted_entries};
use crate::enrol::{EnrolError, FileRemark, ReloadReport};

/// Refusals that the next reload does not repeat.
pub(in super::super) const PASSING: [&str; 3] = ["RELOAD_FULL", "CHANGED_MEANWHILE", READ_FAILED];

/// A disk that does not give a file may do so again, or never: everything is read for each try.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// How the folder looks from outside: the names, sizes, times and inodes of all that lies in it.
type Look = [u8; 32];

/// Watches the enrolment folder.
pub struct FolderWatch {
    /// The folder, and when to look at it; `None` watches nothing.
    looks: Option<(PathBuf, Interval)>,
    /// As it was when it was last read.
    read: Option<Look>,
    /// As it was when it was last looked at.
    seen: Option<Look>,
    /// When what was read is read again although it looks the same, and how long that is after the last time.
    again: Option<(Instant, Duration)>,
    is_unreadable: bool,
}

impl FolderWatch {
    /// A watch over a folder that was not read yet: the first change is what lies there. Without a
    /// folder, or every 0 s, nothing is watched.
    pub fn over(folder: Option<PathBuf>, every: Duration) -> Self {
        let looks = folder.filter(|_| !every.is_zero()).map(|folder| {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            (folder, ticks)
        });
        Self { looks, read: None, seen: None, again: None, is_unreadable: false }
    }

    /// Waits until the folder is to be read. Nothing is lost when the wait is dropped.
    pub async fn changed(&mut self) {
        loop {
            let Some((folder, ticks)) = &mut self.looks else { return std::future::pending().await };
            ticks.tick().await;
            let folder = folder.clone();
            let look = match tokio::task::spawn_blocking(move || look(&folder)).await {
                Ok(look) => look,
                Err(ended) => Err(io::Error::other(ended)),
            };
            if self.is_due(look) {
                return;
            }
        }
    }

    /// Takes in how reading it ended. What may end better by itself is tried again.
    pub fn note(&mut self, reload: &Result<ReloadReport, EnrolError>) {
        let passing = |file: &&FileRemark| PASSING.contains(&file.reason);
        let (is_settled, is_unread) = match reload {
            Ok(report) => {
                let mut passing = report.refused.iter().filter(passing).map(|file| file.reason);
                (passing.all(|reason| reason == READ_FAILED), report.refused.iter().any(|file| file.reason == READ_FAILED))
            }
            Err(error) => (matches!(error, EnrolError::MassRemoval { .. }), false),
        };
        let last_wait = self.again.filter(|_| self.read.is_some() && self.read == self.seen).map(|(_, wait)| wait);
        let every = self.looks.as_ref().map_or(RETRY_WAIT_MAX, |(_, ticks)| ticks.period());
        let wait = last_wait.map_or(every, |wait| (wait * 2).min(RETRY_WAIT_MAX));
        self.again = is_unread.then(|| (Instant::now() + wait, wait));
        self.read = self.seen.filter(|_| is_settled);
    }

    fn is_due(&mut self, look: io::Result<Look>) -> bool {
        match look {
            Ok(look) => {
                self.is_unreadable = false;
                let keeps_still = self.seen.replace(look) == Some(look);
                let is_to_be_tried_again = || self.again.is_some_and(|(at, _)| at <= Instant::now());
                keeps_still && (self.read != Some(look) || is_to_be_tried_again())
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_unreadable, true) {
                    tracing::warn!(%error, "the enrolment folder cannot be watched until this is mended");
                }
                false
            }
        }
    }
}

fn look(root: &Path) -> io::Result<Look> {
    let (mut hash, mut entries_left) = (Sha256::new(), ENTRIES_MAX);
    for subject in sorted_entries(root, &mut entries_left)? {
        add(&mut hash, &subject)?;
        if !subject.file_type()?.is_dir() {
            continue;
        }
        match sorted_entries(&subject.path(), &mut entries_left) {
            Ok(files) => files.iter().try_for_each(|file| add(&mut hash, file))?,
            // The reload says what is wrong with this one.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => hash.update([1]),
            Err(error) => return Err(error),
        }
    }
    Ok(hash.finalize().into())
}

/// Adds what tells this entry from another one, or from itself as it was.
fn add(hash: &mut Sha256, entry: &std::fs::DirEntry) -> io::Result<()> {
    let (name, about) = (entry.file_name(), entry.metadata()?);
    let name = name.as_encoded_bytes();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    for number in [about.ino(), about.size(), u64::from(about.mode())] {
        hash.update(number.to_le_bytes());
    }
    for number in [about.mtime(), about.mtime_nsec()] {
        hash.update(number.to_le_bytes());
    }
    Ok(())
}
