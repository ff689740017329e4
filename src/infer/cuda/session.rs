//! Runs the models on a GPU where their input lies: sessions of TensorRT, or of the CUDA provider where there is no TensorRT.
//!
//! In: a device, the manifest, a worker's stream. Out: its [`Graphs`], or an error that says what to do.
//! Drops: bindings of canvases that were used longest ago, beyond [`CANVASES_MAX`].
//! Must not know: surfaces, what outputs mean. The CPU is never taken in place of the GPU.

mod choice;
mod contract;
mod engines;
mod error;
mod options;
mod progress;
mod runner;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ort::environment::Environment;

pub use choice::{GpuChoice, GpuPrecision, GpuProvider};
pub use error::GraphsError;

use super::batch::SHAPES_MAX;
use super::driver::Stream;
use super::graph::{DeviceGraph, DeviceTensor};
use super::memory::{DeviceBuffer, PinnedBuffer};
use super::worker::FACES_MAX;
use super::{CudaError, Graphs};
use crate::config::InferConfig;
use crate::device::{Device, ResolvedDevice};
use crate::face::ALIGNED_SIDE;
use crate::frame::Size;
use crate::infer::host::{CanvasShape, Placement};
use crate::infer::onnx;
use crate::models::{Manifest, ModelEntry, Role};
use contract::{Contract, OutputShape};
use engines::{EngineFolder, Key, KeyParts};
use options::Profile;
use runner::{Bound, Runner, RunnerPlan};

/// The most canvases that bindings and memory for outputs are kept for: as many as a batch keeps tensors for.
const CANVASES_MAX: usize = SHAPES_MAX;
/// How many faces the encoder is made fastest for: those of a few cameras at once.
const FACES_USUAL: usize = 8;
/// Outputs begin at multiples of it, as the device's allocations do.
const ALIGNMENT: usize = 256;
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
    Ok(Graphs { detector: Box::new(opening.graph(Role::Detector, detector)?), encoder: Box::new(opening.graph(Role::Encoder, encoder)?) })
}

/// What both graphs are opened with.
struct Opening<'a> {
    plan: &'a GraphsPlan<'a>,
    environment: Environment,
    choice: GpuChoice,
    ordinal: u32,
    stream: &'a Arc<Stream>,
}

impl Opening<'_> {
    fn graph(&self, role: Role, profile: Profile) -> Result<GraphSession, GraphsError> {
        let manifest = self.plan.manifest;
        let model = if role == Role::Detector { &manifest.detector.model } else { &manifest.encoder.model };
        let path = manifest.prepared(role)?.path;
        let contract = Contract::open(&self.environment, &path, model)?;
        let setup = Setup {
            environment: self.environment.clone(),
            graph: path,
            model: model.clone(),
            choice: self.choice.clone(),
            ordinal: self.ordinal,
            profile,
            may_build: self.plan.may_build,
        };
        let cache = match &self.plan.config.engine_cache_dir {
            Some(root) if self.choice.provider == GpuProvider::TensorRt => Some(EngineFolder::open(root, &self.key(&setup)?)?),
            _ => None,
        };
        let main = setup.open(cache, self.stream)?;
        let mut session = GraphSession { canvases: Vec::new(), main, aside: None, contract, setup, stream: self.stream.clone(), batch: 0 };
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
            gpu: fact(&device.device.to_string()),
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
    /// The session that runs what the profile holds. An engine that was kept and cannot be used is built anew.
    fn open(&self, mut cache: Option<EngineFolder>, stream: &Arc<Stream>) -> Result<Runner, GraphsError> {
        let provider = self.choice.provider;
        let was_warm = cache.as_ref().is_some_and(|cache| cache.is_warm);
        if provider == GpuProvider::TensorRt && !self.may_build {
            // What is kept, or nothing: whoever waits in the midst of work is recognised by nobody meanwhile.
            return if was_warm {
                self.built(provider, cache.as_ref(), stream)
            } else {
                Err(GraphsError::NotKept(self.model.name.clone()))
            };
        }
        let mut opened = self.built(provider, cache.as_ref(), stream);
        if let (true, Some(cache), Err(error)) = (was_warm, &mut cache, &opened) {
            // It may be the engine, or a lack of memory, or a library that went: the engine goes only where another one opens.
            cache.set_aside(&format!("it cannot be used: {error}"))?;
            let anew = self.built(provider, Some(cache), stream);
            match anew {
                Ok(_) => cache.drop_what_was_set_aside(),
                Err(_) => cache.bring_back()?,
            }
            opened = anew;
        }
        if let (Some(cache), Ok(_)) = (&mut cache, &opened)
            && let Err(error) = cache.seal()
        {
            // The engine runs. Without its seal it is built anew at the next start.
            tracing::warn!(%error, "an engine runs and could not be kept");
        }
        opened
    }

    fn built(&self, provider: GpuProvider, cache: Option<&EngineFolder>, stream: &Arc<Stream>) -> Result<Runner, GraphsError> {
        let model = self.model.name.as_str();
        let is_built = provider == GpuProvider::TensorRt && cache.is_none_or(|cache| !cache.is_warm);
        if is_built {
            tracing::warn!(
                model,
                kept_in = cache.map(|cache| cache.path().display().to_string()),
                "TensorRT builds an engine, which takes minutes, since it measures on this GPU which kernels are fastest; it is kept where a folder is named, and the next start then takes seconds"
            );
        }
        let tell = |elapsed: Duration| tracing::info!(model, elapsed_s = elapsed.as_secs(), "still opening the model on the GPU");
        progress::told(TOLD_EVERY, tell, || self.opened(provider, cache, stream))
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
        unsafe { Runner::open(&plan, input) }.map_err(|error| self.failed(provider, error.to_string()))
    }

    fn failed(&self, provider: GpuProvider, reason: String) -> GraphsError {
        let precision = if provider == self.choice.provider { self.choice.precision } else { GpuPrecision::F32 };
        GraphsError::Provider { model: self.model.name.clone(), provider: provider.name(), precision: precision.name(), reason }
    }
}

