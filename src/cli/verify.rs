//! `doorward verify`: same person or not.
//!
//! In: a photo and a claim. Out: the decision, also as the exit code.
//! Drops: nothing.
//! Must not know: how it is decided.

use std::path::PathBuf;

use clap::Args;

use super::client::ClientOptions;
use super::face_table::liveness;
use super::failure::{Told, Unanswered};
use super::input::read_photo;
use super::output::Output;
use super::threshold;
use crate::pb;

/// Says whether a photo shows a certain person, or two photos the same one
///
/// Exits with 0 when it is the same person, with 1 when it is not, and with 2 when that could not be told: a photo without a usable face,
/// an unknown subject, any other error. Where no daemon was reached it is 3, as of every command.
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
    /// That it is not the same person, or why that could not be told.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        match self.ask(client, out).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Told.into()),
            Err(reason) => Err(Unanswered(reason).into()),
        }
    }

    /// Tells the answer, and whether it is the same person.
    async fn ask(self, client: &ClientOptions, out: &Output) -> anyhow::Result<bool> {
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
            told(&response).iter().try_for_each(|line| out.line(line))?;
        }
        Ok(response.r#match)
    }
}

/// The answer in words.
fn told(response: &pb::VerifyResponse) -> Vec<String> {
    let live = liveness(response.face.as_ref().and_then(|face| face.live_score), response.suspected_attack);
    let similarity = response.similarity;
    if response.closer_to_negative {
        return vec![format!("not the same person: similarity {similarity:.3}, and at least as close to a negative sample of theirs")];
    }
    let is_close = response.score >= response.threshold;
    let verdict = if response.r#match { "same person" } else { "not the same person" };
    let what = if response.head == "cosine" { "similarity" } else { "score" };
    let sign = if is_close { '≥' } else { '<' };
    let stands_for = threshold::stands_for("false matches", (response.target_fmr, response.expected_fmr), response.basis());
    let stands_for = stands_for.map(|told| format!("; {told}")).unwrap_or_default();
    let mut lines =
        vec![format!("{verdict}: {what} {:.3} {sign} {:.3} ({}{stands_for})", response.score, response.threshold, response.head)];
    if is_close && response.suspected_attack && !response.r#match {
        lines[0] = format!("refused: {what} {:.3} {sign} {:.3}, but the face may be a picture", response.score, response.threshold);
    }
    lines.extend((!live.is_empty()).then(|| format!("live score {live}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_match_that_may_be_a_picture_says_so_and_a_refused_one_is_no_stranger() {
        let face = Some(pb::Face { live_score: Some(0.02), ..pb::Face::default() });
        let (similarity, threshold) = (0.7, 0.366);
        let head = "cosine".to_owned();
        let seen =
            pb::VerifyResponse { similarity, score: similarity, threshold, head, face, suspected_attack: true, ..Default::default() };
        let reported = told(&pb::VerifyResponse { r#match: true, ..seen.clone() });
        assert_eq!(reported, ["same person: similarity 0.700 ≥ 0.366 (cosine)", "live score 0.02 (looks like a picture)"]);
        let refused = told(&seen);
        assert_eq!(refused[0], "refused: similarity 0.700 ≥ 0.366, but the face may be a picture");
        let other = told(&pb::VerifyResponse { score: 0.1, similarity: 0.1, suspected_attack: false, face: None, ..seen });
        assert_eq!(other, ["not the same person: similarity 0.100 < 0.366 (cosine)"]);
    }
}
