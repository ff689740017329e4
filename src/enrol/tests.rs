//! Made-up photos for the tests of enrolment: what a photo shows is written in its bytes, so that
//! no model is needed. And who waits where many photos do.
//!
//! In: who and which shot. Out: bytes, prepared photos, a store that is empty. Must not know: models.

use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::prepare::{Prepared, sha256};
use super::register::Register;
use super::reload::Prepare;
use super::*;
use crate::clock::SimulatedClock;
use crate::decide::Policy;
use crate::face::{Quality, Template};
use crate::infer::InferError;
use crate::photo::PhotoError;
use crate::photo::tests::crowded;

/// From this similarity on two made-up photos show one person.
pub(super) const THRESHOLD: f32 = 0.5;

pub(super) fn space() -> TemplateSpace {
    TemplateSpace::new("space")
}

pub(super) fn id(name: &str) -> SubjectId {
    SubjectId::parse(name).expect("a good id")
}

/// A photo of `who` (0 to 15): photos of one person are close, those of two are far apart.
pub(super) fn photo(who: u8, shot: u8) -> Vec<u8> {
    format!("photo {who} {shot}").into_bytes()
}

/// A photo that shows nobody.
pub(super) fn empty_photo(shot: u8) -> Vec<u8> {
    format!("nobody {shot}").into_bytes()
}

pub(super) fn prepared(who: u8, shot: u8) -> Prepared {
    look_at(photo(who, shot).into()).expect("it shows somebody")
}

fn look_at(photo: Arc<[u8]>) -> Result<Prepared, EnrolError> {
    let text = String::from_utf8_lossy(&photo).into_owned();
    let words: Vec<&str> = text.split(' ').collect();
    let ["photo", who, shot] = words[..] else { return Err(PhotoError::NoFace.into()) };
    let mut values = [0.0_f32; 32];
    values[who.parse::<usize>().expect("a number")] = 1.0;
    values[16 + shot.parse::<usize>().expect("a number") % 16] = 0.2;
    let template = Template::normalised(space(), &values).expect("it has a direction");
    Ok(Prepared { content_sha256: sha256(&photo), photo, quality: Quality { overall: 0.75, ..Quality::default() }, template })
}

/// Looks at made-up photos, and counts how often.
pub(super) fn counting_prepare() -> (Prepare, Arc<std::sync::atomic::AtomicUsize>) {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let prepare: Prepare = Arc::new(move |photo| {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Box::pin(async move { look_at(photo) })
    });
    (prepare, count)
}

/// A register over what lies in `data_dir`.
pub(super) async fn register(data_dir: &Path) -> (Arc<Register>, Arc<SimulatedClock>) {
    let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000)));
    let store = Store::open_with_clock(data_dir, clock.clone()).expect("a store");
    let gallery = Gallery::with_clock(space(), clock.clone());
    let register = Register::new(store, gallery, clock.clone(), Policy::fixed(THRESHOLD));
    register.fill().await.expect("filled");
    (Arc::new(register), clock)
}

/// Who a photo is found to show.
pub(super) fn found(register: &Register, who: u8, shot: u8) -> Option<String> {
    let best = register.gallery.current().search(&prepared(who, shot).template, 1).expect("one space");
    let best = best.first().filter(|best| best.similarity >= THRESHOLD)?;
    Some(register.gallery.subject(best.subject)?.id.to_string())
}

/// What there is to say by now.
async fn by_now(preparing: impl Future<Output = Result<Prepared, EnrolError>>) -> Option<Result<Prepared, EnrolError>> {
    let mut preparing = pin!(preparing);
    poll_fn(|context| match preparing.as_mut().poll(context) {
        Poll::Ready(answer) => Poll::Ready(Some(answer)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn where_too_many_photos_wait_a_single_one_is_refused_and_those_of_a_folder_or_an_import_wait() {
    let data = tempfile::tempdir().expect("a folder");
    let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000)));
    let store = Store::open_with_clock(data.path(), clock.clone()).expect("a store");
    let (gallery, (photos, places)) = (Gallery::with_clock(space(), clock.clone()), crowded());
    let policy = Policy::fixed(THRESHOLD);
    let enrolment = Enrolment::new(EnrolmentParts { photos, store, gallery, clock, people_dir: None, quality_min: 0.3, policy });
    let picture: Arc<[u8]> = photo(1, 1).into();
    let single = by_now(enrolment.prepare(SampleInput::Image(Arc::clone(&picture)))).await;
    assert!(matches!(single, Some(Err(EnrolError::Photo(PhotoError::Infer(InferError::Busy))))), "{single:?}");
    let mut of_many = enrolment.preparation()(picture);
    let waits = by_now(&mut of_many).await;
    assert!(waits.is_none(), "{waits:?}");
    drop(places);
    let looked_at = of_many.await;
    assert!(matches!(looked_at, Err(EnrolError::Photo(PhotoError::BadImage(_)))), "these bytes are no picture: {looked_at:?}");
}
