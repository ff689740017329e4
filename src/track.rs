//! Follows faces through one camera's frames.
//!
//! In: the detections of each frame, in order, with its capture time. Out: which track each
//! belongs to, and which tracks are lost. Cameras are analysed at whatever rate the sessions
//! allow, so motion is predicted over time, not over frames. Where frames are few, a face that was
//! seen once is looked for as far away as somebody walks from one to the next; whoever is believed
//! has a velocity by then, and is looked for where it leads.
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
/// Whoever walks gets on by a face's size in this time: 0.17 m at 1.4 m/s.
const FACE_SIZE_WALKED_IN: Duration = Duration::from_millis(125);
/// Frames are never taken to be further apart than at the lowest rate.
const APART_MAX: Duration = Duration::from_secs(1);
/// A face that was seen once is looked for at no more than this many face sizes: as far as somebody walks in a second, which is how
/// far apart frames are at the lowest rate.
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

    /// How well a face fits somebody who was seen once so far and has walked on since the frame before.
    fn within_walk(&self, rect: &Rect, frame: &Seen<'_>) -> Option<f32> {
        let (distance, size_ratio) = apart(&self.rect, rect)?;
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

/// One frame's detections, its capture time, and when the frame before was captured.
struct Seen<'a> {
    detections: &'a [Detection],
    now: Timestamp,
    before: Option<Timestamp>,
    /// How far they are apart, as far as that is usual: a gap between frames that follow each other closely makes nobody faster.
    apart: Duration,
}

impl Seen<'_> {
    /// How far somebody walks from one frame to the next, in face sizes.
    fn reach(&self) -> f32 {
        (self.apart.as_secs_f32() / FACE_SIZE_WALKED_IN.as_secs_f32()).clamp(DISTANCE_MAX, REACH_MAX)
    }

    fn predict_max(&self) -> Duration {
        self.apart.clamp(PREDICT_MAX, PREDICT_TO_NEXT_MAX)
    }

    /// Whether the frame before showed `track`.
    fn follows(&self, track: &Track) -> bool {
        self.before == Some(track.seen)
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
        let usual = if self.frames_apart.is_zero() { unwatched } else { self.frames_apart };
        let frame = Seen { detections, now, before: self.updated.replace(now), apart: unwatched.min(usual * 3 / 2) };
        self.frames_apart = if self.frames_apart.is_zero() { usual.min(APART_MAX) } else { (3 * usual + unwatched.min(APART_MAX)) / 4 };
        // Only after a frame is it known which tracks are over: until then those of before a hole are still there.
        let is_there = |track: &usize| now.since(self.tracks[*track].seen) <= self.silent_after();
        let mut free_tracks: Vec<usize> = (0..self.tracks.len()).filter(is_there).collect();
        let is_strong = |i: &usize| detections[*i].score >= self.policy.score_min;
        let (strong, weak): (Vec<usize>, Vec<usize>) = (0..detections.len()).partition(is_strong);
        let (mut sightings, unmatched) = self.associate(&frame, strong, &mut free_tracks);
        sightings.extend(self.associate(&frame, weak, &mut free_tracks).0);
        let (walked, unmatched) = self.associate_walked(&frame, unmatched, &mut free_tracks);
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

    /// Matches candidates with tracks that are still free.
    fn associate(&mut self, frame: &Seen<'_>, candidates: Vec<usize>, free_tracks: &mut Vec<usize>) -> (Vec<Sighting>, Vec<usize>) {
        let pairs = self.pairs((free_tracks, &candidates), frame, |track, rect| affinity(&track.predicted(frame), rect));
        self.match_best(pairs, frame, (candidates, free_tracks))
    }

    /// Matches what is left with the faces that were seen once and in the frame before, who may have walked there since. Nothing
    /// hangs on them yet. Whoever is believed has a visit, and is taken for nobody far away.
    fn associate_walked(&mut self, frame: &Seen<'_>, open: Vec<usize>, free_tracks: &mut Vec<usize>) -> (Vec<Sighting>, Vec<usize>) {
        free_tracks.retain(|track| self.tracks[*track].sightings < self.policy.sightings_min && frame.follows(&self.tracks[*track]));
        let pairs = self.pairs((free_tracks, &open), frame, |track, rect| track.within_walk(rect, frame));
        self.match_best(pairs, frame, (open, free_tracks))
    }

    /// Answers the sightings and the candidates left over. Greedy by how well they fit: with the handful of faces a door shows, the
    /// best pair first is as good as an optimal assignment, and it cannot trade a sure pair for two doubtful ones.
    fn match_best(
        &mut self,
        pairs: Vec<Pair>,
        frame: &Seen<'_>,
        (mut open, free_tracks): (Vec<usize>, &mut Vec<usize>),
    ) -> (Vec<Sighting>, Vec<usize>) {
        let mut sightings = Vec::with_capacity(open.len());
        for (_, track, detection) in pairs {
            if free_tracks.contains(&track) && open.contains(&detection) {
                sightings.push(self.sight((track, detection), frame));
                free_tracks.retain(|free| *free != track);
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

    fn sight(&mut self, (track, detection): (usize, usize), frame: &Seen<'_>) -> Sighting {
        let track = &mut self.tracks[track];
        // Of a track that nobody believed yet nothing is known that another face could be taken for.
        let was_confirmed = track.sightings >= self.policy.sightings_min;
        let resumed = was_confirmed && frame.now.since(track.seen) > RESUMED_AFTER;
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
        if silent > self.silent_after() { self.clear() } else { Vec::new() }
    }

    fn silent_after(&self) -> Duration {
        self.policy.unseen_max.max(SILENT_AFTER)
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
mod tests;
