//! The enrolment folder, `people/<subject>/<photo>`: what lies in it, and what of it is refused.
//!
//! In: a path. Out: photos with their content hashes, refusals with reasons. Symbolic links are not
//! followed below the folder: a link could carry any file of the machine into the gallery.
//! Drops: everything that is no photo of a subject, each with its reason.
//! Must not know: the store, faces.

#[cfg(test)]
mod tests;
mod watch;

use std::collections::BTreeSet;
use std::fs::{DirEntry, File, FileType};
use std::io::{self, Read};
use std::path::Path;

use super::prepare::sha256;
use super::{EnrolError, FileRemark};
use crate::photo::{PHOTO_BYTES_MAX, PhotoError};
use crate::subject::SubjectId;
pub use watch::FolderWatch;
pub(super) use watch::PASSING;

/// The most refused files, and doubtful ones, that a report names; one more entry counts the rest.
pub const REMARKS_MAX: usize = 1000;
/// The most entries that are read of a folder.
const ENTRIES_MAX: usize = 2_000_000;
/// What a photo's name may end with.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "pgm"];

/// The disk did not give a file.
pub(super) const READ_FAILED: &str = "READ_FAILED";

/// A photo that lies in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundPhoto {
    pub subject: SubjectId,
    /// Below the folder, with `/`.
    pub path: String,
    pub content_sha256: [u8; 32],
}

/// What lies in the folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Listing {
    /// Ordered by path.
    pub photos: Vec<FoundPhoto>,
    pub refused: Vec<FileRemark>,
    /// Photos by their name that could not be taken for what they are: a refusal takes nothing away, so samples of these paths
    /// stay. Whatever else lies beside photos, such as what file managers leave there, was never anybody's sample and keeps nobody.
    pub unread_files: BTreeSet<String>,
    /// Directories of subjects that are there and could not be looked into, likewise.
    pub unread_subjects: BTreeSet<String>,
    /// By whose name something is there, though no photo lies in it: that has not been away.
    pub present: BTreeSet<SubjectId>,
}

/// Lists the folder and hashes every photo in it.
pub(super) fn list(root: &Path) -> Result<Listing, EnrolError> {
    let mut listing = Listing::default();
    let mut entries_left = ENTRIES_MAX;
    for entry in sorted_entries(root, &mut entries_left).map_err(|error| unreadable(root, &error))? {
        let Some(directory) = plain_name(&entry, &mut listing) else { continue };
        let kind = entry.file_type().map_err(|error| unreadable(root, &error))?;
        let Ok(subject) = SubjectId::parse(&directory) else {
            let message = "name the directory as a subject id: letters, digits, '-', '_' and '.', beginning with a letter or a digit";
            listing.refuse(&directory, "ODD_NAME", message);
            continue;
        };
        listing.present.insert(subject.clone());
        if !kind.is_dir() {
            listing.unread_subjects.insert(directory.clone());
            listing.refuse_kind(&directory, kind, "put photos into a directory named after their subject");
            continue;
        }
        match sorted_entries(&entry.path(), &mut entries_left) {
            Ok(files) => list_subject(root, &subject, &files, &mut listing)?,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                listing.refuse(&directory, "UNREADABLE", &format!("let doorward read it: {error}"));
                listing.unread_subjects.insert(directory);
            }
            Err(error) => return Err(unreadable(root, &error)),
        }
    }
    Ok(listing)
}

/// Reads a photo that was listed; `None` when it is not what was listed any more, and the error of one that the disk does not give.
///
/// # Errors
/// [`EnrolError::FolderUnreadable`] when it, or the folder, has gone.
pub(super) fn read(root: &Path, photo: &FoundPhoto) -> Result<io::Result<Option<Vec<u8>>>, EnrolError> {
    match read_photo(&root.join(&photo.path)) {
        Ok(bytes) => Ok(Ok(bytes.filter(|bytes| sha256(bytes) == photo.content_sha256))),
        Err(error) if is_of_one_file(root, &error) => Ok(Err(error)),
        Err(error) => Err(unreadable(root, &error)),
    }
}

