//! Cameras and their states between wire and domain.
//!
//! In: what an operator asks for, what the cameras answer. Out: the other. A refusal names the
//! field and never repeats a URL, which may hold a password in the wrong place.
//! Must not know: how a camera is watched.

use std::collections::BTreeMap;

use tonic::Status;
use url::Url;

use super::super::status::{Refusal, bad_field};
use super::subject::paths;
use super::{telling, time};
use crate::camera::{
    Camera, CameraId, CameraState, Credential, Decoding, FACE_PIXELS_MIN_DEFAULT, NormalisedPoint, NormalisedRect, OfflineReason, Region,
    Role, Secret, Transport, holds_credential,
};
use crate::cameras::CameraStatus;
use crate::clock::Timestamp;
use crate::event::BoxInFrame;
use crate::pb;
use crate::telling::Telling;

/// What `UpdateCamera` can change; an empty mask or `*` means all.
const MUTABLE: [&str; 17] = [
    "url",
    "display_name",
    "role",
    "transport",
    "lines",
    "zones",
    "analysis_fps_max",
    "detector_side",
    "region_of_interest",
    "face_pixels_min",
    "threshold",
    "target_fpir",
    "disabled",
    "actionable_ms",
    "snapshots",
    "blur_others",
    "rules",
];
/// The most bytes of a user name or a password.
const CREDENTIAL_BYTES_MAX: usize = 256;

/// A change of a camera, to be applied under the cameras' lock; they check the ranges then.
pub(in super::super) type Change = Box<dyn FnOnce(&mut Camera) + Send>;

/// A camera id that a client stated in `field`.
pub(in super::super) fn camera_id(text: &str, field: &str) -> Result<CameraId, Status> {
    CameraId::parse(text).map_err(|error| Refusal::invalid("BAD_CAMERA_ID", error).field(field).into())
}

/// A new camera as an operator asks for it; times, revision and credential are set by `cameras`.
pub(in super::super) fn new_camera(wire: &pb::Camera) -> Result<Camera, Status> {
    let mut camera = Camera {
        id: camera_id(&wire.id, "camera.id")?,
        url: url(&wire.url)?,
        has_credential: false,
        display_name: String::new(),
        role: Role::default(),
        transport: Transport::default(),
        lines: Vec::new(),
        zones: Vec::new(),
        telling: Telling::default(),
        analysis_fps_max: None,
        detector_side: None,
        region_of_interest: None,
        face_pixels_min: FACE_PIXELS_MIN_DEFAULT,
        threshold: None,
        target_fpir: None,
        enabled: true,
        create_time: Timestamp::default(),
        update_time: Timestamp::default(),
        revision: 0,
    };
    change(wire, None)?(&mut camera);
    Ok(camera)
}

/// The change that sets the fields which `mask` names to what `wire` states.
pub(in super::super) fn change(wire: &pb::Camera, mask: Option<prost_types::FieldMask>) -> Result<Change, Status> {
    let paths = paths(mask, &MUTABLE)?;
    if let (true, Some(_), Some(_)) =
        (["threshold", "target_fpir"].iter().all(|path| paths.contains(path)), wire.threshold, wire.target_fpir)
    {
        return Err(bad("target_fpir", "a rate and a threshold at once: give the one that is to hold"));
    }
    let changes = paths.into_iter().map(|path| field_change(path, wire)).collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(move |camera| changes.into_iter().for_each(|apply| apply(camera))))
}

fn field_change(path: &str, wire: &pb::Camera) -> Result<Change, Status> {
    Ok(match path {
        "url" => set(url(&wire.url)?, |camera, url| camera.url = url),
        "display_name" => set(wire.display_name.clone(), |camera, name| camera.display_name = name),
        "role" => set(role(wire.role)?, |camera, role| camera.role = role),
        "transport" => set(transport(wire.transport)?, |camera, transport| camera.transport = transport),
        "lines" => set(regions(&wire.lines), |camera, lines| camera.lines = lines),
        "zones" => set(regions(&wire.zones), |camera, zones| camera.zones = zones),
        "analysis_fps_max" => set(wire.analysis_fps_max, |camera, fps| camera.analysis_fps_max = (fps != 0.0).then_some(fps)),
        "detector_side" => set(wire.detector_side, |camera, side| camera.detector_side = (side != 0).then_some(side)),
        "region_of_interest" => set(wire.region_of_interest, |camera, area| {
            camera.region_of_interest = area.map(|a| NormalisedRect { x: a.x, y: a.y, width: a.width, height: a.height });
        }),
        "face_pixels_min" => set(wire.face_pixels_min, |camera, pixels| {
            camera.face_pixels_min = if pixels == 0 { FACE_PIXELS_MIN_DEFAULT } else { pixels };
        }),
        // Of the two, what was set last holds.
        "threshold" => set(wire.threshold, |camera, threshold| {
            camera.threshold = threshold;
            camera.target_fpir = camera.target_fpir.filter(|_| threshold.is_none());
        }),
        "target_fpir" => set(wire.target_fpir, |camera, rate| {
            camera.target_fpir = rate;
            camera.threshold = camera.threshold.filter(|_| rate.is_none());
        }),
        "disabled" => set(!wire.disabled, |camera, enabled| camera.enabled = enabled),
        "actionable_ms" => set(wire.actionable_ms, |camera, ms| camera.telling.actionable_ms = (ms != 0).then_some(ms)),
        "snapshots" => set(telling::snapshots(wire.snapshots)?, |camera, policy| camera.telling.snapshots = policy),
        "blur_others" => set(wire.blur_others, |camera, blur| camera.telling.blur_others = blur),
        "rules" => set(telling::rules(&wire.rules)?, |camera, rules| camera.telling.rules = rules),
        other => return Err(bad_field("update_mask", format!("{other:?} cannot be changed")).into()),
    })
}

