//! What one thread does with a device: letterbox a batch, detect, align, encode.
//!
//! In: surfaces of a batch. Out: detections in pixels of the frames, templates.
//! Drops: faces below the asked size or score.
//! Must not know: queues, who asks, what runs the graphs.

use std::ffi::c_void;
use std::sync::{Arc, Mutex, PoisonError};

use doorward_kernels::crop::Crop;

use super::batch::{Batch, FaceRequest, FreeSlots, Group, Slot, SurfaceRequest, bytes_of};
use super::driver::{Event, Gpu, Kernels, Stream};
use super::graph::{DeviceGraph, DeviceTensor, RunError};
use super::layout::{FACE_BYTES, Parameters, SUMS_BYTES, TensorLayout, photometry};
use super::memory::{DeviceBuffer, PinnedBuffer, Staging};
use super::upload::SurfacePool;
use super::{CudaError, Image, Surface};
use crate::config::InferConfig;
use crate::face::{ALIGNED_SIDE, Detection, Landmarks, Photometry, Template, TemplateSpace};
use crate::frame::{Frame, Size};
use crate::infer::decode::{self, Head};
use crate::infer::host::{CanvasShape, Letterbox, Placement};
use crate::infer::worker::into_frame;
use crate::models::{Decoder, DetectorEntry, EncoderEntry, Manifest};

/// How many batches there may be at once: one in inference, one being prepared.
pub const BATCHES_MAX: usize = 2;
/// The most faces that are encoded in one run; more take several.
pub(super) const FACES_MAX: usize = 32;
/// How the crops lie in the encoder's input.
const CROP: Size = Size { width: ALIGNED_SIDE as u32, height: ALIGNED_SIDE as u32 };
/// The values of one crop.
pub(super) const CROP_VALUES: usize = 3 * ALIGNED_SIDE * ALIGNED_SIDE;

/// What a worker is opened with.
pub struct Plan<'a> {
    /// The device.
    pub gpu: &'a Arc<Gpu>,
    /// The kernels, compiled for it.
    pub image: &'a Image,
    /// What the models want and answer.
    pub manifest: &'a Manifest,
    /// The detector's side and score.
    pub config: &'a InferConfig,
    /// The most frames of a batch.
    pub frames_max: usize,
}

/// The two graphs, on the device of the plan.
pub struct Graphs {
    /// Finds faces.
    pub detector: Box<dyn DeviceGraph>,
    /// Turns aligned faces into templates.
    pub encoder: Box<dyn DeviceGraph>,
}

/// One device's streams, kernels, buffers and graphs, for one thread. A batch goes through
/// [`prepare`](Self::prepare), which only queues work, then [`detect`](Self::detect) and
/// [`encode`](Self::encode), which wait for their answers, and is then dropped. While one batch is in
/// inference the next can have been prepared: the device letterboxes it meanwhile.
pub struct Worker {
    /// Dropped first, while the device still does what is queued.
    graphs: Graphs,
    pub(super) detector: DetectorEntry,
    pub(super) encoder: EncoderEntry,
    space: TemplateSpace,
    pub(super) config: InferConfig,
    frames_max: usize,
    /// Uploads and letterboxing.
    preparing: Arc<Stream>,
    /// Graphs and alignment.
    inferring: Arc<Stream>,
    kernels: Kernels,
    slots: FreeSlots,
    pool: SurfacePool,
    parameters: Parameters,
    faces: Staging,
    crops: DeviceBuffer,
    /// Sums over the rows of crops, and where they come to.
    sums: (DeviceBuffer, PinnedBuffer),
    /// Stands for the uploads that are queued.
    uploaded: Event,
    /// Tensors of pictures that were letterboxed or cut out on the host.
    pub(super) from_host: Staging,
    pub(super) letterbox: Letterbox,
}

