//! A camera is watched by other settings while somebody stands before it.

use super::*;
use crate::calibration::{Band, Calibration, Histogram, Measured};
use crate::camera::{NormalisedPoint, Region};
use crate::config::RecognitionConfig;
use crate::event::{Decision, Event, ThresholdBasis};
use crate::telling::{DAY_MINUTES, EventRule, SnapshotPolicy};

/// Frames of `person`, one after the other.
async fn shows(house: &House, sink: &Arc<dyn FrameSink>, (person, left): (usize, usize), frames: usize) {
    for _ in 0..frames {
        sink.offer(frame(&camera("door"), house.clock.now(), Some(person), left));
        until("the frame has left", || house.pipeline.is_idle()).await;
        house.clock.advance(FRAME_EVERY);
    }
}

async fn rewatch(house: &House, scene: SceneSettings) {
    let slot = SlotSettings { role: Role::Entry, analysis_fps_max: None, policy: SlotPolicy::NewestWins };
    house.pipeline.rewatch(Watch { camera: camera("door"), slot, scene }).await.expect("it is watched otherwise");
}

#[tokio::test(start_paused = true)]
async fn another_threshold_ends_no_visit_and_decides_the_next_one() {
    let house = House::open(Faults::default(), 1).await;
    let sink = house.watch(&camera("door"), SlotPolicy::NewestWins);
    shows(&house, &sink, (1, 40), 8).await;
    rewatch(&house, SceneSettings { policy: Policy::fixed(0.75), ..house.scene.clone() }).await;
    shows(&house, &sink, (1, 40), 8).await;
    house.clock.advance(Duration::from_secs(5));
    shows(&house, &sink, (2, 40), 8).await;
    let told = house.told(&[camera("door")]).await;
    let of_visits = visits(&told, &camera("door"));
    assert_eq!(of_visits.len(), 2, "{told:?}");
    for (visit, threshold) in of_visits.iter().zip([0.5, 0.75]) {
        assert_eq!(kinds(visit), [EventKind::VisitStarted, EventKind::Identified, EventKind::VisitEnded]);
        assert_eq!(visit[1].event.decision.as_ref().map(|decision| decision.threshold), Some(threshold));
    }
}

/// A rate that thresholds follow, by a calibration of strangers who are alike by -0.5 to 0.5.
fn promising(target_fpir: f64) -> Policy {
    let mut non_mated = Histogram::over(-1.0, 1.0, 0.002);
    (0..1_000_000).for_each(|number| non_mated.add(number as f32 / 1e6 - 0.5));
    let bands = vec![Band::new(0.0, (non_mated, Histogram::over(-1.0, 1.0, 0.002)), 10_000)];
    let measured = Measured { people: 10_000, photos: 10_000, bands };
    let calibration = Calibration::new(&space(), "cosine", ("planted", "none"), measured);
    Policy::new(&RecognitionConfig { target_fpir: Some(target_fpir), ..RecognitionConfig::default() }, Some(calibration), 0.363)
}

