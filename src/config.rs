//! The configuration: one file, the environment, the command line, and nothing opened yet.
//!
//! In: TOML, `DOORWARD_*` variables, overrides from the command line (the later wins).
//! Out: a [`Config`] in which every value is allowed. An error names file, key, value and what
//! is allowed. Cameras and people are not here: they are made by RPC and live in the store.
//! Drops: nothing; an unknown key is an error.
//! Must not know: any stage.

mod load;
mod shadow;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use load::ConfigError;
pub use shadow::ShadowConfig;

/// Everything that is decided before the daemon starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where everything that must survive a restart lies. One daemon at a time.
    pub data_dir: PathBuf,
    /// Where `manifest.toml`, the models and the runtime library lie.
    pub models_dir: PathBuf,
    /// The enrolment folder, `people/<subject>/<photo>`, that `ReloadGallery` reads.
    pub people_dir: Option<PathBuf>,
    /// How clients reach the daemon.
    pub server: ServerConfig,
    /// How cameras are reached.
    pub cameras: CamerasConfig,
    /// How faces are found and encoded.
    pub infer: InferConfig,
    /// Who is let in as whom.
    pub recognition: RecognitionConfig,
    /// What runs beside it and never acts.
    pub shadow: ShadowConfig,
    /// What is kept of who was known.
    pub gallery: GalleryConfig,
    /// What is kept of what happened.
    pub events: EventsConfig,
    /// What the daemon says of itself.
    pub log: LogConfig,
}

/// How clients reach the daemon.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Address and port. Beyond loopback, TLS and a token are required.
    pub listen: SocketAddr,
    /// The certificate chain, PEM.
    pub tls_certificate_file: Option<PathBuf>,
    /// The certificate's private key, PEM.
    pub tls_key_file: Option<PathBuf>,
    /// Bearer tokens, one a line; any of them is let in. Lines that begin with `#` are comments.
    pub token_file: Option<PathBuf>,
    /// The largest message that is read, in bytes: the largest photo, with some room.
    pub message_bytes_max: usize,
    /// How many calls one connection may have open.
    pub streams_per_connection_max: u32,
    /// How many connections are served at once. At that many a new one takes the place of the first that has shown no token, or none
    /// that is still in force; where there is none such, it is closed.
    pub connections_max: u32,
    /// How long a TLS handshake may take.
    pub handshake_timeout_ms: u64,
    /// How long a call that is no stream may take.
    pub request_timeout_ms: u64,
    /// How often a silent connection is asked whether it still lives.
    pub keepalive_interval_ms: u64,
}

/// How cameras are reached. The cameras themselves are added while the daemon runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CamerasConfig {
    /// Whom `rtsps` cameras are trusted by: certificates of authorities, or the cameras' own where
    /// they sign themselves, PEM. Read again at each connection. `None` trusts the system's.
    pub ca_file: Option<PathBuf>,
    /// What decodes their streams.
    pub decode: DecodeChoice,
}

/// What decodes the cameras' streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DecodeChoice {
    /// The device that inference runs on; where that is a GPU that does not decode a camera, the CPU, and the log says why.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
}

/// The device that inference runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The GPU where there is one that works, else the CPU, with the reason said once, loudly.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number, or no start at all.
    Cuda(u32),
}

/// The arithmetic of the sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// On the CPU bf16 where the processor multiplies in it, else f32; on a GPU fp16 where TensorRT runs the models, else f32.
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit brain floats; refused where the processor has none, and on a GPU.
    Bf16,
    /// 16-bit floats; refused on a GPU without TensorRT. The CPU, where it is taken for want of a GPU, runs in f32.
    Fp16,
}

/// Which faces are encoded together with their mirror image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MirrorChoice {
    /// None.
    #[default]
    Off,
    /// Those of photos: enrolled samples and pictures that are asked about. Costs nothing at the door.
    Photos,
    /// All: doubles the encoder's work at the door as well.
    All,
}

