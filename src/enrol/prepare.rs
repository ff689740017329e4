//! A photo → what a sample needs: the slow half of enrolment, done before a change takes its turn.
//!
//! In: a photo's bytes. Out: [`Prepared`], or why the photo enrols nobody.
//! Must not know: subjects, the store, the gallery.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::EnrolError;
use crate::face::{Quality, Template};
use crate::photo::{PhotoAnalyst, PhotoError};
use crate::quality;

/// A photo that may enrol somebody.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// The bytes, as they were given.
    pub photo: Arc<[u8]>,
    /// Their hash.
    pub content_sha256: [u8; 32],
    /// How usable the only face is.
    pub quality: Quality,
    /// The face as a vector.
    pub template: Template,
}

impl Prepared {
    /// Finds the only face of `photo`, refuses it below `quality_min`, and encodes it.
    pub async fn of(photos: &PhotoAnalyst, photo: Arc<[u8]>, quality_min: f32) -> Result<Self, EnrolError> {
        let face = photos.only_face(&photo).await?;
        if let Some(fault) = quality::fault(&face.quality, quality_min) {
            return Err(EnrolError::Unusable { fault, quality: Box::new(face.quality) });
        }
        let template = photos.encode(vec![face.aligned]).await?.pop().ok_or(PhotoError::NoFace)?;
        Ok(Self { content_sha256: sha256(&photo), photo, quality: face.quality, template })
    }
}

/// SHA-256 of a photo's bytes: what names its content.
pub(super) fn sha256(photo: &[u8]) -> [u8; 32] {
    Sha256::digest(photo).into()
}
