//! Tests of who leaves the folder, and of what is erased with whoever left it under another name.
//!
//! In: made-up photos. Out: nothing. Must not know: models.

use super::*;
use crate::enrol::ImportItem;
use crate::enrol::import::Import;

#[tokio::test]
async fn whatever_a_file_manager_leaves_in_a_directory_keeps_nobody_enrolled() {
    let house = House::new().await;
    for who in 0..12 {
        house.put(&format!("s{who}/1.jpg"), &photo(who, 1));
    }
    house.put("s1/2.jpg", &photo(1, 2));
    house.reload().await;
    for (path, name) in [("s1/1.jpg", "Thumbs.db"), ("s1/2.jpg", ".DS_Store"), ("s2/1.jpg", "notes.txt"), ("s3/1.jpg", ".1.jpg")] {
        fs::remove_file(house.people().join(path)).expect("it is there");
        house.put(&format!("{}/{name}", &path[..2]), b"x");
    }
    // They count among those who would go, too.
    assert!(matches!(house.reload_as(false, false, "").await, Err(EnrolError::MassRemoval { removed: 3, total: 12 })));
    let report = house.reload().await;
    assert_eq!((counts(&report), report.refused.len()), ((0, 0, 3, 9), 4));
    assert_eq!([1, 2, 3].map(|who| found(&house.register, who, 5)), [None, None, None]);
    // A photo by its name that cannot be read keeps whom it may be of.
    fs::remove_file(house.people().join("s4/1.jpg")).expect("it is there");
    fs::create_dir(house.people().join("s4/1.jpg")).expect("a directory in its place");
    assert_eq!(counts(&house.reload().await), (0, 0, 0, 9));
}

#[tokio::test]
async fn erasing_somebody_whose_directory_was_renamed_erases_what_is_kept_under_the_old_name() {
    let house = House::new().await;
    house.put("anna/1.jpg", &photo(1, 1));
    house.put("bert/1.jpg", &photo(2, 1));
    let before = house.reload().await.version;
    fs::rename(house.people().join("anna"), house.people().join("anna_smith")).expect("renamed");
    house.reload().await;
    house.delete("anna_smith").await;
    let rollback = crate::enrol::Rollback { version: before, allow_mass_removal: true, dry_run: false };
    let request = Request::roll_back("", &rollback).expect("a good request");
    house.register.roll_back(request, rollback).await.expect("gone back");
    assert_eq!(found(&house.register, 1, 1), None);
    let versions = house.register.store.gallery_versions_before(None, 1).await.expect("versions");
    assert_eq!((versions[0].subjects, versions[0].samples), (1, 1), "and the totals hold");
}

#[tokio::test]
async fn whoever_left_under_another_name_goes_with_all_photos_of_then() {
    let house = House::new().await;
    for (path, who, shot) in [("anna/1.jpg", 1, 1), ("anna/2.jpg", 1, 2), ("bert/1.jpg", 2, 1)] {
        house.put(path, &photo(who, shot));
    }
    let before = house.reload().await.version;
    house.add("bert", (1, 2), true).await;
    // Renamed twice, and each time a photo is left out or put in.
    fs::remove_file(house.people().join("anna/2.jpg")).expect("it is there");
    fs::rename(house.people().join("anna"), house.people().join("anna_smith")).expect("renamed");
    house.put("anna_smith/3.jpg", &photo(1, 3));
    house.reload().await;
    fs::remove_file(house.people().join("anna_smith/1.jpg")).expect("it is there");
    fs::rename(house.people().join("anna_smith"), house.people().join("anna_jones")).expect("renamed");
    house.reload().await;
    fs::remove_dir_all(house.people().join("bert")).expect("it is there");
    house.put("cleo/1.jpg", &photo(3, 1));
    house.reload().await;
    house.delete("anna_jones").await;

    let rollback = crate::enrol::Rollback { version: before, allow_mass_removal: true, dry_run: false };
    let request = Request::roll_back("", &rollback).expect("a good request");
    house.register.roll_back(request, rollback).await.expect("gone back");
    assert_eq!([1, 2, 3].map(|shot| found(&house.register, 1, shot)), [None, None, None]);
    assert_eq!(found(&house.register, 2, 1).as_deref(), Some("bert"), "whom a photo of hers told apart is somebody else");
    for shot in 1..=3 {
        let erased = house.register.store.is_erased_content(prepared(1, shot).content_sha256).await;
        assert_eq!(erased, Ok(true), "photo {shot} does not come back by the folder, either");
    }
}

