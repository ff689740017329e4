//! Tests of imports against a real store: what is told is on disk and matching, nothing is looked at
//! twice, and nothing piles up.
//!
//! In: made-up photos. Out: nothing. Must not know: models.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::enrol::register::Creation;
use crate::enrol::request::Request;
use crate::enrol::tests::{counting_prepare, empty_photo, found, id, photo, prepared, register};
use crate::enrol::{NewSubject, SAMPLES_A_SUBJECT_MAX};
use crate::infer::InferError;
use crate::photo::PhotoError;
use crate::subject::{Sample, Subject};

struct House {
    directory: tempfile::TempDir,
    register: Arc<Register>,
    prepare: Prepare,
    looks: Arc<AtomicUsize>,
}

impl House {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (register, _) = register(directory.path()).await;
        let (prepare, looks) = counting_prepare();
        Self { directory, register, prepare, looks }
    }

    fn import(&self) -> Import {
        let (register, prepare) = (Arc::clone(&self.register), Arc::clone(&self.prepare));
        // Only what is full or the last is committed, however slow the machine is.
        Import { register, prepare, busy_wait: Duration::ZERO, group_wait: Duration::from_secs(3600) }
    }

    /// What became of each, in the order in which it was told, and how the import ended.
    async fn take(&self, items: Vec<ImportItem>) -> (Vec<ImportResult>, Result<(), EnrolError>) {
        let ((sender, received), (results, mut told)) = (mpsc::channel(1), mpsc::channel(1));
        let send = async move {
            for item in items {
                if sender.send(item).await.is_err() {
                    return;
                }
            }
        };
        let listen = async {
            let mut all = Vec::new();
            while let Some(results) = told.recv().await {
                all.extend(results);
            }
            all
        };
        let (ended, (), told) = tokio::join!(self.import().run(received, results), send, listen);
        (told, ended)
    }

    async fn taken(&self, items: Vec<ImportItem>) -> Vec<String> {
        let (told, ended) = self.take(items).await;
        ended.expect("an orderly end");
        told.iter().map(in_words).collect()
    }

    async fn samples(&self, name: &str) -> Vec<Sample> {
        self.register.samples(&id(name)).await.expect("enrolled").into_iter().map(|info| info.sample).collect()
    }

    fn looks(&self) -> usize {
        self.looks.swap(0, Ordering::SeqCst)
    }

    async fn delete(&self, name: &str) {
        delete(&self.register, name).await;
    }
}

async fn delete(register: &Arc<Register>, name: &str) {
    let request = Request::delete_subject("", &id(name), "").expect("a good request");
    register.delete(request, id(name), String::new()).await.expect("erased");
}

fn item(name: &str, photo: Vec<u8>) -> ImportItem {
    let fields = SubjectFields { display_name: Some(name.to_uppercase()), ..SubjectFields::default() };
    let key = format!("{name}: {}", String::from_utf8_lossy(&photo[..photo.len().min(20)]));
    ImportItem { key, subject: id(name), fields, photo: photo.into(), allowed: Allowed::default() }
}

fn of(name: &str, who: u8, shot: u8) -> ImportItem {
    item(name, photo(who, shot))
}

fn in_words(result: &ImportResult) -> String {
    let outcome = match &result.outcome {
        Ok(imported) => format!("{imported:?}"),
        Err(EnrolError::Photo(PhotoError::NoFace)) => "NoFace".to_owned(),
        Err(EnrolError::PossibleDuplicate { other, .. }) => format!("looks like {other}"),
        Err(EnrolError::PhotoOfAnother(other)) => format!("photo of {other}"),
        Err(EnrolError::Inconsistent { .. }) => "Inconsistent".to_owned(),
        Err(EnrolError::ErasedId(_)) => "id of somebody erased".to_owned(),
        Err(other) => format!("{other:?}"),
    };
    format!("{} {outcome}", result.key)
}

