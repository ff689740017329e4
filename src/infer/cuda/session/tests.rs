//! Tests of everything about sessions on a GPU that needs no GPU: what is chosen, told, kept and refused.
//!
//! In: settings, folders, the real graphs on the CPU. Out: nothing. Prints what is left out without the models.
//! Must not know: the driver.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::config::PrecisionChoice;

fn parts() -> KeyParts<'static> {
    KeyParts {
        model: "yunet",
        graph_sha256: "aa",
        gpu: "L4, compute capability 8.9",
        tensorrt: "10.8.0",
        runtime: "r",
        precision: "fp16",
        profile: "1x3",
    }
}

/// A folder with an engine in it, left as after a build.
fn built(root: &Path, key: &Key) -> PathBuf {
    let mut folder = EngineFolder::open(root, key, None).expect("it can be written");
    assert!(!folder.is_warm);
    fs::write(folder.path().join("TensorrtExecutionProvider_1_sm89.engine"), [7; 100]).expect("written");
    folder.seal().expect("it can be written");
    assert!(folder.is_warm);
    folder.path().to_owned()
}

#[test]
fn fp16_goes_with_tensorrt_and_nothing_is_pretended() {
    let chosen = |setting, without: Option<&str>| {
        GpuChoice::new(setting, without).map(|choice| (choice.provider, choice.precision)).map_err(|error| error.to_string())
    };
    assert_eq!(chosen(PrecisionChoice::Auto, None), Ok((GpuProvider::TensorRt, GpuPrecision::Fp16)));
    assert_eq!(chosen(PrecisionChoice::F32, None), Ok((GpuProvider::TensorRt, GpuPrecision::F32)));
    assert_eq!(chosen(PrecisionChoice::Fp16, None), Ok((GpuProvider::TensorRt, GpuPrecision::Fp16)));
    assert_eq!(chosen(PrecisionChoice::Auto, Some("no nvinfer")), Ok((GpuProvider::Cuda, GpuPrecision::F32)));
    let refused = chosen(PrecisionChoice::Fp16, Some("no nvinfer")).expect_err("it needs TensorRT");
    assert!(refused.contains("TensorRT") && refused.contains("no nvinfer"), "{refused}");
    for without in [None, Some("no nvinfer")] {
        let refused = chosen(PrecisionChoice::Bf16, without).expect_err("a GPU is not asked for it");
        assert!(refused.contains("infer.precision = \"bf16\"") && refused.contains("fp16"), "{refused}");
    }
    let reason = GpuChoice::new(PrecisionChoice::Auto, Some("no nvinfer")).expect("it is CUDA's").provider_reason;
    assert!(reason.contains("no nvinfer"), "{reason}");
}

#[test]
fn tensorrt_is_told_shapes_precision_and_where_its_engine_lies() {
    let profile = Profile::of_detector(640, (384, 640), 16);
    let told = options::tensorrt((1, GpuPrecision::Fp16), "input", &profile, Some(Path::new("/e/f")));
    for pair in [
        ("device_id", "1"),
        ("trt_fp16_enable", "1"),
        ("trt_profile_min_shapes", "input:1x3x32x32"),
        ("trt_profile_opt_shapes", "input:16x3x384x640"),
        ("trt_profile_max_shapes", "input:16x3x640x640"),
        ("trt_engine_cache_enable", "1"),
        ("trt_engine_cache_path", "/e/f"),
        ("trt_timing_cache_enable", "1"),
        ("trt_timing_cache_path", "/e/f"),
    ] {
        assert!(told.iter().any(|(key, value)| (*key, value.as_str()) == pair), "{pair:?}: {told:?}");
    }
    let told = options::tensorrt((0, GpuPrecision::F32), "data", &Profile::of_encoder(112, 8, 32), None);
    assert!(told.contains(&("trt_fp16_enable", "0".into())) && told.contains(&("trt_engine_cache_enable", "0".into())), "{told:?}");
    assert!(told.contains(&("trt_profile_opt_shapes", "data:8x3x112x112".into())) && !told.iter().any(|(key, _)| key.ends_with("path")));
    assert!(options::cuda(2).contains(&("device_id", "2".into())) && options::cuda(2).contains(&("use_tf32", "0".into())));
}

