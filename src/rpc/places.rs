//! The places that connections hold: so many and no more.
//!
//! In: connections as they come, are let in and end. Out: a place or none, and a word to whose place is given away.
//! When all are held: of those that were not let in by a call yet, the one that came first gives way to the newcomer. So whoever
//! cannot be let in keeps out nobody who can be, and as long as there is room nobody has to go. Where all were let in, the newcomer
//! gets none.
//! Must not know: sockets, tokens, what the calls are.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// All places.
pub(super) struct Places {
    max: usize,
    held: Mutex<Held>,
}

/// Who holds them, by numbers in the order of coming.
#[derive(Default)]
struct Held {
    newest: u64,
    /// Not let in yet; each is told by its token when its place is given away.
    waiting: BTreeMap<u64, CancellationToken>,
    let_in: HashSet<u64>,
}

impl Places {
    /// So many places.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: Mutex::default() })
    }

    /// A place for a newcomer, and whether another one gave way for it; `None` where nobody may.
    pub(super) fn take(self: &Arc<Self>) -> Option<(Place, bool)> {
        let mut held = self.held();
        let is_full = held.waiting.len() + held.let_in.len() >= self.max;
        if is_full {
            held.waiting.pop_first()?.1.cancel();
        }
        held.newest += 1;
        let (number, given_away) = (held.newest, CancellationToken::new());
        held.waiting.insert(number, given_away.clone());
        drop(held);
        Some((Place { ticket: Ticket { number, places: Arc::clone(self) }, given_away }, is_full))
    }

    /// A panic elsewhere leaves nothing half-written in these values.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place that is held. Free again when it is dropped.
pub(super) struct Place {
    ticket: Ticket,
    given_away: CancellationToken,
}

impl Place {
    /// What the connection's calls are given.
    pub(super) fn ticket(&self) -> Ticket {
        self.ticket.clone()
    }

    /// Done when the place is another connection's.
    pub(super) fn given_away(&self) -> WaitForCancellationFutureOwned {
        self.given_away.clone().cancelled_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Ticket { number, places } = &self.ticket;
        let mut held = places.held();
        held.waiting.remove(number);
        held.let_in.remove(number);
    }
}

/// By what a call says for its connection that it was let in. Holds no place.
#[derive(Clone)]
pub(super) struct Ticket {
    number: u64,
    places: Arc<Places>,
}

impl Ticket {
    /// From now on the connection keeps its place, unless that was given away already.
    pub(super) fn let_in(&self) {
        let mut held = self.places.held();
        if held.waiting.remove(&self.number).is_some() {
            held.let_in.insert(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_longest_gives_way_and_whoever_was_let_in_never_does() {
        let places = Places::new(3);
        let take = || places.take();
        let (let_in, _) = take().expect("there is room");
        let_in.ticket().let_in();
        let (first, _) = take().expect("there is room");
        let (second, is_full) = take().expect("there is room");
        assert!(!is_full && !first.given_away.is_cancelled(), "nobody has to go where there is room");
        let (third, is_full) = take().expect("one gives way");
        assert!(is_full && first.given_away.is_cancelled());
        assert!(![&let_in, &second, &third].iter().any(|place| place.given_away.is_cancelled()));
        first.ticket().let_in();
        second.ticket().let_in();
        third.ticket().let_in();
        assert!(take().is_none(), "all were let in");
        drop(first);
        assert!(take().is_none(), "whoever gave way has no place to leave");
        drop(let_in);
        let (_, is_full) = take().expect("a place is free again");
        assert!(!is_full);
        assert!(take().is_some_and(|(_, is_full)| !is_full), "the one before has left again");
    }
}
