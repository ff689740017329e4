//! Tests of going back against a real store.
//!
//! In: made-up prepared photos. Out: nothing. Must not know: models.

use std::path::Path;

use fastrand::Rng;

use super::*;
use crate::clock::SimulatedClock;
use crate::enrol::register::{Addition, Creation};
use crate::enrol::tests::{found, id, prepared, register};
use crate::enrol::{Allowed, NewSample, NewSubject, SampleInput, SubjectFields, SubjectUpdate};
use crate::subject::{Subject, SubjectId};

struct House {
    directory: tempfile::TempDir,
    register: Arc<Register>,
    clock: Arc<SimulatedClock>,
}

impl House {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (register, clock) = register(directory.path()).await;
        Self { directory, register, clock }
    }

    async fn enrol(&self, name: &str, who: u8) -> u64 {
        let request = Request::create_subject(&NewSubject { id: Some(id(name)), ..NewSubject::default() }).expect("a good request");
        let fields = SubjectFields { display_name: Some(format!("{name} the first")), ..SubjectFields::default() };
        let creation = Creation {
            id: Some(id(name)),
            fields,
            samples: vec![prepared(who, 1)],
            allowed: Allowed { duplicate: true, inconsistent: true },
        };
        self.register.create(request, creation).await.expect("enrolled").version
    }

    async fn add(&self, name: &str, who: u8, shot: u8) -> u64 {
        let sample = SampleInput::Image(prepared(who, shot).photo);
        let new = NewSample {
            subject: id(name),
            sample,
            negative: false,
            allowed: Allowed { duplicate: true, inconsistent: true },
            request_id: String::new(),
        };
        let request = Request::create_sample(&new).expect("a good request");
        let addition = Addition {
            subject: id(name),
            sample: prepared(who, shot),
            negative: false,
            allowed: Allowed { duplicate: true, inconsistent: true },
        };
        self.register.add(request, addition).await.expect("added").version
    }

    async fn rename(&self, name: &str, display_name: &str) {
        let fields = SubjectFields { display_name: Some(display_name.into()), ..SubjectFields::default() };
        let update = SubjectUpdate { id: id(name), fields, etag: String::new(), request_id: String::new() };
        self.register.update(Request::update_subject(&update).expect("a good request"), update).await.expect("renamed");
    }

    async fn erase(&self, name: &str) -> Result<(), EnrolError> {
        let request = Request::delete_subject("", &id(name), "").expect("a good request");
        self.register.delete(request, id(name), String::new()).await.map(drop)
    }

    async fn roll_back_as(&self, rollback: Rollback) -> Result<RollbackReport, EnrolError> {
        self.register.roll_back(Request::roll_back("", &rollback).expect("a good request"), rollback).await
    }

    async fn roll_back(&self, version: u64) -> RollbackReport {
        self.roll_back_as(Rollback { version, allow_mass_removal: true, dry_run: false }).await.expect("gone back")
    }

    /// Everything that is to be the same again: who there is, called what, with how many samples.
    async fn state(&self) -> Vec<(SubjectId, String, Subject, Vec<[u8; 32]>)> {
        let mut state = Vec::new();
        for subject in self.register.store.subjects().await.expect("subjects") {
            let samples = self.register.store.samples(subject.uid).await.expect("samples");
            let hashes = samples.iter().map(|(sample, _)| sample.content_sha256).collect();
            // Revision and time of the last change go on; everything else is as it was.
            let then = Subject { revision: 0, update_time: subject.create_time, ..subject.clone() };
            state.push((subject.id.clone(), subject.display_name.clone(), then, hashes));
        }
        state
    }
}

/// Whether some file of the directory holds these bytes.
fn is_on_disk(directory: &Path, bytes: &[u8]) -> bool {
    let files = std::fs::read_dir(directory).expect("a directory").map(|file| file.expect("a file").path());
    files.filter(|path| path.is_file()).any(|path| {
        let content = std::fs::read(path).expect("readable");
        content.windows(bytes.len()).any(|window| window == bytes)
    })
}

