//! `doorward camera`: adds, shows, watches, changes and removes cameras.
//!
//! In: options. Out: calls of `CameraService` and what came of them.
//! Drops: nothing. Passwords are read from files, standard input or the terminal, never printed.
//! Must not know: how cameras are watched.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use prost_types::FieldMask;

use super::camera_settings::{CameraSettings, without_credential};
use super::client::{ClientOptions, Daemon, request_id};
use super::failure::Usage;
use super::input::{CredentialOptions, write_picture};
use super::output::{Output, Table, moment, or_dash};
use super::telling_settings;
use crate::pb;

/// Adds, shows, watches, changes and removes cameras
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  doorward camera add front-door rtsp://192.0.2.7/stream1 --role entry
  doorward camera list
  doorward camera watch front-door")]
pub enum Camera {
    Add(Box<Add>),
    List(List),
    Show(Show),
    Watch(Watch),
    Update(Box<Update>),
    SetCredential(SetCredential),
    Frame(Frame),
    Remove(Remove),
}

/// Adds a camera and begins to watch it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward camera add front-door rtsp://192.0.2.7/stream1 --role entry
  doorward camera add yard rtsp://192.0.2.8/h264 --username admin          (asks for the password)
  pass cameras/yard | doorward camera add yard rtsp://192.0.2.8/h264 --username admin --password-file -
  doorward camera add hall rtsp://192.0.2.9/1 --zone desk=0.1,0.5:0.4,0.5:0.4,0.9:0.1,0.9")]
pub struct Add {
    /// The id you choose: a-z, 0-9 and '-'
    id: String,
    /// rtsp:// or rtsps://, without user and password
    url: String,
    #[command(flatten)]
    settings: CameraSettings,
    #[command(flatten)]
    credential: CredentialOptions,
    /// Keep the camera without watching it
    #[arg(long)]
    disabled: bool,
}

/// Lists the cameras and how they are doing
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward camera list
  doorward camera list --json | jq -r .camera.id")]
pub struct List {}

/// Shows one camera with all its settings
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward camera show front-door")]
pub struct Show {
    /// Which camera
    id: String,
}

/// Prints the state of cameras now and each change, and every 5 s the frame counts that changed, until Ctrl-C
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward camera watch
  doorward camera watch front-door yard --json")]
pub struct Watch {
    /// Which cameras; none means all
    ids: Vec<String>,
}

/// Changes settings of a camera; what is not named stays
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward camera update front-door --target-fpir 0.001 --detector-side 960
  doorward camera update front-door --reset target-fpir
  doorward camera update yard --url rtsp://192.0.2.80/h264 --enable

Another address, transport, role, line or zone, and disabling it, ends the visits there; everything else holds from the next frame on.")]
pub struct Update {
    /// Which camera
    id: String,
    /// Its new address, without user and password
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    settings: CameraSettings,
    /// Watch it again
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Keep it without watching it
    #[arg(long)]
    disable: bool,
    /// Back to the default (repeatable)
    #[arg(long, value_name = "SETTING")]
    reset: Vec<Resettable>,
    /// Refuse when the camera has changed since this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

/// A setting that has a default to go back to.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Resettable {
    Name,
    AnalysisFpsMax,
    DetectorSide,
    FacePixelsMin,
    Threshold,
    TargetFpir,
    RegionOfInterest,
    Lines,
    Zones,
    ActionableMs,
    Snapshots,
    BlurOthers,
    Rules,
}

/// Stores or removes the user name and password of a camera, which connects again with them
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward camera set-credential yard --username admin                     (asks for the password)
  doorward camera set-credential yard --username admin --password-file /run/secrets/yard
  doorward camera set-credential yard --remove")]
pub struct SetCredential {
    /// Which camera
    id: String,
    #[command(flatten)]
    credential: CredentialOptions,
    /// Forget the stored one
    #[arg(long, conflicts_with = "username")]
    remove: bool,
}

/// Saves the newest frame of a camera as JPEG
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward camera frame front-door -o now.jpg --boxes
  doorward camera frame front-door -o - | feh -")]
pub struct Frame {
    /// Which camera
    id: String,
    /// Where to, as JPEG; - is standard output [default: the camera's id with .jpg]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Draw the faces' boxes
    #[arg(long)]
    boxes: bool,
}

