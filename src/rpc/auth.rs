//! Bearer tokens: who may call at all.
//!
//! In: the token file, the `authorization` header of a call. Out: let in, or a status.
//! Only SHA-256 hashes of the tokens are kept; comparing hashes tells a guesser nothing about the
//! token. Nothing of a token is ever printed.
//! Must not know: what the caller wants.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tonic::{Code, Request, Status};

use super::RpcError;
use super::status::Refusal;

/// The shortest token that is taken, in characters: `openssl rand -hex 16` gives 32.
pub const TOKEN_CHARS_MIN: usize = 16;

/// The tokens in force.
pub(super) struct Tokens {
    file: PathBuf,
    hashes: watch::Sender<Vec<[u8; 32]>>,
}

/// By which token a call was let in.
#[derive(Clone)]
pub(super) struct Admission {
    hash: [u8; 32],
    in_force: watch::Receiver<Vec<[u8; 32]>>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").finish_non_exhaustive()
    }
}

impl Admission {
    /// Whether it was by the same token.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.hash == other.hash
    }

    /// Whether the token still is one of those in force.
    pub(super) fn is_in_force(&self) -> bool {
        self.in_force.borrow().contains(&self.hash)
    }
}

/// How a call was let in; `None` where no tokens are asked for.
pub(super) fn admission<T>(request: &Request<T>) -> Option<Admission> {
    request.extensions().get::<Admission>().cloned()
}

/// Waits until the token that a stream was begun with is no longer in force.
pub(super) async fn revoked(admission: Option<Admission>) {
    let Some(Admission { hash, mut in_force }) = admission else { return std::future::pending().await };
    if in_force.wait_for(|hashes| !hashes.contains(&hash)).await.is_err() {
        // The server is ending, and ends its streams itself.
        std::future::pending::<()>().await;
    }
}

/// What a stream ends with when its token was taken away.
pub(super) fn no_longer_admitted() -> Status {
    Refusal::new(Code::Unauthenticated, "TOKEN_REVOKED", "the token that this stream was begun with is no longer in force").into()
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads `file`.
    ///
    /// # Errors
    /// [`RpcError`] when it cannot be read, others may read it, or it holds no usable token.
    pub(super) fn load(file: &Path) -> Result<Self, RpcError> {
        Ok(Self { file: file.into(), hashes: watch::Sender::new(read(file)?) })
    }

    /// Reads the file again. On an error the old tokens stay in force. Streams that were begun with
    /// a token that is gone are ended; other calls under way go on.
    pub(super) fn reload(&self) -> Result<(), RpcError> {
        self.hashes.send_replace(read(&self.file)?);
        Ok(())
    }

    /// Lets a call with this `authorization` header in, or says why not.
    pub(super) fn admit(&self, header: Option<&[u8]>) -> Result<Admission, Status> {
        let token = header.and_then(bearer).ok_or_else(|| {
            Refusal::new(Code::Unauthenticated, "TOKEN_MISSING", "a token is needed: send the metadata `authorization: Bearer <token>`")
        })?;
        let hash: [u8; 32] = Sha256::digest(token).into();
        if self.hashes.borrow().contains(&hash) {
            return Ok(Admission { hash, in_force: self.hashes.subscribe() });
        }
        Err(Refusal::new(Code::Unauthenticated, "TOKEN_UNKNOWN", "the token is not known; the daemon's token_file lists those that are")
            .into())
    }
}

/// The token of a header `Bearer <token>`; the scheme is read without regard to case (RFC 9110).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token.trim_ascii())
}

