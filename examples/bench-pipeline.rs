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
use doorward::batch::{SlotPolicy, SlotSettings};
use doorward::camera::{CameraId, Role};
use doorward::clock::{SimulatedClock, Timestamp};
use doorward::config::{DeviceChoice, InferConfig, PrecisionChoice, RecognitionConfig};
use doorward::decide::Policy;
use doorward::enrol::{Allowed, Enrolment, EnrolmentParts, NewSubject, SampleInput, SubjectFields};
use doorward::event::{EndReason, EventKind};
use doorward::event_log::{EventLog, Subscription};
use doorward::gallery::Gallery;
use doorward::infer::Engine;
use doorward::liveness::LivePolicy;
use doorward::photo::PhotoAnalyst;
use doorward::pipeline::{Pipeline, SceneSettings, Watch};
use doorward::store::Store;
use doorward::subject::{SubjectId, SubjectUid};
use doorward::track::TrackPolicy;
use doorward::visit::VisitPolicy;
use doorward::{device, ingest};
use rustix::time::{ClockId, clock_gettime};
use tokio_util::sync::CancellationToken;

/// CPU time is what is measured; one session keeps it free of contention.
const SESSIONS: usize = 1;
/// Subscriber's lag: more events than any video gives.
const RECENT_MAX: usize = 65_536;

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

/// Everything between a file and its events.
struct Bench {
    engine: Engine,
    events: EventLog,
    pipeline: Pipeline,
    clock: Arc<SimulatedClock>,
    /// Who was enrolled under which name.
    names: BTreeMap<SubjectUid, String>,
    _data: tempfile::TempDir,
}

/// What one run cost, in milliseconds of CPU.
struct Cost {
    frames: u64,
    whole_ms: f64,
    decode_ms: f64,
    detect_ms: f64,
    encode_ms: f64,
    encode_runs: u64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    ingest::init()?;
    let bench = Bench::open(&arguments).await?;
    let subscription = bench.events.subscribe();
    let cost = bench.run(&arguments).await?;
    bench.events.close();
    let told = told(subscription, &bench.names).await;
    println!("{}", report(&arguments, &bench, &cost, told));
    Ok(())
}

impl Bench {
    async fn open(arguments: &Arguments) -> anyhow::Result<Self> {
        let infer = infer_config(arguments);
        let engine = Engine::open(&infer, &arguments.models, &device::resolve(&infer.device)?)?;
        let data = tempfile::tempdir()?;
        let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_700_000_000_000_000)));
        let store = Store::open(data.path())?;
        let gallery = Gallery::with_clock(engine.facts().space.clone(), clock.clone());
        let events = EventLog::open(store.clone(), RECENT_MAX).await?;
        let enrolment = Enrolment::new(EnrolmentParts {
            photos: PhotoAnalyst::new(engine.clone()),
            store,
            gallery: gallery.clone(),
            clock: clock.clone(),
            people_dir: None,
            quality_min: 0.0,
            policy: Policy::fixed(engine.facts().threshold),
        });
        let names = enrol(arguments, &enrolment).await?;
        let pipeline = Pipeline::new(engine.clone(), gallery, events.clone(), clock.clone());
        Ok(Self { engine, events, pipeline, clock, names, _data: data })
    }

    /// Analyses the video once, at every frame.
    async fn run(&self, arguments: &Arguments) -> anyhow::Result<Cost> {
        let camera = CameraId::parse("bench")?;
        let infer = infer_config(arguments);
        let policy = Policy::fixed(self.engine.facts().threshold);
        let slot = SlotSettings { role: Role::Entry, analysis_fps_max: None, policy: SlotPolicy::Wait };
        let sink = self.pipeline.watch(Watch { camera: camera.clone(), slot, scene: scene(&infer, policy) });
        let stop = CancellationToken::new();
        let (pipeline, token) = (self.pipeline.clone(), stop.clone());
        let running = tokio::spawn(async move { pipeline.run(token).await });

        // Decoding is measured apart, by the same chain with nobody behind it.
        let before = cpu_ms();
        let video = arguments.video.clone();
        let decoded = tokio::task::spawn_blocking(move || ingest::decode_only(&video)).await??;
        let decode_ms = cpu_ms() - before;

        let (before, inference_before) = (cpu_ms(), self.engine.inference_cpu());
        let (video, replayed, clock) = (arguments.video.clone(), camera.clone(), self.clock.clone());
        let frames = tokio::task::spawn_blocking(move || ingest::replay(&video, &replayed, sink.as_ref(), &clock)).await??;
        while !self.pipeline.is_idle() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let (whole_ms, inference) = (cpu_ms() - before, self.engine.inference_cpu());
        self.pipeline.forget(&camera, EndReason::CameraRemoved).await?;
        stop.cancel();
        running.await??;
        anyhow::ensure!(decoded == frames, "decoding alone gave {decoded} frames, the pipeline {frames}");
        let ms = |after: u64, before: u64| (after - before) as f64 / 1e6;
        Ok(Cost {
            frames,
            whole_ms,
            decode_ms,
            detect_ms: ms(inference.detect_ns, inference_before.detect_ns),
            encode_ms: ms(inference.encode_ns, inference_before.encode_ns),
            encode_runs: inference.encode_runs - inference_before.encode_runs,
        })
    }
}

