//! What is erased is gone from the files, not only from the answers.
//!
//! In: people, their photos, their events. Out: verdicts on the bytes of every file of the data
//! directory. Must not know: the gallery in memory.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{commit, keyed, no_answer, put_sample, sample, store, subject, template};
use crate::clock::Timestamp;
use crate::event::{Event, EventKind, SnapshotId, VisitId};
use crate::face::Template;
use crate::frame::CameraId;
use crate::mutation::Mutation;
use crate::store::{Call, Committed, Snapshot, Store, StoreError, people, schema};
use crate::subject::SubjectUid;

/// Every eight bytes in a row that some file of a directory holds. Long values lie in several
/// pages, so they are looked for in pieces.
struct Words(HashSet<[u8; 8]>);

impl Words {
    fn of(directory: &Path) -> Self {
        let mut words = HashSet::new();
        for file in directory.read_dir().expect("it can be listed") {
            let bytes = std::fs::read(file.expect("an entry").path()).expect("it is read");
            words.extend(bytes.windows(8).filter_map(|w| w.first_chunk::<8>().copied()));
        }
        Self(words)
    }

    /// How much of `value` is there, 0 to 1.
    fn share(&self, value: &[u8]) -> f64 {
        let pieces = value.as_chunks::<8>().0;
        pieces.iter().filter(|piece| self.0.contains(*piece)).count() as f64 / pieces.len() as f64
    }
}

