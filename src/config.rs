//! The configuration: one file, the environment, the command line, and nothing opened yet.
//!
//! In: TOML, `DOORWARD_*` variables, overrides from the command line (the later wins).
//! Out: a [`Config`] in which every value is allowed. An error names file, key, value and what
//! is allowed. Cameras and people are not here: they are made by RPC and live in the store.
//! Must not know: any stage.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

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
    /// How faces are found and encoded.
    pub infer: InferConfig,
    /// Who is let in as whom.
    pub recognition: RecognitionConfig,
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
    /// How many connections are served at once.
    pub connections_max: u32,
    /// How long a TLS handshake may take.
    pub handshake_timeout_ms: u64,
    /// How long a call that is no stream may take.
    pub request_timeout_ms: u64,
    /// How often a silent connection is asked whether it still lives.
    pub keepalive_interval_ms: u64,
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
    /// bf16 where the processor multiplies in it, else f32.
    Auto,
    /// 32-bit floats.
    F32,
    /// 16-bit brain floats; refused where the processor has none.
    Bf16,
}

/// How faces are found and encoded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InferConfig {
    /// `auto`, `cpu` or `cuda:N`.
    pub device: DeviceChoice,
    /// `auto`, `f32` or `bf16`.
    pub precision: PrecisionChoice,
    /// Sessions of one thread each; 0 takes one a core.
    pub sessions: usize,
    /// The longer side of the detector's input, in pixels, a multiple of 32, 160 to 1920. Smaller
    /// is faster and sees fewer small faces; a camera may set its own.
    pub detector_side: u32,
    /// Detections below this score are noise, 0 to 1.
    pub detection_score_min: f32,
    /// Encode every detected face of every frame instead of what a track needs: for
    /// measurements only.
    pub encode_every_face: bool,
}

/// Who is let in as whom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecognitionConfig {
    /// The least cosine similarity that makes two faces one person, -1 to 1; `None` takes the
    /// encoder's own from the manifest.
    pub threshold: Option<f32>,
    /// How long a door may act on an event after the picture was taken.
    pub actionable_ms: u64,
    /// How long a visit at a camera may stay undecided.
    pub decision_deadline_ms: u64,
    /// How long a face may be unseen before its visit has ended.
    pub visit_gap_ms: u64,
    /// The least overall quality of a shot that is encoded at the door, 0 to 1.
    pub quality_min: f32,
    /// The least overall quality of a photo that enrols somebody, 0 to 1.
    pub enrol_quality_min: f32,
}

/// What is kept of what happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsConfig {
    /// How long events and their snapshots are kept.
    pub retention_days: u32,
    /// Whether best shots are kept as pictures.
    pub snapshots: bool,
    /// How many events a subscriber may be behind before it is ended with a status that says so.
    pub subscriber_lag_max: usize,
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
            infer: InferConfig::default(),
            recognition: RecognitionConfig::default(),
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
            sessions: 0,
            detector_side: 640,
            detection_score_min: 0.7,
            encode_every_face: false,
        }
    }
}

