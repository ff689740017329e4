//! Tests of reloading against a real store and a real folder.
//!
//! In: made-up photos. Out: nothing. Must not know: models.

mod leaving;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::clock::{SimulatedClock, Timestamp};
use crate::enrol::register::{Addition, Creation};
use crate::enrol::tests::{counting_prepare, empty_photo, found, id, photo, prepared, register};
use crate::enrol::{Allowed, NewSample, NewSubject, SAMPLES_A_SUBJECT_MAX, SampleInput, SubjectFields, SubjectUpdate};
use crate::subject::{Origin, SubjectId};

struct House {
    directory: tempfile::TempDir,
    register: Arc<Register>,
    clock: Arc<SimulatedClock>,
    prepare: Prepare,
    looks: Arc<AtomicUsize>,
}

impl House {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("people")).expect("a directory");
        let (register, clock) = register(&directory.path().join("data")).await;
        let (prepare, looks) = counting_prepare();
        Self { directory, register, clock, prepare, looks }
    }

    fn people(&self) -> std::path::PathBuf {
        self.directory.path().join("people")
    }

    fn put(&self, path: &str, content: &[u8]) {
        write(&self.people(), path, content);
    }

    async fn reload_as(&self, allow_mass_removal: bool, dry_run: bool, request_id: &str) -> Result<ReloadReport, EnrolError> {
        let request = Request::reload(request_id, allow_mass_removal, dry_run).expect("a good request");
        Reload { register: &self.register, folder: self.people(), allow_mass_removal, dry_run, busy_wait: Duration::ZERO }
            .run(request, Arc::clone(&self.prepare))
            .await
    }

    async fn reload(&self) -> ReloadReport {
        self.reload_as(true, false, "").await.expect("reloaded")
    }

    async fn delete(&self, name: &str) {
        let request = Request::delete_subject("", &id(name), "").expect("a good request");
        self.register.delete(request, id(name), String::new()).await.expect("erased");
    }

    async fn enrol(&self, name: &str, who: u8, shot: u8) {
        let id: Option<SubjectId> = Some(id(name));
        let request = Request::create_subject(&NewSubject { id: id.clone(), ..NewSubject::default() }).expect("a good request");
        let creation = Creation { id, fields: SubjectFields::default(), samples: vec![prepared(who, shot)], allowed: Allowed::default() };
        self.register.create(request, creation).await.expect("enrolled");
    }

    async fn update(&self, name: &str, fields: SubjectFields) {
        let update = SubjectUpdate { id: id(name), fields, etag: String::new(), request_id: String::new() };
        let request = Request::update_subject(&update).expect("a good request");
        self.register.update(request, update).await.expect("updated");
    }

    /// Adds a photo by RPC.
    async fn add(&self, name: &str, (who, shot): (u8, u8), negative: bool) {
        let (subject, sample, allowed) = (id(name), SampleInput::Image(photo(who, shot).into()), Allowed::default());
        let new = NewSample { subject: subject.clone(), sample, negative, allowed, request_id: String::new() };
        let addition = Addition { subject, sample: prepared(who, shot), negative, allowed };
        self.register.add(Request::create_sample(&new).expect("a good request"), addition).await.expect("added");
    }

    fn looks(&self) -> usize {
        self.looks.swap(0, Ordering::SeqCst)
    }
}

fn write(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("a directory");
    fs::write(path, content).expect("a file");
}

fn counts(report: &ReloadReport) -> (u32, u32, u32, u32) {
    (report.added, report.changed, report.removed, report.unchanged_samples)
}

fn reasons(report: &ReloadReport) -> Vec<(&str, &'static str)> {
    report.refused.iter().map(|file| (file.path.as_str(), file.reason)).collect()
}