fn random_bytes(random: &mut fastrand::Rng, length: usize) -> Vec<u8> {
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// An event and its snapshot, whose pictures are random.
fn seen(random: &mut fastrand::Rng, visit: VisitId, subject: Option<SubjectUid>) -> (Event, Snapshot) {
    let snapshot = Snapshot {
        id: SnapshotId(Uuid::new_v4()),
        camera: CameraId::parse("door").expect("a good id"),
        capture_time: Timestamp::from_micros(10),
        subject: None,
        crop_jpeg: random_bytes(random, 3_000),
        frame_jpeg: random_bytes(random, 20_000),
    };
    let mut event = Event::new(EventKind::Identified, "door", Timestamp::from_micros(10));
    event.visit = Some(visit);
    event.subject = subject;
    event.snapshot = Some(snapshot.id);
    (event, snapshot)
}

/// Appends events and keeps their pictures after them.
async fn append(store: &Store, seen: &[(Event, Snapshot)]) {
    store.append_events(seen.iter().map(|(event, _)| event.clone()).collect()).await.expect("appended");
    store.put_snapshots(seen.to_vec()).await.expect("kept, or not");
}

#[tokio::test]
async fn an_erased_person_is_gone_from_every_file() {
    let (directory, store) = store();
    let mut random = fastrand::Rng::with_seed(11);
    let (mut anna, bert) = (subject("anna"), subject("bert"));
    anna.display_name = "Queen Annabelle of Traceable".into();
    let mut traces = vec![anna.display_name.clone().into_bytes()];
    let mut mutations = vec![Mutation::PutSubject(anna.clone()), Mutation::PutSubject(bert.clone())];
    let mut kept = Vec::new();
    for content in 1..4 {
        for (person, bytes) in [(&anna, &mut traces), (&bert, &mut kept)] {
            let (vector, photo) = (template(&mut random), random_bytes(&mut random, 50_000));
            mutations.push(put_sample(&sample(person, content), &vector, &photo));
            bytes.extend([people::float_bytes(vector.values()), photo]);
        }
    }
    let answer = random_bytes(&mut random, 300);
    traces.push(answer.clone());
    store.mutate(mutations, keyed("create"), Box::new(move |_: &Committed| answer)).await.expect("committed");
    let (event, picture) = seen(&mut random, VisitId(Uuid::new_v4()), Some(anna.uid));
    traces.extend([picture.crop_jpeg.clone(), picture.frame_jpeg.clone()]);
    append(&store, &[(event, picture)]).await;
    let before = Words::of(directory.path());
    let shares: Vec<f64> = traces.iter().chain(&kept).map(|trace| before.share(trace)).collect();
    assert!(shares.iter().all(|share| *share > 0.9), "what is stored is found: {shares:?}");

    let erased = store.mutate(vec![Mutation::EraseSubject(anna.uid)], keyed("delete"), Box::new(|_| b"receipt".into())).await;
    let counts = Committed { version: 9, templates_erased: 3, samples_erased: 3, snapshots_erased: 1 };
    assert_eq!(erased, Ok(counts));
    let after = Words::of(directory.path());
    let shares: Vec<f64> = traces.iter().map(|trace| after.share(trace)).collect();
    assert!(shares.iter().all(|share| *share == 0.0), "what is erased is not found: {shares:?}");
    assert!(kept.iter().all(|trace| after.share(trace) > 0.9), "others stay");
    assert_eq!(store.subjects().await, Ok(vec![bert]));
    assert_eq!(store.request_answer("create").await, Err(StoreError::AnswerErased));
    let again = store.mutate(vec![Mutation::PutSubject(anna.clone())], keyed("create"), no_answer()).await;
    assert_eq!(again, Err(StoreError::RequestRepeated), "a late repeat brings nobody back");
    assert_eq!(store.request_answer("delete").await, Ok(Some(b"receipt".to_vec())));
    assert_eq!(store.is_erased_content([2; 32]).await, Ok(true));
    assert_eq!(store.is_erased_content([9; 32]).await, Ok(false));
    assert_eq!(store.last_sequence().await, Ok(1), "the event itself stays");

    commit(&store, vec![Mutation::PutSubject(subject("anna"))]).await;
    drop(store);
    let store = Store::open(directory.path()).expect("it opens again");
    let reopened = Words::of(directory.path());
    assert!(traces.iter().all(|trace| reopened.share(trace) == 0.0));
    assert_eq!(store.is_erased_content([2; 32]).await, Ok(true), "the id is free, the photos stay blocked");
}

#[tokio::test]
async fn an_erased_sample_leaves_the_rest() {
    let (directory, store) = store();
    let mut random = fastrand::Rng::with_seed(12);
    let anna = subject("anna");
    let (bad, good) = (sample(&anna, 1), sample(&anna, 2));
    let photo = random_bytes(&mut random, 9_000);
    let (vector, other) = (template(&mut random), template(&mut random));
    let put = vec![Mutation::PutSubject(anna.clone()), put_sample(&bad, &vector, &photo), put_sample(&good, &other, b"p")];
    commit(&store, put).await;
    let erased = store.mutate(vec![Mutation::EraseSample { subject: anna.uid, sample: bad.id }], Call::default(), no_answer()).await;
    assert_eq!(erased, Ok(Committed { version: 4, templates_erased: 1, samples_erased: 1, snapshots_erased: 0 }));
    assert_eq!(store.samples(anna.uid).await, Ok(vec![(good, other)]));
    let left = Words::of(directory.path());
    assert_eq!((left.share(&photo), left.share(&people::float_bytes(vector.values()))), (0.0, 0.0));
    assert_eq!(store.is_erased_content([1; 32]).await, Ok(false), "a photo is blocked with its person only");
}

/// `SQLite` moves rows between pages when pages empty, and leaves copies behind now and then: where
/// templates and photos are deleted and not emptied in place, this finds one with this seed.
#[tokio::test]
async fn many_erasures_leave_no_template_and_no_photo_behind() {
    let (directory, store) = store();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut here, mut gone) = (Vec::new(), Vec::new());
    for round in 0..120 {
        let mut mutations = Vec::new();
        for number in 0..random.usize(8..16) {
            let (person, vector) = (subject(&format!("p-{round}-{number}")), template(&mut random));
            let length = random.usize(40..9_000);
            let photo = random_bytes(&mut random, length);
            mutations.push(Mutation::PutSubject(person.clone()));
            mutations.push(put_sample(&sample(&person, 1), &vector, &photo));
            here.push((person, vector, photo));
        }
        for _ in 0..random.usize(0..18).min(here.len()) {
            let leaver = here.swap_remove(random.usize(..here.len()));
            mutations.push(Mutation::EraseSubject(leaver.0.uid));
            gone.push(leaver);
        }
        commit(&store, mutations).await;
    }
    let words = Words::of(directory.path());
    let found =
        |(_, vector, photo): &&(_, Template, Vec<u8>)| words.share(&people::float_bytes(vector.values())) > 0.0 || words.share(photo) > 0.0;
    assert!(gone.len() > 500 && here.len() > 100, "{} erased, {} kept", gone.len(), here.len());
    assert_eq!((gone.iter().filter(found).count(), here.iter().filter(found).count()), (0, here.len()), "(erased, kept) found");
}

