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
use super::{ReportOptions, percent};
use crate::evaluate::verification::Share;
use crate::figure::{Axis, Figure, Report, Scale, Section, Series, Style, Table as ReportTable};
use crate::pb::{self, EventType, IdentificationRejection};

/// How often the door erred, by what operators said of its events
///
/// Every visit that was confirmed or corrected (`doorward event correct`) counts once, by what was said of it last: who was named and was
/// somebody else or nobody known, and who was unknown and was enrolled then. Who is said to be a stranger (--was-stranger), or was
/// enrolled only afterwards, as by --enrol, was one. Visits that nobody looked at are not counted, so the rates are those of what was looked at: look at all of
/// some hours, not only at those that seem wrong.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward evaluate events
  doorward evaluate events --report events.html
  doorward evaluate events --since 2026-11-01T00:00:00Z --json")]
pub struct Events {
    /// Only corrections of what was captured at this time or later
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    #[command(flatten)]
    report: ReportOptions,
}

/// How alike visitors looked to the closest person: of whom it is known whether they were enrolled.
#[derive(Clone, Debug, Default)]
struct Similarities {
    strangers: Vec<f32>,
    /// Below everything for those whose closest is known to have been somebody else.
    enrolled: Vec<f32>,
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
        self.report.check()?;
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
        let mut similarities = Similarities::default();
        for (event, correction) in of_visit.into_values() {
            let who = correction.subject.as_ref().map(|subject| subject.id.clone()).unwrap_or_default();
            if !enrolled.contains_key(&who) {
                let since = enrolled_since(&daemon, &who).await?;
                enrolled.insert(who.clone(), since);
            }
            let verdict = verdict(&event, &correction, enrolled.get(&who).copied().flatten());
            counts.add(verdict);
            similarities.add(&event, &correction, verdict);
        }
        self.report.write(out, || report(&counts, &similarities))?;
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

/// What was said of an event comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Right,
    Another,
    StrangerNamed,
    NotThem,
    Missed,
    StrangerUnknown,
    Erased,
    Undecided,
    Nothing,
}

/// What `correction` says of `event`; `enrolled_since` is when the person it was said to be was enrolled, if that is known.
fn verdict(event: &pb::Event, correction: &pb::Event, enrolled_since: Option<Timestamp>) -> Told {
    let uid = |subject: Option<&pb::EventSubject>| subject.map(|subject| subject.uid.clone());
    let micros = |time: Timestamp| (time.seconds, time.nanos);
    let was_enrolled_later = enrolled_since.zip(event.capture_time).is_some_and(|(since, seen)| micros(since) > micros(seen));
    match (uid(event.subject.as_ref()), uid(correction.subject.as_ref())) {
        _ if !is_decided(event) => Told::Undecided,
        (Some(_), None) if correction.was_stranger => Told::StrangerNamed,
        (None, None) if correction.was_stranger => Told::StrangerUnknown,
        (Some(named), Some(was)) if named == was => Told::Right,
        (_, Some(_)) if enrolled_since.is_none() => Told::Erased,
        (Some(_), Some(_)) if was_enrolled_later => Told::StrangerNamed,
        (Some(_), Some(_)) => Told::Another,
        (Some(_), None) => Told::NotThem,
        (None, Some(_)) if was_enrolled_later => Told::StrangerUnknown,
        (None, Some(_)) => Told::Missed,
        (None, None) => Told::Nothing,
    }
}

impl Similarities {
    fn add(&mut self, event: &pb::Event, correction: &pb::Event, told: Told) {
        let Some(decision) = &event.decision else { return };
        // What was unknown for another reason no threshold would have named.
        let by_threshold = [IdentificationRejection::Unspecified, IdentificationRejection::BelowThreshold];
        let Some(similarity) = decision.similarity.filter(|_| by_threshold.contains(&decision.rejection())) else { return };
        match told {
            Told::StrangerNamed | Told::StrangerUnknown => self.strangers.push(similarity),
            Told::Right => self.enrolled.push(similarity),
            // Somebody else was the closest, whatever the threshold.
            Told::Another => self.enrolled.push(f32::NEG_INFINITY),
            Told::Missed => {
                // Whoever is second was not the closest.
                let second = decision.runner_up.as_ref().map(|second| &second.subject_uid);
                let is_second = second.is_some() && second == correction.subject.as_ref().map(|subject| &subject.uid);
                self.enrolled.push(if is_second { f32::NEG_INFINITY } else { similarity });
            }
            _ => {}
        }
    }
}

impl Counts {
    fn add(&mut self, told: Told) {
        let count = match told {
            Told::Right => &mut self.right,
            Told::Another => &mut self.another,
            Told::StrangerNamed => &mut self.stranger_named,
            Told::NotThem => &mut self.not_them,
            Told::Missed => &mut self.missed,
            Told::StrangerUnknown => &mut self.stranger_unknown,
            Told::Erased => &mut self.erased,
            Told::Undecided => &mut self.undecided,
            Told::Nothing => return,
        };
        *count += 1;
    }

    /// Of those named, who was somebody else; of strangers, who was named; of enrolled people, who was not found.
    fn rates(&self) -> [Share; 3] {
        let wrong = self.another + self.stranger_named + self.not_them;
        [
            Share { events: wrong, trials: self.right + wrong },
            Share { events: self.stranger_named, trials: self.stranger_named + self.stranger_unknown },
            Share { events: self.missed + self.another, trials: self.right + self.another + self.missed },
        ]
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let [wrong, fpir, fnir] = self.rates().map(|share| percent(share.rate(), share.interval()));
        vec![
            ("named and right", self.right.to_string()),
            ("named, was another", self.another.to_string()),
            ("named, was a stranger", self.stranger_named.to_string()),
            ("named, was somebody else", self.not_them.to_string()),
            ("unknown, was enrolled", self.missed.to_string()),
            ("unknown, was a stranger", self.stranger_unknown.to_string()),
            ("wrong of those named", wrong),
            ("strangers named (FPIR)", fpir),
            ("not found (FNIR)", fnir),
        ]
    }

