//! An exported gallery comes back as it was, and nobody comes back who must not.
//!
//! In: made-up people, registers over directories that are thrown away. Out: verdicts.
//! Must not know: models.

use std::path::Path;

use super::*;
use crate::enrol::tests::{register, space};
use crate::face::{Template, TemplateSpace};
use crate::portable::tests::{file_of, opened, person};
use crate::store::{Export, export};
use crate::subject::{Subject, SubjectUid};

const SPACE: &str = "space";

/// Imports `bytes`; answers the report and what was refused.
async fn imported(register: &Arc<Register>, bytes: &[u8], import: ImportOptions) -> Result<(ImportReport, Vec<RefusedImport>), EnrolError> {
    let (tell, mut steps) = mpsc::channel(1);
    let listen = async {
        let mut refused = Vec::new();
        while let Some(step) = steps.recv().await {
            if let ImportStep::Refused(one) = step {
                refused.push(one);
            }
        }
        refused
    };
    let (report, refused) = tokio::join!(import_into(register, opened(bytes), (import, tell)), listen);
    report.map(|report| (report, refused))
}

fn people(seed: u64, ids: &[&str]) -> Vec<Person> {
    let mut random = fastrand::Rng::with_seed(seed);
    ids.iter().map(|id| person(&mut random, (id, 3, SPACE))).collect()
}

fn reasons(refused: &[RefusedImport]) -> Vec<(&str, bool, &str)> {
    refused.iter().map(|one| (one.subject.as_str(), one.sample.is_some(), one.reason)).collect()
}

async fn here(register: &Register) -> Vec<String> {
    register.store.subjects().await.expect("subjects").iter().map(|subject| subject.id.to_string()).collect()
}

fn erase(register: &Arc<Register>, subject: &Subject) -> impl Future<Output = ()> {
    let (register, id) = (Arc::clone(register), subject.id.clone());
    async move {
        let request = Request::delete_subject("", &id, "").expect("a request");
        register.delete(request, id, String::new()).await.expect("erased");
    }
}

fn probes() -> Vec<Template> {
    let mut random = fastrand::Rng::with_seed(77);
    let probe = |_| Template::normalised(space(), &std::iter::repeat_with(|| random.f32() - 0.5).take(32).collect::<Vec<_>>());
    (0..20).map(probe).collect::<Result<_, _>>().expect("they have directions")
}

fn answers(register: &Register) -> Vec<Vec<(SubjectUid, u32)>> {
    let current = register.gallery.current();
    let found = |probe: &Template| current.search(probe, 5).expect("one space");
    let bits = |found: Vec<crate::event::Candidate>| found.into_iter().map(|one| (one.subject, one.similarity.to_bits())).collect();
    probes().iter().map(|probe| bits(found(probe))).collect()
}

fn export_of(data_dir: &Path) -> Vec<u8> {
    let file = data_dir.join("people.tar");
    export(data_dir, Export { file: &file, photos: true, progress: &mut |_, _| (), is_stopped: &|| false }).expect("exported");
    std::fs::read(file).expect("read")
}

#[tokio::test]
async fn a_gallery_that_went_through_a_file_gives_the_same_answers_to_the_bit() {
    let (first_dir, second_dir) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (first, _) = register(first_dir.path()).await;
    let everybody = people(41, &["anna", "bert", "cleo", "dora", "emil", "fred"]);
    imported(&first, &file_of(&everybody), ImportOptions::default()).await.expect("imported");
    let bytes = export_of(first_dir.path());
    let (second, _) = register(second_dir.path()).await;
    let (report, refused) = imported(&second, &bytes, ImportOptions::default()).await.expect("imported");
    assert_eq!((report.subjects_imported, report.samples_imported, refused), (6, 18, Vec::new()));
    assert_eq!(report.version, second.gallery.current().version());
    assert_eq!(answers(&second), answers(&first));
    drop(second);
    let (again, _) = register(second_dir.path()).await;
    assert_eq!(answers(&again), answers(&first), "after a restart too");
    for person in &everybody {
        let uid = person.subject.uid;
        assert_eq!(again.store.samples(uid).await, first.store.samples(uid).await);
        assert_eq!(again.store.subject(&person.subject.id).await, Ok(Some(person.subject.clone())));
    }
    // All that a file holds came through, photos too: it is the same file but for the time and the version.
    let people_in = |bytes: &[u8]| {
        let mut people = Vec::new();
        let portable = Portable::open(opened(bytes)).expect("whole");
        let outcome = portable.each_person(|person| {
            people.push(person);
            Ok::<_, PortableError>(())
        });
        outcome.map(|()| people)
    };
    assert_eq!(people_in(&export_of(second_dir.path())), people_in(&bytes));
}

