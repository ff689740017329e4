//! Opens the engine on the device that the configuration names, and remembers a GPU that failed in use.
//!
//! In: the configuration, what earlier starts wrote down. Out: the engine, and the device that it runs on.
//! Where `auto` took a GPU that opens and then fails, each start would take it again: so failures are kept in `data_dir`, and after
//! [`FAILURES_MAX`] within [`REMEMBERED`] the CPU analyses, until an hour has passed.
//! Must not know: sessions, what is analysed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::config::{Config, DeviceChoice};
use crate::device::{self, Device, ResolvedDevice};
use crate::infer::Engine;

/// What a start reads of those before it.
const FILE: &str = "gpu-failures.json";
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

/// The engine and the device that it runs on, which need not be the one that was found.
///
/// # Errors
/// What keeps it from opening.
pub(super) async fn open(config: &Config, now: Timestamp) -> anyhow::Result<(Engine, ResolvedDevice)> {
    let mut device = device::resolve(&config.infer.device)?;
    if config.infer.device == DeviceChoice::Auto && device.device != Device::Cpu {
        let path = config.data_dir.join(FILE);
        let failures = remembered(&path, (&device.device.to_string(), now));
        if let Some(why) = left_alone(&failures) {
            tracing::error!(
                device = %device.device, why, file = %path.display(),
                "the GPU failed at its work within the last hour: the CPU analyses in its place, more slowly; a start after that hour, or after the file was removed, takes the GPU again"
            );
            device = device.fallen_back(why);
        }
    }
    let (infer, models_dir, wanted) = (config.infer.clone(), config.models_dir.clone(), device.clone());
    // Models take seconds to load, a TensorRT engine minutes: not where the runtime's other tasks wait.
    let engine = tokio::task::spawn_blocking(move || Engine::open(&infer, &models_dir, &wanted)).await??;
    let facts = engine.facts();
    if facts.device != device.device.to_string() {
        device = ResolvedDevice::cpu(facts.device_reason.clone());
    }
    Ok((engine, device))
}

/// Waits until the engine ends by itself, and tells why; a GPU that may be replaced by the CPU is remembered for the next start.
pub(super) async fn watch(
    failed: impl Future<Output = String>,
    (device, data_dir): (ResolvedDevice, PathBuf),
    (clock, stop): (Arc<dyn Clock>, CancellationToken),
) -> Result<(), String> {
    let reason = tokio::select! {
        reason = failed => reason,
        () = stop.cancelled() => return Ok(()),
    };
    if device.may_fall_back && device.device != Device::Cpu {
        let failure = Failure { at_micros: clock.now().as_micros(), device: device.device.to_string(), reason: reason.clone() };
        if let Err(error) = remember(&data_dir.join(FILE), failure) {
            tracing::error!(%error, "the failure of the GPU cannot be kept in data_dir, and the next start takes the GPU again");
        }
    }
    Err(reason)
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
            watch(std::future::ready(words.to_owned()), (device, folder.path().into()), (dyn_clock, CancellationToken::new()))
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
            assert!(watch(failed(), of(device), (clock.clone(), CancellationToken::new())).await.is_err());
        }
        let stop = CancellationToken::new();
        stop.cancel();
        assert_eq!(watch(std::future::pending(), of(gpu(true)), (clock, stop)).await, Ok(()));
        assert!(!folder.path().join(FILE).exists());
    }
}
