//! Photos of known people → templates, on every session at once.
//!
//! In: photos, what should be wrong with them. Out: the face each is about, with its quality; what cannot be used, with the reason.
//! Photos found in the cache are not looked at again.
//! Must not know: what the templates are for.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};

use super::cache::{Cache, Remembered, hex};
use super::{EvaluateError, PhotoFile};
use crate::config::InferConfig;
use crate::face::{Template, TemplateSpace};
use crate::infer::Engine;
use crate::photo::{Photo, PhotoAnalyst, PhotoError, PhotoFace, Worsening, worsened};

/// How much a face's width makes up for its distance from the middle, both in pixels.
const WIDTH_FOR_DISTANCE: f32 = 0.3;

/// The face of a photo.
#[derive(Clone, Debug, PartialEq)]
pub struct FaceOfPhoto {
    /// Which photo, as its place in what was given.
    pub photo: usize,
    /// Whose.
    pub person: usize,
    /// What was made worse.
    pub worsening: Option<Worsening>,
    /// Overall quality, 0 to 1.
    pub quality: f32,
    /// The template.
    pub template: Template,
}

/// Two faces of `faces` that are of one picture and are said to be two people's, by their templates, which two pictures never share.
pub fn of_two_people(faces: &[FaceOfPhoto]) -> Option<(usize, usize)> {
    let mut owners = HashMap::<Vec<u32>, usize>::new();
    for (place, face) in faces.iter().enumerate() {
        let bits = face.template.values().iter().map(|value| value.to_bits()).collect();
        let first = *owners.entry(bits).or_insert(place);
        if faces[first].person != face.person {
            return Some((first, place));
        }
    }
    None
}

/// A photo without a face that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The photo.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// What became of one photo.
type Outcome = Result<FaceOfPhoto, Unusable>;

/// Turns photos into templates. Clones share everything.
#[derive(Clone)]
pub struct Embedder {
    photos: PhotoAnalyst,
    space: TemplateSpace,
    sessions: usize,
    cache: Option<Arc<Cache>>,
}

impl Embedder {
    /// Over `engine`, remembering in the folder `cache` where one is given, for the settings that the engine was opened with.
    ///
    /// # Errors
    /// [`EvaluateError::Unreadable`] for the folder.
    pub fn new(engine: Engine, cache: Option<(&Path, &InferConfig)>) -> Result<Self, EvaluateError> {
        let facts = engine.facts().clone();
        let models: Vec<&str> = facts.models.iter().map(|model| model.sha256.as_str()).collect();
        let chain = format!("{} {} {} {:?} {}", facts.space, facts.precision, facts.provider, facts.mirror, models.join(" "));
        let chain = |infer: &InferConfig| format!("{chain} {} {}", infer.detector_side, infer.detection_score_min);
        let cache = cache.map(|(dir, infer)| Cache::open(dir, &chain(infer))).transpose()?.map(Arc::new);
        // As many photos are asked for at once as there are sessions, and there may be many.
        Ok(Self { photos: PhotoAnalyst::new(engine).patient(), space: facts.space, sessions: facts.sessions, cache })
    }

    /// The space of the templates.
    pub fn space(&self) -> &TemplateSpace {
        &self.space
    }

