//! Drives ingest with real RTSP servers in processes of their own, which are killed, frozen and
//! made to misbehave.
//!
//! In: a test camera on loopback. Out: assertions on frames and states.
//! The bounds in seconds are the product's promises, not measurements of this machine.

mod replay;
pub(crate) mod support;

use std::sync::Arc;
use std::time::Duration;

use doorward::camera::{CameraState, OfflineReason, Transport};
use doorward::clock::{Clock, SimulatedClock, Timestamp};
use doorward::ingest::{Decode, SourceSettings};

use self::support::{
    CameraProcess, FPS, FRAMES, Logs, Record, Recorder, SMALL, SeenFrame, Watched, clip, credential, refreshed_clip, settings, small_clip,
};
use crate::clip::{ClipSettings, can_encode_h265};

/// Generous: for what has no promise of its own.
const SOON: Duration = Duration::from_secs(60);
const OFFLINE_WITHIN: Duration = Duration::from_secs(6);
const BACK_WITHIN: Duration = Duration::from_secs(5);

fn wait_for_frames(recorder: &Recorder, count: usize) {
    recorder.wait(&format!("{count} frames"), SOON, |record| record.frames.len() >= count && record.is_online());
}

/// Waits for frames after those recorded so far, and gives how long that took.
fn wait_for_more(recorder: &Recorder, limit: Duration) -> Duration {
    let before = recorder.record().frames.len();
    recorder.wait("frames again", limit, |record| record.frames.len() > before + 3)
}

/// Frame numbers rise by one, from any number on, round and round.
fn assert_no_gap(record: &Record) {
    let numbers: Vec<u32> = record.frames.iter().map(|frame| frame.number).collect();
    let has_gap = numbers.windows(2).any(|pair| pair[1] != (pair[0] + 1) % FRAMES);
    assert!(!has_gap, "{} refused, {} skipped for lateness, {numbers:?}", record.refused, record.late);
    assert!(record.frames.iter().enumerate().all(|(index, frame)| frame.sequence == index as u64), "sequence numbers have no gap");
}

fn assert_times_rise(record: &Record) {
    assert!(record.frames.windows(2).all(|pair| pair[1].capture_time > pair[0].capture_time), "capture times rise");
    assert!(record.frames.iter().all(|frame| frame.capture_time <= frame.decode_time), "nothing is decoded before it is captured");
}

fn offline_reason(settings: SourceSettings, limit: Duration) -> (OfflineReason, String) {
    let watched = Watched::begin(settings);
    watched.recorder.wait("offline", limit, Record::is_offline);
    let record = watched.recorder.record();
    let (reason, message) = record.offline().expect("it is offline");
    println!("{reason:?}: {message}");
    assert!(record.frames.is_empty());
    (reason, message.to_owned())
}

#[test]
fn a_killed_camera_is_noticed_and_watched_again_when_it_returns() {
    let mut camera = CameraProcess::playing();
    let watched = Watched::begin(settings(&camera.url));
    wait_for_frames(&watched.recorder, 10);
    camera.kill();
    let noticed = watched.recorder.wait("offline", OFFLINE_WITHIN, Record::is_offline);
    let reason = watched.recorder.record().offline().expect("it is offline").0;
    // Long enough for the waits between attempts to have grown to their greatest.
    watched.recorder.wait("the seventh attempt", SOON * 2, |record| {
        record.states.iter().filter(|state| **state == CameraState::Connecting).count() >= 7
    });
    let _again = camera.again();
    let returned = wait_for_more(&watched.recorder, BACK_WITHIN);
    println!("killed: noticed after {noticed:?} as {reason:?}, frames again {returned:?} after its return");
    assert_eq!(reason, OfflineReason::Ended);
    assert_times_rise(&watched.recorder.record());
}

