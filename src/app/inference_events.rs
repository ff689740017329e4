//! Tells the log when inference fails, and when it works again.
//!
//! In: the engine's condition, what was told last. Out: `INFERENCE_FAILED` at the first failure and every [`AGAIN`] while there are
//! more, `INFERENCE_RESTORED` when there was none for [`QUIET`] and what failed was done since: one that comes and goes is not told
//! at the rate of frames.
//! Must not know: what fails, sessions.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::event::{Event, EventKind};
use crate::event_log::{EventLog, EventLogError};
use crate::infer::{Condition, EngineFacts};
use crate::store::{Store, StoreError};

/// So long nothing may have failed before inference is said to work.
const QUIET: Duration = Duration::from_secs(10);
/// So long nobody may have asked for what failed before it is said to work as far as anybody knows: a door may be quiet all night.
const UNASKED: Duration = Duration::from_secs(60);
/// So often it is told that inference still fails: what made it fail first may be the lesser of two faults.
const AGAIN: Duration = Duration::from_secs(600);
/// How long the log may take for the last event of a daemon that ends.
const LAST_EVENT_MAX: Duration = Duration::from_secs(3);
/// How long a full disk is waited for.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// Tells of the start, where the last run ended by a failure or another device `is_replaced` by this one, then of every change, until
/// told to stop.
///
/// # Errors
/// [`EventLogError`], but for a full disk, which is waited for.
pub(super) async fn tell(
    (store, events): (Store, EventLog),
    clock: Arc<dyn Clock>,
    (condition, facts, is_replaced): (watch::Receiver<Condition>, EngineFacts, bool),
    stop: CancellationToken,
) -> Result<(), EventLogError> {
    let told = |kind, message| append(events.clone(), event(kind, message, clock.now()));
    let telling = async {
        let last = store.last_of_inference().await?;
        if is_replaced || last.is_some_and(|last| last.event.kind == EventKind::InferenceFailed) {
            told(EventKind::InferenceRestored, format!("{} does the work: {}", facts.device, facts.device_reason)).await?;
        }
        follow(condition, &facts.device, told).await
    };
    stop.run_until_cancelled(telling).await.unwrap_or(Ok(()))
}

/// Waits as `ending` does, and tells of a failure that ends the daemon before it answers.
pub(super) async fn tell_end(
    ending: impl Future<Output = Result<(), String>>,
    events: EventLog,
    clock: Arc<dyn Clock>,
) -> Result<(), String> {
    let ended = ending.await;
    if let Err(reason) = &ended {
        let event = event(EventKind::InferenceFailed, format!("{reason}; the daemon ends by it"), clock.now());
        // A disk that is full, or hangs, is not waited for: the daemon is to be started again.
        match tokio::time::timeout(LAST_EVENT_MAX, events.append(vec![event])).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the log could not be told that inference failed"),
            Err(_) => tracing::error!("the log could not be told within {LAST_EVENT_MAX:?} that inference failed"),
        }
    }
    ended
}

async fn follow<E, T: Future<Output = Result<(), E>>>(
    mut condition: watch::Receiver<Condition>,
    device: &str,
    told: impl Fn(EventKind, String) -> T,
) -> Result<(), E> {
    let mut known = 0;
    loop {
        let Ok(Condition { failures, reason, .. }) = condition.wait_for(|now| now.failures > known).await.map(|now| now.clone()) else {
            return Ok(());
        };
        told(EventKind::InferenceFailed, reason).await?;
        let (mut last, mut since) = (failures, Instant::now());
        while let Some(more) = failed_before_restored(&mut condition, last).await {
            let Some(Condition { failures, reason, .. }) = more else { return Ok(()) };
            last = failures;
            if since.elapsed() >= AGAIN {
                told(EventKind::InferenceFailed, format!("{reason}; {}", failed(last - known))).await?;
                since = Instant::now();
            }
        }
        told(EventKind::InferenceRestored, format!("{device} does what is asked again; {}", failed(last - known))).await?;
        known = last;
    }
}

