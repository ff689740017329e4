//! Whether the sessions do their work, for whoever tells people.
//!
//! In: how each piece of work came out. Out: the condition, whenever it changes.
//! Must not know: what the work is, who is told.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::InferError;

/// How the sessions do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// How often work has failed since the start; what was done at the second try has failed once.
    pub failures: u64,
    /// What the last failure said; empty before the first.
    pub reason: String,
    /// Whether the last piece of work was done.
    pub works: bool,
}

/// Hears of every piece of work. As long as all is well that costs the reading of a flag.
#[derive(Debug)]
pub(super) struct Watched {
    /// Whether the condition is that it does not work: changed with it, under its lock, since several sessions tell.
    is_failing: AtomicBool,
    condition: watch::Sender<Condition>,
}

impl Watched {
    /// All is well.
    pub(super) fn new() -> Self {
        let condition = Condition { failures: 0, reason: String::new(), works: true };
        Self { is_failing: AtomicBool::new(false), condition: watch::Sender::new(condition) }
    }

    /// A piece of work came out so.
    pub(super) fn note<T>(&self, done: &Result<T, InferError>) {
        match done {
            Ok(_) if self.is_failing.load(Ordering::Relaxed) => {
                self.condition.send_modify(|condition| {
                    condition.works = true;
                    self.is_failing.store(false, Ordering::Relaxed);
                });
            }
            Err(InferError::Session(reason) | InferError::NoRoom(reason)) => {
                self.condition.send_modify(|condition| {
                    *condition = Condition { failures: condition.failures + 1, reason: reason.clone(), works: false };
                    self.is_failing.store(true, Ordering::Relaxed);
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
