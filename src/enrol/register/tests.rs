//! Tests of changes against a real store: what is answered is on disk and matching, what is
//! refused leaves no trace.
//!
//! In: made-up prepared photos. Out: nothing. Must not know: models.

use std::time::Duration;

use super::*;
use crate::enrol::tests::{found, id, photo, prepared, register, space};
use crate::enrol::{NewSample, NewSubject, SampleInput};
use crate::face::{TemplateError, TemplateSpace};

fn fields(name: &str) -> SubjectFields {
    SubjectFields { display_name: Some(name.into()), ..SubjectFields::default() }
}

/// What an RPC would ask for, with its photo prepared.
fn creation(name: &str, samples: &[(u8, u8)], request_id: &str) -> (Request, Creation) {
    let images = samples.iter().map(|(who, shot)| SampleInput::Image(photo(*who, *shot).into())).collect();
    let new = NewSubject {
        id: Some(id(name)),
        fields: fields(name),
        samples: images,
        allowed: Allowed::default(),
        request_id: request_id.into(),
    };
    let request = Request::create_subject(&new).expect("a good request");
    let samples = samples.iter().map(|(who, shot)| prepared(*who, *shot)).collect();
    (request, Creation { id: new.id, fields: new.fields, samples, allowed: Allowed::default() })
}

async fn create(register: &Arc<Register>, name: &str, samples: &[(u8, u8)]) -> Result<Enrolled, EnrolError> {
    let (request, creation) = creation(name, samples, "");
    register.create(request, creation).await
}

fn addition(name: &str, (who, shot): (u8, u8), request_id: &str) -> (Request, Addition) {
    let sample = SampleInput::Image(photo(who, shot).into());
    let new = NewSample { subject: id(name), sample, negative: false, allowed: Allowed::default(), request_id: request_id.into() };
    let request = Request::create_sample(&new).expect("a good request");
    (request, Addition { subject: new.subject, sample: prepared(who, shot), negative: false, allowed: Allowed::default() })
}

async fn add(register: &Arc<Register>, name: &str, shot: (u8, u8)) -> Result<Enrolled, EnrolError> {
    let (request, addition) = addition(name, shot, "");
    register.add(request, addition).await
}

async fn delete(register: &Arc<Register>, name: &str, etag: &str) -> Result<Erased, EnrolError> {
    let request = Request::delete_subject("", &id(name), etag).expect("a good request");
    register.delete(request, id(name), etag.into()).await
}

async fn update(register: &Arc<Register>, name: &str, fields: SubjectFields, etag: &str) -> Result<(Subject, u32), EnrolError> {
    let update = SubjectUpdate { id: id(name), fields, etag: etag.into(), request_id: String::new() };
    let request = Request::update_subject(&update).expect("a good request");
    register.update(request, update).await
}

#[tokio::test]
async fn an_enrolled_subject_matches_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    let enrolled = create(&register, "anna", &[(1, 1), (1, 2)]).await.expect("enrolled");
    assert_eq!(found(&register, 1, 3).as_deref(), Some("anna"));
    assert_eq!(found(&register, 2, 1), None);
    assert_eq!(enrolled.version, register.gallery.current().version());
    assert!(enrolled.samples.iter().all(|sample| sample.similarity_to_rest.is_some_and(|similarity| similarity > 0.9)));
    assert_eq!(register.samples(&id("anna")).await.expect("samples"), enrolled.samples);
    drop(register);
    let (register, _) = self::register(folder.path()).await;
    assert_eq!(found(&register, 1, 3).as_deref(), Some("anna"));
    assert_eq!(register.gallery.current().version(), enrolled.version);
    assert_eq!(register.subject_with_count(&id("anna")).await.expect("anna"), (enrolled.subject.expect("a subject"), 2));
}

#[tokio::test]
async fn duplicates_are_refused_unless_allowed_and_store_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    create(&register, "anna", &[(1, 1)]).await.expect("enrolled");
    let refused = create(&register, "twin", &[(2, 1), (1, 2)]).await;
    let Err(EnrolError::OfSample { index: 1, error }) = refused else { panic!("the second is anna: {refused:?}") };
    assert!(matches!(*error, EnrolError::PossibleDuplicate { other, similarity } if other == id("anna") && similarity > 0.9));
    assert!(matches!(register.subject_with_count(&id("twin")).await, Err(EnrolError::SubjectUnknown(_))));
    assert!(matches!(create(&register, "anna", &[(3, 1)]).await, Err(EnrolError::SubjectExists(_))));
    assert_eq!((register.facts().await.expect("facts").templates, found(&register, 3, 1)), (1, None));
    let (request, creation) = creation("twin", &[(1, 2)], "");
    register.create(request, Creation { allowed: Allowed { duplicate: true, inconsistent: true }, ..creation }).await.expect("allowed");
    // The subject's own photos are no duplicates of it, though another is as close.
    create(&register, "bo", &[(2, 1)]).await.expect("enrolled");
    add(&register, "bo", (2, 2)).await.expect("their own photo");
    assert!(matches!(add(&register, "bo", (1, 3)).await, Err(EnrolError::PossibleDuplicate { .. })));
}

