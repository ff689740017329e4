//! The explicit chain from a compressed stream to decoded pictures: parser → decoder → appsink.
//!
//! In: which codec, which decoder. Out: three linked elements; between the first two, access units as a byte stream. No `decodebin`: it picks decoders nobody chose.
//! Must not know: where the stream comes from, who takes the pictures.

use std::fmt;
use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::codec::Codec;
use super::cuda::SharedContext;

/// What decodes a stream.
#[derive(Clone)]
pub(super) enum Decoder {
    /// The processor; pictures are in the host's memory.
    Cpu,
    /// A CUDA device; pictures are in its memory.
    Cuda(Arc<SharedContext>),
}

impl Decoder {
    fn element(&self, codec: Codec, pipeline: &str) -> Result<gst::Element, gst::glib::BoolError> {
        match self {
            Self::Cpu => gst::ElementFactory::make(codec.decoder())
                // One thread a stream: the cores are shared by many cameras, and more threads add delay.
                .property("max-threads", 1_i32)
                // What it knows to be missing parts must not be recognised as somebody. It does not know all: what follows a lost
                // packet is not given to it (`losses`).
                .property("output-corrupt", false)
                .build(),
            Self::Cuda(shared) => shared.decoder(codec, pipeline),
        }
    }

    /// What it hands on. The processor's pictures are I420 or NV12, a device's NV12 in its memory, and nothing else, so that
    /// nothing is converted or copied.
    fn caps(&self) -> gst::Caps {
        match self {
            Self::Cpu => gst::Caps::builder("video/x-raw").field("format", gst::List::new(["I420", "NV12"])).build(),
            Self::Cuda(_) => surface_caps(),
        }
    }
}

impl fmt::Display for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(shared) => write!(f, "cuda:{}", shared.ordinal()),
        }
    }
}

fn surface_caps() -> gst::Caps {
    gst::Caps::builder("video/x-raw").features(["memory:CUDAMemory"]).field("format", "NV12").build()
}

/// How the appsink at the end behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// One picture at most waits, and a newer one replaces it: cameras.
    Newest,
    /// Two pictures at most wait, then the decoder does: files.
    Every,
}

/// The appsink that ends a chain: it takes what the decoder hands on.
pub(super) fn appsink(delivery: Delivery, decoder: &Decoder) -> gst_app::AppSink {
    let is_newest = delivery == Delivery::Newest;
    gst_app::AppSink::builder()
        .caps(&decoder.caps())
        .max_buffers(if is_newest { 1 } else { 2 })
        .drop(is_newest)
        .sync(false)
        .async_(!is_newest)
        .qos(false)
        .enable_last_sample(false)
        .build()
}

/// A chain's elements before the appsink.
pub(super) struct Decoding {
    /// Where the stream goes in.
    pub(super) parser: gst::Element,
    pub(super) decoder: gst::Element,
}

impl Decoding {
    /// Adds parser and decoder of `codec` to the pipeline that holds `sink`, linked to it and running.
    pub(super) fn add(codec: Codec, decoder: &Decoder, sink: &gst_app::AppSink) -> Result<Self, gst::glib::BoolError> {
        let pipeline = sink.parent().and_downcast::<gst::Bin>().ok_or_else(|| gst::glib::bool_error!("the sink is in no pipeline"))?;
        let parser = gst::ElementFactory::make(codec.parser()).build()?;
        let decoder = decoder.element(codec, &pipeline.name())?;
        pipeline.add_many([&parser, &decoder])?;
        parser.link_filtered(&decoder, &codec.access_units())?;
        decoder.link(sink)?;
        decoder.sync_state_with_parent()?;
        parser.sync_state_with_parent()?;
        Ok(Self { parser, decoder })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_hands_on_nv12_in_its_memory_and_the_processor_i420_or_nv12_in_the_hosts() {
        gst::init().expect("GStreamer starts");
        assert_eq!(surface_caps().to_string(), "video/x-raw(memory:CUDAMemory), format=(string)NV12");
        assert_eq!(Decoder::Cpu.caps().to_string(), "video/x-raw, format=(string){ I420, NV12 }");
    }
}
