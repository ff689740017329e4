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
/// Every visit that was confirmed or corrected (`doorward event correct`) counts once, by what was said of it last: who was named and was
/// somebody else or nobody known, and who was unknown and was enrolled then. Whoever was enrolled only afterwards, as by
/// --enrol, was a stranger. Visits that nobody looked at are not counted, so the rates are those of what was looked at: look at all of
/// some hours, not only at those that seem wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward evaluate events
  doorward evaluate events --since 2026-11-01T00:00:00Z --json")]
pub struct Events {
    /// Only corrections of what was captured at this time or later
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

/// What was said of the visits that were looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Named, and it was that person.
    right: u64,
    /// Named, and it was another person of the gallery.
    another: u64,
    /// Named, and it was nobody of the gallery of then.
    stranger_named: u64,
    /// Named, and it was not that person, whoever it was.
    not_them: u64,
    /// Unknown, and it was somebody of the gallery.
    missed: u64,
    /// Unknown, and it was nobody of the gallery of then.
    stranger_unknown: u64,
    /// It was somebody who is not enrolled any more: whether they were then, nobody knows.
    erased: u64,
    /// Corrected events that are not kept any more.
    gone: u64,
    /// Corrected events that told nothing of who it is.
    undecided: u64,
}

impl Events {
    pub(super) async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let since = self.since.as_deref().map(str::parse::<Timestamp>).transpose();
        let since = since.map_err(|_| Usage("--since: write it like 2026-11-25T18:00:00Z".into()))?;
        let daemon = client.connect().await?;
        let (mut counts, mut enrolled) = (Counts::default(), HashMap::new());
        // By visit: what was said last of an event that decided something, before what was said of one that did not.
        let mut of_visit: HashMap<String, (pb::Event, pb::Event)> = HashMap::new();
        for correction in last_corrections(&daemon, since).await? {
            let request = pb::GetEventRequest { cursor: correction.corrected_cursor.clone() };
            let event = match daemon.events().get_event(request).await {
                Ok(response) => response.into_inner().event.unwrap_or_default(),
                Err(status) if status.code() == tonic::Code::NotFound => {
                    counts.gone += 1;
                    continue;
                }
                Err(status) => return Err(status.into()),
            };
            let rank = |(event, correction): &(pb::Event, pb::Event)| (is_decided(event), correction.sequence);
            let said = (event, correction);
            match of_visit.get(&said.0.visit_id) {
                Some(known) if rank(known) > rank(&said) => {}
                _ => drop(of_visit.insert(said.0.visit_id.clone(), said)),
            }
        }
        for (event, correction) in of_visit.into_values() {
            let who = correction.subject.as_ref().map(|subject| subject.id.clone()).unwrap_or_default();
            if !enrolled.contains_key(&who) {
                let since = enrolled_since(&daemon, &who).await?;
                enrolled.insert(who.clone(), since);
            }
            counts.add(&event, &correction, enrolled.get(&who).copied().flatten());
        }
        counts.tell(out)
    }
}

