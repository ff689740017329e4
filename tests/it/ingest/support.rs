//! What the ingest tests stand on: clips whose frames carry their number, a test camera in a
//! process of its own, and a recorder of frames and states.
//!
//! In: nothing. Out: helpers for the tests beside it.
//! Must not know: what is asserted.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use clap::Parser;
use doorward::camera::{CameraId, CameraState, Credential, OfflineReason, Secret, Skipped, Transport};
use doorward::clock::{Clock, SystemClock, Timestamp};
use doorward::frame::{Frame, Size};
use doorward::ingest::{self, Decode, FrameSink, Sinks, SourceSettings, StateSink};
use image::{Rgb, RgbImage};
use tokio_util::sync::CancellationToken;

use crate::clip::{ClipSettings, encode, encode_by};
use crate::rtsp_server::{TestCamera, serve};

/// Frames of the first clip.
pub const FRAMES: u32 = 50;
pub const FPS: u32 = 25;
/// Where the child process finds its arguments, one a line.
const ARGUMENTS: &str = "DOORWARD_TEST_CAMERA";
const BITS: u32 = 16;

/// A picture that carries `number` as a row of black and white blocks, over a background that moves.
fn picture(number: u32, (width, height): (u32, u32)) -> RgbImage {
    let block = width / BITS;
    RgbImage::from_fn(width, height, |x, y| {
        if y < block {
            let is_set = number >> (x / block).min(BITS - 1) & 1 == 1;
            return Rgb([if is_set { 235 } else { 16 }; 3]);
        }
        let wave = |v: u32| ((v * 3 + number * 5) % 160 + 40) as u8;
        Rgb([wave(x), wave(y), wave(x + y)])
    })
}

/// The number that a decoded picture carries.
pub fn number_of(frame: &Frame) -> u32 {
    let block = frame.size().width as usize / BITS as usize;
    let luma = frame.plane(0);
    let row = frame.format().planes[0].stride * (block / 2);
    (0..BITS).filter(|&bit| luma[row + bit as usize * block + block / 2] > 128).map(|bit| 1 << bit).sum()
}

/// A clip of `size` whose frames carry the numbers from `first` on, made once for all tests.
pub fn clip(settings: ClipSettings, numbers: std::ops::Range<u32>) -> PathBuf {
    static LOCK: Mutex<()> = Mutex::new(());
    let _one_at_a_time = LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let ClipSettings { size: (width, height), fps, is_h265 } = settings;
    let codec = if is_h265 { "h265" } else { "h264" };
    let name = format!("clip-{width}x{height}-{fps}-{codec}-{}-{}.mp4", numbers.start, numbers.end);
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !file.exists() {
        // Written aside and then moved, so that a test run that is cut short leaves no half clip.
        let partial = file.with_extension(format!("{}.partial", std::process::id()));
        encode(&partial, settings, numbers.map(|number| picture(number, settings.size))).expect("the clip is encoded");
        std::fs::rename(&partial, &file).expect("the clip is kept");
    }
    file
}

/// The small clip with one keyframe, its first picture: then a column of intra blocks rolls over the pictures once a second, and
/// each round begins with a recovery point.
pub fn refreshed_clip(folder: &std::path::Path) -> PathBuf {
    let encoder = format!("x264enc threads=1 tune=zerolatency intra-refresh=true key-int-max={FPS} pass=quant quantizer=20 ! h264parse");
    let file = folder.join("refreshed.mp4");
    encode_by(&encoder, &file, SMALL, (0..FRAMES).map(|number| picture(number, SMALL.size))).expect("the clip is encoded");
    file
}

pub const SMALL: ClipSettings = ClipSettings { size: (320, 240), fps: FPS, is_h265: false };

/// The clip that most tests play: two seconds.
pub fn small_clip() -> PathBuf {
    clip(SMALL, 0..FRAMES)
}

/// Not a test of its own: the process that plays the camera in the others, which can then be
/// frozen or killed.
#[test]
#[ignore = "plays the camera for the other tests, which start it themselves"]
fn camera_process() {
    let Ok(arguments) = std::env::var(ARGUMENTS) else { return };
    // When the test has gone, so does its camera.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let camera = TestCamera::parse_from(std::iter::once("test-camera").chain(arguments.lines()));
    serve(&camera, |url| println!("{url}")).expect("the test camera serves");
}

/// A test camera in a process of its own. Ends with the value.
pub struct CameraProcess {
    child: Child,
    /// Kept open: after a minute the test harness of the process says how long it has been running, and ends where nobody listens.
    _output: BufReader<ChildStdout>,
    pub url: url::Url,
}

impl CameraProcess {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["ingest::support::camera_process", "--exact", "--ignored", "--nocapture"])
            .env(ARGUMENTS, arguments.join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the test camera starts");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let url = output
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| Some(line[line.find("rtsp")?..].to_owned()).filter(|url| url.contains("://")))
            .expect("the test camera prints its URL");
        Self { child, _output: output, url: url.parse().expect("a URL") }
    }

    /// A camera that plays the small clip.
    pub fn playing() -> Self {
        Self::start(&["--file", &small_clip().display().to_string()])
    }

    /// The same camera on the same port, after [`Self::kill`].
    pub fn again(&self) -> Self {
        let port = self.url.port().expect("a port").to_string();
        Self::start(&["--port", &port, "--file", &small_clip().display().to_string()])
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it has ended");
    }

    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(status.success(), "kill {signal}");
    }
}

