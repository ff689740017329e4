//! Reads files that must be exactly as published, and writes files whole or not at all.
//!
//! In: a path with size and hash. Out: bytes, or an error that names both hashes.
//! Drops nothing.
//! Must not know: what the bytes mean.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::ModelsError;

/// How much of a file is read at once.
const BUFFER: usize = 1 << 18;

/// Lower-case hex of the SHA-256 of `bytes`.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    use std::fmt::Write as _;
    digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// How a file was published.
#[derive(Clone, Copy)]
pub(super) struct Published<'a> {
    /// Its size.
    pub(super) bytes: u64,
    /// SHA-256 of it, lower-case hex.
    pub(super) sha256: &'a str,
}

impl Published<'_> {
    fn compare(self, path: &Path, (bytes_found, found): (u64, String)) -> Result<(), ModelsError> {
        if found == self.sha256 {
            return Ok(());
        }
        let kind = if bytes_found < self.bytes { "truncated" } else { "altered" };
        Err(ModelsError::Differs { path: path.into(), kind, expected: self.sha256.into(), found, bytes_expected: self.bytes, bytes_found })
    }

    fn unreadable(self, path: &Path, source: std::io::Error) -> ModelsError {
        ModelsError::Unreadable { path: path.into(), expected: self.sha256.into(), source }
    }
}

/// The bytes of a file, if it is the published one.
pub(super) fn read_verified(path: &Path, published: Published<'_>) -> Result<Vec<u8>, ModelsError> {
    let bytes = std::fs::read(path).map_err(|source| published.unreadable(path, source))?;
    published.compare(path, (bytes.len() as u64, sha256_hex(&bytes)))?;
    Ok(bytes)
}

/// Whether a file is the published one, whose bytes nobody wants here: libraries are hundreds of megabytes.
pub(super) fn verify(path: &Path, published: Published<'_>) -> Result<(), ModelsError> {
    let read = || {
        let mut file = BufReader::with_capacity(BUFFER, std::fs::File::open(path)?);
        let (mut bytes_found, mut hash) = (0, Sha256::new());
        loop {
            let part = file.fill_buf()?;
            if part.is_empty() {
                return Ok((bytes_found, hex(&hash.finalize())));
            }
            hash.update(part);
            let length = part.len();
            bytes_found += length as u64;
            file.consume(length);
        }
    };
    published.compare(path, read().map_err(|source| published.unreadable(path, source))?)
}

/// Writes a file under a temporary name and renames it, so that a reader sees all of it or none.
pub(super) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ModelsError> {
    let unwritable = |source| ModelsError::Unwritable { path: path.into(), source };
    let mut temporary = path.as_os_str().to_owned();
    // A name of its own: the sessions of two daemons, or two of one process, may install at once.
    temporary.push(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
    let write = || {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|source| {
        // The first error is the one worth telling.
        let _ = std::fs::remove_file(&temporary);
        unwritable(source)
    })
}
