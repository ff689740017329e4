//! What a camera's operator wants to hear, and to keep of pictures, is what comes.

use super::*;
use crate::camera::NormalisedRect;
use crate::store::Call;
use crate::telling::{DAY_MINUTES, EventRule, SnapshotPolicy, Telling};

/// A small face, which nobody follows.
pub const FAR_AWAY: Rect = Rect { x: 260.0, y: 196.0, width: 24.0, height: 24.0 };

pub fn far_away() -> Detection {
    Detection { box_in_frame: FAR_AWAY, ..face_at(0.0, 1) }
}

/// Somebody who is known, and what is told of the visit.
async fn told(telling: Telling) -> (Vec<LoggedEvent>, Store) {
    told_by(|scene| scene.telling = telling, |frame| frame).await
}

/// The same by other settings, of other frames.
async fn told_by(settings: impl FnOnce(&mut SceneSettings), of: impl Fn(Frame) -> Frame) -> (Vec<LoggedEvent>, Store) {
    let mut house = House::open(Faults::default(), 1).await;
    settings(&mut house.scene);
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    for _ in 0..8 {
        sink.offer(of(frame(&camera, house.clock.now(), Some(1), 40)));
        until("the frame has left", || house.pipeline.is_idle()).await;
        house.clock.advance(FRAME_EVERY);
    }
    let store = house.store.clone();
    (house.told(&[camera]).await, store)
}

pub fn only(types: &[EventKind]) -> Telling {
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

#[tokio::test(start_paused = true)]
async fn no_picture_is_kept_of_whoever_is_erased_though_no_rule_told_the_name() {
    let mut house = House::open(Faults::default(), 1).await;
    house.scene.telling = only(&[EventKind::VisitStarted, EventKind::VisitEnded]);
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    let uid = house.uids[&1];
    for number in 0..60 {
        if number == 8 {
            let erased = [Mutation::PutSubject(Subject { uid, ..Subject::made_up("person-1", 0) }), Mutation::EraseSubject(uid)];
            house.store.mutate(erased.into(), Call::default(), Box::new(|_| Vec::new())).await.expect("erased");
            let gallery = &house.pipeline.0.gallery;
            gallery.apply(gallery.current().version() + 1, &[Mutation::EraseSubject(uid)]);
        }
        sink.offer(frame(&camera, house.clock.now(), Some(1), 40));
        until("the frame has left", || house.pipeline.is_idle()).await;
        house.clock.advance(FRAME_EVERY);
    }
    let store = house.store.clone();
    let told = house.told(&[camera]).await;
    assert_eq!(kinds(&told), [EventKind::VisitStarted, EventKind::VisitEnded]);
    let id = told[1].event.snapshot.expect("it would have had one");
    assert_eq!((store.snapshot(id).await, store.counts().snapshots_of_erased), (Ok(None), 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_came_in_is_shown_by_the_entry_too() {
    for (telling, names) in [(Telling::default(), 2), (only(&[EventKind::Entry]), 1)] {
        let at_an_entry = |scene: &mut SceneSettings| {
            scene.telling = telling;
            scene.layout.role = Role::Entry;
        };
        let (events, store) = told_by(at_an_entry, |frame| frame).await;
        let shown: Vec<_> = events.iter().filter_map(|logged| logged.event.snapshot).collect();
        assert!(shown.len() >= names && shown.iter().all(|id| *id == shown[0]), "{events:?}");
        let entry = events.iter().find(|logged| logged.event.kind == EventKind::Entry).expect("somebody came in");
        let picture = store.snapshot(entry.event.snapshot.expect("it names a picture")).await.expect("read").expect("kept");
        assert!(!picture.crop_jpeg.is_empty());
    }
}

/// The same frame with somebody far away, in a part of it where no two neighbours are alike.
fn crowded(frame: &Frame) -> Frame {
    let mut random = fastrand::Rng::with_seed(3);
    let mut pixels = frame.plane(0).to_vec();
    for (x, y) in (250..SIZE.width as usize).flat_map(|x| (186..SIZE.height as usize).map(move |y| (x, y))) {
        pixels[(y * SIZE.width as usize + x) * 3..][..3].fill(random.u8(1..));
    }
    Frame::new(frame.camera.clone(), frame.capture_time, PixelFormat::rgb8(SIZE), Arc::new(pixels)).expect("the pixels are there")
}

/// How much neighbours differ there.
fn detail(jpeg: &[u8], part: Rect) -> f64 {
    let picture = image::load_from_memory(jpeg).expect("a picture").to_luma8();
    let (columns, rows) = (part.x as u32..(part.x + part.width) as u32 - 1, part.y as u32..(part.y + part.height) as u32);
    let differences: Vec<f64> = columns
        .flat_map(|x| rows.clone().map(move |y| (x, y)))
        .map(|(x, y)| f64::from(picture[(x, y)][0].abs_diff(picture[(x + 1, y)][0])))
        .collect();
    differences.iter().sum::<f64>() / differences.len() as f64
}

#[tokio::test(start_paused = true)]
async fn everybody_else_is_made_unrecognisable_also_who_is_too_small_or_too_far_aside_to_be_followed() {
    let beside = Rect { x: 290.0, y: 196.0, width: 28.0, height: 40.0 };
    for (blurs, region, hides_face, hides_rest) in
        [(false, None, false, false), (true, None, true, false), (true, Some((0.0, 0.0, 0.75, 1.0)), true, true)]
    {
        let settings = |scene: &mut SceneSettings| {
            scene.telling.blur_others = blurs;
            scene.face_pixels_min = 40;
            scene.region_of_interest = region.map(|(x, y, width, height)| NormalisedRect { x, y, width, height });
        };
        let (events, store) = told_by(settings, |frame| crowded(&frame)).await;
        assert_eq!(kinds(&events), [EventKind::VisitStarted, EventKind::Identified, EventKind::VisitEnded], "nobody else is followed");
        let id = events[1].event.snapshot.expect("a picture");
        let kept = store.snapshot(id).await.expect("read").expect("kept");
        let (face, rest) = (detail(&kept.frame_jpeg, FAR_AWAY), detail(&kept.frame_jpeg, beside));
        assert_eq!((face < 20.0, rest < 20.0), (hides_face, hides_rest), "blurs {blurs}, region {region:?}: {face} and {rest}");
    }
}
