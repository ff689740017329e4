//! The codecs that ingest decodes: how streams name them, and which elements take them apart.
//!
//! In: caps, payloads, access units. Out: which codec it is, whether decoding can begin there.
//! Must not know: pipelines, devices.

use gstreamer as gst;

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
    pub(super) fn access_units(self) -> gst::Caps {
        let name = match self {
            Self::H264 => "video/x-h264",
            Self::H265 => "video/x-h265",
        };
        gst::Caps::builder(name).field("stream-format", "byte-stream").field("alignment", "au").build()
    }

    pub(super) fn parser(self) -> &'static str {
        match self {
            Self::H264 => "h264parse",
            Self::H265 => "h265parse",
        }
    }

    pub(super) fn decoder(self) -> &'static str {
        match self {
            Self::H264 => "avdec_h264",
            Self::H265 => "avdec_h265",
        }
    }
}
