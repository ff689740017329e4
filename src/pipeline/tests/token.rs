//! The watchdog's token, and what is stuck by its age.
//!
//! In: sessions that are held at a picture, locks that are held, a clock that the test moves. Out: whether the token came back, and
//! what is called stuck.
//! Must not know: systemd.

use std::sync::mpsc;

use super::super::token::STUCK_AFTER;
use super::*;
use crate::event::Event;

/// A session that says when it is at a picture, and stays there until it is let go.
struct Held {
    at_it: mpsc::SyncSender<()>,
    let_go: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Inference for Held {
    fn detect(&mut self, requests: &[DetectRequest], _: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        if !requests.is_empty() {
            // The end of the test ends the wait.
            let _ = self.at_it.send(());
            let _ = self.let_go.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
        Ok(vec![Vec::new(); requests.len()])
    }

    fn encode(&mut self, _: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        Ok(Vec::new())
    }
}

/// A house whose sessions are held, what tells that one is at a picture, and what lets one go.
async fn house_with(sessions: usize) -> (House, mpsc::Receiver<()>, mpsc::SyncSender<()>) {
    let ((at_it, is_at_it), (go, let_go)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
    let let_go = Arc::new(Mutex::new(let_go));
    let held = (0..sessions).map(|_| Held { at_it: at_it.clone(), let_go: Arc::clone(&let_go) }).collect();
    let engine = Engine::of_sessions(held, facts(sessions, Faults::default())).expect("threads can be had");
    let house = House::at_rest(Faults::default(), 1).await;
    let pipeline = Pipeline::new(engine, Gallery::with_clock(space(), house.clock.clone()), house.events.clone(), house.clock.clone());
    (House { pipeline, ..house }.running(), is_at_it, go)
}

/// Waits for a session to be at a picture, and lets the tasks of the test go on meanwhile.
async fn until_held(is_at_it: mpsc::Receiver<()>) -> mpsc::Receiver<()> {
    let waiting = tokio::task::spawn_blocking(move || {
        is_at_it.recv().expect("the sessions are there");
        is_at_it
    });
    waiting.await.expect("it waits")
}

#[tokio::test(start_paused = true)]
async fn the_token_comes_back_without_cameras() {
    let house = House::open(Faults::default(), 1).await;
    house.pipeline.pass_token(|_| {}).await.expect("every stage works");
    house.told(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_under_way_for_far_too_long_is_stuck() {
    let (house, is_at_it, go) = house_with(2).await;
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    sink.offer(frame(&camera, house.clock.now(), Some(1), 40));
    let _is_at_it = until_held(is_at_it).await;
    is_stuck_from_then_on("a batch", &house, || go.send(()).expect("it is held")).await;
    house.told(&[camera]).await;
}

/// A photo that some session is asked about.
async fn photo(house: &House) -> tokio::task::JoinHandle<Result<Vec<Vec<Detection>>, InferError>> {
    let engine = house.pipeline.0.engine.clone();
    let picture = frame(&camera("photo"), house.clock.now(), None, 0);
    let request = DetectRequest { frame: picture, detector_side: None, region_of_interest: None, score_min: None, face_pixels_min: 0 };
    tokio::spawn(async move { engine.detect(Lane::Photo, vec![request]).await })
}

/// Nothing is stuck until the clock has moved by [`STUCK_AFTER`], and from then on `what`, until `mend` has set it right.
async fn is_stuck_from_then_on(what: &str, house: &House, mend: impl FnOnce()) {
    assert_eq!(house.pipeline.stuck(), None, "it has only begun");
    house.clock.advance(STUCK_AFTER - Duration::from_millis(1));
    assert_eq!(house.pipeline.stuck(), None, "it may take this long");
    house.clock.advance(Duration::from_millis(1));
    let stuck = house.pipeline.stuck().expect("it is stuck");
    assert!(stuck.starts_with(what), "{stuck}");
    mend();
    until("it goes on", || house.pipeline.stuck().is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn the_token_does_not_come_back_while_the_sessions_are_stuck() {
    let (house, is_at_it, go) = house_with(1).await;
    // A photo is no batch: nothing but the session keeps the token.
    let photo = photo(&house).await;
    let _is_at_it = until_held(is_at_it).await;

    let pipeline = house.pipeline.clone();
    let token = tokio::spawn(async move { pipeline.pass_token(|_| {}).await });
    tokio::time::sleep(2 * SWEEP_EVERY).await;
    // The store answers in the order in which it is asked, so that a token that had gone past the session would be back by now.
    house.events.pass_token().await.expect("the store works");
    tokio::task::yield_now().await;
    assert!(!token.is_finished(), "no session can work, and the token came back");
    go.send(()).expect("it is held");
    token.await.expect("no panic").expect("it goes on");
    photo.await.expect("no panic").expect("the photo was looked at");
    house.told(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_stays_at_a_photo_is_stuck_while_others_are_free_but_not_before_a_long_photo_ends() {
    let (house, is_at_it, go) = house_with(2).await;
    let photo = photo(&house).await;
    let _is_at_it = until_held(is_at_it).await;
    is_stuck_from_then_on("a session", &house, || go.send(()).expect("it is held")).await;
    photo.await.expect("no panic").expect("the photo was looked at");
    house.told(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn events_that_do_not_reach_the_log_are_stuck_though_no_frame_comes() {
    let house = House::open(Faults::default(), 1).await;
    let camera = camera("door");
    let _sink = house.watch(&camera, SlotPolicy::NewestWins);
    let cell = house.pipeline.cell(&camera).expect("it is watched");
    let writing = cell.unwritten.lock().await;
    let (pipeline, news) = (house.pipeline.clone(), Event::new(EventKind::CameraOnline, camera.as_str(), house.clock.now()));
    let announcing = tokio::spawn({
        let camera = camera.clone();
        async move { pipeline.announce(vec![(camera, news, None)]).await }
    });
    tokio::task::yield_now().await;
    is_stuck_from_then_on("what a camera tells", &house, || drop(writing)).await;
    announcing.await.expect("no panic").expect("it is told");
    assert_eq!(kinds(&house.told(&[camera]).await), [EventKind::CameraOnline]);
}

#[tokio::test(start_paused = true)]
async fn frames_that_nobody_takes_are_stuck() {
    let house = House::at_rest(Faults::default(), 1).await;
    let place = house.pipeline.0.engine.idle_session().await.expect("there is one");
    let house = house.running();
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    sink.offer(frame(&camera, house.clock.now(), None, 0));
    is_stuck_from_then_on("frames", &house, || drop(place)).await;
    house.told(&[camera]).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stuck_where_frames_come_and_go_all_the_time() {
    let house = House::open(Faults::default(), 1).await;
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    for _ in 0..3 {
        sink.offer(frame(&camera, house.clock.now(), None, 0));
        assert_eq!(house.pipeline.stuck(), None, "this frame has only come");
        until("the frame has left", || house.pipeline.is_idle()).await;
        house.clock.advance(2 * STUCK_AFTER);
    }
    house.told(&[camera]).await;
}

#[tokio::test(start_paused = true)]
async fn the_token_does_not_come_back_where_nobody_ends_visits() {
    // Sweeps are what the token needs of a pipeline that runs; sessions and log work by themselves.
    let house = House::at_rest(Faults::default(), 1).await;
    let pipeline = house.pipeline.clone();
    let token = tokio::spawn(async move { pipeline.pass_token(|_| {}).await });
    tokio::task::yield_now().await;
    // Both answer in the order in which they are asked: the second time they have answered a token that had not waited.
    for _ in 0..2 {
        house.pipeline.0.engine.detect(Lane::Live, Vec::new()).await.expect("the session works");
        house.events.pass_token().await.expect("the store works");
    }
    tokio::task::yield_now().await;
    assert!(!token.is_finished(), "nobody sweeps, and the token came back");
    let house = house.running();
    token.await.expect("no panic").expect("every stage works");
    house.told(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_token_does_not_come_back_while_a_scene_is_stuck() {
    let house = House::open(Faults::default(), 1).await;
    let camera = camera("door");
    let _sink = house.watch(&camera, SlotPolicy::NewestWins);
    let cell = house.pipeline.cell(&camera).expect("it is watched");
    let ((held, is_held), (go, let_go)) = (mpsc::sync_channel(1), mpsc::sync_channel::<()>(1));
    let stuck = std::thread::spawn(move || {
        let _scene = cell.scene();
        held.send(()).expect("it is awaited");
        // The end of the test ends the wait.
        let _ = let_go.recv();
    });
    is_held.recv().expect("it is held");
    // Whoever waits for the scene holds up all that this runtime does, its timers too: the token has another one.
    let (pipeline, (back, is_back)) = (house.pipeline.clone(), mpsc::sync_channel(2));
    let passing = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        for _ in 0..2 {
            back.send(runtime.block_on(pipeline.pass_token(|_| {})).is_ok()).expect("it is awaited");
        }
    });
    // The round that was under way may have been past the scene: what counts is the next one.
    let passed = std::iter::from_fn(|| is_back.recv_timeout(4 * SWEEP_EVERY).ok()).take(2).count();
    assert!(passed < 2, "a scene is stuck, and the token came back");
    go.send(()).expect("it is held");
    passing.join().expect("it goes on");
    stuck.join().expect("no panic");
    house.told(&[camera]).await;
}
