//! Compares the rewritten graphs with the published ones, so that nobody has to believe in them.
//!
//! In: a models directory. Out: the largest difference of any output, by model, provider and shape.
//! Drops nothing.
//! Must not know: what an output means.

use std::path::Path;

use ort::environment::Environment;

use super::OpenError;
use super::onnx::{Plan, Sample, Session, runtime};
use super::provider::{Precision, Provider};
use crate::device::Device;
use crate::face::ALIGNED_SIDE;
use crate::models::{Manifest, ModelEntry, Role};

/// Height and width of the detector's graph as it is published, and two others.
const DETECTOR_SHAPES: [(i64, i64); 3] = [(640, 640), (384, 640), (320, 320)];
/// The inputs are noise from this seed, smoothed so that they look like a picture.
const SEED: u64 = 7;

/// How far two ways of running a model are apart.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphDifference {
    /// Which model.
    pub role: Role,
    /// What ran both.
    pub provider: &'static str,
    /// Batch, planes, height and width.
    pub shape: [i64; 4],
    /// What the rewritten graph was compared with.
    pub with: &'static str,
    /// The largest difference of two numbers of any output.
    pub largest: f32,
    /// How many numbers were compared.
    pub values: usize,
}

/// Runs the published and the rewritten graph of each model on one input, in f32 on each provider,
/// and the rewritten one on a batch of two against one after the other, at several sizes; and the detector's
/// graph that reads bytes against the one of f32, in its own units and in others. Blocks, for some seconds.
///
/// # Errors
/// [`OpenError`] when a file is not as it should be or a session cannot be had.
pub fn compare_graphs(models_dir: &Path) -> Result<Vec<GraphDifference>, OpenError> {
    let manifest = Manifest::load(models_dir)?;
    let environment = runtime(&manifest, Device::Cpu)?.environment;
    let side = ALIGNED_SIDE as i64;
    let mut differences = Vec::new();
    for (role, model, shapes) in
        [(Role::Detector, &manifest.detector.model, &DETECTOR_SHAPES[..]), (Role::Encoder, &manifest.encoder.model, &[(side, side)])]
    {
        let rewritten = manifest.prepared(role)?.path;
        let published = manifest.dir.join(&model.file);
        for provider in [Provider::Cpu, Provider::OpenVino] {
            let runner = Runner { environment: &environment, provider, model };
            for (number, &(height, width)) in shapes.iter().enumerate() {
                let shape = |batch| [batch, 3, height, width];
                let (first, second) = (picture(SEED, height * width), picture(SEED + 1, height * width));
                let alone = runner.run(&rewritten, shape(1), &first)?;
                let mut push = |shape, with, (values, largest)| {
                    differences.push(GraphDifference { role, provider: provider.name(), shape, with, largest, values });
                };
                if role == Role::Detector && number == 0 {
                    for units in [([0.0; 3], 1.0), ([104.0, 117.0, 123.0], 0.5)] {
                        push(shape(1), "itself reading bytes", runner.against_bytes(&rewritten, (height, width), (&first, units))?);
                    }
                }
                if number == 0 {
                    push(shape(1), "the published graph", largest(&alone, &runner.run(&published, shape(1), &first)?));
                }
                let together = runner.run(&rewritten, shape(2), &[first, second.clone()].concat())?;
                let other = runner.run(&rewritten, shape(1), &second)?;
                let one_by_one: Vec<_> = alone.iter().zip(&other).map(|(a, b)| [a.as_slice(), b].concat()).collect();
                push(shape(2), "one picture after the other", largest(&together, &one_by_one));
            }
        }
    }
    Ok(differences)
}

struct Runner<'a> {
    environment: &'a Environment,
    provider: Provider,
    model: &'a ModelEntry,
}

impl Runner<'_> {
    /// All outputs of a graph, in its order.
    fn run(&self, graph: &Path, shape: [i64; 4], input: &[f32]) -> Result<Vec<Vec<f32>>, OpenError> {
        self.answer(Session::open(&self.plan(graph, shape))?, graph, input)
    }

    /// The graph on the bytes of a picture, each less the mean of its plane and times the scale, against the graph that does
    /// that itself.
    fn against_bytes(
        &self,
        graph: &Path,
        (height, width): (i64, i64),
        (picture, (mean, scale)): (&[f32], ([f32; 3], f32)),
    ) -> Result<(usize, f32), OpenError> {
        let shape = [1, 3, height, width];
        let bytes: Vec<u8> = picture.iter().map(|value| *value as u8).collect();
        let planes = bytes.chunks_exact((height * width) as usize).zip(mean);
        let values: Vec<f32> = planes.flat_map(|(plane, mean)| plane.iter().map(move |byte| (f32::from(*byte) - mean) * scale)).collect();
        let mut input = self.model.input.clone();
        (input.mean, input.scale) = (mean, scale);
        let reading = self.answer(Session::open_for_bytes(&self.plan(graph, shape), &input)?, graph, &bytes)?;
        Ok(largest(&self.run(graph, shape, &values)?, &reading))
    }

    fn plan<'a>(&'a self, graph: &'a Path, shape: [i64; 4]) -> Plan<'a> {
        let (environment, provider, input) = (self.environment, self.provider, self.model.input.name.as_str());
        Plan { environment, graph, provider, precision: Precision::F32, input, shape }
    }

    fn answer<S: Sample>(&self, mut session: Session<S>, graph: &Path, input: &[S]) -> Result<Vec<Vec<f32>>, OpenError> {
        let failed = |reason: String| OpenError::Session { graph: graph.into(), provider: self.provider.name(), precision: "f32", reason };
        session.input_mut().copy_from_slice(input);
        let outputs = session.run().map_err(failed)?;
        let values = outputs.values().map(|value| value.try_extract_tensor::<f32>().map(|(_, values)| values.to_vec()));
        values.collect::<ort::Result<_>>().map_err(|error| failed(error.to_string()))
    }
}

/// How many numbers there are, and the largest difference; infinite where the outputs differ in
/// number or are no numbers.
fn largest(a: &[Vec<f32>], b: &[Vec<f32>]) -> (usize, f32) {
    let (a, b): (Vec<f32>, Vec<f32>) = (a.concat(), b.concat());
    let apart = |(x, y): (&f32, &f32)| if (x - y).is_nan() { f32::INFINITY } else { (x - y).abs() };
    let largest = if a.len() == b.len() { a.iter().zip(&b).map(apart).fold(0.0, f32::max) } else { f32::INFINITY };
    (a.len(), largest)
}

/// Three planes of smoothed noise, 0 to 255.
fn picture(seed: u64, area: i64) -> Vec<f32> {
    let (mut random, mut value) = (fastrand::Rng::with_seed(seed), 128.0_f32);
    let next = |_| {
        value = (0.9 * value + 0.1 * 255.0 * random.f32()).clamp(0.0, 255.0);
        value
    };
    (0..3 * area).map(next).collect()
}
