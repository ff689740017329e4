//! What can be wrong with the manifest or a file it names.
//!
//! In: nothing. Out: [`ModelsError`], whose message names the file, and the key or the hashes.
//! Drops nothing.
//! Must not know: how files are read or graphs rewritten.

use std::path::PathBuf;

/// The manifest or a file it names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// The manifest is not there or cannot be read.
    #[error("cannot read {path}: {source}; run script/bootstrap, or set models_dir to the directory that holds manifest.toml")]
    ManifestUnreadable {
        /// The manifest.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The manifest is no TOML, or a key is unknown, missing or of another type; the text shows
    /// the line and names the key.
    #[error("{path}: {reason}")]
    ManifestMalformed {
        /// The manifest.
        path: PathBuf,
        /// What is wrong, with the key and the line.
        reason: String,
    },
    /// A key's value is not allowed, or an entry lacks a key that its role needs.
    #[error("{path}: {key}: {reason}")]
    ManifestValue {
        /// The manifest.
        path: PathBuf,
        /// The key, with the name of its entry.
        key: String,
        /// What is wrong, and what would be allowed.
        reason: String,
    },
    /// A file is not there or cannot be read.
    #[error(
        "{path}: {source}; expected sha256 {expected}, found no file to hash; put it there: what is published comes by script/bootstrap"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// SHA-256 of the published file.
        expected: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not the published one.
    #[error(
        "{path} is {kind}: expected {bytes_expected} bytes with sha256 {expected}, found {bytes_found} bytes with sha256 {found}; a published file: delete it and run script/bootstrap (with --gpu where it is the GPU's runtime library); one of your own: correct bytes and sha256 in the manifest"
    )]
    Differs {
        /// The file.
        path: PathBuf,
        /// `truncated` or `altered`.
        kind: &'static str,
        /// SHA-256 of the published file.
        expected: String,
        /// SHA-256 of the file that is there.
        found: String,
        /// Size of the published file.
        bytes_expected: u64,
        /// Size of the file that is there.
        bytes_found: u64,
    },
    /// The runtime library for GPUs is not there.
    #[error("the ONNX Runtime library for GPUs cannot be had, {path}: {found}; run script/bootstrap --gpu, or set infer.device = \"cpu\"")]
    NoGpuRuntime {
        /// The library, or the manifest that does not name it.
        path: PathBuf,
        /// What was found there.
        found: &'static str,
    },
    /// The manifest names no such encoder.
    #[error("{path} has no encoder called {name:?}: it has {known}; see infer.encoder")]
    NoSuchEncoder {
        /// The manifest.
        path: PathBuf,
        /// What was asked for.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// `infer.antispoof` is on and the manifest has no model for it.
    #[error(
        "{path} has no model with role = \"antispoof\", which infer.antispoof = true needs: take the entry from the manifest that comes with doorward and run script/bootstrap, or set infer.antispoof = false"
    )]
    NoAntispoof {
        /// The manifest.
        path: PathBuf,
    },
    /// A published graph cannot be rewritten.
    #[error("{path}: the graph cannot be rewritten: {reason}")]
    Graph {
        /// The published file.
        path: PathBuf,
        /// What is in the way.
        reason: String,
    },
    /// A rewritten graph cannot be stored.
    #[error("cannot write {path}: {source}; run `doorward models install` as a user who may write there")]
    Unwritable {
        /// The rewritten graph.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}