#[tokio::test]
async fn a_file_that_is_not_whole_leaves_the_gallery_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let (register, _) = register(directory.path()).await;
    imported(&register, &file_of(&people(42, &["here"])), ImportOptions::default()).await.expect("imported");
    let (version, before) = (register.store.gallery_version().await, answers(&register));
    let file = file_of(&people(43, &["anna", "bert"]));
    let mut altered = file.clone();
    let last_photo = file.len() - 3_000;
    altered[last_photo] ^= 1;
    for (what, bytes) in [("cut", &file[..file.len() / 2]), ("altered", &altered[..]), ("empty", &[]), ("text", b"anna, bert")] {
        let outcome = imported(&register, bytes, ImportOptions::default()).await;
        assert!(matches!(outcome, Err(EnrolError::Portable(_))), "{what}: {outcome:?}");
    }
    assert_eq!((register.store.gallery_version().await, answers(&register)), (version, before));
    assert_eq!(here(&register).await, ["here"]);
    let left: Vec<_> = directory.path().read_dir().expect("listed").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("scratch")), "{left:?}");
}

#[tokio::test]
async fn who_is_there_stays_and_an_import_that_ended_early_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let (register, _) = register(directory.path()).await;
    let everybody = people(44, &["anna", "bert", "cleo"]);
    // As an import that was killed after anna leaves it; and somebody else is called bert here.
    imported(&register, &file_of(&everybody[..1]), ImportOptions::default()).await.expect("imported");
    imported(&register, &file_of(&people(45, &["bert"])), ImportOptions::default()).await.expect("imported");
    let version = register.gallery.current().version();
    let (dry, _) = imported(&register, &file_of(&everybody), ImportOptions { dry_run: true, allow_duplicate: false }).await.expect("tried");
    assert_eq!((dry.version, dry.subjects_imported, here(&register).await), (version, 1, vec!["anna".to_owned(), "bert".to_owned()]));
    let (report, refused) = imported(&register, &file_of(&everybody), ImportOptions::default()).await.expect("imported");
    assert_eq!((report.subjects_present, report.subjects_imported, report.subjects_refused), (1, 1, 1));
    assert_eq!(reasons(&refused), [("bert", false, "SUBJECT_EXISTS")]);
    assert_eq!(here(&register).await, ["anna", "bert", "cleo"]);
    let (report, _) = imported(&register, &file_of(&everybody), ImportOptions::default()).await.expect("imported");
    assert_eq!((report.subjects_present, report.subjects_imported, report.version), (2, 0, version + 4));
}

#[tokio::test]
async fn who_was_erased_here_comes_back_neither_by_name_nor_by_photo() {
    let directory = tempfile::tempdir().expect("a directory");
    let (register, _) = register(directory.path()).await;
    let mut everybody = people(46, &["anna", "bert"]);
    imported(&register, &file_of(&everybody), ImportOptions::default()).await.expect("imported");
    erase(&register, &everybody[0].subject).await;
    erase(&register, &everybody[1].subject).await;
    let (report, refused) = imported(&register, &file_of(&everybody), ImportOptions::default()).await.expect("read");
    assert_eq!(reasons(&refused), [("anna", false, "ERASED_PERSON"), ("bert", false, "ERASED_PERSON")]);
    assert_eq!((report.subjects_imported, here(&register).await.len()), (0, 0));
    // Enrolled elsewhere, by other photos.
    let (_, refused) = imported(&register, &file_of(&people(45, &["anna"])), ImportOptions::default()).await.expect("read");
    assert_eq!((reasons(&refused), here(&register).await.len()), (vec![("anna", false, "ERASED_PERSON")], 0));
    // The same photos under other names: anna's all, one of bert's beside two that are new.
    let mut others = people(47, &["x-anna", "x-bert"]);
    for (other, erased) in others.iter_mut().zip(&mut everybody) {
        let kept = if other.subject.id.as_str() == "x-anna" { 3 } else { 1 };
        for (sample, known) in other.samples.iter_mut().zip(&erased.samples).take(kept) {
            sample.sample.content_sha256 = known.sample.content_sha256;
            sample.photo = known.photo.clone();
        }
    }
    let (report, refused) = imported(&register, &file_of(&others), ImportOptions::default()).await.expect("imported");
    assert_eq!(reasons(&refused), [("x-anna", false, "ERASED_PERSON"), ("x-bert", true, "ERASED_PERSON")]);
    assert_eq!((report.subjects_imported, report.samples_imported, report.samples_refused), (1, 2, 1));
}