#[tokio::test]
async fn a_picture_that_a_sample_was_made_of_goes_though_the_sample_went_before() {
    let (_directory, store) = store();
    let mut random = fastrand::Rng::with_seed(15);
    let anna = subject("anna");
    let unknown_then = seen(&mut random, VisitId(Uuid::new_v4()), None);
    append(&store, std::slice::from_ref(&unknown_then)).await;
    let crop = &unknown_then.1.crop_jpeg;
    let mut given = sample(&anna, 1);
    given.content_sha256 = Sha256::digest(crop).into();
    commit(&store, vec![Mutation::PutSubject(anna.clone()), put_sample(&given, &template(&mut random), crop)]).await;
    commit(&store, vec![Mutation::EraseSample { subject: anna.uid, sample: given.id }]).await;
    let erased = store.mutate(vec![Mutation::EraseSubject(anna.uid)], Call::default(), no_answer()).await.expect("erased");
    assert_eq!(erased.snapshots_erased, 1);
    assert_eq!(store.snapshot(unknown_then.1.id).await, Ok(None));
}

#[tokio::test]
async fn every_picture_that_shows_an_erased_person_goes() {
    let (_directory, store) = store();
    let mut random = fastrand::Rng::with_seed(14);
    let (anna, bert) = (subject("anna"), subject("bert"));
    let visits: Vec<_> = (0..4).map(|_| VisitId(Uuid::new_v4())).collect();
    // Named by the event; in the same visit; the crop that became a sample, and its visit; a stranger.
    let named = seen(&mut random, visits[0], Some(anna.uid));
    let before_known = seen(&mut random, visits[0], None);
    let enrolled_from = seen(&mut random, visits[1], None);
    let same_visit = seen(&mut random, visits[1], None);
    let mut labelled = seen(&mut random, visits[2], None);
    (labelled.0.visit, labelled.1.subject) = (None, Some(anna.uid));
    let strangers = [seen(&mut random, visits[3], None), seen(&mut random, visits[3], Some(bert.uid))];
    let shown = [named, before_known, enrolled_from.clone(), same_visit, labelled];
    append(&store, &[&shown[..], &strangers].concat()).await;

    let crop = &enrolled_from.1.crop_jpeg;
    let mut given = sample(&anna, 1);
    given.content_sha256 = Sha256::digest(crop).into();
    let put = [Mutation::PutSubject(anna.clone()), Mutation::PutSubject(bert), put_sample(&given, &template(&mut random), crop)];
    commit(&store, put.into()).await;
    let erased = store.mutate(vec![Mutation::EraseSubject(anna.uid)], Call::default(), no_answer()).await.expect("erased");
    assert_eq!(erased.snapshots_erased, 5);
    for (_, picture) in &shown {
        assert_eq!(store.snapshot(picture.id).await, Ok(None));
    }
    for (_, picture) in strangers {
        assert_eq!(store.snapshot(picture.id).await, Ok(Some(picture)));
    }

    let late = seen(&mut random, VisitId(Uuid::new_v4()), Some(anna.uid));
    append(&store, std::slice::from_ref(&late)).await;
    assert_eq!(store.snapshot(late.1.id).await, Ok(None), "its picture came too late to be erased");
    assert_eq!(store.counts().snapshots_of_erased, 1);

    // She is still before the camera, and her visit goes on without a name.
    let mut revised = seen(&mut random, visits[0], None);
    (revised.0.kind, revised.0.previous_subject) = (EventKind::IdentityRevised, Some(anna.uid));
    let mut ended = seen(&mut random, visits[0], None);
    ended.0.kind = EventKind::VisitEnded;
    let stranger = seen(&mut random, visits[3], None);
    append(&store, &[revised.clone(), ended.clone(), stranger.clone()]).await;
    for (_, picture) in [revised, ended] {
        assert_eq!(store.snapshot(picture.id).await, Ok(None));
    }
    assert_eq!(store.snapshot(stranger.1.id).await, Ok(Some(stranger.1)));
    assert_eq!(store.counts().snapshots_of_erased, 3);
}

#[tokio::test]
async fn a_picture_that_went_out_before_the_name_goes_with_whom_its_visit_turned_out_to_be_of() {
    let (directory, store) = store();
    let mut random = fastrand::Rng::with_seed(16);
    let (anna, bert) = (subject("anna"), subject("bert"));
    commit(&store, vec![Mutation::PutSubject(anna.clone()), Mutation::PutSubject(bert.clone())]).await;
    let [hers, later, his] = [0; 3].map(|_| seen(&mut random, VisitId(Uuid::new_v4()), None));
    append(&store, &[hers.clone(), later.clone(), his.clone()]).await;
    let [hers, later, his] = [hers, later, his].map(|(_, picture)| picture);
    store.name_snapshots(vec![(hers.id, anna.uid), (his.id, bert.uid)]).await.expect("named");
    let erased = store.mutate(vec![Mutation::EraseSubject(anna.uid)], Call::default(), no_answer()).await.expect("erased");
    assert_eq!((erased.snapshots_erased, store.snapshot(hers.id).await), (1, Ok(None)));
    // What is named after the erasure goes at once, with its bytes.
    assert!(Words::of(directory.path()).share(&later.crop_jpeg) > 0.9);
    store.name_snapshots(vec![(later.id, anna.uid)]).await.expect("named");
    assert_eq!(store.snapshot(later.id).await, Ok(None));
    assert_eq!(Words::of(directory.path()).share(&later.crop_jpeg), 0.0);
    let kept = store.snapshot(his.id).await.expect("read").expect("kept");
    assert_eq!((kept.subject, &kept.crop_jpeg), (Some(bert.uid), &his.crop_jpeg));
}

