//! Ends what is over in a camera's scene: tracks, visits that are past a deadline, everybody when the camera goes.
//!
//! In: the time, by a frame or by the clock. Out: the scene's events of what ended.
//! Only a frame tells that somebody is not there. The clock ends tracks when no frame has come for seconds: until then the camera may
//! be looked at rarely, by its operator's will or because there is too much to look at, and nobody is gone whom nobody looked for.
//! Must not know: how faces are followed, what is told of an event.

use super::Scene;
use crate::clock::Timestamp;
use crate::event::{EndReason, TrackId};
use crate::gallery::GalleryVersion;
use crate::pipeline::matching::judge;
use crate::visit::Ending;

impl Scene {
    /// Ends what a frame of `now`, whose faces were followed, shows to be over.
    pub fn sweep(&mut self, now: Timestamp, gallery: &GalleryVersion) {
        let lost = self.tracker.expire(now);
        self.sweep_without(lost, now, gallery);
    }

    /// Ends what is over though no frame says so, when it is `now` elsewhere. A replay stands still between its frames.
    pub fn pass_time(&mut self, now: Timestamp, gallery: &GalleryVersion) {
        if self.settings.measure {
            let present = self.present(now);
            let lost = self.tracker.expire_in_silence(present);
            self.sweep_without(lost, present, gallery);
        }
    }

    /// Ends the tracks that are `lost` and the visits past their deadline.
    fn sweep_without(&mut self, lost: Vec<TrackId>, now: Timestamp, gallery: &GalleryVersion) {
        for track in lost {
            self.end(track, Ending { reason: EndReason::Gone, time: now }, gallery);
        }
        let policy = &self.settings.policy;
        self.visits.overdue(now, |fused| judge(policy, fused, (gallery, gallery)));
        if let Some(shadow) = &mut self.shadow {
            shadow.sweep(now, gallery);
        }
        self.tell_all(None);
    }

    /// What time it is in the scene when it is `now` elsewhere: frames tell the time, and they come
    /// late from cameras that delay them. Measured against the present, their visits would be over
    /// before the next frame.
    fn present(&self, now: Timestamp) -> Timestamp {
        now.minus(self.lag)
    }

    /// Ends every visit, because the camera shows nothing any more.
    pub fn clear(&mut self, reason: EndReason, now: Timestamp, gallery: &GalleryVersion) {
        self.tracker.clear();
        let policy = &self.settings.policy;
        self.visits.end_all(Ending { reason, time: now }, |fused| judge(policy, fused, (gallery, gallery)));
        if let Some(shadow) = &mut self.shadow {
            shadow.end_all(Ending { reason, time: now }, gallery);
        }
        self.tell_all(None);
    }

    /// Ends every visit, because the camera's connection is over. What was decoded by `now` and is still on its way here is of that
    /// connection, too, and begins nothing: a visit of it would begin after the camera was told to be offline.
    pub fn disconnect(&mut self, reason: EndReason, now: Timestamp, gallery: &GalleryVersion) {
        self.clear(reason, now, gallery);
        self.disconnected = Some(now);
    }

    /// Ends every visit and takes no further frame.
    pub fn close(&mut self, reason: EndReason, now: Timestamp, gallery: &GalleryVersion) {
        self.clear(reason, now, gallery);
        self.closed = true;
    }

    pub(super) fn end(&mut self, track: TrackId, ending: Ending, gallery: &GalleryVersion) {
        let policy = &self.settings.policy;
        self.visits.ended(track, ending, |fused| judge(policy, fused, (gallery, gallery)));
        if let Some(shadow) = &mut self.shadow {
            shadow.ended(track, ending, gallery);
        }
        self.tell_all(None);
    }
}
