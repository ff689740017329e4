//! What a camera's source reports becomes the camera's state.
//!
//! In: reports, from any thread. Out: the state in the record of cameras, and a word to who waits for it; whether sources report at all.
//! A source that another one has replaced is not listened to: it may take long to end.
//! Must not know: how sources are begun and ended, the store's contents, events.

use std::sync::{PoisonError, Weak};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Cameras, Shared};
use crate::camera::{CameraId, CameraState, OfflineReason};
use crate::clock::Timestamp;
use crate::ingest::StateSink;
use crate::store::StoreError;

/// A source of which nothing was heard for so long after it should have been is stuck: to load decoders from a slow disk takes long.
pub(super) const SOURCE_STUCK_AFTER: Duration = Duration::from_secs(300);

/// Where a source reports; a weak hold, so that a source that is slow to end keeps nothing alive.
pub(super) struct States {
    pub(super) shared: Weak<Shared>,
    /// Cancelled when another source speaks for the camera.
    pub(super) source: CancellationToken,
}

impl StateSink for States {
    fn state(&self, camera: &CameraId, state: CameraState) {
        let Some(shared) = self.shared.upgrade() else { return };
        let now = shared.clock.now();
        let mut running = shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        if self.source.is_cancelled() {
            return;
        }
        if let Some(running) = running.get_mut(camera) {
            // Attempts to connect are part of one absence: it is told since when the camera is gone.
            if !(is_away(&running.state) && is_away(&state)) {
                running.since = now;
            }
            // Nothing is to be heard of it between two attempts.
            running.heard_by = if let CameraState::Offline { next_attempt_time: Some(next), .. } = &state { *next } else { now };
            running.state = state;
        }
        drop(running);
        shared.version.send_modify(|version| *version += 1);
        shared.state_changed.notify_one();
    }

    fn works(&self, camera: &CameraId, next: Timestamp) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut running = shared.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = running.get_mut(camera).filter(|_| !self.source.is_cancelled()) {
            running.heard_by = next;
        }
    }
}

impl Cameras {
    /// What is stuck, as the watchdog is told: only all sources together, where there are any. One that is stuck beside others is
    /// not: ending the daemon would take all the others away for it, again and again.
    pub fn stuck(&self) -> Option<&'static str> {
        let (now, running) = (self.0.clock.now(), self.running());
        let mut sources = running.values().filter(|running| running.source.is_some()).peekable();
        let all_stuck = sources.peek().is_some() && sources.all(|running| now.since(running.heard_by) >= SOURCE_STUCK_AFTER);
        all_stuck.then_some("the source of every camera")
    }
}

fn is_away(state: &CameraState) -> bool {
    matches!(state, CameraState::Connecting | CameraState::Offline { .. })
}

/// Of a camera that is not to be watched.
pub(super) fn disabled() -> CameraState {
    CameraState::Offline { reason: OfflineReason::Disabled, message: "disabled by the operator".into(), next_attempt_time: None }
}

/// Of a camera that cannot be connected to, for want of what is in the store.
pub(super) fn without_credential(error: &StoreError) -> CameraState {
    let message = format!("its credential cannot be read: {error}; set it anew, or start the daemon again");
    CameraState::Offline { reason: OfflineReason::Other, message, next_attempt_time: None }
}
