//! The session threads as one engine: what is asked, by whom, and how the answers come together.
//!
//! In: frames, faces, whose work it is. Out: the sessions' answers.
//! Drops: photos beyond those that may wait, which are refused.
//! Must not know: what a session does.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot, watch};

use super::condition::{Condition, Watched, Work};
use super::cuda::{self, DeviceSession, Gpu, GpuChoice, GpuProvider, GraphsError, GraphsPlan, Image};
use super::job::Job;
use super::meter::Meter;
use super::onnx::{self, Runtime};
use super::opening;
use super::pool::Pool;
use super::provider::Choice;
use super::worker::{Setup, Worker};
use super::{
    CutFace, DetectRequest, EngineFacts, FaceInFrame, FaceOnDevice, InferError, Inference, InferenceCpu, Lane, ModelFacts, OpenError,
};
use crate::config::{InferConfig, MirrorChoice};
use crate::device::{Device, ResolvedDevice};
use crate::face::{Detection, Photometry, Template};
use crate::frame::Frame;
use crate::models::{Listed, Manifest, Role};

/// Sessions on a GPU, and the most frames of a batch there, where the configuration does not say.
const GPU_SESSIONS: usize = 2;
const GPU_BATCH_MAX: usize = 16;
/// The most sessions on a GPU: they share one device, and each has buffers and engines of its own in its memory. A number that was
/// set for a processor's cores is none for a GPU.
const GPU_SESSIONS_MAX: usize = 4;

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
    watched: Watched,
    /// Whether frames are analysed on a device with memory of its own.
    is_on_device: bool,
    batch_max: usize,
}

impl Engine {
    /// Checks the models, loads the runtime library (once a process), opens the sessions and runs
    /// each once. Blocks: for about a second on the CPU, for several on a GPU, and for minutes where TensorRT builds engines.
    ///
    /// # Errors
    /// [`OpenError`], which says what to do. A provider that cannot be had is never replaced; a GPU that was not asked for by its
    /// number is, by the CPU, which the log says loudly.
    pub fn open(config: &InferConfig, models_dir: &Path, device: &ResolvedDevice) -> Result<Self, OpenError> {
        let Device::Cuda(ordinal) = device.device else { return Self::open_on_host(config, models_dir, device) };
        match Self::open_on_gpu(config, models_dir, (device, ordinal)) {
            Err(error) if device.may_fall_back => {
                tracing::error!(%error, "the GPU cannot be used: the CPU analyses in its place, more slowly");
                Self::open_on_host(config, models_dir, &device.clone().fallen_back(&error))
            }
            opened => opened,
        }
    }

    /// On a GPU, by two sessions: while one waits for its graphs, the device letterboxes for the other.
    fn open_on_gpu(config: &InferConfig, models_dir: &Path, (device, ordinal): (&ResolvedDevice, u32)) -> Result<Self, OpenError> {
        if config.antispoof {
            return Err(OpenError::NotOnGpu("infer.antispoof"));
        }
        let manifest = Manifest::load(models_dir)?.with_encoder(config.encoder.as_deref())?;
        let choice = GpuChoice::new(config.precision, device.without_tensorrt.as_deref())?;
        let gpu = Gpu::open(ordinal)?;
        let image = Image::compile(gpu.capability()?)?;
        let sessions = gpu_sessions(config.sessions);
        let facts = EngineFacts {
            device_reason: format!("{}; {}", device.reason, choice.provider_reason),
            precision: choice.precision.name().into(),
            precision_reason: choice.precision_reason.clone(),
            runtime_version: manifest.runtime_of(device.device).map_or_else(String::new, |runtime| runtime.name.clone()),
            ..facts(&manifest, device, (sessions, config))
        };
        let open = |is_first: bool| {
            let (gpu, image, manifest, config, device) = (gpu.clone(), image.clone(), manifest.clone(), config.clone(), device.clone());
            // At the start engines are built; a device that is opened anew in the midst of work takes those that are kept, and so does
            // a further session: an engine that the first one runs is not at fault where another one cannot be opened.
            let mut may_build = is_first || config.engine_cache_dir.is_none();
            DeviceSession::new(Box::new(move || {
                let plan = cuda::Plan { gpu: &gpu, image: &image, manifest: &manifest, config: &config, frames_max: GPU_BATCH_MAX };
                let graphs = GraphsPlan {
                    manifest: &manifest,
                    device: &device,
                    config: &config,
                    frames_max: GPU_BATCH_MAX,
                    may_build: std::mem::take(&mut may_build),
                };
                cuda::Worker::open(&plan, |stream| cuda::graphs(&graphs, stream).map_err(GraphsError::into_cuda))
            }))
        };
        // TensorRT measures kernels while it builds engines, and alone; what the first session has kept the others take.
        let workers = opening::as_many_as_fit(sessions, choice.provider == GpuProvider::Cuda, &open)?;
        let workers = DeviceSession::of_one_engine(workers);
        // What runs each graph is what the runtime says of it, and not what it was asked for.
        let provider = workers.first().map_or_else(String::new, DeviceSession::runs_on);
        let facts = EngineFacts { sessions: workers.len(), provider, ..facts };
        Self::of_device_sessions(workers, facts, GPU_BATCH_MAX).map_err(OpenError::Threads)
    }

