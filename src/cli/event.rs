//! `doorward event`: what happened, why, and what an operator says of it.
//!
//! In: filters, cursors, corrections. Out: events in lines, one event explained, a new event.
//! Drops: nothing.
//! Must not know: how events are kept.

mod explain;

use clap::{Args, Subcommand};
use prost_types::Timestamp;

use super::client::{ClientOptions, request_id};
use super::event_filter::EventFilter;
use super::event_line;
use super::failure::Usage;
use super::output::{Output, json};
use crate::pb;
use crate::pb::correct_event_request::{Stranger, Verdict, WasNot};

/// Looks into the past: lists events, explains one, corrects what was told
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  doorward event list --camera front-door --limit 20
  doorward event show CURSOR
  doorward event correct CURSOR --was anna --use-snapshot")]
pub enum Event {
    List(List),
    Show(Show),
    Correct(Correct),
}

/// Lists what is kept of the past, the newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward event list --limit 20
  doorward event list --type unidentified --since 2026-11-25T18:00:00Z
  doorward event list --subject anna --oldest-first --json | jq -r .capture_time")]
pub struct List {
    #[command(flatten)]
    filter: EventFilter,
    /// Only what was captured at this time or later
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what was captured before this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// The oldest first
    #[arg(long)]
    oldest_first: bool,
    /// The most events
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
}

/// Explains one event: what it rests on, what was against it, and where the time went
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward event show 0193b6f28c1e7d7aa3ce1f2e3d4c5b6a-1f")]
pub struct Show {
    /// The event's cursor, as `doorward event list` shows it
    cursor: String,
}

/// Says who it was, that it was not the one named or nobody enrolled, or enrols whom it shows
///
/// The past is not rewritten: a new event says so.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward event correct CURSOR --was anna                      it was anna
  doorward event correct CURSOR --was anna --use-snapshot       and its picture is a sample of hers from now on
  doorward event correct CURSOR --was-not --use-snapshot        it was not whom it names, who is never taken for that face again
  doorward event correct CURSOR --was-stranger                  it was nobody who is enrolled, whoever it names
  doorward event correct CURSOR --enrol bob --name \"Bob B.\"     it was somebody new")]
pub struct Correct {
    /// The event's cursor, as `doorward event list` shows it
    cursor: String,
    /// It was this person
    #[arg(long, value_name = "ID", group = "verdict")]
    was: Option<String>,
    /// It was not the person that the event names
    #[arg(long, group = "verdict")]
    was_not: bool,
    /// It was nobody who is enrolled
    #[arg(long, group = "verdict")]
    was_stranger: bool,
    /// Enrol whom it shows, under this id
    #[arg(long, value_name = "ID", group = "verdict")]
    enrol: Option<String>,
    /// What people call whoever is enrolled
    #[arg(long, value_name = "TEXT", requires = "enrol")]
    name: Option<String>,
    /// Let the gallery learn of it: the best shot becomes a sample, or with --was-not a negative one
    #[arg(long)]
    use_snapshot: bool,
    /// Take the picture although it is close to somebody else's
    #[arg(long)]
    allow_duplicate: bool,
    /// Take the picture although it does not look like the person's others
    #[arg(long)]
    allow_inconsistent: bool,
    /// Why, for whoever reads the log later; it should name nobody
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
}

impl Event {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, or that it cannot be reached.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        match self {
            Self::List(list) => list.run(client, *out).await,
            Self::Show(show) => show.run(client, *out).await,
            Self::Correct(correct) => correct.run(client, *out).await,
        }
    }
}

fn time(text: Option<&str>, option: &str) -> anyhow::Result<Option<Timestamp>> {
    let parsed = text.map(|text| text.parse().map_err(|_| Usage(format!("{option} {text}: write it like 2026-11-25T18:00:00Z"))));
    Ok(parsed.transpose()?)
}

impl List {
    async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let daemon = client.connect().await?;
        let mut request = pb::ListEventsRequest {
            types: self.filter.wire_types(),
            camera_ids: self.filter.cameras,
            subject_ids: self.filter.subjects,
            watchlists: self.filter.watchlists,
            start_time: time(self.since.as_deref(), "--since")?,
            end_time: time(self.until.as_deref(), "--until")?,
            newest_first: !self.oldest_first,
            ..pb::ListEventsRequest::default()
        };
        let (mut left, mut found) = (self.limit, false);
        while left > 0 {
            request.page_size = i32::try_from(left.min(1_000))?;
            let page = daemon.events().list_events(request.clone()).await?.into_inner();
            for event in &page.events {
                if out.json {
                    out.object(&json("Event", event)?)?;
                } else {
                    out.line(&format!("{}  {}", event.cursor, event_line::line(event)))?;
                }
            }
            found |= !page.events.is_empty();
            left = left.saturating_sub(page.events.len());
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        if !found && self.limit > 0 {
            eprintln!("no event that is kept matches");
        }
        Ok(())
    }
}

impl Show {
    async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let response = client.connect().await?.events().get_event(pb::GetEventRequest { cursor: self.cursor }).await?.into_inner();
        let event = response.event.unwrap_or_default();
        if out.json {
            let mut object = json("Event", &event)?;
            object["corrections"] = response.corrections.iter().map(|correction| json("Event", correction)).collect::<Result<_, _>>()?;
            return out.object(&object);
        }
        out.line(&event_line::line(&event))?;
        out.table(&explain::facts(&event))?;
        response.corrections.iter().try_for_each(|correction| out.line(&format!("since then: {}", event_line::line(correction))))
    }
}

impl Correct {
    async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let verdict = match (self.was, self.enrol) {
            (Some(id), _) => Verdict::WasSubjectId(id),
            (None, Some(id)) => {
                Verdict::NewSubject(pb::Subject { id, display_name: self.name.unwrap_or_default(), ..pb::Subject::default() })
            }
            (None, None) if self.was_not => Verdict::WasNot(WasNot {}),
            (None, None) if self.was_stranger => Verdict::WasStranger(Stranger {}),
            (None, None) => return Err(Usage("say --was ID, --was-not, --was-stranger or --enrol ID".into()).into()),
        };
        let request = pb::CorrectEventRequest {
            cursor: self.cursor,
            verdict: Some(verdict),
            use_snapshot: self.use_snapshot,
            note: self.note,
            allow_duplicate: self.allow_duplicate,
            allow_inconsistent: self.allow_inconsistent,
            request_id: request_id(),
        };
        let response = client.connect().await?.events().correct_event(request).await?.into_inner();
        if out.json {
            return out.message("CorrectEventResponse", &response);
        }
        let event = response.event.unwrap_or_default();
        out.line(&format!("{}  {}", event.cursor, event_line::line(&event)))
    }
}
