//! A data directory of the first version is opened with all that was in it.
//!
//! In: the tables of the first version, filled with what a store of today wrote. Out: verdicts. Seeds are fixed.
//! Must not know: the gallery in memory.

use rusqlite::Connection;

use super::{cameras_and_events, commit, put_sample, sample, schema, store, subject, template, templates};
use crate::camera::{Camera, CameraId, Credential, Role, Secret};
use crate::mutation::Mutation;
use crate::store::{CredentialChange, Store};
use crate::telling::Telling;

/// What the first version had of everything that an operator entered, in an order in which it can be filled.
const TABLES: [&str; 8] = ["subjects", "spaces", "samples", "templates", "photos", "mutations", "cameras", "credentials"];

/// Makes a database of the first version with the rows of one of today, as far as it had their columns.
fn as_of_the_first_version(today: &std::path::Path, first: &std::path::Path) {
    let mut db = Connection::open(first).expect("it opens");
    schema::migrate(&mut db, &schema::MIGRATIONS[..1]).expect("the first version's tables");
    db.execute("ATTACH ?1 AS today", [today.to_str().expect("a path of letters")]).expect("attached");
    for table in TABLES {
        let columns: Vec<String> = db
            .prepare(&format!("SELECT name FROM pragma_table_info('{table}', 'main')"))
            .and_then(|mut names| names.query_map([], |row| row.get(0))?.collect())
            .expect("its columns");
        let columns = columns.join(", ");
        let copied = db.execute(&format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM today.{table}"), []);
        assert!(copied.expect("copied") > 0, "nothing was in {table}");
    }
}

#[tokio::test]
async fn people_samples_templates_and_cameras_of_the_first_version_are_there_after_an_upgrade() {
    let (directory, old) = store();
    let mut random = fastrand::Rng::with_seed(1);
    let people = ["anna", "bob", "zoe"].map(subject);
    for (number, owner) in people.iter().enumerate() {
        for content in 0..3 {
            let given = sample(owner, (3 * number + content) as u8);
            commit(&old, vec![Mutation::PutSubject(owner.clone()), put_sample(&given, &template(&mut random), b"photo")]).await;
        }
    }
    // What later versions brought has its default.
    let camera = |id: &str, role| Camera { role, telling: Telling::default(), target_fpir: None, ..cameras_and_events::camera(id) };
    let credential = Credential { username: "keeper".into(), password: Secret::new("as it was") };
    let change = CredentialChange::Set(credential.clone());
    old.put_camera(camera("door", Role::Entry), change, None).await.expect("it is put");
    old.put_camera(camera("hall", Role::Interior), CredentialChange::Keep, None).await.expect("it is put");
    let (cameras, version) = (old.cameras().await.expect("read"), old.gallery_version().await.expect("read"));
    let mut samples = Vec::new();
    for owner in &people {
        samples.push(old.samples(owner.uid).await.expect("read"));
    }
    let all_templates = templates(&old).await;
    drop(old);

    let today = directory.path().join("doorward.db");
    let upgraded = tempfile::tempdir().expect("a directory");
    drop(Store::open(upgraded.path()).expect("it opens"));
    let file = upgraded.path().join("doorward.db");
    std::fs::remove_file(&file).expect("removed");
    as_of_the_first_version(&today, &file);

    let store = Store::open(upgraded.path()).expect("it is migrated");
    assert_eq!(store.subjects().await, Ok(people.to_vec()));
    for (owner, samples) in people.iter().zip(samples) {
        assert_eq!(store.samples(owner.uid).await, Ok(samples), "{}", owner.id);
    }
    assert_eq!(templates(&store).await, all_templates, "equal to the last bit");
    assert_eq!(store.gallery_version().await, Ok(version));
    assert_eq!(store.cameras().await, Ok(cameras));
    assert_eq!(store.credential(&CameraId::parse("door").expect("a good id")).await, Ok(Some(credential)));
    // What comes later goes on from there.
    let dora = subject("dora");
    assert_eq!(commit(&store, vec![Mutation::PutSubject(dora)]).await, version + 1);
}
