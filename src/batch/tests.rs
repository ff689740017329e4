//! The batch policy under a simulated clock.

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::frame::{PixelFormat, Size};

fn camera(name: &str) -> CameraId {
    CameraId::parse(name).expect("a good id")
}

fn at_ms(ms: i64) -> Timestamp {
    Timestamp::from_micros(ms * 1_000)
}

fn frame(name: &str, ms: i64) -> Frame {
    let format = PixelFormat::rgb8(Size { width: 1, height: 1 });
    Frame::new(camera(name), at_ms(ms), format, Arc::new(vec![0; 3])).expect("three bytes make a pixel")
}

fn slots(frames_max: usize, cameras: &[(&str, Role)]) -> Slots {
    let mut slots = Slots::new(BatchPolicy { frames_max, latency_max: Duration::from_millis(20) });
    for (name, role) in cameras {
        slots.watch(&camera(name), SlotSettings { role: *role, analysis_fps_max: None, policy: SlotPolicy::NewestWins });
    }
    slots
}

fn done(slots: &mut Slots, frame: &Frame, analysed: bool) {
    slots.done((&frame.camera, frame.capture_time), analysed);
}

#[test]
fn the_newest_frame_wins_and_the_older_one_is_counted() {
    let mut slots = slots(1, &[("a", Role::Interior)]);
    assert_eq!(slots.offer(frame("a", 0), at_ms(0)), Offer::Taken);
    assert_eq!(slots.offer(frame("a", 40), at_ms(40)), Offer::Taken);
    let batch = slots.take();
    assert_eq!(batch.len(), 1);
    assert_eq!(batch[0].capture_time, at_ms(40));
    done(&mut slots, &batch[0], true);
    let counts = slots.counts(&camera("a")).expect("it is watched");
    assert_eq!((counts.received, counts.dropped_newer, counts.analysed), (2, 1, 1));
}

#[test]
fn a_camera_has_one_frame_in_flight_so_that_results_keep_their_order() {
    let mut slots = slots(1, &[("a", Role::Interior)]);
    slots.offer(frame("a", 0), at_ms(0));
    assert_eq!(slots.take().len(), 1);
    slots.offer(frame("a", 40), at_ms(40));
    assert_eq!(slots.readiness(at_ms(1_000)), Readiness::Empty);
    assert!(slots.take().is_empty());
    done(&mut slots, &frame("a", 0), true);
    assert_eq!(slots.readiness(at_ms(40)), Readiness::Now);
}

const THREE: [(&str, Role); 3] = [("a", Role::Interior), ("b", Role::Interior), ("c", Role::Interior)];

/// Slots that know that a batch of each of these sizes takes so many milliseconds.
fn measured(slots: &mut Slots, times: &[(usize, u64)]) {
    for (size, ms) in times {
        // The deviation that is kept in hand has gone by then.
        (0..200).for_each(|_| slots.observe(*size, Duration::from_millis(*ms)));
    }
}

/// All cameras have given a frame a tenth of a second ago, which was analysed.
fn lively(slots: &mut Slots, cameras: &[(&str, Role)]) {
    cameras.iter().for_each(|(name, _)| assert_eq!(slots.offer(frame(name, -100), at_ms(-100)), Offer::Taken));
    while slots.readiness(at_ms(100)) != Readiness::Empty {
        slots.take().iter().for_each(|frame| done(slots, frame, true));
    }
}

#[test]
fn a_batch_closes_when_it_is_full_or_due_and_never_passes_its_size() {
    let mut slots = slots(2, &THREE);
    lively(&mut slots, &THREE);
    measured(&mut slots, &[(1, 8)]);
    slots.offer(frame("a", 0), at_ms(0));
    assert_eq!(slots.readiness(at_ms(5)), Readiness::At(at_ms(12)), "8 of the 20 milliseconds are for the batch");
    assert_eq!(slots.readiness(at_ms(12)), Readiness::Now);
    slots.offer(frame("b", 6), at_ms(6));
    slots.offer(frame("c", 6), at_ms(6));
    assert_eq!(slots.readiness(at_ms(6)), Readiness::Now);
    assert_eq!(slots.take().len(), 2);
}

