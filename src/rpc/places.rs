//! The places that connections hold: so many and no more.
//!
//! In: connections as they come, are let in and end. Out: a place or none, and a word to whose place is given away.
//! When all are held: of those that no call has let in, the one that came first gives way to the newcomer. So nobody who cannot be
//! let in keeps others out by holding a place, and as long as there is room nobody has to go. Where all are let in, the newcomer gets
//! none. Whose tokens are no longer in force is let in no longer.
//! Must not know: sockets, what the calls are.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::auth::Admission;

/// All places.
#[derive(Debug)]
pub(super) struct Places {
    max: usize,
    held: Mutex<Held>,
}

/// Who holds them, by numbers in the order of coming.
#[derive(Debug, Default)]
struct Held {
    newest: u64,
    /// Not let in; each is told by its token when its place is given away.
    waiting: BTreeMap<u64, CancellationToken>,
    let_in: HashMap<u64, LetIn>,
}

/// A connection that was let in.
#[derive(Debug)]
struct LetIn {
    given_away: CancellationToken,
    /// By which tokens, each once: streams were begun with them, and each ends with its own. None where none are asked for.
    by: Vec<Admission>,
}

impl LetIn {
    fn is_revoked(&self) -> bool {
        !self.by.is_empty() && !self.by.iter().any(Admission::is_in_force)
    }
}

impl Places {
    /// So many places.
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: Mutex::default() })
    }

    /// How many there are.
    pub(super) fn max(&self) -> usize {
        self.max
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

    /// Lets nobody in any longer whose tokens are no longer in force: they wait as those do who came at their time. To be called when
    /// the tokens in force have changed.
    pub(super) fn reconsider(&self) {
        let mut held = self.held();
        let Held { waiting, let_in, .. } = &mut *held;
        waiting.extend(let_in.extract_if(|_, held| held.is_revoked()).map(|(number, held)| (number, held.given_away)));
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
    pub(super) fn let_in(&self, by: Option<&Admission>) {
        let mut held = self.places.held();
        // It may have been revoked since the call was let in.
        if by.is_some_and(|by| !by.is_in_force()) {
            return;
        }
        if let Some(given_away) = held.waiting.remove(&self.number) {
            held.let_in.insert(self.number, LetIn { given_away, by: Vec::new() });
        }
        if let (Some(held), Some(by)) = (held.let_in.get_mut(&self.number), by)
            && !held.by.iter().any(|known| known.is_same(by))
        {
            held.by.retain(Admission::is_in_force);
            held.by.push(by.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::auth::Tokens;
    use super::*;

    #[test]
    fn whoever_waits_longest_gives_way_and_whoever_is_let_in_does_not() {
        let places = Places::new(3);
        let take = || places.take();
        let (let_in, _) = take().expect("there is room");
        let_in.ticket().let_in(None);
        let (first, _) = take().expect("there is room");
        let (second, is_full) = take().expect("there is room");
        assert!(!is_full && !first.given_away.is_cancelled(), "nobody has to go where there is room");
        let (third, is_full) = take().expect("one gives way");
        assert!(is_full && first.given_away.is_cancelled());
        assert!(![&let_in, &second, &third].iter().any(|place| place.given_away.is_cancelled()));
        first.ticket().let_in(None);
        second.ticket().let_in(None);
        third.ticket().let_in(None);
        assert!(take().is_none(), "all were let in");
        drop(first);
        assert!(take().is_none(), "whoever gave way has no place to leave");
        drop(let_in);
        let (_, is_full) = take().expect("a place is free again");
        assert!(!is_full);
        assert!(take().is_some_and(|(_, is_full)| !is_full), "the one before has left again");
    }

    #[test]
    fn whose_tokens_are_all_gone_waits_again_and_gives_way_before_whoever_came_later() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("tokens");
        let (first, second) = ("0123456789abcdef-first", "0123456789abcdef-second");
        let write = |text: String| {
            std::fs::write(&file, text).expect("written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
        };
        write(format!("{first}\n{second}\n"));
        let tokens = Tokens::load(&file).expect("they are good");
        let by = |token: &str| tokens.admit(Some(format!("Bearer {token}").as_bytes())).expect("it is in force");
        let places = Places::new(4);
        let held = [first, first, first, second].map(|token| {
            let (place, _) = places.take().expect("there is room");
            place.ticket().let_in(Some(&by(token)));
            place
        });
        assert!(places.take().is_none(), "all tokens are in force");
        // This client has both, whichever it called with last.
        for token in [second, first] {
            held[0].ticket().let_in(Some(&by(token)));
        }
        let old = by(first);
        write(format!("{second}\n"));
        tokens.reload().expect("they are good");
        places.reconsider();
        held[2].ticket().let_in(Some(&old));
        let (newcomer, is_full) = places.take().expect("the second's token is gone");
        let has_gone = || held.each_ref().map(|place| place.given_away.is_cancelled());
        assert!(is_full && has_gone() == [false, true, false, false], "{:?}", has_gone());
        let (another, _) = places.take().expect("the third's, too");
        assert!(!newcomer.given_away.is_cancelled() && has_gone() == [false, true, true, false], "{:?}", has_gone());
        for place in [&newcomer, &another] {
            place.ticket().let_in(Some(&by(second)));
        }
        assert!(places.take().is_none(), "the tokens of all that are left are in force");
    }
}