/// When the person was enrolled; `None` for who is not enrolled any more, or nobody.
async fn enrolled_since(daemon: &Daemon, id: &str) -> anyhow::Result<Option<Timestamp>> {
    if id.is_empty() {
        return Ok(None);
    }
    match daemon.gallery().get_subject(pb::GetSubjectRequest { id: id.to_owned() }).await {
        Ok(response) => Ok(response.into_inner().subject.and_then(|subject| subject.create_time)),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
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

/// Whether an event says who it is, or that nobody knows: before that it names nobody, and nothing is wrong with it.
fn is_decided(event: &pb::Event) -> bool {
    event.subject.is_some() || event.decision.is_some()
}

impl Counts {
    /// Takes in what was said of `event`; `enrolled_since` is when the person it was said to be was enrolled, if that is known.
    fn add(&mut self, event: &pb::Event, correction: &pb::Event, enrolled_since: Option<Timestamp>) {
        let uid = |subject: Option<&pb::EventSubject>| subject.map(|subject| subject.uid.clone());
        let micros = |time: Timestamp| (time.seconds, time.nanos);
        let was_enrolled_later = enrolled_since.zip(event.capture_time).is_some_and(|(since, seen)| micros(since) > micros(seen));
        let count = match (uid(event.subject.as_ref()), uid(correction.subject.as_ref())) {
            _ if !is_decided(event) => &mut self.undecided,
            (Some(named), Some(was)) if named == was => &mut self.right,
            (_, Some(_)) if enrolled_since.is_none() => &mut self.erased,
            (Some(_), Some(_)) if was_enrolled_later => &mut self.stranger_named,
            (Some(_), Some(_)) => &mut self.another,
            (Some(_), None) => &mut self.not_them,
            (None, Some(_)) if was_enrolled_later => &mut self.stranger_unknown,
            (None, Some(_)) => &mut self.missed,
            (None, None) => return,
        };
        *count += 1;
    }

    fn tell(self, out: Output) -> anyhow::Result<()> {
        let wrong = self.another + self.stranger_named + self.not_them;
        let (named, enrolled) = (self.right + wrong, self.right + self.another + self.missed);
        let rate = |events: u64, trials: u64| events as f64 / trials.max(1) as f64;
        let (false_names, misses) = (wilson(wrong, named), wilson(self.missed + self.another, enrolled));
        if out.json {
            return out.object(&json!({
                "evaluation": "events", "right": self.right, "another": self.another, "stranger_named": self.stranger_named,
                "not_them": self.not_them, "missed": self.missed, "stranger_unknown": self.stranger_unknown, "erased": self.erased, "not_kept": self.gone,
                "undecided": self.undecided, "false_name_rate": rate(wrong, named), "false_name_low": false_names.low,
                "false_name_high": false_names.high, "fnir": rate(self.missed + self.another, enrolled), "fnir_low": misses.low,
                "fnir_high": misses.high,
            }));
        }
        if named + enrolled + self.stranger_unknown + self.erased + self.gone + self.undecided == 0 {
            return out.line("nobody has confirmed or corrected an event yet: `doorward event correct CURSOR --was ID` says who it was");
        }
        let mut table = Table::of_facts();
        table.fact("named and right", self.right.to_string());
        table.fact("named, was another", self.another.to_string());
        table.fact("named, was a stranger", self.stranger_named.to_string());
        table.fact("named, was somebody else", self.not_them.to_string());
        table.fact("unknown, was enrolled", self.missed.to_string());
        table.fact("unknown, was a stranger", self.stranger_unknown.to_string());
        table.fact("wrong of those named", percent(rate(wrong, named), false_names));
        table.fact("not found (FNIR)", percent(rate(self.missed + self.another, enrolled), misses));
        if self.erased > 0 {
            table.fact("not enrolled any more", self.erased.to_string());
        }
        if self.gone > 0 {
            table.fact("not kept any more", self.gone.to_string());
        }
        if self.undecided > 0 {
            table.fact("not decided yet", format!("{}: correct the event that names somebody, or nobody", self.undecided));
        }
        out.table(&table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verdict_is_counted_as_what_it_says_of_the_event() {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let of = |uid: Option<&str>| pb::Event {
            decision: Some(pb::Decision::default()),
            capture_time: at(100),
            subject: uid.map(|uid| pb::EventSubject { uid: uid.into(), ..pb::EventSubject::default() }),
            ..pb::Event::default()
        };
        let mut counts = Counts::default();
        for (event, was) in [(Some("a"), Some("a")), (Some("a"), Some("b")), (Some("a"), None), (None, Some("a")), (None, None)] {
            counts.add(&of(event), &of(was), at(50));
        }
        assert_eq!(counts, Counts { right: 1, another: 1, not_them: 1, missed: 1, ..Counts::default() });
        // Whoever was enrolled only afterwards was a stranger then.
        let mut counts = Counts::default();
        counts.add(&of(Some("a")), &of(Some("b")), at(101));
        counts.add(&of(None), &of(Some("b")), at(101));
        assert_eq!(counts, Counts { stranger_named: 1, stranger_unknown: 1, ..Counts::default() });
        // An event that had not decided yet missed nobody.
        let mut counts = Counts::default();
        counts.add(&pb::Event { decision: None, ..of(None) }, &of(Some("a")), at(50));
        counts.add(&of(None), &of(Some("gone")), None);
        assert_eq!(counts, Counts { undecided: 1, erased: 1, ..Counts::default() });
    }
}
