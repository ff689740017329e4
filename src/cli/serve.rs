//! `doorward serve`: runs the daemon.
//!
//! In: a configuration file, the environment, overrides. Out: the daemon, until it is told to stop.
//! Drops: nothing.
//! Must not know: any stage; `app` puts them together.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::failure::{Told, Usage, in_a_row};
use super::input::parse_pair;
use crate::config::Config;

/// Places that memory is taken from, side by side.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS_MAX: libc::c_int = 2;
/// How long a thread that outlived the daemon's own deadline is waited for.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs the daemon until SIGTERM or Ctrl-C
///
/// --set wins over the environment, and that over the file. A variable is DOORWARD_ and the key in
/// capitals, with __ between sections: DOORWARD_SERVER__LISTEN.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward serve --config /etc/doorward/doorward.toml
  doorward serve --set data_dir=/tmp/doorward --set models_dir=models --set log.filter=debug
  DOORWARD_SERVER__LISTEN=127.0.0.1:50052 doorward serve --config doorward.toml")]
pub struct Serve {
    #[command(flatten)]
    config: ConfigOptions,
}

/// Where the daemon's configuration comes from.
#[derive(Debug, Args)]
pub struct ConfigOptions {
    /// The configuration file; without one, every key has its default
    #[arg(long, value_name = "FILE", env = "DOORWARD_CONFIG")]
    config: Option<PathBuf>,
    /// A key of the configuration, such as server.listen=127.0.0.1:50052 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
    overrides: Vec<(String, String)>,
}

impl ConfigOptions {
    /// The configuration that the daemon would run with.
    ///
    /// # Errors
    /// A configuration that is wrong, by source, key, value and what is allowed.
    pub fn load(&self) -> Result<Config, Usage> {
        Config::load(self.config.as_deref(), &self.overrides).map_err(|error| Usage(error.to_string()))
    }
}

/// Has every thread take its memory from the same two places. By default glibc gives each of the many
/// short-lived threads that GStreamer starts for a camera a place of its own and hands none back, so
/// that a daemon grows with every camera that reconnects.
fn few_arenas() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: a setting of the allocator, made before any other thread is started.
    let is_set = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) };
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    debug_assert_eq!(is_set, 1, "glibc knows this setting");
}

impl Serve {
    /// Runs the daemon.
    ///
    /// # Errors
    /// A wrong configuration, before anything was opened; or that the daemon failed, which its log tells.
    pub fn run(self) -> anyhow::Result<()> {
        let config = self.config.load()?;
        few_arenas();
        crate::telemetry::init(&config.log)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
        let outcome = runtime.block_on(crate::app::run(config));
        // What still runs now had its time to stop and must not hold the process.
        runtime.shutdown_timeout(LEFTOVER_TIMEOUT);
        outcome.map_err(|error| {
            tracing::error!("{}", in_a_row(error.chain()));
            Told.into()
        })
    }
}
