//! What a shadow would have decided otherwise is kept, and counted beyond what is kept.

use super::*;
use crate::event::SnapshotId;
use crate::frame::CameraId;
use crate::shadow::Tally;
use crate::shadow::tests::verdict;
use crate::store::{Retention, Snapshot};

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

#[tokio::test]
async fn whoever_is_erased_takes_along_what_a_shadow_would_have_said_and_the_picture_it_said_it_of() {
    let (_directory, store) = store();
    let (person, other) = (subject("anna"), subject("bert"));
    let put = |subject: &Subject| Mutation::PutSubject(subject.clone());
    commit(&store, vec![put(&person), put(&other)]).await;
    let of = |told: Option<&Subject>, would: Option<&Subject>, snapshot: SnapshotId| {
        let mut verdict = verdict(told.map(|subject| subject.uid.0.as_u128()), Some(would.map(|subject| subject.uid.0.as_u128())));
        verdict.snapshot = Some(snapshot);
        verdict
    };
    let mut pictures = Vec::new();
    for _ in 0..3 {
        let id = SnapshotId(Uuid::new_v4());
        let camera = CameraId::parse("door").expect("a good id");
        let (capture_time, crop_jpeg) = (Timestamp::from_micros(1_000), id.0.as_bytes().to_vec());
        let snapshot = Snapshot { id, camera, capture_time, subject: None, crop_jpeg, frame_jpeg: vec![1] };
        pictures.push(id);
        let event = Event { snapshot: Some(id), ..Event::new(EventKind::Unidentified, "door", Timestamp::from_micros(1_000)) };
        store.append_events(vec![event.clone()]).await.expect("told");
        store.put_snapshots(vec![(event, snapshot)]).await.expect("kept");
    }
    let verdicts =
        vec![of(None, Some(&person), pictures[0]), of(Some(&other), Some(&person), pictures[1]), of(None, Some(&other), pictures[2])];
    store.keep_verdicts("lax", verdicts.clone()).await.expect("kept");
    let committed = store.mutate(vec![Mutation::EraseSubject(person.uid)], Call::default(), no_answer()).await.expect("erased");
    assert_eq!(committed.snapshots_erased, 1);
    let mut there = Vec::new();
    for id in &pictures {
        there.push(store.snapshot(*id).await.expect("read").is_some());
    }
    assert_eq!(there, [false, true, true], "the picture of whoever was told to be somebody else stays that person's");
    let left = store.verdicts("lax", None, 9).await.expect("listed");
    assert_eq!(left.into_iter().map(|(_, verdict)| verdict).collect::<Vec<_>>(), [verdicts[2].clone()]);
    // What was decided before and comes after the erasure is not kept either.
    store.keep_verdicts("lax", vec![verdicts[0].clone()]).await.expect("kept");
    assert_eq!(store.verdicts("lax", None, 9).await.expect("listed").len(), 1);
}