#[tokio::test]
async fn a_reload_adds_changes_and_removes_and_encodes_only_what_is_new() {
    let house = House::new().await;
    for (path, who, shot) in [("anna/1.jpg", 1, 1), ("anna/2.jpg", 1, 2), ("bo/1.png", 2, 1)] {
        house.put(path, &photo(who, shot));
    }
    house.put("cy/1.jpg", &empty_photo(1));
    let first = house.reload().await;
    assert_eq!((counts(&first), reasons(&first)), ((2, 0, 0, 0), vec![("cy/1.jpg", "NO_FACE")]));
    assert_eq!((found(&house.register, 1, 5), found(&house.register, 2, 5)), (Some("anna".into()), Some("bo".into())));
    assert_eq!(house.looks(), 4);
    let anna = house.register.subject_with_count(&id("anna")).await.expect("anna").0;
    assert_eq!((anna.origin, anna.display_name.as_str()), (Origin::Folder, "anna"));

    fs::remove_dir_all(house.people().join("bo")).expect("it is there");
    house.put("anna/2.jpg", &photo(1, 7));
    house.put("cy/1.jpg", &photo(3, 1));
    let second = house.reload().await;
    assert_eq!((counts(&second), reasons(&second)), ((1, 1, 1, 1), vec![]));
    assert_eq!(house.looks(), 2, "the changed and the new photo");
    assert_eq!((found(&house.register, 2, 5), found(&house.register, 3, 5)), (None, Some("cy".into())));
    assert_eq!(
        house.register.subject_with_count(&id("anna")).await.expect("anna"),
        (house.register.gallery.subject(anna.uid).expect("anna").as_ref().clone(), 2)
    );

    let third = house.reload().await;
    assert_eq!((counts(&third), third.version, house.looks()), ((0, 0, 0, 3), second.version, 0));
    // Who was taken out of the folder may be put back.
    house.put("bo/1.png", &photo(2, 1));
    assert_eq!(counts(&house.reload().await), (1, 0, 0, 4));
}

#[tokio::test]
async fn who_is_back_in_the_folder_is_who_left_it_and_still_expires_and_stands_on_the_lists() {
    let house = House::new().await;
    for (path, who, shot) in [("anna/1.jpg", 1, 1), ("anna/2.jpg", 1, 2), ("bo/1.jpg", 2, 1)] {
        house.put(path, &photo(who, shot));
    }
    house.reload().await;
    let expire_time = Timestamp::from_micros(1_000_000_000);
    let fields =
        SubjectFields { watchlists: Some(vec!["blocked".into()]), expire_time: Some(Some(expire_time)), ..SubjectFields::default() };
    house.update("anna", fields).await;
    house.add("anna", (3, 1), true).await;
    let before = house.register.subject_with_count(&id("anna")).await.expect("anna").0;
    house.looks();

    fs::remove_dir_all(house.people().join("anna")).expect("it is there");
    assert_eq!(counts(&house.reload().await), (0, 0, 1, 1));
    for (file, shot) in [("1.jpg", 1), ("3.jpg", 3)] {
        house.put(&format!("anna/{file}"), &photo(1, shot));
    }
    assert_eq!(counts(&house.reload().await), (1, 0, 0, 2));
    assert_eq!(house.looks(), 1, "the photo that she left with is known");
    let after = house.register.subject_with_count(&id("anna")).await.expect("anna").0;
    assert_eq!((after.uid, after.expire_time, after.watchlists.as_slice()), (before.uid, Some(expire_time), &["blocked".to_owned()][..]));
    assert_ne!(after.etag(), before.etag());
    // Her photo, the new one, and the negative one; the other did not come back.
    let samples = house.register.store.samples(after.uid).await.expect("read");
    assert_eq!(samples.iter().map(|(sample, _)| sample.negative).collect::<Vec<bool>>(), [false, true, false]);
    assert_eq!((found(&house.register, 1, 5).as_deref(), found(&house.register, 3, 1)), (Some("anna"), None));
    assert_eq!(counts(&house.reload().await), (0, 0, 0, 3));
}

#[tokio::test]
async fn whoever_is_back_while_somebody_has_their_photo_is_not_two_people() {
    let house = House::new().await;
    house.put("anna/1.jpg", &photo(1, 1));
    house.put("bo/1.jpg", &photo(2, 1));
    house.reload().await;
    // The directory is renamed, and a copy that was put back brings the old name, too.
    fs::rename(house.people().join("anna"), house.people().join("anna-berg")).expect("it is there");
    assert_eq!(counts(&house.reload().await), (1, 0, 1, 1));
    house.put("anna/1.jpg", &photo(1, 1));
    let both = house.reload().await;
    assert_eq!((counts(&both), reasons(&both)), ((0, 0, 0, 2), vec![("anna/1.jpg", "PHOTO_OF_ANOTHER_SUBJECT")]));
    // Nor is it passed over where somebody was enrolled by RPC meanwhile.
    fs::remove_dir_all(house.people().join("anna")).expect("it is there");
    fs::remove_dir_all(house.people().join("bo")).expect("it is there");
    house.reload().await;
    house.enrol("bert", 2, 3).await;
    house.put("bo/1.jpg", &photo(2, 1));
    let doubtful: Vec<_> = house.reload().await.doubtful.into_iter().map(|file| (file.path, file.reason)).collect();
    assert_eq!(doubtful, [("bo/1.jpg".to_owned(), "POSSIBLE_DUPLICATE")]);
}

