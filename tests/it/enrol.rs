//! Enrolment with real models, real photos and a real store: who is enrolled from one photo is
//! known on others, and nobody else is.
//!
//! In: models and photos that `script/bootstrap` takes from the registries. Out: nothing.
//! Prints what is left out where they are missing.
//! Must not know: the wire.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use doorward::clock::{Clock, SystemClock};
use doorward::decide::Policy;
use doorward::enrol::{
    Allowed, EnrolError, Enrolled, Enrolment, EnrolmentParts, NewSample, NewSubject, SampleInput, SubjectFields, SubjectUpdate,
};
use doorward::event::{Event, EventKind, Rejection, SnapshotId};
use doorward::frame::CameraId;
use doorward::gallery::Gallery;
use doorward::infer::Engine;
use doorward::photo::{PhotoAnalyst, PhotoError};
use doorward::recognise::{Claim, RecogniseError, Recogniser, Wanted};
use doorward::store::{Snapshot, Store, StoreError};
use doorward::subject::SubjectId;
use image::{ImageFormat, RgbImage};

use crate::faces::{bootstrapped, engine, models_dir};

/// One engine for all tests here: each has a session for every core.
fn shared_engine(models_dir: &Path) -> Engine {
    static ENGINE: std::sync::OnceLock<Engine> = std::sync::OnceLock::new();
    ENGINE.get_or_init(|| engine(models_dir)).clone()
}

/// A daemon's worth of enrolment over one directory.
struct House {
    directory: tempfile::TempDir,
    engine: Engine,
    store: Store,
    gallery: Gallery,
    enrolment: Enrolment,
    recogniser: Recogniser,
}

impl House {
    /// `None`, said aloud, where models or photos are missing.
    async fn new(left_out: &str) -> Option<(Self, PathBuf)> {
        let photos = bootstrapped("photos/obama.jpg", left_out)?.parent()?.to_owned();
        let engine = shared_engine(&models_dir(left_out)?);
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("people")).expect("a directory");
        Some((Self::open(directory, engine).await, photos))
    }

    async fn open(directory: tempfile::TempDir, engine: Engine) -> Self {
        let store = Store::open(&directory.path().join("data")).expect("a store");
        let (space, policy) = (engine.facts().space.clone(), Policy::fixed(engine.facts().threshold));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let gallery = Gallery::with_clock(space.clone(), clock.clone());
        let photos = PhotoAnalyst::new(engine.clone());
        let recogniser = Recogniser::new(photos.clone(), gallery.clone(), space, policy.clone());
        let people_dir = Some(directory.path().join("people"));
        let parts = EnrolmentParts { photos, store: store.clone(), gallery: gallery.clone(), clock, people_dir, quality_min: 0.3, policy };
        let enrolment = Enrolment::new(parts);
        enrolment.fill().await.expect("the store is read");
        Self { directory, engine, store, gallery, enrolment, recogniser }
    }

    async fn restart(self) -> Self {
        let Self { directory, engine, store, gallery, enrolment, recogniser } = self;
        drop((store, gallery, enrolment, recogniser));
        Self::open(directory, engine).await
    }

    async fn enrol(&self, name: &str, photo: Vec<u8>) -> Result<Enrolled, EnrolError> {
        let fields = SubjectFields { display_name: Some(name.to_uppercase()), ..SubjectFields::default() };
        let samples = vec![SampleInput::Image(photo.into())];
        self.enrolment.create_subject(NewSubject { id: Some(id(name)), fields, samples, ..NewSubject::default() }).await
    }

    /// Who is on a picture with one face, and why nobody, where that is so.
    async fn who(&self, photo: &[u8]) -> Result<String, Rejection> {
        let identified = self.recogniser.identify(photo, 5).await.expect("a good picture");
        assert_eq!(identified.faces.len(), 1);
        let decision = &identified.faces[0].1;
        match (decision.subject, decision.rejection) {
            (Some(uid), None) => Ok(self.gallery.subject(uid).expect("it is enrolled").id.to_string()),
            (None, Some(rejection)) => Err(rejection),
            both => panic!("{both:?}"),
        }
    }

    /// Puts a photo into the enrolment folder.
    fn put(&self, path: &str, photo: &[u8]) {
        let path = self.directory.path().join("people").join(path);
        std::fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("a directory");
        std::fs::write(path, photo).expect("a file");
    }

    fn take_out(&self, path: &str) {
        std::fs::remove_dir_all(self.directory.path().join("people").join(path)).expect("it is there");
    }
}

