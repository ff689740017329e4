//! Judges from the times of packets and frames whether a camera still lives.
//!
//! In: when the last packet, the first keyframe and the last decoded frame were seen, and the
//! present. Out: a verdict, and when to ask again.
//! A frozen camera keeps its connection open and sends nothing, so nothing but the absence of
//! frames tells of it.
//! Must not know: GStreamer, how times are measured.

use std::time::Duration;

use crate::clock::Timestamp;

/// Without a packet (before the first keyframe) or a decoded frame (after it) for this long, the
/// camera is disconnected.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Some cameras send a keyframe rarely, but none more rarely than this.
pub(super) const KEYFRAME_WAIT_MAX: Duration = Duration::from_secs(60);
/// Without a frame for this long the camera is reported as stalled.
const STALLED_AFTER: Duration = Duration::from_secs(2);
/// How often a stalled camera is looked at, so that its return is told soon.
const STALLED_LOOK: Duration = Duration::from_millis(250);

/// What was seen of one connection so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The newest RTP packet.
    pub(super) packet: Option<Timestamp>,
    /// The first packet of a keyframe.
    pub(super) keyframe: Option<Timestamp>,
    /// The newest decoded frame.
    pub(super) frame: Option<Timestamp>,
    /// The newest picture that was given to the decoder.
    pub(super) given: Option<Timestamp>,
    /// The newest picture that was not given to the decoder, since it was late, or misses packets, or refers to such a one.
    pub(super) skipped: Option<Timestamp>,
}

/// Why a connection is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// No packet came at all.
    NothingCame,
    /// Packets came, then none did.
    PacketsCeased,
    /// Packets come, but no keyframe is among them.
    NoKeyframe,
    /// Packets come, but their pictures are skipped, and no keyframe to begin again with is among them. A new
    /// connection usually begins with one.
    AllSkipped,
    /// Packets come, but nothing can be decoded from them.
    NothingDecodes,
}

/// How a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No frame yet, and no reason to give up.
    Waiting,
    /// Frames come.
    Alive,
    /// No frame for a while.
    Stalled {
        /// When the last one came.
        since: Timestamp,
    },
    /// Over.
    Dead(Death),
}

/// The rules of one connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watchdog {
    began: Timestamp,
}

impl Watchdog {
    /// Watches a connection that was begun at `now`.
    pub(super) fn begun_at(now: Timestamp) -> Self {
        Self { began: now }
    }

    /// The verdict at `now`, and how long it holds when nothing more is seen.
    pub(super) fn judge(&self, seen: &Seen, now: Timestamp) -> (Verdict, Duration) {
        match (seen.frame, seen.keyframe) {
            (Some(frame), _) => Self::judge_running(frame, seen, now),
            (None, Some(keyframe)) => match left(keyframe, SILENCE_MAX, now) {
                Some(rest) => (Verdict::Waiting, rest),
                None => dead(Self::without_frames(seen, now)),
            },
            (None, None) => self.judge_before_keyframe(seen.packet, now),
        }
    }

    fn judge_running(frame: Timestamp, seen: &Seen, now: Timestamp) -> (Verdict, Duration) {
        if let Some(rest) = left(frame, STALLED_AFTER, now) {
            (Verdict::Alive, rest)
        } else if let Some(rest) = left(frame, SILENCE_MAX, now) {
            (Verdict::Stalled { since: frame }, rest.min(STALLED_LOOK))
        } else {
            dead(Self::without_frames(seen, now))
        }
    }

    fn judge_before_keyframe(&self, packet: Option<Timestamp>, now: Timestamp) -> (Verdict, Duration) {
        let silence = left(packet.unwrap_or(self.began), SILENCE_MAX, now);
        let in_all = left(self.began, KEYFRAME_WAIT_MAX, now);
        match (silence, in_all) {
            (Some(silence), Some(in_all)) => (Verdict::Waiting, silence.min(in_all)),
            (Some(_), None) => dead(Death::NoKeyframe),
            (None, _) if packet.is_none() => dead(Death::NothingCame),
            (None, _) => dead(Death::PacketsCeased),
        }
    }

    fn without_frames(seen: &Seen, now: Timestamp) -> Death {
        let came = |time: Option<Timestamp>| time.is_some_and(|time| left(time, STALLED_AFTER, now).is_some());
        // A decoder holds some pictures back; what was given long after the last one that came out was not decoded.
        let is_answered = seen.given.is_none_or(|given| seen.frame.is_some_and(|frame| given.since(frame) < STALLED_AFTER));
        match (came(seen.packet), came(seen.skipped) && is_answered) {
            (false, _) => Death::PacketsCeased,
            (true, true) => Death::AllSkipped,
            (true, false) => Death::NothingDecodes,
        }
    }
}

fn dead(death: Death) -> (Verdict, Duration) {
    (Verdict::Dead(death), Duration::ZERO)
}

