//! Lists of pairs: which photos are compared, and whether they show one person.
//!
//! In: a list, the folder that its photos lie in. Out: pairs of files that are there. Read are CSV
//! (`file_a,file_b,same`) and the form of Labeled Faces in the Wild (`name 1 2`, `name 1 other 3`; Huang and others, 2007).
//! Must not know: faces.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::EvaluateError;

/// Folds where the list names none.
const FOLDS: usize = 10;
/// So many missing files are named.
const NAMED_MAX: usize = 5;

/// Two photos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// One photo.
    pub a: PathBuf,
    /// The other.
    pub b: PathBuf,
    /// Whether both show one person.
    pub same: bool,
    /// In which fold of a cross-validation it is tested, from 0.
    pub fold: usize,
}

/// Reads the list at `path`, whose photos lie below `root`.
///
/// # Errors
/// [`EvaluateError::Unreadable`]; [`EvaluateError::BadPair`] for a line that is no pair, one whose label contradicts an earlier
/// one's, or a photo that is not there; [`EvaluateError::TooFew`] without pairs of both kinds.
pub fn read(path: &Path, root: &Path) -> Result<Vec<Pair>, EvaluateError> {
    let text = std::fs::read_to_string(path).map_err(|source| EvaluateError::Unreadable { path: path.into(), source })?;
    let reader = Reader { path, root };
    let is_csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let numbered = if is_csv { reader.csv(&text)? } else { reader.lfw(&text)? };
    reader.check(&numbered)?;
    // Two photos say no more when they are listed again.
    let mut seen = HashSet::new();
    let is_new = |pair: &Pair| {
        let mut both = [pair.a.clone(), pair.b.clone()];
        both.sort_unstable();
        seen.insert(both)
    };
    let pairs: Vec<Pair> = numbered.into_iter().map(|(_, pair)| pair).filter(is_new).collect();
    if pairs.is_empty() {
        return Err(EvaluateError::TooFew(format!("{} names no pairs; a line is file_a,file_b,same", path.display())));
    }
    if !pairs.iter().any(|pair| pair.same) || pairs.iter().all(|pair| pair.same) {
        return Err(EvaluateError::TooFew(format!(
            "{} has {} pairs of one kind only; give pairs of the same person and of different people",
            path.display(),
            pairs.len()
        )));
    }
    Ok(pairs)
}

struct Reader<'a> {
    path: &'a Path,
    root: &'a Path,
}

/// Pairs with the lines that they stand on.
type Numbered = Vec<(usize, Pair)>;

