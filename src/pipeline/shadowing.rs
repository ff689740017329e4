//! Runs another model, head or policy over a camera's visitors beside the one in force, and never acts.
//!
//! In: the same sightings and shots as the visits in force, templates of its own where its encoder is another.
//! Out: a verdict for each visit that was decided: what was told, and what the shadow would have told. It has
//! visits of its own, which go by the same rules; it sees only the shots that were taken for the visits in force.
//! Shots wait for whoever compares them, so that nothing that is told waits for the shadow.
//! Must not know: sessions, the log, who keeps verdicts.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::matching::{compare, judge, shows};
use crate::clock::Timestamp;
use crate::decide::Policy;
use crate::event::{Decision, EndReason, Event, EventKind, Rejection, SnapshotId, TrackId, VisitId};
use crate::face::{AlignedFace, Probe, Template, TemplateError};
use crate::gallery::GalleryVersion;
use crate::infer::{CutFace, Engine};
use crate::shadow::{Verdict, principal};
use crate::visit::{EncodedShot, Ending, Fused, Layout, Look, VisitPolicy, Visits};

/// What runs beside the pipeline in force.
pub struct Shadow {
    /// Its own encoder and gallery; `None` where both are those in force.
    pub encoder: Option<ShadowEncoder>,
    /// Takes verdicts. One that finds no place is lost, which the log says.
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
    /// The least similarity that makes a face that of somebody who was here.
    pub resume_threshold: f32,
}

/// A shot that the shadow has still to see.
pub(super) struct ShadowShot {
    track: TrackId,
    /// The face in the encoder's pose, where its encoder is another.
    pub(super) aligned: Option<AlignedFace>,
    /// The template of the encoder in force.
    pub(super) template: Template,
    quality: f32,
    live_score: Option<f32>,
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
    /// Shots that the shadow has still to see.
    waiting: usize,
    /// Whether a shot was never seen, or somebody was named whom its gallery does not hold yet: then it is no answer that it
    /// names nobody.
    is_lacking: bool,
}

impl Shadowing {
    /// Beside a camera's visits; `gallery` where it has one of its own.
    pub(super) fn new(policy: Policy, visits: Visits, gallery: Option<watch::Receiver<Option<Arc<GalleryVersion>>>>) -> Self {
        let (visit_of, told) = (HashMap::new(), HashMap::new());
        Self { policy, visits, gallery, visit_of, told, waiting: Vec::new(), verdicts: Vec::new() }
    }

