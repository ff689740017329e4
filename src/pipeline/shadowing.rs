//! Runs another model, head or policy over a camera's visitors beside the one in force, and never acts.
//!
//! In: the same sightings and shots as the visits in force, templates of its own where its encoder is another.
//! Out: a verdict for each visit that was decided: what was told, and what the shadow would have told. It has
//! visits of its own, which go by the same rules, so that it decides when the daemon would with it in force; it
//! sees only the shots that were taken for the visits in force.
//! Must not know: sessions, the log, who keeps verdicts.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::matching::{compare, judge, shows};
use crate::clock::Timestamp;
use crate::decide::Policy;
use crate::event::{Decision, EndReason, Event, EventKind, Rejection, SnapshotId, TrackId, VisitId};
use crate::face::{AlignedFace, Template, TemplateError};
use crate::gallery::GalleryVersion;
use crate::infer::Engine;
use crate::shadow::{Verdict, principal};
use crate::visit::{EncodedShot, Ending, Fused, Look, Visits};

/// What runs beside the pipeline in force.
pub struct Shadow {
    /// Its own encoder and gallery; `None` where both are those in force.
    pub encoder: Option<ShadowEncoder>,
    /// Takes verdicts. One that finds no place is lost, and counted in the log.
    pub verdicts: mpsc::Sender<Verdict>,
}

/// An encoder beside the one in force.
pub struct ShadowEncoder {
    /// Runs it, on threads of its own.
    pub engine: Engine,
    /// Who is enrolled, by its templates; the newest version, `None` until it was read.
    pub gallery: watch::Receiver<Option<Arc<GalleryVersion>>>,
}

/// How a shadow decides at one camera.
#[derive(Clone, Debug, PartialEq)]
pub struct ShadowSettings {
    /// What decides who it is.
    pub policy: Policy,
    /// Whether its similarities are those in force: only then does a similarity that a camera states mean anything to it.
    pub is_same_space: bool,
}

/// A shot that the shadow's own encoder has still to see.
pub(super) struct ShadowShot {
    track: TrackId,
    /// The face in the encoder's pose.
    pub(super) aligned: AlignedFace,
    quality: f32,
    pub(super) time: Timestamp,
}

/// The shadow at one camera.
pub(super) struct Shadowing {
    policy: Policy,
    visits: Visits,
    /// Its own gallery, where its encoder is another.
    gallery: Option<watch::Receiver<Option<Arc<GalleryVersion>>>>,
    /// Which visit in force a track belongs to: the two need not begin at the same track.
    visit_of: HashMap<TrackId, VisitId>,
    told: HashMap<VisitId, Told>,
    waiting: Vec<ShadowShot>,
    verdicts: Vec<Verdict>,
}

/// What both have told of a visit in force.
#[derive(Default)]
struct Told {
    in_force: Option<Decision>,
    shadow: Option<Decision>,
    capture_time_us: i64,
    snapshot: Option<SnapshotId>,
    /// Whether a shot got no template from the shadow's own encoder.
    is_lacking: bool,
}

impl Shadowing {
    /// Beside a camera's visits; `gallery` where it has one of its own.
    pub(super) fn new(policy: Policy, visits: Visits, gallery: Option<watch::Receiver<Option<Arc<GalleryVersion>>>>) -> Self {
        let (visit_of, told) = (HashMap::new(), HashMap::new());
        Self { policy, visits, gallery, visit_of, told, waiting: Vec::new(), verdicts: Vec::new() }
    }

    /// A confirmed track was seen, which belongs to `visit` in force. Whether the shadow would take a shot is not asked.
    pub(super) fn sighted(&mut self, look: Look, time: Timestamp, visit: Option<VisitId>) {
        self.visits.sighted(look, time);
        self.belongs(look.track, visit);
    }

    /// A shot was refused by quality.
    pub(super) fn rejected(&mut self, track: TrackId, fault: &str, time: Timestamp) {
        self.visits.rejected(track, fault, time);
    }