impl Drop for CameraProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What was seen of one frame.
#[derive(Clone, Copy, Debug)]
pub struct SeenFrame {
    pub number: u32,
    pub sequence: u64,
    pub size: Size,
    pub capture_time: Timestamp,
    pub decode_time: Timestamp,
    pub camera_delay: Option<Duration>,
}

/// Everything that was seen of one camera.
#[derive(Default)]
pub struct Record {
    pub frames: Vec<SeenFrame>,
    pub states: Vec<CameraState>,
    pub refused: u32,
    pub late: u32,
    pub damaged: u32,
    /// Until when the supervisor said that it is heard of again.
    pub heard_by: Option<Timestamp>,
}

impl Record {
    pub fn offline(&self) -> Option<(OfflineReason, &str)> {
        self.states.iter().rev().find_map(|state| match state {
            CameraState::Offline { reason, message, .. } => Some((*reason, message.as_str())),
            _ => None,
        })
    }

    pub fn is_offline(&self) -> bool {
        matches!(self.states.last(), Some(CameraState::Offline { .. }))
    }

    pub fn is_online(&self) -> bool {
        matches!(self.states.last(), Some(CameraState::Online { .. }))
    }
}

/// Records and wakes who waits.
#[derive(Default)]
pub struct Recorder {
    record: Mutex<Record>,
    changed: Condvar,
    /// How long each frame holds up who offers it.
    slowness: Duration,
}

impl Recorder {
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().expect("no panic while recording")
    }

    /// Waits until `is_so`; gives how long that took, and fails after `limit`.
    pub fn wait(&self, what: &str, limit: Duration, is_so: impl Fn(&Record) -> bool) -> Duration {
        let begin = Instant::now();
        let (record, timeout) =
            self.changed.wait_timeout_while(self.record(), limit, |record| !is_so(record)).expect("no panic while recording");
        assert!(!timeout.timed_out(), "not within {limit:?}: {what}; {} frames, states {:?}", record.frames.len(), record.states);
        begin.elapsed()
    }

    fn change(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.record());
        self.changed.notify_all();
    }
}

impl FrameSink for Recorder {
    fn offer(&self, frame: Frame) {
        let Frame { sequence, capture_time, decode_time, camera_delay, .. } = frame;
        let seen = SeenFrame { number: number_of(&frame), sequence, size: frame.size(), capture_time, decode_time, camera_delay };
        self.change(|record| record.frames.push(seen));
        std::thread::sleep(self.slowness);
    }

    fn refused(&self) {
        self.change(|record| record.refused += 1);
    }

    fn skipped(&self, why: Skipped) {
        self.change(|record| match why {
            Skipped::Late => record.late += 1,
            Skipped::Damaged => record.damaged += 1,
        });
    }
}

impl StateSink for Recorder {
    fn state(&self, _: &CameraId, state: CameraState) {
        self.change(|record| record.states.push(state));
    }

    fn works(&self, _: &CameraId, next: Timestamp) {
        self.change(|record| record.heard_by = Some(next));
    }
}

/// A camera that is being watched. Dropping it ends the watching.
pub struct Watched {
    pub recorder: Arc<Recorder>,
    cancel: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
}

pub fn settings(url: &url::Url) -> SourceSettings {
    let camera = CameraId::parse("door").expect("a good id");
    SourceSettings { camera, url: url.clone(), credential: None, transport: Transport::Tcp, ca_file: None, decode: Decode::on_cpu() }
}

pub fn credential(username: &str, password: &str) -> Option<Credential> {
    Some(Credential { username: username.to_owned(), password: Secret::new(password) })
}

impl Watched {
    pub fn begin(settings: SourceSettings) -> Self {
        Self::begin_slow(settings, Duration::ZERO)
    }

    pub fn begin_slow(settings: SourceSettings, slowness: Duration) -> Self {
        Self::begin_by(settings, Arc::new(SystemClock::new()), slowness)
    }

    /// The same by a clock of the caller's.
    pub fn begin_by(settings: SourceSettings, clock: Arc<dyn Clock>, slowness: Duration) -> Self {
        ingest::init().expect("GStreamer and its plugins are installed");
        let recorder = Arc::new(Recorder { slowness, ..Recorder::default() });
        let sinks = Sinks { frames: recorder.clone(), states: recorder.clone() };
        let cancel = CancellationToken::new();
        let watch = ingest::watch(settings, sinks, clock, cancel.clone());
        Self { recorder, cancel, task: Some(runtime().spawn(watch)) }
    }

    /// Ends the watching and gives how long that took.
    pub fn end(mut self) -> Duration {
        let begin = Instant::now();
        self.cancel.cancel();
        let task = self.task.take().expect("it is watched");
        runtime().block_on(task).expect("watching ends without a panic");
        begin.elapsed()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// One runtime for all cameras, as in the daemon: one that blocks would be seen by the others.
fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime"))
}

/// Everything that the library logs in this process, of all tests.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Vec<u8>>>);

impl Logs {
    /// Begins to catch, once. For the whole process, since tracing's switch for one thread races
    /// with other threads' first use of a log line.
    pub fn of_this_process() -> &'static Self {
        static LOGS: OnceLock<Logs> = OnceLock::new();
        LOGS.get_or_init(|| {
            let logs = Self::default();
            let writer = logs.clone();
            let filter = tracing_subscriber::EnvFilter::new("doorward=trace");
            let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || writer.clone()).with_ansi(false);
            tracing::subscriber::set_global_default(subscriber.finish()).expect("no other test of this binary catches logs");
            logs
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic while logging")).into_owned()
    }
}

impl std::io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic while logging").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
