//! Opens the engine on the device that the configuration names, and remembers a GPU that failed in use.
//!
//! In: the configuration, what earlier starts wrote down. Out: the engine, and the device that it runs on.
//! Where `auto` took a GPU that opens and then fails, each start would take it again: so failures are kept in `data_dir`, and after
//! [`FAILURES_MAX`] within [`REMEMBERED`] the CPU analyses, until an hour has passed. A GPU that hangs, or takes the process with
//! it, tells nobody: that it was in use, and no orderly end came, is a failure, too.
//! Must not know: sessions, what is analysed.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::device::{self, Device, ResolvedDevice};
use crate::infer::Engine;

/// What a start reads of those before it.
const FILE: &str = "gpu-failures.json";
/// There while a GPU that `auto` took is in use; holds its name.
const IN_USE_FILE: &str = "gpu-in-use";
/// How long a failure counts.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// So many failures make the CPU analyse: the first may be mended by the restart itself, which gives the GPU a new context.
const FAILURES_MAX: usize = 2;

/// A GPU that ended an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Failure {
    at_micros: i64,
    device: String,
    reason: String,
}

/// Says in `data_dir` that a GPU is in use, until it is dropped, which a process that is killed or crashes does not come to.
#[derive(Debug)]
pub(super) struct InUse(PathBuf);

impl InUse {
    fn mark(data_dir: &Path, device: Device) -> Option<Self> {
        let path = data_dir.join(IN_USE_FILE);
        if let Err(error) = std::fs::write(&path, device.to_string()) {
            tracing::error!(%error, "it cannot be noted in data_dir that the GPU is in use: where it hangs or crashes, the next start takes it again");
            return None;
        }
        Some(Self(path))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::warn!(file = %self.0.display(), %error, "the next start will count this end as a failure of the GPU; remove the file");
        }
    }
}

/// What inference runs on.
pub(super) struct Opened {
    pub(super) engine: Engine,
    /// The device that the engine runs on.
    pub(super) device: ResolvedDevice,
    /// Whether it is another one than was found to be there.
    pub(super) is_replaced: bool,
    /// Held while it is a GPU.
    pub(super) in_use: Option<InUse>,
}

/// Opens the engine, on the device that is there or on the CPU in its place.
///
/// # Errors
/// What keeps it from opening.
pub(super) async fn open(config: &Config, now: Timestamp) -> anyhow::Result<Opened> {
    let found = device::resolve(&config.infer.device)?;
    let wanted = found.device;
    let mut device = admitted(found, &config.data_dir, now);
    // Before it is opened: that, too, may hang or crash.
    let mut in_use = may_be_replaced(&device).then(|| InUse::mark(&config.data_dir, device.device)).flatten();
    let (infer, models_dir, on) = (config.infer.clone(), config.models_dir.clone(), device.clone());
    // Models take seconds to load, a TensorRT engine minutes: not where the runtime's other tasks wait.
    let engine = tokio::task::spawn_blocking(move || Engine::open(&infer, &models_dir, &on)).await??;
    let facts = engine.facts();
    device = device.as_used(&facts.device, &facts.device_reason);
    if device.device == Device::Cpu {
        in_use = None;
    }
    Ok(Opened { engine, is_replaced: device.device != wanted, device, in_use })
}

fn may_be_replaced(device: &ResolvedDevice) -> bool {
    device.may_fall_back && device.device != Device::Cpu
}

/// The device that was found, or the CPU where it is a GPU that failed too often of late.
fn admitted(device: ResolvedDevice, data_dir: &Path, now: Timestamp) -> ResolvedDevice {
    let unfinished = unfinished(&data_dir.join(IN_USE_FILE));
    if !may_be_replaced(&device) {
        return device;
    }
    let path = data_dir.join(FILE);
    if let Some(device) = unfinished {
        let reason = "the daemon was killed or crashed, or the machine stopped, while the GPU was in use".to_owned();
        tracing::warn!(device, "{reason}, which counts as a failure of the GPU");
        keep(&path, Failure { at_micros: now.as_micros(), device, reason });
    }
    let failures = remembered(&path, (&device.device.to_string(), now));
    let Some(why) = left_alone(&failures) else { return device };
    tracing::error!(
        device = %device.device, why, file = %path.display(),
        "the GPU failed at its work within the last hour: the CPU analyses in its place, more slowly; a start after that hour, or after the file was removed, takes the GPU again"
    );
    device.fallen_back(why)
}