#[test]
fn an_engine_holds_every_batch_and_canvas_up_to_its_own() {
    let detector = Profile::of_detector(640, (384, 640), 4);
    for (shape, holds) in [
        ([1, 3, 384, 640], true),
        ([4, 3, 640, 640], true),
        ([2, 3, 640, 32], true),
        ([5, 3, 384, 640], false),
        ([1, 3, 672, 384], false),
        ([0, 3, 384, 640], false),
    ] {
        assert_eq!(detector.holds(shape), holds, "{shape:?}");
    }
    let encoder = Profile::of_encoder(ALIGNED_SIDE, FACES_USUAL, FACES_MAX);
    assert!(encoder.holds([1, 3, 112, 112]) && encoder.holds([32, 3, 112, 112]) && !encoder.holds([33, 3, 112, 112]));
    assert_eq!(Profile::of_detector(640, (384, 640), 0).max[0], 1, "there is always one picture");
}

#[test]
fn an_engine_is_bound_to_everything_that_it_depends_on() {
    let key = Key::new(&parts());
    assert_eq!(key, Key::new(&parts()));
    let others = [
        KeyParts { graph_sha256: "ab", ..parts() },
        KeyParts { gpu: "L4, compute capability 9.0", ..parts() },
        KeyParts { tensorrt: "10.8.1", ..parts() },
        KeyParts { runtime: "s", ..parts() },
        KeyParts { precision: "f32", ..parts() },
        KeyParts { profile: "2x3", ..parts() },
    ];
    let root = tempfile::tempdir().expect("a temporary directory");
    let own = built(root.path(), &key);
    for other in &others {
        let folder = EngineFolder::open(root.path(), &Key::new(other), None).expect("it can be written");
        assert!(!folder.is_warm && folder.path() != own);
    }
    let escaping = Key::new(&KeyParts { model: "../../x/ y", ..parts() });
    let folder = EngineFolder::open(root.path(), &escaping, None).expect("it can be written");
    assert_eq!(folder.path().parent(), Some(root.path()), "it stays below the cache");
}

#[test]
fn an_engine_is_kept_where_a_driver_counts_the_memory_otherwise() {
    let words = |mib| format!("NVIDIA H200, compute capability 9.0, {mib} MiB");
    assert_eq!(engines::roughly(&words(143_771)), engines::roughly(&words(143_155)));
    assert_ne!(engines::roughly(&words(10_240)), engines::roughly(&words(12_288)), "two cards of one name");
    for whole in ["NVIDIA H200, compute capability 9.0", "not looked at", "H200, many MiB", ""] {
        assert_eq!(engines::roughly(whole), whole);
    }
}

#[test]
fn engines_that_nobody_can_use_any_more_are_removed_and_those_of_others_stay() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let key = Key::new(&parts());
    let own = built(root.path(), &key);
    let old = built(root.path(), &Key::new(&KeyParts { gpu: "T4", ..parts() }));
    let other_model = built(root.path(), &Key::new(&KeyParts { model: "yunet-2", ..parts() }));
    let foreign = root.path().join("engine-yunet-notes");
    fs::create_dir(&foreign).expect("made");
    let newer = built(root.path(), &Key::new(&KeyParts { tensorrt: "10.9", ..parts() }));
    assert!(!own.exists() && newer.exists(), "TensorRT is another one");
    assert!(old.exists() && other_model.exists() && foreign.exists(), "another GPU, another model, and what is none of ours");
    fs::remove_file(newer.join("key")).expect("removed");
    assert!(!EngineFolder::open(root.path(), &key, None).expect("it can be written").is_warm);
    assert!(!newer.exists(), "nobody knows what it is for");
}

#[test]
fn an_engine_that_a_process_runs_is_left_to_it_by_others_with_other_settings() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (key, other) = (Key::new(&parts()), Key::new(&KeyParts { precision: "f32", ..parts() }));
    built(root.path(), &key);
    let folder = EngineFolder::open(root.path(), &key, None).expect("it is there");
    let own = folder.path().to_owned();
    let runs = [folder.in_use().expect("it is locked"), folder.in_use().expect("by several sessions at once")];
    drop(folder);
    let theirs = built(root.path(), &other);
    assert!(own.exists(), "the sessions that run it may be opened anew");
    assert!(EngineFolder::open(root.path(), &key, Some(Duration::ZERO)).expect("it is there").is_warm);
    assert!(!theirs.exists(), "nobody runs the other one");
    drop(runs);
    built(root.path(), &other);
    assert!(!own.exists(), "nobody runs it any more");
}

