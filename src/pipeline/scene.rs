//! What the pipeline knows of one camera: its tracks, its visits, their best shots, and the
//! events that are not in the log yet.
//!
//! In: frames with their detections, templates. Out: faces worth encoding, events in order.
//! Must not know: sessions, the log.

mod ending;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::best_shots::{BestShot, BestShots, rank, unseen};
use super::matching::{compare, judge, shows};
use super::settings::SceneSettings;
use super::shadowing::{ShadowSettings, ShadowShot, Shadowing};
use crate::camera::CameraId;
use crate::clock::{Clock, Timestamp};
use crate::event::{BoxInFrame, Decision, EndReason, Event, EventKind, SnapshotId, TrackId, VisitId};
use crate::face::{Detection, Photometry, Quality, Rect, Template, TemplateError};
use crate::frame::Frame;
use crate::gallery::GalleryVersion;
use crate::infer::{CutFace, DetectRequest};
use crate::quality;
use crate::shadow::Verdict;
use crate::subject::SubjectUid;
use crate::telling::SnapshotPolicy;
use crate::track::Tracker;
use crate::visit::{EncodedShot, Ending, Fused, Look, VisitPolicy, Visits};

use tokio::sync::watch;

use super::passage::Passage;

use uuid::Uuid;

/// Detections this much below the least score still continue a track.
const WEAK_DETECTION: f32 = 0.2;

/// One camera's state.
pub struct Scene {
    camera: String,
    settings: SceneSettings,
    clock: Arc<dyn Clock>,
    tracker: Tracker,
    visits: Visits,
    shadow: Option<Shadowing>,
    best: BestShots,
    /// What was told to begin: its end is told too, whatever the rules say then.
    begun: HashSet<(VisitId, EventKind, Option<Arc<str>>)>,
    outbox: Vec<Pending>,
    /// Pictures that went out as nobody's, and whose they turned out to be.
    named: Vec<(SnapshotId, SubjectUid)>,
    /// How far the newest frame's capture time lay behind the present when it was analysed.
    lag: Duration,
    /// When its camera's connection was over last.
    disconnected: Option<Timestamp>,
    closed: bool,
}

/// An event that is not in the log yet, with the picture that belongs to it.
pub struct Pending {
    /// What happened.
    pub event: Event,
    /// To be encoded and stored with it.
    pub picture: Option<(SnapshotId, BestShot)>,
}

/// A face that is worth a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its track; `None` is encoded for measurement only.
    pub track: Option<TrackId>,
    /// The number of its detection.
    pub detection: usize,
}

/// A face that is worth encoding.
pub struct Shot {
    /// Its track; `None` is encoded for measurement only.
    pub track: Option<TrackId>,
    /// The face for the encoder.
    pub cut: CutFace,
    /// Where it is, in pixels of the frame.
    pub face: Rect,
    /// How much it looks alive, 0 to 1, once that was asked.
    pub live_score: Option<f32>,
    quality: f32,
    /// The visitor's best picture so far, once its template has shown that it is the visitor's.
    picture: Option<BestShot>,
}

impl Scene {
    /// An empty scene of `camera`. Track ids count from `first_track`.
    pub fn new(camera: &CameraId, settings: SceneSettings, clock: Arc<dyn Clock>, first_track: u64) -> Self {
        let visits = Visits::new(camera.as_str(), settings.visit, settings.layout.clone());
        Self {
            camera: camera.to_string(),
            clock,
            tracker: Tracker::new(settings.track, first_track),
            visits: if settings.measure { visits } else { visits.with_counted_ids() },
            shadow: None,
            settings,
            best: BestShots::default(),
            begun: HashSet::new(),
            outbox: Vec::new(),
            named: Vec::new(),
            lag: Duration::ZERO,
            disconnected: None,
            closed: false,
        }
    }

