//! `doorward identify`: who is in a photo, or nobody known.
//!
//! In: photos. Out: a decision for every face.
//! Drops: nothing; a refused photo is told, and the others are tried all the same.
//! Must not know: how it is decided.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::client::{ClientOptions, Daemon};
use super::face_table::{candidate, liveness, place, who, why_unknown};
use super::failure;
use super::input::read_photo;
use super::output::{Output, Table, json, progress};
use super::threshold;
use crate::pb;

/// Says who is in photos: one of the enrolled people, or unknown
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward identify group.jpg
  doorward identify shots/*.jpg --json | jq -r '.identifications[].subject.subject_id'")]
pub struct Identify {
    /// JPEG or PNG files
    #[arg(required = true)]
    photos: Vec<PathBuf>,
    /// How many of the closest people to show for each face, at most 100
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(i32).range(1..=100))]
    candidates_max: i32,
}

impl Identify {
    /// Does what was asked.
    ///
    /// # Errors
    /// That photos were refused, or that the daemon cannot be reached.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        let daemon = client.connect().await?;
        let bar = progress(self.photos.len(), "identifying");
        let mut refused = 0;
        for photo in &self.photos {
            let outcome = identify(&daemon, photo, self.candidates_max).await.with_context(|| format!("photo {}", photo.display()));
            bar.inc(1);
            match outcome {
                Ok(response) => bar.suspend(|| shown(*out, photo, &response))?,
                Err(error) if failure::is_about_this_alone(&error) => {
                    refused += 1;
                    bar.suspend(|| eprintln!("{}", failure::describe(&error).text));
                }
                Err(error) => return Err(error),
            }
        }
        bar.finish_and_clear();
        failure::of_several(refused, self.photos.len(), "looked at")
    }
}

async fn identify(daemon: &Daemon, photo: &Path, candidates_max: i32) -> anyhow::Result<pb::IdentifyResponse> {
    let request = pb::IdentifyRequest { image: read_photo(photo)?, candidates_max };
    Ok(daemon.recognition().identify(request).await?.into_inner())
}

fn shown(out: Output, photo: &Path, response: &pb::IdentifyResponse) -> anyhow::Result<()> {
    if out.json {
        let mut object = json("IdentifyResponse", response)?;
        object["photo"] = photo.display().to_string().into();
        return out.object(&object);
    }
    let faces = response.identifications.len();
    let plural = if faces == 1 { "face" } else { "faces" };
    out.line(&format!("{}: {faces} {plural}, gallery of {} people", photo.display(), response.gallery_subject_count))?;
    if faces == 0 {
        return Ok(());
    }
    let mut table = Table::new(["FACE", "PLACE", "WHO", "SIMILARITY", "THRESHOLD", "LIVE", "CLOSEST"]);
    for (number, identification) in (1..).zip(&response.identifications) {
        let closest: Vec<String> = identification.candidates.iter().map(candidate).collect();
        let similarity = identification.subject.as_ref().or(identification.candidates.first()).map(|candidate| candidate.similarity);
        table.row([
            i32::to_string(&number),
            identification.face.as_ref().map(place).unwrap_or_default(),
            identification.subject.as_ref().map_or_else(
                || why_unknown(identification.rejection()).to_owned(),
                |subject| who(&subject.subject_id, &subject.display_name),
            ),
            similarity.map_or_else(|| "-".to_owned(), |similarity| format!("{similarity:.3}")),
            format!("{:.3}", identification.threshold),
            identification
                .face
                .as_ref()
                .and_then(|face| face.live_score)
                .map_or_else(|| "-".to_owned(), |score| liveness(Some(score), identification.suspected_attack)),
            closest.join(", "),
        ]);
    }
    out.table(&table)?;
    let first = response.identifications.first();
    let told = first.and_then(|first| threshold::stands_for("false positives", (first.target_fpir, first.expected_fpir), first.basis()));
    told.map_or(Ok(()), |told| out.line(&format!("threshold: {told}")))
}
