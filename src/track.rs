//! Follows faces through one camera's frames.
//!
//! In: the detections of each frame, in order, with its capture time. Out: which track each
//! belongs to, and which tracks are lost. Cameras are analysed at whatever rate the sessions
//! allow, so motion is predicted over time, not over frames, and a face is looked for as far away
//! as somebody walks from one frame to the next.
//! Association after `ByteTrack` (Zhang et al., 2022): strong detections first, then the weak
//! ones, which may continue a track but never begin one.
//! Must not know: templates, who anybody is, other cameras.

use std::collections::BTreeMap;
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
    /// Whether it was out of sight for so long, or is found so far away, that the face may be another one.
    pub resumed: bool,
}

/// Tracks that overlap their prediction by less than this are not continued by overlap (IoU).
const OVERLAP_MIN: f32 = 0.2;
/// Beyond this distance, in face sizes, a face cannot be the predicted one, unless nobody looked for a while.
const DISTANCE_MAX: f32 = 1.0;
/// Faces whose sizes differ by more than this factor are not the same, unless nobody looked for a while.
const SIZE_RATIO_MAX: f32 = 1.7;
/// Whoever walks gets on by a face's size in this time: 0.17 m at 1.4 m/s.
const FACE_SIZE_WALKED_IN: Duration = Duration::from_millis(125);
/// Frames are never taken to be further apart than at the lowest rate.
const APART_MAX: Duration = Duration::from_secs(1);
/// A face is looked for at no more than this many face sizes: as far as somebody walks in a second, which is how far apart
/// frames are at the lowest rate.
const REACH_MAX: f32 = 8.0;
/// Who comes nearer meanwhile looks larger: so much more may sizes differ for each face size that somebody may have walked.
const SIZE_RATIO_GROWTH: f32 = 0.15;
/// Unseen for longer, a track must be looked at again before it is believed.
const RESUMED_AFTER: Duration = Duration::from_millis(500);
/// Without a frame for longer, a camera shows nothing more: three times as long as frames are apart at the lowest rate, and before
/// its connection is given up.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// Motion is not predicted further than this: people turn round.
const PREDICT_MAX: Duration = Duration::from_millis(500);
/// But where frames are few it is predicted from one to the next, if that is no further than this: else whoever follows
/// somebody would be taken for them.
const PREDICT_TO_NEXT_MAX: Duration = Duration::from_millis(1_500);
/// How much a new sighting changes the estimated velocity.
const VELOCITY_GAIN: f32 = 0.5;

/// The tracks of one camera.
#[derive(Debug)]
pub struct Tracker {
    policy: TrackPolicy,
    tracks: Vec<Track>,
    next_id: u64,
    /// When the newest frame was captured.
    updated: Option<Timestamp>,
    /// How far frames usually are apart.
    frames_apart: Duration,
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
    fn predicted(&self, frame: &Seen<'_>) -> Rect {
        let seconds = frame.now.since(self.seen).min(frame.predict_max()).as_secs_f32();
        Rect { x: self.rect.x + self.velocity.0 * seconds, y: self.rect.y + self.velocity.1 * seconds, ..self.rect }
    }

    /// How well a face fits somebody who walked on, or has stopped, since the frame before.
    fn within_walk(&self, rect: &Rect, frame: &Seen<'_>) -> Option<f32> {
        let (from_here, size_ratio) = apart(&self.rect, rect)?;
        let distance = apart(&self.predicted(frame), rect)?.0.min(from_here);
        let reach = frame.reach();
        let is_alike = size_ratio <= SIZE_RATIO_MAX + SIZE_RATIO_GROWTH * (reach - DISTANCE_MAX);
        (is_alike && distance <= reach).then_some(-distance)
    }

