//! Whether the sessions do what cameras ask of them, for whoever tells people.
//!
//! In: how each piece of work came out. Out: the condition, whenever it changes.
//! Must not know: what the work is of, who is told.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::watch;

use super::InferError;

/// The kinds of work: a device may still do the one and fail at all that is asked of the other. Bringing frames to a device is none:
/// where that fails they are analysed from the host, and it may never be asked again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work {
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
    /// What was said when work last failed; empty before the first failure.
    pub reason: String,
    /// Whether anything was done since the last failure.
    pub does_some: bool,
    /// Whether of each kind of work the last piece was done.
    pub does_all: bool,
}

/// Hears of every piece of work. As long as all is well that costs the reading of a number.
#[derive(Debug)]
pub(super) struct Watched {
    /// A bit for each kind whose last piece failed, and [`DOES_SOME`]: changed with the condition, under its lock, since several
    /// sessions tell.
    failing: AtomicU8,
    condition: watch::Sender<Condition>,
}

/// Beside the kinds that fail: something was done since.
const DOES_SOME: u8 = 1 << 7;

impl Watched {
    /// All is well.
    pub(super) fn new() -> Self {
        let condition = Condition { failures: 0, reason: String::new(), does_some: true, does_all: true };
        Self { failing: AtomicU8::new(DOES_SOME), condition: watch::Sender::new(condition) }
    }

    /// A piece of work came out so.
    pub(super) fn note<T>(&self, work: Work, done: &Result<T, InferError>) {
        let bit = 1 << work as u8;
        match done {
            Ok(_) if self.failing.load(Ordering::Relaxed) & (bit | DOES_SOME) == DOES_SOME => {}
            Ok(_) => self.condition.send_modify(|condition| {
                let failing = self.failing.load(Ordering::Relaxed) & !bit | DOES_SOME;
                self.failing.store(failing, Ordering::Relaxed);
                (condition.does_some, condition.does_all) = (true, failing == DOES_SOME);
            }),
            Err(InferError::Session(reason) | InferError::NoRoom(reason) | InferError::BadPicture(reason)) => {
                self.failed(bit, Some(reason));
            }
            // What made it so was told before.
            Err(InferError::NotNow(_)) => self.failed(bit, None),
            Err(InferError::Busy | InferError::Stopped) => {}
        }
    }

    fn failed(&self, bit: u8, reason: Option<&String>) {
        self.condition.send_modify(|condition| {
            let failing = (self.failing.load(Ordering::Relaxed) | bit) & !DOES_SOME;
            self.failing.store(failing, Ordering::Relaxed);
            if let Some(reason) = reason {
                condition.reason.clone_from(reason);
            }
            condition.failures += 1;
            (condition.does_some, condition.does_all) = (false, false);
        });
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
    fn it_does_all_when_each_kind_of_work_that_failed_was_done_again() {
        let watched = Watched::new();
        let now = || watched.watch().borrow().clone();
        let does = || (now().failures, now().does_some, now().does_all);
        watched.note(Work::Detect, &Ok(()));
        assert_eq!(does(), (0, true, true));
        watched.note(Work::Encode, &lost("an illegal address"));
        assert_eq!(does(), (1, false, false));
        watched.note(Work::Encode, &Err::<(), _>(InferError::NotNow("in a moment".into())));
        watched.note(Work::Detect, &Ok(()));
        assert_eq!(does(), (2, true, false), "faces are found, and nobody is known");
        assert_eq!(now().reason, "an illegal address", "that it is closed is no reason");
        watched.note(Work::Measure, &lost("no room"));
        watched.note(Work::Encode, &Ok(()));
        assert_eq!(does(), (3, true, false));
        watched.note(Work::Measure, &Ok(()));
        assert_eq!(does(), (3, true, true));
        watched.note(Work::Detect, &Err::<(), _>(InferError::BadPicture("no NV12".into())));
        assert_eq!((does(), now().reason.as_str()), ((4, false, false), "no NV12"), "its frames are lost as well");
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
            assert!(watched.watch().borrow().does_all, "it was done last");
        }
    }
}
