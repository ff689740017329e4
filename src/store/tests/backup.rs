//! Backups are whole or refused, and nobody who was erased comes back by one.
//!
//! In: a store that is thrown away. Out: verdicts. Must not know: how backups are made.

use std::path::PathBuf;

use super::{commit, keyed, put_sample, sample, store, subject, template};
use crate::clock::Timestamp;
use crate::mutation::Mutation;
use crate::store::{Store, StoreError, back_up, restore};
use crate::subject::{Sample, Subject};

struct Bench {
    directory: tempfile::TempDir,
    outside: tempfile::TempDir,
}

impl Bench {
    fn file(&self) -> PathBuf {
        self.outside.path().join("monday.db")
    }
}

/// A store with anna and bert, backed up while it is open, in which cleo was enrolled and anna erased since.
async fn backed_up() -> (Bench, Store) {
    let (directory, store) = store();
    let mut random = fastrand::Rng::with_seed(9);
    let (anna, bert, cleo) = (subject("anna"), subject("bert"), subject("cleo"));
    let enrol = |who: &crate::subject::Subject, content, random: &mut fastrand::Rng| {
        let photo = [content; 3_000];
        vec![Mutation::PutSubject(who.clone()), put_sample(&sample(who, content), &template(random), &photo)]
    };
    commit(&store, enrol(&anna, 1, &mut random)).await;
    commit(&store, enrol(&bert, 2, &mut random)).await;
    let bench = Bench { directory, outside: tempfile::tempdir().expect("a directory") };
    let facts = back_up(bench.directory.path(), &bench.file(), &|| false).expect("backed up while it is open");
    assert_eq!((facts.version, facts.subjects, facts.samples), (4, 2, 2));
    commit(&store, enrol(&cleo, 3, &mut random)).await;
    store.mutate(vec![Mutation::EraseSubject(anna.uid)], keyed("delete"), Box::new(|_| Vec::new())).await.expect("erased");
    (bench, store)
}

async fn names(store: &Store) -> Vec<String> {
    store.subjects().await.expect("subjects").iter().map(|subject| subject.id.to_string()).collect()
}

#[tokio::test]
async fn a_backup_comes_back_without_those_who_were_erased_since() {
    let (bench, store) = backed_up().await;
    assert_eq!(names(&store).await, ["bert", "cleo"]);
    let epoch = store.epoch();
    assert!(matches!(restore(bench.directory.path(), &bench.file()), Err(StoreError::Locked(_))), "not under a daemon's feet");
    drop(store);
    let restored = restore(bench.directory.path(), &bench.file()).expect("restored");
    assert_eq!((restored.facts.subjects, restored.erased_again, restored.erasures_unknown.is_some()), (1, 1, false));
    assert!(restored.replaced.is_some_and(|replaced| replaced.exists()), "what was there is kept");
    let database = std::fs::read(bench.directory.path().join("doorward.db")).expect("readable");
    assert!(!database.windows(100).any(|window| window == [1; 100]), "her photo is not in it");
    let store = Store::open(bench.directory.path()).expect("it opens");
    assert_eq!(names(&store).await, ["bert"]);
    assert_ne!(store.epoch(), epoch, "its next events are others than those of the log that was replaced");
    assert_eq!(store.is_erased_content([1; 32]).await, Ok(true), "nor does the folder bring her back");
    let newest = store.gallery_versions_before(None, 1).await.expect("versions").remove(0);
    assert_eq!((newest.cause.as_str(), newest.subjects, newest.samples), ("restore", 1, 1));
}

