//! A face on its way to the encoder: cut out in the host's memory, or still where its frame lies on a device.
//!
//! In: a frame, landmarks, or a crop. Out: a [`CutFace`].
//! Must not know: sessions.

use crate::face::{AlignedFace, Landmarks};
use crate::frame::Frame;

/// A face of a frame whose pixels are on a device: it is cut out there, and never comes to the host.
#[derive(Clone, Debug)]
pub struct FaceOnDevice {
    /// The frame, whose pixels are held as long as this is.
    pub frame: Frame,
    /// Where the face is, in pixels of the frame.
    pub landmarks: Landmarks,
    /// Whether its mirror image is meant.
    pub is_mirrored: bool,
}

/// A face for the encoder.
#[derive(Clone, Debug)]
pub enum CutFace {
    /// In the host's memory, in the encoder's pose.
    Host(AlignedFace),
    /// On a device.
    Device(FaceOnDevice),
}

impl CutFace {
    /// Its mirror image.
    #[must_use]
    pub fn mirrored(&self) -> Self {
        match self {
            Self::Host(face) => Self::Host(face.mirrored()),
            Self::Device(face) => Self::Device(FaceOnDevice { is_mirrored: !face.is_mirrored, ..face.clone() }),
        }
    }
}

impl From<AlignedFace> for CutFace {
    fn from(face: AlignedFace) -> Self {
        Self::Host(face)
    }
}
