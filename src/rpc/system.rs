//! `SystemService`: what the daemon is doing and with what.
//!
//! In: nothing. Out: version, device and why, models, positions of gallery and log.
//! Must not know: how any of it came about.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Shared;
use super::convert::{duration, time};
use crate::camera::CameraState;
use crate::infer::EngineFacts;
use crate::pb;
use crate::pb::system_service_server::SystemService;
use crate::pb::{GetStatusRequest, GetStatusResponse, InferenceStatus, ModelStatus, SubscriberStatus};

/// The service.
pub(super) struct SystemApi(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl SystemService for SystemApi {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        let parts = &self.0.parts;
        let (gallery, position, cameras) = (parts.gallery.current(), parts.events.position(), parts.cameras.statuses());
        let online = cameras.iter().filter(|camera| matches!(camera.state, CameraState::Online { .. })).count();
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start_time: Some(time(parts.start_time)),
            uptime: Some(duration(parts.clock.now().since(parts.start_time))),
            inference: Some(inference(&parts.engine_facts)),
            models: parts.engine_facts.models.iter().map(model).collect(),
            gallery_version: gallery.version(),
            gallery_subject_count: gallery.subject_count(),
            event_epoch: position.epoch.to_string(),
            event_sequence: position.sequence,
            camera_count: u32::try_from(cameras.len()).unwrap_or(u32::MAX),
            cameras_online: u32::try_from(online).unwrap_or(u32::MAX),
            subscribers: parts.events.subscribers().into_iter().map(|s| SubscriberStatus { peer: s.peer, lag: s.lag }).collect(),
        }))
    }
}

fn inference(facts: &EngineFacts) -> InferenceStatus {
    InferenceStatus {
        device: facts.device.clone(),
        device_reason: facts.device_reason.clone(),
        provider: facts.provider.clone(),
        precision: facts.precision.clone(),
        precision_reason: facts.precision_reason.clone(),
        sessions: u32::try_from(facts.sessions).unwrap_or(u32::MAX),
        runtime_version: facts.runtime_version.clone(),
        template_space: facts.space.to_string(),
        device_facts: facts.device_facts.iter().map(device_fact).collect(),
    }
}

fn device_fact(fact: &crate::device::DeviceFact) -> pb::DeviceFact {
    pb::DeviceFact { what: fact.what.clone(), found: fact.found.clone(), mend: fact.mend.clone() }
}

fn model(facts: &crate::infer::ModelFacts) -> ModelStatus {
    ModelStatus {
        role: facts.role.clone(),
        name: facts.name.clone(),
        file: facts.file.clone(),
        sha256: facts.sha256.clone(),
        licence: facts.licence.clone(),
    }
}
