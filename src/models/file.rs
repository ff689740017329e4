//! Reads files that must be exactly as published, and writes files whole or not at all.
//!
//! In: a path with size and hash. Out: bytes, or an error that names both hashes.
//! Drops nothing.
//! Must not know: what the bytes mean.

use std::io::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::ModelsError;

/// Lower-case hex of the SHA-256 of `bytes`.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// The bytes of a file, if it is the published one.
pub(super) fn read_verified(path: &Path, bytes_expected: u64, expected: &str) -> Result<Vec<u8>, ModelsError> {
    let bytes = std::fs::read(path).map_err(|source| ModelsError::Unreadable { path: path.into(), expected: expected.into(), source })?;
    let found = sha256_hex(&bytes);
    if found == expected {
        return Ok(bytes);
    }
    let bytes_found = bytes.len() as u64;
    let kind = if bytes_found < bytes_expected { "truncated" } else { "altered" };
    Err(ModelsError::Differs { path: path.into(), kind, expected: expected.into(), found, bytes_expected, bytes_found })
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