fn infer_config(arguments: &Arguments) -> InferConfig {
    InferConfig {
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
    }
}

/// Who was identified how often, how many events of each kind there were, and what became of the
/// shots that were looked at.
async fn told(mut subscription: Subscription, names: &BTreeMap<SubjectUid, String>) -> serde_json::Value {
    let (mut identities, mut kinds, mut shots) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    while let Ok(batch) = subscription.next().await {
        for logged in batch {
            *kinds.entry(format!("{:?}", logged.event.kind)).or_insert(0) += 1;
            let name = logged.event.subject.and_then(|uid| names.get(&uid));
            if let (EventKind::Identified, Some(name)) = (logged.event.kind, name) {
                *identities.entry(name.clone()).or_insert(0) += 1;
            }
            if logged.event.kind == EventKind::VisitEnded {
                *shots.entry("fused".to_owned()).or_insert(0) += logged.event.shots.fused;
                for (fault, count) in &logged.event.shots.rejected {
                    *shots.entry(fault.clone()).or_insert(0) += count;
                }
            }
        }
    }
    serde_json::json!({ "identities": identities, "events": kinds, "shots": shots })
}

fn report(arguments: &Arguments, bench: &Bench, cost: &Cost, told: serde_json::Value) -> serde_json::Value {
    let a_frame = |total: f64| total / cost.frames as f64;
    let inference_ms = cost.detect_ms + cost.encode_ms;
    let counts = bench.pipeline.counts();
    let mut report = serde_json::json!({
        "mode": if arguments.every_face { "every_face" } else { "track_rate" },
        "frames": cost.frames,
        "cpu_ms_per_frame": a_frame(cost.whole_ms),
        "decode_ms_per_frame": a_frame(cost.decode_ms),
        "detect_ms_per_frame": a_frame(cost.detect_ms),
        "encode_ms_per_run": cost.encode_ms / cost.encode_runs.max(1) as f64,
        "inference_ms_per_frame": a_frame(inference_ms),
        "overhead": cost.whole_ms / (cost.decode_ms + inference_ms),
        "analysed": counts.frames,
        "faces": counts.faces,
        "encoded": counts.encoded,
        "provider": bench.engine.facts().provider,
        "precision": bench.engine.facts().precision,
    });
    if let (Some(report), serde_json::Value::Object(told)) = (report.as_object_mut(), told) {
        report.extend(told);
    }
    report
}

async fn enrol(arguments: &Arguments, enrolment: &Enrolment) -> anyhow::Result<BTreeMap<SubjectUid, String>> {
    let mut names = BTreeMap::new();
    for entry in &arguments.enrol {
        let (name, photo) = entry.split_once('=').context("--enrol takes NAME=PHOTO")?;
        let bytes = std::fs::read(photo).with_context(|| format!("cannot read {photo}"))?;
        let subject = NewSubject {
            id: Some(SubjectId::parse(name)?),
            fields: SubjectFields::default(),
            samples: vec![SampleInput::Image(bytes.into())],
            allowed: Allowed { duplicate: true, inconsistent: true },
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
        quality_min: RecognitionConfig::default().quality_min,
        policy,
        track: TrackPolicy { score_min: infer.detection_score_min, sightings_min: 2, unseen_max: Duration::from_secs(2) },
        visit: VisitPolicy {
            decision_deadline: Duration::from_secs(3),
            decide_after: None,
            reassert_every: None,
            resume_within: Duration::ZERO,
            threshold: 0.363,
            actionable: Duration::from_secs(5),
            live: LivePolicy { score_min: 0.5, refuses: false },
        },
        encode_every_face: infer.encode_every_face,
        snapshots: true,
        layout: Default::default(),
        telling: Default::default(),
        shadow: None,
        measure: false,
    }
}