fn set<T: Send + 'static>(value: T, apply: fn(&mut Camera, T)) -> Change {
    Box::new(move |camera| apply(camera, value))
}

pub(super) fn bad(field: &str, why: &str) -> Status {
    let field = format!("camera.{field}");
    Refusal::invalid("BAD_CAMERA", format!("{field}: {why}")).field(field).into()
}

fn url(text: &str) -> Result<Url, Status> {
    let refuse = |why| Err(Refusal::invalid("BAD_CAMERA_URL", format!("camera.url: {why}")).field("camera.url").into());
    let Ok(url) = Url::parse(text) else { return refuse("is no URL; use rtsp://host[:port]/path") };
    if holds_credential(&url) {
        let why = "camera.url: holds a user name, password or token; give the URL without, and the credential in `credential`";
        return Err(Refusal::invalid("CREDENTIAL_IN_URL", why).field("camera.url").into());
    }
    match url.scheme() {
        "rtsp" | "rtsps" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(url),
        "rtsp" | "rtsps" => refuse("names no host; use rtsp://host[:port]/path"),
        _ => refuse("must begin with rtsp:// or rtsps://"),
    }
}

fn role(wire: i32) -> Result<Role, Status> {
    match pb::CameraRole::try_from(wire) {
        Ok(pb::CameraRole::Unspecified) => Ok(Role::default()),
        Ok(pb::CameraRole::Entry) => Ok(Role::Entry),
        Ok(pb::CameraRole::Exit) => Ok(Role::Exit),
        Ok(pb::CameraRole::Interior) => Ok(Role::Interior),
        Err(_) => Err(bad("role", "is not one of entry, exit, interior")),
    }
}

fn transport(wire: i32) -> Result<Transport, Status> {
    match pb::CameraTransport::try_from(wire) {
        Ok(pb::CameraTransport::Unspecified) => Ok(Transport::default()),
        Ok(pb::CameraTransport::Tcp) => Ok(Transport::Tcp),
        Ok(pb::CameraTransport::Udp) => Ok(Transport::Udp),
        Err(_) => Err(bad("transport", "is not one of tcp, udp")),
    }
}

fn regions(wire: &[pb::Region]) -> Vec<Region> {
    let region = |region: &pb::Region| Region {
        name: region.name.clone(),
        points: region.points.iter().map(|p| NormalisedPoint { x: p.x, y: p.y }).collect(),
    };
    wire.iter().map(region).collect()
}

/// A user name and password, which go no further than the store.
pub(in super::super) fn credential(wire: Option<pb::CameraCredential>) -> Result<Option<Credential>, Status> {
    let Some(wire) = wire else { return Ok(None) };
    let allowed = |text: &str| text.len() <= CREDENTIAL_BYTES_MAX && !text.chars().any(char::is_control);
    if wire.username.is_empty() || !allowed(&wire.username) || !allowed(&wire.password) {
        let why = "needs a user name; name and password have at most 256 bytes and no control characters";
        return Err(bad_field("credential", why).into());
    }
    Ok(Some(Credential { username: wire.username, password: Secret::new(&wire.password) }))
}