#[tokio::test]
async fn each_photo_is_taken_or_refused_on_its_own_and_matches_when_it_is_told() {
    let house = House::new().await;
    let mut late = of("late", 4, 1);
    late.fields.expire_time = Some(Some(crate::clock::Timestamp::from_micros(1)));
    let mut nameless = of("bo", 2, 1);
    nameless.fields.display_name = Some("x\n".into());
    let items = vec![of("anna", 1, 1), item("cy", empty_photo(1)), nameless, of("anna", 1, 2), late, of("bo", 2, 2)];
    let (told, ended) = house.take(items).await;
    ended.expect("an orderly end");
    let words: Vec<String> = told.iter().map(in_words).collect();
    assert_eq!(
        [&words[0], &words[1], &words[3], &words[5]],
        ["anna: photo 1 1 Added", "cy: nobody 1 NoFace", "anna: photo 1 2 Added", "bo: photo 2 2 Added"]
    );
    for (place, field) in [(2, "display_name"), (4, "expire_time")] {
        assert!(matches!(&told[place].outcome, Err(EnrolError::BadField { field: named, .. }) if *named == field), "{words:?}");
    }
    assert_eq!((found(&house.register, 1, 3), found(&house.register, 2, 3)), (Some("anna".into()), Some("bo".into())));
    assert_eq!((found(&house.register, 3, 1), found(&house.register, 4, 1)), (None, None));
    let (anna, samples): (Subject, u32) = house.register.subject_with_count(&id("anna")).await.expect("anna");
    assert_eq!((anna.display_name.as_str(), anna.origin, anna.revision, samples), ("ANNA", Origin::Rpc, 1, 2));
    assert_eq!(told[0].version, house.register.gallery.current().version(), "they shared a commit");
    let versions = house.register.versions_after(Some(0), 10).await.expect("versions");
    let causes: Vec<&str> = versions.iter().map(|version| version.cause.as_str()).collect();
    assert_eq!(causes, ["import_subjects"], "one version for all");
}

#[tokio::test]
async fn a_repeated_import_looks_at_nothing_and_changes_nothing() {
    let house = House::new().await;
    let items: Vec<_> = (0..200).map(|n: u8| of(&format!("s{}", n % 10), n % 10, n / 10)).collect();
    assert!(house.taken(items.clone()).await.iter().all(|told| told.ends_with("Added")));
    let (version, commits) =
        (house.register.gallery.current().version(), house.register.versions_after(Some(0), 100).await.expect("versions").len());
    assert_eq!((house.looks(), commits), (200, 4), "64 photos share a commit");
    let mut again = items;
    again.push(of("s3", 3, 30));
    let told = house.taken(again).await;
    assert_eq!(told.iter().filter(|told| told.ends_with("Unchanged")).count(), 200);
    assert_eq!((told[200].as_str(), house.looks()), ("s3: photo 3 30 Added", 1));
    assert!(house.register.gallery.current().version() > version);
    let (s3, samples) = house.register.subject_with_count(&id("s3")).await.expect("s3");
    assert_eq!((s3.revision, samples), (5, 21), "a change of the subject for each commit that had photos of it");
}