    fn sight(&mut self, rect: Rect, frame: &Seen<'_>) {
        let unseen = frame.now.since(self.seen);
        if !unseen.is_zero() && unseen <= frame.predict_max() {
            let (from, to, seconds) = (self.rect.centre(), rect.centre(), unseen.as_secs_f32());
            // Over a longer time a face moves by far more than its box trembles: two sightings tell how fast.
            let gain = if self.sightings == 1 && unseen > FACE_SIZE_WALKED_IN { 1.0 } else { VELOCITY_GAIN };
            let toward = |old: f32, new: f32| old + gain * (new - old);
            self.velocity = (toward(self.velocity.0, (to.x - from.x) / seconds), toward(self.velocity.1, (to.y - from.y) / seconds));
        } else {
            self.velocity = (0.0, 0.0);
        }
        (self.rect, self.seen) = (rect, frame.now);
        self.sightings = self.sightings.saturating_add(1);
    }
}

/// One frame's detections, its capture time, and for how long nobody had looked.
struct Seen<'a> {
    detections: &'a [Detection],
    now: Timestamp,
    unwatched: Duration,
}

impl Seen<'_> {
    /// How far somebody walks while nobody looks, in face sizes. That is the time between two frames, not the time that a face was
    /// unseen: where frames follow each other closely, whoever is missed in some of them is not looked for everywhere.
    fn reach(&self) -> f32 {
        (self.unwatched.as_secs_f32() / FACE_SIZE_WALKED_IN.as_secs_f32()).clamp(DISTANCE_MAX, REACH_MAX)
    }

    fn predict_max(&self) -> Duration {
        self.unwatched.clamp(PREDICT_MAX, PREDICT_TO_NEXT_MAX)
    }
}

/// How well a face fits a prediction: above 1 by overlap, 0 to 1 by nearness, `None` not at all.
fn affinity(predicted: &Rect, seen: &Rect) -> Option<f32> {
    let (distance, size_ratio) = apart(predicted, seen)?;
    if size_ratio > SIZE_RATIO_MAX {
        return None;
    }
    let overlap = predicted.iou(seen);
    if overlap >= OVERLAP_MIN {
        return Some(1.0 + overlap);
    }
    (distance <= DISTANCE_MAX).then_some(1.0 - distance)
}

/// How far in face sizes two faces are from each other, and by what factor their sizes differ.
fn apart(a: &Rect, b: &Rect) -> Option<(f32, f32)> {
    let (size_a, size_b) = (a.area().sqrt(), b.area().sqrt());
    let (from, to) = (a.centre(), b.centre());
    let is_there = size_a > 0.0 && size_b > 0.0;
    is_there.then(|| ((to.x - from.x).hypot(to.y - from.y) / (0.5 * (size_a + size_b)), size_a.max(size_b) / size_a.min(size_b)))
}

/// A track, a detection, and how well they fit.
type Pair = (f32, usize, usize);

/// Gives as many tracks as possible a face that they may have walked to, of `pairs` with the best first: where people walk one behind
/// the other, the nearest face is often the next person's, and by the best pair alone one of them would be nobody.
fn pair_up(pairs: &[Pair]) -> BTreeMap<usize, usize> {
    let mut track_of = BTreeMap::new();
    for (n, (_, track, _)) in pairs.iter().enumerate() {
        if pairs[..n].iter().all(|(_, earlier, _)| earlier != track) {
            claim(*track, pairs, &mut track_of, &mut Vec::new());
        }
    }
    track_of
}

/// Whether `track` got a face, if another track had to take its next best for it.
fn claim(track: usize, pairs: &[Pair], track_of: &mut BTreeMap<usize, usize>, tried: &mut Vec<usize>) -> bool {
    for (.., detection) in pairs.iter().filter(|(_, of, _)| *of == track) {
        if tried.contains(detection) {
            continue;
        }
        tried.push(*detection);
        let holder = track_of.get(detection).copied();
        if holder.is_none_or(|holder| claim(holder, pairs, track_of, tried)) {
            track_of.insert(*detection, track);
            return true;
        }
    }
    false
}

impl Tracker {
    /// No tracks yet; ids count from `first_id`.
    pub fn new(policy: TrackPolicy, first_id: u64) -> Self {
        Self { policy, tracks: Vec::new(), next_id: first_id, updated: None, frames_apart: Duration::ZERO }
    }

    /// How far frames usually are apart, by those so far: whoever was unseen for hardly longer was never out of sight. It is the camera's
    /// and not a track's, since a face can hide as often as it likes.
    pub fn frames_apart(&self) -> Duration {
        self.frames_apart
    }

