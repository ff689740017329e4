//! Reads the configuration's layers, lays the later over the earlier, and checks every value.
//!
//! In: a file, the process environment, `--set` overrides. Out: a [`Config`], or a [`ConfigError`]
//! that names where a value came from, its key, the value, and what would be allowed.
//! Drops: variables that belong to the clients and to the tests, by name (see [`is_foreign`]).
//! Must not know: any stage.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::Serialized;
use figment::util::nest;
use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};
use tracing_subscriber::EnvFilter;

use super::{Config, DeviceChoice, PrecisionChoice, SuspicionChoice, TargetConfig};

const TARGETS_ALLOWED: &str = "a section for each name with threshold (-1 to 1) or with target_fmr, target_fpir (above 0 and below 1)";
/// Every key with what is allowed there: the one place that says so.
pub(super) const KEYS: &[(&str, &str)] = &[
    ("data_dir", "a path, as text"),
    ("models_dir", "a path, as text"),
    ("people_dir", "a path, as text"),
    (
        "server.listen",
        "an address and a port, such as \"127.0.0.1:50051\"; beyond loopback only with tls_certificate_file, tls_key_file and token_file",
    ),
    ("server.tls_certificate_file", "a path, as text, together with tls_key_file"),
    ("server.tls_key_file", "a path, as text, together with tls_certificate_file"),
    ("server.token_file", "a path, as text"),
    ("server.message_bytes_max", "65536 to 1073741824"),
    ("server.streams_per_connection_max", "1 to 65535"),
    ("server.connections_max", "1 to 65535"),
    ("server.handshake_timeout_ms", "100 to 60000"),
    ("server.request_timeout_ms", "100 to 3600000"),
    ("server.keepalive_interval_ms", "1000 to 3600000"),
    ("cameras.ca_file", "a path, as text"),
    ("cameras.decode", "\"auto\" or \"cpu\""),
    ("infer.device", "\"auto\", \"cpu\" or \"cuda:N\""),
    (
        "infer.precision",
        "\"auto\", \"f32\", \"bf16\" (which a GPU is not asked for: not with infer.device = \"cuda:N\") or \"fp16\" (a GPU's: not with \"cpu\")",
    ),
    ("infer.engine_cache_dir", "a path, as text"),
    ("infer.encoder", "the name of an encoder in manifest.toml, as text"),
    ("infer.sessions", "0 (one a core) to 256"),
    ("infer.detector_side", "a multiple of 32 from 160 to 1920"),
    ("infer.detection_score_min", "0 to 1"),
    ("infer.mirror", "\"off\", \"photos\" or \"all\""),
    ("infer.antispoof", "true or false"),
    ("infer.encode_every_face", "true or false"),
    ("recognition.calibration", "a path, as text"),
    ("recognition.verifier", "a path, as text"),
    ("recognition.target_fmr", "above 0 and below 1 (a share of strangers), such as 0.001"),
    ("recognition.target_fpir", "above 0 and below 1 (a share of strangers), such as 0.001"),
    ("recognition.threshold", "-1 to 1 (cosine similarity), and neither target_fpir nor target_fmr beside it"),
    ("recognition.watchlists", TARGETS_ALLOWED),
    ("recognition.subjects", TARGETS_ALLOWED),
    ("recognition.actionable_ms", "100 to 60000"),
    ("recognition.decision_deadline_ms", "100 to 60000"),
    ("recognition.entry_decision_ms", "0 to 60000"),
    ("recognition.reassert_ms", "0 (never) to 600000"),
    ("recognition.visit_gap_ms", "100 to 600000"),
    ("recognition.visit_resume_ms", "0 (a visit ends with its track) to 600000"),
    ("recognition.quality_min", "0 to 1"),
    ("recognition.enrol_quality_min", "0 to 1"),
    ("recognition.live_score_min", "0 to 1"),
    ("recognition.suspected_attack", "\"report\" or \"refuse\", and \"refuse\" only with infer.antispoof = true"),
    ("shadow.encoder", "the name of an encoder in manifest.toml, as text"),
    ("shadow.calibration", "a path, as text"),
    ("shadow.verifier", "a path, as text"),
    ("shadow.target_fpir", "above 0 and below 1 (a share of strangers), such as 0.001"),
    ("shadow.threshold", "-1 to 1 (cosine similarity), and no shadow.target_fpir beside it"),
    ("shadow.watchlists", TARGETS_ALLOWED),
    ("shadow.subjects", TARGETS_ALLOWED),
    ("gallery.history_days", "0 to 36500"),
    ("gallery.watch_people_s", "0 (never) to 86400, and people_dir set"),
    ("events.retention_days", "1 to 36500"),
    ("events.size_max_mb", "1 to 10000000"),
    ("events.snapshots", "true or false"),
    ("events.snapshot_retention_days", "1 to 36500"),
    ("events.snapshot_size_max_mb", "1 to 10000000"),
    ("events.recent_max", "16 to 1000000"),
    ("log.filter", "a filter such as \"info\" or \"doorward=debug,warn\""),
    ("log.json", "true or false"),
];

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
    /// The text is no TOML, or a variable's value is no text.
    #[error("{origin}: {reason}")]
    Malformed {
        /// The file, or where else the text came from.
        origin: String,
        /// What is wrong, with line and column where there are any.
        reason: String,
    },
    /// There is no such key.
    #[error("{origin}: there is no key {key} (given as {value}); the keys here are: {known}")]
    UnknownKey {
        /// The file, or where else the key came from.
        origin: String,
        /// The key, with its sections.
        key: String,
        /// What was given.
        value: String,
        /// The keys that exist in this section.
        known: String,
    },
    /// A value has the wrong type, or has the right one and is not allowed.
    #[error("{origin}: {key} = {value} is not allowed; allowed: {allowed}")]
    NotAllowed {
        /// The file, or where else the value came from.
        origin: String,
        /// The key, with its sections.
        key: String,
        /// What was given.
        value: String,
        /// What would be allowed.
        allowed: String,
    },
}