#[tokio::test]
async fn another_person_of_the_same_name_has_nothing_of_who_left() {
    let house = House::new().await;
    house.put("anna/1.jpg", &photo(1, 1));
    house.put("bo/1.jpg", &photo(2, 1));
    house.reload().await;
    let fields = SubjectFields { watchlists: Some(vec!["server-room".into()]), ..SubjectFields::default() };
    house.update("anna", fields).await;
    let before = house.register.subject_with_count(&id("anna")).await.expect("anna").0;
    fs::remove_dir_all(house.people().join("anna")).expect("it is there");
    house.reload().await;
    house.put("anna/1.jpg", &photo(3, 1));
    house.reload().await;
    let after = house.register.subject_with_count(&id("anna")).await.expect("anna").0;
    assert!(after.uid != before.uid && after.watchlists.is_empty(), "{after:?}");
}

#[tokio::test]
async fn an_erased_person_stays_out_until_enrolled_by_rpc() {
    let house = House::new().await;
    house.put("anna/1.jpg", &photo(1, 1));
    house.put("bo/1.jpg", &photo(2, 1));
    house.reload().await;
    house.delete("anna").await;
    house.put("other-name/x.jpg", &photo(1, 1));
    let report = house.reload().await;
    assert_eq!(
        (counts(&report), reasons(&report)),
        ((0, 0, 0, 1), vec![("anna/1.jpg", "ERASED_PERSON"), ("other-name/x.jpg", "ERASED_PERSON")])
    );
    assert_eq!(found(&house.register, 1, 1), None);
    house.enrol("anna", 1, 1).await;
    let report = house.reload().await;
    assert_eq!(reasons(&report)[0], ("anna", "SUBJECT_EXISTS"), "whom RPC enrolled the folder does not touch");
    assert_eq!(found(&house.register, 1, 1).as_deref(), Some("anna"));
}

#[tokio::test]
async fn an_erased_persons_directory_enrols_nobody_until_it_was_away() {
    let house = House::new().await;
    for name in ["anna", "bo"] {
        house.put(&format!("{name}/1.jpg"), &photo(u8::from(name == "bo") + 1, 1));
    }
    house.reload().await;
    house.delete("anna").await;
    // A photo that was refused, deleted or not there yet when she was erased.
    house.put("anna/2.jpg", &photo(1, 2));
    assert_eq!(reasons(&house.reload().await), [("anna/1.jpg", "ERASED_PERSON"), ("anna/2.jpg", "ERASED_PERSON")]);
    assert_eq!((found(&house.register, 1, 2), house.looks()), (None, 2), "and it was not even looked at");
    fs::remove_dir_all(house.people().join("anna")).expect("it is there");
    house.reload().await;
    house.put("anna/1.jpg", &photo(3, 1));
    assert_eq!(counts(&house.reload().await), (1, 0, 0, 1));
    assert_eq!(found(&house.register, 3, 1).as_deref(), Some("anna"), "another of that name");
}

#[tokio::test]
async fn who_left_and_came_back_with_the_same_photo_can_be_erased() {
    let house = House::new().await;
    for name in ["anna", "bo"] {
        house.put(&format!("{name}/1.jpg"), &photo(u8::from(name == "bo"), 1));
    }
    house.reload().await;
    fs::remove_dir_all(house.people().join("bo")).expect("it is there");
    house.reload().await;
    house.put("bo/1.jpg", &photo(1, 1));
    house.reload().await;
    assert_eq!(found(&house.register, 1, 1).as_deref(), Some("bo"));
    house.delete("bo").await;
    assert_eq!(found(&house.register, 1, 1), None);
    assert_eq!(reasons(&house.reload().await), [("bo/1.jpg", "ERASED_PERSON")]);
}

