//! A photo's bytes → its faces, with quality and templates: for enrolment and for questions about
//! pictures.
//!
//! In: JPEG, PNG or PNM bytes. Out: faces in pixels of the upright photo, aligned and assessed.
//! At most four photos are looked at at once. Of further ones sixteen wait, one more is refused as busy; whoever is
//! [patient](PhotoAnalyst::patient) waits beside them. What was looked at is encoded, and never refused any more.
//! Must not know: subjects, the gallery, who asks.

mod decode;
#[cfg(test)]
pub(crate) mod tests;
mod worsen;

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;

use crate::face::{AlignedFace, Detection, Quality, Template};
use crate::frame::{Frame, Size};
use crate::infer::{DetectRequest, Engine, FaceInFrame, InferError, Lane, PHOTOS_MAX, align, with_border};
use crate::quality;
pub use worsen::{Worsening, worsened};

/// The largest photo that is read, in bytes.
pub const PHOTO_BYTES_MAX: usize = 32 << 20;
/// The longest side of a photo that is read, in pixels.
pub const PHOTO_SIDE_MAX: u32 = 16_384;
/// The largest photo that is read, in pixels.
pub const PHOTO_PIXELS_MAX: u64 = 50_000_000;
/// The shortest side of a photo that is read, in pixels: no face below it has anything to say.
pub const PHOTO_SIDE_MIN: u32 = 16;
/// The most photos that are looked at at once: decoded, each may take 8 bytes for each of its 50
/// million pixels.
const EXAMINED_MAX: usize = 4;
/// The most photos that wait to be looked at. Each is held meanwhile, so that with 32 MiB a photo they take half a GiB; and they
/// are as many as wait for a session, since who is refused should not depend on where photos pile up.
const WAITING_MAX: usize = PHOTOS_MAX;
/// The most faces of a photo that a session is asked about at once (with mirror images, twice as many crops): frames of cameras and
/// other photos go in between, however large the crowd is.
const FACES_AT_ONCE: usize = 8;
/// The most photos whose faces are encoded at once. With those that are looked at, each with one job at a time, they are as many as
/// may wait for a session, so that none is refused there after half of the work.
const ENCODED_MAX: usize = PHOTOS_MAX - EXAMINED_MAX;
/// The border that a photo gets when no face was found in it, in pixels: the detector misses
/// faces that fill the whole picture.
const BORDER_PIXELS: u32 = 40;

/// A photo cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PhotoError {
    /// The bytes are no picture, or one beyond the limits; says what to give instead.
    #[error("{0}")]
    BadImage(String),
    /// There is nobody on it.
    #[error("no face was found; give a photo that shows the face from the front, at least 40 pixels wide")]
    NoFace,
    /// There are several people on it.
    #[error("{0} faces were found; give a photo of one person")]
    SeveralFaces(usize),
    /// Inference failed: not the photo's fault.
    #[error(transparent)]
    Infer(#[from] InferError),
}

/// A decoded photo, upright (EXIF orientation applied).
pub struct Photo {
    /// The picture.
    pub frame: Frame,
    /// Its faces, the best detection score first.
    pub faces: Vec<PhotoFace>,
}

/// A face of a photo.
#[derive(Clone, Debug)]
pub struct PhotoFace {
    /// Where, in pixels of the upright photo; it may reach beyond the picture.
    pub detection: Detection,
    /// What the encoder will see.
    pub aligned: AlignedFace,
    /// How usable it is.
    pub quality: Quality,
    /// How much it looks alive, 0 to 1, where that was asked.
    pub live_score: Option<f32>,
}

/// Looks at photos. Clones share the engine.
#[derive(Clone)]
pub struct PhotoAnalyst {
    engine: Engine,
    places: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    encoding: Arc<Semaphore>,
    is_patient: bool,
    scores_liveness: bool,
}

impl PhotoAnalyst {
    /// Over `engine`.
    pub fn new(engine: Engine) -> Self {
        let [places, waiting, encoding] = [EXAMINED_MAX, WAITING_MAX, ENCODED_MAX].map(|places| Arc::new(Semaphore::new(places)));
        Self { engine, places, waiting, encoding, is_patient: false, scores_liveness: false }
    }

    /// One that waits for its turn however many wait, and takes nobody's place among those; it shares everything else. It is for
    /// whoever has many photos and asks for few of them at once: nobody refuses photos of a folder for want of a moment.
    #[must_use]
    pub fn patient(self) -> Self {
        Self { is_patient: true, ..self }
    }

    /// One that also asks how much each face looks alive, where the engine can tell; it shares everything else. Whoever
    /// enrols photos does not ask: photos are pictures.
    #[must_use]
    pub fn with_live_scores(self) -> Self {
        Self { scores_liveness: self.engine.has_live_scores(), ..self }
    }

    /// Decodes the picture and finds its faces. Where there is none, the picture is looked at
    /// once more with its edge pixels carried on around it.
    ///
    /// # Errors
    /// [`PhotoError::BadImage`] for what is no picture of 16 to 16,384 pixels a side, 50 million
    /// pixels and 32 MiB; [`PhotoError::Infer`], of [`InferError::Busy`] when too many wait.
    pub async fn examine(&self, image: &[u8]) -> Result<Photo, PhotoError> {
        // It is held while the picture waits for a session, too.
        let _place = self.place().await?;
        let frame = decode(image).await?;
        let mut detections = self.detect(&frame).await?;
        if !detections.is_empty() {
            let faces = assessed(frame.clone(), detections, 0).await?;
            return self.scored(Photo { frame, faces }).await;
        }
        let bordered = bordered(frame.clone()).await?;
        detections = self.detect(&bordered).await?;
        // The crop is taken from the bordered picture, which holds at least as much of the face.
        let faces = assessed(bordered, detections, BORDER_PIXELS).await?;
        self.scored(Photo { frame, faces }).await
    }

