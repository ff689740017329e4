//! `doorward gallery backup` and `restore`: the database as one file, and back. They work on the data
//! directory itself, without asking the daemon.
//!
//! In: the configuration, a file. Out: a backup with its checksum; a data directory put back.
//! Drops: nothing.
//! Must not know: what a backup looks like inside.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::super::output::{Output, spinner};
use super::super::serve::ConfigOptions;
use crate::shutdown::Signals;
use crate::store;

/// Writes everything the daemon keeps to one file, while it runs
///
/// Run it as the daemon's user and with the daemon's configuration. The file holds faces, names, events and
/// the cameras' passwords: keep it as safe as the data directory. Its checksum is written beside it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo -u doorward doorward gallery backup /backup/monday.db --config /etc/doorward/doorward.toml
  cd /backup && sha256sum --check monday.db.sha256")]
pub struct Backup {
    /// The file to write; it must not exist
    file: PathBuf,
    #[command(flatten)]
    config: ConfigOptions,
}

/// Puts a backup back, while the daemon is stopped
///
/// Whoever was erased since the backup was taken is erased from it. The database that was there is kept
/// beside it, to be deleted once all is well. Event sequences begin a new epoch.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  systemctl stop doorward
  sudo -u doorward doorward gallery restore /backup/monday.db --config /etc/doorward/doorward.toml
  systemctl start doorward")]
pub struct Restore {
    /// A backup, with its checksum beside it
    file: PathBuf,
    #[command(flatten)]
    config: ConfigOptions,
}

impl Backup {
    /// Does what was asked.
    ///
    /// # Errors
    /// What the store says; no file is left then.
    pub async fn run(self, out: Output) -> anyhow::Result<()> {
        let config = self.config.load()?;
        // Whoever ends it early must not find half of everybody's faces beside the backup that is not there.
        let stop = Signals::listen()?.stop();
        let waiting = spinner("writing the backup");
        let file = self.file.clone();
        let written = spawn_blocking(move || store::back_up(&config.data_dir, &file, &|| stop.is_cancelled())).await;
        waiting.finish_and_clear();
        let facts = written??;
        if out.json {
            return out.object(&json!({ "file": self.file, "version": facts.version, "subjects": facts.subjects, "samples": facts.samples, "bytes": facts.bytes }));
        }
        out.line(&format!(
            "{}: gallery version {} with {} subjects and {} photos, {} bytes; its checksum lies beside it",
            self.file.display(),
            facts.version,
            facts.subjects,
            facts.samples,
            facts.bytes
        ))
    }
}

impl Restore {
    /// Does what was asked.
    ///
    /// # Errors
    /// What the store says; nothing was changed then.
    pub fn run(self, out: Output) -> anyhow::Result<()> {
        let config = self.config.load()?;
        let waiting = spinner("checking and restoring the backup");
        let restored = store::restore(&config.data_dir, &self.file);
        waiting.finish_and_clear();
        let restored = restored?;
        let facts = &restored.facts;
        if out.json {
            return out.object(&json!({
                "version": facts.version, "subjects": facts.subjects, "samples": facts.samples,
                "erased_again": restored.erased_again, "replaced": restored.replaced, "erasures_unknown": restored.erasures_unknown,
            }));
        }
        out.line(&format!(
            "restored: gallery version {} with {} subjects and {} photos; start the daemon",
            facts.version, facts.subjects, facts.samples
        ))?;
        if restored.erased_again > 0 {
            out.line(&format!("{} subjects had been erased since and were erased from it", restored.erased_again))?;
        }
        if let Some(reason) = &restored.erasures_unknown {
            out.line(&format!("who was erased since the backup is unknown ({reason}): erase them again by hand"))?;
        }
        match &restored.replaced {
            Some(replaced) => out.line(&format!("the database that was there is now {}; delete it once all is well", replaced.display())),
            None => Ok(()),
        }
    }
}
