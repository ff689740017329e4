//! Tests of the manifest, of the checks and of the seal, without any real model.
//!
//! In: small files made here. Out: nothing.
//! Must not know: ONNX Runtime.

use std::fs;
use std::path::Path;

use super::*;

const DETECTOR: &str = r#"
[[model]]
role = "detector"
name = "d"
file = "d.onnx"
bytes = 1
sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
licence = "MIT"
source = "somewhere"
package_sha256 = "b"
decoder = "yunet"
input = { name = "input", layout = "nchw", colour = "bgr", mean = [0.0, 0.0, 0.0], scale = 1.0 }
"#;
const ENCODER: &str = r#"
[[model]]
role = "encoder"
name = "e"
file = "e.onnx"
bytes = 3
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
licence = "MIT"
source = "somewhere"
package_sha256 = "b"
alignment = "arcface-112-v1"
output = "fc1"
dimension = 128
threshold = 0.363
input = { name = "data", layout = "nchw", colour = "rgb", mean = [0.0, 0.0, 0.0], scale = 1.0 }
"#;
const ANTISPOOF: &str = r#"
[[model]]
role = "antispoof"
name = "a"
file = "a.onnx"
bytes = 3
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
licence = "MIT"
source = "somewhere"
package_sha256 = "b"
crop_scale = 2.7
crop_side = 128
output = "output"
live_class = 0
threshold = 0.5
input = { name = "input", layout = "nchw", colour = "bgr", mean = [0.0, 0.0, 0.0], scale = 1.0 }
"#;
const RUNTIME: &str = r#"
[[runtime]]
name = "r"
file = "lib/r.so"
bytes = 3
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
licence = "MIT"
source = "somewhere"
package_sha256 = "b"
"#;

fn load(text: &str) -> Result<Manifest, ModelsError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::write(dir.path().join("manifest.toml"), text).expect("it can be written");
    Manifest::load(dir.path())
}

#[test]
fn the_manifest_of_this_repository_is_read_and_names_the_template_space() {
    let manifest = Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).expect("it is good");
    assert_eq!(manifest.list().len(), 17);
    assert_eq!(manifest.space().as_str(), "0ba9fbfa01b5270c/arcface-112-v1/l2");
}

#[test]
fn a_bad_manifest_is_refused_with_file_and_key() {
    let good = [RUNTIME, DETECTOR, ENCODER].concat();
    load(&good).expect("it is good");
    for (from, to, key) in [
        ("decoder = \"yunet\"", "decoder = \"yunet\"\ncolour = \"red\"", "colour"),
        ("decoder = \"yunet\"\n", "", "decoder"),
        ("decoder = \"yunet\"", "decoder = \"yolo\"", "decoder"),
        ("threshold = 0.363", "threshold = 7.0", "threshold"),
        ("threshold = 0.363\n", "", "threshold"),
        ("dimension = 128", "dimension = 0", "dimension"),
        ("arcface-112-v1", "arcface-112-v9", "alignment"),
        ("output = \"fc1\"", "output = \"fc1\"\ndecoder = \"yunet\"", "decoder"),
        ("file = \"e.onnx\"", "file = \"../e.onnx\"", "file"),
        ("file = \"lib/r.so\"", "file = \"/lib/r.so\"", "file"),
        ("file = \"lib/r.so\"", "file = \"lib/r.so\"\ndevice = \"cuda\"", "runtime"),
        ("file = \"lib/r.so\"", "file = \"lib/r.so\"\ndevice = \"npu\"", "device"),
        ("aaaaaaaa", "AAAAAAAA", "sha256"),
        ("layout = \"nchw\", colour = \"rgb\"", "layout = \"nhwc\", colour = \"rgb\"", "layout"),
        ("role = \"encoder\"", "role = \"painter\"", "role"),
        ("role = \"encoder\"", "role = \"detector\"", "alignment"),
    ] {
        let error = load(&good.replace(from, to)).expect_err(to).to_string();
        assert!(error.contains("manifest.toml") && error.contains(key), "{to}: {error}");
    }
    let two_encoders = [RUNTIME, DETECTOR, ENCODER, &ENCODER.replace("\"e\"", "\"f\"").replace("e.onnx", "f.onnx")].concat();
    let manifest = load(&two_encoders).expect("it is good");
    assert_eq!((manifest.encoder.model.name.as_str(), manifest.list().len()), ("e", 4), "the first is in force");
    assert_eq!(manifest.clone().with_encoder(Some("f")).expect("it is there").encoder.model.name, "f");
    let error = manifest.with_encoder(Some("g")).expect_err("nobody is called so").to_string();
    assert!(error.contains("\"g\"") && error.contains("e, f") && error.contains("infer.encoder"), "{error}");
    assert!(load(&[RUNTIME, DETECTOR, ENCODER, ENCODER].concat()).is_err(), "two of one name");
    for text in [[DETECTOR, ENCODER].concat(), [RUNTIME, ENCODER].concat(), [RUNTIME, DETECTOR, DETECTOR, ENCODER].concat()] {
        assert!(load(&text).is_err());
    }
}

