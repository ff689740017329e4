//! An exported gallery is of one moment, whole, readable by other tools, and holds nobody who is gone.
//!
//! In: a store that is thrown away. Out: verdicts. Prints what is left out without `tar` and `sha256sum`.
//! Must not know: how the file is written.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};

use super::{commit, put_sample, sample, store, subject, template};
use crate::mutation::Mutation;
use crate::portable::{Person, Portable, PortableError};
use crate::store::{Export, ExportFacts, StoreError, export};
use crate::subject::{Sample, Subject};

fn exported(data_dir: &Path, file: &Path, photos: bool) -> Result<ExportFacts, StoreError> {
    export(data_dir, Export { file, photos, progress: &mut |_, _| (), is_stopped: &|| false })
}

fn photo(number: u8) -> Vec<u8> {
    [&[0xff, 0xd8][..], &[number; 900]].concat()
}

/// A sample whose hash is that of its photo.
fn true_sample(of: &Subject, number: u8) -> Sample {
    Sample { content_sha256: Sha256::digest(photo(number)).into(), ..sample(of, 0) }
}

fn people_of(file: &Path) -> Vec<Person> {
    let portable = Portable::open(std::fs::File::open(file).expect("it is there")).expect("it is whole");
    let mut people = Vec::new();
    let outcome = portable.each_person(|person| {
        people.push(person);
        Ok::<_, PortableError>(())
    });
    outcome.expect("it is read");
    people
}

#[tokio::test]
async fn who_is_known_is_exported_while_the_store_is_open_and_nobody_who_is_gone() {
    let (directory, store) = store();
    let mut random = fastrand::Rng::with_seed(21);
    let [bert, anna, erased, retired] = ["bert", "anna", "erased", "retired"].map(subject);
    let (first, second, third) = (true_sample(&bert, 1), true_sample(&anna, 2), true_sample(&bert, 3));
    let templates = [(); 3].map(|()| template(&mut random));
    let mut mutations: Vec<Mutation> = [&bert, &anna, &erased, &retired].map(|who| Mutation::PutSubject(who.clone())).into();
    for ((sample, number), template) in [(&first, 1), (&second, 2), (&third, 3)].into_iter().zip(&templates) {
        mutations.push(put_sample(sample, template, &photo(number)));
    }
    for (who, number) in [(&erased, 4), (&retired, 5)] {
        mutations.push(put_sample(&true_sample(who, number), &template(&mut random), &photo(number)));
    }
    commit(&store, mutations).await;
    commit(&store, vec![Mutation::EraseSubject(erased.uid), Mutation::RetireSubject(retired.uid)]).await;

    let file = directory.path().join("people.tar");
    let facts = exported(directory.path(), &file, true).expect("exported");
    let manifest = &facts.manifest;
    assert_eq!((manifest.subjects, manifest.samples, manifest.photos, manifest.gallery_version), (2, 3, 3, 12));
    assert_eq!(facts.bytes, file.metadata().expect("it is there").len());
    assert_eq!(file.metadata().expect("it is there").permissions().mode() & 0o777, 0o600);
    let people = people_of(&file);
    let told: Vec<_> = people.iter().map(|person| (&person.subject, person.samples.len())).collect();
    assert_eq!(told, [(&anna, 1), (&bert, 2)]);
    let samples: Vec<_> = people.iter().flat_map(|person| &person.samples).collect();
    for (found, (sample, template, number)) in
        samples.iter().zip([(&second, &templates[1], 2), (&first, &templates[0], 1), (&third, &templates[2], 3)])
    {
        assert_eq!(
            (&found.sample, &found.templates[..], found.photo.as_deref()),
            (sample, std::slice::from_ref(template), Some(&photo(number)[..]))
        );
    }
    let bytes = std::fs::read(&file).expect("read");
    assert!(!bytes.windows(100).any(|window| window == [4; 100] || window == [5; 100]), "photos of those who are gone");

    let bare = directory.path().join("bare.tar");
    assert_eq!(exported(directory.path(), &bare, false).expect("exported").manifest.photos, 0);
    assert!(people_of(&bare).iter().flat_map(|person| &person.samples).all(|sample| sample.photo.is_none()));
}

