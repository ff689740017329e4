//! What the commands that look at photos by themselves have in common: options, progress, what was left out.
//!
//! In: options, a folder of photos. Out: the faces, and a word for each photo that shows none.
//! Must not know: what the faces are for.

use std::path::{Path, PathBuf};

use clap::Args;

use super::failure::Usage;
use super::output::{printable, progress};
use super::serve::ConfigOptions;
use crate::app;
use crate::config::{Config, LogConfig};
use crate::decide::Policy;
use crate::evaluate::{Cache, Embedder, FaceOfPhoto, PhotoFile, of_two_people};
use crate::photo::Worsening;

/// So many photos that show no face are named; the others are counted.
const NAMED_MAX: usize = 10;

/// Where models and templates come from.
#[derive(Debug, Args)]
pub struct EmbeddingOptions {
    #[command(flatten)]
    config: ConfigOptions,
    /// Where templates that were made before are kept [default: doorward in the user's cache folder]
    ///
    /// Templates are personal data: the folder is readable by its owner alone. Delete it when it is not needed any more.
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Keep no templates
    #[arg(long)]
    no_cache: bool,
}

impl EmbeddingOptions {
    /// The daemon's configuration.
    ///
    /// # Errors
    /// [`Usage`] for a wrong one.
    pub fn config(&self) -> anyhow::Result<Config> {
        let mut config = self.config.load().map_err(|error| Usage(error.to_string()))?;
        // Warnings are for people; what is asked for is the answer.
        if config.log == LogConfig::default() {
            config.log.filter = "warn".into();
        }
        Ok(config)
    }

    /// Opens the daemon's chain of models.
    ///
    /// # Errors
    /// What keeps it from starting.
    pub async fn open(&self, config: &Config) -> anyhow::Result<Embedder> {
        let dir = if self.no_cache { None } else { self.cache.clone().or_else(Cache::default_dir) };
        Ok(app::embedder(config, dir.as_deref()).await?.0)
    }

    /// The same, with what decides there.
    ///
    /// # Errors
    /// What keeps it from starting; a calibration or a head that cannot be used.
    pub async fn open_with_policy(&self, config: &Config) -> anyhow::Result<(Embedder, Policy)> {
        let dir = if self.no_cache { None } else { self.cache.clone().or_else(Cache::default_dir) };
        let (embedder, facts) = app::embedder(config, dir.as_deref()).await?;
        Ok((embedder, app::policy(config, &facts)?))
    }
}

/// Refuses a file that cannot be written, before the work that it is for.
///
/// # Errors
/// The folder is not there.
pub fn check_writable(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    anyhow::ensure!(folder.is_dir() && !file.is_dir(), "cannot write {}: give a file in a folder that is there", file.display());
    Ok(())
}

/// The face of each photo, as it came or made worse. What shows no face as it came is told on standard error.
///
/// # Errors
/// A photo that cannot be read, or inference that fails.
pub async fn embed(
    embedder: &Embedder,
    photos: &[PhotoFile],
    (worsening, what): (Option<Worsening>, &'static str),
) -> anyhow::Result<Vec<FaceOfPhoto>> {
    let bar = progress(photos.len(), what);
    let step = bar.clone();
    let (faces, unusable) = embedder.embed(photos, worsening, move || step.inc(1)).await?;
    bar.finish_and_clear();
    if let Some((a, b)) = of_two_people(&faces) {
        let path = |face: usize| printable(&photos[faces[face].photo].path.display().to_string());
        anyhow::bail!("{} and {} are one picture, in the folders of two people: take one of them away", path(a), path(b));
    }
    if worsening.is_none() {
        for photo in unusable.iter().take(NAMED_MAX) {
            eprintln!("left out: {}: {}", printable(&photo.path.display().to_string()), photo.reason);
        }
        if unusable.len() > NAMED_MAX {
            eprintln!("left out: {} more photos", unusable.len() - NAMED_MAX);
        }
    }
    Ok(faces)
}
