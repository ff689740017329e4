//! Works out when a picture was taken, on the daemon's clock.
//!
//! In: RTP packets and sender reports with their times of arrival. Out: a capture time a frame,
//! later than every one before, and the camera's delay where it is known.
//! Remembers the newest 256 pictures and the newest 8 reports; older ones are forgotten.
//! Must not know: GStreamer, the network, the camera's idea of the time of day.
//!
//! Without reports a picture was taken when its first packet arrived: all that is known. A sender
//! report (RFC 3550, section 6.4.1) says "my RTP clock now shows R". It arrives at A on the
//! daemon's clock and was sent a network transit earlier, so that a picture with RTP time P was
//! taken at A + (P − R) / 90 kHz, too late by that transit. The least of some reports' results is
//! the one with the least transit, and a window of reports lets it follow a camera's drift.

use std::collections::VecDeque;
use std::time::Duration;

use super::rtp::{RtpHeader, SenderReport, VIDEO_CLOCK_RATE};
use crate::clock::Timestamp;

/// 256 pictures are 10 s at 25 frames a second, far more than a decoder holds back.
const PICTURES_KEPT: usize = 256;
/// About 40 s of reports: a drift of 100 ppm then costs 4 ms at most.
const REPORTS_KEPT: usize = 8;
/// A delay beyond this is no delay but a report that lies.
const DELAY_MAX_US: i64 = 10_000_000;
/// A report may seem to come from before the newest picture by this much: some cameras report the
/// RTP time of the next picture.
const LEAD_MAX_US: i64 = 1_000_000;
/// RTP time and arrival may part by this much from one packet to the next. Beyond, the camera has
/// begun a new count.
const JUMP_MAX_US: i64 = 5_000_000;
/// RTP time goes back by some pictures where these are sent in another order than shown. By this much, and by more than
/// so many pictures, it goes back only when the camera has set its clock, and what was reported before says nothing of the new count.
const BACK_MAX_US: i64 = 1_000_000;
const BACK_MAX_PICTURES: i64 = 4;
/// What comes within so short a time has come in one burst.
const APART_MIN: Duration = Duration::from_millis(500);
/// The estimate is moved by at most a tenth of the time that passes, so that the spacing of
/// pictures stays true to a tenth while a first report, or a better one, is taken up.
const SLEW: i64 = 10;

/// When a picture was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capture {
    /// On the daemon's clock; later than that of the picture before.
    pub(super) time: Timestamp,
    /// From the sensor to the arrival of its first packet, where reports allow to tell.
    pub(super) delay: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Picture {
    rtp_time: u32,
    /// RTP time since the connection began, wrap-arounds undone, in microseconds.
    media_us: i64,
    arrival: Timestamp,
}

/// Keeps the capture times of one camera in order, over all its connections.
#[derive(Debug, Default)]
pub(super) struct CaptureClock {
    last: Option<Timestamp>,
    ssrc: Option<u32>,
    ticks: i64,
    pictures: VecDeque<Picture>,
    /// What to add to a media time to get the daemon's time, by each of the newest reports.
    report_offsets: VecDeque<i64>,
    /// When the first of the newest reports came that say otherwise than all before them.
    late_since: Option<Timestamp>,
    /// The offset in use and the media time it was used at.
    in_use: Option<(i64, i64)>,
}

impl CaptureClock {
    /// Forgets all but the last capture time: a new connection counts anew.
    pub(super) fn reconnect(&mut self) {
        *self = Self { last: self.last, ..Self::default() };
    }

    /// Takes note of an RTP packet.
    pub(super) fn packet(&mut self, header: RtpHeader, arrival: Timestamp) {
        if self.ssrc != Some(header.ssrc) {
            self.reconnect();
            self.ssrc = Some(header.ssrc);
        }
        let Some(newest) = self.pictures.back().copied() else {
            return self.begin(header.rtp_time, arrival);
        };
        if newest.rtp_time == header.rtp_time {
            return;
        }
        let ticks = self.ticks + ticks_between(newest.rtp_time, header.rtp_time);
        let media_us = micros(ticks);
        let jump = (media_us - newest.media_us) - (arrival.as_micros() - newest.arrival.as_micros());
        if jump.abs() > JUMP_MAX_US || newest.media_us - media_us > self.back_max_us() {
            self.reconnect();
            self.ssrc = Some(header.ssrc);
            return self.begin(header.rtp_time, arrival);
        }
        if self.pictures.len() == PICTURES_KEPT {
            self.pictures.pop_front();
        }
        self.ticks = ticks;
        self.pictures.push_back(Picture { rtp_time: header.rtp_time, media_us, arrival });
    }