/// What decided each visit of person 1: before two hundred more are enrolled, while they are, and after they have left.
async fn decisions_beside_others(policy: Policy) -> Vec<Decision> {
    let mut house = House::at_rest(Faults::default(), 1).await;
    house.scene.policy = policy;
    let house = house.running();
    let sink = house.watch(&camera("door"), SlotPolicy::NewestWins);
    let gallery = house.pipeline.0.gallery.clone();
    let others: Vec<SubjectUid> = (0..200).map(|_| SubjectUid(uuid::Uuid::now_v7())).collect();
    for visit in 0..3 {
        match visit {
            1 => others.iter().for_each(|uid| enrol_as(&gallery, (*uid, 100), template(7))),
            2 => gallery.apply(gallery.current().version() + 1, &others.iter().map(|uid| Mutation::EraseSubject(*uid)).collect::<Vec<_>>()),
            _ => {}
        }
        shows(&house, &sink, (1, 40), 8).await;
        house.clock.advance(Duration::from_secs(5));
        sink.offer(frame(&camera("door"), house.clock.now(), None, 0));
        until("the frame has left", || house.pipeline.is_idle()).await;
        house.clock.advance(FRAME_EVERY);
    }
    let told = house.told(&[camera("door")]).await;
    let decided = told.into_iter().filter(|logged| logged.event.kind == EventKind::Identified);
    decided.filter_map(|logged| logged.event.decision.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_threshold_in_events_rises_when_people_are_enrolled_and_falls_when_they_leave() {
    let decided = decisions_beside_others(promising(0.05)).await;
    let [before, among, after] = decided.as_slice() else { panic!("{decided:?}") };
    assert_eq!([before, among, after].map(|decision| decision.gallery_subjects), [2, 202, 2]);
    assert!(among.threshold > before.threshold + 0.01 && after.threshold == before.threshold, "{decided:?}");
    assert!(decided.iter().all(|decision| decision.basis == Some(ThresholdBasis::Calibrated) && decision.expected_rate == Some(0.05)));
}

#[tokio::test(start_paused = true)]
async fn an_event_says_where_a_target_cannot_be_promised_and_what_is_kept() {
    let decided = decisions_beside_others(promising(1e-9)).await;
    assert_eq!(decided.len(), 3);
    for decision in decided {
        assert_eq!((decision.basis, decision.target_rate), (Some(ThresholdBasis::Unsupported), Some(1e-9)));
        assert!(decision.expected_rate.is_some_and(|rate| rate > 1e-7), "{decision:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_began_under_the_old_rules_is_told_to_end_under_the_new_ones() {
    let house = House::open(Faults::default(), 1).await;
    let sink = house.watch(&camera("door"), SlotPolicy::NewestWins);
    shows(&house, &sink, (1, 40), 8).await;
    let rule = EventRule { types: vec![EventKind::Identified], until_minute: DAY_MINUTES, ..EventRule::default() };
    let mut scene = house.scene.clone();
    scene.telling.rules = vec![rule];
    rewatch(&house, scene).await;
    let told = house.told(&[camera("door")]).await;
    assert_eq!(kinds(&told), [EventKind::VisitStarted, EventKind::Identified, EventKind::VisitEnded]);
}

#[tokio::test(start_paused = true)]
async fn another_zone_ends_the_visits_whose_paths_were_followed_without_it() {
    let house = House::open(Faults::default(), 1).await;
    let sink = house.watch(&camera("door"), SlotPolicy::NewestWins);
    shows(&house, &sink, (1, 40), 8).await;
    let corner = |x, y| NormalisedPoint { x, y };
    let mut scene = house.scene.clone();
    scene.layout.zones = vec![Region { name: "bench".into(), points: vec![corner(0.98, 0.98), corner(1.0, 0.98), corner(1.0, 1.0)] }];
    rewatch(&house, scene).await;
    shows(&house, &sink, (1, 40), 8).await;
    let told = house.told(&[camera("door")]).await;
    let of_visits = visits(&told, &camera("door"));
    assert_eq!(of_visits.len(), 2, "{told:?}");
    for visit in &of_visits {
        assert_eq!(kinds(visit), [EventKind::VisitStarted, EventKind::Identified, EventKind::VisitEnded]);
    }
    assert_eq!(of_visits[0][2].event.end_reason, Some(EndReason::CameraRemoved));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_another_threshold_would_not_give_is_taken_back() {
    let house = House::open(Faults::default(), 1).await;
    let sink = house.watch(&camera("door"), SlotPolicy::NewestWins);
    shows(&house, &sink, (1, 40), 60).await;
    // Whoever looks exactly like somebody is a little too far from them now, though not by what noise may be.
    rewatch(&house, SceneSettings { policy: Policy::fixed(1.02), ..house.scene.clone() }).await;
    // It is looked at sooner than somebody who is decided, whose looks are two seconds apart.
    shows(&house, &sink, (1, 40), 8).await;
    let told = house.told(&[camera("door")]).await;
    let expected = [EventKind::VisitStarted, EventKind::Identified, EventKind::IdentityRevised, EventKind::VisitEnded];
    assert_eq!(kinds(&told), expected);
    assert_eq!((told[2].event.subject, told[3].event.subject), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_an_entry_told_is_taken_back_whatever_the_rules_say() {
    let mut house = House::open(Faults::default(), 1).await;
    house.scene.telling = super::telling::only(&[EventKind::Entry]);
    house.scene.layout.role = Role::Entry;
    let sink = house.watch(&camera("door"), SlotPolicy::NewestWins);
    shows(&house, &sink, (1, 40), 60).await;
    rewatch(&house, SceneSettings { policy: Policy::fixed(1.02), ..house.scene.clone() }).await;
    shows(&house, &sink, (1, 40), 8).await;
    let told = house.told(&[camera("door")]).await;
    assert_eq!(kinds(&told), [EventKind::Entry, EventKind::IdentityRevised]);
    assert!(told[0].event.subject.is_some() && told[1].event.subject.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_was_taken_under_another_policy_is_not_kept() {
    let mut house = House::open(Faults::default(), 1).await;
    house.scene.snapshots = true;
    for (snapshots, blur_others) in [(SnapshotPolicy::Frame, false), (SnapshotPolicy::None, false), (SnapshotPolicy::Frame, true)] {
        let sink = house.watch(&camera("door"), SlotPolicy::NewestWins);
        // A stranger, who is not decided by one frame.
        shows(&house, &sink, (3, 40), 2).await;
        let mut scene = house.scene.clone();
        (scene.telling.snapshots, scene.telling.blur_others) = (snapshots, blur_others);
        rewatch(&house, scene).await;
        house.clock.advance(Duration::from_secs(5));
        house.pipeline.forget(&camera("door"), EndReason::CameraRemoved).await.expect("it is told");
    }
    let told = house.told(&[]).await;
    let decided = told.iter().filter(|logged| logged.event.kind == EventKind::Unidentified);
    assert_eq!(decided.map(|logged| logged.event.snapshot.is_some()).collect::<Vec<_>>(), [true, false, false], "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_shadow_is_changed_with_what_it_shadows() {
    let mut house = House::at_rest(Faults::default(), 1).await;
    let (sender, mut verdicts) = tokio::sync::mpsc::channel(16);
    let shadow = |threshold| Some(ShadowSettings { policy: Policy::fixed(threshold), is_same_space: true, resume_threshold: 0.363 });
    house.scene.shadow = shadow(0.6);
    house.pipeline = house.pipeline.with_shadow(Shadow { encoder: None, verdicts: sender });
    let house = house.running();
    let sink = house.watch(&camera("door"), SlotPolicy::NewestWins);
    shows(&house, &sink, (1, 40), 8).await;
    rewatch(&house, SceneSettings { shadow: shadow(0.7), ..house.scene.clone() }).await;
    house.clock.advance(Duration::from_secs(5));
    shows(&house, &sink, (2, 40), 8).await;
    house.told(&[camera("door")]).await;
    let mut thresholds = Vec::new();
    while let Ok(verdict) = verdicts.try_recv() {
        thresholds.extend(verdict.shadow.map(|decision| decision.threshold));
    }
    assert_eq!(thresholds, [0.6, 0.7]);
}

#[tokio::test(start_paused = true)]
async fn frames_that_were_under_way_when_a_camera_was_lost_begin_no_visit() {
    let house = House::open(Faults::default(), 1).await;
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    let look = async |at: Timestamp| {
        sink.offer(frame(&camera, at, Some(1), 40));
        until("the frame has left", || house.pipeline.is_idle()).await;
    };
    let begin = house.clock.now();
    for number in 0..4 {
        look(begin.plus(FRAME_EVERY * number)).await;
    }
    house.clock.advance(FRAME_EVERY * 8);
    let tell = async |kind: EventKind, ends: Option<EndReason>| {
        let event = Event::new(kind, camera.as_str(), house.clock.now());
        house.pipeline.announce(vec![(camera.clone(), event, ends)]).await.expect("it is told");
    };
    tell(EventKind::CameraOffline, Some(EndReason::CameraOffline)).await;
    for number in 4..8 {
        look(begin.plus(FRAME_EVERY * number)).await;
    }
    tell(EventKind::CameraOnline, None).await;
    for number in 20..24 {
        look(begin.plus(FRAME_EVERY * number)).await;
    }
    let told = house.told(std::slice::from_ref(&camera)).await;
    let visit = [EventKind::VisitStarted, EventKind::Identified, EventKind::VisitEnded];
    let expected = [&visit[..], &[EventKind::CameraOffline, EventKind::CameraOnline], &visit].concat();
    assert_eq!(kinds(&told), expected);
}

#[tokio::test(start_paused = true)]
async fn a_camera_that_waits_for_the_disk_keeps_no_other_from_being_looked_at() {
    let house = House::open(Faults::default(), 1).await;
    let [slow, other] = [camera("slow"), camera("other")];
    let sinks = [&slow, &other].map(|camera| house.watch(camera, SlotPolicy::NewestWins));
    let cell = house.pipeline.cell(&slow).expect("it is watched");
    // Whoever writes this camera's events holds this for as long as the disk takes.
    let writing = cell.unwritten.lock().await;
    for number in 0..4 {
        sinks[0].offer(frame(&slow, house.clock.now().plus(FRAME_EVERY * number), Some(1), 40));
        in_time("sweeps have passed", tokio::time::sleep(2 * SWEEP_EVERY)).await;
    }
    for number in 0..4 {
        sinks[1].offer(frame(&other, house.clock.now().plus(FRAME_EVERY * number), Some(2), 40));
        until("the other camera's frame is analysed", || {
            house.pipeline.frame_counts(&other).is_some_and(|counts| counts.analysed > number as u64)
        })
        .await;
    }
    drop(writing);
    let told = in_time("all is told", house.told(&[slow.clone(), other.clone()])).await;
    for (camera, frames_are_several) in [(slow, false), (other, true)] {
        let of_visits = visits(&told, &camera);
        assert_eq!(of_visits.len(), usize::from(frames_are_several), "{camera}: {told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_camera_is_told_to_be_lost_while_what_is_told_of_another_waits_for_the_disk_so_that_nothing_ends_that_began_since() {
    let house = House::open(Faults::default(), 1).await;
    let [slow, other] = [camera("slow"), camera("other")];
    let [_, sink] = [&slow, &other].map(|camera| house.watch(camera, SlotPolicy::NewestWins));
    let cell = house.pipeline.cell(&slow).expect("it is watched");
    // Whoever writes this camera's events holds this for as long as the disk takes.
    let writing = cell.unwritten.lock().await;
    let lost = |camera: &CameraId| {
        let event = Event::new(EventKind::CameraOffline, camera.as_str(), house.clock.now());
        (camera.clone(), event, Some(EndReason::CameraOffline))
    };
    let (pipeline, news) = (house.pipeline.clone(), vec![lost(&slow), lost(&other)]);
    let announcing = tokio::spawn(async move { pipeline.announce(news).await });
    tokio::task::yield_now().await;
    // The other one is back before that is written.
    for _ in 0..8 {
        house.clock.advance(FRAME_EVERY);
        sink.offer(frame(&other, house.clock.now(), Some(1), 40));
        until("the frame has left", || house.pipeline.is_idle()).await;
    }
    drop(writing);
    in_time("it is written", announcing).await.expect("no panic").expect("it is told");
    let told = in_time("all is told", house.told(&[slow, other.clone()])).await;
    let of_other: Vec<_> = told.into_iter().filter(|logged| *logged.event.camera == *other.as_str()).collect();
    assert_eq!(kinds(&of_other), [EventKind::CameraOffline, EventKind::VisitStarted, EventKind::Identified, EventKind::VisitEnded]);
    assert_eq!(of_other[3].event.end_reason, Some(EndReason::CameraRemoved), "nothing but the end of the test ended it");
}
