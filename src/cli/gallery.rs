//! `doorward gallery`: what the gallery holds, held, and how to go back.
//!
//! In: versions and options. Out: the answers of `GetGallery`, `ListGalleryVersions`,
//! `CompareGalleryVersions`, `RollbackGallery`, `WatchGallery`, `ImportGallery`
//! and `ReencodeGallery`.
//! Drops: nothing; lists are read to their last page.
//! Must not know: how the gallery is searched.

mod backup;
mod check;
mod portable;
mod reencode;

use clap::{Args, Subcommand};

use super::client::{ClientOptions, Daemon, request_id};
use super::output::{Output, Table, moment, spinner};
use super::threshold;
use crate::pb;

/// Shows, checks and compares the gallery and its versions; backs up, restores, exports, imports, encodes anew
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward gallery                      size, version, thresholds and the error rates they stand for
  doorward gallery versions
  doorward gallery diff 120             what changed since version 120
  doorward gallery rollback 120 --dry-run
  doorward gallery check                people who may be taken for each other
  doorward gallery backup /backup/monday.db
  doorward gallery export /backup/people.tar
  doorward gallery reencode --encoder sface-2024
  doorward gallery --json | jq .subject_count")]
pub struct Gallery {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    Versions(Versions),
    Diff(Diff),
    Rollback(Rollback),
    Watch(Watch),
    Check(check::Check),
    Backup(backup::Backup),
    Restore(backup::Restore),
    Export(portable::Export),
    Import(portable::Import),
    Reencode(reencode::Reencode),
}

/// Lists the versions that can be gone back to, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward gallery versions | head\n  doorward gallery versions --json | jq -r .cause | sort | uniq -c")]
struct Versions {
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
}

/// Tells what differs between two versions
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward gallery diff 120\n  doorward gallery diff 120 140")]
struct Diff {
    /// The earlier version
    from: u64,
    /// The later version; without one, the newest
    to: Option<u64>,
}

/// Makes the gallery hold what it held in an earlier version
///
/// That becomes a new version, at once and as a whole, while recognition goes on. Who was erased
/// since stays erased. Put the enrolment folder right too: the next reload goes by the folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward gallery rollback 120 --dry-run        what would change
  doorward gallery rollback 120")]
struct Rollback {
    /// The version to go back to
    version: u64,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Allow more than a tenth of the people to go
    #[arg(long)]
    allow_mass_removal: bool,
}

/// Prints every new version as it comes, until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward gallery watch\n  doorward gallery watch --after 120 --json")]
struct Watch {
    /// Print the versions after this one first
    #[arg(long, value_name = "VERSION")]
    after: Option<u64>,
}

impl Gallery {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, or that it cannot be reached.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        match self.what {
            None => show(&client.connect().await?, *out).await,
            Some(What::Versions(versions)) => versions.run(&client.connect().await?, *out).await,
            Some(What::Diff(diff)) => diff.run(&client.connect().await?, *out).await,
            Some(What::Rollback(rollback)) => rollback.run(&client.connect().await?, *out).await,
            Some(What::Watch(watch)) => watch.run(&client.connect().await?, *out).await,
            Some(What::Check(check)) => check.run(&client.connect().await?, *out).await,
            Some(What::Backup(backup)) => backup.run(*out).await,
            Some(What::Restore(restore)) => restore.run(*out),
            Some(What::Export(export)) => export.run(*out).await,
            Some(What::Reencode(reencode)) => reencode.run(&client.connect().await?, *out).await,
            Some(What::Import(import)) => import.run(&client.connect().await?, *out).await,
        }
    }
}

async fn show(daemon: &Daemon, out: Output) -> anyhow::Result<()> {
    let gallery = daemon.gallery().get_gallery(pb::GetGalleryRequest::default()).await?.into_inner();
    if out.json {
        return out.message("GetGalleryResponse", &gallery);
    }
    let mut table = Table::of_facts();
    table.fact("version", gallery.version.to_string());
    table.fact("subjects", gallery.subject_count.to_string());
    table.fact("templates", gallery.template_count.to_string());
    for (name, told) in gallery.thresholds.iter().map(threshold::fact) {
        table.fact(&name, told);
    }
    table.fact("calibration", gallery.calibration.as_ref().map(threshold::calibration).unwrap_or_default());
    table.fact("template space", &gallery.template_space);
    if gallery.foreign_template_count > 0 {
        let advice = "of another encoder: they match nothing until `doorward gallery reencode` has made templates anew";
        table.fact("foreign templates", format!("{} {advice}", gallery.foreign_template_count));
    }
    out.table(&table)
}