    /// Goes on by another policy and other rules, as the visits in force do.
    pub(super) fn adopt(&mut self, policy: &Policy, (rules, layout): (VisitPolicy, Layout), in_force: &GalleryVersion) {
        self.visits.adopt(rules, layout);
        if *policy != self.policy {
            self.policy = policy.clone();
            self.with_gallery(in_force, |visits, judge| visits.doubt(judge));
        }
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

    /// A shot was fused in force; the shadow has still to see it. A face that stays on a device is not kept for another encoder:
    /// the decoder wants its memory back.
    pub(super) fn shot(&mut self, (track, visit): (TrackId, Option<VisitId>), cut: &CutFace, shot: EncodedShot<'_>) {
        self.belongs(track, visit);
        let aligned = match cut {
            CutFace::Host(face) => self.gallery.is_some().then(|| face.clone()),
            CutFace::Device(_) if self.gallery.is_some() => return self.lacks(track),
            CutFace::Device(_) => None,
        };
        if let Some(told) = self.told_of(track) {
            told.waiting += 1;
        }
        let EncodedShot { template, quality, live_score, time } = shot;
        self.waiting.push(ShadowShot { track, aligned, template: template.clone(), quality, live_score, time });
    }

    /// The shots that it has still to see, oldest first.
    pub(super) fn take_waiting(&mut self) -> Vec<ShadowShot> {
        std::mem::take(&mut self.waiting)
    }

    /// It sees a shot, with the template of its encoder.
    pub(super) fn see(
        &mut self,
        shot: &ShadowShot,
        template: &Template,
        (in_force, now): (&GalleryVersion, Timestamp),
    ) -> Result<(), TemplateError> {
        let own = self.gallery.as_ref().map(|own| own.borrow().clone());
        if own.as_ref().is_some_and(Option::is_none) {
            self.failed(shot);
            return Ok(());
        }
        let own = own.flatten();
        if let Some(told) = self.told_of(shot.track) {
            told.waiting = told.waiting.saturating_sub(1);
        }
        let ShadowShot { track, quality, live_score, time, .. } = *shot;
        let encoded = EncodedShot { template, quality, live_score, time };
        // That nobody was found by what compares with nothing is no answer.
        self.decide(track, encoded, (own.as_deref().unwrap_or(in_force), in_force, now)).inspect_err(|_| self.lacks(track))
    }

    /// A shot was never seen: what it tells of the visit without any shot is no answer.
    pub(super) fn failed(&mut self, shot: &ShadowShot) {
        if let Some(told) = self.told_of(shot.track) {
            (told.waiting, told.is_lacking) = (told.waiting.saturating_sub(1), true);
        }
    }

    /// What is told of a track's visit rests on less than what is in force.
    fn lacks(&mut self, track: TrackId) {
        if let Some(told) = self.told_of(track) {
            told.is_lacking = true;
        }
    }

    fn decide(
        &mut self,
        track: TrackId,
        shot: EncodedShot<'_>,
        (gallery, in_force, now): (&GalleryVersion, &GalleryVersion, Timestamp),
    ) -> Result<(), TemplateError> {
        match self.visits.fuse(track, shot)? {
            Some(Fused::Same(fused)) => {
                let decision = compare(&self.policy, &fused, (gallery, in_force))?;
                self.visits.decided(track, (decision, |decision: &Decision| shows(shot.template, decision, gallery)), now);
            }
            // By its templates somebody else stands there now, though the track goes on.
            Some(Fused::Other) => {
                let ending = Ending { reason: EndReason::Gone, time: shot.time };
                self.visits.ended(track, ending, |fused| judge(&self.policy, fused, (gallery, in_force)));
            }
            None => {}
        }
        self.note_told();
        self.note_standing(track);
        Ok(())
    }

    /// What is overdue at `now`.
    pub(super) fn sweep(&mut self, now: Timestamp, in_force: &GalleryVersion) {
        self.with_gallery(in_force, |visits, judge| visits.overdue(now, judge));
    }

    /// A track is over.
    pub(super) fn ended(&mut self, track: TrackId, ending: Ending, in_force: &GalleryVersion) {
        self.with_gallery(in_force, |visits, judge| visits.ended(track, ending, judge));
    }

    /// Everybody is gone.
    pub(super) fn end_all(&mut self, ending: Ending, in_force: &GalleryVersion) {
        self.with_gallery(in_force, |visits, judge| visits.end_all(ending, judge));
    }

    /// Something was told of a visit in force, whose track now belongs to `goes_on`. Its end gives the verdict, so the shadow must
    /// have been told of the end before.
    pub(super) fn told(&mut self, event: &Event, goes_on: Option<VisitId>) {
        let Some(visit) = event.visit else { return };
        if let (Some(decision), true) = (&event.decision, decides(event.kind)) {
            let own = self.gallery.as_ref().and_then(|gallery| gallery.borrow().clone());
            let is_strange = decision.subject.zip(own).is_some_and(|(subject, own)| !own.holds(subject));
            let told = self.told.entry(visit).or_default();
            told.is_lacking |= is_strange;
            if principal(&mut told.in_force, decision) {
                told.capture_time_us = event.capture_time_us;
            }
        }
        if let (Some(snapshot), Some(told)) = (event.snapshot, self.told.get_mut(&visit)) {
            told.snapshot = Some(snapshot);
        }
        if event.kind == EventKind::VisitEnded {
            self.visit_ended(event, visit, goes_on);
        }
    }

    fn visit_ended(&mut self, event: &Event, visit: VisitId, goes_on: Option<VisitId>) {
        self.visit_of.retain(|_, of| *of != visit);
        let told = self.told.remove(&visit);
        if let (Some(EndReason::Resumed), Some(track)) = (event.end_reason, event.track) {
            // It was begun for nothing: what the shadow said of it belongs to the visit that goes on.
            self.belongs(track, goes_on);
            if let (Some(Told { shadow, waiting, is_lacking, .. }), Some(goes_on)) = (told, self.told_of(track)) {
                (goes_on.waiting, goes_on.is_lacking) = (goes_on.waiting + waiting, goes_on.is_lacking | is_lacking);
                if let Some(decision) = shadow {
                    principal(&mut goes_on.shadow, &decision);
                }
            }
            return;
        }
        let Some(Told { in_force: Some(in_force), shadow, capture_time_us, snapshot, waiting, is_lacking }) = told else { return };
        let is_answer = |shadow: &Decision| {
            let saw_nothing = shadow.rejection == Some(Rejection::NoUsableShot) && waiting > 0;
            shadow.subject.is_some() || !(is_lacking || saw_nothing)
        };
        let shadow = shadow.filter(is_answer);
        self.verdicts.push(Verdict { visit, camera: Arc::clone(&event.camera), capture_time_us, snapshot, in_force, shadow });
    }

    /// Whether there are verdicts that were not taken yet.
    pub(super) fn has_verdicts(&self) -> bool {
        !self.verdicts.is_empty()
    }

    /// The verdicts since this was asked last.
    pub(super) fn take_verdicts(&mut self) -> Vec<Verdict> {
        std::mem::take(&mut self.verdicts)
    }

    /// Remembers to which visit in force a track belongs. Where that is news, the shadow may long have told who is there.
    fn belongs(&mut self, track: TrackId, visit: Option<VisitId>) {
        if let Some(visit) = visit
            && self.visit_of.insert(track, visit) != Some(visit)
        {
            self.note_standing(track);
        }
    }

    fn told_of(&mut self, track: TrackId) -> Option<&mut Told> {
        self.visit_of.get(&track).map(|visit| self.told.entry(*visit).or_default())
    }

    fn with_gallery(&mut self, in_force: &GalleryVersion, act: impl FnOnce(&mut Visits, &dyn Fn(Option<&Probe>) -> Decision)) {
        // Until its own was read there is no template of its own either, so there is nothing to compare with the wrong one.
        let own = self.gallery.as_ref().and_then(|gallery| gallery.borrow().clone());
        let gallery = own.as_deref().unwrap_or(in_force);
        act(&mut self.visits, &|fused| judge(&self.policy, fused, (gallery, in_force)));
        self.note_told();
    }

    /// Sorts what the shadow would have told by the visits in force.
    fn note_told(&mut self) {
        for event in self.visits.take_told().into_iter().filter(|event| decides(event.kind)) {
            if let (Some(decision), Some(told)) = (event.decision, event.track.and_then(|track| self.told_of(track))) {
                principal(&mut told.shadow, &decision);
            }
        }
    }

    /// A visit in force may begin while the shadow's goes on: then what stands there stands for it, too, though nothing is told anew.
    fn note_standing(&mut self, track: TrackId) {
        if let (Some(visit), Some(decision)) = (self.visit_of.get(&track), self.visits.decision_of(track)) {
            principal(&mut self.told.entry(*visit).or_default().shadow, decision);
        }
    }
}

/// Whether an event of this kind says who somebody is, or that it is nobody.
fn decides(kind: EventKind) -> bool {
    matches!(kind, EventKind::Identified | EventKind::Unidentified | EventKind::IdentityRevised)
}
