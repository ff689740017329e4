//! Finds faces in frames, turns aligned faces into templates, and says how much a face looks alive.
//!
//! In: frames, aligned faces. Out: detections in pixels of the frame, templates, live scores.
//! Drops: detections below the asked score or size. Waiting photos beyond sixteen are refused.
//! Must not know: where frames come from, what a template is compared with.

mod align;
mod border;
mod compare;
pub mod cuda;
mod decode;
mod host;
mod job;
mod liveness;
mod onnx;
mod pool;
mod provider;
mod queue;
mod taps;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{Semaphore, oneshot};

pub use align::align;
pub use border::with_border;
pub use compare::{GraphDifference, compare_graphs};
pub use liveness::FaceInFrame;

use crate::camera::NormalisedRect;
use crate::config::{InferConfig, MirrorChoice};
use crate::device::{Device, ResolvedDevice};
use crate::face::{AlignedFace, Detection, Template, TemplateSpace};
use crate::frame::Frame;
use crate::models::{Listed, Manifest, ModelsError, Role};
use job::Job;
use onnx::Runtime;
use pool::Pool;
use provider::Choice;
use worker::{Meter, Setup, Worker};

/// Whose work it is; live frames go before photos, photos never starve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// Camera frames.
    Live,
    /// Photos by RPC.
    Photo,
}

/// A frame to look for faces in, and how.
#[derive(Clone, Debug)]
pub struct DetectRequest {
    /// The picture.
    pub frame: Frame,
    /// Longer side of the detector's input, in pixels, a multiple of 32; `None` takes the
    /// configured one.
    pub detector_side: Option<u32>,
    /// Only here; `None` looks everywhere.
    pub region_of_interest: Option<NormalisedRect>,
    /// Detections below this score are dropped; `None` takes the configured one.
    pub score_min: Option<f32>,
    /// Faces whose smaller side has fewer pixels are dropped; 0 drops none.
    pub face_pixels_min: u32,
}

/// What runs, for the log and `GetStatus`.
#[derive(Clone, Debug)]
pub struct EngineFacts {
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Why this device.
    pub device_reason: String,
    /// What runs the models, in words.
    pub provider: String,
    /// `f32` or `bf16`.
    pub precision: String,
    /// Why this precision.
    pub precision_reason: String,
    /// Which faces are encoded together with their mirror image.
    pub mirror: MirrorChoice,
    /// How many session threads there are.
    pub sessions: usize,
    /// The runtime library, by the manifest's name.
    pub runtime_version: String,
    /// The space that templates live in.
    pub space: TemplateSpace,
    /// The manifest's cosine threshold of the encoder.
    pub threshold: f32,
    /// Where the manifest says that the encoder's calibration lies.
    pub calibration: Option<PathBuf>,
    /// The detector, the encoder, and the antispoof model where it is in use.
    pub models: Vec<ModelFacts>,
}

/// One model, as the manifest states it.
#[derive(Clone, Debug)]
pub struct ModelFacts {
    /// `detector`, `encoder` or `antispoof`.
    pub role: String,
    /// Its name.
    pub name: String,
    /// The published file.
    pub file: String,
    /// The published file's SHA-256.
    pub sha256: String,
    /// Its licence.
    pub licence: String,
}

/// CPU time strictly inside the runtime since the engine was opened, over all threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InferenceCpu {
    /// Nanoseconds in the detector.
    pub detect_ns: u64,
    /// Runs of the detector.
    pub detect_runs: u64,
    /// Nanoseconds in the encoder.
    pub encode_ns: u64,
    /// Runs of the encoder.
    pub encode_runs: u64,
    /// Nanoseconds in the antispoof model.
    pub live_ns: u64,
    /// Runs of the antispoof model.
    pub live_runs: u64,
}

/// Inference failed.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// The queue of photos is full: try again later.
    #[error("too many photos are waiting; try again later")]
    Busy,
    /// The engine is shutting down.
    #[error("inference has stopped")]
    Stopped,
    /// A session failed.
    #[error("inference failed: {0}")]
    Session(String),
}

