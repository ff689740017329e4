//! One subscriber's view of the log: what passes its filter, named as it is called now.
//!
//! In: logged events in order. Out: responses with several events when they come thick, and a
//! bookmark at least every ten seconds when nothing passes. Takes from the log only when there is
//! room for a response, so what a slow client lacks waits in the log, whose bound ends it; nothing
//! is skipped in silence.
//! Must not know: the log's insides, HTTP/2.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::convert;
use super::page::cursor;
use super::status::{Refusal, bad_field};
use crate::clock::Clock;
use crate::event::{EventKind, LoggedEvent};
use crate::event_log::{Position, SubscriptionEnded};
use crate::gallery::Gallery;
use crate::pb;
use crate::subject::Subject;

/// The longest a client goes without knowing how far the stream is.
pub(super) const BOOKMARK_INTERVAL: Duration = Duration::from_secs(10);
/// The most entries of one filter.
const FILTER_ENTRIES_MAX: usize = 1_000;

/// What a subscriber wants to see; an empty set lets everything through, and an event must pass
/// every set.
#[derive(Debug, Default)]
pub(super) struct Filter {
    cameras: HashSet<String>,
    types: HashSet<pb::EventType>,
    subjects: HashSet<String>,
    watchlists: HashSet<String>,
}

impl Filter {
    /// Reads the filters of a request.
    pub(super) fn read(request: &pb::SubscribeRequest) -> Result<Self, Status> {
        let longest = [request.camera_ids.len(), request.types.len(), request.subject_ids.len(), request.watchlists.len()];
        if longest.iter().any(|count| *count > FILTER_ENTRIES_MAX) {
            return Err(bad_field("filter", "has more than 1000 entries").into());
        }
        for id in &request.camera_ids {
            convert::camera::camera_id(id, "camera_ids")?;
        }
        for id in &request.subject_ids {
            convert::subject::subject_id(id, "subject_ids")?;
        }
        let types = request.types.iter().map(|number| match pb::EventType::try_from(*number) {
            Ok(pb::EventType::Unspecified) | Err(_) => Err(bad_field("types", format!("{number} is no event type"))),
            Ok(known) => Ok(known),
        });
        Ok(Self {
            types: types.collect::<Result<_, Refusal>>()?,
            cameras: request.camera_ids.iter().cloned().collect(),
            subjects: request.subject_ids.iter().cloned().collect(),
            watchlists: request.watchlists.iter().cloned().collect(),
        })
    }

    fn lets_through(&self, kind: EventKind, camera: &str, subject: Option<&Subject>) -> bool {
        let any = |set: &HashSet<String>, found: &dyn Fn() -> bool| set.is_empty() || found();
        (self.types.is_empty() || self.types.contains(&convert::event::event_type(kind)))
            && any(&self.cameras, &|| self.cameras.contains(camera))
            && any(&self.subjects, &|| subject.is_some_and(|s| self.subjects.contains(s.id.as_str())))
            && any(&self.watchlists, &|| subject.is_some_and(|s| s.is_on_any(&self.watchlists)))
    }
}

/// What a subscriber sees, and how far it is.
pub(super) struct View {
    pub(super) filter: Filter,
    pub(super) gallery: Gallery,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) position: Position,
}

impl View {
    /// A response without events: where the stream is and what time it is.
    fn bookmark(&self) -> pb::SubscribeResponse {
        let Position { epoch, sequence } = self.position;
        pb::SubscribeResponse {
            events: Vec::new(),
            position: Some(pb::Position { epoch: epoch.to_string(), sequence, cursor: cursor(epoch, sequence) }),
            server_time: Some(convert::time(self.clock.now())),
        }
    }

    /// Moves on past `events` and answers what the filter lets through, if anything.
    fn pass(&mut self, events: &[LoggedEvent]) -> Option<pb::SubscribeResponse> {
        if let Some(last) = events.last() {
            self.position = Position { epoch: last.epoch, sequence: last.sequence };
        }
        let passed: Vec<pb::Event> = events.iter().filter_map(|logged| self.deliver(logged)).collect();
        (!passed.is_empty()).then(|| pb::SubscribeResponse { events: passed, ..self.bookmark() })
    }

    fn deliver(&self, logged: &LoggedEvent) -> Option<pb::Event> {
        let subject = logged.event.subject.and_then(|uid| self.gallery.subject(uid));
        self.filter
            .lets_through(logged.event.kind, &logged.event.camera, subject.as_deref())
            .then(|| convert::event::event(logged, subject.as_ref(), &self.gallery))
    }
}

/// Feeds one subscriber until it leaves or the log ends it, and answers with which status.
///
/// `next` takes the next events from the log; it may be dropped while it waits without losing any.
pub(super) async fn run(
    mut next: impl AsyncFnMut() -> Result<Vec<LoggedEvent>, SubscriptionEnded>,
    mut view: View,
    out: mpsc::Sender<pb::SubscribeResponse>,
) -> Status {
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