/// A camera as the wire has it: never with its credential.
pub(in super::super) fn camera(camera: Camera) -> pb::Camera {
    let regions = |regions: Vec<Region>| {
        let region = |region: Region| pb::Region {
            name: region.name,
            points: region.points.iter().map(|p| pb::NormalisedPoint { x: p.x, y: p.y }).collect(),
        };
        regions.into_iter().map(region).collect()
    };
    let area = camera.region_of_interest;
    pb::Camera {
        id: camera.id.to_string(),
        url: camera.url.into(),
        display_name: camera.display_name,
        role: match camera.role {
            Role::Entry => pb::CameraRole::Entry,
            Role::Exit => pb::CameraRole::Exit,
            Role::Interior => pb::CameraRole::Interior,
        }
        .into(),
        transport: match camera.transport {
            Transport::Tcp => pb::CameraTransport::Tcp,
            Transport::Udp => pb::CameraTransport::Udp,
        }
        .into(),
        lines: regions(camera.lines),
        zones: regions(camera.zones),
        analysis_fps_max: camera.analysis_fps_max.unwrap_or(0.0),
        detector_side: camera.detector_side.unwrap_or(0),
        region_of_interest: area.map(|a| pb::NormalisedBox { x: a.x, y: a.y, width: a.width, height: a.height }),
        face_pixels_min: camera.face_pixels_min,
        threshold: camera.threshold,
        target_fpir: camera.target_fpir,
        disabled: !camera.enabled,
        has_credential: camera.has_credential,
        create_time: Some(time(camera.create_time)),
        update_time: Some(time(camera.update_time)),
        etag: camera.revision.to_string(),
        actionable_ms: camera.telling.actionable_ms.unwrap_or(0),
        snapshots: telling::wire_snapshots(camera.telling.snapshots).into(),
        blur_others: camera.telling.blur_others,
        rules: camera.telling.rules.iter().map(telling::wire_rule).collect(),
    }
}

/// What decodes a camera, where a device could.
fn decoded(decoding: &Decoding) -> String {
    match decoding {
        Decoding::OnCpu => String::new(),
        Decoding::OnDevice(device) => format!("decoded by {device}"),
        Decoding::InPlaceOfDevice(refusal) => refusal.clone(),
    }
}

/// How a camera is doing, as the wire has it.
pub(in super::super) fn status(status: &CameraStatus) -> pb::CameraStatus {
    let (connection, reason, message, next) = match &status.state {
        CameraState::Connecting => (pb::CameraConnection::Connecting, "", String::new(), None),
        CameraState::Online { decoding, .. } => (pb::CameraConnection::Online, "", decoded(decoding), None),
        CameraState::Stalled { .. } => (pb::CameraConnection::Stalled, "", String::new(), None),
        CameraState::Offline { reason, message, next_attempt_time } => {
            (pb::CameraConnection::Offline, offline_reason(*reason), message.clone(), *next_attempt_time)
        }
    };
    let frames = &status.frames;
    let dropped = [
        ("newer", frames.dropped_newer),
        ("rate", frames.dropped_rate),
        ("format", frames.dropped_format),
        ("late", frames.dropped_late),
        ("damaged", frames.dropped_damaged),
        ("failed", frames.dropped_failed),
    ];
    pb::CameraStatus {
        camera_id: status.camera.to_string(),
        connection: connection.into(),
        reason: reason.to_owned(),
        message,
        since: Some(time(status.since)),
        next_attempt_time: next.map(time),
        frames: Some(pb::FrameCounts {
            received: frames.received,
            analysed: frames.analysed,
            dropped: BTreeMap::from(dropped.map(|(cause, count)| (cause.to_owned(), count))),
        }),
    }
}

/// The state of a camera that is no longer there.
pub(in super::super) fn removed(camera: &CameraId, now: Timestamp) -> pb::CameraStatus {
    pb::CameraStatus {
        camera_id: camera.to_string(),
        connection: pb::CameraConnection::Offline.into(),
        reason: "REMOVED".to_owned(),
        since: Some(time(now)),
        ..pb::CameraStatus::default()
    }
}

fn offline_reason(reason: OfflineReason) -> &'static str {
    match reason {
        OfflineReason::Unreachable => "UNREACHABLE",
        OfflineReason::HostUnknown => "HOST_UNKNOWN",
        OfflineReason::Unauthorised => "UNAUTHORISED",
        OfflineReason::Untrusted => "UNTRUSTED",
        OfflineReason::NotFound => "NOT_FOUND",
        OfflineReason::NoVideo => "NO_VIDEO",
        OfflineReason::Undecodable => "UNDECODABLE",
        OfflineReason::Stalled => "STALLED",
        OfflineReason::Ended => "ENDED",
        OfflineReason::Disabled => "DISABLED",
        OfflineReason::Other => "OTHER",
    }
}

/// A box as the wire has it.
pub(in super::super) fn normalised_box(place: BoxInFrame) -> pb::NormalisedBox {
    pb::NormalisedBox { x: place.x, y: place.y, width: place.width, height: place.height }
}

#[cfg(test)]
mod tests;