impl MirrorChoice {
    /// As the configuration says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Photos => "photos",
            Self::All => "all",
        }
    }
}

/// What follows where a visitor looks like a picture of somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SuspicionChoice {
    /// It is told, and nothing else changes.
    #[default]
    Report,
    /// It is told, and nobody is named.
    Refuse,
}

/// How faces are found and encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InferConfig {
    /// `auto`, `cpu` or `cuda:N`.
    pub device: DeviceChoice,
    /// `auto`, `f32`, `bf16` or `fp16`.
    pub precision: PrecisionChoice,
    /// Where engines that TensorRT built for this GPU are kept; reading a configuration sets it to `engines` below
    /// `data_dir` where nothing else is said. `None` builds them at each start.
    pub engine_cache_dir: Option<PathBuf>,
    /// The manifest's name of the encoder that is in force; `None` takes its first.
    pub encoder: Option<String>,
    /// Sessions of one thread each; 0 takes one a core. On a GPU 0 takes two, and four are the most.
    pub sessions: usize,
    /// The longer side of the detector's input, in pixels, a multiple of 32, 160 to 1920. Smaller
    /// is faster and sees fewer small faces; a camera may set its own.
    pub detector_side: u32,
    /// Detections below this score are noise, 0 to 1.
    pub detection_score_min: f32,
    /// Which faces' templates are the mean of the face's and its mirror image's: `off`, `photos` or `all`.
    pub mirror: MirrorChoice,
    /// Ask of every face that is encoded how much it looks alive, with the manifest's antispoof model.
    pub antispoof: bool,
    /// Encode every detected face of every frame instead of what a track needs: for
    /// measurements only.
    pub encode_every_face: bool,
}

/// Who is let in as whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecognitionConfig {
    /// A calibration that `doorward calibrate` made; `None` takes the encoder's own from the manifest, if it has one.
    pub calibration: Option<PathBuf>,
    /// A head that `doorward train verifier` made, which verifies in place of the cosine.
    pub verifier: Option<PathBuf>,
    /// The share of strangers that may pass a verification, above 0 and below 1: the false match rate.
    pub target_fmr: Option<f64>,
    /// The share of strangers at a camera that may be taken for somebody of the gallery, likewise: the false positive
    /// identification rate. The threshold follows from it and from how many templates there are.
    pub target_fpir: Option<f64>,
    /// The least cosine similarity that makes two faces one person, -1 to 1, whatever error rate that stands for. Without it
    /// and without targets the rates are one in a thousand each.
    pub threshold: Option<f32>,
    /// Targets of those who stand on a watchlist, by its name. Of several lists the strictest decides.
    pub watchlists: BTreeMap<String, TargetConfig>,
    /// Targets of single subjects, by id, before those of their watchlists.
    pub subjects: BTreeMap<String, TargetConfig>,
    /// How long a door may act on an event after the picture was taken.
    pub actionable_ms: u64,
    /// How long a visit at a camera may stay undecided.
    pub decision_deadline_ms: u64,
    /// How soon after the first usable shot a visit at an entry camera is decided by what there is.
    pub entry_decision_ms: u64,
    /// How often an entry camera tells again who is there; 0 never.
    pub reassert_ms: u64,
    /// How long a face may be unseen before its track is over.
    pub visit_gap_ms: u64,
    /// Whoever comes back within this goes on with the visit, which ends only then.
    pub visit_resume_ms: u64,
    /// The least overall quality of a shot that is encoded at the door, 0 to 1. Low, because a poor
    /// shot weighs less among the visit's others, and a small camera shows nothing better.
    pub quality_min: f32,
    /// The least overall quality of a photo that enrols somebody, 0 to 1.
    pub enrol_quality_min: f32,
    /// Whoever looks alive less than this, 0 to 1, is suspected to be a picture; asked with `infer.antispoof` only.
    pub live_score_min: f32,
    /// What follows from that suspicion: `report` or `refuse`.
    pub suspected_attack: SuspicionChoice,
}

