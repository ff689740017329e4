//! Subscribers see everything, once, in order, or are told that they cannot.
//!
//! In: a log over a store that is thrown away. Out: verdicts. No test sleeps.
//! Must not know: how events are stored.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use uuid::Uuid;

use crate::clock::{SimulatedClock, Timestamp};
use crate::event::{Event, EventKind, LoggedEvent, TrackId};
use crate::event_log::{EventLog, EventLogError, Position, Start, SubscribeError, Subscription, SubscriptionEnded};
use crate::store::tests::poll_once;
use crate::store::{LogSpan, Retention, Store, StoreError};

struct Bench {
    directory: TempDir,
    store: Store,
    clock: Arc<SimulatedClock>,
    log: EventLog,
}

async fn bench(recent_max: usize) -> Bench {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(500)));
    let store = Store::open_with_clock(directory.path(), Arc::clone(&clock) as _).expect("the store opens");
    let log = EventLog::open(store.clone(), recent_max).await.expect("the log opens");
    Bench { directory, store, clock, log }
}

fn event(number: u64) -> Event {
    let mut event = Event::new(EventKind::Unidentified, "door", Timestamp::from_micros(1));
    event.track = Some(TrackId(number));
    event
}

fn sequences(events: &[LoggedEvent]) -> Vec<u64> {
    events.iter().map(|e| e.sequence).collect()
}

/// What can be had without waiting.
async fn ready(subscription: &mut Subscription) -> Option<Result<Vec<LoggedEvent>, SubscriptionEnded>> {
    poll_once(pin!(subscription.next())).await
}

#[tokio::test]
async fn a_subscriber_gets_what_comes_after_it_began() {
    let Bench { store, clock, log, .. } = bench(16).await;
    log.append(vec![event(1)]).await.expect("appended");
    let mut subscription = log.subscribe();
    assert_eq!(subscription.position(), Position { epoch: store.epoch(), sequence: 1 });
    assert_eq!(ready(&mut subscription).await, None);
    clock.advance(Duration::from_micros(7));
    log.append(vec![event(2), event(3)]).await.expect("appended");
    let logged =
        |sequence| LoggedEvent { sequence, epoch: store.epoch(), log_time: Timestamp::from_micros(507), event: Arc::new(event(sequence)) };
    assert_eq!(subscription.next().await, Ok(vec![logged(2), logged(3)]));
    assert_eq!(ready(&mut subscription).await, None, "each once");
    assert_eq!(subscription.position(), log.position());
    log.append(vec![]).await.expect("nothing is appended");
    assert_eq!(ready(&mut subscription).await, None);
}

#[tokio::test]
async fn a_waiting_subscriber_is_woken() {
    let Bench { log, .. } = bench(16).await;
    let mut subscription = log.subscribe();
    let waiting = tokio::spawn(async move { subscription.next().await.map(|events| sequences(&events)) });
    tokio::task::yield_now().await;
    log.append(vec![event(1)]).await.expect("appended");
    assert_eq!(waiting.await.expect("it does not panic"), Ok(vec![1]));
}

#[tokio::test]
async fn a_busy_stream_is_delivered_in_portions() {
    let Bench { log, .. } = bench(200).await;
    let mut subscription = log.subscribe();
    log.append((1..=150).map(event).collect()).await.expect("appended");
    for portion in [1..65, 65..129, 129..151] {
        assert_eq!(subscription.next().await.map(|e| sequences(&e)), Ok(portion.collect()));
    }
}

/// Everything that can be had without new events.
async fn rest(subscription: &mut Subscription, newest: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    while subscription.position().sequence < newest {
        seen.extend(sequences(&subscription.next().await.expect("it goes on")));
    }
    seen
}

#[tokio::test]
async fn a_subscriber_that_falls_behind_memory_is_served_from_disk_and_loses_nothing() {
    for recent_max in [1, 16, 17, 400] {
        let Bench { log, .. } = bench(recent_max).await;
        let mut slow = log.subscribe();
        for number in 0..10 {
            log.append((0..50).map(|n| event(number * 50 + n)).collect()).await.expect("appended");
        }
        assert_eq!(rest(&mut slow, 500).await, (1..=500).collect::<Vec<_>>(), "recent_max {recent_max}");
        assert_eq!(ready(&mut slow).await, None);
        log.append(vec![event(501)]).await.expect("appended");
        assert_eq!(rest(&mut slow, 501).await, [501], "and goes on live");
    }
}

