//! The watchdog's token, and what is stuck.
//!
//! In: what begins and ends, on the injected clock. Out: the token, once every stage has let it pass; a name of what has been under
//! way for far too long. Whoever waits for the token is held up, nobody else.
//! Must not know: who asks, what the work is.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Pipeline, PipelineError, Shared};
use crate::infer::Lane;

/// What is under way for longer is stuck. Far longer than a crowd in a photo takes a small machine, or a folder of photos a slow
/// disk: a restart that was not needed is worse than one that comes late.
pub const STUCK_AFTER: Duration = Duration::from_secs(120);

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

    fn name(self) -> &'static str {
        match self {
            Self::Batch(_) => "a batch of frames, on its way to the log",
            Self::Telling(_) => "what a camera tells, on its way to the log",
            Self::Job(_) => "a session, at one job",
            Self::FramesAfter(_) => "frames that nobody takes",
        }
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
    /// Sends a token through the stages and waits until it is back: a round of sweeps (which takes every scene's lock), a session,
    /// the log and its store, each of which is told `at` when the token comes there. Without cameras everything is idle, and the
    /// token comes back.
    ///
    /// # Errors
    /// [`PipelineError`] when a stage has ended.
    pub async fn pass_token(&self, at: impl Fn(&'static str)) -> Result<(), PipelineError> {
        at("the sweeps of all cameras");
        self.0.swept.notified().await;
        at("the sessions");
        self.0.engine.detect(Lane::Live, Vec::new()).await?;
        at("the store");
        Ok(self.0.events.pass_token().await?)
    }

    /// Takes note of work that begins.
    pub(super) fn begin(&self, work: impl FnOnce(u64) -> Work) -> UnderWay<'_> {
        let work = work(self.0.begun.fetch_add(1, Ordering::Relaxed));
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner).insert(work, self.0.clock.now());
        UnderWay(&self.0, work)
    }

    /// What has been under way for too long, if anything has. To be asked often: some of it is seen only then.
    pub fn stuck(&self) -> Option<&'static str> {
        let frames_wait = self.0.intake.is_ready().then(|| Work::FramesAfter(self.0.batches.load(Ordering::Relaxed)));
        let seen: Vec<Work> = self.0.engine.jobs().into_iter().map(Work::Job).chain(frames_wait).collect();
        let now = self.0.clock.now();
        let mut under_way = self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.retain(|work, _| !work.is_seen() || seen.contains(work));
        for work in seen {
            under_way.entry(work).or_insert(now);
        }
        under_way.iter().find(|(_, since)| now.since(**since) >= STUCK_AFTER).map(|(work, _)| work.name())
    }
}