/// Inference cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A model or the runtime library is not as it should be.
    #[error(transparent)]
    Models(#[from] ModelsError),
    /// The runtime library cannot be loaded.
    #[error("cannot load the runtime library {path}: {reason}")]
    Runtime {
        /// The library.
        path: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// A session cannot be opened.
    #[error(
        "cannot open {graph} with the {provider} provider in {precision}: {reason}; `doorward doctor` checks the runtime's libraries, and infer.precision = \"f32\" needs the least of the processor"
    )]
    Session {
        /// The rewritten graph.
        graph: PathBuf,
        /// What should run it.
        provider: &'static str,
        /// In what arithmetic.
        precision: &'static str,
        /// What the runtime says.
        reason: String,
    },
    /// bf16 was asked for, and the processor has none.
    #[error("infer.precision = \"bf16\" needs a processor with avx512_bf16 or amx_bf16, and this one has neither; set it to auto or f32")]
    NoBf16,
    /// The device is none that this build can use.
    #[error("this build cannot analyse on {0}; set infer.device to auto or cpu")]
    Device(Device),
    /// The system gives no more threads.
    #[error("cannot start the session threads: {0}")]
    Threads(std::io::Error),
}

/// What a session thread can do: the models on some device, or in tests what a test makes of it.
/// A panic ends the whole engine.
pub trait Inference: Send + 'static {
    /// Faces of each picture, best score first, in its pixels.
    ///
    /// # Errors
    /// [`InferError::Session`] when the pictures are lost; the next may do better.
    fn detect(&mut self, requests: &[DetectRequest], lane: Lane) -> Result<Vec<Vec<Detection>>, InferError>;

    /// One template a face, in order.
    ///
    /// # Errors
    /// [`InferError::Session`] when the faces are lost; the next may do better.
    fn encode(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, InferError>;

    /// How much each face looks alive, 0 to 1, in order.
    ///
    /// # Errors
    /// [`InferError::Session`] as above, and of sessions without the model.
    fn live_scores(&mut self, _faces: &[FaceInFrame]) -> Result<Vec<f32>, InferError> {
        Err(InferError::Session("live scores are not measured; set infer.antispoof = true".into()))
    }
}

/// Held while a batch is analysed: as many as there are sessions.
#[derive(Debug)]
pub struct SessionPermit(#[allow(dead_code)] tokio::sync::OwnedSemaphorePermit);

/// A handle on the session threads. Clones share them. The threads end when the last handle is
/// dropped, which waits for the job that each is at (tens of milliseconds).
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    pool: Pool<Job>,
    idle: Arc<Semaphore>,
    facts: EngineFacts,
    meter: Arc<Meter>,
}

impl Engine {
    /// Checks the models, loads the runtime library (once a process), opens the sessions and runs
    /// each once. Blocks, for about a second.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do. A provider that cannot be had is never replaced.
    pub fn open(config: &InferConfig, models_dir: &Path, device: &ResolvedDevice) -> Result<Self, OpenError> {
        if device.device != Device::Cpu {
            return Err(OpenError::Device(device.device));
        }
        // Where the file cannot be read the processor is taken to have nothing special.
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let manifest = Manifest::load(models_dir)?.with_encoder(config.encoder.as_deref())?;
        let Runtime { environment, build } = onnx::runtime(&manifest, device.device)?;
        let choice = Choice::new(config.precision, &cpuinfo, build).ok_or(OpenError::NoBf16)?;
        let detector_graph = manifest.prepared(Role::Detector)?.path;
        let encoder_graph = manifest.prepared(Role::Encoder)?.path;
        let antispoof_graph = config.antispoof.then(|| manifest.prepared(Role::Antispoof)).transpose()?.map(|installed| installed.path);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let sessions = if config.sessions == 0 { cores } else { config.sessions };
        let facts = facts(&manifest, &choice, device, (sessions, config));
        let (config, space, meter) = (config.clone(), manifest.space(), Arc::new(Meter::default()));
        let meter_shown = meter.clone();
        let setup = Arc::new(Setup { manifest, environment, detector_graph, encoder_graph, antispoof_graph, choice, config, space, meter });
        let workers = (0..sessions).map(|_| Worker::open(setup.clone())).collect::<Result<Vec<_>, _>>()?;
        Self::start(workers, facts, meter_shown).map_err(OpenError::Threads)
    }