#[tokio::test]
async fn somebody_who_is_enrolled_under_another_name_is_refused_unless_allowed() {
    let directory = tempfile::tempdir().expect("a directory");
    let (register, _) = register(directory.path()).await;
    let mut twins = people(48, &["anna", "berta"]);
    let same = twins[0].samples[1].templates.clone();
    twins[1].samples[0].templates = same;
    imported(&register, &file_of(&twins[1..]), ImportOptions::default()).await.expect("imported");
    let (_, refused) = imported(&register, &file_of(&twins[..1]), ImportOptions::default()).await.expect("read");
    assert_eq!(reasons(&refused), [("anna", false, "POSSIBLE_DUPLICATE")]);
    assert!(refused[0].message.contains("berta"), "{refused:?}");
    let allowed = ImportOptions { allow_duplicate: true, dry_run: true };
    let (report, refused) = imported(&register, &file_of(&twins[..1]), allowed).await.expect("tried");
    assert_eq!((report.subjects_imported, refused.len()), (1, 0));
    // As after an import that ended between the twins: who is in the file is nobody to be mistaken for.
    let (report, refused) = imported(&register, &file_of(&twins), ImportOptions::default()).await.expect("imported");
    assert_eq!((report.subjects_imported, report.subjects_present, refused.len()), (1, 1, 0));
    // Many of the file who look the same do not hide the one who is not in it.
    let mut many = people(53, &["x-00"]);
    many[0].samples[0].templates = twins[1].samples[0].templates.clone();
    let crowd: Vec<Person> = (0..20)
        .map(|number| {
            let mut one = people(60 + number, &[&format!("x-{:02}", number + 1)]).remove(0);
            one.samples[0].templates = many[0].samples[0].templates.clone();
            one
        })
        .collect();
    imported(&register, &file_of(&crowd), ImportOptions { allow_duplicate: true, dry_run: false }).await.expect("imported");
    let everybody: Vec<Person> = many.into_iter().chain(crowd).collect();
    let (report, refused) = imported(&register, &file_of(&everybody), ImportOptions::default()).await.expect("read");
    assert_eq!((reasons(&refused), report.subjects_present), (vec![("x-00", false, "POSSIBLE_DUPLICATE")], 20));
    assert!(refused[0].message.contains("anna") || refused[0].message.contains("berta"), "{refused:?}");
    // Twins of one file were allowed when they were enrolled.
    let other = tempfile::tempdir().expect("a directory");
    let (fresh, _) = crate::enrol::tests::register(other.path()).await;
    assert_eq!(imported(&fresh, &file_of(&twins), ImportOptions::default()).await.expect("imported").0.subjects_imported, 2);
}