    /// How far RTP time may go back without being a new count.
    fn back_max_us(&self) -> i64 {
        let spacings = i64::try_from(self.pictures.len()).unwrap_or(i64::MAX) - 1;
        let length =
            self.pictures.back().zip(self.pictures.front()).map_or(0, |(newest, oldest)| (newest.media_us - oldest.media_us).abs());
        if spacings > 0 { BACK_MAX_US.max(BACK_MAX_PICTURES * length / spacings) } else { BACK_MAX_US }
    }

    /// Takes note of a sender report. One of another stream, or one that would make pictures
    /// older than 10 s or younger than their arrival, is not believed.
    pub(super) fn report(&mut self, report: SenderReport, arrival: Timestamp) {
        let Some(newest) = self.pictures.back() else { return };
        if self.ssrc != Some(report.ssrc) {
            return;
        }
        let media_us = micros(self.ticks + ticks_between(newest.rtp_time, report.rtp_time));
        let offset = arrival.as_micros() - media_us;
        let delay = (newest.arrival.as_micros() - newest.media_us) - offset;
        if !(-LEAD_MAX_US..=DELAY_MAX_US).contains(&delay) {
            return;
        }
        if self.report_offsets.iter().min().is_some_and(|least| offset - least > BACK_MAX_US) {
            // It was held up on its way, with all that came in the same burst, or the camera has set its clock back, by less than its
            // pictures are apart: that the next burst says, too.
            let late_since = *self.late_since.get_or_insert(arrival);
            if arrival.since(late_since) < APART_MIN {
                return;
            }
            self.report_offsets.clear();
            self.in_use = None;
        }
        self.late_since = None;
        if self.report_offsets.len() == REPORTS_KEPT {
            self.report_offsets.pop_front();
        }
        self.report_offsets.push_back(offset);
    }

    /// When the first packet of the picture with this RTP time arrived.
    pub(super) fn arrival(&self, rtp_time: u32) -> Option<Timestamp> {
        self.picture(rtp_time).map(|picture| picture.arrival)
    }

    /// The capture time of the decoded picture with this RTP time; `now` stands in for its arrival
    /// where that is not known.
    pub(super) fn capture(&mut self, rtp_time: Option<u32>, now: Timestamp) -> Capture {
        let picture = rtp_time.and_then(|rtp_time| self.picture(rtp_time));
        let (mut time, delay) = picture.map_or((now, None), |picture| self.estimate(picture));
        if let Some(last) = self.last {
            time = time.max(last.plus(Duration::from_micros(1)));
        }
        self.last = Some(time);
        Capture { time, delay }
    }

    fn estimate(&mut self, picture: Picture) -> (Timestamp, Option<Duration>) {
        let arrival_offset = picture.arrival.as_micros() - picture.media_us;
        let Some(&reported) = self.report_offsets.iter().min() else {
            self.in_use = Some((arrival_offset, picture.media_us));
            return (picture.arrival, None);
        };
        // Nothing arrives before it was taken.
        let target = reported.min(arrival_offset);
        let (offset, used_at) = self.in_use.unwrap_or((target, picture.media_us));
        let step_max = (picture.media_us - used_at).abs() / SLEW;
        let offset = (offset + (target - offset).clamp(-step_max, step_max)).min(arrival_offset);
        if arrival_offset - offset > DELAY_MAX_US {
            // A camera whose RTP clock does not run at 90 kHz drifts away from its own reports.
            self.report_offsets.clear();
            self.in_use = Some((arrival_offset, picture.media_us));
            return (picture.arrival, None);
        }
        self.in_use = Some((offset, picture.media_us));
        let delay = Duration::from_micros(u64::try_from(arrival_offset - target).unwrap_or(0));
        (Timestamp::from_micros(picture.media_us + offset), Some(delay))
    }

    fn picture(&self, rtp_time: u32) -> Option<Picture> {
        self.pictures.iter().rev().find(|picture| picture.rtp_time == rtp_time).copied()
    }

    fn begin(&mut self, rtp_time: u32, arrival: Timestamp) {
        self.ticks = 0;
        self.pictures.push_back(Picture { rtp_time, media_us: 0, arrival });
    }
}

/// The signed way from one 32-bit RTP time to another, the shorter way round.
fn ticks_between(from: u32, to: u32) -> i64 {
    i64::from(to.wrapping_sub(from).cast_signed())
}

fn micros(ticks: i64) -> i64 {
    ticks * 1_000_000 / VIDEO_CLOCK_RATE
}

#[cfg(test)]
mod tests;