impl Worker {
    /// Allocates what every batch needs. `graphs` are made with [`Worker::open`]'s stream: TensorRT and
    /// the CUDA provider take it as theirs.
    ///
    /// # Errors
    /// The call that failed; nothing is left on the device. The words of `graphs` as
    /// [`CudaError::Graph`].
    pub fn open(plan: &Plan<'_>, graphs: impl FnOnce(&Arc<Stream>) -> Result<Graphs, CudaError>) -> Result<Self, CudaError> {
        let Plan { gpu, image, manifest, config, frames_max } = *plan;
        let kernels = Kernels::load(gpu, image)?;
        let (preparing, inferring) = (Stream::new(gpu)?, Stream::new(gpu)?);
        let slots = (0..BATCHES_MAX).map(|_| Slot::new(&preparing)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            graphs: graphs(&inferring)?,
            detector: manifest.detector.clone(),
            encoder: manifest.encoder.clone(),
            space: manifest.space(),
            config: config.clone(),
            frames_max,
            slots: Arc::new(Mutex::new(slots)),
            pool: SurfacePool::new(&preparing),
            parameters: Parameters::default(),
            faces: Staging::new(&inferring, FACES_MAX * FACE_BYTES)?,
            crops: DeviceBuffer::new(gpu, FACES_MAX * CROP_VALUES * size_of::<f32>())?,
            sums: (DeviceBuffer::new(gpu, FACES_MAX * SUMS_BYTES)?, PinnedBuffer::new(gpu, FACES_MAX * SUMS_BYTES)?),
            uploaded: Event::new(gpu)?,
            from_host: Staging::new(&inferring, FACES_MAX * CROP_VALUES * size_of::<f32>())?,
            letterbox: Letterbox::default(),
            kernels,
            preparing,
            inferring,
        })
    }

    /// Queues the upload of a frame that was decoded on the host. Its memory is used again when the
    /// surface is dropped.
    ///
    /// # Errors
    /// [`CudaError::BadSurface`] for RGB, or the call that failed.
    pub fn upload(&self, frame: &Frame) -> Result<Surface, CudaError> {
        self.pool.upload(frame)
    }

    /// Queues the letterboxing of a batch, one launch for all frames, and comes
    /// back at once. The surfaces must be whole, or come from [`upload`](Self::upload).
    ///
    /// # Errors
    /// [`CudaError::TooMany`] for more frames than the plan's, and where [`BATCHES_MAX`] batches are not
    /// dropped yet; or the call that failed.
    pub fn prepare(&mut self, requests: Vec<SurfaceRequest>) -> Result<Batch, CudaError> {
        if requests.len() > self.frames_max {
            return Err(CudaError::TooMany { count: requests.len(), max: self.frames_max });
        }
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let slot = slot.ok_or(CudaError::TooMany { count: BATCHES_MAX + 1, max: BATCHES_MAX })?;
        let placements = requests.iter().map(|request| {
            let side = request.detector_side.unwrap_or(self.config.detector_side);
            Placement::new(request.surface.format().size, request.region_of_interest, side, CanvasShape::Fitted)
        });
        let placements = placements.collect();
        let mut batch = Batch::new((requests, placements), slot, &self.slots);
        if !batch.is_empty() {
            self.letterbox(&mut batch)?;
        }
        Ok(batch)
    }

    fn letterbox(&self, batch: &mut Batch) -> Result<(), CudaError> {
        self.preparing.gpu().bind()?;
        // What is queued from here on reads the surfaces, also where a later call fails.
        batch.is_read_in(&self.preparing);
        let Batch { requests, placements, groups, slot: Some(slot), .. } = batch else { return Ok(()) };
        slot.reserve(groups, self.frames_max)?;
        let (mut frames, mut largest) = (Vec::with_capacity(requests.len()), Size { width: 0, height: 0 });
        for Group { canvas, members } in groups.iter() {
            let Some((tensor, _)) = slot.tensor(*canvas) else { continue };
            largest = Size { width: largest.width.max(canvas.width), height: largest.height.max(canvas.height) };
            for (item, place) in members.iter().enumerate() {
                let own = TensorLayout::new(tensor + (item * bytes_of(*canvas)) as u64, *canvas, &self.detector.model.input);
                frames.push((&requests[*place].surface, &placements[*place], own));
            }
        }
        let size = [largest.width, largest.height, frames.len() as u32];
        slot.parameters.letterboxes(frames.into_iter());
        let bytes = slot.parameters.letterbox_bytes();
        slot.staging.reserve(bytes)?;
        let mut address = slot.staging.device().address();
        let parameters = slot.parameters.letterboxes_at(address);
        slot.staging.send(bytes, |pinned| pinned.copy_from_slice(parameters))?;
        // SAFETY: the argument is the kernel's: an address. The parameters, the tensors and the surfaces are held by the batch,
        // which waits for this stream before it lets go.
        unsafe { self.kernels.letterbox(&self.preparing, size, [(&raw mut address).cast()]) }?;
        slot.prepared.record(&self.preparing)
    }

    /// Faces of each frame, best score first, in pixels of the frame.
    ///
    /// # Errors
    /// The call that failed, or [`CudaError::Graph`].
    pub fn detect(&mut self, batch: &mut Batch) -> Result<Vec<Vec<Detection>>, CudaError> {
        let mut found = vec![Vec::new(); batch.len()];
        if batch.is_empty() {
            return Ok(found);
        }
        self.inferring.gpu().bind()?;
        // A detector that fails may leave work behind that reads the batch's tensors.
        batch.is_read_in(&self.inferring);
        if let Some(slot) = batch.slot() {
            self.inferring.wait(&slot.prepared)?;
        }
        for group in &batch.groups {
            let Some(tensor) = batch.slot().and_then(|slot| slot.tensor(group.canvas)) else { continue };
            self.run_detector(tensor, (group.members.len(), group.canvas))?;
            for (item, place) in group.members.iter().enumerate() {
                let (request, placement) = (&batch.requests[*place], &batch.placements[*place]);
                let wanted = (request.score_min, request.face_pixels_min);
                found[*place] = self.faces_of((item, group.members.len()), placement, wanted)?;
            }
        }
        // The detector waited for the stream, which had waited for the letterboxing.
        batch.is_read_no_more();
        Ok(found)
    }

    /// Runs the detector on `pictures` pictures of one canvas at `address`, where there is memory for `room` of them.
    pub(super) fn run_detector(&mut self, (address, room): (u64, usize), (pictures, canvas): (usize, Size)) -> Result<(), CudaError> {
        let shape = [pictures, 3, canvas.height as usize, canvas.width as usize];
        self.graphs.detector.run(&DeviceTensor::new(address, shape, (room, &self.inferring))).map_err(of_graph("detector"))
    }

    /// The faces of picture `item` of the `pictures` that the detector saw last, in pixels of its frame.
    pub(super) fn faces_of(
        &self,
        (item, pictures): (usize, usize),
        placement: &Placement,
        (score_min, pixels_min): (Option<f32>, u32),
    ) -> Result<Vec<Detection>, CudaError> {
        let failed = |reason: String| CudaError::Graph { graph: "detector", reason };
        let heads = heads(self.graphs.detector.as_ref(), (item, pictures), placement.canvas).map_err(failed)?;
        let score_min = score_min.unwrap_or(self.config.detection_score_min);
        let mut faces = match self.detector.decoder {
            Decoder::Yunet => decode::yunet(&heads, placement.canvas.width, score_min),
        };
        faces.iter_mut().for_each(|face| into_frame(face, placement));
        faces.retain(|face| face.box_in_frame.width.min(face.box_in_frame.height) >= pixels_min as f32);
        Ok(faces)
    }

    /// Waits until what was uploaded is whole: whoever reads it next may be another worker, in streams of its own.
    ///
    /// # Errors
    /// The call that failed.
    pub fn finish_uploads(&self) -> Result<(), CudaError> {
        // Should waiting fail once, nothing may be given back that is still written.
        self.preparing.synchronise().or_else(|_| self.preparing.synchronise())
    }

    /// Whether the device does what is queued, once that is done. An error of its context or the device, which no call gets past, is told
    /// by every call from then on; one of a graph, or of what it was given, is not.
    pub fn is_well(&self) -> bool {
        [&self.preparing, &self.inferring].iter().all(|stream| stream.synchronise().is_ok())
    }

    /// Gives back the memory that nobody needs at this moment: of uploads, tensors and outputs.
    pub fn give_back_unused(&mut self) {
        self.pool.give_back_unused();
        // Slots that are here are in no batch, and a batch is dropped when nothing reads its tensors any more.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).iter_mut().for_each(Slot::give_back_tensors);
        self.graphs.detector.give_back_unused();
        self.graphs.encoder.give_back_unused();
    }

    /// What runs the graphs, for people.
    pub fn runs_on(&self) -> String {
        let (detector, encoder) = (self.graphs.detector.runs_on(), self.graphs.encoder.runs_on());
        if detector == encoder { detector } else { format!("{detector} (detector), {encoder} (encoder)") }
    }

    /// The most frames of a batch.
    pub fn frames_max(&self) -> usize {
        self.frames_max
    }

    /// One template a face, in order. One launch aligns all of them, up to 32.
    ///
    /// # Errors
    /// [`CudaError::TooMany`] for a frame that the batch does not have; the call that failed, or
    /// [`CudaError::Graph`].
    pub fn encode(&mut self, batch: &mut Batch, faces: &[FaceRequest]) -> Result<Vec<Template>, CudaError> {
        if let Some(face) = faces.iter().find(|face| face.frame >= batch.len()) {
            return Err(CudaError::TooMany { count: face.frame + 1, max: batch.len() });
        }
        if let Some(slot) = batch.slot() {
            // Uploads are queued where letterboxing is, and come before it.
            self.inferring.gpu().bind()?;
            self.inferring.wait(&slot.prepared)?;
        }
        let faces = faces.iter().map(|face| (batch.requests[face.frame].surface.clone(), Crop::of(&face.landmarks.0), face.is_mirrored));
        let faces: Vec<Cutting> = faces.collect();
        batch.is_read_in(&self.inferring);
        let templates = self.encode_cut(&faces)?;
        batch.is_read_no_more();
        Ok(templates)
    }

    /// One template a face, in order, of surfaces in no batch.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_faces(&mut self, faces: &[(Surface, Landmarks, bool)]) -> Result<Vec<Template>, CudaError> {
        self.wait_for_uploads()?;
        let faces: Vec<Cutting> =
            faces.iter().map(|(surface, landmarks, is_mirrored)| (surface.clone(), Crop::of(&landmarks.0), *is_mirrored)).collect();
        let templates = self.encode_cut(&faces);
        self.or_at_rest(templates)
    }

    /// What the pixels of each face say of how usable it is, in order: the same numbers as on the host, but for how sums of
    /// millions of pixels are rounded. Of the pixels themselves nothing comes back.
    ///
    /// # Errors
    /// The call that failed.
    pub fn measure(&mut self, faces: &[(Surface, Landmarks)]) -> Result<Vec<Photometry>, CudaError> {
        self.wait_for_uploads()?;
        let faces: Vec<Cutting> = faces.iter().map(|(surface, landmarks)| (surface.clone(), Crop::of(&landmarks.0), false)).collect();
        let measured = faces.chunks(FACES_MAX).map(|faces| self.measure_once(faces)).collect::<Result<Vec<_>, _>>();
        Ok(self.or_at_rest(measured)?.concat())
    }

    fn measure_once(&mut self, faces: &[Cutting]) -> Result<Vec<Photometry>, CudaError> {
        self.align(faces, TensorLayout::of_bytes(self.crops.address(), CROP))?;
        let (device, pinned) = &mut self.sums;
        let (mut address, mut crops) = (device.address(), TensorLayout::of_bytes(self.crops.address(), CROP));
        let arguments: [*mut c_void; 2] = [(&raw mut address).cast(), (&raw mut crops).cast()];
        // SAFETY: the arguments are the kernel's: an address and a tensor, both of memory that is this worker's, which waits for
        // the stream when dropped.
        unsafe { self.kernels.measure(&self.inferring, faces.len() as u32, arguments) }?;
        self.inferring.fetch(device, pinned, faces.len() * SUMS_BYTES)?;
        Ok(pinned.as_slice().chunks(SUMS_BYTES).take(faces.len()).map(photometry).collect())
    }

    /// Lets the stream of inference wait for what is being uploaded.
    fn wait_for_uploads(&mut self) -> Result<(), CudaError> {
        self.inferring.gpu().bind()?;
        self.uploaded.record(&self.preparing)?;
        self.inferring.wait(&self.uploaded)
    }

    /// After a failure nothing may read surfaces any more once they are let go of.
    fn or_at_rest<T>(&self, outcome: Result<T, CudaError>) -> Result<T, CudaError> {
        if outcome.is_err()
            && let Err(error) = self.inferring.synchronise().or_else(|_| self.inferring.synchronise())
        {
            error.tell("faces that failed could not be waited for");
        }
        outcome
    }

    fn encode_cut(&mut self, faces: &[Cutting]) -> Result<Vec<Template>, CudaError> {
        let mut templates = Vec::with_capacity(faces.len());
        for faces in faces.chunks(FACES_MAX) {
            let address = self.crops.address();
            self.align(faces, TensorLayout::new(address, CROP, &self.encoder.model.input))?;
            self.templates_of((address, faces.len()), &mut templates)?;
        }
        Ok(templates)
    }

    /// Queues the alignment of faces into the crops, one launch for all of them.
    fn align(&mut self, faces: &[Cutting], layout: TensorLayout) -> Result<(), CudaError> {
        self.inferring.gpu().bind()?;
        let parameters = self.parameters.faces(faces.iter().map(|(surface, crop, is_mirrored)| (surface, *crop, *is_mirrored)));
        self.faces.send(parameters.len(), |pinned| pinned.copy_from_slice(parameters))?;
        let (mut address, mut layout) = (self.faces.device().address(), layout);
        let arguments: [*mut c_void; 2] = [(&raw mut address).cast(), (&raw mut layout).cast()];
        // SAFETY: the arguments are the kernel's: an address and a tensor. The parameters and the tensor are
        // this worker's, which waits for the stream when dropped; whoever calls holds the surfaces until it is at rest.
        unsafe { self.kernels.align(&self.inferring, [CROP.width, CROP.height, faces.len() as u32], arguments) }
    }

    /// Runs the encoder on `count` crops at `address` and adds their templates.
    pub(super) fn templates_of(&mut self, (address, count): (u64, usize), templates: &mut Vec<Template>) -> Result<(), CudaError> {
        let failed = |reason: String| CudaError::Graph { graph: "encoder", reason };
        let shape = [count, 3, ALIGNED_SIDE, ALIGNED_SIDE];
        let encoder = &mut self.graphs.encoder;
        // Whoever makes crops has room for the most of them.
        encoder.run(&DeviceTensor::new(address, shape, (FACES_MAX, &self.inferring))).map_err(of_graph("encoder"))?;
        let (values, dimension) = (encoder.output(&self.encoder.output).map_err(failed)?, self.encoder.template_dimension());
        if values.len() != count * dimension {
            return Err(failed(format!("it answered {} numbers for {count} faces; the manifest says {dimension} each", values.len())));
        }
        for values in values.chunks(dimension) {
            templates.push(Template::normalised(self.space.clone(), values).map_err(|error| failed(error.to_string()))?);
        }
        Ok(())
    }
}