#[tokio::test]
async fn a_photo_of_a_full_directory_can_be_replaced() {
    let house = House::new().await;
    for shot in 0..SAMPLES_A_SUBJECT_MAX {
        house.put(&format!("anna/{shot:03}.jpg"), &photo(1, shot as u8));
    }
    house.reload().await;
    house.put("anna/007.jpg", &photo(1, 200));
    // It would be asked first by its name.
    house.put("anna/0000.jpg", &photo(1, 201));
    let report = house.reload().await;
    assert_eq!((counts(&report), reasons(&report)), ((0, 1, 0, 99), vec![("anna/0000.jpg", "TOO_MANY_PHOTOS")]));
}

#[tokio::test]
async fn a_directory_fills_what_photos_added_by_command_leave_of_the_hundred() {
    let house = House::new().await;
    (1..SAMPLES_A_SUBJECT_MAX).for_each(|shot| house.put(&format!("anna/{shot:03}.jpg"), &photo(1, shot as u8)));
    house.reload().await;
    house.add("anna", (1, 200), false).await;
    house.put("anna/100.jpg", &photo(1, 201));
    assert_eq!(reasons(&house.reload().await), [("anna/100.jpg", "TOO_MANY_PHOTOS")]);
}

#[tokio::test]
async fn a_person_erased_while_the_folder_is_encoded_stays_out() {
    let house = House::new().await;
    house.put("anna/1.jpg", &photo(1, 1));
    house.reload().await;
    house.put("anna/2.jpg", &photo(1, 2));
    house.enrol("bo", 2, 1).await;
    house.put("bo2/1.jpg", &photo(2, 1));
    let register = Arc::clone(&house.register);
    let (inner, erased) = (Arc::clone(&house.prepare), Arc::new(AtomicBool::new(false)));
    let prepare: Prepare = Arc::new(move |bytes| {
        let (register, look, erased) = (Arc::clone(&register), inner(bytes), Arc::clone(&erased));
        Box::pin(async move {
            if !erased.swap(true, Ordering::SeqCst) {
                for name in ["anna", "bo"] {
                    let request = Request::delete_subject("", &id(name), "").expect("a good request");
                    register.delete(request, id(name), String::new()).await.expect("erased");
                }
            }
            look.await
        })
    });
    let house = House { prepare, ..house };
    let report = house.reload().await;
    let refused = [("anna/1.jpg", "ERASED_PERSON"), ("anna/2.jpg", "ERASED_PERSON"), ("bo2/1.jpg", "ERASED_PERSON")];
    assert_eq!(reasons(&report), refused);
    assert_eq!(found(&house.register, 2, 1), None, "their very photo was in the reload's hands");
    assert_eq!(reasons(&house.reload().await), refused);
    assert_eq!(found(&house.register, 1, 2), None, "nor by a photo that was never hers before");
}

#[tokio::test]
async fn a_folder_that_vanishes_or_is_empty_leaves_the_gallery_as_it_was() {
    let house = House::new().await;
    for who in 0..5 {
        house.put(&format!("s{who}/1.jpg"), &photo(who, 1));
    }
    let before = house.reload().await.version;
    // In the middle of the reload: more photos than are looked at together, so that some are read
    // when the first one was looked at.
    for who in 5..15 {
        house.put(&format!("s{who}/1.jpg"), &photo(who, 1));
    }
    let (people, hidden, inner) = (house.people(), house.directory.path().join("hidden"), Arc::clone(&house.prepare));
    let vanishing: Prepare = Arc::new(move |bytes| {
        if people.exists() {
            fs::rename(&people, &hidden).expect("renamed");
        }
        inner(bytes)
    });
    let house = House { prepare: vanishing, ..house };
    assert!(matches!(house.reload_as(true, false, "").await, Err(EnrolError::FolderUnreadable { .. })));
    // Gone, whatever is allowed; and there but empty.
    assert!(matches!(house.reload_as(true, false, "").await, Err(EnrolError::FolderUnreadable { .. })));
    fs::create_dir(house.people()).expect("a directory");
    assert!(matches!(house.reload_as(false, false, "").await, Err(EnrolError::MassRemoval { removed: 5, total: 5 })));
    assert_eq!(house.register.gallery.current().version(), before);
    assert!((0..5).all(|who| found(&house.register, who, 3) == Some(format!("s{who}"))));
}

#[tokio::test]
async fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let house = House::new().await;
    house.put("anna/1.jpg", &photo(1, 1));
    house.put("bo/1.jpg", &empty_photo(1));
    let dry = house.reload_as(false, true, "r").await.expect("a report");
    assert_eq!((counts(&dry), reasons(&dry), dry.version), ((1, 0, 0, 0), vec![("bo/1.jpg", "NO_FACE")], 0));
    assert_eq!(found(&house.register, 1, 1), None);
    let wet = house.reload_as(false, false, "r").await.expect("a report");
    assert_eq!(wet, ReloadReport { version: wet.version, ..dry });
    assert!(wet.version > 0);
}