/// The refusal of a photo for what is on it; other errors are not the photo's fault.
pub(super) fn refusal(path: &str, error: EnrolError) -> Result<FileRemark, EnrolError> {
    let reason = match &error {
        EnrolError::Photo(PhotoError::BadImage(_)) => "BAD_IMAGE",
        EnrolError::Photo(PhotoError::NoFace) => "NO_FACE",
        EnrolError::Photo(PhotoError::SeveralFaces(_)) => "SEVERAL_FACES",
        EnrolError::Unusable { .. } => "FACE_UNUSABLE",
        _ => return Err(error),
    };
    Ok(FileRemark { path: path.to_owned(), reason, message: error.to_string() })
}

impl Listing {
    pub fn refuse(&mut self, path: &str, reason: &'static str, message: &str) {
        self.refused.push(FileRemark { path: path.to_owned(), reason, message: message.to_owned() });
    }

    fn refuse_kind(&mut self, path: &str, kind: FileType, advice: &str) {
        if kind.is_symlink() {
            self.refuse(path, "SYMLINK", "symbolic links are not followed; put a copy here");
        } else {
            self.refuse(path, "NOT_A_PHOTO", advice);
        }
    }
}

fn list_subject(root: &Path, subject: &SubjectId, files: &[DirEntry], listing: &mut Listing) -> Result<(), EnrolError> {
    for file in files {
        let Some(name) = plain_name(file, listing) else { continue };
        let path = format!("{subject}/{name}");
        let kind = file.file_type().map_err(|error| unreadable(root, &error))?;
        let extension = Path::new(&name).extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        let has_photo_name = extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str())) && !name.starts_with('.');
        if !kind.is_file() {
            listing.refuse_kind(&path, kind, "only photos may lie here, no directories or devices");
        } else if name.starts_with('.') {
            listing.refuse(&path, "ODD_NAME", "hidden files are not read");
        } else if !has_photo_name {
            listing.refuse(&path, "NOT_A_PHOTO", "give a photo that ends with .jpg, .jpeg, .png or .pgm");
        } else {
            match read_photo(&root.join(&path)) {
                Ok(Some(bytes)) => {
                    listing.photos.push(FoundPhoto { subject: subject.clone(), path, content_sha256: sha256(&bytes) });
                    continue;
                }
                Ok(None) => listing.refuse(&path, "BAD_IMAGE", &format!("give a photo of at most {PHOTO_BYTES_MAX} bytes")),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    listing.refuse(&path, "UNREADABLE", &format!("let doorward read it: {error}"));
                }
                Err(error) if is_of_one_file(root, &error) => listing.refuse(&path, READ_FAILED, &read_failed(&error)),
                Err(error) => return Err(unreadable(root, &error)),
            }
        }
        if has_photo_name {
            listing.unread_files.insert(path);
        }
    }
    Ok(())
}

fn sorted_entries(directory: &Path, entries_left: &mut usize) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in directory.read_dir()? {
        *entries_left = entries_left.checked_sub(1).ok_or_else(|| io::Error::other(format!("more than {ENTRIES_MAX} files")))?;
        entries.push(entry?);
    }
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

/// The entry's name where it is text without control characters: others could not be reported.
fn plain_name(entry: &DirEntry, listing: &mut Listing) -> Option<String> {
    match entry.file_name().into_string() {
        Ok(name) if !name.chars().any(char::is_control) => Some(name),
        odd => {
            let shown = odd.unwrap_or_else(|raw| raw.to_string_lossy().into_owned());
            listing.refuse(&shown.escape_debug().to_string(), "ODD_NAME", "use a name of plain UTF-8 text");
            None
        }
    }
}

/// A file's bytes, `None` where there are too many of them.
fn read_photo(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(PHOTO_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= PHOTO_BYTES_MAX).then_some(bytes))
}

/// Whether an error is of one file alone, which keeps nobody else out: where the folder itself goes, nothing is to be believed.
fn is_of_one_file(root: &Path, error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::NotFound && root.read_dir().is_ok()
}

/// What to do about a file that the disk does not give.
pub(super) fn read_failed(error: &io::Error) -> String {
    format!("reload again, or put a copy in its place: {error}")
}

fn unreadable(root: &Path, error: &io::Error) -> EnrolError {
    let reason = format!("{error}; nothing was changed; see that it is there and keeps still, then reload again");
    EnrolError::FolderUnreadable { folder: root.to_owned(), reason }
}
