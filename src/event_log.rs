//! The log of events: ordered, durable, and delivered to subscribers in order, each once.
//!
//! In: events. Out: the same on disk, then to every subscriber, with sequence and epoch. The newest
//! `recent_max` events stay in a ring, from which live subscribers are served; whoever is further
//! behind is served from the disk, at its own pace. Nobody waits for a subscriber, and nothing is left
//! out: one that asks for what is no longer kept is told so.
//! Must not know: who subscribes, the wire, how events are stored.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::watch;
use uuid::Uuid;

use crate::event::{Event, LoggedEvent, SnapshotId};
use crate::store::{Appended, Coming, LogSpan, RequestKey, Retention, Snapshot, Store, StoreError};
use crate::subject::SubjectUid;

mod blocks;
#[cfg(test)]
mod tests;

use blocks::Blocks;

/// How many events one call of [`Subscription::next`] answers at most: enough to spare a busy
/// stream most of its messages, few enough that a message fits into the window that a client usually
/// grants, 64 KiB, and that one which stops reading holds little.
const DELIVERED_AT_ONCE: usize = 64;

/// The log failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventLogError {
    /// The events are not on disk, and nobody was told of them.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A subscription cannot begin there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscribeError {
    /// The place is in another log: of another daemon, or of this one before a backup was put back.
    #[error("the cursor belongs to another log ({asked}; this one is {}): begin from the earliest event, or from now", current.epoch)]
    OtherEpoch {
        /// The log that the place is in.
        asked: Uuid,
        /// The newest event of this one.
        current: Position,
    },
    /// What comes next after the place is no longer kept.
    #[error(
        "events are kept from {} to {} and the cursor asks for {asked}: what lies between is lost; begin from the earliest",
        span.oldest, span.newest
    )]
    TooOld {
        /// The first event that was asked for.
        asked: u64,
        /// What is kept.
        span: LogSpan,
    },
    /// The place was never reached.
    #[error("the cursor stands after event {asked}, and the newest is {newest}: this daemon never gave it out")]
    InFuture {
        /// The event that was asked for what comes after.
        asked: u64,
        /// The newest event.
        newest: u64,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A subscription ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubscriptionEnded {
    /// What comes next was deleted, by age or for want of room, before the subscriber had read it.
    #[error(
        "the subscriber is at event {at} and what comes next is no longer kept (from {} to {} is): it read too slowly; begin from the earliest",
        span.oldest, span.newest
    )]
    TooSlow {
        /// The newest event that it has seen.
        at: u64,
        /// What is kept.
        span: LogSpan,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The daemon stops; everything published before was delivered.
    #[error("the daemon is stopping")]
    Closed,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next event.
    Now,
    /// With the oldest event that is kept.
    Earliest,
    /// With the event after this place.
    After(Position),
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
    recent_max: usize,
    ring: Mutex<Ring>,
    /// What was read from disk lately.
    blocks: Blocks,
    /// How far each subscriber is; those that have ended are gone.
    subscribers: Mutex<Vec<Weak<Progress>>>,
    /// Holds no value: it wakes whoever waits for a change of the ring.
    changed: watch::Sender<()>,
    /// Whether the last append found no room.
    disk_full: watch::Sender<bool>,
}

/// The newest events, at most `recent_max` of them, with consecutive sequences.
struct Ring {
    events: VecDeque<LoggedEvent>,
    newest: u64,
    closed: bool,
}

impl EventLog {
    /// Opens the log of `store` and keeps the `recent_max` newest events in memory. From here on
    /// events are appended through this log alone.
    ///
    /// # Errors
    /// [`EventLogError::Store`] when the newest sequence cannot be read.
    pub async fn open(store: Store, recent_max: usize) -> Result<Self, EventLogError> {
        let newest = store.last_sequence().await?;
        let ring = Mutex::new(Ring { events: VecDeque::new(), newest, closed: false });
        let shared = Shared {
            epoch: store.epoch(),
            recent_max,
            ring,
            blocks: Blocks::default(),
            subscribers: Mutex::default(),
            changed: watch::Sender::new(()),
            disk_full: watch::Sender::new(false),
        };
        Ok(Self { store, shared: Arc::new(shared) })
    }

    /// On disk, then delivered to subscribers, in the order in which concurrent calls reached the
    /// disk; the events of one call stay together. A caller that stops waiting takes nothing back.
    ///
    /// # Errors
    /// [`EventLogError::Store`]; nothing was written and nobody is told.
    pub async fn append(&self, events: Vec<Event>) -> Result<(), EventLogError> {
        self.append_then(events, |_| ()).await
    }

