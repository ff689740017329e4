//! Takes frames from cameras and from files. GStreamer is named in this folder alone.
//!
//! In: where a camera or a file is. Out: [`Frame`]s to a [`FrameSink`], states to a [`StateSink`].
//! Frames of a camera: offered at once and never waited for, so the newest counts. Frames of a
//! file: each exactly once, in order. What cannot be used is counted by its cause at the sink.
//! Must not know: what frames are good for, batches, tensors, the store, the wire.
//!
//! Nothing here assumes that network, parsing and decoding share a process with the rest: frames
//! leave through one trait, which a sandboxed worker could stand behind.

mod backoff;
mod capture_time;
mod codec;
mod cuda;
mod decoding;
mod failure;
mod fallback;
mod handover;
mod keyframe;
mod lateness;
mod losses;
mod numbers;
mod pictures;
mod plugins;
mod registry;
mod replay;
mod rtp;
mod rtsp;
mod supervise;
mod watchdog;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use url::Url;

use crate::camera::{CameraId, CameraState, Credential, Skipped, Transport};
use crate::clock::{Clock, SimulatedClock, Timestamp};
use crate::frame::Frame;

pub use cuda::Decode;
pub use plugins::{Nvcodec, PluginFact, cuda_plugins, mend_of_decoding, nvcodec, plugins};
pub use registry::registry_file;

/// Takes what a source decoded. Called from GStreamer's threads for cameras, from the caller's for files.
pub trait FrameSink: Send + Sync {
    /// Takes a frame: a live sink never waits (an older frame is replaced), a replay sink waits until there is room.
    fn offer(&self, frame: Frame);

    /// A frame could not be used: its caps lie, or its format is neither I420 nor NV12.
    fn refused(&self);

    /// A picture was not decoded.
    fn skipped(&self, _why: Skipped) {}
}

/// Learns how a camera is doing.
pub trait StateSink: Send + Sync {
    /// The camera's new state. Must not wait.
    fn state(&self, camera: &CameraId, state: CameraState);

    /// Its supervisor works, and says so again by `next`, or tells a state. Must not wait.
    fn works(&self, _camera: &CameraId, _next: Timestamp) {}
}

/// Where a camera's frames and states go.
#[derive(Clone)]
pub struct Sinks {
    /// Takes its frames.
    pub frames: Arc<dyn FrameSink>,
    /// Learns how it is doing.
    pub states: Arc<dyn StateSink>,
}

/// What one camera's supervisor needs to know.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Which camera.
    pub camera: CameraId,
    /// `rtsp://` or `rtsps://`, without credentials.
    pub url: Url,
    /// User name and password, where the camera wants them.
    pub credential: Option<Credential>,
    /// How RTP is carried.
    pub transport: Transport,
    /// Certificates that an `rtsps` camera is trusted by, PEM; `None` trusts the system's.
    pub ca_file: Option<PathBuf>,
    /// Where its pictures are decoded, and by that where its frames' pixels are.
    pub decode: Decode,
}

/// Ingest could not begin, or a file could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// GStreamer or some of its elements are missing: install what the text names.
    #[error("{0}")]
    Unavailable(String),
    /// The file is not there, is no video, or is damaged; the text names it.
    #[error("{0}")]
    Replay(String),
}

/// Starts GStreamer and checks that every element that is used is there. Calling it again is free.
///
/// # Errors
/// [`IngestError::Unavailable`] names each missing element, its Debian package and the command.
pub fn init() -> Result<(), IngestError> {
    plugins::init()
}

/// Checks that cameras can be trusted by the certificates in `file`.
///
/// # Errors
/// [`IngestError::Unavailable`] names the file and what is wrong with it.
pub fn check_ca_file(file: &Path) -> Result<(), IngestError> {
    rtsp::trusted_by(file).map(drop).map_err(|failure| IngestError::Unavailable(failure.message))
}

/// Watches one camera until cancelled: connects, hands over frames, and connects again, for ever.
///
/// Tells [`CameraState::Connecting`] at each attempt (and again once one that took long has opened), `Online` at its first decoded frame,
/// `Stalled` after 2 s without one, and `Offline` with the reason when it ended: at the end of the
/// stream, at an error, at fifty pictures in a row that cannot be used, or after 5 s without a decoded frame (before the first
/// keyframe: 5 s without a packet, or 60 s in all); also while it takes over a minute to open. The next attempt begins 0.5 s later at first and 4 s later at
/// last. Being cancelled is told by nobody: who cancels knows why. When the future is done, no
/// frame follows. A panic is told as `Offline`, too, and the camera is watched anew.
///
/// Where a device is to decode and something that it needs is missing, the processor decodes. Where the device refuses the
/// stream, the connection ends, its state says so, and the next ones are decoded by the processor, for ten minutes at first
/// and a day at last. One line in the log says for each connection what decodes it and why.
pub async fn watch(settings: SourceSettings, sinks: Sinks, clock: Arc<dyn Clock>, cancel: CancellationToken) {
    let capture = Arc::default();
    let Sinks { frames, states } = sinks;
    supervise::run(rtsp::Parts { settings, frames, clock, capture }, states, cancel).await;
}

/// Decodes a file at full speed, each frame once, in order, offering each to `frames`, which may
/// wait. A frame's time is its presentation time from the clock's present on; the clock is
/// advanced to it before the frame is offered. Blocks; gives the number of frames offered.
///
/// # Errors
/// [`IngestError::Replay`] when the file cannot be read or holds no H.264 or H.265 that can be decoded.
pub fn replay(file: &Path, camera: &CameraId, frames: &dyn FrameSink, clock: &SimulatedClock) -> Result<u64, IngestError> {
    replay::replay(file, camera, frames, clock)
}

/// Decodes a file by the same chain as [`replay()`] and drops each frame: what decoding alone
/// costs. Blocks; gives the number of frames.
///
/// # Errors
/// As [`replay()`].
pub fn decode_only(file: &Path) -> Result<u64, IngestError> {
    replay::decode_only(file)
}
