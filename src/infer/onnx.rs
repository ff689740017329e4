//! ONNX Runtime: the library, loaded once a process, and sessions of one thread each.
//!
//! In: a device, rewritten graphs, shapes. Out: the [`Runtime`] of the device, [`Session`]s on the CPU that run one input tensor.
//! Drops nothing. A provider that cannot be had is an error, never a slower one in silence.
//! Must not know: frames, faces.

use std::fmt::{Debug, Display};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider};
use ort::session::builder::SessionBuilder;
use ort::session::{Session as OrtSession, SessionOutputs};
use ort::value::{PrimitiveTensorElementType, Tensor};

use super::OpenError;
use super::provider::{Precision, Provider};
use crate::device::Device;
use crate::models::{InputEntry, Manifest, RuntimeDevice, reading_bytes};

/// The library that this process has loaded. Another one cannot be loaded beside it.
static LOADED: Mutex<Option<(PathBuf, Runtime)>> = Mutex::new(None);

/// The library that is loaded.
#[derive(Clone)]
pub(super) struct Runtime {
    /// What sessions are opened in.
    pub(super) environment: Environment,
    /// What the library is built for, which is another device than was asked for where a GPU failed in use.
    pub(super) build: RuntimeDevice,
}

/// The runtime of `device`: its library is checked and loaded, unless it is. Where the one for GPUs is loaded and the CPU
/// is asked for, it is the one for GPUs, whose CPU provider has to do.
pub(super) fn runtime(manifest: &Manifest, device: Device) -> Result<Runtime, OpenError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Device::Cpu, Some((library, runtime))) = (device, &*loaded)
        && runtime.build == RuntimeDevice::Cuda
    {
        tracing::warn!(
            library = %library.display(),
            "the CPU runs the models by the runtime library for GPUs, in f32 and slower than by the one for CPUs, since a process cannot change it; set infer.device = \"cpu\" and restart, or mend the GPU and restart"
        );
        return Ok(runtime.clone());
    }
    let library = manifest.verified_runtime(device)?;
    let build = RuntimeDevice::of(device);
    let failed = |reason: String| OpenError::Runtime { path: library.clone(), reason };
    let path = library.canonicalize().map_err(|error| failed(error.to_string()))?;
    match &*loaded {
        Some((before, runtime)) if *before == path => return Ok(runtime.clone()),
        Some((before, _)) => {
            return Err(failed(format!("this process has loaded {} already; restart to change the library", before.display())));
        }
        None => {}
    }
    let builder = ort::init_from(&path).map_err(|error| failed(error.to_string()))?;
    let environment = builder.with_name("doorward").with_telemetry(false).build().map_err(|error| failed(error.to_string()))?;
    let runtime = Runtime { environment, build };
    *loaded = Some((path, runtime.clone()));
    Ok(runtime)
}

/// What a session is opened with.
pub(super) struct Plan<'a> {
    /// The process's environment.
    pub(super) environment: &'a Environment,
    /// The rewritten graph.
    pub(super) graph: &'a Path,
    /// What runs it.
    pub(super) provider: Provider,
    /// In what arithmetic.
    pub(super) precision: Precision,
    /// The name of its one input.
    pub(super) input: &'a str,
    /// The shape of that input: batch, planes, height, width.
    pub(super) shape: [i64; 4],
}

impl Plan<'_> {
    fn failed(&self, reason: &dyn Display) -> OpenError {
        let (provider, precision) = (self.provider.name(), self.precision.name());
        OpenError::Session { graph: self.graph.into(), provider, precision, reason: reason.to_string() }
    }
}

/// What input tensors are made of.
pub(super) trait Sample: PrimitiveTensorElementType + Debug + Copy + Default {}
impl Sample for f32 {}
impl Sample for u8 {}

/// A graph ready to run in one thread, at one shape, with its input tensor of `S`.
pub(super) struct Session<S: Sample = f32> {
    inner: OrtSession,
    input: Tensor<S>,
}

impl Session {
    /// Opens a session of one thread and runs it once, so that the first frame is not the slow one.
    pub(super) fn open(plan: &Plan<'_>) -> Result<Self, OpenError> {
        let inner = builder(plan).and_then(|mut builder| builder.commit_from_file(plan.graph));
        Self::warmed(inner.map_err(|error| plan.failed(&error))?, plan)
    }
}

