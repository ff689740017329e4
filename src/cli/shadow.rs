//! `doorward shadow report`: which decisions another model, head or policy would flip, before it is put in force.
//!
//! In: the daemon's tallies and verdicts. Out: text, JSON lines, a page with the visitors' best shots.
//! Must not know: how a shadow decides.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use tonic::Code;

use super::client::{ClientOptions, Daemon};
use super::face_table::{who, why_unknown};
use super::output::{Output, Table, json, moment};
use super::threshold;
use crate::figure::{Photo, Report as Page, Section, html};
use crate::pb::{self, ShadowOutcome};

/// How many verdicts are asked for at once.
const PAGE_SIZE: usize = 500;

/// Compares what runs in the shadow with what is in force
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  doorward shadow report --report shadow.html")]
pub enum Shadow {
    Report(Report),
}

/// Which decisions would flip if the shadow were put in force
///
/// What [shadow] of the configuration states runs beside what is in force, over the same visitors, and never acts. Every visit
/// that was decided counts; those about which the two differ are listed, the newest first, as long as events are kept. Nobody has
/// said which of the two is right: look at the pictures.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward shadow report
  doorward shadow report --report shadow.html --limit 50
  doorward shadow report --json | jq -r 'select(.outcome == \"SHADOW_OUTCOME_WOULD_NAME\").visit_id'")]
pub struct Report {
    /// How many visits are listed at most
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    limit: usize,
    /// Write a page with the visitors' best shots, which loads nothing from anywhere
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

impl Shadow {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, that it cannot be reached, or that the page cannot be written.
    pub async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let Self::Report(report) = self;
        report.run(client, out).await
    }
}

impl Report {
    async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let daemon = client.connect().await?;
        let shadow = daemon.shadow().get_shadow(pb::GetShadowRequest {}).await?.into_inner();
        let (verdicts, is_cut) = verdicts(&daemon, self.limit).await?;
        if out.json {
            for verdict in &verdicts {
                out.object(&json("ShadowVerdict", verdict)?)?;
            }
            out.message("GetShadowResponse", &shadow)?;
        } else {
            out.table(&facts(&shadow))?;
            for verdict in &verdicts {
                out.line(&line(verdict))?;
            }
            if is_cut {
                out.line(&format!("there are more than these {}: --limit lists more", verdicts.len()))?;
            }
        }
        let Some(path) = self.report else { return Ok(()) };
        let page = page(&daemon, &shadow, &verdicts).await?;
        write_private(&path, &html(&page)?).with_context(|| format!("cannot write {}", path.display()))?;
        if out.json { Ok(()) } else { out.line(&format!("report: {}", path.display())) }
    }
}

/// Visitors' faces are for whoever asked.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// The newest `limit` verdicts, and whether there are more.
async fn verdicts(daemon: &Daemon, limit: usize) -> anyhow::Result<(Vec<pb::ShadowVerdict>, bool)> {
    let mut verdicts = Vec::new();
    let mut is_cut = limit == 0;
    let mut request = pb::ListShadowVerdictsRequest::default();
    while verdicts.len() < limit {
        request.page_size = i32::try_from((limit - verdicts.len()).min(PAGE_SIZE))?;
        let page = daemon.shadow().list_shadow_verdicts(request.clone()).await?.into_inner();
        verdicts.extend(page.verdicts);
        is_cut = !page.next_page_token.is_empty();
        if !is_cut {
            break;
        }
        request.page_token = page.next_page_token;
    }
    Ok((verdicts, is_cut))
}

fn facts(shadow: &pb::GetShadowResponse) -> Table {
    let mut table = Table::of_facts();
    table.fact("in the shadow", &shadow.description);
    table.fact("since", moment(shadow.start_time.as_ref()));
    table.fact("compares with", format!("{} templates, version {}", shadow.gallery_template_count, shadow.gallery_version));
    table.fact("visits", counts(shadow));
    for in_force in &shadow.thresholds {
        let (name, value) = threshold::fact(in_force);
        table.fact(&name, value);
    }
    table
}

fn counts(shadow: &pb::GetShadowResponse) -> String {
    let differing = [
        (shadow.would_name_count, "somebody would be named"),
        (shadow.would_not_name_count, "nobody would be named"),
        (shadow.would_rename_count, "somebody else would be named"),
        (shadow.unanswered_count, "no answer"),
    ];
    let all = shadow.agree_count + differing.iter().map(|(count, _)| count).sum::<u64>();
    let differing = differing.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!(", {count}: {what}"));
    format!("{all}, of which {} agree{}", shadow.agree_count, differing.collect::<String>())
}