#[tokio::test]
async fn an_erased_subject_is_nowhere_and_its_id_is_free_again() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    let first = create(&register, "anna", &[(1, 1), (1, 2)]).await.expect("enrolled").subject.expect("a subject");
    let receipt = delete(&register, "anna", "").await.expect("erased");
    assert_eq!((receipt.uid, receipt.committed.templates_erased, receipt.committed.samples_erased), (first.uid, 2, 2));
    assert_eq!((found(&register, 1, 1), register.gallery.subject(first.uid)), (None, None));
    assert!(matches!(delete(&register, "anna", "").await, Err(EnrolError::SubjectUnknown(_))));
    let again = create(&register, "anna", &[(1, 1)]).await.expect("asked for").subject.expect("a subject");
    assert_ne!(again.uid, first.uid);
}

#[tokio::test]
async fn a_stale_etag_changes_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, clock) = self::register(folder.path()).await;
    let before = create(&register, "anna", &[(1, 1)]).await.expect("enrolled").subject.expect("a subject");
    clock.advance(Duration::from_secs(1));
    let lists = SubjectFields { watchlists: Some(vec!["staff".into()]), ..SubjectFields::default() };
    let (after, samples) = update(&register, "anna", lists, &before.etag()).await.expect("current");
    assert_eq!((after.display_name.as_str(), after.watchlists.as_slice(), samples), ("anna", &["staff".to_owned()][..], 1));
    assert!(after.update_time > before.update_time && after.create_time == before.create_time);
    let stale = before.etag();
    for refused in [update(&register, "anna", fields("x"), &stale).await.err(), delete(&register, "anna", &stale).await.err()] {
        assert!(matches!(refused, Some(EnrolError::StaleEtag { current }) if current == after.etag()));
    }
    assert_eq!(register.gallery.subject(after.uid).map(|subject| subject.as_ref().clone()), Some(after.clone()));
    // A new sample is a change too.
    add(&register, "anna", (1, 2)).await.expect("added");
    assert!(matches!(delete(&register, "anna", &after.etag()).await, Err(EnrolError::StaleEtag { .. })));
}

#[tokio::test]
async fn an_etag_is_of_one_person_and_not_of_whoever_has_the_id_next() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    let first = create(&register, "anna", &[(1, 1)]).await.expect("enrolled").subject.expect("a subject");
    delete(&register, "anna", &first.etag()).await.expect("erased");
    let second = create(&register, "anna", &[(2, 1)]).await.expect("enrolled").subject.expect("a subject");
    assert_eq!(first.revision, second.revision);
    assert!(matches!(delete(&register, "anna", &first.etag()).await, Err(EnrolError::StaleEtag { .. })));
    delete(&register, "anna", &second.etag()).await.expect("erased");
}

#[tokio::test]
async fn a_subject_expires_and_may_be_extended() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, clock) = self::register(folder.path()).await;
    let until = |seconds| {
        let at = Timestamp::from_micros(1_000_000).plus(Duration::from_secs(seconds));
        SubjectFields { expire_time: Some(Some(at)), ..SubjectFields::default() }
    };
    let (request, mut new) = creation("anna", &[(1, 1)], "");
    new.fields = until(0);
    assert!(matches!(register.create(request, new).await, Err(EnrolError::BadField { field: "expire_time", .. })));
    let (request, mut new) = creation("anna", &[(1, 1)], "");
    new.fields = until(10);
    register.create(request, new).await.expect("enrolled");
    assert_eq!(found(&register, 1, 1).as_deref(), Some("anna"));
    clock.advance(Duration::from_secs(10));
    assert_eq!(found(&register, 1, 1), None);
    let twice = create(&register, "anna-2", &[(1, 2)]).await;
    assert!(matches!(&twice, Err(EnrolError::PossibleDuplicate { other, .. }) if *other == id("anna")), "she may be extended: {twice:?}");
    update(&register, "anna", until(20), "").await.expect("extended");
    assert_eq!(found(&register, 1, 1).as_deref(), Some("anna"));
    update(&register, "anna", SubjectFields { expire_time: Some(None), ..SubjectFields::default() }, "").await.expect("for ever");
    clock.advance(Duration::from_secs(1_000_000));
    assert_eq!(found(&register, 1, 1).as_deref(), Some("anna"));
}

