//! What GStreamer's elements for CUDA warn of, brought into doorward's log.
//!
//! In: GStreamer's own log, of what decodes on a device. Out: a line for each warning and each error, the same words at most once
//! every [`EVERY`]: some come with every picture.
//! On the bus a decoder that fails says no more than that the stream broke: what the driver answered stands in that log alone.
//! Nothing is done where `GST_DEBUG` is set: whoever sets it reads that log where GStreamer puts it.
//! Must not know: connections, what follows from a failure.

use std::collections::HashMap;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;

/// Decoders, and what they are made of, in GStreamer 1.22 and newer.
const CATEGORIES: [&str; 6] = ["nvdec*", "nvh26*", "cudacontext", "cudaallocator", "cudamemory", "cudabufferpool"];

/// The same words are at least so far apart.
const EVERY: Duration = Duration::from_secs(10);
/// So many different words are remembered.
const WORDS_MAX: usize = 64;

/// When which words were told last.
#[derive(Default)]
struct Told(Mutex<HashMap<String, Instant>>);

impl Told {
    fn is_due(&self, words: &str, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.get(words).is_none_or(|last| now.duration_since(*last) >= EVERY);
        if is_due {
            if told.len() >= WORDS_MAX {
                told.clear();
            }
            told.insert(words.to_owned(), now);
        }
        is_due
    }
}

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
        let told = Told::default();
        gst::log::add_log_function(move |category, level, _, function, line, object, message| {
            // GStreamer tells whoever listens of every category, up to the highest level that one of them has.
            if level > category.threshold() {
                return;
            }
            let text = message.get().unwrap_or_default();
            if told.is_due(&format!("{function}:{line}: {text}"), Instant::now()) {
                let by = object.map_or_else(|| category.name().to_owned(), ToString::to_string);
                tracing::warn!(by, in_function = %function, "GStreamer, which decodes on the device: {text}");
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_every_picture_is_told_once_in_ten_seconds_and_hides_nothing_else() {
        let (told, began) = (Told::default(), Instant::now());
        let after = |seconds| began + Duration::from_secs(seconds);
        assert!(told.is_due("decode_picture", began) && !told.is_due("decode_picture", after(9)));
        assert!(told.is_due("map_frame", after(9)));
        assert!(told.is_due("decode_picture", after(10)) && !told.is_due("decode_picture", after(19)));
        assert!((0..10_000).all(|number| told.is_due(&format!("picture {number}"), after(20))), "nor does it remember without bound");
        assert!(told.0.lock().expect("no panic").len() <= WORDS_MAX);
    }
}
