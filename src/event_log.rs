//! The log of events: ordered, durable, and delivered to subscribers in order, each once.
//!
//! In: events. Out: the same on disk, then to every subscriber, with sequence, epoch and the time
//! they were published. The newest events stay in a ring of `lag_max`; a subscriber that falls
//! further behind is ended and told so. Nobody waits for a subscriber, and nothing is left out.
//! Must not know: who subscribes, the wire, how events are stored.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use crate::clock::{Clock, Timestamp};
use crate::event::{Event, LoggedEvent};
use crate::store::{NewEvent, Store, StoreError};

#[cfg(test)]
mod tests;

/// How many events one call of [`Subscription::next`] answers at most: enough to spare a busy
/// stream most of its messages, few enough for one message.
const DELIVERED_AT_ONCE: u64 = 64;

/// How long events wait before they are offered to a full disk again, and after how many attempts
/// that is told again.
const ROOM_WAIT: Duration = Duration::from_secs(1);
const TOLD_EVERY: u64 = 10;

/// The log failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventLogError {
    /// The events are not on disk, and nobody was told of them.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A subscription ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionEnded {
    /// It fell behind by more than the bound: what it missed can no longer be delivered.
    #[error("the subscriber fell {behind} events behind and was ended; subscribe again")]
    TooSlow {
        /// How many events it has not seen.
        behind: u64,
    },
    /// The daemon stops; everything published before was delivered.
    #[error("the daemon is stopping")]
    Closed,
}

/// A place in the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The log.
    pub epoch: Uuid,
    /// The newest event before this place; 0 before the first.
    pub sequence: u64,
}

/// A handle on the log. Clones share it.
#[derive(Clone)]
pub struct EventLog {
    store: Store,
    shared: Arc<Shared>,
}

/// What the log and its subscriptions share.
struct Shared {
    epoch: Uuid,
    lag_max: usize,
    clock: Arc<dyn Clock>,
    ring: Mutex<Ring>,
    /// Holds no value: it wakes whoever waits for a change of the ring.
    changed: watch::Sender<()>,
}

/// The newest events, at most `lag_max` of them, with consecutive sequences.
struct Ring {
    events: VecDeque<LoggedEvent>,
    newest: u64,
    closed: bool,
}

impl EventLog {
    /// Opens the log of `store`; a subscriber more than `lag_max` events behind is ended. `clock`
    /// says when events are published. From here on events are appended through this log alone.
    ///
    /// # Errors
    /// [`EventLogError::Store`] when the newest sequence cannot be read.
    pub async fn open(store: Store, lag_max: usize, clock: Arc<dyn Clock>) -> Result<Self, EventLogError> {
        let newest = store.last_sequence().await?;
        let ring = Mutex::new(Ring { events: VecDeque::new(), newest, closed: false });
        let shared = Shared { epoch: store.epoch(), lag_max, clock, ring, changed: watch::Sender::new(()) };
        Ok(Self { store, shared: Arc::new(shared) })
    }

    /// On disk, then delivered to subscribers, in the order in which concurrent calls reached the
    /// disk; the events of one call stay together. A caller that stops waiting takes nothing back.
    ///
    /// # Errors
    /// [`EventLogError::Store`]; nothing was written and nobody is told.
    pub async fn append(&self, events: Vec<NewEvent>) -> Result<(), EventLogError> {
        if events.is_empty() {
            return Ok(());
        }
        let published: Vec<_> = events.iter().map(|e| Arc::new(e.event.clone())).collect();
        let shared = Arc::clone(&self.shared);
        self.store.append_events_then(events, Box::new(move |first| shared.publish(first, published))).await?;
        Ok(())
    }

