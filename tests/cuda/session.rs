//! The real models, run on the host's processor where a session on the device would run.
//!
//! In: tensors in the stand-in's memory. Out: the models' outputs, copied to the host by the driver.
//! Must not know: frames, faces.

use std::path::PathBuf;
use std::sync::Arc;

use doorward::infer::cuda::{DeviceGraph, DeviceTensor, RunError};
use ort::environment::Environment;
use ort::session::Session;
use ort::value::Tensor;

use crate::driver::StandIn;
use crate::graphs::{Outputs, input};

/// A model, opened for each shape at its first use.
pub struct HostSession {
    stand_in: &'static StandIn,
    environment: Arc<Environment>,
    graph: PathBuf,
    sessions: Vec<([usize; 2], Session)>,
    outputs: Outputs,
}

impl HostSession {
    pub fn new(stand_in: &'static StandIn, environment: &Arc<Environment>, graph: PathBuf) -> Self {
        Self { stand_in, environment: environment.clone(), graph, sessions: Vec::new(), outputs: Outputs::new(stand_in) }
    }

    fn session(&mut self, shape: [usize; 2]) -> ort::Result<&mut Session> {
        let place = match self.sessions.iter().position(|(known, _)| *known == shape) {
            Some(place) => place,
            None => {
                let builder = Session::builder(&self.environment)?.with_intra_threads(1)?.with_dimension_override("batch", 1)?;
                let builder = builder.with_dimension_override("height", shape[0] as i64)?;
                let mut builder = builder.with_dimension_override("width", shape[1] as i64)?;
                self.sessions.push((shape, builder.commit_from_file(&self.graph)?));
                self.sessions.len() - 1
            }
        };
        Ok(&mut self.sessions[place].1)
    }

    /// Each picture by itself, since the published graphs are for one; outputs lie behind each other.
    fn run_each(&mut self, tensor: &DeviceTensor<'_>) -> ort::Result<Vec<(String, Vec<f32>)>> {
        let [_, planes, height, width] = tensor.shape();
        let values = input(self.stand_in, tensor);
        let session = self.session([height, width])?;
        let mut all: Vec<(String, Vec<f32>)> = session.outputs().iter().map(|output| (output.name().to_owned(), Vec::new())).collect();
        for picture in values.chunks(planes * height * width) {
            let picture = Tensor::from_array(([1, planes, height, width], picture.to_vec()))?;
            let outputs = session.run(ort::inputs![picture])?;
            for (name, values) in &mut all {
                values.extend_from_slice(outputs[name.as_str()].try_extract_tensor::<f32>()?.1);
            }
        }
        Ok(all)
    }
}

impl DeviceGraph for HostSession {
    fn run(&mut self, tensor: &DeviceTensor<'_>) -> Result<(), RunError> {
        let outputs = self.run_each(tensor).map_err(|error| error.to_string())?;
        self.outputs.bring(tensor.stream(), &outputs).map_err(|error| error.to_string().into())
    }

    fn output(&self, name: &str) -> Result<&[f32], String> {
        self.outputs.output(name)
    }
}