#[test]
fn a_batch_that_takes_longer_when_it_is_larger_closes_earlier() {
    let mut slots = slots(3, &THREE);
    lively(&mut slots, &THREE);
    measured(&mut slots, &[(1, 4), (2, 15)]);
    slots.offer(frame("a", 0), at_ms(0));
    assert_eq!(slots.readiness(at_ms(1)), Readiness::At(at_ms(16)));
    slots.offer(frame("b", 2), at_ms(2));
    assert_eq!(slots.readiness(at_ms(2)), Readiness::At(at_ms(5)), "the oldest counts");
}

#[test]
fn nothing_waits_before_a_batch_was_measured_or_when_batches_take_all_the_time_there_is() {
    let mut slots = slots(3, &THREE);
    slots.offer(frame("a", 0), at_ms(0));
    assert_eq!(slots.readiness(at_ms(0)), Readiness::Now);
    measured(&mut slots, &[(1, 50)]);
    assert_eq!(slots.readiness(at_ms(0)), Readiness::Now);
}

#[test]
fn nobody_waits_for_a_camera_that_can_give_nothing_now() {
    let mut slots = slots(3, &THREE);
    lively(&mut slots, &THREE);
    measured(&mut slots, &[(1, 1)]);
    slots.offer(frame("a", 0), at_ms(0));
    slots.offer(frame("b", 0), at_ms(0));
    assert_eq!(slots.readiness(at_ms(0)), Readiness::At(at_ms(18)));
    // The third has been silent for a while.
    assert_eq!(slots.readiness(at_ms(1_200)), Readiness::Now);
    slots.take();
    // Both are being analysed: the third is alone.
    slots.offer(frame("c", 1), at_ms(1));
    assert_eq!(slots.readiness(at_ms(1)), Readiness::Now);
}

#[test]
fn nobody_waits_for_a_camera_that_never_gave_anything_or_whose_next_frame_is_not_due() {
    let mut slots = slots(3, &THREE);
    measured(&mut slots, &[(1, 1)]);
    slots.offer(frame("a", 0), at_ms(0));
    assert_eq!(slots.readiness(at_ms(0)), Readiness::Now, "the others are offline");
    let slow = SlotSettings { role: Role::Interior, analysis_fps_max: Some(2.0), policy: SlotPolicy::NewestWins };
    slots.watch(&camera("b"), slow);
    assert_eq!(slots.offer(frame("b", 0), at_ms(0)), Offer::Taken);
    slots.take().iter().for_each(|frame| done(&mut slots, frame, true));
    slots.offer(frame("a", 40), at_ms(40));
    assert_eq!(slots.readiness(at_ms(40)), Readiness::Now, "the other may give nothing before half a second has passed");
}

#[test]
fn a_fast_camera_loses_no_frame_by_waiting_for_a_slow_one() {
    // Frames may wait 100 ms, which is longer than a camera of 25 frames a second takes for its next; the other gives five.
    const TWO: [(&str, Role); 2] = [("fast", Role::Interior), ("slow", Role::Interior)];
    let mut slots = Slots::new(BatchPolicy { frames_max: 16, latency_max: Duration::from_millis(100) });
    for (name, role) in TWO {
        slots.watch(&camera(name), SlotSettings { role, analysis_fps_max: None, policy: SlotPolicy::NewestWins });
    }
    measured(&mut slots, &[(1, 1), (2, 1)]);
    let mut random = fastrand::Rng::with_seed(21);
    let (mut next, mut taken) = ([0_i64, 3], 0);
    for now in 0..20_000 {
        for (camera, (next, apart)) in ["fast", "slow"].into_iter().zip(next.iter_mut().zip([40, 200])) {
            if *next == now {
                slots.offer(frame(camera, now), at_ms(now));
                // No camera is punctual.
                *next = now + apart + random.i64(-8..=8);
            }
        }
        if slots.readiness(at_ms(now)) == Readiness::Now {
            let batch = slots.take();
            taken += usize::from(batch.len() == 2);
            batch.iter().for_each(|frame| done(&mut slots, frame, true));
        }
    }
    for (name, _) in TWO {
        let counts = slots.counts(&camera(name)).expect("it is watched");
        assert!(counts.dropped_newer <= 1, "{name}: {counts:?}");
    }
    assert!(taken > 20, "frames that come close to each other still go together: {taken}");
}