#[test]
fn a_camera_that_gave_frames_for_ten_seconds_is_tried_again_as_soon_as_at_first() {
    let mut camera = CameraProcess::playing();
    camera.kill();
    let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000_000)));
    let watched = Watched::begin_by(settings(&camera.url), clock.clone(), Duration::ZERO);
    let wait_told = |state: &CameraState| match state {
        CameraState::Offline { next_attempt_time: Some(next), .. } => Some(next.since(clock.now())),
        _ => None,
    };
    let fourth = |record: &Record| record.states.iter().filter_map(wait_told).nth(3);
    watched.recorder.wait("four attempts", SOON, |record| fourth(record).is_some());
    let grown = fourth(&watched.recorder.record()).expect("there were four");
    assert!(grown > Duration::from_secs(1), "the waits have grown: {grown:?}");
    let mut camera = camera.again();
    watched.recorder.wait("online", SOON, Record::is_online);
    // Ten seconds of frames pass on the supervisor's clock alone, in steps that are no silence.
    for _ in 0..21 {
        let now = clock.advance(Duration::from_millis(500));
        watched.recorder.wait("a frame of this moment", SOON, |record| record.frames.last().is_some_and(|last| last.decode_time == now));
    }
    // Nothing changes while frames come, and the watchdog hears all the same that somebody looks after them.
    let is_heard = |record: &Record| record.heard_by.is_some_and(|by| by >= clock.now());
    watched.recorder.wait("a word of its supervisor", SOON, is_heard);
    camera.kill();
    let is_before = |state: &&CameraState| !matches!(state, CameraState::Online { .. });
    let after_frames = |record: &Record| record.states.iter().skip_while(is_before).find_map(wait_told);
    watched.recorder.wait("offline", SOON, |record| after_frames(record).is_some());
    let wait = after_frames(&watched.recorder.record()).expect("it is offline");
    assert!(wait <= Duration::from_millis(500), "the first wait is half a second at the most: {wait:?}");
}

#[test]
fn a_frozen_camera_is_noticed_and_watched_again_when_it_thaws() {
    let camera = CameraProcess::playing();
    let watched = Watched::begin(settings(&camera.url));
    wait_for_frames(&watched.recorder, 10);
    camera.freeze();
    let noticed = watched.recorder.wait("offline", OFFLINE_WITHIN, Record::is_offline);
    {
        let record = watched.recorder.record();
        let [.., CameraState::Stalled { .. }, CameraState::Offline { reason, .. }] = &record.states[..] else {
            panic!("stalled, then offline: {:?}", record.states)
        };
        assert_eq!(*reason, OfflineReason::Stalled);
    }
    camera.thaw();
    let returned = wait_for_more(&watched.recorder, BACK_WITHIN);
    println!("frozen: noticed after {noticed:?}, frames again {returned:?} after it thawed");
}

#[test]
fn a_frozen_camera_does_not_hold_up_the_end() {
    let camera = CameraProcess::playing();
    let watched = Watched::begin(settings(&camera.url));
    wait_for_frames(&watched.recorder, 3);
    camera.freeze();
    let ended = watched.end();
    println!("watching a frozen camera ended after {ended:?}");
    assert!(ended < Duration::from_secs(3), "{ended:?}");
}

#[test]
fn an_absent_camera_is_unreachable_and_tried_again() {
    let mut camera = CameraProcess::playing();
    camera.kill();
    let watched = Watched::begin(settings(&camera.url));
    watched.recorder.wait("three attempts", SOON, |record| {
        record.states.iter().filter(|state| matches!(state, CameraState::Offline { .. })).count() >= 3
    });
    let record = watched.recorder.record();
    assert_eq!(record.offline().expect("it is offline").0, OfflineReason::Unreachable, "{:?}", record.states);
    let CameraState::Offline { next_attempt_time: Some(_), .. } = record.states[1] else { panic!("{:?}", record.states) };
}

#[test]
fn a_host_without_an_address_is_told_apart() {
    let url = "rtsp://camera.invalid/door".parse().expect("a URL");
    assert_eq!(offline_reason(settings(&url), SOON).0, OfflineReason::HostUnknown);
}

#[test]
fn an_unknown_path_is_not_found() {
    let camera = CameraProcess::playing();
    let wrong = camera.url.join("/cellar").expect("a URL");
    assert_eq!(offline_reason(settings(&wrong), SOON).0, OfflineReason::NotFound);
}

#[test]
fn sound_alone_is_no_video() {
    let camera = CameraProcess::start(&["--audio-only"]);
    assert_eq!(offline_reason(settings(&camera.url), SOON).0, OfflineReason::NoVideo);
}