#[tokio::test]
async fn a_repeated_reload_returns_the_first_answer_even_when_nothing_had_changed() {
    let house = House::new().await;
    house.put("anna/1.jpg", &photo(1, 1));
    house.put("anna/2.jpg", &empty_photo(2));
    let first = house.reload_as(false, false, "r1").await.expect("a report");
    let nothing = house.reload_as(false, false, "r2").await.expect("a report");
    house.put("bo/1.jpg", &photo(2, 1));
    let again = house.reload_as(false, false, "r1").await.expect("a report");
    assert_eq!((again.version, counts(&again)), (first.version, counts(&first)));
    assert_eq!((reasons(&first), reasons(&again)), (vec![("anna/2.jpg", "NO_FACE")], vec![("", "MORE_FILES_REFUSED")]));
    let again = house.reload_as(false, false, "r2").await.expect("a report");
    assert_eq!((again.version, counts(&again)), (nothing.version, counts(&nothing)));
    assert_eq!(found(&house.register, 2, 1), None);
    assert!(matches!(house.reload_as(true, false, "r1").await, Err(EnrolError::RequestReused)));
}

#[tokio::test]
async fn a_reload_waits_while_inference_is_busy_and_ends_when_it_has_failed() {
    let house = House::new().await;
    house.put("anna/1.jpg", &photo(1, 1));
    let (calls, inner) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&house.prepare));
    let busy: Prepare = Arc::new(move |bytes| {
        let (is_busy, look) = (calls.fetch_add(1, Ordering::SeqCst) < 20, inner(bytes));
        Box::pin(async move { if is_busy { Err(PhotoError::Infer(InferError::Busy).into()) } else { look.await } })
    });
    let house = House { prepare: busy, ..house };
    assert_eq!(counts(&house.reload().await), (1, 0, 0, 0));
    house.put("bo/1.jpg", &photo(2, 1));
    let broken: Prepare = Arc::new(|_| Box::pin(async { Err(PhotoError::Infer(InferError::Stopped).into()) }));
    let house = House { prepare: broken, ..house };
    assert!(matches!(house.reload_as(false, false, "").await, Err(EnrolError::Photo(PhotoError::Infer(InferError::Stopped)))));
}

/// Everybody stays enrolled through every reload, so whoever asks must find them in each version:
/// their photos are replaced again and again, and one that is replaced is in both or in neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn whoever_asks_during_reloads_never_sees_a_gap() {
    const PEOPLE: u8 = 12;
    let house = House::new().await;
    let put_all = |shot: u8| (0..PEOPLE).for_each(|who| house.put(&format!("s{who}/1.jpg"), &photo(who, shot)));
    put_all(0);
    house.reload().await;
    let done = Arc::new(AtomicBool::new(false));
    let askers: Vec<_> = (0..2)
        .map(|_| {
            let (register, done) = (Arc::clone(&house.register), Arc::clone(&done));
            tokio::task::spawn_blocking(move || {
                let mut asked = 0;
                while !done.load(Ordering::Acquire) || asked == 0 {
                    let current = register.gallery.current();
                    assert_eq!((current.subject_count(), current.template_count()), (u64::from(PEOPLE), u64::from(PEOPLE)));
                    // All photos of one version are of one shot.
                    let own =
                        |who: u8, shot: u8| current.search(&prepared(who, shot).template, 1).expect("one space")[0].similarity > 0.999;
                    let shot = (0..16).find(|shot| own(0, *shot)).expect("one of the shots");
                    assert!((0..PEOPLE).all(|who| own(who, shot)), "version {} is torn", current.version());
                    asked += 1;
                }
            })
        })
        .collect();
    for shot in 1..16 {
        put_all(shot);
        // Two at once: the second finds nothing left to do, or the first.
        let (a, b) = tokio::join!(house.reload_as(false, false, ""), house.reload_as(false, false, ""));
        let changed = a.expect("a report").changed + b.expect("a report").changed;
        assert_eq!(changed, u32::from(PEOPLE));
    }
    done.store(true, Ordering::Release);
    for asker in askers {
        asker.await.expect("the asker saw no gap");
    }
}

