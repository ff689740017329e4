//! `doorward replay`: runs recordings through the pipeline and prints the events they give.
//!
//! In: videos, the daemon's configuration. Out: one JSON object an event, the same from run to run.
//! What differs between two runs by chance is left out: where the event stands in which log, and the
//! random ids of people.
//! Must not know: how anything is recognised.

mod expect;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::failure::{Told, Usage};
use super::output::{Output, json};
use super::serve::ConfigOptions;
use crate::app::{Recording, replay};
use crate::camera::{CameraId, Role};
use crate::clock::Timestamp;
use crate::rpc;

/// Runs recordings through the pipeline and prints the events as JSON lines
///
/// The same videos give the same events, byte for byte: their times are the videos', no frame is dropped,
/// and nothing is measured. The daemon may run meanwhile; nothing of its data is changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward replay monday.mp4 --config /etc/doorward/doorward.toml --camera front-door --as-fast-as-possible > monday.jsonl
  doorward replay monday.mp4 --camera front-door --as-fast-as-possible --expect monday.jsonl
  doorward replay clip.mp4 --people people/ --role entry --set models_dir=models --as-fast-as-possible")]
pub struct Replay {
    /// MP4, Matroska, raw H.264 or raw H.265 files, one after the other
    #[arg(required = true, value_name = "VIDEO")]
    videos: Vec<PathBuf>,
    /// The camera they are of: the daemon's own settings of it are used, if it has such a camera
    #[arg(long, value_name = "ID", default_value = "replay")]
    camera: String,
    /// What the camera looks at, in place of the daemon's own setting
    #[arg(long)]
    role: Option<SeenRole>,
    /// Smaller faces are ignored, in place of the daemon's own setting
    #[arg(long, value_name = "PIXELS")]
    face_pixels_min: Option<u32>,
    /// Who is known: an enrolment folder, in place of the daemon's own gallery
    #[arg(long, value_name = "DIR")]
    people: Option<PathBuf>,
    /// When the first video begins, which matters for schedules and for people who expire
    #[arg(long, value_name = "TIME", default_value = "2026-01-01T00:00:00Z")]
    begin: String,
    /// Do not keep to the videos' own pace
    #[arg(long)]
    as_fast_as_possible: bool,
    /// Compare with the events of an earlier run and print the differences instead: missed, false, late
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigOptions,
}

/// What a camera looks at.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum SeenRole {
    /// People come in here
    Entry,
    /// People leave here
    Exit,
    /// Anything else
    Interior,
}

impl Replay {
    /// Does what was asked.
    ///
    /// # Errors
    /// A wrong configuration, a video that cannot be read; or [`Told`] when events differ.
    pub fn run(self, out: Output) -> anyhow::Result<()> {
        let mut config = self.config.load()?;
        // Warnings are for people; what is asked for are the events.
        if config.log == crate::config::LogConfig::default() {
            config.log.filter = "warn".into();
        }
        let begin: prost_types::Timestamp =
            self.begin.parse().map_err(|_| Usage(format!("--begin {}: write it like 2026-01-01T00:00:00Z", self.begin)))?;
        let recording = Recording {
            videos: self.videos,
            camera: CameraId::parse(&self.camera).map_err(|error| Usage(format!("--camera: {error}")))?,
            role: self.role.map(|role| match role {
                SeenRole::Entry => Role::Entry,
                SeenRole::Exit => Role::Exit,
                SeenRole::Interior => Role::Interior,
            }),
            face_pixels_min: self.face_pixels_min,
            people: self.people,
            begin: Timestamp::from_micros(begin.seconds * 1_000_000 + i64::from(begin.nanos) / 1_000),
            as_fast_as_possible: self.as_fast_as_possible,
        };
        let expected = self.expect.map(|file| expect::read(&file)).transpose()?;
        let prints = expected.is_none();
        let told = Arc::new(Mutex::new(Vec::new()));
        let telling = Arc::clone(&told);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
        let outcome = runtime.block_on(replay(&config, &recording, move |logged, gallery| {
            let event = json("Event", &rpc::delivered(logged, gallery)).map(repeatable);
            let shown = event.and_then(|event| {
                if prints {
                    out.object(&event)?;
                }
                Ok(event)
            });
            telling.lock().unwrap_or_else(PoisonError::into_inner).push(shown);
        }));
        // A recording that was stopped in the middle is not waited for.
        runtime.shutdown_background();
        outcome?;
        let told: anyhow::Result<Vec<Value>> =
            std::mem::take(&mut *told.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect();
        let told = told?;
        let Some(expected) = expected else { return Ok(()) };
        let differences = expect::compare(&expected, &told);
        for difference in &differences {
            if out.json { out.object(&difference.json())? } else { out.line(&difference.line())? }
        }
        if differences.is_empty() {
            return if out.json { Ok(()) } else { out.line(&format!("{} events, as expected", told.len())) };
        }
        Err(Told.into())
    }
}

/// What is the same in every run.
fn repeatable(mut event: Value) -> Value {
    if let Some(fields) = event.as_object_mut() {
        for chance in ["epoch", "sequence", "cursor", "snapshot_id"] {
            fields.remove(chance);
        }
        for person in ["subject", "previous_subject"] {
            fields.get_mut(person).and_then(Value::as_object_mut).map(|person| person.remove("uid"));
        }
        let decision = fields.get_mut("decision").and_then(|decision| decision.get_mut("runner_up"));
        decision.and_then(Value::as_object_mut).map(|second| second.remove("subject_uid"));
    }
    event
}
