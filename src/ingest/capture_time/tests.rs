//! Holds the arithmetic of capture times to what cameras are seen to do.
//!
//! In: simulated cameras. Out: assertions. Must not know: GStreamer, real clocks.

use proptest::prelude::*;

use super::*;

const SSRC: u32 = 7;
/// 25 frames a second.
const TICKS: u32 = 3_600;
const SPACING_US: i64 = 40_000;

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(1_000_000_000 + micros)
}

/// A camera that takes a picture each 40 ms from time 0 on, with this RTP time at first, and sends each `delay_us` later.
struct Camera {
    clock: CaptureClock,
    rtp_first: u32,
    delay_us: i64,
}

impl Camera {
    fn new(rtp_first: u32, delay_us: i64) -> Self {
        Self { clock: CaptureClock::default(), rtp_first, delay_us }
    }

    fn rtp_time(&self, number: u32) -> u32 {
        self.rtp_first.wrapping_add(TICKS.wrapping_mul(number))
    }

    /// Sends picture `number`, late by `jitter_us`, and gives what the clock makes of it, relative to time 0.
    fn frame(&mut self, number: u32, jitter_us: i64) -> (i64, Option<Duration>) {
        let arrival = at(i64::from(number) * SPACING_US + self.delay_us + jitter_us);
        let rtp_time = self.rtp_time(number);
        self.clock.packet(RtpHeader { ssrc: SSRC, rtp_time }, arrival);
        let capture = self.clock.capture(Some(rtp_time), arrival);
        (capture.time.as_micros() - at(0).as_micros(), capture.delay)
    }

    /// Sends a report at the moment of picture `number` that takes `transit_us`.
    fn report(&mut self, number: u32, transit_us: i64) {
        let report = SenderReport { ssrc: SSRC, rtp_time: self.rtp_time(number) };
        self.clock.report(report, at(i64::from(number) * SPACING_US + transit_us));
    }
}

#[test]
fn without_reports_a_picture_was_taken_when_it_arrived() {
    let mut camera = Camera::new(5, 200_000);
    assert_eq!(camera.frame(0, 0), (200_000, None));
    assert_eq!(camera.frame(1, 13_000), (253_000, None));
}

#[test]
fn reports_give_the_delay_and_then_the_true_spacing() {
    let mut camera = Camera::new(5, 200_000);
    camera.frame(0, 0);
    camera.report(1, 2_000);
    let mut last = 0;
    for number in 1..200 {
        let jitter = i64::from(number % 7) * 3_000;
        let (time, delay) = camera.frame(number, jitter);
        assert!(number == 1 || (30_000..=50_000).contains(&(time - last)), "picture {number}: {}", time - last);
        assert_eq!(delay, Some(Duration::from_micros(u64::try_from(198_000 + jitter).expect("positive"))));
        last = time;
    }
    // The report's own transit, 2 ms, is all that is left of the error.
    assert_eq!(last, 199 * SPACING_US + 2_000);
}

#[test]
fn the_quickest_of_the_reports_counts_and_a_slow_one_does_no_harm() {
    let mut camera = Camera::new(5, 100_000);
    for number in 0..100 {
        camera.frame(number, 0);
        if number % 10 == 0 {
            camera.report(number, if number == 40 { 1_000 } else { 60_000 });
        }
    }
    let (time, delay) = camera.frame(100, 0);
    assert_eq!((time, delay), (100 * SPACING_US + 1_000, Some(Duration::from_millis(99))));
}

#[test]
fn a_burst_after_a_stall_keeps_the_spacing() {
    let mut camera = Camera::new(5, 0);
    camera.frame(0, 0);
    camera.report(1, 0);
    for number in 1..50 {
        camera.frame(number, 0);
    }
    let times: Vec<i64> = (50..75).map(|number| camera.frame(number, i64::from(75 - number) * SPACING_US).0).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] == SPACING_US), "{times:?}");
}

#[test]
fn reports_that_were_held_up_with_the_pictures_make_none_of_them_younger() {
    let mut camera = Camera::new(5, 0);
    camera.frame(0, 0);
    camera.report(1, 0);
    for number in 1..50 {
        camera.frame(number, 0);
    }
    // Three seconds stand still, with a report in each, and come at once.
    for number in 50..125 {
        let held_up = i64::from(125 - number) * SPACING_US;
        if number % 25 == 0 {
            camera.report(number, held_up);
        }
        let (time, _) = camera.frame(number, held_up);
        assert!((time - i64::from(number) * SPACING_US).abs() < 1_000, "picture {number} was taken before the stall ended: {time}");
    }
    camera.report(130, 0);
    let (time, _) = camera.frame(130, 0);
    assert_eq!(time, 130 * SPACING_US);
}

#[test]
fn the_wrap_of_rtp_time_is_not_seen() {
    let mut camera = Camera::new(u32::MAX - 3 * TICKS, 50_000);
    camera.frame(0, 0);
    camera.report(1, 0);
    let times: Vec<i64> = (1..100).map(|number| camera.frame(number, 0).0).collect();
    assert!(times.windows(2).all(|pair| (35_000..=45_000).contains(&(pair[1] - pair[0]))), "{times:?}");
}

