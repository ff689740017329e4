//! Ends what no further frame will end, and writes what waits: events and pictures that found no room, or came with no frame.
//!
//! In: the time. Out: events in the log and their pictures, each camera's by itself.
//! Must not know: how the log writes, what a visit is.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Pipeline, PipelineError, SceneCell};

/// How often visits are ended that no further frame will end.
pub(super) const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// A scene that a sweep flushes: one at a time.
struct Flushing(Arc<SceneCell>);

impl Drop for Flushing {
    fn drop(&mut self) {
        self.0.is_flushing.store(false, Ordering::Release);
    }
}

impl SceneCell {
    /// Takes the flush of a scene that has something to write, if nobody is at it.
    fn begin_flushing(self: &Arc<Self>) -> Option<Flushing> {
        let has_news = self.scene().has_news() || self.unwritten.try_lock().is_ok_and(|unwritten| !unwritten.is_settled());
        let is_begun = has_news && !self.is_flushing.swap(true, Ordering::AcqRel);
        is_begun.then(|| Flushing(Arc::clone(self)))
    }
}

impl Pipeline {
    /// Writes what waits of a camera. Answers whether more can be written at once.
    pub(super) async fn write_some(&self, cell: &SceneCell) -> Result<bool, PipelineError> {
        let mut unwritten = cell.unwritten.lock().await;
        if unwritten.is_settled() {
            return Ok(false);
        }
        let camera = cell.scene().camera().to_owned();
        Ok(unwritten.write(&self.0.events, &camera).await?)
    }

    /// Tells what a scene has to tell, with its pictures.
    pub(super) async fn flush(&self, cell: &Arc<SceneCell>) -> Result<(), PipelineError> {
        self.tell(cell).await?;
        self.draw(vec![Arc::clone(cell)]).await
    }

    /// Ends what no further frame will end, and writes what waits for room, until told to stop. Cameras wait for the disk, not for
    /// each other.
    pub(super) async fn run_sweeps(&self, stop: CancellationToken) -> Result<(), PipelineError> {
        let mut every = tokio::time::interval(SWEEP_EVERY);
        let mut flushes: JoinSet<Result<(), PipelineError>> = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(done) = flushes.join_next() => done??,
                _ = every.tick() => {
                    let gallery = self.0.gallery.current();
                    for cell in self.cells() {
                        cell.scene().pass_time(self.0.clock.now(), &gallery);
                        // Whoever is at it takes along what came since, or the next round does.
                        if let Some(flushing) = cell.begin_flushing() {
                            let pipeline = self.clone();
                            flushes.spawn(async move { pipeline.flush(&flushing.0).await });
                        }
                    }
                    self.0.swept.notify_waiters();
                }
            }
        }
        while let Some(done) = flushes.join_next().await {
            done??;
        }
        Ok(())
    }
}