#[tokio::test]
async fn going_back_undoes_everything_since_and_can_be_undone_itself() {
    let house = House::new().await;
    house.enrol("anna", 1).await;
    let then = house.enrol("bert", 2).await;
    let state = house.state().await;
    house.enrol("cleo", 3).await;
    house.add("anna", 4, 2).await;
    house.rename("bert", "Bertram").await;
    let later = house.state().await;
    let before = house.register.gallery.current().version();

    let dry = Rollback { version: then, allow_mass_removal: true, dry_run: true };
    let report = house.roll_back_as(dry).await.expect("a report");
    assert_eq!((report.version, house.state().await), (before, later.clone()), "a dry run changes nothing");
    let done = house.roll_back(then).await;
    let numbers = (done.subjects_removed, done.subjects_changed, done.subjects_restored, done.samples_removed, done.samples_restored);
    assert_eq!(numbers, (1, 2, 0, 2, 0));
    assert_eq!(RollbackReport { version: report.version, ..done }, report, "and says what will be");
    assert_eq!(house.state().await, state);
    assert_eq!(done.version, house.register.gallery.current().version());
    let found_now: Vec<_> = [1, 2, 3, 4].iter().map(|who| found(&house.register, *who, 1)).collect();
    assert_eq!(found_now, [Some("anna".into()), Some("bert".into()), None, None], "and matching goes by it");

    let again = house.roll_back(before).await;
    assert_eq!((again.subjects_restored, again.samples_restored), (1, 2));
    assert_eq!(house.state().await, later);
    assert_eq!(found(&house.register, 3, 1).as_deref(), Some("cleo"));
}

#[tokio::test]
async fn whoever_comes_back_has_an_etag_that_nothing_else_was_stated_by() {
    let house = House::new().await;
    let empty = house.register.gallery.current().version();
    let first = house.enrol("anna", 1).await;
    house.rename("anna", "Anna B.").await;
    house.rename("anna", "Anna C.").await;
    let known = house.register.subject_with_count(&id("anna")).await.expect("anna").0.etag();
    house.roll_back(empty).await;
    house.roll_back(first).await;
    let back = house.register.subject_with_count(&id("anna")).await.expect("anna").0;
    assert_eq!((back.display_name.as_str(), back.revision), ("anna the first", 4));
    assert_ne!(back.etag(), known);
    house.rename("anna", "Anna D.").await;
    assert_eq!(house.register.subject_with_count(&id("anna")).await.expect("anna").0.revision, 5);
}

#[tokio::test]
async fn who_was_erased_does_not_come_back_by_any_rollback_and_leaves_no_byte() {
    let house = House::new().await;
    house.enrol("anna", 1).await;
    house.enrol("bert", 2).await;
    let then = house.add("anna", 1, 2).await;
    // Anna's second photo is retired by one rollback, and she is erased while it is kept.
    house.roll_back(then - 2).await;
    let photo = prepared(1, 2).photo;
    assert!(is_on_disk(house.directory.path(), &photo), "it is kept for going back");
    house.erase("anna").await.expect("erased");
    assert!(!is_on_disk(house.directory.path(), &photo) && !is_on_disk(house.directory.path(), b"anna the first"));
    let report = house.roll_back(then).await;
    assert_eq!((report.subjects_restored, report.subjects_erased), (0, 1));
    assert_eq!(found(&house.register, 1, 1), None);
    assert_eq!(house.state().await.len(), 1);
}

#[tokio::test]
async fn nobody_stays_enrolled_without_a_photo() {
    let house = House::new().await;
    let then = house.enrol("anna", 1).await;
    house.enrol("bert", 2).await;
    house.add("anna", 1, 2).await;
    let anna = house.register.subject_with_count(&id("anna")).await.expect("anna").0;
    let first = house.register.store.samples(anna.uid).await.expect("samples").remove(0).0;
    let request = Request::delete_sample("", &id("anna"), first.id).expect("a good request");
    house.register.remove(request, id("anna"), first.id).await.expect("removed");
    let report = house.roll_back(then).await;
    assert_eq!((report.subjects_removed, report.samples_removed), (1, 1), "bert and his: {report:?}");
    assert_eq!(found(&house.register, 1, 2).as_deref(), Some("anna"), "by the photo that replaced the one of then");
}

#[tokio::test]
async fn versions_are_told_from_one_that_is_kept_and_from_no_other() {
    let house = House::new().await;
    let first = house.enrol("anna", 1).await;
    house.clock.advance(std::time::Duration::from_secs(100));
    let second = house.enrol("bert", 2).await;
    house.register.check_kept_since(first).await.expect("it is kept");
    for never in [second + 1, second - 1] {
        assert!(matches!(house.register.check_kept_since(never).await, Err(EnrolError::VersionUnknown { .. })), "{never}");
    }
    let now = crate::clock::Clock::now(house.clock.as_ref());
    house.register.store.prune_gallery_history(now).await.expect("pruned");
    house.register.check_kept_since(first).await.expect("the newest of the old ones stays");
    assert!(matches!(house.register.check_kept_since(0).await, Err(EnrolError::VersionUnknown { oldest, .. }) if oldest == first));
}

