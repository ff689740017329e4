//! The portable form of the gallery: one tar file that other tools can read, with checksums.
//!
//! In: subjects, samples with templates and photos, in order; or such a file. Out: a file; or people,
//! one at a time, once all of it was found whole. docs/gallery-file.md describes it.
//! Memory: one line, one photo and, when read, one person, however many there are.
//! Drops: nothing. A file that is cut, altered, of another format or inconsistent gives nobody.
//! Must not know: the database, the gallery in memory, who asks.

mod lines;
mod read;
mod section;
#[cfg(test)]
pub(crate) mod tests;
mod write;

use serde::{Deserialize, Serialize};

pub use read::{Person, Portable, PortableSample};
pub use write::{Lines, Writer, photo_path};

/// Names the format in the manifest.
const FORMAT: &str = "doorward-gallery";
/// Grows when a reader of the version before would misunderstand the file.
pub const FORMAT_VERSION: u32 = 1;

const MANIFEST: &str = "manifest.json";
const SUBJECTS: &str = "subjects.jsonl";
const SAMPLES: &str = "samples.jsonl";
const PHOTOS: &str = "photos/";
const SUMS: &str = "SHA256SUMS";

/// What `manifest.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: String,
    format_version: u32,
    /// The version of doorward that wrote the file.
    pub doorward: String,
    /// When, in microseconds since the Unix epoch.
    pub create_time_us: i64,
    /// The gallery's version then.
    pub gallery_version: u64,
    /// Lines of `subjects.jsonl`.
    pub subjects: u64,
    /// Lines of `samples.jsonl`.
    pub samples: u64,
    /// Files below `photos/`.
    pub photos: u64,
    /// The spaces that templates live in.
    pub template_spaces: Vec<SpaceFacts>,
}

/// One space of templates in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceFacts {
    /// Its name.
    pub name: String,
    /// Numbers of a template.
    pub dimension: usize,
    /// How many templates live in it.
    pub templates: u64,
}

impl Manifest {
    /// A manifest of this doorward, of nothing yet.
    pub fn new(create_time_us: i64) -> Self {
        Self {
            format: FORMAT.into(),
            format_version: FORMAT_VERSION,
            doorward: env!("CARGO_PKG_VERSION").into(),
            create_time_us,
            gallery_version: 0,
            subjects: 0,
            samples: 0,
            photos: 0,
            template_spaces: Vec::new(),
        }
    }
}

/// A file that nobody is taken from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortableError {
    /// Give another file.
    #[error("this is no exported gallery ({0}); give a file that `doorward gallery export` wrote")]
    NotOurs(String),
    /// Read it with another doorward.
    #[error(
        "the file has format version {found} and this doorward reads version {FORMAT_VERSION}; import it with the doorward that wrote it, or export it again"
    )]
    WrongVersion {
        /// What the manifest says.
        found: u32,
    },
    /// Copy it again.
    #[error("the file is cut ({0}); copy it again, or export again")]
    Cut(String),
    /// Copy it again.
    #[error("{name} is not what its checksum says: the file was altered; copy it again, or export again")]
    Altered {
        /// Which part of the file.
        name: String,
    },
    /// Whoever made the file made it wrong.
    #[error("{file} line {line}: {reason}; nothing was imported")]
    BadLine {
        /// `subjects.jsonl`, `samples.jsonl` or `SHA256SUMS`.
        file: &'static str,
        /// From 1.
        line: u64,
        /// What is wrong, without the values.
        reason: String,
    },
    /// Whoever made the file made it wrong.
    #[error("samples.jsonl line {line}: the template cannot be used: {reason}; nothing was imported")]
    BadTemplate {
        /// From 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The disk failed.
    #[error("the file cannot be read: {0}")]
    Unreadable(String),
}