#[tokio::test]
async fn an_event_is_the_same_from_memory_and_from_disk() {
    let Bench { clock, log, .. } = bench(16).await;
    let mut live = log.subscribe();
    clock.advance(Duration::from_micros(77));
    log.append((1..=20).map(event).collect()).await.expect("appended");
    let mut from_disk = log.subscribe_from(Start::Earliest).await.expect("kept");
    let (mut a, mut b) = (Vec::new(), Vec::new());
    while a.len() < 20 || b.len() < 20 {
        if a.len() < 20 {
            a.extend(live.next().await.expect("delivered"));
        }
        if b.len() < 20 {
            b.extend(from_disk.next().await.expect("delivered"));
        }
    }
    assert_eq!(a, b);
    assert_eq!(a[0].log_time, Timestamp::from_micros(577));
}

#[tokio::test]
async fn nobody_sees_on_disk_what_was_not_told_to_everybody_yet() {
    let Bench { store, log, .. } = bench(1).await;
    log.append((1..=5).map(event).collect()).await.expect("appended");
    let mut subscription = log.subscribe_from(Start::Earliest).await.expect("kept");
    // Committed, and its publication still to come.
    store.append_events((6..=8).map(event).collect()).await.expect("appended");
    assert_eq!(rest(&mut subscription, 5).await, [1, 2, 3, 4, 5]);
    assert_eq!(ready(&mut subscription).await, None);
}

#[tokio::test]
async fn a_subscription_begins_where_it_is_asked_to() {
    let Bench { store, log, .. } = bench(16).await;
    let at = |sequence| Start::After(Position { epoch: store.epoch(), sequence });
    let empty = log.subscribe_from(Start::Earliest).await.expect("an empty log");
    assert_eq!(empty.position().sequence, 0);
    log.append((1..=40).map(event).collect()).await.expect("appended");
    for (start, first) in [(Start::Earliest, 1), (at(0), 1), (at(1), 2), (at(23), 24), (at(24), 25), (at(39), 40)] {
        let mut subscription = log.subscribe_from(start).await.expect("kept");
        assert_eq!(rest(&mut subscription, 40).await, (first..=40).collect::<Vec<_>>(), "{start:?}");
    }
    for start in [Start::Now, at(40)] {
        let mut subscription = log.subscribe_from(start).await.expect("kept");
        assert_eq!(ready(&mut subscription).await, None, "{start:?}");
    }
}

fn cut(bytes: u64) -> Retention {
    let past = Timestamp::from_micros(i64::MIN);
    Retention { events_since: past, event_bytes_max: bytes, snapshots_since: past, snapshot_bytes_max: u64::MAX }
}

#[tokio::test]
async fn what_cannot_be_had_whole_is_refused_and_told_with_what_is_kept() {
    let Bench { store, log, .. } = bench(1).await;
    log.append((1..=9).map(event).collect()).await.expect("appended");
    let size = serde_json::to_string(&event(1)).expect("JSON").len() as u64;
    log.prune(cut(4 * size)).await.expect("pruned");
    let span = LogSpan { oldest: 6, newest: 9 };
    assert_eq!(store.log_span().await, Ok(span));
    let at = |epoch, sequence| log.subscribe_from(Start::After(Position { epoch, sequence }));
    let ours = store.epoch();
    assert_eq!(at(ours, 4).await.err(), Some(SubscribeError::TooOld { asked: 5, span }));
    assert_eq!(at(ours, 5).await.map(|s| s.position().sequence).ok(), Some(5), "the oldest that is kept comes next");
    assert_eq!(at(ours, 10).await.err(), Some(SubscribeError::InFuture { asked: 10, newest: 9 }));
    assert_eq!(at(ours, u64::MAX).await.err(), Some(SubscribeError::InFuture { asked: u64::MAX, newest: 9 }));
    let other = Uuid::from_u128(1);
    assert_eq!(at(other, 7).await.err(), Some(SubscribeError::OtherEpoch { asked: other, current: log.position() }));
    let mut all = log.subscribe_from(Start::Earliest).await.expect("kept");
    assert_eq!(rest(&mut all, 9).await, [6, 7, 8, 9]);
}