/// Stops watching a camera and forgets it
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  doorward camera remove yard")]
pub struct Remove {
    /// Which camera
    id: String,
    /// Refuse when the camera has changed since this etag
    #[arg(long, default_value = "", hide_default_value = true)]
    etag: String,
}

impl Camera {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, or that it cannot be reached.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        match self {
            Self::Add(add) => add.run(client, *out).await,
            Self::List(_) => list(&client.connect().await?, *out).await,
            Self::Show(show) => show.run(&client.connect().await?, *out).await,
            Self::Watch(watch) => watch.run(&client.connect().await?, *out).await,
            Self::Update(update) => update.run(client, *out).await,
            Self::SetCredential(set) => set.run(client, *out).await,
            Self::Frame(frame) => frame.run(&client.connect().await?, *out).await,
            Self::Remove(remove) => remove.run(&client.connect().await?, *out).await,
        }
    }
}

impl Add {
    async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let url = without_credential(self.url)?;
        let credential = self.credential.read()?;
        let mut camera = pb::Camera { id: self.id, url, disabled: self.disabled, ..pb::Camera::default() };
        self.settings.apply(&mut camera);
        let request = pb::CreateCameraRequest { camera: Some(camera), credential, request_id: request_id() };
        let camera = client.connect().await?.cameras().create_camera(request).await?.into_inner().camera.unwrap_or_default();
        if out.json {
            return out.message("Camera", &camera);
        }
        out.line(&format!("added camera {}; `doorward camera watch {}` shows how it is doing", camera.id, camera.id))
    }
}

async fn list(daemon: &Daemon, out: Output) -> anyhow::Result<()> {
    let mut request = pb::ListCamerasRequest::default();
    let mut cameras = Vec::new();
    loop {
        let page = daemon.cameras().list_cameras(request).await?.into_inner();
        cameras.extend(page.cameras);
        if page.next_page_token.is_empty() {
            break;
        }
        request = pb::ListCamerasRequest { page_token: page.next_page_token, ..pb::ListCamerasRequest::default() };
    }
    // The first message of the stream holds the state of every camera.
    let first = daemon.cameras().watch_cameras(pb::WatchCamerasRequest::default()).await?.into_inner().message().await?;
    let states: HashMap<String, pb::CameraStatus> =
        first.into_iter().flat_map(|response| response.statuses).map(|status| (status.camera_id.clone(), status)).collect();
    if out.json {
        return cameras.into_iter().try_for_each(|camera| {
            let status = states.get(&camera.id).cloned();
            out.message("GetCameraResponse", &pb::GetCameraResponse { camera: Some(camera), status })
        });
    }
    if cameras.is_empty() {
        return out.line("no cameras; add one with `doorward camera add ID URL`");
    }
    let mut table = Table::new(["ID", "ROLE", "STATE", "SINCE", "ANALYSED", "DROPPED", "URL"]);
    for camera in &cameras {
        let status = states.get(&camera.id);
        table.row([
            camera.id.clone(),
            short(camera.role().as_str_name(), "CAMERA_ROLE_"),
            status.map_or_else(|| "-".to_owned(), state),
            moment(status.and_then(|status| status.since.as_ref())),
            frames(status).map_or_else(|| "-".to_owned(), |frames| frames.analysed.to_string()),
            frames(status).map_or_else(|| "-".to_owned(), |frames| frames.dropped.values().sum::<u64>().to_string()),
            camera.url.clone(),
        ]);
    }
    out.table(&table)
}

fn frames(status: Option<&pb::CameraStatus>) -> Option<&pb::FrameCounts> {
    status.and_then(|status| status.frames.as_ref())
}

