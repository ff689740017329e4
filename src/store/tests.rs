//! What the store promises of itself: directory, lock, schema, damage, commits.
//!
//! In: a directory that is thrown away. Out: verdicts. Seeds are fixed.
//! Must not know: the stages above.

use std::future::poll_fn;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::mpsc;
use std::task::Poll;

use rusqlite::Connection;
use tempfile::TempDir;
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::event::{Event, EventKind, VisitId};
use crate::face::{Quality, Template, TemplateSpace};
use crate::mutation::Mutation;
use crate::store::writer::Effect;
use crate::store::{Answer, Call, Store, StoreError, StoredTemplate, schema};
use crate::subject::{Origin, Sample, SampleId, Subject, SubjectId, SubjectUid};

mod backup;
mod cameras_and_events;
mod erasure;
mod export;
mod gallery;
mod reencode;
mod shadow;
mod upgrade;

/// A store in a directory of its own.
/// A call whose answer is kept.
fn keyed(key: &str) -> Call {
    Call { method: "test".into(), request_key: Some(key.into()) }
}

fn store() -> (TempDir, Store) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path()).expect("the store opens");
    (directory, store)
}

fn no_answer() -> Answer {
    Box::new(|_| Vec::new())
}

async fn commit(store: &Store, mutations: Vec<Mutation>) -> u64 {
    store.mutate(mutations, Call::default(), no_answer()).await.expect("the mutations are committed").version
}

pub(crate) fn subject(id: &str) -> Subject {
    Subject {
        id: SubjectId::parse(id).expect("a good id"),
        uid: SubjectUid(Uuid::new_v4()),
        display_name: format!("The person called {id}"),
        watchlists: vec!["night".into(), "staff".into()],
        attributes: [("floor".to_owned(), "3".to_owned())].into(),
        consent_reference: "file 7".into(),
        expire_time: Some(Timestamp::from_micros(99)),
        origin: Origin::Rpc,
        create_time: Timestamp::from_micros(1),
        update_time: Timestamp::from_micros(2),
        revision: 3,
    }
}

fn sample(subject: &Subject, content: u8) -> Sample {
    Sample {
        id: SampleId(Uuid::new_v4()),
        subject: subject.uid,
        quality: Quality { overall: 0.7, yaw_degrees: -12.5, detection_score: 0.93, ..Quality::default() },
        content_sha256: [content; 32],
        create_time: Timestamp::from_micros(5),
        folder_path: None,
        negative: false,
    }
}

/// A template of 128 random numbers.
async fn templates(store: &Store) -> Vec<StoredTemplate> {
    store.read_templates(|rows| rows.collect::<Result<_, _>>()).await.expect("they are read").expect("all are whole")
}

fn template(random: &mut fastrand::Rng) -> Template {
    let values: Vec<f32> = (0..128).map(|_| random.f32() - 0.5).collect();
    Template::normalised(TemplateSpace::new("sface-1"), &values).expect("it has a direction")
}

fn put_sample(sample: &Sample, template: &Template, photo: &[u8]) -> Mutation {
    Mutation::PutSample { sample: sample.clone(), template: template.clone(), photo: photo.into() }
}

fn started(camera: &str) -> Event {
    let mut event = Event::new(EventKind::VisitStarted, camera, Timestamp::from_micros(1_000));
    event.visit = Some(VisitId(Uuid::new_v4()));
    event
}

/// Polls `future` once: what it wants written is queued then.
pub(crate) async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

impl Store {
    /// Stops the writer until the answer is dropped, so that a test decides what is queued together.
    pub(crate) async fn hold_writer(&self) -> mpsc::Sender<()> {
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let store = self.clone();
        let hold = async move {
            let work = move |_: &Connection| {
                let _ = begin.send(());
                let _ = released.recv();
                Ok(())
            };
            store.0.writer.write(Effect::Keeps, work).await
        };
        tokio::spawn(hold);
        begun.await.expect("the writer takes the job");
        release
    }

