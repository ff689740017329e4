//! One connection to one camera: rtspsrc → depayloader → parser → decoder → appsink.
//!
//! In: where the camera is. Out: frames to the sink, what was seen, and how it ended.
//! Frames: the newest counts; the callback offers and never waits. Access units that have waited
//! for more than a second are skipped and counted (`lateness`), and so are those that miss packets (`losses`). Signals: 8 wait at most, further
//! ones are dropped, since the first that ends a connection ends it.
//! Must not know: retries, states, other cameras.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use tokio::sync::mpsc;

use super::capture_time::CaptureClock;
use super::codec::Codec;
use super::decoding::{Decoder, Decoding, Delivery, appsink};
use super::failure::Failure;
use super::handover::SampleReader;
use super::lateness::Lateness;
use super::losses::Losses;
use super::pictures::{Observations, Pictures};
use super::{FrameSink, SourceSettings};
use crate::camera::{OfflineReason, Skipped, Transport};
use crate::clock::Clock;

const SIGNALS_MAX: usize = 8;
/// Datagrams overtake each other; TCP's bytes do not.
const UDP_REORDER_MS: u32 = 100;
/// rtspsrc says goodbye to the camera for at most this long. A frozen camera does not answer.
const TEARDOWN_MAX: gst::ClockTime = gst::ClockTime::from_mseconds(100);
/// The watchdog is quicker; this only bounds what it does not see.
const TCP_TIMEOUT_US: u64 = 10_000_000;

/// After so many pictures in a row that cannot be used, none will be: the camera must not stay blind, nor be called online.
const UNUSABLE_MAX: u32 = 50;

/// What a connection says of itself.
#[derive(Debug)]
pub(super) enum Signal {
    /// The first frame was decoded and can be used.
    FirstFrame,
    /// It is over.
    Failed(Failure),
}

/// What a connection works with.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) settings: SourceSettings,
    pub(super) frames: Arc<dyn FrameSink>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) capture: Arc<Mutex<CaptureClock>>,
}

/// A running pipeline. Dropping it takes the pipeline down, which may take a tenth of a second
/// and more: drop it where waiting is allowed.
pub(super) struct Connection {
    pipeline: gst::Pipeline,
    pictures: Arc<Pictures>,
    signals: mpsc::Receiver<Signal>,
}

impl Connection {
    /// Builds the pipeline and lets it connect.
    pub(super) fn open(parts: &Parts, decoder: &Decoder) -> Result<Self, Failure> {
        // What is named after it names the camera.
        let pipeline = gst::Pipeline::with_name(parts.settings.camera.as_str());
        if let Decoder::Cuda(shared) = decoder {
            shared.lend(&pipeline);
        }
        let pictures = Arc::new(Pictures::new(parts));
        let (signal, signals) = mpsc::channel(SIGNALS_MAX);
        let source = source(&parts.settings).map_err(|error| impossible(&error))?;
        if let Some(file) = &parts.settings.ca_file {
            source.set_property("tls-database", trusted_by(file)?);
        }
        refuse_untrusted(&source, &pictures);
        select_video(&source, &pictures);
        watch_packets(&source, &pictures);
        pipeline.add(&source).map_err(|error| impossible(&error))?;
        let chain = Chain { parts: parts.clone(), decoder: decoder.clone(), pictures: pictures.clone(), signal: signal.clone() };
        let weak = pipeline.downgrade();
        source.connect_pad_added(move |_, pad| {
            let Some(pipeline) = weak.upgrade() else { return };
            if let Err(error) = chain.attach(&pipeline, pad) {
                let _ = chain.signal.try_send(Signal::Failed(chain.not_attached(&error)));
            }
        });
        watch_bus(&pipeline, &pictures, signal);
        let connection = Self { pipeline, pictures, signals };
        // A refusal is told on the bus too, in better words.
        let _ = connection.pipeline.set_state(gst::State::Playing);
        Ok(connection)
    }

    /// The next signal. Cancelling loses none.
    pub(super) async fn signal(&mut self) -> Signal {
        match self.signals.recv().await {
            Some(signal) => signal,
            // The bus handler holds a sender for as long as the pipeline lives, and so does `self`.
            None => Signal::Failed(Failure::ended()),
        }
    }

