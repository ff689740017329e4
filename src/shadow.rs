//! What another model, head or policy would have decided, beside what was decided.
//!
//! In: the decisions of both about one visitor. Out: a [`Verdict`], how the two differ, and tallies of that.
//! Must not know: how either of them decided, who keeps verdicts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Decision, SnapshotId, VisitId};

/// How a shadow's decision differs from the one in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Both name the same subject, or nobody.
    Agrees,
    /// The shadow would name somebody, where nobody was named.
    WouldName,
    /// The shadow would name nobody, where somebody was named.
    WouldNotName,
    /// The shadow would name somebody else.
    WouldRename,
    /// The shadow came to no decision: its inference failed, or it was not ready yet.
    Unanswered,
}

/// What was decided of one visitor, and what the shadow would have decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// In which visit.
    pub visit: VisitId,
    /// At which camera.
    pub camera: Arc<str>,
    /// When the picture was taken that the decision in force rests on, in microseconds since the Unix epoch.
    pub capture_time_us: i64,
    /// The visitor's best shot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// What was decided.
    pub in_force: Decision,
    /// What the shadow would have decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Decision>,
}

impl Verdict {
    /// How the two differ.
    pub fn outcome(&self) -> Outcome {
        let Some(shadow) = &self.shadow else { return Outcome::Unanswered };
        match (self.in_force.subject, shadow.subject) {
            (None, Some(_)) => Outcome::WouldName,
            (Some(_), None) => Outcome::WouldNotName,
            (Some(told), Some(would)) if told != would => Outcome::WouldRename,
            _ => Outcome::Agrees,
        }
    }
}

/// How many visits a shadow saw, by what came of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// [`Outcome::Agrees`].
    pub agrees: u64,
    /// [`Outcome::WouldName`].
    pub would_name: u64,
    /// [`Outcome::WouldNotName`].
    pub would_not_name: u64,
    /// [`Outcome::WouldRename`].
    pub would_rename: u64,
    /// [`Outcome::Unanswered`].
    pub unanswered: u64,
}

impl Tally {
    /// Adds one visit.
    pub fn add(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Agrees => &mut self.agrees,
            Outcome::WouldName => &mut self.would_name,
            Outcome::WouldNotName => &mut self.would_not_name,
            Outcome::WouldRename => &mut self.would_rename,
            Outcome::Unanswered => &mut self.unanswered,
        };
        *count += 1;
    }
}

/// Which decision stands for a visit: the last that named somebody, since a door may have acted on it, else the last. Answers
/// whether `next` stands now.
pub fn principal(standing: &mut Option<Decision>, next: &Decision) -> bool {
    let stands = next.subject.is_some() || standing.as_ref().is_none_or(|standing| standing.subject.is_none());
    if stands {
        *standing = Some(next.clone());
    }
    stands
}

#[cfg(test)]
pub(crate) mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::subject::SubjectUid;

    /// A decision for subject `number`, or for nobody.
    pub(crate) fn decision(number: Option<u128>) -> Decision {
        Decision::made_up(number.map(|number| SubjectUid(Uuid::from_u128(number))))
    }

    /// A verdict about two decisions.
    pub(crate) fn verdict(in_force: Option<u128>, shadow: Option<Option<u128>>) -> Verdict {
        Verdict {
            visit: VisitId(Uuid::from_u128(7)),
            camera: "door".into(),
            capture_time_us: 1_000,
            snapshot: None,
            in_force: decision(in_force),
            shadow: shadow.map(decision),
        }
    }

    #[test]
    fn decisions_differ_by_whom_they_name() {
        let cases = [
            (None, Some(None), Outcome::Agrees),
            (Some(1), Some(Some(1)), Outcome::Agrees),
            (None, Some(Some(1)), Outcome::WouldName),
            (Some(1), Some(None), Outcome::WouldNotName),
            (Some(1), Some(Some(2)), Outcome::WouldRename),
            (Some(1), None, Outcome::Unanswered),
        ];
        let mut tally = Tally::default();
        for (in_force, shadow, outcome) in cases {
            assert_eq!(verdict(in_force, shadow).outcome(), outcome, "{in_force:?} {shadow:?}");
            tally.add(outcome);
        }
        assert_eq!(tally, Tally { agrees: 2, would_name: 1, would_not_name: 1, would_rename: 1, unanswered: 1 });
    }

    #[test]
    fn whoever_was_named_stands_for_a_visit_though_it_was_taken_back() {
        let mut standing = None;
        for (next, stands) in [(None, None), (Some(1), Some(1)), (None, Some(1)), (Some(2), Some(2))] {
            principal(&mut standing, &decision(next));
            assert_eq!(standing.as_ref().and_then(|decision| decision.subject), decision(stands).subject);
        }
    }
}