impl Session<u8> {
    /// The same of a graph that is given bytes, which it brings to the units of `input`.
    pub(super) fn open_for_bytes(plan: &Plan<'_>, input: &InputEntry) -> Result<Self, OpenError> {
        let graph = std::fs::read(plan.graph).map_err(|error| plan.failed(&error))?;
        let graph = reading_bytes(&graph, input).map_err(|reason| plan.failed(&reason))?;
        let inner = builder(plan).and_then(|mut builder| builder.commit_from_memory(&graph));
        Self::warmed(inner.map_err(|error| plan.failed(&error))?, plan)
    }
}

impl<S: Sample> Session<S> {
    fn warmed(inner: OrtSession, plan: &Plan<'_>) -> Result<Self, OpenError> {
        let names: Vec<&str> = inner.inputs().iter().map(|input| input.name()).collect();
        if names != [plan.input] {
            return Err(plan.failed(&format!("its inputs are {names:?}; the manifest says {:?}", plan.input)));
        }
        let input = Tensor::<S>::new(inner.allocator(), plan.shape).map_err(|error| plan.failed(&error))?;
        let mut session = Self { inner, input };
        session.input_mut().fill(S::default());
        session.run().map_err(|reason| plan.failed(&reason))?;
        Ok(session)
    }

    /// The input tensor's values.
    pub(super) fn input_mut(&mut self) -> &mut [S] {
        self.input.extract_tensor_mut().1
    }

    /// Runs the graph on the input tensor as it is; the error is the runtime's own words.
    pub(super) fn run(&mut self) -> Result<SessionOutputs<'_>, String> {
        let Self { inner, input } = self;
        at_one_depth(move || inner.run(ort::inputs![&*input])).map_err(|error| error.to_string())
    }
}

/// A page of the stack that nobody uses.
#[repr(align(4096))]
struct Page(MaybeUninit<[u8; 4096]>);

/// Does `work` with the stack at one place within a page, whoever calls. At some places, each 64 bytes long, the encoder takes
/// 8 to 16 % longer (on an AMD EPYC of the fourth generation, in bf16), presumably where what a kernel keeps on the stack
/// shares its lines of the first cache with what it streams over. Each build of the callers came to rest at another place.
#[inline(never)]
fn at_one_depth<R>(work: impl FnOnce() -> R) -> R {
    let page = Page(MaybeUninit::uninit());
    std::hint::black_box(&page.0);
    let answer = work();
    std::hint::black_box(&page.0);
    answer
}

/// The values of one output.
pub(super) fn output<'a>(outputs: &'a SessionOutputs<'_>, name: &str) -> Result<&'a [f32], String> {
    let value = outputs.get(name).ok_or_else(|| format!("the graph has no output {name:?}"))?;
    value.try_extract_tensor::<f32>().map(|(_, values)| values).map_err(|error| error.to_string())
}

fn builder(plan: &Plan<'_>) -> ort::Result<SessionBuilder> {
    let [batch, _, height, width] = plan.shape;
    // Graphs of free shape are pinned here: OpenVINO then runs them as fast as graphs of fixed
    // shape (measured: 9.1 instead of 10.0 ms for YuNet at 640x384). A name that the graph does
    // not have is ignored by the runtime.
    let builder = OrtSession::builder(plan.environment)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_dimension_override("batch", batch)?
        .with_dimension_override("height", height)?
        .with_dimension_override("width", width)?;
    with_provider(builder, plan)
}

fn with_provider(builder: SessionBuilder, plan: &Plan<'_>) -> ort::Result<SessionBuilder> {
    match plan.provider {
        Provider::Cpu => Ok(builder),
        Provider::OpenVino => {
            // One thread and one stream: the work is done by the thread that calls.
            let config = format!(
                r#"{{"CPU":{{"INFERENCE_PRECISION_HINT":"{}","INFERENCE_NUM_THREADS":"1","NUM_STREAMS":"1"}}}}"#,
                plan.precision.name()
            );
            let provider = ep::OpenVINO::default().with_device_type("CPU").with_arbitrary_config("load_config", config);
            Ok(builder.with_execution_providers([provider.build().error_on_failure()])?)
        }
    }
}
