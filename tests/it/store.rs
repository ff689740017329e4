//! Whatever the store acknowledged is there after the process was killed.
//!
//! In: a child, this same binary, that changes a store and says on its standard output what was
//! acknowledged; it is killed with SIGKILL after a seeded number of lines. Out: verdicts on what
//! the next opening finds. A kill leaves the system's caches alone: that commits are synced is a
//! unit test of the store.
//! Must not know: the tables.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use doorward::clock::Timestamp;
use doorward::event::{Event, EventKind, SnapshotId, VisitId};
use doorward::event_log::EventLog;
use doorward::face::{Quality, Template, TemplateSpace};
use doorward::frame::CameraId;
use doorward::mutation::Mutation;
use doorward::store::{Call, Snapshot, Store};
use doorward::subject::{Origin, Sample, SampleId, Subject, SubjectId, SubjectUid};
use uuid::Uuid;

/// Where the child finds its data directory; without it the child's test does nothing.
const CHILD_DIRECTORY: &str = "DOORWARD_TEST_STORE_CHILD";
/// Has the child enrol alone, so many times, and end.
const CHILD_ENROLMENTS: &str = "DOORWARD_TEST_STORE_ENROLMENTS";
/// How often the child is killed, and what says otherwise.
const TURNS: usize = 50;
const TURNS_VARIABLE: &str = "DOORWARD_KILL_TURNS";
/// In every so many turns, and in the last, all that was ever acknowledged is looked for.
const THOROUGH_EVERY: usize = 10;
const SEED: u64 = 20_26;
/// Every so many enrolments somebody is erased again.
const ERASE_EVERY: usize = 3;

/// What a child says of one acknowledged call: `event SEQUENCE VISIT`, `logged VISIT`, `picture SNAPSHOT`,
/// `subject VERSION ID KEY` or `erased VERSION ID`; and, before it asks for that, `erasing ID`.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // One write a line: the parent must never see half of one, and the kill may come at any time.
    out.write_all(format!("\nACK {line}\n").as_bytes()).and_then(|()| out.flush()).expect("the parent reads");
}

/// The begin of a visit, and the picture that follows it.
fn started() -> (Event, Snapshot) {
    let time = Timestamp::from_micros(1);
    let snapshot = Snapshot {
        id: SnapshotId(Uuid::new_v4()),
        camera: CameraId::parse("door").expect("a good id"),
        capture_time: time,
        subject: None,
        crop_jpeg: vec![1; 2_000],
        frame_jpeg: vec![2; 9_000],
    };
    let mut event = Event::new(EventKind::VisitStarted, "door", time);
    event.visit = Some(VisitId(Uuid::new_v4()));
    event.snapshot = Some(snapshot.id);
    (event, snapshot)
}

fn visit(event: &Event) -> Uuid {
    event.visit.expect("it has one").0
}

async fn append_events(store: Store) {
    loop {
        let pictures = vec![started(), started()];
        let first = store.append_events(pictures.iter().map(|(event, _)| event.clone()).collect()).await.expect("appended");
        for (sequence, (event, _)) in (first..).zip(&pictures) {
            say(&format!("event {sequence} {}", visit(event)));
        }
        store.put_snapshots(pictures.clone()).await.expect("kept");
        for (_, snapshot) in &pictures {
            say(&format!("picture {}", snapshot.id.0));
        }
    }
}

async fn append_to_log(log: EventLog) {
    loop {
        let (event, snapshot) = started();
        log.append(vec![event.clone()]).await.expect("appended");
        say(&format!("logged {}", visit(&event)));
        let id = snapshot.id.0;
        log.put_snapshots(vec![(event, snapshot)]).await.expect("kept");
        say(&format!("picture {id}"));
    }
}

async fn enrol(store: Store, times: usize) {
    for turn in 1..=times {
        let time = Timestamp::from_micros(1);
        let uid = SubjectUid(Uuid::new_v4());
        let id = SubjectId::parse(&format!("p-{}", uid.0)).expect("a good id");
        let subject = Subject {
            id: id.clone(),
            uid,
            display_name: "somebody".into(),
            watchlists: vec![],
            attributes: [].into(),
            consent_reference: String::new(),
            expire_time: None,
            origin: Origin::Rpc,
            create_time: time,
            update_time: time,
            revision: 1,
        };
        let sample = Sample {
            id: SampleId(Uuid::new_v4()),
            subject: uid,
            quality: Quality::default(),
            content_sha256: [3; 32],
            create_time: time,
            folder_path: None,
            negative: false,
        };
        let template = Template::normalised(TemplateSpace::new("space"), &[1.0, 2.0, 3.0]).expect("it has a direction");
        let mutations = vec![Mutation::PutSubject(subject), Mutation::PutSample { sample, template, photo: [9; 5_000].into() }];
        let key = Uuid::new_v4().to_string();
        let answer = id.as_str().as_bytes().to_vec();
        let call = Call { method: "create_subject".into(), request_key: Some(key.clone()) };
        let committed = store.mutate(mutations, call, Box::new(move |_| answer)).await.expect("committed");
        say(&format!("subject {} {id} {key}", committed.version));
        if turn % ERASE_EVERY == 0 {
            say(&format!("erasing {id}"));
            let call = Call { method: "delete_subject".into(), request_key: None };
            let erased = store.mutate(vec![Mutation::EraseSubject(uid)], call, Box::new(|_| Vec::new())).await.expect("erased");
            say(&format!("erased {} {id}", erased.version));
        }
    }
}

