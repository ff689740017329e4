//! Cameras: what is watched, and how it is going.
//!
//! In: what an operator asks for; what ingest observes. Out: values.
//! Must not know: GStreamer, the store, the wire.

use std::fmt;
use std::sync::Arc;

use url::{Url, form_urlencoded};

use crate::clock::Timestamp;
pub use crate::frame::{CameraId, InvalidCameraId};
use crate::telling::Telling;

/// What a camera looks at, which decides how urgent its frames are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// People come in here: served first.
    Entry,
    /// People leave here.
    Exit,
    /// Anything else.
    #[default]
    Interior,
}

/// How RTP reaches the daemon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Interleaved in the RTSP connection: loses nothing, passes firewalls.
    #[default]
    Tcp,
    /// Datagrams: lower delay on networks that lose none.
    Udp,
}

/// A point in normalised coordinates of the frame, 0 to 1 each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalisedPoint {
    /// 0 is the left edge, 1 the right one.
    pub x: f32,
    /// 0 is the top edge, 1 the bottom one.
    pub y: f32,
}

/// An upright rectangle in normalised coordinates of the frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormalisedRect {
    /// Left edge, 0 to 1.
    pub x: f32,
    /// Top edge, 0 to 1.
    pub y: f32,
    /// Width, above 0; `x + width` is at most 1.
    pub width: f32,
    /// Height, above 0; `y + height` is at most 1.
    pub height: f32,
}

/// The least face that is looked at where the operator says nothing, in pixels.
pub const FACE_PIXELS_MIN_DEFAULT: u32 = 32;

/// A named line or zone: two points make a line, three or more a closed zone.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// The operator's name of it, unique in the camera.
    pub name: String,
    /// Its corners in order.
    pub points: Vec<NormalisedPoint>,
}

/// A camera as the operator configured it.
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// The operator's id.
    pub id: CameraId,
    /// `rtsp://` or `rtsps://`, without credentials.
    pub url: Url,
    /// Whether a user name and password are stored for it. They are write-only.
    pub has_credential: bool,
    /// What people call it; may be empty.
    pub display_name: String,
    /// What it looks at.
    pub role: Role,
    /// How RTP is carried.
    pub transport: Transport,
    /// Lines across which people come and go.
    pub lines: Vec<Region>,
    /// Areas of interest.
    pub zones: Vec<Region>,
    /// The most frames a second that are analysed; `None` analyses what the sessions can take. Below eight, of two who walk less than
    /// two frames behind each other the first may be missed.
    pub analysis_fps_max: Option<f32>,
    /// The longer side of the detector's input, in pixels, a multiple of 32; `None` takes the
    /// daemon's default.
    pub detector_side: Option<u32>,
    /// The part of the picture in which faces are looked for; `None` means all.
    pub region_of_interest: Option<NormalisedRect>,
    /// Faces whose smaller side has fewer pixels than this are ignored.
    pub face_pixels_min: u32,
    /// The least similarity that identifies somebody here; `None` takes the daemon's default.
    pub threshold: Option<f32>,
    /// The share of strangers who may be taken for somebody here, in place of a threshold; `None` takes the daemon's default.
    pub target_fpir: Option<f64>,
    /// What is told of what it sees, when, and what is kept of its pictures.
    pub telling: Telling,
    /// Whether the camera is watched at all.
    pub enabled: bool,
    /// When it was created.
    pub create_time: Timestamp,
    /// When it last changed.
    pub update_time: Timestamp,
    /// Counts the changes of this camera; its text form is the etag.
    pub revision: u64,
}

/// What cameras, recorders and gateways call a password, a token or a user name with its password, in small letters and digits.
const SECRET_NAMES: [&str; 28] = [
    "accesstoken",
    "apikey",
    "auth",
    "authbasic",
    "authorization",
    "authtoken",
    "credential",
    "credentials",
    "loginpas",
    "loginpass",
    "loginpassword",
    "loginpwd",
    "pass",
    "passphrase",
    "passw",
    "passwd",
    "password",
    "passwort",
    "psd",
    "psw",
    "pswd",
    "pw",
    "pwd",
    "secret",
    "token",
    "userpass",
    "userpassword",
    "userpwd",
];

/// Whether a URL carries a user or a password before its host or, behind it, a pair such as `password=…`: URLs are printed and
/// logged. Recorders take such pairs in the path, too, between `&`, `;`, `/`, `?` or `_`, and decode them first. A user's name
/// alone is no secret there (`/user=view/` names a stream), and neither is an empty password.
pub fn holds_credential(url: &Url) -> bool {
    let is_in = |text: &str, separators: &[char]| holds_secret_pair(text, separators) || holds_secret_pair(&decoded(text), separators);
    !url.username().is_empty()
        || url.password().is_some()
        || url.query_pairs().any(|(name, value)| !value.is_empty() && is_secret(&name))
        || url.query().is_some_and(|query| is_in(query, &['&', ';', '/', '?']))
        || [url.path(), url.fragment().unwrap_or_default()].iter().any(|text| is_in(text, &['&', ';', '/', '?', '_']))
}