    /// As [`append`](Self::append), and waits while the disk is full: what happens at the doors
    /// is not forgotten for want of room that may come back. Says so every ten seconds.
    ///
    /// # Errors
    /// [`EventLogError::Store`] for anything but a full disk; nothing was written then.
    pub async fn append_when_there_is_room(&self, events: Vec<NewEvent>) -> Result<(), EventLogError> {
        for attempt in 0_u64.. {
            match self.append(events.clone()).await {
                Err(EventLogError::Store(StoreError::Full)) if attempt % TOLD_EVERY == 0 => {
                    tracing::error!(
                        waiting = events.len(),
                        "the disk of data_dir is full: events wait until there is room, and nobody is told of them"
                    );
                }
                Err(EventLogError::Store(StoreError::Full)) => {}
                outcome => return outcome,
            }
            tokio::time::sleep(ROOM_WAIT).await;
        }
        Ok(())
    }

    /// Waits its turn at the store like any event, and is none: for the watchdog.
    ///
    /// # Errors
    /// [`EventLogError`] when the store has stopped.
    pub async fn pass_token(&self) -> Result<(), EventLogError> {
        Ok(self.store.pass_token().await?)
    }

    /// Everything from the next event on.
    pub fn subscribe(&self) -> Subscription {
        // The receiver comes first, so that no change after the position is read goes unnoticed.
        let changed = self.shared.changed.subscribe();
        let delivered = self.shared.ring().newest;
        Subscription { shared: Arc::clone(&self.shared), delivered, changed }
    }

    /// The newest published event's place.
    pub fn position(&self) -> Position {
        Position { epoch: self.shared.epoch, sequence: self.shared.ring().newest }
    }

    /// Ends every subscription with `Closed`, after what is published by now. Events are still
    /// appended.
    pub fn close(&self) {
        self.shared.ring().closed = true;
        self.shared.changed.send_replace(());
    }
}

impl Shared {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands `events` to the subscribers. The store calls this in sequence order, without gaps.
    fn publish(&self, first: u64, events: Vec<Arc<Event>>) {
        let publish_time: Timestamp = self.clock.now();
        let mut ring = self.ring();
        for (sequence, event) in (first..).zip(events) {
            if ring.events.len() >= self.lag_max {
                // Whoever has not seen this one yet is ended when it asks next.
                ring.events.pop_front();
            }
            ring.events.push_back(LoggedEvent { sequence, epoch: self.epoch, publish_time, event });
            ring.newest = sequence;
        }
        drop(ring);
        self.changed.send_replace(());
    }
}

/// One subscriber's view.
pub struct Subscription {
    shared: Arc<Shared>,
    delivered: u64,
    changed: watch::Receiver<()>,
}

impl Subscription {
    /// Waits for the next events: all there are, at most 64. Dropping the answer's future loses
    /// nothing.
    ///
    /// # Errors
    /// [`SubscriptionEnded`], again at every later call.
    pub async fn next(&mut self) -> Result<Vec<LoggedEvent>, SubscriptionEnded> {
        loop {
            if let Some(events) = self.take()? {
                return Ok(events);
            }
            if self.changed.changed().await.is_err() {
                return Err(SubscriptionEnded::Closed);
            }
        }
    }

    /// The place up to which events were delivered: where it began, before the first.
    pub fn position(&self) -> Position {
        Position { epoch: self.shared.epoch, sequence: self.delivered }
    }

    /// What can be delivered now.
    fn take(&mut self) -> Result<Option<Vec<LoggedEvent>>, SubscriptionEnded> {
        let ring = self.shared.ring();
        let behind = ring.newest - self.delivered;
        let Some(from) = (ring.events.len() as u64).checked_sub(behind) else {
            return Err(SubscriptionEnded::TooSlow { behind });
        };
        if behind == 0 {
            return if ring.closed { Err(SubscriptionEnded::Closed) } else { Ok(None) };
        }
        let count = behind.min(DELIVERED_AT_ONCE);
        let events = ring.events.iter().skip(from as usize).take(count as usize).cloned().collect();
        self.delivered += count;
        Ok(Some(events))
    }
}
