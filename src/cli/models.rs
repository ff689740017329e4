//! `doorward models`: what must be there, whether it is, and preparing it. Works without a daemon.
//!
//! In: the models directory. Out: a table of files, verdicts, rewritten graphs.
//! Drops: nothing.
//! Must not know: how graphs are rewritten.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::Told;
use super::output::{Output, Table, progress};
use super::serve::ConfigOptions;
use crate::models::{Listed, Manifest, Role, Sound, TRAINED_HERE};

/// Lists, checks and prepares the models (no daemon needed)
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  doorward models list --models-dir models
  doorward models verify
  doorward models install")]
pub enum Models {
    List(List),
    Verify(Verify),
    Install(Install),
}

/// Lists what the manifest names: role, file, size, licence, source
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward models list --models-dir models\n  doorward models list --json | jq -r .sha256")]
pub struct List {
    #[command(flatten)]
    place: Place,
}

/// Compares every file with what was published, byte by byte
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  doorward models verify --models-dir models\n  doorward models verify --config /etc/doorward/doorward.toml"
)]
pub struct Verify {
    #[command(flatten)]
    place: Place,
}

/// Rewrites each graph once for this machine's runtime
///
/// The published files stay as they are. `doorward serve` does the same when it has to.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward models install --models-dir models\n  sudo -u doorward doorward models install")]
pub struct Install {
    #[command(flatten)]
    place: Place,
}

/// Where the models lie.
#[derive(Debug, Args)]
struct Place {
    /// The folder with manifest.toml; else models_dir of the configuration
    #[arg(long, value_name = "DIR")]
    models_dir: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigOptions,
}

impl Place {
    fn manifest(&self) -> anyhow::Result<Manifest> {
        let dir = match &self.models_dir {
            Some(dir) => dir.clone(),
            None => self.config.load()?.models_dir,
        };
        Ok(Manifest::load(&dir)?)
    }
}

impl Models {
    /// Does what was asked.
    ///
    /// # Errors
    /// A wrong configuration or manifest, or files that are not as they were published.
    pub fn run(self, out: &Output) -> anyhow::Result<()> {
        match self {
            Self::List(list) => shown(*out, &list.place.manifest()?),
            Self::Verify(verify) => verified(*out, &verify.place.manifest()?),
            Self::Install(install) => installed(*out, &install.place.manifest()?),
        }
    }
}

fn object(listed: &Listed) -> serde_json::Value {
    json!({
        "role": listed.role.name(), "name": listed.name, "file": listed.path, "bytes": listed.bytes, "sha256": listed.sha256,
        "licence": listed.licence, "credit": listed.credit, "source": listed.source, "installed": listed.is_installed(),
    })
}

fn shown(out: Output, manifest: &Manifest) -> anyhow::Result<()> {
    if out.json {
        return manifest.list().iter().try_for_each(|listed| out.object(&object(listed)));
    }
    let mut table = Table::new(["ROLE", "NAME", "BYTES", "LICENCE", "SOURCE", "FILE"]);
    for listed in manifest.list() {
        let file = if listed.is_installed() { listed.path.display().to_string() } else { absent(&listed) };
        table.row([listed.role.name().to_owned(), listed.name, listed.bytes.to_string(), listed.licence, listed.source, file]);
    }
    out.table(&table)
}

/// What is told in place of a file that is not there.
fn absent(listed: &Listed) -> String {
    let mend = match &*listed.source {
        TRAINED_HERE => "it was trained here: put it back, or train another",
        _ if listed.is_optional => "optional; script/bootstrap --gpu takes it",
        _ => "script/bootstrap takes it",
    };
    format!("{} (not installed: {mend})", listed.path.display())
}

fn verified(out: Output, manifest: &Manifest) -> anyhow::Result<()> {
    let mut all_good = true;
    for verified in manifest.verify() {
        all_good &= verified.outcome.is_ok();
        let is_absent = matches!(verified.outcome, Ok(Sound::NotInstalled));
        let complaint = verified.outcome.err().map(|error| error.to_string());
        if out.json {
            let mut object = object(&verified.listed);
            object["good"] = (complaint.is_none() && !is_absent).into();
            object["complaint"] = complaint.into();
            out.object(&object)?;
            continue;
        }
        match complaint {
            None if is_absent => out.line(&format!("absent  {} {}", verified.listed.role.name(), absent(&verified.listed)))?,
            None => out.line(&format!("good    {} {}", verified.listed.role.name(), verified.listed.path.display()))?,
            Some(complaint) => out.line(&format!("broken  {} {complaint}", verified.listed.role.name()))?,
        }
    }
    if all_good { Ok(()) } else { Err(Told.into()) }
}

fn installed(out: Output, manifest: &Manifest) -> anyhow::Result<()> {
    let encoders = manifest.encoders.iter().map(|encoder| (Role::Encoder, Some(encoder.model.name.as_str())));
    let antispoof = manifest.antispoof.iter().map(|_| (Role::Antispoof, None));
    let models: Vec<_> = std::iter::once((Role::Detector, None)).chain(encoders).chain(antispoof).collect();
    let bar = progress(models.len(), "rewriting");
    for (role, encoder) in models {
        let installed = manifest.clone().with_encoder(encoder)?.prepared(role)?;
        bar.inc(1);
        let path = installed.path.display().to_string();
        bar.suspend(|| {
            if out.json {
                return out.object(&json!({ "role": role.name(), "name": installed.name, "file": path, "written": installed.written }));
            }
            let done = match (installed.written, role) {
                (true, _) => "rewritten",
                (false, Role::Antispoof) => "as published",
                (false, _) => "was there",
            };
            out.line(&format!("{done}  {} {} {path}", role.name(), installed.name))
        })?;
    }
    bar.finish_and_clear();
    Ok(())
}
