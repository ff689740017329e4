//! Runs the models on a GPU where their input lies: sessions of TensorRT, or of the CUDA provider where there is no TensorRT.
//!
//! In: a device, the manifest, a worker's stream. Out: its [`Graphs`], or an error that says what to do.
//! Drops nothing here; [`GraphSession`] lets go of what it keeps for pictures of a size.
//! Must not know: surfaces, what outputs mean, how a session's runs end. The CPU is never taken in place of the GPU.

mod assignment;
mod canvas;
mod choice;
mod contract;
mod engines;
mod error;
mod graph_session;
mod options;
mod progress;
mod runner;
mod source;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ort::environment::Environment;

pub use choice::{GpuChoice, GpuPrecision, GpuProvider};
pub use contract::OutputShape;
pub use error::GraphsError;
pub use graph_session::GraphSession;
pub use options::Profile;
pub use source::{BindingSession, SessionSource};

use super::Graphs;
use super::driver::Stream;
use super::worker::FACES_MAX;
use crate::config::InferConfig;
use crate::device::{Device, ResolvedDevice};
use crate::face::ALIGNED_SIDE;
use crate::frame::Size;
use crate::infer::host::{CanvasShape, Placement};
use crate::infer::onnx;
use crate::models::{Manifest, ModelEntry, Role};
use contract::Contract;
use engines::{EngineFolder, Key, KeyParts};
use runner::{Runner, RunnerPlan};

/// How many faces the encoder is made fastest for: those of a few cameras at once.
const FACES_USUAL: usize = 8;
/// How long a device that is opened anew waits for whoever holds the engines: cameras wait behind it.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(3);
/// The side of the picture that the detector is looked at with, which it cuts down by 32.
const SMALL: usize = 64;
/// How often it is told that an engine is still being built.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What the graphs of a worker are opened with.
#[derive(Clone, Copy)]
pub struct GraphsPlan<'a> {
    /// What the models want and answer, with the encoder in force.
    pub manifest: &'a Manifest,
    /// The GPU, and whether TensorRT can be had there.
    pub device: &'a ResolvedDevice,
    /// The precision, the detector's side, and where engines are kept.
    pub config: &'a InferConfig,
    /// The most frames of a batch, as in the worker's plan.
    pub frames_max: usize,
    /// Whether engines may be built, which takes minutes: at a start, and never in the midst of work.
    pub may_build: bool,
}

/// Opens both graphs on the device of the plan, in `stream`, and runs each. Loads the runtime library for GPUs, once a
/// process. Where TensorRT has to build an engine that takes minutes; the log says so, and goes on saying so.
///
/// # Errors
/// [`GraphsError`], which says what to do. Another provider is never taken, nor the CPU.
pub fn graphs(plan: &GraphsPlan<'_>, stream: &Arc<Stream>) -> Result<Graphs, GraphsError> {
    let GraphsPlan { manifest, device, config, frames_max, .. } = *plan;
    let Device::Cuda(ordinal) = device.device else { return Err(GraphsError::Device(device.device)) };
    let choice = GpuChoice::new(config.precision, device.without_tensorrt.as_deref())?;
    let environment = onnx::runtime(manifest, device.device)?.environment;
    let opening = Opening { plan, environment, choice, ordinal, stream };
    let side = config.detector_side;
    let usual = Placement::new(Size { width: 1920, height: 1080 }, None, side, CanvasShape::Fitted).canvas;
    let detector = Profile::of_detector(side as usize, (usual.height as usize, usual.width as usize), frames_max);
    let encoder = Profile::of_encoder(ALIGNED_SIDE, FACES_USUAL, FACES_MAX);
    // Both are held to what they must be before either is opened: the detector's engine may take minutes to build.
    let checked = (opening.checked(Role::Detector, (SMALL, SMALL))?, opening.checked(Role::Encoder, (ALIGNED_SIDE, ALIGNED_SIDE))?);
    let (detector, encoder) = match opening.choice.provider {
        // It measures kernels while it builds engines, and alone.
        GpuProvider::TensorRt => (opening.graph(checked.0, detector)?, opening.graph(checked.1, encoder)?),
        // Each plans its convolutions by itself, for seconds in which nobody is recognised.
        GpuProvider::Cuda => std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().spawn_scoped(scope, || opening.graph(checked.0, detector));
            let encoder = opening.graph(checked.1, encoder);
            let no_thread = |error| GraphsError::Provider {
                model: manifest.detector.model.name.clone(),
                provider: GpuProvider::Cuda.name(),
                precision: opening.choice.precision.name(),
                reason: format!("the system gives no thread to open it in: {error}"),
            };
            let detector = thread.map_err(no_thread)?.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, GraphsError>((detector?, encoder?))
        })?,
    };
    Ok(Graphs { detector: Box::new(detector), encoder: Box::new(encoder) })
}

