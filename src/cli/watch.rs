//! `doorward watch`: prints recognition events as they arrive, and acts on them.
//!
//! In: filters, a place to begin. Out: one line an event, best shots as files, commands that run.
//! A connection that breaks is made again and the stream goes on after the last event: nothing is
//! missed or told twice. What cannot go on so is an error: a door must not go on as if nothing happened.
//! Drops: nothing; a picture that cannot be had is told on standard error and the event printed without.
//! Must not know: how events are made.

mod door;
mod place;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use prost_types::Timestamp;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::client::{ClientOptions, Daemon};
use super::event_filter::EventFilter;
use super::event_line;
use super::failure::{self, Unreachable};
use super::output::{Output, json, moment};
use crate::pb;
use crate::pb::subscribe_request::{Earliest, Now, Start};
use door::DaemonClock;
use place::Place;

/// How long the picture of an event is waited for: longer than the daemon waits for one that it has no room for yet.
const PICTURE_WAIT_MAX: Duration = Duration::from_secs(10);
/// The same where the next event may be one to act on. Drawing takes tens of milliseconds.
const PICTURE_WAIT_BEFORE_ACTING: Duration = Duration::from_millis(500);
/// How long a broken connection waits to be made again, at first and at the most: a door has seconds to
/// act.
const RECONNECT_AFTER: Duration = Duration::from_millis(250);
const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(1);

/// Prints recognition events as they arrive, until Ctrl-C
///
/// Every event from the beginning on arrives, in order, once, over restarts of the daemon too; with
/// --resume also over restarts of this command.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward watch
  doorward watch --camera front-door --type identified --type unidentified
  doorward watch --snapshots shots/
  doorward watch --watchlist staff --json | jq -r '.subject.id'
  doorward watch --from earliest --resume attendance.cursor --json | tee -a attendance.jsonl
  doorward watch --camera front-door --type identified --type reasserted --resume door.cursor --exec \"curl -fsSX POST http://127.0.0.1:8080/open\"

A command of --exec finds DOORWARD_TYPE, DOORWARD_CAMERA, DOORWARD_SUBJECT, DOORWARD_NAME, DOORWARD_VISIT,
DOORWARD_EPOCH, DOORWARD_SEQUENCE, DOORWARD_CURSOR and DOORWARD_ACTIONABLE_UNTIL in its environment, and the
whole event as JSON on its standard input.")]
pub struct Watch {
    #[command(flatten)]
    filter: EventFilter,
    /// Wait for cameras, people and lists that are not there yet, instead of refusing their names
    #[arg(long)]
    allow_missing: bool,
    /// Where to begin: now, earliest, or after the event with this cursor
    #[arg(long, value_name = "PLACE", default_value = "now")]
    from: String,
    /// Remember in this file how far the events were read, and go on from there the next time. One command
    /// a file; one that is killed may print its last events again, and never acts on one again
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Run this command (by sh) for each event of the given types: at most once for each event, and only
    /// before it expires (actionable_until)
    #[arg(long, value_name = "COMMAND", requires = "types")]
    exec: Option<String>,
    /// Fail when the connection breaks, instead of making it again
    #[arg(long)]
    no_reconnect: bool,
    /// Save each best shot (face and whole frame, JPEG) in this folder and print its path; with --exec, one that takes longer than half a
    /// second is left out, since the next event may be one to act on
    #[arg(long, value_name = "DIR")]
    snapshots: Option<PathBuf>,
}

/// Where the pictures of an event lie.
#[derive(Debug, PartialEq, Eq)]
struct Shots {
    face: PathBuf,
    frame: PathBuf,
}