#[test]
#[ignore = "the child that everything_acknowledged_survives_a_kill starts and kills"]
fn child_that_changes_a_store_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else {
        println!("left out: {CHILD_DIRECTORY} is not set");
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = Store::open(Path::new(&directory)).expect("the store opens");
        if let Ok(times) = std::env::var(CHILD_ENROLMENTS) {
            return enrol(store, times.parse().expect("a number")).await;
        }
        let log = EventLog::open(store.clone(), 64).await.expect("the log opens");
        let work = [
            tokio::spawn(append_events(store.clone())),
            tokio::spawn(append_events(store.clone())),
            tokio::spawn(append_to_log(log)),
            tokio::spawn(enrol(store, usize::MAX)),
        ];
        for task in work {
            task.await.expect("it goes on until the kill");
        }
    });
}

const CHILD: [&str; 4] = ["--exact", "store::child_that_changes_a_store_until_it_is_killed", "--ignored", "--nocapture"];

/// Runs a child on `directory`, kills it after `lines` acknowledgements, and answers all it said.
fn acknowledged(directory: &Path, lines: usize) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(CHILD).env(CHILD_DIRECTORY, directory);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the child starts");
    let said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut heard = Vec::new();
    for line in said {
        let line = line.expect("the child writes text");
        if let Some(acknowledgement) = line.strip_prefix("ACK ") {
            heard.push(acknowledgement.to_owned());
            if heard.len() == lines {
                child.kill().expect("it is killed");
            }
        }
    }
    let status = child.wait().expect("it has ended");
    assert!(heard.len() >= lines, "the child ended by itself: {status}, after {} lines", heard.len());
    heard
}

/// What children said, over all turns.
#[derive(Default)]
struct Heard {
    visits: HashSet<Uuid>,
    snapshots: HashSet<Uuid>,
    /// Subject id to request key.
    subjects: HashMap<String, String>,
    /// Those whose erasure was asked for, and those who were erased.
    erasing: HashSet<String>,
    erased: HashSet<String>,
    sequences: HashSet<u64>,
    versions: HashSet<u64>,
}

impl Heard {
    fn note(&mut self, acknowledgement: &str) -> (u64, u64) {
        let words: Vec<&str> = acknowledgement.split(' ').collect();
        let uuid = |text: &str| Uuid::parse_str(text).expect("a whole line");
        let number = |text: &str| text.parse::<u64>().expect("a whole line");
        match words[..] {
            ["event", sequence, visit] => {
                assert!(self.sequences.insert(number(sequence)), "sequence {sequence} was given twice");
                self.visits.insert(uuid(visit));
                (number(sequence), 0)
            }
            ["logged", visit] => {
                self.visits.insert(uuid(visit));
                (0, 0)
            }
            ["picture", snapshot] => {
                self.snapshots.insert(uuid(snapshot));
                (0, 0)
            }
            ["subject", version, id, key] => {
                assert!(self.versions.insert(number(version)), "version {version} was given twice");
                self.subjects.insert(id.to_owned(), key.to_owned());
                (0, number(version))
            }
            ["erasing", id] => {
                self.erasing.insert(id.to_owned());
                (0, 0)
            }
            ["erased", version, id] => {
                assert!(self.versions.insert(number(version)), "version {version} was given twice");
                self.erased.insert(id.to_owned());
                (0, number(version))
            }
            _ => panic!("the child said {acknowledgement:?}"),
        }
    }
}

