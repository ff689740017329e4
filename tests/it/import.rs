//! Imports through the real daemon, the real command line and real photos: a kill in the middle, a bad
//! photo among good ones, somebody who was erased.
//!
//! In: the models, the AT&T faces. Out: nothing. Prints what is left out where they are missing.
//! Must not know: how photos are taken.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use doorward::pb;
use doorward::pb::gallery_service_client::GalleryServiceClient;
use serde_json::Value;

use crate::faces::bootstrapped;
use crate::support::{Daemon, resources};

const PEOPLE: usize = 12;

fn import(daemon: &Daemon, people: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["--server", daemon.server(), "--json", "subject", "import", "--all", "--allow-inconsistent"]).arg(people);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
}

/// What became of each photo, as far as it was told, and the exit code; `kill` is called after `told_max` lines.
fn told(mut child: Child, (told_max, mut kill): (usize, impl FnMut())) -> (BTreeMap<String, String>, i32) {
    let mut statuses = BTreeMap::new();
    for line in BufReader::new(child.stdout.take().expect("it is piped")).lines() {
        let line: Value = serde_json::from_str(&line.expect("text")).expect("an object");
        let Some(key) = line["item_key"].as_str() else { continue };
        let text = |name: &str| line[name].as_str().unwrap_or_default().trim_start_matches("IMPORT_STATUS_").to_owned();
        let said = if text("status") == "REFUSED" { text("reason") } else { text("status") };
        assert_eq!(statuses.insert(key.to_owned(), said), None, "{key} is told once");
        if statuses.len() == told_max {
            kill();
        }
    }
    (statuses, child.wait().expect("it ends").code().unwrap_or(-1))
}

fn imported(daemon: &Daemon, people: &Path) -> (BTreeMap<String, String>, i32) {
    told(import(daemon, people), (usize::MAX, || ()))
}

fn count(statuses: &BTreeMap<String, String>, status: &str) -> usize {
    statuses.values().filter(|said| *said == status).count()
}

/// The hash of every sample there is, and how many templates match.
async fn contents(daemon: &Daemon) -> (Vec<Vec<u8>>, u64) {
    let mut gallery = GalleryServiceClient::new(daemon.channel().await);
    let subjects = pb::ListSubjectsRequest { page_size: 1000, ..Default::default() };
    let subjects = gallery.list_subjects(subjects).await.expect("listed").into_inner().subjects;
    let mut contents = Vec::new();
    for subject in subjects {
        let request = pb::ListSamplesRequest { subject_id: subject.id, page_size: 1000, ..Default::default() };
        let samples = gallery.list_samples(request).await.expect("listed").into_inner().samples;
        contents.extend(samples.into_iter().map(|sample| sample.content_sha256));
    }
    let templates = gallery.get_gallery(pb::GetGalleryRequest {}).await.expect("known").into_inner().template_count;
    (contents, templates)
}

/// Twelve people with ten photos each, and a file that is no picture.
fn folder(faces: &Path, people: &Path) {
    for person in 1..=PEOPLE {
        let (from, to) = (faces.join(format!("s{person}")), people.join(format!("s{person}")));
        std::fs::create_dir(&to).expect("it is writable");
        for photo in 1..=10 {
            std::fs::copy(from.join(format!("{photo}.pgm")), to.join(format!("{photo}.pgm"))).expect("the photo is there");
        }
    }
    std::fs::write(people.join("s3/5x.jpg"), b"no picture").expect("it is writable");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_survives_a_kill_with_every_photo_in_once_and_brings_nobody_back_who_was_erased() {
    let left_out = "imports through the daemon";
    let (Some(_), Some(faces)) = (resources(left_out), bootstrapped("orl_faces", left_out)) else { return };
    let (people, data) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    folder(&faces, people.path());
    let mut daemon = Daemon::start_in(&data.path().join("data"), &[]).await;
    let child = import(&daemon, people.path());
    let (before, exit_code) = told(child, (20, || daemon.kill()));
    println!("{} photos were told of before the kill", before.len());
    assert!(exit_code != 0 && exit_code != 4, "an import that was cut off is no success: {exit_code}");

    let daemon = Daemon::start_in(&data.path().join("data"), &[]).await;
    let (after, exit_code) = imported(&daemon, people.path());
    let refused: BTreeSet<&str> = after.values().map(String::as_str).filter(|said| !["ADDED", "UNCHANGED"].contains(said)).collect();
    println!("{} added, {} unchanged; refused: {refused:?}", count(&after, "ADDED"), count(&after, "UNCHANGED"));
    assert_eq!((after.len(), after["s3/5x.jpg"].as_str(), exit_code), (PEOPLE * 10 + 1, "BAD_IMAGE", 4));
    for (photo, said) in &before {
        let now = if said == "ADDED" { "UNCHANGED" } else { said };
        assert_eq!(after[photo], now, "{photo} was told {said} before the kill");
    }
    let (mut hashes, templates) = contents(&daemon).await;
    hashes.sort();
    hashes.dedup();
    let taken = count(&after, "ADDED") + count(&after, "UNCHANGED");
    assert_eq!((hashes.len(), templates as usize), (taken, taken), "each is in exactly once");
    assert!(taken > PEOPLE * 9, "nearly all are good photos: {taken}");

    let erase = pb::DeleteSubjectRequest { id: "s7".into(), ..Default::default() };
    GalleryServiceClient::new(daemon.channel().await).delete_subject(erase).await.expect("erased");
    let (again, exit_code) = imported(&daemon, people.path());
    assert_eq!((count(&again, "ADDED"), exit_code), (0, 4));
    for (photo, said) in after.iter().filter(|(_, said)| ["ADDED", "UNCHANGED"].contains(&said.as_str())) {
        let now = if photo.starts_with("s7/") { "ERASED_PERSON" } else { "UNCHANGED" };
        assert_eq!(again[photo], now, "{photo} was {said}");
    }
}