/// Killed at any moment: what was told is there and is not looked at again, and everything is in once.
#[tokio::test]
async fn an_import_that_was_cut_off_is_resumed_by_repeating_it() {
    let house = House::new().await;
    let items: Vec<_> = (0..160).map(|n: u8| of(&format!("s{}", n % 8), n % 8, n / 8)).collect();
    let ((sender, received), (results, mut told)) = (mpsc::channel(1), mpsc::channel(1));
    let import = tokio::spawn(house.import().run(received, results));
    let sending = items.clone();
    let sender = tokio::spawn(async move {
        for item in sending {
            let _ = sender.send(item).await;
        }
    });
    let first = told.recv().await.expect("a group");
    import.abort();
    sender.await.expect("it ends with the import");
    assert!(import.await.is_err_and(|ended| ended.is_cancelled()));
    assert_eq!(first.len(), group::PHOTOS_MAX);
    house.looks();

    // As after a restart: from the disk.
    let House { directory, register: before, prepare, looks } = house;
    drop(before);
    let house = House { register: register(directory.path()).await.0, directory, prepare, looks };
    let again = house.taken(items.clone()).await;
    for told in &first {
        assert!(again.contains(&format!("{} Unchanged", told.key)), "{} was told", told.key);
    }
    assert!(house.looks() <= items.len() - first.len());
    let mut contents = Vec::new();
    for name in 0..8 {
        contents.extend(house.samples(&format!("s{name}")).await.iter().map(|sample| sample.content_sha256));
    }
    contents.sort_unstable();
    contents.dedup();
    assert_eq!((contents.len(), house.register.gallery.current().template_count()), (160, 160));
}

#[tokio::test]
async fn photos_of_one_group_are_checked_against_each_other_and_against_the_gallery() {
    let house = House::new().await;
    let told = house.taken(vec![of("anna", 1, 1), of("twin", 1, 2), of("anna", 2, 1), of("bo", 1, 1), of("anna", 1, 1)]).await;
    let expected = [
        "anna: photo 1 1 Added",
        "twin: photo 1 2 looks like anna",
        "anna: photo 2 1 Inconsistent",
        "bo: photo 1 1 photo of anna",
        "anna: photo 1 1 Unchanged",
    ];
    assert_eq!(told, expected);
    let again = house.taken(vec![of("twin", 1, 3), of("anna", 2, 2), of("bo", 1, 1)]).await;
    assert_eq!(again, ["twin: photo 1 3 looks like anna", "anna: photo 2 2 Inconsistent", "bo: photo 1 1 photo of anna"]);
    assert!(matches!(house.register.subject_with_count(&id("twin")).await, Err(EnrolError::SubjectUnknown(_))));
    let allowed = Allowed { duplicate: true, inconsistent: true };
    let allow = |item: ImportItem| ImportItem { allowed, ..item };
    let told = house.taken(vec![allow(of("twin", 1, 2)), allow(of("anna", 2, 1)), allow(of("bo", 1, 1))]).await;
    assert_eq!(told, ["twin: photo 1 2 Added", "anna: photo 2 1 Added", "bo: photo 1 1 photo of anna"]);
}

#[tokio::test]
async fn who_looks_like_somebody_who_has_expired_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (register, clock) = register(directory.path()).await;
    let (prepare, looks) = counting_prepare();
    let house = House { directory, register, prepare, looks };
    let expire_time = Some(Some(crate::clock::Timestamp::from_micros(2_000_000)));
    let anna = of("anna", 1, 1);
    let fields = SubjectFields { expire_time, ..anna.fields.clone() };
    assert_eq!(house.taken(vec![ImportItem { fields, ..anna }]).await, ["anna: photo 1 1 Added"]);
    clock.advance(Duration::from_secs(2));
    assert_eq!(found(&house.register, 1, 1), None);
    assert_eq!(house.taken(vec![of("anna-2", 1, 2)]).await, ["anna-2: photo 1 2 looks like anna"]);
}

