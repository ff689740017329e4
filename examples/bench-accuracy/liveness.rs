//! How many photos of living people look alive to the antispoof model, and what asking costs. How many attacks it misses is not
//! measured: there are no attacks to measure it with.
//!
//! In: photos of living people. Out: the share of them that would not be suspected, milliseconds a face.
//! Must not know: the model.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use doorward::config::{InferConfig, RecognitionConfig};
use doorward::device;
use doorward::evaluate::Folder;
use doorward::infer::{Engine, FaceInFrame, Lane};
use doorward::photo::{PhotoAnalyst, PhotoFace};
use doorward::rates::wilson;
use serde_json::{Value, json};

/// The share of the photos whose largest face looks alive, and what a face costs.
pub async fn measure(models: &Path, folder: &Folder) -> anyhow::Result<Value> {
    let config = InferConfig { antispoof: true, ..InferConfig::default() };
    let models = models.to_owned();
    let open = move || Engine::open(&config, &models, &device::resolve(&config.device)?).map_err(anyhow::Error::from);
    let engine = tokio::task::spawn_blocking(open).await??;
    let photos = PhotoAnalyst::new(engine.clone());
    let score_min = RecognitionConfig::default().live_score_min;
    let (mut alive, mut faces, mut took_ms) = (0_u64, 0_u64, Vec::new());
    for photo in &folder.photos {
        let seen = photos.examine(&std::fs::read(&photo.path)?).await.with_context(|| photo.path.display().to_string())?;
        let area = |face: &&PhotoFace| face.detection.box_in_frame.area();
        let Some(face) = seen.faces.iter().max_by(|a, b| area(a).total_cmp(&area(b))) else { continue };
        let asked = FaceInFrame { frame: seen.frame.clone(), face: face.detection.box_in_frame };
        let began = Instant::now();
        let scores = engine.live_scores(Lane::Photo, vec![asked]).await?;
        took_ms.push(began.elapsed().as_secs_f64() * 1e3);
        faces += 1;
        alive += u64::from(scores[0] >= score_min);
    }
    ensure!(faces > 0, "no photo shows a face");
    took_ms.sort_by(f64::total_cmp);
    let (share, bounds, cpu) = (alive as f64 / faces as f64, wilson(alive, faces), engine.inference_cpu());
    let inside_ms = cpu.live_ns as f64 / cpu.live_runs.max(1) as f64 / 1e6;
    let median_ms = took_ms[took_ms.len() / 2];
    eprintln!(
        "live score at least {score_min}: {alive} of {faces} photos of living people, {:.1} % ({:.1} to {:.1}); {median_ms:.2} ms a face, {inside_ms:.2} of CPU in the runtime",
        100.0 * share,
        100.0 * bounds.low,
        100.0 * bounds.high
    );
    Ok(
        json!({ "faces": faces, "alive_share": share, "low": bounds.low, "high": bounds.high, "ms_a_face": median_ms, "inference_cpu_ms": inside_ms }),
    )
}