    /// Assigns the detections of one frame, captured at `now`, to tracks. Detections that neither
    /// continue a track nor may begin one are left out.
    pub fn update(&mut self, detections: &[Detection], now: Timestamp) -> Vec<Sighting> {
        let unwatched = self.updated.map_or(Duration::ZERO, |before| now.since(before));
        let frame = Seen { detections, now, unwatched };
        self.updated = Some(now);
        let apart = unwatched.min(APART_MAX);
        self.frames_apart = if self.frames_apart.is_zero() { apart } else { (3 * self.frames_apart + apart) / 4 };
        let mut free_tracks: Vec<usize> = (0..self.tracks.len()).collect();
        let is_strong = |i: &usize| detections[*i].score >= self.policy.score_min;
        let (strong, weak): (Vec<usize>, Vec<usize>) = (0..detections.len()).partition(is_strong);
        let (mut sightings, unmatched) = self.associate(&frame, strong, &mut free_tracks);
        sightings.extend(self.associate(&frame, weak, &mut free_tracks).0);
        let (walked, unmatched) = self.associate_walked(&frame, unmatched, &free_tracks);
        sightings.extend(walked);
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
        let (mut sightings, mut open) = (Vec::with_capacity(candidates.len()), candidates);
        for (_, track, detection) in self.pairs((free_tracks, &open), frame, |track, rect| affinity(&track.predicted(frame), rect)) {
            if free_tracks.contains(&track) && open.contains(&detection) {
                sightings.push(self.sight((track, detection), frame, false));
                free_tracks.retain(|free| *free != track);
                open.retain(|candidate| *candidate != detection);
            }
        }
        (sightings, open)
    }

    /// Matches what is left with the tracks that are left, whose faces may have walked there since the frame before.
    fn associate_walked(&mut self, frame: &Seen<'_>, mut open: Vec<usize>, free_tracks: &[usize]) -> (Vec<Sighting>, Vec<usize>) {
        let mut sightings = Vec::new();
        if !open.is_empty() && frame.reach() > DISTANCE_MAX {
            let walked = self.pairs((free_tracks, &open), frame, |track, rect| track.within_walk(rect, frame));
            for (detection, track) in pair_up(&walked) {
                sightings.push(self.sight((track, detection), frame, true));
                open.retain(|candidate| *candidate != detection);
            }
        }
        (sightings, open)
    }

