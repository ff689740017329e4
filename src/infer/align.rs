//! Cuts a face out of the full-resolution frame into the encoder's pose.
//!
//! In: a frame and five landmarks. Out: 112×112 RGB bytes; black where the frame ends.
//! The loops are doorward-kernels'. Drops what they drop.
//! Must not know: which encoder sees it.

use doorward_kernels::crop::{Crop, cut};

use crate::face::{ALIGNED_SIDE, AlignedFace, Landmarks};
use crate::frame::Frame;

/// Cuts a face out of the full-resolution frame into the encoder's pose. Landmarks that are no numbers give a black crop.
pub fn align(frame: &Frame, landmarks: &Landmarks) -> AlignedFace {
    let mut pixels = Box::new([0_u8; ALIGNED_SIDE * ALIGNED_SIDE * 3]);
    cut(&frame.picture(), Crop::of(&landmarks.0), &mut pixels[..]);
    AlignedFace::new(pixels)
}
