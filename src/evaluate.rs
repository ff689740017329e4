//! How right the chain is on photos of known people: what calibration, training and evaluation
//! stand on.
//!
//! In: folders of photos, lists of pairs. Out: templates by person, error rates with their intervals.
//! Drops: photos without a face, each told with its reason.
//! Must not know: the store, the daemon, how results are shown.

mod cache;
pub mod compare;
mod faces;
mod folder;
pub mod heads;
pub mod identification;
pub mod pairs;
pub mod verification;

use std::path::PathBuf;

pub use cache::Cache;
pub use faces::{Embedder, FaceOfPhoto, Unusable, of_two_people};
pub use folder::{Folder, PhotoFile, Thinned};

use crate::face::TemplateError;
use crate::photo::PhotoError;
use crate::train::TrainError;

/// Photos or lists cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// A file or a folder cannot be read or written.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The photos are too few for what is asked of them.
    #[error("{0}")]
    TooFew(String),
    /// A list of pairs is not one.
    #[error("{path}:{line}: {reason}")]
    BadPair {
        /// The list.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// Inference failed.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// Nothing could be learnt.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Templates do not belong together.
    #[error(transparent)]
    Template(#[from] TemplateError),
}