    /// As [`append`](Self::append), and calls `told` with where they stand at the moment they are
    /// delivered, on the store's own thread: it must not wait. For measurements.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_then(&self, events: Vec<Event>, told: impl FnOnce(Appended) + Send + 'static) -> Result<(), EventLogError> {
        if events.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let publish = move |appended, events| {
            told(appended);
            shared.publish(appended, events);
        };
        let outcome = self.store.append_events_then(events, Box::new(publish)).await;
        let is_full = outcome == Err(StoreError::Full);
        self.shared.disk_full.send_if_modified(|known| std::mem::replace(known, is_full) != is_full);
        Ok(outcome.map(|_| ())?)
    }

    /// Appends one event for a request, once, and answers its sequence.
    ///
    /// # Errors
    /// [`EventLogError::Store`], with [`StoreError::RequestRepeated`] for a request that was carried out.
    pub async fn append_once(&self, event: Event, request: Option<RequestKey>) -> Result<u64, EventLogError> {
        let shared = Arc::clone(&self.shared);
        let publish = move |appended, events| shared.publish(appended, events);
        Ok(self.store.append_event_once(event, request, Box::new(publish)).await?)
    }

    /// Says that these pictures follow the events that bring them: who asks for one waits until [`Coming`] is dropped.
    pub fn coming(&self, pictures: Vec<SnapshotId>) -> Coming {
        self.store.coming(pictures)
    }

    /// Keeps the pictures of events that were told. A disk without room for pictures may have room for events, so
    /// [`disk_full`](Self::disk_full) is not of these.
    ///
    /// # Errors
    /// [`EventLogError::Store`]; none of them is kept then.
    pub async fn put_snapshots(&self, pictures: Vec<(Event, Snapshot)>) -> Result<(), EventLogError> {
        Ok(self.store.put_snapshots(pictures).await?)
    }

    /// Says of pictures that events brought as nobody's whom they are of, as [`Store::name_snapshots`] does.
    ///
    /// # Errors
    /// [`EventLogError::Store`].
    pub async fn name_snapshots(&self, named: Vec<(SnapshotId, SubjectUid)>) -> Result<(), EventLogError> {
        Ok(self.store.name_snapshots(named).await?)
    }

    /// Whether the disk has no room for events, and each change of that.
    pub fn disk_full(&self) -> watch::Receiver<bool> {
        self.shared.disk_full.subscribe()
    }

    /// Deletes what `kept` does not allow, as [`Store::prune`] does.
    ///
    /// # Errors
    /// [`EventLogError::Store`].
    pub async fn prune(&self, kept: Retention) -> Result<(), EventLogError> {
        self.store.prune(kept).await?;
        self.shared.blocks.clear();
        Ok(())
    }

    /// Waits its turn at the store like any event, and is none: for the watchdog. It shares a transaction with the events beside it, and
    /// with them what becomes of that: a full disk, too, is an answer of a writer that is not stuck.
    ///
    /// # Errors
    /// [`EventLogError`] when the store has stopped or failed otherwise.
    pub async fn pass_token(&self) -> Result<(), EventLogError> {
        match self.store.pass_token().await {
            Ok(()) | Err(StoreError::Full) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Everything from the next event on.
    pub fn subscribe(&self) -> Subscription {
        self.subscribe_after(None)
    }

    /// Everything from `start` on, whether it is in memory or on disk.
    ///
    /// # Errors
    /// [`SubscribeError`] when that is not to be had whole.
    pub async fn subscribe_from(&self, start: Start) -> Result<Subscription, SubscribeError> {
        let current = self.position();
        let after = match start {
            Start::Now => return Ok(self.subscribe()),
            Start::Earliest => self.store.log_span().await?.oldest.saturating_sub(1),
            Start::After(asked) if asked.epoch != current.epoch => {
                return Err(SubscribeError::OtherEpoch { asked: asked.epoch, current });
            }
            Start::After(Position { sequence, .. }) if sequence > current.sequence => {
                return Err(SubscribeError::InFuture { asked: sequence, newest: current.sequence });
            }
            Start::After(Position { sequence, .. }) => {
                let span = self.store.log_span().await?;
                if sequence + 1 < span.oldest {
                    return Err(SubscribeError::TooOld { asked: sequence + 1, span });
                }
                sequence
            }
        };
        Ok(self.subscribe_after(Some(after)))
    }

    /// Who subscribes, and how far each is.
    pub fn subscribers(&self) -> Vec<Subscriber> {
        let newest = self.position().sequence;
        let subscribers = self.shared.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        let all = subscribers.iter().filter_map(Weak::upgrade);
        let progress = all.map(|progress| Subscriber {
            peer: progress.peer.get().cloned().unwrap_or_default(),
            lag: newest.saturating_sub(progress.delivered.load(Ordering::Relaxed)),
        });
        progress.collect()
    }

    fn subscribe_after(&self, sequence: Option<u64>) -> Subscription {
        // The receiver comes first, so that no change after the position is read goes unnoticed.
        let changed = self.shared.changed.subscribe();
        let delivered = sequence.unwrap_or_else(|| self.shared.ring().newest);
        let progress = Arc::new(Progress { peer: OnceLock::new(), delivered: AtomicU64::new(delivered) });
        let mut subscribers = self.shared.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        subscribers.push(Arc::downgrade(&progress));
        Subscription { log: self.clone(), delivered, progress, changed }
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
    fn publish(&self, Appended { first, time }: Appended, events: Vec<Arc<Event>>) {
        let mut ring = self.ring();
        for (sequence, event) in (first..).zip(events) {
            if ring.events.len() >= self.recent_max {
                // Whoever has not seen this one yet finds it on the disk.
                ring.events.pop_front();
            }
            ring.events.push_back(LoggedEvent { sequence, epoch: self.epoch, log_time: time, event });
            ring.newest = sequence;
        }
        drop(ring);
        self.changed.send_replace(());
    }
}

/// A subscriber, as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// Who it is, for people; empty where nobody said.
    pub peer: String,
    /// How many events it has not taken yet.
    pub lag: u64,
}

/// How far a subscriber is, for those who ask.
struct Progress {
    peer: OnceLock<String>,
    delivered: AtomicU64,
}

/// One subscriber's view.
pub struct Subscription {
    log: EventLog,
    delivered: u64,
    progress: Arc<Progress>,
    changed: watch::Receiver<()>,
}

/// What the ring has for a subscriber.
enum Recent {
    Events(Vec<LoggedEvent>),
    /// What comes next has left the ring, in which this is the newest.
    OnDisk {
        newest: u64,
    },
    Nothing,
}

impl Subscription {
    /// Waits for the next events: all there are, at most 64. Dropping the answer's future loses
    /// nothing.
    ///
    /// # Errors
    /// [`SubscriptionEnded`], again at every later call.
    pub async fn next(&mut self) -> Result<Vec<LoggedEvent>, SubscriptionEnded> {
        loop {
            let events = match self.recent()? {
                Recent::Events(events) => events,
                Recent::OnDisk { newest } => self.on_disk(newest).await?,
                Recent::Nothing => {
                    if self.changed.changed().await.is_err() {
                        return Err(SubscriptionEnded::Closed);
                    }
                    continue;
                }
            };
            self.delivered += events.len() as u64;
            self.progress.delivered.store(self.delivered, Ordering::Relaxed);
            return Ok(events);
        }
    }

    /// Says who subscribes, for [`EventLog::subscribers`]; only the first name counts.
    pub fn name(&self, peer: String) {
        // Somebody who has a name already keeps it.
        let _ = self.progress.peer.set(peer);
    }

    /// The place up to which events were delivered: where it began, before the first.
    pub fn position(&self) -> Position {
        Position { epoch: self.log.shared.epoch, sequence: self.delivered }
    }

    /// What can be delivered from memory now.
    fn recent(&self) -> Result<Recent, SubscriptionEnded> {
        let ring = self.log.shared.ring();
        let behind = usize::try_from(ring.newest.saturating_sub(self.delivered)).unwrap_or(usize::MAX);
        if behind == 0 {
            return if ring.closed { Err(SubscriptionEnded::Closed) } else { Ok(Recent::Nothing) };
        }
        let Some(from) = ring.events.len().checked_sub(behind) else { return Ok(Recent::OnDisk { newest: ring.newest }) };
        Ok(Recent::Events(ring.events.iter().skip(from).take(DELIVERED_AT_ONCE).cloned().collect()))
    }

    /// The next events from the disk, without a gap. What is on disk and not yet told to everybody waits.
    async fn on_disk(&self, newest: u64) -> Result<Vec<LoggedEvent>, SubscriptionEnded> {
        let (shared, store) = (&self.log.shared, &self.log.store);
        let mut events = shared.blocks.after(self.delivered, (DELIVERED_AT_ONCE, newest), store).await?;
        events.truncate(events.partition_point(|event| event.sequence <= newest));
        let follows = |(event, expected): (&LoggedEvent, u64)| event.sequence == expected;
        if events.is_empty() || !events.iter().zip(self.delivered + 1..).all(follows) {
            return Err(SubscriptionEnded::TooSlow { at: self.delivered, span: store.log_span().await? });
        }
        Ok(events)
    }
}
