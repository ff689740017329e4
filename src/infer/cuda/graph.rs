//! The seam to whatever runs a graph on a tensor in device memory.
//!
//! In: a tensor, in a stream. Out: the graph's outputs, in the host's memory.
//! Drops nothing.
//! Must not know: which runtime it is.

use std::sync::Arc;

use super::driver::Stream;

/// An input tensor in device memory: batch, three planes, height, width of f32, without gaps.
#[derive(Clone, Copy)]
pub struct DeviceTensor<'a> {
    /// The device address of the first value.
    pub address: u64,
    /// Batch, planes, height, width.
    pub shape: [usize; 4],
    /// The work that makes the values is queued here, so what reads them has to be queued here, too.
    pub stream: &'a Arc<Stream>,
}

impl DeviceTensor<'_> {
    /// How many values there are.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A graph that runs on a tensor where it lies: a session of the CUDA or TensorRT provider with an
/// I/O binding, or in tests what stands for one.
pub trait DeviceGraph: Send {
    /// Runs the graph on `input`, for any batch up to the worker's. Comes back when the outputs are in
    /// the host's memory, so that everything queued in the stream before is done as well. The tensor's
    /// address stays the same for one shape but for the batch, so bindings can be kept.
    ///
    /// # Errors
    /// The runtime's own words.
    fn run(&mut self, input: &DeviceTensor<'_>) -> Result<(), String>;

    /// One output of the last run, the first picture's values first.
    ///
    /// # Errors
    /// Where the graph has no such output.
    fn output(&self, name: &str) -> Result<&[f32], String>;
}
