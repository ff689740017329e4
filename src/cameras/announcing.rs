//! Tells the log when cameras come online and go offline.
//!
//! In: the states of the cameras. Out: `CAMERA_ONLINE` and `CAMERA_OFFLINE`, each camera's in turn: what is told of a camera is in the log
//! before its source may be replaced or removed.
//! Must not know: where states come from, why a camera is changed.

use tokio_util::sync::CancellationToken;

use super::Cameras;
use crate::camera::{CameraId, CameraState, Decoding, OfflineReason};
use crate::event::{EndReason, Event, EventKind};
use crate::pipeline::PipelineError;

impl Cameras {
    /// Tells the log whenever a camera comes online or goes offline, until stopped.
    ///
    /// # Errors
    /// [`PipelineError::Log`] when the log cannot be written.
    pub async fn announce(&self, stop: CancellationToken) -> Result<(), PipelineError> {
        loop {
            self.announce_news().await?;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.0.state_changed.notified() => {}
            }
        }
    }

    /// Tells what is not told yet. Nobody who ends a camera's source comes between what is taken to be told and what is written.
    async fn announce_news(&self) -> Result<(), PipelineError> {
        let _order = self.0.announcing.lock().await;
        self.0.pipeline.announce(self.unannounced()).await
    }

    /// Tells that a camera whose source was ended by its operator is offline, if it was told to be online.
    pub(super) async fn announce_end(&self, id: &CameraId) -> Result<(), PipelineError> {
        let _order = self.0.announcing.lock().await;
        let announced = self.running().get_mut(id).and_then(|running| running.announced.take());
        if announced != Some(true) {
            return Ok(());
        }
        let mut event = Event::new(EventKind::CameraOffline, id.as_str(), self.0.clock.now());
        event.message = Some("changed or removed by the operator".into());
        self.0.pipeline.announce(vec![(id.clone(), event, Some(EndReason::CameraRemoved))]).await
    }

    fn unannounced(&self) -> Vec<(CameraId, Event, Option<EndReason>)> {
        let mut news = Vec::new();
        for (id, running) in self.running().iter_mut() {
            let online = match &running.state {
                CameraState::Online { .. } => true,
                CameraState::Offline { reason: OfflineReason::Disabled, .. } | CameraState::Connecting | CameraState::Stalled { .. } => {
                    continue;
                }
                CameraState::Offline { .. } => false,
            };
            if running.announced == Some(online) {
                continue;
            }
            running.announced = Some(online);
            let kind = if online { EventKind::CameraOnline } else { EventKind::CameraOffline };
            let mut event = Event::new(kind, id.as_str(), running.since);
            event.decision_time_us = self.0.clock.now().as_micros();
            event.message = match &running.state {
                CameraState::Offline { message, .. } => Some(message.clone()),
                // It costs what the processor has for all.
                CameraState::Online { decoding: Decoding::InPlaceOfDevice(refusal), .. } => Some(refusal.clone()),
                _ => None,
            };
            news.push((id.clone(), event, (!online).then_some(EndReason::CameraOffline)));
        }
        news
    }
}
