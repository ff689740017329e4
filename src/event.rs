//! Events: what happened at a camera, and why the daemon says so.
//!
//! In: what `visit`, `decide` and the cameras found. Out: values that are kept for ever as they
//! are written. They name a subject by its random uid; names are joined when an event is delivered.
//! Sequence, epoch and cursor are not here: the log adds them.
//! Must not know: the log, the wire.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::subject::SubjectUid;

/// One person's continuous presence at one camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VisitId(pub Uuid);

/// The same face followed through one camera's frames; unique per camera and daemon run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrackId(pub u64);

/// A stored best shot: cropped face and whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(pub Uuid);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A face appeared and stayed long enough to be a track.
    VisitStarted,
    /// The visitor is an enrolled subject.
    Identified,
    /// The visitor is nobody in the gallery, or could not be seen well enough to tell.
    Unidentified,
    /// What was told of the visitor was wrong: it is another subject, or nobody known.
    IdentityRevised,
    /// Whoever was identified at a door is still there, or back.
    Reasserted,
    /// The visitor crossed a line inwards, or was decided at an entry that has no line.
    Entry,
    /// The visitor crossed a line outwards, or was decided at an exit that has no line.
    Exit,
    /// The visitor entered a zone.
    ZoneEntered,
    /// The visitor left a zone.
    ZoneLeft,
    /// The visitor is gone.
    VisitEnded,
    /// An operator said who it was, or was not.
    EventCorrected,
    /// Somebody was enrolled, changed or erased: the gallery has another version.
    GalleryChanged,
    /// Inference failed: frames may be lost, and nobody is looked for in them.
    InferenceFailed,
    /// Inference works again, or a device stands in for the one that it was to run on.
    InferenceRestored,
    /// Frames arrive from a camera.
    CameraOnline,
    /// Frames no longer arrive from a camera.
    CameraOffline,
}

/// Why a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The face was not seen for a while.
    Gone,
    /// The visitor turned out to be one who was here a moment ago, whose visit goes on.
    Resumed,
    /// The camera went offline.
    CameraOffline,
    /// The camera was deleted or disabled by the operator, or given another address, transport, password, role, line or zone.
    CameraRemoved,
    /// The daemon stopped, or was killed and found the visit open when it started again.
    DaemonRestarted,
}

/// A subject that a probe may be, and how close it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Who, by the uid that outlives the name.
    pub subject: SubjectUid,
    /// Cosine similarity of the subject's closest template, -1 to 1.
    pub similarity: f32,
}

/// What a comparison is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// 1:1 with a claimed identity.
    Verify,
    /// 1:N with a decision.
    Identify,
}

/// Why a decision is not a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// Nobody is enrolled.
    EmptyGallery,
    /// The closest subject is not close enough.
    BelowThreshold,
    /// No shot was good enough to be encoded before a decision was due.
    NoUsableShot,
    /// The closest subject is at the same camera at the same moment, as another and better match.
    Conflict,
    /// Somebody matched, but looks like a picture that is held up, and nobody is named then.
    SuspectedAttack,
}

/// Where a threshold comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdBasis {
    /// The operator set it.
    Fixed,
    /// It is the encoder's own, as published: there is no calibration.
    Published,
    /// It follows from a target rate, by the calibration and the gallery's size.
    Calibrated,
    /// The calibration has too few comparisons for the target: it is the strictest that they support.
    Unsupported,
}

/// Whose target a threshold follows, the most specific that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyScope {
    /// The daemon's, for everything.
    Default,
    /// The daemon's, for verifying or for identifying.
    Purpose,
    /// The camera's.
    Camera,
    /// A watchlist's on which the subject stands.
    Watchlist,
    /// The subject's own.
    Subject,
}

/// An open-set decision with everything it rests on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What it was made for.
    pub purpose: Purpose,
    /// The subject that matched; `None` is *unknown*.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<SubjectUid>,
    /// Why it is unknown; `None` when somebody matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Rejection>,
    /// Similarity of the closest subject; `None` with an empty gallery or no usable shot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub similarity: Option<f32>,
    /// The least similarity that would have matched.
    pub threshold: f32,
    /// The error rate that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_rate: Option<f64>,
    /// The error rate that the threshold stands for, where a calibration says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_rate: Option<f64>,
    /// Where the threshold comes from; unknown of events of an older doorward.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<ThresholdBasis>,
    /// Whose target it follows, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<PolicyScope>,
    /// The second-closest subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runner_up: Option<Candidate>,
    /// Similarity of the closest subject less that of the runner-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margin: Option<f32>,
    /// How many subjects the probe was compared with.
    pub gallery_subjects: u64,
    /// The gallery version it was compared with.
    pub gallery_version: u64,
    /// The template space it was made in.
    pub space: String,
    /// The trained head that chose among several subjects who would all have matched; then a runner-up may be more similar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
}

#[cfg(test)]
impl Decision {
    /// What a test makes up: `subject` matched, or nobody was there to match.
    pub(crate) fn made_up(subject: Option<SubjectUid>) -> Self {
        Self {
            purpose: Purpose::Identify,
            subject,
            rejection: None,
            similarity: Some(0.5),
            threshold: 0.4,
            target_rate: None,
            expected_rate: None,
            basis: None,
            scope: None,
            runner_up: None,
            margin: None,
            gallery_subjects: 2,
            gallery_version: 7,
            space: "s".into(),
            head: None,
        }
    }
}

