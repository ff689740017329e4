//! Tells the log of each version of the gallery.
//!
//! In: versions, as they are committed. Out: `GALLERY_CHANGED` events, one a version, in order, each once:
//! the last one told stands in the log, so what was committed just before the daemon was killed is told
//! after the next start, as long as the log still holds the event before it.
//! Must not know: who changes the gallery.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::event::{Event, EventKind};
use crate::event_log::{EventLog, EventLogError};
use crate::store::{Store, StoreError, VersionInfo};

/// How many versions are read at once.
const READ_AT_ONCE: usize = 256;
/// How long a full disk is waited for.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// Tells of versions until told to stop; those before the newest at the start are not news, unless the
/// log says that the last one told was an earlier one.
pub(super) async fn tell(
    (store, events): (Store, EventLog),
    clock: std::sync::Arc<dyn Clock>,
    mut versions: watch::Receiver<u64>,
    stop: CancellationToken,
) -> Result<(), EventLogError> {
    let newest = *versions.borrow_and_update();
    let mut told = store.last_gallery_change().await?.unwrap_or(newest);
    loop {
        match tell_after(&store, &events, (&mut told, clock.as_ref())).await {
            Ok(()) => {}
            Err(EventLogError::Store(StoreError::Full)) => {
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(ROOM_WAIT) => continue,
                }
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = versions.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// Tells of all versions after `told`, which is the last that was told when it fails, too.
async fn tell_after(store: &Store, events: &EventLog, (told, clock): (&mut u64, &dyn Clock)) -> Result<(), EventLogError> {
    loop {
        let versions = store.gallery_versions_after(Some(*told), READ_AT_ONCE).await?;
        let Some(last) = versions.last().map(|version| version.version) else { return Ok(()) };
        events.append(versions.iter().map(|version| event(version, clock)).collect()).await?;
        *told = last;
    }
}

fn event(version: &VersionInfo, clock: &dyn Clock) -> Event {
    let mut event = Event::new(EventKind::GalleryChanged, "", version.time);
    event.decision_time_us = clock.now().as_micros();
    event.gallery_version = Some(version.version);
    let change = &version.change;
    event.message = Some(format!(
        "{}: {} people added, {} changed, {} removed; {} samples added, {} removed",
        version.cause,
        change.subjects_added,
        change.subjects_changed,
        change.subjects_removed,
        change.samples_added,
        change.samples_removed
    ));
    event
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{SimulatedClock, Timestamp};
    use crate::event_log::Start;
    use crate::mutation::Mutation;
    use crate::store::Call;
    use crate::store::tests::subject;

    async fn enrol(store: &Store, name: &str) -> u64 {
        let call = Call { method: "create_subject".into(), request_key: None };
        let committed = store.mutate(vec![Mutation::PutSubject(subject(name))], call, Box::new(|_| Vec::new())).await;
        committed.expect("committed").version
    }

    /// The versions that are told until `newest` is.
    async fn told(store: &Store, newest: u64) -> Vec<u64> {
        let events = EventLog::open(store.clone(), 16).await.expect("it opens");
        let mut subscription = events.subscribe_from(Start::Earliest).await.expect("kept");
        let stop = CancellationToken::new();
        let versions = watch::Sender::new(newest);
        let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(5)));
        let telling = tokio::spawn(tell((store.clone(), events), clock, versions.subscribe(), stop.clone()));
        let mut told = Vec::new();
        while told.last().is_none_or(|last| *last < newest) {
            told.extend(subscription.next().await.expect("told").iter().filter_map(|logged| logged.event.gallery_version));
        }
        stop.cancel();
        telling.await.expect("no panic").expect("an orderly end");
        told
    }

    #[tokio::test]
    async fn each_version_is_told_once_and_those_before_a_kill_after_the_next_start() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path()).expect("it opens");
        let before = enrol(&store, "before").await;
        {
            // The first daemon that tells of versions takes the newest for known.
            let events = EventLog::open(store.clone(), 16).await.expect("it opens");
            let first = enrol(&store, "anna").await;
            tell_after(&store, &events, (&mut { before }, &SimulatedClock::default())).await.expect("told");
            assert_eq!(store.last_gallery_change().await, Ok(Some(first)));
        }
        let (second, third) = (enrol(&store, "bert").await, enrol(&store, "carl").await);
        let all = told(&store, third).await;
        assert_eq!(all[all.len() - 2..], [second, third], "what was committed while nobody told of it");
        assert!(all.is_sorted() && !all.contains(&before), "{all:?}");
        assert_eq!(told(&store, third).await, all, "and nothing twice");
    }

    #[tokio::test]
    async fn what_was_told_before_the_disk_was_full_is_not_told_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path()).expect("it opens");
        let events = EventLog::open(store.clone(), 16).await.expect("it opens");
        for number in 0..2 * READ_AT_ONCE {
            enrol(&store, &format!("person-{number}")).await;
        }
        // Room for the first read, not for the second.
        store.limit_growth(Some(35)).await;
        let (mut told, clock) = (0, SimulatedClock::default());
        let full = tell_after(&store, &events, (&mut told, &clock)).await;
        assert_eq!(full, Err(EventLogError::Store(StoreError::Full)));
        let written = events.position().sequence;
        assert!(written > 0, "the disk was full too early for this test");
        assert_eq!(told, written, "one event a version");
        store.limit_growth(None).await;
        tell_after(&store, &events, (&mut told, &clock)).await.expect("there is room");
        assert_eq!(events.position().sequence, told, "each once");
    }
}
