//! `doorward detect`: which faces a photo has, and how usable they are.
//!
//! In: a photo. Out: a table of faces, and the photo with them drawn in.
//! Drops: nothing.
//! Must not know: how faces are found.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use super::annotate::{annotate, save, upright};
use super::client::ClientOptions;
use super::face_table::{liveness, place, quality};
use super::input::read_photo;
use super::output::{Output, Table, json};
use crate::pb;

/// Finds the faces in a photo and says how usable each is
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward detect group.jpg
  doorward detect group.jpg --out seen.jpg      boxes, landmarks and the numbers of the table
  doorward detect group.jpg --json | jq '.faces | length'")]
pub struct Detect {
    /// A JPEG or PNG file
    photo: PathBuf,
    /// Where to write the annotated picture, .jpg or .png
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Detect {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, that it cannot be reached, or that the picture cannot be written.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        let photo = read_photo(&self.photo)?;
        let request = pb::DetectFacesRequest { image: photo.clone() };
        let response = client.connect().await?.recognition().detect_faces(request).await?.into_inner();
        if let Some(file) = &self.out {
            let mut picture = upright(&photo)?;
            ensure!(
                picture.dimensions() == (response.image_width, response.image_height),
                "the daemon saw a picture of {}×{} pixels where this one has {}×{}: the boxes would be drawn in the wrong places",
                response.image_width,
                response.image_height,
                picture.width(),
                picture.height()
            );
            annotate(&mut picture, &response.faces);
            save(&picture, file)?;
        }
        if out.json {
            let mut object = json("DetectFacesResponse", &response)?;
            object["photo"] = self.photo.display().to_string().into();
            return out.object(&object);
        }
        let plural = if response.faces.len() == 1 { "face" } else { "faces" };
        let drawn = self.out.map(|file| format!(" → {}", file.display())).unwrap_or_default();
        let (width, height) = (response.image_width, response.image_height);
        out.line(&format!("{}: {} {plural} in {width}×{height} pixels{drawn}", self.photo.display(), response.faces.len()))?;
        if response.faces.is_empty() {
            return Ok(());
        }
        let mut table = Table::new(["FACE", "PLACE", "SCORE", "LIVE", "QUALITY"]);
        for (number, face) in (1..).zip(&response.faces) {
            let live = face.live_score.map_or_else(|| "-".to_owned(), |score| liveness(Some(score), false));
            table.row([i32::to_string(&number), place(face), format!("{:.3}", face.detection_score), live, quality(face)]);
        }
        out.table(&table)
    }
}
