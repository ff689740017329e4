//! Knows which GStreamer elements ingest is made of, and whether this machine has them.
//!
//! In: GStreamer's registry. Out: a fact for each element and for the plugin that decodes on a GPU.
//! Must not know: pipelines.

use gstreamer::prelude::*;

use super::IngestError;
use super::cuda::{DECODER_LIBRARY, LIBRARY, is_there};
use super::registry::registry_file;

/// Whether one GStreamer element, or a library, that ingest uses is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginFact {
    /// Its name, as `gst-inspect-1.0` takes it; a library's file.
    pub element: &'static str,
    /// The Debian package that carries it.
    pub package: &'static str,
    /// Whether it can be used here.
    pub present: bool,
    /// What it is needed for.
    pub purpose: &'static str,
}

/// GStreamer's plugin whose elements decode on a CUDA device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nvcodec {
    /// Its version, where it is there. It is also there without a driver, and has no elements then.
    pub version: Option<String>,
    /// Those of its decoders that GStreamer has.
    pub decoders: Vec<&'static str>,
    /// Those that it has not.
    pub missing: Vec<&'static str>,
    /// The Debian package that carries it.
    pub package: &'static str,
}

const CORE: &str = "libgstreamer1.0-0";
const BASE: &str = "gstreamer1.0-plugins-base";
const GOOD: &str = "gstreamer1.0-plugins-good";
const BAD: &str = "gstreamer1.0-plugins-bad";
const LIBAV: &str = "gstreamer1.0-libav";

/// Element, Debian 12 package, purpose.
const ELEMENTS: [(&str, &str, &str); 13] = [
    ("rtspsrc", GOOD, "connects to cameras"),
    ("rtpbin", GOOD, "orders the packets of cameras"),
    ("udpsrc", GOOD, "receives the packets of cameras with transport udp"),
    ("rtph264depay", GOOD, "takes H.264 out of packets"),
    ("rtph265depay", GOOD, "takes H.265 out of packets"),
    ("h264parse", BAD, "finds pictures in H.264"),
    ("h265parse", BAD, "finds pictures in H.265"),
    ("avdec_h264", LIBAV, "decodes H.264"),
    ("avdec_h265", LIBAV, "decodes H.265"),
    ("appsink", BASE, "hands pictures over"),
    ("filesrc", CORE, "reads files for replay"),
    ("qtdemux", GOOD, "replays MP4 files"),
    ("matroskademux", GOOD, "replays Matroska files"),
];

/// Elements that decode on a CUDA device. Nothing else needs them.
const CUDA_ELEMENTS: [(&str, &str, &str); 2] =
    [("nvh264dec", BAD, "decodes H.264 on the GPU"), ("nvh265dec", BAD, "decodes H.265 on the GPU")];
/// Libraries that those load. In a container the last one is there only where the driver's `video` capability is asked for.
const CUDA_LIBRARIES: [(&str, &str, &str); 2] = [
    (LIBRARY, "libgstreamer-plugins-bad1.0-0", "hands pictures over on the GPU"),
    (DECODER_LIBRARY, "libnvcuvid1", "is the GPU's decoder"),
];

/// What mends it where decoding on a CUDA device lacks `package`, or GStreamer looked before there was a device.
pub fn mend_of_decoding(package: &str) -> String {
    format!(
        "apt-get install {package}; in a container NVIDIA_DRIVER_CAPABILITIES has to name video; then remove {}, so that GStreamer looks again (the daemon may keep it elsewhere, and its log names the file); or set cameras.decode to cpu",
        registry_file().display()
    )
}

/// What GStreamer's registry says of the plugin for CUDA devices. Nothing is loaded to see, so it may be asked without a device.
pub fn nvcodec() -> Nvcodec {
    let has_gstreamer = gstreamer::init().is_ok();
    let plugin = has_gstreamer.then(|| gstreamer::Registry::get().find_plugin("nvcodec")).flatten();
    let is_there = |name: &&str| has_gstreamer && gstreamer::ElementFactory::find(name).is_some();
    let (decoders, missing) = CUDA_ELEMENTS.iter().map(|(element, ..)| *element).partition(is_there);
    Nvcodec { version: plugin.map(|plugin| plugin.version().to_string()), decoders, missing, package: BAD }
}