    /// Makes every credential unreadable, those too that are kept from now on.
    pub(crate) async fn damage_credentials(&self) {
        let work = |db: &Connection| {
            Ok(db.execute_batch(
                "CREATE TRIGGER damaged AFTER INSERT ON credentials
                     BEGIN UPDATE credentials SET password = CAST(x'ff' AS TEXT); END;
                 UPDATE credentials SET password = CAST(x'ff' AS TEXT);",
            )?)
        };
        self.0.writer.write(Effect::Keeps, work).await.expect("it is damaged");
    }

    /// Lets the database grow by `pages` and no further; `None` lifts the limit.
    pub(crate) async fn limit_growth(&self, pages: Option<i64>) {
        let work = move |db: &Connection| {
            let now: i64 = db.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            let limit = pages.map_or(i64::from(u32::MAX) - 1, |more| now + more);
            Ok(db.query_row(&format!("PRAGMA max_page_count = {limit}"), [], |_| Ok(()))?)
        };
        self.0.writer.write(Effect::Keeps, work).await.expect("the limit is set");
    }
}

#[test]
fn the_directory_and_its_files_are_closed_to_others() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("state/doorward");
    let _store = Store::open(&directory).expect("the store opens");
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    let files: Vec<_> = directory.read_dir().expect("it can be listed").map(|f| f.expect("an entry").path()).collect();
    assert!(files.len() >= 3, "lock, database and write-ahead log: {files:?}");
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_second_daemon_is_refused_until_the_first_is_gone() {
    let (directory, store) = store();
    assert_eq!(Store::open(directory.path()).err(), Some(StoreError::Locked(directory.path().to_owned())));
    store.append_events(vec![started("door")]).await.expect("the first goes on");
    drop(store);
    assert!(Store::open(directory.path()).is_ok());
}

#[test]
fn a_file_is_no_data_directory() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "x").expect("it is written");
    assert!(matches!(Store::open(&file).err(), Some(StoreError::NotADirectory(_))));
    assert!(matches!(Store::open(&file.join("below")).err(), Some(StoreError::NotADirectory(_))));
}

#[test]
fn a_database_of_a_newer_doorward_is_refused_and_left_as_it_is() {
    let (directory, store) = store();
    drop(store);
    let file = directory.path().join("doorward.db");
    let db = Connection::open(&file).expect("it opens");
    db.pragma_update(None, "user_version", 99).expect("it is set");
    drop(db);
    let known = schema::MIGRATIONS.len() as u32;
    assert_eq!(Store::open(directory.path()).err(), Some(StoreError::TooNew { found: 99, known }));
    let db = Connection::open(&file).expect("it opens");
    let version: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("it is read");
    assert_eq!(version, 99);
}

#[tokio::test]
async fn a_damaged_database_says_what_to_do() {
    let (directory, store) = store();
    for number in 0..200 {
        commit(&store, vec![Mutation::PutSubject(subject(&format!("person-{number}")))]).await;
    }
    drop(store);
    let file = directory.path().join("doorward.db");
    let good = std::fs::read(&file).expect("it is read");

    let mut bad = good.clone();
    bad[..4096].fill(0x5a);
    std::fs::write(&file, &bad).expect("it is written");
    let error = Store::open(directory.path()).err().expect("it is refused");
    assert!(matches!(error, StoreError::Damaged { .. }) && error.to_string().contains("doorward gallery restore"), "{error}");

    let mut bad = good;
    bad[2 * 4096..].fill(0x5a);
    std::fs::write(&file, &bad).expect("it is written");
    let outcome = match Store::open(directory.path()) {
        Ok(store) => store.subjects().await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(matches!(outcome, Err(StoreError::Damaged { .. })), "{outcome:?}");
}

#[test]
fn a_migration_is_made_once_and_whole_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut db = Connection::open(directory.path().join("db")).expect("it opens");
    let (first, second) = ("CREATE TABLE a (x); INSERT INTO a VALUES (1);", "ALTER TABLE a ADD COLUMN y; UPDATE a SET y = x + 1;");
    schema::migrate(&mut db, &[first]).expect("the first is made");
    let broken = "INSERT INTO a VALUES (7); INSERT INTO no_such_table VALUES (1);";
    assert!(schema::migrate(&mut db, &[first, broken]).is_err());
    for _ in 0..2 {
        schema::migrate(&mut db, &[first, second]).expect("the second is made");
        let rows: Vec<(i64, i64)> = db
            .prepare("SELECT x, y FROM a")
            .and_then(|mut all| all.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
            .expect("both columns are there");
        assert_eq!(rows, [(1, 2)]);
    }
    assert_eq!(schema::migrate(&mut db, &[first]), Err(StoreError::TooNew { found: 2, known: 1 }));
}

#[tokio::test]
async fn every_commit_is_synced_and_what_is_deleted_is_overwritten() {
    let (_directory, store) = store();
    let pragma = |name: &'static str| {
        let read = move |db: &Connection| Ok(db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))?);
        store.0.writer.write(Effect::Keeps, read)
    };
    assert_eq!(pragma("synchronous").await, Ok(2), "FULL");
    assert_eq!(pragma("secure_delete").await, Ok(1));
    assert_eq!(pragma("foreign_keys").await, Ok(1));
    assert_eq!(pragma("temp_store").await, Ok(2), "MEMORY");
}

