//! What GStreamer's elements for CUDA warn of, brought into doorward's log.
//!
//! In: GStreamer's own log, of what decodes on a device, and which camera's stream a thread decodes. Out: a line for each warning and each
//! error, the same words of one camera at most once every [`EVERY`]: some come with every picture. And what a camera's decoder warned
//! of first since its last picture, for its state.
//! On the bus a decoder that fails says no more than that the stream broke: what the driver answered stands in that log alone.
//! Nothing is done where `GST_DEBUG` is set: whoever sets it reads that log where GStreamer puts it.
//! Must not know: connections, what follows from a failure.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;

use crate::frame::CameraId;

/// Decoders, and what they are made of, in GStreamer 1.22 and newer.
const CATEGORIES: [&str; 6] = ["nvdec*", "nvh26*", "cudacontext", "cudaallocator", "cudamemory", "cudabufferpool"];

/// The same words are at least so far apart.
const EVERY: Duration = Duration::from_secs(10);
/// So many different words are remembered.
const WORDS_MAX: usize = 1_024;

thread_local! {
    /// Whose stream this thread decodes: what names the driver's answer names no element, and is said in the thread that calls the driver.
    static DECODES: RefCell<Option<Arc<Heard>>> = const { RefCell::new(None) };
}

/// What was heard of the decoder of one connection since its last picture.
pub(in crate::ingest) struct Heard {
    camera: CameraId,
    /// What follows the first warning is mostly that something could not go on.
    first: Mutex<Option<String>>,
}

impl Heard {
    /// Nothing yet.
    pub(in crate::ingest) fn of(camera: CameraId) -> Arc<Self> {
        Arc::new(Self { camera, first: Mutex::default() })
    }

    /// This thread decodes for it, until it decodes for another.
    pub(in crate::ingest) fn begin(self: &Arc<Self>) {
        DECODES.with_borrow_mut(|decodes| {
            if decodes.as_ref().is_none_or(|other| !Arc::ptr_eq(other, self)) {
                *decodes = Some(self.clone());
            }
        });
    }

    /// A picture came: what was warned of before it was no hindrance.
    pub(in crate::ingest) fn forget(&self) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The first warning since the last picture.
    pub(in crate::ingest) fn first(&self) -> Option<String> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn warned(&self, text: &str) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| text.to_owned());
    }
}

/// Takes a warning in the thread that it is said in: the camera whose stream that decodes, if any.
fn heard_here(text: &str) -> Option<CameraId> {
    // A thread that ends may have let go of it.
    let heard = DECODES.try_with(|decodes| decodes.borrow().clone()).ok().flatten()?;
    heard.warned(text);
    Some(heard.camera.clone())
}

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
            let camera = heard_here(&text);
            let of = camera.as_ref().map_or("", CameraId::as_str);
            let by = object.map_or_else(|| category.name().to_owned(), ToString::to_string);
            if told.is_due(&format!("{of} {by} {function}:{line}: {text}"), Instant::now()) {
                let camera = camera.as_ref().map(tracing::field::display);
                tracing::warn!(camera, by, in_function = %function, "GStreamer, which decodes on the device: {text}");
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

    #[test]
    fn a_warning_is_of_the_camera_whose_stream_its_thread_decodes_and_the_first_is_kept_until_a_picture_comes() {
        let [door, hall] = ["door", "hall"].map(|id| Heard::of(CameraId::parse(id).expect("a good id")));
        assert_eq!(heard_here("the device is looked at"), None);
        let of = |heard: &Arc<Heard>, text| {
            heard.begin();
            heard_here(text).map(|camera| camera.as_str().to_owned())
        };
        assert_eq!(of(&door, "CUDA_ERROR_LAUNCH_FAILED").as_deref(), Some("door"));
        assert_eq!(of(&door, "parser failed").as_deref(), Some("door"));
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(heard_here("of another thread"), None)).join().expect("no panic"));
        // Threads go from stream to stream.
        assert_eq!(of(&hall, "no decoder is left").as_deref(), Some("hall"));
        assert_eq!(door.first().as_deref(), Some("CUDA_ERROR_LAUNCH_FAILED"));
        door.forget();
        assert_eq!((door.first(), hall.first().as_deref()), (None, Some("no decoder is left")));
    }
}