/// What both graphs are opened with.
struct Opening<'a> {
    plan: &'a GraphsPlan<'a>,
    environment: Environment,
    choice: GpuChoice,
    ordinal: u32,
    stream: &'a Arc<Stream>,
}

/// A graph that is what the manifest says of it, and takes any number of pictures.
struct Checked<'a> {
    model: &'a ModelEntry,
    path: PathBuf,
    contract: Contract,
}

impl<'a> Opening<'a> {
    /// Looks at a graph on the CPU, with pictures of this height and width.
    fn checked(&self, role: Role, size: (usize, usize)) -> Result<Checked<'a>, GraphsError> {
        let manifest = self.plan.manifest;
        let model = if role == Role::Detector { &manifest.detector.model } else { &manifest.encoder.model };
        let path = manifest.prepared(role)?.path;
        let mut contract = Contract::open(&self.environment, &path, model)?;
        // What was found at the start holds when the device is opened anew, and then everybody waits.
        if self.plan.may_build {
            let failed = |reason| GraphsError::Provider { model: model.name.clone(), provider: "CPU", precision: "f32", reason };
            contract.outputs(size).map_err(failed)?;
            if !contract.takes_two(size) {
                return Err(GraphsError::StaticBatch { model: model.name.clone(), graph: path, batch: 1 });
            }
        }
        Ok(Checked { model, path, contract })
    }

    fn graph(&self, Checked { model, path, contract }: Checked<'_>, profile: Profile) -> Result<GraphSession<Setup>, GraphsError> {
        let mut setup = Setup {
            environment: self.environment.clone(),
            graph: path,
            contract,
            model: model.clone(),
            choice: self.choice.clone(),
            ordinal: self.ordinal,
            profile,
            may_build: self.plan.may_build,
            kept: None,
        };
        let mut cache = match &self.plan.config.engine_cache_dir {
            // Cameras wait behind whoever waits for another process in the midst of work.
            Some(root) if self.choice.provider == GpuProvider::TensorRt => {
                Some(EngineFolder::open(root, &self.key(&setup)?, (!setup.may_build).then_some(BUSY_WAIT_MAX))?)
            }
            _ => None,
        };
        let engine = (self.choice.provider == GpuProvider::TensorRt).then(|| setup.open(cache.as_mut(), self.stream)).transpose()?;
        setup.kept = cache.as_ref().map(EngineFolder::in_use).transpose()?;
        drop(cache);
        GraphSession::open(setup, engine, (profile, self.stream))
    }

    fn key(&self, setup: &Setup) -> Result<Key, GraphsError> {
        let device = self.plan.device;
        let fact = |what: &str| device.facts.iter().find(|fact| fact.what == what).map_or("not looked at", |fact| fact.found.as_str());
        let graph_sha256 = engines::file_sha256(&setup.graph).map_err(|source| GraphsError::Cache { path: setup.graph.clone(), source })?;
        Ok(Key::new(&KeyParts {
            model: &setup.model.name,
            graph_sha256: &graph_sha256,
            gpu: &engines::roughly(fact(&device.device.to_string())),
            tensorrt: fact("TensorRT"),
            runtime: self.plan.manifest.runtime_of(device.device).map_or("", |runtime| &runtime.name),
            precision: self.choice.precision.name(),
            profile: &setup.profile.words(),
        }))
    }
}

/// What sessions of one graph are opened with.
struct Setup {
    environment: Environment,
    graph: PathBuf,
    contract: Contract,
    model: ModelEntry,
    choice: GpuChoice,
    ordinal: u32,
    profile: Profile,
    may_build: bool,
    /// Held so that no other process removes the engine, which would have to be built again where the device is opened anew.
    kept: Option<File>,
}

