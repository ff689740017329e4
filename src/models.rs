//! The models and the runtime library: what must be there, whether it is, and how it is prepared.
//!
//! In: `manifest.toml` in the models directory and the files it names. Out: a [`Manifest`] whose
//! entries are complete, checks that name file and hashes, and graphs rewritten for inference.
//! Drops nothing. A file that is missing, truncated or altered is never used.
//! Must not know: ONNX Runtime, sessions, who asks.

mod error;
mod file;
mod manifest;
mod rewrite;

pub use error::ModelsError;
pub use manifest::{Colour, Decoder, DetectorEntry, EncoderEntry, InputEntry, Manifest, ModelEntry, Role, RuntimeEntry};
pub use rewrite::REWRITER_VERSION;

use std::path::PathBuf;

/// One file that the manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// What it is for.
    pub role: Role,
    /// The manifest's name for it.
    pub name: String,
    /// Where it must lie.
    pub path: PathBuf,
    /// Its size as published, in bytes.
    pub bytes: u64,
    /// SHA-256 of the published file, lower-case hex.
    pub sha256: String,
    /// Its licence, as an SPDX expression where there is one.
    pub licence: String,
    /// Who made it; may be empty.
    pub credit: String,
    /// The package that carries it.
    pub source: String,
}

/// What [`Manifest::verify`] found of one file.
#[derive(Debug)]
pub struct Verified {
    /// The file.
    pub listed: Listed,
    /// `Ok` when it is exactly the published one.
    pub outcome: Result<(), ModelsError>,
}

/// What [`Manifest::install`] did for one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The manifest's name of the model.
    pub name: String,
    /// The rewritten graph.
    pub path: PathBuf,
    /// Whether the graph was written now; `false` when a good one was there already.
    pub written: bool,
}

impl Manifest {
    /// Every file that the manifest names, runtimes first.
    pub fn list(&self) -> Vec<Listed> {
        let runtimes = self.runtimes.iter().map(|entry| Listed {
            role: Role::Runtime,
            name: entry.name.clone(),
            path: self.dir.join(&entry.file),
            bytes: entry.bytes,
            sha256: entry.sha256.clone(),
            licence: entry.licence.clone(),
            credit: String::new(),
            source: entry.source.clone(),
        });
        let encoders = self.encoders.iter().map(|encoder| (Role::Encoder, &encoder.model));
        let models = std::iter::once((Role::Detector, &self.detector.model)).chain(encoders);
        let models = models.map(|(role, entry)| Listed {
            role,
            name: entry.name.clone(),
            path: self.dir.join(&entry.file),
            bytes: entry.bytes,
            sha256: entry.sha256.clone(),
            licence: entry.licence.clone(),
            credit: entry.credit.clone(),
            source: entry.source.clone(),
        });
        runtimes.chain(models).collect()
    }

    /// Reads every file and compares it with what was published: one result a file, in the order
    /// of [`list`](Self::list). Reads about 70 MB.
    pub fn verify(&self) -> Vec<Verified> {
        let check = |listed: Listed| {
            let outcome = file::read_verified(&listed.path, listed.bytes, &listed.sha256).map(drop);
            Verified { listed, outcome }
        };
        self.list().into_iter().map(check).collect()
    }

    /// Rewrites each model's graph for inference, where that has not been done yet.
    ///
    /// # Errors
    /// The first published file that is not as it should be, or a graph that cannot be read or
    /// written.
    pub fn install(&self) -> Result<Vec<Installed>, ModelsError> {
        let encoders = self.encoders.iter().map(|encoder| self.prepared_model(Role::Encoder, &encoder.model));
        std::iter::once(self.prepared(Role::Detector)).chain(encoders).collect()
    }

    /// The rewritten graph of the detector or the encoder in force, rewritten now where a good one is
    /// missing. The published file is checked first.
    ///
    /// # Errors
    /// As [`install`](Self::install).
    pub fn prepared(&self, role: Role) -> Result<Installed, ModelsError> {
        self.prepared_model(role, if role == Role::Detector { &self.detector.model } else { &self.encoder.model })
    }

    fn prepared_model(&self, role: Role, model: &ModelEntry) -> Result<Installed, ModelsError> {
        let original = self.dir.join(&model.file);
        let bytes = file::read_verified(&original, model.bytes, &model.sha256)?;
        let path = rewrite::path_beside(&original);
        let written = !rewrite::is_current(&path, &model.sha256);
        if written {
            let graph = rewrite::rewrite(&bytes, role).map_err(|reason| ModelsError::Graph { path: original, reason })?;
            file::write_atomically(&path, &rewrite::seal(graph, &model.sha256))?;
        }
        Ok(Installed { name: model.name.clone(), path, written })
    }

    /// The runtime library for the CPU, checked.
    ///
    /// # Errors
    /// When it is missing, truncated or altered.
    pub fn verified_runtime(&self) -> Result<PathBuf, ModelsError> {
        let runtime = self.runtime();
        let path = self.dir.join(&runtime.file);
        file::read_verified(&path, runtime.bytes, &runtime.sha256)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests;
