//! When it is told who a visitor is, and when that is revised.
//!
//! A single poor shot never decides; what was told changes only by evidence that is clearly against it.
//! One person is in one place: of two visitors who are both taken for the same subject at the same
//! moment, the more similar one keeps the name, and both say so.
//! Must not know: how the gallery is searched.

use std::time::Duration;

use super::{Standing, Visit, Visits};
use crate::camera::Role;
use crate::clock::Timestamp;
use crate::event::{Decision, EndReason, Event, EventKind, Rejection, TrackId, VisitId};
use crate::face::Probe;
use crate::subject::SubjectUid;

/// Above the threshold by this much, one shot is enough to say who it is; below it by this much,
/// three are enough to say nobody. In between another shot is worth its time.
const CLEAR_MARGIN: f32 = 0.10;
/// Shots that make a narrow match sure.
const SHOTS_FOR_MATCH: u32 = 2;
/// Shots that make a clear stranger sure.
const SHOTS_FOR_STRANGER: u32 = 3;
/// With so many shots nothing is gained by waiting.
const SHOTS_ENOUGH: u32 = 8;
/// Who was told stays until another subject is more similar by this much, or the similarity has
/// fallen below the threshold by as much.
const REVISED_BY: f32 = 0.05;

impl Visits {
    /// A comparison of the fused template was decided at `now`. It is told if the evidence suffices
    /// and says something new; else it is compared again at the deadline. Whoever is told again must be
    /// seen to be there now: `shows` says whether the newest shot by itself is similar enough to the
    /// decision's subject. It is asked only then.
    pub fn decided(&mut self, track: TrackId, weighing: (Decision, impl FnOnce(&Decision) -> bool), now: Timestamp) {
        let is_walk_due = self.open.get_mut(&track).is_some_and(|visit| std::mem::take(&mut visit.is_walk_due));
        self.weigh(track, weighing, now);
        if is_walk_due {
            self.walk(track);
        }
    }

    fn weigh(&mut self, track: TrackId, (decision, shows): (Decision, impl FnOnce(&Decision) -> bool), now: Timestamp) {
        let Some(visit) = self.open.get(&track) else { return };
        let (found, is_doubted) = (decision.subject.map(Standing::Identified), visit.is_doubted);
        let weighed = self.weighed(visit, decision).map(|decision| (news(visit, &decision, self.policy.reassert_every), decision));
        if let Some(visit) = self.open.get_mut(&track) {
            visit.is_doubted = is_doubted && found != Some(visit.standing);
        }
        let Some((news, decision)) = weighed else { return };
        match news {
            News::Nothing => {}
            News::Again if shows(&decision) => self.reassert(track, decision, now),
            News::Again => {}
            News::Decided => self.settle(track, decision, now),
        }
    }

    pub(super) fn settle_if_overdue(&mut self, track: TrackId, now: Timestamp, judge: impl Fn(Option<&Probe>) -> Decision) {
        let Some(visit) = self.open.get(&track) else { return };
        let is_late = now.since(visit.started) >= self.policy.decision_deadline;
        let is_enough = visit.shots.fused >= SHOTS_FOR_MATCH
            && matches!((self.policy.decide_after, visit.first_shot), (Some(after), Some(first)) if now.since(first) >= after);
        if visit.standing == Standing::Undecided && (is_late || is_enough) {
            let decision = judge(visit.evidence.of_one_person());
            self.settle_now(track, decision, now);
        }
    }

    /// Takes a decision that is due: by what there is, however little that says of whether the visitor is alive.
    pub(super) fn settle_now(&mut self, track: TrackId, decision: Decision, now: Timestamp) {
        let Some(visit) = self.open.get_mut(&track) else { return };
        visit.live.decide();
        let weighed = self.open.get(&track).and_then(|visit| self.weighed(visit, decision));
        if let Some(decision) = weighed {
            self.settle(track, decision, now);
        }
    }