fn failed(pieces: u64) -> String {
    if pieces == 1 { "one piece of work had failed".into() } else { format!("{pieces} pieces of work had failed") }
}

/// The next failure after so many; `None` where nothing fails for [`QUIET`] and work is done, of each kind that failed unless nobody
/// asks for it for [`UNASKED`]. Within: `None` when the engine has gone.
async fn failed_before_restored(condition: &mut watch::Receiver<Condition>, failures: u64) -> Option<Option<Condition>> {
    if let Ok(more) = tokio::time::timeout(QUIET, failed_before(condition, failures, |_| false)).await {
        return more;
    }
    if let Ok(ended) = tokio::time::timeout(UNASKED - QUIET, failed_before(condition, failures, |now| now.does_all)).await {
        return ended;
    }
    // Where no work came at all, it is not known whether it would be done.
    failed_before(condition, failures, |now| now.does_some).await
}

/// The next failure after so many; `None` where the condition is restored before. Within: `None` when the engine has gone.
async fn failed_before(
    condition: &mut watch::Receiver<Condition>,
    failures: u64,
    is_restored: fn(&Condition) -> bool,
) -> Option<Option<Condition>> {
    match condition.wait_for(|now| now.failures > failures || is_restored(now)).await {
        Ok(now) if now.failures > failures => Some(Some(now.clone())),
        Ok(_) => None,
        Err(_) => Some(None),
    }
}

async fn append(events: EventLog, event: Event) -> Result<(), EventLogError> {
    loop {
        match events.append(vec![event.clone()]).await {
            Err(EventLogError::Store(StoreError::Full)) => tokio::time::sleep(ROOM_WAIT).await,
            done => return done,
        }
    }
}

