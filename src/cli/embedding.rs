//! What the commands that look at photos by themselves have in common: options, progress, what was left out.
//!
//! In: options, a folder of photos. Out: the faces, and a word for each photo that shows none.
//! Must not know: what the faces are for.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

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
    /// A wrong one.
    pub fn config(&self) -> anyhow::Result<Config> {
        let mut config = self.config.load()?;
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

/// Refuses a file that cannot be written, before the work that it is for. One that is there stays as it is.
///
/// # Errors
/// What the system says.
pub fn check_writable(file: &Path) -> anyhow::Result<()> {
    let refused = || format!("cannot write {}: give a file in a folder that is there and that you may write", file.display());
    let was_there = file.exists();
    OpenOptions::new().append(true).create(true).open(file).with_context(refused)?;
    if !was_there {
        std::fs::remove_file(file).with_context(refused)?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_is_refused_before_the_work_and_others_stay_as_they_are() {
        let folder = tempfile::tempdir().expect("a directory");
        let (new, known) = (folder.path().join("new"), folder.path().join("known"));
        std::fs::write(&known, "kept").expect("written");
        for file in [&new, &known] {
            check_writable(file).expect("it can be written");
        }
        assert!(!new.exists() && std::fs::read(&known).is_ok_and(|bytes| bytes == b"kept"));
        for file in [folder.path(), &folder.path().join("none/file"), Path::new("/proc/file")] {
            let refused = check_writable(file).expect_err("nobody can write there");
            assert!(refused.to_string().contains(&file.display().to_string()), "{refused}");
        }
    }
}
