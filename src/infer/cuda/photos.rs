//! Analyses on a device what was made on the host: photos, which are letterboxed and cut out there as exactly as on the CPU.
//!
//! In: frames in the host's memory, aligned faces. Out: detections in pixels of the frames, templates.
//! Drops: faces below the asked size or score.
//! Must not know: where photos come from. They are few: nothing here overlaps.

use super::CudaError;
use super::worker::{CROP_VALUES, FACES_MAX, Worker};
use crate::face::{AlignedFace, Detection, Template};
use crate::infer::host::{CanvasShape, Placement, Target, fill_face};
use crate::infer::{DetectRequest, Lane};

impl Worker {
    /// Faces of one picture in the host's memory, best score first.
    ///
    /// # Errors
    /// The call that failed, or [`CudaError::Graph`].
    pub fn detect_from_host(&mut self, request: &DetectRequest, lane: Lane) -> Result<Vec<Detection>, CudaError> {
        let side = request.detector_side.unwrap_or(self.config.detector_side);
        let shape = if lane == Lane::Photo { CanvasShape::Square } else { CanvasShape::Fitted };
        let placement = Placement::new(request.frame.size(), request.region_of_interest, side, shape);
        let values = 3 * placement.canvas.width as usize * placement.canvas.height as usize;
        self.from_host.reserve(values * size_of::<f32>())?;
        let (letterbox, input) = (&mut self.letterbox, &self.detector.model.input);
        self.from_host.send_values(values, |values| letterbox.fill_tensor(&request.frame, &placement, &mut Target { input, values }))?;
        let device = self.from_host.device();
        let tensor = (device.address(), device.bytes() / (values * size_of::<f32>()));
        self.run_detector(tensor, (1, placement.canvas))?;
        self.faces_of((0, 1), &placement, (request.score_min, request.face_pixels_min))
    }

    /// One template a face that the host has cut out, in order.
    ///
    /// # Errors
    /// The call that failed, or [`CudaError::Graph`].
    pub fn encode_from_host(&mut self, faces: &[AlignedFace]) -> Result<Vec<Template>, CudaError> {
        let mut templates = Vec::with_capacity(faces.len());
        for faces in faces.chunks(FACES_MAX) {
            let values = faces.len() * CROP_VALUES;
            self.from_host.reserve(FACES_MAX * CROP_VALUES * size_of::<f32>())?;
            let input = &self.encoder.model.input;
            self.from_host.send_values(values, |values| {
                for (face, values) in faces.iter().zip(values.chunks_mut(CROP_VALUES)) {
                    fill_face(face, &mut Target { input, values });
                }
            })?;
            self.templates_of((self.from_host.device().address(), faces.len()), &mut templates)?;
        }
        Ok(templates)
    }
}
