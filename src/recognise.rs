//! Answers questions about one picture: detect, verify, identify, search. Stores nothing.
//!
//! In: pictures. Out: faces, similarities, decisions; each answer rests on one gallery version.
//! Must not know: the store, the wire.

use std::collections::HashSet;
use std::sync::Arc;

use crate::calibration::{Asked, COSINE, Calibration};
use crate::config::RecognitionConfig;
use crate::decide::{Compared, InForce, Policy, candidates_needed, identify, rerank, undecidable, verify};
use crate::event::{Candidate, Decision, Purpose, Rejection};
use crate::face::{Quality, Template, TemplateError, TemplateSpace};
use crate::frame::Size;
use crate::gallery::{Closeness, Gallery, GalleryVersion, Score, Search};
use crate::infer::InferError;
use crate::liveness::LivePolicy;
use crate::photo::{Photo, PhotoAnalyst, PhotoError, PhotoFace};
use crate::quality::{self, Fault};
use crate::subject::SubjectUid;

/// A question cannot be answered.
#[derive(Debug, thiserror::Error)]
pub enum RecogniseError {
    /// The picture cannot be used, or inference failed.
    #[error(transparent)]
    Photo(#[from] PhotoError),
    /// The claimed subject was enrolled with another model.
    #[error("subject {0} has no template of the model in use; enrol a new photo")]
    NoTemplate(String),
    /// The claimed subject matches no longer.
    #[error("subject {0} has expired; give it a later expire_time to let it match again")]
    Expired(String),
    /// A face that is too poor to say anything of who it is.
    #[error("the face cannot be used to verify: {}", fault.name())]
    Unusable {
        /// What is wrong.
        fault: Fault,
        /// All that was measured.
        quality: Quality,
    },
    /// It is the other picture of a claim that cannot be used.
    #[error("the other picture: {0}")]
    OfOther(#[source] Box<RecogniseError>),
    /// The encoder and the gallery do not belong together.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// Whom a picture is said to show.
pub enum Claim<'a> {
    /// An enrolled subject, with the name that an error calls it by.
    Subject(SubjectUid, String),
    /// The person on another picture.
    OtherImage(&'a [u8]),
}

/// Who is looked for.
pub struct Wanted {
    /// How many at most.
    pub candidates_max: usize,
    /// Only who is on one of these; empty: anybody.
    pub watchlists: HashSet<String>,
}

/// The answer to a claim.
pub struct Verified {
    /// Whether it is the same person.
    pub matched: bool,
    /// Cosine similarity, to the subject's closest template where a subject was claimed.
    pub similarity: f32,
    /// What decided: `score >= threshold` is a match. The similarity, unless a trained head verifies.
    pub score: f32,
    /// What made the score.
    pub head: &'static str,
    /// Whether the face is suspected to be a picture; where that is refused, it is no match.
    pub suspected_attack: bool,
    /// Whether a negative sample of the claimed subject is at least as close: then it is no match.
    pub is_somebody_else: bool,
    /// What decided.
    pub in_force: InForce,
    /// How many templates the face was compared with.
    pub templates: u64,
    /// The face of the picture.
    pub face: PhotoFace,
    /// The gallery version in force.
    pub gallery_version: u64,
    /// The template space.
    pub space: TemplateSpace,
}

/// Who is on a picture.
pub struct Identified {
    /// Each face with its decision and its closest subjects, best first.
    pub faces: Vec<(PhotoFace, Decision, Vec<Candidate>)>,
    /// Of the upright picture.
    pub size: Size,
    /// How many subjects each face was compared with.
    pub gallery_subjects: u64,
    /// The one version that all faces were compared with.
    pub gallery_version: u64,
    /// The template space.
    pub space: TemplateSpace,
}

/// The closest subjects of a face, without a decision.
pub struct Searched {
    /// The face of the picture.
    pub face: PhotoFace,
    /// Best first.
    pub candidates: Vec<Candidate>,
    /// The version it was compared with.
    pub gallery_version: u64,
}

/// Answers questions. Clones share everything.
#[derive(Clone)]
pub struct Recogniser {
    photos: PhotoAnalyst,
    gallery: Gallery,
    space: TemplateSpace,
    policy: Policy,
    live: LivePolicy,
}

impl Recogniser {
    /// Over one engine and one gallery, deciding by `policy`; what looks like an attack is reported.
    pub fn new(photos: PhotoAnalyst, gallery: Gallery, space: TemplateSpace, policy: Policy) -> Self {
        let live = LivePolicy::of(&RecognitionConfig::default());
        Self { photos: photos.with_live_scores(), gallery, space, policy, live }
    }

    /// With another say of what looks like an attack, and what follows.
    #[must_use]
    pub fn with_live_policy(self, live: LivePolicy) -> Self {
        Self { live, ..self }
    }

    /// Whether the face is suspected to be a picture of a face.
    pub fn suspects(&self, face: &PhotoFace) -> bool {
        self.live.suspects(face.live_score)
    }

    /// What its thresholds follow from.
    pub fn calibration(&self) -> Option<&Calibration> {
        self.policy.calibration()
    }

    /// The picture's upright size and every face in it, the best detection score first.
    ///
    /// # Errors
    /// [`RecogniseError::Photo`].
    pub async fn detect(&self, image: &[u8]) -> Result<(Size, Vec<PhotoFace>), RecogniseError> {
        let photo = self.photos.examine(image).await?;
        Ok((PhotoAnalyst::size_of(&photo), photo.faces))
    }

    /// 1:1: whether the one face of the picture is who it is claimed to be.
    ///
    /// # Errors
    /// [`RecogniseError::Photo`] unless each picture shows exactly one face; [`RecogniseError::Unusable`] for one that
    /// breaks a hard limit of quality; [`RecogniseError::NoTemplate`], [`RecogniseError::Expired`] for a claimed subject.
    pub async fn verify(&self, image: &[u8], claim: Claim<'_>) -> Result<Verified, RecogniseError> {
        let (face, template) = self.usable_template(image).await?;
        let gallery = self.gallery.current();
        let head = self.policy.verifier();
        let by_head = head.map(|head| move |a: &[f32], b: &[f32]| head.score(a, b));
        let by_head = by_head.as_ref().map(|score| score as Score<'_>);
        let mut quality = face.quality.overall;
        let Closeness { similarity, score, is_somebody_else, templates } = match &claim {
            Claim::OtherImage(other) => {
                let (other_face, other) = self.usable_template(other).await.map_err(|error| RecogniseError::OfOther(Box::new(error)))?;
                // The worse of both says how good the comparison is, whichever of them is asked about.
                quality = quality.min(other_face.quality.overall);
                let (similarity, score) = (other.similarity(&template)?, head.map(|head| head.score(other.values(), template.values())));
                Closeness { similarity, score, is_somebody_else: false, templates: 1 }
            }
            Claim::Subject(uid, name) => match gallery.closeness_by(&template, *uid, by_head)? {
                Some(closeness) => closeness,
                None if gallery.holds(*uid) => return Err(RecogniseError::Expired(name.clone())),
                None => return Err(RecogniseError::NoTemplate(name.clone())),
            },
        };
        let subject = if let Claim::Subject(uid, _) = claim { gallery.subject(uid) } else { None };
        let asked = Asked { comparisons: templates, quality };
        let in_force = self.policy.in_force(Purpose::Verify, subject.as_deref(), asked);
        let suspected_attack = self.suspects(&face);
        let is_refused = is_somebody_else || (suspected_attack && self.live.refuses);
        Ok(Verified {
            matched: verify(in_force.threshold, score.unwrap_or(similarity)) && !is_refused,
            suspected_attack,
            is_somebody_else,
            similarity,
            score: score.unwrap_or(similarity),
            head: head.map_or(COSINE, |head| head.rule.name()),
            in_force,
            templates,
            face,
            gallery_version: gallery.version(),
            space: self.space.clone(),
        })
    }

    /// The one face of a picture: no rate is known of those that are too poor.
    async fn usable_template(&self, image: &[u8]) -> Result<(PhotoFace, Template), RecogniseError> {
        let (face, template) = self.photos.only_template(image).await?;
        match quality::fault(&face.quality, 0.0) {
            Some(fault) => Err(RecogniseError::Unusable { fault, quality: face.quality }),
            None => Ok((face, template)),
        }
    }

    /// 1:N for every face in the picture, each with at most `candidates_max` candidates. A face
    /// that breaks a hard limit of quality is not looked up: its decision says so.
    ///
    /// # Errors
    /// [`RecogniseError::Photo`].
    pub async fn identify(&self, image: &[u8], candidates_max: usize) -> Result<Identified, RecogniseError> {
        let Photo { frame, faces } = self.photos.examine(image).await?;
        let is_usable = |face: &PhotoFace| quality::fault(&face.quality, 0.0).is_none();
        let crops = faces.iter().filter(|face| is_usable(face)).map(|face| face.aligned.clone()).collect();
        // The picture may be large, and is not needed while others are encoded.
        let size = frame.size();
        drop(frame);
        let templates = self.photos.encode(crops).await?;
        let gallery = self.gallery.current();
        // The decision needs more than the closest, whatever the caller wants to see.
        let k = candidates_max.max(candidates_needed(&self.policy));
        let found = nearest(gallery.clone(), templates.clone(), (k, |_| true)).await?;

        let mut found = found.into_iter().zip(&templates);
        let mut identified = Vec::with_capacity(faces.len());
        for face in faces {
            let looked_up = if is_usable(&face) { found.next() } else { None };
            let (candidates, template) = looked_up.unzip();
            let mut compared = self.compared(&gallery, candidates.unwrap_or_default(), face.quality.overall);
            let mut decision = match template {
                Some(template) => {
                    self.rerank(&gallery, template, &mut compared);
                    identify(&self.policy, &compared)
                }
                None => undecidable(&self.policy, &compared),
            };
            if self.live.refuses && self.suspects(&face) && decision.subject.take().is_some() {
                decision.rejection = Some(Rejection::SuspectedAttack);
            }
            compared.candidates.truncate(candidates_max);
            identified.push((face, decision, compared.candidates));
        }
        Ok(Identified {
            faces: identified,
            size,
            gallery_subjects: gallery.subject_count(),
            gallery_version: gallery.version(),
            space: self.space.clone(),
        })
    }

    /// The closest subjects of the picture's one face, at most `candidates_max`.
    ///
    /// # Errors
    /// [`RecogniseError::Photo`] unless the picture shows exactly one face.
    pub async fn search(&self, image: &[u8], wanted: Wanted) -> Result<Searched, RecogniseError> {
        let (face, template) = self.photos.only_template(image).await?;
        let gallery = self.gallery.current();
        let gallery_version = gallery.version();
        let Wanted { candidates_max, watchlists } = wanted;
        let found = if watchlists.is_empty() {
            nearest(gallery, vec![template], (candidates_max, |_| true)).await?
        } else {
            // Who is on the lists is asked once, so that the answer is of one moment.
            let names = self.gallery.clone();
            let listing = tokio::task::spawn_blocking(move || names.subjects_who(|subject| subject.is_on_any(&watchlists)));
            let listed =
                listing.await.map_err(|ended| PhotoError::from(InferError::Session(format!("a list could not be read: {ended}"))))?;
            // No more can be found than are listed: with as many the search knows when to stop.
            let k = candidates_max.min(listed.len());
            nearest(gallery, vec![template], (k, move |uid: SubjectUid| listed.contains(&uid))).await?
        };
        Ok(Searched { face, candidates: found.into_iter().next().unwrap_or_default(), gallery_version })
    }

    /// Lets a trained head choose among the candidates that match.
    fn rerank(&self, gallery: &GalleryVersion, template: &Template, compared: &mut Compared) {
        let Some(head) = self.policy.chooser() else { return };
        let by_head = |a: &[f32], b: &[f32]| head.score(a, b);
        let score = |subject| gallery.closeness_by(template, subject, Some(&by_head as Score<'_>)).ok().flatten()?.score;
        rerank(&self.policy, compared, (|subject| gallery.subject(subject), score));
    }

    fn compared(&self, gallery: &GalleryVersion, candidates: Vec<Candidate>, quality: f32) -> Compared {
        Compared {
            closest: candidates.first().and_then(|closest| gallery.subject(closest.subject)),
            candidates,
            quality,
            comparisons: gallery.template_count(),
            gallery_subjects: gallery.subject_count(),
            gallery_version: gallery.version(),
            space: self.space.to_string(),
            head: None,
        }
    }
}

/// The `k` closest subjects of each template, of those that `admits` lets in. A scan of a large gallery
/// takes milliseconds of computing, which must not hold up the tasks of a runtime thread.
async fn nearest(
    gallery: Arc<GalleryVersion>,
    templates: Vec<Template>,
    (k, admits): (usize, impl Fn(SubjectUid) -> bool + Send + Sync + 'static),
) -> Result<Vec<Vec<Candidate>>, RecogniseError> {
    let work = tokio::task::spawn_blocking(move || {
        let probes: Vec<&Template> = templates.iter().collect();
        gallery.search_all(&probes, &Search { k, admits: &admits, cores_max: None })
    });
    let found = work.await.map_err(|ended| PhotoError::from(InferError::Session(format!("searching the gallery ended: {ended}"))))?;
    Ok(found?)
}