#[tokio::test]
async fn bytes_that_a_reader_holds_go_when_it_stops() {
    let (directory, store) = store();
    let mut random = fastrand::Rng::with_seed(15);
    let (anna, photo) = (subject("anna"), random_bytes(&mut random, 5_000));
    commit(&store, vec![Mutation::PutSubject(anna.clone()), put_sample(&sample(&anna, 1), &template(&mut random), &photo)]).await;
    let reader = Connection::open(directory.path().join("doorward.db")).expect("it opens");
    reader.execute_batch("BEGIN; SELECT * FROM subjects;").expect("it reads");
    commit(&store, vec![Mutation::EraseSubject(anna.uid)]).await;
    assert!(Words::of(directory.path()).share(&photo) > 0.9, "another program holds the old state");
    let (event, picture) = seen(&mut random, VisitId(Uuid::new_v4()), None);
    assert_eq!(store.append_events(vec![event.clone()]).await, Ok(1), "nobody waits for it");
    assert_eq!(store.put_snapshots(vec![(event, picture)]).await, Ok(()), "nor for its picture");
    reader.execute_batch("COMMIT").expect("it stops");
    let begin = Instant::now();
    while Words::of(directory.path()).share(&photo) > 0.0 {
        assert!(begin.elapsed() < Duration::from_secs(60), "the store never tried again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_an_older_doorward_answered_to_a_reload_is_kept_no_longer() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(Store::open(directory.path()).expect("it opens"));
    let file = directory.path().join("doorward.db");
    std::fs::remove_file(&file).expect("removed");
    let mut old = Connection::open(&file).expect("it opens");
    schema::migrate(&mut old, &schema::MIGRATIONS[..10]).expect("as it was before");
    let answer = |method: &str| format!(r#"{{"method":"{method}","arguments":"","answer":{{"refused":["anna_of_{method}/1.heic"]}}}}"#);
    for method in ["reload", "create_subject"] {
        let values = rusqlite::params![method, answer(method).into_bytes()];
        old.execute("INSERT INTO requests (key, answer, time_us) VALUES (?1, ?2, 7)", values).expect("written");
    }
    drop(old);
    let store = Store::open(directory.path()).expect("it is migrated");
    assert_eq!(store.request_answer("reload").await, Err(StoreError::AnswerErased));
    assert_eq!(store.request_answer("create_subject").await, Ok(Some(answer("create_subject").into_bytes())));
    drop(store);
    assert_eq!(Words::of(directory.path()).share(b"f_reload"), 0.0);
}

#[tokio::test]
async fn a_picture_that_follows_its_event_is_waited_for_and_comes_not_after_whom_it_shows_was_erased() {
    let (_directory, store) = store();
    let mut random = fastrand::Rng::with_seed(16);
    let (anna, bert) = (subject("anna"), subject("bert"));
    commit(&store, vec![Mutation::PutSubject(anna.clone()), Mutation::PutSubject(bert.clone())]).await;
    let told: Vec<_> = [anna.uid, bert.uid].map(|uid| seen(&mut random, VisitId(Uuid::new_v4()), Some(uid))).into();
    let coming = store.coming(told.iter().map(|(_, picture)| picture.id).collect());
    store.append_events(told.iter().map(|(event, _)| event.clone()).collect()).await.expect("told");
    let ask = |(_, picture): &(Event, Snapshot)| {
        let (store, id) = (store.clone(), picture.id);
        tokio::spawn(async move { store.snapshot(id).await })
    };
    let asked: Vec<_> = told.iter().map(ask).collect();

    store.mutate(vec![Mutation::EraseSubject(anna.uid)], Call::default(), no_answer()).await.expect("erased");
    store.put_snapshots(told.clone()).await.expect("kept, or not");
    drop(coming);
    let mut answers = Vec::new();
    for asked in asked {
        answers.push(asked.await.expect("it answers").expect("it is readable"));
    }
    assert_eq!(answers, [None, Some(told[1].1.clone())], "who asked before it was there has it");
    assert_eq!(store.counts().snapshots_of_erased, 1);
}
