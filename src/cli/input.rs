//! Reads what commands are given beside their options: photos, passwords, moments, pairs.
//!
//! In: files, standard input, the terminal, texts. Out: values.
//! Drops: the line end of a password. A password never comes from the arguments, where every user
//! of the machine could see it.
//! Must not know: what the values are for.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use prost_types::Timestamp;

use super::failure::Usage;
use crate::camera::Secret;
use crate::pb;

/// The bytes of a photo.
///
/// # Errors
/// What the system says, with the file's name.
pub fn read_photo(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("cannot read photo {}", file.display()))
}

/// Writes `bytes` to `file`, or to standard output when it is `-`.
///
/// # Errors
/// What the system says, with the file's name.
pub fn write_picture(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if file == Path::new("-") {
        use std::io::Write;
        std::io::stdout().lock().write_all(bytes)?;
        return Ok(());
    }
    std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
}

/// A camera's user name and where its password comes from.
#[derive(Debug, Args)]
pub struct CredentialOptions {
    /// The camera's user name; the password is asked for, or read from --password-file
    #[arg(long, value_name = "USER")]
    pub username: Option<String>,
    /// A file whose first line is the camera's password; - reads it from standard input
    #[arg(long, value_name = "FILE", requires = "username")]
    pub password_file: Option<PathBuf>,
}

impl CredentialOptions {
    /// The credential, if a user name was given.
    ///
    /// # Errors
    /// The file cannot be read, or nobody is there to be asked.
    pub fn read(&self) -> anyhow::Result<Option<pb::CameraCredential>> {
        let Some(username) = &self.username else { return Ok(None) };
        let password = match &self.password_file {
            Some(file) if file == Path::new("-") => {
                first_line(std::io::stdin().lock()).context("cannot read the password from standard input")?
            }
            Some(file) => {
                let named = || format!("cannot read --password-file {}", file.display());
                let opened = std::fs::File::open(file).with_context(named)?;
                first_line(std::io::BufReader::new(opened)).with_context(named)?
            }
            None => ask_password(username)?,
        };
        Ok(Some(pb::CameraCredential { username: username.clone(), password: password.reveal().to_owned() }))
    }
}

fn first_line(mut reader: impl BufRead) -> std::io::Result<Secret> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}

fn ask_password(username: &str) -> anyhow::Result<Secret> {
    if !std::io::stdin().is_terminal() {
        return Err(Usage(
            "no terminal to ask for the password on: give it with --password-file FILE, or --password-file - for standard input".into(),
        )
        .into());
    }
    eprint!("Password of {username}: ");
    let line = console::Term::stderr().read_secure_line().context("cannot read the password")?;
    Ok(Secret::new(&line))
}

/// `name=value`.
///
/// # Errors
/// There is no `=`, or nothing before it.
pub fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// A moment in RFC 3339, or a day, which means its first moment, 00:00 UTC.
///
/// # Errors
/// The text is neither.
pub fn parse_moment(text: &str) -> Result<Timestamp, String> {
    let wrong = "write it like 2027-01-31T18:00:00Z or 2027-01-31";
    let whole = if text.contains(['T', 't', ' ']) { text.to_owned() } else { format!("{text}T00:00:00Z") };
    whole.parse().map_err(|_| wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_day_or_rfc_3339() {
        let seconds = |text: &str| parse_moment(text).map(|moment| moment.seconds);
        assert_eq!(seconds("1970-01-02"), Ok(86_400));
        assert_eq!(seconds("1970-01-01T01:00:00+01:00"), Ok(0));
        assert_eq!(seconds("1970-01-01T00:00:10Z"), Ok(10));
        for wrong in ["", "tomorrow", "31.01.2027", "2027-13-01"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_is_one_line_with_its_spaces() {
        let read = |text: &str| first_line(text.as_bytes()).expect("a line").reveal().to_owned();
        assert_eq!(read(" two words \r\nnext"), " two words ");
        assert_eq!(read("bare"), "bare");
    }

    #[test]
    fn a_pair_needs_a_name() {
        assert_eq!(parse_pair("floor=3=b"), Ok(("floor".into(), "3=b".into())));
        assert!(parse_pair("=x").is_err() && parse_pair("x").is_err());
    }
}