#[tokio::test]
async fn no_import_brings_an_erased_person_back() {
    let house = House::new().await;
    house.taken(vec![of("anna", 1, 1), of("bo", 2, 1)]).await;
    house.delete("anna").await;
    let told = house.taken(vec![of("anna", 1, 1), of("other", 1, 1)]).await;
    assert!(told.iter().all(|told| told.ends_with("ErasedPerson")), "{told:?}");
    // Erased while the import has the photo in its hands, under another name as well.
    house.looks();
    let (register, inner, erased) = (Arc::clone(&house.register), Arc::clone(&house.prepare), Arc::new(AtomicBool::new(false)));
    let erasing: Prepare = Arc::new(move |bytes| {
        let (register, look, erased) = (Arc::clone(&register), inner(bytes), Arc::clone(&erased));
        Box::pin(async move {
            if !erased.swap(true, Ordering::SeqCst) {
                let request = Request::create_subject(&NewSubject::default()).expect("a good request");
                let samples = vec![prepared(3, 1)];
                let creation = Creation { id: Some(id("cy")), fields: SubjectFields::default(), samples, allowed: Allowed::default() };
                register.create(request, creation).await.expect("enrolled");
                delete(&register, "cy").await;
            }
            look.await
        })
    });
    let house = House { prepare: erasing, ..house };
    assert_eq!(
        house.taken(vec![of("cy", 3, 1), of("cy", 3, 2)]).await,
        ["cy: photo 3 1 ErasedPerson", "cy: photo 3 2 id of somebody erased"]
    );
    assert_eq!((found(&house.register, 1, 2), found(&house.register, 3, 1), house.looks()), (None, None, 2));
}

#[tokio::test]
async fn no_import_brings_an_erased_person_back_by_a_photo_that_was_never_theirs() {
    let house = House::new().await;
    house.taken(vec![of("anna", 1, 1), of("bo", 2, 1)]).await;
    house.delete("anna").await;
    let again = || vec![of("anna", 1, 1), of("anna", 1, 2), of("bo", 2, 2)];
    let refused = ["anna: photo 1 1 ErasedPerson", "anna: photo 1 2 id of somebody erased", "bo: photo 2 2 Added"];
    assert_eq!(house.taken(again()).await, refused);
    assert_eq!((found(&house.register, 1, 2), house.looks()), (None, 3), "of her nothing was looked at");
    // She never had a directory, so a reload that finds none says nothing of the import.
    let all = house.register.store.erased_ids().await.expect("ids");
    house.register.store.free_erased_ids(all.into_iter().collect()).await.expect("freed");
    assert_eq!(house.taken(again()).await[1], refused[1]);
    // On purpose.
    let request = Request::create_subject(&NewSubject::default()).expect("a good request");
    let samples = vec![prepared(1, 3)];
    let creation = Creation { id: Some(id("anna")), fields: SubjectFields::default(), samples, allowed: Allowed::default() };
    house.register.create(request, creation).await.expect("enrolled");
    assert_eq!(house.taken(again()).await[1], "anna: photo 1 2 Added");
}

#[tokio::test]
async fn who_came_from_the_folder_is_not_touched_and_a_hundred_photos_are_enough() {
    let house = House::new().await;
    let subject = crate::enrol::register::new_subject(Some(id("anna")), Origin::Folder, house.register.clock.now()).expect("a subject");
    let sample = crate::enrol::register::new_sample(&prepared(1, 1), subject.uid, house.register.clock.now());
    let put = crate::mutation::Mutation::PutSample { sample, template: prepared(1, 1).template, photo: photo(1, 1).into() };
    let mutations = vec![crate::mutation::Mutation::PutSubject(subject), put];
    house.register.commit(Request::import_subjects(), mutations, |committed| committed.version).await.expect("committed");
    let told = house.taken(vec![of("anna", 1, 2), of("anna", 1, 1)]).await;
    assert!(told[0].contains("FromFolder") && told[1].ends_with("Unchanged"), "{told:?}");
    assert_eq!((house.looks(), house.samples("anna").await.len()), (0, 1));

    let told = house.taken((0..=SAMPLES_A_SUBJECT_MAX as u8).map(|shot| of("bo", 2, shot)).collect()).await;
    assert!(told[..SAMPLES_A_SUBJECT_MAX].iter().all(|told| told.ends_with("Added")));
    assert!(told[SAMPLES_A_SUBJECT_MAX].ends_with("TooManyPhotos(100)"), "{}", told[SAMPLES_A_SUBJECT_MAX]);
}