#[test]
fn a_projection_is_listed_and_checked_like_what_was_published() {
    let projection = "\n[model.projection]\nfile = \"p.bin\"\nbytes = 3\nsha256 = \"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"\ndimension = 64\n";
    let manifest = load(&[RUNTIME, DETECTOR, ENCODER, projection].concat()).expect("it is good");
    let verified = manifest.verify();
    let of_projection = verified.iter().find(|verified| verified.listed.path.ends_with("p.bin")).expect("it is looked at");
    assert!(of_projection.outcome.is_err(), "it is not there");
    assert!(!of_projection.listed.is_optional && of_projection.listed.name.contains("projection"));
}

#[test]
fn an_antispoof_model_is_optional_single_and_checked_like_the_others() {
    let without = load(&[RUNTIME, DETECTOR, ENCODER].concat()).expect("it is good");
    assert_eq!(without.antispoof, None);
    let error = without.prepared(Role::Antispoof).expect_err("there is none").to_string();
    for part in ["manifest.toml", "role = \"antispoof\"", "infer.antispoof", "script/bootstrap"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let good = [RUNTIME, DETECTOR, ANTISPOOF, ENCODER].concat();
    let manifest = load(&good).expect("it is good");
    let antispoof = manifest.antispoof.as_ref().expect("it is there");
    assert_eq!((antispoof.crop_scale, antispoof.crop_side, antispoof.live_class, antispoof.threshold), (2.7, 128, 0, 0.5));
    assert_eq!(
        manifest.list().iter().map(|listed| listed.role.name()).collect::<Vec<_>>(),
        ["runtime", "detector", "encoder", "antispoof"]
    );
    for (from, to, key) in [
        ("crop_scale = 2.7", "crop_scale = 0.5", "crop_scale"),
        ("crop_scale = 2.7", "crop_scale = nan", "crop_scale"),
        ("crop_scale = 2.7\n", "", "crop_scale"),
        ("crop_side = 128", "crop_side = 4", "crop_side"),
        ("live_class = 0\n", "", "live_class"),
        ("live_class = 0", "live_class = 0\nalignment = \"arcface-112-v1\"", "alignment"),
        ("threshold = 0.5", "threshold = 1.5", "threshold"),
        ("output = \"output\"\n", "", "output"),
        ("dimension = 128", "dimension = 128\nlive_class = 0", "live_class"),
        ("decoder = \"yunet\"", "decoder = \"yunet\"\ncrop_scale = 2.7", "crop_scale"),
    ] {
        let error = load(&good.replace(from, to)).expect_err(to).to_string();
        assert!(error.contains("manifest.toml") && error.contains(key), "{to}: {error}");
    }
    let twice = load(&[good.as_str(), ANTISPOOF].concat()).expect_err("there are two").to_string();
    assert!(twice.contains("role") && twice.contains("one antispoof model"), "{twice}");
}

#[test]
fn a_runtime_for_gpus_may_be_missing_until_a_gpu_wants_it_and_may_never_be_altered() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (cpu, gpu) = (RUNTIME, RUNTIME.replace("\"r\"", "\"g\"\ndevice = \"cuda\"").replace("lib/r.so", "gpu/g.so"));
    fs::write(dir.path().join("manifest.toml"), [cpu, &gpu, DETECTOR, ENCODER].concat()).expect("it can be written");
    let manifest = Manifest::load(dir.path()).expect("it is good");
    assert_eq!((manifest.runtime().name.as_str(), manifest.runtime().device), ("r", RuntimeDevice::Cpu));
    let of_gpu = || manifest.verify().into_iter().find(|verified| verified.listed.name == "g").expect("it is listed");
    assert!(matches!(of_gpu().outcome, Ok(Sound::NotInstalled)) && !of_gpu().listed.is_installed());
    let error = manifest.verified_runtime(Device::Cuda(0)).expect_err("it is missing").to_string();
    for part in ["g.so", "script/bootstrap --gpu", "infer.device"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    let missing = manifest.verified_runtime(Device::Cpu).expect_err("it is missing").to_string();
    assert!(missing.contains("r.so") && !missing.contains("--gpu"), "{missing}");
    fs::create_dir(dir.path().join("gpu")).expect("made");
    let library = dir.path().join("gpu/g.so");
    fs::write(&library, "abd").expect("it can be written");
    assert!(matches!(of_gpu().outcome, Err(ModelsError::Differs { kind: "altered", .. })));
    assert!(matches!(manifest.verified_runtime(Device::Cuda(0)), Err(ModelsError::Differs { .. })));
    fs::write(&library, "abc").expect("it can be written");
    assert!(matches!(of_gpu().outcome, Ok(Sound::AsPublished)));
    assert_eq!(manifest.verified_runtime(Device::Cuda(3)).expect("it is there"), library);
    let without = load(&[RUNTIME, DETECTOR, ENCODER].concat()).expect("it is good");
    let error = without.verified_runtime(Device::Cuda(0)).expect_err("it is not listed").to_string();
    assert!(error.contains("manifest.toml") && error.contains("device = \"cuda\""), "{error}");
}

#[test]
fn what_a_runtime_loads_from_beside_it_is_checked_like_the_runtime() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let beside =
        r#"beside = [{ file = "lib/plugin.so", bytes = 3, sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" }]"#;
    let (cpu, gpu) = (format!("{RUNTIME}{beside}\n"), RUNTIME.replace("\"r\"", "\"g\"\ndevice = \"cuda\"").replace("lib/r.so", "gpu/g.so"));
    let gpu = format!("{gpu}{}\n", beside.replace("lib/", "gpu/"));
    fs::write(dir.path().join("manifest.toml"), [&cpu, &gpu, DETECTOR, ENCODER].concat()).expect("it can be written");
    let manifest = Manifest::load(dir.path()).expect("it is good");
    let found = |name: &str| manifest.verify().into_iter().find(|verified| verified.listed.name == name).expect("it is listed").outcome;
    for folder in ["lib", "gpu"] {
        fs::create_dir(dir.path().join(folder)).expect("made");
    }
    assert!(matches!(found("g (plugin.so)"), Ok(Sound::NotInstalled)), "nothing of it is installed");
    for (library, device, name) in [("lib/r.so", Device::Cpu, "r (plugin.so)"), ("gpu/g.so", Device::Cuda(0), "g (plugin.so)")] {
        fs::write(dir.path().join(library), "abc").expect("it can be written");
        let plugin = dir.path().join(library).with_file_name("plugin.so");
        let refused = |kind: &str| {
            for error in [found(name).expect_err("it is wrong"), manifest.verified_runtime(device).expect_err("it is wrong")] {
                let error = error.to_string();
                assert!(error.contains("plugin.so") && error.contains("ba7816bf8f01") && error.contains(kind), "{error}");
            }
        };
        let missing = manifest.verified_runtime(device).expect_err("it is missing").to_string();
        assert!(missing.contains("plugin.so") && missing.contains("--gpu") == (device != Device::Cpu), "{missing}");
        assert!(found(name).is_err(), "what is installed has all of it");
        fs::write(&plugin, "ab").expect("it can be written");
        refused("truncated");
        fs::write(&plugin, "abd").expect("it can be written");
        refused("altered");
        fs::write(&plugin, "abc").expect("it can be written");
        assert!(matches!(found(name), Ok(Sound::AsPublished)));
        assert!(manifest.verified_runtime(device).is_ok());
    }
}