fn read(path: &Path) -> Result<Vec<[u8; 32]>, RpcError> {
    let unreadable = |source| RpcError::Unreadable { key: "server.token_file", path: path.into(), source };
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    // The opened file's own mode, so that no other file can be slipped in between.
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
    // The group may read: root writes the file, and the daemon is in its group.
    if mode & 0o037 != 0 {
        return Err(RpcError::TokensOpen { path: path.into(), mode });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let hashes = lines
        .map(|(index, token)| {
            let bad = |reason| RpcError::BadToken { path: path.into(), line: index + 1, reason };
            match token {
                _ if token.len() < TOKEN_CHARS_MIN => Err(bad("is shorter than 16 characters")),
                _ if !token.bytes().all(|b| b.is_ascii_graphic()) => Err(bad("holds a space or a character that is not printable ASCII")),
                _ => Ok(Sha256::digest(token).into()),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    if hashes.is_empty() {
        return Err(RpcError::NoToken { path: path.into() });
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FIRST: &str = "0123456789abcdef-first";
    const SECOND: &str = "0123456789abcdef-second";

    fn file(directory: &tempfile::TempDir, text: &str, mode: u32) -> PathBuf {
        let path = directory.path().join("tokens");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
        path
    }

    #[test]
    fn only_a_known_token_is_let_in() {
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = Tokens::load(&file(&directory, &format!("# door controller\n\n{FIRST}\n  {SECOND}  \n"), 0o600)).expect("loaded");
        for header in [format!("Bearer {FIRST}"), format!("bearer {SECOND}")] {
            assert!(tokens.admit(Some(header.as_bytes())).is_ok());
        }
        for header in
            ["", "Bearer", "Bearer ", FIRST, "Basic 0123456789abcdef-first", "Bearer # door controller", "Bearer 0123456789abcdef"]
        {
            let status = tokens.admit(Some(header.as_bytes())).expect_err(header);
            assert_eq!(status.code(), Code::Unauthenticated);
        }
        assert!(tokens.admit(None).is_err());
    }

    #[test]
    fn a_reload_takes_new_tokens_and_drops_old_ones() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = file(&directory, FIRST, 0o600);
        let tokens = Tokens::load(&path).expect("loaded");
        fs::write(&path, SECOND).expect("written");
        tokens.reload().expect("reloaded");
        let admitted = |token: &str| tokens.admit(Some(format!("Bearer {token}").as_bytes())).is_ok();
        assert!(!admitted(FIRST) && admitted(SECOND));
        fs::write(&path, "# nobody").expect("written");
        assert!(matches!(tokens.reload(), Err(RpcError::NoToken { .. })));
        assert!(admitted(SECOND), "a bad file leaves the old tokens in force");
    }

    #[tokio::test]
    async fn a_stream_is_ended_when_its_token_is_taken_away_and_not_before() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = file(&directory, &format!("{FIRST}\n{SECOND}"), 0o600);
        let tokens = Tokens::load(&path).expect("loaded");
        let admitted = |token: &str| tokens.admit(Some(format!("Bearer {token}").as_bytes())).ok();
        let (first, second) = (tokio::spawn(revoked(admitted(FIRST))), tokio::spawn(revoked(admitted(SECOND))));
        fs::write(&path, SECOND).expect("written");
        tokens.reload().expect("reloaded");
        first.await.expect("it is told");
        assert!(!second.is_finished());
    }

    #[test]
    fn a_token_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        for mode in [0o644, 0o660, 0o604] {
            let error = Tokens::load(&file(&directory, FIRST, mode)).expect_err("open to others");
            assert!(error.to_string().contains("chmod 640"), "{error}");
        }
    }

    #[test]
    fn no_error_and_no_debug_output_holds_a_token() {
        let directory = tempfile::tempdir().expect("a directory");
        let tokens = Tokens::load(&file(&directory, FIRST, 0o600)).expect("loaded");
        let status = tokens.admit(Some(b"Bearer wrong-but-secret-token")).expect_err("unknown");
        let short = Tokens::load(&file(&directory, "short-secret", 0o600)).expect_err("too short");
        let spaced = Tokens::load(&file(&directory, "a-token-with a-secret-space", 0o600)).expect_err("holds a space");
        let printed = format!("{tokens:?} {status:?} {short} {short:?} {spaced} {spaced:?}");
        assert!(!printed.contains("secret") && !printed.contains(FIRST), "{printed}");
    }
}
