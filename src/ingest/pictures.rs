//! Follows the pictures of one connection from their packets to the decoder's output.
//!
//! In: packets and pictures as GStreamer's threads see them. Out: what was seen when, and each
//! picture's times. Remembers which presentation time stands for which RTP time for the newest
//! 256 pictures; older ones are forgotten.
//! Locks are held for a few instructions each, by the connection's two or three threads.
//! Must not know: pipelines, what a frame holds.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gstreamer as gst;

use super::capture_time::{Capture, CaptureClock};
use super::codec::Codec;
use super::cuda::Heard;
use super::failure::Progress;
use super::numbers::Numbers;
use super::rtp;
use super::rtsp::Parts;
use super::watchdog::Seen;
use crate::clock::{Clock, Timestamp};

const PICTURES_KEPT: usize = 256;

/// What was seen of a connection so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Observations {
    pub(super) seen: Seen,
    pub(super) progress: Progress,
}

/// The times of one decoded picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) decode_time: Timestamp,
    pub(super) capture: Capture,
}

/// See the file's head.
pub(super) struct Pictures {
    clock: Arc<dyn Clock>,
    capture: Arc<Mutex<CaptureClock>>,
    observations: Mutex<Observations>,
    refusal: Mutex<Option<String>>,
    heard: Arc<Heard>,
    /// Presentation time (as the jitter buffer made it) and RTP time of the newest pictures.
    rtp_times: Mutex<VecDeque<(gst::ClockTime, u32)>>,
    numbers: Mutex<Numbers>,
}

impl Pictures {
    pub(super) fn new(parts: &Parts) -> Self {
        let pictures = Self {
            clock: parts.clock.clone(),
            capture: parts.capture.clone(),
            observations: Mutex::default(),
            refusal: Mutex::default(),
            heard: Heard::of(parts.settings.camera.clone()),
            rtp_times: Mutex::default(),
            numbers: Mutex::default(),
        };
        lock(&pictures.capture).reconnect();
        pictures
    }

    pub(super) fn observations(&self) -> Observations {
        *lock(&self.observations)
    }

    pub(super) fn progress(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut lock(&self.observations).progress);
    }

    /// An RTP packet came from the network.
    pub(super) fn rtp_arrived(&self, packet: &gst::BufferRef) {
        let now = self.clock.now();
        lock(&self.observations).seen.packet = Some(now);
        let Ok(bytes) = packet.map_readable() else { return };
        if let Some(header) = rtp::header(&bytes) {
            lock(&self.capture).packet(header, now);
        }
        if let Some(numbered) = rtp::numbered(&bytes) {
            lock(&self.numbers).arrived(numbered);
        }
    }

    /// An RTCP packet came from the network.
    pub(super) fn rtcp_arrived(&self, packet: &gst::BufferRef) {
        let now = self.clock.now();
        if let Some(report) = packet.map_readable().ok().and_then(|bytes| rtp::sender_report(&bytes)) {
            lock(&self.capture).report(report, now);
        }
    }

    /// An RTP packet left the jitter buffer, in order and with a presentation time.
    pub(super) fn rtp_ordered(&self, packet: &gst::BufferRef, codec: Codec) {
        let Ok(bytes) = packet.map_readable() else { return };
        let has_keyframe = lock(&self.observations).seen.keyframe.is_some();
        // By the packets and not by what the parser lets through: it passes no broken keyframe on.
        if !has_keyframe && rtp::payload(&bytes).is_some_and(|payload| codec.is_keyframe(payload)) {
            lock(&self.observations).seen.keyframe = Some(self.clock.now());
        }
        let (Some(pts), Some(header)) = (packet.pts(), rtp::header(&bytes)) else { return };
        let mut rtp_times = lock(&self.rtp_times);
        if rtp_times.back().is_some_and(|&(newest, _)| newest == pts) {
            return;
        }
        if rtp_times.len() == PICTURES_KEPT {
            rtp_times.pop_front();
        }
        rtp_times.push_back((pts, header.rtp_time));
    }

    /// Whether packets were lost before one that left the jitter buffer.
    pub(super) fn follows_gap(&self, packet: &gst::BufferRef) -> bool {
        let numbered = packet.map_readable().ok().and_then(|bytes| rtp::numbered(&bytes));
        numbered.is_some_and(|numbered| lock(&self.numbers).follows_gap(numbered))
    }

    /// How long ago the access unit arrived that is about to be decoded.
    pub(super) fn lag(&self, pts: Option<gst::ClockTime>) -> Duration {
        let arrival = self.rtp_time(pts).and_then(|rtp_time| lock(&self.capture).arrival(rtp_time));
        arrival.map_or(Duration::ZERO, |arrival| self.clock.now().since(arrival))
    }

    /// The decoder is opened, by this thread.
    pub(super) fn opened_here(&self) {
        self.heard.begin();
    }

    /// A picture is given to the decoder, by this thread.
    pub(super) fn given(&self) {
        self.heard.begin();
        lock(&self.observations).seen.given = Some(self.clock.now());
    }

    /// A picture was not given to the decoder.
    pub(super) fn skipped(&self) {
        lock(&self.observations).seen.skipped = Some(self.clock.now());
    }

    /// A picture left the decoder, which may be none that can be used.
    pub(super) fn decoded(&self, pts: Option<gst::ClockTime>) -> Stamp {
        let rtp_time = self.rtp_time(pts);
        let decode_time = self.clock.now();
        let capture = lock(&self.capture).capture(rtp_time, decode_time);
        Stamp { decode_time, capture }
    }

    /// A picture that was decoded at this time can be used.
    pub(super) fn used(&self, decode_time: Timestamp) {
        self.heard.forget();
        lock(&self.observations).seen.frame = Some(decode_time);
    }

    /// What the decoder warned of since the last picture that can be used, if it did.
    pub(super) fn warning(&self) -> Option<String> {
        self.heard.first()
    }

    /// A picture cannot be used, for this reason.
    pub(super) fn refused(&self, why: String) {
        *lock(&self.refusal) = Some(why);
    }

    /// Why a picture could not be used last, if any could not.
    pub(super) fn refusal(&self) -> Option<String> {
        lock(&self.refusal).clone()
    }

    fn rtp_time(&self, pts: Option<gst::ClockTime>) -> Option<u32> {
        let pts = pts?;
        lock(&self.rtp_times).iter().rev().find(|&&(known, _)| known == pts).map(|&(_, rtp_time)| rtp_time)
    }
}

/// A panic elsewhere leaves nothing half-written in these values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