impl Show {
    async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let response = daemon.cameras().get_camera(pb::GetCameraRequest { id: self.id }).await?.into_inner();
        if out.json {
            return out.message("GetCameraResponse", &response);
        }
        let (camera, status) = (response.camera.unwrap_or_default(), response.status.unwrap_or_default());
        let number = |value: f64| if value == 0.0 { "(default)".to_owned() } else { value.to_string() };
        let mut table = Table::of_facts();
        table.fact("id", &camera.id);
        table.fact("name", &camera.display_name);
        table.fact("url", &camera.url);
        table.fact("credential", if camera.has_credential { "stored" } else { "none" });
        table.fact("role", short(camera.role().as_str_name(), "CAMERA_ROLE_"));
        table.fact("transport", short(camera.transport().as_str_name(), "CAMERA_TRANSPORT_"));
        table.fact("analysis fps max", number(camera.analysis_fps_max.into()));
        table.fact("detector side", number(camera.detector_side.into()));
        table.fact("face pixels min", number(camera.face_pixels_min.into()));
        let own = camera.threshold.map(|threshold| threshold.to_string());
        let own = own.or(camera.target_fpir.map(|rate| format!("for a false positive rate of {rate}")));
        table.fact("threshold", own.unwrap_or_else(|| "(default)".to_owned()));
        table.fact(
            "region of interest",
            camera.region_of_interest.as_ref().map(|r| format!("{},{},{},{}", r.x, r.y, r.width, r.height)).unwrap_or_default(),
        );
        table.fact("lines", regions(&camera.lines));
        table.fact("zones", regions(&camera.zones));
        table.fact("actionable ms", number(camera.actionable_ms.into()));
        table.fact("snapshots", short(camera.snapshots().as_str_name(), "SNAPSHOT_POLICY_"));
        table.fact("blur others", if camera.blur_others { "yes" } else { "" });
        table.fact("rules", telling_settings::written(&camera.rules));
        table.fact("state", format!("{} since {}", state(&status), moment(status.since.as_ref())));
        table.fact("why", &status.message);
        table.fact("what to do", advice(&status.reason));
        table.fact("frames", counts(&status));
        table.fact("created", moment(camera.create_time.as_ref()));
        table.fact("changed", moment(camera.update_time.as_ref()));
        table.fact("etag", &camera.etag);
        out.table(&table)
    }
}

fn regions(regions: &[pb::Region]) -> String {
    let corners = |region: &pb::Region| region.points.iter().map(|point| format!("{},{}", point.x, point.y)).collect::<Vec<_>>().join(":");
    regions.iter().map(|region| format!("{}={}", region.name, corners(region))).collect::<Vec<_>>().join(" ")
}

/// The lower-case end of a wire name: `CAMERA_ROLE_ENTRY` → `entry`.
fn short(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase().replace('_', "-")
}

fn state(status: &pb::CameraStatus) -> String {
    let name = status.connection().as_str_name().trim_start_matches("CAMERA_CONNECTION_");
    if status.reason.is_empty() { name.to_owned() } else { format!("{name} ({})", status.reason) }
}

/// What to do about a camera that is offline for `reason`.
fn advice(reason: &str) -> &'static str {
    match reason {
        "UNREACHABLE" => "check the camera's power, its address and the network between",
        "HOST_UNKNOWN" => "check the name in the URL, or write the address",
        "UNAUTHORISED" => "give its user and password: `doorward camera set-credential ID --username USER`",
        "UNTRUSTED" => "put its certificate, or its authority's, into the file of cameras.ca_file",
        "NOT_FOUND" => "check the path in the URL: `doorward camera update ID --url URL`",
        "NO_VIDEO" | "UNDECODABLE" => "let the camera send H.264 or H.265",
        "DISABLED" => "`doorward camera update ID --enable`",
        _ => "",
    }
}

fn counts(status: &pb::CameraStatus) -> String {
    let Some(frames) = &status.frames else { return String::new() };
    let mut dropped: Vec<_> =
        frames.dropped.iter().filter(|(_, count)| **count > 0).map(|(cause, count)| format!("{count} {cause}")).collect();
    dropped.sort();
    let dropped = if dropped.is_empty() { "0".to_owned() } else { dropped.join(", ") };
    format!("received {} analysed {} dropped {dropped}", frames.received, frames.analysed)
}

impl Watch {
    async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let request = pb::WatchCamerasRequest { camera_ids: self.ids };
        let mut stream = daemon.cameras().watch_cameras(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            for status in &response.statuses {
                if out.json {
                    out.message("CameraStatus", status)?;
                    continue;
                }
                let mut line = format!("{} {} {}", moment(response.server_time.as_ref()), status.camera_id, state(status));
                let next = status.next_attempt_time.as_ref().map(|time| moment(Some(time))).unwrap_or_default();
                let more = [(": ", status.message.as_str()), ("; what to do: ", advice(&status.reason)), ("; next attempt ", &next)];
                for (name, text) in more.into_iter().chain([("; ", counts(status).as_str())]).filter(|(_, text)| !text.is_empty()) {
                    line.push_str(name);
                    line.push_str(text);
                }
                out.line(&line)?;
            }
        }
        anyhow::bail!("the daemon ended the stream; run the command again to go on watching")
    }
}

