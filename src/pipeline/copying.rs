//! Copies frames for people to look at: best shots, and what onlookers asked for.
//!
//! In: frames, where inference has them. Out: copies in the host's memory.
//! A frame that its device does not give is told, and not kept.
//! Must not know: which picture is the best.

use std::sync::PoisonError;

use super::{SceneCell, SeenFrame};
use crate::face::Detection;
use crate::frame::Frame;

/// A copy in the host's memory. A device's driver is waited for, so no lock is held here, nor a thread of the runtime.
pub(super) async fn copied(frame: &Frame) -> Option<Frame> {
    let copied = if frame.device_pixels().is_some() {
        let there = frame.clone();
        tokio::task::spawn_blocking(move || there.copied()).await.map_err(|error| error.to_string())
    } else {
        Ok(frame.copied())
    };
    let copied = copied.and_then(|copied| copied.map_err(|error| error.to_string()));
    copied.inspect_err(|error| tracing::warn!(%error, camera = %frame.camera, "a picture could not be kept or shown")).ok()
}

/// Hands a copy of the frame to whoever asked for the next one.
pub(super) async fn show_onlookers(cell: &SceneCell, frame: &Frame, detections: &[Detection]) {
    let waiting = std::mem::take(&mut *cell.onlookers.lock().unwrap_or_else(PoisonError::into_inner));
    for onlooker in waiting {
        let strong = detections.iter().filter(|detection| detection.score >= cell.score_min);
        let boxes = strong.map(|detection| detection.box_in_frame).collect();
        if let Some(frame) = copied(frame).await {
            // Whoever gave up waiting misses nothing.
            drop(onlooker.send(SeenFrame { frame, boxes }));
        }
    }
}
