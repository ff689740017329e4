//! Keeps one camera watched: connects, waits for the end, tells, and connects again, for ever.
//!
//! In: settings, sinks, a clock. Out: the camera's states, one log line for each change, and one for each connection whose
//! decoder is not the processor by choice.
//! `run` outlives what panics, `keep_connected` is the retry policy, `run_once` is one connection.
//! Must not know: packets, pixels, other cameras.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use url::{Host, Url};

use super::backoff::Backoff;
use super::decoding::Decoder;
use super::failure::Failure;
use super::fallback::Fallback;
use super::rtsp::{Connection, Parts, Signal};
use super::watchdog::{SILENCE_MAX, Verdict, Watchdog};
use super::{Decode, StateSink};
use crate::camera::{CameraId, CameraState, Decoding, OfflineReason};
use crate::clock::Timestamp;

/// A pipeline that has not come down after this long is left behind, with an error in the log: the
/// camera must come back even then.
const CLOSE_MAX: Duration = Duration::from_secs(10);
/// A connection whose opening takes longer than this is told: until then the camera is only connecting.
const OPENING_LONG: Duration = Duration::from_secs(60);
/// Of a camera whose connection takes so long to open.
const OPENS_LONG: &str = "opening the connection takes over a minute: decoders or cameras.ca_file may lie on a disk that does not answer";
/// Of a camera whose supervisor panicked.
const PANICKED: &str = "watching the camera failed inside doorward; its log says where";

/// How one connection ended.
struct Ended {
    failure: Failure,
    /// From the first to the last frame.
    good: Duration,
}

