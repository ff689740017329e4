//! Measures the real pipeline over a video file, at every frame, as fast as it goes.
//!
//! Prints one JSON object: CPU milliseconds a frame of the whole (decode to event log), of decoding
//! alone and of inference alone, the faces that were found and encoded, and who was identified.
//! `script/bench pipeline` runs it beside the loop that a user would write otherwise.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use doorward::batch::SlotPolicy;
use doorward::camera::{CameraId, Role};
use doorward::clock::{SimulatedClock, Timestamp};
use doorward::config::{DeviceChoice, InferConfig, PrecisionChoice};
use doorward::decide::Policy;
use doorward::enrol::{Enrolment, EnrolmentParts, NewSubject, SampleInput, SubjectFields};
use doorward::event::EventKind;
use doorward::event_log::EventLog;
use doorward::gallery::Gallery;
use doorward::infer::Engine;
use doorward::photo::PhotoAnalyst;
use doorward::pipeline::{Pipeline, SceneSettings, Watch};
use doorward::store::Store;
use doorward::subject::{SubjectId, SubjectUid};
use doorward::track::TrackPolicy;
use doorward::visit::VisitPolicy;
use doorward::{device, ingest};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

/// Frames that are analysed before anything is measured, so that every buffer exists.
const SESSIONS: usize = 1;

#[derive(Parser)]
struct Arguments {
    /// The video to analyse.
    #[arg(long)]
    video: PathBuf,
    /// Where the models lie.
    #[arg(long, default_value = "models")]
    models: PathBuf,
    /// Who is enrolled: `name=photo`, once a person.
    #[arg(long = "enrol", value_name = "NAME=PHOTO")]
    enrol: Vec<String>,
    /// Encode every face of every frame, instead of what a track needs.
    #[arg(long)]
    every_face: bool,
    /// The longer side of the detector's input, in pixels.
    #[arg(long, default_value_t = 640)]
    detector_side: u32,
    /// f32, bf16 or auto.
    #[arg(long, default_value = "auto")]
    precision: String,
}