#[tokio::test]
async fn a_subscriber_whose_next_event_was_deleted_is_told_and_skips_nothing() {
    let Bench { log, .. } = bench(2).await;
    let mut slow = log.subscribe();
    log.append((1..=9).map(event).collect()).await.expect("appended");
    log.prune(cut(0)).await.expect("pruned");
    log.append((10..=14).map(event).collect()).await.expect("appended");
    let span = LogSpan { oldest: 10, newest: 14 };
    for _ in 0..2 {
        assert_eq!(ready_or_read(&mut slow).await, Err(SubscriptionEnded::TooSlow { at: 0, span }));
    }
}

async fn ready_or_read(subscription: &mut Subscription) -> Result<Vec<u64>, SubscriptionEnded> {
    subscription.next().await.map(|events| sequences(&events))
}

/// Every subscriber that is not told otherwise has seen every sequence, whatever the interleaving.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_appends_reach_every_subscriber_in_order_without_gaps() {
    const WRITERS: u64 = 8;
    const APPENDS: u64 = 40;
    let Bench { log, .. } = bench(WRITERS as usize * APPENDS as usize * 3).await;
    let last = WRITERS * APPENDS * 2;
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let mut subscription = log.subscribe();
            tokio::spawn(async move {
                let mut seen: Vec<LoggedEvent> = Vec::new();
                while seen.len() < last as usize {
                    seen.extend(subscription.next().await.expect("it keeps up"));
                }
                seen
            })
        })
        .collect();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                for number in 0..APPENDS {
                    let track = writer * 1_000 + number * 2;
                    log.append(vec![event(track), event(track + 1)]).await.expect("appended");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("it does not panic");
    }
    for reader in readers {
        let seen = reader.await.expect("it does not panic");
        assert_eq!(sequences(&seen), (1..=last).collect::<Vec<_>>());
        let tracks: Vec<u64> = seen.iter().filter_map(|e| Some(e.event.track?.0)).collect();
        assert!(tracks.chunks(2).all(|pair| pair[1] == pair[0] + 1), "events of one append stay together");
        for writer in 0..WRITERS {
            assert!(tracks.iter().filter(|t| *t / 1_000 == writer).is_sorted(), "one writer's appends stay in order");
        }
    }
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_gap() {
    let Bench { store, log, .. } = bench(16).await;
    let mut subscription = log.subscribe();
    let release = store.hold_writer().await;
    {
        let mut abandoned = pin!(log.append(vec![event(1)]));
        assert!(poll_once(abandoned.as_mut()).await.is_none(), "it is queued");
    }
    let mut waited_for = pin!(log.append(vec![event(2)]));
    assert!(poll_once(waited_for.as_mut()).await.is_none());
    assert_eq!(ready(&mut subscription).await, None, "nothing is published before it is on disk");
    drop(release);
    waited_for.await.expect("appended");
    assert_eq!(subscription.next().await.map(|e| sequences(&e)), Ok(vec![1, 2]));
}

#[tokio::test]
async fn what_is_not_on_disk_is_not_published() {
    let Bench { store, log, .. } = bench(16).await;
    let mut subscription = log.subscribe();
    store.limit_growth(Some(0)).await;
    let mut large = event(1);
    large.message = Some("x".repeat(1 << 20));
    assert_eq!(log.append(vec![event(0), large]).await, Err(EventLogError::Store(StoreError::Full)));
    assert_eq!(ready(&mut subscription).await, None);
    assert_eq!(log.position().sequence, 0);
    store.limit_growth(None).await;
    log.append(vec![event(2)]).await.expect("there is room again");
    assert_eq!(subscription.next().await.map(|e| sequences(&e)), Ok(vec![1]), "and no sequence is missing");
}