#[test]
fn a_camera_that_begins_a_new_count_is_followed() {
    let mut camera = Camera::new(5, 0);
    camera.frame(0, 0);
    camera.report(1, 0);
    camera.frame(1, 0);
    camera.rtp_first = 3_000_000_000;
    assert_eq!(camera.frame(2, 7_000), (2 * SPACING_US + 7_000, None), "arrival again, until a new report");
}

#[test]
fn a_camera_whose_clock_is_set_back_by_a_little_begins_a_new_count_too() {
    let mut camera = Camera::new(1_000_000, 0);
    for number in 0..10 {
        camera.frame(number, 0);
        camera.report(number, 10_000);
    }
    // By four seconds; the next report says so.
    camera.rtp_first -= 360_000;
    for number in 10..20 {
        let (time, _) = camera.frame(number, 0);
        assert_eq!(time, i64::from(number) * SPACING_US, "picture {number} was taken now, and not seconds ago");
    }
    camera.report(20, 10_000);
    assert!((camera.frame(20, 0).0 - 20 * SPACING_US).abs() <= 10_000);
}

#[test]
fn pictures_that_are_sent_in_another_order_than_shown_are_no_new_count_however_few_there_are() {
    // One picture a second, each third one sent before the two that are shown first.
    let mut clock = CaptureClock::default();
    let second = |second: u32| RtpHeader { ssrc: SSRC, rtp_time: 90_000 * second };
    for (place, shown) in [0, 3, 1, 2, 6, 4, 5, 9, 7, 8].into_iter().enumerate() {
        clock.packet(second(shown), at(place as i64 * 1_000_000));
    }
    assert_eq!(clock.pictures.len(), 10, "none was forgotten");
}

#[test]
fn a_clock_that_is_set_back_by_less_than_the_pictures_are_apart_is_told_by_the_next_report() {
    // One picture a second with a report each; the camera sets its clock back by three seconds.
    let mut clock = CaptureClock::default();
    let mut late = Vec::new();
    for second in 0..12_u32 {
        let set_back = if second < 6 { 0 } else { 3 };
        let (rtp_time, arrival) = (90_000 * (10 + second - set_back), at(i64::from(second) * 1_000_000));
        clock.packet(RtpHeader { ssrc: SSRC, rtp_time }, arrival);
        clock.report(SenderReport { ssrc: SSRC, rtp_time }, arrival);
        let captured = clock.capture(Some(rtp_time), arrival);
        late.push(captured.time.as_micros() - arrival.as_micros());
    }
    assert_eq!(late[11], 0, "{late:?}");
    assert!(late.iter().filter(|late| **late < -100_000).count() <= 4, "not for eight reports: {late:?}");
}

#[test]
fn reports_that_lie_are_not_believed() {
    for wrong_ticks in [90_000 * 60, -90_000 * 60, 90_000 * 3_600] {
        let mut camera = Camera::new(5, 20_000);
        camera.frame(0, 0);
        let rtp_time = 5_u32.wrapping_add_signed(wrong_ticks);
        camera.clock.report(SenderReport { ssrc: SSRC, rtp_time }, at(20_000));
        camera.clock.report(SenderReport { ssrc: SSRC + 1, rtp_time: 5 }, at(20_000));
        assert_eq!(camera.frame(1, 0), (SPACING_US + 20_000, None), "{wrong_ticks}");
    }
}

#[test]
fn a_clock_that_drifts_is_followed() {
    // 200 ppm slow, two hours: 1.44 s in all, with a report each 5 s.
    let mut camera = Camera::new(5, 30_000);
    let mut worst = 0;
    for number in 0..180_000_u32 {
        let drift = i64::from(number) * SPACING_US / 5_000;
        let (time, _) = camera.frame(number, drift);
        if number % 125 == 0 {
            camera.report(number, drift + 1_000);
        }
        if number > 1_000 {
            worst = worst.max((time - (i64::from(number) * SPACING_US + drift)).abs());
        }
    }
    assert!(worst < 10_000, "{worst} µs off");
}

#[test]
fn a_new_connection_never_goes_back_in_time() {
    let mut camera = Camera::new(5, 0);
    let (last, _) = camera.frame(10, 0);
    camera.clock.reconnect();
    let again = camera.clock.capture(None, at(0)).time.as_micros() - at(0).as_micros();
    assert_eq!(again, last + 1);
}

proptest! {
    #[test]
    fn times_rise_and_never_pass_the_present(steps in proptest::collection::vec((any::<u32>(), 0_i64..2_000_000, any::<bool>(), any::<bool>()), 1..200)) {
        let mut clock = CaptureClock::default();
        let (mut now, mut last) = (at(0), None);
        for (rtp_time, step_us, is_report, is_near) in steps {
            now = Timestamp::from_micros(now.as_micros() + step_us + 1);
            let rtp_time = if is_near { rtp_time % 9_000_000 } else { rtp_time };
            if is_report {
                clock.report(SenderReport { ssrc: SSRC, rtp_time }, now);
                continue;
            }
            clock.packet(RtpHeader { ssrc: SSRC, rtp_time }, now);
            let capture = clock.capture(Some(rtp_time), now);
            prop_assert!(Some(capture.time) > last && capture.time <= now, "{capture:?} at {now}");
            last = Some(capture.time);
        }
    }
}
