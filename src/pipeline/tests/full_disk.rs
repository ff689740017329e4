//! A disk without room: recognition goes on, and nothing that happened is lost.
//!
//! In: a database that may not grow. Out: what is told, when, and with which pictures.

use super::*;
use crate::event::Event;

#[tokio::test(start_paused = true)]
async fn recognition_goes_on_while_the_disk_is_full_and_what_happened_is_told_once_there_is_room() {
    let house = House::open(Faults::default(), 1).await;
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    let (store, events) = (house.store.clone(), house.events.clone());
    store.limit_growth(Some(0)).await;
    // The last pages have room for events as small as this one.
    let small = Event::new(EventKind::CameraOnline, "elsewhere", house.clock.now());
    while events.append(vec![small.clone()]).await.is_ok() {}
    let full_at = events.position().sequence;
    for _ in 0..10 {
        sink.offer(frame(&camera, house.clock.now(), Some(1), 40));
        until("the frame has left", || house.pipeline.is_idle()).await;
        house.clock.advance(FRAME_EVERY);
    }
    assert_eq!(house.pipeline.counts().frames, 10, "every frame was analysed");
    assert!(*events.disk_full().borrow() && events.position().sequence == full_at, "nothing is told that is not on disk");
    store.limit_growth(None).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told: Vec<_> = house.told(&[camera]).await.into_iter().filter(|told| told.sequence > full_at).collect();
    assert_eq!(kinds(&told), [EventKind::VisitStarted, EventKind::Identified, EventKind::VisitEnded]);
    let picture = told[1].event.snapshot.expect("it has a picture");
    assert!(store.snapshot(picture).await.expect("it is readable").is_some(), "with the picture");
}

#[tokio::test(start_paused = true)]
async fn who_came_is_told_though_there_is_no_room_for_the_picture_and_the_picture_comes_when_there_is() {
    let house = House::open(Faults::default(), 1).await;
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    let (store, events) = (house.store.clone(), house.events.clone());
    // Room for a few events, and not for a picture.
    store.limit_growth(Some(2)).await;
    for _ in 0..10 {
        sink.offer(frame(&camera, house.clock.now(), Some(1), 40));
        until("the frame has left", || house.pipeline.is_idle()).await;
        house.clock.advance(FRAME_EVERY);
    }
    until("who came is told", || events.position().sequence == 2).await;
    assert!(!*events.disk_full().borrow(), "nobody is told that events wait");
    store.limit_growth(None).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let told = house.told(&[camera]).await;
    assert_eq!(kinds(&told), [EventKind::VisitStarted, EventKind::Identified, EventKind::VisitEnded]);
    let picture = told[1].event.snapshot.expect("it has a picture");
    assert!(store.snapshot(picture).await.expect("it is readable").is_some(), "with the picture");
}
