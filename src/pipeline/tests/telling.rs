//! What a camera's operator wants to hear, and to keep of pictures, is what comes.

use super::*;
use crate::telling::{DAY_MINUTES, EventRule, SnapshotPolicy, Telling};

/// Somebody who is known, and what is told of the visit.
async fn told(telling: Telling) -> (Vec<LoggedEvent>, Store) {
    let mut house = House::open(Faults::default(), 1).await;
    house.scene.telling = telling;
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    for _ in 0..8 {
        sink.offer(frame(&camera, house.clock.now(), Some(1), 40));
        until("the frame has left", || house.pipeline.is_idle()).await;
        house.clock.advance(FRAME_EVERY);
    }
    let store = house.store.clone();
    (house.told(&[camera]).await, store)
}

fn only(types: &[EventKind]) -> Telling {
    let rule = EventRule { types: types.to_vec(), until_minute: DAY_MINUTES, ..EventRule::default() };
    Telling { rules: vec![rule], ..Telling::default() }
}

#[tokio::test(start_paused = true)]
async fn what_no_rule_admits_is_not_told_and_leaves_nothing_open() {
    let (events, store) = told(only(&[EventKind::Identified])).await;
    assert_eq!(kinds(&events), [EventKind::Identified]);
    assert_eq!(store.open_visits().await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_visit_that_was_told_to_begin_is_told_to_end_whatever_the_rules_say() {
    let (events, store) = told(only(&[EventKind::VisitStarted])).await;
    assert_eq!(kinds(&events), [EventKind::VisitStarted, EventKind::VisitEnded]);
    assert_eq!(store.open_visits().await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn of_a_picture_is_kept_what_the_operator_wants() {
    for (snapshots, keeps_crop, keeps_frame) in
        [(SnapshotPolicy::None, false, false), (SnapshotPolicy::Crop, true, false), (SnapshotPolicy::Frame, true, true)]
    {
        let (events, store) = told(Telling { snapshots, ..Telling::default() }).await;
        let id = events[1].event.snapshot;
        assert_eq!(id.is_some(), keeps_crop, "{snapshots:?}");
        let Some(id) = id else { continue };
        let kept = store.snapshot(id).await.expect("read").expect("kept");
        assert_eq!((kept.crop_jpeg.is_empty(), kept.frame_jpeg.is_empty()), (false, !keeps_frame), "{snapshots:?}");
    }
}
