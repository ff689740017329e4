//! Runs the models on a GPU where their input lies: sessions of TensorRT, or of the CUDA provider where there is no TensorRT.
//!
//! In: a device, the manifest, a worker's stream. Out: its [`Graphs`], or an error that says what to do.
//! Drops: bindings and sessions of canvases that were used longest ago, beyond [`CANVASES_MAX`] and [`OWN_SESSIONS_MAX`].
//!
//! `TensorRT`'s engine is made for all shapes. The CUDA provider plans its convolutions anew whenever a session's input has another
//! shape than the run before (measured: 0.3 to 1 s on an H200, ONNX Runtime issue 23006): there each shape has a session of its own,
//! and few shapes are run ([`room`](super::graph::room)).
//! Must not know: surfaces, what outputs mean. The CPU is never taken in place of the GPU.

mod assignment;
mod canvas;
mod choice;
mod contract;
mod engines;
mod error;
mod options;
mod progress;
mod runner;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ort::environment::Environment;

pub use choice::{GpuChoice, GpuPrecision, GpuProvider};
pub use error::GraphsError;

use super::Graphs;
use super::batch::SHAPES_MAX;
use super::driver::Stream;
use super::graph::{DeviceGraph, DeviceTensor, RunError, room, rooms};
use super::memory::DeviceBuffer;
use super::worker::FACES_MAX;
use crate::config::InferConfig;
use crate::device::{Device, ResolvedDevice};
use crate::face::ALIGNED_SIDE;
use crate::frame::Size;
use crate::infer::host::{CanvasShape, Placement};
use crate::infer::onnx;
use crate::models::{Manifest, ModelEntry, Role};
use canvas::{Canvas, NoCanvas, Pause, Wanted};
use contract::Contract;
use engines::{EngineFolder, Key, KeyParts};
use options::Profile;
use runner::{Runner, RunnerPlan};