    /// What was seen so far.
    pub(super) fn observations(&self) -> Observations {
        self.pictures.observations()
    }

    /// What its decoder warned of since its last picture.
    pub(super) fn warning(&self) -> Option<String> {
        self.pictures.warning()
    }

    /// Why a picture was refused last, if any was.
    pub(super) fn refusal(&self) -> Option<String> {
        self.pictures.refusal()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        end(&self.pipeline);
        if let Some(bus) = self.pipeline.bus() {
            bus.unset_sync_handler();
        }
    }
}

/// Ends all elements. Where the driver does not take a decoder back, that refuses to end, and those before it are not asked: to
/// drop them running would end the process. So each is ended by itself, the source last, and what does not end even then is kept.
fn end(pipeline: &gst::Pipeline) {
    if pipeline.set_state(gst::State::Null).is_ok() {
        return;
    }
    for element in pipeline.children() {
        let _ = element.set_state(gst::State::Null);
    }
    if pipeline.set_state(gst::State::Null).is_err() {
        tracing::error!("a camera's decoder cannot be ended and is left behind; where it is a GPU's, nvidia-smi says more");
        std::mem::forget(pipeline.clone());
    }
}

fn impossible(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(OfflineReason::Other, format!("the video pipeline cannot be built: {error}; doorward doctor says what is missing"))
}

fn source(settings: &SourceSettings) -> Result<gst::Element, gst::glib::BoolError> {
    let (protocol, reorder_ms) = match settings.transport {
        Transport::Tcp => ("tcp", 0),
        Transport::Udp => ("udp", UDP_REORDER_MS),
    };
    let mut source = gst::ElementFactory::make("rtspsrc")
        .property("location", settings.url.as_str())
        .property_from_str("protocols", protocol)
        .property("latency", reorder_ms)
        .property("tcp-timeout", TCP_TIMEOUT_US)
        // Silence is the watchdog's to judge; rtspsrc would try another transport in its stead.
        .property("timeout", 0_u64)
        .property("teardown-timeout", TEARDOWN_MAX)
        .property("user-agent", concat!("doorward/", env!("CARGO_PKG_VERSION")));
    if let Some(credential) = &settings.credential {
        // Never in the URL: GStreamer prints URLs.
        source = source.property("user-id", &credential.username).property("user-pw", credential.password.reveal());
    }
    source.build()
}

/// The certificates of a PEM file.
pub(super) fn trusted_by(file: &Path) -> Result<gio::TlsDatabase, Failure> {
    let unusable = |why: &dyn std::fmt::Display| {
        let text = format!("cameras.ca_file {}: {why}; it must hold certificates in PEM, and rtsps needs glib-networking", file.display());
        Failure::new(OfflineReason::Untrusted, text)
    };
    // An empty database would be none: the file's certificates are read first.
    let certificates = gio::TlsCertificate::list_new_from_file(file).map_err(|error| unusable(&error))?;
    if certificates.is_empty() {
        return Err(unusable(&"there is no certificate in it"));
    }
    gio::TlsFileDatabase::new(file).map(Cast::upcast).map_err(|error| unusable(&error))
}

/// Notes that a certificate was refused: the error on the bus says only that connecting failed.
fn refuse_untrusted(source: &gst::Element, pictures: &Arc<Pictures>) {
    let seen = pictures.clone();
    source.connect("accept-certificate", false, move |_| {
        seen.progress(|progress| progress.is_untrusted = true);
        Some(false.to_value())
    });
}

/// Asks the camera for its first H.264 or H.265 stream and for nothing else: what is not set up is not sent.
fn select_video(source: &gst::Element, pictures: &Arc<Pictures>) {
    let seen = pictures.clone();
    source.connect("on-sdp", false, move |_| {
        seen.progress(|progress| progress.is_described = true);
        None
    });
    let seen = pictures.clone();
    let chosen = Mutex::new(None);
    source.connect("select-stream", false, move |values| {
        let number = values.get(1).and_then(|value| value.get::<u32>().ok());
        let codec = values.get(2).and_then(|value| value.get::<gst::Caps>().ok()).and_then(|caps| Codec::of_rtp(caps.structure(0)?));
        let mut chosen = chosen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_chosen = number.is_some() && codec.is_some() && (chosen.is_none() || *chosen == number);
        if is_chosen {
            *chosen = number;
            seen.progress(|progress| progress.has_video = true);
        }
        Some(is_chosen.to_value())
    });
}

