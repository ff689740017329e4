//! The best picture of each visit, until it goes out with an event.
//!
//! In: pictures with how good they are, whom their visits are taken for. Out: the one that an event takes along; which went
//! out before anybody was named.
//! Drops: pictures that are hardly better than one before, or that come when too many wait: a frame is megabytes.
//! Must not know: JPEG, how somebody is recognised.

use std::collections::HashMap;

use super::settings::SceneSettings;
use crate::event::{EventKind, SnapshotId, VisitId};
use crate::face::{Quality, Rect};
use crate::frame::Frame;
use crate::subject::SubjectUid;
use crate::telling::SnapshotPolicy;

/// A shot replaces the best one only if it is better by this factor: each costs a copy of the frame.
const BETTER_SHOT: f32 = 1.1;
/// Of so many visits at once a picture is held although what it was to go out with is past.
const LATE_MAX: usize = 8;

/// The picture that shows a visitor best so far.
#[derive(Clone)]
pub struct BestShot {
    /// A copy of the frame.
    pub frame: Frame,
    /// The face in it.
    pub rect: Rect,
    /// Everybody else in it, where they are to be made unrecognisable.
    pub others: Vec<Rect>,
    /// Where nobody was looked for, and where somebody else may be therefore: not to be shown.
    pub unseen: Vec<Rect>,
    /// Whom the visit was taken for last, if for anybody.
    pub subject: Option<SubjectUid>,
    /// Whether the whole frame is kept, or the face alone.
    pub keeps_frame: bool,
    /// Whether `others` and `unseen` are all there is.
    pub(super) blurs_others: bool,
    pub(super) rank: f32,
}

impl BestShot {
    /// Whether it is what is kept today: one that was taken under another policy is not.
    fn is_wanted(&self, settings: &SceneSettings) -> bool {
        let SceneSettings { snapshots, telling, .. } = settings;
        let keeps = if self.keeps_frame { SnapshotPolicy::Frame } else { SnapshotPolicy::Crop };
        *snapshots && telling.snapshots == keeps && telling.blur_others == self.blurs_others
    }
}

/// How good a picture is. Quality ends at "as good as needed", where most faces are: among those the larger is better.
pub(super) fn rank(measured: &Quality) -> f32 {
    measured.overall * measured.size_pixels
}

/// The parts of a frame that a kept picture must not show, since nobody was looked for there.
pub(super) fn unseen(settings: &SceneSettings, frame: &Frame) -> Vec<Rect> {
    let Some(region) = settings.region_of_interest.filter(|_| settings.telling.blur_others) else { return Vec::new() };
    let (width, height) = (frame.size().width as f32, frame.size().height as f32);
    let (left, top) = (region.x * width, region.y * height);
    let (right, bottom) = ((region.x + region.width) * width, (region.y + region.height) * height);
    let between = |x: f32, y: f32, right: f32, bottom: f32| Rect { x, y, width: right - x, height: bottom - y };
    vec![
        between(0.0, 0.0, width, top),
        between(0.0, bottom, width, height),
        between(0.0, top, left, bottom),
        between(right, top, width, bottom),
    ]
}

/// The best pictures of a camera's visits.
#[derive(Default)]
pub(super) struct BestShots(HashMap<VisitId, Best>);

/// What is known of a visit's best picture.
#[derive(Default)]
struct Best {
    rank: f32,
    /// Until it goes out with an event: a visitor may be away for a minute.
    picture: Option<BestShot>,
    /// Whether the decision is past that it would have gone out with, so that it waits for a later event.
    is_late: bool,
    /// The one that went out last.
    sent: Option<SnapshotId>,
    /// Whom the visit was taken for last: a picture of it goes with that person, whatever became of the name.
    subject: Option<SubjectUid>,
    /// What went out before anybody was named.
    unnamed: Vec<SnapshotId>,
}

impl BestShots {
    /// Whether a picture as good as `rank` is better than the visit's so far.
    pub(super) fn is_better(&self, visit: VisitId, rank: f32) -> bool {
        let has_room = |best: &Best| !best.is_late || best.picture.is_some() || self.late() < LATE_MAX;
        self.0.get(&visit).is_none_or(|best| rank > best.rank * BETTER_SHOT && has_room(best))
    }

    /// Keeps a visit's best picture: a new one, or one of the visit `before` that turned out to be this one.
    pub(super) fn keep(&mut self, (before, visit): (Option<VisitId>, VisitId), picture: Option<BestShot>, settings: &SceneSettings) {
        let earlier = before.filter(|before| *before != visit).and_then(|before| self.0.remove(&before)).unwrap_or_default();
        if !earlier.unnamed.is_empty() {
            self.0.entry(visit).or_default().unnamed.extend(earlier.unnamed);
        }
        for picture in earlier.picture.into_iter().chain(picture).filter(|picture| picture.is_wanted(settings)) {
            if self.is_better(visit, picture.rank) {
                let known = self.0.entry(visit).or_default();
                (known.rank, known.picture) = (picture.rank, Some(picture));
            }
        }
    }

    fn late(&self) -> usize {
        self.0.values().filter(|best| best.is_late && best.picture.is_some()).count()
    }