/// Which GPU an earlier process had in use when it ended without a word. It is told once.
fn unfinished(path: &Path) -> Option<String> {
    let device = match std::fs::read_to_string(path) {
        Ok(device) => device,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "it cannot be read, so whether a GPU ended the daemon before is not known");
            return None;
        }
    };
    if let Err(error) = std::fs::remove_file(path) {
        tracing::warn!(file = %path.display(), %error, "it cannot be removed, and would be counted at each start: it is left uncounted");
        return None;
    }
    Some(device)
}

/// Waits until the engine ends by itself, and tells why; a GPU that may be replaced by the CPU is remembered for the next start. When
/// the daemon is told to stop, the GPU is no longer in use.
pub(super) async fn watch(
    failed: impl Future<Output = String>,
    (device, data_dir): (ResolvedDevice, PathBuf),
    (clock, stop): (Arc<dyn Clock>, CancellationToken),
    in_use: Option<InUse>,
) -> Result<(), String> {
    let reason = tokio::select! {
        reason = failed => reason,
        () = stop.cancelled() => return Ok(()),
    };
    if may_be_replaced(&device) {
        let failure = Failure { at_micros: clock.now().as_micros(), device: device.device.to_string(), reason: reason.clone() };
        keep(&data_dir.join(FILE), failure);
    }
    // It is counted once.
    drop(in_use);
    Err(reason)
}

fn keep(path: &Path, failure: Failure) {
    if let Err(error) = remember(path, failure) {
        tracing::error!(%error, "the failure of the GPU cannot be kept in data_dir, and the next start takes the GPU again");
    }
}

/// Why a device with these failures is left alone; `None` where it is not.
fn left_alone(failures: &[Failure]) -> Option<String> {
    let last = failures.last().filter(|_| failures.len() >= FAILURES_MAX)?;
    Some(format!("it failed {} times within an hour, last with: {}", failures.len(), last.reason))
}

/// The failures of a device that still count, the last one last. A file that cannot be read counts as none: it is no reason not to
/// start.
fn remembered(path: &Path, (device, now): (&str, Timestamp)) -> Vec<Failure> {
    let counts = |failure: &Failure| {
        let at = Timestamp::from_micros(failure.at_micros);
        failure.device == device && at <= now && now.since(at) < REMEMBERED
    };
    match kept(path) {
        Ok(failures) => failures.into_iter().filter(counts).collect(),
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "what is known of the GPU's failures cannot be read; remove the file");
            Vec::new()
        }
    }
}

