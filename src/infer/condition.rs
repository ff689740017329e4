//! Whether the sessions do what cameras ask of them, for whoever tells people.
//!
//! In: how each piece of work came out. Out: the condition, whenever it changes.
//! Must not know: what the work is of, who is told.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

use super::InferError;

/// The kinds of work: a device may still do the one and fail at all that is asked of the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
    Place,
    Detect,
    Measure,
    Encode,
    LiveScores,
}

/// How the sessions do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// How many pieces of work have failed since the start.
    pub failures: u64,
    /// What was said when work began to fail; empty before the first failure.
    pub reason: String,
    /// Whether of each kind of work the last piece was done.
    pub works: bool,
}

/// Hears of every piece of work. As long as all is well that costs the reading of a number.
#[derive(Debug)]
pub(super) struct Watched {
    /// A bit for each kind whose last piece failed: changed with the condition, under its lock, since several sessions tell.
    failing: AtomicU8,
    condition: watch::Sender<Condition>,
}

impl Watched {
    /// All is well.
    pub(super) fn new() -> Self {
        let condition = Condition { failures: 0, reason: String::new(), works: true };
        Self { failing: AtomicU8::new(0), condition: watch::Sender::new(condition) }
    }

    /// A piece of work came out so.
    pub(super) fn note<T>(&self, work: Work, done: &Result<T, InferError>) {
        let bit = 1 << work as u8;
        match done {
            Ok(_) if self.failing.load(Ordering::Relaxed) & bit != 0 => {
                self.condition.send_modify(|condition| {
                    condition.works = self.failing.fetch_and(!bit, Ordering::Relaxed) & !bit == 0;
                });
            }
            Err(InferError::Session(reason) | InferError::NoRoom(reason)) => {
                self.condition.send_modify(|condition| {
                    self.failing.fetch_or(bit, Ordering::Relaxed);
                    // What comes next is said of a device that is closed.
                    if condition.works {
                        condition.reason.clone_from(reason);
                    }
                    (condition.failures, condition.works) = (condition.failures + 1, false);
                });
            }
            Ok(_) | Err(_) => {}
        }
    }

    /// From now on.
    pub(super) fn watch(&self) -> watch::Receiver<Condition> {
        self.condition.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(reason: &str) -> Result<(), InferError> {
        Err(InferError::Session(reason.into()))
    }

    #[test]
    fn it_works_when_each_kind_of_work_that_failed_was_done_again() {
        let watched = Watched::new();
        let now = || watched.watch().borrow().clone();
        watched.note(Work::Detect, &Ok(()));
        assert_eq!(now(), Condition { failures: 0, reason: String::new(), works: true });
        watched.note(Work::Encode, &lost("an illegal address"));
        watched.note(Work::Encode, &Err::<(), _>(InferError::NoRoom("it is opened in a moment".into())));
        watched.note(Work::Detect, &Ok(()));
        let failing = Condition { failures: 2, reason: "an illegal address".into(), works: false };
        assert_eq!(now(), failing, "faces are found, and nobody is known");
        watched.note(Work::Place, &lost("no room"));
        watched.note(Work::Encode, &Ok(()));
        assert!(!now().works);
        watched.note(Work::Place, &Ok(()));
        assert!(now().works);
        watched.note(Work::Detect, &lost("again"));
        assert_eq!(now(), Condition { failures: 4, reason: "again".into(), works: false });
        watched.note(Work::Detect, &Err::<(), _>(InferError::Stopped));
        assert_eq!(now().failures, 4, "an end is no failure");
    }

    #[test]
    fn two_sessions_that_tell_at_once_leave_what_is_true() {
        for _ in 0..2_000 {
            let watched = Watched::new();
            watched.note(Work::Detect, &lost("first"));
            std::thread::scope(|scope| {
                scope.spawn(|| watched.note(Work::Detect, &lost("second")));
                scope.spawn(|| watched.note(Work::Detect, &Ok(())));
            });
            watched.note(Work::Detect, &Ok(()));
            assert!(watched.watch().borrow().works, "it was done last");
        }
    }
}