/// The most canvases that bindings and memory for outputs are kept for: as many as a batch keeps tensors for.
const CANVASES_MAX: usize = SHAPES_MAX;
/// The most sessions of the CUDA provider that one graph has; each has memory of its own on the device.
const OWN_SESSIONS_MAX: usize = 24;
/// How many faces the encoder is made fastest for: those of a few cameras at once.
const FACES_USUAL: usize = 8;
/// How long a device that is opened anew waits for whoever holds the engines: longer, and the watchdog takes it for stuck.
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
            let detector = scope.spawn(|| opening.graph(checked.0, detector));
            let encoder = opening.graph(checked.1, encoder);
            let detector = detector.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
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

    fn graph(&self, Checked { model, path, contract }: Checked<'_>, profile: Profile) -> Result<GraphSession, GraphsError> {
        let setup = Setup {
            environment: self.environment.clone(),
            graph: path,
            model: model.clone(),
            choice: self.choice.clone(),
            ordinal: self.ordinal,
            profile,
            may_build: self.plan.may_build,
        };
        let mut cache = match &self.plan.config.engine_cache_dir {
            // Whoever waits for another process in the midst of work is taken for stuck.
            Some(root) if self.choice.provider == GpuProvider::TensorRt => {
                Some(EngineFolder::open(root, &self.key(&setup)?, (!setup.may_build).then_some(BUSY_WAIT_MAX))?)
            }
            _ => None,
        };
        let engine = (self.choice.provider == GpuProvider::TensorRt).then(|| setup.open(cache.as_mut(), self.stream)).transpose()?;
        let kept = cache.as_ref().map(EngineFolder::in_use).transpose()?;
        drop(cache);
        let mut session = GraphSession {
            canvases: Vec::new(),
            engine,
            contract,
            setup,
            stream: self.stream.clone(),
            ran: Ran::default(),
            pause: Pause::default(),
            _kept: kept,
        };
        session.warm()?;
        Ok(session)
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
    model: ModelEntry,
    choice: GpuChoice,
    ordinal: u32,
    profile: Profile,
    may_build: bool,
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
        let runner = unsafe { Runner::open(&plan, input) }.map_err(|error| self.failed(provider, error.to_string()))?;
        let assignment = runner.assignment();
        if let Some(reason) = assignment.refusal(provider) {
            return Err(self.failed(provider, reason));
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

    fn failed(&self, provider: GpuProvider, reason: String) -> GraphsError {
        let precision = if provider == self.choice.provider { self.choice.precision } else { GpuPrecision::F32 };
        GraphsError::Provider { model: self.model.name.clone(), provider: provider.name(), precision: precision.name(), reason }
    }
}

/// A graph on a GPU, with bindings for each shape that came.
struct GraphSession {
    /// The canvas that was used last stands last. Dropped before the engine.
    canvases: Vec<Canvas>,
    /// `TensorRT`'s session, for every shape of its profile.
    engine: Option<Runner>,
    contract: Contract,
    setup: Setup,
    /// Dropped last: the sessions work in it.
    stream: Arc<Stream>,
    /// The last run.
    ran: Ran,
    /// While no session is opened.
    pause: Pause,
    /// Held so that no other process removes the engine, which would have to be built again where the device is opened anew.
    _kept: Option<File>,
}

/// A run that came to its end.
#[derive(Clone, Copy, Default)]
struct Ran {
    /// How many pictures it had; none where there was no run, or it failed.
    pictures: usize,
    /// How many it was run with.
    with: usize,
}

impl GraphSession {
    /// Runs the usual shape with as many pictures as there may be, one, and between, so that no frame waits for it.
    fn warm(&mut self) -> Result<(), GraphsError> {
        let [usual, planes, height, width] = self.setup.profile.best;
        let max = self.setup.profile.max[0];
        let input = DeviceBuffer::new(self.stream.gpu(), max * planes * height * width * size_of::<f32>())?;
        let stream = self.stream.clone();
        let mut batches = vec![1, usual, max];
        if self.engine.is_none() {
            batches.extend(rooms(max));
        }
        for batch in batches {
            self.canvas((height, width), (batch, max)).map_err(|error| match error {
                NoCanvas::NotHad(error) => error,
                NoCanvas::Waiting(why) => self.setup.failed(GpuProvider::Cuda, why),
            })?;
            let tensor = DeviceTensor::new(input.address(), [batch, planes, height, width], (max, &stream));
            self.run(&tensor).map_err(|error| match error {
                RunError::Failed(reason) | RunError::NoSession { reason, .. } => self.setup.failed(self.setup.choice.provider, reason),
            })?;
        }
        // The bindings of these runs stay; each is given the worker's own address at its next run.
        Ok(())
    }

    /// Makes a canvas of `size` the last one, with room for the outputs of `pictures` pictures, behind which there is memory for so many
    /// as the tensor's `room` says.
    fn canvas(&mut self, size: (usize, usize), (pictures, tensor_room): (usize, usize)) -> Result<(), NoCanvas> {
        let [max, planes, ..] = self.setup.profile.max;
        let is_own = self.engine.is_none() || !self.setup.profile.holds([max, planes, size.0, size.1]);
        let room = if is_own { room(pictures, max) } else { pictures.next_power_of_two().min(max) };
        let owned = self.canvases.iter().filter(|canvas| canvas.own.is_some()).count();
        let waiting_for = self.pause.why(Instant::now());
        // A session that is larger is slower, and far better than none.
        let room_max = if is_own { (waiting_for.is_some() || owned >= OWN_SESSIONS_MAX).then_some(tensor_room) } else { Some(usize::MAX) };
        let wanted = Wanted { size, pictures, room, room_max };
        if let Some(place) = wanted.best_of(self.canvases.iter().map(|canvas| (canvas.size, canvas.room()))) {
            let canvas = self.canvases.remove(place);
            self.canvases.push(canvas);
            return Ok(());
        }
        if let (true, Some(why)) = (is_own, waiting_for) {
            return Err(NoCanvas::Waiting(why.to_owned()));
        }
        self.make_way(size, is_own.then_some(owned));
        let own = is_own.then(|| self.own_session(size, room)).transpose();
        if let Err(error) = &own {
            self.pause.begin(Instant::now(), format!("a session could not be opened a moment ago: {error}"));
        }
        let own = own?;
        let outputs = self.contract.outputs(size).map_err(|reason| self.setup.failed(self.setup.choice.provider, reason))?;
        self.canvases.push(Canvas::new(self.stream.gpu(), (size, room), own, outputs).map_err(GraphsError::from)?);
        Ok(())
    }

    /// Lets go of what must make way for another canvas of `size`: with a session of its own, beside the `owned` that there are, or
    /// for the engine.
    fn make_way(&mut self, size: (usize, usize), owned: Option<usize>) {
        let goes = match owned {
            Some(owned) if owned >= OWN_SESSIONS_MAX => self.canvases.iter().position(|canvas| canvas.own.is_some()),
            // What has grown too small.
            None => self.canvases.iter().position(|canvas| canvas.size == size && canvas.own.is_none()),
            Some(_) => None,
        };
        let goes = goes.or((self.canvases.len() >= CANVASES_MAX).then_some(0));
        if let Some(place) = goes {
            self.canvases.remove(place);
        }
    }

    /// A session of the CUDA provider for one shape.
    fn own_session(&self, (height, width): (usize, usize), pictures: usize) -> Result<Runner, GraphsError> {
        let model = self.setup.model.name.as_str();
        if self.engine.is_some() {
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
        self.setup.opened(GpuProvider::Cuda, None, &self.stream)
    }

    fn queue(&mut self, input: &DeviceTensor<'_>) -> Result<usize, RunError> {
        let [pictures, planes, height, width] = input.shape();
        if let Err(error) = self.canvas((height, width), (pictures, input.room())) {
            return Err(error.told(self.canvases.is_empty()));
        }
        let canvas = self.canvases.last_mut().ok_or("there is no canvas")?;
        let run_with = canvas.run_with(pictures);
        if run_with > input.room() {
            return Err(format!("{run_with} pictures are run, and there is memory for {}", input.room()).into());
        }
        let shape = [run_with, planes, height, width];
        let runner = canvas.own.as_mut().or(self.engine.as_mut()).ok_or("there is no session for it")?;
        let (offsets, bytes) = Canvas::layout(&canvas.outputs, run_with);
        let bound = &mut canvas.bound[run_with - 1];
        if bound.is_none() {
            let begin = canvas.device.address();
            let outputs: Vec<(&str, u64, Vec<usize>)> = canvas
                .outputs
                .iter()
                .zip(offsets)
                .map(|(output, offset)| (output.name.as_str(), begin + offset as u64, [&[run_with], output.each.as_slice()].concat()))
                .collect();
            // SAFETY: the outputs lie in the canvas's memory, which has room for them; it goes after the binding.
            *bound = Some(unsafe { runner.bind((input.address(), shape), &outputs) }.map_err(|error| error.to_string())?);
        }
        let bound = bound.as_mut().ok_or("there is no binding")?;
        // SAFETY: the input, of as many pictures as there is room for, is there until the worker has waited for the stream, and so
        // are the outputs, as above.
        unsafe { runner.run(bound, input.address(), shape) }.map_err(|error| error.to_string())?;
        self.ran.with = run_with;
        Ok(bytes)
    }

    /// Brings the outputs of what was queued on the last canvas: one copy of all, and the only wait, which is behind everything that
    /// was queued.
    fn fetched(&mut self, bytes: usize) -> Result<(), RunError> {
        let canvas = self.canvases.last_mut().ok_or("there is no canvas")?;
        self.stream.fetch(&canvas.device, &mut canvas.pinned, bytes).map_err(|error| error.to_string())?;
        canvas.health.ran_well(Instant::now());
        Ok(())
    }

    /// A run on the last canvas failed: where another session may do better, this one goes.
    fn note_failure(&mut self) {
        let Some(canvas) = self.canvases.last_mut() else { return };
        canvas.health.failed();
        // What was queued may still write outputs.
        if canvas.health.is_broken() && self.stream.synchronise().or_else(|_| self.stream.synchronise()).is_ok() {
            self.canvases.pop();
            self.pause.begin(Instant::now(), "a session failed at its run a moment ago".into());
        }
    }
}

impl DeviceGraph for GraphSession {
    fn run(&mut self, input: &DeviceTensor<'_>) -> Result<(), RunError> {
        // Nothing of an earlier run is shown after one that failed.
        self.ran = Ran::default();
        let (pictures, max) = (input.shape()[0], self.setup.profile.max[0]);
        if !(1..=max).contains(&pictures) {
            return Err(format!("{pictures} pictures at once, and the graph was opened for 1 to {max}").into());
        }
        if !Arc::ptr_eq(input.stream(), &self.stream) {
            return Err("the input is made in another stream than the graph works in".into());
        }
        match self.queue(input).and_then(|bytes| self.fetched(bytes)) {
            Ok(()) => {
                self.ran.pictures = pictures;
                Ok(())
            }
            Err(error) => {
                if matches!(error, RunError::Failed(_)) {
                    self.note_failure();
                }
                Err(error)
            }
        }
    }

    fn output(&self, name: &str) -> Result<&[f32], String> {
        let Ran { pictures, with } = self.ran;
        let canvas = self.canvases.last().filter(|_| pictures > 0).ok_or("the graph has not run")?;
        let place = canvas.outputs.iter().position(|output| output.name == name);
        let place = place.ok_or_else(|| format!("the graph has no output {name:?}"))?;
        let (offsets, _) = Canvas::layout(&canvas.outputs, with);
        let bytes = &canvas.pinned.as_slice()[offsets[place]..][..pictures * canvas.outputs[place].values() * size_of::<f32>()];
        // SAFETY: any four bytes are an f32.
        let (before, values, after) = unsafe { bytes.align_to::<f32>() };
        if before.is_empty() && after.is_empty() { Ok(values) } else { Err("the outputs are not aligned".into()) }
    }

    fn runs_on(&self) -> String {
        // Without an engine each session runs all of the graph, or is an error.
        self.engine.as_ref().map_or_else(|| GpuProvider::Cuda.name().to_owned(), |engine| engine.assignment().words(GpuProvider::TensorRt))
    }

    fn give_back_unused(&mut self) {
        // A run that failed may still write outputs; where waiting for it fails too, nothing runs any more.
        if self.stream.synchronise().or_else(|_| self.stream.synchronise()).is_ok() {
            // What is in use, or usual, comes again at once, and where memory is wanting its session could not be opened a second time.
            let ([.., height, width], now, before) = (self.setup.profile.best, Instant::now(), self.canvases.len());
            self.canvases.retain(|canvas| canvas.size == (height, width) || canvas.health.is_in_use(now));
            self.ran = Ran::default();
            if self.canvases.len() < before {
                // What was freed is for whoever found none, not for the next session.
                self.pause.begin(now, "memory was wanting a moment ago".into());
            }
        }
    }
}

impl Drop for GraphSession {
    fn drop(&mut self) {
        // A run that failed may have left work behind that writes outputs.
        if let Err(error) = self.stream.synchronise().or_else(|_| self.stream.synchronise()) {
            error.tell("a GPU could not be waited for before its session was closed");
        }
    }
}

#[cfg(test)]
mod tests;