    /// The same with a shadow beside it, where the settings have one; `gallery` where it has one of its own.
    #[must_use]
    pub fn with_shadow(self, gallery: Option<watch::Receiver<Option<Arc<GalleryVersion>>>>) -> Self {
        let shadow = self.settings.shadow.as_ref().map(|ShadowSettings { policy, resume_threshold, .. }| {
            let rules = VisitPolicy { threshold: *resume_threshold, ..self.settings.visit };
            Shadowing::new(policy.clone(), Visits::new(&self.camera, rules, self.settings.layout.clone()), gallery)
        });
        Self { shadow, ..self }
    }

    /// How to look for faces in `frame`.
    pub fn request(&self, frame: &Frame) -> DetectRequest {
        DetectRequest {
            frame: frame.clone(),
            detector_side: self.settings.detector_side,
            region_of_interest: self.settings.region_of_interest,
            score_min: Some((self.settings.detection_score_min - WEAK_DETECTION).max(0.0)),
            face_pixels_min: if self.settings.telling.blur_others { 0 } else { self.settings.face_pixels_min },
        }
    }

    /// Follows the faces of one frame and answers those that are worth a look.
    pub fn follow(&mut self, frame: &Frame, detections: &[Detection]) -> Vec<Wanted> {
        if self.closed || self.disconnected.is_some_and(|over| frame.decode_time <= over) {
            return Vec::new();
        }
        let time = frame.capture_time;
        self.lag = self.now(time).since(time);
        let mut wanted = Vec::new();
        let (places, followed) = self.followed(detections);
        let place = |face: usize| places.as_ref().map_or(face, |places| places[face]);
        let frames_apart = self.tracker.frames_apart();
        for sighting in self.tracker.update(&followed, time) {
            if !sighting.confirmed {
                continue;
            }
            let detection = &followed[sighting.detection];
            let look = Look {
                track: sighting.track,
                resumed: sighting.resumed,
                frames_apart,
                promise: quality::promise(detection),
                box_in_frame: normalised(&detection.box_in_frame, frame),
                detection_score: detection.score,
            };
            if self.visits.sighted(look, time) {
                wanted.push(Wanted { track: Some(sighting.track), detection: place(sighting.detection) });
            }
            if let Some(shadow) = &mut self.shadow {
                shadow.sighted(look, time, self.visits.visit_of(look.track));
            }
        }
        if self.settings.encode_every_face {
            let strong = (0..followed.len()).map(place).filter(|index| detections[*index].score >= self.settings.detection_score_min);
            let rest = strong.filter(|index| wanted.iter().all(|wanted| wanted.detection != *index));
            let rest: Vec<Wanted> = rest.map(|detection| Wanted { track: None, detection }).collect();
            wanted.extend(rest);
        }
        wanted
    }

    /// Whether a face's picture would be the best of its visit, so that it is worth a copy.
    pub fn wants_picture(&self, (detections, wanted): (&[Detection], Wanted), photometry: &Photometry) -> bool {
        let measured = quality::assess(&detections[wanted.detection], photometry);
        wanted.track.and_then(|track| self.visits.visit_of(track)).is_some_and(|visit| self.is_better(visit, &measured))
    }

    fn is_better(&self, visit: VisitId, measured: &Quality) -> bool {
        self.keeps_pictures() && self.best.is_better(visit, rank(measured))
    }

