//! Follows faces through one camera's frames.
//!
//! In: the detections of each frame, in order, with its capture time. Out: which track each
//! belongs to, and which tracks are lost. Cameras are analysed at whatever rate the sessions
//! allow, so motion is predicted over time, not over frames.
//! Association after `ByteTrack` (Zhang et al., 2022): strong detections first, then the weak
//! ones, which may continue a track but never begin one.
//! Must not know: templates, who anybody is, other cameras.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::event::TrackId;
use crate::face::{Detection, Rect};

/// How detections become tracks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrackPolicy {
    /// A detection of at least this score may begin a track.
    pub score_min: f32,
    /// A track is confirmed once it was seen in this many frames: noise rarely lasts for two.
    pub sightings_min: u32,
    /// A track that was not seen for longer is lost.
    pub unseen_max: Duration,
}

/// A detection and the track it continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The track.
    pub track: TrackId,
    /// The detection's index in the frame's list.
    pub detection: usize,
    /// Whether the track was seen often enough to be believed.
    pub confirmed: bool,
    /// Whether it was out of sight for so long that the face may be another one.
    pub resumed: bool,
}

/// Tracks that overlap their prediction by less than this are not continued by overlap (IoU).
const OVERLAP_MIN: f32 = 0.2;
/// Beyond this distance, in face sizes, a face cannot be the predicted one.
const DISTANCE_MAX: f32 = 1.0;
/// Faces whose sizes differ by more than this factor are not the same.
const SIZE_RATIO_MAX: f32 = 1.7;
/// Unseen for longer, a track must be looked at again before it is believed.
const RESUMED_AFTER: Duration = Duration::from_millis(500);
/// Motion is not predicted further than this: people turn round.
const PREDICT_MAX_SECONDS: f32 = 0.5;
/// How much a new sighting changes the estimated velocity.
const VELOCITY_GAIN: f32 = 0.5;

/// The tracks of one camera.
#[derive(Debug)]
pub struct Tracker {
    policy: TrackPolicy,
    tracks: Vec<Track>,
    next_id: u64,
}

#[derive(Debug)]
struct Track {
    id: TrackId,
    rect: Rect,
    /// Pixels a second, of the centre.
    velocity: (f32, f32),
    seen: Timestamp,
    sightings: u32,
}

impl Track {
    fn predicted(&self, now: Timestamp) -> Rect {
        let seconds = now.since(self.seen).as_secs_f32().min(PREDICT_MAX_SECONDS);
        Rect { x: self.rect.x + self.velocity.0 * seconds, y: self.rect.y + self.velocity.1 * seconds, ..self.rect }
    }

    fn sight(&mut self, rect: Rect, now: Timestamp) {
        let seconds = now.since(self.seen).as_secs_f32();
        if seconds > 0.0 && seconds <= PREDICT_MAX_SECONDS {
            let (from, to) = (self.rect.centre(), rect.centre());
            let toward = |old: f32, new: f32| old + VELOCITY_GAIN * (new - old);
            self.velocity = (toward(self.velocity.0, (to.x - from.x) / seconds), toward(self.velocity.1, (to.y - from.y) / seconds));
        } else {
            self.velocity = (0.0, 0.0);
        }
        (self.rect, self.seen) = (rect, now);
        self.sightings = self.sightings.saturating_add(1);
    }
}

/// One frame's detections and its capture time.
struct Seen<'a> {
    detections: &'a [Detection],
    now: Timestamp,
}

/// How well a face fits a prediction: above 1 by overlap, 0 to 1 by nearness, `None` not at all.
fn affinity(predicted: &Rect, seen: &Rect) -> Option<f32> {
    let (a, b) = (predicted.area().sqrt(), seen.area().sqrt());
    if a <= 0.0 || b <= 0.0 || a.max(b) > a.min(b) * SIZE_RATIO_MAX {
        return None;
    }
    let overlap = predicted.iou(seen);
    if overlap >= OVERLAP_MIN {
        return Some(1.0 + overlap);
    }
    let (from, to) = (predicted.centre(), seen.centre());
    let distance = (to.x - from.x).hypot(to.y - from.y) / (0.5 * (a + b));
    (distance <= DISTANCE_MAX).then_some(1.0 - distance)
}

