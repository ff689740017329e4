//! `doorward search`: the closest people to a face, without a decision.
//!
//! In: a photo. Out: candidates, best first.
//! Drops: nothing.
//! Must not know: how the gallery is searched.

use std::path::PathBuf;

use clap::Args;

use super::client::ClientOptions;
use super::input::read_photo;
use super::output::{Output, Table, or_dash};
use crate::pb;

/// Lists the closest people to the face in a photo, without deciding
///
/// Somebody is always closest: use `doorward identify` to learn whether it is the same person.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorward search probe.jpg\n  doorward search probe.jpg --candidates-max 50 --json\n  doorward search probe.jpg --watchlist staff"
)]
pub struct Search {
    /// A JPEG or PNG file with exactly one face
    photo: PathBuf,
    /// How many people, at most 1000
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..=1000))]
    candidates_max: i32,
    /// Only people on this watchlist; give it again for more
    #[arg(long = "watchlist", value_name = "NAME")]
    watchlists: Vec<String>,
}

impl Search {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, or that it cannot be reached.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        let is_restricted = !self.watchlists.is_empty();
        let request =
            pb::SearchRequest { image: read_photo(&self.photo)?, candidates_max: self.candidates_max, watchlists: self.watchlists };
        let response = client.connect().await?.recognition().search(request).await?.into_inner();
        if out.json {
            return out.message("SearchResponse", &response);
        }
        if response.candidates.is_empty() {
            return out.line(if is_restricted { "nobody on these watchlists is enrolled" } else { "nobody is enrolled" });
        }
        let mut table = Table::new(["RANK", "ID", "NAME", "SIMILARITY"]);
        for (rank, candidate) in (1..).zip(response.candidates) {
            table.row([
                i32::to_string(&rank),
                candidate.subject_id,
                or_dash(&candidate.display_name),
                format!("{:.4}", candidate.similarity),
            ]);
        }
        out.table(&table)
    }
}
