//! Looks at what the daemon stands on: video, models, inference, folders.
//!
//! In: the configuration and the machine. Out: checks.
//! Drops: nothing. The file that is written to see whether one can be is removed again; what opening the models
//! rewrites for this machine stays, as at the daemon's start.
//! Must not know: how checks are printed.

use std::path::Path;

use super::{Check, Verdict};
use crate::config::{Config, DecodeChoice, InferConfig};
use crate::device::{Device, DeviceFact, LibraryFact, ResolvedDevice};
use crate::infer::{Engine, EngineFacts};
use crate::ingest::PluginFact;
use crate::models::{Manifest, Sound};
use crate::{app, device, ingest};

/// GStreamer and each element that ingest uses.
pub fn video() -> Vec<Check> {
    let elements = ingest::plugins();
    let missing = elements.iter().filter(|element| !element.present);
    let broken: Vec<Check> = missing
        .map(|element| {
            let found = format!("GStreamer element {} is missing: it {}", element.element, element.purpose);
            Check::broken("video", found, format!("apt-get install {}", element.package))
        })
        .collect();
    if broken.is_empty() { vec![Check::works("video", format!("GStreamer with all {} elements", elements.len()))] } else { broken }
}

/// The runtime library and the models, against their published hashes.
pub fn models(dir: &Path) -> Vec<Check> {
    let manifest = match Manifest::load(dir) {
        Ok(manifest) => manifest,
        Err(error) => return vec![Check::broken("models", error.to_string(), "script/bootstrap fills models/; set models_dir to it")],
    };
    let verified = manifest.verify().into_iter();
    verified
        .map(|verified| match verified.outcome {
            Ok(Sound::AsPublished) => {
                Check::works(verified.listed.role.name(), format!("{}, as published", verified.listed.path.display()))
            }
            Ok(Sound::NotInstalled) => {
                Check::works(verified.listed.role.name(), format!("{} is not installed; only a GPU needs it", verified.listed.name))
            }
            Err(error) => {
                Check::broken(verified.listed.role.name(), error.to_string(), format!("it comes from {}", verified.listed.source))
            }
        })
        .collect()
}

/// The device with what a GPU stands on, and a session of each model on it.
pub async fn inference(config: &Config) -> Vec<Check> {
    let device = match device::resolve(&config.infer.device) {
        Ok(device) => device,
        Err(error) => {
            let mut checks = gpu(&device::facts(&device::probe()), config.cameras.decode);
            checks.push(Check::broken("device", error.to_string(), "mend what is missing above, or set infer.device to auto or cpu"));
            return checks;
        }
    };
    let mut checks = gpu(&device.facts, config.cameras.decode);
    if matches!(device.device, Device::Cuda(_)) && config.cameras.decode == DecodeChoice::Auto {
        checks.extend(decoding(&ingest::cuda_plugins()));
    }
    // One session proves as much as many, and opens faster.
    let infer = InferConfig { sessions: 1, ..config.infer.clone() };
    match Engine::open(&infer, &config.models_dir, &device) {
        Ok(engine) => {
            let facts = engine.facts();
            let found = format!("{}: {}", facts.device, facts.device_reason);
            // The GPU may be there and fail when it is used.
            checks.push(if facts.device == device.device.to_string() {
                Check::works("device", found)
            } else {
                Check::doubtful("device", found, "mend it as it says, or set infer.device = \"cpu\"")
            });
            let found = format!(
                "ONNX Runtime {} runs the models: provider {}, precision {} ({})",
                facts.runtime_version, facts.provider, facts.precision, facts.precision_reason
            );
            checks.push(Check::works("inference", found));
            checks.extend(deciding(config, facts, &device.as_used(&facts.device, &facts.device_reason)).await);
        }
        Err(error) => {
            checks.push(Check::works("device", format!("{}: {}", device.device, device.reason)));
            let mend = "mend the files named above first, then `doorward models install`";
            checks.push(Check::broken("inference", error.to_string(), mend));
        }
    }
    checks
}

/// What decides, in force and in the shadow: without it the daemon does not start.
async fn deciding(config: &Config, facts: &EngineFacts, device: &ResolvedDevice) -> Vec<Check> {
    let mend = |section| format!("name a file that is there and of this encoder, or correct {section}");
    let mut checks = vec![match app::policy(config, facts) {
        Ok(_) => Check::works("decisions", "thresholds, calibration and verifier can be used, as far as they are configured"),
        Err(error) => Check::broken("decisions", format!("{error:#}"), mend("[recognition]")),
    }];
    match app::check_shadow(config, facts, device).await {
        Ok(None) => {}
        Ok(Some(found)) => checks.push(Check::works("shadow", found)),
        Err(error) => checks.push(Check::broken("shadow", format!("{error:#}"), mend("[shadow]"))),
    }
    checks
}

/// What a GPU stands on: nothing of it keeps the daemon from running on the CPU.
fn gpu(facts: &[DeviceFact], decode: DecodeChoice) -> Vec<Check> {
    let check = |fact: &DeviceFact| Check {
        what: "gpu",
        verdict: if fact.mend.is_empty() { Verdict::Works } else { Verdict::Doubtful },
        found: format!("{}: {}", fact.what, fact.found),
        mend: fact.mend.clone(),
    };
    let plugin = app::decoding_fact(facts, decode);
    // The doctor looks at what the daemon leaves alone without a driver.
    let (unlooked, looked): (Vec<_>, Vec<_>) = facts.iter().partition(|fact| fact.what == device::LIBRARIES);
    let libraries = unlooked.first().and_then(|_| libraries(&device::missing_libraries()));
    looked.into_iter().map(check).chain(libraries).chain(plugin.as_ref().map(check)).collect()
}

