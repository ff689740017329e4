//! Making templates for another encoder disturbs nobody, goes on where it ended, and forgets nobody.
//!
//! In: made-up photos, and an encoder that is another one in name and in numbers. Out: verdicts.
//! Must not know: models.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::{SimulatedClock, Timestamp};
use crate::decide::Policy;
use crate::enrol::register::Creation;
use crate::enrol::tests::{THRESHOLD, found, id, prepared, register};
use crate::enrol::{Allowed, NewSubject, Rollback, SubjectFields};
use crate::gallery::Gallery;
use crate::infer::InferError;
use crate::store::Store;

fn new_space() -> TemplateSpace {
    TemplateSpace::new("new space")
}

/// What the new encoder makes of a made-up photo: the numbers of the old one, backwards and turned around.
fn encoded_anew(photo: &[u8], space: TemplateSpace) -> Result<Template, PhotoError> {
    let text = String::from_utf8_lossy(photo).into_owned();
    let words: Vec<u8> = text.split(' ').skip(1).filter_map(|word| word.parse().ok()).collect();
    let [who, shot] = words[..] else { return Err(PhotoError::NoFace) };
    let values: Vec<f32> = prepared(who, shot).template.values().iter().rev().map(|value| -value).collect();
    Ok(Template::normalised(space, &values).expect("it has a direction"))
}

fn new_probe(who: u8, shot: u8) -> Template {
    encoded_anew(format!("photo {who} {shot}").as_bytes(), new_space()).expect("it shows somebody")
}

/// The new encoder, which counts its photos and has `before` done before each.
fn encoder(before: impl Fn(usize) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static) -> (Encode, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let encode: Encode = Box::new(move |photo| {
        let meanwhile = before(counter.fetch_add(1, Ordering::SeqCst));
        Box::pin(async move {
            meanwhile.await;
            encoded_anew(&photo, new_space())
        })
    });
    (encode, count)
}

fn undisturbed() -> (Encode, Arc<AtomicUsize>) {
    encoder(|_| Box::pin(async {}))
}

async fn enrol(register: &Arc<Register>, name: &str, (who, shots): (u8, &[u8])) {
    let request = Request::create_subject(&NewSubject { id: Some(id(name)), ..NewSubject::default() }).expect("a request");
    let samples = shots.iter().map(|shot| prepared(who, *shot)).collect();
    let allowed = Allowed { duplicate: true, inconsistent: true };
    let creation = Creation { id: Some(id(name)), fields: SubjectFields::default(), samples, allowed };
    register.create(request, creation).await.expect("enrolled");
}

/// Runs until `steps_max` steps were told, then nobody listens any more.
async fn reencode(
    register: &Arc<Register>,
    (space, encode): (TemplateSpace, &Encode),
    steps_max: usize,
) -> (Result<ReencodeReport, EnrolError>, Vec<ReencodeStep>) {
    let (tell, mut steps) = mpsc::channel(1);
    let listen = async move {
        let mut told = Vec::new();
        while told.len() < steps_max
            && let Some(step) = steps.recv().await
        {
            told.push(step);
        }
        told
    };
    tokio::join!(Reencoding { register, space, encode }.run(tell), listen)
}

/// A daemon that is started with the new encoder in force.
async fn with_new_encoder(data_dir: &Path) -> Arc<Register> {
    let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(2_000_000)));
    let store = Store::open_with_clock(data_dir, clock.clone()).expect("a store");
    let gallery = Gallery::with_clock(new_space(), clock.clone());
    let register = Register::new(store, gallery, clock, Policy::fixed(THRESHOLD));
    register.fill().await.expect("filled");
    Arc::new(register)
}

fn found_anew(register: &Register, who: u8, shot: u8) -> Option<String> {
    let best = register.gallery.current().search(&new_probe(who, shot), 1).expect("one space");
    let best = best.first().filter(|best| best.similarity >= THRESHOLD)?;
    Some(register.gallery.subject(best.subject)?.id.to_string())
}

