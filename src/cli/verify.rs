//! `doorward verify`: same person or not.
//!
//! In: a photo and a claim. Out: the decision, also as the exit code.
//! Drops: nothing.
//! Must not know: how it is decided.

use std::path::PathBuf;

use clap::Args;

use super::client::ClientOptions;
use super::failure::Told;
use super::input::read_photo;
use super::output::Output;
use super::threshold;
use crate::pb;

/// Says whether a photo shows a certain person, or two photos the same one
///
/// Exits with 0 when it is the same person and with 1 when it is not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward verify probe.jpg --subject anna
  doorward verify one.jpg other.jpg
  doorward verify probe.jpg --subject anna --json | jq .similarity")]
pub struct Verify {
    /// A JPEG or PNG file with exactly one face
    photo: PathBuf,
    /// Another such file to compare with
    #[arg(required_unless_present = "subject", conflicts_with = "subject")]
    other_photo: Option<PathBuf>,
    /// The enrolled person to compare with
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
}

impl Verify {
    /// Does what was asked.
    ///
    /// # Errors
    /// That it is not the same person, the daemon's refusal, or that it cannot be reached.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        let claim = match (&self.subject, &self.other_photo) {
            (Some(id), _) => Some(pb::verify_request::Claim::SubjectId(id.clone())),
            (None, Some(photo)) => Some(pb::verify_request::Claim::OtherImage(read_photo(photo)?)),
            (None, None) => None,
        };
        let request = pb::VerifyRequest { image: read_photo(&self.photo)?, claim };
        let response = client.connect().await?.recognition().verify(request).await?.into_inner();
        if out.json {
            out.message("VerifyResponse", &response)?;
        } else {
            let (verdict, sign) = if response.r#match { ("same person", '≥') } else { ("not the same person", '<') };
            if response.closer_to_negative {
                let similarity = response.similarity;
                out.line(&format!(
                    "not the same person: similarity {similarity:.3}, and at least as close to a negative sample of theirs"
                ))?;
            } else {
                out.line(&format!(
                    "{verdict}: {} {:.3} {sign} {:.3} ({}{})",
                    if response.head == "cosine" { "similarity" } else { "score" },
                    response.score,
                    response.threshold,
                    response.head,
                    threshold::stands_for("false matches", (response.target_fmr, response.expected_fmr), response.basis())
                        .map(|told| format!("; {told}"))
                        .unwrap_or_default()
                ))?;
            }
        }
        if response.r#match { Ok(()) } else { Err(Told.into()) }
    }
}