#[test]
fn no_frame_is_late_for_having_waited() {
    // One session, cameras of every rate; a batch of n takes 2 + n milliseconds, within the 20 that there are.
    let names: Vec<String> = (0..6).map(|n| format!("c{n}")).collect();
    for seed in 1..=20 {
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let cameras: Vec<(&str, Role)> = names.iter().map(|name| (name.as_str(), Role::Interior)).collect();
        let mut slots = slots(4, &cameras);
        let (mut now, mut sizes) = (0_i64, 0);
        for _ in 0..300 {
            let count = random.usize(1..=5);
            let offered: Vec<&String> = names.iter().take(count).collect();
            for (index, name) in offered.iter().enumerate() {
                slots.offer(frame(name, now + index as i64), at_ms(now + index as i64));
            }
            now += count as i64 - 1;
            let first = now - count as i64 + 1;
            // Nothing more comes: the policy says when.
            let began = match slots.readiness(at_ms(now)) {
                Readiness::Now => now,
                Readiness::At(due) => (due.as_micros() + 999) / 1_000,
                Readiness::Empty => panic!("frames were offered"),
            };
            assert!(slots.readiness(at_ms(began)) == Readiness::Now);
            let batch = slots.take();
            assert!(!batch.is_empty() && batch.len() <= 4);
            sizes += batch.len();
            let ended = began + 2 + batch.len() as i64;
            if batch.iter().any(|frame| frame.capture_time == at_ms(first)) && began > now {
                assert!(ended - first <= 20, "a frame of {first} was waited with until {began} and done at {ended}");
            }
            slots.observe(batch.len(), Duration::from_millis((2 + batch.len()) as u64));
            batch.iter().for_each(|frame| done(&mut slots, frame, true));
            now = ended + random.i64(0..30);
            // What is left over of a round goes before the next.
            while slots.readiness(at_ms(now)) != Readiness::Empty {
                slots.take().iter().for_each(|frame| done(&mut slots, frame, true));
            }
        }
        assert!(sizes > 300, "batches were made: {sizes}");
    }
}

#[test]
fn under_overload_cameras_get_shares_by_their_role_and_nobody_starves() {
    let mut slots = slots(1, &[("door", Role::Entry), ("hall", Role::Interior), ("yard", Role::Interior)]);
    let mut served: HashMap<String, u32> = HashMap::new();
    for turn in 0..600 {
        for name in ["door", "hall", "yard"] {
            slots.offer(frame(name, turn), at_ms(turn));
        }
        for taken in slots.take() {
            *served.entry(taken.camera.to_string()).or_default() += 1;
            done(&mut slots, &taken, true);
        }
    }
    assert_eq!((served["door"], served["hall"], served["yard"]), (400, 100, 100));
}

#[test]
fn an_entry_camera_goes_first_among_equals() {
    let mut slots = slots(1, &[("aisle", Role::Interior), ("door", Role::Entry)]);
    slots.offer(frame("aisle", 0), at_ms(0));
    slots.offer(frame("door", 0), at_ms(0));
    assert_eq!(slots.take()[0].camera, camera("door"));
}

#[test]
fn a_camera_that_was_silent_for_long_does_not_take_everything_when_it_returns() {
    let mut slots = slots(1, &[("a", Role::Interior), ("b", Role::Interior)]);
    for turn in 0..100 {
        slots.offer(frame("a", turn), at_ms(turn));
        slots.take().iter().for_each(|frame| done(&mut slots, frame, true));
    }
    let mut served = HashMap::new();
    for turn in 100..120 {
        slots.offer(frame("a", turn), at_ms(turn));
        slots.offer(frame("b", turn), at_ms(turn));
        let taken = slots.take().remove(0);
        *served.entry(taken.camera.to_string()).or_insert(0) += 1;
        done(&mut slots, &taken, true);
    }
    assert_eq!(served["a"].max(served["b"]), 10, "{served:?}");
}