fn event(kind: EventKind, message: String, now: Timestamp) -> Event {
    Event { message: Some(message), ..Event::new(kind, "", now) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use super::*;
    use crate::clock::SimulatedClock;
    use crate::face::TemplateSpace;

    /// What is told of a condition, and the condition.
    struct House {
        condition: watch::Sender<Condition>,
        told: Arc<Mutex<Vec<(EventKind, String)>>>,
    }

    fn well() -> Condition {
        Condition { failures: 0, reason: String::new(), does_some: true, does_all: true }
    }

    impl House {
        fn new() -> Self {
            let condition = watch::Sender::new(well());
            let told: Arc<Mutex<Vec<_>>> = Arc::default();
            let (kept, watched) = (Arc::clone(&told), condition.subscribe());
            tokio::spawn(async move {
                let tell = |kind, message| {
                    kept.lock().expect("no panic").push((kind, message));
                    std::future::ready(Ok::<_, Infallible>(()))
                };
                follow(watched, "cuda:0", tell).await
            });
            Self { condition, told }
        }

        fn fails(&self, reason: &str) {
            let fail = |now: &mut Condition| {
                *now = Condition { failures: now.failures + 1, reason: reason.into(), does_some: false, does_all: false };
            };
            self.condition.send_modify(fail);
        }

        /// Something was done: what failed, or only other work.
        fn works(&self, does_all: bool) {
            self.condition.send_modify(|now| (now.does_some, now.does_all) = (true, does_all));
        }

        /// What was told by so many seconds later.
        async fn told_after(&self, seconds: u64) -> Vec<(EventKind, String)> {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            std::mem::take(&mut *self.told.lock().expect("no panic"))
        }
    }

    fn told_of(reason: &str) -> (EventKind, String) {
        (EventKind::InferenceFailed, reason.into())
    }

    fn restored(failed: &str) -> (EventKind, String) {
        (EventKind::InferenceRestored, format!("cuda:0 does what is asked again; {failed} had failed"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_at_once_and_its_end_when_nothing_failed_for_ten_seconds() {
        let house = House::new();
        assert_eq!(house.told_after(60).await, []);
        house.fails("the device is lost");
        assert_eq!(house.told_after(1).await, [told_of("the device is lost")]);
        house.works(true);
        assert_eq!(house.told_after(8).await, []);
        assert_eq!(house.told_after(2).await, [restored("one piece of work")]);
        house.fails("again");
        assert_eq!(house.told_after(1).await, [told_of("again")], "the next one is news");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_at_every_frame_is_told_once_until_it_works() {
        let house = House::new();
        for _ in 0..250 {
            house.fails("one camera's pictures");
            house.works(true);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        assert_eq!(house.told_after(0).await, [told_of("one camera's pictures")]);
        assert_eq!(house.told_after(11).await, [restored("250 pieces of work")]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_failing_is_told_again_every_ten_minutes() {
        let house = House::new();
        for second in 0..1_500 {
            house.fails(if second < 700 { "one camera's pictures" } else { "the device is lost" });
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let after = |failed, reason: &str| told_of(&format!("{reason}; {failed} pieces of work had failed"));
        let told = [told_of("one camera's pictures"), after(601, "one camera's pictures"), after(1_201, "the device is lost")];
        assert_eq!(house.told_after(0).await, told);
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_awaited_for_a_minute_and_not_for_ever() {
        let house = House::new();
        house.fails("no face can be encoded");
        house.works(false);
        assert_eq!(house.told_after(20).await, [told_of("no face can be encoded")], "faces are found, and nobody is known");
        house.works(true);
        assert_eq!(house.told_after(1).await, [restored("one piece of work")]);
        house.fails("no face can be encoded");
        house.works(false);
        assert_eq!(house.told_after(59).await, [told_of("no face can be encoded")]);
        assert_eq!(house.told_after(2).await, [restored("one piece of work")], "nobody came who could be encoded");
        house.fails("no face can be encoded");
        assert_eq!(house.told_after(1).await, [told_of("no face can be encoded")], "it is told anew");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_not_said_to_work_before_it_did() {
        let house = House::new();
        house.fails("the device is lost");
        assert_eq!(house.told_after(3600).await, [told_of("the device is lost")], "no work came");
        house.fails("it is still lost");
        house.works(true);
        let again = told_of("it is still lost; 2 pieces of work had failed");
        assert_eq!(house.told_after(9).await, [again], "the last word of it was an hour ago");
        assert_eq!(house.told_after(2).await, [restored("2 pieces of work")]);
    }

    /// The kinds and messages that a start tells: on the CPU, in another's place or not.
    async fn told_at_start(store: &Store, is_replaced: bool) -> Vec<(EventKind, String)> {
        let events = EventLog::open(store.clone(), 16).await.expect("it opens");
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::at(Timestamp::from_micros(5)));
        let facts = EngineFacts { device_reason: "so it was set".into(), ..EngineFacts::made_up(TemplateSpace::new("s")) };
        let before = store.last_of_inference().await.expect("read").map(|last| last.sequence);
        // The engine has gone already: the start alone is told of.
        let condition = watch::Sender::new(well()).subscribe();
        tell((store.clone(), events), clock, (condition, facts, is_replaced), CancellationToken::new()).await.expect("told");
        let last = store.last_of_inference().await.expect("read").filter(|last| Some(last.sequence) != before);
        last.map(|last| (last.event.kind, last.event.message.clone().unwrap_or_default())).into_iter().collect()
    }

    #[tokio::test]
    async fn a_start_after_a_failure_or_on_another_device_is_told_and_any_other_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("it opens");
        let does_the_work = [(EventKind::InferenceRestored, "made up does the work: so it was set".to_owned())];
        assert_eq!(told_at_start(&store, false).await, []);
        assert_eq!(told_at_start(&store, true).await, does_the_work);
        assert_eq!(told_at_start(&store, false).await, []);
        let events = EventLog::open(store.clone(), 16).await.expect("it opens");
        let ending = std::future::ready(Err("the device is lost".to_owned()));
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::at(Timestamp::from_micros(5)));
        assert_eq!(tell_end(ending, events, clock).await, Err("the device is lost".into()));
        let last = store.last_of_inference().await.expect("read").expect("it was told");
        assert_eq!(last.event.message.as_deref(), Some("the device is lost; the daemon ends by it"));
        assert_eq!(told_at_start(&store, false).await, does_the_work);
        assert_eq!(told_at_start(&store, false).await, []);
    }
}