#[test]
fn a_session_that_is_opened_anew_does_not_wait_for_another_process() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let key = Key::new(&parts());
    built(root.path(), &key);
    // Each open file has a lock of its own, as each process has.
    let building = EngineFolder::open(root.path(), &key, None).expect("it is there");
    let refused = EngineFolder::open(root.path(), &key, Some(Duration::ZERO)).expect_err("it is held");
    assert!(matches!(&refused, GraphsError::Busy(folder) if folder == root.path()), "{refused}");
    drop(building);
    assert!(EngineFolder::open(root.path(), &key, Some(Duration::ZERO)).expect("it is there").is_warm);
}

#[test]
fn an_engine_that_is_not_as_it_was_left_is_removed_before_anything_reads_it() {
    let key = Key::new(&parts());
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 5] = [
        ("altered", |folder| fs::write(folder.join("TensorrtExecutionProvider_1_sm89.engine"), [8; 100]).expect("written")),
        ("cut", |folder| fs::write(folder.join("TensorrtExecutionProvider_1_sm89.engine"), [7; 50]).expect("written")),
        ("added", |folder| fs::write(folder.join("other.engine"), [7; 50]).expect("written")),
        ("lost", |folder| fs::remove_file(folder.join("TensorrtExecutionProvider_1_sm89.engine")).expect("removed")),
        ("never finished", |folder| fs::remove_file(folder.join("SHA256SUMS")).expect("removed")),
    ];
    for (what, harm) in harms {
        let root = tempfile::tempdir().expect("a temporary directory");
        let folder = built(root.path(), &key);
        assert!(EngineFolder::open(root.path(), &key, None).expect("it is there").is_warm, "{what}: it is good before");
        harm(&folder);
        let again = EngineFolder::open(root.path(), &key, None).expect("it is made anew");
        assert!(!again.is_warm, "{what}");
        let left: Vec<_> = fs::read_dir(again.path()).expect("it is there").map(|entry| entry.expect("an entry").file_name()).collect();
        assert_eq!(left, ["key"], "{what}");
    }
}

#[test]
fn an_engine_that_tensorrt_refuses_goes_only_where_another_one_was_built() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let key = Key::new(&parts());
    built(root.path(), &key);
    let open = || EngineFolder::open(root.path(), &key, None).expect("it is there");
    let count =
        || fs::read_dir(root.path()).expect("it is there").filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir())).count();
    let mut folder = open();
    folder.set_aside("it was refused").expect("it can be moved");
    assert!(!folder.is_warm && fs::read_dir(folder.path()).expect("it is there").count() == 1);
    folder.drop_what_was_set_aside();
    folder.seal().expect("it can be written");
    drop(folder);
    assert!(open().is_warm && count() == 1);

    // Where no other can be built, nor finished, the old one is there again.
    let mut folder = open();
    folder.set_aside("it was refused").expect("it can be moved");
    folder.bring_back().expect("it can be moved");
    drop(folder);
    assert!(open().is_warm && count() == 1);
    let mut folder = open();
    folder.set_aside("it was refused").expect("it can be moved");
    drop(folder);
    assert!(open().is_warm && count() == 1, "whoever built it was ended");
}

const ENGINE: &str = "TensorrtExecutionProvider_1_sm89.engine";
/// An engine that is whole and that nobody can use, and one that was built just now.
const OLD: [u8; 100] = [7; 100];
const NEW: [u8; 80] = [9; 80];

/// Stands for TensorRT: builds an engine where none is kept, unless nothing can be built, and refuses one that is of no use to it.
struct Builder {
    can_build: bool,
    /// How often an engine was opened, and how often built.
    counts: [AtomicUsize; 2],
}

impl Builder {
    fn new(can_build: bool) -> Self {
        Self { can_build, counts: Default::default() }
    }