/// What one scope asks for: a similarity, or error rates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TargetConfig {
    /// The least similarity, whatever it stands for.
    pub threshold: Option<f32>,
    /// The false match rate of verifications.
    pub target_fmr: Option<f64>,
    /// The false positive rate of identifications.
    pub target_fpir: Option<f64>,
}

/// What is kept of who was known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GalleryConfig {
    /// How long the gallery can be brought back to an earlier version. What a reload or a rollback takes
    /// out of it is kept so long, apart, and then erased; what is deleted by RPC is erased at once.
    pub history_days: u32,
    /// How often the enrolment folder is looked at for changes, in seconds; 0: never. One that has changed
    /// and then kept still for as long is read again.
    pub watch_people_s: u32,
}

impl Default for GalleryConfig {
    fn default() -> Self {
        Self { history_days: 30, watch_people_s: 0 }
    }
}

/// What is kept of what happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsConfig {
    /// How long events are kept.
    pub retention_days: u32,
    /// The most room that events take, in megabytes; the oldest go first.
    pub size_max_mb: u32,
    /// Whether best shots are kept as pictures.
    pub snapshots: bool,
    /// How long pictures are kept; no longer than their events.
    pub snapshot_retention_days: u32,
    /// The most room that pictures take, in megabytes; the oldest go first.
    pub snapshot_size_max_mb: u32,
    /// How many of the newest events stay in memory: a subscriber that is further behind is served from disk.
    pub recent_max: usize,
}

/// What the daemon says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A filter such as `info` or `doorward=debug,warn`.
    pub filter: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/doorward".into(),
            models_dir: "/usr/share/doorward/models".into(),
            people_dir: None,
            server: ServerConfig::default(),
            cameras: CamerasConfig::default(),
            infer: InferConfig::default(),
            recognition: RecognitionConfig::default(),
            shadow: ShadowConfig::default(),
            gallery: GalleryConfig::default(),
            events: EventsConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            tls_certificate_file: None,
            tls_key_file: None,
            token_file: None,
            message_bytes_max: 32 << 20,
            streams_per_connection_max: 128,
            connections_max: 1024,
            handshake_timeout_ms: 5_000,
            request_timeout_ms: 60_000,
            keepalive_interval_ms: 20_000,
        }
    }
}

impl Default for InferConfig {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            precision: PrecisionChoice::Auto,
            engine_cache_dir: None,
            encoder: None,
            sessions: 0,
            detector_side: 640,
            detection_score_min: 0.7,
            mirror: MirrorChoice::Off,
            antispoof: false,
            encode_every_face: false,
        }
    }
}

impl Default for RecognitionConfig {
    fn default() -> Self {
        Self {
            calibration: None,
            verifier: None,
            target_fmr: None,
            target_fpir: None,
            threshold: None,
            watchlists: BTreeMap::new(),
            subjects: BTreeMap::new(),
            actionable_ms: 5_000,
            decision_deadline_ms: 3_000,
            entry_decision_ms: 500,
            reassert_ms: 3_000,
            visit_gap_ms: 2_000,
            visit_resume_ms: 60_000,
            quality_min: 0.05,
            enrol_quality_min: 0.3,
            live_score_min: 0.5,
            suspected_attack: SuspicionChoice::Report,
        }
    }
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            retention_days: 30,
            size_max_mb: 2_000,
            snapshots: true,
            snapshot_retention_days: 30,
            snapshot_size_max_mb: 20_000,
            recent_max: 4_096,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), json: false }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl<'de> Deserialize<'de> for DeviceChoice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let cuda = || text.strip_prefix("cuda:")?.parse().ok().map(Self::Cuda);
        match text.as_str() {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            _ => cuda().ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no device: use auto, cpu or cuda:N"))),
        }
    }
}
