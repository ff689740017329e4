//! Measures how right decisions are on photos of known people, and whether promised error rates are kept.
//!
//! In: a folder of photos by person, a list of pairs. Out: figures on standard error, and one JSON line.
//! Thresholds are always calibrated on people other than those they are tested on.
//! Must not know: how a rate is computed; the library does.

#![allow(clippy::unwrap_used, reason = "a benchmark ends with what is wrong")]

mod figures;
mod liveness;
mod visits;

use std::path::{Path, PathBuf};

use anyhow::Context;
use doorward::config::{InferConfig, PrecisionChoice};
use doorward::device;
use doorward::evaluate::identification::Known;
use doorward::evaluate::verification::{Comparison, Verification};
use doorward::evaluate::{Embedder, Folder, PhotoFile, pairs};
use doorward::infer::Engine;
use doorward::photo::Worsening;
use serde_json::{Value, json};
use visits::Shot;

/// The command line, as `--name value`.
struct Arguments {
    models: PathBuf,
    photos: PathBuf,
    pairs: Option<PathBuf>,
    /// Nothing else than live scores.
    only_liveness: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = arguments()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let line = runtime.block_on(measure(&arguments))?;
    println!("{line}");
    Ok(())
}

fn arguments() -> anyhow::Result<Arguments> {
    let mut given = std::env::args().skip(1);
    let (mut models, mut photos, mut pairs, mut only_liveness) = (None, None, None, false);
    while let Some(name) = given.next() {
        let value = given.next().map(PathBuf::from);
        match name.as_str() {
            "--models" => models = value,
            "--photos" => photos = value,
            "--pairs" => pairs = value,
            "--only" if value.as_deref() == Some(Path::new("liveness")) => only_liveness = true,
            other => anyhow::bail!("{other} is not known: --models DIR --photos DIR [--pairs FILE] [--only liveness]"),
        }
    }
    let (models, photos) = (models.context("--models DIR is needed")?, photos.context("--photos DIR is needed")?);
    Ok(Arguments { models, photos, pairs, only_liveness })
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Value> {
    let folder = Folder::read(&arguments.photos)?;
    let liveness = liveness::measure(&arguments.models, &folder).await?;
    if arguments.only_liveness {
        return Ok(json!({ "bench": "accuracy", "liveness": liveness }));
    }
    let pairs = arguments.pairs.as_ref().map(|list| pairs::read(list, &arguments.photos)).transpose()?;
    let (half, exact) =
        (precision(&arguments.models, PrecisionChoice::Bf16).await, precision(&arguments.models, PrecisionChoice::F32).await?);
    let known = embed(&exact, &folder).await?;
    eprintln!("{} photos of {} people show a face", known.len(), folder.people.len());
    let accuracy = |verification: &Verification| verification.accuracy().0;
    let exact_pairs = match &pairs {
        Some(pairs) => Some(verify(&exact, pairs).await?),
        None => None,
    };
    let loss = match (half, &pairs, &exact_pairs) {
        (Ok(half), Some(pairs), Some(exact)) => Some(100.0 * (accuracy(exact) - accuracy(&verify(&half, pairs).await?))),
        (Err(reason), ..) => {
            eprintln!("LEFT OUT: bf16 beside f32: {reason}");
            None
        }
        _ => None,
    };
    let rates = figures::rates(&known);
    let searches = figures::searches(&known);
    let heads = figures::heads(&known, exact.space())?;
    let visits = visits::rate(&shots(&exact, &folder).await?);
    Ok(json!({
        "bench": "accuracy",
        "people": folder.people.len(), "photos": known.len(),
        "pairs_accuracy": exact_pairs.as_ref().map(accuracy),
        "pairs_accuracy_sd": exact_pairs.as_ref().map(|pairs| pairs.accuracy().1),
        "fmr": rates.measured, "fnmr": rates.fnmr, "fmr_within_interval": rates.within,
        "fnir_at_fpir_1pct": searches.fnir, "fpir": searches.measured, "fpir_within_interval": searches.within,
        "visits": visits, "liveness": liveness,
        "bf16_loss_points": loss, "heads": heads,
    }))
}

async fn precision(models: &Path, precision: PrecisionChoice) -> anyhow::Result<Embedder> {
    let config = InferConfig { precision, ..InferConfig::default() };
    let models = models.to_owned();
    let engine =
        tokio::task::spawn_blocking(move || Engine::open(&config, &models, &device::resolve(&config.device)?).map_err(anyhow::Error::from));
    // Templates are made anew each time: a benchmark rests on nothing that is left from before.
    Ok(Embedder::new(engine.await??, None)?)
}

async fn embed(embedder: &Embedder, folder: &Folder) -> anyhow::Result<Vec<Known>> {
    let (faces, unusable) = embedder.embed(&folder.photos, None, || ()).await?;
    unusable.iter().for_each(|photo| eprintln!("left out: {}: {}", photo.path.display(), photo.reason));
    Ok(faces
        .into_iter()
        .map(|face| Known { person: face.person, quality: face.quality, values: face.template.values().to_vec() })
        .collect())
}

/// Every photo as it is and made worse, as a visitor who comes nearer gives them.
async fn shots(embedder: &Embedder, folder: &Folder) -> anyhow::Result<Vec<Shot>> {
    let mut shots = Vec::new();
    for worsening in Worsening::ALL.map(Some).into_iter().chain([None]) {
        let (faces, _) = embedder.embed(&folder.photos, worsening, || ()).await?;
        shots.extend(faces.into_iter().map(|face| Shot {
            person: face.person,
            photo: face.photo,
            is_worsened: worsening.is_some(),
            quality: face.quality,
            template: face.template,
        }));
    }
    Ok(shots)
}

async fn verify(embedder: &Embedder, pairs: &[pairs::Pair]) -> anyhow::Result<Verification> {
    let mut paths: Vec<&PathBuf> = pairs.iter().flat_map(|pair| [&pair.a, &pair.b]).collect();
    paths.sort_unstable();
    paths.dedup();
    let photos: Vec<PhotoFile> = paths.iter().map(|path| PhotoFile { person: 0, path: (*path).clone() }).collect();
    let (faces, _) = embedder.embed(&photos, None, || ()).await?;
    let face = |path: &PathBuf| faces.iter().find(|face| photos[face.photo].path == *path);
    let score = |pair: &pairs::Pair| Some(face(&pair.a)?.template.similarity(&face(&pair.b)?.template).unwrap());
    let comparisons: Vec<Comparison> =
        pairs.iter().map(|pair| Comparison { score: score(pair), same: pair.same, fold: pair.fold }).collect();
    Ok(Verification::of(&comparisons))
}