#[tokio::test]
async fn a_full_disk_is_told_when_it_begins_and_when_it_ends() {
    let Bench { store, log, .. } = bench(16).await;
    let mut disk_full = log.disk_full();
    store.limit_growth(Some(0)).await;
    let mut large = event(1);
    large.message = Some("x".repeat(1 << 20));
    for _ in 0..2 {
        assert_eq!(log.append(vec![large.clone()]).await, Err(EventLogError::Store(StoreError::Full)));
    }
    assert!(disk_full.has_changed().expect("the log is there") && *disk_full.borrow_and_update());
    store.limit_growth(None).await;
    log.append(vec![large]).await.expect("there is room again");
    assert!(disk_full.has_changed().expect("the log is there") && !*disk_full.borrow_and_update());
    log.append(vec![event(2)]).await.expect("appended");
    assert!(!disk_full.has_changed().expect("the log is there"), "each once");
}

#[tokio::test]
async fn closing_delivers_what_was_appended_and_ends_everybody() {
    let Bench { store, log, .. } = bench(100).await;
    let (mut behind, mut waiting) = (log.subscribe(), log.subscribe());
    log.append((0..70).map(event).collect()).await.expect("appended");
    for count in [64, 6] {
        assert_eq!(waiting.next().await.map(|e| e.len()), Ok(count));
    }
    let waits = tokio::spawn(async move { waiting.next().await });
    tokio::task::yield_now().await;
    log.close();
    assert_eq!(waits.await.expect("it does not panic"), Err(SubscriptionEnded::Closed));
    assert_eq!(behind.next().await.map(|e| e.len()), Ok(64));
    assert_eq!(behind.next().await.map(|e| e.len()), Ok(6));
    assert_eq!(behind.next().await, Err(SubscriptionEnded::Closed));
    assert_eq!(log.subscribe().next().await, Err(SubscriptionEnded::Closed));
    log.append(vec![event(71)]).await.expect("visits that end at the end are still written");
    assert_eq!(store.last_sequence().await, Ok(71));
}

#[tokio::test]
async fn a_restart_goes_on_where_the_log_was() {
    let Bench { directory, store, log, .. } = bench(16).await;
    log.append(vec![event(1), event(2)]).await.expect("appended");
    let place: Position = log.position();
    assert_eq!((place.epoch, place.sequence), (store.epoch(), 2));
    assert_ne!(place.epoch, Uuid::nil());
    drop((store, log));
    let store = Store::open(directory.path()).expect("it opens again");
    let log = EventLog::open(store, 16).await.expect("the log opens");
    assert_eq!(log.position(), place);
    let mut subscription = log.subscribe();
    log.append(vec![event(3)]).await.expect("appended");
    assert_eq!(subscription.next().await.map(|e| sequences(&e)), Ok(vec![3]));
}

#[tokio::test]
async fn the_watchdogs_token_waits_its_turn_behind_events() {
    let Bench { log, .. } = bench(16).await;
    let mut subscription = log.subscribe();
    let mut append = pin!(log.append(vec![event(1)]));
    assert!(poll_once(append.as_mut()).await.is_none(), "the event waits for the disk");
    log.pass_token().await.expect("the store works");
    assert!(matches!(ready(&mut subscription).await, Some(Ok(events)) if sequences(&events) == [1]));
}

#[tokio::test]
async fn the_watchdogs_token_passes_where_the_disk_is_full() {
    let Bench { store, log, .. } = bench(16).await;
    store.limit_growth(Some(0)).await;
    let mut large = event(1);
    large.message = Some("x".repeat(1 << 20));
    let release = store.hold_writer().await;
    let mut bare = pin!(store.pass_token());
    let mut token = pin!(log.pass_token());
    let mut append = pin!(log.append(vec![event(0), large]));
    assert!(poll_once(bare.as_mut()).await.is_none() && poll_once(token.as_mut()).await.is_none());
    assert!(poll_once(append.as_mut()).await.is_none(), "all three are of one transaction");
    drop(release);
    assert_eq!(append.await, Err(EventLogError::Store(StoreError::Full)));
    assert_eq!(bare.await, Err(StoreError::Full), "the transaction was lost as a whole");
    assert_eq!(token.await, Ok(()), "and the writer is not stuck");
}
