//! Tests of what a reload changes.
//!
//! In: made-up listings. Out: nothing. Must not know: files, the store.

use super::*;
use crate::enrol::tests::{id, prepared};

const NOW: Timestamp = Timestamp::from_micros(5);

/// A listing of photos `(subject, file, who, shot)`.
fn listing(photos: &[(&str, &str, u8, u8)]) -> Listing {
    let found = |(subject, file, who, shot): &(&str, &str, u8, u8)| FoundPhoto {
        subject: id(subject),
        path: format!("{subject}/{file}"),
        content_sha256: prepared(*who, *shot).content_sha256,
    };
    let mut listing = Listing { photos: photos.iter().map(found).collect(), ..Listing::default() };
    listing.photos.sort_by(|a, b| (&a.subject, &a.path).cmp(&(&b.subject, &b.path)));
    listing
}

/// Everything new of `photos` prepared.
fn all_prepared(photos: &[(&str, &str, u8, u8)]) -> PreparedPhotos {
    photos.iter().map(|(subject, file, who, shot)| (format!("{subject}/{file}"), Ok(prepared(*who, *shot)))).collect()
}

/// What is known after a reload of `photos` into nothing.
fn known(photos: &[(&str, &str, u8, u8)]) -> Known {
    let plan = plan(&listing(photos), &Known::default(), all_prepared(photos), NOW).expect("a plan");
    let mut known = Known::default();
    for mutation in plan.mutations {
        match mutation {
            Mutation::PutSubject(subject) => {
                known.subjects.insert(subject.id.clone(), subject);
            }
            Mutation::PutSample { sample, .. } => known.samples.entry(sample.subject).or_default().push(sample),
            other => panic!("{other:?}"),
        }
    }
    known
}

fn with_rpc_subjects(mut known: Known, names: impl Iterator<Item = String>) -> Known {
    for name in names {
        known.subjects.insert(id(&name), new_subject(Some(id(&name)), Origin::Rpc, NOW).expect("a subject"));
    }
    known
}

/// Subjects added, changed, removed; samples unchanged.
type Counts = (u32, u32, u32, u32);