fn kept(path: &Path) -> std::io::Result<Vec<Failure>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Adds a failure; of each device only the last few are kept. The file is whole at any moment.
fn remember(path: &Path, failure: Failure) -> std::io::Result<()> {
    let (mut own, mut failures): (Vec<_>, Vec<_>) =
        kept(path).unwrap_or_default().into_iter().partition(|kept| kept.device == failure.device);
    own.push(failure);
    failures.extend(own.split_off(own.len().saturating_sub(FAILURES_MAX)));
    let beside = path.with_extension("json.new");
    std::fs::write(&beside, serde_json::to_vec_pretty(&failures)?)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SimulatedClock;

    fn gpu(may_fall_back: bool) -> ResolvedDevice {
        ResolvedDevice { device: Device::Cuda(0), may_fall_back, ..ResolvedDevice::cpu("a test") }
    }

    #[tokio::test]
    async fn a_gpu_that_failed_twice_within_an_hour_is_left_for_that_hour() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000_000)));
        let fails = |device: ResolvedDevice, words: &'static str| {
            let dyn_clock: Arc<dyn Clock> = clock.clone();
            watch(std::future::ready(words.to_owned()), (device, folder.path().into()), (dyn_clock, CancellationToken::new()), None)
        };
        let counted = || remembered(&path, ("cuda:0", clock.now())).into_iter().map(|failure| failure.reason).collect::<Vec<_>>();
        assert!(counted().is_empty());
        assert_eq!(fails(gpu(true), "first").await, Err("first".into()));
        assert_eq!(counted(), ["first"], "one failure may be mended by the restart");
        let left = || left_alone(&remembered(&path, ("cuda:0", clock.now())));
        assert_eq!(left(), None);
        clock.advance(Duration::from_secs(600));
        assert_eq!(fails(gpu(true), "second").await, Err("second".into()));
        assert_eq!(counted(), ["first", "second"]);
        assert_eq!(left().as_deref(), Some("it failed 2 times within an hour, last with: second"));
        assert!(remembered(&path, ("cuda:1", clock.now())).is_empty(), "another GPU is another");
        for _ in 0..3 {
            assert!(fails(ResolvedDevice { device: Device::Cuda(1), ..gpu(true) }, "elsewhere").await.is_err());
        }
        assert_eq!(counted(), ["first", "second"], "another GPU's failures take nothing away");
        clock.advance(REMEMBERED - Duration::from_secs(600));
        assert_eq!(counted(), ["second"], "an hour after the first");
        assert_eq!(left(), None);
        assert_eq!(fails(gpu(true), "third").await, Err("third".into()));
        assert_eq!(counted(), ["second", "third"]);
        std::fs::write(&path, "no JSON").expect("it is written");
        assert!(counted().is_empty(), "a file that cannot be read keeps nobody from starting");
    }

    #[tokio::test]
    async fn what_is_never_replaced_is_not_remembered_and_a_stop_is_no_failure() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::at(Timestamp::from_micros(1)));
        let of = |device| (device, folder.path().to_path_buf());
        let failed = || std::future::ready("it failed".to_owned());
        for device in [gpu(false), ResolvedDevice::cpu("a test")] {
            assert!(watch(failed(), of(device), (clock.clone(), CancellationToken::new()), None).await.is_err());
        }
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(watch(std::future::pending(), of(gpu(true)), (clock, stop), None).await, Ok(()));
        assert!(!folder.path().join(FILE).exists());
    }

    #[tokio::test]
    async fn a_gpu_that_was_in_use_when_the_process_was_killed_failed_and_one_that_was_let_go_did_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000_000)));
        let start = |device| admitted(device, folder.path(), clock.now());
        let mark = || InUse::mark(folder.path(), Device::Cuda(0)).expect("it can be written");
        let stop = CancellationToken::new();
        stop.cancel();
        for _ in 0..3 {
            assert_eq!(start(gpu(true)), gpu(true));
            let (of, dyn_clock): (_, Arc<dyn Clock>) = ((gpu(true), folder.path().to_path_buf()), clock.clone());
            assert_eq!(watch(std::future::pending(), of, (dyn_clock, stop.clone()), Some(mark())).await, Ok(()), "it is told to stop");
        }
        // A process that is killed drops nothing.
        let killed = || std::mem::forget(mark());
        killed();
        assert_eq!(start(gpu(true)), gpu(true), "somebody may have killed it, or the power may have gone");
        assert_eq!(start(gpu(true)), gpu(true), "it is counted once");
        clock.advance(Duration::from_secs(3000));
        killed();
        let left = start(gpu(true));
        assert!(left.device == Device::Cpu && left.reason.contains("killed or crashed"), "{left:?}");
        clock.advance(Duration::from_secs(600));
        assert_eq!(start(gpu(true)), gpu(true), "an hour after the first");
        killed();
        assert_eq!(start(gpu(false)), gpu(false), "what was asked for by its number is taken");
        assert_eq!(start(gpu(true)), gpu(true), "and what came before that is not counted any more");
    }

    #[tokio::test]
    async fn a_failure_that_the_engine_told_is_counted_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let clock: Arc<dyn Clock> = Arc::new(SimulatedClock::at(Timestamp::from_micros(1_000_000_000)));
        let in_use = InUse::mark(folder.path(), Device::Cuda(0));
        let (of, failed) = ((gpu(true), folder.path().to_path_buf()), std::future::ready("it failed".to_owned()));
        assert!(watch(failed, of, (clock.clone(), CancellationToken::new()), in_use).await.is_err());
        assert_eq!(admitted(gpu(true), folder.path(), clock.now()), gpu(true));
        assert_eq!(remembered(&folder.path().join(FILE), ("cuda:0", clock.now())).len(), 1);
    }
}
