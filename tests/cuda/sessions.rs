//! Sessions on a GPU that cannot be had: over a driver that stands in for NVIDIA's, with each build of ONNX Runtime.
//!
//! In: the models, the runtime libraries. Out: errors that name the provider and the mend, and never a session on the CPU.
//! Prints what is left out where a resource is missing.
//! Must not know: how sessions are opened.

use std::path::{Path, PathBuf};

use doorward::config::{InferConfig, PrecisionChoice};
use doorward::device::{Device, ResolvedDevice};
use doorward::infer::Engine;
use doorward::infer::cuda::{CudaError, Gpu, GraphsError, GraphsPlan, Plan, Worker, graphs};
use doorward::models::Manifest;

use crate::driver::{StandIn, image, over_the_stand_in};
use crate::faces;

fn gpu_device(without_tensorrt: Option<&str>) -> ResolvedDevice {
    ResolvedDevice {
        device: Device::Cuda(0),
        reason: "a test".into(),
        facts: Vec::new(),
        without_tensorrt: without_tensorrt.map(str::to_owned),
        may_fall_back: true,
    }
}

/// Opens a worker's graphs, which fails; what was held is given back.
fn refused(stand_in: &StandIn, manifest: &Manifest, device: &ResolvedDevice) -> GraphsError {
    let cache = tempfile::tempdir().unwrap();
    let config = InferConfig { engine_cache_dir: Some(cache.path().join("engines")), ..InferConfig::default() };
    refused_with(stand_in, (manifest, device), &config)
}

fn refused_with(stand_in: &StandIn, (manifest, device): (&Manifest, &ResolvedDevice), config: &InferConfig) -> GraphsError {
    let gpu = Gpu::open(0).unwrap();
    let plan = Plan { gpu: &gpu, image: &image(&gpu), manifest, config, frames_max: 4 };
    let mut told = None;
    let worker = Worker::open(&plan, |stream| {
        let opened = graphs(&GraphsPlan { manifest, device, config, frames_max: 4, may_build: true }, stream);
        opened.map_err(|error| {
            let words = error.to_string();
            told = Some(error);
            CudaError::Graph { graph: "test", reason: words }
        })
    });
    assert!(worker.is_err(), "there is no GPU");
    drop((worker, gpu));
    assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    told.expect("the graphs failed, and not the worker")
}

/// The manifest, with `library` in place of the runtime for GPUs.
fn manifest_with_gpu_build(models: &Path, library: &Path) -> Manifest {
    let mut manifest = Manifest::load(models).unwrap();
    let cpu = manifest.runtime().clone();
    for runtime in manifest.runtimes.iter_mut().skip(1) {
        *runtime = doorward::models::RuntimeEntry { device: runtime.device, file: library.to_owned(), ..cpu.clone() };
    }
    manifest
}

#[test]
fn a_library_without_the_provider_is_refused_by_name_and_the_cpu_is_never_taken() {
    const NAME: &str = "sessions::a_library_without_the_provider_is_refused_by_name_and_the_cpu_is_never_taken";
    let Some(models) = faces::models_dir("a GPU's provider in a library that has none") else { return };
    over_the_stand_in(NAME, &[], |stand_in| {
        let file = Manifest::load(&models).unwrap().runtime().file.clone();
        let manifest = manifest_with_gpu_build(&models, &file);
        for (device, provider) in [(gpu_device(None), "TensorRT"), (gpu_device(Some("no nvinfer")), "CUDA")] {
            let error = refused(stand_in, &manifest, &device);
            assert!(matches!(&error, GraphsError::Provider { provider: named, .. } if *named == provider), "{error}");
            for part in [provider, "yunet-2023mar", "doorward doctor", "script/bootstrap --gpu", "infer.device"] {
                assert!(error.to_string().contains(part), "{part}: {error}");
            }
            println!("{error}");
        }
    });
}

#[test]
fn what_cannot_be_asked_of_a_gpu_is_refused_before_anything_is_loaded() {
    const NAME: &str = "sessions::what_cannot_be_asked_of_a_gpu_is_refused_before_anything_is_loaded";
    let Some(models) = faces::models_dir("refusing what a GPU is not asked for") else { return };
    over_the_stand_in(NAME, &[], |stand_in| {
        let missing = manifest_with_gpu_build(&models, Path::new("nowhere/libonnxruntime.so"));
        let config = |precision| InferConfig { precision, ..InferConfig::default() };
        let error = refused_with(stand_in, (&missing, &gpu_device(None)), &config(PrecisionChoice::Bf16));
        assert!(matches!(error, GraphsError::Bf16), "{error}");
        let error = refused_with(stand_in, (&missing, &gpu_device(Some("no nvinfer"))), &config(PrecisionChoice::Fp16));
        assert!(matches!(error, GraphsError::Fp16WithoutTensorRt { .. }), "{error}");
        let error = refused_with(stand_in, (&missing, &ResolvedDevice::cpu("a test")), &InferConfig::default());
        assert!(matches!(error, GraphsError::Device(Device::Cpu)), "{error}");
        let error = refused(stand_in, &missing, &gpu_device(None));
        assert!(matches!(error, GraphsError::Open(_)) && error.to_string().contains("script/bootstrap --gpu"), "{error}");
    });
}

#[test]
fn where_the_gpu_fails_in_use_its_library_runs_the_models_on_the_cpu_in_f32() {
    const NAME: &str = "sessions::where_the_gpu_fails_in_use_its_library_runs_the_models_on_the_cpu_in_f32";
    let Some(models) = faces::models_dir("the CPU provider of the library for GPUs") else { return };
    let installed = |manifest: &Manifest| manifest.verified_runtime(Device::Cuda(0));
    let library: Result<PathBuf, _> = installed(&Manifest::load(&models).unwrap());
    if let Err(error) = library {
        println!("LEFT OUT: the CPU provider of the library for GPUs: {error}");
        return;
    }
    over_the_stand_in(NAME, &[], |stand_in| {
        let manifest = Manifest::load(&models).unwrap();
        let device = gpu_device(None);
        let error = refused(stand_in, &manifest, &device);
        assert!(matches!(&error, GraphsError::Provider { provider: "TensorRT", .. }), "{error}");
        println!("{error}");
        let error = refused(stand_in, &manifest, &gpu_device(Some("no nvinfer")));
        assert!(matches!(&error, GraphsError::Provider { provider: "CUDA", .. }), "{error}");
        println!("{error}");
        let engine = Engine::open(&InferConfig { sessions: 1, ..InferConfig::default() }, &models, &device.fallen_back(&error)).unwrap();
        let facts = engine.facts();
        assert_eq!((facts.device.as_str(), facts.provider.as_str(), facts.precision.as_str()), ("cpu", "CPU", "f32"));
        assert!(facts.precision_reason.contains("library for GPUs"), "{facts:?}");
    });
}