/// See [`super::watch`]. What panics must not leave the camera in its last state for ever, with nobody watching it, nor end the
/// daemon for the other cameras: it is told as a loss, and the camera is watched anew.
pub(super) async fn run(parts: Parts, states: Arc<dyn StateSink>, cancel: CancellationToken) {
    let (camera, mut backoff) = (&parts.settings.camera, Backoff::seeded(fastrand::u64(..)));
    while !cancel.is_cancelled() {
        // Else it was cancelled, or the runtime is shutting down.
        let Err(error) = tokio::spawn(keep_connected(parts.clone(), states.clone(), cancel.clone())).await else { return };
        if !error.is_panic() {
            return;
        }
        tracing::error!(%camera, %error, "watching a camera panicked; it is watched anew");
        let wait = backoff.next(Duration::ZERO, false);
        let (message, next_attempt_time) = (PANICKED.to_owned(), Some(parts.clock.now().plus(wait)));
        states.state(camera, CameraState::Offline { reason: OfflineReason::Other, message, next_attempt_time });
        let _ = cancel.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}

async fn keep_connected(parts: Parts, states: Arc<dyn StateSink>, cancel: CancellationToken) {
    let mut teller =
        Teller { camera: parts.settings.camera.clone(), states, logged: None, decoding: Decoding::default(), is_decoding_logged: false };
    let (mut backoff, mut fallback) = (Backoff::seeded(fastrand::u64(..)), Fallback::default());
    while !cancel.is_cancelled() {
        teller.tell(CameraState::Connecting);
        let (ended, connection) = run_once(&parts, (&mut teller, &mut fallback), &cancel).await;
        // A frozen camera holds its connection's end up: that must hold nobody else up.
        let closing = tokio::task::spawn_blocking(move || drop(connection));
        if let Some(Ended { failure, good }) = ended {
            let wait = backoff.next(good, failure.reason == OfflineReason::Unauthorised);
            let Failure { reason, message, .. } = failure.scrubbed(parts.settings.credential.as_ref());
            teller.tell(CameraState::Offline { reason, message, next_attempt_time: Some(parts.clock.now().plus(wait)) });
            let _ = cancel.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
        if tokio::time::timeout(CLOSE_MAX, closing).await.is_err() {
            tracing::error!(camera = %parts.settings.camera, "a connection does not close and is left behind; the next attempt begins");
        }
    }
}

/// A connection that is closed where waiting is allowed, also where what follows it panics.
struct Open(Option<Connection>);

impl Drop for Open {
    fn drop(&mut self) {
        if let (Some(connection), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn_blocking(move || drop(connection));
        }
    }
}

/// One connection, from opening to its end (`None` when cancelled), and what is left to close.
async fn run_once(
    parts: &Parts,
    (teller, fallback): (&mut Teller, &mut Fallback),
    cancel: &CancellationToken,
) -> (Option<Ended>, Option<Connection>) {
    match cancel.run_until_cancelled(resolve(&parts.settings.url)).await {
        Some(Ok(())) => {}
        Some(Err(failure)) => return (Some(Ended { failure, good: Duration::ZERO }), None),
        None => return (None, None),
    }
    let (decoder, opened) = open(parts, (teller, fallback)).await;
    teller.decoder(&parts.settings.decode, &decoder, fallback.in_force(parts.clock.now()).map(ToString::to_string));
    match opened {
        Ok(Ok(connection)) => {
            let mut open = Open(None);
            let connection = open.0.insert(connection);
            let mut ended = follow(connection, parts, teller, cancel).await;
            if let (Some(ended), Decoder::Cuda(_)) = (&mut ended, &decoder) {
                note_refusal(ended, &decoder, (fallback, parts));
            }
            (ended, open.0.take())
        }
        Ok(Err(failure)) => (Some(Ended { failure, good: Duration::ZERO }), None),
        Err(error) if error.is_panic() => {
            tracing::error!(camera = %parts.settings.camera, %error, "opening a connection panicked");
            let failure = Failure::new(OfflineReason::Other, "opening a connection failed inside doorward; its log says where");
            (Some(Ended { failure, good: Duration::ZERO }), None)
        }
        // The runtime is shutting down.
        Err(_) => (None, None),
    }
}

/// Chooses a decoder and opens a connection, and tells where that takes long: both load libraries and read files.
async fn open(
    parts: &Parts,
    (teller, fallback): (&mut Teller, &mut Fallback),
) -> (Decoder, Result<Result<Connection, Failure>, JoinError>) {
    let opening = async {
        let decoder = choose(parts, fallback).await;
        let (parts, chosen) = (parts.clone(), decoder.clone());
        (decoder, tokio::task::spawn_blocking(move || Connection::open(&parts, &chosen)).await)
    };
    let mut opening = std::pin::pin!(opening);
    if let Ok(opened) = tokio::time::timeout(OPENING_LONG, &mut opening).await {
        return opened;
    }
    let (message, logged) = (OPENS_LONG.to_owned(), teller.logged);
    teller.tell(CameraState::Offline { reason: OfflineReason::Other, message, next_attempt_time: None });
    let opened = opening.await;
    // What comes of it is news, unless it is what came of the attempts before.
    teller.logged = logged;
    teller.tell(CameraState::Connecting);
    opened
}

/// The decoder of the next connection: the device's, unless it refused this camera lately or something is missing, which
/// is noted as a refusal.
async fn choose(parts: &Parts, fallback: &mut Fallback) -> Decoder {
    let (decode, now) = (parts.settings.decode.clone(), parts.clock.now());
    if decode.ordinal().is_none() || fallback.in_force(now).is_some() {
        return Decoder::Cpu;
    }
    // The first to ask loads libraries.
    match tokio::task::spawn_blocking(move || decode.shared()).await {
        Ok(Some(Ok(shared))) => Decoder::Cuda(shared),
        Ok(None) => Decoder::Cpu,
        Ok(Some(Err(reason))) => {
            fallback.refused(reason, now);
            Decoder::Cpu
        }
        Err(error) => {
            fallback.refused(format!("the device's decoder could not be looked for: {error}"), now);
            Decoder::Cpu
        }
    }
}

/// Takes note where a connection ended because the device did not decode it, and says so in the camera's state.
fn note_refusal(ended: &mut Ended, decoder: &Decoder, (fallback, parts): (&mut Fallback, &Parts)) {
    fallback.decoded(ended.good);
    if ended.failure.is_of_decoder {
        // It goes into the log by itself, too.
        let said = ended.failure.clone().scrubbed(parts.settings.credential.as_ref()).message;
        let refusal = fallback.refused(format!("the decoder of {decoder} refuses: {said}"), parts.clock.now());
        ended.failure = Failure::new(OfflineReason::Undecodable, format!("from now on {refusal}"));
    }
}

/// Asks for the camera's address before rtspsrc does, which cannot tell an unknown name from an
/// absent camera.
async fn resolve(url: &Url) -> Result<(), Failure> {
    let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
    let unknown = |why: &str| Failure::new(OfflineReason::HostUnknown, format!("the host name {name} has no address: {why}"));
    match tokio::time::timeout(SILENCE_MAX, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(unknown(&error.to_string())),
        Err(_) => Err(unknown("no answer for 5 s")),
    }
}

/// Waits for the connection's end, telling how it does meanwhile.
async fn follow(connection: &mut Connection, parts: &Parts, teller: &mut Teller, cancel: &CancellationToken) -> Option<Ended> {
    let watchdog = Watchdog::begun_at(parts.clock.now());
    let mut first_frame = None;
    let mut is_online = false;
    loop {
        let now = parts.clock.now();
        let observations = connection.observations();
        let (verdict, wait) = watchdog.judge(&observations.seen, now);
        teller.states.works(&teller.camera, now.plus(wait));
        match verdict {
            Verdict::Alive if !is_online => {
                is_online = true;
                first_frame.get_or_insert(now);
                teller.tell(CameraState::Online { since: now, decoding: teller.decoding.clone() });
            }
            Verdict::Stalled { since } if is_online => {
                is_online = false;
                teller.tell(CameraState::Stalled { since });
            }
            Verdict::Dead(death) => {
                let failure = Failure::from_death(death, observations.progress).with_refusal(connection.refusal());
                return Some(ended(failure, first_frame, connection));
            }
            _ => {}
        }
        tokio::select! {
            biased;
            () = cancel.cancelled() => return None,
            signal = connection.signal() => match signal {
                Signal::FirstFrame => {}
                Signal::Failed(failure) => return Some(ended(failure, first_frame, connection)),
            },
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn ended(failure: Failure, first_frame: Option<Timestamp>, connection: &Connection) -> Ended {
    let last_frame = connection.observations().seen.frame;
    let good = first_frame.zip(last_frame).map_or(Duration::ZERO, |(first, last)| last.since(first));
    Ended { failure: failure.with_warning(connection.warning()), good }
}

/// Tells the camera's states, and logs each change once: a camera that stays away for a night
/// makes one line, not ten thousand.
struct Teller {
    camera: CameraId,
    states: Arc<dyn StateSink>,
    logged: Option<Logged>,
    /// What decodes the connection, and whether the log has it.
    decoding: Decoding,
    is_decoding_logged: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Logged {
    Online,
    Stalled,
    Offline(OfflineReason),
}

impl Teller {
    /// Takes note of what decodes a connection; it is told once that gives frames.
    fn decoder(&mut self, decode: &Decode, decoder: &Decoder, refusal: Option<String>) {
        self.is_decoding_logged = false;
        self.decoding = match (decode.ordinal(), refusal) {
            (None, _) => Decoding::OnCpu,
            (Some(_), None) => Decoding::OnDevice(decoder.to_string()),
            (Some(_), Some(refusal)) => Decoding::InPlaceOfDevice(refusal),
        };
    }

    fn log_decoding(&mut self) {
        if std::mem::replace(&mut self.is_decoding_logged, true) {
            return;
        }
        let camera = &self.camera;
        match &self.decoding {
            Decoding::OnCpu => {}
            Decoding::OnDevice(decoder) => tracing::info!(%camera, decoder, "the camera is decoded on the device"),
            Decoding::InPlaceOfDevice(refusal) => tracing::warn!(%camera, "the camera is {refusal}"),
        }
    }

    fn tell(&mut self, state: CameraState) {
        let camera = &self.camera;
        let now = match &state {
            CameraState::Connecting => None,
            CameraState::Online { .. } => Some(Logged::Online),
            CameraState::Stalled { .. } => Some(Logged::Stalled),
            CameraState::Offline { reason, .. } => Some(Logged::Offline(*reason)),
        };
        if now.is_some() && now != self.logged {
            match &state {
                CameraState::Offline { reason, message, .. } => tracing::warn!(%camera, ?reason, "camera offline: {message}"),
                CameraState::Stalled { .. } => tracing::warn!(%camera, "camera stalled: no frame for a while"),
                _ => tracing::info!(%camera, "camera online"),
            }
            self.logged = now;
        }
        let is_online = matches!(state, CameraState::Online { .. });
        self.states.state(camera, state);
        if is_online {
            self.log_decoding();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::PathBuf;
    use std::sync::Mutex;

    use super::*;
    use crate::camera::Transport;
    use crate::clock::SimulatedClock;
    use crate::frame::Frame;
    use crate::ingest::{FrameSink, SourceSettings};

    /// Keeps what it is told; may panic at the first state, and end the watching at the one of a number.
    #[derive(Default)]
    struct Faulty {
        told: Mutex<Vec<CameraState>>,
        panics_first: bool,
        ends_at: usize,
        cancel: CancellationToken,
    }

    impl StateSink for Faulty {
        fn state(&self, _: &CameraId, state: CameraState) {
            let count = {
                let mut told = self.told.lock().expect("no panic while it is held");
                told.push(state);
                told.len()
            };
            assert!(count > 1 || !self.panics_first, "on purpose");
            if count == self.ends_at {
                self.cancel.cancel();
            }
        }
    }

    fn parts(sink: &Arc<Faulty>, ca_file: Option<PathBuf>) -> Parts {
        let settings = SourceSettings {
            camera: CameraId::parse("door").expect("a good id"),
            url: "rtsp://127.0.0.1/door".parse().expect("a good URL"),
            credential: None,
            transport: Transport::Tcp,
            ca_file,
            decode: Decode::on_cpu(),
        };
        let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000)));
        Parts { settings, frames: sink.clone(), clock, capture: Arc::default() }
    }

    impl FrameSink for Faulty {
        fn offer(&self, _: Frame) {}

        fn refused(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_camera_whose_supervisor_panics_is_told_to_be_offline_and_watched_anew() {
        let faulty = Arc::new(Faulty { panics_first: true, ends_at: 3, ..Faulty::default() });
        let parts = parts(&faulty, None);
        let now = parts.clock.now();
        run(parts, faulty.clone(), faulty.cancel.clone()).await;
        let told = faulty.told.lock().expect("no panic while it is held");
        let [CameraState::Connecting, CameraState::Offline { reason, message, next_attempt_time: Some(next) }, CameraState::Connecting] =
            &told[..]
        else {
            panic!("{told:?}")
        };
        assert_eq!((*reason, message.as_str()), (OfflineReason::Other, PANICKED));
        let wait = next.since(now);
        assert!(!wait.is_zero() && wait <= Duration::from_millis(500), "the first wait is half a second at the most: {wait:?}");
    }

    /// Whoever reads this file waits until it is dropped, and finds nothing in it.
    struct Fifo(PathBuf);

    impl Drop for Fifo {
        fn drop(&mut self) {
            // The reader may not be there yet; should it never come, nobody is to wait for it for ever.
            let patience = std::time::Instant::now();
            let open = || std::fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&self.0);
            while open().is_err() && patience.elapsed() < Duration::from_secs(30) {
                std::thread::yield_now();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_takes_long_to_open_is_told_before_it_is_open() {
        crate::ingest::init().expect("GStreamer is there");
        let directory = tempfile::tempdir().expect("a directory");
        let fifo = Fifo(directory.path().join("ca.pem"));
        assert!(std::process::Command::new("mkfifo").arg(&fifo.0).status().expect("it starts").success());
        let slow = Arc::new(Faulty { ends_at: 4, ..Faulty::default() });
        let watching = tokio::spawn(keep_connected(parts(&slow, Some(fifo.0.clone())), slow.clone(), slow.cancel.clone()));
        let count = || slow.told.lock().expect("no panic while it is held").len();
        let until = async |wanted| {
            let patience = std::time::Instant::now();
            while count() < wanted {
                assert!(patience.elapsed() < Duration::from_secs(30), "{wanted} states are never told");
                tokio::task::yield_now().await;
            }
        };
        until(1).await;
        tokio::time::advance(OPENING_LONG - Duration::from_millis(1)).await;
        assert_eq!(count(), 1, "so long it may take");
        tokio::time::advance(Duration::from_millis(2)).await;
        until(2).await;
        drop(fifo);
        watching.await.expect("no panic");
        let told = slow.told.lock().expect("no panic while it is held");
        let [
            CameraState::Connecting,
            CameraState::Offline { message: long, .. },
            CameraState::Connecting,
            CameraState::Offline { message: bad, .. },
        ] = &told[..]
        else {
            panic!("{told:?}")
        };
        assert!(long == OPENS_LONG && bad.contains("must hold certificates"), "{long}, {bad}");
    }
}
