//! Cuts the faces that are worth a look out of their frames, where the frames' pixels are, and measures them.
//!
//! In: frames, where the faces are. Out: faces for the encoder, with what their pixels say of how usable they are.
//! A face in the host's memory is cut out here; one on a device stays there, and only its measures come back.
//! Must not know: whose faces they are, what makes one usable.

use std::ops::Range;

use super::Pipeline;
use super::looking::frame_by_frame;
use crate::face::{Landmarks, Photometry};
use crate::frame::Frame;
use crate::infer::{CutFace, FaceOnDevice, Lane, align};
use crate::quality;

impl Pipeline {
    /// Each face of the batch, by its frame and landmarks, in order; `None` of a frame whose faces a device did not measure.
    pub(super) async fn cut(&self, batch: &[Frame], faces: &[(usize, Landmarks)]) -> Vec<Option<(CutFace, Photometry)>> {
        let (mut cut, mut on_device) = (Vec::with_capacity(faces.len()), Vec::new());
        for (index, landmarks) in faces {
            let frame = &batch[*index];
            if frame.device_pixels().is_some() {
                on_device.push((*index, FaceOnDevice { frame: frame.clone(), landmarks: *landmarks, is_mirrored: false }));
                cut.push(None);
            } else {
                let face = align(frame, landmarks);
                let measured = quality::photometry(&face);
                cut.push(Some((face.into(), measured)));
            }
        }
        let of = |range: Range<usize>| on_device[range].iter().map(|(_, face)| face.clone()).collect();
        let ask = |faces: Vec<FaceOnDevice>| self.0.engine.measure(Lane::Live, faces);
        let measured = self.of_each_frame(frame_by_frame(&on_device), of, ask).await;
        let there = cut.iter_mut().filter(|cut| cut.is_none());
        for ((cut, (_, face)), measured) in there.zip(on_device).zip(measured) {
            *cut = measured.map(|measured| (CutFace::Device(face), measured));
        }
        cut
    }
}