    fn open_on_host(config: &InferConfig, models_dir: &Path, device: &ResolvedDevice) -> Result<Self, OpenError> {
        // Where the file cannot be read the processor is taken to have nothing special.
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let manifest = Manifest::load(models_dir)?.with_encoder(config.encoder.as_deref())?;
        let Runtime { environment, build } = onnx::runtime(&manifest, Device::Cpu)?;
        let choice = Choice::new(config.precision, &cpuinfo, build).ok_or(OpenError::NoBf16)?;
        let detector_graph = manifest.prepared(Role::Detector)?.path;
        let encoder_graph = manifest.prepared(Role::Encoder)?.path;
        let antispoof_graph = config.antispoof.then(|| manifest.prepared(Role::Antispoof)).transpose()?.map(|installed| installed.path);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let sessions = if config.sessions == 0 { cores } else { config.sessions };
        let facts = EngineFacts {
            provider: choice.provider_words(),
            precision: choice.precision.name().into(),
            precision_reason: choice.precision_reason.clone(),
            runtime_version: manifest
                .runtimes
                .iter()
                .find(|runtime| runtime.device == build)
                .map_or_else(String::new, |runtime| runtime.name.clone()),
            ..facts(&manifest, device, (sessions, config))
        };
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

    /// The same of sessions on a device with memory of its own, where a batch holds up to `batch_max` frames.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub fn of_device_sessions<I: Inference>(sessions: Vec<I>, facts: EngineFacts, batch_max: usize) -> std::io::Result<Self> {
        let mut engine = Self::start(sessions, facts, Arc::default())?;
        if let Some(inner) = Arc::get_mut(&mut engine.0) {
            (inner.is_on_device, inner.batch_max) = (true, batch_max);
        }
        Ok(engine)
    }

    fn start<I: Inference>(sessions: Vec<I>, facts: EngineFacts, meter: Arc<Meter>) -> std::io::Result<Self> {
        let idle = Arc::new(Semaphore::new(sessions.len()));
        let threads = sessions.into_iter().map(|mut session| move |job: Job| job.run(&mut session)).collect();
        let (pool, watched) = (Pool::start(threads)?, Watched::new());
        Ok(Self(Arc::new(Inner { pool, idle, facts, meter, watched, is_on_device: false, batch_max: 1 })))
    }

    /// Faces of each frame, best score first, in pixels of the frame. One session does all frames
    /// of a call, one after the other: batching saves nothing on the CPU.
    ///
    /// # Errors
    /// [`InferError`].
    pub async fn detect(&self, lane: Lane, requests: Vec<DetectRequest>) -> Result<Vec<Vec<Detection>>, InferError> {
        let (is_asked, (reply, answer)) = (!requests.is_empty(), oneshot::channel());
        let found = self.ask(lane, Job::Detect { requests, lane, reply }, answer).await;
        if is_asked { self.noted((lane, Work::Detect), found) } else { found }
    }

    /// The frames where they are analysed: on a GPU those that were decoded on the host are brought there, once.
    ///
    /// # Errors
    /// [`InferError`].
    pub async fn place(&self, frames: Vec<Frame>) -> Result<Vec<Frame>, InferError> {
        if !self.0.is_on_device || frames.iter().all(|frame| frame.device_pixels().is_some()) {
            return Ok(frames);
        }
        let (expected, (reply, answer)) = (frames.len(), oneshot::channel());
        as_many(expected, self.ask(Lane::Live, Job::Place { frames, reply }, answer).await?)
    }

    /// What the pixels of faces on a device say of how usable they are, in order.
    ///
    /// # Errors
    /// [`InferError`].
    pub async fn measure(&self, lane: Lane, faces: Vec<FaceOnDevice>) -> Result<Vec<Photometry>, InferError> {
        let (expected, (reply, answer)) = (faces.len(), oneshot::channel());
        let measured = self.ask(lane, Job::Measure { faces, reply }, answer).await;
        as_many(expected, self.noted((lane, Work::Measure), measured)?)
    }

    /// One template a face, in order: where that is set, the mean of the face's and its mirror image's.
    ///
    /// # Errors
    /// [`InferError`].
    pub async fn encode<F: Into<CutFace>>(&self, lane: Lane, faces: Vec<F>) -> Result<Vec<Template>, InferError> {
        let mut faces: Vec<CutFace> = faces.into_iter().map(Into::into).collect();
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
        let encoded = self.encode_each(lane, faces).await;
        let mut templates = self.noted((lane, Work::Encode), encoded)?;
        if is_mirrored {
            let mirrored = templates.split_off(count);
            for (template, mirrored) in templates.iter_mut().zip(mirrored) {
                *template = template.mean(&mirrored).map_err(|error| InferError::Session(error.to_string()))?;
            }
        }
        Ok(templates)
    }

