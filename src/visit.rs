//! Turns sightings and decisions into visits: who is there, since when, and what to tell.
//!
//! In: the sightings of each frame, faces refused by quality, templates, decisions. Out: when a
//! face is worth another look, and events without pictures or measured times.
//! One visit a track. It says at most once that it is unidentified and at most once who it is:
//! a better look may still name a visitor that was unidentified at first, never the other way round.
//! Must not know: pixels, the gallery, the log. Pure: time is an argument.

mod evidence;

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::{BoxInFrame, Decision, EndReason, Event, EventKind, ShotCounts, SnapshotId, TrackId, VisitId};
use crate::face::{Template, TemplateError};
use crate::subject::SubjectUid;

use evidence::Evidence;
pub use evidence::Fused;

/// How visits are decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VisitPolicy {
    /// A visit that is undecided for this long is unidentified.
    pub decision_deadline: Duration,
    /// How long a door may act on an event after the picture was taken.
    pub actionable: Duration,
}

/// A face of one frame that continues a visit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Its track.
    pub track: TrackId,
    /// Whether the track was out of sight, so that the face may be another one.
    pub resumed: bool,
    /// What the detection alone promises of the face's quality, 0 to 1.
    pub promise: f32,
    /// Where it is.
    pub box_in_frame: BoxInFrame,
    /// The detector's score.
    pub detection_score: f32,
}

/// A shot of the visitor, encoded.
#[derive(Clone, Copy, Debug)]
pub struct EncodedShot<'a> {
    /// Its template.
    pub template: &'a Template,
    /// Its overall quality, 0 to 1.
    pub quality: f32,
    /// When it was taken.
    pub time: Timestamp,
}

/// How a visit ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub reason: EndReason,
    /// When.
    pub time: Timestamp,
}

/// Above the threshold by this much, one shot is enough to say who it is; below it by this much,
/// three are enough to say nobody. In between another shot is worth its time.
const CLEAR_MARGIN: f32 = 0.10;
/// Even the poorest shot that quality lets through weighs something.
const QUALITY_FLOOR: f32 = 0.05;
/// Shots that make a narrow match sure.
const SHOTS_FOR_MATCH: u32 = 2;
/// Shots that make a clear stranger sure.
const SHOTS_FOR_STRANGER: u32 = 3;
/// With so many shots nothing is gained by waiting.
const SHOTS_ENOUGH: u32 = 8;

/// The visits of one camera.
#[derive(Debug)]
pub struct Visits {
    camera: String,
    policy: VisitPolicy,
    open: BTreeMap<TrackId, Visit>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Standing {
    Undecided,
    Unidentified,
    Identified(SubjectUid),
}

#[derive(Debug)]
struct Visit {
    id: VisitId,
    started: Timestamp,
    seen: Timestamp,
    standing: Standing,
    evidence: Evidence,
    shots: ShotCounts,
    last: Look,
    /// The shot that was fused last, and when it was taken: what a decision rests on.
    shown: Option<(Look, Timestamp)>,
    decision: Option<Decision>,
    snapshot: Option<SnapshotId>,
}

impl Visits {
    /// No visits at `camera` yet.
    pub fn new(camera: &str, policy: VisitPolicy) -> Self {
        Self { camera: camera.to_owned(), policy, open: BTreeMap::new() }
    }

    /// Changes the policy, for visits that are under way too.
    pub fn set_policy(&mut self, policy: VisitPolicy) {
        self.policy = policy;
    }

    /// A confirmed track was seen at `time`. Answers `VISIT_STARTED` for a new one, and whether
    /// its face is worth aligning and encoding now.
    pub fn sighted(&mut self, look: Look, time: Timestamp) -> (Option<Event>, bool) {
        let is_new = !self.open.contains_key(&look.track);
        let visit = self.open.entry(look.track).or_insert_with(|| Visit {
            id: VisitId(Uuid::now_v7()),
            started: time,
            seen: time,
            standing: Standing::Undecided,
            evidence: Evidence::default(),
            shots: ShotCounts::default(),
            last: look,
            shown: None,
            decision: None,
            snapshot: None,
        });
        (visit.seen, visit.last) = (time, look);
        let decided = visit.standing != Standing::Undecided;
        let wanted = visit.evidence.wants(&look, decided, time);
        let started = is_new.then(|| self.event(EventKind::VisitStarted, look.track, time)).flatten();
        (started, wanted)
    }

    /// The face that was worth a look turned out to be unusable.
    pub fn rejected(&mut self, track: TrackId, fault: &str, time: Timestamp) {
        if let Some(visit) = self.open.get_mut(&track) {
            *visit.shots.rejected.entry(fault.to_owned()).or_default() += 1;
            visit.evidence.looked(time);
        }
    }

    /// Adds a shot's template to what is known of the visitor. Answers the fused template to look
    /// up, or that this is another person: then the visit has to be ended. `None` when the visit
    /// is over.
    ///
    /// # Errors
    /// [`TemplateError`] when the template has no direction or lives in another space.
    pub fn fuse(&mut self, track: TrackId, shot: EncodedShot<'_>) -> Result<Option<Fused>, TemplateError> {
        let Some(visit) = self.open.get_mut(&track) else { return Ok(None) };
        let promise = visit.last.promise;
        let fused = visit.evidence.fuse(shot.template, shot.quality.max(QUALITY_FLOOR), promise)?;
        visit.evidence.looked(shot.time);
        if matches!(fused, Fused::Same(_)) {
            visit.shots.fused += 1;
            visit.shown = Some((visit.last, shot.time));
        }
        Ok(Some(fused))
    }

