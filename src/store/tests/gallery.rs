//! What was enrolled is there after a restart, once, and in order.
//!
//! In: mutations. Out: verdicts. Must not know: the gallery in memory.

use super::{commit, keyed, no_answer, put_sample, sample, store, subject, template, templates};
use crate::face::{Template, TemplateSpace};
use crate::mutation::Mutation;
use crate::store::{Committed, Store, StoreError, StoredTemplate};
use crate::subject::{Origin, SampleId, Subject};

#[tokio::test]
async fn a_restart_keeps_people_samples_and_templates_to_the_bit() {
    let (directory, store) = store();
    let mut random = fastrand::Rng::with_seed(1);
    let people: Vec<Subject> = ["zoe", "anna", "E-7"].map(subject).into();
    let mut all = Vec::new();
    for number in 0..90 {
        let owner = &people[number % 3];
        let mut mutations = vec![Mutation::PutSubject(owner.clone())];
        let (given, vector) = (sample(owner, number as u8), template(&mut random));
        mutations.push(put_sample(&given, &vector, b"photo"));
        assert_eq!(commit(&store, mutations).await, 2 * number as u64 + 2);
        all.push((given, vector));
    }
    drop(store);

    let store = Store::open(directory.path()).expect("it opens again");
    assert_eq!(store.gallery_version().await, Ok(180));
    let by_id: Vec<_> = [&people[2], &people[1], &people[0]].map(Clone::clone).into();
    assert_eq!(store.subjects().await, Ok(by_id));
    assert_eq!(store.subject(&people[1].id).await, Ok(Some(people[1].clone())));
    let of_anna: Vec<_> = all.iter().filter(|(s, _)| s.subject == people[1].uid).cloned().collect();
    assert_eq!(store.samples(people[1].uid).await, Ok(of_anna));
    let stored = all.iter().map(|(s, t)| StoredTemplate { sample: s.id, subject: s.subject, negative: false, template: t.clone() });
    assert_eq!(templates(&store).await, stored.collect::<Vec<_>>(), "equal to the last bit, oldest first");
}

#[tokio::test]
async fn people_are_listed_by_page_and_watchlist() {
    let (_directory, store) = store();
    let mut people: Vec<Subject> = ["a", "b", "c", "d"].map(subject).into();
    people[2].watchlists = vec!["blocked".into()];
    let last = people[3].clone();
    commit(&store, people.iter().rev().cloned().map(Mutation::PutSubject).collect()).await;
    assert_eq!(store.subject_page(None, None, 2).await, Ok(people[..2].to_vec()));
    assert_eq!(store.subject_page(Some(people[1].id.clone()), None, 2).await, Ok(people[2..].to_vec()));
    let on_list = store.subject_page(Some(people[1].id.clone()), Some("staff".into()), 9).await;
    assert_eq!(on_list, Ok(vec![last]));
    assert_eq!(store.subject_page(None, Some("staf".into()), 9).await, Ok(vec![]));
}

#[tokio::test]
async fn a_subject_is_replaced_under_its_uid_and_its_samples_stay() {
    let (_directory, store) = store();
    let (mut anna, mut random) = (subject("anna"), fastrand::Rng::with_seed(2));
    let given = sample(&anna, 1);
    commit(&store, vec![Mutation::PutSubject(anna.clone()), put_sample(&given, &template(&mut random), b"p")]).await;
    anna.display_name = String::new();
    anna.expire_time = None;
    anna.origin = Origin::Folder;
    anna.revision += 1;
    assert_eq!(commit(&store, vec![Mutation::PutSubject(anna.clone())]).await, 3);
    assert_eq!(store.subjects().await, Ok(vec![anna.clone()]));
    assert_eq!(store.samples(anna.uid).await.map(|s| s.len()), Ok(1));
}

#[tokio::test]
async fn a_call_that_contradicts_what_is_stored_changes_nothing() {
    let (_directory, store) = store();
    let (anna, nobody) = (subject("anna"), subject("nobody"));
    let mut random = fastrand::Rng::with_seed(4);
    commit(&store, vec![Mutation::PutSubject(anna.clone())]).await;
    let orphan = put_sample(&sample(&nobody, 1), &template(&mut random), b"p");
    for bad in [
        Mutation::PutSubject(subject("anna")),
        orphan,
        Mutation::EraseSubject(nobody.uid),
        Mutation::EraseSample { subject: anna.uid, sample: SampleId(uuid::Uuid::new_v4()) },
    ] {
        let outcome = store.mutate(vec![Mutation::PutSubject(subject("bert")), bad], keyed("key"), no_answer()).await;
        assert!(matches!(outcome, Err(StoreError::Contradiction(_))), "{outcome:?}");
    }
    assert_eq!(store.subjects().await, Ok(vec![anna]));
    assert_eq!(store.gallery_version().await, Ok(1));
    assert_eq!(store.request_answer("key").await, Ok(None));
}

#[tokio::test]
async fn a_request_is_carried_out_once() {
    let (directory, store) = store();
    let anna = subject("anna");
    let put = || vec![Mutation::PutSubject(anna.clone())];
    let answer = |c: &Committed| format!("version {}", c.version).into_bytes();
    assert_eq!(store.request_answer("create-1").await, Ok(None));
    store.mutate(put(), keyed("create-1"), Box::new(answer)).await.expect("it is new");
    assert_eq!(store.mutate(put(), keyed("create-1"), Box::new(answer)).await, Err(StoreError::RequestRepeated));
    drop(store);
    let store = Store::open(directory.path()).expect("it opens again");
    assert_eq!(store.request_answer("create-1").await, Ok(Some(b"version 1".to_vec())));
    assert_eq!(store.gallery_version().await, Ok(1));

    let nothing = store.mutate(vec![], keyed("reload-1"), Box::new(answer)).await;
    assert_eq!(nothing.map(|c| c.version), Ok(1), "a call without changes has an answer too");
    assert_eq!(store.request_answer("reload-1").await, Ok(Some(b"version 1".to_vec())));
}

#[tokio::test]
async fn templates_of_another_space_are_kept_and_counted() {
    let (_directory, store) = store();
    let (anna, mut random) = (subject("anna"), fastrand::Rng::with_seed(5));
    let old = Template::normalised(TemplateSpace::new("old"), &[1.0, 2.0, 2.0]).expect("it has a direction");
    let new = template(&mut random);
    let mut mutations = vec![Mutation::PutSubject(anna.clone())];
    for (content, vector) in [(1, &old), (2, &new), (3, &old)] {
        mutations.push(put_sample(&sample(&anna, content), vector, b"p"));
    }
    commit(&store, mutations).await;
    assert_eq!(store.foreign_templates(new.space()).await, Ok(2));
    assert_eq!(store.foreign_templates(old.space()).await, Ok(1));
    assert_eq!(templates(&store).await.len(), 3);
}

#[tokio::test]
async fn samples_of_the_folder_know_their_path() {
    let (_directory, store) = store();
    let (anna, mut random) = (Subject { origin: Origin::Folder, ..subject("anna") }, fastrand::Rng::with_seed(6));
    let mut from_folder = sample(&anna, 1);
    from_folder.folder_path = Some("anna/1.jpg".into());
    let mutations = vec![
        Mutation::PutSubject(anna.clone()),
        put_sample(&from_folder, &template(&mut random), b"p"),
        put_sample(&sample(&anna, 2), &template(&mut random), b"q"),
    ];
    commit(&store, mutations).await;
    assert_eq!(store.folder_samples().await, Ok(vec![from_folder]));
    assert_eq!(store.samples_beside_the_folder().await, Ok([(anna.uid, 1)].into()));
}
