//! What a suspicion that the visitor is a picture does to decisions and events.
//!
//! It is told in every event. Where the policy refuses, nobody is named whom it holds for: not in a decision, not when it is told
//! again who is there, not at a line. The evidence is weak, so a name that was told is taken back only by a clear suspicion.
//! Must not know: how live scores are measured and put together.

use super::{Standing, Visit, Visits};
use crate::event::{Decision, Event, EventKind, Rejection};
use crate::liveness::Suspicion;

impl Visits {
    /// What remains of `decision` of a visitor who looks as alive as `visit` does; `None` where another shot must tell first.
    pub(super) fn weighed(&self, visit: &Visit, decision: Decision) -> Option<Decision> {
        if decision.subject.is_none() {
            return Some(decision);
        }
        let policy = &self.policy.live;
        match visit.live.suspicion(policy) {
            Suspicion::Unsure => None,
            Suspicion::None if policy.refuses && visit.was_refused() && !visit.live.is_clearly_alive(policy) => Some(refused(decision)),
            Suspicion::None => Some(decision),
            Suspicion::Suspected if !policy.refuses => Some(decision),
            Suspicion::Suspected => {
                let is_told = matches!(visit.standing, Standing::Identified(_));
                (!is_told || visit.live.is_clearly_suspected(policy)).then(|| refused(decision))
            }
        }
    }

    /// Says in an event how much the visitor looks alive, and leaves the name out where nobody is to act on it.
    pub(super) fn tell_liveness(&self, visit: &Visit, event: &mut Event) {
        let policy = &self.policy.live;
        event.live_score = visit.live.score();
        event.suspected_attack = visit.live.suspicion(policy) == Suspicion::Suspected;
        if matches!(event.kind, EventKind::Entry | EventKind::Exit) && policy.refuses && policy.suspects(event.live_score) {
            event.subject = None;
            event.decision = event.decision.take().map(|decision| if decision.subject.is_some() { refused(decision) } else { decision });
            // Whoever reads that nobody is named reads why.
            event.suspected_attack = true;
        }
    }
}

impl Visit {
    /// Whether the last decision named nobody because the visitor looked like a picture.
    fn was_refused(&self) -> bool {
        self.decision.as_ref().is_some_and(|decision| decision.rejection == Some(Rejection::SuspectedAttack))
    }
}

/// The decision, with the name taken out of it.
fn refused(decision: Decision) -> Decision {
    Decision { subject: None, rejection: Some(Rejection::SuspectedAttack), ..decision }
}