    fn open(&self, folder: Option<&EngineFolder>) -> Result<Vec<u8>, GraphsError> {
        let refused = |reason: &str| {
            let (model, reason) = ("yunet".to_owned(), reason.to_owned());
            Err(GraphsError::Provider { model, provider: "TensorRT", precision: "fp16", reason })
        };
        let kept = folder.filter(|folder| folder.is_warm).map(|folder| fs::read(folder.path().join(ENGINE)).expect("it is whole"));
        match kept {
            Some(kept) => {
                self.counts[0].fetch_add(1, Ordering::Relaxed);
                if kept == OLD { refused("it was serialised by another version") } else { Ok(kept) }
            }
            None if !self.can_build => refused("there is no memory to build in"),
            None => {
                self.counts[1].fetch_add(1, Ordering::Relaxed);
                folder.into_iter().for_each(|folder| fs::write(folder.path().join(ENGINE), NEW).expect("written"));
                Ok(NEW.to_vec())
            }
        }
    }

    /// What comes of opening the engine that is kept below `root`, as at a start or in the midst of work.
    fn opened(&self, root: &Path, may_build: bool) -> Result<Vec<u8>, GraphsError> {
        let mut folder = EngineFolder::open(root, &Key::new(&parts()), None)?;
        engines::kept_or_built(Some(&mut folder), ("yunet", may_build), |folder| self.open(folder))
    }

    fn counts(&self) -> (usize, usize) {
        (self.counts[0].load(Ordering::Relaxed), self.counts[1].load(Ordering::Relaxed))
    }
}

#[test]
fn a_kept_engine_that_cannot_be_used_is_built_anew_once_and_the_new_one_is_kept() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let folder = built(root.path(), &Key::new(&parts()));
    let builder = Builder::new(true);
    assert_eq!(builder.opened(root.path(), true).expect("another is built"), NEW);
    assert_eq!(builder.counts(), (1, 1));
    for _ in 0..2 {
        assert_eq!(builder.opened(root.path(), true).expect("it is kept"), NEW);
    }
    assert_eq!(builder.counts(), (3, 1), "the next starts take what is kept");
    let left = fs::read_dir(root.path()).expect("it is there").filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_dir()));
    assert!(left.count() == 1 && folder.exists(), "the old one is gone");
}

#[test]
fn a_kept_engine_whose_file_is_damaged_is_built_anew_and_read_by_nobody() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let builder = Builder::new(true);
    assert_eq!(builder.opened(root.path(), true).expect("there was none"), NEW);
    let folder = EngineFolder::open(root.path(), &Key::new(&parts()), None).expect("it is there").path().to_owned();
    fs::write(folder.join(ENGINE), &NEW[..40]).expect("written");
    assert_eq!(builder.opened(root.path(), true).expect("another is built"), NEW);
    assert_eq!(builder.counts(), (0, 2));
}

#[test]
fn a_kept_engine_stays_where_no_other_can_be_built_and_the_reason_of_that_is_told() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let folder = built(root.path(), &Key::new(&parts()));
    let error = Builder::new(false).opened(root.path(), true).expect_err("neither can be had").to_string();
    assert!(error.contains("TensorRT") && error.contains("there is no memory to build in"), "{error}");
    assert_eq!(fs::read(folder.join(ENGINE)).expect("it is there"), OLD);
    assert!(EngineFolder::open(root.path(), &Key::new(&parts()), None).expect("it is there").is_warm);
    let error = Builder::new(false).opened(&root.path().join("empty"), true).expect_err("it cannot be built").to_string();
    assert!(error.contains("there is no memory to build in"), "{error}");
}

#[test]
fn in_the_midst_of_work_a_kept_engine_is_taken_or_nothing() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let builder = Builder::new(true);
    let error = builder.opened(root.path(), false).expect_err("there is none");
    assert!(matches!(&error, GraphsError::NotKept(model) if model == "yunet"), "{error}");
    let none = engines::kept_or_built(None, ("yunet", false), |folder| builder.open(folder));
    assert!(matches!(none, Err(GraphsError::NotKept(_))), "no folder keeps any");
    assert_eq!(builder.counts(), (0, 0));
    builder.opened(root.path(), true).expect("it is built");
    assert_eq!(builder.opened(root.path(), false).expect("it is kept"), NEW);

    let root = tempfile::tempdir().expect("a temporary directory");
    let folder = built(root.path(), &Key::new(&parts()));
    let builder = Builder::new(true);
    let error = builder.opened(root.path(), false).expect_err("it cannot be used").to_string();
    assert!(error.contains("it was serialised by another version"), "{error}");
    assert_eq!(
        (builder.counts(), fs::read(folder.join(ENGINE)).expect("it is there")),
        ((1, 0), OLD.to_vec()),
        "the next start sees to it"
    );
}