    /// A comparison of the fused template was decided at `time`. Answers the event to tell, if
    /// the evidence suffices and says something new; else it is compared again at the deadline.
    pub fn decided(&mut self, track: TrackId, decision: Decision, time: Timestamp) -> Option<Event> {
        let visit = self.open.get_mut(&track)?;
        let is_news = is_news(visit.standing, &decision, visit.shots.fused);
        if is_news { self.settle(track, decision, time) } else { None }
    }

    /// Visits that are undecided beyond the deadline at `now`. Each is judged by the gallery of that
    /// moment, so that nobody is named who was erased meanwhile: `judge` gets the fused template,
    /// or nothing where there is none that is surely of whoever is there.
    pub fn overdue(&mut self, now: Timestamp, judge: impl Fn(Option<&Template>) -> Decision) -> Vec<Event> {
        let deadline = self.policy.decision_deadline;
        let is_late = |visit: &Visit| visit.standing == Standing::Undecided && now.since(visit.started) >= deadline;
        let late: Vec<TrackId> = self.open.iter().filter(|(_, visit)| is_late(visit)).map(|(track, _)| *track).collect();
        let settle = |track| {
            let decision = judge(self.open.get(&track)?.evidence.of_one_person());
            self.settle(track, decision, now)
        };
        late.into_iter().filter_map(settle).collect()
    }

    /// The snapshot that shows the visitor best.
    pub fn set_snapshot(&mut self, track: TrackId, snapshot: SnapshotId) {
        if let Some(visit) = self.open.get_mut(&track) {
            visit.snapshot = Some(snapshot);
        }
    }

    /// The visitor is gone. `judge` as in [`overdue`](Self::overdue): a visit is never left without
    /// an answer.
    pub fn ended(&mut self, track: TrackId, ending: Ending, judge: impl Fn(Option<&Template>) -> Decision) -> Vec<Event> {
        let mut events = Vec::new();
        let Some(visit) = self.open.get(&track) else { return events };
        if visit.standing == Standing::Undecided {
            let decision = judge(visit.evidence.of_one_person());
            events.extend(self.settle(track, decision, ending.time));
        }
        if let Some(mut event) = self.event(EventKind::VisitEnded, track, ending.time)
            && let Some(visit) = self.open.remove(&track)
        {
            event.end_reason = Some(ending.reason);
            event.duration_ms = u64::try_from(visit.seen.since(visit.started).as_millis()).ok();
            events.push(event);
        }
        events
    }

    /// The tracks with an open visit.
    pub fn tracks(&self) -> Vec<TrackId> {
        self.open.keys().copied().collect()
    }

    fn settle(&mut self, track: TrackId, decision: Decision, now: Timestamp) -> Option<Event> {
        let visit = self.open.get_mut(&track)?;
        let (kind, standing) = match decision.subject {
            Some(subject) => (EventKind::Identified, Standing::Identified(subject)),
            None => (EventKind::Unidentified, Standing::Unidentified),
        };
        visit.standing = standing;
        visit.decision = Some(decision);
        self.event(kind, track, now)
    }

    fn event(&self, kind: EventKind, track: TrackId, now: Timestamp) -> Option<Event> {
        let visit = self.open.get(&track)?;
        let decides = matches!(kind, EventKind::Identified | EventKind::Unidentified);
        // A decision is about the picture that it rests on, however late it is taken.
        let (look, seen) = visit.shown.filter(|_| decides).unwrap_or((visit.last, visit.seen));
        let mut event = Event::new(kind, &self.camera, seen);
        event.decision_time_us = now.as_micros();
        event.visit = Some(visit.id);
        event.track = Some(track);
        event.box_in_frame = Some(look.box_in_frame);
        event.detection_score = Some(look.detection_score);
        event.shots = visit.shots.clone();
        event.snapshot = visit.snapshot;
        event.quality = visit.evidence.best_quality();
        if kind != EventKind::VisitStarted {
            event.decision.clone_from(&visit.decision);
        }
        if let Standing::Identified(subject) = visit.standing {
            event.subject = Some(subject);
        }
        if decides {
            event.actionable_until_us = seen.plus(self.policy.actionable).as_micros();
        }
        Some(event)
    }
}

/// Whether a decision that rests on `shots` is sure, and says more than was told before.
fn is_news(standing: Standing, decision: &Decision, shots: u32) -> bool {
    let clear = decision.similarity.is_none_or(|similarity| (similarity - decision.threshold).abs() >= CLEAR_MARGIN);
    match (standing, decision.subject) {
        (Standing::Undecided | Standing::Unidentified, Some(_)) => clear || shots >= SHOTS_FOR_MATCH,
        (Standing::Undecided, None) => (clear && shots >= SHOTS_FOR_STRANGER) || shots >= SHOTS_ENOUGH,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
