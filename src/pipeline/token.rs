//! The watchdog's token, and what keeps it.
//!
//! In: what begins and ends, on the injected clock. Out: the token, once every stage has let it pass; one line in the log that names
//! what is stuck. Whoever waits for the token is held up, nobody else.
//! Must not know: who waits for it, what the work is.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Pipeline, PipelineError, Shared};
use crate::infer::Lane;

/// A batch, or what a camera tells, that is under way for longer is stuck.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(30);
/// A session that is at one job for longer is stuck, and so is whoever takes batches, where frames wait and none is taken. A crowd in
/// a photo may take a small machine long, and a restart that was not needed is worse than one that comes late.
pub(super) const LONG_STUCK_AFTER: Duration = Duration::from_secs(300);
/// How often what is stuck is looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What may be stuck, each with a number by which it is known from the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Work {
    /// A batch, from the slots to the log.
    Batch(u64),
    /// What one camera tells, from its scene to the log.
    Telling(u64),
    /// A session's job, whoever asked for it.
    Job(u64),
    /// Frames that may be taken, and were not since that batch.
    FramesAfter(u64),
}

impl Work {
    /// Whether nobody says when it begins and ends: it is seen by whoever passes by.
    fn is_seen(self) -> bool {
        matches!(self, Self::Job(_) | Self::FramesAfter(_))
    }

    fn stuck_after(self) -> Duration {
        if self.is_seen() { LONG_STUCK_AFTER } else { STUCK_AFTER }
    }
}

/// Work is under way as long as this is there.
pub(super) struct UnderWay<'a>(&'a Shared, Work);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Pipeline {
    /// Sends a token through the stages and waits until it is back: past what is under way, through the slots, a round of sweeps (which
    /// takes every scene's lock), a session, the log and its store. What is stuck keeps it. Without cameras everything is idle, and the
    /// token comes back.
    ///
    /// # Errors
    /// [`PipelineError`] when a stage has ended.
    pub async fn pass_token(&self) -> Result<(), PipelineError> {
        let mut is_told = false;
        while let Some(work) = self.stuck() {
            if !std::mem::replace(&mut is_told, true) {
                tracing::error!(?work, "stuck: unless it goes on, the watchdog ends the daemon, where there is one");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.0.swept.notified().await;
        self.0.engine.detect(Lane::Live, Vec::new()).await?;
        Ok(self.0.events.pass_token().await?)
    }

    /// Takes note of work that begins.
    pub(super) fn begin(&self, work: impl FnOnce(u64) -> Work) -> UnderWay<'_> {
        let work = work(self.0.begun.fetch_add(1, Ordering::Relaxed));
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(work, self.0.clock.now());
        UnderWay(&self.0, work)
    }

    /// What has been under way for too long, if anything has.
    pub(super) fn stuck(&self) -> Option<Work> {
        let frames_wait = self.0.intake.is_ready().then(|| Work::FramesAfter(self.0.batches.load(Ordering::Relaxed)));
        let seen: Vec<Work> = self.0.engine.jobs().into_iter().map(Work::Job).chain(frames_wait).collect();
        let now = self.0.clock.now();
        let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|work, _| !work.is_seen() || seen.contains(work));
        for work in seen {
            under_way.entry(work).or_insert(now);
        }
        under_way.iter().find(|(work, since)| now.since(**since) >= work.stuck_after()).map(|(work, _)| *work)
    }
}