impl Tracker {
    /// No tracks yet; ids count from `first_id`.
    pub fn new(policy: TrackPolicy, first_id: u64) -> Self {
        Self { policy, tracks: Vec::new(), next_id: first_id }
    }

    /// Assigns the detections of one frame, captured at `now`, to tracks. Detections that neither
    /// continue a track nor may begin one are left out.
    pub fn update(&mut self, detections: &[Detection], now: Timestamp) -> Vec<Sighting> {
        let frame = Seen { detections, now };
        let mut free_tracks: Vec<usize> = (0..self.tracks.len()).collect();
        let is_strong = |i: &usize| detections[*i].score >= self.policy.score_min;
        let (strong, weak): (Vec<usize>, Vec<usize>) = (0..detections.len()).partition(is_strong);
        let (mut sightings, unmatched) = self.associate(&frame, strong, &mut free_tracks);
        sightings.extend(self.associate(&frame, weak, &mut free_tracks).0);
        for detection in unmatched {
            let track = TrackId(self.next_id);
            self.next_id += 1;
            let rect = detections[detection].box_in_frame;
            self.tracks.push(Track { id: track, rect, velocity: (0.0, 0.0), seen: now, sightings: 1 });
            sightings.push(Sighting { track, detection, confirmed: self.policy.sightings_min <= 1, resumed: false });
        }
        sightings
    }

    /// Matches candidates with tracks that are still free; answers the sightings and the
    /// candidates left over. Greedy by affinity: with the handful of faces a door shows, the best
    /// pair first is as good as an optimal assignment, and it cannot trade a sure pair for two
    /// doubtful ones.
    fn associate(&mut self, frame: &Seen<'_>, candidates: Vec<usize>, free_tracks: &mut Vec<usize>) -> (Vec<Sighting>, Vec<usize>) {
        let mut pairs: Vec<(f32, usize, usize)> = Vec::new();
        for &track in free_tracks.iter() {
            let predicted = self.tracks[track].predicted(frame.now);
            pairs.extend(candidates.iter().filter_map(|&d| Some((affinity(&predicted, &frame.detections[d].box_in_frame)?, track, d))));
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        let (mut sightings, mut open) = (Vec::with_capacity(candidates.len()), candidates);
        for (_, index, detection) in pairs {
            let (Some(t), Some(d)) = (free_tracks.iter().position(|t| *t == index), open.iter().position(|d| *d == detection)) else {
                continue;
            };
            free_tracks.swap_remove(t);
            open.remove(d);
            let track = &mut self.tracks[index];
            let resumed = frame.now.since(track.seen) > RESUMED_AFTER;
            track.sight(frame.detections[detection].box_in_frame, frame.now);
            let confirmed = track.sightings >= self.policy.sightings_min;
            sightings.push(Sighting { track: track.id, detection, confirmed, resumed });
        }
        (sightings, open)
    }

    /// Ends the tracks that were not seen for too long at `now`, and answers them.
    pub fn expire(&mut self, now: Timestamp) -> Vec<TrackId> {
        let unseen_max = self.policy.unseen_max;
        let lost = self.tracks.extract_if(.., |track| now.since(track.seen) > unseen_max);
        lost.map(|track| track.id).collect()
    }

    /// Ends one track, because its face turned out to be another person's: the next sighting
    /// begins a new one.
    pub fn end(&mut self, track: TrackId) {
        self.tracks.retain(|t| t.id != track);
    }

    /// Ends every track and answers them.
    pub fn clear(&mut self) -> Vec<TrackId> {
        self.tracks.drain(..).map(|track| track.id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: TrackPolicy = TrackPolicy { score_min: 0.7, sightings_min: 2, unseen_max: Duration::from_secs(2) };

    fn at_ms(ms: i64) -> Timestamp {
        Timestamp::from_micros(ms * 1_000)
    }

    fn face(x: f32, y: f32, side: f32, score: f32) -> Detection {
        Detection { box_in_frame: Rect { x, y, width: side, height: side }, score, ..Detection::default() }
    }

    #[test]
    fn a_walking_face_is_one_track_at_any_analysis_rate() {
        for step_ms in [40, 200, 400] {
            let mut tracker = Tracker::new(POLICY, 1);
            // 150 pixels a second with a face of 80 pixels.
            for n in 0..20_i64 {
                let x = 0.15 * (n * step_ms) as f32;
                let sightings = tracker.update(&[face(x, 50.0, 80.0, 0.9)], at_ms(n * step_ms));
                assert_eq!(sightings.len(), 1);
                assert_eq!(sightings[0].track, TrackId(1), "every {step_ms} ms, frame {n}");
                assert_eq!(sightings[0].confirmed, n > 0);
            }
        }
    }

    #[test]
    fn two_people_who_pass_each_other_keep_their_tracks() {
        let mut tracker = Tracker::new(POLICY, 1);
        for n in 0..40_i64 {
            let step = n as f32 * 10.0;
            let faces = [face(step, 40.0, 60.0, 0.9), face(400.0 - step, 130.0, 60.0, 0.9)];
            for sighting in tracker.update(&faces, at_ms(n * 40)) {
                assert_eq!(sighting.track, TrackId(1 + sighting.detection as u64), "frame {n}");
            }
        }
    }

    #[test]
    fn people_who_stand_close_together_are_each_matched_by_the_best_fit() {
        let mut tracker = Tracker::new(POLICY, 1);
        let faces = [face(0.0, 0.0, 60.0, 0.9), face(30.0, 0.0, 60.0, 0.9), face(60.0, 0.0, 60.0, 0.9)];
        for n in 0..10 {
            for sighting in tracker.update(&faces, at_ms(n * 40)) {
                assert_eq!(sighting.track, TrackId(1 + sighting.detection as u64), "frame {n}");
            }
        }
    }

    #[test]
    fn a_weak_detection_continues_a_track_and_never_begins_one() {
        let mut tracker = Tracker::new(POLICY, 1);
        assert!(tracker.update(&[face(0.0, 0.0, 50.0, 0.5)], at_ms(0)).is_empty());
        tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(40));
        let sightings = tracker.update(&[face(2.0, 0.0, 50.0, 0.5)], at_ms(80));
        assert_eq!(sightings, [Sighting { track: TrackId(1), detection: 0, confirmed: true, resumed: false }]);
    }

    #[test]
    fn a_face_behind_a_pillar_resumes_its_track_and_says_so() {
        let mut tracker = Tracker::new(POLICY, 1);
        tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(0));
        tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(40));
        assert!(tracker.expire(at_ms(1_000)).is_empty());
        let sightings = tracker.update(&[face(5.0, 0.0, 50.0, 0.9)], at_ms(1_000));
        assert_eq!((sightings[0].track, sightings[0].resumed), (TrackId(1), true));
    }