/// A face to be cut out: where its picture is, how, and whether it is seen in a mirror.
type Cutting = (Surface, Crop, bool);

impl Drop for Worker {
    fn drop(&mut self) {
        for stream in [&self.preparing, &self.inferring] {
            // Nothing may run any more in memory that is freed.
            if let Err(error) = stream.synchronise().or_else(|_| stream.synchronise()) {
                error.tell("a device could not be waited for");
            }
        }
    }
}

/// Why a graph did not run, as the device's error.
fn of_graph(graph: &'static str) -> impl Fn(RunError) -> CudaError {
    move |error| match error {
        RunError::Failed(reason) => CudaError::Graph { graph, reason },
        RunError::NoSession { reason, was_tried } => CudaError::NoSession { graph, reason, was_tried },
    }
}

/// The heads of picture `item` of `pictures`, whose canvas is `canvas`.
fn heads(graph: &dyn DeviceGraph, (item, pictures): (usize, usize), canvas: Size) -> Result<[Head<'_>; 3], String> {
    let part = |name: &str, stride: u32, of_cell: usize| {
        let values = graph.output(&format!("{name}_{stride}"))?;
        let each = (canvas.width / stride) as usize * (canvas.height / stride) as usize * of_cell;
        if values.len() != pictures * each {
            return Err(format!("{name}_{stride} has {} numbers, and {pictures} pictures of {each} were expected", values.len()));
        }
        Ok(&values[item * each..][..each])
    };
    let of = |stride: u32| -> Result<Head<'_>, String> {
        Ok(Head {
            class: part("cls", stride, 1)?,
            object: part("obj", stride, 1)?,
            boxes: part("bbox", stride, 4)?,
            landmarks: part("kps", stride, 10)?,
        })
    };
    let [fine, middle, coarse] = decode::STRIDES;
    Ok([of(fine)?, of(middle)?, of(coarse)?])
}
