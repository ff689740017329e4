//! The models and the runtime library: what must be there, whether it is, and how it is prepared.
//!
//! In: `manifest.toml` in the models directory and the files it names. Out: a [`Manifest`] whose
//! entries are complete, checks that name file and hashes, and graphs rewritten for inference.
//! Drops nothing. A file that is missing, truncated or altered is never used.
//! Must not know: ONNX Runtime, sessions, who asks.

mod bytes;
mod error;
mod file;
mod manifest;
mod projection;
mod rewrite;

pub(crate) use bytes::reading_bytes;
pub use error::ModelsError;
pub use manifest::{
    AntispoofEntry, Colour, Decoder, DetectorEntry, EncoderEntry, InputEntry, LibraryEntry, Manifest, ModelEntry, ProjectionEntry, Role,
    RuntimeDevice, RuntimeEntry,
};
pub use projection::projection_graph;
pub use rewrite::REWRITER_VERSION;

use std::path::{Path, PathBuf};

use crate::device::Device;
use file::Published;

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
    /// Whether doorward runs without it: the runtime library for GPUs.
    pub is_optional: bool,
}

impl Listed {
    /// Whether there is such a file, whatever is in it.
    pub fn is_installed(&self) -> bool {
        self.path.exists()
    }
}

/// How a file is that is not wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sound {
    /// It is exactly the published one.
    AsPublished,
    /// It is not there, and nothing needs it.
    NotInstalled,
}

/// What [`Manifest::verify`] found of one file.
#[derive(Debug)]
pub struct Verified {
    /// The file.
    pub listed: Listed,
    /// What is wrong with it, if anything.
    pub outcome: Result<Sound, ModelsError>,
}

/// What [`Manifest::install`] did for one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The manifest's name of the model.
    pub name: String,
    /// The graph to run: rewritten, or as published where rewriting would gain nothing.
    pub path: PathBuf,
    /// Whether the graph was written now; `false` when a good one was there already, or the published one is used.
    pub written: bool,
}

/// The source of what nobody published.
pub const TRAINED_HERE: &str = "doorward train";

/// Makes another graph of a published one; the error says what is in the way.
type Rewrite<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<u8>, String>;

impl Manifest {
    /// A runtime's library, and what it loads from beside it.
    fn libraries(&self, entry: &RuntimeEntry) -> Vec<Listed> {
        let listed = |name: String, file: &Path, (bytes, sha256): (u64, &str), is_optional: bool| Listed {
            role: Role::Runtime,
            name,
            path: self.dir.join(file),
            bytes,
            sha256: sha256.to_owned(),
            licence: entry.licence.clone(),
            credit: String::new(),
            source: entry.source.clone(),
            is_optional,
        };
        let is_optional = entry.device != RuntimeDevice::Cpu;
        let library = listed(entry.name.clone(), &entry.file, (entry.bytes, &entry.sha256), is_optional);
        // Where the library is, the rest of it has to be.
        let is_optional = is_optional && !library.is_installed();
        let beside = entry.beside.iter().map(|beside| {
            let name = format!("{} ({})", entry.name, beside.file.file_name().unwrap_or_default().display());
            listed(name, &beside.file, (beside.bytes, &beside.sha256), is_optional)
        });
        std::iter::once(library).chain(beside).collect()
    }

    /// Every file that the manifest names, runtimes first.
    pub fn list(&self) -> Vec<Listed> {
        let runtimes = self.runtimes.iter().flat_map(|entry| self.libraries(entry));
        let encoders = self.encoders.iter().map(|encoder| (Role::Encoder, &encoder.model));
        let antispoof = self.antispoof.iter().map(|antispoof| (Role::Antispoof, &antispoof.model));
        let models = std::iter::once((Role::Detector, &self.detector.model)).chain(encoders).chain(antispoof);
        // A projection is trained at the site: nobody published it.
        let projections = self.encoders.iter().filter_map(|encoder| Some((encoder, encoder.projection.as_ref()?)));
        let projections = projections.map(|(encoder, projection)| Listed {
            role: Role::Encoder,
            name: format!("{} (projection)", encoder.model.name),
            path: self.dir.join(&projection.file),
            bytes: projection.bytes,
            sha256: projection.sha256.clone(),
            licence: String::new(),
            credit: String::new(),
            source: TRAINED_HERE.to_owned(),
            is_optional: false,
        });
        let models = models.map(|(role, entry)| Listed {
            role,
            name: entry.name.clone(),
            path: self.dir.join(&entry.file),
            bytes: entry.bytes,
            sha256: entry.sha256.clone(),
            licence: entry.licence.clone(),
            credit: entry.credit.clone(),
            source: entry.source.clone(),
            is_optional: false,
        });
        runtimes.chain(models).chain(projections).collect()
    }

    /// Reads every file and compares it with what was published: one result a file, in the order
    /// of [`list`](Self::list). Reads about 220 MB, and 390 MB more where the runtime for GPUs is installed. What is optional may be missing, and may not be altered.
    pub fn verify(&self) -> Vec<Verified> {
        let check = |listed: Listed| {
            let outcome = if listed.is_optional && !listed.is_installed() {
                Ok(Sound::NotInstalled)
            } else {
                file::verify(&listed.path, Published { bytes: listed.bytes, sha256: &listed.sha256 }).map(|()| Sound::AsPublished)
            };
            Verified { listed, outcome }
        };
        self.list().into_iter().map(check).collect()
    }

