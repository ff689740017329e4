//! Events encoded once for all subscribers.
//!
//! In: logged events, what their people are called now. Out: the bytes of the wire's `Event`. The
//! newest are remembered, each with the names that are in it; one whose names have changed since, or
//! whose person was erased, is encoded anew.
//! Must not know: filters, streams.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prost::Message;
use prost::bytes::Bytes;

use super::convert;
use crate::event::LoggedEvent;
use crate::gallery::Gallery;
use crate::subject::Subject;

/// How many events are remembered: subscribers that keep up are within a few of each other.
const REMEMBERED: usize = 1_024;

/// The encoded events that were delivered last.
pub(super) struct EncodedEvents(Box<[ArcSwapOption<Encoded>]>);

struct Encoded {
    sequence: u64,
    names: Names,
    bytes: Bytes,
}

/// The people an event names, as they are called.
struct Names {
    subject: Option<Arc<Subject>>,
    runner_up: Option<Arc<Subject>>,
}

impl Names {
    fn of(logged: &LoggedEvent, subject: Option<&Arc<Subject>>, gallery: &Gallery) -> Self {
        let runner_up = logged.event.decision.as_ref().and_then(|decision| decision.runner_up);
        Self { subject: subject.cloned(), runner_up: runner_up.and_then(|second| gallery.subject(second.subject)) }
    }

    /// Whether these are the very same; a subject that was changed is another value.
    fn are(&self, other: &Self) -> bool {
        let same = |a: &Option<Arc<Subject>>, b: &Option<Arc<Subject>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same(&self.subject, &other.subject) && same(&self.runner_up, &other.runner_up)
    }
}

impl EncodedEvents {
    pub(super) fn new() -> Self {
        Self((0..REMEMBERED).map(|_| ArcSwapOption::empty()).collect())
    }

    /// `logged` as it is delivered now; `subject` is what `gallery` knows of its subject.
    pub(super) fn bytes(&self, logged: &LoggedEvent, subject: Option<&Arc<Subject>>, gallery: &Gallery) -> Bytes {
        let names = Names::of(logged, subject, gallery);
        let slot = &self.0[(logged.sequence % REMEMBERED as u64) as usize];
        if let Some(known) = &*slot.load()
            && known.sequence == logged.sequence
            && known.names.are(&names)
        {
            return known.bytes.clone();
        }
        let bytes: Bytes = convert::event::event(logged, subject, gallery).encode_to_vec().into();
        slot.store(Some(Arc::new(Encoded { sequence: logged.sequence, names, bytes: bytes.clone() })));
        bytes
    }
}