#[tokio::test]
async fn a_hundred_concurrent_appends_share_a_sync() {
    let (_directory, store) = store();
    let release = store.hold_writer().await;
    let mut appends: Vec<_> = (0..100).map(|_| Box::pin(store.append_events(vec![started("door"), started("door")]))).collect();
    for append in &mut appends {
        assert!(poll_once(append.as_mut()).await.is_none());
    }
    let before = store.counts().commits;
    drop(release);
    for (number, append) in appends.into_iter().enumerate() {
        assert_eq!(append.await, Ok(1 + 2 * number as u64), "sequences follow the order of the queue");
    }
    let commits = store.counts().commits - before;
    assert!(commits <= 2, "{commits} commits: the one that held the writer, and one for all appends");
}

#[tokio::test]
async fn a_change_that_fails_takes_no_other_with_it() {
    let (_directory, store) = store();
    let (anna, other) = (subject("anna"), subject("anna"));
    let release = store.hold_writer().await;
    let mut first = pin!(store.mutate(vec![Mutation::PutSubject(anna.clone())], Call::default(), no_answer()));
    let mut taken =
        pin!(store.mutate(vec![Mutation::PutSubject(subject("bert")), Mutation::PutSubject(other)], Call::default(), no_answer()));
    let mut last = pin!(store.append_events(vec![started("door")]));
    assert!(poll_once(first.as_mut()).await.is_none());
    assert!(poll_once(taken.as_mut()).await.is_none());
    assert!(poll_once(last.as_mut()).await.is_none());
    drop(release);
    assert_eq!(first.await.map(|c| c.version), Ok(1));
    assert!(matches!(taken.await, Err(StoreError::Contradiction(_))));
    assert_eq!(last.await, Ok(1));
    assert_eq!(store.subjects().await, Ok(vec![anna]), "nothing of the failed call is there");
}

#[tokio::test]
async fn a_full_disk_is_an_answer_and_what_was_answered_is_true() {
    let (_directory, store) = store();
    store.append_events(vec![started("door")]).await.expect("there is room");
    store.limit_growth(Some(20)).await;
    let mut random = fastrand::Rng::with_seed(3);
    let anna = subject("anna");
    let large = put_sample(&sample(&anna, 1), &template(&mut random), &vec![7; 1 << 20]);

    let release = store.hold_writer().await;
    let mut small = pin!(store.append_events(vec![started("door")]));
    let mut big = pin!(store.mutate(vec![Mutation::PutSubject(anna.clone()), large.clone()], Call::default(), no_answer()));
    let mut after = pin!(store.append_events(vec![started("door")]));
    assert!(poll_once(small.as_mut()).await.is_none());
    assert!(poll_once(big.as_mut()).await.is_none());
    assert!(poll_once(after.as_mut()).await.is_none());
    drop(release);
    assert_eq!(big.await, Err(StoreError::Full));
    let written = [small.await, after.await].iter().filter(|a| a.is_ok()).count() as u64;
    assert!(written >= 1, "the room that is left is used");
    assert_eq!(store.last_sequence().await, Ok(1 + written));
    assert_eq!(store.subjects().await, Ok(vec![]));

    store.limit_growth(None).await;
    assert_eq!(commit(&store, vec![Mutation::PutSubject(anna), large]).await, 2);
}
