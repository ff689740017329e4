//! The real models: installing them, and that rewriting their graphs changes no answer.
//!
//! In: a models directory, named by `DOORWARD_MODELS_DIR`. Out: nothing.
//! Prints what is left out without models.

use std::fs;
use std::path::Path;

use doorward::infer;
use doorward::models::{Manifest, ModelsError, Role};

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
    for d in differences {
        assert!(d.values > 0 && d.largest <= 1e-4, "{d:?}");
    }
}

/// A models directory of its own with the real models in it, by link where that is possible.
fn copy_of(models_dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary directory");
    let manifest = Manifest::load(models_dir).expect("it is good");
    fs::copy(models_dir.join("manifest.toml"), copy.path().join("manifest.toml")).expect("it can be copied");
    for model in [&manifest.detector.model, &manifest.encoder.model] {
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
    assert!(first.len() == 2 && first.iter().all(|model| model.written));
    assert!(install().iter().all(|model| !model.written), "a good graph was written again");
    let detector = &first[0].path;
    let good = fs::read(detector).expect("it can be read");
    fs::write(detector, &good[..good.len() / 2]).expect("it can be written");
    assert_eq!(install().iter().map(|model| model.written).collect::<Vec<_>>(), [true, false]);
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
    let outcomes: Vec<bool> = manifest.verify().iter().map(|verified| verified.outcome.is_ok()).collect();
    assert_eq!(outcomes, [false, true, false], "the runtime is missing and the encoder altered");
    let error = manifest.install().expect_err("it is refused");
    assert!(matches!(&error, ModelsError::Differs { kind: "altered", found, expected, .. } if found != expected), "{error}");
    assert!(error.to_string().contains("face_recognition_sface_2021dec.onnx"), "{error}");
}
