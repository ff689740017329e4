//! `doorward gallery export` and `import`: who is known as a file that other tools can read, and back.
//!
//! In: a file. Out: such a file, of the data directory as it is at this moment; or the answers of
//! `ImportGallery`. An export asks no daemon and disturbs none; an import goes through the daemon.
//! Drops: nothing; every refusal is told.
//! Must not know: the file's inside.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio_stream::wrappers::ReceiverStream;

use super::super::client::Daemon;
use super::super::failure::PartlyRefused;
use super::super::output::{Output, progress, spinner};
use super::super::serve::ConfigOptions;
use crate::pb;
use crate::pb::import_gallery_request::Part;
use crate::pb::import_gallery_response::Step;
use crate::shutdown::Signals;
use crate::store;

/// Bytes of a file that are sent in one message: less than the least that a daemon's `server.message_bytes_max` may be.
const CHUNK_BYTES: usize = 32 << 10;
/// Messages that are read ahead of the network.
const CHUNKS_AHEAD: usize = 32;

/// Writes who is known to a file that other tools and other versions can read, while the daemon runs
///
/// A tar of JSON lines, photos as plain files and SHA256SUMS; docs/gallery-file.md describes it. People who
/// were erased or taken out are not in it, nor are events and cameras: for everything, use `backup`. Run it as
/// the daemon's user and with the daemon's configuration. The file holds names and faces: keep it safe.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sudo -u doorward doorward gallery export /backup/people.tar --config /etc/doorward/doorward.toml
  mkdir people && tar -xf people.tar -C people && (cd people && sha256sum --check --quiet SHA256SUMS)")]
pub struct Export {
    /// The file to write; it must not exist
    file: PathBuf,
    /// Leave the photos out: smaller, but no other encoder can make templates from it
    #[arg(long)]
    without_photos: bool,
    #[command(flatten)]
    config: ConfigOptions,
}

/// Takes the people of an exported file in, while recognition goes on
///
/// The whole file is checked first: one that is cut, altered or wrong changes nothing. Then people come in a
/// few at a time, each whole or not at all; run it again after it was interrupted, and it goes on. People who
/// are there stay as they are. Who was erased here, and photos that were, stay out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward gallery import people.tar --dry-run       who would come in, and who would not, and why
  doorward gallery import people.tar")]
pub struct Import {
    /// A file that `doorward gallery export` wrote
    file: PathBuf,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take people although they look like somebody who is enrolled
    #[arg(long)]
    allow_duplicate: bool,
}

impl Export {
    /// Does what was asked.
    ///
    /// # Errors
    /// What the store says; no file is left then.
    pub async fn run(self, out: Output) -> anyhow::Result<()> {
        let config = self.config.load()?;
        // Whoever ends it early must not find half of everybody's faces beside the file that is not there.
        let stop = Signals::listen()?.stop();
        let bar = progress(2, "exporting");
        let (file, photos, told) = (self.file.clone(), !self.without_photos, bar.clone());
        let written = spawn_blocking(move || {
            let mut tell = |done, total| {
                told.set_length(total);
                told.set_position(done);
            };
            store::export(&config.data_dir, store::Export { file: &file, photos, progress: &mut tell, is_stopped: &|| stop.is_cancelled() })
        });
        let written = written.await;
        bar.finish_and_clear();
        let store::ExportFacts { manifest, bytes } = written??;
        if out.json {
            return out.object(&json!({
                "file": self.file, "version": manifest.gallery_version, "subjects": manifest.subjects,
                "samples": manifest.samples, "photos": manifest.photos, "bytes": bytes,
            }));
        }
        out.line(&format!(
            "{}: gallery version {} with {} subjects, {} samples and {} photos, {bytes} bytes",
            self.file.display(),
            manifest.gallery_version,
            manifest.subjects,
            manifest.samples,
            manifest.photos
        ))
    }
}

