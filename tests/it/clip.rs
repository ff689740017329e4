//! Encodes pictures as an MP4 clip, as a camera would: constant rate, a keyframe each second, no
//! pictures out of order.
//!
//! In: RGB pictures. Out: a file.
//! Must not know: doorward, where the pictures come from.

use std::path::Path;

use anyhow::{Context, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use image::RgbImage;

/// What a clip is like.
#[derive(Clone, Copy, Debug)]
pub struct ClipSettings {
    /// Width and height in pixels, both even.
    pub size: (u32, u32),
    /// Pictures a second.
    pub fps: u32,
    /// H.265 instead of H.264.
    pub is_h265: bool,
}

/// Whether this machine can encode H.265.
#[allow(dead_code, reason = "not every user of this file asks")]
pub fn can_encode_h265() -> bool {
    gst::init().is_ok() && gst::ElementFactory::find("x265enc").is_some()
}

/// Writes `pictures`, all of the clip's size, to `output`.
pub fn encode(output: &Path, settings: ClipSettings, pictures: impl Iterator<Item = RgbImage>) -> anyhow::Result<()> {
    let ClipSettings { fps, is_h265, .. } = settings;
    let encoder = if is_h265 {
        format!("x265enc tune=zerolatency speed-preset=veryfast key-int-max={fps} bitrate=3000 ! h265parse")
    } else {
        // A constant quantiser keeps faces as sharp in the clip as in the photo. One thread makes one slice a picture, as cameras
        // do: the payloader puts parameter sets before each slice of a keyframe, which takes pictures of several apart.
        format!("x264enc threads=1 tune=zerolatency speed-preset=veryfast key-int-max={fps} pass=quant quantizer=20 ! h264parse")
    };
    encode_by(&encoder, output, settings, pictures)
}

/// The same by an encoder of one's own, as `gst-launch` is told.
pub fn encode_by(encoder: &str, output: &Path, settings: ClipSettings, pictures: impl Iterator<Item = RgbImage>) -> anyhow::Result<()> {
    gst::init()?;
    let ClipSettings { size: (width, height), fps, .. } = settings;
    let description = format!(
        "appsrc name=pictures format=time block=true max-buffers=8 caps=video/x-raw,format=RGB,width={width},height={height},framerate={fps}/1 \
         ! videoconvert ! video/x-raw,format=I420,colorimetry=bt709 ! {encoder} ! mp4mux ! filesink name=file"
    );
    let pipeline = gst::parse::launch(&description)?.downcast::<gst::Pipeline>().ok().context("a pipeline")?;
    pipeline.by_name("file").context("a sink")?.set_property("location", output);
    let source = pipeline.by_name("pictures").and_downcast::<gst_app::AppSrc>().context("a source")?;
    pipeline.set_state(gst::State::Playing)?;
    let pushed = push_all(&source, settings, pictures);
    let ended = wait_for_end(&pipeline);
    pipeline.set_state(gst::State::Null)?;
    ended.with_context(|| format!("cannot encode {}", output.display()))?;
    pushed
}

fn push_all(source: &gst_app::AppSrc, settings: ClipSettings, pictures: impl Iterator<Item = RgbImage>) -> anyhow::Result<()> {
    let spacing = gst::ClockTime::SECOND / u64::from(settings.fps);
    for (number, picture) in pictures.enumerate() {
        if picture.dimensions() != settings.size {
            bail!("picture {number} is {:?} and the clip {:?}", picture.dimensions(), settings.size);
        }
        let mut buffer = gst::Buffer::from_slice(padded_rows(&picture));
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(spacing * number as u64);
            buffer.set_duration(spacing);
        }
        if source.push_buffer(buffer).is_err() {
            break;
        }
    }
    source.end_of_stream()?;
    Ok(())
}

/// GStreamer begins each row of RGB at a multiple of four bytes.
fn padded_rows(picture: &RgbImage) -> Vec<u8> {
    let row = picture.width() as usize * 3;
    let padded = row.next_multiple_of(4);
    picture.as_raw().chunks_exact(row).flat_map(|bytes| bytes.iter().copied().chain(std::iter::repeat_n(0, padded - row))).collect()
}

fn wait_for_end(pipeline: &gst::Pipeline) -> anyhow::Result<()> {
    let bus = pipeline.bus().context("a bus")?;
    let message = bus.timed_pop_filtered(gst::ClockTime::NONE, &[gst::MessageType::Eos, gst::MessageType::Error]).context("a message")?;
    match message.view() {
        gst::MessageView::Error(error) => bail!("{} ({:?})", error.error(), error.debug()),
        _ => Ok(()),
    }
}
