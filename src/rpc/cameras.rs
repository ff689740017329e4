//! `CameraService`: what is watched.
//!
//! In: requests about cameras. Out: what the cameras answer. Credentials go in and never come out.
//! Must not know: RTSP, pipelines.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::auth;
use super::convert::camera::{camera, camera_id, change, credential, new_camera, normalised_box, removed, status};
use super::convert::{request_key, time};
use super::feed::left;
use super::outgoing::{Outgoing, to_the_end};
use super::page::Page;
use super::status::stopping;
use super::{RpcParts, Shared};
use crate::camera::{CameraId, CameraState};
use crate::cameras::CameraUpdate;
use crate::pb::camera_service_server::CameraService;
use crate::pb::{
    CameraStatus, CreateCameraRequest, CreateCameraResponse, DeleteCameraRequest, DeleteCameraResponse, GetCameraRequest,
    GetCameraResponse, GetFrameRequest, GetFrameResponse, ListCamerasRequest, ListCamerasResponse, SetCameraCredentialRequest,
    SetCameraCredentialResponse, UpdateCameraRequest, UpdateCameraResponse, WatchCamerasRequest, WatchCamerasResponse,
};

/// The service.
pub(super) struct CamerasApi(pub(super) Arc<Shared>);

#[tonic::async_trait]
impl CameraService for CamerasApi {
    async fn create_camera(&self, request: Request<CreateCameraRequest>) -> Result<Response<CreateCameraResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let credential = credential(request.credential.take())?;
        let repeat = request_key(("cameras", "CreateCamera"), &id, &request)?;
        let asked = new_camera(&request.camera.unwrap_or_default())?;
        let cameras = self.0.parts.cameras.clone();
        let created = to_the_end(async move { cameras.create(asked, credential, repeat).await }).await?;
        Ok(Response::new(CreateCameraResponse { camera: Some(camera(created)) }))
    }

    async fn get_camera(&self, request: Request<GetCameraRequest>) -> Result<Response<GetCameraResponse>, Status> {
        let id = camera_id(&request.get_ref().id, "id")?;
        let found = self.0.parts.cameras.get(&id)?;
        let now = self.0.parts.cameras.statuses().iter().find(|s| s.camera == id).map(status);
        Ok(Response::new(GetCameraResponse { camera: Some(camera(found)), status: now }))
    }

    async fn list_cameras(&self, request: Request<ListCamerasRequest>) -> Result<Response<ListCamerasResponse>, Status> {
        let request = request.get_ref();
        let page = Page::read(request.page_size, &request.page_token, "cameras")?;
        let mut found = self.0.parts.cameras.list();
        if let Some(after) = &page.after {
            found.retain(|camera| camera.id.as_str() > after.as_str());
        }
        let next_page_token = page.cut(&mut found, "cameras", |camera| camera.id.to_string());
        Ok(Response::new(ListCamerasResponse { cameras: found.into_iter().map(camera).collect(), next_page_token }))
    }

    async fn update_camera(&self, request: Request<UpdateCameraRequest>) -> Result<Response<UpdateCameraResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let repeat = request_key(("cameras", "UpdateCamera"), &id, &request)?;
        let wire = request.camera.unwrap_or_default();
        let (id, etag) = (camera_id(&wire.id, "camera.id")?, wire.etag.clone());
        let update = CameraUpdate { id, etag, request: repeat, change: change(&wire, request.update_mask)? };
        let cameras = self.0.parts.cameras.clone();
        let changed = to_the_end(async move { cameras.update(update).await }).await?;
        Ok(Response::new(UpdateCameraResponse { camera: Some(camera(changed)) }))
    }

    async fn delete_camera(&self, request: Request<DeleteCameraRequest>) -> Result<Response<DeleteCameraResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let repeat = request_key(("cameras", "DeleteCamera"), &id, &request)?;
        let id = camera_id(&request.id, "id")?;
        let cameras = self.0.parts.cameras.clone();
        to_the_end(async move { cameras.delete(&id, &request.etag, repeat).await }).await?;
        Ok(Response::new(DeleteCameraResponse {}))
    }

    type WatchCamerasStream = Outgoing<WatchCamerasResponse>;

    async fn watch_cameras(&self, request: Request<WatchCamerasRequest>) -> Result<Response<Self::WatchCamerasStream>, Status> {
        let admission = auth::admission(&request);
        let ids = request.into_inner().camera_ids;
        let wanted = ids.iter().map(|id| camera_id(id, "camera_ids")).collect::<Result<HashSet<_>, _>>()?;
        let place = self.0.subscriber_place()?;
        let shared = self.0.clone();
        Ok(Response::new(Outgoing::spawn(|out| async move {
            let _place = place;
            tokio::select! {
                status = watch(&shared.parts, Watched { wanted, ..Watched::default() }, out) => status,
                () = shared.stopping.cancelled() => stopping().into(),
                () = auth::revoked(admission) => auth::no_longer_admitted(),
            }
        })))
    }

    async fn get_frame(&self, request: Request<GetFrameRequest>) -> Result<Response<GetFrameResponse>, Status> {
        let request = request.get_ref();
        let id = camera_id(&request.camera_id, "camera_id")?;
        let picture = self.0.parts.cameras.frame(&id, request.draw_boxes).await?;
        Ok(Response::new(GetFrameResponse {
            jpeg: picture.jpeg,
            capture_time: Some(time(picture.capture_time)),
            boxes: picture.boxes.into_iter().map(normalised_box).collect(),
        }))
    }

    async fn set_camera_credential(
        &self,
        request: Request<SetCameraCredentialRequest>,
    ) -> Result<Response<SetCameraCredentialResponse>, Status> {
        let mut request = request.into_inner();
        let id = std::mem::take(&mut request.request_id);
        let credential = credential(request.credential.take())?;
        let repeat = request_key(("cameras", "SetCameraCredential"), &id, &request)?;
        let id = camera_id(&request.camera_id, "camera_id")?;
        let cameras = self.0.parts.cameras.clone();
        to_the_end(async move { cameras.set_credential(&id, credential, repeat).await }).await?;
        Ok(Response::new(SetCameraCredentialResponse {}))
    }
}

