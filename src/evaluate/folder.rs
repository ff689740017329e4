//! A folder of photos, `DIR/<person>/<photo>`: whose they are.
//!
//! In: a path. Out: people and photos, in the order of their names.
//! Drops: what has no photo's name, and hidden files.
//! Must not know: faces.

use std::fs;
use std::path::{Path, PathBuf};

use super::EvaluateError;

/// What a photo's name may end with.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "pgm"];

/// One photo of a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PhotoFile {
    /// The person's number.
    pub person: usize,
    /// Where it lies.
    pub path: PathBuf,
}

/// People with their photos.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// The people's names, in order; a person's number is the place in here.
    pub people: Vec<String>,
    /// Every photo, person by person.
    pub photos: Vec<PhotoFile>,
}

impl Folder {
    /// What lies in `root`.
    ///
    /// # Errors
    /// [`EvaluateError::Unreadable`]; [`EvaluateError::TooFew`] for fewer than two people.
    pub fn read(root: &Path) -> Result<Self, EvaluateError> {
        let mut folder = Self::default();
        for directory in sorted(root)?.into_iter().filter(|path| path.is_dir()) {
            let files = sorted(&directory)?.into_iter().filter(|path| is_photo(path) && path.is_file());
            let person = folder.people.len();
            let before = folder.photos.len();
            folder.photos.extend(files.map(|path| PhotoFile { person, path }));
            if folder.photos.len() > before {
                folder.people.push(directory.file_name().unwrap_or_default().to_string_lossy().into_owned());
            }
        }
        if folder.people.len() < 2 {
            let found = folder.people.len();
            return Err(EvaluateError::TooFew(format!(
                "{} holds photos of {found} people; give a folder with a folder of photos for each of several people: {}/<person>/<photo>.jpg",
                root.display(),
                root.display()
            )));
        }
        Ok(folder)
    }

    /// Every second, third and so on of the people, with all of their photos, so that there are about `photos_max` at the most. Answers
    /// which of the people that was.
    pub fn thin(&mut self, photos_max: usize) -> usize {
        let every = self.photos.len().div_ceil(photos_max.max(1)).max(1);
        self.photos.retain(|photo| photo.person % every == 0);
        every
    }
}

fn sorted(directory: &Path) -> Result<Vec<PathBuf>, EvaluateError> {
    let unreadable = |source| EvaluateError::Unreadable { path: directory.into(), source };
    let entries = fs::read_dir(directory).map_err(unreadable)?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    paths.retain(|path| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.')));
    paths.sort();
    Ok(paths)
}

fn is_photo(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}
