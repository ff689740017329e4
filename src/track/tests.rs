//! Tracks of made-up faces, at every rate.

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

/// Who is seen where a face is at each of the moments, in milliseconds and pixels; it has 50.
fn tracks_of(seen: &[(i64, Option<f32>)]) -> Vec<(TrackId, bool)> {
    let mut tracker = Tracker::new(POLICY, 1);
    let sightings = seen.iter().flat_map(|&(ms, x)| {
        let faces: Vec<_> = x.into_iter().map(|x| face(x, 0.0, 50.0, 0.9)).collect();
        tracker.update(&faces, at_ms(ms))
    });
    sightings.map(|sighting| (sighting.track, sighting.confirmed)).collect()
}

#[test]
fn whoever_is_believed_is_taken_for_nobody_far_away_however_long_nobody_looked() {
    for every in [40, 400, 1_000] {
        let stood: Vec<_> = (0..6).map(|n| (n * every, Some(0.0))).collect();
        for (gap, x) in [(every, 110.0), (1_000, 110.0), (1_000, 350.0)] {
            let seen: Vec<_> = stood.iter().copied().chain([(5 * every + gap, Some(x))]).collect();
            assert_eq!(tracks_of(&seen).last(), Some(&(TrackId(2), false)), "every {every} ms, and {x} after {gap} ms");
        }
    }
}

#[test]
fn two_false_detections_are_no_visitor_unless_frames_are_few_and_one_follows_the_other() {
    for every in [40, 500, 1_000] {
        let frames = (0..6).map(|n| (n * every, None));
        let blinks = |missed, gap| {
            let first = 6 * every;
            let rest = [(first, Some(0.0)), (first + every, None), (first + every + gap, Some(300.0))];
            frames.clone().chain(rest.into_iter().filter(|(_, x)| missed || x.is_some())).collect::<Vec<_>>()
        };
        assert_eq!(tracks_of(&blinks(true, every))[1], (TrackId(2), false), "two frames apart, every {every} ms");
        let follows = tracks_of(&blinks(false, 0))[1];
        assert_eq!(follows.1, every == 1_000, "as somebody walks in a second, every {every} ms");
        if every == 40 {
            assert_eq!(tracks_of(&blinks(false, 1_000))[1], (TrackId(2), false), "a lost packet makes nobody faster");
        }
    }
}

#[test]
fn a_hole_in_a_recording_ends_every_track_and_who_was_there_before_takes_nobodys_face() {
    let seen = [(0, Some(0.0)), (40, Some(0.0)), (600_000, Some(5.0))];
    assert_eq!(tracks_of(&seen)[2], (TrackId(2), false), "though it is the same place");
}

#[test]
fn whoever_has_been_out_of_sight_takes_no_face_from_whoever_may_have_walked_there() {
    let mut tracker = Tracker::new(TrackPolicy { unseen_max: Duration::from_secs(5), ..POLICY }, 1);
    let mut seen = Vec::new();
    let frames: [&[f32]; 6] = [&[0.0], &[0.0], &[], &[], &[200.0], &[110.0, 500.0]];
    for (second, faces) in frames.into_iter().enumerate() {
        let faces: Vec<_> = faces.iter().map(|x| face(*x, 0.0, 50.0, 0.9)).collect();
        seen = tracker.update(&faces, at_ms(second as i64 * 1_000));
    }
    seen.sort_by_key(|sighting| sighting.detection);
    assert_eq!(seen.iter().map(|sighting| sighting.track).collect::<Vec<_>>(), [TrackId(2), TrackId(3)]);
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