    #[test]
    fn an_unseen_track_is_lost_once() {
        let mut tracker = Tracker::new(POLICY, 7);
        tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(0));
        assert!(tracker.expire(at_ms(2_000)).is_empty());
        assert_eq!(tracker.expire(at_ms(2_001)), [TrackId(7)]);
        assert!(tracker.expire(at_ms(9_000)).is_empty());
        let again = tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(9_000));
        assert_eq!(again[0].track, TrackId(8), "ids are never used twice");
    }

    #[test]
    fn a_face_of_another_size_is_another_track() {
        let mut tracker = Tracker::new(POLICY, 1);
        tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(0));
        let sightings = tracker.update(&[face(-30.0, -30.0, 110.0, 0.9)], at_ms(40));
        assert_eq!(sightings[0].track, TrackId(2));
    }

    #[test]
    fn no_detection_and_no_track_is_used_twice_in_a_frame() {
        let seed = 0x5eed_u64;
        println!("seed {seed:#x}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut tracker = Tracker::new(POLICY, 1);
        for n in 0..500_i64 {
            let count = random.usize(0..8);
            let faces: Vec<_> =
                (0..count).map(|_| face(random.f32() * 300.0, random.f32() * 300.0, 30.0 + random.f32() * 60.0, random.f32())).collect();
            let sightings = tracker.update(&faces, at_ms(n * 40));
            let mut tracks: Vec<_> = sightings.iter().map(|s| s.track).collect();
            let mut detections: Vec<_> = sightings.iter().map(|s| s.detection).collect();
            tracks.sort();
            tracks.dedup();
            detections.sort_unstable();
            detections.dedup();
            assert_eq!((tracks.len(), detections.len()), (sightings.len(), sightings.len()));
            tracker.expire(at_ms(n * 40));
        }
    }
}