/// CPU time of all threads of this process so far, in milliseconds.
fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ingest::init()?;
    let threshold_of = |engine: &Engine| engine.facts().threshold;
    let infer = InferConfig {
        device: DeviceChoice::Cpu,
        precision: match arguments.precision.as_str() {
            "f32" => PrecisionChoice::F32,
            "bf16" => PrecisionChoice::Bf16,
            _ => PrecisionChoice::Auto,
        },
        sessions: SESSIONS,
        detector_side: arguments.detector_side,
        encode_every_face: arguments.every_face,
        ..InferConfig::default()
    };
    let engine = Engine::open(&infer, &arguments.models, &device::resolve(&infer.device)?)?;
    let data = tempfile::tempdir()?;
    let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_700_000_000_000_000)));
    let store = Store::open(data.path())?;
    let gallery = Gallery::new(engine.facts().space.clone());
    let events = EventLog::open(store.clone(), 65_536, clock.clone()).await?;
    let policy = Policy { threshold: threshold_of(&engine), target_rate: None };
    let names = enrol(&arguments, &engine, &store, &gallery, &clock).await?;

    let pipeline = Pipeline::new(engine.clone(), gallery, events.clone(), clock.clone());
    let camera = CameraId::parse("bench")?;
    let sink = pipeline.watch(Watch {
        camera: camera.clone(),
        role: Role::Entry,
        analysis_fps_max: None,
        slot: SlotPolicy::Wait,
        scene: scene(&infer, policy),
    });
    let mut subscription = events.subscribe();
    let stop = CancellationToken::new();
    let (running, token) = (pipeline.clone(), stop.clone());
    let running = tokio::spawn(async move { running.run(token).await });

    // One session warm-up happened in `Engine::open`; decoding is measured apart, by the same chain.
    let before = cpu_ms();
    let video = arguments.video.clone();
    let decoded = tokio::task::spawn_blocking(move || ingest::decode_only(&video)).await??;
    let decode_ms = cpu_ms() - before;

    let inference_before = engine.inference_cpu();
    let (before, began) = (cpu_ms(), std::time::Instant::now());
    let (video, replay_camera, replay_clock) = (arguments.video.clone(), camera.clone(), clock.clone());
    let frames = tokio::task::spawn_blocking(move || ingest::replay(&video, &replay_camera, sink.as_ref(), &replay_clock)).await??;
    while !pipeline.is_idle() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (whole_ms, wall_ms) = (cpu_ms() - before, began.elapsed().as_secs_f64() * 1e3);
    let inference_after = engine.inference_cpu();
    pipeline.forget(&camera, doorward::event::EndReason::CameraRemoved).await?;
    stop.cancel();
    running.await??;
    events.close();

    let mut identities: BTreeMap<String, u32> = BTreeMap::new();
    let mut kinds: BTreeMap<String, u32> = BTreeMap::new();
    while let Ok(batch) = subscription.next().await {
        for logged in batch {
            *kinds.entry(format!("{:?}", logged.event.kind)).or_default() += 1;
            if logged.event.kind == EventKind::Identified
                && let Some(name) = logged.event.subject.and_then(|uid| names.get(&uid))
            {
                *identities.entry(name.clone()).or_default() += 1;
            }
        }
    }
    anyhow::ensure!(decoded == frames, "decoding alone gave {decoded} frames, the pipeline {frames}");
    let a_frame = |total: f64| total / frames as f64;
    let spent = |after: u64, before: u64| (after - before) as f64 / 1e6;
    let detect_ms = spent(inference_after.detect_ns, inference_before.detect_ns);
    let encode_ms = spent(inference_after.encode_ns, inference_before.encode_ns);
    let inference_ms = detect_ms + encode_ms;
    let counts = pipeline.counts();
    println!(
        "{}",
        serde_json::json!({
            "mode": if arguments.every_face { "every_face" } else { "track_rate" },
            "frames": frames,
            "cpu_ms_per_frame": a_frame(whole_ms),
            "decode_ms_per_frame": a_frame(decode_ms),
            "detect_ms_per_frame": a_frame(detect_ms),
            "encode_ms_per_face": encode_ms / (inference_after.encode_runs - inference_before.encode_runs).max(1) as f64,
            "inference_ms_per_frame": a_frame(inference_ms),
            "overhead": whole_ms / (decode_ms + inference_ms),
            "wall_ms_per_frame": a_frame(wall_ms),
            "analysed": counts.frames,
            "faces": counts.faces,
            "encoded": counts.encoded,
            "identities": identities,
            "events": kinds,
            "provider": engine.facts().provider,
            "precision": engine.facts().precision,
        })
    );
    Ok(())
}

async fn enrol(
    arguments: &Arguments,
    engine: &Engine,
    store: &Store,
    gallery: &Gallery,
    clock: &Arc<SimulatedClock>,
) -> anyhow::Result<BTreeMap<SubjectUid, String>> {
    let parts = EnrolmentParts {
        photos: PhotoAnalyst::new(engine.clone()),
        store: store.clone(),
        gallery: gallery.clone(),
        clock: clock.clone(),
        people_dir: None,
        quality_min: 0.0,
        threshold: engine.facts().threshold,
    };
    let enrolment = Enrolment::open(parts).await?;
    let mut names = BTreeMap::new();
    for entry in &arguments.enrol {
        let (name, photo) = entry.split_once('=').context("--enrol takes NAME=PHOTO")?;
        let bytes = std::fs::read(photo).with_context(|| format!("cannot read {photo}"))?;
        let subject = NewSubject {
            id: Some(SubjectId::parse(name)?),
            fields: SubjectFields::default(),
            samples: vec![SampleInput::Image(bytes.into())],
            allow_duplicate: true,
            request_id: String::new(),
        };
        let enrolled = enrolment.create_subject(subject).await?;
        let uid = enrolled.subject.context("the subject was created")?.uid;
        names.insert(uid, name.to_owned());
    }
    Ok(names)
}

fn scene(infer: &InferConfig, policy: Policy) -> SceneSettings {
    SceneSettings {
        detector_side: None,
        region_of_interest: None,
        face_pixels_min: 0,
        detection_score_min: infer.detection_score_min,
        quality_min: 0.3,
        policy,
        track: TrackPolicy { score_min: infer.detection_score_min, sightings_min: 2, unseen_max: Duration::from_secs(2) },
        visit: VisitPolicy { decision_deadline: Duration::from_secs(3), actionable: Duration::from_secs(5) },
        encode_every_face: infer.encode_every_face,
        snapshots: true,
        measure: false,
    }
}