    /// An engine whose threads each run one of `sessions`; `facts` says what they are.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn of_sessions<I: Inference>(sessions: Vec<I>, facts: EngineFacts) -> std::io::Result<Self> {
        Self::start(sessions, facts, Arc::default())
    }

    fn start<I: Inference>(sessions: Vec<I>, facts: EngineFacts, meter: Arc<Meter>) -> std::io::Result<Self> {
        let idle = Arc::new(Semaphore::new(sessions.len()));
        let threads = sessions.into_iter().map(|mut session| move |job: Job| job.run(&mut session)).collect();
        Ok(Self(Arc::new(Inner { pool: Pool::start(threads)?, idle, facts, meter })))
    }

    /// Faces of each frame, best score first, in pixels of the frame. One session does all frames
    /// of a call, one after the other: batching saves nothing on the CPU.
    ///
    /// # Errors
    /// [`InferError`].
    pub async fn detect(&self, lane: Lane, requests: Vec<DetectRequest>) -> Result<Vec<Vec<Detection>>, InferError> {
        let (reply, answer) = oneshot::channel();
        self.ask(lane, Job::Detect { requests, lane, reply }, answer).await
    }

    /// One template a face, in order: where that is set, the mean of the face's and its mirror image's.
    ///
    /// # Errors
    /// [`InferError`].
    pub async fn encode(&self, lane: Lane, mut faces: Vec<AlignedFace>) -> Result<Vec<Template>, InferError> {
        let count = faces.len();
        let is_mirrored = match self.0.facts.mirror {
            MirrorChoice::Off => false,
            MirrorChoice::Photos => lane == Lane::Photo,
            MirrorChoice::All => true,
        };
        if is_mirrored {
            faces.extend_from_within(..);
            faces[count..].iter_mut().for_each(|face| *face = face.mirrored());
        }
        let (reply, answer) = oneshot::channel();
        let mut templates: Vec<Template> = self.ask(lane, Job::Encode { faces, reply }, answer).await?;
        if is_mirrored && templates.len() == 2 * count {
            let mirrored = templates.split_off(count);
            for (template, mirrored) in templates.iter_mut().zip(mirrored) {
                *template = template.mean(&mirrored).map_err(|error| InferError::Session(error.to_string()))?;
            }
        }
        Ok(templates)
    }

    /// Whether the sessions have the antispoof model, so that live scores can be had.
    pub fn has_live_scores(&self) -> bool {
        self.0.facts.models.iter().any(|model| model.role == Role::Antispoof.name())
    }

    /// How much each face looks alive, 0 to 1, in order.
    ///
    /// # Errors
    /// [`InferError`]; always unless [`has_live_scores`](Self::has_live_scores).
    pub async fn live_scores(&self, lane: Lane, faces: Vec<FaceInFrame>) -> Result<Vec<f32>, InferError> {
        let (reply, answer) = oneshot::channel();
        let expected = faces.len();
        let scores: Vec<f32> = self.ask(lane, Job::LiveScores { faces, reply }, answer).await?;
        if scores.len() == expected {
            Ok(scores)
        } else {
            Err(InferError::Session(format!("{expected} faces gave {} live scores", scores.len())))
        }
    }

    async fn ask<T>(&self, lane: Lane, job: Job, answer: oneshot::Receiver<Result<T, InferError>>) -> Result<T, InferError> {
        self.0.pool.submit(lane, job).await?;
        // Without an answer the thread has panicked, or the engine is ending.
        answer.await.unwrap_or_else(|_| Err(self.0.pool.ended()))
    }

    /// Waits until a session is idle.
    ///
    /// # Errors
    /// [`InferError::Stopped`] when the engine ends.
    pub async fn idle_session(&self) -> Result<SessionPermit, InferError> {
        let permit = self.0.idle.clone().acquire_owned().await;
        permit.map(SessionPermit).map_err(|_| InferError::Stopped)
    }

    /// A session that is idle at this moment, if there is one.
    pub fn idle_session_now(&self) -> Option<SessionPermit> {
        self.0.idle.clone().try_acquire_owned().ok().map(SessionPermit)
    }

    /// Waits until a session thread has panicked and tells which, and why. From then on every call
    /// fails with the same words: the daemon should end. Pending as long as all is well.
    pub fn failed(&self) -> impl Future<Output = String> + Send + 'static {
        let mut failure = self.0.pool.failure();
        async move {
            let reason = failure.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
            match reason {
                Some(reason) => reason,
                // The engine was dropped, which is no failure.
                None => std::future::pending().await,
            }
        }
    }

    /// The most frames that a batch should hold: 1, since batching does not pay on the CPU.
    pub fn batch_max(&self) -> usize {
        1
    }

    /// What runs.
    pub fn facts(&self) -> &EngineFacts {
        &self.0.facts
    }

    /// CPU time spent strictly inside the runtime so far: letterboxing, decoding and waiting are
    /// not in it.
    pub fn inference_cpu(&self) -> InferenceCpu {
        let meter = &self.0.meter;
        InferenceCpu {
            detect_ns: meter.detect_ns.load(Ordering::Relaxed),
            detect_runs: meter.detect_runs.load(Ordering::Relaxed),
            encode_ns: meter.encode_ns.load(Ordering::Relaxed),
            encode_runs: meter.encode_runs.load(Ordering::Relaxed),
            live_ns: meter.live_ns.load(Ordering::Relaxed),
            live_runs: meter.live_runs.load(Ordering::Relaxed),
        }
    }
}