impl Setup {
    /// TensorRT's session, which runs what the profile holds. An engine that was kept and cannot be used is built anew.
    fn open(&self, cache: Option<&mut EngineFolder>, stream: &Arc<Stream>) -> Result<Runner, GraphsError> {
        engines::kept_or_built(cache, (&self.model.name, self.may_build), |cache| self.built(cache, stream))
    }

    fn built(&self, cache: Option<&EngineFolder>, stream: &Arc<Stream>) -> Result<Runner, GraphsError> {
        let model = self.model.name.as_str();
        if cache.is_none_or(|cache| !cache.is_warm) {
            tracing::warn!(
                model,
                kept_in = cache.map(|cache| cache.path().display().to_string()),
                "TensorRT builds an engine, which takes minutes, since it measures on this GPU which kernels are fastest; it is kept where a folder is named, and the next start then takes seconds"
            );
        }
        let tell = |elapsed: Duration| tracing::info!(model, elapsed_s = elapsed.as_secs(), "still opening the model on the GPU");
        progress::told(TOLD_EVERY, tell, || self.opened(GpuProvider::TensorRt, cache, stream))
    }

    fn opened(&self, provider: GpuProvider, cache: Option<&EngineFolder>, stream: &Arc<Stream>) -> Result<Runner, GraphsError> {
        let input = self.model.input.name.as_str();
        let cache = cache.map(EngineFolder::path);
        let plan = RunnerPlan {
            environment: &self.environment,
            graph: &self.graph,
            ordinal: self.ordinal,
            provider,
            tensorrt: options::tensorrt((self.ordinal, self.choice.precision), input, &self.profile, cache),
            stream: stream.handle(),
        };
        // SAFETY: the stream is of the device, and `GraphSession` holds it until its runners are gone.
        let runner = unsafe { Runner::open(&plan, input) }.map_err(|error| self.refused(provider, error.to_string()))?;
        let assignment = runner.assignment();
        if let Some(reason) = assignment.refusal(provider) {
            return Err(self.refused(provider, reason));
        }
        let left = assignment.left_by(provider);
        if !left.is_empty() {
            tracing::warn!(
                model = self.model.name,
                provider = provider.name(),
                nodes = left.join(", "),
                "the provider leaves nodes of the graph to another one, which is slower"
            );
        }
        Ok(runner)
    }

    fn refused(&self, provider: GpuProvider, reason: String) -> GraphsError {
        let precision = if provider == self.choice.provider { self.choice.precision } else { GpuPrecision::F32 };
        GraphsError::Provider { model: self.model.name.clone(), provider: provider.name(), precision: precision.name(), reason }
    }
}

impl SessionSource for Setup {
    type Session = Runner;

    fn own(&mut self, (pictures, height, width): (usize, usize, usize), stream: &Arc<Stream>) -> Result<Runner, GraphsError> {
        let model = self.model.name.as_str();
        if self.choice.provider == GpuProvider::TensorRt {
            tracing::warn!(
                model,
                height,
                width,
                pictures,
                "pictures of this size are run by the CUDA provider, in f32, since TensorRT's engine was built for infer.detector_side; set that to the largest side of a camera, or the camera's to it"
            );
        } else {
            tracing::debug!(model, height, width, pictures, "the CUDA provider opens a session for pictures of this size");
        }
        self.opened(GpuProvider::Cuda, None, stream)
    }

    fn outputs(&mut self, size: (usize, usize)) -> Result<Vec<OutputShape>, GraphsError> {
        self.contract.outputs(size).map_err(|reason| self.failed(reason))
    }

    fn failed(&self, reason: String) -> GraphsError {
        self.refused(self.choice.provider, reason)
    }

    fn runs_on(&self, engine: Option<&Runner>) -> String {
        // Without an engine each session runs all of the graph, or is an error.
        engine.map_or_else(|| GpuProvider::Cuda.name().to_owned(), |engine| engine.assignment().words(GpuProvider::TensorRt))
    }
}

#[cfg(test)]
mod tests;
