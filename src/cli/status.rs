//! `doorward status`: what the daemon is doing and with what.
//!
//! In: nothing. Out: the answer of `GetStatus`.
//! Drops: nothing.
//! Must not know: how the daemon knows.

use std::time::Duration;

use clap::Args;

use super::client::ClientOptions;
use super::output::{Output, Table, moment, span};
use crate::pb;

/// Shows what the daemon is doing and with what
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward status
  doorward status --json | jq -r .inference.provider")]
pub struct Status {}

impl Status {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, or that it cannot be reached.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        let response = client.connect().await?.system().get_status(pb::GetStatusRequest::default()).await?.into_inner();
        if out.json {
            return out.message("GetStatusResponse", &response);
        }
        out.table(&facts(client.server(), &response))
    }
}

fn facts(server: &str, response: &pb::GetStatusResponse) -> Table {
    let mut table = Table::of_facts();
    let uptime = response.uptime.and_then(|uptime| Duration::try_from(uptime).ok()).map(span).unwrap_or_default();
    table.fact("daemon", format!("doorward {} at {server}", response.version));
    table.fact("started", format!("{} ({uptime} ago)", moment(response.start_time.as_ref())));
    let inference = response.inference.clone().unwrap_or_default();
    table.fact("device", because(&inference.device, &inference.device_reason));
    for fact in &inference.device_facts {
        let mend = if fact.mend.is_empty() { String::new() } else { format!("; mend: {}", fact.mend) };
        table.fact(&format!("gpu: {}", fact.what), format!("{}{mend}", fact.found));
    }
    table.fact("provider", format!("{}, {} sessions, ONNX Runtime {}", inference.provider, inference.sessions, inference.runtime_version));
    table.fact("precision", because(&inference.precision, &inference.precision_reason));
    table.fact("template space", &inference.template_space);
    for model in &response.models {
        table.fact(&model.role, format!("{} ({}), sha256 {}", model.name, model.licence, model.sha256));
    }
    table.fact("gallery", format!("version {}, {} subjects", response.gallery_version, response.gallery_subject_count));
    table.fact("cameras", format!("{} of {} online", response.cameras_online, response.camera_count));
    table.fact("events", format!("{} in epoch {}", response.event_sequence, response.event_epoch));
    let furthest = response.subscribers.iter().max_by_key(|subscriber| subscriber.lag).filter(|subscriber| subscriber.lag > 0);
    let behind = furthest.map(|subscriber| format!(", {} is {} events behind", subscriber.peer, subscriber.lag)).unwrap_or_default();
    table.fact("subscribers", format!("{}{behind}", response.subscribers.len()));
    table
}

fn because(what: &str, reason: &str) -> String {
    if reason.is_empty() { what.to_owned() } else { format!("{what} ({reason})") }
}