impl Import {
    /// Does what was asked.
    ///
    /// # Errors
    /// The file cannot be read, or the daemon's refusal.
    pub async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let file = std::fs::File::open(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let chunks = file.metadata()?.len().div_ceil(CHUNK_BYTES as u64);
        let sending = progress(usize::try_from(chunks).unwrap_or(usize::MAX), "sending");
        let (send, parts) = mpsc::channel(CHUNKS_AHEAD);
        let options = pb::ImportGalleryOptions { dry_run: self.dry_run, allow_duplicate: self.allow_duplicate };
        let (name, bar) = (self.file.clone(), sending.clone());
        let reader = tokio::task::spawn_blocking(move || send_all(file, &name, (options, &send, &bar)));
        let answer = daemon.gallery().import_gallery(ReceiverStream::new(parts)).await;
        let told = match answer {
            Ok(steps) => self.tell(steps.into_inner(), (&sending, out)).await,
            Err(status) => Err(status.into()),
        };
        sending.finish_and_clear();
        // A file that could not be read was cut for the daemon: what the disk said explains it.
        reader.await.context("reading the file ended")??;
        told
    }

    async fn tell(
        &self,
        mut steps: tonic::Streaming<pb::ImportGalleryResponse>,
        (sending, out): (&ProgressBar, Output),
    ) -> anyhow::Result<()> {
        let mut bar = ProgressBar::hidden();
        let waiting = spinner("the daemon checks the file");
        let mut report = None;
        while let Some(response) = steps.message().await? {
            waiting.finish_and_clear();
            sending.finish_and_clear();
            match response.step {
                Some(Step::Progress(step)) => {
                    if bar.is_hidden() {
                        bar = progress(usize::try_from(step.subjects_total).unwrap_or(usize::MAX), "importing");
                    }
                    bar.set_position(step.subjects_done);
                }
                Some(Step::Refused(refused)) => bar.suspend(|| tell_refused(&refused, out))?,
                Some(Step::Report(done)) => report = Some(done),
                None => {}
            }
        }
        waiting.finish_and_clear();
        bar.finish_and_clear();
        let report = report.context("the daemon ended without a report; run the import again, and it goes on")?;
        let outcome = if report.subjects_refused + report.samples_refused > 0 { Err(PartlyRefused.into()) } else { Ok(()) };
        if out.json {
            out.message("ImportReport", &report)?;
            return outcome;
        }
        let what = if self.dry_run { "would import (nothing was changed)" } else { "imported" };
        out.line(&format!(
            "{what}: {} subjects with {} samples; {} subjects were there already, {} subjects and {} samples were refused; gallery version {}",
            report.subjects_imported,
            report.samples_imported,
            report.subjects_present,
            report.subjects_refused,
            report.samples_refused,
            report.gallery_version
        ))?;
        if report.foreign_templates > 0 {
            let advice = "come from another encoder and match nothing: `doorward gallery reencode` makes templates anew from their photos";
            out.line(&format!("{} of these samples {advice}", report.foreign_templates))?;
        }
        outcome
    }
}

fn tell_refused(refused: &pb::RefusedImport, out: Output) -> anyhow::Result<()> {
    if out.json {
        return out.message("RefusedImport", refused);
    }
    let sample = if refused.sample_id.is_empty() { String::new() } else { format!(", sample {}", refused.sample_id) };
    out.line(&format!("refused {}{sample}: {}: {}", refused.subject_id, refused.reason, refused.message))
}

/// Sends the file, until the daemon wants no more of it.
fn send_all(
    mut file: std::fs::File,
    name: &Path,
    (options, send, bar): (pb::ImportGalleryOptions, &mpsc::Sender<pb::ImportGalleryRequest>, &ProgressBar),
) -> anyhow::Result<()> {
    let mut part = Part::Options(options);
    while send.blocking_send(pb::ImportGalleryRequest { part: Some(part) }).is_ok() {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = file.read(&mut chunk).with_context(|| format!("cannot read {}", name.display()))?;
        if read == 0 {
            break;
        }
        chunk.truncate(read);
        part = Part::Chunk(chunk);
        bar.inc(1);
    }
    Ok(())
}
