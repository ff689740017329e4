//! The cameras that are watched: keeps the store, the running sources and their states the same.
//!
//! In: the operator's changes; the states that sources report. Out: running sources, statuses,
//! `CAMERA_ONLINE` and `CAMERA_OFFLINE` events. One change at a time; a change is in the store
//! before it is in force. States that come faster than they can be told are told as the last one.
//! Must not know: GStreamer, the wire.

mod announcing;
mod check;
mod error;
mod state;
#[cfg(test)]
mod tests;
mod watched;
pub use error::CamerasError;
pub use watched::as_configured;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use self::state::States;
use crate::camera::{Camera, CameraId, CameraState, Credential, FrameCounts};
use crate::clock::{Clock, Timestamp};
use crate::event::{BoxInFrame, EndReason};
use crate::ingest::{self, Decode, Sinks, SourceSettings, StateSink};
use crate::picture;
use crate::pipeline::{Pipeline, PipelineError, SceneSettings};
use crate::store::{CredentialChange, RequestKey, Store, StoreError};

/// How long `GetFrame` waits for the next analysed frame.
const FRAME_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a source may take to end before it is left to end by itself.
const SOURCE_END_MAX: Duration = Duration::from_secs(3);

/// How a camera is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraStatus {
    /// Which camera.
    pub camera: CameraId,
    /// What its source reported last.
    pub state: CameraState,
    /// Since when.
    pub since: Timestamp,
    /// What became of its frames.
    pub frames: FrameCounts,
}

/// The next analysed frame as JPEG, with what was found in it.
pub struct FramePicture {
    /// The picture.
    pub jpeg: Vec<u8>,
    /// When it was taken.
    pub capture_time: Timestamp,
    /// The faces in it.
    pub boxes: Vec<BoxInFrame>,
}

/// What holds for whatever a camera leaves open.
#[derive(Clone, Debug)]
pub struct CameraDefaults {
    /// How its frames are analysed.
    pub scene: SceneSettings,
    /// Certificates that `rtsps` cameras are trusted by, PEM; `None` trusts the system's.
    pub ca_file: Option<PathBuf>,
    /// Where their pictures are decoded.
    pub decode: Decode,
}

/// A handle on the cameras. Clones share it.
#[derive(Clone)]
pub struct Cameras(Arc<Shared>);

struct Shared {
    store: Store,
    pipeline: Pipeline,
    clock: Arc<dyn Clock>,
    defaults: CameraDefaults,
    running: Mutex<BTreeMap<CameraId, Running>>,
    /// Held over a whole change, so that store, sources and slots agree.
    changing: tokio::sync::Mutex<()>,
    /// Held while events of cameras go to the log, so that each camera is told to come and to go in that order. Taken after
    /// `changing`, by whoever needs both.
    announcing: tokio::sync::Mutex<()>,
    version: watch::Sender<u64>,
    state_changed: Notify,
    sources: TaskTracker,
    stop: CancellationToken,
}

struct Running {
    camera: Camera,
    state: CameraState,
    since: Timestamp,
    /// When something should have been heard of its source, at the latest.
    heard_by: Timestamp,
    /// Whether the log last heard that the camera is online.
    announced: Option<bool>,
    source: Option<Source>,
}