fn facts(manifest: &Manifest, choice: &Choice, device: &ResolvedDevice, (sessions, config): (usize, &InferConfig)) -> EngineFacts {
    // Of several encoders one is in force.
    let is_in_use = |listed: &Listed| match listed.role {
        Role::Runtime => false,
        Role::Detector => true,
        Role::Encoder => listed.name == manifest.encoder.model.name,
        Role::Antispoof => config.antispoof,
    };
    let model = |listed: Listed| ModelFacts {
        role: listed.role.name().into(),
        name: listed.name,
        file: listed.path.display().to_string(),
        sha256: listed.sha256,
        licence: listed.licence,
    };
    EngineFacts {
        device: device.device.to_string(),
        device_reason: device.reason.clone(),
        provider: choice.provider_words(),
        precision: choice.precision.name().into(),
        precision_reason: choice.precision_reason.clone(),
        mirror: config.mirror,
        sessions,
        runtime_version: manifest.runtime().name.clone(),
        space: manifest.space(),
        threshold: manifest.encoder.threshold,
        calibration: manifest.encoder.calibration.as_ref().map(|file| manifest.dir.join(file)),
        models: manifest.list().into_iter().filter(is_in_use).map(model).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::ALIGNED_SIDE;

    /// Makes templates of a face's first and last pixel of a row.
    struct Corners;

    impl Inference for Corners {
        fn detect(&mut self, requests: &[DetectRequest], _: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
            Ok(vec![Vec::new(); requests.len()])
        }

        fn encode(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
            let of = |face: &AlignedFace| [face.rgb()[0], face.rgb()[(ALIGNED_SIDE - 1) * 3]].map(f32::from);
            let template = |face: &AlignedFace| Template::normalised(TemplateSpace::new("s"), &of(face));
            faces.iter().map(|face| template(face).map_err(|error| InferError::Session(error.to_string()))).collect()
        }
    }

    #[tokio::test]
    async fn a_mirror_image_is_taken_in_where_that_is_set_and_nowhere_else() {
        let mut pixels = Box::new([0; ALIGNED_SIDE * ALIGNED_SIDE * 3]);
        pixels[0] = 200;
        let face = AlignedFace::new(pixels);
        for (mirror, live, photo) in
            [(MirrorChoice::Off, false, false), (MirrorChoice::Photos, false, true), (MirrorChoice::All, true, true)]
        {
            let said = String::new;
            let facts = EngineFacts {
                device: said(),
                device_reason: said(),
                provider: said(),
                precision: said(),
                precision_reason: said(),
                mirror,
                sessions: 1,
                runtime_version: said(),
                space: TemplateSpace::new("s"),
                threshold: 0.5,
                calibration: None,
                models: Vec::new(),
            };
            let engine = Engine::of_sessions(vec![Corners], facts).expect("a thread");
            for (lane, is_mirrored) in [(Lane::Live, live), (Lane::Photo, photo)] {
                let templates = engine.encode(lane, vec![face.clone(), face.clone()]).await.expect("encoded");
                // The face points one way, its mirror image the other, and their mean between both.
                let expected = if is_mirrored { [0.5_f32.sqrt(); 2] } else { [1.0, 0.0] };
                assert!(
                    templates.len() == 2 && templates.iter().all(|template| template.values() == expected),
                    "{mirror:?} {lane:?}: {templates:?}"
                );
            }
        }
    }
}