impl Reader<'_> {
    fn bad(&self, line: usize, reason: impl Into<String>) -> EvaluateError {
        EvaluateError::BadPair { path: self.path.into(), line, reason: reason.into() }
    }

    /// The file of that name, by the one path that it has where it is there.
    fn photo(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        path.canonicalize().unwrap_or(path)
    }

    fn csv(&self, text: &str) -> Result<Numbered, EvaluateError> {
        let mut pairs = Vec::new();
        // Each fold gets as many pairs of either kind.
        let mut counts = [0_usize; 2];
        for (number, line) in (1..).zip(text.lines()) {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            if line.trim().is_empty() || (number == 1 && fields.last() == Some(&"same")) {
                continue;
            }
            let &[a, b, label] = fields.as_slice() else {
                return Err(self.bad(number, "a line is file_a,file_b,same"));
            };
            let same = match label {
                "1" | "true" => true,
                "0" | "false" => false,
                other => return Err(self.bad(number, format!("{other:?} is no label: 1 for the same person, 0 for different people"))),
            };
            let count = &mut counts[usize::from(same)];
            pairs.push((number, Pair { a: self.photo(a), b: self.photo(b), same, fold: *count % FOLDS }));
            *count += 1;
        }
        Ok(pairs)
    }

    /// The first line says how many folds there are and how many pairs of each kind a fold has.
    fn lfw(&self, text: &str) -> Result<Numbered, EvaluateError> {
        let mut lines = (1..).zip(text.lines());
        let header = lines.next().map(|(_, line)| line.split_whitespace().map(str::parse).collect::<Result<Vec<usize>, _>>());
        let (folds, of_each) = match header {
            Some(Ok(numbers)) => match numbers[..] {
                [of_each] if of_each > 0 => (1, of_each),
                [folds, of_each] if folds > 0 && of_each > 0 => (folds, of_each),
                _ => return Err(self.bad(1, "the first line has the number of folds and of pairs of each kind in one")),
            },
            _ => {
                return Err(
                    self.bad(1, "the first line has the number of folds and of pairs of each kind in one; a CSV list ends with .csv")
                );
            }
        };
        let photo = |name: &str, number: usize| self.photo(&format!("{name}/{name}_{number:04}.jpg"));
        let lines: Vec<_> = lines.filter(|(_, line)| !line.trim().is_empty()).collect();
        // With one fold only, as in View 1 or in a part of View 2, pairs are dealt out as those of a CSV list: none is tested on itself.
        let is_one_fold = folds == 1 || lines.len() <= 2 * of_each;
        let mut pairs = Vec::new();
        for (number, line) in lines {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let count = |text: &str| text.parse::<usize>().map_err(|_| self.bad(number, format!("{text:?} is no number of a photo")));
            let (a, b, same) = match fields[..] {
                [name, first, second] => (photo(name, count(first)?), photo(name, count(second)?), true),
                [name, first, other, second] => (photo(name, count(first)?), photo(other, count(second)?), false),
                _ => return Err(self.bad(number, "a line is `name 1 2` for one person or `name 1 other 3` for two")),
            };
            let fold = if is_one_fold { pairs.len() % FOLDS } else { (pairs.len() / (2 * of_each)).min(folds - 1) };
            pairs.push((number, Pair { a, b, same, fold }));
        }
        Ok(pairs)
    }

    fn check(&self, pairs: &Numbered) -> Result<(), EvaluateError> {
        let mut labels: HashMap<[&Path; 2], (bool, usize)> = HashMap::new();
        let mut missing = Vec::new();
        for (number, Pair { a, b, same, .. }) in pairs {
            if a == b {
                return Err(self.bad(*number, format!("{} is compared with itself; name two photos", a.display())));
            }
            let mut key = [a.as_path(), b.as_path()];
            key.sort_unstable();
            let (label, first) = *labels.entry(key).or_insert((*same, *number));
            if label != *same {
                return Err(self.bad(*number, format!("the same two photos have the other label on line {first}; one of both is wrong")));
            }
            missing.extend(key.into_iter().filter(|photo| !photo.is_file()).map(|photo| (*number, photo)));
        }
        let Some((number, _)) = missing.first().copied() else { return self.check_people(pairs) };
        missing.sort_by_key(|(_, photo)| *photo);
        missing.dedup_by_key(|(_, photo)| *photo);
        let named: Vec<String> = missing.iter().take(NAMED_MAX).map(|(_, photo)| photo.display().to_string()).collect();
        let more = missing.len().saturating_sub(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(self
            .bad(number, format!("these photos are not there: {}{more}; give the folder that the list's photos lie in", named.join(", "))))
    }
}

impl Reader<'_> {
    /// Refuses a list by which two photos show one person, by way of others, and two people.
    fn check_people(&self, pairs: &Numbered) -> Result<(), EvaluateError> {
        let mut people: HashMap<&Path, &Path> = HashMap::new();
        for (_, pair) in pairs.iter().filter(|(_, pair)| pair.same) {
            let (a, b) = (person(&mut people, &pair.a), person(&mut people, &pair.b));
            people.insert(a, b);
        }
        for (number, pair) in pairs.iter().filter(|(_, pair)| !pair.same) {
            if person(&mut people, &pair.a) == person(&mut people, &pair.b) {
                let reason = "other lines say that both photos show one person; one of them is wrong";
                return Err(self.bad(*number, reason));
            }
        }
        Ok(())
    }
}

