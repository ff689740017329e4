//! Wraps a decoded GStreamer sample as a frame's pixels, without a copy, in the host's memory or in a device's.
//!
//! In: a sample. Out: its pixels and how they lie, or in words what of it cannot be believed.
//! The decoder's buffer stays mapped until the last clone of the frame is dropped; the decoder's
//! pool grows meanwhile.
//! Must not know: cameras, times, who takes the frame.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer_video as gst_video;

use super::cuda::Surface;
use super::decoding::Decoder;
use crate::clock::Timestamp;
use crate::frame::{CameraId, ColourMatrix, ColourRange, Frame, HostPixels, PixelFormat, PixelLayout, Plane, Size};

/// Below this many rows, a stream that does not state its matrix is taken for standard definition.
const HIGH_DEFINITION_ROWS: u32 = 720;

struct MappedPixels(gst::MappedBuffer<gst::buffer::Readable>);

impl HostPixels for MappedPixels {
    fn bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

/// Reads the samples of one appsink. Remembers what the last caps said.
pub(super) struct SampleReader {
    decoder: Decoder,
    known: Option<(gst::Caps, gst_video::VideoInfo)>,
}

impl SampleReader {
    /// A reader of what `decoder` hands on.
    pub(super) fn new(decoder: Decoder) -> Self {
        Self { decoder, known: None }
    }

    /// The frame in `sample`, captured at time 0.
    ///
    /// # Errors
    /// What does not fit together of its caps, its layout and its bytes, in words for whoever keeps the camera.
    pub(super) fn read(&mut self, sample: &gst::Sample, camera: &CameraId) -> Result<Frame, String> {
        let decoder = self.decoder.clone();
        let info = self.info(sample)?;
        let buffer = sample.buffer_owned().ok_or("it comes without bytes")?;
        let stated = match buffer.meta::<gst_video::VideoMeta>() {
            Some(meta) if (meta.format(), meta.width(), meta.height()) != (info.format(), info.width(), info.height()) => {
                return Err(contradiction(info, &meta));
            }
            Some(meta) => Some(pixel_format(info, meta.offset(), meta.stride())?),
            None => None,
        };
        match decoder {
            Decoder::Cpu => {
                let format = stated.map_or_else(|| pixel_format(info, info.offset(), info.stride()), Ok)?;
                let pixels = MappedPixels(buffer.into_mapped_buffer_readable().map_err(|_| "its bytes cannot be mapped")?);
                Frame::new(camera.clone(), Timestamp::default(), format, Arc::new(pixels)).map_err(|bad| bad.to_string())
            }
            Decoder::Cuda(shared) => {
                let surface = Surface::map(buffer, &shared)?;
                // Caps know nothing of a device's strides.
                let (offsets, strides) = surface.layout();
                let format = stated.map_or_else(|| pixel_format(info, &offsets, &strides), Ok)?;
                Frame::on_device(camera.clone(), Timestamp::default(), format, Arc::new(surface)).map_err(|bad| bad.to_string())
            }
        }
    }

