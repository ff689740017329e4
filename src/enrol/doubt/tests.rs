//! Tests of negative samples against a real store: whom they keep out, and when they go.
//!
//! In: made-up prepared photos. Out: nothing. Must not know: models.

use std::sync::Arc;

use crate::enrol::register::{Addition, Creation, Register};
use crate::enrol::request::Request;
use crate::enrol::tests::{id, prepared, register, space};
use crate::enrol::{Allowed, EnrolError, Enrolled, NewSample, NewSubject, Rollback, SampleInput, SubjectFields};
use crate::face::Template;
use crate::subject::SampleId;

const ANY: Allowed = Allowed { duplicate: true, inconsistent: true };

async fn create(register: &Arc<Register>, name: &str, photos: &[(u8, u8)]) {
    let request = Request::create_subject(&NewSubject { id: Some(id(name)), ..NewSubject::default() }).expect("a good request");
    let samples = photos.iter().map(|(who, shot)| prepared(*who, *shot)).collect();
    let creation = Creation { id: Some(id(name)), fields: SubjectFields::default(), samples, allowed: ANY };
    register.create(request, creation).await.expect("enrolled");
}

async fn add_negative(register: &Arc<Register>, name: &str, (who, shot): (u8, u8), allowed: Allowed) -> Result<Enrolled, EnrolError> {
    let sample = prepared(who, shot);
    let new = NewSample {
        subject: id(name),
        sample: SampleInput::Image(Arc::clone(&sample.photo)),
        negative: true,
        allowed,
        request_id: String::new(),
    };
    let request = Request::create_sample(&new).expect("a good request");
    register.add(request, Addition { subject: id(name), sample, negative: true, allowed }).await
}

/// Somebody between two people: closer to the first.
fn between(nearer: u8, further: u8) -> Template {
    let mut values = [0.0_f32; 32];
    values[usize::from(nearer)] = 1.0;
    values[usize::from(further)] = 0.9;
    Template::normalised(space(), &values).expect("a direction")
}

/// Who a face between the two is taken for.
fn taken_for(register: &Register, nearer: u8, further: u8) -> Option<String> {
    let best = register.gallery.current().search(&between(nearer, further), 1).expect("one space");
    best.first().filter(|best| best.similarity > 0.5).and_then(|best| Some(register.gallery.subject(best.subject)?.id.to_string()))
}

#[tokio::test]
async fn a_negative_sample_keeps_its_person_from_being_taken_for_the_subject_for_ever() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, clock) = self::register(folder.path()).await;
    create(&register, "anna", &[(1, 1), (1, 2)]).await;
    assert_eq!(taken_for(&register, 2, 1).as_deref(), Some("anna"), "the twin is taken for her");
    let before = register.gallery.current().version();
    let added = add_negative(&register, "anna", (2, 1), Allowed::default()).await.expect("added");
    assert!(added.samples[0].sample.negative);
    assert_eq!(taken_for(&register, 2, 1), None);
    assert_eq!(taken_for(&register, 1, 2).as_deref(), Some("anna"), "she herself still is");
    assert_eq!(register.subject_with_count(&id("anna")).await.expect("known").1, 2, "it is no sample that she is known by");

    let store = register.store.clone();
    let again = Register::new(store, crate::gallery::Gallery::with_clock(space(), clock.clone()), clock, crate::decide::Policy::fixed(0.5));
    again.fill().await.expect("filled");
    assert_eq!(taken_for(&again, 2, 1), None, "a restart keeps it");

    let rollback = |version| Rollback { version, allow_mass_removal: true, dry_run: false };
    let request = || Request::roll_back("", &rollback(before)).expect("a good request");
    let version = register.gallery.current().version();
    register.roll_back(request(), rollback(before)).await.expect("gone back");
    assert_eq!(taken_for(&register, 2, 1).as_deref(), Some("anna"), "going back takes it out");
    register.roll_back(request(), rollback(version)).await.expect("gone back");
    assert_eq!(taken_for(&register, 2, 1), None, "and brings it back");
}

#[tokio::test]
async fn a_negative_sample_that_shows_the_subject_is_refused_unless_that_is_allowed() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    create(&register, "anna", &[(1, 1), (1, 2)]).await;
    for own in [(1, 1), (1, 3)] {
        let refused = add_negative(&register, "anna", own, Allowed::default()).await;
        assert!(matches!(refused, Err(EnrolError::NegativeShowsSubject { similarity }) if similarity > 0.9), "{own:?}: {refused:?}");
    }
    add_negative(&register, "anna", (1, 3), ANY).await.expect("the operator knows better");
    let samples = register.samples(&id("anna")).await.expect("samples");
    assert_eq!(samples.iter().map(|info| info.sample.negative).collect::<Vec<_>>(), [false, false, true]);
}

#[tokio::test]
async fn a_photo_that_is_closer_to_a_negative_sample_does_not_fit_its_subject() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    create(&register, "anna", &[(1, 1)]).await;
    add_negative(&register, "anna", (2, 1), Allowed::default()).await.expect("added");
    let known = super::Known::of(
        register.store.samples(register.store.subject(&id("anna")).await.expect("read").expect("there").uid).await.expect("read"),
    );
    let twin = known.check_own(0.5, &between(2, 1));
    assert!(matches!(twin, Err(EnrolError::Inconsistent { similarity }) if similarity > 0.5), "{twin:?}");
}

#[tokio::test]
async fn the_last_photo_that_shows_the_subject_stays() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    create(&register, "anna", &[(1, 1)]).await;
    add_negative(&register, "anna", (2, 1), Allowed::default()).await.expect("added");
    let samples = register.samples(&id("anna")).await.expect("samples");
    let remove = async |sample: SampleId| {
        let request = Request::delete_sample("", &id("anna"), sample).expect("a good request");
        register.remove(request, id("anna"), sample).await
    };
    assert!(matches!(remove(samples[0].sample.id).await, Err(EnrolError::NoSample)));
    remove(samples[1].sample.id).await.expect("the negative one goes");
    assert_eq!(taken_for(&register, 2, 1).as_deref(), Some("anna"));
}

#[tokio::test]
async fn who_is_erased_is_erased_as_a_negative_sample_too_and_the_subjects_folder_is_not_blocked_by_it() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    create(&register, "anna", &[(1, 1)]).await;
    create(&register, "zoe", &[(2, 1)]).await;
    add_negative(&register, "anna", (2, 1), Allowed::default()).await.expect("added");
    add_negative(&register, "anna", (3, 1), Allowed::default()).await.expect("added");
    let delete = async |name: &str| {
        let request = Request::delete_subject("", &id(name), "").expect("a good request");
        register.delete(request, id(name), String::new()).await.expect("erased").committed
    };
    let erased = delete("zoe").await;
    assert_eq!((erased.samples_erased, erased.templates_erased), (2, 2), "hers, and the one that was to tell anna from her");
    assert_eq!(register.samples(&id("anna")).await.expect("samples").len(), 2);
    delete("anna").await;
    let is_blocked = async |who| register.store.is_erased_content(prepared(who, 1).content_sha256).await.expect("read");
    assert!(is_blocked(1).await && is_blocked(2).await);
    assert!(!is_blocked(3).await, "whom anna was not has not been erased");
}
