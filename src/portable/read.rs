//! Reads the file: first all of it, to see that it is whole and makes sense; then its people.
//!
//! In: a file that nobody changes meanwhile. Out: a [`Portable`], or why nobody is taken from it.
//! Must not know: who is taken.

mod check;
mod walk;

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::sync::Arc;

use super::lines::{SampleLine, SubjectLine};
use super::section::{LineReader, Section, Span, unreadable};
use super::{Manifest, PortableError, SAMPLES, SUBJECTS};
use crate::face::Template;
use crate::subject::{Sample, Subject, SubjectUid};

/// The largest photo, in bytes: what enrolment takes.
const PHOTO_BYTES_MAX: u64 = 32 << 20;
/// The most samples of one subject: what is held of one person at a time.
const SAMPLES_A_SUBJECT_MAX: u64 = 1_000;
/// The most bytes of one person's photos, likewise.
const PERSON_BYTES_MAX: u64 = 256 << 20;

/// A file that was found whole.
#[derive(Debug)]
pub struct Portable {
    file: Arc<File>,
    manifest: Manifest,
    parts: Parts,
}

/// Where the parts lie in the file.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    subjects: Span,
    samples: Span,
    /// From the header of the first photo on.
    photos: Span,
    sums: Span,
}

/// A person with all that the file holds of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// What is stated of them.
    pub subject: Subject,
    /// At least one. None where the photos have more than 256 MiB together: so much is not held.
    pub samples: Vec<PortableSample>,
}

/// A sample as it lies in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct PortableSample {
    /// What is known of it.
    pub sample: Sample,
    /// Its vectors, bit for bit: at least one, each of another space.
    pub templates: Vec<Template>,
    /// Its photo, where the file holds photos.
    pub photo: Option<Arc<[u8]>>,
}

impl Portable {
    /// Reads all of `file` and checks its checksums, its order and every line. Blocks on the disk.
    ///
    /// # Errors
    /// [`PortableError`], by what is wrong with it.
    pub fn open(file: File) -> Result<Self, PortableError> {
        let file = Arc::new(file);
        let (manifest, parts) = walk::walk(&file)?;
        check::check(&file, &manifest, &parts)?;
        Ok(Self { file, manifest, parts })
    }

    /// What the file says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The uids of all subjects: 16 bytes each are held.
    ///
    /// # Errors
    /// [`PortableError::Unreadable`].
    pub fn uids(&self) -> Result<HashSet<SubjectUid>, PortableError> {
        let mut subjects = LineReader::new(SUBJECTS, Section::new(&self.file, self.parts.subjects));
        let mut uids = HashSet::new();
        while let Some(subject) = read_subject(&mut subjects)? {
            uids.insert(subject.uid);
        }
        Ok(uids)
    }

    /// Gives every person in the order of their ids to `take`, until it fails. Blocks on the disk.
    ///
    /// # Errors
    /// What `take` answers, or [`PortableError::Unreadable`].
    pub fn each_person<E: From<PortableError>>(&self, mut take: impl FnMut(Person) -> Result<(), E>) -> Result<(), E> {
        let mut samples = SampleReader::new(&self.file, &self.parts);
        let mut subjects = LineReader::new(SUBJECTS, Section::new(&self.file, self.parts.subjects));
        let mut photos = tar::Archive::new(BufReader::with_capacity(1 << 20, Section::new(&self.file, self.parts.photos)));
        let mut photos = photos.entries().map_err(unreadable)?.raw(true);
        while let Some(subject) = read_subject(&mut subjects)? {
            let mut person = Person { subject, samples: Vec::new() };
            let mut bytes_held = 0;
            while let Some(line) = samples.next_if(|line| line.subject == person.subject.uid.0)? {
                let photo = match &line.photo {
                    None => None,
                    Some(_) => {
                        // Whoever packed the file again may have put directories among the photos.
                        let mut files = photos.by_ref().filter(|entry| !entry.as_ref().is_ok_and(is_directory));
                        let mut entry =
                            files.next().ok_or_else(|| PortableError::Unreadable("a photo is missing".into()))?.map_err(unreadable)?;
                        bytes_held += entry.size();
                        let mut bytes = Vec::new();
                        if bytes_held <= PERSON_BYTES_MAX {
                            entry.read_to_end(&mut bytes).map_err(unreadable)?;
                        }
                        Some(bytes.into())
                    }
                };
                let templates = samples.templates(&line, &self.manifest)?;
                let sample = line.into_sample().map_err(|reason| samples.lines.bad(reason))?;
                person.samples.push(PortableSample { sample, templates, photo });
            }
            if bytes_held > PERSON_BYTES_MAX {
                person.samples.clear();
            }
            take(person)?;
        }
        Ok(())
    }
}

/// The samples, with a look at the next one.
struct SampleReader {
    lines: LineReader,
    next: Option<SampleLine>,
}

impl SampleReader {
    fn new(file: &Arc<File>, parts: &Parts) -> Self {
        Self { lines: LineReader::new(SAMPLES, Section::new(file, parts.samples)), next: None }
    }

    /// The next sample where `is_wanted` says so; else it stays the next one.
    fn next_if(&mut self, is_wanted: impl FnOnce(&SampleLine) -> bool) -> Result<Option<SampleLine>, PortableError> {
        if self.next.is_none() {
            let line = self.lines.next()?.map(serde_json::from_slice).transpose();
            self.next = line.map_err(|error| self.lines.bad(told(&error)))?;
        }
        Ok(self.next.take_if(|line| is_wanted(line)))
    }

    /// The templates of a sample, each in another of the spaces that the manifest names.
    fn templates(&self, line: &SampleLine, manifest: &Manifest) -> Result<Vec<Template>, PortableError> {
        let bad = |reason: String| PortableError::BadTemplate { line: self.lines.number, reason };
        let mut templates: Vec<Template> = Vec::with_capacity(line.templates.len());
        for template in &line.templates {
            let space = manifest.template_spaces.iter().find(|space| space.name == template.space);
            let space = space.ok_or_else(|| bad(format!("its space is not in {}", super::MANIFEST)))?;
            if templates.iter().any(|other| other.space().as_str() == space.name) {
                return Err(bad("the sample has two of one space".into()));
            }
            templates.push(template.template(space.dimension).map_err(bad)?);
        }
        if templates.is_empty() { Err(bad("the sample has none".into())) } else { Ok(templates) }
    }
}

fn read_subject(lines: &mut LineReader) -> Result<Option<Subject>, PortableError> {
    let line: Option<SubjectLine> = lines.next()?.map(serde_json::from_slice).transpose().map_err(|error| lines.bad(told(&error)))?;
    line.map(|line| line.into_subject().map_err(|reason| lines.bad(reason))).transpose()
}

fn is_directory<R: Read>(entry: &tar::Entry<'_, R>) -> bool {
    entry.header().entry_type() == tar::EntryType::Directory
}

/// What serde says, which quotes no values but those of unknown keys.
fn told(error: &serde_json::Error) -> String {
    format!("it is not as the format says: {error}")
}