#[tokio::test]
async fn nothing_is_overwritten_and_a_failed_export_leaves_nothing() {
    let (directory, store) = store();
    let outside = tempfile::tempdir().expect("a directory");
    let file = outside.path().join("people.tar");
    std::fs::write(&file, "a letter").expect("written");
    assert_eq!(exported(directory.path(), &file, true), Err(StoreError::Exists(file.clone())));
    assert_eq!(std::fs::read(&file).expect("read"), b"a letter");
    std::fs::remove_file(&file).expect("removed");
    // A sample whose template is damaged on the disk.
    let anna = subject("anna");
    let mut random = fastrand::Rng::with_seed(22);
    commit(&store, vec![Mutation::PutSubject(anna.clone()), put_sample(&true_sample(&anna, 1), &template(&mut random), &photo(1))]).await;
    let database = rusqlite::Connection::open(directory.path().join("doorward.db")).expect("it opens");
    database.execute("UPDATE templates SET vector = x'00'", []).expect("damaged");
    assert!(matches!(exported(directory.path(), &file, true), Err(StoreError::Damaged { .. })));
    assert_eq!(outside.path().read_dir().expect("listed").count(), 0, "not even an unfinished file");
}

#[tokio::test]
async fn an_export_that_is_stopped_or_whose_name_is_taken_meanwhile_leaves_nothing_and_overwrites_nothing() {
    let (directory, store) = store();
    let outside = tempfile::tempdir().expect("a directory");
    let file = outside.path().join("people.tar");
    let anna = subject("anna");
    let mut random = fastrand::Rng::with_seed(24);
    commit(&store, vec![Mutation::PutSubject(anna.clone()), put_sample(&true_sample(&anna, 1), &template(&mut random), &photo(1))]).await;
    let nothing_yet = || assert!(!file.exists(), "it has its name when it is whole");
    let stop = || {
        nothing_yet();
        true
    };
    let stopped = export(directory.path(), Export { file: &file, photos: true, progress: &mut |_, _| (), is_stopped: &stop });
    assert_eq!(stopped, Err(StoreError::Interrupted));
    assert_eq!(outside.path().read_dir().expect("listed").count(), 0);
    let mut take_the_name = |_, _| std::fs::write(&file, "a letter").expect("written");
    let late = export(directory.path(), Export { file: &file, photos: true, progress: &mut take_the_name, is_stopped: &|| false });
    assert_eq!(late, Err(StoreError::Exists(file.clone())));
    assert_eq!((outside.path().read_dir().expect("listed").count(), std::fs::read(&file).expect("read")), (1, b"a letter".to_vec()));
}

#[tokio::test]
async fn other_tools_read_the_file_and_vouch_for_it() {
    let has = |tool: &str| Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !has("tar") || !has("sha256sum") {
        println!("LEFT OUT: unpacking an export with other tools: tar or sha256sum is not there");
        return;
    }
    let (directory, store) = store();
    let mut random = fastrand::Rng::with_seed(23);
    // The longest id there can be, of letters that take two bytes.
    let long = subject(&"ä".repeat(64));
    let mutations = vec![Mutation::PutSubject(long.clone()), put_sample(&true_sample(&long, 1), &template(&mut random), &photo(1))];
    commit(&store, mutations).await;
    let (file, unpacked) = (directory.path().join("people.tar"), tempfile::tempdir().expect("a directory"));
    exported(directory.path(), &file, true).expect("exported");
    let unpack = Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(unpacked.path()).status().expect("tar runs");
    assert!(unpack.success());
    let check = |folder: &Path| Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(folder).output();
    let checked = check(unpacked.path()).expect("sha256sum runs");
    let told = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && told.lines().count() == 4, "{checked:?}");
    std::fs::write(unpacked.path().join("subjects.jsonl"), "{}\n").expect("altered");
    assert!(!check(unpacked.path()).expect("sha256sum runs").status.success());
}
