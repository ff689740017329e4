//! What a session thread does with a device: frames come there once, stay there, and go as soon as they are done.
//!
//! In: frames, faces in them, photos. Out: frames on the device, detections, measures, templates.
//! Work whose device fails is said to, and what is asked next finds the device opened anew; but where the device itself is well, and did such
//! work a moment ago, it is the pictures that fail, and what goes through goes on. Where [`FAILURES_MAX`] in a row come
//! to nothing, or the device is lost to this process, the engine ends, with the reason: another start may choose another device.
//! Must not know: who asks, what runs the graphs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::wanting::Wanting;
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
    /// How often in a row each kind of work failed, or found the device closed and could not have it opened. Of one kind, since a
    /// device may still take frames and fail at all that is asked of them.
    failures: [u32; WORKS],
    tries_apart: Duration,
    /// Not before then is it opened anew.
    next_try: Option<Instant>,
    /// When each kind of work was done last, or the device was opened anew for it.
    proven: [Option<Instant>; WORKS],
    /// What no room was found for: a kind of work may be done by one session where another finds none.
    wanting: Arc<Wanting<WORKS>>,
}

/// The kinds of work.
#[derive(Clone, Copy)]
enum Work {
    Place,
    Detect,
    Measure,
    Encode,
}

const WORKS: usize = 4;
/// So often in a row a device may fail at one kind of work before the engine ends: what ails it may pass. One that opens and then
/// fails is no better than one that does not open.
const FAILURES_MAX: u32 = 5;
/// How far tries to open it anew are apart. Batches come faster, and what another process holds is not given back in a moment. Nor is it opened
/// anew so soon after it was, or did such work: one camera whose pictures fail each time would else stop all others for each of them.
const TRIES_APART: Duration = Duration::from_secs(1);

/// For so long a kind of work may find no room in any session, each time that it is asked, before the engine ends: who took the memory may give it back,
/// but where nobody does, another device recognises people meanwhile, or an operator has to be told.
const WANTING_MAX: Duration = Duration::from_secs(60);

impl DeviceSession {
    /// Over a worker that `open` makes now, and again after a failure.
    ///
    /// # Errors
    /// Why there is none.
    pub fn new(mut open: OpenWorker) -> Result<Self, CudaError> {
        let worker = Some(open()?);
        Ok(Self {
            open,
            worker,
            failures: [0; WORKS],
            tries_apart: TRIES_APART,
            next_try: None,
            proven: [None; WORKS],
            wanting: Arc::new(Wanting::new(WANTING_MAX)),
        })
    }

    /// What runs the graphs, for people; nothing where the device is closed.
    pub fn runs_on(&self) -> String {
        self.worker.as_ref().map_or_else(String::new, Worker::runs_on)
    }

    /// The same, with another time between tries to open the device anew.
    #[must_use]
    pub fn with_tries_apart(self, tries_apart: Duration) -> Self {
        Self { tries_apart, ..self }
    }

    /// The same, with another time for which there may be no room for a kind of work.
    #[must_use]
    pub fn with_wanting_max(self, wanting_max: Duration) -> Self {
        Self { wanting: Arc::new(Wanting::new(wanting_max)), ..self }
    }

    /// The same as those of one engine, where what one finds no room for another may do.
    #[must_use]
    pub fn of_one_engine(sessions: Vec<Self>) -> Vec<Self> {
        let shared = sessions.first().map(|session| session.wanting.clone());
        let beside = |session: Self| Self { wanting: shared.clone().unwrap_or_else(|| session.wanting.clone()), ..session };
        sessions.into_iter().map(beside).collect()
    }