#[tokio::test]
async fn somebody_who_is_only_kept_for_going_back_can_be_erased_by_name() {
    let house = House::new().await;
    house.enrol("anna", 1).await;
    let then = house.register.gallery.current().version();
    house.enrol("bert", 2).await;
    house.roll_back(then).await;
    let photo = prepared(2, 1).photo;
    assert!(is_on_disk(house.directory.path(), &photo));
    house.erase("bert").await.expect("erased");
    assert!(!is_on_disk(house.directory.path(), &photo));
    assert!(matches!(house.erase("bert").await, Err(EnrolError::SubjectUnknown(_))), "and is gone then");
}

#[tokio::test]
async fn a_version_that_is_not_kept_and_a_mass_removal_are_refused() {
    let house = House::new().await;
    let empty = house.register.gallery.current().version();
    let first = house.enrol("anna", 1).await;
    house.enrol("bert", 2).await;
    let ask = |version| house.roll_back_as(Rollback { version, allow_mass_removal: false, dry_run: false });
    assert!(matches!(ask(empty).await, Err(EnrolError::MassRemoval { removed: 2, total: 2 })));
    assert!(matches!(ask(first + 1_000).await, Err(EnrolError::VersionUnknown { .. })));
    assert!(matches!(ask(first - 1).await, Err(EnrolError::VersionUnknown { .. })), "in the middle of a change");
    assert!(matches!(house.register.difference(9, Some(2)).await, Err(EnrolError::BadField { field: "from_version", .. })));
    for (from, to, unknown) in [(first, first + 1_000, first + 1_000), (first - 1, first, first - 1)] {
        let refused = house.register.difference(from, Some(to)).await;
        assert!(matches!(refused, Err(EnrolError::VersionUnknown { version, .. }) if version == unknown), "{refused:?}");
    }
    assert_eq!(house.state().await.len(), 2);
}

#[tokio::test]
async fn what_is_older_than_the_history_is_erased_and_no_longer_gone_back_to() {
    let house = House::new().await;
    let first = house.enrol("anna", 1).await;
    house.enrol("bert", 2).await;
    house.roll_back(first).await;
    house.clock.advance(std::time::Duration::from_secs(100));
    let third = house.enrol("cleo", 3).await;
    let now = crate::clock::Clock::now(house.clock.as_ref());
    house.register.store.prune_gallery_history(now).await.expect("pruned");
    assert!(!is_on_disk(house.directory.path(), &prepared(2, 1).photo), "the retired photo is erased");
    let kept: Vec<u64> = house.register.versions_after(None, 100).await.expect("versions").iter().map(|version| version.version).collect();
    assert_eq!(kept.len(), 2, "the newest old one and what came after: {kept:?}");
    assert_eq!(kept.last(), Some(&third));
    let refused = house.roll_back_as(Rollback { version: first, allow_mass_removal: true, dry_run: false }).await;
    assert!(matches!(refused, Err(EnrolError::VersionUnknown { oldest, .. }) if oldest == kept[0]), "{refused:?}");
    house.roll_back(kept[0]).await;
    assert_eq!(house.state().await.len(), 1, "anna alone");
}

#[tokio::test]
async fn any_earlier_version_comes_back_as_it_was() {
    for seed in [1, 2, 3] {
        println!("seed {seed}");
        let (house, mut rng) = (House::new().await, Rng::with_seed(seed));
        let mut seen = Vec::new();
        for turn in 0..40_u8 {
            let name = format!("s{}", rng.u8(0..6));
            let there = house.register.store.subject(&id(&name)).await.expect("read").is_some();
            match (there, rng.u8(0..4)) {
                (false, _) => drop(house.enrol(&name, rng.u8(0..16)).await),
                (true, 0) => house.rename(&name, &format!("name {turn}")).await,
                (true, 1) if !seen.is_empty() => {
                    let (version, state): &(u64, Vec<_>) = &seen[rng.usize(0..seen.len())];
                    house.roll_back(*version).await;
                    assert_eq!(&house.state().await, state, "seed {seed}, turn {turn}, version {version}");
                }
                (true, _) => drop(house.add(&name, rng.u8(0..16), turn % 16).await),
            }
            seen.push((house.register.gallery.current().version(), house.state().await));
            let newest = house.register.store.gallery_versions_before(None, 1).await.expect("versions").remove(0);
            let samples: usize = seen.last().expect("one").1.iter().map(|(.., hashes)| hashes.len()).sum();
            let current = house.register.gallery.current();
            assert_eq!((newest.version, newest.samples), (current.version(), samples as u64), "seed {seed}, turn {turn}");
            assert_eq!(current.template_count(), samples as u64, "memory holds what the store holds");
        }
    }
}
