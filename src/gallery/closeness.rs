//! How close a probe comes to one subject: 1:1.
//!
//! In: a version, a probe, a subject. Out: the closest template's similarity, and what another way of comparing says.
//! Must not know: thresholds, what the other way is.

use super::GalleryVersion;
use crate::event::Candidate;
use crate::face::{Template, TemplateError, dot};
use crate::subject::SubjectUid;

/// How close a probe comes to one subject.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Closeness {
    /// Cosine, to the closest of its templates.
    pub similarity: f32,
    /// What was asked for beside it, of the template where it is highest.
    pub score: Option<f32>,
    /// Whether a negative sample of the subject's is at least as close: then it is somebody else,
    /// however close.
    pub is_somebody_else: bool,
    /// How many templates the subject has.
    pub templates: u64,
}

/// How two vectors are scored by something else than the cosine; higher is closer.
pub type Score<'a> = &'a dyn Fn(&[f32], &[f32]) -> f32;

impl GalleryVersion {
    /// How close one subject's templates come, `None` without any or once the subject has expired.
    /// Looks at each row's owner.
    ///
    /// # Errors
    /// [`TemplateError::SpaceMismatch`] for a probe of another space or size.
    pub fn similarity_to(&self, probe: &Template, subject: SubjectUid) -> Result<Option<Closeness>, TemplateError> {
        self.closeness_by(probe, subject, None)
    }

    /// The same, with the highest `score` of the subject's templates beside the similarity.
    ///
    /// # Errors
    /// [`TemplateError::SpaceMismatch`] for a probe of another space or size.
    pub fn closeness_by(
        &self,
        probe: &Template,
        subject: SubjectUid,
        score: Option<Score<'_>>,
    ) -> Result<Option<Closeness>, TemplateError> {
        self.check(probe)?;
        let now = self.clock.now();
        let (mut best, mut best_score, mut templates) = (None::<f32>, None::<f32>, 0);
        for segment in &self.segments {
            for (row, _) in segment.subjects.iter().enumerate().filter(|(_, owner)| **owner == subject) {
                if segment.expires[row] > now {
                    let similarity = dot(segment.vector(row), probe.values());
                    best = Some(best.map_or(similarity, |best| best.max(similarity)));
                    let scored = score.map(|score| score(segment.vector(row), probe.values()));
                    best_score = [best_score, scored].into_iter().flatten().reduce(f32::max);
                    templates += 1;
                }
            }
        }
        Ok(best.map(|similarity| {
            let is_somebody_else = self.negatives.forbid(Candidate { subject, similarity }, probe.values());
            Closeness { similarity, score: best_score, is_somebody_else, templates }
        }))
    }
}