    /// The pairs that fit at all, the best first.
    fn pairs(&self, (tracks, candidates): (&[usize], &[usize]), frame: &Seen<'_>, fit: impl Fn(&Track, &Rect) -> Option<f32>) -> Vec<Pair> {
        let mut pairs: Vec<Pair> = Vec::new();
        for &track in tracks {
            let of_track = |&d: &usize| Some((fit(&self.tracks[track], &frame.detections[d].box_in_frame)?, track, d));
            pairs.extend(candidates.iter().filter_map(of_track));
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        pairs
    }

    fn sight(&mut self, (track, detection): (usize, usize), frame: &Seen<'_>, is_far: bool) -> Sighting {
        let track = &mut self.tracks[track];
        // Of a track that nobody believed yet nothing is known that another face could be taken for.
        let was_confirmed = track.sightings >= self.policy.sightings_min;
        let resumed = was_confirmed && (is_far || frame.now.since(track.seen) > RESUMED_AFTER);
        track.sight(frame.detections[detection].box_in_frame, frame);
        Sighting { track: track.id, detection, confirmed: track.sightings >= self.policy.sightings_min, resumed }
    }

    /// Ends the tracks that the frame of `now` and those before it have not shown for too long, and answers them.
    pub fn expire(&mut self, now: Timestamp) -> Vec<TrackId> {
        let unseen_max = self.policy.unseen_max;
        let lost = self.tracks.extract_if(.., |track| now.since(track.seen) > unseen_max);
        lost.map(|track| track.id).collect()
    }

    /// Ends every track once no frame was looked at for so long that none is on its way, and answers them. Before that a track that was
    /// not seen is one that nobody looked for.
    pub fn expire_in_silence(&mut self, now: Timestamp) -> Vec<TrackId> {
        let silent = self.updated.map_or(Duration::ZERO, |newest| now.since(newest));
        if silent > self.policy.unseen_max.max(SILENT_AFTER) { self.clear() } else { Vec::new() }
    }

    /// The face of a track turned out to be another person's, who has a track of their own from now on: it was seen once.
    pub fn begin_anew(&mut self, track: TrackId) {
        if let Some(known) = self.tracks.iter_mut().find(|known| known.id == track) {
            (known.id, known.sightings, known.velocity) = (TrackId(self.next_id), 1, (0.0, 0.0));
            self.next_id += 1;
        }
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
    fn whoever_walks_at_a_walking_pace_is_one_track_from_one_frame_a_second_on() {
        for rate in [1, 2, 3, 5, 8, 25] {
            let mut tracker = Tracker::new(POLICY, 1);
            // 1.3 metres a second past a camera that shows a face of 0.17 metres as 57 pixels.
            for n in 0..4 * rate {
                let x = 1.3 / 0.17 * 57.0 * n as f32 / rate as f32;
                let sightings = tracker.update(&[face(x, 50.0, 57.0, 0.9)], at_ms(i64::from(n * 1_000 / rate)));
                assert_eq!((sightings.len(), sightings[0].track), (1, TrackId(1)), "{rate} a second, frame {n}");
                assert_eq!(sightings[0].confirmed, n > 0, "{rate} a second, frame {n}");
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
    fn without_a_frame_a_track_is_lost_only_once_the_camera_is_silent() {
        let mut tracker = Tracker::new(POLICY, 7);
        assert!(tracker.expire_in_silence(at_ms(9_000)).is_empty());
        tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(10_000));
        tracker.update(&[], at_ms(11_000));
        assert!(tracker.expire_in_silence(at_ms(14_000)).is_empty());
        assert_eq!(tracker.expire_in_silence(at_ms(14_001)), [TrackId(7)]);
    }

    #[test]
    fn frames_are_as_far_apart_as_they_usually_were() {
        let mut tracker = Tracker::new(POLICY, 1);
        let mut now = 0;
        let mut after = |spacing_ms: &[i64]| {
            for ms in spacing_ms {
                now += ms;
                tracker.update(&[], at_ms(now));
            }
            tracker.frames_apart()
        };
        assert_eq!(after(&[0]), Duration::ZERO, "of one frame nobody knows");
        assert_eq!(after(&[1_000]), Duration::from_millis(1_000));
        assert!(after(&[40; 30]) < Duration::from_millis(42));
        assert!(after(&[60_000]) < Duration::from_millis(300), "one long gap is not usual");
        assert!((800..=1_000).contains(&after(&[1_500; 8]).as_millis()), "never more than at the lowest rate");
    }

    #[test]
    fn whoever_takes_the_place_of_a_tracks_face_has_been_seen_once() {
        let mut tracker = Tracker::new(POLICY, 1);
        tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(0));
        tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(40));
        tracker.begin_anew(TrackId(1));
        let sightings = tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(80));
        assert_eq!(sightings, [Sighting { track: TrackId(2), detection: 0, confirmed: true, resumed: false }]);
    }

    #[test]
    fn whoever_is_found_as_far_away_as_somebody_walks_may_be_another_one() {
        let mut tracker = Tracker::new(POLICY, 1);
        for (n, x) in [0.0, 0.0, 110.0].into_iter().enumerate() {
            let sightings = tracker.update(&[face(x, 0.0, 50.0, 0.9)], at_ms(n as i64 * 400));
            assert_eq!((sightings[0].track, sightings[0].resumed), (TrackId(1), n == 2), "frame {n}");
        }
    }

    #[test]
    fn where_frames_are_many_nobody_is_looked_for_as_far_as_where_they_are_few() {
        let mut tracker = Tracker::new(POLICY, 1);
        tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(0));
        tracker.update(&[face(0.0, 0.0, 50.0, 0.9)], at_ms(40));
        (2..30).for_each(|n| drop(tracker.update(&[], at_ms(n * 40))));
        let sightings = tracker.update(&[face(110.0, 0.0, 50.0, 0.9)], at_ms(1_200));
        assert_eq!(sightings[0].track, TrackId(2), "out of sight for a second, which is no second between two frames");
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
