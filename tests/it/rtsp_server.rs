//! A test camera: a real RTSP server on loopback that plays clips as a camera would.
//!
//! In: MP4 clips, or a kind of misbehaviour. Out: RTSP on 127.0.0.1, at live pace, for ever.
//! The clips' access units are read into memory once and pushed with times that only rise, one
//! clip after the other and round again, so that no client ever sees a seam.
//! Must not know: doorward.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_rtsp_server as gst_rtsp_server;
use gstreamer_rtsp_server::gst_rtsp;
use gstreamer_rtsp_server::prelude::*;

/// What the test camera shows, and to whom.
#[derive(Clone, Debug, clap::Parser)]
pub struct TestCamera {
    /// The port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    pub port: u16,
    /// The path of its URL.
    #[arg(long, default_value = "/door")]
    pub path: String,
    /// A clip to play, MP4 with H.264 or H.265; several are played one after the other.
    #[arg(long)]
    pub file: Vec<PathBuf>,
    /// Ask for this user name.
    #[arg(long, requires = "password")]
    pub user: Option<String>,
    /// Ask for this password.
    #[arg(long, requires = "user")]
    pub password: Option<String>,
    /// Speak TLS with the certificate and the key in this PEM file.
    #[arg(long)]
    pub tls: Option<PathBuf>,
    /// Offer sound and no picture.
    #[arg(long)]
    pub audio_only: bool,
    /// Send noise where the pictures should be, between true parameter sets.
    #[arg(long)]
    pub noise: bool,
    /// Lose what goes out together, a picture or a part of one, each time that so much has gone out; 0 loses nothing.
    #[arg(long, default_value_t = 0)]
    pub lose_every: u32,
    /// Send a packet of another payload type under the next number, as gateways send parity or a sign of life, each time that so much has
    /// gone out; 0 sends none.
    #[arg(long, default_value_t = 0)]
    pub other_every: u32,
}

/// One access unit and its times since the beginning of its clip.
struct Unit {
    bytes: Vec<u8>,
    decode: gst::ClockTime,
    present: gst::ClockTime,
}

/// The access units of all clips in order, as if they were one.
struct Film {
    is_h265: bool,
    units: Vec<Unit>,
    length: gst::ClockTime,
}

/// Serves until the process ends. Gives the URL to `ready` as soon as clients may come.
pub fn serve(camera: &TestCamera, ready: impl FnOnce(&str)) -> anyhow::Result<()> {
    gst::init()?;
    let factory = gst_rtsp_server::RTSPMediaFactory::new();
    factory.set_shared(true);
    factory.set_latency(0);
    if camera.audio_only {
        factory.set_launch("( audiotestsrc is-live=true ! audio/x-raw,rate=8000,channels=1 ! alawenc ! rtppcmapay name=pay0 )");
    } else {
        let mut film = Film::read(&camera.file)?;
        if camera.noise {
            film.make_noise();
        }
        let codec = if film.is_h265 { "h265" } else { "h264" };
        factory.set_launch(&format!(
            "( appsrc name=film is-live=true format=time block=true max-buffers=4 \
               caps=video/x-{codec},stream-format=byte-stream,alignment=au ! rtp{codec}pay name=pay0 pt=96 config-interval=-1 )"
        ));
        let film = Arc::new(film);
        let (lose_every, other_every) = (camera.lose_every, camera.other_every);
        factory.connect_media_configure(move |_, media| {
            let Ok(bin) = media.element().downcast::<gst::Bin>() else { return };
            let packets = bin.by_name("pay0").and_then(|payloader| payloader.static_pad("src"));
            if let Some(packets) = packets.as_ref().filter(|_| lose_every > 0) {
                lose(packets, lose_every);
            }
            if let Some(packets) = packets.filter(|_| other_every > 0) {
                mix_in(&packets, other_every);
            }
            let Some(source) = bin.by_name("film").and_downcast::<gst_app::AppSrc>() else { return };
            let film = film.clone();
            std::thread::spawn(move || film.play(&source));
        });
    }
    let server = gst_rtsp_server::RTSPServer::new();
    server.set_address("127.0.0.1");
    server.set_service(&camera.port.to_string());
    if camera.user.is_some() || camera.tls.is_some() {
        server.set_auth(Some(&guard(&factory, camera)?));
    }
    server.mount_points().context("a server has mount points")?.add_factory(&camera.path, factory);
    let _source = server.attach(None).context("cannot listen; is the port taken?")?;
    let scheme = if camera.tls.is_some() { "rtsps" } else { "rtsp" };
    ready(&format!("{scheme}://127.0.0.1:{}{}", server.bound_port(), camera.path));
    gst::glib::MainLoop::new(None, false).run();
    Ok(())
}