impl Versions {
    async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let mut table = Table::new(["VERSION", "COMMITTED", "BY", "SUBJECTS", "CHANGE"]);
        let (mut left, mut page_token) = (self.limit, String::new());
        while left > 0 {
            let request = pb::ListGalleryVersionsRequest { page_size: i32::try_from(left.min(1_000)).unwrap_or(1_000), page_token };
            let page = daemon.gallery().list_gallery_versions(request).await?.into_inner();
            left = left.saturating_sub(page.versions.len());
            for version in page.versions {
                if out.json {
                    out.message("GalleryVersion", &version)?;
                } else {
                    table.row(cells(&version));
                }
            }
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        if out.json { Ok(()) } else { out.table(&table) }
    }
}

fn cells(version: &pb::GalleryVersion) -> [String; 5] {
    [
        version.version.to_string(),
        moment(version.commit_time.as_ref()),
        version.cause.clone(),
        version.subject_count.to_string(),
        change(version),
    ]
}

/// `subjects +2 ~1 -1, photos +3 -1`, without what is nothing.
fn change(version: &pb::GalleryVersion) -> String {
    let signed = |of: &str, counts: [(char, u32); 3]| {
        let told: String = counts.iter().filter(|(_, count)| *count > 0).map(|(sign, count)| format!(" {sign}{count}")).collect();
        (!told.is_empty()).then(|| format!("{of}{told}"))
    };
    let subjects = [('+', version.subjects_added), ('~', version.subjects_changed), ('-', version.subjects_removed)];
    let photos = [('+', version.samples_added), ('~', 0), ('-', version.samples_removed)];
    let told: Vec<String> = signed("subjects", subjects).into_iter().chain(signed("photos", photos)).collect();
    if told.is_empty() { "-".to_owned() } else { told.join(", ") }
}

impl Diff {
    async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let mut table = Table::new(["SUBJECT", "CHANGE", "PHOTOS ADDED", "PHOTOS REMOVED"]);
        let (mut page_token, mut erased) = (String::new(), 0);
        loop {
            let request = pb::CompareGalleryVersionsRequest {
                from_version: self.from,
                to_version: self.to.unwrap_or_default(),
                page_size: 1_000,
                page_token,
            };
            let page = daemon.gallery().compare_gallery_versions(request).await?.into_inner();
            for difference in page.differences {
                if out.json {
                    out.message("SubjectDifference", &difference)?;
                    continue;
                }
                let change = difference.change().as_str_name().trim_start_matches("SUBJECT_CHANGE_").to_lowercase();
                table.row([difference.id, change, difference.samples_added.to_string(), difference.samples_removed.to_string()]);
            }
            erased = erased.max(page.subjects_erased);
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        if out.json {
            return Ok(());
        }
        out.table(&table)?;
        if erased > 0 { out.line(&format!("{erased} subjects have been erased since: nothing is known of them")) } else { Ok(()) }
    }
}

impl Rollback {
    async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let request = pb::RollbackGalleryRequest {
            version: Some(self.version),
            allow_mass_removal: self.allow_mass_removal,
            dry_run: self.dry_run,
            request_id: request_id(),
        };
        let waiting = spinner("going back");
        let response = daemon.gallery().rollback_gallery(request).await;
        waiting.finish_and_clear();
        let done = response?.into_inner();
        if out.json {
            return out.message("RollbackGalleryResponse", &done);
        }
        let what = if self.dry_run { "would change (nothing was changed)" } else { "changed" };
        out.line(&format!(
            "{what}: subjects {} restored, {} changed, {} removed; photos {} restored, {} removed; gallery version {}",
            done.subjects_restored,
            done.subjects_changed,
            done.subjects_removed,
            done.samples_restored,
            done.samples_removed,
            done.gallery_version
        ))?;
        if done.subjects_erased > 0 {
            out.line(&format!("{} subjects have been erased since and stay so", done.subjects_erased))?;
        }
        Ok(())
    }
}

impl Watch {
    async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let request = pb::WatchGalleryRequest { after_version: self.after };
        let mut stream = daemon.gallery().watch_gallery(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            for version in response.versions {
                if out.json {
                    out.message("GalleryVersion", &version)?;
                } else {
                    out.line(&cells(&version).join("  "))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_tells_what_changed_and_nothing_else() {
        let version = pb::GalleryVersion { subjects_added: 2, subjects_removed: 1, samples_added: 3, ..pb::GalleryVersion::default() };
        assert_eq!(change(&version), "subjects +2 -1, photos +3");
        assert_eq!(change(&pb::GalleryVersion::default()), "-");
    }
}
