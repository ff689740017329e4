//! Writes the parts of the file in their order, and remembers their checksums.
//!
//! In: a manifest, then lines and photos. Out: the tar. What is written is the caller's to sync.
//! Must not know: where the lines come from.

use std::io::{self, Seek, Write};

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::lines::{SampleLine, SubjectLine, hex};
use super::{MANIFEST, Manifest, PHOTOS, SAMPLES, SUBJECTS, SUMS};
use crate::face::Template;
use crate::subject::{Sample, SampleId, Subject, SubjectId};

/// Where a photo lies in the file: its extension goes by how its bytes begin.
pub fn photo_path(subject: &SubjectId, sample: SampleId, beginning: &[u8]) -> String {
    let extension = match beginning {
        [0xff, 0xd8, ..] => "jpg",
        [0x89, b'P', b'N', b'G', ..] => "png",
        [b'P', b'1'..=b'7', ..] => "pnm",
        _ => "bin",
    };
    format!("{PHOTOS}{subject}/{}.{extension}", sample.0)
}

/// Writes one file: subjects, samples, photos in the order of their samples, sums.
pub struct Writer<W: Write + Seek> {
    tar: tar::Builder<W>,
    /// Of the manifest, the subjects and the samples.
    sums: Vec<String>,
    create_time_us: i64,
}

/// Takes the lines of one part.
pub struct Lines<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
    line: Vec<u8>,
}

impl Lines<'_> {
    /// Adds a subject; in the order of their ids, byte by byte.
    ///
    /// # Errors
    /// What the system says.
    pub fn subject(&mut self, subject: &Subject) -> io::Result<()> {
        self.json(&SubjectLine::of(subject))
    }

    /// Adds a sample with a template of each space and where its photo will lie; in the order of their subjects.
    ///
    /// # Errors
    /// What the system says.
    pub fn sample(&mut self, sample: &Sample, templates: &[Template], photo: Option<&str>) -> io::Result<()> {
        self.json(&SampleLine::of(sample, templates, photo))
    }

    /// Adds a photo's checksum; in the order of the photos.
    ///
    /// # Errors
    /// What the system says.
    pub fn sum(&mut self, sha256: &[u8; 32], photo: &str) -> io::Result<()> {
        self.text(&sum_line(&hex(sha256), photo))
    }

    fn json(&mut self, line: &impl Serialize) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        self.hash.update(&self.line);
        self.out.write_all(&self.line)
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        self.hash.update(text);
        self.out.write_all(text.as_bytes())
    }
}

/// A line as `sha256sum` writes it.
pub(super) fn sum_line(sha256_hex: &str, path: &str) -> String {
    format!("{sha256_hex}  {path}\n")
}

impl<W: Write + Seek> Writer<W> {
    /// Begins the file with its manifest.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(out: W, manifest: &Manifest) -> io::Result<Self> {
        let mut writer = Self { tar: tar::Builder::new(out), sums: Vec::new(), create_time_us: manifest.create_time_us };
        let mut text = serde_json::to_vec_pretty(manifest)?;
        text.push(b'\n');
        writer.file(MANIFEST, &text)?;
        writer.sums.push(sum_line(&hex(&Sha256::digest(&text)), MANIFEST));
        Ok(writer)
    }

    /// Writes the subjects that `fill` adds.
    ///
    /// # Errors
    /// What the system or `fill` says.
    pub fn subjects<E: From<io::Error>>(&mut self, fill: impl FnOnce(&mut Lines<'_>) -> Result<(), E>) -> Result<(), E> {
        let sum = self.lines(SUBJECTS, fill)?;
        self.sums.push(sum_line(&sum, SUBJECTS));
        Ok(())
    }

    /// Writes the samples that `fill` adds.
    ///
    /// # Errors
    /// What the system or `fill` says.
    pub fn samples<E: From<io::Error>>(&mut self, fill: impl FnOnce(&mut Lines<'_>) -> Result<(), E>) -> Result<(), E> {
        let sum = self.lines(SAMPLES, fill)?;
        self.sums.push(sum_line(&sum, SAMPLES));
        Ok(())
    }

    /// Writes one photo to `path`, as [`photo_path`] makes it.
    ///
    /// # Errors
    /// What the system says.
    pub fn photo(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(path, bytes)
    }

    /// Ends the file with its checksums: `fill` adds those of the photos.
    ///
    /// # Errors
    /// What the system or `fill` says.
    pub fn finish<E: From<io::Error>>(mut self, fill: impl FnOnce(&mut Lines<'_>) -> Result<(), E>) -> Result<W, E> {
        let first = std::mem::take(&mut self.sums);
        self.lines(SUMS, |lines| {
            first.iter().try_for_each(|line| lines.text(line))?;
            fill(lines)
        })?;
        Ok(self.tar.into_inner()?)
    }

    fn file(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let mut header = self.header();
        header.set_size(bytes.len() as u64);
        self.tar.append_data(&mut header, path, bytes)
    }

    /// Writes a part whose length is known at its end; answers its hash.
    fn lines<E: From<io::Error>>(&mut self, path: &str, fill: impl FnOnce(&mut Lines<'_>) -> Result<(), E>) -> Result<String, E> {
        let mut header = self.header();
        let mut entry = self.tar.append_writer(&mut header, path)?;
        let mut lines = Lines { out: &mut entry, hash: Sha256::new(), line: Vec::new() };
        fill(&mut lines)?;
        let hash = lines.hash;
        entry.finish()?;
        Ok(hex(&hash.finalize()))
    }

    /// Of a plain file that its owner alone reads.
    fn header(&self) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o600);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(u64::try_from(self.create_time_us / 1_000_000).unwrap_or(0));
        header.set_entry_type(tar::EntryType::Regular);
        header
    }
}
