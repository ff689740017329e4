//! Decoding on a CUDA device: what all cameras share of it.
//!
//! In: the device's number. Out: the context that GStreamer's decoders and inference share, and their names.
//! Opened at the first connection that wants it and kept; what could not be opened is tried again at the next.
//! Must not know: connections, times, who takes the pictures.

mod driver;
mod library;
mod surface;
mod warnings;

use std::fmt;
use std::sync::{Arc, OnceLock};

use gstreamer as gst;
use gstreamer::prelude::*;

use self::driver::Primary;
use self::library::Library;
use super::codec::Codec;
use super::registry::registry_file;

pub(super) use self::library::{DECODER_LIBRARY, LIBRARY, is_there};
pub(super) use self::surface::Surface;
pub(super) use self::warnings::Heard;

/// The name of an element that decodes on a device begins so, by which its errors are known, and ends with its pipeline's, by which it is.
pub(super) const DECODER_NAME: &str = "cuda-decoder";

/// Where the pictures of cameras are decoded. Clones share the device.
#[derive(Clone, Default)]
pub struct Decode(Option<Arc<Device>>);

struct Device {
    ordinal: u32,
    open: OnceLock<Arc<SharedContext>>,
}

impl Decode {
    /// By the host's processor.
    pub fn on_cpu() -> Self {
        Self(None)
    }

    /// By the decoder of the CUDA device of this number, where it can; else by the processor, camera by camera.
    /// Nothing is opened yet.
    pub fn on_cuda(ordinal: u32) -> Self {
        Self(Some(Arc::new(Device { ordinal, open: OnceLock::new() })))
    }

    /// The device's number, where there is one.
    pub(super) fn ordinal(&self) -> Option<u32> {
        self.0.as_ref().map(|device| device.ordinal)
    }

    /// What all cameras share of the device; `None` on the processor.
    ///
    /// # Errors
    /// What is missing or fails, with what to do about it.
    pub(super) fn shared(&self) -> Option<Result<Arc<SharedContext>, String>> {
        let device = self.0.as_ref()?;
        if let Some(open) = device.open.get() {
            return Some(Ok(open.clone()));
        }
        // Two connections may come here at once; the context of one of them is then closed again.
        Some(SharedContext::open(device.ordinal).map(|opened| device.open.get_or_init(|| Arc::new(opened)).clone()))
    }
}

impl fmt::Debug for Decode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ordinal() {
            None => f.write_str("cpu"),
            Some(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

/// A device's primary context, as GStreamer takes it, with the decoders of that device.
pub(super) struct SharedContext {
    ordinal: u32,
    /// Elements by [`Codec`]: of H.264, of H.265.
    decoders: [String; 2],
    /// Goes before the context that it wraps.
    wrapped: gst::Context,
    library: &'static Library,
    primary: Primary,
}

impl SharedContext {
    fn open(ordinal: u32) -> Result<Self, String> {
        let library = Library::loaded()?;
        let decoders = [decoder_of("nvh264", ordinal)?, decoder_of("nvh265", ordinal)?];
        let primary = Primary::retain(ordinal)?;
        // Once the plugin is loaded: that it looks for what only encoders need is no news.
        warnings::listen();
        let wrapped = library.wrap(&primary)?;
        Ok(Self { ordinal, decoders, wrapped, library, primary })
    }

    /// The device's number.
    pub(super) fn ordinal(&self) -> u32 {
        self.ordinal
    }

    /// Lets every element of `pipeline`, those to come too, work in the shared context: a bin answers the elements in it
    /// that ask for one.
    pub(super) fn lend(&self, pipeline: &gst::Pipeline) {
        pipeline.set_context(&self.wrapped);
    }

    /// A decoder of this device for a pipeline of this name.
    pub(super) fn decoder(&self, codec: Codec, pipeline: &str) -> Result<gst::Element, gst::glib::BoolError> {
        let name = match codec {
            Codec::H264 => &self.decoders[0],
            Codec::H265 => &self.decoders[1],
        };
        let decoder = gst::ElementFactory::make(name).name(format!("{DECODER_NAME}-{pipeline}")).build()?;
        if decoder.find_property("max-display-delay").is_some() {
            // Pictures are wanted at once: what the decoder holds back is held back from the door.
            decoder.set_property_from_str("max-display-delay", "0");
        }
        Ok(decoder)
    }

    fn library(&self) -> &'static Library {
        self.library
    }

    fn primary(&self) -> &Primary {
        &self.primary
    }
}

/// The element that decodes `codec` on the device of this number. The plugin numbers its elements by the devices that can
/// decode, which need not be all: each says which device it is for.
fn decoder_of(codec: &str, ordinal: u32) -> Result<String, String> {
    let names = std::iter::once(format!("{codec}dec")).chain((1..=ordinal).map(|index| format!("{codec}device{index}dec")));
    let mut is_any = false;
    for name in names {
        let Ok(element) = gst::ElementFactory::make(&name).build() else { continue };
        is_any = true;
        if device_of(&element) == Some(ordinal) {
            return Ok(name);
        }
    }
    Err(if is_any {
        format!("no element {codec}dec of GStreamer is for cuda:{ordinal}")
    } else {
        format!(
            "GStreamer has no element {codec}dec: install gstreamer1.0-plugins-bad and the driver's {DECODER_LIBRARY}, then remove {}, where GStreamer keeps what it found, and start again",
            registry_file().display()
        )
    })
}

fn device_of(decoder: &gst::Element) -> Option<u32> {
    const DEVICE: &str = "cuda-device-id";
    (decoder.find_property(DEVICE)?.value_type() == u32::static_type()).then(|| decoder.property::<u32>(DEVICE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_the_processor_nothing_of_cuda_is_opened() {
        assert!(Decode::on_cpu().shared().is_none() && Decode::default().ordinal().is_none());
    }

    #[test]
    fn without_a_device_there_is_a_reason_and_no_panic() {
        gst::init().expect("GStreamer starts");
        // A machine with a thousand devices that decode may answer otherwise.
        let reason = Decode::on_cuda(999).shared().expect("a device is asked for").err().expect("there is none");
        assert!(!reason.is_empty() && format!("{:?}", Decode::on_cuda(999)) == "cuda:999", "{reason}");
    }
}
