//! The real models: installing them, and that rewriting their graphs changes no answer.
//!
//! In: a models directory, named by `DOORWARD_MODELS_DIR`. Out: nothing.
//! Prints what is left out without models.

use std::fs;
use std::path::Path;

use doorward::config::{DeviceChoice, InferConfig, PrecisionChoice};
use doorward::face::Template;
use doorward::infer;
use doorward::models::{Manifest, ModelsError, Role};

use sha2::{Digest, Sha256};

use crate::faces;

#[test]
fn rewritten_graphs_answer_as_the_published_ones() {
    let Some(models_dir) = faces::models_dir("the comparison of rewritten graphs") else { return };
    let differences = infer::compare_graphs(&models_dir).expect("all sessions can be had");
    for d in &differences {
        println!(
            "{} {:?} on {} against {}: {} values, at most {:e} apart",
            d.role.name(),
            d.shape,
            d.provider,
            d.with,
            d.values,
            d.largest
        );
    }
    assert!(differences.iter().any(|d| d.role == Role::Encoder && d.with == "the published graph"));
    assert_eq!(differences.iter().filter(|d| d.with == "itself reading bytes").count(), 4, "two units, two providers");
    for d in differences {
        assert!(d.values > 0 && d.largest <= 1e-4, "{d:?}");
    }
}

/// A models directory of its own with the real models in it, by link where that is possible.
fn copy_of(models_dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary directory");
    let manifest = Manifest::load(models_dir).expect("it is good");
    fs::copy(models_dir.join("manifest.toml"), copy.path().join("manifest.toml")).expect("it can be copied");
    let antispoof = manifest.antispoof.as_ref().map(|antispoof| &antispoof.model);
    for model in [&manifest.detector.model, &manifest.encoder.model].into_iter().chain(antispoof) {
        fs::copy(models_dir.join(&model.file), copy.path().join(&model.file)).expect("it can be copied");
    }
    copy
}

#[test]
fn models_are_rewritten_once_and_again_when_the_result_is_damaged() {
    let Some(models_dir) = faces::models_dir("installing models") else { return };
    let copy = copy_of(&models_dir);
    let manifest = Manifest::load(copy.path()).expect("it is good");
    let install = || manifest.install().expect("it is installed");
    let first = install();
    assert_eq!(first.iter().map(|model| model.written).collect::<Vec<_>>(), [true, true, false], "the third runs as published");
    assert!(install().iter().all(|model| !model.written), "a good graph was written again");
    let detector = &first[0].path;
    let good = fs::read(detector).expect("it can be read");
    fs::write(detector, &good[..good.len() / 2]).expect("it can be written");
    assert_eq!(install().iter().map(|model| model.written).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(fs::read(detector).expect("it can be read"), good, "the rewriter gives the same bytes each time");
    assert_eq!(manifest.space().as_str(), "0ba9fbfa01b5270c/arcface-112-v1/l2");
}

#[test]
fn an_altered_model_is_named_and_never_used() {
    let Some(models_dir) = faces::models_dir("refusing an altered model") else { return };
    let copy = copy_of(&models_dir);
    let manifest = Manifest::load(copy.path()).expect("it is good");
    let file = copy.path().join(&manifest.encoder.model.file);
    let mut bytes = fs::read(&file).expect("it can be read");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    fs::write(&file, &bytes).expect("it can be written");
    let wrong: Vec<Role> =
        manifest.verify().iter().filter(|verified| verified.outcome.is_err()).map(|verified| verified.listed.role).collect();
    let expected = [vec![Role::Runtime; 1 + manifest.runtime().beside.len()], vec![Role::Encoder]].concat();
    assert_eq!(wrong, expected, "the runtime is missing, with all beside it, and the encoder altered; that of GPUs may be missing");
    let error = manifest.install().expect_err("it is refused");
    assert!(matches!(&error, ModelsError::Differs { kind: "altered", found, expected, .. } if found != expected), "{error}");
    assert!(error.to_string().contains("face_recognition_sface_2021dec.onnx"), "{error}");
}

/// The numbers that the projection of the test keeps, turned around.
const KEPT: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_in_the_manifest_is_applied_by_the_runtime_and_has_a_space_of_its_own() {
    let what = "a projection behind the encoder";
    let Some((models_dir, photos)) = faces::models_dir(what).zip(faces::bootstrapped("photos", what)) else { return };
    let dir = copy_of(&models_dir);
    let manifest = Manifest::load(&models_dir).expect("it is good");
    let runtime = manifest.runtime().file.parent().expect("it lies in a folder").to_owned();
    std::os::unix::fs::symlink(models_dir.canonicalize().expect("it is there").join(&runtime), dir.path().join(&runtime)).expect("linked");
    let width = manifest.encoder.dimension;
    // Row r takes number width - 1 - r, doubled: what comes out is known without arithmetic.
    let rows: Vec<f32> =
        (0..KEPT).flat_map(|row| (0..width).map(move |column| if column == width - 1 - row { 2.0 } else { 0.0 })).collect();
    let graph = doorward::models::projection_graph((width, KEPT), &rows);
    fs::write(dir.path().join("projection.onnx"), &graph).expect("written");
    let sha256: String = Sha256::digest(&graph).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = fs::read_to_string(models_dir.join("manifest.toml")).expect("read");
    let entry = text[text.rfind("[[model]]").expect("the encoder stands last")..]
        .replace(&manifest.encoder.model.name, "projected")
        .replace("calibration = ", "# calibration = ");
    let bytes = graph.len();
    let projection =
        format!("[model.projection]\nfile = \"projection.onnx\"\nbytes = {bytes}\nsha256 = \"{sha256}\"\ndimension = {KEPT}\n");
    fs::write(dir.path().join("manifest.toml"), format!("{text}\n{entry}\n{projection}")).expect("written");

    let device = doorward::device::resolve(&DeviceChoice::Cpu).expect("there is a CPU");
    let open = |encoder: Option<&str>| {
        let config = InferConfig { encoder: encoder.map(str::to_owned), precision: PrecisionChoice::F32, ..InferConfig::default() };
        infer::Engine::open(&config, dir.path(), &device).expect("the models are good")
    };
    let (plain, projected) = (open(None), open(Some("projected")));
    assert_eq!(projected.facts().space.as_str(), format!("{}/projection-{}", plain.facts().space, &sha256[..16]));
    let frame = faces::photo(&photos.join("obama.jpg"));
    let face = faces::detect(&plain, &frame, 0.7).await[0];
    let crop = infer::align(&frame, &face.landmarks);
    let (whole, kept) = (faces::encode(&plain, crop.clone()).await, faces::encode(&projected, crop).await);
    let expected: Vec<f32> = whole.values().iter().rev().take(KEPT).copied().collect();
    let expected = Template::normalised(kept.space().clone(), &expected).expect("it has a direction");
    assert_eq!(kept.values().len(), KEPT);
    assert!(kept.similarity(&expected).expect("one space") > 0.999_99, "{:?}", kept.values());
    assert!(whole.similarity(&kept).is_err(), "they are never compared");
    // One altered byte is noticed before anything runs.
    fs::write(dir.path().join("projection.onnx"), [&graph[..bytes - 1], b"x"].concat()).expect("written");
    let refused = Manifest::load(dir.path()).and_then(|manifest| manifest.with_encoder(Some("projected"))?.prepared(Role::Encoder));
    assert!(matches!(&refused, Err(ModelsError::Differs { path, .. }) if path.ends_with("projection.onnx")), "{refused:?}");
}
