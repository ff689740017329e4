//! Every line of a file whose bytes are whole: does it make sense, beside the others?
//!
//! In: the parts. Out: nothing, or the first line that is wrong. Subjects stand in the order of their
//! ids, samples in the order of their subjects, photos in the order of their samples: so each part is
//! read once, beside the others.
//! Must not know: who is in the gallery.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use super::super::lines::SampleLine;
use super::super::section::{LineReader, Section};
use super::super::write::sum_line;
use super::super::{Manifest, PHOTOS, PortableError, SUBJECTS, SUMS};
use super::{Parts, SAMPLES_A_SUBJECT_MAX, SampleReader, read_subject};
use crate::subject::Subject;

/// The numbers of a template that any encoder may have.
const DIMENSIONS: std::ops::RangeInclusive<usize> = 1..=4096;
/// Lines of `SHA256SUMS` before those of the photos.
const SUMS_BEFORE_PHOTOS: usize = 3;

/// Reads subjects, samples and sums side by side.
pub(super) fn check(file: &Arc<File>, manifest: &Manifest, parts: &Parts) -> Result<(), PortableError> {
    let mut subjects = LineReader::new(SUBJECTS, Section::new(file, parts.subjects));
    let mut samples = SampleReader::new(file, parts);
    let mut photos = Photos { sums: LineReader::new(SUMS, Section::new(file, parts.sums)), count: 0 };
    for _ in 0..SUMS_BEFORE_PHOTOS {
        photos.sums.next()?;
    }
    if let Some(odd) = manifest.template_spaces.iter().find(|space| !DIMENSIONS.contains(&space.dimension)) {
        return Err(PortableError::NotOurs(format!("a space has templates of {} numbers", odd.dimension)));
    }
    let mut templates: HashMap<&str, u64> = HashMap::new();
    let mut before: Option<Subject> = None;
    while let Some(subject) = read_subject(&mut subjects)? {
        if before.as_ref().is_some_and(|before| before.id >= subject.id) {
            return Err(subjects.bad("subjects must stand in the order of their ids, each once"));
        }
        let mut count = 0;
        while let Some(line) = samples.next_if(|line| line.subject == subject.uid.0)? {
            for template in samples.templates(&line, manifest)? {
                if let Some(space) = manifest.template_spaces.iter().find(|space| space.name == template.space().as_str()) {
                    *templates.entry(&space.name).or_default() += 1;
                }
            }
            photos.check(&line, &subject).map_err(|reason| samples.lines.bad(reason))?;
            line.into_sample().map_err(|reason| samples.lines.bad(reason))?;
            count += 1;
        }
        if !(1..=SAMPLES_A_SUBJECT_MAX).contains(&count) {
            return Err(subjects.bad(format!("the subject has {count} samples in their order; 1 to {SAMPLES_A_SUBJECT_MAX} are allowed")));
        }
        before = Some(subject);
    }
    if samples.next_if(|_| true)?.is_some() {
        return Err(samples.lines.bad("its subject is not there, or stands elsewhere in the order"));
    }
    if photos.sums.next()?.is_some() {
        return Err(photos.sums.bad("no sample has this photo"));
    }
    let told = (manifest.subjects, manifest.samples, manifest.photos);
    let counts_agree = told == (subjects.number, samples.lines.number, photos.count);
    let spaces_agree =
        manifest.template_spaces.iter().all(|space| templates.get(space.name.as_str()).copied().unwrap_or(0) == space.templates);
    if counts_agree && spaces_agree { Ok(()) } else { Err(PortableError::NotOurs("its manifest counts other than there is".into())) }
}

/// The photos, by their lines in the sums: each was compared with its bytes before.
struct Photos {
    sums: LineReader,
    count: u64,
}

impl Photos {
    /// The photo of a sample must be the next one, and what the sample says it is.
    fn check(&mut self, line: &SampleLine, subject: &Subject) -> Result<(), String> {
        let Some(path) = &line.photo else { return Ok(()) };
        let beginning = format!("{PHOTOS}{}/{}.", subject.id, line.sample_id().0);
        let extension = path.strip_prefix(&beginning).ok_or("its photo lies elsewhere than the format wants")?;
        if !matches!(extension, "jpg" | "png" | "pnm" | "bin") {
            return Err("its photo has another extension than jpg, png, pnm or bin".into());
        }
        self.count += 1;
        let wanted = sum_line(&line.content_sha256, path);
        let found = self.sums.next().map_err(|error| error.to_string())?;
        let agrees = found.is_some_and(|found| wanted.as_bytes().strip_suffix(b"\n") == Some(found));
        if agrees {
            Ok(())
        } else {
            Err("its photo is missing, stands elsewhere in the order, or is another than content_sha256 says".into())
        }
    }
}