#[tokio::test]
async fn a_directory_that_returns_brings_no_photo_that_was_erased_with_somebody() {
    let house = House::new().await;
    for (path, who, shot) in [("cleo/1.jpg", 3, 1), ("cleo/2.jpg", 3, 2), ("bert/1.jpg", 2, 1)] {
        house.put(path, &photo(who, shot));
    }
    house.reload().await;
    // Enrolled once more by the same picture, and erased under that name.
    let request = Request::create_subject(&NewSubject::default()).expect("a good request");
    let allowed = Allowed { duplicate: true, ..Allowed::default() };
    let creation = Creation { id: Some(id("cleo-2")), fields: SubjectFields::default(), samples: vec![prepared(3, 1)], allowed };
    house.register.create(request, creation).await.expect("enrolled");
    house.delete("cleo-2").await;
    assert_eq!(found(&house.register, 3, 1).as_deref(), Some("cleo"), "who is there keeps the photo");
    fs::remove_dir_all(house.people().join("cleo")).expect("it is there");
    house.reload().await;
    for shot in [1, 2] {
        house.put(&format!("cleo/{shot}.jpg"), &photo(3, shot));
    }
    let report = house.reload().await;
    assert_eq!((counts(&report), reasons(&report)), ((1, 0, 0, 2), vec![("cleo/1.jpg", "ERASED_PERSON")]));
    let cleo = house.register.subject_with_count(&id("cleo")).await.expect("cleo");
    assert_eq!(cleo.1, 1);
}

#[tokio::test]
async fn the_answer_that_is_kept_of_a_reload_names_nobody() {
    let house = House::new().await;
    house.enrol("rita", 5, 1).await;
    for (path, who, shot) in [("anna/1.jpg", 1, 1), ("rita-again/1.jpg", 5, 2)] {
        house.put(path, &photo(who, shot));
    }
    house.put("bo/1.jpg", &empty_photo(1));
    let report = house.reload_as(false, false, "once").await.expect("reloaded");
    assert_eq!((reasons(&report), report.doubtful.len()), (vec![("bo/1.jpg", "NO_FACE")], 1));
    let request = Request::reload("once", false, false).expect("a good request");
    let kept = house.register.store.request_answer(&request.key.expect("it has one")).await.expect("read").expect("kept");
    let kept = String::from_utf8(kept).expect("text");
    assert!(["anna", "bo/", "rita"].iter().all(|name| !kept.contains(name)), "{kept}");
    let again = house.reload_as(false, false, "once").await.expect("the first answer");
    assert_eq!((again.version, counts(&again)), (report.version, counts(&report)));
    assert!(again.refused[0].message.starts_with("files that were refused: 1;"), "{again:?}");
}