    /// Rewrites each model's graph for inference, where that pays and has not been done yet.
    ///
    /// # Errors
    /// The first published file that is not as it should be, or a graph that cannot be read or
    /// written.
    pub fn install(&self) -> Result<Vec<Installed>, ModelsError> {
        let encoders = self.encoders.iter().map(|encoder| self.prepared_encoder(encoder));
        let antispoof = self.antispoof.iter().map(|_| self.prepared(Role::Antispoof));
        std::iter::once(self.prepared(Role::Detector)).chain(encoders).chain(antispoof).collect()
    }

    /// The graph to run of the detector, the encoder in force or the antispoof model, rewritten now where
    /// that pays and a good one is missing. The published file is checked first.
    ///
    /// # Errors
    /// As [`install`](Self::install); [`ModelsError::NoAntispoof`].
    pub fn prepared(&self, role: Role) -> Result<Installed, ModelsError> {
        match role {
            Role::Detector => self.prepared_model(&self.detector.model, &|bytes| rewrite::rewrite(bytes, role)),
            Role::Encoder | Role::Runtime => self.prepared_encoder(&self.encoder),
            Role::Antispoof => self.verified_antispoof(),
        }
    }

    /// The antispoof model as it was published: its weights are no inputs of the graph, and it runs one face
    /// at one size, so that there is nothing to gain from another graph.
    fn verified_antispoof(&self) -> Result<Installed, ModelsError> {
        let missing = || ModelsError::NoAntispoof { path: self.dir.join("manifest.toml") };
        let model = &self.antispoof.as_ref().ok_or_else(missing)?.model;
        let path = self.dir.join(&model.file);
        file::verify(&path, Published { bytes: model.bytes, sha256: &model.sha256 })?;
        Ok(Installed { name: model.name.clone(), path, written: false })
    }

    fn prepared_encoder(&self, encoder: &EncoderEntry) -> Result<Installed, ModelsError> {
        let Some(projection) = &encoder.projection else {
            return self.prepared_model(&encoder.model, &|bytes| rewrite::rewrite(bytes, Role::Encoder));
        };
        let path = self.dir.join(&projection.file);
        let bytes = file::read_verified(&path, Published { bytes: projection.bytes, sha256: &projection.sha256 })?;
        let matrix = projection::matrix(&bytes).map_err(|reason| ModelsError::Graph { path, reason })?;
        // Of one file and several projections there are several graphs.
        let joined = ModelEntry {
            sha256: file::sha256_hex(format!("{} {}", encoder.model.sha256, projection.sha256).as_bytes()),
            ..encoder.model.clone()
        };
        self.prepared_as(&joined, (&encoder.model, &format!("projected-{}", &projection.sha256[..16])), &|bytes| {
            rewrite::projected(bytes, &encoder.output, matrix.clone())
        })
    }

    fn prepared_model(&self, model: &ModelEntry, rewrite: Rewrite<'_>) -> Result<Installed, ModelsError> {
        self.prepared_as(model, (model, ""), rewrite)
    }

    /// The graph of the published file that `original` names, rewritten under a name with `mark`; it is bound to the hash of `sealed`.
    fn prepared_as(
        &self,
        sealed: &ModelEntry,
        (original, mark): (&ModelEntry, &str),
        rewrite: Rewrite<'_>,
    ) -> Result<Installed, ModelsError> {
        let published = self.dir.join(&original.file);
        let bytes = file::read_verified(&published, Published { bytes: original.bytes, sha256: &original.sha256 })?;
        let path = rewrite::path_beside(&published, mark);
        let written = !rewrite::is_current(&path, &sealed.sha256);
        if written {
            let graph = rewrite(&bytes).map_err(|reason| ModelsError::Graph { path: published, reason })?;
            file::write_atomically(&path, &rewrite::seal(graph, &sealed.sha256))?;
        }
        Ok(Installed { name: original.name.clone(), path, written })
    }

    /// The runtime library for `device`, checked with all that it loads from beside it.
    ///
    /// # Errors
    /// When it is missing, truncated or altered; [`ModelsError::NoGpuRuntime`] where it is the GPU's that is
    /// missing.
    pub fn verified_runtime(&self, device: Device) -> Result<PathBuf, ModelsError> {
        let unlisted = || ModelsError::NoGpuRuntime {
            path: self.dir.join("manifest.toml"),
            found: "it has no [[runtime]] with device = \"cuda\", as the manifest that comes with doorward has",
        };
        let runtime = self.runtime_of(device).ok_or_else(unlisted)?;
        for listed in self.libraries(runtime) {
            if device != Device::Cpu && !listed.is_installed() {
                return Err(ModelsError::NoGpuRuntime { path: listed.path, found: "it is not installed" });
            }
            file::verify(&listed.path, Published { bytes: listed.bytes, sha256: &listed.sha256 })?;
        }
        Ok(self.dir.join(&runtime.file))
    }
}

#[cfg(test)]
mod tests;