#[test]
fn an_engine_that_cannot_be_kept_is_run_all_the_same_and_built_anew_by_the_next_start() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let builder = Builder::new(true);
    let mut folder = EngineFolder::open(root.path(), &Key::new(&parts()), None).expect("it is made");
    // A folder stands where the seal would be written.
    fs::create_dir(folder.path().join("SHA256SUMS")).expect("made");
    let opened = engines::kept_or_built(Some(&mut folder), ("yunet", true), |folder| builder.open(folder));
    assert_eq!(opened.expect("it runs"), NEW);
    drop(folder);
    assert_eq!(builder.opened(root.path(), true).expect("it is built"), NEW);
    assert_eq!(builder.counts(), (0, 2));
    let without_folder = engines::kept_or_built(None, ("yunet", true), |folder| builder.open(folder));
    assert_eq!((without_folder.expect("it is built"), builder.counts().1), (NEW.to_vec(), 3), "nothing has to be kept");
}

#[test]
fn nobody_else_looks_into_the_engines_and_a_place_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let cache = root.path().join("a/engines");
    fs::create_dir_all(&cache).expect("made");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o755)).expect("set");
    let folder = built(&cache, &Key::new(&parts()));
    let rights = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((rights(&cache), rights(&folder)), (0o755, 0o700), "the folder that was there stays as it was");
    let made = root.path().join("b/engines");
    built(&made, &Key::new(&parts()));
    assert_eq!(rights(&made), 0o700);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o750)).expect("set");
    assert!(!EngineFolder::open(&cache, &Key::new(&parts()), None).expect("it is made anew").is_warm, "others could look into it");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).expect("set");
    let error = EngineFolder::open(&cache, &Key::new(&parts()), None).expect_err("anybody may write there").to_string();
    assert!(error.contains("other users may write there") && error.contains("infer.engine_cache_dir"), "{error}");
    let file = root.path().join("file");
    fs::write(&file, "no folder").expect("written");
    let error = EngineFolder::open(&file.join("engines"), &Key::new(&parts()), None).expect_err("a file is in the way").to_string();
    assert!(error.contains("infer.engine_cache_dir") && error.contains("file"), "{error}");
}

#[test]
fn it_is_told_that_something_goes_on_until_it_is_done() {
    let told = AtomicUsize::new(0);
    let tell = |elapsed: Duration| {
        assert!(elapsed >= Duration::from_millis(5));
        told.fetch_add(1, Ordering::Relaxed);
    };
    let answer = progress::told(Duration::from_millis(5), tell, || {
        while told.load(Ordering::Relaxed) < 3 {
            std::thread::yield_now();
        }
        41
    });
    // Nothing is told afterwards: what tells is borrowed only until then.
    assert_eq!(answer, 41);
    assert_eq!(progress::told(Duration::from_secs(3600), |_| unreachable!("it was quick"), || 1), 1);
}

#[test]
fn a_binding_sees_what_is_written_after_it_was_made_and_writes_where_it_was_told() {
    let manifest = Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).expect("it is good");
    let Ok(environment) = onnx::runtime(&manifest, Device::Cpu).map(|runtime| runtime.environment) else {
        println!("LEFT OUT: bindings: the runtime library is not in models/; run script/bootstrap");
        return;
    };
    let (entry, graph) = (&manifest.encoder, manifest.prepared(Role::Encoder).expect("the models are there").path);
    let mut runner = Runner::on_host(&environment, &graph, &entry.model.input.name).expect("it opens");
    let (values, shape) = (3 * ALIGNED_SIDE * ALIGNED_SIDE, [2, 3, ALIGNED_SIDE, ALIGNED_SIDE]);
    let noise = |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        (0..2 * values).map(|_| random.f32() * 255.0).collect::<Vec<f32>>()
    };
    let (mut here, mut there) = (noise(1), noise(2));
    let mut out = vec![f32::NAN; 2 * entry.dimension];
    let address = |values: &mut Vec<f32>| values.as_mut_ptr() as u64;
    let outputs = [(entry.output.as_str(), address(&mut out), vec![2, entry.dimension])];
    // SAFETY: the vectors are as long as the shapes say and stay where they are to the end of the test.
    let mut bound = unsafe { runner.bind((address(&mut here), shape), &outputs) }.expect("it is bound");
    let mut run = |at: u64| {
        // SAFETY: as above.
        unsafe { runner.run(&mut bound, at, shape) }.expect("it runs");
        // SAFETY: the output's, read when nothing writes it.
        unsafe { std::slice::from_raw_parts(outputs[0].1 as *const f32, 2 * entry.dimension) }.to_vec()
    };
    let first = run(address(&mut here));
    assert!(first.iter().all(|value| value.is_finite()) && first[..128] != first[128..]);
    assert_eq!(run(address(&mut here)), first, "the same again");
    let second = run(address(&mut there));
    assert_ne!(second, first, "another address");
    here.copy_from_slice(&there);
    assert_eq!(run(address(&mut here)), second, "what is written behind the binding's back is seen");
    there.copy_from_slice(&noise(1));
    assert_eq!(run(address(&mut there)), first, "and at an address that was bound before");
}

