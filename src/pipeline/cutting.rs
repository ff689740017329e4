//! Cuts the faces that are worth a look out of their frames, where the frames' pixels are, and measures them.
//!
//! In: frames, where the faces are. Out: faces for the encoder, with what their pixels say of how usable they are.
//! A face in the host's memory is cut out here; one on a device stays there, and only its measures come back.
//! Must not know: whose faces they are, what makes one usable.

use super::Pipeline;
use crate::face::{Landmarks, Photometry};
use crate::frame::Frame;
use crate::infer::{CutFace, FaceOnDevice, InferError, Lane, align};
use crate::quality;

impl Pipeline {
    /// Each face of the batch, by its frame and landmarks, in order.
    ///
    /// # Errors
    /// [`InferError`] when a device did not measure its faces.
    pub(super) async fn cut(&self, batch: &[Frame], faces: &[(usize, Landmarks)]) -> Result<Vec<(CutFace, Photometry)>, InferError> {
        let mut cut = Vec::with_capacity(faces.len());
        let mut on_device = Vec::new();
        for (frame, landmarks) in faces.iter().map(|(index, landmarks)| (&batch[*index], landmarks)) {
            if frame.device_pixels().is_some() {
                let face = FaceOnDevice { frame: frame.clone(), landmarks: *landmarks, is_mirrored: false };
                on_device.push(face.clone());
                cut.push((CutFace::Device(face), Photometry::default()));
            } else {
                let face = align(frame, landmarks);
                let measured = quality::photometry(&face);
                cut.push((face.into(), measured));
            }
        }
        if !on_device.is_empty() {
            let measured = self.0.engine.measure(Lane::Live, on_device).await?;
            let there = cut.iter_mut().filter(|(face, _)| matches!(face, CutFace::Device(_)));
            there.zip(measured).for_each(|((_, photometry), measured)| *photometry = measured);
        }
        Ok(cut)
    }
}
