//! `doorward evaluate events`: how often the door erred, by what operators said of its events.
//!
//! In: the daemon's log. Out: false positives and misses among the events that somebody looked at.
//! Must not know: how events are kept.

use std::collections::HashMap;

use clap::Args;
use prost_types::Timestamp;
use serde_json::json;

use super::super::client::{ClientOptions, Daemon};
use super::super::failure::Usage;
use super::super::output::{Output, Table};
use super::percent;
use crate::pb::{self, EventType};
use crate::rates::wilson;

/// How often the door erred, by what operators said of its events
///
/// Every event that was confirmed or corrected (`doorward event correct`) counts: who was named and was somebody else or nobody known, and who
/// was unknown and is enrolled. Events that nobody looked at are not counted, so the rates are those of what was looked at: look at
/// all events of some hours, not only at those that seem wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward evaluate events
  doorward evaluate events --since 2026-11-01T00:00:00Z --json")]
pub struct Events {
    /// Only corrections of this time or later
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// What was said of the events that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Named, and it was that person.
    right: u64,
    /// Named, and it was another person of the gallery.
    another: u64,
    /// Named, and it was nobody of the gallery.
    stranger_named: u64,
    /// Unknown, and it was somebody of the gallery.
    missed: u64,
    /// Corrected events that are not kept any more.
    gone: u64,
}

impl Events {
    pub(super) async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let since = self.since.as_deref().map(str::parse::<Timestamp>).transpose();
        let since = since.map_err(|_| Usage("--since: write it like 2026-11-25T18:00:00Z".into()))?;
        let daemon = client.connect().await?;
        let mut counts = Counts::default();
        for correction in last_corrections(&daemon, since).await? {
            let request = pb::GetEventRequest { cursor: correction.corrected_cursor.clone() };
            match daemon.events().get_event(request).await {
                Ok(response) => counts.add(&response.into_inner().event.unwrap_or_default(), &correction),
                Err(status) if status.code() == tonic::Code::NotFound => counts.gone += 1,
                Err(status) => return Err(status.into()),
            }
        }
        counts.tell(out)
    }
}

/// What was said last of each event that something was said of.
async fn last_corrections(daemon: &Daemon, start_time: Option<Timestamp>) -> anyhow::Result<Vec<pb::Event>> {
    let mut last: HashMap<String, pb::Event> = HashMap::new();
    let mut request = pb::ListEventsRequest {
        types: vec![EventType::EventCorrected.into()],
        start_time,
        page_size: 1_000,
        ..pb::ListEventsRequest::default()
    };
    loop {
        let page = daemon.events().list_events(request.clone()).await?.into_inner();
        last.extend(page.events.into_iter().map(|event| (event.corrected_cursor.clone(), event)));
        if page.next_page_token.is_empty() {
            return Ok(last.into_values().collect());
        }
        request.page_token = page.next_page_token;
    }
}

impl Counts {
    fn add(&mut self, event: &pb::Event, correction: &pb::Event) {
        let uid = |subject: Option<&pb::EventSubject>| subject.map(|subject| subject.uid.clone());
        match (uid(event.subject.as_ref()), uid(correction.subject.as_ref())) {
            (Some(named), Some(was)) if named == was => self.right += 1,
            (Some(_), Some(_)) => self.another += 1,
            (Some(_), None) => self.stranger_named += 1,
            (None, Some(_)) => self.missed += 1,
            (None, None) => {}
        }
    }

    fn tell(self, out: Output) -> anyhow::Result<()> {
        let named = self.right + self.another + self.stranger_named;
        let enrolled = self.right + self.another + self.missed;
        let wrong = self.another + self.stranger_named;
        let rate = |events: u64, trials: u64| events as f64 / trials.max(1) as f64;
        let (false_names, misses) = (wilson(wrong, named), wilson(self.missed + self.another, enrolled));
        if out.json {
            return out.object(&json!({
                "evaluation": "events", "right": self.right, "another": self.another, "stranger_named": self.stranger_named,
                "missed": self.missed, "not_kept": self.gone, "false_name_rate": rate(wrong, named), "false_name_low": false_names.low,
                "false_name_high": false_names.high, "fnir": rate(self.missed + self.another, enrolled), "fnir_low": misses.low,
                "fnir_high": misses.high,
            }));
        }
        if named + enrolled == 0 {
            return out.line("nobody has confirmed or corrected an event yet: `doorward event correct CURSOR --was ID` says who it was");
        }
        let mut table = Table::of_facts();
        table.fact("named and right", self.right.to_string());
        table.fact("named, was another", self.another.to_string());
        table.fact("named, was a stranger", self.stranger_named.to_string());
        table.fact("unknown, was enrolled", self.missed.to_string());
        table.fact("wrong of those named", percent(rate(wrong, named), false_names));
        table.fact("not found (FNIR)", percent(rate(self.missed + self.another, enrolled), misses));
        if self.gone > 0 {
            table.fact("not kept any more", self.gone.to_string());
        }
        out.table(&table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_is_counted_as_what_it_says_of_the_event() {
        let of = |uid: Option<&str>| pb::Event {
            subject: uid.map(|uid| pb::EventSubject { uid: uid.into(), ..pb::EventSubject::default() }),
            ..pb::Event::default()
        };
        let mut counts = Counts::default();
        for (event, was) in [(Some("a"), Some("a")), (Some("a"), Some("b")), (Some("a"), None), (None, Some("a")), (None, None)] {
            counts.add(&of(event), &of(was));
        }
        assert_eq!(counts, Counts { right: 1, another: 1, stranger_named: 1, missed: 1, gone: 0 });
    }
}
