//! The gallery looked through for what makes recognition err: people who look alike, and samples
//! that do not look like their own subject.
//!
//! In: the store's subjects, a page at a time; a version of the gallery. Out: findings. It changes
//! nothing, and searches on one core, since live faces go first.
//! Must not know: photos' pixels, the wire.

#[cfg(test)]
mod tests;

use tokio::task::spawn_blocking;

use super::doubt::Known;
use super::register::{Register, stopped};
use super::{EnrolError, Enrolment};
use crate::event::Candidate;
use crate::face::Template;
use crate::gallery::{Gallery, GalleryVersion, Search};
use crate::subject::{Sample, SampleId, SubjectId};

/// Subjects that are looked at between two signs of life.
const SUBJECTS_AT_ONCE: usize = 64;
/// Probes that share each row's way from memory.
const PROBES_AT_ONCE: usize = 8;
/// The most people that one sample is said to look like.
const OTHERS_MAX: usize = 10;

/// A sample that may be taken for somebody else.
#[derive(Clone, Debug, PartialEq)]
pub struct LookAlike {
    /// Whose sample it is.
    pub subject: SubjectId,
    /// The sample.
    pub sample: SampleId,
    /// For whom it may be taken.
    pub other: SubjectId,
    /// Cosine similarity to that subject.
    pub similarity: f32,
}

/// A sample that looks like none of its subject's others.
#[derive(Clone, Debug, PartialEq)]
pub struct Misfit {
    /// Whose sample it is.
    pub subject: SubjectId,
    /// The sample.
    pub sample: SampleId,
    /// Where it lies below the enrolment folder.
    pub folder_path: Option<String>,
    /// Cosine similarity to the closest of the others.
    pub similarity: f32,
}

/// What was found among some of the subjects.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Both ways round: of each of two people, the samples that look like the other.
    pub look_alikes: Vec<LookAlike>,
    /// Those that do not fit.
    pub misfits: Vec<Misfit>,
    /// Subjects that were looked at.
    pub subjects: usize,
    /// Where to go on; `None` at the end.
    pub last: Option<SubjectId>,
    /// The version that they were compared with.
    pub version: u64,
}

impl Enrolment {
    /// Looks at the next subjects after `after`, by id: which samples are as close to somebody else as
    /// `threshold` (`None`: the one that identifies), and which fit none of their subject's others.
    ///
    /// # Errors
    /// [`EnrolError::BadField`] for a threshold that no similarity can have, [`EnrolError::Store`].
    pub async fn check(&self, after: Option<SubjectId>, threshold: Option<f32>) -> Result<Findings, EnrolError> {
        self.register.check(after, threshold).await
    }

    /// How many subjects the gallery holds now.
    pub fn subject_count(&self) -> u64 {
        self.register.gallery.current().subject_count()
    }
}

impl Register {
    pub(super) async fn check(&self, after: Option<SubjectId>, threshold: Option<f32>) -> Result<Findings, EnrolError> {
        let threshold = threshold.unwrap_or_else(|| self.identifying_threshold());
        if !(-1.0..=1.0).contains(&threshold) {
            return Err(EnrolError::BadField { field: "threshold", reason: "give a cosine similarity, -1 to 1".into() });
        }
        let gallery = self.gallery.current();
        let mut findings = Findings { version: gallery.version(), ..Findings::default() };
        let mut probes: Vec<(SubjectId, SampleId, Template)> = Vec::new();
        for subject in self.store.subject_page(after, None, SUBJECTS_AT_ONCE).await? {
            let samples = self.store.samples(subject.uid).await?;
            findings.misfits.extend(misfits(&subject.id, &samples, self.verifying_threshold()));
            let own = samples.into_iter().filter(|(sample, template)| !sample.negative && template.space() == gallery.space());
            probes.extend(own.map(|(sample, template)| (subject.id.clone(), sample.id, template)));
            findings.subjects += 1;
            findings.last = Some(subject.id);
        }
        let names = self.gallery.clone();
        let work = spawn_blocking(move || look_alikes(&gallery, &names, (&probes, threshold)));
        findings.look_alikes = work.await.map_err(stopped)??;
        Ok(findings)
    }
}

/// For each template the subjects that are at least as close as `threshold`, best first.
pub(super) fn close_subjects(gallery: &GalleryVersion, templates: &[&Template], threshold: f32) -> Result<Vec<Vec<Candidate>>, EnrolError> {
    // One more, since the template's own subject is among them.
    let search = Search { k: OTHERS_MAX + 1, admits: &|_| true, cores_max: Some(1) };
    let mut found = Vec::with_capacity(templates.len());
    for together in templates.chunks(PROBES_AT_ONCE) {
        found.extend(gallery.search_enrolled(together, &search)?);
    }
    found.iter_mut().for_each(|close| close.retain(|candidate| crate::decide::verify(threshold, candidate.similarity)));
    Ok(found)
}

fn look_alikes(
    gallery: &GalleryVersion,
    names: &Gallery,
    (probes, threshold): (&[(SubjectId, SampleId, Template)], f32),
) -> Result<Vec<LookAlike>, EnrolError> {
    let templates: Vec<&Template> = probes.iter().map(|(.., template)| template).collect();
    let mut found = Vec::new();
    for ((subject, sample, _), close) in probes.iter().zip(close_subjects(gallery, &templates, threshold)?) {
        // Who was erased meanwhile has no name any more, and looks like nobody.
        let others = close.into_iter().filter_map(|candidate| Some((names.subject(candidate.subject)?, candidate.similarity)));
        found.extend(others.filter(|(other, _)| other.id != *subject).map(|(other, similarity)| LookAlike {
            subject: subject.clone(),
            sample: *sample,
            other: other.id.clone(),
            similarity,
        }));
    }
    Ok(found)
}

fn misfits(subject: &SubjectId, samples: &[(Sample, Template)], threshold: f32) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    for (index, (sample, template)) in samples.iter().enumerate().filter(|(_, (sample, _))| !sample.negative) {
        let others = samples.iter().enumerate().filter(|(other, _)| *other != index);
        let others = Known::of(others.map(|(_, other)| other.clone()));
        if let Err(EnrolError::Inconsistent { similarity }) = others.check_own(threshold, template) {
            let (subject, folder_path) = (subject.clone(), sample.folder_path.clone());
            misfits.push(Misfit { subject, sample: sample.id, folder_path, similarity });
        }
    }
    misfits
}