#[test]
fn noise_in_place_of_pictures_is_undecodable() {
    let camera = CameraProcess::start(&["--noise", "--file", &small_clip().display().to_string()]);
    assert_eq!(offline_reason(settings(&camera.url), SOON).0, OfflineReason::Undecodable);
}

#[test]
fn a_password_opens_the_camera_and_is_never_told() {
    let (user, password) = ("keeper-of-doors", "open-sesame-4711");
    let file = small_clip().display().to_string();
    let camera = CameraProcess::start(&["--file", &file, "--user", user, "--password", password]);
    let logs = Logs::of_this_process();
    for wrong in [None, credential(user, "wrong-4712"), credential("nobody-here", password)] {
        let (reason, message) = offline_reason(SourceSettings { credential: wrong, ..settings(&camera.url) }, SOON);
        assert_eq!(reason, OfflineReason::Unauthorised);
        assert!(![user, password, "wrong-4712", "nobody-here"].iter().any(|secret| message.contains(secret)), "{message}");
    }
    let watched = Watched::begin(SourceSettings { credential: credential(user, password), ..settings(&camera.url) });
    wait_for_frames(&watched.recorder, 5);
    watched.end();
    let logged = logs.text();
    assert!(logged.contains("camera offline") && logged.contains("camera online"), "the log was caught: {logged}");
    for secret in [user, password, "wrong-4712", "nobody-here"] {
        assert!(!logged.contains(secret), "{secret} in {logged}");
    }
}

#[test]
fn a_camera_over_tls_is_watched_only_when_its_certificate_is_vouched_for() {
    let dir = tempfile::tempdir().expect("a folder");
    let certificate = |name: &str| {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let (own, public) = (dir.path().join(format!("{name}-own.pem")), dir.path().join(format!("{name}.pem")));
        std::fs::write(&own, made.cert.pem() + &made.signing_key.serialize_pem()).expect("written");
        std::fs::write(&public, made.cert.pem()).expect("written");
        (own, public)
    };
    let ((own, its_own), (_, of_another)) = (certificate("camera"), certificate("another"));
    let file = small_clip().display().to_string();
    let camera = CameraProcess::start(&["--file", &file, "--tls", &own.display().to_string()]);
    assert_eq!(camera.url.scheme(), "rtsps");
    for ca_file in [None, Some(of_another)] {
        let (reason, message) = offline_reason(SourceSettings { ca_file, ..settings(&camera.url) }, SOON);
        assert_eq!(reason, OfflineReason::Untrusted, "{message}");
    }
    let watched = Watched::begin(SourceSettings { ca_file: Some(its_own), ..settings(&camera.url) });
    wait_for_frames(&watched.recorder, 5);
    watched.end();
    let no_certificate = dir.path().join("empty.pem");
    std::fs::write(&no_certificate, "none").expect("written");
    let refused = doorward::ingest::check_ca_file(&no_certificate).expect_err("it is refused").to_string();
    assert!(refused.contains("empty.pem"), "{refused}");
}

/// A camera whose pictures are small for a second and large for the next.
fn changing_camera() -> CameraProcess {
    let large = clip(ClipSettings { size: (480, 272), ..SMALL }, FRAMES / 2..FRAMES);
    let small = clip(SMALL, 0..FRAMES / 2);
    CameraProcess::start(&["--file", &small.display().to_string(), "--file", &large.display().to_string()])
}

fn assert_size_follows(record: &Record) {
    for frame in &record.frames {
        let expected = if frame.number < FRAMES / 2 { (320, 240) } else { (480, 272) };
        assert_eq!((frame.size.width, frame.size.height), expected, "frame {}", frame.number);
    }
}

#[test]
fn a_change_of_resolution_in_mid_stream_is_followed() {
    let camera = changing_camera();
    let watched = Watched::begin(settings(&camera.url));
    wait_for_frames(&watched.recorder, 2 * FRAMES as usize);
    let record = watched.recorder.record();
    assert_no_gap(&record);
    assert_size_follows(&record);
    assert_eq!(record.states.len(), 2, "connecting, online, and no more: {:?}", record.states);
}