#[tokio::test]
async fn a_backup_that_was_cut_altered_or_is_none_is_refused_and_nothing_is_changed() {
    let (bench, store) = backed_up().await;
    drop(store);
    let (file, sum) = (bench.file(), bench.outside.path().join("monday.db.sha256"));
    let (whole, vouched) = (std::fs::read(&file).expect("readable"), std::fs::read(&sum).expect("readable"));
    let before = std::fs::read(bench.directory.path().join("doorward.db")).expect("readable");
    let refused = |what: &str| {
        let outcome = restore(bench.directory.path(), &file);
        assert!(matches!(outcome, Err(StoreError::BadBackup { .. } | StoreError::Damaged { .. })), "{what}: {outcome:?}");
        let now = std::fs::read(bench.directory.path().join("doorward.db")).expect("readable");
        assert!(now == before && !bench.directory.path().join("restoring.db").exists(), "{what}");
    };
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("written");
    refused("cut");
    let mut altered = whole.clone();
    altered[whole.len() / 2] ^= 1;
    std::fs::write(&file, altered).expect("written");
    refused("altered");
    std::fs::remove_file(&sum).expect("removed");
    std::fs::write(&file, &whole).expect("written");
    refused("without its checksum");
    std::fs::write(&sum, "7d793037a0760186574b0282f2f435e7b3f5a3c0b6c4c6a7d5a4a3e0b2a1f0c9  monday.db").expect("written");
    refused("with the checksum of another");
    std::fs::write(&sum, vouched).expect("written");
    assert!(restore(bench.directory.path(), &file).is_ok());
}

#[tokio::test]
async fn a_backup_replaces_a_damaged_database_and_says_that_erasures_are_unknown() {
    let (bench, store) = backed_up().await;
    drop(store);
    let database = bench.directory.path().join("doorward.db");
    let length = std::fs::metadata(&database).expect("it is there").len();
    std::fs::write(&database, vec![0x55; usize::try_from(length).expect("small")]).expect("damaged");
    assert!(matches!(Store::open(bench.directory.path()), Err(StoreError::Damaged { .. })));
    let restored = restore(bench.directory.path(), &bench.file()).expect("restored");
    assert!(restored.erasures_unknown.is_some() && restored.facts.subjects == 2, "{restored:?}");
    assert!(Store::open(bench.directory.path()).is_ok());
}

#[tokio::test]
async fn a_file_that_is_there_is_never_overwritten() {
    let (bench, store) = backed_up().await;
    let again = || back_up(bench.directory.path(), &bench.file(), &|| false);
    assert_eq!(again(), Err(StoreError::Exists(bench.file())));
    // Nor is a checksum, of a backup that was moved away.
    let away = bench.outside.path().join("moved.db");
    std::fs::rename(bench.file(), &away).expect("moved");
    assert_eq!(again(), Err(StoreError::Exists(bench.outside.path().join("monday.db.sha256"))));
    assert_eq!(bench.outside.path().read_dir().expect("listed").count(), 2, "and nothing new is left");
    std::fs::rename(away, bench.file()).expect("moved back");
    drop(store);
    assert!(restore(bench.directory.path(), &bench.file()).is_ok(), "the first backup is whole");
}

#[tokio::test]
async fn a_backup_that_is_stopped_leaves_nothing_and_can_be_taken_again() {
    let (bench, store) = backed_up().await;
    let (tuesday, asked) = (bench.outside.path().join("tuesday.db"), std::cell::Cell::new(0));
    let stopped = back_up(bench.directory.path(), &tuesday, &|| {
        asked.set(asked.get() + 1);
        assert!(!tuesday.exists(), "it has its name when it is whole");
        true
    });
    assert_eq!((stopped, asked.get()), (Err(StoreError::Interrupted), 1));
    assert_eq!(bench.outside.path().read_dir().expect("listed").count(), 2, "Monday's alone");
    assert!(back_up(bench.directory.path(), &tuesday, &|| false).is_ok());
    drop(store);
    assert!(restore(bench.directory.path(), &tuesday).is_ok());
}

#[test]
fn a_full_disk_is_told_by_the_file_that_it_has_no_room_for() {
    let file = std::path::Path::new("/backup/monday.db");
    let told = crate::store::failure::of_new_file(file, &std::io::Error::from(std::io::ErrorKind::StorageFull));
    assert_eq!(told, StoreError::NoRoom(file.to_owned()));
    assert!(told.to_string().contains("/backup/monday.db"), "{told}");
}

