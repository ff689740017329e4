//! What a session thread does with a device: frames come there once, stay there, and go as soon as they are done.
//!
//! In: frames, faces in them, photos. Out: frames on the device, detections, measures, templates.
//! A batch whose device fails is lost and said so; the next one finds the device opened anew. Where [`FAILURES_MAX`] in a row come
//! to nothing the engine ends, with the reason: another start may choose another device.
//! Must not know: who asks, what runs the graphs.

use std::time::{Duration, Instant};

use super::{CudaError, Surface, SurfaceRequest, Worker};
use crate::face::{AlignedFace, Detection, Landmarks, Photometry, Template};
use crate::frame::Frame;
use crate::infer::{DetectRequest, FaceOnDevice, InferError, Inference, Lane};

/// Opens a worker, again and again where it has to be.
pub type OpenWorker = Box<dyn FnMut() -> Result<Worker, CudaError> + Send>;

/// One thread's worker.
pub struct DeviceSession {
    open: OpenWorker,
    /// `None` after a failure, until it is opened anew.
    worker: Option<Worker>,
    /// How often in a row it could not be opened, or failed at its work.
    failures: u32,
    /// Not before then is it opened anew, and so long it is waited for the next time.
    next_try: (Option<Instant>, Duration),
}

/// So often in a row a device may fail before the engine ends: what ails it may pass. One that opens and then fails at its work
/// is no better than one that does not open.
const FAILURES_MAX: u32 = 5;
/// How far tries to open it anew are apart. Batches come faster, and what another process holds is not given back in a moment.
const TRIES_APART: Duration = Duration::from_secs(1);

impl DeviceSession {
    /// Over a worker that `open` makes now, and again after a failure.
    ///
    /// # Errors
    /// Why there is none.
    pub fn new(mut open: OpenWorker) -> Result<Self, CudaError> {
        let worker = Some(open()?);
        Ok(Self { open, worker, failures: 0, next_try: (None, TRIES_APART) })
    }

    /// The same, with another time between tries to open the device anew.
    #[must_use]
    pub fn with_tries_apart(self, apart: Duration) -> Self {
        Self { next_try: (self.next_try.0, apart), ..self }
    }

    /// Does `work` with the worker. After a failure it is closed, but for want of memory, which others may give back.
    ///
    /// # Panics
    /// Where the device fails time and again: that ends the engine, with these words.
    fn with<T>(&mut self, work: impl FnOnce(&mut Worker) -> Result<T, CudaError>) -> Result<T, InferError> {
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None if self.next_try.0.is_some_and(|at| Instant::now() < at) => {
                return Err(InferError::Session("the device failed, and is opened anew in a moment".into()));
            }
            None => match (self.open)() {
                Ok(worker) => {
                    tracing::warn!("the device was opened anew after a failure");
                    worker
                }
                Err(error) => {
                    self.next_try.0 = Some(Instant::now() + self.next_try.1);
                    return Err(self.failed("cannot be opened anew", error));
                }
            },
        };
        let worker = self.worker.insert(worker);
        match work(worker) {
            Ok(done) => {
                self.failures = 0;
                Ok(done)
            }
            Err(error) if error.is_out_of_memory() => {
                worker.give_back_unused();
                Err(error.into())
            }
            // What was asked was wrong, not the device.
            Err(error @ (CudaError::BadSurface { .. } | CudaError::TooMany { .. })) => Err(error.into()),
            Err(error) => {
                self.worker = None;
                Err(self.failed("fails at its work", error))
            }
        }
    }

    /// One more failure in a row.
    fn failed(&mut self, how: &str, error: CudaError) -> InferError {
        self.failures += 1;
        assert!(self.failures < FAILURES_MAX, "the device failed {FAILURES_MAX} times in a row and {how}: {error}");
        error.into()
    }
}

impl Inference for DeviceSession {
    fn place(&mut self, frames: Vec<Frame>) -> Result<Vec<Frame>, InferError> {
        self.with(|worker| {
            let placed: Result<Vec<_>, _> = frames
                .iter()
                .map(|frame| {
                    if frame.device_pixels().is_some() {
                        return Ok(frame.clone());
                    }
                    let surface = worker.upload(frame)?;
                    let moved = frame.moved_to_device(*surface.format(), surface.pixels().clone());
                    // It is as large as the upload has made it.
                    moved.map_err(|_| CudaError::BadSurface { format: Box::new(*surface.format()), reason: "the upload is too small" })
                })
                .collect();
            // The next job of this batch may be another session's.
            worker.finish_uploads()?;
            placed
        })
    }

    fn detect(&mut self, requests: &[DetectRequest], lane: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        self.with(|worker| {
            let mut found = vec![Vec::new(); requests.len()];
            let mut there = Vec::new();
            for (place, request) in requests.iter().enumerate() {
                match Surface::of(&request.frame) {
                    Some(surface) => there.push((place, surface_request(surface?, request))),
                    None => found[place] = worker.detect_from_host(request, lane)?,
                }
            }
            for group in there.chunks(worker.frames_max()) {
                let mut batch = worker.prepare(group.iter().map(|(_, request)| request.clone()).collect())?;
                let faces = worker.detect(&mut batch)?;
                group.iter().zip(faces).for_each(|((place, _), faces)| found[*place] = faces);
            }
            Ok(found)
        })
    }

    fn measure(&mut self, faces: &[FaceOnDevice]) -> Result<Vec<Photometry>, InferError> {
        self.with(|worker| {
            let faces = faces.iter().map(|face| Ok((surface_of(&face.frame)?, face.landmarks)));
            worker.measure(&faces.collect::<Result<Vec<(Surface, Landmarks)>, _>>()?)
        })
    }

    fn encode(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        self.with(|worker| worker.encode_from_host(faces))
    }

    fn encode_on_device(&mut self, faces: &[FaceOnDevice]) -> Result<Vec<Template>, InferError> {
        self.with(|worker| {
            let faces = faces.iter().map(|face| Ok((surface_of(&face.frame)?, face.landmarks, face.is_mirrored)));
            worker.encode_faces(&faces.collect::<Result<Vec<_>, _>>()?)
        })
    }
}

fn surface_request(surface: Surface, request: &DetectRequest) -> SurfaceRequest {
    let DetectRequest { detector_side, region_of_interest, score_min, face_pixels_min, .. } = *request;
    SurfaceRequest { surface, detector_side, region_of_interest, score_min, face_pixels_min }
}

fn surface_of(frame: &Frame) -> Result<Surface, CudaError> {
    Surface::of(frame)
        .unwrap_or_else(|| Err(CudaError::BadSurface { format: Box::new(*frame.format()), reason: "it is in the host's memory" }))
}
