//! Turns sightings and decisions into visits: who is there, since when, and what to tell.
//!
//! In: the sightings of each frame, faces refused by quality, templates, decisions. Out: when a
//! face is worth another look, and events without pictures or measured times.
//! A visit is one person's presence, over as many tracks as it takes: whoever comes back soon goes on
//! with the visit. The first time that somebody is named is `IDENTIFIED`, even after `UNIDENTIFIED`;
//! what was told and turns out to be wrong is `IDENTITY_REVISED`.
//! Must not know: pixels, the gallery, the log. Pure: time is an argument.

mod evidence;
mod identity;
mod liveness;
mod passing;
mod path;
mod presence;

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};
use uuid::{Builder, Uuid};

use crate::camera::{Region, Role};
use crate::clock::Timestamp;
use crate::event::{BoxInFrame, Decision, EndReason, Event, EventKind, ShotCounts, SnapshotId, TrackId, VisitId};
use crate::face::{Probe, Template, TemplateError};
use crate::liveness::{LiveEvidence, LivePolicy};
use crate::subject::SubjectUid;

use evidence::Evidence;
pub use evidence::Fused;
use path::Path;

/// How visits are decided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VisitPolicy {
    /// A visit that is undecided for this long is unidentified.
    pub decision_deadline: Duration,
    /// So soon after the first usable shot a visit is decided by what there is, if that is more than one
    /// shot; `None` waits for the deadline.
    pub decide_after: Option<Duration>,
    /// How often it is told again who is there; `None` never.
    pub reassert_every: Option<Duration>,
    /// Whoever was out of sight for no longer goes on with the visit.
    pub resume_within: Duration,
    /// The least similarity that identifies somebody: no less makes a face that of somebody who was here.
    pub threshold: f32,
    /// How long a door may act on an event after the picture was taken.
    pub actionable: Duration,
    /// Who is suspected to be a picture, and what follows.
    pub live: LivePolicy,
}

/// What an operator has drawn into a camera's picture, and what the camera looks at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layout {
    /// At an entry or exit without lines everybody who is decided comes in or goes out.
    pub role: Role,
    /// Lines across which people come and go.
    pub lines: Vec<Region>,
    /// Areas of interest.
    pub zones: Vec<Region>,
}

/// A face of one frame that continues a visit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Look {
    /// Its track.
    pub track: TrackId,
    /// Whether the track was out of sight, so that the face may be another one.
    pub resumed: bool,
    /// How far the camera's frames usually are apart.
    pub frames_apart: Duration,
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
    /// How much the face looks alive, 0 to 1, where that is measured.
    pub live_score: Option<f32>,
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

/// Even the poorest shot that quality lets through weighs something.
const QUALITY_FLOOR: f32 = 0.05;
/// The visits of one camera.
#[derive(Debug)]
pub struct Visits {
    camera: String,
    policy: VisitPolicy,
    layout: Layout,
    /// Visitors who are on a track.
    open: BTreeMap<TrackId, Visit>,
    /// Visitors who are out of sight and may come back.
    away: Vec<Visit>,
    /// How many visits there were, where their ids are counted.
    counted: Option<u64>,
    /// When the newest frame was taken in which somebody was sighted.
    newest: Timestamp,
    told: Vec<Event>,
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
    track: TrackId,
    started: Timestamp,
    seen: Timestamp,
    /// Whether it was told that it began.
    announced: bool,
    standing: Standing,
    evidence: Evidence,
    live: LiveEvidence,
    shots: ShotCounts,
    last: Look,
    /// The shot that was fused last, and when it was taken: what a decision rests on.
    shown: Option<(Look, Timestamp)>,
    /// When the first usable shot was taken.
    first_shot: Option<Timestamp>,
    /// When it was last told who it is.
    named: Option<Timestamp>,
    decision: Option<Decision>,
    /// Whether the visitor was named by what decided before, and would not be by what decides now.
    is_doubted: bool,
    snapshot: Option<SnapshotId>,
    path: Path,
    /// Where the visitor was seen while the visit's start was withheld, and is not told of yet; oldest first.
    withheld: Vec<(Look, Timestamp)>,
    /// Whether the way to where the face is now is told once the decision is taken: where frames are few, every sighting
    /// may be another's until its shot is here.
    is_walk_due: bool,
    /// Whether it was told that the visitor came in or went out, where that needs no line.
    passed: bool,
}

impl Visits {
    /// No visits at `camera` yet.
    pub fn new(camera: &str, policy: VisitPolicy, layout: Layout) -> Self {
        Self {
            camera: camera.to_owned(),
            policy,
            layout,
            open: BTreeMap::new(),
            away: Vec::new(),
            counted: None,
            newest: Timestamp::default(),
            told: Vec::new(),
        }
    }

    /// Visits whose ids follow from camera, time and order, so that a replay gives the same ones again.
    #[must_use]
    pub fn with_counted_ids(self) -> Self {
        Self { counted: Some(0), ..self }
    }

    /// Goes on by another policy. With another layout no visit may be open: its path was followed by the old one.
    pub fn adopt(&mut self, policy: VisitPolicy, layout: Layout) {
        (self.policy, self.layout) = (policy, layout);
    }

    /// What decides is another from now on: whoever was named, and would not be by `judge`, keeps the name only if the next look
    /// gives it again.
    pub fn doubt(&mut self, judge: impl Fn(Option<&Probe>) -> Decision) {
        for visit in self.open.values_mut().chain(&mut self.away) {
            let Standing::Identified(told) = visit.standing else { continue };
            visit.is_doubted = judge(visit.evidence.of_one_person()).subject != Some(told);
        }
    }