#[test]
fn the_runtime_says_which_provider_runs_every_node_and_another_than_was_asked_for_is_refused() {
    let manifest = Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).expect("it is good");
    let Ok(environment) = onnx::runtime(&manifest, Device::Cpu).map(|runtime| runtime.environment) else {
        println!("LEFT OUT: what runs each node: the runtime library is not in models/; run script/bootstrap");
        return;
    };
    let graph = manifest.prepared(Role::Encoder).expect("the models are there").path;
    let runner = Runner::on_host(&environment, &graph, &manifest.encoder.model.input.name).expect("it opens");
    let assignment = runner.assignment();
    let on_host = assignment.nodes_of("CPUExecutionProvider");
    assert!(on_host > 20 && on_host == assignment.nodes(), "all of the encoder: {assignment}");
    for provider in [GpuProvider::TensorRt, GpuProvider::Cuda] {
        let refusal = assignment.refusal(provider).expect("neither runs anything");
        assert!(refusal.contains(&on_host.to_string()) && refusal.contains("CPUExecutionProvider"), "{refusal}");
        assert!(assignment.left_by(provider).contains(&"Conv"), "{:?}", assignment.left_by(provider));
    }
}

#[test]
fn a_graph_is_held_to_the_manifest_and_tells_its_shapes_without_a_gpu() {
    let manifest = Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).expect("it is good");
    let Ok(environment) = onnx::runtime(&manifest, Device::Cpu).map(|runtime| runtime.environment) else {
        println!("LEFT OUT: what graphs tell of themselves: the runtime library is not in models/; run script/bootstrap");
        return;
    };
    let prepared = |role| manifest.prepared(role).expect("the models are there").path;
    let (detector, encoder) = (&manifest.detector.model, &manifest.encoder.model);
    let mut contract = Contract::open(&environment, &prepared(Role::Detector), detector).expect("it is as stated");
    for (height, width) in [(384, 640), (640, 640), (32, 64)] {
        let outputs = contract.outputs((height, width)).expect("it runs");
        assert_eq!(outputs.len(), 12);
        for (name, of_cell) in [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)] {
            for stride in [8, 16, 32] {
                let output = outputs.iter().find(|output| output.name == format!("{name}_{stride}")).expect("the decoder reads it");
                assert_eq!(output.each, [(height / stride) * (width / stride), of_cell], "{name}_{stride}");
            }
        }
    }
    assert!(contract.takes_two((64, 64)));
    let mut contract = Contract::open(&environment, &prepared(Role::Encoder), encoder).expect("it is as stated");
    assert!(contract.takes_two((ALIGNED_SIDE, ALIGNED_SIDE)));
    let outputs = contract.outputs((ALIGNED_SIDE, ALIGNED_SIDE)).expect("it runs");
    assert!(outputs.iter().any(|output| output.name == manifest.encoder.output && output.each == [manifest.encoder.dimension]));

    let refused = |graph: &Path, model: &ModelEntry| match Contract::open(&environment, graph, model) {
        Ok(_) => panic!("{} is refused", graph.display()),
        Err(error) => error,
    };
    let published = manifest.dir.join(&detector.file);
    let error = refused(&published, detector);
    assert!(matches!(error, GraphsError::StaticBatch { batch: 1, .. }) && error.to_string().contains(&detector.name), "{error}");
    let error = refused(&prepared(Role::Detector), encoder);
    assert!(matches!(error, GraphsError::Inputs { .. }), "{error}");
    for part in [encoder.name.as_str(), "\"input\"", "\"data\"", "manifest.toml"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
}
