//! The enrolment folder is read again while a camera is watched.
//!
//! In: a real RTSP camera that shows somebody again and again, forty people's photos. Out: verdicts on
//! the events meanwhile. Must not know: the insides of a reload.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use doorward::pb;
use doorward::pb::EventType;
use doorward::pb::gallery_service_client::GalleryServiceClient;

use crate::daemon::{add_camera, enrol, events_until, identified, of_type, subscribe};
use crate::faces;
use crate::ingest::support::CameraProcess;
use crate::support::{Clip, Daemon, resources};

/// The clip shows somebody for three seconds, and then nobody for as long.
const PERIOD_MICROS: i64 = 6_000_000;

fn copy_people(from: &Path, to: &Path) -> usize {
    let mut photos = 0;
    let people = fs::read_dir(from).expect("the photos").map(|entry| entry.expect("an entry").path());
    for person in people.filter(|path| path.is_dir()) {
        let own = to.join(person.file_name().expect("a name"));
        fs::create_dir(&own).expect("made");
        for photo in fs::read_dir(&person).expect("photos").map(|entry| entry.expect("an entry").path()) {
            fs::copy(&photo, own.join(photo.file_name().expect("a name"))).expect("copied");
            photos += 1;
        }
    }
    photos
}

fn micros(event: &pb::Event) -> i64 {
    event.capture_time.as_ref().map(|time| time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000).expect("a time")
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_missed_while_the_folder_of_forty_people_is_read() {
    let what = "a reload under a running camera";
    let Some((photos, folder)) = resources(what).zip(faces::bootstrapped("orl_faces", what)) else { return };
    let people = tempfile::tempdir().expect("a folder");
    let clip = Clip::of(&[photos.join("obama2.jpg")]);
    let camera = CameraProcess::start(&["--file", &clip.file().display().to_string()]);
    // A visit may be decided as late as on the slowest machine that still sees every showing.
    let settings =
        [&*format!("people_dir={}", people.path().display()), "recognition.decision_deadline_ms=60000", "recognition.visit_resume_ms=0"];
    let daemon = Daemon::start(&settings).await;
    let channel = daemon.channel().await;
    enrol(&channel, "obama", photos.join("obama.jpg")).await;
    let mut stream = subscribe(&channel).await;
    add_camera(&channel, "front-door", camera.url.as_str()).await;
    let mut events = events_until(&mut stream, |seen| identified(seen, "obama")).await;

    let copied = copy_people(&folder, people.path());
    let reload = tokio::spawn({
        let mut client = GalleryServiceClient::new(channel.clone());
        async move { client.reload_gallery(pb::ReloadGalleryRequest::default()).await }
    });
    // Visits are read on as they come, and two more after the end of the reload.
    let mut visits_after = 0;
    while visits_after < 2 {
        let is_over = reload.is_finished();
        events.extend(events_until(&mut stream, |seen| !of_type(seen, EventType::VisitEnded).is_empty()).await);
        visits_after += usize::from(is_over);
    }
    let report = reload.await.expect("no panic").expect("the folder was read").into_inner();

    let of_camera = |event: &&pb::Event| event.camera_id == "front-door";
    let mut visits: BTreeMap<&str, Vec<&pb::Event>> = BTreeMap::new();
    for event in events.iter().filter(of_camera).filter(|event| !event.visit_id.is_empty()) {
        visits.entry(&event.visit_id).or_default().push(event);
    }
    visits.retain(|_, events| events.iter().any(|event| event.r#type() == EventType::VisitEnded));
    let mut shown: Vec<i64> = Vec::new();
    for (visit, events) in &visits {
        let told: Vec<(EventType, &str)> =
            events.iter().map(|event| (event.r#type(), event.subject.as_ref().map_or("", |subject| subject.id.as_str()))).collect();
        assert!(told.contains(&(EventType::Identified, "obama")), "visit {visit} at a door: {told:?}");
        shown.extend(events.iter().find(|event| event.r#type() == EventType::VisitStarted).map(|event| micros(event)));
    }
    shown.sort_unstable();
    let longest = shown.windows(2).map(|pair| pair[1] - pair[0]).max().expect("several visits");
    println!(
        "{} visits, {longest} us apart at most, while {} of {copied} photos were refused: version {}",
        visits.len(),
        report.refused_files.len(),
        report.gallery_version
    );
    assert!(longest < PERIOD_MICROS * 3 / 2, "somebody came and no visit was told: {shown:?}");
    let counts: Vec<u64> =
        events.iter().filter_map(|event| event.decision.as_ref()).map(|decision| decision.gallery_subject_count).collect();
    let all = 1 + u64::from(report.subjects_added);
    assert_eq!(report.subjects_added, 40);
    assert!(counts.iter().all(|count| *count == 1 || *count == all), "the whole old gallery or the whole new one: {counts:?}");
    assert_eq!(counts.last(), Some(&all));
}
