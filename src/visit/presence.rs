//! When a visit begins, goes on and ends.
//!
//! A face that may be somebody who was here a moment ago begins no visit before a usable shot has told:
//! nobody arrives twice. Who is out of sight for longer than `resume_within` is gone.
//! Must not know: how anybody is named.

use std::time::Duration;

use super::{Ending, Look, Standing, Visit, Visits};
use crate::clock::Timestamp;
use crate::event::{Decision, EndReason, EventKind, TrackId};
use crate::face::{Probe, Template, TemplateError};

/// A shot at least this similar to what is known of somebody who was here a moment ago shows the same
/// person. Erring costs a second visit; the other error would make two people one.
const SAME_VISITOR_MIN: f32 = 0.45;
/// A face that may be somebody who was here a moment ago begins a visit of its own after this time at
/// the latest, usable shot or not.
const START_WITHHELD_MAX: Duration = Duration::from_secs(1);
/// A track that was not continued for so long may have broken; a detection is missed for less.
const MISSING_AFTER: Duration = Duration::from_millis(250);
/// Whoever was unseen for longer was away, where frames are not that far apart: somebody else or a picture may have come meanwhile.
const AWAY_AFTER: Duration = Duration::from_millis(500);
/// Whoever was not seen for so long is out of sight, though the track is not over.
const OUT_OF_SIGHT_AFTER: Duration = Duration::from_secs(1);

/// Whoever was unseen for longer may have gone anywhere meanwhile; behind a pillar people walk straight on.
const WALKED_ON_MAX: Duration = Duration::from_secs(2);

/// So many visitors are expected back; of more the one who left first is gone.
const AWAY_MAX: usize = 256;

impl Visits {
    /// The track is over. `judge` as in [`overdue`](Self::overdue): a visit is never left without an
    /// answer. Whoever is merely gone may come back.
    pub fn ended(&mut self, track: TrackId, ending: Ending, judge: impl Fn(Option<&Probe>) -> Decision) {
        self.announce(track);
        let Some(visit) = self.open.get(&track) else { return };
        if visit.standing == Standing::Undecided {
            let decision = judge(visit.evidence.of_one_person());
            self.settle_now(track, decision, ending.time);
        }
        self.walk_withheld(track, true);
        let Some(visit) = self.open.remove(&track) else { return };
        if ending.reason == EndReason::Gone && !self.policy.resume_within.is_zero() {
            if self.away.len() >= AWAY_MAX {
                let longest = self.away.remove(0);
                self.tell_end(longest, ending);
            }
            self.away.push(visit);
        } else {
            self.tell_end(visit, ending);
        }
    }

    /// Everybody is gone, because the camera shows nothing any more.
    pub fn end_all(&mut self, ending: Ending, judge: impl Fn(Option<&Probe>) -> Decision) {
        let tracks: Vec<TrackId> = self.open.keys().copied().collect();
        tracks.into_iter().for_each(|track| self.ended(track, ending, &judge));
        for visit in std::mem::take(&mut self.away) {
            self.tell_end(visit, ending);
        }
    }

    /// Ends the visits of those who have been out of sight for too long.
    pub(super) fn end_those_who_stay_away(&mut self, now: Timestamp) {
        let within = self.policy.resume_within;
        let gone: Vec<Visit> = self.away.extract_if(.., |visit| now.since(visit.seen) > within).collect();
        for visit in gone {
            self.tell_end(visit, Ending { reason: EndReason::Gone, time: now });
        }
    }

    /// The visitor has left, zones first.
    fn tell_end(&mut self, mut visit: Visit, ending: Ending) {
        for step in visit.path.end() {
            let left = self.step(step, &visit, (visit.last, visit.seen));
            self.told.push(left);
        }
        let mut event = self.event(EventKind::VisitEnded, &visit, ending.time);
        event.end_reason = Some(ending.reason);
        event.duration_ms = u64::try_from(visit.seen.since(visit.started).as_millis()).ok();
        self.told.push(event);
    }