/// One layer: what a file, a variable or an override states.
struct Layer {
    origin: String,
    values: Dict,
}

impl Layer {
    /// A layer of one value. What is a plain TOML value (a number, a truth value, a quoted text)
    /// is that; anything else is text as it stands, so that nobody has to quote twice.
    fn of_one(origin: String, key: &str, text: &str) -> Self {
        let parsed = toml::from_str::<Dict>(&format!("value = {text}")).ok().filter(|values| values.len() == 1);
        let plain = parsed.and_then(|mut values| values.remove("value")).filter(|value| value.as_dict().is_none());
        let values = nest(key, plain.unwrap_or_else(|| text.into())).into_dict().unwrap_or_default();
        Self { origin, values }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

impl Config {
    /// Reads `file` (if any), then the process environment, then `overrides` (dotted key, value).
    ///
    /// A variable is `DOORWARD_` and the key in capitals, with `__` between sections:
    /// `DOORWARD_SERVER__LISTEN`.
    ///
    /// # Errors
    /// [`ConfigError`], naming the source, the key and the value. Nothing was opened.
    pub fn load(file: Option<&Path>, overrides: &[(String, String)]) -> Result<Self, ConfigError> {
        Self::load_with(file, std::env::vars_os(), overrides)
    }

    /// The same with an environment of the caller's.
    pub(super) fn load_with(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        overrides: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(path) = file {
            figment = figment.merge(read_file(path)?);
        }
        for (name, value) in environment {
            if let Some(layer) = read_variable(&name, value)? {
                figment = figment.merge(layer);
            }
        }
        for (key, value) in overrides {
            figment = figment.merge(Layer::of_one("command line (--set)".into(), key, value));
        }
        let mut config: Self = figment.extract().map_err(|error| explain(&figment, error))?;
        config.check(&figment)?;
        config.infer.engine_cache_dir.get_or_insert_with(|| config.data_dir.join("engines"));
        Ok(config)
    }

    /// Refuses values whose type is right and which are not allowed.
    fn check(&self, figment: &Figment) -> Result<(), ConfigError> {
        let (server, infer, recognition) = (&self.server, &self.infer, &self.recognition);
        let by_rate = recognition.target_fmr.is_some() || recognition.target_fpir.is_some();
        let unit = 0.0..=1.0;
        let milliseconds = |value: u64, least: u64, most: u64| (least..=most).contains(&value);
        let guarded = server.tls_certificate_file.is_some() && server.tls_key_file.is_some() && server.token_file.is_some();
        let paired = server.tls_certificate_file.is_some() == server.tls_key_file.is_some();
        let rules = [
            ("data_dir", !self.data_dir.as_os_str().is_empty()),
            ("models_dir", !self.models_dir.as_os_str().is_empty()),
            ("server.tls_certificate_file", paired || server.tls_certificate_file.is_none()),
            ("server.tls_key_file", paired || server.tls_key_file.is_none()),
            ("server.listen", server.listen.ip().is_loopback() || guarded),
            ("server.message_bytes_max", (1 << 16..=1 << 30).contains(&server.message_bytes_max)),
            ("server.streams_per_connection_max", (1..=65_535).contains(&server.streams_per_connection_max)),
            ("server.connections_max", (1..=65_535).contains(&server.connections_max)),
            ("server.handshake_timeout_ms", milliseconds(server.handshake_timeout_ms, 100, 60_000)),
            ("server.request_timeout_ms", milliseconds(server.request_timeout_ms, 100, 3_600_000)),
            ("server.keepalive_interval_ms", milliseconds(server.keepalive_interval_ms, 1_000, 3_600_000)),
            (
                "infer.precision",
                !matches!(
                    (infer.precision, &infer.device),
                    (PrecisionChoice::Bf16, DeviceChoice::Cuda(_)) | (PrecisionChoice::Fp16, DeviceChoice::Cpu)
                ),
            ),
            ("infer.engine_cache_dir", infer.engine_cache_dir.as_ref().is_none_or(|dir| !dir.as_os_str().is_empty())),
            ("infer.sessions", infer.sessions <= 256),
            ("infer.detector_side", (160..=1920).contains(&infer.detector_side) && infer.detector_side.is_multiple_of(32)),
            ("infer.detection_score_min", unit.contains(&infer.detection_score_min)),
            ("recognition.target_fmr", is_rate(recognition.target_fmr)),
            ("recognition.target_fpir", is_rate(recognition.target_fpir)),
            ("recognition.threshold", is_similarity(recognition.threshold) && (recognition.threshold.is_none() || !by_rate)),
            ("recognition.watchlists", recognition.watchlists.values().all(are_targets)),
            ("recognition.subjects", recognition.subjects.values().all(are_targets)),
            ("recognition.actionable_ms", milliseconds(recognition.actionable_ms, 100, 60_000)),
            ("recognition.decision_deadline_ms", milliseconds(recognition.decision_deadline_ms, 100, 60_000)),
            ("recognition.entry_decision_ms", milliseconds(recognition.entry_decision_ms, 0, 60_000)),
            ("recognition.reassert_ms", milliseconds(recognition.reassert_ms, 0, 600_000)),
            ("recognition.visit_gap_ms", milliseconds(recognition.visit_gap_ms, 100, 600_000)),
            ("recognition.visit_resume_ms", milliseconds(recognition.visit_resume_ms, 0, 600_000)),
            ("recognition.quality_min", unit.contains(&recognition.quality_min)),
            ("recognition.enrol_quality_min", unit.contains(&recognition.enrol_quality_min)),
            ("recognition.live_score_min", unit.contains(&recognition.live_score_min)),
            ("recognition.suspected_attack", recognition.suspected_attack == SuspicionChoice::Report || infer.antispoof),
            ("shadow.target_fpir", is_rate(self.shadow.target_fpir)),
            (
                "shadow.threshold",
                is_similarity(self.shadow.threshold) && (self.shadow.threshold.is_none() || self.shadow.target_fpir.is_none()),
            ),
            ("shadow.watchlists", self.shadow.watchlists.iter().flat_map(|own| own.values()).all(are_targets)),
            ("shadow.subjects", self.shadow.subjects.iter().flat_map(|own| own.values()).all(are_targets)),
            ("gallery.history_days", self.gallery.history_days <= 36_500),
            ("gallery.watch_people_s", self.gallery.watch_people_s <= if self.people_dir.is_some() { 86_400 } else { 0 }),
            ("events.retention_days", (1..=36_500).contains(&self.events.retention_days)),
            ("events.size_max_mb", (1..=10_000_000).contains(&self.events.size_max_mb)),
            ("events.snapshot_retention_days", (1..=36_500).contains(&self.events.snapshot_retention_days)),
            ("events.snapshot_size_max_mb", (1..=10_000_000).contains(&self.events.snapshot_size_max_mb)),
            ("events.recent_max", (16..=1_000_000).contains(&self.events.recent_max)),
            ("log.filter", EnvFilter::builder().parse(&self.log.filter).is_ok()),
        ];
        match rules.iter().find(|(_, is_allowed)| !is_allowed) {
            None => Ok(()),
            Some((key, _)) => Err(not_allowed(figment, (*key).to_owned())),
        }
    }
}

fn is_rate(rate: Option<f64>) -> bool {
    rate.is_none_or(|rate| rate > 0.0 && rate < 1.0)
}

fn is_similarity(threshold: Option<f32>) -> bool {
    threshold.is_none_or(|threshold| (-1.0..=1.0).contains(&threshold))
}

/// A scope that asks for nothing is a mistake, and one that asks for a similarity and a rate contradicts itself.
fn are_targets(targets: &TargetConfig) -> bool {
    let by_rate = targets.target_fmr.is_some() || targets.target_fpir.is_some();
    by_rate != targets.threshold.is_some()
        && is_similarity(targets.threshold)
        && is_rate(targets.target_fmr)
        && is_rate(targets.target_fpir)
}

fn read_file(path: &Path) -> Result<Layer, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
    let origin = path.display().to_string();
    match toml::from_str(&text) {
        Ok(values) => Ok(Layer { origin, values }),
        Err(error) => Err(ConfigError::Malformed { origin, reason: error.to_string() }),
    }
}

/// The layer that a variable makes, or `None` when it is not the configuration's.
fn read_variable(name: &OsString, value: OsString) -> Result<Option<Layer>, ConfigError> {
    let Some(name) = name.to_str().filter(|name| name.starts_with("DOORWARD_") && !is_foreign(name)) else {
        return Ok(None);
    };
    let origin = format!("environment variable {name}");
    let Ok(text) = value.into_string() else {
        return Err(ConfigError::Malformed { origin, reason: "its value is not UTF-8; paths that are not go into the file".into() });
    };
    let key = name.trim_start_matches("DOORWARD_").to_ascii_lowercase().replace("__", ".");
    Ok(Some(Layer::of_one(origin, &key, &text)))
}

/// Whether a variable is read by the clients (`DOORWARD_SERVER` is a URL there), by the command
/// line itself or by the tests, and is therefore no key of the daemon's configuration.
fn is_foreign(name: &str) -> bool {
    name.starts_with("DOORWARD_TEST_") || ["DOORWARD_SERVER", "DOORWARD_TOKEN_FILE", "DOORWARD_CA_FILE", "DOORWARD_CONFIG"].contains(&name)
}

/// Says what figment found in the words of [`ConfigError`].
fn explain(figment: &Figment, error: figment::Error) -> ConfigError {
    let path = error.path;
    match error.kind {
        Kind::UnknownField(_, known) => {
            let key = path.join(".");
            ConfigError::UnknownKey { origin: origin(figment, &key), value: shown(figment, &key), key, known: known.join(", ") }
        }
        kind if path.is_empty() => ConfigError::Malformed { origin: "configuration".into(), reason: kind.to_string() },
        _ => not_allowed(figment, path.join(".")),
    }
}

fn not_allowed(figment: &Figment, key: String) -> ConfigError {
    // What stands below names of the user's own is described by the section. One that was given a plain value has no entry: it wants its keys.
    let sections = std::iter::successors(Some(key.as_str()), |key| key.rsplit_once('.').map(|(section, _)| section));
    let described = sections.filter_map(|section| KEYS.iter().find(|(known, _)| *known == section)).next();
    let allowed = described.map_or("a section of keys", |(_, allowed)| allowed);
    ConfigError::NotAllowed { origin: origin(figment, &key), value: shown(figment, &key), allowed: allowed.to_owned(), key }
}

/// Where the value of `key` came from.
fn origin(figment: &Figment, key: &str) -> String {
    figment.find_metadata(key).map_or_else(|| "configuration".to_owned(), |metadata| metadata.name.to_string())
}

/// The value of `key` as it would stand in JSON, which for plain values is how it stands in TOML.
fn shown(figment: &Figment, key: &str) -> String {
    let value = figment.find_value(key).ok().and_then(|value| serde_json::to_string(&value).ok());
    value.unwrap_or_else(|| "(nothing)".to_owned())
}
