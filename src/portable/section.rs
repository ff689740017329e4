//! A stretch of a file, read on its own, so that several stretches are read side by side.
//!
//! In: a file, from where to where. Out: its bytes, or its lines. Memory: one line of [`LINE_BYTES_MAX`].
//! Must not know: what the lines say.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::PortableError;

/// The longest line: a template of 4096 numbers with much room.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// From where to where something lies in the file, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    pub at: u64,
    pub end: u64,
}

/// Reads a span, wherever others read.
#[derive(Clone, Debug)]
pub(super) struct Section {
    file: Arc<File>,
    span: Span,
}

impl Section {
    pub fn new(file: &Arc<File>, span: Span) -> Self {
        Self { file: Arc::clone(file), span }
    }

    /// Whether only zeros are left.
    pub fn is_blank(&self) -> io::Result<bool> {
        let (mut rest, mut buffer) = (self.clone(), [0; 4096]);
        loop {
            match rest.read(&mut buffer)? {
                0 => return Ok(true),
                read if buffer[..read].iter().all(|byte| *byte == 0) => {}
                _ => return Ok(false),
            }
        }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.span.end - self.span.at).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..wanted], self.span.at)?;
        self.span.at += read as u64;
        Ok(read)
    }
}

/// The lines of a part of the file, one after the other.
pub(super) struct LineReader {
    name: &'static str,
    from: BufReader<Section>,
    line: Vec<u8>,
    /// How many lines were read.
    pub number: u64,
}

impl LineReader {
    pub fn new(name: &'static str, section: Section) -> Self {
        Self { name, from: BufReader::with_capacity(64 << 10, section), line: Vec::new(), number: 0 }
    }

    /// The next line without its end, `None` after the last.
    pub fn next(&mut self) -> Result<Option<&[u8]>, PortableError> {
        self.line.clear();
        let read = self.from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line).map_err(unreadable)?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        if self.line.pop() != Some(b'\n') {
            return Err(self.bad("it has no end, or is longer than 1 MiB"));
        }
        Ok(Some(&self.line))
    }

    /// What is wrong with the line that was read last.
    pub fn bad(&self, reason: impl Into<String>) -> PortableError {
        PortableError::BadLine { file: self.name, line: self.number, reason: reason.into() }
    }
}

/// What the system says of the file.
#[allow(clippy::needless_pass_by_value, reason = "it is given to map_err")]
pub(super) fn unreadable(error: io::Error) -> PortableError {
    PortableError::Unreadable(error.to_string())
}