struct Source {
    cancel: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

impl Cameras {
    /// No source runs until [`start`](Self::start). `defaults` holds for whatever a camera leaves open.
    pub fn new(store: Store, pipeline: Pipeline, clock: Arc<dyn Clock>, defaults: CameraDefaults) -> Self {
        Self(Arc::new(Shared {
            store,
            pipeline,
            clock,
            defaults,
            running: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            announcing: tokio::sync::Mutex::default(),
            version: watch::Sender::new(0),
            state_changed: Notify::new(),
            sources: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Watches every camera of the store.
    ///
    /// # Errors
    /// [`CamerasError::Store`] when the cameras cannot be read.
    pub async fn start(&self) -> Result<(), CamerasError> {
        let _change = self.0.changing.lock().await;
        for camera in self.0.store.cameras().await? {
            let credential = self.credential_of(&camera).await;
            if let Err(error) = &credential {
                tracing::error!(camera = %camera.id, %error, "the camera is not watched");
            }
            self.watch(camera, credential);
        }
        Ok(())
    }

    /// Ends every source and the visits at their cameras.
    ///
    /// # Errors
    /// [`CamerasError::Pipeline`] when the ends cannot be written.
    pub async fn stop(&self) -> Result<(), CamerasError> {
        // A change that is under way holds nothing up: what it begins ends at once.
        self.0.stop.cancel();
        let _change = self.0.changing.lock().await;
        self.0.sources.close();
        // Each source has its own bound; together they end side by side.
        let _ = tokio::time::timeout(SOURCE_END_MAX, self.0.sources.wait()).await;
        let cameras: Vec<CameraId> = self.running().keys().cloned().collect();
        let mut ends = JoinSet::new();
        for camera in cameras {
            let pipeline = self.0.pipeline.clone();
            ends.spawn(async move { pipeline.forget(&camera, EndReason::DaemonRestarted).await });
        }
        let mut outcome = Ok(());
        while let Some(ended) = ends.join_next().await {
            outcome = outcome.and(ended.map_err(PipelineError::from).flatten());
        }
        Ok(outcome?)
    }

    /// Creates a camera and watches it. Times, revision and `has_credential` are set here; a
    /// repeated request answers with the camera as it is.
    ///
    /// # Errors
    /// [`CamerasError`]; nothing is changed.
    pub async fn create(
        &self,
        mut camera: Camera,
        credential: Option<Credential>,
        request: Option<RequestKey>,
    ) -> Result<Camera, CamerasError> {
        let _change = self.0.changing.lock().await;
        if self.is_repeat(request.as_ref()).await? {
            return self.current(&camera.id);
        }
        if self.running().contains_key(&camera.id) {
            return Err(CamerasError::Exists(camera.id));
        }
        check::camera(&camera)?;
        let now = self.0.clock.now();
        (camera.create_time, camera.update_time, camera.revision) = (now, now, 1);
        camera.has_credential = credential.is_some();
        // What an earlier camera of this name left behind is never sent to this one.
        let kept = credential.clone().map_or(CredentialChange::Remove, CredentialChange::Set);
        self.0.store.put_camera(camera.clone(), kept, request).await?;
        self.watch(camera.clone(), Ok(credential));
        Ok(camera)
    }

    /// One camera.
    ///
    /// # Errors
    /// [`CamerasError::Unknown`].
    pub fn get(&self, id: &CameraId) -> Result<Camera, CamerasError> {
        self.current(id)
    }

    /// All cameras, by id.
    pub fn list(&self) -> Vec<Camera> {
        self.running().values().map(|running| running.camera.clone()).collect()
    }

    /// Applies `change` to the camera. Another source is connected to anew, and the camera's visits end; with the same one they go
    /// on, unless its role, a line or a zone is another.
    ///
    /// # Errors
    /// [`CamerasError`]; nothing is changed, unless it is [`CamerasError::Pipeline`]: then the change is kept and in force.
    pub async fn update(&self, update: CameraUpdate) -> Result<Camera, CamerasError> {
        let _change = self.0.changing.lock().await;
        let old = self.current(&update.id)?;
        if self.is_repeat(update.request.as_ref()).await? {
            return Ok(old);
        }
        check_etag(&old, &update.etag)?;
        let mut camera = old.clone();
        (update.change)(&mut camera);
        camera.id = old.id.clone();
        camera.create_time = old.create_time;
        // A password is for the address that it was given for, and is not sent to another.
        let is_elsewhere = address(&camera.url) != address(&old.url);
        camera.has_credential = old.has_credential && !is_elsewhere;
        camera.update_time = self.0.clock.now();
        camera.revision = old.revision + 1;
        check::camera(&camera)?;
        let is_same = is_same_source(&camera, &old);
        // Before anything is kept: a camera whose credential cannot be read goes on as it is.
        let credential = if is_same || is_elsewhere { None } else { self.credential_of(&camera).await? };
        let kept = if is_elsewhere { CredentialChange::Remove } else { CredentialChange::Keep };
        self.0.store.put_camera(camera.clone(), kept, update.request).await?;
        if is_same {
            if let Some(running) = self.running().get_mut(&camera.id) {
                running.camera = camera.clone();
            }
            // Nobody at a door goes unseen because of a new threshold.
            self.0.pipeline.rewatch(as_configured(&camera, &self.0.defaults.scene)).await?;
        } else {
            self.watch_anew(camera.clone(), credential).await?;
        }
        Ok(camera)
    }

    /// Deletes a camera with its credential; its visits end. Deleting what a repeated request
    /// already deleted succeeds.
    ///
    /// # Errors
    /// [`CamerasError`]; nothing is changed, unless it is [`CamerasError::Pipeline`]: then the change is kept and in force.
    pub async fn delete(&self, id: &CameraId, etag: &str, request: Option<RequestKey>) -> Result<(), CamerasError> {
        let _change = self.0.changing.lock().await;
        if self.is_repeat(request.as_ref()).await? {
            return Ok(());
        }
        check_etag(&self.current(id)?, etag)?;
        self.0.store.erase_camera(id, request).await?;
        let ended = self.unwatch(id).await;
        self.running().remove(id);
        self.0.version.send_modify(|version| *version += 1);
        ended
    }

    /// Sets or removes the credential; the source connects anew with it.
    ///
    /// # Errors
    /// [`CamerasError`]; nothing is changed, unless it is [`CamerasError::Pipeline`]: then the change is kept and in force.
    pub async fn set_credential(
        &self,
        id: &CameraId,
        credential: Option<Credential>,
        request: Option<RequestKey>,
    ) -> Result<(), CamerasError> {
        let _change = self.0.changing.lock().await;
        let mut camera = self.current(id)?;
        if self.is_repeat(request.as_ref()).await? {
            // No hash of a password is kept, so it is compared with the one that holds.
            let is_same = self.0.store.credential(id).await? == credential;
            return if is_same { Ok(()) } else { Err(CamerasError::RequestReused) };
        }
        camera.has_credential = credential.is_some();
        camera.update_time = self.0.clock.now();
        camera.revision += 1;
        let kept = credential.clone().map_or(CredentialChange::Remove, CredentialChange::Set);
        self.0.store.put_camera(camera.clone(), kept, request).await?;
        self.watch_anew(camera, credential).await
    }

    /// How every camera is doing, by id.
    pub fn statuses(&self) -> Vec<CameraStatus> {
        let running = self.running();
        let status = |(id, running): (&CameraId, &Running)| CameraStatus {
            camera: id.clone(),
            state: running.state.clone(),
            since: running.since,
            frames: self.0.pipeline.frame_counts(id).unwrap_or_default(),
        };
        running.iter().map(status).collect()
    }

    /// Changes whenever a state or the set of cameras changes: wait on it, then ask
    /// [`statuses`](Self::statuses) again.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// The next analysed frame of a camera.
    ///
    /// # Errors
    /// [`CamerasError::NoFrame`] when none comes within 5 s.
    pub async fn frame(&self, id: &CameraId, draw_boxes: bool) -> Result<FramePicture, CamerasError> {
        let no_frame = || CamerasError::NoFrame(id.clone());
        self.current(id)?;
        let next = self.0.pipeline.next_frame(id).ok_or_else(no_frame)?;
        let seen = tokio::time::timeout(FRAME_WAIT_MAX, next).await.map_err(|_| no_frame())?.map_err(|_| no_frame())?;
        let (width, height) = (seen.frame.size().width as f32, seen.frame.size().height as f32);
        let normalise =
            |b: &crate::face::Rect| BoxInFrame { x: b.x / width, y: b.y / height, width: b.width / width, height: b.height / height };
        let boxes = seen.boxes.iter().map(normalise).collect();
        let capture_time = seen.frame.capture_time;
        let draw = move || picture::frame_jpeg(&seen.frame, if draw_boxes { &seen.boxes } else { &[] });
        let jpeg = tokio::task::spawn_blocking(draw).await.map_err(|_| no_frame())??;
        Ok(FramePicture { jpeg, capture_time, boxes })
    }

    /// Watches a camera from where it is now; what is in the store is in force even where the ends of its visits cannot be written.
    async fn watch_anew(&self, camera: Camera, credential: Option<Credential>) -> Result<(), CamerasError> {
        let ended = self.unwatch(&camera.id).await;
        self.watch(camera, Ok(credential));
        ended
    }

    /// What the camera's source is to be opened with; nothing of a camera that has none.
    async fn credential_of(&self, camera: &Camera) -> Result<Option<Credential>, StoreError> {
        if camera.enabled { self.0.store.credential(&camera.id).await } else { Ok(None) }
    }

    /// Begins to watch a camera, without a source where its credential could not be read; the caller holds the change.
    fn watch(&self, camera: Camera, credential: Result<Option<Credential>, StoreError>) {
        let (id, now) = (camera.id.clone(), self.0.clock.now());
        let state = match &credential {
            Ok(_) if camera.enabled => CameraState::Connecting,
            Ok(_) => state::disabled(),
            Err(error) => state::without_credential(error),
        };
        // Before it is one of those that are told: its events go by way of its scene.
        let frames = camera.enabled.then(|| self.0.pipeline.watch(as_configured(&camera, &self.0.defaults.scene)));
        let running = Running { camera: camera.clone(), state, since: now, heard_by: now, announced: None, source: None };
        self.running().insert(id.clone(), running);
        self.0.version.send_modify(|version| *version += 1);
        let Some(frames) = frames else { return };
        // What cannot be connected to is told as one of its events.
        self.0.state_changed.notify_one();
        let Ok(credential) = credential else { return };
        let CameraDefaults { ca_file, decode, .. } = self.0.defaults.clone();
        let settings = SourceSettings { camera: id.clone(), url: camera.url, credential, transport: camera.transport, ca_file, decode };
        let cancel = self.0.stop.child_token();
        let states: Arc<dyn StateSink> = Arc::new(States { shared: Arc::downgrade(&self.0), source: cancel.clone() });
        let source = ingest::watch(settings, Sinks { frames, states }, Arc::clone(&self.0.clock), cancel.clone());
        let ended = self.0.sources.spawn(source);
        if let Some(running) = self.running().get_mut(&id) {
            running.source = Some(Source { cancel, ended });
        }
    }

    /// Ends the camera's source and visits; the caller holds the change. Until it is watched again or removed the camera is still
    /// one of those that are told.
    async fn unwatch(&self, id: &CameraId) -> Result<(), CamerasError> {
        let source = {
            let mut running = self.running();
            let Some(running) = running.get_mut(id) else { return Ok(()) };
            let source = running.source.take();
            // From here on the source's reports count for nothing.
            source.iter().for_each(|source| source.cancel.cancel());
            if running.camera.enabled {
                (running.state, running.since) = (CameraState::Connecting, self.0.clock.now());
            }
            source
        };
        self.0.version.send_modify(|version| *version += 1);
        if let Some(source) = source
            && tokio::time::timeout(SOURCE_END_MAX, source.ended).await.is_err()
        {
            tracing::warn!(camera = %id, "the source takes long to end and is left to end by itself");
        }
        self.announce_end(id).await?;
        Ok(self.0.pipeline.forget(id, EndReason::CameraRemoved).await?)
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<CameraId, Running>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self, id: &CameraId) -> Result<Camera, CamerasError> {
        let camera = self.running().get(id).map(|running| running.camera.clone());
        camera.ok_or_else(|| CamerasError::Unknown(id.to_string()))
    }

    async fn is_repeat(&self, request: Option<&RequestKey>) -> Result<bool, CamerasError> {
        let Some(request) = request else { return Ok(false) };
        match self.0.store.request_answer(&request.key).await? {
            Some(asked) if asked != request.asked => Err(CamerasError::RequestReused),
            asked => Ok(asked.is_some()),
        }
    }
}

/// A change of one camera.
pub struct CameraUpdate {
    /// Which camera.
    pub id: CameraId,
    /// The etag the change was made for; empty means any.
    pub etag: String,
    /// What a repeat is known by, which does nothing.
    pub request: Option<RequestKey>,
    /// What to change. Id, times, revision and `has_credential` are kept.
    pub change: Box<dyn FnOnce(&mut Camera) + Send>,
}

/// Whom a camera's source speaks to.
fn address(url: &Url) -> (&str, Option<&str>, Option<u16>) {
    (url.scheme(), url.host_str(), url.port())
}

/// Whether a camera's frames come from the same place in the same way.
fn is_same_source(new: &Camera, old: &Camera) -> bool {
    (&new.url, new.has_credential, new.transport, new.enabled) == (&old.url, old.has_credential, old.transport, old.enabled)
}

fn check_etag(camera: &Camera, etag: &str) -> Result<(), CamerasError> {
    let current = camera.revision.to_string();
    if etag.is_empty() || etag == current { Ok(()) } else { Err(CamerasError::StaleEtag { current }) }
}