    fn info(&mut self, sample: &gst::Sample) -> Result<&gst_video::VideoInfo, String> {
        let caps = sample.caps_owned().ok_or("it comes without caps")?;
        // Streams hardly ever change their caps: parsing them for each frame would be waste.
        if self.known.as_ref().is_none_or(|(known, _)| known.as_ptr() != caps.as_ptr()) {
            let info = gst_video::VideoInfo::from_caps(&caps).map_err(|_| format!("its caps describe no picture: {caps}"))?;
            self.known = Some((caps, info));
        }
        self.known.as_ref().map(|(_, info)| info).ok_or_else(|| "it comes without caps".into())
    }
}

fn contradiction(info: &gst_video::VideoInfo, meta: &gst_video::VideoMeta) -> String {
    let (caps, memory) = ((info.width(), info.height(), info.format()), (meta.width(), meta.height(), meta.format()));
    format!("its caps state {}x{} {}, and its memory {}x{} {}", caps.0, caps.1, caps.2, memory.0, memory.1, memory.2)
}

fn pixel_format(info: &gst_video::VideoInfo, offsets: &[usize], strides: &[i32]) -> Result<PixelFormat, String> {
    let layout = match info.format() {
        gst_video::VideoFormat::I420 => PixelLayout::I420,
        gst_video::VideoFormat::Nv12 => PixelLayout::Nv12,
        other => return Err(format!("it is {other}, and I420 or NV12 is read")),
    };
    let mut planes = [Plane::default(); 3];
    for (plane, (&offset, &stride)) in planes.iter_mut().zip(offsets.iter().zip(strides)) {
        let stride = usize::try_from(stride).map_err(|_| format!("its rows run backwards, by a stride of {stride}"))?;
        *plane = Plane { offset, stride };
    }
    let size = Size { width: info.width(), height: info.height() };
    let colours = info.colorimetry();
    Ok(PixelFormat { size, layout, matrix: colour_matrix(colours.matrix(), size.height), range: colour_range(colours.range()), planes })
}

fn colour_matrix(stated: gst_video::VideoColorMatrix, rows: u32) -> ColourMatrix {
    match stated {
        gst_video::VideoColorMatrix::Bt709 => ColourMatrix::Bt709,
        gst_video::VideoColorMatrix::Bt601 | gst_video::VideoColorMatrix::Fcc => ColourMatrix::Bt601,
        _ if rows < HIGH_DEFINITION_ROWS => ColourMatrix::Bt601,
        _ => ColourMatrix::Bt709,
    }
}

fn colour_range(stated: gst_video::VideoColorRange) -> ColourRange {
    match stated {
        gst_video::VideoColorRange::Range0_255 => ColourRange::Full,
        _ => ColourRange::Limited,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(format: gst_video::VideoFormat, colorimetry: &str, bytes: usize) -> gst::Sample {
        gst::init().expect("GStreamer starts");
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", format.to_str())
            .field("width", 64)
            .field("height", 48)
            .field("framerate", gst::Fraction::new(25, 1))
            .field("colorimetry", colorimetry)
            .build();
        gst::Sample::builder().caps(&caps).buffer(&gst::Buffer::from_slice(vec![9_u8; bytes])).build()
    }

    fn read(sample: &gst::Sample) -> Result<Frame, String> {
        SampleReader::new(Decoder::Cpu).read(sample, &CameraId::parse("door").expect("a good id"))
    }

    #[test]
    fn planes_colours_and_size_come_from_the_caps() {
        let frame = read(&sample(gst_video::VideoFormat::I420, "1:3:5:1", 64 * 48 * 3 / 2)).expect("a good sample");
        let format = *frame.format();
        assert_eq!((format.size, format.layout), (Size { width: 64, height: 48 }, PixelLayout::I420));
        assert_eq!((format.matrix, format.range), (ColourMatrix::Bt709, ColourRange::Full));
        assert_eq!(format.planes[1], Plane { offset: 64 * 48, stride: 32 });
        let frame = read(&sample(gst_video::VideoFormat::Nv12, "2:4:5:4", 64 * 48 * 3 / 2)).expect("a good sample");
        assert_eq!((frame.format().layout, frame.format().matrix), (PixelLayout::Nv12, ColourMatrix::Bt601));
    }

    #[test]
    fn a_stream_that_states_no_matrix_is_judged_by_its_height() {
        let unknown = gst_video::VideoColorMatrix::Unknown;
        assert_eq!(colour_matrix(unknown, 576), ColourMatrix::Bt601);
        assert_eq!(colour_matrix(unknown, 720), ColourMatrix::Bt709);
        assert_eq!(colour_range(gst_video::VideoColorRange::Unknown), ColourRange::Limited);
    }

    #[test]
    fn a_sample_whose_caps_lie_is_refused_in_words_that_name_the_lie() {
        let said = |sample: &gst::Sample| read(sample).expect_err("it lies");
        let words = "a 64x48 I420 picture does not fit in 3072 bytes by the strides it states, [64, 32, 32]";
        assert_eq!(said(&sample(gst_video::VideoFormat::I420, "bt601", 64 * 48)), words, "too few bytes");
        assert_eq!(said(&sample(gst_video::VideoFormat::Yuy2, "bt601", 64 * 48 * 2)), "it is YUY2, and I420 or NV12 is read");
        let whole = sample(gst_video::VideoFormat::I420, "bt601", 64 * 48 * 3 / 2);
        let mut buffer = whole.buffer_owned().expect("a buffer");
        let flags = gst_video::VideoFrameFlags::empty();
        gst_video::VideoMeta::add(buffer.make_mut(), flags, gst_video::VideoFormat::Nv12, 64, 46).expect("a smaller picture fits");
        let caps = whole.caps_owned().expect("caps");
        let contradicted = gst::Sample::builder().caps(&caps).buffer(&buffer).build();
        assert_eq!(said(&contradicted), "its caps state 64x48 I420, and its memory 64x46 NV12");
        assert_eq!(said(&gst::Sample::builder().caps(&caps).build()), "it comes without bytes");
        assert_eq!(said(&gst::Sample::builder().buffer(&buffer).build()), "it comes without caps");
        let sound = gst::Caps::new_empty_simple("audio/x-raw");
        assert_eq!(said(&gst::Sample::builder().caps(&sound).buffer(&buffer).build()), "its caps describe no picture: audio/x-raw");
    }

    #[test]
    fn planes_lie_as_they_were_allocated_also_where_a_side_is_odd_and_what_cannot_be_is_refused() {
        gst::init().expect("GStreamer starts");
        let info = |width, height| gst_video::VideoInfo::builder(gst_video::VideoFormat::Nv12, width, height).build().expect("a picture");
        // A device's rows are further apart than caps know, and its chroma begins where it was allocated.
        let format = pixel_format(&info(641, 359), &[0, 1024 * 360, 0, 0], &[1024, 1024, 0, 0]).expect("a layout");
        assert_eq!((format.layout, format.size), (PixelLayout::Nv12, Size { width: 641, height: 359 }));
        assert_eq!(format.planes[1], Plane { offset: 1024 * 360, stride: 1024 });
        assert_eq!(format.bytes_needed(), Some(1024 * 360 + 1024 * 179 + 642), "an odd picture has as many pairs as rounding up gives");
        let backwards = pixel_format(&info(64, 48), &[0, 3072, 0, 0], &[-64, 64, 0, 0]);
        assert_eq!(backwards, Err("its rows run backwards, by a stride of -64".into()));
        let short = pixel_format(&info(64, 48), &[0, 3072, 0, 0], &[64, 62, 0, 0]).expect("a layout");
        assert_eq!(short.bytes_needed(), None, "chroma rows that do not fit their stride");
    }

    #[test]
    fn strides_of_the_buffer_win_over_those_of_the_caps() {
        let padded = sample(gst_video::VideoFormat::I420, "bt709", 96 * 48 * 3 / 2);
        let mut buffer = padded.buffer_owned().expect("a buffer");
        let (offsets, strides) = ([0, 96 * 48, 96 * 48 + 48 * 24], [96, 48, 48]);
        let flags = gst_video::VideoFrameFlags::empty();
        let buffer_mut = buffer.make_mut();
        gst_video::VideoMeta::add_full(buffer_mut, flags, gst_video::VideoFormat::I420, 64, 48, &offsets, &strides).expect("good strides");
        let sample = gst::Sample::builder().caps(&padded.caps_owned().expect("caps")).buffer(&buffer).build();
        let frame = read(&sample).expect("a good sample");
        assert_eq!(frame.format().planes[2], Plane { offset: 96 * 48 + 48 * 24, stride: 48 });
    }
}