    /// One template a face, wherever each of them is.
    async fn encode_each(&self, lane: Lane, faces: Vec<CutFace>) -> Result<Vec<Template>, InferError> {
        let (mut here, mut there, mut is_here) = (Vec::new(), Vec::new(), Vec::with_capacity(faces.len()));
        for face in faces {
            is_here.push(matches!(face, CutFace::Host(_)));
            match face {
                CutFace::Host(face) => here.push(face),
                CutFace::Device(face) => there.push(face),
            }
        }
        let counts = (here.len(), there.len());
        let (mut of_host, mut of_device) = (Vec::new(), Vec::new());
        if counts.0 > 0 {
            let (reply, answer) = oneshot::channel();
            of_host = as_many(counts.0, self.ask(lane, Job::Encode { faces: here, reply }, answer).await?)?;
        }
        if counts.1 > 0 {
            let (reply, answer) = oneshot::channel();
            of_device = as_many(counts.1, self.ask(lane, Job::EncodeOnDevice { faces: there, reply }, answer).await?)?;
        }
        let (mut of_host, mut of_device) = (of_host.into_iter(), of_device.into_iter());
        Ok(is_here.into_iter().filter_map(|is_here| if is_here { of_host.next() } else { of_device.next() }).collect())
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
        let scored = self.ask(lane, Job::LiveScores { faces, reply }, answer).await;
        as_many(expected, self.noted((lane, Work::LiveScores), scored)?)
    }

    /// What came of work, of which [`condition`](Self::condition) tells where it is a camera's: whoever sent a photo is told himself.
    fn noted<T>(&self, (lane, work): (Lane, Work), done: Result<T, InferError>) -> Result<T, InferError> {
        if lane == Lane::Live {
            self.0.watched.note(work, &done);
        }
        done
    }

    async fn ask<T>(&self, lane: Lane, job: Job, answer: oneshot::Receiver<Result<T, InferError>>) -> Result<T, InferError> {
        self.0.pool.submit(lane, job).await?;
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(self.0.pool.unanswered().await),
        }
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

    /// The numbers of the jobs that sessions are at. Each job has its own, so that one that stays is of a session that is stuck.
    pub fn jobs(&self) -> Vec<u64> {
        self.0.pool.jobs()
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

    /// How the sessions do at what cameras ask of them: it changes when work fails, and when it is done again.
    pub fn condition(&self) -> watch::Receiver<Condition> {
        self.0.watched.watch()
    }

    /// The most frames that a batch should hold: 1 on the CPU, where batching does not pay.
    pub fn batch_max(&self) -> usize {
        self.0.batch_max
    }

    /// What runs.
    pub fn facts(&self) -> &EngineFacts {
        &self.0.facts
    }

    /// CPU time spent strictly inside the runtime so far: letterboxing, decoding and waiting are
    /// not in it.
    pub fn inference_cpu(&self) -> InferenceCpu {
        self.0.meter.counted()
    }
}

/// How many sessions a GPU has, where `configured` says 0 for as many as do it good.
fn gpu_sessions(configured: usize) -> usize {
    if configured > GPU_SESSIONS_MAX {
        tracing::warn!(configured, sessions = GPU_SESSIONS_MAX, "infer.sessions is more than a GPU can use, and fewer are opened");
    }
    if configured == 0 { GPU_SESSIONS } else { configured.min(GPU_SESSIONS_MAX) }
}

/// As many answers as there were questions.
fn as_many<T>(expected: usize, answers: Vec<T>) -> Result<Vec<T>, InferError> {
    if answers.len() == expected {
        Ok(answers)
    } else {
        Err(InferError::Session(format!("{expected} were asked for, and {} came", answers.len())))
    }
}

/// What runs, but for what runs the models and in what arithmetic.
fn facts(manifest: &Manifest, device: &ResolvedDevice, (sessions, config): (usize, &InferConfig)) -> EngineFacts {
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
        device_facts: device.facts.clone(),
        provider: String::new(),
        precision: String::new(),
        precision_reason: String::new(),
        mirror: config.mirror,
        sessions,
        runtime_version: String::new(),
        space: manifest.space(),
        dimension: manifest.encoder.template_dimension(),
        threshold: manifest.encoder.threshold,
        calibration: manifest.encoder.calibration.as_ref().map(|file| manifest.dir.join(file)),
        models: manifest.list().into_iter().filter(is_in_use).map(model).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::{ALIGNED_SIDE, AlignedFace, TemplateSpace};

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
            let facts = EngineFacts { mirror, ..EngineFacts::made_up(TemplateSpace::new("s")) };
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

    #[test]
    fn a_gpu_has_few_sessions_whatever_was_set_for_a_processor() {
        assert_eq!([0, 1, 4, 5, 64].map(gpu_sessions), [2, 1, 4, 4, 4]);
    }
}
