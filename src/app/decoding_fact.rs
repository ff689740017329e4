//! Tells of GStreamer's plugin for GPUs beside what else a GPU stands on.
//!
//! In: what was found of a device, which knows no GStreamer, and what ingest, which knows no device, found of the plugin. Out: one more fact.
//! Where nobody looked for a GPU, or cameras are to be decoded by the CPU, there is none.
//! Must not know: how either is looked for.

use crate::config::DecodeChoice;
use crate::device::DeviceFact;
use crate::infer::EngineFacts;
use crate::ingest::{self, Nvcodec};

/// What is called the fact.
const NAME: &str = "nvcodec";

/// The plugin as a fact beside those of a device, also where no GPU was taken: a machine that is made ready for one wants to know.
pub fn decoding_fact(facts: &[DeviceFact], decode: DecodeChoice) -> Option<DeviceFact> {
    (!facts.is_empty() && decode == DecodeChoice::Auto).then(|| of(&ingest::nvcodec(), has_device(facts)))
}

/// The same facts with that one.
pub(super) fn with_decoding(mut facts: EngineFacts, decode: DecodeChoice) -> EngineFacts {
    let fact = decoding_fact(&facts.device_facts, decode);
    facts.device_facts.extend(fact);
    facts
}

/// Whether the driver knows a device, which the plugin asks when GStreamer looks for its elements.
fn has_device(facts: &[DeviceFact]) -> bool {
    facts.iter().any(|fact| fact.what.starts_with("cuda:"))
}

fn of(plugin: &Nvcodec, has_device: bool) -> DeviceFact {
    let Nvcodec { version, decoders, missing, package } = plugin;
    let (found, mend) = match version {
        None => ("GStreamer has no such plugin, so the CPU decodes cameras".to_owned(), format!("apt-get install {package}")),
        Some(version) if missing.is_empty() => (format!("{version} ({})", decoders.join(", ")), String::new()),
        Some(version) if has_device => {
            (format!("{version}, without {}, so the CPU decodes cameras", missing.join(", ")), ingest::mend_of_decoding("libnvcuvid1"))
        }
        // The driver's own fact has the mend.
        Some(version) => (format!("{version}; its decoders come with a driver that works"), String::new()),
    };
    DeviceFact { what: NAME.into(), found, mend }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plugin(version: Option<&str>, missing: &[&'static str]) -> Nvcodec {
        let decoders = ["nvh264dec", "nvh265dec"].into_iter().filter(|decoder| !missing.contains(decoder)).collect();
        Nvcodec { version: version.map(str::to_owned), decoders, missing: missing.to_vec(), package: "plugins-bad" }
    }

    #[test]
    fn the_plugin_is_told_by_its_version_and_what_it_lacks_with_the_mend() {
        let told = |plugin: Nvcodec, has_device| {
            let DeviceFact { what, found, mend } = of(&plugin, has_device);
            assert_eq!(what, "nvcodec");
            (found, mend)
        };
        let whole = ("1.22.0 (nvh264dec, nvh265dec)".to_owned(), String::new());
        assert_eq!(told(plugin(Some("1.22.0"), &[]), true), whole);
        let (found, mend) = told(plugin(None, &["nvh264dec", "nvh265dec"]), false);
        assert!(found.contains("no such plugin") && mend == "apt-get install plugins-bad", "{found}: {mend}");
        let (found, mend) = told(plugin(Some("1.22.0"), &["nvh265dec"]), true);
        assert!(found.starts_with("1.22.0, without nvh265dec,"), "{found}");
        for part in ["apt-get install libnvcuvid1", "NVIDIA_DRIVER_CAPABILITIES", "registry", "cameras.decode"] {
            assert!(mend.contains(part), "{part}: {mend}");
        }
        let (found, mend) = told(plugin(Some("1.22.0"), &["nvh264dec", "nvh265dec"]), false);
        assert!(found.starts_with("1.22.0; ") && mend.is_empty(), "the driver comes first: {found}: {mend}");
    }

    #[test]
    fn the_plugin_is_looked_for_where_a_gpu_was_and_the_cpu_is_not_to_decode() {
        let driver = DeviceFact { what: "driver".into(), found: "none".into(), mend: "install it".into() };
        let is_told = |facts: &[DeviceFact], decode| decoding_fact(facts, decode).is_some();
        assert!(is_told(std::slice::from_ref(&driver), DecodeChoice::Auto));
        assert!(!is_told(&[driver], DecodeChoice::Cpu) && !is_told(&[], DecodeChoice::Auto));
    }
}
