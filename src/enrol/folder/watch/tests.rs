//! What makes the watch end, and what does not.
//!
//! In: a real folder, a simulated clock. Out: verdicts. Must not know: photos.

use std::fs;

use super::*;
use crate::enrol::FileRemark;

const EVERY: Duration = Duration::from_secs(5);

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a directory");
    fs::create_dir(folder.path().join("anna")).expect("made");
    fs::write(folder.path().join("anna/1.jpg"), b"photo").expect("written");
    folder
}

fn look_of(folder: &tempfile::TempDir) -> io::Result<Look> {
    look(folder.path())
}

/// How many looks it takes, of `most`, until the folder is to be read.
fn looks_until_due(watch: &mut FolderWatch, folder: &tempfile::TempDir, most: usize) -> Option<usize> {
    (1..=most).find(|_| watch.is_due(look_of(folder)))
}

fn refused(reason: &'static str) -> Result<ReloadReport, EnrolError> {
    let remark = FileRemark { path: "anna/1.jpg".into(), reason, message: String::new() };
    Ok(ReloadReport { refused: vec![remark], ..ReloadReport::default() })
}

#[tokio::test]
async fn a_change_is_taken_when_it_has_kept_still_and_only_once() {
    let folder = folder();
    let mut watch = FolderWatch::over(Some(folder.path().to_owned()), EVERY);
    assert_eq!(looks_until_due(&mut watch, &folder, 9), Some(2), "what lies there at the start");
    watch.note(&Ok(ReloadReport::default()));
    assert_eq!(looks_until_due(&mut watch, &folder, 9), None);
    // A photo that grows, as it does while it is copied.
    for length in 1..4 {
        fs::write(folder.path().join("anna/2.jpg"), vec![7; length]).expect("written");
        assert!(!watch.is_due(look_of(&folder)), "it is still growing");
    }
    assert_eq!(looks_until_due(&mut watch, &folder, 9), Some(1));
    watch.note(&refused("NO_FACE"));
    assert_eq!(looks_until_due(&mut watch, &folder, 9), None, "a photo without a face gets none by itself");
}

#[tokio::test]
async fn whatever_changes_below_the_folder_is_seen() {
    let folder = folder();
    let mut watch = FolderWatch::over(Some(folder.path().to_owned()), EVERY);
    let path = |name: &str| folder.path().join(name);
    let changes: [(&str, &dyn Fn() -> io::Result<()>); 6] = [
        ("another subject", &|| fs::create_dir(path("bo"))),
        ("a renamed subject", &|| fs::rename(path("bo"), path("cy"))),
        ("a moved photo", &|| fs::rename(path("anna/1.jpg"), path("cy/1.jpg"))),
        ("another photo of the same size", &|| {
            fs::write(path("cy/new"), b"other")?;
            fs::rename(path("cy/new"), path("cy/1.jpg"))
        }),
        ("a photo that went", &|| fs::remove_file(path("cy/1.jpg"))),
        ("a subject that went", &|| fs::remove_dir_all(path("cy"))),
    ];
    assert_eq!(looks_until_due(&mut watch, &folder, 9), Some(2));
    watch.note(&Ok(ReloadReport::default()));
    for (what, change) in changes {
        change().expect("changed");
        assert_eq!(looks_until_due(&mut watch, &folder, 9), Some(2), "{what}");
        watch.note(&Ok(ReloadReport::default()));
    }
}

#[tokio::test]
async fn what_may_end_better_is_tried_again_and_a_mass_removal_waits_for_somebody() {
    let folder = folder();
    let mut watch = FolderWatch::over(Some(folder.path().to_owned()), EVERY);
    assert_eq!(looks_until_due(&mut watch, &folder, 9), Some(2));
    for again in [refused("RELOAD_FULL"), refused("CHANGED_MEANWHILE"), Err(EnrolError::NoFolder)] {
        watch.note(&again);
        assert_eq!(looks_until_due(&mut watch, &folder, 9), Some(1), "{again:?}");
    }
    watch.note(&Err(EnrolError::MassRemoval { removed: 9, total: 10 }));
    assert_eq!(looks_until_due(&mut watch, &folder, 9), None);
    fs::write(folder.path().join("anna/2.jpg"), b"photo").expect("written");
    assert_eq!(looks_until_due(&mut watch, &folder, 9), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_folder_with_a_file_that_the_disk_does_not_give_is_read_again_more_and_more_rarely() {
    let folder = folder();
    let mut watch = FolderWatch::over(Some(folder.path().to_owned()), EVERY);
    let mut waits = Vec::new();
    watch.changed().await;
    for _ in 0..12 {
        watch.note(&refused(READ_FAILED));
        let since = Instant::now();
        watch.changed().await;
        waits.push(since.elapsed().as_secs());
    }
    assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
    // A change is taken at once all the same, and what else is left for the next reload is not put off.
    fs::write(folder.path().join("anna/2.jpg"), b"photo").expect("written");
    watch.note(&refused(READ_FAILED));
    let mut waits = Vec::new();
    for outcome in [refused(READ_FAILED), refused(READ_FAILED), refused("RELOAD_FULL"), refused(READ_FAILED)] {
        let since = Instant::now();
        watch.changed().await;
        waits.push(since.elapsed().as_secs());
        watch.note(&outcome);
    }
    assert_eq!(waits, [10, 5, 10, 5], "two looks that it keeps still for, and from the beginning");
    let mut both = refused(READ_FAILED).expect("a report");
    both.refused.extend(refused("RELOAD_FULL").expect("a report").refused);
    watch.note(&Ok(both));
    assert_eq!(looks_until_due(&mut watch, &folder, 9), Some(1));
}

#[tokio::test]
async fn a_folder_that_is_away_is_no_change() {
    let folder = folder();
    let mut watch = FolderWatch::over(Some(folder.path().to_owned()), EVERY);
    assert_eq!(looks_until_due(&mut watch, &folder, 9), Some(2));
    watch.note(&Ok(ReloadReport::default()));
    let away = folder.path().with_extension("away");
    fs::rename(folder.path(), &away).expect("moved");
    assert_eq!(looks_until_due(&mut watch, &folder, 9), None);
    fs::rename(&away, folder.path()).expect("moved back");
    assert_eq!(looks_until_due(&mut watch, &folder, 9), None, "it is as it was");
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_after_a_change_and_may_be_dropped() {
    let folder = folder();
    let mut watch = FolderWatch::over(Some(folder.path().to_owned()), EVERY);
    watch.changed().await;
    watch.note(&Ok(ReloadReport::default()));
    for _ in 0..3 {
        assert!(tokio::time::timeout(EVERY, watch.changed()).await.is_err(), "nothing has changed");
    }
    fs::write(folder.path().join("anna/2.jpg"), b"photo").expect("written");
    watch.changed().await;
    let mut off = FolderWatch::over(Some(folder.path().to_owned()), Duration::ZERO);
    assert!(tokio::time::timeout(EVERY * 1000, off.changed()).await.is_err(), "nobody asked for it");
}