    /// Does `work` of a kind with the worker. After a failure it is closed, but for want of room, which others may give back, and but where
    /// the device is well and is proven to do such work: that failure counts for nothing.
    ///
    /// # Panics
    /// Where the device fails time and again, has no room for long, or is lost to this process: that ends the engine, with these words.
    fn with<T>(&mut self, kind: Work, work: impl FnOnce(&mut Worker) -> Result<T, CudaError>) -> Result<T, InferError> {
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None if self.next_try.is_some_and(|at| Instant::now() < at) => {
                return Err(InferError::NotNow("the device failed, and is opened anew in a moment".into()));
            }
            None => match (self.open)() {
                Ok(worker) => {
                    tracing::warn!("the device was opened anew after a failure");
                    self.proven = [Some(Instant::now()); WORKS];
                    worker
                }
                Err(error) => {
                    // More tries would take seconds in which nobody is recognised, and nothing can come of them.
                    assert!(!error.is_lost(), "the device is lost to this process, and only a new one can have it again: {error}");
                    self.next_try = Some(Instant::now() + self.tries_apart);
                    // Whoever builds engines says nothing against the device.
                    let is_held = matches!(error, CudaError::EnginesHeld(_));
                    return Err(if is_held { error.into() } else { self.failed(kind, "cannot be opened anew", error) });
                }
            },
        };
        // Before the work, which may take long.
        let is_proven = self.proven[kind as usize].is_some_and(|at| at.elapsed() < self.tries_apart);
        let worker = self.worker.insert(worker);
        match work(worker) {
            Ok(done) => {
                (self.failures[kind as usize], self.proven[kind as usize]) = (0, Some(Instant::now()));
                self.wanting.was_met(kind as usize);
                Ok(done)
            }
            // Nothing was tried, so nothing was found wanting.
            Err(error @ CudaError::NoSession { was_tried: false, .. }) => Err(error.into()),
            Err(error) if error.is_of_the_batch() => {
                worker.give_back_unused();
                Err(self.found_no_room(kind, error))
            }
            // What was asked was wrong, not the device.
            Err(error @ (CudaError::BadSurface { .. } | CudaError::TooMany { .. })) => Err(error.into()),
            Err(error) if is_proven && worker.is_well() => {
                tracing::debug!(%error, "work failed on a device that is well and did the like a moment ago");
                Err(error.into())
            }
            Err(error) => {
                self.worker = None;
                tracing::warn!(%error, "the device failed; what follows opens it anew");
                Err(self.failed(kind, "fails at its work", error))
            }
        }
    }

    /// Once more there was no room for a kind of work.
    fn found_no_room(&self, kind: Work, error: CudaError) -> InferError {
        // What cannot be brought to the device is analysed from the host.
        let is_needed = !matches!(kind, Work::Place);
        let over = if is_needed { self.wanting.was_not_met(kind as usize, Instant::now()) } else { None };
        assert!(over.is_none(), "the device had no room for its work for {:?} and longer: {error}", over.unwrap_or_default());
        error.into()
    }

    /// One more failure in a row.
    fn failed(&mut self, kind: Work, how: &str, error: CudaError) -> InferError {
        let failures = &mut self.failures[kind as usize];
        *failures += 1;
        assert!(*failures < FAILURES_MAX, "the device failed {FAILURES_MAX} times in a row and {how}: {error}");
        error.into()
    }
}

impl Inference for DeviceSession {
    fn place(&mut self, frames: Vec<Frame>) -> Result<Vec<Frame>, InferError> {
        self.with(Work::Place, |worker| {
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
        // The watchdog asks for nothing, to see that this thread is alive: that says nothing of the device.
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        self.with(Work::Detect, |worker| {
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
        self.with(Work::Measure, |worker| {
            let faces = faces.iter().map(|face| Ok((surface_of(&face.frame)?, face.landmarks)));
            worker.measure(&faces.collect::<Result<Vec<(Surface, Landmarks)>, _>>()?)
        })
    }

    fn encode(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        self.with(Work::Encode, |worker| worker.encode_from_host(faces))
    }

    fn encode_on_device(&mut self, faces: &[FaceOnDevice]) -> Result<Vec<Template>, InferError> {
        self.with(Work::Encode, |worker| {
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