    /// Takes `decision` for what the visitor on `track` is, and tells it.
    pub(super) fn settle(&mut self, track: TrackId, decision: Decision, now: Timestamp) {
        let Some(subject) = decision.subject else { return self.name(track, (decision, None), now) };
        if let Some(index) = self.away.iter().position(|visit| visit.standing == Standing::Identified(subject)) {
            return self.continue_visit((track, index), decision, now);
        }
        let rival = self.open.values().find(|other| other.track != track && other.standing == Standing::Identified(subject));
        let Some(rival) = rival else { return self.name(track, (decision, None), now) };
        if !rival.is_in_sight(self.newest) {
            // The same person on another track: the old one has not noticed yet that it is lost.
            let rival = rival.track;
            if let Some(visit) = self.open.remove(&rival) {
                self.away.push(visit);
            }
            return self.settle(track, decision, now);
        }
        let theirs = rival.decision.as_ref().and_then(|d| d.similarity).unwrap_or(1.0);
        let is_outdone = rival.is_doubted || decision.similarity.is_some_and(|ours| ours >= theirs + REVISED_BY);
        let rival = (rival.track, rival.id);
        if is_outdone {
            let conflicting = self.visit_of(track);
            let lost = Decision { subject: None, rejection: Some(Rejection::Conflict), ..decision.clone() };
            self.name(rival.0, (lost, conflicting), now);
            self.name(track, (decision, Some(rival.1)), now);
        } else {
            let refused = Decision { subject: None, rejection: Some(Rejection::Conflict), ..decision };
            self.name(track, (refused, Some(rival.1)), now);
        }
    }

    /// The visitor on `track` has turned out to be the one of `away[index]`: that visit goes on, and
    /// the one that was begun for nothing ends.
    fn continue_visit(&mut self, (track, index): (TrackId, usize), decision: Decision, now: Timestamp) {
        if self.open.get(&track).is_some_and(|begun| matches!(begun.standing, Standing::Identified(_))) {
            // It was told as somebody else, which is taken back before it ends.
            let nobody = Decision { subject: None, rejection: Some(Rejection::Conflict), ..decision };
            self.name(track, (nobody, Some(self.away[index].id)), now);
        }
        if let Some(mut begun) = self.open.remove(&track) {
            if begun.announced {
                for step in begun.path.end() {
                    let left = self.step(step, &begun, (begun.last, begun.seen));
                    self.told.push(left);
                }
                let mut event = self.event(EventKind::VisitEnded, &begun, now);
                event.end_reason = Some(EndReason::Resumed);
                event.duration_ms = u64::try_from(begun.seen.since(begun.started).as_millis()).ok();
                event.message = Some(format!("the visitor was here a moment ago: visit {} goes on", self.away[index].id.0));
                self.told.push(event);
            }
            self.open.insert(track, begun);
        }
        // The decision names the visitor as they were named.
        self.away[index].is_doubted = false;
        self.resume(track, index);
    }

    /// Tells again who is there.
    fn reassert(&mut self, track: TrackId, decision: Decision, now: Timestamp) {
        let Some(visit) = self.open.get_mut(&track) else { return };
        visit.decision = Some(decision);
        visit.named = visit.shown.map(|(_, time)| time);
        let Some(visit) = self.open.get(&track) else { return };
        let event = self.event(EventKind::Reasserted, visit, now);
        self.told.push(event);
    }

    /// Says who the visitor on `track` is, or that it is nobody, unless that was said before.
    fn name(&mut self, track: TrackId, (decision, conflicting): (Decision, Option<VisitId>), now: Timestamp) {
        self.announce(track);
        let Some(visit) = self.open.get_mut(&track) else { return };
        let standing = decision.subject.map_or(Standing::Unidentified, Standing::Identified);
        let (kind, previous) = match (visit.standing, standing) {
            (before, after) if before == after => return,
            (Standing::Identified(previous), _) => (EventKind::IdentityRevised, Some(previous)),
            (_, Standing::Identified(_)) => (EventKind::Identified, None),
            _ => (EventKind::Unidentified, None),
        };
        (visit.standing, visit.is_doubted) = (standing, false);
        visit.decision = Some(decision);
        visit.named = visit.shown.map(|(_, time)| time).filter(|_| standing != Standing::Unidentified);
        let Some(visit) = self.open.get(&track) else { return };
        let event = Event { previous_subject: previous, conflicting_visit: conflicting, ..self.event(kind, visit, now) };
        self.told.push(event);
        self.pass(track, now);
    }