    /// A confirmed track was seen at `time`. Answers whether its face is worth aligning and encoding
    /// now.
    pub fn sighted(&mut self, look: Look, time: Timestamp) -> bool {
        let reassert_every = self.policy.reassert_every;
        let (counted, camera) = (&mut self.counted, &self.camera);
        let visit = self.open.entry(look.track).or_insert_with(|| Visit {
            id: new_id(counted.as_mut(), camera, time),
            track: look.track,
            started: time,
            seen: time,
            announced: false,
            standing: Standing::Undecided,
            evidence: Evidence::default(),
            live: LiveEvidence::default(),
            shots: ShotCounts::default(),
            last: look,
            shown: None,
            first_shot: None,
            named: None,
            decision: None,
            snapshot: None,
            path: Path::default(),
            withheld: Vec::new(),
            is_walk_due: false,
            is_doubted: false,
            passed: false,
        });
        if look.resumed && visit.was_away(&look, time) {
            visit.live.forget();
            if visit.first_shot.is_none() {
                // It was the way of whoever stood there before, who may be another one, and no shot can tell.
                visit.withheld.clear();
            }
        }
        (visit.seen, visit.last) = (time, look);
        self.newest = self.newest.max(time);
        let decided = visit.standing != Standing::Undecided;
        let is_due = matches!((reassert_every, visit.named), (Some(every), Some(named)) if time.since(named) >= every);
        // A name in doubt is looked at as often as none.
        let wanted = visit.evidence.wants(&look, (decided && !visit.is_doubted, is_due), time);
        self.walk(look.track);
        wanted
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
        if self.open.get(&track).is_some_and(|visit| !visit.announced) {
            self.resume_or_announce(track, shot.template)?;
        }
        let Some(visit) = self.open.get_mut(&track) else { return Ok(None) };
        let promise = visit.last.promise;
        let was_unsure = visit.evidence.is_unsure();
        let fused = visit.evidence.fuse(shot.template, shot.quality.max(QUALITY_FLOOR), promise)?;
        visit.evidence.looked(shot.time);
        if matches!(fused, Fused::Same(_)) {
            visit.shots.fused += 1;
            if let Some(score) = shot.live_score {
                visit.live.add(score, shot.quality.max(QUALITY_FLOOR));
            }
            visit.shown = Some((visit.last, shot.time));
            visit.first_shot.get_or_insert(shot.time);
            visit.is_walk_due |= was_unsure || !visit.withheld.is_empty();
        }
        Ok(Some(fused))
    }

    /// Tells what is due at `now`: visits that begin, that are undecided beyond a deadline, that are
    /// over. An undecided one is judged by the gallery of that moment, so that nobody is named who was
    /// erased meanwhile: `judge` gets the fused probe, or nothing where there is none that is
    /// surely of whoever is there.
    pub fn overdue(&mut self, now: Timestamp, judge: impl Fn(Option<&Probe>) -> Decision) {
        let tracks: Vec<TrackId> = self.open.keys().copied().collect();
        for track in tracks {
            self.announce_if_new(track, now);
            self.settle_if_overdue(track, now, &judge);
            self.walk_withheld(track, false);
        }
        self.end_those_who_stay_away(now);
    }

    /// The snapshot that shows the visitor best.
    pub fn set_snapshot(&mut self, visit: VisitId, snapshot: SnapshotId) {
        let open = self.open.values_mut().chain(&mut self.away);
        for known in open.filter(|known| known.id == visit) {
            known.snapshot = Some(snapshot);
        }
    }

    /// What was told last of who is on a track; `None` as long as that is open.
    pub fn decision_of(&self, track: TrackId) -> Option<&Decision> {
        self.open.get(&track).filter(|visit| visit.standing != Standing::Undecided)?.decision.as_ref()
    }

    /// Whose visit a track belongs to; it changes when the visitor turns out to be one who was here
    /// before.
    pub fn visit_of(&self, track: TrackId) -> Option<VisitId> {
        self.open.get(&track).map(|visit| visit.id)
    }

    /// What there is to tell since this was asked last, in order.
    pub fn take_told(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.told)
    }

    /// An event of the visit on `track`, decided at `now`, with what is known of the visitor.
    fn event(&self, kind: EventKind, visit: &Visit, now: Timestamp) -> Event {
        let decides = matches!(kind, EventKind::Identified | EventKind::Unidentified | EventKind::IdentityRevised | EventKind::Reasserted);
        // A decision is about the picture that it rests on, however late it is taken.
        let (look, seen) = visit.shown.filter(|_| decides).unwrap_or((visit.last, visit.seen));
        let mut event = Event::new(kind, &self.camera, seen);
        event.decision_time_us = now.as_micros();
        event.visit = Some(visit.id);
        event.track = Some(visit.track);
        event.box_in_frame = Some(look.box_in_frame);
        event.detection_score = Some(look.detection_score);
        event.shots = visit.shots.clone();
        event.snapshot = visit.snapshot;
        event.quality = visit.evidence.best_quality();
        if let Standing::Identified(subject) = visit.standing {
            event.subject = Some(subject);
        }
        if kind != EventKind::VisitStarted {
            event.decision.clone_from(&visit.decision);
            self.tell_liveness(visit, &mut event);
        }
        if decides || matches!(kind, EventKind::Entry | EventKind::Exit) {
            event.actionable_until_us = seen.plus(self.policy.actionable).as_micros();
        }
        event
    }
}

fn new_id(counted: Option<&mut u64>, camera: &str, time: Timestamp) -> VisitId {
    let Some(count) = counted else { return VisitId(Uuid::now_v7()) };
    *count += 1;
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(format!("{camera}/{}/{count}", time.as_micros()))[..16]);
    VisitId(Builder::from_custom_bytes(bytes).into_uuid())
}

#[cfg(test)]
mod tests;