#[test]
fn one_of_four_cameras_dies_and_the_others_miss_no_frame() {
    let mut cameras: Vec<CameraProcess> = (0..4).map(|_| CameraProcess::playing()).collect();
    let watched: Vec<Watched> = cameras.iter().map(|camera| Watched::begin(settings(&camera.url))).collect();
    for one in &watched {
        wait_for_frames(&one.recorder, 10);
    }
    cameras[0].kill();
    watched[0].recorder.wait("offline", OFFLINE_WITHIN, Record::is_offline);
    for one in &watched[1..] {
        let so_far = one.recorder.record().frames.len();
        wait_for_frames(&one.recorder, so_far + 2 * FPS as usize);
        let record = one.recorder.record();
        assert_no_gap(&record);
        assert_times_rise(&record);
        assert_eq!((record.refused, record.late, record.damaged), (0, 0, 0));
    }
}

#[test]
fn cameras_that_send_noise_refuse_the_password_or_change_their_size_cost_another_no_frame() {
    let file = small_clip().display().to_string();
    let (good, changing) = (CameraProcess::playing(), changing_camera());
    let noisy = CameraProcess::start(&["--noise", "--file", &file]);
    let locked = CameraProcess::start(&["--file", &file, "--user", "keeper", "--password", "sesame-4711"]);
    let running = [&good, &changing].map(|camera| Watched::begin(settings(&camera.url)));
    for one in &running {
        wait_for_frames(&one.recorder, 10);
    }
    let failing = [(&noisy, OfflineReason::Undecodable), (&locked, OfflineReason::Unauthorised)]
        .map(|(camera, reason)| (Watched::begin(settings(&camera.url)), reason));
    for (one, expected) in &failing {
        one.recorder.wait("offline", SOON, Record::is_offline);
        let record = one.recorder.record();
        assert_eq!(record.offline().map(|(reason, _)| reason), Some(*expected), "{:?}", record.states);
        assert!(record.frames.is_empty());
    }
    for one in &running {
        wait_for_more(&one.recorder, SOON);
        let record = one.recorder.record();
        assert_no_gap(&record);
        assert_times_rise(&record);
        assert_eq!((record.refused, record.late, record.damaged), (0, 0, 0));
        assert_eq!(record.states.len(), 2, "connecting, online, and no more: {:?}", record.states);
    }
    let changed = running[1].recorder.record();
    assert!(changed.frames.len() > 2 * FRAMES as usize, "its size changed again and again meanwhile: {} frames", changed.frames.len());
    assert_size_follows(&changed);
}

#[test]
fn a_machine_that_is_too_slow_skips_and_stays_near_the_present() {
    let camera = CameraProcess::playing();
    // The decoder's thread is held up for two and a half frames at each frame.
    let watched = Watched::begin_slow(settings(&camera.url), Duration::from_millis(100));
    // Where nothing is skipped, each frame is older than the one before it, without end. The bound
    // is that of the product's promise; that it is reached again and again is what shows the rule,
    // since a frame may also be late because this test's own process had to wait for a processor.
    watched.recorder.wait("near the present again after each of two skips", SOON * 2, |record| {
        let follows_skip = |pair: &&[SeenFrame]| pair[1].number != (pair[0].number + 1) % FRAMES;
        let is_fresh = |frame: &SeenFrame| frame.decode_time.since(frame.capture_time) < Duration::from_secs(2);
        let fresh_starts = record.frames.windows(2).filter(follows_skip).filter(|pair| is_fresh(&pair[1])).count();
        record.late > 0 && fresh_starts >= 2
    });
    println!("{} frames skipped", watched.recorder.record().late);
}

#[test]
fn sender_reports_tell_the_cameras_delay() {
    let camera = CameraProcess::playing();
    let watched = Watched::begin(settings(&camera.url));
    let has_delay = |record: &Record| record.frames.last().is_some_and(|frame| frame.camera_delay.is_some());
    let took = watched.recorder.wait("a sender report", SOON, has_delay);
    wait_for_more(&watched.recorder, SOON);
    let record = watched.recorder.record();
    let delay = record.frames.last().and_then(|frame| frame.camera_delay).expect("a delay");
    println!("the first report came after {took:?}; the delay is {delay:?}");
    assert!(delay < Duration::from_secs(2), "{delay:?}");
    assert_times_rise(&record);
}

#[test]
fn datagrams_work_where_they_are_asked_for() {
    let camera = CameraProcess::playing();
    let watched = Watched::begin(SourceSettings { transport: Transport::Udp, ..settings(&camera.url) });
    wait_for_frames(&watched.recorder, FRAMES as usize);
    assert_times_rise(&watched.recorder.record());
}

