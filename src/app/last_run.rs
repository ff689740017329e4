//! Ends what the last run of the daemon left open, because it was killed.
//!
//! In: the log. Out: ends of its open visits and of stays in zones, under the name that each visit had last.
//! Must not know: how visits are followed.

use std::collections::BTreeSet;

use crate::clock::Clock;
use crate::event::{EndReason, Event, EventKind, LoggedEvent};
use crate::event_log::{EventLog, EventLogError};
use crate::store::{OpenVisit, Store, StoreError};

/// Tells the ends of everything that was told to begin and not to end.
pub(super) async fn end_visits(store: &Store, events: &EventLog, clock: &dyn Clock) -> anyhow::Result<()> {
    let mut ends = Vec::new();
    let open = store.open_visits().await?;
    for visit in &open {
        let told = store.events_of_visit(visit.visit).await?;
        ends.extend(ends_of(visit, &told, clock));
    }
    if !ends.is_empty() {
        tracing::warn!(visits = open.len(), "the last run ended without ending its visits; they are ended now");
        match events.append(ends).await {
            // The daemon must be reachable, so that something can be erased; the next start ends them.
            Err(EventLogError::Store(StoreError::Full)) => tracing::error!("the disk of data_dir is full: those visits stay open"),
            outcome => outcome?,
        }
    }
    Ok(())
}

/// The ends of one visit, of which `told` was told.
fn ends_of(open: &OpenVisit, told: &[LoggedEvent], clock: &dyn Clock) -> Vec<Event> {
    let (mut subject, mut zones) = (open.began.subject, BTreeSet::new());
    if open.began.kind == EventKind::ZoneEntered {
        // It may be kept no longer.
        zones.insert(open.began.region.clone());
    }
    for event in told.iter().map(|logged| &*logged.event) {
        match event.kind {
            EventKind::ZoneEntered => drop(zones.insert(event.region.clone())),
            EventKind::ZoneLeft => drop(zones.remove(&event.region)),
            EventKind::EventCorrected => continue,
            _ => {}
        }
        if event.subject.is_some() || event.kind == EventKind::IdentityRevised {
            subject = event.subject;
        }
    }
    let end = |kind, region| {
        let mut event = Event::new(kind, &open.began.camera, clock.now());
        (event.visit, event.track, event.subject, event.region) = (Some(open.visit), open.began.track, subject, region);
        event.end_reason = Some(EndReason::DaemonRestarted);
        event.message = Some("the daemon ended while the visit was open".into());
        event
    };
    let was_told_to_begin = open.began.kind == EventKind::VisitStarted;
    let left = zones.into_iter().map(|zone| end(EventKind::ZoneLeft, zone));
    left.chain(was_told_to_begin.then(|| end(EventKind::VisitEnded, None))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use uuid::Uuid;

    use super::*;
    use crate::clock::{SimulatedClock, Timestamp};
    use crate::event::VisitId;
    use crate::subject::SubjectUid;

    const ANNA: SubjectUid = SubjectUid(Uuid::from_u128(7));

    /// What is told of one visit before a kill, and by the next start.
    async fn ends_after(told: &[(EventKind, Option<SubjectUid>, Option<&str>)]) -> Vec<(EventKind, Option<SubjectUid>, Option<String>)> {
        let directory = tempfile::tempdir().expect("a directory");
        let clock = SimulatedClock::at(Timestamp::from_micros(1_000_000));
        let store = Store::open(directory.path()).expect("it opens");
        let log = EventLog::open(store.clone(), 64).await.expect("it opens");
        let told = told.iter().map(|(kind, subject, region)| {
            let mut event = Event::new(*kind, "door", clock.now());
            (event.visit, event.subject, event.region) = (Some(VisitId(Uuid::from_u128(1))), *subject, region.map(Arc::from));
            event
        });
        log.append(told.collect()).await.expect("appended");
        let before = log.position().sequence;
        end_visits(&store, &log, &clock).await.expect("ended");
        let ends = store.events_after(before, 9).await.expect("read");
        end_visits(&store, &log, &clock).await.expect("ended");
        assert_eq!(log.position().sequence, before + ends.len() as u64, "each once");
        assert_eq!(store.open_visits().await, Ok(vec![]));
        assert!(ends.iter().all(|end| end.event.end_reason == Some(EndReason::DaemonRestarted)));
        ends.iter().map(|end| (end.event.kind, end.event.subject, end.event.region.as_deref().map(str::to_owned))).collect()
    }

    #[tokio::test]
    async fn what_a_killed_daemon_left_open_is_told_to_end_under_the_name_it_had() {
        use EventKind::{Entry, Identified, IdentityRevised, VisitEnded, VisitStarted, ZoneEntered, ZoneLeft};
        let hall = Some("hall");
        let ends = ends_after(&[(VisitStarted, None, None), (Identified, Some(ANNA), None), (ZoneEntered, Some(ANNA), hall)]).await;
        assert_eq!(ends, [(ZoneLeft, Some(ANNA), Some("hall".into())), (VisitEnded, Some(ANNA), None)]);
        let ends = ends_after(&[(VisitStarted, None, None), (Identified, Some(ANNA), None), (IdentityRevised, None, None)]).await;
        assert_eq!(ends, [(VisitEnded, None, None)]);
        // Under rules that tell of zones alone, or of the way in.
        let ends = ends_after(&[(ZoneEntered, None, hall), (ZoneEntered, None, Some("desk")), (ZoneLeft, None, hall)]).await;
        assert_eq!(ends, [(ZoneLeft, None, Some("desk".into()))]);
        assert_eq!(ends_after(&[(ZoneEntered, None, hall), (ZoneLeft, None, hall)]).await, []);
        assert_eq!(ends_after(&[(Entry, Some(ANNA), None)]).await, []);
    }
}
