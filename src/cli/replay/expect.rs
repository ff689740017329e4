//! Compares the events of a replay with those of an earlier one, as decisions.
//!
//! In: two lists of events. Out: what was missed, what is false, what came late.
//! An event is the same if it tells the same of the same person at the same line or zone within two
//! seconds; it is late if it is told by a picture more than a tenth of a second later.
//! Must not know: how events come about.

use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use crate::cli::failure::Usage;

/// How far apart two events may be and still be the same, in microseconds.
const SAME_WITHIN_US: i64 = 2_000_000;
/// How much later an event may be told.
const LATE_BEYOND_US: i64 = 100_000;

/// How a run differs from what was expected.
#[derive(Debug, PartialEq)]
pub enum Difference {
    /// It was expected and not told.
    Missed(Value),
    /// It was told and not expected.
    False(Value),
    /// It was told by so much later a picture, in microseconds.
    Late(Value, i64),
}

impl Difference {
    /// For people.
    pub fn line(&self) -> String {
        match self {
            Self::Missed(event) => format!("missed  {}", in_words(event)),
            Self::False(event) => format!("false   {}", in_words(event)),
            Self::Late(event, by) => format!("late    {} by {:.2} s", in_words(event), *by as f64 / 1e6),
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        match self {
            Self::Missed(event) => json!({ "difference": "missed", "event": event }),
            Self::False(event) => json!({ "difference": "false", "event": event }),
            Self::Late(event, by) => json!({ "difference": "late", "late_s": *by as f64 / 1e6, "event": event }),
        }
    }
}

fn in_words(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let kind = text(&event["type"]);
    let words = [
        text(&event["capture_time"]),
        text(&event["camera_id"]),
        kind.trim_start_matches("EVENT_TYPE_").to_owned(),
        text(&event["subject"]["id"]),
        text(&event["region"]),
    ];
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The events of an earlier run.
///
/// # Errors
/// The file cannot be read, or a line of it is no event.
pub fn read(file: &Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read --expect {}", file.display()))?;
    let event = |(index, line): (usize, &str)| {
        let event: Option<Value> = serde_json::from_str(line).ok().filter(|event: &Value| time(event).is_some());
        event.ok_or_else(|| {
            Usage(format!("--expect {}, line {}: is no event that `doorward replay` printed", file.display(), index + 1)).into()
        })
    };
    text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(event).collect()
}

/// What differs, in the order of time. The closest events are matched first.
pub fn compare(expected: &[Value], told: &[Value]) -> Vec<Difference> {
    let apart = |a: &Value, b: &Value| Some(time(b)? - time(a)?);
    let mut pairs = Vec::new();
    for (left, event) in expected.iter().enumerate() {
        let same = told.iter().enumerate().filter(|(_, other)| key(other) == key(event));
        let near = same.filter_map(|(right, other)| Some((apart(event, other).filter(|by| by.abs() <= SAME_WITHIN_US)?, left, right)));
        pairs.extend(near);
    }
    pairs.sort_by_key(|(by, ..)| by.abs());
    let (mut found, mut known) = (vec![false; expected.len()], vec![false; told.len()]);
    let mut differences = Vec::new();
    for (by, left, right) in pairs {
        if !found[left] && !known[right] {
            (found[left], known[right]) = (true, true);
            differences.extend((by > LATE_BEYOND_US).then(|| Difference::Late(told[right].clone(), by)));
        }
    }
    let missed = expected.iter().zip(found).filter(|(_, found)| !found);
    differences.extend(missed.map(|(event, _)| Difference::Missed(event.clone())));
    let invented = told.iter().zip(known).filter(|(_, known)| !known);
    differences.extend(invented.map(|(event, _)| Difference::False(event.clone())));
    differences.sort_by_key(|difference| match difference {
        Difference::Missed(event) | Difference::False(event) | Difference::Late(event, _) => time(event),
    });
    differences
}

/// What an event tells.
fn key(event: &Value) -> [&Value; 4] {
    [&event["type"], &event["camera_id"], &event["subject"]["id"], &event["region"]]
}

/// When its picture was taken, in microseconds.
fn time(event: &Value) -> Option<i64> {
    let time: prost_types::Timestamp = event["capture_time"].as_str()?.parse().ok()?;
    Some(time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, subject: &str, ms: u32) -> Value {
        let time = format!("2026-01-01T00:00:{:02}.{:03}Z", ms / 1_000, ms % 1_000);
        json!({ "type": format!("EVENT_TYPE_{kind}"), "camera_id": "front", "subject": { "id": subject }, "capture_time": time })
    }

    #[test]
    fn the_same_events_differ_in_nothing() {
        let events = [event("IDENTIFIED", "anna", 1_000), event("VISIT_ENDED", "anna", 5_000)];
        assert_eq!(compare(&events, &events), []);
    }

    #[test]
    fn a_missed_a_false_and_a_late_decision_are_each_told() {
        let expected = [event("IDENTIFIED", "anna", 1_000), event("IDENTIFIED", "bert", 4_000), event("UNIDENTIFIED", "", 9_000)];
        let told = [event("IDENTIFIED", "anna", 1_400), event("IDENTIFIED", "carl", 4_000), event("UNIDENTIFIED", "", 9_050)];
        let lines: Vec<String> = compare(&expected, &told).iter().map(Difference::line).collect();
        assert_eq!(
            lines,
            [
                "late    2026-01-01T00:00:01.400Z front IDENTIFIED anna by 0.40 s",
                "missed  2026-01-01T00:00:04.000Z front IDENTIFIED bert",
                "false   2026-01-01T00:00:04.000Z front IDENTIFIED carl",
            ]
        );
    }

    #[test]
    fn two_events_of_one_kind_are_each_matched_once() {
        let (one, other) = (event("ENTRY", "anna", 1_000), event("ENTRY", "anna", 1_500));
        let differences = compare(&[one.clone(), other.clone()], &[other]);
        assert_eq!(differences, [Difference::Missed(one)]);
    }
}