    /// Judges a face that was cut out and measured; refuses what would only mislead. A refused shot may still be the best
    /// picture there is; of a frame that lies on a device it is `copied`, and there is none without.
    pub fn shoot(
        &mut self,
        (frame, copied): (&Frame, Option<Frame>),
        (detections, wanted): (&[Detection], Wanted),
        (cut, photometry): (CutFace, Photometry),
    ) -> Option<Shot> {
        let detection = &detections[wanted.detection];
        let bare = |cut| Shot { track: None, cut, face: detection.box_in_frame, live_score: None, quality: 0.0, picture: None };
        let Some(track) = wanted.track else { return Some(bare(cut)) };
        let measured = quality::assess(detection, &photometry);
        let visit = self.visits.visit_of(track)?;
        // By now it may be wanted no longer.
        let copied = match self.is_better(visit, &measured) {
            true if frame.device_pixels().is_none() => {
                let copied = frame.copied();
                copied.inspect_err(|error| tracing::warn!(%error, camera = self.camera, "a best shot could not be kept")).ok()
            }
            true => copied,
            false => None,
        };
        let picture = copied.map(|copied| BestShot {
            frame: copied,
            rect: detection.box_in_frame,
            others: self.others(detections, wanted.detection),
            unseen: unseen(&self.settings, frame),
            subject: None,
            keeps_frame: self.settings.telling.snapshots == SnapshotPolicy::Frame,
            blurs_others: self.settings.telling.blur_others,
            rank: rank(&measured),
        });
        if let Some(fault) = quality::fault(&measured, self.settings.quality_min) {
            self.visits.rejected(track, fault.name(), frame.capture_time);
            if let Some(shadow) = &mut self.shadow {
                shadow.rejected(track, fault.name(), frame.capture_time);
            }
            self.keep_best(Some(visit), track, picture);
            return self.settings.encode_every_face.then(|| bare(cut));
        }
        Some(Shot { track: Some(track), quality: measured.overall, picture, ..bare(cut) })
    }

    fn keeps_pictures(&self) -> bool {
        self.settings.snapshots && self.settings.telling.snapshots != SnapshotPolicy::None
    }

    /// The faces beside that of `index` which a kept picture must not show.
    fn others(&self, detections: &[Detection], index: usize) -> Vec<Rect> {
        let all = detections.iter().enumerate().filter(|(other, _)| self.settings.telling.blur_others && *other != index);
        all.map(|(_, detection)| detection.box_in_frame).collect()
    }

