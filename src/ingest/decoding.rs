//! The explicit chain from a compressed stream to decoded pictures: parser → decoder → appsink.
//!
//! In: which codec. Out: three linked elements. No `decodebin`: it picks decoders nobody chose.
//! Must not know: where the stream comes from, who takes the pictures.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::rtp;

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

/// How the appsink at the end behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// One picture at most waits, and a newer one replaces it: cameras.
    Newest,
    /// Two pictures at most wait, then the decoder does: files.
    Every,
}

/// The appsink that ends a chain: it takes I420 and NV12 and nothing else, so that nothing is converted.
pub(super) fn appsink(delivery: Delivery) -> gst_app::AppSink {
    let is_newest = delivery == Delivery::Newest;
    gst_app::AppSink::builder()
        .caps(&gst::Caps::builder("video/x-raw").field("format", gst::List::new(["I420", "NV12"])).build())
        .max_buffers(if is_newest { 1 } else { 2 })
        .drop(is_newest)
        .sync(false)
        .async_(!is_newest)
        .qos(false)
        .enable_last_sample(false)
        .build()
}

/// Adds parser and decoder of `codec` to the pipeline that holds `sink`, linked to it and running.
/// Gives the parser, where the stream goes in, and the decoder.
pub(super) fn add_decoding(codec: Codec, sink: &gst_app::AppSink) -> Result<(gst::Element, gst::Element), gst::glib::BoolError> {
    let pipeline = sink.parent().and_downcast::<gst::Bin>().ok_or_else(|| gst::glib::bool_error!("the sink is in no pipeline"))?;
    let parser = gst::ElementFactory::make(codec.parser()).build()?;
    let decoder = gst::ElementFactory::make(codec.decoder())
        // One thread a stream: the cores are shared by many cameras, and more threads add delay.
        .property("max-threads", 1_i32)
        // A picture with missing parts must not be recognised as somebody.
        .property("output-corrupt", false)
        .build()?;
    pipeline.add_many([&parser, &decoder])?;
    gst::Element::link_many([&parser, &decoder, sink.upcast_ref()])?;
    decoder.sync_state_with_parent()?;
    parser.sync_state_with_parent()?;
    Ok((parser, decoder))
}
