//! `CameraService`: what is watched.
//!
//! In: requests about cameras. Out: what the cameras answer. Credentials go in and never come out.
//! Must not know: RTSP, pipelines.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Request, Response, Status};

use super::auth;
use super::convert::camera::{camera, camera_id, change, credential, new_camera, normalised_box, removed, status};
use super::convert::{request_key, time};
use super::feed::left;
use super::outgoing::{Outgoing, to_the_end};
use super::page::Page;
use super::status::stopping;
use super::{RpcParts, Shared};
use crate::camera::{CameraId, CameraState, FrameCounts};
use crate::cameras::{CameraStatus, CameraUpdate};
use crate::clock::Timestamp;
use crate::pb::camera_service_server::CameraService;
use crate::pb::{
    self, CreateCameraRequest, CreateCameraResponse, DeleteCameraRequest, DeleteCameraResponse, GetCameraRequest, GetCameraResponse,
    GetFrameRequest, GetFrameResponse, ListCamerasRequest, ListCamerasResponse, SetCameraCredentialRequest, SetCameraCredentialResponse,
    UpdateCameraRequest, UpdateCameraResponse, WatchCamerasRequest, WatchCamerasResponse,
};

/// How often watchers are told counts that changed: often enough to see a camera lose frames while one looks, and seldom enough that
/// the stream of many cameras is still about their states.
const COUNTS_EVERY: Duration = Duration::from_secs(5);

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
        let place = self.0.operator_place()?;
        let shared = self.0.clone();
        Ok(Response::new(Outgoing::spawn(|out| async move {
            let _place = place;
            let RpcParts { cameras, clock, .. } = &shared.parts;
            let look = || Seen { statuses: cameras.statuses(), time: clock.now() };
            tokio::select! {
                status = watch(cameras.changes(), look, Watched { wanted, ..Watched::default() }, out) => status,
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
    told: HashMap<CameraId, (CameraState, FrameCounts)>,
}

impl Watched {
    /// The cameras whose state differs from what was told, or, where `counts` are wanted, whose counts do; the removed ones at the end.
    fn news(&mut self, Seen { statuses: mut current, time }: Seen, counts: bool) -> Vec<pb::CameraStatus> {
        current.retain(|s| self.wanted.is_empty() || self.wanted.contains(&s.camera));
        let gone: Vec<CameraId> = self.told.keys().filter(|id| !current.iter().any(|s| s.camera == **id)).cloned().collect();
        let mut news = Vec::new();
        for now in current {
            let is_known =
                self.told.get(&now.camera).is_some_and(|(state, frames)| *state == now.state && (!counts || *frames == now.frames));
            if !is_known {
                news.push(status(&now));
                self.told.insert(now.camera, (now.state, now.frames));
            }
        }
        for id in gone {
            news.push(removed(&id, time));
            self.told.remove(&id);
        }
        news
    }
}

/// All cameras at one moment.
struct Seen {
    statuses: Vec<CameraStatus>,
    time: Timestamp,
}

/// Tells all states at once, then what changed whenever there is room for it, and every [`COUNTS_EVERY`] the counts that did: a slow
/// watcher sees the newest state and not each one before it. `look` is asked again at each change and for each look at the counts.
async fn watch(
    mut changes: watch::Receiver<u64>,
    look: impl Fn() -> Seen,
    mut watched: Watched,
    out: mpsc::Sender<WatchCamerasResponse>,
) -> Status {
    let mut recount = tokio::time::interval_at(Instant::now() + COUNTS_EVERY, COUNTS_EVERY);
    // A watcher who did not read for a while wants the counts of now, once.
    recount.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut first, mut counts) = (true, false);
    loop {
        let Ok(room) = out.reserve().await else { return left() };
        // Marked before it is read: a change that comes between is told in the next round.
        changes.borrow_and_update();
        let seen = look();
        let server_time = Some(time(seen.time));
        let statuses = watched.news(seen, counts);
        if first || !statuses.is_empty() {
            room.send(WatchCamerasResponse { statuses, server_time });
        } else {
            drop(room);
        }
        first = false;
        counts = tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => false,
                Err(_) => return stopping().into(),
            },
            _ = recount.tick() => true,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A record of cameras that a test changes, and who watches it.
    struct Record {
        frames: Mutex<Vec<(&'static str, u64)>>,
        changes: watch::Sender<u64>,
    }

    impl Record {
        fn start(frames: &[(&'static str, u64)]) -> (Arc<Self>, mpsc::Receiver<WatchCamerasResponse>) {
            let record = Arc::new(Self { frames: Mutex::new(frames.to_vec()), changes: watch::Sender::new(0) });
            let (out, told) = mpsc::channel(1);
            let (seen, changes) = (record.clone(), record.changes.subscribe());
            tokio::spawn(async move { watch(changes, || seen.look(), Watched::default(), out).await });
            (record, told)
        }

        fn look(&self) -> Seen {
            let status = |(id, received): &(&str, u64)| CameraStatus {
                camera: CameraId::parse(id).expect("a good id"),
                state: CameraState::Connecting,
                since: Timestamp::default(),
                frames: FrameCounts { received: *received, ..FrameCounts::default() },
            };
            let statuses = self.frames.lock().expect("no test panics with it").iter().map(status).collect();
            Seen { statuses, time: Timestamp::default() }
        }

        fn set(&self, frames: &[(&'static str, u64)]) {
            *self.frames.lock().expect("no test panics with it") = frames.to_vec();
        }
    }

    /// What is told next, within about a minute, and after how long. The end of that is none of a look at the counts.
    async fn next(told: &mut mpsc::Receiver<WatchCamerasResponse>) -> Option<(Vec<(String, u64)>, Duration)> {
        let asked = Instant::now();
        let response = tokio::time::timeout(COUNTS_EVERY * 12 + Duration::from_secs(2), told.recv()).await.ok()?.expect("it goes on");
        let received = |s: &pb::CameraStatus| s.frames.as_ref().map(|frames| frames.received).unwrap_or_default();
        Some((response.statuses.iter().map(|s| (s.camera_id.clone(), received(s))).collect(), asked.elapsed()))
    }

    #[tokio::test(start_paused = true)]
    async fn counts_that_changed_are_told_every_few_seconds_and_others_are_not() {
        let (record, mut told) = Record::start(&[("door", 0), ("yard", 0)]);
        assert_eq!(next(&mut told).await.map(|(all, _)| all.len()), Some(2), "all at once");
        record.set(&[("door", 7), ("yard", 0)]);
        let (counted, after) = next(&mut told).await.expect("the counts are renewed");
        assert_eq!(counted, [("door".to_owned(), 7)], "yard's have not changed");
        assert_eq!(after.as_secs(), COUNTS_EVERY.as_secs());
        assert_eq!(next(&mut told).await, None, "nothing changes, so nothing is told");
        // A change of some camera's state is told at once, and not every camera's counts with it.
        record.set(&[("attic", 1), ("door", 8), ("yard", 0)]);
        record.changes.send_modify(|version| *version += 1);
        let (changed, after) = next(&mut told).await.expect("the new one is told");
        assert_eq!((changed, after), (vec![("attic".to_owned(), 1)], Duration::ZERO));
    }
}