/// Listens to RTP and RTCP where they enter the jitter buffer, so that no queue comes between a packet and its time of arrival.
fn watch_packets(source: &gst::Element, pictures: &Arc<Pictures>) {
    let pictures = pictures.clone();
    source.connect("new-manager", false, move |values| {
        let manager = values.get(1)?.get::<gst::Element>().ok()?;
        let pictures = pictures.clone();
        manager.connect_pad_added(move |_, pad| {
            let pictures = pictures.clone();
            let name = pad.name();
            if name.starts_with("recv_rtp_sink_") {
                for_each_buffer(pad, move |buffer| pictures.rtp_arrived(buffer));
            } else if name.starts_with("recv_rtcp_sink_") {
                for_each_buffer(pad, move |buffer| pictures.rtcp_arrived(buffer));
            }
        });
        None
    });
}

fn for_each_buffer(pad: &gst::Pad, see: impl Fn(&gst::BufferRef) + Send + Sync + 'static) {
    pad.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
        match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => see(buffer),
            Some(gst::PadProbeData::BufferList(list)) => list.iter().for_each(&see),
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

fn watch_bus(pipeline: &gst::Pipeline, pictures: &Arc<Pictures>, signal: mpsc::Sender<Signal>) {
    let Some(bus) = pipeline.bus() else { return };
    let pictures = pictures.clone();
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            gst::MessageView::Error(error) => {
                let failure = Failure::from_error(error, pictures.observations().progress);
                let _ = signal.try_send(Signal::Failed(failure));
            }
            gst::MessageView::Eos(_) => {
                let _ = signal.try_send(Signal::Failed(Failure::ended()));
            }
            // rtspsrc tells that it has connected by telling what it asks next.
            gst::MessageView::Progress(progress) if progress.code() == "open" => {
                tracing::trace!(text = progress.text(), "rtspsrc");
                if progress.text().starts_with("Retrieving") {
                    pictures.progress(|progress| progress.is_connected = true);
                }
            }
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
}

/// What is needed when the camera's stream begins.
struct Chain {
    parts: Parts,
    decoder: Decoder,
    pictures: Arc<Pictures>,
    signal: mpsc::Sender<Signal>,
}

impl Chain {
    fn attach(&self, pipeline: &gst::Pipeline, pad: &gst::Pad) -> Result<(), gst::glib::BoolError> {
        let codec = pad.current_caps().or_else(|| Some(pad.query_caps(None))).and_then(|caps| Codec::of_rtp(caps.structure(0)?));
        let Some(codec) = codec else { return Ok(()) };
        self.pictures.opened_here();
        let sink = appsink(Delivery::Newest, &self.decoder);
        sink.set_callbacks(self.deliver());
        let depayloader = gst::ElementFactory::make(codec.depayloader()).build()?;
        pipeline.add_many([sink.upcast_ref(), &depayloader])?;
        sink.sync_state_with_parent()?;
        let Decoding { parser, decoder } = Decoding::add(codec, &self.decoder, &sink)?;
        self.skip_when_late(&decoder);
        depayloader.link(&parser)?;
        depayloader.sync_state_with_parent()?;
        let entry = depayloader.static_pad("sink").ok_or_else(|| gst::glib::bool_error!("a depayloader without a sink pad"))?;
        self.skip_when_damaged(&entry, &decoder, codec);
        if let Some(given) = decoder.static_pad("sink") {
            // After those that skip: what they skip does not come here.
            let pictures = self.pictures.clone();
            for_each_buffer(&given, move |_| pictures.given());
        }
        let pictures = self.pictures.clone();
        for_each_buffer(&entry, move |buffer| pictures.rtp_ordered(buffer, codec));
        pad.link(&entry).map_err(|error| gst::glib::bool_error!("cannot link the camera's stream: {error}"))?;
        Ok(())
    }

    /// A device that does not open another decoder is told as one that does not decode; nothing else here depends on the camera.
    fn not_attached(&self, error: &gst::glib::BoolError) -> Failure {
        match &self.decoder {
            Decoder::Cpu => impossible(error),
            Decoder::Cuda(_) => {
                Failure::new(OfflineReason::Undecodable, format!("the decoder of {} does not start: {error}", self.decoder))
            }
        }
    }

    fn deliver(&self) -> gst_app::AppSinkCallbacks {
        let Parts { settings, frames, .. } = self.parts.clone();
        let (pictures, signal) = (self.pictures.clone(), self.signal.clone());
        let (mut reader, decoder) = (SampleReader::new(self.decoder.clone()), self.decoder.clone());
        let (mut sequence, mut unusable, mut is_first_told) = (0, 0, false);
        gst_app::AppSinkCallbacks::builder()
            .new_sample(move |sink| {
                let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
                let pts = sample.buffer().and_then(gst::BufferRef::pts);
                let stamp = pictures.decoded(pts);
                match reader.read(&sample, &settings.camera) {
                    Ok(mut frame) => {
                        (frame.sequence, frame.decode_time) = (sequence, stamp.decode_time);
                        (frame.capture_time, frame.camera_delay) = (stamp.capture.time, stamp.capture.delay);
                        frames.offer(frame);
                        pictures.used(stamp.decode_time);
                        unusable = 0;
                        if !std::mem::replace(&mut is_first_told, true) {
                            let _ = signal.try_send(Signal::FirstFrame);
                        }
                    }
                    Err(why) => {
                        tracing::debug!(camera = %settings.camera, %why, "a picture is refused");
                        frames.refused();
                        unusable += 1;
                        if unusable == UNUSABLE_MAX {
                            let message = format!("no picture of {decoder} can be used: {why}");
                            let _ = signal.try_send(Signal::Failed(Failure::new(OfflineReason::Undecodable, message)));
                        }
                        pictures.refused(why);
                    }
                }
                sequence += 1;
                Ok(gst::FlowSuccess::Ok)
            })
            .build()
    }

    fn skip_when_late(&self, decoder: &gst::Element) {
        let Some(pad) = decoder.static_pad("sink") else { return };
        let (pictures, frames) = (self.pictures.clone(), self.parts.frames.clone());
        let lateness = Mutex::new(Lateness::default());
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let Some(buffer) = info.buffer() else { return gst::PadProbeReturn::Ok };
            let is_keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            let lag = pictures.lag(buffer.pts());
            if lateness.lock().unwrap_or_else(PoisonError::into_inner).admits(lag, is_keyframe) {
                return gst::PadProbeReturn::Ok;
            }
            pictures.skipped();
            frames.skipped(Skipped::Late);
            // And not `Drop`: the bindings have taken the buffer, and GStreamer 1.22 would release it again.
            gst::PadProbeReturn::Handled
        });
    }

    /// Packets and access units come by in one thread, a packet before the access unit that it ends.
    fn skip_when_damaged(&self, packets: &gst::Pad, decoder: &gst::Element, codec: Codec) {
        let Some(units) = decoder.static_pad("sink") else { return };
        let losses = match self.decoder {
            Decoder::Cpu => Losses::default(),
            Decoder::Cuda(_) => Losses::before_a_keyframe(),
        };
        let losses = Arc::new(Mutex::new(losses));
        let (seen, pictures) = (losses.clone(), self.pictures.clone());
        for_each_buffer(packets, move |packet| {
            let time = packet.pts().map(gst::ClockTime::nseconds);
            seen.lock().unwrap_or_else(PoisonError::into_inner).packet(pictures.follows_gap(packet), time);
        });
        let (pictures, frames) = (self.pictures.clone(), self.parts.frames.clone());
        units.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let Some(unit) = info.buffer() else { return gst::PadProbeReturn::Ok };
            // Whatever decoding can begin with is a keyframe to the parser, but not the other way round.
            let is_keyframe =
                || !unit.flags().contains(gst::BufferFlags::DELTA_UNIT) && unit.map_readable().is_ok_and(|bytes| codec.begins_with(&bytes));
            let time = unit.pts().map(gst::ClockTime::nseconds);
            if losses.lock().unwrap_or_else(PoisonError::into_inner).admits(time, is_keyframe) {
                return gst::PadProbeReturn::Ok;
            }
            pictures.skipped();
            frames.skipped(Skipped::Damaged);
            gst::PadProbeReturn::Handled
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use gstreamer_video as gst_video;

    use super::*;
    use crate::camera::CameraId;
    use crate::clock::SystemClock;
    use crate::frame::Frame;
    use crate::ingest::Decode;

    /// Pictures as they follow from each other without chroma, and with it.
    const LYING: usize = 64 * 48;
    const WHOLE: usize = LYING * 3 / 2;

    #[derive(Default)]
    struct Counted {
        offered: AtomicUsize,
        refused: AtomicUsize,
    }

    impl FrameSink for Counted {
        fn offer(&self, _: Frame) {
            self.offered.fetch_add(1, Ordering::Relaxed);
        }

        fn refused(&self) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A chain without its parser and its decoder, which is given pictures of 64x48.
    fn chain(frames: &Arc<Counted>) -> (gst::Pipeline, gst_app::AppSrc, (mpsc::Receiver<Signal>, Arc<Pictures>)) {
        let settings = SourceSettings {
            camera: CameraId::parse("door").expect("a good id"),
            url: "rtsp://localhost/door".parse().expect("a good URL"),
            credential: None,
            transport: Transport::Tcp,
            ca_file: None,
            decode: Decode::on_cpu(),
        };
        let parts = Parts { settings, frames: frames.clone(), clock: Arc::new(SystemClock::new()), capture: Arc::default() };
        let (signal, signals) = mpsc::channel(SIGNALS_MAX);
        let pictures = Arc::new(Pictures::new(&parts));
        let chain = Chain { parts, decoder: Decoder::Cpu, pictures: pictures.clone(), signal };
        // A sink that lets every picture pass.
        let sink = appsink(Delivery::Every, &Decoder::Cpu);
        sink.set_callbacks(chain.deliver());
        let caps = gst_video::VideoInfo::builder(gst_video::VideoFormat::I420, 64, 48).build().and_then(|info| info.to_caps());
        let source = gst_app::AppSrc::builder().caps(&caps.expect("a picture")).format(gst::Format::Time).build();
        let pipeline = gst::Pipeline::new();
        pipeline.add_many([source.upcast_ref::<gst::Element>(), sink.upcast_ref()]).expect("they are new");
        source.link(&sink).expect("a sink takes I420");
        (pipeline, source, (signals, pictures))
    }

    /// What is told first of pictures of so many bytes, and whether the watchdog has seen a frame by then.
    fn first_signal(frames: &Arc<Counted>, pictures: &[usize]) -> (Option<Signal>, bool) {
        let (pipeline, source, (mut signals, seen)) = chain(frames);
        pipeline.set_state(gst::State::Playing).expect("it begins");
        for bytes in pictures {
            source.push_buffer(gst::Buffer::from_slice(vec![9_u8; *bytes])).expect("it is taken");
        }
        let signal = signals.blocking_recv();
        pipeline.set_state(gst::State::Null).expect("it ends");
        (signal, seen.observations().seen.frame.is_some())
    }

    #[test]
    fn a_camera_whose_pictures_all_lie_is_given_up_in_words_that_name_the_lie_also_on_the_processor() {
        gst::init().expect("GStreamer starts");
        let frames = Arc::new(Counted::default());
        let (signal, is_alive) = first_signal(&frames, &[LYING; UNUSABLE_MAX as usize]);
        let Some(Signal::Failed(failure)) = signal else { panic!("{signal:?}") };
        let words = "no picture of cpu can be used: a 64x48 I420 picture does not fit in 3072 bytes by the strides it states, [64, 32, 32]";
        assert_eq!((failure.reason, failure.message.as_str()), (OfflineReason::Undecodable, words));
        assert_eq!(frames.refused.load(Ordering::Relaxed), UNUSABLE_MAX as usize);
        assert!(!is_alive, "however slowly they come, it is not called online");
    }

    #[test]
    fn the_first_frame_is_the_first_that_can_be_used() {
        gst::init().expect("GStreamer starts");
        let frames = Arc::new(Counted::default());
        // Were the second not told as the first, the fifty that follow would end the connection before anything is told.
        let pictures: Vec<usize> = [LYING, WHOLE].into_iter().chain([LYING; UNUSABLE_MAX as usize]).collect();
        let (signal, is_alive) = first_signal(&frames, &pictures);
        assert!(matches!(signal, Some(Signal::FirstFrame)) && is_alive, "{signal:?}");
        assert_eq!(frames.offered.load(Ordering::Relaxed), 1);
    }
}
