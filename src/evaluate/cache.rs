//! Templates that were made before, by the content of the photo and by the models that made them.
//!
//! In: templates. Out: the same, in the next run. A line a photo is added to one file for each chain of models, readable by its
//! owner alone: templates are personal data.
//! Must not know: how templates are made.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::EvaluateError;

/// Changes when the same photo and models would give something else than before.
const VERSION: u32 = 1;

/// What is remembered of a photo: the face, or why there is none.
#[derive(Clone, Debug, PartialEq)]
pub enum Remembered {
    /// Overall quality and the template's numbers.
    Face(f32, Vec<f32>),
    /// Why the photo cannot be used.
    Nothing(String),
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    quality: Option<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    template: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unusable: Option<String>,
}

/// What was made before, and a place for what is made now.
pub struct Cache {
    known: HashMap<String, Remembered>,
    file: Mutex<File>,
}

impl Cache {
    /// The templates that `chain` made, below `dir`. A line that is cut or of another form is passed over, since it
    /// can be made again.
    ///
    /// # Errors
    /// [`EvaluateError::Unreadable`].
    pub fn open(dir: &Path, chain: &str) -> Result<Self, EvaluateError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |source| EvaluateError::Unreadable { path, source }
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(unreadable(dir))?;
        let path = dir.join(format!("templates-{}.jsonl", &hex(&Sha256::digest(format!("{VERSION} {chain}")))[..16]));
        let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(&path).map_err(unreadable(&path))?;
        let mut known = HashMap::new();
        for line in BufReader::new(&file).lines() {
            let line = line.map_err(unreadable(&path))?;
            if let Some((key, remembered)) = serde_json::from_str(&line).ok().and_then(remembered) {
                known.insert(key, remembered);
            }
        }
        Ok(Self { known, file: Mutex::new(file) })
    }

    /// Where the user's caches lie.
    pub fn default_dir() -> Option<PathBuf> {
        let of = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Some(of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")))?.join("doorward"))
    }

    /// What is known of the photo called `key`.
    pub fn get(&self, key: &str) -> Option<&Remembered> {
        self.known.get(key)
    }

    /// Keeps what was found for the next run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn put(&self, key: &str, found: &Remembered) -> std::io::Result<()> {
        let mut line = Line { key: key.to_owned(), quality: None, template: None, unusable: None };
        match found {
            Remembered::Face(quality, template) => {
                let bytes: Vec<u8> = template.iter().flat_map(|value| value.to_le_bytes()).collect();
                (line.quality, line.template) = (Some(*quality), Some(BASE64_STANDARD.encode(bytes)));
            }
            Remembered::Nothing(reason) => line.unusable = Some(reason.clone()),
        }
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes())
    }
}

fn remembered(line: Line) -> Option<(String, Remembered)> {
    if let Some(reason) = line.unusable {
        return Some((line.key, Remembered::Nothing(reason)));
    }
    let bytes = BASE64_STANDARD.decode(line.template?).ok()?;
    let template = bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
    Some((line.key, Remembered::Face(line.quality?, template)))
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_is_found_again_bit_for_bit_and_for_its_chain_only() {
        let dir = tempfile::tempdir().expect("a folder");
        let face = Remembered::Face(0.123_456_79, vec![0.1, -0.2, f32::MIN_POSITIVE]);
        let nothing = Remembered::Nothing("no face".into());
        {
            let cache = Cache::open(dir.path(), "a").expect("it opens");
            assert_eq!(cache.get("x"), None);
            cache.put("x", &face).expect("it is written");
            cache.put("y", &nothing).expect("it is written");
        }
        let again = Cache::open(dir.path(), "a").expect("it opens");
        assert_eq!((again.get("x"), again.get("y")), (Some(&face), Some(&nothing)));
        assert_eq!(Cache::open(dir.path(), "b").expect("it opens").get("x"), None);
    }

    #[test]
    fn a_cut_line_is_made_again_and_nobody_else_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a folder");
        Cache::open(dir.path(), "a").expect("it opens").put("x", &Remembered::Face(1.0, vec![1.0])).expect("it is written");
        let path = fs::read_dir(dir.path()).expect("a folder").next().expect("a file").expect("an entry").path();
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).expect("text");
        fs::write(&path, format!("{text}{}", &text[..20])).expect("it is written");
        let again = Cache::open(dir.path(), "a").expect("it opens");
        assert!(again.get("x").is_some() && again.known.len() == 1);
    }
}
