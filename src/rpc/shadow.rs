//! `ShadowService`: what another model, head or policy would have decided.
//!
//! In: nothing but a page. Out: tallies, and the visits about which the two differ.
//! Must not know: how a shadow decides.

use std::sync::Arc;

use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};

use super::Shared;
use super::convert::event::{decision, event_subject};
use super::convert::policy::wire_threshold;
use super::convert::time;
use super::page::{Page, bad_token};
use super::status::Refusal;
use crate::clock::Timestamp;
use crate::decide::{Policy, visit_comparisons};
use crate::event::{Decision, Purpose, ShotCounts};
use crate::gallery::{Gallery, GalleryVersion};
use crate::pb;
use crate::pb::shadow_service_server::ShadowService;
use crate::pb::{GetShadowRequest, GetShadowResponse, ListShadowVerdictsRequest, ListShadowVerdictsResponse, ShadowOutcome};
use crate::shadow::{Outcome, Tally, Verdict};

/// The list's name in its page tokens.
const LIST: &str = "shadow verdicts";

/// What is told of the shadow that runs.
#[derive(Clone)]
pub struct KnownShadow {
    /// What it is made of.
    pub description: String,
    /// The store knows it by this.
    pub key: String,
    /// What it decides by.
    pub policy: Policy,
    /// Its own gallery, `None` in it until it was read; `None` where it compares with the gallery in force.
    pub gallery: Option<watch::Receiver<Option<Arc<GalleryVersion>>>>,
}

/// The service.
pub(super) struct ShadowApi(pub(super) Arc<Shared>);

impl ShadowApi {
    fn known(&self) -> Result<&KnownShadow, Status> {
        let message = "nothing runs in the shadow: state what should in [shadow] of the configuration, and restart";
        let refused = || Refusal::new(Code::FailedPrecondition, "NO_SHADOW", message).into();
        self.0.parts.shadow.as_ref().ok_or_else(refused)
    }
}

#[tonic::async_trait]
impl ShadowService for ShadowApi {
    async fn get_shadow(&self, _: Request<GetShadowRequest>) -> Result<Response<GetShadowResponse>, Status> {
        let known = self.known()?;
        let parts = &self.0.parts;
        let facts = parts.store.shadow_facts(&known.key).await?;
        let (start_time, tally) =
            facts.map_or_else(|| (self.0.parts.start_time, Tally::default()), |facts| (facts.start_time, facts.tally));
        let compared = match &known.gallery {
            Some(own) => own.borrow().clone(),
            None => Some(parts.gallery.current()),
        };
        let (gallery_version, templates) = compared.map_or((0, 0), |gallery| (gallery.version(), gallery.template_count()));
        Ok(Response::new(GetShadowResponse {
            description: known.description.clone(),
            start_time: Some(time(start_time)),
            agree_count: tally.agrees,
            would_name_count: tally.would_name,
            would_not_name_count: tally.would_not_name,
            would_rename_count: tally.would_rename,
            unanswered_count: tally.unanswered,
            thresholds: known
                .policy
                .overview(visit_comparisons(templates))
                .into_iter()
                .filter(|facts| facts.purpose == Purpose::Identify)
                .map(wire_threshold)
                .collect(),
            gallery_version,
            gallery_template_count: templates,
        }))
    }

    async fn list_shadow_verdicts(
        &self,
        request: Request<ListShadowVerdictsRequest>,
    ) -> Result<Response<ListShadowVerdictsResponse>, Status> {
        let known = self.known()?;
        let page = Page::read(request.get_ref().page_size, &request.get_ref().page_token, LIST)?;
        let before = page.after.as_deref().map(str::parse).transpose().map_err(|_| bad_token())?;
        let parts = &self.0.parts;
        let limit = u32::try_from(page.size + 1).unwrap_or(u32::MAX);
        let mut verdicts = parts.store.verdicts(&known.key, before, limit).await?;
        let next_page_token = page.cut(&mut verdicts, LIST, |(number, _)| number.to_string());
        let verdicts = verdicts.iter().map(|(_, verdict)| wire(verdict, &parts.gallery)).collect();
        Ok(Response::new(ListShadowVerdictsResponse { verdicts, next_page_token }))
    }
}

fn wire(verdict: &Verdict, gallery: &Gallery) -> pb::ShadowVerdict {
    let outcome = match verdict.outcome() {
        // Who agrees is counted and not kept.
        Outcome::Agrees => ShadowOutcome::Unspecified,
        Outcome::WouldName => ShadowOutcome::WouldName,
        Outcome::WouldNotName => ShadowOutcome::WouldNotName,
        Outcome::WouldRename => ShadowOutcome::WouldRename,
        Outcome::Unanswered => ShadowOutcome::Unanswered,
    };
    let subject = |made: &Decision| made.subject.map(|uid| event_subject(uid, gallery.subject(uid).as_ref()));
    let shots = ShotCounts::default();
    pb::ShadowVerdict {
        outcome: outcome.into(),
        visit_id: verdict.visit.0.to_string(),
        camera_id: verdict.camera.to_string(),
        capture_time: Some(time(Timestamp::from_micros(verdict.capture_time_us))),
        snapshot_id: verdict.snapshot.map(|id| id.0.to_string()).unwrap_or_default(),
        subject: subject(&verdict.in_force),
        decision: Some(decision(&verdict.in_force, &shots, gallery)),
        shadow_subject: verdict.shadow.as_ref().and_then(subject),
        shadow_decision: verdict.shadow.as_ref().map(|made| decision(made, &shots, gallery)),
    }
}
