//! `doorward reload`: has the daemon read its enrolment folder again.
//!
//! In: options. Out: one call of `ReloadGallery` and what changed.
//! Drops: nothing; every refused or doubtful file is told.
//! Must not know: the folder.

use clap::Args;

use super::client::{ClientOptions, request_id};
use super::failure::PartlyRefused;
use super::output::{Output, Table, spinner};
use crate::pb;

/// Reads the enrolment folder again while recognition goes on
///
/// The folder is people_dir of the daemon's configuration: people/<subject>/<photo>. Only people
/// who came from the folder are touched.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward reload --dry-run        what would change
  doorward reload
  doorward reload --allow-mass-removal")]
pub struct Reload {
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Allow more than a tenth of the people to be removed
    #[arg(long)]
    allow_mass_removal: bool,
}

impl Reload {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, or that it cannot be reached.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        let daemon = client.connect().await?;
        let request =
            pb::ReloadGalleryRequest { allow_mass_removal: self.allow_mass_removal, dry_run: self.dry_run, request_id: request_id() };
        let waiting = spinner("reading the enrolment folder");
        let response = daemon.gallery().reload_gallery(request).await;
        waiting.finish_and_clear();
        let response = response?.into_inner();
        let outcome = if response.refused_files.is_empty() { Ok(()) } else { Err(PartlyRefused.into()) };
        if out.json {
            out.message("ReloadGalleryResponse", &response)?;
            return outcome;
        }
        let what = if self.dry_run { "would change (nothing was changed)" } else { "changed" };
        out.line(&format!(
            "{what}: {} added, {} changed, {} removed, {} photos unchanged; gallery version {}",
            response.subjects_added,
            response.subjects_changed,
            response.subjects_removed,
            response.samples_unchanged,
            response.gallery_version
        ))?;
        let (mut refused, mut doubtful) =
            (Table::new(["REFUSED FILE", "REASON", "MESSAGE"]), Table::new(["DOUBTFUL FILE", "REASON", "MESSAGE"]));
        let any = (!response.refused_files.is_empty(), !response.doubtful_files.is_empty());
        response.refused_files.into_iter().for_each(|file| refused.row([file.path, file.reason, file.message]));
        response.doubtful_files.into_iter().for_each(|file| doubtful.row([file.path, file.reason, file.message]));
        if any.0 {
            out.table(&refused)?;
        }
        if any.1 {
            out.table(&doubtful)?;
        }
        outcome
    }
}
