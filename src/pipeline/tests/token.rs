//! The watchdog's token: a stage that is stuck keeps it.
//!
//! In: sessions that are held at a picture. Out: whether the token came back. Must not know: systemd.

use std::sync::mpsc;

use tokio::time::timeout;

use super::*;

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
    house.pipeline.pass_token().await.expect("every stage works");
    house.told(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn the_token_does_not_come_back_while_a_batch_is_under_way_for_far_too_long() {
    // The second session is free all the while, so that nothing but the batch keeps the token.
    let (house, is_at_it, go) = house_with(2).await;
    let camera = camera("door");
    let sink = house.watch(&camera, SlotPolicy::NewestWins);
    sink.offer(frame(&camera, house.clock.now(), Some(1), 40));
    let _is_at_it = until_held(is_at_it).await;
    house.clock.advance(STUCK_AFTER - Duration::from_millis(1));
    house.pipeline.pass_token().await.expect("a batch may take this long");

    house.clock.advance(Duration::from_millis(1));
    let pipeline = house.pipeline.clone();
    let mut token = std::pin::pin!(pipeline.pass_token());
    let early = timeout(STUCK_AFTER * 10, &mut token).await;
    assert!(early.is_err(), "it is stuck, and the token came back: {early:?}");
    go.send(()).expect("it is held");
    token.await.expect("it goes on");
    house.told(&[camera]).await;
}

#[tokio::test]
async fn the_token_does_not_come_back_while_the_sessions_are_stuck() {
    let (house, is_at_it, go) = house_with(1).await;
    let engine = house.pipeline.0.engine.clone();
    let picture = frame(&camera("photo"), house.clock.now(), None, 0);
    let request = DetectRequest { frame: picture, detector_side: None, region_of_interest: None, score_min: None, face_pixels_min: 0 };
    // A photo is no batch: nothing but the session keeps the token.
    let photo = tokio::spawn(async move { engine.detect(Lane::Photo, vec![request]).await });
    let _is_at_it = until_held(is_at_it).await;

    let pipeline = house.pipeline.clone();
    let token = tokio::spawn(async move { pipeline.pass_token().await });
    tokio::task::yield_now().await;
    // The store answers in the order in which it is asked, so that a token that had gone past the session would be back by now.
    house.events.pass_token().await.expect("the store works");
    tokio::task::yield_now().await;
    assert!(!token.is_finished(), "no session can work, and the token came back");
    go.send(()).expect("it is held");
    token.await.expect("no panic").expect("it goes on");
    photo.await.expect("no panic").expect("the photo was looked at");
    house.told(&[]).await;
}