/// What is left of `limit` since `from`; `None` when it is used up.
fn left(from: Timestamp, limit: Duration, now: Timestamp) -> Option<Duration> {
    limit.checked_sub(now.since(from)).filter(|rest| !rest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Timestamp {
        Timestamp::default().plus(Duration::from_secs_f64(seconds))
    }

    fn verdict(packet: Option<f64>, keyframe: Option<f64>, frame: Option<f64>, now: f64) -> Verdict {
        let seen = Seen { packet: packet.map(at), keyframe: keyframe.map(at), frame: frame.map(at), ..Seen::default() };
        Watchdog::begun_at(at(0.0)).judge(&seen, at(now)).0
    }

    #[test]
    fn a_camera_that_sends_nothing_is_given_up_after_five_seconds() {
        assert_eq!(verdict(None, None, None, 4.9), Verdict::Waiting);
        assert_eq!(verdict(None, None, None, 5.0), Verdict::Dead(Death::NothingCame));
        assert_eq!(verdict(Some(4.0), None, None, 8.9), Verdict::Waiting);
        assert_eq!(verdict(Some(4.0), None, None, 9.0), Verdict::Dead(Death::PacketsCeased));
    }

    #[test]
    fn a_rare_keyframe_is_waited_for_up_to_a_minute() {
        assert_eq!(verdict(Some(59.0), None, None, 59.9), Verdict::Waiting);
        assert_eq!(verdict(Some(59.9), None, None, 60.0), Verdict::Dead(Death::NoKeyframe));
        assert_eq!(verdict(Some(60.0), Some(58.0), None, 61.0), Verdict::Waiting, "the keyframe came just in time");
    }

    #[test]
    fn a_keyframe_that_cannot_be_decoded_is_noticed_after_five_seconds() {
        assert_eq!(verdict(Some(5.9), Some(1.0), None, 5.9), Verdict::Waiting);
        assert_eq!(verdict(Some(6.0), Some(1.0), None, 6.0), Verdict::Dead(Death::NothingDecodes));
        assert_eq!(verdict(Some(1.0), Some(1.0), None, 6.0), Verdict::Dead(Death::PacketsCeased));
    }

    #[test]
    fn a_frozen_camera_is_stalled_at_two_seconds_and_disconnected_at_five() {
        assert_eq!(verdict(Some(10.0), Some(1.0), Some(10.0), 11.9), Verdict::Alive);
        assert_eq!(verdict(Some(10.0), Some(1.0), Some(10.0), 12.0), Verdict::Stalled { since: at(10.0) });
        assert_eq!(verdict(Some(10.0), Some(1.0), Some(10.0), 14.9), Verdict::Stalled { since: at(10.0) });
        assert_eq!(verdict(Some(10.0), Some(1.0), Some(10.0), 15.0), Verdict::Dead(Death::PacketsCeased));
        assert_eq!(verdict(Some(14.9), Some(1.0), Some(10.0), 15.0), Verdict::Dead(Death::NothingDecodes));
    }

    #[test]
    fn pictures_that_doorward_skips_are_not_held_against_the_decoder() {
        let seen = Seen { packet: Some(at(14.9)), keyframe: Some(at(1.0)), frame: Some(at(10.0)), ..Seen::default() };
        let judge = |skipped: f64, given: f64| {
            let seen = Seen { skipped: Some(at(skipped)), given: Some(at(given)), ..seen };
            Watchdog::begun_at(at(0.0)).judge(&seen, at(15.0)).0
        };
        assert_eq!(judge(14.9, 10.0), Verdict::Dead(Death::AllSkipped));
        assert_eq!(judge(10.5, 14.9), Verdict::Dead(Death::NothingDecodes), "a keyframe came, and nothing of it");
        // Between losses a decoder that gives nothing was given much.
        assert_eq!(judge(14.9, 13.0), Verdict::Dead(Death::NothingDecodes));
    }

    #[test]
    fn the_wait_ends_when_the_verdict_can_change() {
        let watchdog = Watchdog::begun_at(at(0.0));
        let mut now = at(0.0);
        let seen = Seen { packet: Some(at(1.0)), keyframe: Some(at(1.0)), frame: Some(at(1.0)), ..Seen::default() };
        let mut verdicts = Vec::new();
        for _ in 0..40 {
            let (verdict, wait) = watchdog.judge(&seen, now);
            verdicts.dedup();
            verdicts.push(verdict);
            if matches!(verdict, Verdict::Dead(_)) {
                break;
            }
            assert!(!wait.is_zero(), "a wait of zero would spin");
            now = now.plus(wait);
        }
        assert_eq!(now, at(6.0));
        verdicts.dedup();
        assert_eq!(verdicts, [Verdict::Alive, Verdict::Stalled { since: at(1.0) }, Verdict::Dead(Death::PacketsCeased)]);
    }
}