    fn tell(self, out: Output) -> anyhow::Result<()> {
        let [wrong, fpir, fnir] = self.rates();
        let (false_names, strangers, misses) = (wrong.interval(), fpir.interval(), fnir.interval());
        if out.json {
            return out.object(&json!({
                "evaluation": "events", "right": self.right, "another": self.another, "stranger_named": self.stranger_named,
                "not_them": self.not_them, "missed": self.missed, "stranger_unknown": self.stranger_unknown, "erased": self.erased, "not_kept": self.gone,
                "undecided": self.undecided, "false_name_rate": wrong.rate(), "false_name_low": false_names.low,
                "false_name_high": false_names.high, "fpir": fpir.rate(), "fpir_low": strangers.low, "fpir_high": strangers.high,
                "strangers": fpir.trials, "fnir": fnir.rate(), "fnir_low": misses.low, "fnir_high": misses.high,
            }));
        }
        let judged = wrong.trials + self.missed + self.stranger_unknown;
        if judged + self.erased + self.gone + self.undecided == 0 {
            return out.line("nobody has confirmed or corrected an event yet: `doorward event correct CURSOR --was ID` says who it was");
        }
        let mut table = Table::of_facts();
        self.facts().into_iter().for_each(|(name, value)| table.fact(name, value));
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

fn report(counts: &Counts, similarities: &Similarities) -> Report {
    let rows = counts.facts().into_iter().map(|(name, value)| vec![name.to_owned(), value]);
    let is_drawn = !similarities.strangers.is_empty() && similarities.enrolled.iter().any(|score| score.is_finite());
    Report {
        title: "Events that were looked at".into(),
        introduction: vec![
            "Each visit counts once, by what was said of it last; rates with 95 % intervals (Wilson). They are those of what was looked at.".into(),
        ],
        sections: vec![Section {
            heading: "Verdicts".into(),
            tables: vec![ReportTable { header: vec![String::new(), "visits".into()], rows: rows.collect() }],
            figures: if is_drawn { vec![by_threshold(similarities)] } else { Vec::new() },
            ..Section::default()
        }],
    }
}

/// What other thresholds would have done with the same visits.
fn by_threshold(Similarities { strangers, enrolled }: &Similarities) -> Figure {
    let mut thresholds: Vec<f32> = strangers.iter().chain(enrolled).copied().filter(|score| score.is_finite()).collect();
    thresholds.sort_by(f32::total_cmp);
    let share = |of: &[f32], is: &dyn Fn(f32) -> bool| of.iter().filter(|score| is(**score)).count() as f64 / of.len().max(1) as f64;
    // A rate holds up to a score that is seen, and changes just above it.
    let curve = |rate: &dyn Fn(f32) -> f64| {
        thresholds.iter().flat_map(|at| [*at, at.next_up()]).map(|at| (f64::from(at), rate(at))).collect::<Vec<_>>()
    };
    let line = |name: &str, points| Series { name: name.into(), points, style: Style::Line };
    Figure {
        title: "Errors by threshold, of these visits".into(),
        caption: "Strangers who would be taken for somebody (FPIR), and enrolled people who would not be found (FNIR), of visits that a threshold decided. Whom somebody was closest to who was not found is not known: where it was another person, the FNIR is higher than drawn.".into(),
        x: Axis { label: "threshold".into(), scale: Scale::Linear, range: None },
        y: Axis { label: "share of visits".into(), scale: Scale::Linear, range: Some((0.0, 1.0)) },
        series: vec![
            line("FPIR", curve(&|at| share(strangers, &|score| score >= at))),
            line("FNIR", curve(&|at| share(enrolled, &|score| score < at))),
        ],
        markers: Vec::new(),
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
            counts.add(verdict(&of(event), &of(was), at(50)));
        }
        assert_eq!(counts, Counts { right: 1, another: 1, not_them: 1, missed: 1, ..Counts::default() });
        // Whoever was enrolled only afterwards was a stranger then.
        let mut counts = Counts::default();
        counts.add(verdict(&of(Some("a")), &of(Some("b")), at(101)));
        counts.add(verdict(&of(None), &of(Some("b")), at(101)));
        assert_eq!(counts, Counts { stranger_named: 1, stranger_unknown: 1, ..Counts::default() });
        // And so was whoever is said to be one.
        let stranger = pb::Event { was_stranger: true, ..of(None) };
        counts.add(verdict(&of(Some("a")), &stranger, None));
        (0..2).for_each(|_| counts.add(verdict(&of(None), &stranger, None)));
        assert_eq!(counts, Counts { stranger_named: 2, stranger_unknown: 3, ..Counts::default() });
        assert_eq!(counts.rates()[1], Share { events: 2, trials: 5 });
        // An event that had not decided yet missed nobody.
        let mut counts = Counts::default();
        counts.add(verdict(&pb::Event { decision: None, ..of(None) }, &of(Some("a")), at(50)));
        counts.add(verdict(&of(None), &of(Some("gone")), None));
        assert_eq!(counts, Counts { undecided: 1, erased: 1, ..Counts::default() });
    }
}