#[test]
fn the_analysis_rate_is_kept_over_a_jittery_stream() {
    let mut slots = slots(1, &[]);
    slots.watch(&camera("a"), SlotSettings { role: Role::Interior, analysis_fps_max: Some(5.0), policy: SlotPolicy::NewestWins });
    let mut taken = 0;
    // 25 frames a second for ten seconds, each up to 15 ms late.
    for n in 0..250_i64 {
        let time = n * 40 + (n * 7) % 16;
        if slots.offer(frame("a", time), at_ms(time)) == Offer::Taken {
            let batch = slots.take();
            taken += batch.len();
            batch.iter().for_each(|frame| done(&mut slots, frame, true));
        }
    }
    assert!((48..=51).contains(&taken), "{taken} frames in ten seconds at five a second");
}

#[test]
fn a_rate_that_is_raised_holds_from_the_next_frame_on() {
    let mut slots = slots(1, &[]);
    for (fps, time) in [(0.01, 0), (5.0, 200)] {
        slots.watch(&camera("a"), SlotSettings { role: Role::Interior, analysis_fps_max: Some(fps), policy: SlotPolicy::NewestWins });
        assert_eq!(slots.offer(frame("a", time), at_ms(time)), Offer::Taken, "{fps}");
    }
}

#[test]
fn a_pause_is_not_made_up_for_by_a_burst() {
    let mut slots = slots(1, &[]);
    slots.watch(&camera("a"), SlotSettings { role: Role::Interior, analysis_fps_max: Some(5.0), policy: SlotPolicy::NewestWins });
    for begin_ms in [10_000, 60_000] {
        let taken = (0..25).filter(|n| slots.offer(frame("a", begin_ms + n * 40), at_ms(begin_ms + n * 40)) == Offer::Taken).count();
        assert!((5..=6).contains(&taken), "{taken} in the second from {begin_ms} ms on");
    }
}

#[test]
fn a_rate_that_is_no_rate_limits_nothing() {
    let mut slots = slots(1, &[]);
    for fps in [0.0, -1.0, 1e-30, f32::NAN, f32::INFINITY] {
        slots.watch(&camera("a"), SlotSettings { role: Role::Interior, analysis_fps_max: Some(fps), policy: SlotPolicy::NewestWins });
        assert_eq!(slots.offer(frame("a", 1), at_ms(1)), Offer::Taken, "{fps}");
    }
}

#[test]
fn replay_waits_and_loses_no_frame() {
    let mut slots = slots(1, &[]);
    slots.watch(&camera("a"), SlotSettings { role: Role::Interior, analysis_fps_max: None, policy: SlotPolicy::Wait });
    assert_eq!(slots.offer(frame("a", 0), at_ms(0)), Offer::Taken);
    assert_eq!(slots.offer(frame("a", 40), at_ms(40)), Offer::Full);
    assert_eq!(slots.take()[0].capture_time, at_ms(0));
    assert_eq!(slots.offer(frame("a", 40), at_ms(40)), Offer::Taken);
    assert_eq!(slots.counts(&camera("a")).map(|c| (c.received, c.dropped_newer)), Some((2, 0)));
}

#[test]
fn a_frame_of_a_removed_camera_goes_nowhere() {
    let mut slots = slots(1, &[("a", Role::Interior)]);
    slots.offer(frame("a", 0), at_ms(0));
    slots.forget(&camera("a"));
    assert_eq!(slots.offer(frame("a", 1), at_ms(1)), Offer::UnknownCamera);
    assert!(slots.take().is_empty());
    done(&mut slots, &frame("a", 0), true);
}

#[test]
fn a_frame_from_before_a_camera_was_watched_anew_frees_and_counts_nothing_of_the_new_slot() {
    let mut slots = slots(1, &[("a", Role::Interior)]);
    slots.offer(frame("a", 0), at_ms(0));
    let old = slots.take().remove(0);
    slots.forget(&camera("a"));
    slots.watch(&camera("a"), SlotSettings { role: Role::Interior, analysis_fps_max: None, policy: SlotPolicy::NewestWins });
    slots.offer(frame("a", 40), at_ms(40));
    let new = slots.take().remove(0);
    done(&mut slots, &old, false);
    slots.offer(frame("a", 80), at_ms(80));
    assert!(slots.take().is_empty(), "one frame of the camera is still being analysed");
    done(&mut slots, &new, true);
    let counts = slots.counts(&camera("a")).expect("it is watched");
    assert_eq!((counts.analysed, counts.dropped_failed, slots.take().len()), (1, 0, 1));
}