/// The numbers around each gap.
fn gaps(record: &Record) -> Vec<(u32, u32)> {
    let numbers: Vec<u32> = record.frames.iter().map(|frame| frame.number).collect();
    numbers.windows(2).filter(|pair| pair[1] != (pair[0] + 1) % FRAMES).map(|pair| (pair[0], pair[1])).collect()
}

#[test]
fn after_a_lost_packet_nothing_is_shown_until_the_next_keyframe() {
    let clip = small_clip();
    let camera = CameraProcess::start(&["--file", &clip.to_string_lossy(), "--lose-every", "45"]);
    let watched = Watched::begin(settings(&camera.url));
    watched.recorder.wait("some gaps", SOON, |record| gaps(record).len() >= 4);
    let record = watched.recorder.record();
    println!("gaps {:?}, {} skipped", gaps(&record), record.damaged);
    assert!(gaps(&record).iter().all(|(_, next)| next % FPS == 0), "each second begins with a keyframe: {:?}", gaps(&record));
    assert!(record.damaged > 0 && record.late == 0, "what is skipped is counted by its cause: {}, {}", record.damaged, record.late);
    assert!(record.states.len() == 2, "no connection is lost to it: {:?}", record.states);
}

#[test]
fn a_recovery_point_from_which_a_picture_becomes_whole_bit_by_bit_is_no_keyframe() {
    let folder = tempfile::tempdir().expect("a folder");
    let clip = refreshed_clip(folder.path());
    let camera = CameraProcess::start(&["--file", &clip.to_string_lossy(), "--lose-every", "37"]);
    let watched = Watched::begin(settings(&camera.url));
    watched.recorder.wait("some gaps", SOON, |record| gaps(record).len() >= 4);
    let record = watched.recorder.record();
    println!("gaps {:?}, {} skipped", gaps(&record), record.damaged);
    assert!(gaps(&record).iter().all(|&(_, next)| next == 0), "the first picture alone is a keyframe: {:?}", gaps(&record));
}

#[test]
fn packets_of_another_payload_type_are_no_gap() {
    let clip = small_clip();
    for transport in [Transport::Tcp, Transport::Udp] {
        let camera = CameraProcess::start(&["--file", &clip.to_string_lossy(), "--other-every", "20"]);
        let watched = Watched::begin(SourceSettings { transport, ..settings(&camera.url) });
        wait_for_frames(&watched.recorder, 2 * FRAMES as usize);
        let record = watched.recorder.record();
        assert_eq!(record.damaged, 0, "{transport:?}: nothing was lost");
        assert_no_gap(&record);
        assert_eq!(record.states.len(), 2, "no connection is lost to it: {:?}", record.states);
    }
}

#[test]
fn a_camera_is_decoded_by_the_cpu_where_the_device_that_should_is_missing() {
    let camera = CameraProcess::playing();
    let logs = Logs::of_this_process();
    let watched = Watched::begin(SourceSettings { decode: Decode::on_cuda(999), ..settings(&camera.url) });
    wait_for_frames(&watched.recorder, FRAMES as usize);
    let record = watched.recorder.record();
    assert_no_gap(&record);
    assert_eq!(record.states.len(), 2, "no connection is lost to it: {:?}", record.states);
    drop(record);
    let logged = logs.text();
    let why: Vec<&str> = logged.lines().filter(|line| line.contains("decoded by the CPU until it connects again after 10 min")).collect();
    println!("{why:?}");
    assert_eq!(why.len(), 1, "it is said once, with the reason");
}

#[test]
fn h265_is_decoded_like_h264() {
    if !can_encode_h265() {
        println!("left out: this machine has no x265enc (gstreamer1.0-plugins-bad) to make an H.265 clip");
        return;
    }
    let file = clip(ClipSettings { is_h265: true, ..SMALL }, 0..FRAMES);
    let camera = CameraProcess::start(&["--file", &file.display().to_string()]);
    let watched = Watched::begin(settings(&camera.url));
    wait_for_frames(&watched.recorder, FRAMES as usize + 5);
    assert_no_gap(&watched.recorder.record());
}
