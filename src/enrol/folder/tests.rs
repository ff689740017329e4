//! Tests of listing the enrolment folder.
//!
//! In: folders made here. Out: nothing. Must not know: faces.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use super::*;

fn write(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("a directory");
    fs::write(path, content).expect("a file");
}

#[test]
fn photos_are_listed_in_order_with_their_hashes_and_everything_else_is_refused() {
    let folder = tempfile::tempdir().expect("a directory");
    let root = folder.path();
    for path in ["bo/2.PNG", "bo/1.jpeg", "anna/a.jpg", "anna/b.pgm"] {
        write(root, path, path.as_bytes());
    }
    write(root, "readme.txt", b"people");
    write(root, "bo/notes.txt", b"tall");
    write(root, "bo/.hidden.jpg", b"x");
    write(root, "bo/deeper/1.jpg", b"x");
    write(root, "a b/1.jpg", b"x");
    write(root, ".git/1.jpg", b"x");
    write(root, "bo/line\nbreak.jpg", b"x");
    fs::write(root.join("bo").join(std::ffi::OsStr::from_bytes(b"\xff.jpg")), b"x").expect("a file");
    symlink("/etc/passwd", root.join("bo/link.jpg")).expect("a link");
    symlink("/etc", root.join("linked")).expect("a link");

    let listing = list(root).expect("a listing");
    let photos: Vec<_> = listing.photos.iter().map(|photo| (photo.subject.to_string(), photo.path.as_str())).collect();
    let wanted = [("anna", "anna/a.jpg"), ("anna", "anna/b.pgm"), ("bo", "bo/1.jpeg"), ("bo", "bo/2.PNG")];
    assert_eq!(photos, wanted.map(|(subject, path)| (subject.to_owned(), path)));
    assert_eq!(listing.photos[0].content_sha256, sha256(b"anna/a.jpg"));
    let mut refused: Vec<_> = listing.refused.iter().map(|file| (file.path.as_str(), file.reason)).collect();
    refused.sort_unstable();
    let wanted = [
        (".git", "ODD_NAME"),
        ("a b", "ODD_NAME"),
        ("bo/.hidden.jpg", "ODD_NAME"),
        ("bo/deeper", "NOT_A_PHOTO"),
        ("bo/link.jpg", "SYMLINK"),
        ("bo/notes.txt", "NOT_A_PHOTO"),
        ("line\\nbreak.jpg", "ODD_NAME"),
        ("linked", "SYMLINK"),
        ("readme.txt", "NOT_A_PHOTO"),
        ("\u{fffd}.jpg", "ODD_NAME"),
    ];
    assert_eq!(refused, wanted);
    assert_eq!(listing.unread_files.iter().collect::<Vec<_>>(), ["bo/link.jpg"], "no other can have been anybody's sample");
}

#[test]
fn a_photo_that_is_too_large_is_refused_unread() {
    let folder = tempfile::tempdir().expect("a directory");
    write(folder.path(), "anna/1.jpg", b"");
    let file = File::options().write(true).open(folder.path().join("anna/1.jpg")).expect("the file");
    file.set_len(PHOTO_BYTES_MAX as u64 + 1).expect("a sparse file");
    let listing = list(folder.path()).expect("a listing");
    assert!(listing.photos.is_empty());
    assert_eq!(listing.refused[0].reason, "BAD_IMAGE");
    assert!(listing.unread_files.contains("anna/1.jpg"));
}

#[test]
fn a_folder_or_a_photo_that_has_gone_is_an_error_and_a_changed_photo_is_noticed() {
    let folder = tempfile::tempdir().expect("a directory");
    let missing = folder.path().join("missing");
    assert!(matches!(list(&missing), Err(EnrolError::FolderUnreadable { folder, .. }) if folder == missing));
    write(folder.path(), "anna/1.jpg", b"one");
    let photo = list(folder.path()).expect("a listing").photos.remove(0);
    assert_eq!(read(folder.path(), &photo).expect("it is there").expect("readable"), Some(b"one".to_vec()));
    write(folder.path(), "anna/1.jpg", b"two");
    assert_eq!(read(folder.path(), &photo).expect("it is there").expect("readable"), None);
    // What the disk does not give is the file's own fault and no other's.
    std::fs::remove_file(folder.path().join(&photo.path)).expect("it is there");
    std::fs::create_dir(folder.path().join(&photo.path)).expect("a directory in its place");
    assert!(read(folder.path(), &photo).expect("the folder is there").is_err());
    fs::remove_dir_all(folder.path().join("anna")).expect("it is there");
    assert!(matches!(read(folder.path(), &photo), Err(EnrolError::FolderUnreadable { .. })));
}

#[test]
fn a_file_in_the_place_of_the_folder_is_an_error() {
    let folder = tempfile::tempdir().expect("a directory");
    write(folder.path(), "people", b"no folder");
    assert!(matches!(list(&folder.path().join("people")), Err(EnrolError::FolderUnreadable { .. })));
}