    /// Each photo's face, as it came or with `worsening`; `done` is called after each. The order is that of the
    /// photos, whichever session was faster.
    ///
    /// # Errors
    /// [`EvaluateError::Unreadable`]; [`EvaluateError::Photo`] when inference fails.
    pub async fn embed(
        &self,
        photos: &[PhotoFile],
        worsening: Option<Worsening>,
        done: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<(Vec<FaceOfPhoto>, Vec<Unusable>), EvaluateError> {
        let (photos, next) = (Arc::new(photos.to_vec()), Arc::new(AtomicUsize::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..self.sessions {
            let (embedder, photos, next, done) = (self.clone(), Arc::clone(&photos), Arc::clone(&next), done.clone());
            tasks.spawn(async move {
                let mut outcomes = Vec::new();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(photo) = photos.get(index) else { return Ok::<_, EvaluateError>(outcomes) };
                    outcomes.push((index, embedder.one(index, photo, worsening).await?));
                    done();
                }
            });
        }
        let mut outcomes: Vec<(usize, Outcome)> = Vec::with_capacity(photos.len());
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.map_err(|ended| PhotoError::BadImage(format!("looking at photos ended: {ended}")))?;
            outcomes.extend(ended?);
        }
        outcomes.sort_by_key(|(index, _)| *index);
        let (mut faces, mut unusable) = (Vec::new(), Vec::new());
        for (_, outcome) in outcomes {
            match outcome {
                Ok(face) => faces.push(face),
                Err(without) => unusable.push(without),
            }
        }
        Ok((faces, unusable))
    }

    async fn one(&self, index: usize, photo: &PhotoFile, worsening: Option<Worsening>) -> Result<Outcome, EvaluateError> {
        let bytes = tokio::fs::read(&photo.path).await;
        let bytes = bytes.map_err(|source| EvaluateError::Unreadable { path: photo.path.clone(), source })?;
        let key = format!("{} {}", hex(&Sha256::digest(&bytes)), worsening.map_or("as-is", Worsening::name));
        let found = match self.cache.as_ref().and_then(|cache| cache.get(&key)) {
            Some(known) => known.clone(),
            None => {
                let found = self.look(&bytes, worsening).await?;
                if let Some(cache) = &self.cache {
                    cache
                        .put(&key, &found)
                        .map_err(|source| EvaluateError::Unreadable { path: "the cache of templates".into(), source })?;
                }
                found
            }
        };
        Ok(match found {
            Remembered::Nothing(reason) => Err(Unusable { path: photo.path.clone(), reason }),
            Remembered::Face(quality, values) => {
                let template = Template::from_stored(self.space.clone(), values)?;
                Ok(FaceOfPhoto { photo: index, person: photo.person, worsening, quality, template })
            }
        })
    }

    async fn look(&self, bytes: &[u8], worsening: Option<Worsening>) -> Result<Remembered, EvaluateError> {
        let found = self.central(bytes).await?;
        let face = match (found, worsening) {
            (Ok(face), Some(worsening)) => {
                let (bytes, side) = (bytes.to_vec(), face.quality.size_pixels);
                let work = tokio::task::spawn_blocking(move || worsened(&bytes, side, worsening));
                match work.await.map_err(|ended| PhotoError::BadImage(format!("making a photo worse ended: {ended}")))?? {
                    Some(worse) => self.central(&worse).await?,
                    None => return Ok(Remembered::Nothing("it is as bad already".into())),
                }
            }
            (found, _) => found,
        };
        let face = match face {
            Ok(face) => face,
            Err(reason) => return Ok(Remembered::Nothing(reason)),
        };
        let template = self.photos.encode(vec![face.aligned]).await?.pop();
        Ok(template.map_or_else(
            || Remembered::Nothing("the face gave no template".into()),
            |template| Remembered::Face(face.quality.overall, template.values().to_vec()),
        ))
    }

    /// The face that a photo is about: the one in the middle, larger ones preferred. Where there is none, or the photo
    /// is none, why.
    async fn central(&self, bytes: &[u8]) -> Result<Result<PhotoFace, String>, EvaluateError> {
        let Photo { frame, faces } = match self.photos.examine(bytes).await {
            Ok(photo) => photo,
            Err(PhotoError::BadImage(reason)) => return Ok(Err(reason)),
            Err(error) => return Err(error.into()),
        };
        let (width, height) = (frame.size().width as f32, frame.size().height as f32);
        let cost = |face: &PhotoFace| {
            let centre = face.detection.box_in_frame.centre();
            (centre.x - width / 2.0).hypot(centre.y - height / 2.0) - WIDTH_FOR_DISTANCE * face.detection.box_in_frame.width
        };
        Ok(faces.into_iter().min_by(|a, b| cost(a).total_cmp(&cost(b))).ok_or_else(|| PhotoError::NoFace.to_string()))
    }
}
