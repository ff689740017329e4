//! One subscriber's view of the log: what passes its filter, named as it is called now.
//!
//! In: logged events in order. Out: responses with several events when they come thick, and a
//! bookmark when the end is reached and at least every ten seconds when nothing passes. Takes from the
//! log only when there is room for a response, so what a slow client lacks waits in the log; nothing is
//! skipped in silence.
//! Must not know: the log's insides, HTTP/2.

use std::sync::Arc;
use std::time::Duration;

use prost::bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::convert;
use super::encoded::EncodedEvents;
use super::filter::Filter;
use super::page::cursor;
use crate::clock::Clock;
use crate::event::LoggedEvent;
use crate::event_log::{Position, SubscriptionEnded};
use crate::gallery::Gallery;
use crate::pb::{self, EncodedSubscribeResponse};

/// The longest a client goes without knowing how far the stream is.
pub(super) const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);

/// What a subscriber sees, and how far it is.
pub(super) struct View {
    pub(super) filter: Filter,
    pub(super) gallery: Gallery,
    pub(super) encoded: Arc<EncodedEvents>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) position: Position,
    /// Whether events wait because the disk is full.
    pub(super) disk_full: watch::Receiver<bool>,
    /// The newest event when the subscription began: from there on everything is new.
    pub(super) newest_at_start: u64,
}

impl View {
    /// A response without events: where the stream is and what time it is.
    fn bookmark(&self) -> EncodedSubscribeResponse {
        let Position { epoch, sequence } = self.position;
        EncodedSubscribeResponse {
            events: Vec::new(),
            position: Some(pb::Position { epoch: epoch.to_string(), sequence, cursor: cursor(epoch, sequence) }),
            server_time: Some(convert::time(self.clock.now())),
            caught_up: self.is_caught_up(),
            disk_full: *self.disk_full.borrow(),
        }
    }

    fn is_caught_up(&self) -> bool {
        self.position.sequence >= self.newest_at_start
    }

    /// Moves on past `events` and answers what the filter lets through, if anything, or that the end
    /// is reached.
    fn pass(&mut self, events: &[LoggedEvent]) -> Option<EncodedSubscribeResponse> {
        let was_caught_up = self.is_caught_up();
        if let Some(last) = events.last() {
            self.position = Position { epoch: last.epoch, sequence: last.sequence };
        }
        let passed: Vec<Bytes> = events.iter().filter_map(|logged| self.deliver(logged)).collect();
        let is_told = !passed.is_empty() || self.is_caught_up() != was_caught_up;
        is_told.then(|| EncodedSubscribeResponse { events: passed, ..self.bookmark() })
    }

    fn deliver(&self, logged: &LoggedEvent) -> Option<Bytes> {
        let passes = self.filter.lets_through(&logged.event, &self.gallery);
        passes.then(|| self.encoded.bytes(logged, &self.gallery))
    }
}

/// Feeds one subscriber until it leaves or the log ends it, and answers with which status.
///
/// `next` takes the next events from the log; it may be dropped while it waits without losing any.
pub(super) async fn run(
    mut next: impl AsyncFnMut() -> Result<Vec<LoggedEvent>, SubscriptionEnded>,
    mut view: View,
    out: mpsc::Sender<EncodedSubscribeResponse>,
) -> Status {
    let mut disk_full = view.disk_full.clone();
    // At once, so that the client knows that it is subscribed and from where.
    let Ok(room) = out.reserve().await else { return left() };
    room.send(view.bookmark());
    loop {
        let due = Instant::now() + BOOKMARK_INTERVAL;
        // Room first, events then: what is not yet read stays in the log and is coalesced there.
        let Ok(room) = out.reserve().await else { return left() };
        let response = loop {
            tokio::select! {
                taken = next() => match taken {
                    Ok(events) => if let Some(passed) = view.pass(&events) { break passed },
                    Err(ended) => return ended.into(),
                },
                Ok(()) = disk_full.changed() => break view.bookmark(),
                () = sleep_until(due) => break view.bookmark(),
            }
        };
        room.send(response);
    }
}

/// What nobody reads any more.
pub(super) fn left() -> Status {
    Status::cancelled("the client left")
}

#[cfg(test)]
mod tests;
