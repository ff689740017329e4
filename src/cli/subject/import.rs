//! `doorward subject import`: enrols everybody in a folder, and goes on where an earlier run ended.
//!
//! In: `DIR/<subject>/<photo>`. Out: one call of `ImportSubjects`; a report, a summary.
//! In memory: of each photo its path; at most [`AHEAD_MAX`] photos are read ahead of what the daemon takes.
//! Drops: nothing; a photo that cannot be read is a row of the report, and the others go on.
//! Must not know: how a photo becomes a template.

mod listing;
mod tally;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::super::client::ClientOptions;
use super::super::failure::PartlyRefused;
use super::super::output::{Output, spinner};
use crate::pb;
use listing::{Found, Listing};
use tally::Tally;

/// Photos that are read ahead.
const AHEAD_MAX: usize = 2;

/// Enrols everybody in a folder: DIR/<subject>/<photo>
///
/// Each photo is taken or refused on its own; a directory's name is its subject's id. Run it again to go
/// on where it ended, however it ended: photos that are there already are not looked at again. Cameras
/// go first, so that recognition is not delayed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward subject import people/
  doorward subject import people/ --report refused.csv --watchlist staff
  doorward subject import people/ --json --all | jq -r 'select(.status) | .status' | sort | uniq -c

Exit codes: 0 every photo is in, 4 some were refused and the others are in, 1 and 3 it ended early: run it
again.")]
pub struct Import {
    /// The folder
    dir: PathBuf,
    /// A CSV file to write, with a row for each photo that was refused
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Report every photo, not only those that were refused (with --report or --json)
    #[arg(long)]
    all: bool,
    /// A named set that new people stand on (repeatable)
    #[arg(long = "watchlist", value_name = "LIST")]
    watchlists: Vec<String>,
    /// Where the consent of new people is filed
    #[arg(long, value_name = "REFERENCE", default_value = "", hide_default_value = true)]
    consent: String,
    /// Take photos although the face is close to another subject's
    #[arg(long)]
    allow_duplicate: bool,
    /// Take photos although the face does not look like the person's other photos
    #[arg(long)]
    allow_inconsistent: bool,
}

impl Import {
    /// Sends every photo, and tells what became of each.
    pub async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let waiting = spinner("listing the folder");
        let listing = Listing::of(&self.dir);
        waiting.finish_and_clear();
        let Listing { photos, refused } = listing.with_context(|| format!("cannot list {}", self.dir.display()))?;
        if photos.is_empty() && refused.is_empty() {
            anyhow::bail!("{} holds no photos: put them into {}", self.dir.display(), self.dir.join("<subject>/<photo>").display());
        }
        let daemon = client.connect().await?;
        let mut tally = Tally::new(photos.len() + refused.len(), self.report.clone(), (self.all, out))?;
        tally.take_all(refused)?;
        let (requests, outgoing) = mpsc::channel(AHEAD_MAX);
        let mut answers = daemon.gallery().import_subjects(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = answers.message().await?.unwrap_or_default();
        let image_bytes_max = first.image_bytes_max.context("the daemon does not say how large a photo may be")?;
        let (unread, mut local) = mpsc::channel(AHEAD_MAX);
        let reader = Reader { import: self, image_bytes_max, requests, unread };
        let reading = tokio::task::spawn_blocking(move || reader.run(&photos));
        let ended = loop {
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => tally.take_all(answer.results)?,
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                },
                Some(refused) = local.recv() => tally.take_all(vec![refused])?,
            }
        };
        // The reader notices that nobody takes its photos any more.
        drop(answers);
        while let Some(refused) = local.recv().await {
            tally.take_all(vec![refused])?;
        }
        reading.await?;
        let progress = tally.progress();
        let refused = tally.finish()?;
        ended.with_context(|| format!("the import ended early, {progress}; run it again for the others"))?;
        anyhow::ensure!(progress.is_complete(), "the daemon ended the import early, {progress}; run it again for the others");
        if refused { Err(PartlyRefused.into()) } else { Ok(()) }
    }
}

/// Reads photos one by one, on a thread of its own.
struct Reader {
    import: Import,
    image_bytes_max: u64,
    requests: mpsc::Sender<pb::ImportSubjectsRequest>,
    /// Photos that cannot be sent.
    unread: mpsc::Sender<pb::ImportResult>,
}

impl Reader {
    /// Sends photos until there are no more, or nobody takes them.
    fn run(self, photos: &[Found]) {
        for photo in photos {
            let is_taken = match read(&self.import.dir.join(photo.path()), self.image_bytes_max) {
                Ok(image) => self.requests.blocking_send(self.request(photo, image)).is_ok(),
                Err((reason, message)) => {
                    self.unread.blocking_send(listing::refused(&photo.path(), photo.subject.as_str(), (reason, &message))).is_ok()
                }
            };
            if !is_taken {
                return;
            }
        }
    }

    fn request(&self, photo: &Found, image: Vec<u8>) -> pb::ImportSubjectsRequest {
        let id = photo.subject.to_string();
        let subject = pb::Subject {
            display_name: id.clone(),
            id,
            watchlists: self.import.watchlists.clone(),
            consent_reference: self.import.consent.clone(),
            ..pb::Subject::default()
        };
        pb::ImportSubjectsRequest {
            item_key: photo.path(),
            subject: Some(subject),
            image,
            allow_duplicate: self.import.allow_duplicate,
            allow_inconsistent: self.import.allow_inconsistent,
        }
    }
}

/// A photo's bytes, or why it cannot be sent.
fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, (&'static str, String)> {
    use std::io::Read;
    let mut image = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut image));
    match read {
        Err(error) => Err(("UNREADABLE", error.to_string())),
        Ok(length) if length as u64 > bytes_max => Err(("BAD_IMAGE", format!("give a photo of at most {bytes_max} bytes"))),
        Ok(0) => Err(("BAD_IMAGE", "the file is empty".to_owned())),
        Ok(_) => Ok(image),
    }
}