    /// A place among the photos that are looked at, first come, first served.
    async fn place(&self) -> Result<SemaphorePermit<'_>, InferError> {
        if let Ok(place) = self.places.try_acquire() {
            return Ok(place);
        }
        let _waits = if self.is_patient { None } else { Some(self.waiting.try_acquire().map_err(|_| InferError::Busy)?) };
        // Nobody closes the semaphore, so the place always comes.
        self.places.acquire().await.map_err(|_| InferError::Stopped)
    }

    /// The photo, with the live score of each face where that is wanted.
    async fn scored(&self, mut photo: Photo) -> Result<Photo, PhotoError> {
        if !self.scores_liveness || photo.faces.is_empty() {
            return Ok(photo);
        }
        let face = |face: &PhotoFace| FaceInFrame { frame: photo.frame.clone(), face: face.detection.box_in_frame };
        for faces in photo.faces.chunks_mut(FACES_AT_ONCE) {
            let scores = self.engine.live_scores(Lane::Photo, faces.iter().map(face).collect()).await?;
            faces.iter_mut().zip(scores).for_each(|(face, score)| face.live_score = Some(score));
        }
        Ok(photo)
    }

    /// Exactly one face.
    ///
    /// # Errors
    /// As [`examine`](Self::examine); [`PhotoError::NoFace`], [`PhotoError::SeveralFaces`].
    pub async fn only_face(&self, image: &[u8]) -> Result<PhotoFace, PhotoError> {
        let mut faces = self.examine(image).await?.faces;
        match (faces.len(), faces.pop()) {
            (1, Some(face)) => Ok(face),
            (0, _) => Err(PhotoError::NoFace),
            (several, _) => Err(PhotoError::SeveralFaces(several)),
        }
    }

    /// One template a face, in order.
    ///
    /// # Errors
    /// [`PhotoError::Infer`].
    pub async fn encode(&self, faces: Vec<AlignedFace>) -> Result<Vec<Template>, PhotoError> {
        if faces.is_empty() {
            return Ok(Vec::new());
        }
        // It is held until the last face. Nobody closes the semaphore, so it always comes.
        let _place = self.encoding.acquire().await.map_err(|_| InferError::Stopped)?;
        let mut templates = Vec::with_capacity(faces.len());
        for faces in faces.chunks(FACES_AT_ONCE) {
            templates.extend(self.engine.encode(Lane::Photo, faces.to_vec()).await?);
        }
        Ok(templates)
    }

    /// The one face of a picture, with its template.
    ///
    /// # Errors
    /// As [`only_face`](Self::only_face).
    pub async fn only_template(&self, image: &[u8]) -> Result<(PhotoFace, Template), PhotoError> {
        let face = self.only_face(image).await?;
        let template = self.encode(vec![face.aligned.clone()]).await?.pop();
        let template = template.ok_or_else(|| InferError::Session("a face gave no template".into()))?;
        Ok((face, template))
    }

    /// Upright size of a photo.
    pub fn size_of(photo: &Photo) -> Size {
        photo.frame.size()
    }

    async fn detect(&self, frame: &Frame) -> Result<Vec<Detection>, PhotoError> {
        let request =
            DetectRequest { frame: frame.clone(), detector_side: None, region_of_interest: None, score_min: None, face_pixels_min: 0 };
        let mut found = self.engine.detect(Lane::Photo, vec![request]).await?;
        found.pop().ok_or_else(|| InferError::Session("a picture gave no list of faces".into()).into())
    }
}

async fn decode(image: &[u8]) -> Result<Frame, PhotoError> {
    if image.len() > PHOTO_BYTES_MAX {
        let reason = format!("the photo has {} bytes; give one of at most {PHOTO_BYTES_MAX}", image.len());
        return Err(PhotoError::BadImage(reason));
    }
    let image = image.to_vec();
    let decoded = spawn_blocking(move || decode::upright(&image));
    decoded.await.unwrap_or_else(|_| Err(PhotoError::BadImage("the picture cannot be decoded; save it as JPEG or PNG again".into())))
}

async fn bordered(frame: Frame) -> Result<Frame, PhotoError> {
    let work = spawn_blocking(move || with_border(&frame, BORDER_PIXELS));
    let bordered = work.await.map_err(|ended| InferError::Session(format!("putting a border around a photo ended: {ended}")))?;
    bordered.map_err(|bad| PhotoError::BadImage(bad.to_string()))
}

/// Aligns and assesses faces found in `frame`, a picture with a border of `border` pixels.
async fn assessed(frame: Frame, detections: Vec<Detection>, border: u32) -> Result<Vec<PhotoFace>, PhotoError> {
    let work = spawn_blocking(move || {
        let face = |detection: Detection| {
            let aligned = align(&frame, &detection.landmarks);
            let quality = quality::assess(&detection, &quality::photometry(&aligned));
            PhotoFace { detection: without_border(detection, border), aligned, quality, live_score: None }
        };
        detections.into_iter().map(face).collect()
    });
    work.await.map_err(|ended| InferError::Session(format!("aligning a face ended: {ended}")).into())
}

/// The detection in pixels of the picture without its border.
fn without_border(mut detection: Detection, border: u32) -> Detection {
    let border = border as f32;
    detection.box_in_frame.x -= border;
    detection.box_in_frame.y -= border;
    for point in &mut detection.landmarks.0 {
        point.x -= border;
        point.y -= border;
    }
    detection
}
