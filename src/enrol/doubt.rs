//! Doubts about samples: does one look like its subject's others, does a negative one look like
//! somebody else? Pure.
//!
//! In: templates of one subject. Out: similarities, and refusals that an operator may overrule.
//! Must not know: the store, other subjects.

#[cfg(test)]
mod tests;

use super::EnrolError;
use crate::decide::verify;
use crate::face::Template;
use crate::subject::Sample;

/// The templates of one subject.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Those that it is recognised by.
    pub own: Vec<Template>,
    /// Those of people who must never be taken for it.
    pub negative: Vec<Template>,
}

impl Known {
    pub fn of(samples: impl IntoIterator<Item = (Sample, Template)>) -> Self {
        let (negative, own): (Vec<_>, Vec<_>) = samples.into_iter().partition(|(sample, _)| sample.negative);
        let templates = |samples: Vec<(Sample, Template)>| samples.into_iter().map(|(_, template)| template).collect();
        Self { own: templates(own), negative: templates(negative) }
    }

    /// Refuses a sample that is not as close as `threshold` to any other of its subject's, of which there may be none, or at least as close to a negative one.
    pub fn check_own(&self, threshold: f32, sample: &Template) -> Result<(), EnrolError> {
        let Some(similarity) = closest(sample, &self.own) else { return Ok(()) };
        let is_somebody_else = closest(sample, &self.negative).is_some_and(|negative| negative >= similarity);
        if verify(threshold, similarity) && !is_somebody_else { Ok(()) } else { Err(EnrolError::Inconsistent { similarity }) }
    }

    /// Refuses a negative sample that would keep one of the subject's own photos from being
    /// recognised by the others, or is one of them: it shows the subject.
    pub fn check_negative(&self, sample: &Template) -> Result<(), EnrolError> {
        for (index, own) in self.own.iter().enumerate() {
            let Ok(similarity) = own.similarity(sample) else { continue };
            let others = self.own.iter().enumerate().filter(|(other, _)| *other != index);
            let to_others = others.filter_map(|(_, other)| own.similarity(other).ok()).reduce(f32::max);
            if own == sample || to_others.is_some_and(|to_others| similarity >= to_others) {
                return Err(EnrolError::NegativeShowsSubject { similarity });
            }
        }
        Ok(())
    }
}

/// Of each sample, the mean similarity to the subject's own others of its space.
pub(super) fn similarities_to_rest(samples: &[(bool, &Template)]) -> Vec<Option<f32>> {
    let to_rest = |(index, (_, template)): (usize, &(bool, &Template))| {
        let others = samples.iter().enumerate().filter(|(other, (negative, _))| *other != index && !negative);
        let similarities: Vec<f32> = others.filter_map(|(_, (_, other))| template.similarity(other).ok()).collect();
        (!similarities.is_empty()).then(|| similarities.iter().sum::<f32>() / similarities.len() as f32)
    };
    samples.iter().enumerate().map(to_rest).collect()
}

fn closest(sample: &Template, others: &[Template]) -> Option<f32> {
    others.iter().filter_map(|other| sample.similarity(other).ok()).reduce(f32::max)
}
