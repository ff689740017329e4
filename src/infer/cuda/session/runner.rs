//! One session of a provider on a GPU, working in a stream of the caller's.
//!
//! In: a graph, options, a stream's handle. Out: a [`Runner`], or an error that names the provider.
//! Drops nothing. A provider that cannot be had, or cannot run all of the graph, is an error, never the CPU.
//! Must not know: what is run, whose memory it is.

use std::ffi::{CString, c_void};
use std::path::Path;

use ort::environment::Environment;
use ort::ep::{ArbitrarilyConfigurableExecutionProvider, CUDA, ExecutionProviderDispatch, TensorRT};
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::{Shape, TensorRefMut};
use ort::{AsPointer, ortsys};

use super::assignment::{self, Assignment};
use super::choice::GpuProvider;
use super::options::{self, Options};
use super::source::BindingSession;

/// What a session is opened with.
pub(super) struct RunnerPlan<'a> {
    pub(super) environment: &'a Environment,
    pub(super) graph: &'a Path,
    pub(super) ordinal: u32,
    pub(super) provider: GpuProvider,
    /// What TensorRT is told; of no meaning for the CUDA provider.
    pub(super) tensorrt: Options,
    /// The driver's own handle of the stream that everything is queued in.
    pub(super) stream: *mut c_void,
}

/// A tensor in the device's memory that belongs to somebody else.
type Foreign = TensorRefMut<'static, f32>;

/// Inputs and outputs of one shape, bound to addresses.
pub(super) struct Bound {
    /// Dropped first: it points at the values below.
    binding: IoBinding,
    input: (u64, Foreign),
    _outputs: Vec<Foreign>,
}

/// A session that runs bindings.
pub(super) struct Runner {
    session: Session,
    options: RunOptions,
    /// Whose memory the addresses are of.
    memory: MemoryInfo<'static>,
    input: CString,
    assignment: Assignment,
}

impl Runner {
    /// Opens the session; with TensorRT, and no engine kept, that takes minutes.
    ///
    /// # Safety
    /// The stream is of the device, and outlives the runner.
    pub(super) unsafe fn open(plan: &RunnerPlan<'_>, input: &str) -> ort::Result<Self> {
        let stream: *mut () = plan.stream.cast();
        // SAFETY: the caller's: the stream outlives the session.
        let cuda = unsafe { told(CUDA::default(), options::cuda(plan.ordinal)).with_compute_stream(stream) };
        let mut providers: Vec<ExecutionProviderDispatch> = Vec::new();
        if plan.provider == GpuProvider::TensorRt {
            // SAFETY: as above.
            let tensorrt = unsafe { told(TensorRT::default(), plan.tensorrt.clone()).with_compute_stream(stream) };
            providers.push(tensorrt.build().error_on_failure());
        }
        // Behind TensorRT it runs what that leaves, still on the GPU.
        providers.push(cuda.build().error_on_failure());
        let session = assignment::recorded(Session::builder(plan.environment)?)?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_disable_cpu_fallback()?
            .with_execution_providers(providers)?
            .commit_from_file(plan.graph)?;
        let memory = MemoryInfo::new(AllocationDevice::CUDA, plan.ordinal as i32, AllocatorType::Device, MemoryType::Default)?;
        Self::of(session, memory, input)
    }

    fn of(session: Session, memory: MemoryInfo<'static>, input: &str) -> ort::Result<Self> {
        let mut options = RunOptions::new()?;
        // Whoever runs a binding waits for the stream, once, behind the copy of the outputs.
        options.disable_device_sync()?;
        // What fails comes back as an error, which is told at most every few seconds: the runtime's log would have it for every batch.
        options.set_log_level(LogLevel::Fatal)?;
        let input = CString::new(input).map_err(|_| ort::Error::new("the input's name holds a zero"))?;
        let assignment = Assignment::of(&session)?;
        Ok(Self { session, options, memory, input, assignment })
    }

    /// A runner whose addresses are the host's, for tests of how bindings are used.
    #[cfg(test)]
    pub(super) fn on_host(environment: &Environment, graph: &Path, input: &str) -> ort::Result<Self> {
        let builder = assignment::recorded(Session::builder(environment)?)?;
        Self::of(builder.with_intra_threads(1)?.commit_from_file(graph)?, MemoryInfo::default(), input)
    }

    /// What runs each node.
    pub(super) fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// # Safety
    /// There is room for the shape at the device's `address` whenever the tensor is used.
    unsafe fn foreign(&self, address: u64, shape: &[usize]) -> ort::Result<Foreign> {
        let shape = Shape::new(shape.iter().map(|side| *side as i64));
        // SAFETY: the caller's; the runtime takes the address as it is and frees nothing.
        unsafe { TensorRefMut::from_raw(self.memory.clone(), address as *mut c_void, shape) }
    }
}

impl BindingSession for Runner {
    type Bound = Bound;
    type Error = ort::Error;

    /// Binds an input and outputs, each by its address and shape, for as many runs as there will be: a fresh binding for
    /// each run would let the runtime's memory grow.
    ///
    /// The runtime's own calls are used: the safe ones copy a tensor whose memory is not theirs when it is bound, so that
    /// no run would see what is written there later.
    ///
    /// # Safety
    /// The memory is the device's, has room for these shapes, and is there whenever the binding is run.
    unsafe fn bind(&self, input: (u64, [usize; 4]), outputs: &[(&str, u64, Vec<usize>)]) -> ort::Result<Bound> {
        let mut binding = self.session.create_binding()?;
        // SAFETY: the caller's.
        let tensor = unsafe { self.foreign(input.0, &input.1) }?;
        // SAFETY: the binding, the name and the tensor are alive; the tensor is held as long as the binding.
        ortsys![unsafe BindInput(binding.ptr_mut(), self.input.as_ptr(), tensor.ptr())?];
        let mut held = Vec::with_capacity(outputs.len());
        for (name, address, shape) in outputs {
            let name = CString::new(*name).map_err(|_| ort::Error::new("an output's name holds a zero"))?;
            // SAFETY: the caller's.
            let tensor = unsafe { self.foreign(*address, shape) }?;
            // SAFETY: as for the input.
            ortsys![unsafe BindOutput(binding.ptr_mut(), name.as_ptr(), tensor.ptr())?];
            held.push(tensor);
        }
        Ok(Bound { binding, input: (input.0, tensor), _outputs: held })
    }

    /// Queues a run on an input at `address`, of the shape that was bound. It is not waited for.
    ///
    /// # Safety
    /// As for [`bind`](Self::bind).
    unsafe fn run(&mut self, bound: &mut Bound, address: u64, shape: [usize; 4]) -> ort::Result<()> {
        if bound.input.0 != address {
            // SAFETY: the caller's.
            let tensor = unsafe { self.foreign(address, &shape) }?;
            // SAFETY: as in `bind`; the binding lets go of the tensor that it had, which is dropped after.
            ortsys![unsafe BindInput(bound.binding.ptr_mut(), self.input.as_ptr(), tensor.ptr())?];
            bound.input = (address, tensor);
        }
        self.session.run_binding_with_options(&bound.binding, &self.options).map(drop)
    }
}

fn told<P: ArbitrarilyConfigurableExecutionProvider>(provider: P, options: Options) -> P {
    options.into_iter().fold(provider, |provider, (key, value)| provider.with_arbitrary_config(key, value))
}
