//! Graphs that need no runtime: a detector that sees one face in each picture, and an encoder whose
//! template is a few pixels of the crop. And how a graph's outputs come to the host.
//!
//! In: tensors in the stand-in's memory. Out: outputs, copied to the host by the driver's copy.
//! Must not know: models.

use std::collections::HashMap;
use std::sync::Arc;

use doorward::face::{ALIGNED_SIDE, AlignedFace, Template, TemplateSpace};
use doorward::infer::cuda::{CudaError, DeviceBuffer, DeviceGraph, DeviceTensor, Graphs, PinnedBuffer, RunError, Stream};

use crate::driver::StandIn;

/// How many numbers the encoder answers.
pub const DIMENSION: usize = 128;
/// Where the one face's landmarks lie around its cell's corner, in strides of 32 pixels.
const LANDMARKS: [f32; 10] = [-0.3, -0.3, 0.3, -0.3, 0.0, 0.0, -0.2, 0.3, 0.2, 0.3];

/// Outputs in device memory, and their way to the host.
pub struct Outputs {
    stand_in: &'static StandIn,
    memory: Option<(DeviceBuffer, PinnedBuffer)>,
    values: HashMap<String, Vec<f32>>,
}

impl Outputs {
    pub fn new(stand_in: &'static StandIn) -> Self {
        Self { stand_in, memory: None, values: HashMap::new() }
    }

    /// Lays outputs where a session on the device would and copies them to the host.
    pub fn bring(&mut self, stream: &Arc<Stream>, outputs: &[(String, Vec<f32>)]) -> Result<(), CudaError> {
        let bytes: Vec<u8> = outputs.iter().flat_map(|(_, values)| values.iter().flat_map(|value| value.to_ne_bytes())).collect();
        if self.memory.as_ref().is_none_or(|(device, _)| device.bytes() < bytes.len()) {
            let (device, pinned) = (DeviceBuffer::new(stream.gpu(), bytes.len())?, PinnedBuffer::new(stream.gpu(), bytes.len())?);
            self.memory = Some((device, pinned));
        }
        let (device, pinned) = self.memory.as_mut().unwrap();
        self.stand_in.write(device.address(), &bytes);
        stream.fetch(device, pinned, bytes.len())?;
        let mut rest = pinned.as_slice();
        self.values.clear();
        for (name, values) in outputs {
            let (own, others) = rest.split_at(size_of_val(&values[..]));
            rest = others;
            self.values.insert(name.clone(), own.as_chunks::<4>().0.iter().map(|value| f32::from_ne_bytes(*value)).collect());
        }
        Ok(())
    }

    pub fn output(&self, name: &str) -> Result<&[f32], String> {
        self.values.get(name).map(Vec::as_slice).ok_or_else(|| format!("there is no output {name:?}"))
    }
}

/// The input of a graph, as it lies on the device when the graph begins.
///
/// A session may run as many pictures as there is said to be room for: that memory must be there, too.
pub fn input(stand_in: &StandIn, tensor: &DeviceTensor<'_>) -> Vec<f32> {
    let [pictures, planes, height, width] = tensor.shape();
    assert!(tensor.room() >= pictures, "there is room for the pictures themselves");
    let room = tensor.room() * planes * height * width;
    stand_in.read(tensor.stream(), tensor.address() + ((room - 1) * size_of::<f32>()) as u64, &mut [f32::NAN]);
    let mut values = vec![f32::NAN; tensor.len()];
    stand_in.read(tensor.stream(), tensor.address(), &mut values);
    values
}

struct OneFace(Outputs);

impl DeviceGraph for OneFace {
    fn run(&mut self, tensor: &DeviceTensor<'_>) -> Result<(), RunError> {
        let [pictures, _, height, width] = tensor.shape();
        let values = input(self.0.stand_in, tensor);
        assert!(values.iter().all(|value| (0.0..=255.0).contains(value)), "the tensor is whole before the detector begins");
        let mut outputs = Vec::new();
        for stride in [8, 16, 32] {
            let cells = (width / stride) * (height / stride);
            // In the middle of the coarsest head.
            let (cell, seen) = (cells / 2 + width / stride / 2, if stride == 32 { 0.9 } else { 0.0 });
            let each = |of_cell: usize, own: &[f32]| {
                let mut values = vec![0.0; cells * of_cell];
                values[cell * of_cell..][..of_cell].copy_from_slice(own);
                values.repeat(pictures)
            };
            outputs.push((format!("cls_{stride}"), each(1, &[seen])));
            outputs.push((format!("obj_{stride}"), each(1, &[seen])));
            outputs.push((format!("bbox_{stride}"), each(4, &[0.0; 4])));
            outputs.push((format!("kps_{stride}"), each(10, &LANDMARKS)));
        }
        self.0.bring(tensor.stream(), &outputs).map_err(|error| error.to_string().into())
    }