#[tokio::test]
async fn everybody_is_found_by_the_old_encoder_until_the_start_with_the_new_one_and_by_it_from_then_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let (old, _) = register(directory.path()).await;
    for who in 0..10 {
        enrol(&old, &format!("p-{who}"), (who, &[1, 2])).await;
    }
    let version = old.gallery.current().version();
    // Looked at before each photo, so all the while.
    let watched = Arc::clone(&old);
    let (encode, count) = encoder(move |number| {
        let who = (number % 10) as u8;
        assert_eq!(found(&watched, who, 5), Some(format!("p-{who}")), "photo {number}");
        Box::pin(async {})
    });
    let (report, steps) = reencode(&old, (new_space(), &encode), usize::MAX).await;
    let report = report.expect("made");
    assert_eq!((report.made, report.present, report.refused, report.subjects_lacking, report.is_in_force), (20, 0, 0, 0, false));
    assert_eq!(count.load(Ordering::SeqCst), 20);
    let Some(ReencodeStep::Progress(last)) = steps.last() else { panic!("{steps:?}") };
    assert_eq!((last.done, last.total, last.left), (20, 20, Duration::ZERO));
    assert_eq!(old.gallery.current().version(), version, "nobody matches otherwise than before");
    assert_eq!(found(&old, 3, 5).as_deref(), Some("p-3"));
    assert!(old.gallery.current().search(&new_probe(3, 5), 1).is_err(), "the spaces cannot be compared");
    drop((old, encode));

    let new = with_new_encoder(directory.path()).await;
    for who in 0..10 {
        assert_eq!(found_anew(&new, who, 5), Some(format!("p-{who}")));
    }
    assert!(new.gallery.current().search(&prepared(3, 5).template, 1).is_err());
    assert_eq!((new.gallery.current().template_count(), new.gallery.foreign_template_count()), (20, 0));
    assert_eq!(new.facts().await.expect("facts").foreign_templates, 0);
    let sample = &new.samples(&id("p-3")).await.expect("samples")[0];
    assert!(sample.similarity_to_rest.is_some_and(|similarity| similarity > 0.9), "compared in the new space: {sample:?}");
    drop(new);

    let (back, _) = register(directory.path()).await;
    assert_eq!(found(&back, 3, 5).as_deref(), Some("p-3"), "the way back is the way there");
    assert_eq!(back.gallery.foreign_template_count(), 0);
}

#[tokio::test]
async fn what_was_made_is_kept_when_it_ends_early_and_is_not_made_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (old, _) = register(directory.path()).await;
    for who in 0..10 {
        enrol(&old, &format!("p-{who}"), (who, &[1, 2, 3, 4])).await;
    }
    // One step is a page. The daemon is killed while it is at the second.
    let (encode, count) = undisturbed();
    let (_, steps) = reencode(&old, (new_space(), &encode), 1).await;
    let made = count.load(Ordering::SeqCst);
    assert!(steps.len() == 1 && (16..40).contains(&made), "{made} of 40");
    drop(old);
    let (old, _) = register(directory.path()).await;
    let (encode, again) = undisturbed();
    let report = reencode(&old, (new_space(), &encode), usize::MAX).await.0.expect("made");
    assert_eq!(again.load(Ordering::SeqCst), 40 - made);
    assert_eq!((report.made as usize, report.present as usize), (40 - made, made));
    let (encode, nothing) = undisturbed();
    let (report, steps) = reencode(&old, (new_space(), &encode), usize::MAX).await;
    assert_eq!((report.expect("looked").present, steps.len(), nothing.load(Ordering::SeqCst)), (40, 0, 0));
}

#[tokio::test]
async fn inference_that_fails_ends_it_and_what_was_made_is_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let (old, _) = register(directory.path()).await;
    for who in 0..6 {
        enrol(&old, &format!("p-{who}"), (who, &[1, 2, 3, 4])).await;
    }
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let failing: Encode = Box::new(move |photo| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if number == 20 {
                return Err(InferError::Session("the session is gone".into()).into());
            }
            encoded_anew(&photo, new_space())
        })
    });
    let (outcome, _) = reencode(&old, (new_space(), &failing), usize::MAX).await;
    assert!(matches!(outcome, Err(EnrolError::Photo(PhotoError::Infer(_)))), "{outcome:?}");
    assert_eq!(old.store.count_lacking(&new_space()).await, Ok((24 - 16, 24)));
}

#[tokio::test]
async fn who_comes_meanwhile_is_caught_up_and_who_goes_meanwhile_does_not_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let (old, _) = register(directory.path()).await;
    for who in 0..3 {
        enrol(&old, &format!("p-{who}"), (who, &[1])).await;
    }
    let inside = Arc::clone(&old);
    let (encode, _) = encoder(move |number| {
        let register = Arc::clone(&inside);
        Box::pin(async move {
            if number == 0 {
                enrol(&register, "late", (7, &[1, 2])).await;
                // The first photo is being encoded at this moment.
                let request = Request::delete_subject("", &id("p-0"), "").expect("a request");
                register.delete(request, id("p-0"), String::new()).await.expect("erased");
            }
        })
    });
    let report = reencode(&old, (new_space(), &encode), usize::MAX).await.0.expect("made");
    assert_eq!((report.subjects_lacking, old.store.count_lacking(&new_space()).await), (0, Ok((0, 4))));
    drop((old, encode));
    let new = with_new_encoder(directory.path()).await;
    assert_eq!((found_anew(&new, 7, 3).as_deref(), found_anew(&new, 0, 1)), (Some("late"), None));
    assert_eq!(new.gallery.current().template_count(), 4);
}