    /// Tells that the visit on `track` began, once.
    pub(super) fn announce(&mut self, track: TrackId) {
        let Some(visit) = self.open.get_mut(&track).filter(|visit| !visit.announced) else { return };
        visit.announced = true;
        let Some(visit) = self.open.get(&track) else { return };
        let now = visit.seen;
        let mut event = self.event(EventKind::VisitStarted, visit, now);
        event.capture_time_us = visit.started.as_micros();
        event.actionable_until_us = event.capture_time_us;
        self.told.push(event);
    }

    /// Tells that the visit on `track` began, unless it may be one that goes on; then a usable shot will
    /// tell, or time.
    pub(super) fn announce_if_new(&mut self, track: TrackId, now: Timestamp) {
        let may_go_on = !self.away.is_empty() || self.open.values().any(|other| self.is_missing(other, track));
        let is_overdue = self.open.get(&track).is_some_and(|visit| now.since(visit.started) >= START_WITHHELD_MAX);
        if !may_go_on || is_overdue {
            self.announce(track);
        }
    }

    /// Whether somebody else than on `track` is not in the newest frame: the track may have broken.
    fn is_missing(&self, other: &Visit, track: TrackId) -> bool {
        other.track != track && other.announced && self.newest.since(other.seen) >= MISSING_AFTER
    }

    /// The first usable shot of a new face: of somebody who was here a moment ago, whose visit goes
    /// on, or of somebody new, whose visit begins.
    pub(super) fn resume_or_announce(&mut self, track: TrackId, shot: &Template) -> Result<(), TemplateError> {
        let missing = self.open.values().filter(|other| self.is_missing(other, track));
        let mut closest: Option<(f32, TrackId)> = None;
        for visit in missing.chain(&self.away) {
            let Some(known) = visit.evidence.fused() else { continue };
            let similarity = known.similarity(shot)?;
            if similarity >= SAME_VISITOR_MIN.max(self.policy.threshold) && closest.is_none_or(|(best, _)| similarity > best) {
                closest = Some((similarity, visit.track));
            }
        }
        let Some((_, before)) = closest else {
            self.announce(track);
            return Ok(());
        };
        self.away.extend(self.open.remove(&before));
        if let Some(index) = self.away.iter().position(|visit| visit.track == before) {
            self.resume(track, index);
        }
        Ok(())
    }

    /// The visitor on `track` is the one of the visit `away[index]`, which goes on.
    pub(super) fn resume(&mut self, track: TrackId, index: usize) {
        let Some(newer) = self.open.remove(&track) else { return };
        let mut visit = self.away.remove(index);
        visit.go_on_as(newer);
        self.open.insert(track, visit);
    }
}

impl Visit {
    /// Goes on with what was learnt as `newer`, who turned out to be the same visitor.
    pub(super) fn go_on_as(&mut self, newer: Self) {
        // Where frames are few a new track is believed three frames later.
        if newer.started.since(self.seen) > WALKED_ON_MAX.max(3 * newer.last.frames_apart) {
            self.path.forget_way();
            self.withheld.clear();
        }
        self.track = newer.track;
        self.seen = self.seen.max(newer.seen);
        self.last = newer.last;
        self.shots.fused += newer.shots.fused;
        for (fault, count) in newer.shots.rejected {
            *self.shots.rejected.entry(fault).or_default() += count;
        }
        self.shown = newer.shown.or(self.shown);
        self.first_shot = self.first_shot.or(newer.first_shot);
        self.snapshot = self.snapshot.or(newer.snapshot);
        self.passed |= newer.passed;
        // What was told of the newer path is not told again.
        self.path.go_on_as(newer.path);
        self.withhold_way_of(newer.withheld);
        self.evidence.absorb(&newer.evidence);
        // What comes back may be a picture of who was here: only what it looks like itself counts.
        self.live = newer.live;
    }

    /// Whether the visitor, who is seen again by `look` at `time`, was out of sight, and not merely not looked for: frames may be far
    /// apart, and in one of them a face is missed.
    pub(super) fn was_away(&self, look: &Look, time: Timestamp) -> bool {
        time.since(self.seen) > AWAY_AFTER.max(2 * look.frames_apart)
    }

    /// Whether the visitor is in the picture, of which `newest` is the time, and not merely expected back.
    pub(super) fn is_in_sight(&self, newest: Timestamp) -> bool {
        newest.since(self.seen) < OUT_OF_SIGHT_AFTER
    }
}