/// What a GPU would need besides its driver, in one line, where the driver is all that was looked for.
fn libraries(missing: &[LibraryFact]) -> Option<Check> {
    let all = |of: fn(&LibraryFact) -> &str, between| missing.iter().map(of).collect::<Vec<_>>().join(between);
    let found = format!("libraries: {} are not there or cannot be loaded", all(|library| library.name, ", "));
    let mend = format!("apt-get install {}", all(|library| library.package, " "));
    (!missing.is_empty()).then_some(Check { what: "gpu", verdict: Verdict::Doubtful, found, mend })
}

/// What decoding on a GPU stands on: without it the CPU decodes and the GPU analyses.
fn decoding(facts: &[PluginFact]) -> Vec<Check> {
    let missing: Vec<Check> = facts.iter().filter(|fact| !fact.present).map(undecoded).collect();
    if !missing.is_empty() {
        return missing;
    }
    let all: Vec<&str> = facts.iter().map(|fact| fact.element).collect();
    vec![Check::works("gpu", format!("cameras are decoded on it: {}", all.join(", ")))]
}

fn undecoded(fact: &PluginFact) -> Check {
    let PluginFact { element, package, purpose, .. } = fact;
    Check::doubtful("gpu", format!("{element} is missing, so the CPU decodes cameras: it {purpose}"), ingest::mend_of_decoding(package))
}

/// The folders and files that the configuration names.
pub fn folders(config: &Config) -> Vec<Check> {
    let mut checks = vec![data_dir(&config.data_dir)];
    if let Some(people) = &config.people_dir {
        checks.push(match std::fs::read_dir(people) {
            Ok(_) => Check::works("people_dir", people.display().to_string()),
            Err(error) => Check::broken("people_dir", format!("{}: {error}", people.display()), "create it, readable by the daemon's user"),
        });
    }
    let server = &config.server;
    if server.tls_certificate_file.is_some() || server.token_file.is_some() {
        checks.push(match crate::rpc::check_files(server) {
            Ok(()) => Check::works("server files", "certificate, key and tokens can be used, as far as they are configured"),
            Err(error) => Check::broken("server files", error.to_string(), "let the daemon's user read them, or correct [server]"),
        });
    }
    if let Some(file) = &config.cameras.ca_file {
        checks.push(match crate::ingest::check_ca_file(file) {
            Ok(()) => Check::works("cameras.ca_file", file.display().to_string()),
            Err(error) => Check::broken("cameras.ca_file", error.to_string(), "let the daemon's user read it, or correct [cameras]"),
        });
    }
    checks
}

fn data_dir(dir: &Path) -> Check {
    if !dir.is_dir() {
        let mend = format!(
            "mkdir -p {} as the daemon's user, or choose another data_dir; under systemd the unit makes it when it starts",
            dir.display()
        );
        return Check::broken("data_dir", format!("{} is no folder", dir.display()), mend);
    }
    let probe = dir.join(format!(".doctor-{}", std::process::id()));
    let written = std::fs::write(&probe, b"doctor").and_then(|()| std::fs::remove_file(&probe));
    match written {
        Ok(()) => Check::works("data_dir", format!("{} is writable", dir.display())),
        Err(error) => {
            let mend = "run the doctor as the daemon's user, or give the folder to the user that runs the daemon";
            Check::broken("data_dir", format!("{}: {error}", dir.display()), mend)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_told_by_whether_it_can_be_written() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        assert_eq!(data_dir(folder.path()).verdict, Verdict::Works);
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "the probe is removed");
        let missing = data_dir(&folder.path().join("missing"));
        assert_eq!(missing.verdict, Verdict::Broken);
        assert!(missing.mend.contains("mkdir -p"), "{missing:?}");
    }

    #[test]
    fn missing_models_are_told_with_the_mend() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let checks = models(folder.path());
        assert!(checks.iter().all(|check| check.verdict == Verdict::Broken && check.mend.contains("script/bootstrap")), "{checks:?}");
    }

    #[test]
    fn a_gpu_that_does_not_decode_is_doubtful_with_the_mend() {
        let fact = |element, present| PluginFact { element, package: "libnvcuvid1", present, purpose: "is the GPU's decoder" };
        let checks = decoding(&[fact("libnvcuvid.so.1", false), fact("nvh264dec", true)]);
        let [check] = &checks[..] else { panic!("one is missing: {checks:?}") };
        assert!(check.verdict == Verdict::Doubtful && check.found.contains("libnvcuvid.so.1 is missing"), "{check:?}");
        assert!(check.mend.contains("apt-get install libnvcuvid1") && check.mend.contains("cameras.decode"), "{check:?}");
        let whole = decoding(&[fact("libnvcuvid.so.1", true), fact("nvh264dec", true)]);
        assert!(whole.len() == 1 && whole[0].verdict == Verdict::Works && whole[0].found.contains("nvh264dec"), "{whole:?}");
    }

    #[test]
    fn a_file_that_the_configuration_names_and_nobody_can_read_is_broken() {
        let mut config = Config::default();
        config.server.token_file = Some("/nowhere/tokens".into());
        config.cameras.ca_file = Some("/nowhere/ca.pem".into());
        let checks = folders(&config);
        for (what, file) in [("server files", "/nowhere/tokens"), ("cameras.ca_file", "/nowhere/ca.pem")] {
            let check = checks.iter().find(|check| check.what == what).expect("it is looked at");
            assert!(check.verdict == Verdict::Broken && check.found.contains(file), "{check:?}");
        }
    }
}
