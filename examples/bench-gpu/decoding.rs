//! Measures how long a decoder takes for a picture, when nothing else keeps it.
//!
//! In: the name of a GStreamer element, a clip in H.264. Out: whether this machine has it; seconds a picture.
//! Must not know: what is done with the pictures.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use gstreamer as gst;
use gstreamer::prelude::*;

/// Pictures that come before it is measured.
const WARMING: usize = 25;
/// How long the clip may take: far beyond what it does.
const DECODING_MAX: gst::ClockTime = gst::ClockTime::from_seconds(60);

/// Whether GStreamer has this element here.
pub fn is_there(decoder: &str) -> bool {
    gst::init().is_ok() && gst::ElementFactory::find(decoder).is_some()
}

/// Seconds a picture, the clip read as fast as `decoder` takes it.
pub fn seconds_a_picture(decoder: &str, clip: &Path) -> anyhow::Result<f64> {
    gst::init()?;
    // A GPU's decoder leaves its pictures where they are analysed, as it does in the daemon.
    let there = if decoder.starts_with("nv") { "! video/x-raw(memory:CUDAMemory),format=NV12" } else { "" };
    let description = format!("filesrc name=file ! qtdemux ! h264parse ! {decoder} {there} ! fakesink name=sink sync=false");
    let pipeline = gst::parse::launch(&description)?.downcast::<gst::Pipeline>().ok().context("a pipeline")?;
    pipeline.by_name("file").context("a source")?.set_property("location", clip);
    let times = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&times);
    let pad = pipeline.by_name("sink").and_then(|sink| sink.static_pad("sink")).context("a sink's pad")?;
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        kept.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing)?;
    let bus = pipeline.bus().context("a bus")?;
    let end = bus.timed_pop_filtered(DECODING_MAX, &[gst::MessageType::Eos, gst::MessageType::Error]);
    pipeline.set_state(gst::State::Null)?;
    if let gst::MessageView::Error(error) =
        end.with_context(|| format!("{decoder} did not come to the clip's end within {DECODING_MAX}"))?.view()
    {
        bail!("{decoder} cannot decode the clip: {} ({:?})", error.error(), error.debug());
    }
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    ensure!(times.len() > 2 * WARMING, "{decoder} gave {} pictures, which are too few to measure", times.len());
    let measured = &times[WARMING..];
    Ok((measured[measured.len() - 1] - measured[0]).as_secs_f64() / (measured.len() - 1) as f64)
}
