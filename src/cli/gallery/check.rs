//! `doorward gallery check`: people who look alike, and photos that do not fit.
//!
//! In: a threshold. Out: one call of `CheckGallery`, its findings worst first.
//! Drops: nothing; two people who look alike are told once, with their closest photos.
//! Must not know: how likeness is found.

use std::collections::HashMap;

use clap::Args;

use super::super::client::Daemon;
use super::super::output::{Output, Table, or_dash, progress};
use crate::pb;

/// Looks for people who may be taken for each other, and for photos that do not fit their person
///
/// Nothing is changed. Look-alikes: add more photos of both, or tell them apart with
/// `doorward subject add-sample ID --negative`. A photo that does not fit: look whether it shows
/// somebody else, and remove it with `doorward subject remove-sample`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward gallery check
  doorward gallery check --threshold 0.3        near misses as well
  doorward gallery check --json | jq .look_alikes")]
pub struct Check {
    /// From this similarity on two people look alike; without one, from the one that identifies
    #[arg(long, value_name = "SIMILARITY", allow_negative_numbers = true)]
    threshold: Option<f32>,
}

impl Check {
    /// Reads all findings, then prints them.
    pub async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let request = pb::CheckGalleryRequest { threshold: self.threshold };
        let mut stream = daemon.gallery().check_gallery(request).await?.into_inner();
        let (mut pairs, mut misfits, mut checked, mut bar) = (HashMap::new(), Vec::new(), 0, None);
        while let Some(response) = stream.message().await? {
            let total = usize::try_from(response.subject_count).unwrap_or(usize::MAX);
            bar.get_or_insert_with(|| progress(total, "checking")).set_position(response.subjects_checked);
            response.look_alikes.into_iter().for_each(|found| note(&mut pairs, found));
            misfits.extend(response.misfits);
            checked = response.subjects_checked;
        }
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let mut look_alikes: Vec<pb::LookAlike> = pairs.into_values().collect();
        look_alikes.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then_with(|| a.subject_id.cmp(&b.subject_id)));
        misfits.sort_by(|a, b| a.similarity.total_cmp(&b.similarity));
        if out.json {
            let all = pb::CheckGalleryResponse { look_alikes, misfits, subjects_checked: checked, subject_count: checked };
            return out.message("CheckGalleryResponse", &all);
        }
        shown(out, (&look_alikes, &misfits), checked)
    }
}

/// Keeps the closest photos of two people, whichever side they are told from.
fn note(pairs: &mut HashMap<(String, String), pb::LookAlike>, found: pb::LookAlike) {
    let (one, other) = (found.subject_id.clone(), found.other_subject_id.clone());
    let pair = if one < other { (one, other) } else { (other, one) };
    match pairs.get(&pair) {
        Some(known) if known.similarity >= found.similarity => {}
        _ => drop(pairs.insert(pair, found)),
    }
}

fn shown(out: Output, (look_alikes, misfits): (&[pb::LookAlike], &[pb::Misfit]), checked: u64) -> anyhow::Result<()> {
    if !look_alikes.is_empty() {
        let mut table = Table::new(["SIMILARITY", "SUBJECT", "LOOKS LIKE", "BY ITS SAMPLE"]);
        for found in look_alikes {
            let similarity = format!("{:.3}", found.similarity);
            table.row([similarity, found.subject_id.clone(), found.other_subject_id.clone(), found.sample_id.clone()]);
        }
        out.table(&table)?;
    }
    if !misfits.is_empty() {
        let mut table = Table::new(["SIMILARITY", "SUBJECT", "SAMPLE THAT DOES NOT FIT", "FILE"]);
        for found in misfits {
            let similarity = format!("{:.3}", found.similarity);
            table.row([similarity, found.subject_id.clone(), found.sample_id.clone(), or_dash(&found.folder_path)]);
        }
        out.table(&table)?;
    }
    out.line(&format!("{checked} subjects checked: {} pairs look alike, {} samples do not fit", look_alikes.len(), misfits.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_people_are_told_once_with_their_closest_photos() {
        let found = |one: &str, other: &str, similarity| pb::LookAlike {
            subject_id: one.into(),
            other_subject_id: other.into(),
            similarity,
            ..pb::LookAlike::default()
        };
        let mut pairs = HashMap::new();
        for found in [found("anna", "zoe", 0.5), found("zoe", "anna", 0.7), found("zoe", "anna", 0.6), found("bo", "zoe", 0.4)] {
            note(&mut pairs, found);
        }
        let mut similarities: Vec<f32> = pairs.values().map(|found| found.similarity).collect();
        similarities.sort_by(f32::total_cmp);
        assert_eq!(similarities, [0.4, 0.7]);
    }
}
