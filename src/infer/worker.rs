//! What one session thread does: letterbox, detect, encode, and ask whether a face is alive.
//!
//! In: pictures, aligned faces, faces in pictures. Out: detections, templates, live scores.
//! Drops: faces below the asked size or score; the session of the shape that was used longest ago,
//! when there are more than [`SHAPES_MAX`].
//! Must not know: queues, other threads, who asks.

use std::sync::Arc;

use ort::environment::Environment;

use super::decode::{self, Head};
use super::host::{Canvas, CanvasShape, Letterbox, Placement, Target, fill_face};
use super::liveness::{FaceInFrame, LiveScorer};
use super::meter::Meter;
use super::onnx::{Plan, Session, output};
use super::provider::{Choice, Precision};
use super::{DetectRequest, InferError, Inference, Lane, OpenError};
use crate::config::InferConfig;
use crate::face::{ALIGNED_SIDE, AlignedFace, Detection, Template, TemplateSpace};
use crate::frame::Size;
use crate::models::{Decoder, Manifest};

/// The most shapes that a thread keeps detector sessions for: one for photos, and one for each resolution, detector side and
/// shape of a region of interest among the cameras.
const SHAPES_MAX: usize = 32;

/// Everything that all threads share.
pub(super) struct Setup {
    pub(super) manifest: Manifest,
    pub(super) environment: Environment,
    pub(super) detector_graph: std::path::PathBuf,
    pub(super) encoder_graph: std::path::PathBuf,
    /// `None` where nobody asks for live scores.
    pub(super) antispoof_graph: Option<std::path::PathBuf>,
    pub(super) choice: Choice,
    pub(super) config: InferConfig,
    pub(super) space: TemplateSpace,
    pub(super) meter: Arc<Meter>,
}

/// One thread's sessions and scratch memory.
pub(super) struct Worker {
    setup: Arc<Setup>,
    /// The session used last stands last.
    detectors: Vec<(Size, Session<u8>)>,
    encoder: Session,
    live: Option<LiveScorer>,
    letterbox: Letterbox,
    /// Whether it was told that there are too many shapes.
    is_crowding_told: bool,
}

impl Worker {
    /// Opens the encoder, the antispoof model where it is wanted, and the detector for photos and for cameras of 16:9.
    pub(super) fn open(setup: Arc<Setup>) -> Result<Self, OpenError> {
        let encoder = setup.encoder()?;
        let live = setup.live_scorer()?;
        let mut worker = Self { setup, detectors: Vec::new(), encoder, live, letterbox: Letterbox::default(), is_crowding_told: false };
        let side = worker.setup.config.detector_side;
        for shape in [CanvasShape::Square, CanvasShape::Fitted] {
            worker.detector(Placement::new(Size { width: 1920, height: 1080 }, None, side, shape).canvas)?;
        }
        Ok(worker)
    }

    fn detect_in(&mut self, request: &DetectRequest, lane: Lane) -> Result<Vec<Detection>, String> {
        let setup = self.setup.clone();
        let side = request.detector_side.unwrap_or(setup.config.detector_side);
        let shape = if lane == Lane::Photo { CanvasShape::Square } else { CanvasShape::Fitted };
        let placement = Placement::new(request.frame.size(), request.region_of_interest, side, shape);
        let mut letterbox = std::mem::take(&mut self.letterbox);
        let session = self.detector(placement.canvas).map_err(|error| error.to_string())?;
        let colour = setup.manifest.detector.model.input.colour;
        letterbox.fill(&request.frame, &placement, &mut Canvas { colour, bytes: session.input_mut() });
        let outputs = setup.meter.detect.of(|| session.run())?;
        let score_min = request.score_min.unwrap_or(setup.config.detection_score_min);
        let mut faces = match setup.manifest.detector.decoder {
            Decoder::Yunet => decode::yunet(&heads(&outputs)?, placement.canvas.width, score_min),
        };
        drop(outputs);
        self.letterbox = letterbox;
        faces.iter_mut().for_each(|face| into_frame(face, &placement));
        let pixels_min = request.face_pixels_min as f32;
        faces.retain(|face| face.box_in_frame.width.min(face.box_in_frame.height) >= pixels_min);
        Ok(faces)
    }

    /// The session for a canvas, opened at its first use.
    fn detector(&mut self, canvas: Size) -> Result<&mut Session<u8>, OpenError> {
        let found = match self.detectors.iter().position(|(size, _)| *size == canvas) {
            Some(place) => self.detectors.remove(place),
            None => (canvas, self.setup.detector(canvas)?),
        };
        if self.detectors.len() >= SHAPES_MAX {
            if !std::mem::replace(&mut self.is_crowding_told, true) {
                tracing::warn!(
                    shapes = SHAPES_MAX,
                    "the pictures of the cameras have more shapes than detector sessions are kept for: sessions are opened again and again, \
                     which takes longer than looking; give regions of interest the same proportions"
                );
            }
            self.detectors.remove(0);
        }
        self.detectors.push(found);
        let last = self.detectors.len() - 1;
        Ok(&mut self.detectors[last].1)
    }