    /// A shot was fused in force: its template is the shadow's too, or its own encoder has still to see the face.
    pub(super) fn shot(
        &mut self,
        (track, visit): (TrackId, Option<VisitId>),
        (aligned, shot): (&AlignedFace, EncodedShot<'_>),
        (gallery, now): (&GalleryVersion, Timestamp),
    ) -> Result<(), TemplateError> {
        self.belongs(track, visit);
        if self.gallery.is_some() {
            self.waiting.push(ShadowShot { track, aligned: aligned.clone(), quality: shot.quality, time: shot.time });
            return Ok(());
        }
        self.decide(track, shot, (gallery, now))
    }

    /// The shots that its own encoder has still to see, oldest first.
    pub(super) fn take_waiting(&mut self) -> Vec<ShadowShot> {
        std::mem::take(&mut self.waiting)
    }

    /// What its own encoder made of a shot.
    pub(super) fn encoded(&mut self, shot: &ShadowShot, template: &Template, now: Timestamp) -> Result<(), TemplateError> {
        let Some(gallery) = self.gallery.as_ref().and_then(|gallery| gallery.borrow().clone()) else {
            self.failed(shot);
            return Ok(());
        };
        let ShadowShot { track, quality, time, .. } = *shot;
        self.decide(track, EncodedShot { template, quality, time }, (&gallery, now))
    }

    /// Its own encoder failed at a shot: what it tells of the visit without any shot is no answer.
    pub(super) fn failed(&mut self, shot: &ShadowShot) {
        if let Some(visit) = self.visit_of.get(&shot.track) {
            self.told.entry(*visit).or_default().is_lacking = true;
        }
    }

    fn decide(&mut self, track: TrackId, shot: EncodedShot<'_>, (gallery, now): (&GalleryVersion, Timestamp)) -> Result<(), TemplateError> {
        match self.visits.fuse(track, shot)? {
            Some(Fused::Same(fused)) => {
                let decision = compare(&self.policy, &fused, gallery)?;
                self.visits.decided(track, (decision, |decision: &Decision| shows(shot.template, decision, gallery)), now);
            }
            // By its templates somebody else stands there now, though the track goes on.
            Some(Fused::Other) => {
                self.visits.ended(track, Ending { reason: EndReason::Gone, time: shot.time }, |fused| judge(&self.policy, fused, gallery));
            }
            None => {}
        }
        self.note_told();
        Ok(())
    }

    /// What is overdue at `now`.
    pub(super) fn sweep(&mut self, now: Timestamp, gallery: &GalleryVersion) {
        self.with_gallery(gallery, |visits, policy, gallery| visits.overdue(now, |fused| judge(policy, fused, gallery)));
    }

    /// A track is over.
    pub(super) fn ended(&mut self, track: TrackId, ending: Ending, gallery: &GalleryVersion) {
        self.with_gallery(gallery, |visits, policy, gallery| visits.ended(track, ending, |fused| judge(policy, fused, gallery)));
    }

    /// Everybody is gone.
    pub(super) fn end_all(&mut self, ending: Ending, gallery: &GalleryVersion) {
        self.with_gallery(gallery, |visits, policy, gallery| visits.end_all(ending, |fused| judge(policy, fused, gallery)));
    }

    /// Something was told of a visit in force. Its end gives the verdict, so the shadow must have been told of the end before.
    pub(super) fn told(&mut self, event: &Event) {
        let Some(visit) = event.visit else { return };
        if let (Some(decision), true) = (&event.decision, decides(event.kind)) {
            let told = self.told.entry(visit).or_default();
            if principal(&mut told.in_force, decision) {
                told.capture_time_us = event.capture_time_us;
            }
        }
        if let (Some(snapshot), Some(told)) = (event.snapshot, self.told.get_mut(&visit)) {
            told.snapshot = Some(snapshot);
        }
        if event.kind != EventKind::VisitEnded {
            return;
        }
        self.visit_of.retain(|_, of| *of != visit);
        let Some(told) = self.told.remove(&visit) else { return };
        // A visit that was begun for nothing goes on in another, which has a verdict of its own.
        let Some(in_force) = told.in_force.filter(|_| event.end_reason != Some(EndReason::Resumed)) else { return };
        let answer = told.shadow.filter(|shadow| !told.is_lacking || shadow.rejection != Some(Rejection::NoUsableShot));
        let (camera, capture_time_us) = (Arc::clone(&event.camera), told.capture_time_us);
        self.verdicts.push(Verdict { visit, camera, capture_time_us, snapshot: told.snapshot, in_force, shadow: answer });
    }

    /// The verdicts since this was asked last.
    pub(super) fn take_verdicts(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.verdicts)
    }

    fn belongs(&mut self, track: TrackId, visit: Option<VisitId>) {
        if let Some(visit) = visit {
            self.visit_of.insert(track, visit);
        }
    }

    fn with_gallery(&mut self, in_force: &GalleryVersion, act: impl FnOnce(&mut Visits, &Policy, &GalleryVersion)) {
        // Until its own was read there is no template of its own either, so there is nothing to compare with the wrong one.
        let own = self.gallery.as_ref().and_then(|gallery| gallery.borrow().clone());
        act(&mut self.visits, &self.policy, own.as_deref().unwrap_or(in_force));
        self.note_told();
    }

    /// Sorts what the shadow would have told by the visits in force.
    fn note_told(&mut self) {
        for event in self.visits.take_told().into_iter().filter(|event| decides(event.kind)) {
            let visit = event.track.and_then(|track| self.visit_of.get(&track));
            if let (Some(visit), Some(decision)) = (visit, &event.decision) {
                principal(&mut self.told.entry(*visit).or_default().shadow, decision);
            }
        }
    }
}

/// Whether an event of this kind says who somebody is, or that it is nobody.
fn decides(kind: EventKind) -> bool {
    matches!(kind, EventKind::Identified | EventKind::Unidentified | EventKind::IdentityRevised)
}
