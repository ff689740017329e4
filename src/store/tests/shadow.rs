//! What a shadow would have decided otherwise is kept, and counted beyond what is kept.

use super::*;
use crate::shadow::Tally;
use crate::shadow::tests::verdict;
use crate::store::Retention;

#[tokio::test]
async fn verdicts_are_counted_and_those_that_differ_are_listed_newest_first() {
    let (directory, store) = store();
    assert_eq!(store.shadow_facts("strict").await, Ok(None));
    store.keep_verdicts("strict", vec![]).await.expect("kept");
    assert_eq!(
        store.shadow_facts("strict").await.expect("read").map(|facts| facts.tally),
        Some(Tally::default()),
        "known before it saw anybody"
    );

    let differing = [verdict(Some(1), Some(None)), verdict(None, Some(Some(2))), verdict(Some(1), None)];
    let all = [vec![verdict(Some(1), Some(Some(1)))], differing.to_vec()].concat();
    store.keep_verdicts("strict", all).await.expect("kept");
    store.keep_verdicts("other", vec![verdict(Some(1), Some(Some(2)))]).await.expect("kept");
    let expected = Tally { agrees: 1, would_name: 1, would_not_name: 1, would_rename: 0, unanswered: 1 };
    drop(store);
    let store = Store::open(directory.path()).expect("it opens again");
    assert_eq!(store.shadow_facts("strict").await.expect("read").map(|facts| facts.tally), Some(expected));

    let listed = store.verdicts("strict", None, 2).await.expect("listed");
    let (second, first) = (&listed[0], &listed[1]);
    assert_eq!((&second.1, &first.1, listed.len()), (&differing[2], &differing[1], 2));
    let rest = store.verdicts("strict", Some(first.0), 2).await.expect("listed");
    assert_eq!(rest.into_iter().map(|(_, verdict)| verdict).collect::<Vec<_>>(), [differing[0].clone()]);
}

#[tokio::test]
async fn verdicts_go_with_the_events_of_their_time_and_stay_counted() {
    let (_directory, store) = store();
    let mut old = verdict(Some(1), Some(None));
    let young = verdict(None, Some(Some(2)));
    old.capture_time_us = young.capture_time_us - 1;
    store.keep_verdicts("strict", vec![old, young.clone()]).await.expect("kept");
    let since = Timestamp::from_micros(young.capture_time_us);
    let kept = Retention { events_since: since, event_bytes_max: 1 << 20, snapshots_since: since, snapshot_bytes_max: 1 << 20 };
    store.prune(kept).await.expect("pruned");
    let left: Vec<_> = store.verdicts("strict", None, 9).await.expect("listed").into_iter().map(|(_, verdict)| verdict).collect();
    assert_eq!(left, [young]);
    let tally = store.shadow_facts("strict").await.expect("read").expect("known").tally;
    assert_eq!((tally.would_not_name, tally.would_name), (1, 1));
}