/// A photo that stands for all that show the same person, as far as it was said.
fn person<'p>(people: &mut HashMap<&'p Path, &'p Path>, photo: &'p Path) -> &'p Path {
    let mut found = photo;
    while let Some(next) = people.get(found).copied().filter(|next| *next != found) {
        found = next;
    }
    if found != photo {
        people.insert(photo, found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for (person, number) in [("A_B", 1), ("A_B", 2), ("C", 1)] {
            std::fs::create_dir_all(dir.path().join(person)).expect("a folder");
            std::fs::write(dir.path().join(person).join(format!("{person}_{number:04}.jpg")), "x").expect("a file");
        }
        dir
    }

    fn read_text(dir: &tempfile::TempDir, name: &str, text: &str) -> Result<Vec<Pair>, EvaluateError> {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("a file");
        read(&path, dir.path())
    }

    #[test]
    fn both_forms_say_the_same() {
        let dir = folder();
        let lfw = read_text(&dir, "pairs.txt", "2\t1\nA_B\t1\t2\nA_B\t1\tC\t1\nA_B\t1\t2\nA_B\t2\tC\t1\n").expect("it is good");
        let csv = "file_a,file_b,same\nA_B/A_B_0001.jpg,A_B/A_B_0002.jpg,1\nA_B/A_B_0001.jpg,C/C_0001.jpg,0\n";
        let csv = read_text(&dir, "pairs.csv", csv).expect("it is good");
        assert_eq!((lfw.len(), csv.len()), (3, 2));
        assert_eq!([&lfw[0].a, &lfw[0].b, &lfw[1].b], [&csv[0].a, &csv[0].b, &csv[1].b]);
        assert_eq!(lfw.iter().map(|pair| (pair.same, pair.fold)).collect::<Vec<_>>(), [(true, 0), (false, 0), (false, 1)]);
    }

    #[test]
    fn a_pair_that_is_listed_again_counts_once() {
        let dir = folder();
        let line = "A_B/A_B_0001.jpg,A_B/A_B_0002.jpg,1\nA_B/A_B_0001.jpg,C/C_0001.jpg,0\nC/C_0001.jpg,A_B/A_B_0001.jpg,0\n";
        assert_eq!(read_text(&dir, "again.csv", &line.repeat(3)).expect("it is good").len(), 2);
    }

    #[test]
    fn a_list_that_is_wrong_says_where_and_how() {
        let dir = folder();
        let (same, other) = ("A_B/A_B_0001.jpg,A_B/A_B_0002.jpg", "A_B/A_B_0001.jpg,C/C_0001.jpg");
        for (text, line, part) in [
            (format!("{same},1\n{other},maybe\n"), 2, "no label"),
            (format!("{same},1\n{other}\n"), 2, "file_a,file_b,same"),
            (format!("{same},1\n{other},0\nA_B/A_B_0002.jpg,A_B/A_B_0001.jpg,0\n"), 3, "line 1"),
            (format!("{same},1\nA_B/A_B_0001.jpg,D/D_0001.jpg,0\n"), 2, "D_0001.jpg"),
            (format!("{same},1\nC/C_0001.jpg,C/C_0001.jpg,1\n"), 2, "itself"),
            (format!("{same},1\n{other},0\nA_B/../A_B/A_B_0001.jpg,C/C_0001.jpg,1\n"), 3, "line 2"),
            (format!("{same},1\n{other},1\nA_B/A_B_0002.jpg,C/C_0001.jpg,0\n"), 3, "other lines"),
        ] {
            let error = read_text(&dir, "bad.csv", &text).expect_err(part);
            assert!(matches!(&error, EvaluateError::BadPair { line: found, .. } if *found == line), "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
        assert!(matches!(read_text(&dir, "bad.csv", &format!("{same},1\n")), Err(EvaluateError::TooFew(_))));
        assert!(matches!(read_text(&dir, "bad.txt", &format!("{same},1\n")), Err(EvaluateError::BadPair { line: 1, .. })));
    }
}
