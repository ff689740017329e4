//! Who crosses which line, and who enters and leaves which zone.
//!
//! In: where visitors are seen. Out: events of the moment at which somebody was there, under the name that is known by now.
//! While it is withheld that a visit begins, and then until its first shots have decided who it is, sightings are kept, at most
//! [`WITHHELD_MAX`]: then every other one goes, and the way between those that stay is straight.
//! Must not know: why a start is withheld, how anybody is named.

use super::path::Step;
use super::{Look, Standing, Visit, Visits};
use crate::clock::Timestamp;
use crate::event::{Event, EventKind, TrackId};

/// More sightings than a decision takes by default at 25 frames a second.
const WITHHELD_MAX: usize = 128;

impl Visits {
    /// Tells what the visitor on `track` crossed, entered and left by where the face is now.
    pub(super) fn walk(&mut self, track: TrackId) {
        let Some(visit) = self.open.get_mut(&track) else { return };
        // Whoever may turn out to be somebody who was here goes on with that visitor's path.
        if !visit.announced {
            return visit.withhold();
        }
        // And nobody crosses a line under a name before it is sure again whose face it is.
        if visit.evidence.is_unsure() {
            return;
        }
        if visit.is_about_to_be_decided() && !visit.withheld.is_empty() {
            return visit.withhold();
        }
        let (here, is_withheld) = ((visit.last, visit.seen), visit.is_withheld());
        self.walk_withheld(track, false);
        if !is_withheld {
            self.walk_to(track, here);
        }
    }

    /// Tells the way on `track` while the start was withheld, once that is told, it is surely one person's, and no shot waits for another to
    /// name it. When the visit `is_over` no shot will tell any more: then the way is told if no name is told with it.
    pub(super) fn walk_withheld(&mut self, track: TrackId, is_over: bool) {
        let is_nameless = |visit: &Visit| !matches!(visit.standing, Standing::Identified(_));
        let is_settled = |visit: &Visit| !visit.evidence.is_unsure() && !visit.is_about_to_be_decided();
        let is_tellable = |visit: &&mut Visit| visit.announced && (is_settled(visit) || (is_over && is_nameless(visit)));
        let Some(visit) = self.open.get_mut(&track).filter(is_tellable) else { return };
        for place in std::mem::take(&mut visit.withheld) {
            self.walk_to(track, place);
        }
    }

    fn walk_to(&mut self, track: TrackId, place: (Look, Timestamp)) {
        let Some(visit) = self.open.get_mut(&track) else { return };
        let steps = visit.path.step(&place.0.box_in_frame, place.1, (&self.layout.lines, &self.layout.zones));
        let Some(visit) = self.open.get(&track) else { return };
        let events: Vec<Event> = steps.into_iter().map(|step| self.step(step, visit, place)).collect();
        self.told.extend(events);
    }

    /// What a step of a visitor is as an event, by where and when the visitor was seen then.
    pub(super) fn step(&self, step: Step, visit: &Visit, (look, seen): (Look, Timestamp)) -> Event {
        let (kind, region, dwell) = match step {
            Step::Crossed { line, inwards: true } => (EventKind::Entry, self.layout.lines.get(line), None),
            Step::Crossed { line, inwards: false } => (EventKind::Exit, self.layout.lines.get(line), None),
            Step::Entered { zone } => (EventKind::ZoneEntered, self.layout.zones.get(zone), None),
            Step::Left { zone, dwell } => (EventKind::ZoneLeft, self.layout.zones.get(zone), Some(dwell)),
        };
        let mut event = self.event(kind, visit, visit.seen);
        event.capture_time_us = seen.as_micros();
        (event.box_in_frame, event.detection_score) = (Some(look.box_in_frame), Some(look.detection_score));
        if matches!(kind, EventKind::Entry | EventKind::Exit) {
            event.actionable_until_us = seen.plus(self.policy.actionable).as_micros();
            if visit.is_doubted {
                // Whoever comes in under a name that may not hold any more opens no door by it.
                (event.subject, event.decision) = (None, None);
            }
        }
        event.region = region.map(|region| region.name.as_str().into());
        event.duration_ms = dwell.and_then(|dwell| u64::try_from(dwell.as_millis()).ok());
        event
    }
}

impl Visit {
    fn withhold(&mut self) {
        if self.is_withheld() {
            return;
        }
        self.thin_out();
        self.withheld.push((self.last, self.seen));
    }

    /// Adds the way of a visitor who turned out to be this one.
    pub(super) fn withhold_way_of(&mut self, newer: Vec<(Look, Timestamp)>) {
        for place in newer {
            self.thin_out();
            self.withheld.push(place);
        }
    }

    fn thin_out(&mut self) {
        if self.withheld.len() >= WITHHELD_MAX {
            let mut stays = false;
            self.withheld.retain(|_| {
                stays = !stays;
                stays
            });
        }
    }

    /// Whether there is a shot, which did not suffice to say who it is: the next ones do, or the deadline.
    fn is_about_to_be_decided(&self) -> bool {
        self.standing == Standing::Undecided && self.first_shot.is_some()
    }

    /// Whether where the visitor is now waits to be told.
    fn is_withheld(&self) -> bool {
        self.withheld.last().is_some_and(|(_, time)| *time == self.seen)
    }
}
