//! Decodes a file, each frame once and in order, on a clock that the file drives.
//!
//! In: an MP4, Matroska, raw H.264 or raw H.265 file. Out: its frames.
//! Between the decoder and the taker at most two frames wait; then the decoder does. Nothing is dropped.
//! Must not know: cameras on a network, retries, what follows.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::codec::Codec;
use super::decoding::{Decoder, Decoding, Delivery, appsink};
use super::handover::SampleReader;
use super::{FrameSink, IngestError};
use crate::clock::{Clock, SimulatedClock};
use crate::frame::CameraId;

/// How often the bus is looked at while no frame comes.
const LOOK: gst::ClockTime = gst::ClockTime::from_mseconds(200);
/// A file that gives nothing for this long (a pipe, a dead disk) is given up.
const SILENCE_LOOKS_MAX: u32 = 150;
/// Raw streams carry no times: their frames are taken to be 1/25 s apart.
const RAW_SPACING: Duration = Duration::from_millis(40);

/// How a file holds its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Container {
    Mp4,
    Matroska,
    Raw(Codec),
}

/// See [`super::replay`].
pub(super) fn replay(file: &Path, camera: &CameraId, frames: &dyn FrameSink, clock: &SimulatedClock) -> Result<u64, IngestError> {
    let begin = clock.now();
    let mut offered = 0;
    let mut reader = SampleReader::new(Decoder::Cpu);
    let decoded = for_each_sample(file, |number, sample| {
        let raw_time = || RAW_SPACING.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
        let at = begin.plus(presentation_time(sample).unwrap_or_else(raw_time));
        clock.advance_to(at);
        let mut frame = match reader.read(sample, camera) {
            Ok(frame) => frame,
            Err(why) => {
                tracing::debug!(file = %file.display(), number, %why, "a picture is refused");
                return frames.refused();
            }
        };
        // Should two pictures claim one time, the clock still never goes back.
        let now = clock.now();
        (frame.sequence, frame.capture_time, frame.decode_time) = (number, now, now);
        offered += 1;
        frames.offer(frame);
    })?;
    tracing::debug!(file = %file.display(), decoded, offered, "replayed");
    Ok(offered)
}

/// See [`super::decode_only`].
pub(super) fn decode_only(file: &Path) -> Result<u64, IngestError> {
    for_each_sample(file, |_, _| {})
}

/// Time since the beginning of the file, edit lists undone.
fn presentation_time(sample: &gst::Sample) -> Option<Duration> {
    let pts = sample.buffer()?.pts()?;
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?.to_running_time(pts)?;
    Some(Duration::from_nanos(segment.nseconds()))
}

fn for_each_sample(file: &Path, mut take: impl FnMut(u64, &gst::Sample)) -> Result<u64, IngestError> {
    let failed = |what: &str| IngestError::Replay(format!("cannot replay {}: {what}", file.display()));
    let container = container_of(file).map_err(|error| failed(&error))?;
    let running = FilePipeline::start(file, container).map_err(|error| failed(&error.to_string()))?;
    let (mut count, mut silence) = (0, 0);
    loop {
        match running.sink.try_pull_sample(LOOK) {
            Some(sample) => {
                silence = 0;
                take(count, &sample);
                count += 1;
            }
            None => {
                if let Some(error) = running.error() {
                    return Err(failed(&error));
                }
                if running.sink.is_eos() {
                    break;
                }
                silence += 1;
                if silence == SILENCE_LOOKS_MAX {
                    return Err(failed("nothing came from it for 30 s"));
                }
            }
        }
    }
    if count == 0 { Err(failed("it holds no H.264 or H.265 pictures that can be decoded")) } else { Ok(count) }
}

/// A pipeline that is taken down whichever way its user leaves.
struct FilePipeline {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
}

impl FilePipeline {
    fn start(file: &Path, container: Container) -> Result<Self, gst::glib::BoolError> {
        let running = Self { pipeline: gst::Pipeline::new(), sink: appsink(Delivery::Every, &Decoder::Cpu) };
        let source = gst::ElementFactory::make("filesrc").property("location", file).build()?;
        running.pipeline.add_many([&source, running.sink.upcast_ref()])?;
        match container {
            Container::Raw(codec) => source.link(&Decoding::add(codec, &Decoder::Cpu, &running.sink)?.parser)?,
            Container::Mp4 => running.demux(&source, "qtdemux")?,
            Container::Matroska => running.demux(&source, "matroskademux")?,
        }
        // A refusal is told on the bus too, in better words.
        let _ = running.pipeline.set_state(gst::State::Playing);
        Ok(running)
    }

    fn demux(&self, source: &gst::Element, demuxer: &str) -> Result<(), gst::glib::BoolError> {
        let demuxer = gst::ElementFactory::make(demuxer).build()?;
        self.pipeline.add(&demuxer)?;
        source.link(&demuxer)?;
        let sink = self.sink.downgrade();
        demuxer.connect_pad_added(move |demuxer, pad| {
            let Some(sink) = sink.upgrade() else { return };
            if let Err(error) = attach(pad, &sink) {
                gst::element_error!(demuxer, gst::StreamError::Failed, ["{error}"]);
            }
        });
        let sink = self.sink.downgrade();
        demuxer.connect_no_more_pads(move |demuxer| {
            if sink.upgrade().is_some_and(|sink| !is_fed(&sink)) {
                gst::element_error!(demuxer, gst::StreamError::WrongType, ["it holds no H.264 or H.265 video"]);
            }
        });
        Ok(())
    }

    /// The error that ended decoding, if one did.
    fn error(&self) -> Option<String> {
        let message = self.pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(error) => Some(error.error().message().to_owned()),
            _ => None,
        }
    }
}

impl Drop for FilePipeline {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Decodes the first video stream; further streams stay unlinked and cost nothing.
fn attach(pad: &gst::Pad, sink: &gst_app::AppSink) -> Result<(), gst::glib::BoolError> {
    let codec = pad.current_caps().and_then(|caps| Codec::of_stream(caps.structure(0)?));
    let Some(codec) = codec.filter(|_| !is_fed(sink)) else { return Ok(()) };
    let parser = Decoding::add(codec, &Decoder::Cpu, sink)?.parser;
    let entry = parser.static_pad("sink").ok_or_else(|| gst::glib::bool_error!("a parser without a sink pad"))?;
    pad.link(&entry).map_err(|error| gst::glib::bool_error!("cannot link the stream: {error}"))?;
    Ok(())
}

fn is_fed(sink: &gst_app::AppSink) -> bool {
    sink.static_pad("sink").is_some_and(|pad| pad.is_linked())
}

/// Tells the container by the file's first bytes: names lie.
fn container_of(file: &Path) -> Result<Container, String> {
    let mut head = [0; 8];
    std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut head)).map_err(|error| error.to_string())?;
    let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match head {
        [_, _, _, _, b'f', b't', b'y', b'p'] | [_, _, _, _, b'm', b'o', b'o', b'v'] | [_, _, _, _, b'm', b'd', b'a', b't'] => {
            Ok(Container::Mp4)
        }
        [0x1A, 0x45, 0xDF, 0xA3, ..] => Ok(Container::Matroska),
        [0, 0, 1, ..] | [0, 0, 0, 1, ..] => match extension {
            "h265" | "265" | "hevc" => Ok(Container::Raw(Codec::H265)),
            _ => Ok(Container::Raw(Codec::H264)),
        },
        _ => Err("it is no MP4, Matroska, raw H.264 or raw H.265 file".to_owned()),
    }
}
