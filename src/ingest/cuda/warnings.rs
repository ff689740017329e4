//! What GStreamer's elements for CUDA warn of, brought into doorward's log.
//!
//! In: GStreamer's own log, of what decodes on a device. Out: a line for each warning and each error.
//! On the bus a decoder that fails says no more than that the stream broke: what the driver answered stands in that log alone.
//! Nothing is done where `GST_DEBUG` is set: whoever sets it reads that log where GStreamer puts it.
//! Must not know: connections, what follows from a failure.

use std::sync::Once;

use gstreamer as gst;

/// Decoders, and what they are made of, in GStreamer 1.22 and newer.
const CATEGORIES: [&str; 6] = ["nvdec*", "nvh26*", "cudacontext", "cudaallocator", "cudamemory", "cudabufferpool"];

/// Listens from now on, whoever asks and however often.
pub(super) fn listen() {
    static LISTENING: Once = Once::new();
    LISTENING.call_once(|| {
        if std::env::var_os("GST_DEBUG").is_some() {
            return;
        }
        // It would print the same on standard error, and without GST_DEBUG it prints nothing else.
        gst::log::remove_default_log_function();
        for category in CATEGORIES {
            gst::log::set_threshold_for_name(category, gst::DebugLevel::Warning);
        }
        gst::log::add_log_function(|category, level, _, function, _, object, message| {
            // GStreamer tells whoever listens of every category, up to the highest level that one of them has.
            if level <= category.threshold() {
                let by = object.map_or_else(|| category.name().to_owned(), ToString::to_string);
                let text = message.get().unwrap_or_default();
                tracing::warn!(by, in_function = %function, "GStreamer, which decodes on the device: {text}");
            }
        });
    });
}