/// `2026-11-23T19:00:01Z front-door  anna 0.52 ≥ 0.48  →  unknown (nobody is close enough) 0.52 < 0.55`.
fn line(verdict: &pb::ShadowVerdict) -> String {
    let (told, would) = both(verdict);
    format!("{} {}  {told}  →  {would}", moment(verdict.capture_time.as_ref()), verdict.camera_id)
}

fn both(verdict: &pb::ShadowVerdict) -> (String, String) {
    let told = side(verdict.subject.as_ref(), verdict.decision.as_ref());
    let would = match verdict.outcome() {
        ShadowOutcome::Unanswered => "no answer".to_owned(),
        _ => side(verdict.shadow_subject.as_ref(), verdict.shadow_decision.as_ref()),
    };
    (told, would)
}

fn side(subject: Option<&pb::EventSubject>, decision: Option<&pb::Decision>) -> String {
    let decision = decision.cloned().unwrap_or_default();
    let name = match subject {
        Some(subject) if subject.erased => format!("(erased person {})", subject.uid),
        Some(subject) => who(&subject.id, &subject.display_name),
        None => why_unknown(decision.rejection()).to_owned(),
    };
    let Some(similarity) = decision.similarity else { return name };
    let sign = if similarity >= decision.threshold { '≥' } else { '<' };
    format!("{name} {similarity:.3} {sign} {:.3}", decision.threshold)
}

async fn page(daemon: &Daemon, shadow: &pb::GetShadowResponse, verdicts: &[pb::ShadowVerdict]) -> anyhow::Result<Page> {
    let kinds = [
        (ShadowOutcome::WouldName, "Somebody would be named, where nobody was"),
        (ShadowOutcome::WouldNotName, "Nobody would be named, where somebody was"),
        (ShadowOutcome::WouldRename, "Somebody else would be named"),
        (ShadowOutcome::Unanswered, "The shadow gave no answer"),
    ];
    let mut sections = Vec::new();
    for (outcome, heading) in kinds {
        let mut photos = Vec::new();
        for verdict in verdicts.iter().filter(|verdict| verdict.outcome() == outcome) {
            let (told, would) = both(verdict);
            let place = format!("{} {}", moment(verdict.capture_time.as_ref()), verdict.camera_id);
            photos.push(Photo {
                jpeg: best_shot(daemon, &verdict.snapshot_id).await?,
                caption: vec![format!("in force: {told}"), format!("shadow: {would}"), place],
            });
        }
        if !photos.is_empty() {
            sections.push(Section { heading: format!("{heading} ({})", photos.len()), photos, ..Section::default() });
        }
    }
    let introduction = vec![
        format!("{} runs beside what is in force since {} and never acts.", shadow.description, moment(shadow.start_time.as_ref())),
        format!("Visits: {}.", counts(shadow)),
        "Nobody has said which of the two is right: that is for whoever looks at the pictures.".to_owned(),
    ];
    Ok(Page { title: "What would be decided otherwise".into(), introduction, sections })
}

/// The face that a visit's decision is about; empty where none was kept, or not any more.
async fn best_shot(daemon: &Daemon, snapshot_id: &str) -> anyhow::Result<Vec<u8>> {
    if snapshot_id.is_empty() {
        return Ok(Vec::new());
    }
    match daemon.events().get_snapshot(pb::GetSnapshotRequest { snapshot_id: snapshot_id.to_owned() }).await {
        Ok(response) => Ok(response.into_inner().crop_jpeg),
        Err(status) if status.code() == Code::NotFound => Ok(Vec::new()),
        Err(status) => Err(status.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_is_told_with_what_both_rest_on() {
        let decision = |threshold: f32| {
            let rejection = pb::IdentificationRejection::BelowThreshold.into();
            Some(pb::Decision { similarity: Some(0.52), threshold, rejection, ..pb::Decision::default() })
        };
        let anna = pb::EventSubject { id: "anna".into(), ..pb::EventSubject::default() };
        let mut verdict = pb::ShadowVerdict {
            outcome: ShadowOutcome::WouldNotName.into(),
            camera_id: "door".into(),
            subject: Some(anna),
            decision: decision(0.48),
            shadow_decision: decision(0.55),
            ..pb::ShadowVerdict::default()
        };
        assert!(
            line(&verdict).ends_with("door  anna 0.520 ≥ 0.480  →  unknown (nobody is close enough) 0.520 < 0.550"),
            "{}",
            line(&verdict)
        );
        verdict.outcome = ShadowOutcome::Unanswered.into();
        assert!(line(&verdict).ends_with("anna 0.520 ≥ 0.480  →  no answer"));
    }

    #[test]
    fn counts_leave_out_what_never_happened() {
        let shadow = pb::GetShadowResponse { agree_count: 40, would_not_name_count: 2, ..pb::GetShadowResponse::default() };
        assert_eq!(counts(&shadow), "42, of which 40 agree, 2: nobody would be named");
    }
}