#[tokio::test]
async fn a_negative_sample_is_nobodys_own_photo() {
    let house = House::new().await;
    assert_eq!(house.taken(vec![of("anna", 1, 1), of("anna", 1, 2)]).await.len(), 2);
    let request = Request::import_subjects();
    let addition =
        crate::enrol::register::Addition { subject: id("anna"), sample: prepared(2, 1), negative: true, allowed: Allowed::default() };
    house.register.add(request, addition).await.expect("bo must never be taken for anna");
    let told = house.taken(vec![of("anna", 2, 1), of("bo", 2, 1)]).await;
    assert_eq!(told, ["anna: photo 2 1 Inconsistent", "bo: photo 2 1 Added"]);
    assert_eq!(found(&house.register, 2, 3).as_deref(), Some("bo"));
}

/// How many photos an import receives while it can do nothing with them.
async fn received_by(import: Import, item: impl Fn(u8) -> ImportItem) -> usize {
    let ((sender, received), (results, _told)) = (mpsc::channel(1), mpsc::channel(1));
    let import = tokio::spawn(import.run(received, results));
    let mut sent = 0;
    // The clock is the runtime's own and runs only when nothing else can be done.
    while tokio::time::timeout(Duration::from_secs(60), sender.send(item(sent))).await.is_ok() {
        sent += 1;
    }
    import.abort();
    // One waits in the channel.
    usize::from(sent) - 1
}

#[tokio::test(start_paused = true)]
async fn no_more_is_received_while_inference_or_the_client_is_slow() {
    let house = House::new().await;
    let stuck: Prepare = Arc::new(|_| Box::pin(std::future::pending()));
    let import = Import { prepare: Arc::clone(&stuck), ..house.import() };
    assert_eq!(received_by(import, |shot| of("anna", 1, shot)).await, UNDER_WAY_MAX);
    let import = Import { prepare: stuck, ..house.import() };
    let large = |shot| item("anna", vec![shot; 9 << 20]);
    assert_eq!(received_by(import, large).await, 4, "32 MiB and one photo");

    // Nobody takes the results: two lists are told (one waits in the channel, one to get into it).
    let received = received_by(house.import(), |shot| of(&format!("s{}", shot % 16), shot % 16, shot / 16)).await;
    assert!(received <= 2 * group::PHOTOS_MAX + UNDER_WAY_MAX, "{received}");
}

#[tokio::test]
async fn a_photo_is_told_soon_although_no_other_comes() {
    let house = House::new().await;
    let ((sender, received), (results, mut told)) = (mpsc::channel(1), mpsc::channel(1));
    let import = tokio::spawn(Import { group_wait: Duration::from_millis(1), ..house.import() }.run(received, results));
    for shot in [1, 2] {
        sender.send(of("anna", 1, shot)).await.expect("it takes photos");
        assert_eq!(told.recv().await.expect("it goes on").len(), 1);
    }
    drop(sender);
    import.await.expect("no panic").expect("an orderly end");
}

#[tokio::test]
async fn an_import_waits_while_inference_is_busy_and_ends_when_it_has_failed_with_what_was_told() {
    let house = House::new().await;
    let (calls, inner) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&house.prepare));
    let busy: Prepare = Arc::new(move |bytes| {
        let (call, look) = (calls.fetch_add(1, Ordering::SeqCst), inner(bytes));
        Box::pin(async move {
            match call {
                0..20 => Err(PhotoError::Infer(InferError::Busy).into()),
                20..84 => look.await,
                _ => Err(PhotoError::Infer(InferError::Stopped).into()),
            }
        })
    });
    let house = House { prepare: busy, ..house };
    let (told, ended) = house.take((0..80).map(|n: u8| of(&format!("s{}", n % 4), n % 4, n / 4)).collect()).await;
    assert!(matches!(ended, Err(EnrolError::Photo(PhotoError::Infer(InferError::Stopped)))), "{ended:?}");
    assert_eq!(told.len(), house.register.gallery.current().template_count() as usize);
    assert!(told.iter().all(|told| matches!(told.outcome, Ok(Imported::Added))));
}