#[tokio::test]
async fn the_last_sample_stays_and_unknown_ones_are_named() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    let first = create(&register, "anna", &[(1, 1)]).await.expect("enrolled").samples[0].sample.id;
    let remove = async |sample| {
        let request = Request::delete_sample("", &id("anna"), sample).expect("a good request");
        register.remove(request, id("anna"), sample).await
    };
    assert!(matches!(remove(first).await, Err(EnrolError::NoSample)));
    assert!(matches!(remove(SampleId(Uuid::from_u128(7))).await, Err(EnrolError::SampleUnknown(_))));
    add(&register, "anna", (1, 2)).await.expect("added");
    assert_eq!(remove(first).await.expect("one is left"), register.gallery.current().version());
    assert_eq!((register.gallery.current().template_count(), register.samples(&id("anna")).await.expect("samples").len()), (1, 1));
}

#[tokio::test]
async fn a_repeated_request_returns_the_first_answer() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, clock) = self::register(folder.path()).await;
    let create = async |register: &Arc<Register>| {
        let (request, creation) = creation("anna", &[(1, 1), (1, 2)], "r1");
        register.create(request, creation).await.expect("enrolled")
    };
    let first = create(&register).await;
    clock.advance(Duration::from_secs(5));
    update(&register, "anna", fields("Anna"), "").await.expect("changed since");
    assert_eq!(create(&register).await, first);
    drop(register);
    let (register, _) = self::register(folder.path()).await;
    assert_eq!(create(&register).await, first, "after a restart too");
    let delete = async || {
        let request = Request::delete_subject("r2", &id("anna"), "").expect("a good request");
        register.delete(request, id("anna"), String::new()).await.expect("erased")
    };
    let (receipt, repeat) = (delete().await, delete().await);
    assert_eq!((receipt.uid, receipt.time, receipt.committed.version), (repeat.uid, repeat.time, repeat.committed.version));
    assert_eq!(receipt.committed.samples_erased, repeat.committed.samples_erased);
    assert_eq!(found(&register, 1, 1), None, "repeating the enrolment's answer enrols nobody");
}

#[tokio::test]
async fn a_request_id_stands_for_one_call_only() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    let (request, new) = creation("anna", &[(1, 1)], "r1");
    register.create(request, new).await.expect("enrolled");
    // Another name, another photo, another method.
    for (name, samples) in [("bo", [(1, 1)]), ("anna", [(2, 1)])] {
        let (request, new) = creation(name, &samples, "r1");
        assert!(matches!(register.create(request, new).await, Err(EnrolError::RequestReused)), "{name}");
    }
    let (request, new) = addition("anna", (1, 2), "r1");
    assert!(matches!(register.add(request, new).await, Err(EnrolError::RequestReused)));
    // A refusal is no answer: the call may be repeated when its reason has gone.
    let (request, new) = creation("twin", &[(1, 2)], "r3");
    assert!(matches!(register.create(request, new).await, Err(EnrolError::PossibleDuplicate { .. })));
    delete(&register, "anna", "").await.expect("erased");
    let (request, new) = creation("twin", &[(1, 2)], "r3");
    register.create(request, new).await.expect("enrolled");
    let too_long = Request::delete_subject(&"x".repeat(129), &id("anna"), "");
    assert!(matches!(too_long, Err(EnrolError::BadField { field: "request_id", .. })));
}

