//! The frames of one batch on their way, and what they need of the device.
//!
//! In: surfaces, where they lie on a canvas. Out: a [`Batch`] that holds them until it is dropped.
//! Drops: tensors of canvases that were used longest ago, beyond [`SHAPES_MAX`].
//! Must not know: graphs, kernels' insides.

use std::sync::{Arc, Mutex, PoisonError};

use super::driver::{Event, Stream};
use super::graph::room;
use super::layout::Parameters;
use super::memory::{DeviceBuffer, Staging};
use super::{CudaError, Surface};
use crate::camera::NormalisedRect;
use crate::face::Landmarks;
use crate::frame::Size;
use crate::infer::host::Placement;

/// The most canvases that half of the double buffer keeps tensors for: those of a building whose cameras have regions of interest
/// of their own. Beyond it each batch allocates.
pub(super) const SHAPES_MAX: usize = 32;
/// Room for the parameters of a usual batch; more is allocated when it is needed.
const PARAMETER_BYTES: usize = 64 << 10;

/// A picture in device memory to look for faces in, and how.
#[derive(Clone, Debug)]
pub struct SurfaceRequest {
    /// The picture. It is held until the batch is dropped.
    pub surface: Surface,
    /// Longer side of the detector's input, in pixels, a multiple of 32; `None` takes the
    /// configured one.
    pub detector_side: Option<u32>,
    /// Only here; `None` looks everywhere.
    pub region_of_interest: Option<NormalisedRect>,
    /// Detections below this score are dropped; `None` takes the configured one.
    pub score_min: Option<f32>,
    /// Faces whose smaller side has fewer pixels are dropped; 0 drops none.
    pub face_pixels_min: u32,
}

/// A face of a batch that is to be encoded.
#[derive(Clone, Copy, Debug)]
pub struct FaceRequest {
    /// The number of its frame in the batch.
    pub frame: usize,
    /// Where it lies, in pixels of that frame.
    pub landmarks: Landmarks,
    /// Whether it is seen in a mirror: of some faces both templates are wanted.
    pub is_mirrored: bool,
}

/// Half of the double buffer: a batch's parameters and input tensors.
pub(super) struct Slot {
    pub(super) parameters: Parameters,
    pub(super) staging: Staging,
    pub(super) prepared: Event,
    /// The tensor that was used last stands last.
    tensors: Vec<(Size, DeviceBuffer)>,
    /// How many of them the last batch used.
    used: usize,
}

impl Slot {
    pub(super) fn new(stream: &Arc<Stream>) -> Result<Self, CudaError> {
        let (parameters, staging) = (Parameters::default(), Staging::new(stream, PARAMETER_BYTES)?);
        Ok(Self { parameters, staging, prepared: Event::new(stream.gpu())?, tensors: Vec::new(), used: 0 })
    }

    /// Makes sure that there is a tensor for each canvas of the batch, with [`room`] for its pictures, where a batch has `max`.
    pub(super) fn reserve(&mut self, groups: &[Group], max: usize) -> Result<(), CudaError> {
        for (ready, Group { canvas, members }) in groups.iter().enumerate() {
            let bytes_each = bytes_of(*canvas);
            let kept = self.tensors.iter().position(|(size, _)| size == canvas).map(|place| self.tensors.remove(place));
            let tensor = match kept {
                Some(kept) if kept.1.bytes() >= room(members.len(), max) * bytes_each => kept,
                too_small => {
                    // The batch that had the slot before has waited for whatever read it.
                    drop(too_small);
                    // Those of this batch stand last, and none of them may go.
                    if self.tensors.len() >= SHAPES_MAX && ready < SHAPES_MAX {
                        self.tensors.remove(0);
                    }
                    (*canvas, DeviceBuffer::new(self.staging.device().gpu(), room(members.len(), max) * bytes_each)?)
                }
            };
            self.tensors.push(tensor);
        }
        self.used = groups.len();
        Ok(())
    }

    /// Frees the tensors that the last batch did not use: those that it did the next one wants again.
    pub(super) fn give_back_tensors(&mut self) {
        let unused = self.tensors.len().saturating_sub(self.used);
        self.tensors.drain(..unused);
    }

    /// Where the tensor of a canvas begins, and for how many pictures it has room.
    pub(super) fn tensor(&self, canvas: Size) -> Option<(u64, usize)> {
        let (_, tensor) = self.tensors.iter().find(|(size, _)| *size == canvas)?;
        Some((tensor.address(), tensor.bytes() / bytes_of(canvas)))
    }
}

/// The bytes of one picture's tensor.
pub(super) fn bytes_of(canvas: Size) -> usize {
    3 * canvas.width as usize * canvas.height as usize * size_of::<f32>()
}

/// The frames of a batch that share a canvas: one run of the detector.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) canvas: Size,
    /// By their place in the batch.
    pub(super) members: Vec<usize>,
}

/// Groups frames by their canvas, in the order in which each canvas first comes.
pub(super) fn grouped(placements: &[Placement]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (place, Placement { canvas, .. }) in placements.iter().enumerate() {
        match groups.iter_mut().find(|group| group.canvas == *canvas) {
            Some(group) => group.members.push(place),
            None => groups.push(Group { canvas: *canvas, members: vec![place] }),
        }
    }
    groups
}

/// Slots that no batch holds.
pub(super) type FreeSlots = Arc<Mutex<Vec<Slot>>>;

/// Frames whose letterboxing is queued. The surfaces are held until it is dropped, which waits for
/// what still reads them: after [`Worker::encode`](super::Worker::encode) that is nothing.
pub struct Batch {
    pub(super) requests: Vec<SurfaceRequest>,
    pub(super) placements: Vec<Placement>,
    pub(super) groups: Vec<Group>,
    /// Always there until the batch is dropped.
    pub(super) slot: Option<Slot>,
    home: FreeSlots,
    /// The streams that may still read the surfaces.
    readers: Vec<Arc<Stream>>,
}

impl Batch {
    pub(super) fn new((requests, placements): (Vec<SurfaceRequest>, Vec<Placement>), slot: Slot, home: &FreeSlots) -> Self {
        let groups = grouped(&placements);
        Self { requests, placements, groups, slot: Some(slot), home: home.clone(), readers: Vec::new() }
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    pub(super) fn slot(&self) -> Option<&Slot> {
        self.slot.as_ref()
    }

    /// Says that `stream` is about to read the surfaces.
    pub(super) fn is_read_in(&mut self, stream: &Arc<Stream>) {
        if !self.readers.iter().any(|reader| Arc::ptr_eq(reader, stream)) {
            self.readers.push(stream.clone());
        }
    }

    /// Says that everything is done that was queued so far.
    pub(super) fn is_read_no_more(&mut self) {
        self.readers.clear();
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        for reader in &self.readers {
            // A decoder writes into its surfaces as soon as it has them back. Where waiting fails twice,
            // the device is lost, and nothing runs there any more.
            if let Err(error) = reader.synchronise().or_else(|_| reader.synchronise()) {
                error.tell("a batch that failed could not be waited for");
            }
        }
        if let Some(slot) = self.slot.take() {
            self.home.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        }
    }
}