/// The counts, and the path and reason of each refusal.
fn outcome(plan: &Plan) -> (Counts, Vec<(&str, &'static str)>) {
    let report = &plan.report;
    let refused = report.refused.iter().map(|file| (file.path.as_str(), file.reason)).collect();
    ((report.added, report.changed, report.removed, report.unchanged_samples), refused)
}

#[test]
fn only_new_and_changed_photos_are_prepared() {
    let known = known(&[("anna", "1.jpg", 1, 1), ("anna", "2.jpg", 1, 2), ("bo", "1.jpg", 2, 1)]);
    let now = listing(&[("anna", "1.jpg", 1, 1), ("anna", "2.jpg", 1, 7), ("bo", "1.jpg", 2, 1), ("cy", "1.jpg", 3, 1)]);
    let paths: Vec<&str> = photos_to_prepare(&now, &known).iter().map(|photo| photo.path.as_str()).collect();
    assert_eq!(paths, ["anna/2.jpg", "cy/1.jpg"]);
}

#[test]
fn a_reload_adds_changes_and_removes_what_the_folder_says() {
    let known = known(&[("anna", "1.jpg", 1, 1), ("anna", "2.jpg", 1, 2), ("bo", "1.jpg", 2, 1), ("di", "1.jpg", 4, 1)]);
    let photos = [("anna", "1.jpg", 1, 1), ("anna", "3.jpg", 1, 3), ("cy", "1.jpg", 3, 1), ("di", "1.jpg", 4, 1)];
    let plan = plan(&listing(&photos), &known, all_prepared(&photos), NOW).expect("a plan");
    assert_eq!(outcome(&plan), ((1, 1, 1, 2), vec![]));
    let retired: Vec<SubjectUid> =
        plan.mutations.iter().filter_map(|m| if let Mutation::RetireSubject(uid) = m { Some(*uid) } else { None }).collect();
    assert_eq!(retired, [known.subjects[&id("bo")].uid]);
    let revised = plan.mutations.iter().find_map(|m| match m {
        Mutation::PutSubject(subject) if subject.id == id("anna") => Some(subject),
        _ => None,
    });
    let before = &known.subjects[&id("anna")];
    assert_eq!(revised.map(|s| (s.uid, s.revision)), Some((before.uid, before.revision + 1)), "anna stays the same subject");
}

#[test]
fn an_unchanged_folder_changes_nothing() {
    let photos = [("anna", "1.jpg", 1, 1), ("bo", "1.jpg", 2, 1)];
    let plan = plan(&listing(&photos), &known(&photos), PreparedPhotos::new(), NOW).expect("a plan");
    assert!(plan.mutations.is_empty());
    assert_eq!(outcome(&plan), ((0, 0, 0, 2), vec![]));
}

#[test]
fn subjects_enrolled_by_rpc_are_never_touched() {
    let known = with_rpc_subjects(known(&[("anna", "1.jpg", 1, 1)]), ["bo", "cy"].into_iter().map(String::from));
    let photos = [("anna", "1.jpg", 1, 1), ("bo", "1.jpg", 2, 1)];
    assert!(photos_to_prepare(&listing(&photos), &known).is_empty());
    let plan = plan(&listing(&photos), &known, all_prepared(&photos), NOW).expect("a plan");
    assert!(plan.mutations.is_empty());
    assert_eq!(outcome(&plan), ((0, 0, 0, 1), vec![("bo", "SUBJECT_EXISTS")]));
}

#[test]
fn a_refused_photo_takes_nothing_away() {
    let known = known(&[("anna", "1.jpg", 1, 1), ("bo", "1.jpg", 2, 1)]);
    let refused = |path: &str| (path.to_owned(), Err(FileRemark { path: path.into(), reason: "NO_FACE", message: String::new() }));
    // Replaced at its path, and replaced by a file of another name.
    let now = listing(&[("anna", "1.jpg", 1, 9), ("bo", "2.jpg", 2, 9)]);
    let prepared = [refused("anna/1.jpg"), refused("bo/2.jpg")].into_iter().collect();
    let plan_refused = plan(&now, &known, prepared, NOW).expect("a plan");
    assert!(plan_refused.mutations.is_empty(), "{:?}", plan_refused.mutations);
    assert_eq!(outcome(&plan_refused), ((0, 0, 0, 2), vec![("anna/1.jpg", "NO_FACE"), ("bo/2.jpg", "NO_FACE")]));
    // A directory that cannot be looked into, a file that cannot be read.
    let mut unread = listing(&[]);
    unread.unread_subjects.insert("anna".into());
    unread.unread_files.insert("bo/1.jpg".into());
    assert!(check_mass_removal(&unread, &known).is_ok());
    assert!(plan(&unread, &known, PreparedPhotos::new(), NOW).expect("a plan").mutations.is_empty());
}

#[test]
fn one_picture_in_two_directories_enrols_one_person() {
    let photos = [("anna", "1.jpg", 1, 1), ("bo", "1.jpg", 1, 1), ("bo", "2.jpg", 2, 2)];
    let fresh = plan(&listing(&photos), &Known::default(), all_prepared(&photos), NOW).expect("a plan");
    assert_eq!(outcome(&fresh), ((2, 0, 0, 0), vec![("bo/1.jpg", "PHOTO_OF_ANOTHER_SUBJECT")]));
    // Whoever has it already keeps it, whatever the order of names.
    let known = known(&photos[1..]);
    let later = plan(&listing(&photos), &known, all_prepared(&photos), NOW).expect("a plan");
    assert_eq!(outcome(&later), ((0, 0, 0, 2), vec![("anna/1.jpg", "PHOTO_OF_ANOTHER_SUBJECT")]));
    // A picture that was moved changes its owner.
    let moved = [("anna", "1.jpg", 1, 1), ("bo", "2.jpg", 2, 2)];
    let after = plan(&listing(&moved), &known, all_prepared(&moved), NOW).expect("a plan");
    assert_eq!(outcome(&after), ((1, 1, 0, 1), vec![]));
}

#[test]
fn a_subject_has_a_limited_number_of_photos() {
    let names: Vec<String> = (0..SAMPLES_A_SUBJECT_MAX + 2).map(|n| format!("{n:03}.jpg")).collect();
    let photos: Vec<(&str, &str, u8, u8)> = names.iter().enumerate().map(|(n, name)| ("anna", name.as_str(), 1, n as u8)).collect();
    let plan = plan(&listing(&photos), &Known::default(), all_prepared(&photos), NOW).expect("a plan");
    assert_eq!(outcome(&plan).1, [("anna/100.jpg", "TOO_MANY_PHOTOS"), ("anna/101.jpg", "TOO_MANY_PHOTOS")]);
}

#[test]
fn photos_added_by_command_count_among_a_subjects_hundred() {
    let names: Vec<String> = (0..SAMPLES_A_SUBJECT_MAX).map(|n| format!("{n:03}.jpg")).collect();
    let photos: Vec<(&str, &str, u8, u8)> = names.iter().enumerate().map(|(n, name)| ("anna", name.as_str(), 1, n as u8)).collect();
    let mut known = known(&photos[..97]);
    let uid = known.subjects[&id("anna")].uid;
    known.other_samples.insert(uid, 2);
    let plan_now = |known: &Known| plan(&listing(&photos), known, all_prepared(&photos[97..]), NOW).expect("a plan");
    assert_eq!(outcome(&plan_now(&known)).1, [("anna/098.jpg", "TOO_MANY_PHOTOS"), ("anna/099.jpg", "TOO_MANY_PHOTOS")]);
    // As many as she left with.
    let subject = known.subjects.remove(&id("anna")).expect("anna");
    let by_command = |shot| (new_sample(&prepared(2, shot), uid, NOW), prepared(2, shot).template);
    let samples = known.samples[&uid].iter().map(|sample| (sample.clone(), prepared(1, 1).template)).chain([by_command(1), by_command(2)]);
    let person = RetiredPerson { subject, samples: samples.collect() };
    known.returning.insert(id("anna"), person);
    assert_eq!(outcome(&plan_now(&known)).1, [("anna/098.jpg", "TOO_MANY_PHOTOS"), ("anna/099.jpg", "TOO_MANY_PHOTOS")]);
}

#[test]
fn removing_more_than_a_tenth_or_the_whole_folder_needs_leave() {
    for (from_folder, by_rpc, removed, refused) in [
        (20, 0, 0, false),
        (20, 0, 2, false),
        (20, 0, 3, true),
        (10, 10, 2, false),
        (10, 10, 3, true),
        (1, 0, 1, true),
        // A folder that is not mounted looks like this, however many others there are.
        (3, 100, 3, true),
        (3, 100, 2, false),
    ] {
        let names: Vec<String> = (0..from_folder).map(|n| format!("f{n:02}")).collect();
        let photos: Vec<(&str, &str, u8, u8)> = names.iter().enumerate().map(|(n, name)| (name.as_str(), "1.jpg", 1, n as u8)).collect();
        let known = with_rpc_subjects(known(&photos), (0..by_rpc).map(|n| format!("r{n}")));
        let result = check_mass_removal(&listing(&photos[removed..]), &known);
        match result {
            Ok(()) => assert!(!refused, "{removed} of {from_folder} + {by_rpc}"),
            Err(EnrolError::MassRemoval { removed: said, total }) => {
                assert!(refused && said == removed && total == from_folder + by_rpc, "{removed} of {from_folder} + {by_rpc}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}
