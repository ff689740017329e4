//! Sessions on a GPU that cannot be had: over a driver that stands in for NVIDIA's, with each build of ONNX Runtime.
//!
//! In: the models, the runtime libraries. Out: errors that name the provider and the mend; a session on the CPU only with leave.
//! Prints what is left out where a resource is missing.
//! Must not know: how sessions are opened.

use std::path::{Path, PathBuf};

use doorward::config::{InferConfig, PrecisionChoice};
use doorward::device::{Device, ResolvedDevice};
use doorward::frame::PixelLayout;
use doorward::infer::cuda::{CudaError, Gpu, GraphsError, GraphsPlan, Plan, Worker, graphs};
use doorward::infer::{Engine, EngineFacts, Lane};
use doorward::models::{LibraryEntry, Manifest};
use onnx_rs::ast::{
    Attribute, AttributeType, DataType, Dimension, Graph, Model, Node, OpType, OperatorSetId, TensorProto, TensorShape,
    TensorShapeDimension, TensorTypeProto, TypeProto, TypeValue, ValueInfo,
};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::driver::{StandIn, image, nvrtc_dir, over_the_stand_in};
use crate::engine::request;
use crate::faces;
use crate::flow::noise;

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

/// A folder of models as this one, with `changed` in its manifest's place.
fn models_with(models: &Path, changed: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(models.canonicalize().unwrap()).unwrap().map(Result::unwrap) {
        std::os::unix::fs::symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let (path, mut text) = (folder.path().join("manifest.toml"), std::fs::read_to_string(models.join("manifest.toml")).unwrap());
    for (from, to) in changed {
        assert!(text.contains(from), "{from} is in the manifest");
        text = text.replace(from, to);
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::write(path, text).unwrap();
    folder
}

/// Puts what `to` says of its file in place of what `from` says.
fn instead<'a>(from: &'a [String; 3], to: &'a [String; 3]) -> Vec<(&'a str, &'a str)> {
    from.iter().zip(to).map(|(from, to)| (from.as_str(), to.as_str())).collect()
}

/// What a manifest says of a file.
fn lines(file: &str, bytes: u64, sha256: &str) -> [String; 3] {
    [format!("file = \"{file}\""), format!("bytes = {bytes}\n"), format!("sha256 = \"{sha256}\"")]
}

/// The lines of the libraries for CPUs and for GPUs.
fn library_lines(manifest: &Manifest) -> [[String; 3]; 2] {
    [Device::Cpu, Device::Cuda(0)].map(|device| {
        let runtime = manifest.runtime_of(device).unwrap();
        lines(runtime.file.to_str().unwrap(), runtime.bytes, &runtime.sha256)
    })
}

/// The lines of what the library for GPUs loads from beside it: the one for CPUs, which stands in for it, has its own there.
fn lines_beside(manifest: &Manifest) -> Vec<String> {
    let line = |beside: &LibraryEntry| {
        let file = beside.file.display();
        format!("    {{ file = \"{file}\", bytes = {}, sha256 = \"{}\" }},\n", beside.bytes, beside.sha256)
    };
    manifest.runtime_of(Device::Cuda(0)).unwrap().beside.iter().map(line).collect()
}

fn without(lines: &[String]) -> Vec<(&str, &str)> {
    lines.iter().map(|line| (line.as_str(), "")).collect()
}

/// Runs over the stand-in where kernels can be compiled, as the engine does before it opens anything.
fn run(test: &str, body: impl FnOnce(&Path)) {
    let Some(models) = faces::models_dir(test).filter(|_| nvrtc_dir(test).is_some()) else { return };
    over_the_stand_in(test, &[], |stand_in| {
        body(&models);
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

/// Opens an engine on a GPU that cannot be used: an error without leave to take another device, and with it the CPU, which finds
/// out how many faces there are in a picture. Both name `parts`.
pub fn falls_back_only_with_leave(models: &Path, parts: &[&str]) -> EngineFacts {
    let config = InferConfig { sessions: 1, ..InferConfig::default() };
    let alone = ResolvedDevice { may_fall_back: false, ..gpu_device(None) };
    let error = Engine::open(&config, models, &alone).err().expect("there is no GPU").to_string();
    println!("{error}");
    let engine = Engine::open(&config, models, &gpu_device(None)).unwrap();
    let facts = engine.facts().clone();
    for part in parts {
        assert!(error.contains(part), "{part}: {error}");
        assert!(facts.device_reason.contains(part), "{part}: {facts:?}");
    }
    assert!(facts.device == "cpu" && facts.device_reason.starts_with("cuda:0 cannot be used: "), "{facts:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let found = runtime.block_on(engine.detect(Lane::Live, vec![request(&noise(1, (320, 180), PixelLayout::Nv12))])).unwrap();
    assert_eq!((found.len(), engine.batch_max()), (1, 1), "the CPU analyses");
    facts
}

#[test]
fn without_the_library_for_gpus_the_cpu_analyses_where_it_may_and_else_the_engine_does_not_open() {
    const NAME: &str = "sessions::without_the_library_for_gpus_the_cpu_analyses_where_it_may_and_else_the_engine_does_not_open";
    run(NAME, |models| {
        let manifest = Manifest::load(models).unwrap();
        let [_, gpu] = library_lines(&manifest);
        let models = models_with(models, &[(&gpu[0], "file = \"nowhere/libonnxruntime.so\"")]);
        let facts =
            falls_back_only_with_leave(models.path(), &["nowhere/libonnxruntime.so", "it is not installed", "script/bootstrap --gpu"]);
        assert_eq!(facts.runtime_version, manifest.runtime().name, "nothing was loaded before");
    });
}

#[test]
fn where_the_provider_cannot_be_had_the_cpu_analyses_where_it_may_and_else_the_engine_does_not_open() {
    const NAME: &str = "sessions::where_the_provider_cannot_be_had_the_cpu_analyses_where_it_may_and_else_the_engine_does_not_open";
    run(NAME, |models| {
        let manifest = Manifest::load(models).unwrap();
        let [cpu, gpu] = library_lines(&manifest);
        let beside = lines_beside(&manifest);
        let models = models_with(models, &[instead(&gpu, &cpu), without(&beside)].concat());
        let facts = falls_back_only_with_leave(models.path(), &["the TensorRT provider cannot run yunet-2023mar", "doorward doctor"]);
        assert_eq!((facts.provider.as_str(), facts.precision.as_str()), ("CPU", "f32"), "a process keeps its library");
    });
}

#[test]
fn an_encoder_for_one_picture_is_named_before_any_engine_is_built_and_the_cpu_runs_it_where_it_may() {
    const NAME: &str = "sessions::an_encoder_for_one_picture_is_named_before_any_engine_is_built_and_the_cpu_runs_it_where_it_may";
    run(NAME, |models| {
        let manifest = Manifest::load(models).unwrap();
        let ([cpu, gpu], encoder) = (library_lines(&manifest), &manifest.encoder.model);
        let graph = encoder_for_one(&encoder.input.name, &manifest.encoder.output);
        let sha256: String = Sha256::digest(&graph).iter().map(|byte| format!("{byte:02x}")).collect();
        let published = lines(&encoder.file.display().to_string(), encoder.bytes, &encoder.sha256);
        let of_one = lines("one.onnx", graph.len() as u64, &sha256);
        let beside = lines_beside(&manifest);
        let models = models_with(models, &[instead(&gpu, &cpu), without(&beside), instead(&published, &of_one)].concat());
        std::fs::write(models.path().join("one.onnx"), graph).unwrap();
        // The detector's provider cannot be had either, and comes later.
        let facts = falls_back_only_with_leave(models.path(), &["sface-2021dec", "one.doorward-1.onnx", "is for exactly 1 pictures"]);
        assert!(facts.space.as_str().starts_with(&sha256[..16]), "it encodes: {facts:?}");
    });
}

/// An encoder whose input has a free batch as soon as it is rewritten, and which says in a constant that it has one picture: the means
/// of parts of the picture.
fn encoder_for_one(input: &str, output: &str) -> Vec<u8> {
    const SHAPE: [i64; 3] = [1, 128, 294];
    let attribute = |name, r#type| Attribute { name, r#type, ..Attribute::default() };
    let node = |op_type, (input, output), attribute| Node { op_type, input, output: vec![output], attribute, ..Node::default() };
    let shape = TensorProto::from_i64("", vec![3], SHAPE.to_vec());
    let constant = Attribute { t: Some(shape), ..attribute("value", AttributeType::Tensor) };
    let last = Attribute { ints: vec![2], ..attribute("axes", AttributeType::Ints) };
    let away = attribute("keepdims", AttributeType::Int);
    let graph = Graph {
        name: "one",
        node: vec![
            node(OpType::Constant, (vec![], "shape"), vec![constant]),
            node(OpType::Reshape, (vec![input, "shape"], "parts"), vec![]),
            node(OpType::ReduceMean, (vec!["parts"], output), vec![last, away]),
        ],
        input: vec![floats(input, &[1, 3, 112, 112])],
        output: vec![floats(output, &SHAPE[..2])],
        ..Graph::default()
    };
    let opset_import = vec![OperatorSetId { domain: "", version: 13 }];
    onnx_rs::encode(&Model { ir_version: 8, opset_import, graph: Some(graph), ..Model::default() })
}

fn floats<'a>(name: &'a str, sides: &[i64]) -> ValueInfo<'a> {
    let dimension = |side: &i64| TensorShapeDimension { value: Dimension::Value(*side), ..TensorShapeDimension::default() };
    let shape = TensorShape { dim: sides.iter().map(dimension).collect() };
    let tensor = TypeValue::Tensor(TensorTypeProto { elem_type: DataType::Float, shape: Some(shape) });
    ValueInfo { name, r#type: Some(TypeProto { value: Some(tensor), ..TypeProto::default() }), ..ValueInfo::default() }
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
