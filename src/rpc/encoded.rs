//! Events encoded once for all subscribers.
//!
//! In: logged events, what their people are called now. Out: the bytes of the wire's `Event`. The
//! newest are remembered until a name changes or somebody is erased: then they are encoded anew.
//! Must not know: filters, streams.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prost::Message;
use prost::bytes::Bytes;

use super::convert;
use crate::event::LoggedEvent;
use crate::gallery::Gallery;

/// How many events are remembered, a kilobyte each: subscribers that keep up are within a few of each
/// other, and those that catch up together within what the log remembers of the disk.
const REMEMBERED: usize = 8_192;

/// The encoded events that were delivered last.
pub(super) struct EncodedEvents(Box<[ArcSwapOption<Encoded>]>);

struct Encoded {
    sequence: u64,
    /// What the gallery's names were at.
    names_revision: u64,
    bytes: Bytes,
}

impl EncodedEvents {
    pub(super) fn new() -> Self {
        Self((0..REMEMBERED).map(|_| ArcSwapOption::empty()).collect())
    }

    /// `logged` as it is delivered now, with the names that `gallery` knows.
    pub(super) fn bytes(&self, logged: &LoggedEvent, gallery: &Gallery) -> Bytes {
        // Read before the names are, so that one that changes meanwhile is read again the next time.
        let names_revision = gallery.names_revision();
        let slot = &self.0[(logged.sequence % REMEMBERED as u64) as usize];
        if let Some(known) = &*slot.load()
            && known.sequence == logged.sequence
            && known.names_revision == names_revision
        {
            return known.bytes.clone();
        }
        let subject = logged.event.subject.and_then(|uid| gallery.subject(uid));
        let bytes: Bytes = convert::event::event(logged, subject.as_ref(), gallery).encode_to_vec().into();
        slot.store(Some(Arc::new(Encoded { sequence: logged.sequence, names_revision, bytes: bytes.clone() })));
        bytes
    }
}