#[tokio::test]
async fn somebody_of_the_folder_with_a_photo_added_by_rpc_can_leave_the_folder_and_come_back() {
    let house = House::new().await;
    house.put("anna/1.jpg", &photo(1, 1));
    house.put("bert/1.jpg", &photo(2, 1));
    let before = house.reload().await.version;
    house.add("anna", (1, 2), false).await;
    let with_both = house.register.gallery.current().version();
    fs::remove_dir_all(house.people().join("anna")).expect("removed");
    assert_eq!(house.reload().await.removed, 1);
    assert_eq!((found(&house.register, 1, 3), house.register.gallery.current().template_count()), (None, 1));
    assert!(before < with_both);
    let rollback = crate::enrol::Rollback { version: with_both, allow_mass_removal: false, dry_run: false };
    let request = Request::roll_back("", &rollback).expect("a good request");
    let back = house.register.roll_back(request, rollback).await.expect("gone back");
    assert_eq!((back.subjects_restored, back.samples_restored), (1, 2));
    assert_eq!(found(&house.register, 1, 3).as_deref(), Some("anna"));
}

#[tokio::test]
async fn photos_that_may_show_somebody_else_are_taken_and_named() {
    let house = House::new().await;
    house.enrol("rita", 5, 1).await;
    let doubts =
        |report: &ReloadReport| report.doubtful.iter().map(|file| (file.path.clone(), file.reason)).collect::<Vec<(String, &str)>>();
    for (path, who, shot) in [("anna/1.jpg", 1, 1), ("anna/2.jpg", 1, 2), ("bo/1.jpg", 2, 1), ("bo/2.jpg", 3, 1)] {
        house.put(path, &photo(who, shot));
    }
    // Somebody who is enrolled by RPC, and somebody of this very reload.
    house.put("rita-again/1.jpg", &photo(5, 2));
    house.put("zoe/1.jpg", &photo(1, 3));
    let expected = [
        ("anna/1.jpg", "POSSIBLE_DUPLICATE"),
        ("anna/2.jpg", "POSSIBLE_DUPLICATE"),
        ("bo/1.jpg", "INCONSISTENT_SAMPLE"),
        ("bo/2.jpg", "INCONSISTENT_SAMPLE"),
        ("rita-again/1.jpg", "POSSIBLE_DUPLICATE"),
        ("zoe/1.jpg", "POSSIBLE_DUPLICATE"),
    ];
    let expected = expected.map(|(path, reason)| (path.to_owned(), reason));
    let dry = house.reload_as(true, true, "").await.expect("a report");
    assert_eq!(doubts(&dry), expected);
    let report = house.reload_as(true, false, "once").await.expect("reloaded");
    assert_eq!((doubts(&report), report.added), (expected.to_vec(), 4), "all were taken");
    assert!(report.doubtful[5].message.contains("anna"), "{:?}", report.doubtful[5]);
    let again = house.reload_as(true, false, "once").await.expect("the first answer");
    assert_eq!((counts(&again), doubts(&again)), (counts(&report), vec![(String::new(), "MORE_FILES_DOUBTFUL")]));

    // One more photo beside one that fits and one that does not; a directory under a new name.
    house.put("bo/3.jpg", &photo(2, 2));
    fs::rename(house.people().join("zoe"), house.people().join("zoe-2")).expect("it is there");
    let report = house.reload().await;
    let named: Vec<_> = doubts(&report).into_iter().map(|(path, _)| path).collect();
    assert_eq!(named, ["zoe-2/1.jpg"], "anna still looks like her; zoe herself leaves");
    assert!(report.doubtful[0].message.contains("anna"), "{:?}", report.doubtful[0]);
}

#[test]
fn what_is_left_for_the_next_reload_is_told_however_much_is_refused() {
    let remark = |reason, path: usize| FileRemark { path: path.to_string(), reason, message: String::new() };
    let mut refused: Vec<FileRemark> = (0..2 * REMARKS_MAX).map(|path| remark("NOT_A_PHOTO", path)).collect();
    refused.push(remark("RELOAD_FULL", 9_999));
    let report = finished(ReloadReport { refused, ..ReloadReport::default() }, 7);
    assert_eq!((report.refused.len(), report.refused[0].reason), (REMARKS_MAX + 1, "RELOAD_FULL"));
    assert_eq!(report.refused[REMARKS_MAX].reason, "MORE_FILES_REFUSED");
}
