//! Where frames from all cameras wait for a session.
//!
//! In: frames, on the sources' own threads. Out: batches, to the one task that analyses.
//! Bounds: one frame a camera. A live camera's older frame is dropped and counted; a replay waits.
//! Must not know: what is done with a batch.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::batch::{BatchPolicy, Offer, Readiness, SlotSettings, Slots};
use crate::camera::{CameraId, FrameCounts, Skipped};
use crate::clock::{Clock, Timestamp};
use crate::frame::Frame;
use crate::ingest::FrameSink;

/// The slots, shared between sources and the pipeline.
pub struct Intake {
    slots: Mutex<Slots>,
    /// A frame has come, or a camera may be taken again.
    changed: Notify,
    /// A frame was taken: a waiting replay may offer the next.
    taken: Condvar,
    clock: Arc<dyn Clock>,
}

impl Intake {
    /// Empty slots.
    pub fn new(policy: BatchPolicy, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { slots: Mutex::new(Slots::new(policy)), changed: Notify::new(), taken: Condvar::new(), clock })
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // The slots are whole between any two statements that change them.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a camera its slot and answers where its source puts frames.
    pub fn watch(self: &Arc<Self>, camera: &CameraId, settings: SlotSettings) -> Arc<dyn FrameSink> {
        self.slots().watch(camera, settings);
        Arc::new(CameraSink { intake: Arc::clone(self), camera: camera.clone() })
    }

    /// Takes a camera's slot away.
    pub fn forget(&self, camera: &CameraId) {
        self.slots().forget(camera);
        self.taken.notify_all();
    }

    /// A camera's counts.
    pub fn counts(&self, camera: &CameraId) -> Option<FrameCounts> {
        self.slots().counts(camera)
    }

    /// Waits for the next batch.
    pub async fn next_batch(&self) -> Vec<Frame> {
        loop {
            let changed = self.changed.notified();
            let now = self.clock.now();
            let readiness = self.slots().readiness(now);
            match readiness {
                Readiness::Now => {
                    let batch = self.slots().take();
                    self.taken.notify_all();
                    if !batch.is_empty() {
                        return batch;
                    }
                }
                Readiness::At(due) => {
                    // Either ends the wait: a frame that fills the batch, or the deadline.
                    let _ = tokio::time::timeout(due.since(now), changed).await;
                }
                Readiness::Empty => changed.await,
            }
        }
    }

    /// A batch of `size` frames was analysed, which took so long.
    pub fn observe(&self, size: usize, took: Duration) {
        self.slots().observe(size, took);
    }

    /// A camera's frame has left the pipeline.
    pub fn done(&self, frame: (&CameraId, Timestamp), analysed: bool) {
        self.slots().done(frame, analysed);
        self.changed.notify_one();
    }

    /// Whether there is a batch that may be taken.
    pub fn is_ready(&self) -> bool {
        let now = self.clock.now();
        self.slots().readiness(now) == Readiness::Now
    }

    /// Whether nothing waits and nothing is being analysed.
    pub fn is_idle(&self) -> bool {
        self.slots().is_idle()
    }
}

/// One camera's way into the slots.
struct CameraSink {
    intake: Arc<Intake>,
    camera: CameraId,
}

impl FrameSink for CameraSink {
    fn offer(&self, frame: Frame) {
        let now = self.intake.clock.now();
        let mut slots = self.intake.slots();
        while slots.offer(frame.clone(), now) == Offer::Full {
            slots = self.intake.taken.wait(slots).unwrap_or_else(PoisonError::into_inner);
        }
        drop(slots);
        self.intake.changed.notify_one();
    }

    fn refused(&self) {
        self.intake.slots().refused(&self.camera);
    }

    fn skipped(&self, why: Skipped) {
        self.intake.slots().skipped(&self.camera, why);
    }
}