/// What decoding on a CUDA device needs, and whether it is there: without it the processor decodes. The libraries are
/// loaded to see, so ask only where there is a device.
pub fn cuda_plugins() -> Vec<PluginFact> {
    let has_gstreamer = gstreamer::init().is_ok();
    let is_element = |name: &str| has_gstreamer && gstreamer::ElementFactory::find(name).is_some();
    let elements = CUDA_ELEMENTS.map(|(element, package, purpose)| PluginFact { element, package, present: is_element(element), purpose });
    let libraries = CUDA_LIBRARIES.map(|(element, package, purpose)| PluginFact { element, package, present: is_there(element), purpose });
    libraries.into_iter().chain(elements).collect()
}

/// Every element that ingest uses, and whether it is there. All are absent where GStreamer itself
/// cannot start.
pub fn plugins() -> Vec<PluginFact> {
    let has_gstreamer = gstreamer::init().is_ok();
    let is_present = |element| has_gstreamer && gstreamer::ElementFactory::find(element).is_some();
    ELEMENTS.into_iter().map(|(element, package, purpose)| PluginFact { element, package, present: is_present(element), purpose }).collect()
}

/// Starts GStreamer, once, and requires every element.
pub(super) fn init() -> Result<(), IngestError> {
    gstreamer::init().map_err(|error| {
        IngestError::Unavailable(format!(
            "GStreamer does not start: {error}; install {CORE}, or script/bootstrap installs all that is needed"
        ))
    })?;
    if let Some(complaint) = complaint(&plugins()) {
        return Err(IngestError::Unavailable(complaint));
    }
    // Loading libav's libraries takes long on a busy machine: now, and not when the first frame waits.
    ELEMENTS.iter().filter_map(|(element, ..)| gstreamer::ElementFactory::find(element)).try_for_each(|factory| {
        let loaded = factory.load().map(drop);
        loaded.map_err(|error| IngestError::Unavailable(format!("the GStreamer element {} cannot be loaded: {error}", factory.name())))
    })
}

/// What to say of the absent ones, `None` when there are none.
fn complaint(facts: &[PluginFact]) -> Option<String> {
    let missing: Vec<&PluginFact> = facts.iter().filter(|fact| !fact.present).collect();
    if missing.is_empty() {
        return None;
    }
    let each: Vec<String> = missing.iter().map(|fact| format!("{} ({}; package {})", fact.element, fact.purpose, fact.package)).collect();
    let mut packages: Vec<&str> = missing.iter().map(|fact| fact.package).collect();
    packages.sort_unstable();
    packages.dedup();
    Some(format!("GStreamer elements are missing: {}; install them: apt-get install {}", each.join(", "), packages.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_its_package_and_the_command() {
        let fact = |element, package, present| PluginFact { element, package, present, purpose: "x" };
        let facts = [fact("rtspsrc", GOOD, true), fact("avdec_h264", LIBAV, false), fact("avdec_h265", LIBAV, false)];
        let complaint = complaint(&facts).expect("two are missing");
        assert!(complaint.contains("avdec_h264 (x; package gstreamer1.0-libav), avdec_h265"), "{complaint}");
        assert!(complaint.ends_with("apt-get install gstreamer1.0-libav") && !complaint.contains("rtspsrc"), "{complaint}");
        assert_eq!(super::complaint(&facts[..1]), None);
    }

    #[test]
    fn the_plugin_for_devices_is_there_with_its_version_or_lacks_its_decoders() {
        let Nvcodec { version, decoders, missing, .. } = nvcodec();
        assert_eq!(decoders.len() + missing.len(), CUDA_ELEMENTS.len());
        match version {
            Some(version) => assert!(version.starts_with("1."), "{version}"),
            None => assert!(decoders.is_empty(), "{decoders:?}"),
        }
    }

    #[test]
    fn what_a_device_needs_is_a_list_of_its_own() {
        let names = |facts: &[PluginFact]| facts.iter().map(|fact| fact.element).collect::<Vec<_>>();
        assert_eq!(names(&cuda_plugins()), [LIBRARY, DECODER_LIBRARY, "nvh264dec", "nvh265dec"]);
        assert!(!names(&plugins()).iter().any(|name| name.starts_with("nv") || name.starts_with("lib")), "the daemon starts without");
    }
}
