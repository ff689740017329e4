//! What an operator wants to hear of a camera, and keep of its pictures, as options.
//!
//! In: options. Out: fields of the wire's `Camera`, and the names of those that were given.
//! Must not know: the connection.

use clap::{Args, ValueEnum};

use super::event_types;
use crate::pb;

/// What is kept of best shots.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Snapshots {
    /// No picture
    None,
    /// The face with some margin
    Crop,
    /// The face, and the whole frame
    Frame,
}

/// The options.
#[derive(Debug, Args)]
pub struct TellingSettings {
    /// How long a door may act on an event after the picture was taken; 0 takes the daemon's default
    #[arg(long, value_name = "MS")]
    actionable_ms: Option<u32>,
    /// What is kept of best shots [default of a new camera: frame]
    #[arg(long, value_name = "WHAT")]
    snapshots: Option<Snapshots>,
    /// Make everybody else in a kept picture unrecognisable
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    blur_others: Option<bool>,
    /// Tell these types of events on these days at these hours, and nothing else (repeatable): each part
    /// may be left out or be `all`; `all` alone tells everything again. Hours are the daemon's local time; those that pass
    /// midnight, such as 22:00-06:00, belong to the day on which they begin, and 22:00-22:00 is a whole day from then
    #[arg(long = "rule", value_name = "TYPE,…@DAY,…@HH:MM-HH:MM", value_parser = parse_rule)]
    rules: Vec<pb::EventRule>,
}

impl TellingSettings {
    /// Writes what was given into `camera` and answers the names of those fields.
    pub fn apply(self, camera: &mut pb::Camera) -> Vec<&'static str> {
        let given = [
            (self.actionable_ms.is_some(), "actionable_ms"),
            (self.snapshots.is_some(), "snapshots"),
            (self.blur_others.is_some(), "blur_others"),
            (!self.rules.is_empty(), "rules"),
        ];
        camera.actionable_ms = self.actionable_ms.unwrap_or_default();
        camera.snapshots = self.snapshots.map_or(pb::SnapshotPolicy::Unspecified, |snapshots| match snapshots {
            Snapshots::None => pb::SnapshotPolicy::None,
            Snapshots::Crop => pb::SnapshotPolicy::Crop,
            Snapshots::Frame => pb::SnapshotPolicy::Frame,
        }) as i32;
        camera.blur_others = self.blur_others.unwrap_or_default();
        // One that admits everything is none.
        camera.rules = self.rules.into_iter().filter(|rule| *rule != pb::EventRule::default()).collect();
        given.into_iter().filter(|(is_given, _)| *is_given).map(|(_, field)| field).collect()
    }
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

fn parse_rule(text: &str) -> Result<pb::EventRule, String> {
    let mut rule = pb::EventRule::default();
    for part in text.split('@').map(str::trim).filter(|part| !part.is_empty() && *part != "all") {
        let wrong =
            || format!("{part:?} is neither types of events (identified,entry), nor days (mon,tue or mon-fri), nor hours (22:00-06:00)");
        if part.contains(':') {
            (rule.from_minute, rule.until_minute) = hours(part).ok_or_else(wrong)?;
        } else if let Some(days) = days(part) {
            rule.days = days;
        } else {
            let types: Option<Vec<i32>> = part.split(',').map(|name| event_types::of(name.trim()).map(i32::from)).collect();
            rule.types = types.ok_or_else(wrong)?;
        }
    }
    Ok(rule)
}

/// Minutes of the day: from, until.
fn hours(text: &str) -> Option<(u32, u32)> {
    let minute = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
        (hour <= 24 && minute < 60 && hour * 60 + minute <= 1_440).then_some(hour * 60 + minute)
    };
    let (from, until) = text.split_once('-')?;
    let (from, until) = (minute(from)?, minute(until)?);
    // Midnight as an end is that of the day's end.
    Some((from, if until == 0 { 1_440 } else { until }))
}

/// `mon`, `mon,wed` or `mon-fri`, or several of these.
fn days(text: &str) -> Option<Vec<u32>> {
    let day = |name: &str| DAYS.iter().position(|day| *day == name.trim()).map(|index| index as u32 + 1);
    let mut all = Vec::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (day(from)?, day(to)?);
        let to = if to < from { to + 7 } else { to };
        all.extend((from..=to).map(|day| (day - 1) % 7 + 1));
    }
    Some(all)
}

/// Rules as they are written.
pub fn written(rules: &[pb::EventRule]) -> String {
    let rule = |rule: &pb::EventRule| {
        let mut parts = Vec::new();
        if !rule.types.is_empty() {
            parts.push(rule.types().map(event_types::name).collect::<Vec<_>>().join(","));
        }
        if !rule.days.is_empty() {
            let names = rule.days.iter().filter_map(|day| DAYS.get(*day as usize - 1).copied());
            parts.push(names.collect::<Vec<_>>().join(","));
        }
        let time = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
        // 0 and 0 are the whole day too.
        if rule.from_minute != 0 || !matches!(rule.until_minute, 0 | 1_440) {
            parts.push(format!("{}-{}", time(rule.from_minute), time(rule.until_minute)));
        }
        if parts.is_empty() { "all".to_owned() } else { parts.join("@") }
    };
    rules.iter().map(rule).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_read_as_it_is_written() {
        for text in ["identified,entry@mon,tue@22:00-06:00", "entry", "sat,sun", "08:30-24:00", "unidentified@20:00-07:00"] {
            assert_eq!(written(&[parse_rule(text).expect(text)]), text);
        }
        let week = parse_rule("all@fri-mon@00:00-00:00").expect("a rule");
        assert_eq!((week.days, week.from_minute, week.until_minute), (vec![5, 6, 7, 1], 0, 1_440));
        assert_eq!(parse_rule("all").expect("everything"), pb::EventRule::default());
    }

    #[test]
    fn what_is_no_rule_is_told_with_how_to_write_one() {
        for wrong in ["idnetified", "mon-fry", "22-06", "25:00-26:00", "12:60-13:00", "entry@monday"] {
            assert!(parse_rule(wrong).expect_err(wrong).contains("22:00-06:00"), "{wrong}");
        }
    }
}
