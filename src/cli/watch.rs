//! `doorward watch`: prints recognition events as they arrive.
//!
//! In: filters. Out: one line an event, and best shots as files.
//! Drops: nothing; a picture that cannot be had is told on standard error and the event printed
//! without. A stream that ends is an error: a door must not go on as if nothing happened.
//! Must not know: how events are made.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use prost_types::Timestamp;

use super::client::{ClientOptions, Daemon};
use super::event_line;
use super::failure;
use super::output::{Output, json, moment};
use crate::pb;

/// Prints recognition events as they arrive, until Ctrl-C
///
/// Every event from now on arrives, in order, once. When the daemon ends the stream the command
/// fails and says why; what happens until it runs again is not printed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward watch
  doorward watch --camera front-door --type identified --type unidentified
  doorward watch --snapshots shots/
  doorward watch --watchlist staff --json | jq -r '.subject.id'")]
pub struct Watch {
    /// Only events of this camera (repeatable)
    #[arg(long = "camera", value_name = "ID")]
    cameras: Vec<String>,
    /// Only events of this type (repeatable)
    #[arg(long = "type", value_name = "TYPE", value_parser = type_parser())]
    types: Vec<pb::EventType>,
    /// Only events of this person (repeatable)
    #[arg(long = "subject", value_name = "ID")]
    subjects: Vec<String>,
    /// Only events of people on this list (repeatable)
    #[arg(long = "watchlist", value_name = "LIST")]
    watchlists: Vec<String>,
    /// Save each best shot (face and whole frame, JPEG) in this folder and print its path
    #[arg(long, value_name = "DIR")]
    snapshots: Option<PathBuf>,
}

/// The types of events by the names they are asked for with: the wire's, without its prefix.
const TYPES: [&str; 13] = [
    "visit-started",
    "identified",
    "reasserted",
    "unidentified",
    "identity-revised",
    "entry",
    "exit",
    "zone-entered",
    "zone-left",
    "visit-ended",
    "camera-online",
    "camera-offline",
    "gallery-changed",
];

fn type_of(name: &str) -> Option<pb::EventType> {
    pb::EventType::from_str_name(&format!("EVENT_TYPE_{}", name.to_ascii_uppercase().replace('-', "_")))
}

fn type_parser() -> impl TypedValueParser<Value = pb::EventType> {
    PossibleValuesParser::new(TYPES).try_map(|name| type_of(&name).ok_or("no such type of event"))
}

/// Where the pictures of an event lie.
#[derive(Debug, PartialEq, Eq)]
struct Shots {
    face: PathBuf,
    frame: PathBuf,
}

impl Watch {
    /// Prints events until the stream ends.
    ///
    /// # Errors
    /// Always at the end: why the stream ended.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        if let Some(folder) = &self.snapshots {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let daemon = client.connect().await?;
        let request = pb::SubscribeRequest {
            start: Some(pb::subscribe_request::Start::Now(pb::subscribe_request::Now {})),
            camera_ids: self.cameras,
            types: self.types.into_iter().map(Into::into).collect(),
            subject_ids: self.subjects,
            watchlists: self.watchlists,
        };
        let mut stream = daemon.events().subscribe(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            for event in &response.events {
                let shots = match &self.snapshots {
                    Some(folder) if !event.snapshot_id.is_empty() => kept_shots(&daemon, folder, event).await,
                    _ => None,
                };
                shown(*out, event, response.server_time.as_ref(), shots)?;
            }
        }
        anyhow::bail!("the daemon ended the stream; run the command again to go on watching")
    }
}

fn shown(out: Output, event: &pb::Event, server_time: Option<&Timestamp>, shots: Option<Shots>) -> anyhow::Result<()> {
    if out.json {
        let mut object = json("Event", event)?;
        object["server_time"] = server_time.map(ToString::to_string).into();
        if let Some(shots) = shots {
            object["face_file"] = shots.face.display().to_string().into();
            object["frame_file"] = shots.frame.display().to_string().into();
        }
        return out.object(&object);
    }
    let path = shots.map(|shots| format!(" → {}", shots.face.display())).unwrap_or_default();
    out.line(&format!("{}{path}", event_line::line(event)))
}

/// Fetches the pictures of an event. One that cannot be had is told, and the event goes on without.
async fn kept_shots(daemon: &Daemon, folder: &Path, event: &pb::Event) -> Option<Shots> {
    let shots = shots_of(folder, event);
    match fetch(daemon, &event.snapshot_id, &shots).await.context("the picture of an event") {
        Ok(()) => Some(shots),
        Err(error) => {
            eprintln!("{}", failure::describe(&error).text);
            None
        }
    }
}

fn shots_of(folder: &Path, event: &pb::Event) -> Shots {
    // What the daemon sends becomes part of a path: only what cannot lead out of the folder stays.
    let safe = |text: &str| text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect::<String>();
    let stem = format!("{}-{}-{}", safe(&moment(event.capture_time.as_ref())), safe(&event.camera_id), safe(&event.snapshot_id));
    Shots { face: folder.join(format!("{stem}-face.jpg")), frame: folder.join(format!("{stem}-frame.jpg")) }
}

async fn fetch(daemon: &Daemon, snapshot_id: &str, shots: &Shots) -> anyhow::Result<()> {
    let request = pb::GetSnapshotRequest { snapshot_id: snapshot_id.to_owned() };
    let response = daemon.events().get_snapshot(request).await?.into_inner();
    for (file, jpeg) in [(&shots.face, &response.crop_jpeg), (&shots.frame, &response.frame_jpeg)] {
        // Whoever follows the printed path must never find half a picture.
        let part = file.with_extension("part");
        let written = std::fs::write(&part, jpeg).and_then(|()| std::fs::rename(&part, file));
        written.with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_event_can_be_asked_for_by_its_name() {
        let every: Vec<_> = (1..).map_while(|number| pb::EventType::try_from(number).ok()).map(Some).collect();
        assert_eq!(TYPES.map(type_of).to_vec(), every);
        assert_eq!(type_of("camera-offline"), Some(pb::EventType::CameraOffline));
    }

    #[test]
    fn nothing_that_the_daemon_sends_leads_out_of_the_folder() {
        let event = pb::Event { camera_id: "../../etc".into(), snapshot_id: "/x\u{0}".into(), ..pb::Event::default() };
        let shots = shots_of(Path::new("shots"), &event);
        assert_eq!((shots.face.parent(), shots.frame.parent()), (Some(Path::new("shots")), Some(Path::new("shots"))));
        assert!(!shots.face.to_string_lossy().contains(".."), "{shots:?}");
    }
}
