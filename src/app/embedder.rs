//! Opens what is needed to look at photos without a daemon.
//!
//! In: a configuration. Out: an embedder over sessions of its own.
//! Must not know: what the templates are for.

use std::path::Path;

use crate::config::Config;
use crate::device;
use crate::evaluate::Embedder;
use crate::infer::{Engine, EngineFacts};

/// The daemon's own chain of models over `config`, and what it is made of. Templates are remembered in the folder `cache`
/// where one is given.
///
/// # Errors
/// What keeps inference from starting, or the cache from being opened.
pub async fn embedder(config: &Config, cache: Option<&Path>) -> anyhow::Result<(Embedder, EngineFacts)> {
    let device = device::resolve(&config.infer.device)?;
    let (infer, models_dir) = (config.infer.clone(), config.models_dir.clone());
    let engine = tokio::task::spawn_blocking(move || Engine::open(&infer, &models_dir, &device)).await??;
    let facts = engine.facts().clone();
    Ok((Embedder::new(engine, cache.map(|dir| (dir, &config.infer)))?, facts))
}
