//! `doorward gallery`: how many people are known, and by which rule they are told apart.
//!
//! In: nothing. Out: the answer of `GetGallery`.
//! Drops: nothing.
//! Must not know: how the gallery is searched.

use clap::Args;

use super::client::ClientOptions;
use super::output::{Output, Table};
use crate::pb;

/// Shows the gallery's size, version and threshold
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward gallery\n  doorward gallery --json | jq .subject_count")]
pub struct Gallery {}

impl Gallery {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, or that it cannot be reached.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        let gallery = client.connect().await?.gallery().get_gallery(pb::GetGalleryRequest::default()).await?.into_inner();
        if out.json {
            return out.message("GetGalleryResponse", &gallery);
        }
        let mut table = Table::of_facts();
        table.fact("version", gallery.version.to_string());
        table.fact("subjects", gallery.subject_count.to_string());
        table.fact("templates", gallery.template_count.to_string());
        table.fact("threshold", format!("{} (where a camera states none)", gallery.threshold));
        table.fact("template space", &gallery.template_space);
        if gallery.foreign_template_count > 0 {
            let advice = "of another encoder: they never match; add a photo of those people with this encoder";
            table.fact("foreign templates", format!("{} {advice}", gallery.foreign_template_count));
        }
        out.table(&table)
    }
}