fn id(name: &str) -> SubjectId {
    SubjectId::parse(name).expect("a good id")
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Jpeg).expect("an encodable picture");
    bytes.into_inner()
}

/// Two photos next to each other.
fn side_by_side(left: &[u8], right: &[u8]) -> Vec<u8> {
    let [left, right] = [left, right]
        .map(|photo| image::load_from_memory(photo).expect("a photo").resize(600, 600, image::imageops::FilterType::Triangle).into_rgb8());
    let mut both = RgbImage::new(left.width() + right.width(), left.height().max(right.height()));
    image::imageops::replace(&mut both, &left, 0, 0);
    image::imageops::replace(&mut both, &right, i64::from(left.width()), 0);
    jpeg(&both)
}

#[tokio::test]
async fn one_photo_enrols_a_person_who_is_then_known_on_others_and_after_a_restart() {
    let Some((house, photos)) = House::new("enrolling a person from one photo").await else { return };
    assert_eq!(house.who(&read(&photos, "obama2.jpg")).await, Err(Rejection::EmptyGallery));
    let enrolled = house.enrol("obama", read(&photos, "obama.jpg")).await.expect("enrolled");
    assert_eq!((enrolled.samples.len(), enrolled.samples[0].similarity_to_rest), (1, None));
    let uid = enrolled.subject.expect("a subject").uid;
    for other in ["obama2.jpg", "obama3.jpg"] {
        let claim = Claim::Subject(uid, "obama".into());
        let verified = house.recogniser.verify(&read(&photos, other), claim).await.expect("a good picture");
        assert!(verified.matched && verified.templates == 1, "{other}: {}", verified.similarity);
        assert_eq!(house.who(&read(&photos, other)).await.as_deref(), Ok("obama"), "{other}");
    }
    let biden = read(&photos, "biden.jpg");
    assert_eq!(house.who(&biden).await, Err(Rejection::BelowThreshold));
    assert!(!house.recogniser.verify(&biden, Claim::Subject(uid, "obama".into())).await.expect("a good picture").matched);
    let same = house.recogniser.verify(&read(&photos, "obama2.jpg"), Claim::OtherImage(&read(&photos, "obama3.jpg"))).await;
    assert!(same.expect("good pictures").matched);
    // What is nearly black is somebody's all the same, and no rate is known of it.
    let mut dark = image::load_from_memory(&read(&photos, "obama2.jpg")).expect("a photo").into_rgb8();
    dark.iter_mut().for_each(|value| *value /= 20);
    for (probe, claim) in [(jpeg(&dark), read(&photos, "obama3.jpg")), (read(&photos, "obama3.jpg"), jpeg(&dark))] {
        let refused = match house.recogniser.verify(&probe, Claim::OtherImage(&claim)).await.err() {
            Some(RecogniseError::OfOther(error)) => Some(*error),
            of_probe => of_probe,
        };
        assert!(matches!(refused, Some(RecogniseError::Unusable { .. })), "{refused:?}");
    }
    assert_eq!(
        house
            .recogniser
            .search(&biden, Wanted { candidates_max: 10, watchlists: HashSet::new() })
            .await
            .expect("a good picture")
            .candidates
            .len(),
        1,
        "a search decides nothing"
    );

    let house = house.restart().await;
    assert_eq!(house.who(&read(&photos, "obama2.jpg")).await.as_deref(), Ok("obama"));
    assert_eq!(house.gallery.current().version(), enrolled.version);
}