/// What a watcher wants to see and was told last.
#[derive(Default)]
struct Watched {
    /// Empty means all.
    wanted: HashSet<CameraId>,
    told: HashMap<CameraId, CameraState>,
}

impl Watched {
    /// The cameras whose state differs from what was told, the removed ones at the end.
    fn news(&mut self, parts: &RpcParts) -> Vec<CameraStatus> {
        let mut current = parts.cameras.statuses();
        current.retain(|s| self.wanted.is_empty() || self.wanted.contains(&s.camera));
        let gone: Vec<CameraId> = self.told.keys().filter(|id| !current.iter().any(|s| s.camera == **id)).cloned().collect();
        let mut news = Vec::new();
        for now in current {
            if self.told.get(&now.camera) != Some(&now.state) {
                news.push(status(&now));
                self.told.insert(now.camera, now.state);
            }
        }
        for id in gone {
            news.push(removed(&id, parts.clock.now()));
            self.told.remove(&id);
        }
        news
    }
}

/// Tells all states at once, then what changed whenever there is room for it: a slow watcher
/// sees the newest state and not each one before it.
async fn watch(parts: &RpcParts, mut watched: Watched, out: mpsc::Sender<WatchCamerasResponse>) -> Status {
    let mut changes = parts.cameras.changes();
    let mut first = true;
    loop {
        let Ok(room) = out.reserve().await else { return left() };
        // Marked before it is read: a change that comes between is told in the next round.
        changes.borrow_and_update();
        let statuses = watched.news(parts);
        if first || !statuses.is_empty() {
            room.send(WatchCamerasResponse { statuses, server_time: Some(time(parts.clock.now())) });
        } else {
            drop(room);
        }
        first = false;
        if changes.changed().await.is_err() {
            return stopping().into();
        }
    }
}