    /// At an entry or exit without lines the visitor comes in or goes out by being decided, once.
    fn pass(&mut self, track: TrackId, now: Timestamp) {
        let kind = match self.layout.role {
            Role::Entry => EventKind::Entry,
            Role::Exit => EventKind::Exit,
            Role::Interior => return,
        };
        if !self.layout.lines.is_empty() {
            return;
        }
        let Some(visit) = self.open.get_mut(&track).filter(|visit| !visit.passed) else { return };
        visit.passed = true;
        let Some(visit) = self.open.get(&track) else { return };
        // It rests on the same picture as the decision.
        let seen = visit.shown.map_or(visit.seen, |(_, time)| time);
        let mut event = self.event(kind, visit, now);
        event.capture_time_us = seen.as_micros();
        event.actionable_until_us = seen.plus(self.policy.actionable).as_micros();
        self.told.push(event);
    }
}

/// What a decision says that was not told before.
#[derive(Debug, PartialEq)]
enum News {
    Nothing,
    /// The same once more, which is due.
    Again,
    /// Who it is, or that it is nobody, or that it is somebody else than was told.
    Decided,
}

fn news(visit: &Visit, decision: &Decision, reassert_every: Option<Duration>) -> News {
    let shots = visit.shots.fused;
    let clear = decision.similarity.is_none_or(|similarity| (similarity - decision.threshold).abs() >= CLEAR_MARGIN);
    let is_sure = clear || shots >= SHOTS_FOR_MATCH;
    let decides = match (visit.standing, decision.subject) {
        (Standing::Undecided | Standing::Unidentified, Some(_)) => is_sure,
        (Standing::Undecided, None) => (clear && shots >= SHOTS_FOR_STRANGER) || shots >= SHOTS_ENOUGH,
        (Standing::Identified(told), Some(found)) if told == found => {
            return if is_due(visit, reassert_every) { News::Again } else { News::Nothing };
        }
        (Standing::Identified(told), Some(_)) => is_sure && (visit.is_doubted || leads(decision, told)),
        // Only a clear suspicion comes so far.
        (Standing::Identified(_), None) if decision.rejection == Some(Rejection::SuspectedAttack) => true,
        (Standing::Identified(_), None) => {
            // A name that was told by another threshold is not owed any slack under this one.
            let slack = if visit.is_doubted { 0.0 } else { REVISED_BY };
            shots >= SHOTS_FOR_STRANGER && decision.similarity.is_none_or(|similarity| similarity < decision.threshold - slack)
        }
        (Standing::Unidentified, None) => false,
    };
    if decides { News::Decided } else { News::Nothing }
}

/// Whether the subject of `decision` is clearly more similar than the one that was `told`.
fn leads(decision: &Decision, told: SubjectUid) -> bool {
    // Where a head has chosen, whoever was told may stand anywhere behind: then the lead must be over all of them.
    let is_chosen = decision.head.is_some();
    let theirs = decision.runner_up.filter(|second| is_chosen || second.subject == told).map(|second| second.similarity);
    theirs.is_none_or(|theirs| decision.similarity.is_some_and(|ours| ours >= theirs + REVISED_BY))
}

/// Whether it is time to tell again who is there: by the picture's own time, since a door acts on that.
fn is_due(visit: &Visit, every: Option<Duration>) -> bool {
    matches!((every, visit.named, visit.shown), (Some(every), Some(named), Some((_, shown))) if shown.since(named) >= every)
}