    /// The faces that are followed, and their places among `detections` where these are not all: where others are made
    /// unrecognisable, smaller ones were looked for, too.
    fn followed<'d>(&self, detections: &'d [Detection]) -> (Option<Vec<usize>>, Cow<'d, [Detection]>) {
        let least = self.settings.face_pixels_min as f32;
        let is_followed = |face: &Detection| face.box_in_frame.width.min(face.box_in_frame.height) >= least;
        if detections.iter().all(is_followed) {
            return (None, detections.into());
        }
        let places: Vec<usize> = (0..detections.len()).filter(|place| is_followed(&detections[*place])).collect();
        let faces = places.iter().map(|place| detections[*place]).collect();
        (Some(places), faces)
    }

    /// Adds a shot's template to its visit, looks the visitor up and decides.
    ///
    /// # Errors
    /// [`TemplateError`] when the template has no direction or the gallery lives in another space.
    pub fn learn(
        &mut self,
        (shot, template): (&mut Shot, &Template),
        gallery: &GalleryVersion,
        passage: &mut Passage,
    ) -> Result<(), TemplateError> {
        let Some(track) = shot.track.filter(|_| !self.closed) else { return Ok(()) };
        let picture = shot.picture.take();
        let before = self.visits.visit_of(track);
        let encoded = EncodedShot { template, quality: shot.quality, live_score: shot.live_score, time: passage.captured };
        let fused = match self.visits.fuse(track, encoded)? {
            Some(Fused::Same(fused)) => fused,
            // The shot, and the picture that came with it, show somebody else.
            Some(Fused::Other) => {
                self.tracker.begin_anew(track);
                self.end(track, Ending { reason: EndReason::Gone, time: passage.captured }, gallery);
                return Ok(());
            }
            None => return Ok(()),
        };
        self.keep_best(before, track, picture);
        let decision = compare(&self.settings.policy, &fused, (gallery, gallery))?;
        passage.matched = self.now(passage.captured);
        let now = self.now(passage.captured);
        let before = self.visits.visit_of(track);
        self.visits.decided(track, (decision, |decision: &Decision| shows(template, decision, gallery)), now);
        self.keep_best(before, track, None);
        self.tell_all(self.settings.measure.then_some(*passage));
        if let Some(shadow) = &mut self.shadow {
            shadow.shot((track, self.visits.visit_of(track)), &shot.cut, encoded);
        }
        Ok(())
    }

    /// Keeps the visitor's best picture: a new one, or one of a visit that turned out to be another's.
    fn keep_best(&mut self, before: Option<VisitId>, track: TrackId, picture: Option<BestShot>) {
        if let Some(visit) = self.visits.visit_of(track) {
            self.best.keep((before, visit), picture, &self.settings);
        }
    }

    /// Goes on by other settings, but for how tracks are made. Visits go on, too, unless the role, a line or a zone is another:
    /// those end, since one half of their paths was judged by the old ones.
    pub fn adopt(&mut self, settings: SceneSettings, now: Timestamp, gallery: &GalleryVersion) {
        self.best.adopt(&settings);
        if settings.layout != self.settings.layout {
            self.clear(EndReason::CameraRemoved, now, gallery);
        }
        let old = std::mem::replace(&mut self.settings, settings);
        let SceneSettings { policy, visit, layout, .. } = &self.settings;
        self.visits.adopt(*visit, layout.clone());
        if *policy != old.policy {
            self.visits.doubt(|fused| judge(policy, fused, (gallery, gallery)));
        }
        if let (Some(shadow), Some(ShadowSettings { policy, resume_threshold, .. })) = (&mut self.shadow, &self.settings.shadow) {
            let rules = VisitPolicy { threshold: *resume_threshold, ..*visit };
            shadow.adopt(policy, (rules, layout.clone()), gallery);
        }
    }

    /// Adds an event of the camera itself.
    pub fn announce(&mut self, event: Event) {
        self.outbox.push(Pending { event, picture: None });
    }

    /// Whether there is anything to tell, a shadow's verdicts included.
    pub fn has_news(&self) -> bool {
        !self.outbox.is_empty() || !self.named.is_empty() || self.shadow.as_ref().is_some_and(Shadowing::has_verdicts)
    }

    /// The events that are not in the log yet, in order, and whose pictures of earlier ones are.
    pub fn take_outbox(&mut self) -> (Vec<Pending>, Vec<(SnapshotId, SubjectUid)>) {
        (std::mem::take(&mut self.outbox), std::mem::take(&mut self.named))
    }

    /// The shots that the shadow has still to see.
    pub fn take_shadow_shots(&mut self) -> Vec<ShadowShot> {
        self.shadow.as_mut().map(Shadowing::take_waiting).unwrap_or_default()
    }

    /// The shadow sees a shot, with the template of its encoder.
    ///
    /// # Errors
    /// [`TemplateError`] when its gallery lives in another space.
    pub fn shadow_sees(&mut self, shot: &ShadowShot, template: &Template, gallery: &GalleryVersion) -> Result<(), TemplateError> {
        let now = self.now(shot.time);
        self.shadow.as_mut().map_or(Ok(()), |shadow| shadow.see(shot, template, (gallery, now)))
    }

    /// The shadow will never see a shot.
    pub fn shadow_failed(&mut self, shot: &ShadowShot) {
        if let Some(shadow) = &mut self.shadow {
            shadow.failed(shot);
        }
    }

    /// What the shadow would have decided, of visits that ended since this was asked last.
    pub fn take_verdicts(&mut self) -> Vec<Verdict> {
        self.shadow.as_mut().map(Shadowing::take_verdicts).unwrap_or_default()
    }

    /// The camera's id.
    pub fn camera(&self) -> &str {
        &self.camera
    }

    /// The present for a frame captured at `captured`: a replay's present is the frame's own time,
    /// so that the same file gives the same events however fast it is read.
    pub fn now(&self, captured: Timestamp) -> Timestamp {
        if self.settings.measure { self.clock.now() } else { captured }
    }

    fn tell_all(&mut self, passage: Option<Passage>) {
        let (told, mut passed_over) = (self.visits.take_told(), Vec::new());
        // First of all, so that a picture that goes out a moment before the name has it, too.
        for event in &told {
            let goes_on =
                event.track.filter(|_| event.end_reason == Some(EndReason::Resumed)).and_then(|track| self.visits.visit_of(track));
            if let Some(goes_on) = goes_on {
                self.best.keep((event.visit, goes_on), None, &self.settings);
            }
            if let (Some(visit), Some(subject), true) = (event.visit, event.subject, self.settings.snapshots) {
                self.named.extend(self.best.name(visit, subject).into_iter().map(|id| (id, subject)));
            }
        }
        for event in told {
            let (kind, visit) = (event.kind, event.visit);
            // Rules of telling concern no shadow, and its picture belongs to an event only once that is told.
            let shown = self.shadow.is_some().then(|| event.clone());
            let is_admitted = self.admits(&event);
            let snapshot = if is_admitted { self.tell(event, passage) } else { None };
            if let (false, Some(visit), EventKind::Identified | EventKind::Unidentified) = (is_admitted, visit, kind) {
                // Another event of the same moment may take the picture along.
                passed_over.push(visit);
            }
            if let (Some(shadow), Some(shown)) = (&mut self.shadow, shown) {
                let goes_on = shown.track.and_then(|track| self.visits.visit_of(track));
                shadow.told(&Event { snapshot: snapshot.or(shown.snapshot), ..shown }, goes_on);
            }
            if let (EventKind::VisitEnded, Some(visit)) = (kind, visit) {
                self.best.forget(visit);
                self.begun.retain(|(known, ..)| *known != visit);
            }
        }
        passed_over.into_iter().for_each(|visit| self.best.pass_over(visit));
    }

    /// Whether an event is told, by the camera's rules. What ends or takes back something that was told
    /// always is: nobody is left with a visit that never ends, or with a wrong name.
    fn admits(&mut self, event: &Event) -> bool {
        let Some(visit) = event.visit else { return true };
        let takes_back = match event.kind {
            EventKind::VisitEnded => self.begun.contains(&(visit, EventKind::VisitStarted, None)),
            EventKind::IdentityRevised => self.begun.contains(&(visit, EventKind::Identified, None)),
            EventKind::ZoneLeft => self.begun.contains(&(visit, EventKind::ZoneEntered, event.region.clone())),
            _ => false,
        };
        if !takes_back && !self.settings.telling.admits(event.kind, Timestamp::from_micros(event.capture_time_us)) {
            return false;
        }
        if matches!(event.kind, EventKind::VisitStarted | EventKind::ZoneEntered) {
            self.begun.insert((visit, event.kind, event.region.clone()));
        }
        // By whichever event somebody was given a name.
        if event.subject.is_some() {
            self.begun.insert((visit, EventKind::Identified, None));
        }
        true
    }

    /// Puts an event into the outbox, with the picture that goes out with it; answers the event's snapshot.
    fn tell(&mut self, mut event: Event, passage: Option<Passage>) -> Option<SnapshotId> {
        // The decision was taken now, whatever time it is in the scene.
        event.decision_time_us = self.now(Timestamp::from_micros(event.decision_time_us)).as_micros();
        // What was held back until now is about an earlier picture than the one that was on its way.
        let is_of = |passage: &Passage| event.kind != EventKind::VisitStarted && event.capture_time_us == passage.captured.as_micros();
        event.stage_times = passage.filter(is_of).map(|p| p.stage_times(event.decision_time_us));
        let picture = event.visit.and_then(|visit| self.picture_for(&mut event, visit));
        let snapshot = event.snapshot;
        self.outbox.push(Pending { event, picture });
        snapshot
    }

    /// The best shot that goes out with an event; one that went out before stands in the event already, unless that was a moment ago.
    fn picture_for(&mut self, event: &mut Event, visit: VisitId) -> Option<(SnapshotId, BestShot)> {
        let id = SnapshotId(Uuid::now_v7());
        let Some(picture) = self.best.take(visit, event.kind, id) else {
            if event.kind != EventKind::VisitStarted {
                event.snapshot = event.snapshot.or(self.best.sent(visit));
            }
            return None;
        };
        event.snapshot = Some(id);
        self.visits.set_snapshot(visit, id);
        Some((id, picture))
    }
}

fn normalised(rect: &Rect, frame: &Frame) -> BoxInFrame {
    let (width, height) = (frame.size().width as f32, frame.size().height as f32);
    BoxInFrame { x: rect.x / width, y: rect.y / height, width: rect.width / width, height: rect.height / height }
}
