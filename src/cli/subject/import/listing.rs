//! What lies in a folder that is to be imported, as the enrolment folder would take it.
//!
//! In: `DIR/<subject>/<photo>`. Out: photos by path, and what is no photo of a subject with its reason.
//! Symbolic links are not followed: a link could carry any file of the machine into the gallery.
//! Must not know: the daemon, photos' insides.

use std::fs::{DirEntry, FileType};
use std::io;
use std::path::Path;

use crate::pb;
use crate::subject::SubjectId;

/// What a photo's name may end with.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "pgm"];

/// A photo that was found.
pub struct Found {
    /// Whose directory it lies in.
    pub subject: SubjectId,
    name: Box<str>,
}

impl Found {
    /// Below the folder, with `/`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.subject, self.name)
    }
}

/// What lies in the folder.
#[derive(Default)]
pub struct Listing {
    /// Ordered by path.
    pub photos: Vec<Found>,
    pub refused: Vec<pb::ImportResult>,
}

impl Listing {
    /// Lists the folder; what cannot be looked into is refused.
    ///
    /// # Errors
    /// The folder itself cannot be read.
    pub fn of(root: &Path) -> io::Result<Self> {
        let mut listing = Self::default();
        for entry in sorted_entries(root)? {
            let shown = entry.file_name().to_string_lossy().into_owned();
            let Some(subject) = entry.file_name().to_str().and_then(|name| SubjectId::parse(name).ok()) else {
                let message = "name the directory as a subject id: letters, digits, '-', '_' and '.', beginning with a letter or a digit";
                listing.refused.push(refused(&shown, "", ("ODD_NAME", message)));
                continue;
            };
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => listing.subject(root, &subject),
                Ok(kind) => listing.refused.push(no_photo(&shown, "", (kind, "put photos into a directory named after their subject"))),
                Err(error) => listing.refused.push(refused(&shown, "", ("UNREADABLE", &error.to_string()))),
            }
        }
        Ok(listing)
    }

    fn subject(&mut self, root: &Path, subject: &SubjectId) {
        let entries = match sorted_entries(&root.join(subject.as_str())) {
            Ok(entries) => entries,
            Err(error) => return self.refused.push(refused(subject.as_str(), subject.as_str(), ("UNREADABLE", &error.to_string()))),
        };
        for entry in entries {
            let name = entry.file_name();
            let path = format!("{subject}/{}", name.to_string_lossy());
            let kind = entry.file_type();
            let why = match (name.to_str(), kind) {
                (_, Err(error)) => refused(&path, subject.as_str(), ("UNREADABLE", &error.to_string())),
                (_, Ok(kind)) if !kind.is_file() => {
                    no_photo(&path, subject.as_str(), (kind, "only photos may lie here, no directories or devices"))
                }
                (None, _) => refused(&path, subject.as_str(), ("ODD_NAME", "use a name of UTF-8 text")),
                (Some(name), _) if name.starts_with('.') => refused(&path, subject.as_str(), ("ODD_NAME", "hidden files are not read")),
                (Some(name), _) if !is_named_as_photo(name) => {
                    refused(&path, subject.as_str(), ("NOT_A_PHOTO", "give a photo that ends with .jpg, .jpeg, .png or .pgm"))
                }
                (Some(name), _) => {
                    self.photos.push(Found { subject: subject.clone(), name: name.into() });
                    continue;
                }
            };
            self.refused.push(why);
        }
    }
}

/// A row for what is refused before the daemon has seen it.
pub fn refused(path: &str, subject: &str, (reason, message): (&str, &str)) -> pb::ImportResult {
    pb::ImportResult {
        item_key: path.to_owned(),
        subject_id: subject.to_owned(),
        status: pb::ImportStatus::Refused.into(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        gallery_version: 0,
    }
}

fn no_photo(path: &str, subject: &str, (kind, advice): (FileType, &str)) -> pb::ImportResult {
    if kind.is_symlink() {
        return refused(path, subject, ("SYMLINK", "symbolic links are not followed; put a copy here"));
    }
    refused(path, subject, ("NOT_A_PHOTO", advice))
}

fn is_named_as_photo(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

fn sorted_entries(directory: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = directory.read_dir()?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}