/// Loses every so many pushes of packets, whose numbers go on as if they had been sent.
fn lose(packets: &gst::Pad, every: u32) {
    let pushes = AtomicU32::new(0);
    packets.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, _| {
        let is_lost = pushes.fetch_add(1, Ordering::Relaxed) % every == every - 1;
        if is_lost { gst::PadProbeReturn::Handled } else { gst::PadProbeReturn::Ok }
    });
}

/// Puts a packet of another payload type before every so many pushes of packets, and numbers all of them anew.
fn mix_in(packets: &gst::Pad, every: u32) {
    const OTHER: u8 = 127;
    let (pushes, added) = (AtomicU32::new(0), AtomicU32::new(0));
    packets.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |pad, info| {
        let first = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => Some(buffer.clone()),
            Some(gst::PadProbeData::BufferList(list)) => list.get_owned(0),
            _ => None,
        };
        let Some(first) = first.filter(|packet| byte(packet, 1) & 0x7F != OTHER) else { return gst::PadProbeReturn::Ok };
        let mut shift = added.load(Ordering::Relaxed) as u16;
        if pushes.fetch_add(1, Ordering::Relaxed) % every == every - 1 {
            let mut header = first.map_readable().map(|bytes| bytes[..12].to_vec()).unwrap_or_default();
            header[1] = OTHER;
            header.extend([0; 4]);
            let mut other = gst::Buffer::from_mut_slice(header);
            if let Some(other) = other.get_mut() {
                first.copy_into(other, gst::BufferCopyFlags::TIMESTAMPS, ..).expect("times are copied");
                renumber(other, shift);
            }
            let _ = pad.push(other);
            added.fetch_add(1, Ordering::Relaxed);
            shift = shift.wrapping_add(1);
        }
        drop(first);
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => renumber(buffer.make_mut(), shift),
            Some(gst::PadProbeData::BufferList(list)) => list.make_mut().foreach_mut(|mut buffer, _| {
                renumber(buffer.make_mut(), shift);
                std::ops::ControlFlow::Continue(Some(buffer))
            }),
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

fn byte(packet: &gst::BufferRef, at: usize) -> u8 {
    packet.map_readable().ok().and_then(|bytes| bytes.get(at).copied()).unwrap_or_default()
}

fn renumber(packet: &mut gst::BufferRef, shift: u16) {
    let mut bytes = packet.map_writable().expect("a packet that nobody else holds");
    let number = u16::from_be_bytes([bytes[2], bytes[3]]).wrapping_add(shift);
    bytes[2..4].copy_from_slice(&number.to_be_bytes());
}

/// Lets in whom the camera wants in, by the password or without one, over TLS or not.
fn guard(factory: &gst_rtsp_server::RTSPMediaFactory, camera: &TestCamera) -> anyhow::Result<gst_rtsp_server::RTSPAuth> {
    let role = gst::Structure::builder("keeper")
        .field(gst_rtsp_server::RTSP_PERM_MEDIA_FACTORY_ACCESS, true)
        .field(gst_rtsp_server::RTSP_PERM_MEDIA_FACTORY_CONSTRUCT, true)
        .build();
    factory.add_role_from_structure(&role);
    let token = gst_rtsp_server::RTSPToken::builder().field(gst_rtsp_server::RTSP_TOKEN_MEDIA_FACTORY_ROLE, "keeper").build();
    let auth = gst_rtsp_server::RTSPAuth::new();
    match (&camera.user, &camera.password) {
        (Some(user), Some(password)) => {
            auth.set_supported_methods(gst_rtsp::RTSPAuthMethod::Digest);
            auth.add_digest(user, password, &token);
        }
        _ => auth.set_default_token(Some(&mut token.copy())),
    }
    if let Some(file) = &camera.tls {
        auth.set_tls_certificate(Some(&gio::TlsCertificate::from_file(file)?));
    }
    Ok(auth)
}

impl Film {
    fn read(files: &[PathBuf]) -> anyhow::Result<Self> {
        ensure!(!files.is_empty(), "give a clip with --file");
        let mut film: Option<Self> = None;
        for file in files {
            let clip = Self::read_clip(file)?;
            match &mut film {
                None => film = Some(clip),
                Some(film) => {
                    ensure!(film.is_h265 == clip.is_h265, "{}: all clips must have one codec", file.display());
                    let begin = film.length;
                    film.units.extend(clip.units.into_iter().map(|unit| Unit {
                        decode: unit.decode + begin,
                        present: unit.present + begin,
                        ..unit
                    }));
                    film.length += clip.length;
                }
            }
        }
        film.context("no clip")
    }

    fn read_clip(file: &Path) -> anyhow::Result<Self> {
        let units = match read_units(file, "h264") {
            Ok(units) => (false, units),
            Err(_) => (true, read_units(file, "h265").with_context(|| format!("{} holds neither H.264 nor H.265", file.display()))?),
        };
        let (is_h265, mut units) = units;
        let begin = units[0].decode;
        for unit in &mut units {
            (unit.decode, unit.present) = (unit.decode.saturating_sub(begin), unit.present.saturating_sub(begin));
        }
        let last = units[units.len() - 1].decode;
        let spacing = if units.len() > 1 { last / (units.len() as u64 - 1) } else { gst::ClockTime::from_mseconds(40) };
        Ok(Self { is_h265, units, length: last + spacing })
    }

    /// Writes noise over all slices, and leaves parameter sets as they are.
    fn make_noise(&mut self) {
        let mut random = fastrand::Rng::with_seed(7);
        for unit in &mut self.units {
            let slices: Vec<usize> = unit
                .bytes
                .windows(4)
                .enumerate()
                .filter(|(_, w)| w[..3] == [0, 0, 1] && matches!(w[3] & 0x1F, 1..=5))
                .map(|(at, _)| at + 4)
                .collect();
            for start in slices {
                let end = unit.bytes[start..].windows(3).position(|w| w == [0, 0, 1]).map_or(unit.bytes.len(), |length| start + length);
                // Never zero, so that no start code appears; but a slice header at first that names
                // a parameter set nobody sends, since a decoder shows noise alone now and then.
                unit.bytes[start..end].iter_mut().for_each(|byte| *byte = random.u8(1..));
                unit.bytes[start..start + 3].copy_from_slice(&[0x88, 0x00, 0x80]);
            }
        }
    }

    /// Pushes the film at live pace, round and round, until the last client has gone.
    fn play(&self, source: &gst_app::AppSrc) {
        let running_time = || source.current_running_time();
        let mut begin = begun(|| source.current_state() == gst::State::Playing, running_time);
        loop {
            for unit in &self.units {
                let due = begin + unit.decode;
                while let Some(early) = running_time().and_then(|now| due.checked_sub(now)).filter(|early| !early.is_zero()) {
                    std::thread::sleep(Duration::from(early));
                }
                let mut buffer = gst::Buffer::from_slice(unit.bytes.clone());
                if let Some(buffer) = buffer.get_mut() {
                    buffer.set_dts(due);
                    buffer.set_pts(begin + unit.present);
                }
                if source.push_buffer(buffer).is_err() {
                    return;
                }
            }
            begin += self.length;
        }
    }
}

/// Waits until a source plays, and gives its running time then. It is asked for its state first: while it starts it has the clock already
/// and not yet the time to count from, and says how long the machine has been up. A film that is due then keeps all clients waiting.
fn begun(is_playing: impl Fn() -> bool, running_time: impl Fn() -> Option<gst::ClockTime>) -> gst::ClockTime {
    loop {
        if is_playing()
            && let Some(now) = running_time()
        {
            return now;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn read_units(file: &Path, codec: &str) -> anyhow::Result<Vec<Unit>> {
    let description = format!(
        "filesrc name=file ! qtdemux ! {codec}parse config-interval=-1 ! video/x-{codec},stream-format=byte-stream,alignment=au ! appsink name=units sync=false"
    );
    let pipeline = gst::parse::launch(&description)?.downcast::<gst::Pipeline>().ok().context("a pipeline")?;
    pipeline.by_name("file").context("a source")?.set_property("location", file);
    let sink = pipeline.by_name("units").and_downcast::<gst_app::AppSink>().context("a sink")?;
    pipeline.set_state(gst::State::Playing)?;
    let mut units = Vec::new();
    let bus = pipeline.bus().context("a bus")?;
    let result = loop {
        if let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(100)) {
            let buffer = sample.buffer().context("a buffer")?;
            let present = buffer.pts().context("an access unit without a time")?;
            let decode = buffer.dts().unwrap_or(present);
            units.push(Unit { bytes: buffer.map_readable()?.to_vec(), decode, present });
        } else if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
            break Err(anyhow::anyhow!("{message:?}"));
        } else if sink.is_eos() {
            break Ok(());
        }
    };
    pipeline.set_state(gst::State::Null)?;
    result?;
    if units.is_empty() {
        bail!("{} holds no {codec}", file.display());
    }
    Ok(units)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_film_does_not_begin_at_the_machines_time_where_its_source_starts_between_two_questions() {
        let questions = Cell::new(0);
        let has_started = || questions.replace(questions.get() + 1) > 0;
        let uptime = gst::ClockTime::from_seconds(50_000);
        let begin = begun(has_started, || Some(if has_started() { gst::ClockTime::ZERO } else { uptime }));
        assert_eq!(begin, gst::ClockTime::ZERO);
    }
}