/// Checks a reopened store against what was heard, all of it or what is cheap to check; answers its last sequence and version.
async fn verify(store: &Store, heard: &Heard, is_thorough: bool) -> (u64, u64) {
    if !is_thorough {
        let newest = store.gallery_versions_before(None, 1).await.expect("they are read").remove(0);
        let (sequence, version) = (store.last_sequence().await.expect("read"), store.gallery_version().await.expect("read"));
        assert_eq!(newest.version, version, "the versions tell what there is");
        return (sequence, version);
    }
    let open = store.open_visits().await.expect("they are read");
    let open: HashSet<Uuid> = open.iter().map(|v| v.visit.0).collect();
    assert!(heard.visits.is_subset(&open), "{} acknowledged events are lost", heard.visits.difference(&open).count());
    for snapshot in &heard.snapshots {
        assert!(store.snapshot(SnapshotId(*snapshot)).await.expect("it is read").is_some(), "snapshot {snapshot} is lost");
    }
    let subjects = store.subjects().await.expect("they are read");
    let ids: HashSet<&str> = subjects.iter().map(|s| s.id.as_str()).collect();
    assert!(heard.erased.iter().all(|id| !ids.contains(id.as_str())), "somebody who was erased is back");
    for (id, key) in heard.subjects.iter().filter(|(id, _)| !heard.erasing.contains(*id)) {
        assert!(ids.contains(id.as_str()), "subject {id} is lost");
        let answer = store.request_answer(key).await.expect("it is read");
        assert_eq!(answer.as_deref(), Some(id.as_bytes()), "the answer commits with the change");
    }
    // Also of calls that nobody heard of: all of a call is there, or nothing.
    let templates = store.read_templates(|rows| rows.filter(Result::is_ok).count()).await.expect("they are read");
    assert_eq!(templates, subjects.len(), "one sample a subject");
    let (sequence, version) = (store.last_sequence().await.expect("read"), store.gallery_version().await.expect("read"));
    let newest = store.gallery_versions_before(None, 1).await.expect("they are read").remove(0);
    let counted = (newest.version, newest.subjects, newest.samples);
    assert_eq!(counted, (version, subjects.len() as u64, templates as u64), "the versions tell what there is");
    assert_eq!(sequence, open.len() as u64, "sequences have no gaps");
    (sequence, version)
}

#[test]
fn everything_acknowledged_survives_a_kill() {
    println!("seed {SEED}");
    let mut random = fastrand::Rng::with_seed(SEED);
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut heard = Heard::default();
    let mut epochs = HashSet::new();
    let (mut sequence, mut version) = (0, 0);
    let turns = std::env::var(TURNS_VARIABLE).map_or(TURNS, |turns| turns.parse().expect("a number of turns"));
    for turn in 0..turns {
        for line in acknowledged(directory.path(), random.usize(1..120)) {
            let (of_event, of_subject) = heard.note(&line);
            assert!(of_event == 0 || of_event > sequence, "turn {turn}: {line} after {sequence}");
            assert!(of_subject == 0 || of_subject > version, "turn {turn}: {line} after {version}");
        }
        let store = Store::open(directory.path()).expect("it opens after a kill");
        epochs.insert(store.epoch());
        (sequence, version) = runtime.block_on(verify(&store, &heard, turn % THOROUGH_EVERY == 0 || turn + 1 == turns));
    }
    let (events, subjects, erased) = (heard.visits.len(), heard.subjects.len(), heard.erased.len());
    println!("{turns} kills; {events} events and {subjects} subjects acknowledged, all found; {erased} of them erased, none is back");
    assert!(events > turns && !heard.snapshots.is_empty() && subjects > 0 && (erased > 0 || turns < TURNS), "the turns did something");
    assert_eq!(epochs.len(), 1, "the log keeps its name");
}

/// A kill leaves what the system has in memory; only a sync survives a power cut. So the system calls
/// of a child are watched: when it acknowledges something, nothing may be written and not yet synced.
#[test]
fn what_is_acknowledged_was_synced_to_the_disk_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let trace = directory.path().join("trace");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "40", "-e", "trace=write,pwrite64,fsync,fdatasync", "-o"]).arg(&trace);
    strace.arg(std::env::current_exe().expect("this binary")).args(CHILD);
    strace.env(CHILD_DIRECTORY, directory.path().join("data")).env(CHILD_ENROLMENTS, "30").stdout(Stdio::null());
    match strace.status() {
        Ok(status) if status.success() => {}
        // Some containers forbid to trace.
        Ok(status) => return println!("left out: strace ended with {status}"),
        Err(error) => return println!("left out: strace cannot be run ({error}); script/bootstrap installs it"),
    }
    let (mut unsynced, mut syncs, mut acknowledged) = (0_u32, 0_u32, 0_u32);
    for line in std::fs::read_to_string(&trace).expect("a trace").lines() {
        let of_log = line.contains("doorward.db-wal>");
        if line.contains("pwrite64(") && of_log {
            unsynced += 1;
        } else if (line.contains("fdatasync(") || line.contains("fsync(")) && of_log {
            assert!(line.ends_with("= 0") || line.contains("unfinished"), "{line}");
            (unsynced, syncs) = (0, syncs + 1);
        } else if line.contains("ACK subject") || line.contains("ACK erased") {
            acknowledged += 1;
            assert_eq!(unsynced, 0, "acknowledged before it was synced: {line}");
        }
    }
    println!("{acknowledged} acknowledgements, {syncs} syncs of the write-ahead log, each before its acknowledgement");
    assert!(acknowledged == 40 && syncs >= acknowledged, "{acknowledged} acknowledgements, {syncs} syncs");
}