#[tokio::test]
async fn a_face_that_somebody_must_not_be_taken_for_is_no_duplicate_and_no_photo_of_theirs() {
    let directory = tempfile::tempdir().expect("a directory");
    let (register, _) = register(directory.path()).await;
    let mut twins = people(54, &["anna", "berta"]);
    let annas = twins[0].samples[1].templates.clone();
    // The last of the three is the negative one.
    twins[1].samples[2].templates = annas.clone();
    imported(&register, &file_of(&twins[..1]), ImportOptions::default()).await.expect("imported");
    let (report, refused) = imported(&register, &file_of(&twins[1..]), ImportOptions::default()).await.expect("imported");
    assert_eq!((report.subjects_imported, report.samples_imported, refused.len()), (1, 3, 0));
    let best = register.gallery.current().search(&annas[0], 2).expect("one space");
    assert_eq!(best.iter().map(|one| one.subject).collect::<Vec<_>>(), [twins[0].subject.uid], "berta must never be taken for her");
    let mut nobody = people(55, &["cleo"]);
    nobody[0].samples.drain(..2);
    let (_, refused) = imported(&register, &file_of(&nobody), ImportOptions::default()).await.expect("read");
    assert_eq!(reasons(&refused), [("cleo", false, "NO_SAMPLE")]);
}

#[tokio::test]
async fn templates_of_another_encoder_are_kept_counted_and_match_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (register, _) = register(directory.path()).await;
    let foreigner = person(&mut fastrand::Rng::with_seed(49), ("anna", 2, "another-encoder"));
    let (report, refused) = imported(&register, &file_of(&[foreigner]), ImportOptions::default()).await.expect("imported");
    assert_eq!((report.subjects_imported, report.foreign_templates, refused.len()), (1, 2, 0));
    assert!(answers(&register).iter().all(Vec::is_empty));
    assert_eq!(register.store.foreign_templates(&space()).await, Ok(2));
}

#[tokio::test]
async fn templates_of_every_space_go_through_a_file_and_the_one_in_force_matches() {
    let (first_dir, second_dir) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (first, _) = register(first_dir.path()).await;
    let mut anna = people(52, &["anna"]);
    let newer = Template::normalised(TemplateSpace::new("newer"), &[0.1; 48]).expect("it has a direction");
    anna[0].samples[1].templates.insert(0, newer);
    // Somebody without photos goes through, too.
    anna[0].samples[2].photo = None;
    let (report, _) = imported(&first, &file_of(&anna), ImportOptions::default()).await.expect("imported");
    assert_eq!((report.samples_imported, report.foreign_templates, first.gallery.foreign_template_count()), (3, 0, 0));
    assert_eq!(first.gallery.current().template_count(), 2, "the negative one is no template to match");
    let (second, _) = register(second_dir.path()).await;
    imported(&second, &export_of(first_dir.path()), ImportOptions::default()).await.expect("imported");
    assert_eq!(answers(&second), answers(&first));
    for register in [first, second] {
        assert_eq!(register.store.count_lacking(&TemplateSpace::new("newer")).await, Ok((2, 3)));
        let photos = register.store.samples_lacking(&TemplateSpace::new("newer"), 0, 9).await.expect("read");
        assert_eq!(register.store.photo(photos[1].number).await, Ok(None), "the last of the three has none");
    }
}

#[tokio::test]
async fn who_stands_twice_or_is_beyond_the_limits_is_refused_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let (register, _) = register(directory.path()).await;
    let mut everybody = people(50, &["anna", "bert", "cleo", "dora"]);
    let (uid, sample) = (everybody[0].subject.uid, everybody[0].samples[0].sample.id);
    everybody[1].samples[0].sample.id = sample;
    everybody[2].subject.uid = uid;
    everybody[2].samples.iter_mut().for_each(|sample| sample.sample.subject = uid);
    everybody[3].subject.display_name = "x".repeat(300);
    let (report, refused) = imported(&register, &file_of(&everybody), ImportOptions::default()).await.expect("imported");
    assert_eq!(reasons(&refused), [("dora", false, "BAD_FIELD"), ("bert", true, "SAMPLE_EXISTS"), ("cleo", false, "SUBJECT_EXISTS")]);
    assert_eq!((report.subjects_imported, report.samples_imported, here(&register).await.len()), (2, 5, 2));
}

#[tokio::test]
async fn an_import_beside_another_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (register, _) = register(directory.path()).await;
    let _reload = register.reload_turn.lock().await;
    let outcome = imported(&register, &file_of(&[]), ImportOptions::default()).await;
    assert!(matches!(outcome, Err(EnrolError::ImportBusy)), "{outcome:?}");
}
