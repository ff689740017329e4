//! `doorward subject add-sample|samples|remove-sample`: the photos of one person.
//!
//! In: photos, the pictures of events. Out: calls of `GalleryService` and what came of them.
//! Drops: nothing; a refused photo is told, and the others are tried all the same.
//! Must not know: how a photo becomes a template.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use super::super::client::{ClientOptions, Daemon, request_id};
use super::super::failure;
use super::super::input::read_photo;
use super::super::output::{Output, Table, moment, or_dash, progress};
use crate::pb;

/// Adds photos to a person
///
/// Each photo is taken or refused on its own.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward subject add-sample anna anna-2.jpg anna-3.jpg
  doorward subject add-sample anna --snapshot 0193b6f2-8c1e-7d7a-a3ce-1f2e3d4c5b6a
  doorward subject add-sample anna --negative her-twin.jpg        who must not be taken for anna")]
pub struct AddSample {
    /// Who
    id: String,
    /// JPEG or PNG files, each with exactly one face
    #[arg(required_unless_present = "snapshots")]
    photos: Vec<PathBuf>,
    /// Take the best shot of an event (repeatable)
    #[arg(long = "snapshot", value_name = "SNAPSHOT_ID")]
    snapshots: Vec<String>,
    /// Add it although the face is close to another subject's
    #[arg(long)]
    allow_duplicate: bool,
    /// Add it although the face does not look like the person's other photos
    #[arg(long)]
    allow_inconsistent: bool,
    /// The photos show somebody else, such as a twin, who must never be taken for this person
    #[arg(long)]
    negative: bool,
}

/// Lists the samples of a person with their quality
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward subject samples anna")]
pub struct List {
    /// Who
    id: String,
}

/// Removes one sample of a person
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward subject remove-sample anna 0193b6f2-8c1e-7d7a-a3ce-1f2e3d4c5b6a")]
pub struct Remove {
    /// Who
    id: String,
    /// Which, as `doorward subject samples` lists it
    sample_id: String,
}

/// A sample out of a photo's bytes.
pub fn of_photo(image: Vec<u8>) -> pb::SampleSource {
    pb::SampleSource { source: Some(pb::sample_source::Source::Image(image)) }
}

/// A sample out of an event's picture.
pub fn of_snapshot(snapshot_id: String) -> pb::SampleSource {
    pb::SampleSource { source: Some(pb::sample_source::Source::SnapshotId(snapshot_id)) }
}

/// Samples with their quality.
pub fn table(samples: &[pb::Sample]) -> Table {
    let mut table = Table::new(["SAMPLE", "QUALITY", "PIXELS", "SHARPNESS", "SIMILARITY TO REST", "SHOWS", "CREATED", "SHA-256", "FILE"]);
    for sample in samples {
        let quality = sample.quality.unwrap_or_default();
        table.row([
            sample.id.clone(),
            format!("{:.2}", quality.overall),
            format!("{:.0}", quality.size_pixels),
            format!("{:.0}", quality.sharpness),
            sample.similarity_to_rest.map_or_else(|| "-".to_owned(), |similarity| format!("{similarity:.3}")),
            if sample.negative { "somebody else" } else { "the subject" }.to_owned(),
            moment(sample.create_time.as_ref()),
            sample.content_sha256.iter().take(6).fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            }),
            or_dash(&sample.folder_path),
        ]);
    }
    table
}

impl AddSample {
    fn request(&self, source: pb::SampleSource) -> pb::CreateSampleRequest {
        pb::CreateSampleRequest {
            subject_id: self.id.clone(),
            sample: Some(source),
            allow_duplicate: self.allow_duplicate,
            allow_inconsistent: self.allow_inconsistent,
            negative: self.negative,
            request_id: request_id(),
        }
    }

    /// Adds each photo, and fails at the end if any was refused.
    pub async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let daemon = client.connect().await?;
        let total = self.photos.len() + self.snapshots.len();
        let bar = progress(total, "adding");
        let mut refused = 0;
        let photos = self.photos.iter().map(|photo| (format!("photo {}", photo.display()), read_photo(photo).map(of_photo)));
        let snapshots = self.snapshots.iter().map(|id| (format!("snapshot {id}"), Ok(of_snapshot(id.clone()))));
        for (name, source) in photos.chain(snapshots) {
            let outcome = match source {
                Ok(source) => add(&daemon, self.request(source)).await.with_context(|| name.clone()),
                Err(error) => Err(error),
            };
            bar.inc(1);
            match outcome {
                Ok(response) => bar.suspend(|| shown(out, &name, &response))?,
                Err(error) if failure::is_about_this_alone(&error) => {
                    refused += 1;
                    bar.suspend(|| eprintln!("{}", failure::describe(&error).text));
                }
                Err(error) => return Err(error),
            }
        }
        bar.finish_and_clear();
        failure::of_several(refused, total, "added")
    }
}

async fn add(daemon: &Daemon, request: pb::CreateSampleRequest) -> anyhow::Result<pb::CreateSampleResponse> {
    Ok(daemon.gallery().create_sample(request).await?.into_inner())
}

fn shown(out: Output, name: &str, response: &pb::CreateSampleResponse) -> anyhow::Result<()> {
    if out.json {
        return out.message("CreateSampleResponse", response);
    }
    let sample = response.sample.clone().unwrap_or_default();
    let quality = sample.quality.map_or(0.0, |quality| quality.overall);
    out.line(&format!("{name}: sample {} with quality {quality:.2} (gallery version {})", sample.id, response.gallery_version))
}

impl List {
    /// Prints every sample, oldest first.
    pub async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let mut samples = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListSamplesRequest { subject_id: self.id.clone(), page_token, page_size: 0 };
            let page = daemon.gallery().list_samples(request).await?.into_inner();
            samples.extend(page.samples);
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        if out.json {
            return samples.iter().try_for_each(|sample| out.message("Sample", sample));
        }
        out.table(&table(&samples))
    }
}

impl Remove {
    /// Removes the sample.
    pub async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let request = pb::DeleteSampleRequest { subject_id: self.id.clone(), sample_id: self.sample_id.clone(), request_id: request_id() };
        let response = daemon.gallery().delete_sample(request).await?.into_inner();
        if out.json {
            return out.message("DeleteSampleResponse", &response);
        }
        out.line(&format!("removed sample {} of {} (gallery version {})", self.sample_id, self.id, response.gallery_version))
    }
}