/// A graph on a GPU, with bindings for each shape that came.
struct GraphSession {
    /// The canvas that was used last stands last. Dropped before the sessions.
    canvases: Vec<Canvas>,
    main: Runner,
    /// The CUDA provider's, for canvases that the engine was not built for.
    aside: Option<Runner>,
    contract: Contract,
    setup: Setup,
    /// Dropped last: the sessions work in it.
    stream: Arc<Stream>,
    /// How many pictures the last run had.
    batch: usize,
}

/// Pictures of one size: memory for their outputs, and bindings by how many there are.
struct Canvas {
    /// Height and width.
    size: (usize, usize),
    is_aside: bool,
    /// The place is the number of pictures, less one; there is room for the outputs of as many as there are places.
    bound: Vec<Option<Bound>>,
    outputs: Vec<OutputShape>,
    device: DeviceBuffer,
    pinned: PinnedBuffer,
}

impl Canvas {
    /// Where each output of so many pictures begins, and how many bytes there are in all.
    fn layout(outputs: &[OutputShape], pictures: usize) -> (Vec<usize>, usize) {
        let mut end = 0_usize;
        let offsets = outputs.iter().map(|output| {
            let begin = end.next_multiple_of(ALIGNMENT);
            end = begin + pictures * output.values() * size_of::<f32>();
            begin
        });
        (offsets.collect(), end)
    }
}

impl GraphSession {
    /// Runs the usual shape once with one picture and once with as many as there may be, so that no frame waits for it.
    fn warm(&mut self) -> Result<(), GraphsError> {
        let [pictures, planes, height, width] = self.setup.profile.best;
        let max = self.setup.profile.max[0];
        let input = DeviceBuffer::new(self.stream.gpu(), max * planes * height * width * size_of::<f32>())?;
        let stream = self.stream.clone();
        for batch in [1, pictures, max] {
            let tensor = DeviceTensor::new(input.address(), [batch, planes, height, width], &stream);
            self.run(&tensor).map_err(|reason| self.setup.failed(self.setup.choice.provider, reason))?;
        }
        // The bindings of these runs stay; each is given the worker's own address at its next run.
        Ok(())
    }

    /// Makes the canvas of `size` the last one, with room for the outputs of `pictures` pictures.
    fn canvas(&mut self, size: (usize, usize), pictures: usize) -> Result<(), String> {
        if let Some(place) = self.canvases.iter().position(|canvas| canvas.size == size) {
            let canvas = self.canvases.remove(place);
            if canvas.bound.len() >= pictures {
                self.canvases.push(canvas);
                return Ok(());
            }
        }
        let [max, planes, ..] = self.setup.profile.max;
        let is_aside = self.setup.choice.provider == GpuProvider::TensorRt && !self.setup.profile.holds([max, planes, size.0, size.1]);
        if is_aside && self.aside.is_none() {
            let (height, width) = size;
            tracing::warn!(
                model = self.setup.model.name,
                height,
                width,
                "pictures of this size are run by the CUDA provider, in f32, since TensorRT's engine was built for infer.detector_side; set that to the largest side of a camera, or the camera's to it"
            );
            self.aside = Some(self.setup.opened(GpuProvider::Cuda, None, &self.stream).map_err(|error| error.to_string())?);
        }
        let outputs = self.contract.outputs(size)?;
        let room = pictures.next_power_of_two().min(max);
        let (_, bytes) = Canvas::layout(&outputs, room);
        if self.canvases.len() >= CANVASES_MAX {
            self.canvases.remove(0);
        }
        let memory = || Ok::<_, CudaError>((DeviceBuffer::new(self.stream.gpu(), bytes)?, PinnedBuffer::new(self.stream.gpu(), bytes)?));
        let (device, pinned) = memory().map_err(|error| error.to_string())?;
        self.canvases.push(Canvas { size, is_aside, bound: (0..room).map(|_| None).collect(), outputs, device, pinned });
        Ok(())
    }