#[tokio::test]
async fn one_of_two_simultaneous_enrolments_of_a_person_is_refused() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    let (a, b) = tokio::join!(create(&register, "anna", &[(1, 1)]), create(&register, "ann", &[(1, 2)]));
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    let refused = a.err().or(b.err());
    assert!(matches!(refused, Some(EnrolError::PossibleDuplicate { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_template_of_another_space_enrols_nobody_and_is_never_compared() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, clock) = self::register(folder.path()).await;
    create(&register, "anna", &[(1, 1)]).await.expect("enrolled");
    let (request, mut new) = creation("bo", &[(2, 1)], "");
    new.samples[0].template = Template::normalised(TemplateSpace::new("other"), &[1.0; 32]).expect("it has a direction");
    let refused = register.create(request, Creation { allowed: Allowed { duplicate: true, inconsistent: true }, ..new }).await;
    assert!(matches!(refused, Err(EnrolError::Template(TemplateError::SpaceMismatch { .. }))));
    assert!(register.store.subject(&id("bo")).await.expect("a store").is_none());
    let store = register.store.clone();
    drop(register);
    // The next model: whom the old one enrolled is kept, counted, and compared with nobody.
    let gallery = Gallery::with_clock(TemplateSpace::new("next"), clock.clone());
    let register = Register::new(store, gallery, clock, crate::decide::Policy::fixed(0.5));
    register.fill().await.expect("filled");
    let facts = register.facts().await.expect("facts");
    assert_eq!((facts.templates, facts.foreign_templates), (0, 1));
    assert!(register.gallery.current().search(&prepared(1, 1).template, 1).is_err());
    assert_eq!(space().as_str(), "space");
}

/// Tells a test that a call may be polled again.
#[derive(Default)]
struct Bell(tokio::sync::Notify);

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_change_that_was_committed_matches_although_its_caller_has_gone() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    for steps in 0..8 {
        let (name, samples, bell) = (format!("s{steps}"), [(steps, 1)], Arc::new(Bell::default()));
        let mut call = Box::pin(create(&register, &name, &samples));
        // The caller goes after so many steps: one of them lies between disk and memory.
        for _ in 0..steps {
            let waker = Arc::clone(&bell).into();
            if call.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_ready() {
                break;
            }
            bell.0.notified().await;
        }
        drop(call);
    }
    // This one takes its turn after all of those that began.
    create(&register, "last", &[(15, 1)]).await.expect("enrolled");
    let stored = register.store.read_templates(|rows| rows.filter(Result::is_ok).count() as u64).await.expect("templates");
    assert_eq!(register.gallery.current().template_count(), stored, "disk and memory say the same");
}

#[tokio::test]
async fn a_photo_of_somebody_else_is_told_and_taken_only_when_that_is_allowed() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    // Two people's photos under one name, at once and one after the other.
    let mixed = create(&register, "anna", &[(1, 1), (2, 1)]).await;
    let Err(EnrolError::OfSample { index: 0, error }) = mixed else { panic!("the first does not fit the other: {mixed:?}") };
    assert!(matches!(*error, EnrolError::Inconsistent { similarity } if similarity < 0.5), "{error:?}");
    create(&register, "anna", &[(1, 1), (1, 2)]).await.expect("enrolled");
    let other = add(&register, "anna", (3, 1)).await;
    assert!(matches!(other, Err(EnrolError::Inconsistent { .. })), "{other:?}");
    assert_eq!(register.samples(&id("anna")).await.expect("samples").len(), 2, "nothing was stored");
    let (request, addition) = addition("anna", (3, 1), "");
    let allowed = Allowed { inconsistent: true, ..Allowed::default() };
    register.add(request, Addition { allowed, ..addition }).await.expect("allowed");
    add(&register, "anna", (3, 2)).await.expect("it looks like one of hers now");
}

/// Not a verdict: prints how long the start takes with a large gallery.
#[tokio::test]
#[ignore = "measures: cargo test --release --lib -- --ignored --nocapture a_million"]
async fn a_million_templates_are_loaded() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, clock) = self::register(folder.path()).await;
    let mut random = fastrand::Rng::with_seed(7);
    for block in 0..500 {
        let mut mutations = Vec::new();
        for person in 0..2_000 {
            let subject = new_subject(Some(id(&format!("p{block}-{person}"))), Origin::Rpc, clock.now()).expect("a subject");
            let values: Vec<f32> = (0..128).map(|_| random.f32() - 0.5).collect();
            let template = Template::normalised(space(), &values).expect("a direction");
            let sample = new_sample(&prepared(1, 1), subject.uid, clock.now());
            mutations.extend([Mutation::PutSubject(subject), Mutation::PutSample { sample, template, photo: Arc::from(*b"photo") }]);
        }
        let call = Call { method: "measure".into(), request_key: None };
        register.store.mutate(mutations, call, Box::new(|_| Vec::new())).await.expect("committed");
    }
    let store = register.store.clone();
    let again = Register::new(store, Gallery::with_clock(space(), clock.clone()), clock, crate::decide::Policy::fixed(0.5));
    let begin = std::time::Instant::now();
    again.fill().await.expect("filled");
    println!("{} templates of 128 numbers in {:?}", again.gallery.current().template_count(), begin.elapsed());
}
