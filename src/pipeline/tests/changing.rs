//! A camera is watched by other settings while somebody stands before it.

use super::*;
use crate::camera::{NormalisedPoint, Region};
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
