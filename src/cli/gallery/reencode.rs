//! `doorward gallery reencode`: templates for another encoder, before it is put in force.
//!
//! In: an encoder's name. Out: the answers of `ReencodeGallery`, and what to do next.
//! Drops: nothing; every sample without a template is told.
//! Must not know: encoders.

use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::super::client::Daemon;
use super::super::failure::PartlyRefused;
use super::super::output::{Output, progress, span, spinner};
use crate::pb;
use crate::pb::reencode_gallery_response::Step;

/// Makes templates for another encoder from the kept photos, while the one in force goes on matching
///
/// Add the encoder to manifest.toml and its file beside it, run this, then set infer.encoder to its name and
/// restart: from that start on everybody is matched by the new encoder alone. It gives way to cameras, and
/// ends with Ctrl-C; run again, it goes on with what is missing. Run it once more just before the restart,
/// for those who were enrolled meanwhile. The templates of the encoder before are kept: the way back is
/// the way there.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward gallery reencode --encoder sface-2024      before it is put in force
  doorward gallery reencode                           what is missing for the encoder in force")]
pub struct Reencode {
    /// The encoder's name in manifest.toml; without one, the encoder in force
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    encoder: String,
}

impl Reencode {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, or that it ended.
    pub async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let waiting = spinner("the daemon opens the encoder");
        let request = pb::ReencodeGalleryRequest { encoder: self.encoder.clone() };
        let mut steps = daemon.gallery().reencode_gallery(request).await?.into_inner();
        let mut bar = ProgressBar::hidden();
        let mut report = None;
        while let Some(response) = steps.message().await? {
            waiting.finish_and_clear();
            match response.step {
                Some(Step::Progress(step)) => show(&mut bar, &step),
                Some(Step::Refused(refused)) => bar.suspend(|| tell_refused(&refused, out))?,
                Some(Step::Report(done)) => report = Some(done),
                None => {}
            }
        }
        waiting.finish_and_clear();
        bar.finish_and_clear();
        let report = report.context("the daemon ended without a report; run it again, and it goes on")?;
        let outcome = if report.samples_refused > 0 { Err(PartlyRefused.into()) } else { Ok(()) };
        if out.json {
            out.message("ReencodeReport", &report)?;
            return outcome;
        }
        out.line(&format!(
            "made {} templates of space {}; {} samples had one, for {} none could be made",
            report.templates_made, report.template_space, report.templates_present, report.samples_refused
        ))?;
        if report.subjects_lacking > 0 {
            out.line(&format!("{} subjects have no template of that space and match nothing with it", report.subjects_lacking))?;
        }
        if report.in_force {
            out.line("the encoder is in force: what was made matches")?;
            return outcome;
        }
        out.line(&format!(
            "to put it in force: set infer.encoder = {:?} in the daemon's configuration and restart; until then the one before matches",
            self.encoder
        ))?;
        outcome
    }
}

fn show(bar: &mut ProgressBar, step: &pb::ReencodeProgress) {
    if bar.is_hidden() {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        *bar = progress(usize::try_from(step.samples_total).unwrap_or(usize::MAX), "encoding").with_style(style);
    }
    let left = step.time_left.as_ref().map(|left| Duration::from_secs(u64::try_from(left.seconds).unwrap_or(0))).unwrap_or_default();
    bar.set_length(step.samples_total);
    bar.set_position(step.samples_done);
    bar.set_message(format!("{:.1} a second, {} left", step.samples_per_second, span(left)));
}

fn tell_refused(refused: &pb::RefusedTemplate, out: Output) -> anyhow::Result<()> {
    if out.json {
        return out.message("RefusedTemplate", refused);
    }
    out.line(&format!("no template for {}, sample {}: {}: {}", refused.subject_id, refused.sample_id, refused.reason, refused.message))
}
