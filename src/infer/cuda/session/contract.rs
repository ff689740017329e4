//! Looks whether a graph is what the manifest says and can run on a GPU, and how large its outputs are, without a GPU.
//!
//! In: a graph, the manifest's entry. Out: a [`Contract`], or an error that names the model.
//! Drops nothing.
//! Must not know: devices, what an output means.

use std::path::Path;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{Outlet, Tensor, TensorElementType, ValueType};

use super::GraphsError;
use crate::models::ModelEntry;

/// One output: its name, and its shape without the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputShape {
    /// What the graph calls it.
    pub name: String,
    /// The sides of what one picture makes.
    pub each: Vec<usize>,
}

impl OutputShape {
    /// How many numbers it has for one picture.
    pub(super) fn values(&self) -> usize {
        self.each.iter().product()
    }
}

/// A graph whose input is as stated, opened on the CPU, where it only tells its shapes.
pub(super) struct Contract {
    session: Session,
    input: String,
}

impl Contract {
    /// Opens `graph` and holds it to the entry of its model.
    pub(super) fn open(environment: &Environment, graph: &Path, model: &ModelEntry) -> Result<Self, GraphsError> {
        let failed = |reason: String| GraphsError::Provider { model: model.name.clone(), provider: "CPU", precision: "f32", reason };
        let open = || {
            Session::builder(environment)?
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                .with_optimization_level(GraphOptimizationLevel::Disable)?
                .commit_from_file(graph)
        };
        let session = open().map_err(|error: ort::Error| failed(error.to_string()))?;
        held(session.inputs(), graph, model)?;
        Ok(Self { session, input: model.input.name.clone() })
    }

    /// What one picture of this height and width makes; the graph runs once for it.
    pub(super) fn outputs(&mut self, size: (usize, usize)) -> Result<Vec<OutputShape>, String> {
        let shapes = self.shapes(1, size).map_err(|error| error.to_string())?;
        let of_one = |(name, shape): (String, Vec<usize>)| OutputShape { name, each: shape.into_iter().skip(1).collect() };
        Ok(shapes.into_iter().map(of_one).collect())
    }

    /// Whether two pictures of this height and width make two answers. A graph that was exported for one may say so in a constant
    /// alone, where its input does not tell.
    pub(super) fn takes_two(&mut self, size: (usize, usize)) -> bool {
        self.shapes(2, size).is_ok_and(|shapes| shapes.iter().all(|(_, shape)| shape.first() == Some(&2)))
    }

    /// The outputs' names and shapes for so many pictures.
    fn shapes(&mut self, pictures: usize, (height, width): (usize, usize)) -> ort::Result<Vec<(String, Vec<usize>)>> {
        let values = vec![0.0_f32; pictures * 3 * height * width];
        let pictures = Tensor::from_array(([pictures, 3, height, width], values))?;
        let outputs = self.session.run(ort::inputs![self.input.as_str() => pictures])?;
        let shape = |(name, value): (&str, ort::value::ValueRef<'_>)| {
            let (shape, _) = value.try_extract_tensor::<f32>()?;
            Ok((name.to_owned(), shape.iter().map(|side| *side as usize).collect()))
        };
        outputs.iter().map(shape).collect()
    }
}

/// One input of f32 planes under the manifest's name, and any number of pictures.
fn held(inputs: &[Outlet], graph: &Path, model: &ModelEntry) -> Result<(), GraphsError> {
    let wanted = &model.input.name;
    let shape = match inputs {
        [input] if input.name() == wanted => match input.dtype() {
            ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } if shape.len() == 4 && matches!(shape[1], 3 | -1) => {
                Some(shape)
            }
            _ => None,
        },
        _ => None,
    };
    let Some(shape) = shape else {
        let found = inputs.iter().map(|input| format!("{:?}: {}", input.name(), input.dtype())).collect::<Vec<_>>().join(", ");
        let wanted = format!("{wanted:?}: f32 of batch, 3, height, width");
        return Err(GraphsError::Inputs { model: model.name.clone(), graph: graph.into(), found, wanted });
    };
    match shape[0] {
        -1 => Ok(()),
        batch => Err(GraphsError::StaticBatch { model: model.name.clone(), graph: graph.into(), batch }),
    }
}