#[tokio::test]
async fn who_was_erased_stays_erased_when_an_older_backup_was_put_back_in_between() {
    let (bench, store) = backed_up().await;
    // Cleo came after Monday's backup, is in Tuesday's, and is erased.
    let tuesday = bench.outside.path().join("tuesday.db");
    back_up(bench.directory.path(), &tuesday, &|| false).expect("backed up");
    let cleo = store.subjects().await.expect("subjects").remove(1);
    let version =
        store.mutate(vec![Mutation::EraseSubject(cleo.uid)], keyed("cleo"), Box::new(|_| Vec::new())).await.expect("erased").version;
    drop(store);
    restore(bench.directory.path(), &bench.file()).expect("Monday's is restored");
    let restored = restore(bench.directory.path(), &tuesday).expect("Tuesday's is restored");
    assert_eq!((restored.erased_again, restored.erasures_unknown.is_some()), (1, false));
    let store = Store::open(bench.directory.path()).expect("it opens");
    assert_eq!(names(&store).await, ["bert"]);
    assert!(store.gallery_version().await.expect("a version") > version, "no version's number is given twice");
}

#[tokio::test]
async fn what_was_left_beside_the_database_is_not_replayed_over_the_one_that_is_put_back() {
    let (bench, store) = backed_up().await;
    // As after a kill: the log beside the database holds what it does not.
    let database = bench.directory.path().join("doorward.db");
    let log = std::fs::read(bench.directory.path().join("doorward.db-wal")).expect("there is a log");
    drop(store);
    std::fs::remove_file(&database).expect("the operator moves it away");
    for leftover in ["doorward.db-wal", "restoring.db-wal", "restoring.db"] {
        std::fs::write(bench.directory.path().join(leftover), &log).expect("written");
    }
    let restored = restore(bench.directory.path(), &bench.file()).expect("restored");
    assert!(restored.erasures_unknown.is_some(), "nothing tells who was erased");
    let store = Store::open(bench.directory.path()).expect("it opens");
    assert_eq!(names(&store).await, ["anna", "bert"]);
}

#[tokio::test]
async fn nobody_comes_back_by_a_restore_without_a_photo() {
    let (bench, store) = backed_up().await;
    let mut random = fastrand::Rng::with_seed(11);
    let bert = store.subjects().await.expect("subjects").into_iter().find(|subject| subject.id.as_str() == "bert").expect("bert");
    let first = store.samples(bert.uid).await.expect("samples").remove(0).0;
    // His photo is replaced after the backup, which knows only the one that was erased.
    commit(&store, vec![put_sample(&sample(&bert, 8), &template(&mut random), &[8; 3_000])]).await;
    commit(&store, vec![Mutation::EraseSample { subject: bert.uid, sample: first.id }]).await;
    drop(store);
    let restored = restore(bench.directory.path(), &bench.file()).expect("restored");
    assert_eq!((restored.facts.subjects, restored.facts.samples), (0, 0));
    let store = Store::open(bench.directory.path()).expect("it opens");
    assert!(names(&store).await.is_empty() && store.erased_ids().await.expect("ids").len() == 1, "retired, and anna alone erased");
}

#[tokio::test]
async fn single_photos_stay_erased_after_a_restore_and_the_living_stay() {
    let (bench, store) = backed_up().await;
    let mut random = fastrand::Rng::with_seed(10);
    let bert = store.subjects().await.expect("subjects").into_iter().find(|subject| subject.id.as_str() == "bert").expect("bert");
    // A stranger's photo among bert's, and a second enrolment of cleo by the photo that she was enrolled by.
    let (wrong, double) = (sample(&bert, 7), subject("cleo-2"));
    commit(&store, vec![put_sample(&wrong, &template(&mut random), &[7; 3_000])]).await;
    commit(&store, vec![Mutation::PutSubject(double.clone()), put_sample(&sample(&double, 3), &template(&mut random), &[3; 3_000])]).await;
    let later = bench.outside.path().join("tuesday.db");
    back_up(bench.directory.path(), &later, &|| false).expect("backed up");
    commit(&store, vec![Mutation::EraseSample { subject: bert.uid, sample: wrong.id }]).await;
    commit(&store, vec![Mutation::EraseSubject(double.uid)]).await;
    assert_eq!(names(&store).await, ["bert", "cleo"]);
    drop(store);
    let restored = restore(bench.directory.path(), &later).expect("restored");
    assert_eq!((restored.facts.subjects, restored.facts.samples, restored.erased_again), (2, 2, 1));
    let database = std::fs::read(bench.directory.path().join("doorward.db")).expect("readable");
    assert!(!database.windows(100).any(|window| window == [7; 100]), "the stranger's photo is not in it");
    assert_eq!(names(&Store::open(bench.directory.path()).expect("it opens")).await, ["bert", "cleo"]);
}

