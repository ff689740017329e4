//! Blocks of the log that were read from disk lately, shared by all who read there.
//!
//! In: a place in the log. Out: the block that holds what comes next, read once however many ask for
//! it at a time. Remembers [`BLOCKS_MAX`] whole blocks, a few megabytes; the one not used for longest goes.
//! Must not know: subscribers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use crate::event::LoggedEvent;
use crate::store::{Store, StoreError};

/// How many events a block holds.
const BLOCK: u64 = 512;
/// How many blocks are remembered.
const BLOCKS_MAX: usize = 16;

type Events = Arc<[LoggedEvent]>;
/// Blocks by their numbers; the events of one are there once somebody has read them.
type Read = VecDeque<(u64, Arc<OnceCell<Events>>)>;

/// What was read lately, the latest used last. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Blocks(Arc<Mutex<Read>>);

/// Why a block is not remembered.
enum NotKept {
    Failed(StoreError),
    /// It has lost its beginning.
    NotWhole(Events),
}

impl Blocks {
    /// At most `limit` of the kept events after `sequence`, all of one block; `newest` is the newest of
    /// the log. The next block is read meanwhile, if it is whole.
    pub(super) async fn after(&self, sequence: u64, (limit, newest): (usize, u64), store: &Store) -> Result<Vec<LoggedEvent>, StoreError> {
        let number = sequence / BLOCK;
        let until = (number + 1) * BLOCK;
        if until > newest {
            return store.events_after(sequence, limit).await;
        }
        let events = match whole(&self.cell(number), number, store).await {
            Ok(events) | Err(NotKept::NotWhole(events)) => events,
            Err(NotKept::Failed(error)) => return Err(error),
        };
        if until + BLOCK <= newest {
            self.read_ahead(number + 1, store);
        }
        let begin = events.partition_point(|logged| logged.sequence <= sequence);
        Ok(events[begin..].iter().take_while(|logged| logged.sequence <= until).take(limit).cloned().collect())
    }

    /// Forgets everything, with it what is no longer kept.
    pub(super) fn clear(&self) {
        self.blocks().clear();
    }

    fn read_ahead(&self, number: u64, store: &Store) {
        let cell = self.cell(number);
        if !cell.initialized() {
            let store = store.clone();
            // What comes of it is told to whoever asks for the block.
            tokio::spawn(async move { whole(&cell, number, &store).await.is_ok() });
        }
    }

    fn cell(&self, number: u64) -> Arc<OnceCell<Events>> {
        let mut blocks = self.blocks();
        let known = blocks.iter().position(|(known, _)| *known == number).and_then(|index| blocks.remove(index));
        let (number, cell) = known.unwrap_or_else(|| (number, Arc::default()));
        if blocks.len() >= BLOCKS_MAX {
            blocks.pop_front();
        }
        blocks.push_back((number, Arc::clone(&cell)));
        cell
    }

    fn blocks(&self) -> MutexGuard<'_, Read> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The block of `cell`, read if it is not known; one that is not whole is read anew the next time.
async fn whole(cell: &OnceCell<Events>, number: u64, store: &Store) -> Result<Events, NotKept> {
    let read = || async {
        let events: Events = store.events_after(number * BLOCK, BLOCK as usize).await.map_err(NotKept::Failed)?.into();
        if events.last().is_some_and(|last| last.sequence == (number + 1) * BLOCK) && events.len() as u64 == BLOCK {
            Ok(events)
        } else {
            Err(NotKept::NotWhole(events))
        }
    };
    cell.get_or_try_init(read).await.cloned()
}
