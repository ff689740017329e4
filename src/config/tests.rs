//! Tests of the configuration: what is refused, in which words, and which layer wins.
//!
//! In: small files in a temporary directory and environments made up here. Out: verdicts.
//! Drops: nothing. Must not know: any stage.

use std::ffi::OsString;
use std::path::PathBuf;

use super::load::KEYS;
use super::{Config, ConfigError, DeviceChoice, InferConfig};

/// Loads `text` as a file, with these variables and overrides.
fn load(text: &str, environment: &[(&str, &str)], overrides: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("doorward.toml");
    std::fs::write(&file, text).expect("it is writable");
    let environment = environment.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let overrides: Vec<_> = overrides.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Config::load_with(Some(&file), environment, &overrides)
}

/// What loading `text` is refused with.
fn refusal(text: &str) -> String {
    load(text, &[], &[]).expect_err("it must be refused").to_string()
}

/// Asserts that a refusal names the file and each of `parts`.
fn assert_names(text: &str, parts: &[&str]) {
    let refusal = refusal(text);
    for part in parts.iter().chain(&["doorward.toml"]) {
        assert!(refusal.contains(part), "{part:?} is not in {refusal:?}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_keys_there_are() {
    assert_names("[recognition]\ntreshold = 0.4", &["recognition.treshold", "0.4", "threshold", "visit_gap_ms"]);
    assert_names("[recogniton]\nthreshold = 0.4", &["recogniton", "recognition", "server"]);
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_what_is_allowed() {
    assert_names("[infer]\nsessions = \"two\"", &["infer.sessions", "\"two\"", "0 (one a core) to 256"]);
    assert_names("[infer]\nsessions = -1", &["infer.sessions", "-1", "0 (one a core) to 256"]);
    assert_names("[recognition]\nthreshold = \"high\"", &["recognition.threshold", "\"high\"", "-1 to 1"]);
    let below_a_name = "[recognition.watchlists.staff]\ntarget_fpir = \"0.01\"";
    assert_names(below_a_name, &["recognition.watchlists.staff.target_fpir", "\"0.01\"", "target_fmr, target_fpir"]);
    assert_names("data_dir = 7", &["data_dir", "7", "a path"]);
    assert_names("server = 7", &["server", "7", "a section"]);
    assert_names("[events]\nsnapshots = \"yes\"", &["events.snapshots", "\"yes\"", "true or false"]);
}

#[test]
fn a_value_that_is_none_of_the_choices_is_refused_with_the_choices() {
    assert_names("[infer]\ndevice = \"gpu\"", &["infer.device", "\"gpu\"", "cuda:N"]);
    assert_names("[infer]\nprecision = \"int8\"", &["infer.precision", "\"int8\"", "bf16"]);
    assert_names("[server]\nlisten = \"localhost\"", &["server.listen", "\"localhost\"", "127.0.0.1:50051"]);
    assert_names("[log]\nfilter = \"doorward=loud\"", &["log.filter", "doorward=loud", "info"]);
}

#[test]
fn a_value_out_of_range_is_refused_with_the_range() {
    assert_names("[recognition]\nthreshold = 1.5", &["recognition.threshold", "1.5", "-1 to 1"]);
    assert_names("[recognition]\nquality_min = nan", &["recognition.quality_min", "0 to 1"]);
    assert_names("[infer]\ndetector_side = 650", &["infer.detector_side", "650", "a multiple of 32"]);
    assert_names("[events]\nretention_days = 0", &["events.retention_days", "0", "1 to 36500"]);
    assert_names("data_dir = \"\"", &["data_dir", "a path"]);
}

#[test]
fn refusing_what_nobody_looks_for_is_refused() {
    assert_names("[recognition]\nsuspected_attack = \"refuse\"", &["recognition.suspected_attack", "\"refuse\"", "infer.antispoof = true"]);
    assert_names("[recognition]\nsuspected_attack = \"ignore\"", &["recognition.suspected_attack", "\"ignore\"", "\"report\""]);
    assert_names("[recognition]\nlive_score_min = 1.5", &["recognition.live_score_min", "1.5", "0 to 1"]);
    assert_names("[infer]\nantispoof = \"yes\"", &["infer.antispoof", "\"yes\"", "true or false"]);
    load("[infer]\nantispoof = true\n[recognition]\nsuspected_attack = \"refuse\"", &[], &[]).expect("both are there");
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_line() {
    assert_names("data_dir = \"/a\"\n[server\n", &["line 2"]);
}

#[test]
fn a_file_that_is_missing_is_named() {
    let refusal = Config::load_with(Some(&PathBuf::from("/nowhere/doorward.toml")), std::iter::empty(), &[]).expect_err("no file");
    assert!(matches!(&refusal, ConfigError::Unreadable { .. }) && refusal.to_string().contains("/nowhere/doorward.toml"), "{refusal}");
}

#[test]
fn listening_beyond_loopback_wants_tls_and_a_token() {
    let text = "[server]\nlisten = \"0.0.0.0:50051\"\n";
    assert_names(text, &["server.listen", "0.0.0.0:50051", "beyond loopback only with"]);
    let with_tls = format!("{text}tls_certificate_file = \"/c\"\ntls_key_file = \"/k\"\n");
    assert_names(&with_tls, &["server.listen", "token_file"]);
    load(&format!("{with_tls}token_file = \"/t\""), &[], &[]).expect("TLS and a token are there");
    load("[server]\nlisten = \"[::1]:1\"", &[], &[]).expect("IPv6 loopback is loopback");
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    assert_names("[server]\ntls_certificate_file = \"/c\"", &["server.tls_certificate_file", "/c", "together with tls_key_file"]);
    assert_names("[server]\ntls_key_file = \"/k\"", &["server.tls_key_file", "/k", "together with tls_certificate_file"]);
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let file = "[server]\nlisten = \"127.0.0.1:1\"";
    let port = |config: &Config| config.server.listen.port();
    assert_eq!(port(&load(file, &[], &[]).expect("good")), 1);
    let environment = [("DOORWARD_SERVER__LISTEN", "127.0.0.1:2")];
    assert_eq!(port(&load(file, &environment, &[]).expect("good")), 2);
    assert_eq!(port(&load(file, &environment, &[("server.listen", "127.0.0.1:3")]).expect("good")), 3);
}

#[test]
fn a_refusal_names_the_variable_or_the_command_line_it_came_from() {
    let variable = load("", &[("DOORWARD_INFER__SESSIONS", "many")], &[]).expect_err("no number").to_string();
    assert!(variable.contains("DOORWARD_INFER__SESSIONS") && variable.contains("\"many\""), "{variable}");
    let unknown = load("", &[("DOORWARD_INFER__SESSION", "1")], &[]).expect_err("no such key").to_string();
    assert!(unknown.contains("DOORWARD_INFER__SESSION") && unknown.contains("infer.session "), "{unknown}");
    let line = load("", &[("DOORWARD_INFER__SESSIONS", "1")], &[("infer.sessions", "999")]).expect_err("too many").to_string();
    assert!(line.contains("--set") && line.contains("999") && !line.contains("DOORWARD_"), "{line}");
}

/// What follows from other keys is filled in.
fn defaults_when_read() -> Config {
    let infer = InferConfig { engine_cache_dir: Some("/var/lib/doorward/engines".into()), ..InferConfig::default() };
    Config { infer, ..Config::default() }
}

#[test]
fn engines_are_kept_with_the_data_unless_another_place_is_named() {
    let place = |text: &str| load(text, &[], &[]).expect("it is allowed").infer.engine_cache_dir;
    assert_eq!(place("data_dir = \"/d\""), Some("/d/engines".into()));
    assert_eq!(place("data_dir = \"/d\"\n[infer]\nengine_cache_dir = \"/var/cache/e\""), Some("/var/cache/e".into()));
    assert!(load("[infer]\nengine_cache_dir = \"\"", &[], &[]).is_err());
}

#[test]
fn each_device_has_precisions_of_its_own() {
    for (device, precision, is_allowed) in [
        ("auto", "fp16", true),
        ("cuda:0", "fp16", true),
        ("cpu", "fp16", false),
        ("auto", "bf16", true),
        ("cpu", "bf16", true),
        ("cuda:1", "bf16", false),
        ("cuda:1", "f32", true),
    ] {
        let loaded = load(&format!("[infer]\ndevice = \"{device}\"\nprecision = \"{precision}\"\n"), &[], &[]);
        assert_eq!(loaded.is_ok(), is_allowed, "{device} {precision}");
        if let Err(error) = loaded {
            assert!(error.to_string().contains("infer.precision") && error.to_string().contains("a GPU"), "{error}");
        }
    }
}

#[test]
fn variables_of_the_tests_and_of_the_clients_are_no_keys() {
    let foreign = [
        ("DOORWARD_TEST_DATA", "/data"),
        ("DOORWARD_SERVER", "https://door.example:50051"),
        ("DOORWARD_TOKEN_FILE", "/t"),
        ("DOORWARD_CA_FILE", "/c"),
        ("DOORWARD_CONFIG", "/etc/doorward.toml"),
        ("PATH", "/bin"),
    ];
    assert_eq!(load("", &foreign, &[]).expect("none of them is a key"), defaults_when_read());
}

#[test]
fn overrides_are_typed_like_toml_and_need_no_quotes() {
    let overrides = [
        ("infer.device", "cuda:1"),
        ("recognition.threshold", "0.4"),
        ("log.filter", "doorward=debug,warn"),
        ("log.json", "true"),
        ("data_dir", "\"/quoted\""),
        ("people_dir", "/a\nb = 2"),
    ];
    let config = load("", &[], &overrides).expect("all are allowed");
    assert_eq!(config.infer.device, DeviceChoice::Cuda(1));
    assert_eq!(config.recognition.threshold, Some(0.4));
    assert_eq!((config.log.filter.as_str(), config.log.json), ("doorward=debug,warn", true));
    assert_eq!(config.data_dir, PathBuf::from("/quoted"));
    assert_eq!(config.people_dir, Some(PathBuf::from("/a\nb = 2")), "a value cannot smuggle in a second key");
}

#[test]
fn targets_of_a_scope_are_rates_or_a_threshold_and_never_both_nor_nothing() {
    let good = "[recognition.watchlists.staff]\ntarget_fpir = 0.01\n[recognition.subjects.anna]\nthreshold = 0.5\n";
    let config = load(good, &[], &[]).expect("it is allowed");
    assert_eq!(config.recognition.watchlists["staff"].target_fpir, Some(0.01));
    assert_eq!(config.recognition.subjects["anna"].threshold, Some(0.5));
    for bad in ["", "target_fpir = 0.0", "target_fmr = 1.0", "threshold = 2.0", "threshold = 0.4\ntarget_fmr = 0.1"] {
        let error = load(&format!("[recognition.watchlists.staff]\n{bad}\n"), &[], &[]).expect_err(bad).to_string();
        assert!(error.contains("recognition.watchlists"), "{bad}: {error}");
    }
    for bad in ["target_fpir = 0.0", "target_fmr = 1.5", "target_fpir = nan", "threshold = 0.6\ntarget_fpir = 0.01"] {
        assert!(load(&format!("[recognition]\n{bad}\n"), &[], &[]).is_err(), "{bad}");
    }
}

#[test]
fn the_example_configuration_states_every_default() {
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/doorward.toml")).expect("the example");
    assert_eq!(load(&example, &[], &[]).expect("it is allowed"), defaults_when_read());
    for (key, _) in KEYS {
        let name = key.rsplit('.').next().expect("a key has a name");
        let beginnings = [format!("{name} = "), format!("[{key}.")];
        let is_there = |line: &str| beginnings.iter().any(|begin| line.trim_start_matches("# ").starts_with(begin.as_str()));
        assert!(example.lines().any(is_there), "{key} is missing from systemd/doorward.toml");
    }
}

#[test]
fn every_key_says_what_is_allowed_there() {
    let defaults = serde_json::to_value(Config::default()).expect("plain data");
    let mut keys = Vec::new();
    for (name, value) in defaults.as_object().expect("a struct") {
        match value.as_object() {
            Some(section) => keys.extend(section.keys().map(|key| format!("{name}.{key}"))),
            None => keys.push(name.clone()),
        }
    }
    for key in &keys {
        assert!(KEYS.iter().any(|(known, _)| known == key), "{key} is not in KEYS");
    }
    assert_eq!(keys.len(), KEYS.len(), "KEYS names a key that does not exist");
}