/// Whoever is there under `id`, with photos of these contents.
async fn enrolled(store: &Store, id: &str, contents: &[u8]) -> (Subject, Vec<Sample>) {
    let mut random = fastrand::Rng::with_seed(12);
    let who = subject(id);
    let samples: Vec<Sample> = contents.iter().map(|content| sample(&who, *content)).collect();
    let photos = samples.iter().map(|one| put_sample(one, &template(&mut random), &[one.content_sha256[0]; 3_000]));
    commit(store, [Mutation::PutSubject(who.clone())].into_iter().chain(photos).collect()).await;
    (who, samples)
}

async fn retire(store: &Store, who: &Subject) {
    commit(store, vec![Mutation::RetireSubject(who.uid)]).await;
}

#[tokio::test]
async fn no_restore_brings_an_erased_photo_back_by_whoever_has_left() {
    let (directory, store) = store();
    let bench = Bench { directory, outside: tempfile::tempdir().expect("a directory") };
    // One person under three names: there, with a photo besides; retired; and one of whom the history is kept no longer.
    let (anna, _) = enrolled(&store, "anna", &[1, 2]).await;
    let (earlier, _) = enrolled(&store, "earlier", &[1, 3]).await;
    let (forgotten, _) = enrolled(&store, "forgotten", &[2, 4]).await;
    // Bert lives: a photo of hers is among his, and another was before; dora has one in a photo that is not erased.
    let (bert, his) = enrolled(&store, "bert", &[1, 2, 5]).await;
    let (dora, _) = enrolled(&store, "dora", &[6]).await;
    commit(&store, vec![Mutation::RetireSample { subject: bert.uid, sample: his[1].id }]).await;
    retire(&store, &earlier).await;
    back_up(bench.directory.path(), &bench.file(), &|| false).expect("backed up");
    retire(&store, &forgotten).await;
    store.prune_gallery_history(Timestamp::from_micros(i64::MAX)).await.expect("pruned");
    commit(&store, vec![Mutation::EraseSample { subject: bert.uid, sample: his[0].id }]).await;
    commit(&store, vec![Mutation::EraseSubject(anna.uid)]).await;
    drop(store);

    let restored = restore(bench.directory.path(), &bench.file()).expect("restored");
    assert_eq!((restored.facts.subjects, restored.facts.samples), (2, 2));
    let database = std::fs::read(bench.directory.path().join("doorward.db")).expect("readable");
    for content in [1, 2, 3, 4] {
        assert!(!database.windows(100).any(|window| window == [content; 100]), "photo {content} is in it");
    }
    let store = Store::open(bench.directory.path()).expect("it opens");
    assert_eq!(names(&store).await, ["bert", "dora"]);
    assert_eq!(store.samples(dora.uid).await.expect("samples").len(), 1);
    assert!(store.retired_subjects(&earlier.id).await.expect("read").is_empty());
}

