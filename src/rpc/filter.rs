//! Which events a client wants to see.
//!
//! In: the filters of a request. Out: whether an event passes. Refused: more entries than a filter may
//! have, what can name nothing, and, unless the client allows it, what names nothing that is there.
//! Must not know: streams, pages.

use std::collections::HashSet;

use tonic::{Code, Status};

use super::convert;
use super::status::{Refusal, bad_field};
use crate::cameras::Cameras;
use crate::event::{Event, EventKind};
use crate::gallery::Gallery;
use crate::pb;
use crate::store::Store;

/// The most entries of one filter.
const ENTRIES_MAX: usize = 1_000;

/// What a client wants to see; an empty set lets everything through, and an event must pass every set.
#[derive(Debug, Default)]
pub(super) struct Filter {
    cameras: HashSet<String>,
    types: HashSet<pb::EventType>,
    subjects: HashSet<String>,
    watchlists: HashSet<String>,
}

/// The filters as a request has them.
pub(super) struct Wanted<'a> {
    pub(super) camera_ids: &'a [String],
    pub(super) types: &'a [i32],
    pub(super) subject_ids: &'a [String],
    pub(super) watchlists: &'a [String],
}

impl Filter {
    /// Reads the filters of a request.
    pub(super) fn read(wanted: &Wanted<'_>) -> Result<Self, Status> {
        let longest = [wanted.camera_ids.len(), wanted.types.len(), wanted.subject_ids.len(), wanted.watchlists.len()];
        if longest.iter().any(|count| *count > ENTRIES_MAX) {
            return Err(bad_field("filter", "has more than 1000 entries").into());
        }
        for id in wanted.camera_ids {
            convert::camera::camera_id(id, "camera_ids")?;
        }
        for id in wanted.subject_ids {
            convert::subject::subject_id(id, "subject_ids")?;
        }
        let types = wanted.types.iter().map(|number| match pb::EventType::try_from(*number) {
            Ok(pb::EventType::Unspecified) | Err(_) => Err(bad_field("types", format!("{number} is no event type"))),
            Ok(known) => Ok(known),
        });
        Ok(Self {
            types: types.collect::<Result<_, Refusal>>()?,
            cameras: wanted.camera_ids.iter().cloned().collect(),
            subjects: wanted.subject_ids.iter().cloned().collect(),
            watchlists: wanted.watchlists.iter().cloned().collect(),
        })
    }

    /// Refuses what names nothing that is there: a client that has misspelt a name would wait for ever.
    pub(super) async fn refuse_missing(&self, cameras: &Cameras, store: &Store) -> Result<(), Status> {
        let advice = "is not there; correct it, or set allow_missing to wait for it";
        for id in &self.cameras {
            if cameras.get(&convert::camera::camera_id(id, "camera_ids")?).is_err() {
                let refusal = Refusal::new(Code::NotFound, "CAMERA_NOT_FOUND", format!("camera_ids: the camera {id} {advice}"));
                return Err(refusal.with("camera_id", id).field("camera_ids").into());
            }
        }
        for id in &self.subjects {
            if store.subject(&convert::subject::subject_id(id, "subject_ids")?).await?.is_none() {
                let refusal = Refusal::new(Code::NotFound, "SUBJECT_NOT_FOUND", format!("subject_ids: the subject {id} {advice}"));
                return Err(refusal.with("subject_id", id).field("subject_ids").into());
            }
        }
        for list in &self.watchlists {
            if store.subject_page(None, Some(list.clone()), 1).await?.is_empty() {
                let refusal = Refusal::new(
                    Code::NotFound,
                    "WATCHLIST_NOT_FOUND",
                    format!("watchlists: nobody is on {list:?}; correct it, or set allow_missing to wait for somebody"),
                );
                return Err(refusal.with("watchlist", list).field("watchlists").into());
            }
        }
        Ok(())
    }

    /// Whether `event` passes; its subject is looked up where a filter asks for it.
    pub(super) fn lets_through(&self, event: &Event, gallery: &Gallery) -> bool {
        let is_of_all = matches!(event.kind, EventKind::InferenceFailed | EventKind::InferenceRestored);
        let (any_camera, any_type) = (self.cameras.is_empty() || is_of_all, self.types.is_empty());
        (any_camera || self.cameras.contains(&*event.camera))
            && (any_type || self.types.contains(&convert::event::event_type(event.kind)))
            && self.lets_through_subject(event, gallery)
    }

    fn lets_through_subject(&self, event: &Event, gallery: &Gallery) -> bool {
        if self.subjects.is_empty() && self.watchlists.is_empty() {
            return true;
        }
        // Whoever wants to hear of somebody wants to hear, too, that it was not them.
        let people = [event.subject, event.previous_subject].into_iter().flatten().filter_map(|uid| gallery.subject(uid));
        let mut wanted = people.filter(|subject| {
            (self.subjects.is_empty() || self.subjects.contains(subject.id.as_str()))
                && (self.watchlists.is_empty() || subject.is_on_any(&self.watchlists))
        });
        wanted.next().is_some()
    }
}

impl<'a> From<&'a pb::SubscribeRequest> for Wanted<'a> {
    fn from(request: &'a pb::SubscribeRequest) -> Self {
        let pb::SubscribeRequest { camera_ids, types, subject_ids, watchlists, .. } = request;
        Self { camera_ids, types, subject_ids, watchlists }
    }
}

impl<'a> From<&'a pb::ListEventsRequest> for Wanted<'a> {
    fn from(request: &'a pb::ListEventsRequest) -> Self {
        let pb::ListEventsRequest { camera_ids, types, subject_ids, watchlists, .. } = request;
        Self { camera_ids, types, subject_ids, watchlists }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::face::TemplateSpace;

    #[test]
    fn whoever_asks_for_a_camera_hears_that_nobody_is_looked_for_and_whoever_asks_for_somebody_does_not() {
        let gallery = Gallery::new(TemplateSpace::new("s"));
        let passes = |filter: &Filter, kind, camera| filter.lets_through(&Event::new(kind, camera, Timestamp::from_micros(1)), &gallery);
        let of_door = Filter { cameras: HashSet::from(["door".to_owned()]), ..Filter::default() };
        assert!(passes(&of_door, EventKind::InferenceFailed, "") && passes(&of_door, EventKind::InferenceRestored, ""));
        assert!(passes(&of_door, EventKind::CameraOffline, "door") && !passes(&of_door, EventKind::CameraOffline, "yard"));
        assert!(!passes(&of_door, EventKind::GalleryChanged, ""), "that is of no camera");
        let identified = Filter { types: HashSet::from([pb::EventType::Identified]), ..of_door };
        assert!(!passes(&identified, EventKind::InferenceFailed, ""), "nobody asked for it");
        let of_somebody = Filter { subjects: HashSet::from(["anna".to_owned()]), ..Filter::default() };
        assert!(!passes(&of_somebody, EventKind::InferenceFailed, ""));
    }
}
