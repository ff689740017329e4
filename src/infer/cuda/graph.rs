//! The seam to whatever runs a graph on a tensor in device memory.
//!
//! In: a tensor, in a stream. Out: the graph's outputs, in the host's memory.
//! Drops nothing.
//! Must not know: which runtime it is.

use std::sync::Arc;

use super::CudaError;
use super::driver::Stream;
use super::memory::{DeviceBuffer, PinnedBuffer};

/// For how many pictures there is memory behind `pictures` of them, where there are never more than `max`. What runs a graph may be
/// made for few shapes and slow at any change: with these it runs a few pictures too many, and never another number.
pub(super) fn room(pictures: usize, max: usize) -> usize {
    rooms(max).find(|room| *room >= pictures).unwrap_or(max)
}

/// Every answer of [`room`]: 1, 4, 16 and so on up to `max`, and that.
pub(super) fn rooms(max: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1_usize), |room| Some(room * 4)).take_while(move |room| *room < max).chain(std::iter::once(max))
}

/// An input tensor in device memory: batch, three planes, height, width of f32, without gaps. Behind its pictures there may be room
/// for more, whose values mean nothing.
#[derive(Clone, Copy)]
pub struct DeviceTensor<'a> {
    address: u64,
    shape: [usize; 4],
    room: usize,
    stream: &'a Arc<Stream>,
}

impl<'a> DeviceTensor<'a> {
    /// A tensor at `address`, whose memory the worker owns and has `room` for so many pictures.
    pub(super) fn new(address: u64, shape: [usize; 4], (room, stream): (usize, &'a Arc<Stream>)) -> Self {
        Self { address, shape, room, stream }
    }

    /// A tensor of this shape at the beginning of `memory`, the rest of which is room for more pictures.
    ///
    /// # Panics
    /// Where the memory has less room than the pictures take.
    pub fn within(memory: &'a DeviceBuffer, shape: [usize; 4], stream: &'a Arc<Stream>) -> Self {
        let [pictures, planes, height, width] = shape;
        let room = memory.bytes() / (planes * height * width * size_of::<f32>()).max(1);
        assert!(pictures <= room, "there is room for the pictures");
        Self::new(memory.address(), shape, (room, stream))
    }

    /// For how many pictures there is memory, those of the batch counted in.
    pub fn room(&self) -> usize {
        self.room
    }

    /// The device address of the first value.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Batch, planes, height, width.
    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    /// The work that makes the values is queued here, so what reads them has to be queued here, too.
    pub fn stream(&self) -> &'a Arc<Stream> {
        self.stream
    }

    /// Copies the values to the host, after what is queued, and waits: for tests of a device, and for a
    /// runtime that cannot run there.
    ///
    /// # Errors
    /// The call that failed.
    ///
    /// # Panics
    /// Where `to` has less room than the values take.
    pub fn fetch(&self, to: &mut PinnedBuffer) -> Result<(), CudaError> {
        self.stream.fetch_from(self.address, to, self.len() * size_of::<f32>())
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a graph did not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// It failed, in the runtime's own words.
    Failed(String),
    /// What pictures of this shape need could not be had. Those of other shapes may go through.
    NoSession {
        /// Why.
        reason: String,
        /// Whether it was tried, or is left for a moment.
        was_tried: bool,
    },
}

impl From<String> for RunError {
    fn from(words: String) -> Self {
        Self::Failed(words)
    }
}

impl From<&str> for RunError {
    fn from(words: &str) -> Self {
        Self::Failed(words.to_owned())
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
    /// [`RunError`].
    fn run(&mut self, input: &DeviceTensor<'_>) -> Result<(), RunError>;

    /// One output of the last run, the first picture's values first.
    ///
    /// # Errors
    /// Where the graph has no such output.
    fn output(&self, name: &str) -> Result<&[f32], String>;

    /// What runs the graph, for people.
    fn runs_on(&self) -> String {
        String::new()
    }

    /// Frees what is kept only so that a later run need not allocate it, but for what was needed a moment ago.
    fn give_back_unused(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_run_in_few_sizes_and_never_in_a_smaller_one() {
        assert_eq!(rooms(16).collect::<Vec<_>>(), [1, 4, 16]);
        assert_eq!(rooms(32).collect::<Vec<_>>(), [1, 4, 16, 32]);
        assert_eq!(rooms(1).collect::<Vec<_>>(), [1]);
        for max in 1..70 {
            for pictures in 1..=max {
                let room = room(pictures, max);
                assert!((pictures..=max).contains(&room) && rooms(max).any(|other| other == room), "{pictures} of {max}: {room}");
            }
        }
    }
}