    /// Drops pictures that are no longer wanted.
    pub(super) fn adopt(&mut self, settings: &SceneSettings) {
        for best in self.0.values_mut() {
            // What went out already keeps its rank: a worse one does not take its place.
            if best.picture.take_if(|picture| !picture.is_wanted(settings)).is_some() && best.sent.is_none() {
                best.rank = 0.0;
            }
        }
    }

    /// The picture that goes out with an event of this kind, as `id`: with a decision, and with the end if it was surpassed. Who
    /// came in or went out is shown there where no decision was told.
    pub(super) fn take(&mut self, visit: VisitId, kind: EventKind, id: SnapshotId) -> Option<BestShot> {
        let best = self.0.get_mut(&visit)?;
        let is_taken = match kind {
            EventKind::Identified | EventKind::Unidentified | EventKind::IdentityRevised | EventKind::VisitEnded => true,
            EventKind::Entry | EventKind::Exit => best.sent.is_none(),
            _ => false,
        };
        let picture = best.picture.take_if(|_| is_taken)?;
        (best.is_late, best.sent) = (true, Some(id));
        best.unnamed.extend(best.subject.is_none().then_some(id));
        Some(BestShot { subject: best.subject, ..picture })
    }

    /// The visit is taken for `subject`. Answers its pictures that went out as nobody's.
    pub(super) fn name(&mut self, visit: VisitId, subject: SubjectUid) -> Vec<SnapshotId> {
        let best = self.0.entry(visit).or_default();
        best.subject = Some(subject);
        std::mem::take(&mut best.unnamed)
    }

    /// The visit's picture that went out last.
    pub(super) fn sent(&self, visit: VisitId) -> Option<SnapshotId> {
        self.0.get(&visit)?.sent
    }

    /// A decision of the visit was not told: its picture waits for a later event, if there is room.
    pub(super) fn pass_over(&mut self, visit: VisitId) {
        let late = self.late();
        let Some(best) = self.0.get_mut(&visit).filter(|best| !best.is_late) else { return };
        best.is_late = true;
        if late >= LATE_MAX {
            // It never went out: a later one may, however good.
            (best.picture, best.rank) = (None, 0.0);
        }
    }

    /// The visit is over.
    pub(super) fn forget(&mut self, visit: VisitId) {
        self.0.remove(&visit);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::camera::CameraId;
    use crate::clock::Timestamp;
    use crate::config::Config;
    use crate::decide::Policy;
    use crate::frame::{PixelFormat, Size};

    fn picture() -> BestShot {
        let format = PixelFormat::rgb8(Size { width: 2, height: 2 });
        let camera = CameraId::parse("door").expect("a good id");
        let frame = Frame::new(camera, Timestamp::default(), format, Arc::new(vec![0; 12])).expect("the pixels are there");
        let rect = Rect { x: 0.0, y: 0.0, width: 1.0, height: 1.0 };
        BestShot { frame, rect, others: Vec::new(), unseen: Vec::new(), subject: None, keeps_frame: true, blurs_others: false, rank: 1.0 }
    }

    #[test]
    fn a_picture_that_went_out_as_nobodys_is_told_of_once_somebody_is_named() {
        let settings = SceneSettings::of(&Config::default(), &Policy::fixed(0.5));
        let (visit, id) = (VisitId(Uuid::from_u128(1)), SnapshotId(Uuid::from_u128(2)));
        let (anna, mut best) = (SubjectUid(Uuid::from_u128(3)), BestShots::default());
        best.keep((None, visit), Some(picture()), &settings);
        assert!(best.take(visit, EventKind::Unidentified, id).is_some_and(|picture| picture.subject.is_none()));
        assert_eq!((best.name(visit, anna), best.name(visit, anna)), (vec![id], vec![]));
        best.keep((None, visit), Some(BestShot { rank: 2.0, ..picture() }), &settings);
        assert_eq!(best.take(visit, EventKind::VisitEnded, id).and_then(|picture| picture.subject), Some(anna));
        // What was begun for nothing goes on as the visit that it belongs to, with its pictures.
        let (begun, other) = (VisitId(Uuid::from_u128(4)), SnapshotId(Uuid::from_u128(5)));
        best.keep((None, begun), Some(picture()), &settings);
        assert!(best.take(begun, EventKind::Unidentified, other).is_some());
        best.keep((Some(begun), visit), None, &settings);
        assert_eq!(best.name(visit, anna), vec![other]);
    }

    #[test]
    fn few_pictures_wait_for_an_event_that_may_never_come() {
        let settings = SceneSettings::of(&Config::default(), &Policy::fixed(0.5));
        let visits: Vec<VisitId> = (0..30).map(|number| VisitId(Uuid::from_u128(number))).collect();
        let mut best = BestShots::default();
        for visit in &visits {
            best.keep((None, *visit), Some(picture()), &settings);
        }
        visits.iter().for_each(|visit| best.pass_over(*visit));
        let id = SnapshotId(Uuid::from_u128(1));
        let kept = visits.iter().filter_map(|visit| best.take(*visit, EventKind::VisitEnded, id)).count();
        assert_eq!(kept, LATE_MAX, "a frame each, for as long as visitors may be away");
        assert_eq!(best.sent(visits[0]), Some(id));
    }
}