    fn queue(&mut self, input: &DeviceTensor<'_>) -> Result<usize, String> {
        let shape @ [pictures, _, height, width] = input.shape();
        self.canvas((height, width), pictures)?;
        let Self { canvases, main, aside, .. } = self;
        let canvas = canvases.last_mut().ok_or("there is no canvas")?;
        let runner = if canvas.is_aside { aside.as_mut().ok_or("there is no session for it")? } else { main };
        let (offsets, bytes) = Canvas::layout(&canvas.outputs, pictures);
        let bound = &mut canvas.bound[pictures - 1];
        if bound.is_none() {
            let begin = canvas.device.address();
            let outputs: Vec<(&str, u64, Vec<usize>)> = canvas
                .outputs
                .iter()
                .zip(offsets)
                .map(|(output, offset)| (output.name.as_str(), begin + offset as u64, [&[pictures], output.each.as_slice()].concat()))
                .collect();
            // SAFETY: the outputs lie in the canvas's memory, which has room for the most pictures; it goes after the binding.
            *bound = Some(unsafe { runner.bind((input.address(), shape), &outputs) }.map_err(|error| error.to_string())?);
        }
        let bound = bound.as_mut().ok_or("there is no binding")?;
        // SAFETY: the input is there until the worker has waited for the stream, and so are the outputs, as above.
        unsafe { runner.run(bound, input.address(), shape) }.map_err(|error| error.to_string())?;
        Ok(bytes)
    }
}

impl DeviceGraph for GraphSession {
    fn run(&mut self, input: &DeviceTensor<'_>) -> Result<(), String> {
        // Nothing of an earlier run is shown after one that failed.
        self.batch = 0;
        let (pictures, max) = (input.shape()[0], self.setup.profile.max[0]);
        if !(1..=max).contains(&pictures) {
            return Err(format!("{pictures} pictures at once, and the graph was opened for 1 to {max}"));
        }
        if !Arc::ptr_eq(input.stream(), &self.stream) {
            return Err("the input is made in another stream than the graph works in".into());
        }
        let bytes = self.queue(input)?;
        let canvas = self.canvases.last_mut().ok_or("there is no canvas")?;
        // One copy of all outputs, and the only wait: it is behind everything that was queued.
        self.stream.fetch(&canvas.device, &mut canvas.pinned, bytes).map_err(|error| error.to_string())?;
        self.batch = pictures;
        Ok(())
    }

    fn output(&self, name: &str) -> Result<&[f32], String> {
        let canvas = self.canvases.last().filter(|_| self.batch > 0).ok_or("the graph has not run")?;
        let place = canvas.outputs.iter().position(|output| output.name == name);
        let place = place.ok_or_else(|| format!("the graph has no output {name:?}"))?;
        let (offsets, _) = Canvas::layout(&canvas.outputs, self.batch);
        let bytes = &canvas.pinned.as_slice()[offsets[place]..][..self.batch * canvas.outputs[place].values() * size_of::<f32>()];
        // SAFETY: any four bytes are an f32.
        let (before, values, after) = unsafe { bytes.align_to::<f32>() };
        if before.is_empty() && after.is_empty() { Ok(values) } else { Err("the outputs are not aligned".into()) }
    }

    fn give_back_unused(&mut self) {
        // A run that failed may still write outputs; where waiting for it fails too, nothing runs any more.
        if self.stream.synchronise().or_else(|_| self.stream.synchronise()).is_ok() {
            self.canvases.clear();
            self.batch = 0;
        }
    }
}

impl Drop for GraphSession {
    fn drop(&mut self) {
        // A run that failed may have left work behind that writes outputs.
        if let Err(error) = self.stream.synchronise().or_else(|_| self.stream.synchronise()) {
            tracing::warn!(%error, "a GPU could not be waited for before its session was closed");
        }
    }
}

#[cfg(test)]
mod tests;