    fn output(&self, name: &str) -> Result<&[f32], String> {
        self.0.output(name)
    }
}

/// How many bytes the detector answers for pictures on a canvas.
pub fn detector_bytes(pictures: usize, (width, height): (usize, usize)) -> usize {
    let cells: usize = [8, 16, 32].iter().map(|stride| (width / stride) * (height / stride)).sum();
    pictures * cells * 16 * size_of::<f32>()
}

struct FewPixels {
    outputs: Outputs,
    name: String,
}

/// The values of a crop that make its template.
fn few(crop: &[f32]) -> Vec<f32> {
    crop.iter().step_by(crop.len() / DIMENSION).take(DIMENSION).map(|value| value - 100.0).collect()
}

impl DeviceGraph for FewPixels {
    fn run(&mut self, tensor: &DeviceTensor<'_>) -> Result<(), RunError> {
        let values = input(self.outputs.stand_in, tensor);
        let templates = values.chunks(3 * ALIGNED_SIDE * ALIGNED_SIDE).flat_map(few).collect();
        self.outputs.bring(tensor.stream(), &[(self.name.clone(), templates)]).map_err(|error| error.to_string().into())
    }

    fn output(&self, name: &str) -> Result<&[f32], String> {
        self.outputs.output(name)
    }
}

/// A graph that fails some times, before it has looked at its input, and then is another.
struct Failing {
    inner: Box<dyn DeviceGraph>,
    words: &'static str,
    times: usize,
}

impl DeviceGraph for Failing {
    fn run(&mut self, tensor: &DeviceTensor<'_>) -> Result<(), RunError> {
        if self.times == 0 {
            return self.inner.run(tensor);
        }
        self.times -= 1;
        Err(self.words.into())
    }

    fn output(&self, name: &str) -> Result<&[f32], String> {
        self.inner.output(name)
    }
}

/// Graphs of which each fails once, with these words.
pub fn fails_once(graphs: Graphs, words: &'static str) -> Graphs {
    fails(graphs, words, 1)
}

/// Graphs of which each fails so often, with these words.
pub fn fails(Graphs { detector, encoder }: Graphs, words: &'static str, times: usize) -> Graphs {
    let failing = |inner| Box::new(Failing { inner, words, times });
    Graphs { detector: failing(detector), encoder: failing(encoder) }
}

/// A graph that fails for every picture of this width, in whatever company.
struct FailsFor {
    inner: Box<dyn DeviceGraph>,
    width: usize,
}

impl DeviceGraph for FailsFor {
    fn run(&mut self, tensor: &DeviceTensor<'_>) -> Result<(), RunError> {
        if tensor.shape()[3] == self.width { Err("an unlucky width".into()) } else { self.inner.run(tensor) }
    }

    fn output(&self, name: &str) -> Result<&[f32], String> {
        self.inner.output(name)
    }
}

/// Graphs of which the detector fails for canvases of this width.
pub fn fails_for(Graphs { detector, encoder }: Graphs, width: usize) -> Graphs {
    Graphs { detector: Box::new(FailsFor { inner: detector, width }), encoder }
}

/// The two graphs; the encoder's output has the manifest's name.
pub fn graphs(stand_in: &'static StandIn, output: &str) -> Graphs {
    Graphs {
        detector: Box::new(OneFace(Outputs::new(stand_in))),
        encoder: Box::new(FewPixels { outputs: Outputs::new(stand_in), name: output.to_owned() }),
    }
}

/// What the encoder makes of a face that the host has cut out; red comes first.
pub fn expected(face: &AlignedFace, space: &TemplateSpace) -> Template {
    let planes = (0..3).flat_map(|component| face.rgb().iter().skip(component).step_by(3).map(|byte| f32::from(*byte)));
    Template::normalised(space.clone(), &few(&planes.collect::<Vec<_>>())).unwrap()
}