#[tokio::test]
async fn the_name_that_an_erased_person_left_under_enrols_nobody_either() {
    let house = House::new().await;
    house.put("anna/1.jpg", &photo(1, 1));
    house.put("bert/1.jpg", &photo(2, 1));
    house.reload().await;
    // All that is kept under the old name is a photo that goes with the new one.
    fs::rename(house.people().join("anna"), house.people().join("anna_smith")).expect("renamed");
    house.reload().await;
    house.delete("anna_smith").await;
    let ((send, items), (results, mut told)) = (tokio::sync::mpsc::channel(2), tokio::sync::mpsc::channel(2));
    for name in ["anna", "anna_smith"] {
        let (key, photo) = (name.to_owned(), photo(1, 2).into());
        let item = ImportItem { key, subject: id(name), fields: SubjectFields::default(), photo, allowed: Allowed::default() };
        send.send(item).await.expect("there is room");
    }
    drop(send);
    let (register, prepare) = (Arc::clone(&house.register), Arc::clone(&house.prepare));
    Import { register, prepare, busy_wait: Duration::ZERO, group_wait: Duration::ZERO }.run(items, results).await.expect("an end");
    let mut outcomes = Vec::new();
    while let Some(some) = told.recv().await {
        outcomes.extend(some.into_iter().map(|result| result.outcome));
    }
    let is_erased = |outcome: &Result<_, EnrolError>| matches!(outcome, Err(EnrolError::ErasedId(_)));
    assert!(outcomes.len() == 2 && outcomes.iter().all(is_erased), "{outcomes:?}");
}

#[tokio::test]
async fn an_erased_persons_directory_that_holds_no_photo_has_not_been_away() {
    let house = House::new().await;
    for (name, who) in [("anna", 1), ("bert", 2), ("cleo", 3), ("dora", 4)] {
        house.put(&format!("{name}/1.jpg"), &photo(who, 1));
    }
    house.reload().await;
    for name in ["anna", "bert", "cleo"] {
        house.delete(name).await;
        fs::remove_file(house.people().join(format!("{name}/1.jpg"))).expect("it is there");
    }
    // A file of another kind, half of a copy, and nothing at all.
    house.put("anna/1.heic", b"x");
    house.put("bert/.1.jpg.part", b"x");
    house.reload().await;
    for (name, who) in [("anna", 1), ("bert", 2), ("cleo", 3)] {
        house.put(&format!("{name}/2.jpg"), &photo(who, 2));
    }
    let report = house.reload().await;
    let erased: Vec<_> = report.refused.iter().filter(|file| file.reason == "ERASED_PERSON").map(|file| file.path.as_str()).collect();
    assert_eq!((counts(&report), erased), ((0, 0, 0, 1), vec!["anna/2.jpg", "bert/2.jpg", "cleo/2.jpg"]));
}

#[tokio::test]
async fn a_photo_that_lay_in_the_wrong_directory_takes_nobody_along() {
    let house = House::new().await;
    for (path, who, shot) in [("bert/1.jpg", 2, 1), ("bert/2.jpg", 1, 1), ("cleo/1.jpg", 3, 1)] {
        house.put(path, &photo(who, shot));
    }
    house.reload().await;
    // Anna's, and soon in its place; later bert is away for a while.
    fs::create_dir(house.people().join("anna")).expect("a directory");
    fs::rename(house.people().join("bert/2.jpg"), house.people().join("anna/1.jpg")).expect("moved");
    house.reload().await;
    house.clock.advance(Duration::from_secs(60));
    fs::rename(house.people().join("bert"), house.directory.path().join("bert")).expect("taken away");
    house.reload().await;
    let bert = house.register.store.retired_subjects(&id("bert")).await.expect("read");
    house.delete("anna").await;
    fs::rename(house.directory.path().join("bert"), house.people().join("bert")).expect("put back");
    assert_eq!(counts(&house.reload().await), (1, 0, 0, 2));
    assert_eq!(found(&house.register, 2, 1).as_deref(), Some("bert"));
    assert_eq!(house.register.subject_with_count(&id("bert")).await.map(|(subject, _)| vec![subject.uid]).expect("bert"), bert);
    // The photo itself is erased wherever it was.
    house.put("bert/2.jpg", &photo(1, 1));
    assert_eq!(reasons(&house.reload().await), [("anna/1.jpg", "ERASED_PERSON"), ("bert/2.jpg", "ERASED_PERSON")]);
}
