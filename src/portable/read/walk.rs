//! The file from end to end, byte by byte: are its parts there, in order, and what their checksums say?
//!
//! In: a file. Out: its manifest and where its parts lie. Entries that are no plain files are refused,
//! and names are compared, never opened: nothing of a file reaches the file system.
//! Must not know: what the lines say.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::super::lines::hex;
use super::super::section::{LineReader, Section, Span, unreadable};
use super::super::write::sum_line;
use super::super::{FORMAT, FORMAT_VERSION, MANIFEST, Manifest, PHOTOS, PortableError, SAMPLES, SUBJECTS, SUMS};
use super::{PHOTO_BYTES_MAX, Parts};

const BLOCK: u64 = 512;
/// What tar ends with: two blocks of zeros.
const TRAILER: u64 = 2 * BLOCK;
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// The format and version of a manifest, whatever else it says.
#[derive(serde::Deserialize)]
struct Stamp {
    format: String,
    format_version: u32,
}

/// One part as it went by.
struct Part {
    name: String,
    span: Span,
    header_at: u64,
    sha256: String,
    /// The manifest's own bytes; empty for others.
    bytes: Vec<u8>,
}

/// Reads everything once.
pub(super) fn walk(file: &Arc<File>) -> Result<(Manifest, Parts), PortableError> {
    let end = file.metadata().map_err(unreadable)?.len();
    let (mut parts, mut manifest, mut sums, mut photos) = (Parts::default(), None, Sha256::new(), 0);
    let mut step = 0;
    each_part(file, end, |part| {
        match (step, part.name.as_str()) {
            (0, MANIFEST) => manifest = Some(read_manifest(&part.bytes)?),
            (1, SUBJECTS) => parts.subjects = part.span,
            (2, SAMPLES) => parts.samples = part.span,
            (3, name) if name.starts_with(PHOTOS) => {
                photos += 1;
                if photos == 1 {
                    parts.photos = Span { at: part.header_at, end };
                }
            }
            (3, SUMS) => {
                parts.sums = part.span;
                if part.sha256 != hex(&sums.clone().finalize()) {
                    return Err(name_altered(file, end, part.span));
                }
            }
            (0, _) => return Err(PortableError::NotOurs(format!("it does not begin with {MANIFEST}"))),
            _ => return Err(PortableError::NotOurs(format!("{:?} is not where the format wants it", printable(&part.name)))),
        }
        sums.update(sum_line(&part.sha256, &part.name));
        let is_last = part.name == SUMS;
        step += if step < 3 || is_last { 1 } else { 0 };
        Ok(())
    })?;
    let manifest = manifest.ok_or_else(|| PortableError::NotOurs("it is empty".into()))?;
    if step < 4 {
        return Err(PortableError::Cut("its checksums are missing".into()));
    }
    let rest = Span { at: parts.sums.end.next_multiple_of(BLOCK).min(end), end };
    if end < rest.at + TRAILER || end % BLOCK != 0 {
        return Err(PortableError::Cut("its last bytes are missing".into()));
    }
    if photos == 0 {
        parts.photos = rest;
    }
    if Section::new(file, rest).is_blank().map_err(unreadable)? {
        return Ok((manifest, parts));
    }
    Err(PortableError::Altered { name: "what follows the last part".into() })
}

/// Tells `take` of every part, in their order in the file.
fn each_part(file: &Arc<File>, end: u64, mut take: impl FnMut(Part) -> Result<(), PortableError>) -> Result<(), PortableError> {
    let mut archive = tar::Archive::new(BufReader::with_capacity(1 << 20, Section::new(file, Span { at: 0, end })));
    let mut after = String::new();
    for entry in archive.entries().map_err(unreadable)?.raw(true) {
        let mut entry = entry.map_err(|error| misread((&after, end), &error))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
        if entry.header().entry_type() == tar::EntryType::Directory {
            continue;
        }
        let bytes_max = if name == MANIFEST { MANIFEST_BYTES_MAX } else { PHOTO_BYTES_MAX };
        let is_bounded = name == MANIFEST || name.starts_with(PHOTOS);
        if entry.header().entry_type() != tar::EntryType::Regular || (is_bounded && entry.size() > bytes_max) {
            return Err(PortableError::NotOurs(format!("{:?} is no plain file, or too large", printable(&name))));
        }
        let at = entry.raw_file_position();
        let span = Span { at, end: at.saturating_add(entry.size()) };
        if span.end > end {
            return Err(PortableError::Cut(format!("{} ends too early", printable(&name))));
        }
        let (header_at, mut bytes) = (entry.raw_header_position(), Vec::new());
        let sha256 = if name == MANIFEST {
            entry.read_to_end(&mut bytes).map_err(unreadable)?;
            Sha256::digest(&bytes)
        } else {
            hash(&mut entry).map_err(unreadable)?
        };
        let padding = Span { at: span.end, end: span.end.next_multiple_of(BLOCK).min(end) };
        if !Section::new(file, padding).is_blank().map_err(unreadable)? {
            return Err(PortableError::Altered { name });
        }
        after.clone_from(&name);
        take(Part { name, span, header_at, sha256: hex(&sha256), bytes })?;
    }
    Ok(())
}

fn hash(from: &mut impl Read) -> io::Result<sha2::digest::Output<Sha256>> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// What the reader of the tar stumbled over after the part `after` of a file of `end` bytes.
fn misread((after, end): (&str, u64), error: &io::Error) -> PortableError {
    match error.kind() {
        _ if after.is_empty() => PortableError::NotOurs("it is no tar".into()),
        ErrorKind::UnexpectedEof => PortableError::Cut(format!("it ends after {}", printable(after))),
        _ if end % BLOCK != 0 => PortableError::Cut(format!("it ends after {}", printable(after))),
        _ => PortableError::Altered { name: format!("what follows {}", printable(after)) },
    }
}

fn read_manifest(bytes: &[u8]) -> Result<Manifest, PortableError> {
    let not_ours = |error: serde_json::Error| PortableError::NotOurs(format!("its {MANIFEST} cannot be read: {error}"));
    let stamp: Stamp = serde_json::from_slice(bytes).map_err(not_ours)?;
    if stamp.format != FORMAT {
        return Err(PortableError::NotOurs(format!("its {MANIFEST} is of another program")));
    }
    if stamp.format_version != FORMAT_VERSION {
        return Err(PortableError::WrongVersion { found: stamp.format_version });
    }
    serde_json::from_slice(bytes).map_err(not_ours)
}

/// Names the first part that is not what the sums say: they are read beside the parts once more.
fn name_altered(file: &Arc<File>, end: u64, sums: Span) -> PortableError {
    let mut lines = LineReader::new(SUMS, Section::new(file, sums));
    let compare = each_part(file, end, |part| {
        let found = sum_line(&part.sha256, &part.name);
        let is_same = lines.next()?.is_some_and(|line| found.as_bytes().strip_suffix(b"\n") == Some(line));
        let name = if part.name == SUMS { SUMS.to_owned() } else { printable(&part.name) };
        if is_same { Ok(()) } else { Err(PortableError::Altered { name }) }
    });
    compare.err().unwrap_or(PortableError::Altered { name: SUMS.into() })
}

fn printable(name: &str) -> String {
    name.chars().take(200).filter(|c| !c.is_control()).collect()
}