/// Milliseconds that the deciding shot spent in each stage, in the pipeline's order. Replay
/// leaves them out: its times are the stream's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StageTimes {
    /// From capture to the decoder's output.
    pub decode_ms: f32,
    /// In the camera's slot.
    pub wait_ms: f32,
    /// Finding faces.
    pub detect_ms: f32,
    /// Making the template, alignment and the wait for a session included.
    pub encode_ms: f32,
    /// Searching the gallery.
    pub match_ms: f32,
    /// From the search's answer to the decision.
    pub decide_ms: f32,
}

/// Where a face was, in normalised coordinates of the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BoxInFrame {
    /// Left edge, 0 to 1.
    pub x: f32,
    /// Top edge, 0 to 1.
    pub y: f32,
    /// Width, 0 to 1.
    pub width: f32,
    /// Height, 0 to 1.
    pub height: f32,
}

/// Shots of a visit that were looked at, by what became of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShotCounts {
    /// Shots whose templates were fused into the decision.
    pub fused: u32,
    /// Shots that `quality` refused, by reason.
    pub rejected: BTreeMap<String, u32>,
}

/// Something that happened, without its place in the order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// At which camera; empty for what happened at none.
    pub camera: Arc<str>,
    /// In which visit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub visit: Option<VisitId>,
    /// On which track of the camera.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<TrackId>,
    /// When the deciding picture was taken, in microseconds since the Unix epoch.
    pub capture_time_us: i64,
    /// When the daemon made up its mind, likewise.
    pub decision_time_us: i64,
    /// A door acts on the event only before this moment, likewise.
    pub actionable_until_us: i64,
    /// Who it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<SubjectUid>,
    /// Who it was said to be before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_subject: Option<SubjectUid>,
    /// Another visit at the same moment that is taken for the same subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflicting_visit: Option<VisitId>,
    /// Why the daemon says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Where the face was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub box_in_frame: Option<BoxInFrame>,
    /// The detector's score of the deciding shot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detection_score: Option<f32>,
    /// Overall quality of the deciding shot, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality: Option<f32>,
    /// How much the visitor's newest shots look alive, 0 to 1, weighted by quality; only where `infer.antispoof` is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_score: Option<f32>,
    /// Whether the visitor is suspected to be a picture that is held up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspected_attack: bool,
    /// What became of the visit's shots.
    pub shots: ShotCounts,
    /// The best shot's pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// Where the time went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage_times: Option<StageTimes>,
    /// Why a visit ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<EndReason>,
    /// The sequence of the event that is corrected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrects: Option<u64>,
    /// Whether the corrected event was of nobody who is enrolled, by what an operator says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_stranger: bool,
    /// The version that the gallery has now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gallery_version: Option<u64>,
    /// The line that was crossed, or the zone, as the operator calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<Arc<str>>,
    /// How long a visit lasted, or a stay in a zone, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What a person should know, such as why a camera is offline. Never a credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Event {
    /// An event of `kind` at `camera`, captured and decided at `time`, with nothing else known.
    pub fn new(kind: EventKind, camera: &str, time: Timestamp) -> Self {
        Self {
            kind,
            camera: camera.into(),
            visit: None,
            track: None,
            capture_time_us: time.as_micros(),
            decision_time_us: time.as_micros(),
            actionable_until_us: time.as_micros(),
            subject: None,
            previous_subject: None,
            conflicting_visit: None,
            decision: None,
            box_in_frame: None,
            detection_score: None,
            quality: None,
            live_score: None,
            suspected_attack: false,
            shots: ShotCounts::default(),
            snapshot: None,
            stage_times: None,
            end_reason: None,
            corrects: None,
            was_stranger: false,
            gallery_version: None,
            region: None,
            duration_ms: None,
            message: None,
        }
    }
}

impl Event {
    /// Whether all of its numbers are numbers: what is kept as text must be readable again.
    pub fn is_finite(&self) -> bool {
        let decision = self.decision.iter().flat_map(|decision| {
            let second = decision.runner_up.map(|second| second.similarity);
            let rates = [decision.target_rate, decision.expected_rate].map(|rate| rate.map(|rate| rate as f32));
            [Some(decision.threshold), decision.similarity, decision.margin, second].into_iter().chain(rates)
        });
        let place = self.box_in_frame.iter().flat_map(|place| [place.x, place.y, place.width, place.height]).map(Some);
        let times = self.stage_times.iter().flat_map(|times| {
            [times.decode_ms, times.wait_ms, times.detect_ms, times.encode_ms, times.match_ms, times.decide_ms].map(Some)
        });
        let all = [self.detection_score, self.quality, self.live_score].into_iter().chain(decision).chain(place).chain(times);
        all.flatten().all(f32::is_finite)
    }
}

/// An event in its place: the same pair of epoch and sequence names it for ever.
#[derive(Clone, Debug, PartialEq)]
pub struct LoggedEvent {
    /// Counts the events of one log from 1, without gaps.
    pub sequence: u64,
    /// Names the log; it changes when a log is created or restored, never at a restart.
    pub epoch: Uuid,
    /// When the log took it, on the daemon's clock.
    pub log_time: Timestamp,
    /// What happened.
    pub event: Arc<Event>,
}