/// A text that may consist of pairs, as whoever decodes it first sees it.
fn decoded(text: &str) -> String {
    let pairs: Vec<String> = form_urlencoded::parse(text.as_bytes()).map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// Whether `text` gives a value to a secret's name, which stands between one of the separators and an `=`.
fn holds_secret_pair(text: &str, separators: &[char]) -> bool {
    let in_word = |c: char| c.is_ascii_alphanumeric();
    text.match_indices('=').any(|(at, _)| {
        let name = text[..at].rsplit(|c| separators.contains(&c) || !(in_word(c) || c == '_' || c == '-')).next().unwrap_or_default();
        let rest = &text[at + 1..];
        // An empty password is followed by the next pair or by nothing; other passwords may begin with an underscore.
        let next_pair = rest.strip_prefix('_').is_some_and(|next| next.trim_start_matches(in_word).starts_with('='));
        let has_value = !rest.is_empty() && !rest.starts_with(['&', ';', '/', '?']) && !next_pair;
        has_value && is_secret(name)
    })
}

fn is_secret(name: &str) -> bool {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    SECRET_NAMES.iter().any(|secret| name.eq_ignore_ascii_case(secret))
}

/// A user name and a password. Prints neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps `text` from being printed.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a camera gives no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfflineReason {
    /// Nobody answers at the address, or the connection was refused.
    Unreachable,
    /// The host's name cannot be resolved.
    HostUnknown,
    /// The camera refuses the credential, or wants one.
    Unauthorised,
    /// The camera's certificate is not trusted.
    Untrusted,
    /// The camera knows no such stream.
    NotFound,
    /// The stream has no H.264 or H.265 video.
    NoVideo,
    /// What arrives cannot be decoded.
    Undecodable,
    /// The connection stands and nothing comes.
    Stalled,
    /// The camera ended the stream or the connection.
    Ended,
    /// The operator disabled it.
    Disabled,
    /// Anything else; the message says what.
    Other,
}

/// What decodes a camera's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Decoding {
    /// The processor, and nothing else was asked for.
    #[default]
    OnCpu,
    /// This device, such as `cuda:0`.
    OnDevice(String),
    /// The processor in place of a device, for how long and why.
    InPlaceOfDevice(String),
}

/// How a camera is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraState {
    /// An attempt is under way.
    Connecting,
    /// Frames arrive.
    Online {
        /// Since when.
        since: Timestamp,
        /// What decodes them.
        decoding: Decoding,
    },
    /// The connection stands, no frame has come for a while, the attempt is about to be given up.
    Stalled {
        /// Since when.
        since: Timestamp,
    },
    /// No frames.
    Offline {
        /// The kind of failure.
        reason: OfflineReason,
        /// What was observed, without credentials.
        message: String,
        /// When the next attempt begins; `None` when there will be none.
        next_attempt_time: Option<Timestamp>,
    },
}

/// Frames of one camera, counted since it is watched (another address, transport or credential begins anew); what came in was analysed or dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameCounts {
    /// Decoded.
    pub received: u64,
    /// Seen by the detector.
    pub analysed: u64,
    /// Replaced in the slot by a newer one before a session was free.
    pub dropped_newer: u64,
    /// Left out to keep to the camera's analysis rate.
    pub dropped_rate: u64,
    /// Not decoded, because decoding had fallen behind the present.
    pub dropped_late: u64,
    /// Not decoded, because packets were lost, of it or of a picture that it refers to.
    pub dropped_damaged: u64,
    /// Refused because their caps lie or their format is not I420 or NV12.
    pub dropped_format: u64,
    /// Lost to a failed inference.
    pub dropped_failed: u64,
}

/// Why a picture was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skipped {
    /// Decoding had fallen more than a second behind, or it refers to a picture that was skipped for that.
    Late,
    /// Packets of it were lost, or of a picture that it refers to.
    Damaged,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let credential = Credential { username: "admin".into(), password: Secret::new("hunter2") };
        let printed = format!("{credential:?} {:?} {}", credential.password, credential.password);
        assert!(!printed.contains("hunter2") && !printed.contains("admin"), "{printed}");
    }

    fn is_refused(rest: &str) -> bool {
        holds_credential(&Url::parse(&format!("rtsp://10.0.0.5:554{rest}")).expect("a URL"))
    }

    #[test]
    fn a_password_or_token_anywhere_in_the_url_is_found() {
        for rest in [
            "/user=admin&password=hunter2&channel=1&stream=0.sdp",
            "/user=admin&password=hunter2&channel=1&stream=0.sdp?",
            "/user=admin_password=hunter2_channel=1_stream=0.sdp?real_stream",
            "/user=admin;PassWord=hunter2;channel=1",
            "/live/pwd=hunter2/1",
            "/live?loginuse=admin&loginpas=hunter2",
            "/cam/realmonitor?channel=1&authbasic=aHVudGVyMg==",
            "/live?x=1?auth=aHVudGVyMg==",
            "/live?p%61ssword=hunter2",
            "/user%3Dadmin%26password%3Dhunter2",
            "/live?access_token=hunter2",
            "/live?password=_hunter2",
            "/live#pass=hunter2",
            "/live?password==",
            "/live?password=%23hunter2",
            "/user=admin&password=%23hunter2&channel=1",
            "/live?password=%26hunter2",
            "/live?password=/hunter2",
            "/live?pwd=;hunter2",
            "/live?password=_aHVudGVyMg=",
            "/live?user-token=1&pass-word=hunter2",
        ] {
            assert!(is_refused(rest), "{rest}");
        }
    }

    #[test]
    fn what_only_looks_like_a_password_is_no_reason_to_refuse_a_camera() {
        for rest in [
            "",
            "/Streaming/Channels/101?transportmode=unicast&profile=Profile_1",
            "/cam/realmonitor?channel=1&subtype=0&unicast=true&proto=Onvif",
            "/user=view/",
            "/live?user=view",
            "/live?bypass=1&author=anna&profiletoken=1",
            "/password/live?pass",
            "/user=admin&password=&channel=1&stream=0.sdp?",
            "/user=admin_password=_channel=1_stream=0.sdp",
            "/live?password=",
            "/onvif?profile_token=Profile_1",
            "/onvif?profile-token=Profile_1",
        ] {
            assert!(!is_refused(rest), "{rest}");
        }
    }
}
