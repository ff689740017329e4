//! Cameras come and go while the pipeline runs.
//!
//! In: which camera, and how it is watched. Out: where its source puts frames; its events in order, its ends included.
//! Must not know: where frames come from, how they are analysed.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::in_shadow::InShadow;
use super::scene::Scene;
use super::{Pipeline, PipelineError, SceneCell, SeenFrame, Watch};
use crate::camera::{CameraId, FrameCounts};
use crate::event::{EndReason, Event};
use crate::ingest::FrameSink;

impl Pipeline {
    /// Watches a camera: frames offered to the sink are analysed from now on.
    pub fn watch(&self, watch: Watch) -> Arc<dyn FrameSink> {
        let score_min = watch.scene.detection_score_min;
        // Track ids are unique per camera and run, though a camera may be watched anew.
        let first_track = u64::try_from(self.0.clock.now().as_micros()).unwrap_or(1);
        let of_shadow = self.0.shadow.get().and_then(InShadow::gallery);
        let scene = Scene::new(&watch.camera, watch.scene, Arc::clone(&self.0.clock), first_track).with_shadow(of_shadow);
        let cell = SceneCell {
            scene: Mutex::new(scene),
            unwritten: tokio::sync::Mutex::default(),
            onlookers: Mutex::default(),
            is_flushing: AtomicBool::default(),
            score_min,
        };
        self.scenes().insert(watch.camera.clone(), Arc::new(cell));
        self.0.intake.watch(&watch.camera, watch.slot)
    }

    /// Watches a camera by other settings, from the next frame on. Its source goes on, and so do its visits unless its role, a
    /// line or a zone is another. A camera that is not watched stays so.
    ///
    /// # Errors
    /// [`PipelineError::Log`] when the ends cannot be written.
    pub async fn rewatch(&self, watch: Watch) -> Result<(), PipelineError> {
        let Some(cell) = self.cell(&watch.camera) else { return Ok(()) };
        // The source has a sink already.
        drop(self.0.intake.watch(&watch.camera, watch.slot));
        cell.scene().adopt(watch.scene, self.0.clock.now(), &self.0.gallery.current());
        self.tell(&cell).await
    }

    /// Watches a camera no longer; its visits end.
    ///
    /// # Errors
    /// [`PipelineError::Log`] when the ends cannot be written.
    pub async fn forget(&self, camera: &CameraId, reason: EndReason) -> Result<(), PipelineError> {
        self.0.intake.forget(camera);
        let Some(cell) = self.scenes().remove(camera) else { return Ok(()) };
        cell.scene().close(reason, self.0.clock.now(), &self.0.gallery.current());
        self.flush(&cell).await?;
        Ok(cell.unwritten.lock().await.write_or_lose(&self.0.events, camera.as_str()).await?)
    }

    /// Tells events of cameras themselves, each in order with its camera's visits; with an end its connection is over, and these end
    /// first. All are taken to their cameras before any is written: what is told late must not end what began since.
    ///
    /// # Errors
    /// [`PipelineError::Log`] when one cannot be written.
    pub async fn announce(&self, news: Vec<(CameraId, Event, Option<EndReason>)>) -> Result<(), PipelineError> {
        let mut cells = Vec::with_capacity(news.len());
        for (camera, event, ends) in news {
            let Some(cell) = self.cell(&camera) else { continue };
            let mut scene = cell.scene();
            if let Some(reason) = ends {
                scene.disconnect(reason, self.0.clock.now(), &self.0.gallery.current());
            }
            scene.announce(event);
            drop(scene);
            cells.push(cell);
        }
        for cell in cells {
            self.tell(&cell).await?;
        }
        Ok(())
    }

    /// The next analysed frame of a camera; `None` when it is not watched.
    pub fn next_frame(&self, camera: &CameraId) -> Option<oneshot::Receiver<SeenFrame>> {
        let (sender, receiver) = oneshot::channel();
        let cell = self.cell(camera)?;
        let mut onlookers = cell.onlookers.lock().unwrap_or_else(PoisonError::into_inner);
        onlookers.retain(|onlooker| !onlooker.is_closed());
        onlookers.push(sender);
        Some(receiver)
    }

    /// Frames of a camera since it is watched.
    pub fn frame_counts(&self, camera: &CameraId) -> Option<FrameCounts> {
        self.0.intake.counts(camera)
    }
}