#[test]
fn what_the_published_model_takes_for_alive_is_the_default_of_the_configuration() {
    let manifest = Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).expect("it is good");
    let published = manifest.antispoof.expect("it is there").threshold;
    assert_eq!(crate::config::Config::default().recognition.live_score_min, published);
}

#[test]
fn a_file_that_is_not_the_published_one_is_named_with_both_hashes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("e.onnx");
    let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let check = || {
        let published = Published { bytes: 3, sha256: expected };
        let outcome = file::read_verified(&path, published).map(drop).map_err(|error| error.to_string());
        assert_eq!(file::verify(&path, published).map_err(|error| error.to_string()), outcome);
        outcome
    };
    let missing = check().expect_err("it is missing");
    assert!(missing.contains("e.onnx") && missing.contains(expected), "{missing}");
    for (bytes, kind) in [("ab", "truncated"), ("abd", "altered"), ("abcd", "altered")] {
        fs::write(&path, bytes).expect("it can be written");
        let error = check().expect_err(bytes);
        let found = file::sha256_hex(bytes.as_bytes());
        for part in ["e.onnx", kind, expected, &found] {
            assert!(error.contains(part), "{error}");
        }
    }
    fs::write(&path, "abc").expect("it can be written");
    assert_eq!(check(), Ok(()));
}

#[test]
fn a_sealed_graph_is_current_only_for_its_source_and_only_whole() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("g.onnx");
    let (source, other) = ("1".repeat(64), "2".repeat(64));
    assert!(!rewrite::is_current(&path, &source));
    let sealed = rewrite::seal(b"graph".to_vec(), &source);
    let is_current = |bytes: &[u8], source: &str| {
        file::write_atomically(&path, bytes).expect("it can be written");
        rewrite::is_current(&path, source)
    };
    assert!(is_current(&sealed, &source));
    assert!(!is_current(&sealed, &other), "another original");
    assert!(!is_current(&sealed[..sealed.len() - 1], &source), "truncated");
    let mut altered = sealed.clone();
    altered[0] ^= 1;
    assert!(!is_current(&altered, &source), "altered");
    assert_eq!(fs::read_dir(dir.path()).expect("it can be read").count(), 1, "a temporary file was left");
}

#[test]
fn a_graph_that_is_none_is_refused() {
    for bytes in [&b""[..], b"\xff\xff\xff", b"hello, world"] {
        assert!(rewrite::rewrite(bytes, Role::Encoder).is_err(), "{bytes:?}");
    }
}

#[test]
fn installs_at_the_same_time_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("graph.onnx");
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| n as u8).collect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| super::file::write_atomically(&path, &bytes).expect("it is written"));
        }
    });
    assert_eq!(fs::read(&path).expect("it can be read"), bytes);
    assert_eq!(fs::read_dir(dir.path()).expect("it can be read").count(), 1, "a temporary file was left");
}
