//! The explicit chain from a compressed stream to decoded pictures: parser → decoder → appsink.
//!
//! In: which codec, which decoder. Out: three linked elements; between the first two, access units as a byte stream. No `decodebin`: it picks decoders nobody chose.
//! Must not know: where the stream comes from, who takes the pictures.

use std::fmt;
use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::cuda::SharedContext;
use super::{keyframe, rtp};

/// A codec that cameras speak and ingest decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    H264,
    H265,
}

impl Codec {
    /// The codec of an RTP stream (`encoding-name`, RFC 6184 and RFC 7798).
    pub(super) fn of_rtp(caps: &gst::StructureRef) -> Option<Self> {
        let is_video = caps.get::<&str>("media").is_ok_and(|media| media == "video");
        match caps.get::<&str>("encoding-name") {
            Ok("H264") if is_video => Some(Self::H264),
            Ok("H265") if is_video => Some(Self::H265),
            _ => None,
        }
    }

    /// The codec of a demuxed stream.
    pub(super) fn of_stream(caps: &gst::StructureRef) -> Option<Self> {
        match caps.name().as_str() {
            "video/x-h264" => Some(Self::H264),
            "video/x-h265" => Some(Self::H265),
            _ => None,
        }
    }

    pub(super) fn depayloader(self) -> &'static str {
        match self {
            Self::H264 => "rtph264depay",
            Self::H265 => "rtph265depay",
        }
    }

    /// Whether an RTP payload holds a part of a keyframe.
    pub(super) fn is_keyframe(self, payload: &[u8]) -> bool {
        match self {
            Self::H264 => rtp::is_h264_keyframe(payload),
            Self::H265 => rtp::is_h265_keyframe(payload),
        }
    }

    /// Whether decoding can begin with an access unit, a byte stream.
    pub(super) fn begins_with(self, access_unit: &[u8]) -> bool {
        match self {
            Self::H264 => keyframe::is_h264(access_unit),
            Self::H265 => keyframe::is_h265(access_unit),
        }
    }

    /// What goes from the parser to the decoder: access units as a byte stream, which every decoder takes and `keyframe` reads.
    fn access_units(self) -> gst::Caps {
        let name = match self {
            Self::H264 => "video/x-h264",
            Self::H265 => "video/x-h265",
        };
        gst::Caps::builder(name).field("stream-format", "byte-stream").field("alignment", "au").build()
    }

    fn parser(self) -> &'static str {
        match self {
            Self::H264 => "h264parse",
            Self::H265 => "h265parse",
        }
    }

    fn decoder(self) -> &'static str {
        match self {
            Self::H264 => "avdec_h264",
            Self::H265 => "avdec_h265",
        }
    }
}

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