#[tokio::test]
async fn a_photo_that_somebody_still_had_when_another_was_erased_by_it_comes_back_with_them() {
    let (directory, store) = store();
    let bench = Bench { directory, outside: tempfile::tempdir().expect("a directory") };
    let (anna, _) = enrolled(&store, "anna", &[1]).await;
    let (twice, _) = enrolled(&store, "twice", &[1, 2]).await;
    back_up(bench.directory.path(), &bench.file(), &|| false).expect("backed up");
    commit(&store, vec![Mutation::EraseSubject(anna.uid)]).await;
    retire(&store, &twice).await;
    drop(store);
    restore(bench.directory.path(), &bench.file()).expect("restored");
    let store = Store::open(bench.directory.path()).expect("it opens");
    assert_eq!(names(&store).await, ["twice"]);
    assert_eq!(store.samples(twice.uid).await.expect("samples").len(), 2);
}

#[tokio::test]
async fn a_backup_of_an_empty_gallery_gives_no_number_of_a_version_twice() {
    let (directory, store) = store();
    let bench = Bench { directory, outside: tempfile::tempdir().expect("a directory") };
    back_up(bench.directory.path(), &bench.file(), &|| false).expect("backed up");
    enrolled(&store, "anna", &[1]).await;
    let before = store.gallery_version().await.expect("a version");
    drop(store);
    restore(bench.directory.path(), &bench.file()).expect("restored");
    let store = Store::open(bench.directory.path()).expect("it opens");
    enrolled(&store, "bert", &[2]).await;
    assert!(store.gallery_version().await.expect("a version") > before + 1);
    let first = store.gallery_versions_after(Some(0), 1).await.expect("versions").remove(0);
    assert!(first.version > before, "{first:?}");
}

#[tokio::test]
async fn a_restore_notes_the_name_of_whoever_had_an_erased_photo_under_it() {
    let (directory, store) = store();
    let bench = Bench { directory, outside: tempfile::tempdir().expect("a directory") };
    let (earlier, _) = enrolled(&store, "earlier", &[1]).await;
    let (anna, _) = enrolled(&store, "anna", &[1]).await;
    retire(&store, &earlier).await;
    back_up(bench.directory.path(), &bench.file(), &|| false).expect("backed up");
    store.prune_gallery_history(Timestamp::from_micros(i64::MAX)).await.expect("pruned");
    commit(&store, vec![Mutation::EraseSubject(anna.uid)]).await;
    assert_eq!(store.is_erased_id(&earlier.id).await, Ok(false), "of which nothing was known any more");
    drop(store);
    restore(bench.directory.path(), &bench.file()).expect("restored");
    let store = Store::open(bench.directory.path()).expect("it opens");
    assert_eq!((store.is_erased_id(&anna.id).await, store.is_erased_id(&earlier.id).await), (Ok(true), Ok(true)));
}

#[tokio::test]
async fn a_restore_keeps_who_had_left_and_was_not_erased_with_a_photo_that_had_been_among_theirs() {
    // Whether or not the database that is replaced still knows of him.
    for is_forgotten in [false, true] {
        let (directory, store) = store();
        let bench = Bench { directory, outside: tempfile::tempdir().expect("a directory") };
        let (bert, his) = enrolled(&store, "bert", &[1, 5]).await;
        commit(&store, vec![Mutation::RetireSample { subject: bert.uid, sample: his[0].id }]).await;
        let (anna, _) = enrolled(&store, "anna", &[1]).await;
        retire(&store, &bert).await;
        back_up(bench.directory.path(), &bench.file(), &|| false).expect("backed up");
        if is_forgotten {
            store.prune_gallery_history(Timestamp::from_micros(i64::MAX)).await.expect("pruned");
        }
        commit(&store, vec![Mutation::EraseSubject(anna.uid)]).await;
        drop(store);
        restore(bench.directory.path(), &bench.file()).expect("restored");
        let database = std::fs::read(bench.directory.path().join("doorward.db")).expect("readable");
        assert_eq!([1, 5].map(|content| database.windows(100).any(|window| window == [content; 100])), [false, true]);
        let store = Store::open(bench.directory.path()).expect("it opens");
        assert_eq!((store.retired_subjects(&bert.id).await, store.is_erased_id(&bert.id).await), (Ok(vec![bert.uid]), Ok(false)));
    }
}
