//! Best shots on their way to be pictures that are kept.
//!
//! In: an event with the best shot that belongs to it. Out: the event, and after it its pictures as JPEG. From before the event is told
//! until the picture is kept or given up, who asks for it waits.
//! Must not know: when events are written, and pictures that have to wait.

use super::best_shots::BestShot;
use super::scene::Pending;
use crate::event::{Event, SnapshotId};
use crate::event_log::{EventLog, EventLogError};
use crate::picture::{self, Shown};
use crate::store::{Coming, Snapshot, StoreError};
use crate::subject::SubjectUid;

/// A best shot of an event, not drawn yet.
pub(super) struct Undrawn {
    id: SnapshotId,
    event: Event,
    shot: BestShot,
    coming: Coming,
}

/// Drawn pictures of an event, not kept yet.
pub(super) struct Picture {
    /// What they belong to.
    pub(super) event: Event,
    /// The pictures.
    pub(super) snapshot: Snapshot,
    /// Who asks for them waits as long as this is there.
    pub(super) _coming: Coming,
}

/// The event, and what is to be drawn for it. An event whose picture would show nothing names none.
pub(super) fn split(pending: Pending, log: &EventLog) -> (Event, Option<Undrawn>) {
    let Pending { mut event, picture } = pending;
    let Some((id, shot)) = picture else { return (event, None) };
    if !picture::can_be_drawn(&shot.frame, &shot.rect) {
        tracing::warn!(camera = %event.camera, "a best shot could not be kept: its face lies beyond the picture");
        event.snapshot = None;
        return (event, None);
    }
    let undrawn = Undrawn { id, event: event.clone(), shot, coming: log.coming(vec![id]) };
    (event, Some(undrawn))
}

/// Keeps pictures of events that are in the log. Answers those that found no room.
pub(super) async fn keep(pictures: Vec<Picture>, log: &EventLog) -> Result<Vec<Picture>, EventLogError> {
    match log.put_snapshots(pictures.iter().map(|picture| (picture.event.clone(), picture.snapshot.clone())).collect()).await {
        Err(EventLogError::Store(StoreError::Full)) => Ok(pictures),
        outcome => outcome.map(|()| Vec::new()),
    }
}

impl Undrawn {
    /// Takes note of whom it shows, if it is the picture `id`.
    pub(super) fn name(&mut self, id: SnapshotId, subject: SubjectUid) {
        if self.id == id {
            self.shot.subject.get_or_insert(subject);
        }
    }

    /// The pictures; `None`, and said so, when they cannot be made. Takes milliseconds.
    pub(super) fn draw(self) -> Option<Picture> {
        let Self { id, event, shot, coming } = self;
        let shown = Shown { face: &shot.rect, others: &shot.others, unseen: &shot.unseen };
        let whole = |shot: &BestShot| if shot.keeps_frame { picture::blurred_frame_jpeg(&shot.frame, shown) } else { Ok(Vec::new()) };
        match picture::crop_jpeg(&shot.frame, shown).and_then(|crop| Ok((crop, whole(&shot)?))) {
            Ok((crop_jpeg, frame_jpeg)) => {
                let (camera, capture_time) = (shot.frame.camera.clone(), shot.frame.capture_time);
                let subject = event.subject.or(shot.subject);
                let snapshot = Snapshot { id, camera, capture_time, subject, crop_jpeg, frame_jpeg };
                Some(Picture { event, snapshot, _coming: coming })
            }
            Err(error) => {
                tracing::warn!(%error, camera = %event.camera, "a best shot could not be kept");
                None
            }
        }
    }
}