    fn encode_one(&mut self, face: &AlignedFace) -> Result<Template, String> {
        let encoder = &self.setup.manifest.encoder;
        fill_face(face, &mut Target { input: &encoder.model.input, values: self.encoder.input_mut() });
        let outputs = self.setup.meter.encode.of(|| self.encoder.run())?;
        let values = output(&outputs, &encoder.output)?;
        let dimension = encoder.template_dimension();
        if values.len() != dimension {
            return Err(format!("the encoder answered {} numbers; the manifest says {dimension}", values.len()));
        }
        Template::normalised(self.setup.space.clone(), values).map_err(|error| error.to_string())
    }
}

impl Inference for Worker {
    fn detect(&mut self, requests: &[DetectRequest], lane: Lane) -> Result<Vec<Vec<Detection>>, InferError> {
        let answer: Result<_, _> = requests.iter().map(|request| self.detect_in(request, lane)).collect();
        answer.map_err(InferError::Session)
    }

    fn encode(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, InferError> {
        let answer: Result<_, _> = faces.iter().map(|face| self.encode_one(face)).collect();
        answer.map_err(InferError::Session)
    }

    fn live_scores(&mut self, faces: &[FaceInFrame]) -> Result<Vec<f32>, InferError> {
        let Some(live) = &mut self.live else { return Err(InferError::Session("this session was opened without infer.antispoof".into())) };
        let answer: Result<_, _> = faces.iter().map(|face| live.score(face, &mut self.letterbox, &self.setup.meter)).collect();
        answer.map_err(InferError::Session)
    }
}

impl Setup {
    fn live_scorer(&self) -> Result<Option<LiveScorer>, OpenError> {
        let Some((graph, entry)) = self.antispoof_graph.as_ref().zip(self.manifest.antispoof.as_ref()) else { return Ok(None) };
        let side = i64::from(entry.crop_side);
        let session = Session::open(&Plan {
            environment: &self.environment,
            graph,
            provider: self.choice.antispoof,
            // bf16 would save a millisecond a face, and judges 3 of 1,163 photos otherwise than was published.
            precision: Precision::F32,
            input: &entry.model.input.name,
            shape: [1, 3, side, side],
        })?;
        Ok(Some(LiveScorer::new(session, entry.clone())))
    }

    fn detector(&self, canvas: Size) -> Result<Session<u8>, OpenError> {
        let input = &self.manifest.detector.model.input;
        Session::open_for_bytes(
            &Plan {
                environment: &self.environment,
                graph: &self.detector_graph,
                provider: self.choice.detector,
                precision: self.choice.precision,
                input: &input.name,
                shape: [1, 3, i64::from(canvas.height), i64::from(canvas.width)],
            },
            input,
        )
    }

    fn encoder(&self) -> Result<Session, OpenError> {
        Session::open(&Plan {
            environment: &self.environment,
            graph: &self.encoder_graph,
            provider: self.choice.encoder,
            precision: self.choice.precision,
            input: &self.manifest.encoder.model.input.name,
            shape: [1, 3, ALIGNED_SIDE as i64, ALIGNED_SIDE as i64],
        })
    }
}

fn heads<'a>(outputs: &'a ort::session::SessionOutputs<'_>) -> Result<[Head<'a>; 3], String> {
    let of = |stride: u32| -> Result<Head<'a>, String> {
        let named = |name: &str| output(outputs, &format!("{name}_{stride}"));
        Ok(Head { class: named("cls")?, object: named("obj")?, boxes: named("bbox")?, landmarks: named("kps")? })
    };
    let [fine, middle, coarse] = decode::STRIDES;
    Ok([of(fine)?, of(middle)?, of(coarse)?])
}

/// Takes a detection from its canvas to the frame.
pub(super) fn into_frame(face: &mut Detection, placement: &Placement) {
    let corner = crate::face::Point { x: face.box_in_frame.x, y: face.box_in_frame.y };
    let corner = placement.point_in_frame(corner);
    (face.box_in_frame.x, face.box_in_frame.y) = (corner.x, corner.y);
    face.box_in_frame.width = placement.length_in_frame(face.box_in_frame.width);
    face.box_in_frame.height = placement.length_in_frame(face.box_in_frame.height);
    face.landmarks.0 = face.landmarks.0.map(|point| placement.point_in_frame(point));
}