#[tokio::test]
async fn a_photo_without_exactly_one_usable_face_is_refused_and_nothing_is_stored() {
    let Some((house, photos)) = House::new("refusing photos").await else { return };
    let (obama, biden) = (read(&photos, "obama.jpg"), read(&photos, "biden.jpg"));
    let two = side_by_side(&obama, &biden);
    assert!(matches!(house.enrol("two", two.clone()).await, Err(EnrolError::Photo(PhotoError::SeveralFaces(2)))));
    assert_eq!(house.recogniser.detect(&two).await.expect("a good picture").1.len(), 2);
    let nobody = jpeg(&RgbImage::from_fn(320, 240, |x, y| image::Rgb([x as u8, y as u8, 128])));
    assert!(matches!(house.enrol("nobody", nobody.clone()).await, Err(EnrolError::Photo(PhotoError::NoFace))));
    assert!(matches!(
        house.recogniser.search(&nobody, Wanted { candidates_max: 1, watchlists: HashSet::new() }).await,
        Err(RecogniseError::Photo(PhotoError::NoFace))
    ));
    assert!(matches!(house.enrol("text", b"no picture".to_vec()).await, Err(EnrolError::Photo(PhotoError::BadImage(_)))));
    let mut huge = b"P5\n30000 30000\n255\n".to_vec();
    huge.resize(4096, 0);
    match house.enrol("huge", huge).await {
        Err(EnrolError::Photo(PhotoError::BadImage(reason))) => {
            assert!(reason.contains("30000x30000") && reason.contains("50 megapixels"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let small = image::load_from_memory(&obama).expect("a photo").resize(110, 110, image::imageops::FilterType::Triangle);
    match house.enrol("small", jpeg(&small.into_rgb8())).await {
        Err(EnrolError::Unusable { fault, quality }) => {
            assert!(quality.size_pixels < 40.0 && quality.overall < 0.3, "{fault:?} {quality:?}");
        }
        other => panic!("{other:?}"),
    }
    let both_good_and_bad = [SampleInput::Image(obama.into()), SampleInput::Image(nobody.into())].to_vec();
    let new = NewSubject { id: Some(id("half")), samples: both_good_and_bad, ..NewSubject::default() };
    let refused = house.enrolment.create_subject(new).await;
    let Err(EnrolError::OfSample { index: 1, error }) = refused else { panic!("nobody is on the second: {refused:?}") };
    assert!(matches!(*error, EnrolError::Photo(PhotoError::NoFace)), "{error:?}");
    assert!(matches!(house.enrolment.create_subject(NewSubject::default()).await, Err(EnrolError::NoSample)));
    let facts = house.enrolment.facts().await.expect("facts");
    assert_eq!((facts.version, facts.subjects, facts.templates), (0, 0, 0));
    assert!(house.enrolment.subjects(None, None, 100).await.expect("subjects").is_empty());
}

#[tokio::test]
async fn the_same_person_is_not_enrolled_twice_unasked() {
    let Some((house, photos)) = House::new("refusing duplicates").await else { return };
    house.enrol("obama", read(&photos, "obama.jpg")).await.expect("enrolled");
    match house.enrol("barack", read(&photos, "obama2.jpg")).await {
        Err(EnrolError::PossibleDuplicate { other, similarity }) => {
            assert!(other == id("obama") && similarity >= house.engine.facts().threshold);
        }
        other => panic!("{other:?}"),
    }
    let add = |photo: &str| NewSample {
        subject: id("obama"),
        sample: SampleInput::Image(read(&photos, photo).into()),
        negative: false,
        allowed: Allowed::default(),
        request_id: String::new(),
    };
    let added = house.enrolment.create_sample(add("obama2.jpg")).await.expect("their own photo");
    assert!(added.samples[0].similarity_to_rest.is_some_and(|similarity| similarity > 0.3), "{:?}", added.samples[0]);
    // Biden is nobody's duplicate, and a photo of him is added to Obama: his own choice to make.
    house.enrol("biden", read(&photos, "biden.jpg")).await.expect("enrolled");
    assert!(matches!(house.enrolment.create_sample(add("biden.jpg")).await, Err(EnrolError::PossibleDuplicate { .. })));
    assert_eq!(house.enrolment.samples(&id("obama")).await.expect("samples").len(), 2);
    let people = house.enrolment.subjects(None, None, 100).await.expect("subjects");
    let people: Vec<_> = people.iter().map(|(subject, samples)| (subject.id.as_str(), *samples)).collect();
    assert_eq!(people, [("biden", 1), ("obama", 2)]);
}

#[tokio::test]
async fn a_repeated_request_id_returns_the_first_answer() {
    let Some((house, photos)) = House::new("repeating requests").await else { return };
    let new = |photo: &str| NewSubject {
        samples: vec![SampleInput::Image(read(&photos, photo).into())],
        request_id: "6d1f7a9e-0f5c-4a43-9d34-0d9c3f7b9a11".into(),
        ..NewSubject::default()
    };
    let first = house.enrolment.create_subject(new("obama.jpg")).await.expect("enrolled");
    let made = first.subject.clone().expect("a subject").id;
    let update = SubjectUpdate {
        id: made.clone(),
        fields: SubjectFields { display_name: Some("later".into()), ..SubjectFields::default() },
        etag: String::new(),
        request_id: String::new(),
    };
    house.enrolment.update_subject(update).await.expect("updated");
    assert_eq!(house.enrolment.create_subject(new("obama.jpg")).await.expect("repeated"), first);
    assert!(matches!(house.enrolment.create_subject(new("biden.jpg")).await, Err(EnrolError::RequestReused)));
    assert_eq!(house.gallery.current().subject_count(), 1);
    house.enrolment.delete_subject(&made, "", "").await.expect("erased");
    let repeat = house.enrolment.create_subject(new("obama.jpg")).await;
    assert!(matches!(repeat, Err(EnrolError::Store(StoreError::AnswerErased))), "a repeat brings nobody back: {repeat:?}");
}

#[tokio::test]
async fn an_events_best_shot_enrols_its_visitor() {
    let Some((house, photos)) = House::new("enrolling from a snapshot").await else { return };
    let snapshot = SnapshotId(uuid::Uuid::from_u128(7));
    let new = || NewSubject { id: Some(id("visitor")), samples: vec![SampleInput::Snapshot(snapshot)], ..NewSubject::default() };
    assert!(matches!(house.enrolment.create_subject(new()).await, Err(EnrolError::SnapshotUnknown(_))));
    let time = SystemClock::new().now();
    let pictures = Snapshot {
        id: snapshot,
        camera: CameraId::parse("door").expect("a good id"),
        capture_time: time,
        subject: None,
        crop_jpeg: read(&photos, "obama.jpg"),
        frame_jpeg: Vec::new(),
    };
    let event = Event { snapshot: Some(snapshot), ..Event::new(EventKind::Unidentified, "door", time) };
    house.store.append_events(vec![event.clone()]).await.expect("stored");
    house.store.put_snapshots(vec![(event, pictures)]).await.expect("kept");
    house.enrolment.create_subject(new()).await.expect("enrolled");
    assert_eq!(house.who(&read(&photos, "obama3.jpg")).await.as_deref(), Ok("visitor"));
    let receipt = house.enrolment.delete_subject(&id("visitor"), "", "").await.expect("erased");
    assert_eq!(receipt.committed.snapshots_erased, 1, "the picture they were enrolled from shows them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_folder_is_reloaded_while_everybody_stays_known() {
    let Some((house, photos)) = House::new("reloading the enrolment folder").await else { return };
    let Some(faces) = bootstrapped("orl_faces/s1", "reloading the enrolment folder").and_then(|s1| Some(s1.parent()?.to_owned())) else {
        return;
    };
    let face = |person: usize, shot: usize| read(&faces, &format!("s{person}/{shot}.pgm"));
    for person in 1..=20 {
        house.put(&format!("s{person}/1.pgm"), &face(person, 1));
    }
    house.put("empty/1.png", &jpeg(&RgbImage::new(100, 100)));
    house.put("obama/1.jpg", &read(&photos, "obama.jpg"));
    let first = house.enrolment.reload(false, false, "").await.expect("reloaded");
    let refused: Vec<_> = first.refused.iter().map(|file| (file.path.as_str(), file.reason)).collect();
    assert_eq!((first.added, refused), (21, vec![("empty/1.png", "NO_FACE")]));
    let house = Arc::new(house);

    // Whoever asks while the folder is reloaded finds Obama, whose photos are replaced each time.
    let (done, probe) = (Arc::new(AtomicBool::new(false)), read(&photos, "obama2.jpg"));
    let asker = tokio::spawn({
        let (house, done) = (Arc::clone(&house), Arc::clone(&done));
        async move {
            let mut asked = 0;
            while !done.load(Ordering::Acquire) || asked == 0 {
                assert_eq!(house.who(&probe).await.as_deref(), Ok("obama"), "question {asked}");
                asked += 1;
            }
            asked
        }
    });
    for (round, photo) in ["obama3.jpg", "obama.jpg", "obama3.jpg"].into_iter().enumerate() {
        house.put("obama/1.jpg", &read(&photos, photo));
        house.put("s1/1.pgm", &face(1, round + 2));
        let report = house.enrolment.reload(false, false, "").await.expect("reloaded");
        assert_eq!((report.added, report.changed, report.removed, report.unchanged_samples), (0, 2, 0, 19), "{:?}", report.refused);
    }
    done.store(true, Ordering::Release);
    println!("{} questions were answered during three reloads", asker.await.expect("the asker saw no gap"));

    house.take_out("s20");
    let receipt = house.enrolment.delete_subject(&id("s19"), "", "").await.expect("erased");
    assert_eq!(receipt.committed.samples_erased, 1);
    let report = house.enrolment.reload(false, false, "").await.expect("reloaded");
    let refused: Vec<_> = report.refused.iter().map(|file| (file.path.as_str(), file.reason)).collect();
    assert_eq!((report.removed, refused), (1, vec![("empty/1.png", "NO_FACE"), ("s19/1.pgm", "ERASED_PERSON")]));
    let gone: Vec<_> = house.gallery.current().search(&template(&house, &face(19, 1)).await, 100).expect("one space");
    assert_eq!(gone.len(), 19, "18 from the folder of faces, and Obama");
    for person in 1..=8 {
        house.take_out(&format!("s{person}"));
    }
    assert!(matches!(house.enrolment.reload(false, false, "").await, Err(EnrolError::MassRemoval { removed: 8, total: 19 })));
    assert_eq!(house.enrolment.reload(true, false, "").await.expect("allowed").removed, 8);
}

async fn template(house: &House, photo: &[u8]) -> doorward::face::Template {
    PhotoAnalyst::new(house.engine.clone()).only_template(photo).await.expect("one face").1
}

#[tokio::test]
async fn a_face_that_fills_the_picture_is_found_with_a_border() {
    let Some((house, _)) = House::new("faces that fill the picture").await else { return };
    let Some(faces) = bootstrapped("orl_faces/s1", "faces that fill the picture").and_then(|s1| Some(s1.parent()?.to_owned())) else {
        return;
    };
    let mut missed = Vec::new();
    for person in 1..=40 {
        for shot in [1, 5] {
            let (size, found) = house.recogniser.detect(&read(&faces, &format!("s{person}/{shot}.pgm"))).await.expect("a good picture");
            let [face] = &found[..] else {
                missed.push((person, shot, found.len()));
                continue;
            };
            let centre = face.detection.box_in_frame.centre();
            let (width, height) = (size.width as f32, size.height as f32);
            assert!((0.0..width).contains(&centre.x) && (0.0..height).contains(&centre.y), "s{person}/{shot}: {centre:?}");
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