#[tokio::test]
async fn who_has_no_photo_is_named_and_counted() {
    let directory = tempfile::tempdir().expect("a directory");
    let (old, _) = register(directory.path()).await;
    enrol(&old, "anna", (1, &[1])).await;
    let bare = crate::portable::tests::person(&mut fastrand::Rng::with_seed(51), ("bare", 1, "space"));
    let sample = bare.samples[0].sample.clone();
    let put = Mutation::PutSample { sample: sample.clone(), template: bare.samples[0].templates[0].clone(), photo: Arc::default() };
    old.commit(Request::import_gallery(), vec![Mutation::PutSubject(bare.subject), put], |_: &Committed| Matching)
        .await
        .expect("committed");
    let (encode, _) = undisturbed();
    let (report, steps) = reencode(&old, (new_space(), &encode), usize::MAX).await;
    let report = report.expect("made");
    assert_eq!((report.made, report.refused, report.subjects_lacking), (1, 1, 1));
    let refused = steps.iter().find_map(|step| if let ReencodeStep::Refused(refused) = step { Some(refused) } else { None });
    let refused = refused.expect("it is told");
    assert_eq!((refused.subject.clone(), refused.sample, refused.reason), (Some(id("bare")), sample.id, "NO_PHOTO"));
    drop(old);
    let new = with_new_encoder(directory.path()).await;
    assert_eq!((new.gallery.current().subject_count(), new.facts().await.expect("facts").foreign_templates), (1, 1));
}

#[tokio::test]
async fn what_is_missing_for_the_encoder_in_force_matches_at_once_and_history_is_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    let (old, _) = register(directory.path()).await;
    enrol(&old, "anna", (1, &[1])).await;
    let before = old.gallery.current().version();
    enrol(&old, "bert", (2, &[1])).await;
    drop(old);
    let new = with_new_encoder(directory.path()).await;
    assert_eq!((found_anew(&new, 1, 1), new.gallery.foreign_template_count()), (None, 2), "nobody was encoded for it");
    let version = new.gallery.current().version();
    let (encode, _) = undisturbed();
    let report = reencode(&new, (new_space(), &encode), usize::MAX).await.0.expect("made");
    assert_eq!((report.made, report.is_in_force, report.subjects_lacking), (2, true, 0));
    assert_eq!((found_anew(&new, 1, 5).as_deref(), found_anew(&new, 2, 5).as_deref()), (Some("anna"), Some("bert")));
    assert!(new.gallery.current().version() > version, "a version of its own: searches answer otherwise now");
    let difference = new.difference(version, None).await.expect("kept");
    assert!(difference.subjects.is_empty() && difference.samples_come.is_empty() && difference.samples_gone.is_empty());
    // Going back takes bert out, and going forth brings him back with the template that matches.
    let latest = new.gallery.current().version();
    let to = |version| Rollback { version, allow_mass_removal: true, dry_run: false };
    for (version, bert) in [(before, None), (latest, Some("bert"))] {
        let rollback = to(version);
        new.roll_back(Request::roll_back("", &rollback).expect("a request"), rollback).await.expect("gone back");
        assert_eq!((found_anew(&new, 1, 5).as_deref(), found_anew(&new, 2, 5).as_deref()), (Some("anna"), bert));
    }
    let current = new.gallery.current();
    drop(new);
    let again = with_new_encoder(directory.path()).await;
    assert_eq!(again.gallery.current().version(), current.version());
    assert_eq!(again.gallery.current().search(&new_probe(2, 9), 5), current.search(&new_probe(2, 9), 5));
}

#[tokio::test]
async fn who_comes_back_or_goes_while_their_template_is_made_matches_by_it_all_the_same() {
    async fn go_to(register: &Arc<Register>, version: u64) {
        let rollback = Rollback { version, allow_mass_removal: true, dry_run: false };
        register.roll_back(Request::roll_back("", &rollback).expect("a request"), rollback).await.expect("gone back");
    }
    for is_retired_first in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let (old, _) = register(directory.path()).await;
        enrol(&old, "anna", (1, &[1])).await;
        let anna_alone = old.gallery.current().version();
        enrol(&old, "bert", (2, &[1])).await;
        let both = old.gallery.current().version();
        drop(old);
        let new = with_new_encoder(directory.path()).await;
        // Bert is retired when the samples are listed and back when his template is there, or the other way round.
        let (listed, then) = if is_retired_first { (anna_alone, both) } else { (both, anna_alone) };
        go_to(&new, listed).await;
        let inside = Arc::clone(&new);
        let (encode, _) = encoder(move |number| {
            let register = Arc::clone(&inside);
            Box::pin(async move {
                if number == 0 {
                    go_to(&register, then).await;
                }
            })
        });
        reencode(&new, (new_space(), &encode), usize::MAX).await.0.expect("made");
        assert_eq!(new.store.count_lacking(&new_space()).await, Ok((0, 2)), "both have one");
        go_to(&new, both).await;
        assert_eq!((found_anew(&new, 1, 5).as_deref(), found_anew(&new, 2, 5).as_deref()), (Some("anna"), Some("bert")));
    }
}