impl Watch {
    /// Prints events until what is missed could not be made good.
    ///
    /// # Errors
    /// Always at the end: why the stream ended.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        if let Some(folder) = &self.snapshots {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        let mut place = Place::of(self.resume.clone())?;
        let mut wait = RECONNECT_AFTER;
        loop {
            let ended = match client.connect().await {
                Ok(daemon) => self.follow(&daemon, &mut place, *out).await,
                Err(error) => Err(error),
            };
            let Err(error) = ended else { return Ok(()) };
            // Before the first event a wrong address is told at once; later it is only a daemon that is away.
            if self.no_reconnect || !place.has_begun() || !is_passing(&error) {
                return Err(error);
            }
            if place.has_heard() {
                wait = RECONNECT_AFTER;
            }
            eprintln!("{}\n  connecting again in {wait:?}", failure::describe(&error).text);
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(RECONNECT_AFTER_MAX);
        }
    }

    /// Acts on events and prints them until the connection breaks.
    async fn follow(&self, daemon: &Daemon, place: &mut Place, out: Output) -> anyhow::Result<()> {
        // Another connection may be to a daemon whose clock was set meanwhile.
        let mut clock = DaemonClock::default();
        // However late the first answer comes, it was made after it was asked for.
        let mut asked = Some(door::running_time());
        let mut stream = daemon.events().subscribe(self.request(place)).await?.into_inner();
        if place.has_begun() {
            eprintln!("connected again; the stream goes on after the last event");
        }
        let mut was_full = false;
        while let Some(response) = stream.message().await? {
            if response.disk_full != was_full {
                was_full = response.disk_full;
                let now = if was_full {
                    "the daemon's disk is full: it tells nothing until there is room"
                } else {
                    "there is room on its disk again"
                };
                eprintln!("{now}");
            }
            clock.heard(response.server_time.as_ref(), asked.take().unwrap_or_else(door::running_time));
            for event in &response.events {
                if let Some(command) = &self.exec {
                    // Remembered first: a command that ends this machine is not run again after it.
                    place.reached(&event.cursor)?;
                    act(command, event, &clock).await?;
                }
                shown(out, event, response.server_time.as_ref(), self.kept_shots(daemon, event).await)?;
            }
            if let Some(position) = &response.position {
                place.reached(&position.cursor)?;
            }
        }
        Err(Status::unavailable("the daemon ended the stream").into())
    }

    fn request(&self, place: &Place) -> pb::SubscribeRequest {
        let start = match (place.cursor(), self.from.as_str()) {
            (Some(cursor), _) => Start::Cursor(cursor.to_owned()),
            (None, "now") => Start::Now(Now {}),
            (None, "earliest") => Start::Earliest(Earliest {}),
            (None, cursor) => Start::Cursor(cursor.to_owned()),
        };
        pb::SubscribeRequest {
            start: Some(start),
            camera_ids: self.filter.cameras.clone(),
            types: self.filter.wire_types(),
            subject_ids: self.filter.subjects.clone(),
            watchlists: self.filter.watchlists.clone(),
            // Whom it names was there when it began; if they are gone since, others may come.
            allow_missing: self.allow_missing || place.has_begun(),
        }
    }

    async fn kept_shots(&self, daemon: &Daemon, event: &pb::Event) -> Option<Shots> {
        let folder = self.snapshots.as_ref().filter(|_| !event.snapshot_id.is_empty())?;
        // The next event may be one to act on.
        let wait_max = if self.exec.is_some() { PICTURE_WAIT_BEFORE_ACTING } else { PICTURE_WAIT_MAX };
        kept_shots(daemon, (folder, wait_max), event).await
    }
}

/// Whether a failure passes by itself: the daemon is away, or the connection broke.
fn is_passing(error: &anyhow::Error) -> bool {
    if error.chain().any(|cause| cause.is::<Unreachable>()) {
        return true;
    }
    let status = error.chain().find_map(|cause| cause.downcast_ref::<Status>());
    // What the daemon refuses it gives a reason for; a transport that broke has none.
    status.is_some_and(|status| status.code() == Code::Unavailable || status.get_details_error_info().is_none())
}

/// Runs the command for an event that has not expired, and says what came of it.
async fn act(command: &str, event: &pb::Event, clock: &DaemonClock) -> anyhow::Result<()> {
    let Some(time_left) = clock.time_left(event, door::running_time()) else {
        eprintln!("not acted on, because it has expired: {}", event_line::line(event));
        return Ok(());
    };
    if let Err(error) = door::run(command, (event, &json("Event", event)?), time_left).await {
        eprintln!("error: {error:#}\n  the event is not acted on again: {}", event_line::line(event));
    }
    Ok(())
}

fn shown(out: Output, event: &pb::Event, server_time: Option<&Timestamp>, shots: Option<Shots>) -> anyhow::Result<()> {
    if out.json {
        let mut object = json("Event", event)?;
        object["server_time"] = server_time.map(ToString::to_string).into();
        if let Some(shots) = shots {
            for (field, file) in [("face_file", &shots.face), ("frame_file", &shots.frame)] {
                // A camera may keep the face alone.
                if file.exists() {
                    object[field] = file.display().to_string().into();
                }
            }
        }
        return out.object(&object);
    }
    let path = shots.map(|shots| format!(" → {}", shots.face.display())).unwrap_or_default();
    out.line(&format!("{}{path}", event_line::line(event)))
}

/// Fetches the pictures of an event. One that cannot be had is told, and the event goes on without.
async fn kept_shots(daemon: &Daemon, (folder, wait_max): (&Path, Duration), event: &pb::Event) -> Option<Shots> {
    let shots = shots_of(folder, event);
    let fetched = tokio::time::timeout(wait_max, fetch(daemon, &event.snapshot_id, &shots)).await;
    let fetched = fetched.map_err(|_| anyhow!("it is not there yet; `doorward snapshot {}` fetches it later", event.snapshot_id)).flatten();
    match fetched.context("the picture of an event") {
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
        if jpeg.is_empty() {
            continue;
        }
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
    fn who_is_gone_since_it_began_does_not_end_it() {
        use clap::Parser;
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            watch: Watch,
        }
        let watch = Line::parse_from(["watch", "--watchlist", "visitors"]).watch;
        let mut place = Place::of(None).expect("none yet");
        assert!(!watch.request(&place).allow_missing, "a name that was mistyped is told at once");
        place.reached("e-1").expect("nothing to write");
        assert!(watch.request(&place).allow_missing);
    }

    #[test]
    fn nothing_that_the_daemon_sends_leads_out_of_the_folder() {
        let event = pb::Event { camera_id: "../../etc".into(), snapshot_id: "/x\u{0}".into(), ..pb::Event::default() };
        let shots = shots_of(Path::new("shots"), &event);
        assert_eq!((shots.face.parent(), shots.frame.parent()), (Some(Path::new("shots")), Some(Path::new("shots"))));
        assert!(!shots.face.to_string_lossy().contains(".."), "{shots:?}");
    }
}
