//! A worker on the first GPU, with the real models, or what is missing for one.
//!
//! In: the models directory, a precision. Out: workers. Engines are kept below `target`, since they take minutes to build.
//! Must not know: what is tested or measured.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use doorward::config::{DeviceChoice, InferConfig, PrecisionChoice};
use doorward::device::{self, Device, ResolvedDevice};
use doorward::frame::{DevicePixels, Frame};
use doorward::infer::cuda::{CudaError, Gpu, GraphsError, GraphsPlan, Image, Plan, Surface, SurfaceRequest, Worker, graphs};
use doorward::models::Manifest;

/// The most frames of a batch.
pub const FRAMES_MAX: usize = 16;

/// Everything that a worker is opened with.
pub struct Rig {
    pub device: ResolvedDevice,
    pub manifest: Manifest,
    pub config: InferConfig,
    gpu: Arc<Gpu>,
    image: Image,
}

impl Rig {
    /// Looks for a GPU and the runtime library for it; the error says what is missing, and the mend.
    pub fn find(models: &Path, precision: PrecisionChoice) -> Result<Self, String> {
        let device = device::resolve(&DeviceChoice::Cuda(0)).map_err(|error| error.to_string())?;
        let manifest = Manifest::load(models).map_err(|error| error.to_string())?;
        manifest.verified_runtime(device.device).map_err(|error| error.to_string())?;
        let opened = Gpu::open(0).and_then(|gpu| Ok((gpu.clone(), Image::compile(gpu.capability()?)?)));
        let (gpu, image) = opened.map_err(|error| error.to_string())?;
        // Engines of one precision outdate those of another in the same folder.
        let config = InferConfig { precision, engine_cache_dir: Some(engines().join(format!("{precision:?}"))), ..InferConfig::default() };
        Ok(Self { device, manifest, config, gpu, image })
    }

    /// Opens a worker; with TensorRT, and no engine kept, that takes minutes.
    pub fn worker(&self) -> Result<Worker, CudaError> {
        let Self { device, manifest, config, gpu, image } = self;
        let plan = Plan { gpu, image, manifest, config, frames_max: FRAMES_MAX };
        let ask = GraphsPlan { manifest, device, config, frames_max: FRAMES_MAX, may_build: true };
        Worker::open(&plan, |stream| graphs(&ask, stream).map_err(GraphsError::into_cuda))
    }

    /// What the GPU is called.
    pub fn gpu_words(&self) -> String {
        let Device::Cuda(ordinal) = self.device.device else { return String::new() };
        let named = format!("cuda:{ordinal}");
        self.device.facts.iter().find(|fact| fact.what == named).map(|fact| fact.found.clone()).unwrap_or_default()
    }
}

fn engines() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/gpu-engines")
}

/// Pixels that count how often somebody wants them back in the host's memory.
struct Counted {
    inner: Arc<dyn DevicePixels>,
    copies: Arc<AtomicUsize>,
}

impl DevicePixels for Counted {
    fn address(&self) -> u64 {
        self.inner.address()
    }

    fn bytes(&self) -> usize {
        self.inner.bytes()
    }

    fn to_host(&self) -> Result<Vec<u8>, String> {
        self.copies.fetch_add(1, Ordering::Relaxed);
        self.inner.to_host()
    }
}

/// Queues a frame's way to the GPU, and asks for its faces. `copies` counts pictures that are fetched back.
pub fn request(worker: &Worker, frame: &Frame, copies: &Arc<AtomicUsize>) -> Result<SurfaceRequest, CudaError> {
    let surface = worker.upload(frame)?;
    let counted = Counted { inner: surface.pixels().clone(), copies: copies.clone() };
    let surface = Surface::new(*surface.format(), Arc::new(counted))?;
    Ok(SurfaceRequest { surface, detector_side: None, region_of_interest: None, score_min: None, face_pixels_min: 0 })
}