impl Default for RecognitionConfig {
    fn default() -> Self {
        Self {
            threshold: None,
            actionable_ms: 5_000,
            decision_deadline_ms: 3_000,
            visit_gap_ms: 2_000,
            quality_min: 0.3,
            enrol_quality_min: 0.3,
        }
    }
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self { retention_days: 30, snapshots: true, subscriber_lag_max: 4_096 }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), json: false }
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error(
        "cannot read the configuration {path}: {source}; give another with --config, or create it (systemd/doorward.toml is an example)"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The text is no TOML, a key is unknown, or a value has the wrong type. Boxed: it is large.
    #[error("{0}")]
    Malformed(#[from] Box<figment::Error>),
    /// A value has the right type and is not allowed.
    #[error("{origin}: {key} = {value} is not allowed: {allowed}")]
    OutOfRange {
        /// The file, or where else the value came from.
        origin: String,
        /// The key, with its sections.
        key: &'static str,
        /// What was given.
        value: String,
        /// What would be allowed.
        allowed: &'static str,
    },
}

impl Config {
    /// Reads `file` (if any), then the environment, then `overrides` (dotted key, TOML value).
    ///
    /// # Errors
    /// [`ConfigError`], naming the source, the key and the value. Nothing was opened.
    pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(path) = file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
            drop(text);
            figment = figment.merge(Toml::file_exact(path));
        }
        figment = figment.merge(Env::prefixed("DOORWARD_").split("__").ignore(&["test_data", "config", "server", "token"]));
        for (key, value) in overrides {
            let value: figment::value::Value = value.parse().unwrap_or_else(|_| value.clone().into());
            figment = figment.merge(Serialized::global(key, value));
        }
        let config: Self = figment.extract().map_err(Box::new)?;
        config.check(&figment)?;
        Ok(config)
    }

    fn check(&self, figment: &Figment) -> Result<(), ConfigError> {
        let origin = |key: &str| {
            figment
                .find_metadata(key)
                .map_or_else(|| "configuration".to_owned(), |m| m.source.as_ref().map_or_else(|| m.name.to_string(), ToString::to_string))
        };
        let require = |allowed_here: bool, key: &'static str, value: String, allowed: &'static str| {
            if allowed_here { Ok(()) } else { Err(ConfigError::OutOfRange { origin: origin(key), key, value, allowed }) }
        };
        let (server, infer, recognition) = (&self.server, &self.infer, &self.recognition);
        let unit = 0.0..=1.0;
        require(
            (160..=1920).contains(&infer.detector_side) && infer.detector_side.is_multiple_of(32),
            "infer.detector_side",
            infer.detector_side.to_string(),
            "a multiple of 32 from 160 to 1920",
        )?;
        require(infer.sessions <= 256, "infer.sessions", infer.sessions.to_string(), "0 (one a core) to 256")?;
        for (key, value) in [
            ("infer.detection_score_min", infer.detection_score_min),
            ("recognition.quality_min", recognition.quality_min),
            ("recognition.enrol_quality_min", recognition.enrol_quality_min),
        ] {
            require(unit.contains(&value), key, value.to_string(), "0 to 1")?;
        }
        if let Some(threshold) = recognition.threshold {
            require((-1.0..=1.0).contains(&threshold), "recognition.threshold", threshold.to_string(), "-1 to 1 (cosine similarity)")?;
        }
        for (key, value, allowed_here, allowed) in [
            ("recognition.actionable_ms", recognition.actionable_ms, 100..=60_000, "100 to 60000"),
            ("recognition.decision_deadline_ms", recognition.decision_deadline_ms, 100..=60_000, "100 to 60000"),
            ("recognition.visit_gap_ms", recognition.visit_gap_ms, 100..=600_000, "100 to 600000"),
            ("server.handshake_timeout_ms", server.handshake_timeout_ms, 100..=60_000, "100 to 60000"),
            ("server.request_timeout_ms", server.request_timeout_ms, 100..=3_600_000, "100 to 3600000"),
            ("server.keepalive_interval_ms", server.keepalive_interval_ms, 1_000..=3_600_000, "1000 to 3600000"),
            ("server.streams_per_connection_max", server.streams_per_connection_max.into(), 1..=65_535, "1 to 65535"),
            ("server.connections_max", server.connections_max.into(), 1..=65_535, "1 to 65535"),
            ("server.message_bytes_max", server.message_bytes_max as u64, 1 << 16..=1 << 30, "65536 to 1073741824"),
            ("events.retention_days", self.events.retention_days.into(), 1..=36_500, "1 to 36500"),
            ("events.subscriber_lag_max", self.events.subscriber_lag_max as u64, 16..=1_000_000, "16 to 1000000"),
        ] {
            require(allowed_here.contains(&value), key, value.to_string(), allowed)?;
        }
        require(
            server.tls_certificate_file.is_some() == server.tls_key_file.is_some(),
            "server.tls_key_file",
            format!("{:?}", server.tls_key_file),
            "tls_certificate_file and tls_key_file go together",
        )?;
        let guarded = server.tls_certificate_file.is_some() && server.token_file.is_some();
        require(
            server.listen.ip().is_loopback() || guarded,
            "server.listen",
            server.listen.to_string(),
            "beyond loopback only with tls_certificate_file, tls_key_file and token_file",
        )
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
