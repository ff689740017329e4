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

    /// Leaves photos out until there are `photos_max` at the most, and says which: many photos of few people show less of strangers than
    /// few of many, so people are left out only where two photos of each are too many already.
    pub fn thin(&mut self, photos_max: usize) -> Option<Thinned> {
        let mut counts = vec![0_usize; self.people.len()];
        self.photos.iter().for_each(|photo| counts[photo.person] += 1);
        let kept = |each: usize| counts.iter().map(|count| (*count).min(each)).sum::<usize>();
        if self.photos.len() <= photos_max {
            return None;
        }
        let (most, people) = (counts.iter().copied().max().unwrap_or(0), counts.len());
        let each = (2..most).rev().find(|each| kept(*each) <= photos_max).unwrap_or(2);
        // Those who stay are spread evenly over all.
        let stays = |person: usize, of: usize| person * of / people != (person + 1) * of / people;
        let photos = |of: usize| (0..people).filter(|person| stays(*person, of)).map(|person| counts[person].min(each)).sum::<usize>();
        let left = (1..=people.min(photos_max)).rev().find(|of| photos(*of) <= photos_max).unwrap_or(1);
        let mut taken = vec![0_usize; people];
        self.photos.retain(|photo| {
            taken[photo.person] += 1;
            taken[photo.person] <= each && stays(photo.person, left)
        });
        Some(Thinned { each, left, people })
    }
}

/// Which photos of a folder are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thinned {
    /// So many photos of a person at the most, the first by their names.
    pub each: usize,
    /// Of so many people,
    pub left: usize,
    /// who are so many in all.
    pub people: usize,
}

impl std::fmt::Display for Thinned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whose = if self.left == self.people { "each person".to_owned() } else { format!("{} of {} people", self.left, self.people) };
        write!(f, "{} photos at the most of {whose} are looked at: all would take too long to compare", self.each)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// So many photos of each person.
    fn folder(counts: &[usize]) -> Folder {
        let of = |(person, count): (usize, &usize)| {
            let photo = move |number| PhotoFile { person, path: PathBuf::from(format!("{person}/{number}.jpg")) };
            (0..*count).map(photo).collect::<Vec<_>>()
        };
        let people = (0..counts.len()).map(|person| person.to_string()).collect();
        Folder { people, photos: counts.iter().enumerate().flat_map(of).collect() }
    }

    fn left(folder: &Folder) -> Vec<usize> {
        let count = |person| folder.photos.iter().filter(|photo| photo.person == person).count();
        (0..folder.people.len()).map(count).collect()
    }

    #[test]
    fn photos_are_left_out_before_people_are() {
        let mut many = folder(&[500; 40]);
        assert_eq!(many.thin(4_000), Some(Thinned { each: 100, left: 40, people: 40 }));
        assert_eq!(left(&many), [100; 40]);
        let mut uneven = folder(&[1, 2, 9, 9]);
        assert_eq!((uneven.thin(11), left(&uneven)), (Some(Thinned { each: 4, left: 4, people: 4 }), vec![1, 2, 4, 4]));
        let mut crowd = folder(&[3; 10]);
        assert_eq!((crowd.thin(10), left(&crowd).iter().sum::<usize>()), (Some(Thinned { each: 2, left: 5, people: 10 }), 10));
        // One photo too many costs one person, not half of them.
        let mut crowd = folder(&[2; 101]);
        assert_eq!((crowd.thin(200), crowd.photos.len()), (Some(Thinned { each: 2, left: 100, people: 101 }), 200));
        let mut few = folder(&[3, 3]);
        assert_eq!((few.thin(6), left(&few)), (None, vec![3, 3]));
    }
}