impl Update {
    async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let mut camera = pb::Camera { id: self.id, etag: self.etag, disabled: self.disable, ..pb::Camera::default() };
        let mut paths = self.settings.apply(&mut camera);
        if let Some(url) = self.url {
            camera.url = without_credential(url)?;
            paths.push("url");
        }
        if self.enable || self.disable {
            paths.push("disabled");
        }
        for reset in self.reset {
            let path = reset.path();
            if paths.contains(&path) {
                return Err(Usage(format!("{path} is both set and reset: choose one")).into());
            }
            paths.push(path);
        }
        if paths.is_empty() {
            return Err(Usage("nothing to change: name a setting (`doorward camera update --help` lists them)".into()).into());
        }
        let update_mask = Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() });
        let request = pb::UpdateCameraRequest { camera: Some(camera), update_mask, request_id: request_id() };
        let camera = client.connect().await?.cameras().update_camera(request).await?.into_inner().camera.unwrap_or_default();
        if out.json {
            return out.message("Camera", &camera);
        }
        out.line(&format!("changed camera {}: {} (etag {})", camera.id, paths.join(", "), or_dash(&camera.etag)))?;
        if paths.contains(&"url") && !camera.has_credential {
            let id = &camera.id;
            out.line(&format!(
                "no credential is stored for its address: if it wants one, `doorward camera set-credential {id} --username USER`"
            ))?;
        }
        Ok(())
    }
}

impl Resettable {
    fn path(self) -> &'static str {
        match self {
            Self::Name => "display_name",
            Self::AnalysisFpsMax => "analysis_fps_max",
            Self::DetectorSide => "detector_side",
            Self::FacePixelsMin => "face_pixels_min",
            Self::Threshold => "threshold",
            Self::TargetFpir => "target_fpir",
            Self::RegionOfInterest => "region_of_interest",
            Self::Lines => "lines",
            Self::Zones => "zones",
            Self::ActionableMs => "actionable_ms",
            Self::Snapshots => "snapshots",
            Self::BlurOthers => "blur_others",
            Self::Rules => "rules",
        }
    }
}

impl SetCredential {
    async fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let credential = self.credential.read()?;
        if credential.is_none() && !self.remove {
            return Err(Usage("give --username USER, or --remove to forget the stored credential".into()).into());
        }
        let done = if credential.is_some() { "stored" } else { "removed" };
        let request = pb::SetCameraCredentialRequest { camera_id: self.id.clone(), credential, request_id: request_id() };
        let response = client.connect().await?.cameras().set_camera_credential(request).await?.into_inner();
        if out.json {
            return out.message("SetCameraCredentialResponse", &response);
        }
        out.line(&format!("{done} the credential of camera {}", self.id))
    }
}

impl Frame {
    async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let output = self.output.unwrap_or_else(|| format!("{}.jpg", self.id).into());
        let request = pb::GetFrameRequest { camera_id: self.id, draw_boxes: self.boxes };
        let response = daemon.cameras().get_frame(request).await?.into_inner();
        write_picture(&output, &response.jpeg)?;
        if output.as_os_str() == "-" {
            return Ok(());
        }
        let (time, faces) = (moment(response.capture_time.as_ref()), response.boxes.len());
        if out.json {
            return out.object(&serde_json::json!({ "file": output, "capture_time": time, "faces": faces }));
        }
        out.line(&format!("{} ({faces} faces, taken {time})", output.display()))
    }
}

impl Remove {
    async fn run(self, daemon: &Daemon, out: Output) -> anyhow::Result<()> {
        let request = pb::DeleteCameraRequest { id: self.id.clone(), etag: self.etag, request_id: request_id() };
        let response = daemon.cameras().delete_camera(request).await?.into_inner();
        if out.json {
            return out.message("DeleteCameraResponse", &response);
        }
        out.line(&format!("removed camera {}", self.id))
    }
}
