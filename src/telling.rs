//! What is told of what a camera sees, when, and what is kept of its pictures.
//!
//! In: what an operator asks for; an event and the hour. Out: whether it is told.
//! Must not know: who is told, how pictures are made.

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::event::EventKind;

/// What a camera's operator wants to hear of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Telling {
    /// How long a door may act on an event after the picture was taken, in milliseconds; `None` takes
    /// the daemon's default.
    pub actionable_ms: Option<u32>,
    /// What is kept of the best shots.
    pub snapshots: SnapshotPolicy,
    /// Whether everybody else in a kept picture is made unrecognisable.
    pub blur_others: bool,
    /// Which events are told when; all of them, always, without rules.
    pub rules: Vec<EventRule>,
}

/// What is kept of a best shot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotPolicy {
    /// Nothing.
    None,
    /// The face with some margin.
    Crop,
    /// The face, and the whole frame.
    #[default]
    Frame,
}

/// Events of some types are told at some hours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventRule {
    /// Which types; all when empty.
    pub types: Vec<EventKind>,
    /// On which days, Monday is 1 and Sunday 7; every day when empty. Hours that pass midnight belong to
    /// the day on which they begin.
    pub days: Vec<u8>,
    /// From which minute of the day on, 0 to 1439, in local time.
    pub from_minute: u16,
    /// Before which minute, 1 to 1440; at or before `from_minute` it is that of the next day.
    pub until_minute: u16,
}

/// Minutes of a day.
pub const DAY_MINUTES: u16 = 24 * 60;

/// Why this machine's local time is not known, if it is not: schedules go by UTC then.
pub fn local_time_unknown() -> Option<String> {
    TimeZone::try_system().err().map(|error| error.to_string())
}

impl Telling {
    /// Whether an event of `kind` that was captured at `time` is told, by this machine's local time.
    /// What cameras say of themselves always is.
    pub fn admits(&self, kind: EventKind, time: Timestamp) -> bool {
        self.rules.is_empty() || self.admits_in(&TimeZone::system(), kind, time)
    }

    fn admits_in(&self, zone: &TimeZone, kind: EventKind, time: Timestamp) -> bool {
        let of_nobody = matches!(
            kind,
            EventKind::CameraOnline
                | EventKind::CameraOffline
                | EventKind::GalleryChanged
                | EventKind::InferenceFailed
                | EventKind::InferenceRestored
        );
        of_nobody || self.rules.is_empty() || self.rules.iter().any(|rule| rule.admits(kind, time, zone))
    }
}

impl EventRule {
    fn admits(&self, kind: EventKind, time: Timestamp, zone: &TimeZone) -> bool {
        if !(self.types.is_empty() || self.types.contains(&kind)) {
            return false;
        }
        // A time that no calendar knows is outside every schedule.
        let Ok(time) = jiff::Timestamp::from_microsecond(time.as_micros()) else { return false };
        let local = zone.to_datetime(time);
        let minute = u16::from(local.hour().unsigned_abs()) * 60 + u16::from(local.minute().unsigned_abs());
        let (today, yesterday) = (local.weekday(), local.weekday().previous());
        if self.from_minute < self.until_minute {
            return self.is_on(today) && (self.from_minute..self.until_minute).contains(&minute);
        }
        (self.is_on(today) && minute >= self.from_minute) || (self.is_on(yesterday) && minute < self.until_minute)
    }

    fn is_on(&self, day: Weekday) -> bool {
        self.days.is_empty() || self.days.contains(&day.to_monday_one_offset().unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("central Europe")
    }

    /// A moment by the clock on the wall in central Europe.
    fn at(text: &str) -> Timestamp {
        let civil: jiff::civil::DateTime = text.parse().expect("a date and time");
        Timestamp::from_micros(zone().to_timestamp(civil).expect("unambiguous").as_microsecond())
    }

    fn telling(rule: EventRule) -> Telling {
        Telling { rules: vec![rule], ..Telling::default() }
    }

    #[test]
    fn without_rules_everything_is_told() {
        assert!(Telling::default().admits(EventKind::Unidentified, at("2026-11-25T03:00")));
    }

    #[test]
    fn a_rule_names_types_and_cameras_always_speak_for_themselves() {
        let rule = EventRule { types: vec![EventKind::Identified], until_minute: DAY_MINUTES, ..EventRule::default() };
        let now = at("2026-11-25T03:00");
        let told = |kind| telling(rule.clone()).admits_in(&zone(), kind, now);
        assert!(told(EventKind::Identified) && told(EventKind::CameraOffline) && !told(EventKind::Unidentified));
    }

    #[test]
    fn hours_that_pass_midnight_belong_to_the_day_on_which_they_begin() {
        // Friday night, 22:00 to 06:00.
        let rule = EventRule { days: vec![5], from_minute: 22 * 60, until_minute: 6 * 60, ..EventRule::default() };
        for (time, told) in [
            ("2026-11-27T21:59", false),
            ("2026-11-27T22:00", true),
            ("2026-11-28T05:59", true),
            ("2026-11-28T06:00", false),
            ("2026-11-28T23:00", false),
            ("2026-11-27T03:00", false),
        ] {
            assert_eq!(telling(rule.clone()).admits_in(&zone(), EventKind::Unidentified, at(time)), told, "{time}");
        }
    }

    #[test]
    fn the_hours_are_those_on_the_wall_in_summer_and_in_winter() {
        let rule = EventRule { from_minute: 8 * 60, until_minute: 9 * 60, ..EventRule::default() };
        for day in ["2026-07-01", "2026-12-01"] {
            let told = |time: &str| telling(rule.clone()).admits_in(&zone(), EventKind::Entry, at(&format!("{day}T{time}")));
            assert!(!told("07:59") && told("08:00") && told("08:59") && !told("09:00"), "{day}");
        }
    }
}
