//! `doorward doctor`: what works on this machine, and how to mend what does not.
//!
//! In: the configuration and the machine. Out: a verdict for each thing the daemon stands on.
//! Drops: nothing.
//! Must not know: how any of it is used.

mod checks;

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::client::ClientOptions;
use super::failure::{Told, describe};
use super::output::{Output, span, spinner};
use super::serve::ConfigOptions;
use crate::config::Config;
use crate::pb;

/// Says what works on this machine, and how to mend what does not
///
/// Run it as the daemon's user and with the daemon's configuration. Exits with 1 when something is
/// broken.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward doctor
  sudo -u doorward doorward doctor --config /etc/doorward/doorward.toml
  doorward doctor --set models_dir=models --set data_dir=/tmp/doorward
  doorward doctor --json | jq -r 'select(.verdict != \"works\")'")]
pub struct Doctor {
    #[command(flatten)]
    config: ConfigOptions,
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Works,
    /// Nothing the daemon cannot start with, and worth knowing.
    Doubtful,
    Broken,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Works => "works",
            Self::Doubtful => "doubtful",
            Self::Broken => "broken",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug)]
struct Check {
    what: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; empty for what works.
    mend: String,
}

impl Check {
    fn works(what: &'static str, found: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Works, found: found.into(), mend: String::new() }
    }

    fn doubtful(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Doubtful, found: found.into(), mend: mend.into() }
    }

    fn broken(what: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { what, verdict: Verdict::Broken, found: found.into(), mend: mend.into() }
    }

    fn print(&self, out: Output) -> anyhow::Result<()> {
        if out.json {
            return out.object(&json!({ "what": self.what, "verdict": self.verdict.name(), "found": self.found, "mend": self.mend }));
        }
        out.line(&format!("{:<9} {:<14} {}", self.verdict.name(), self.what, self.found))?;
        if self.mend.is_empty() { Ok(()) } else { out.line(&format!("{:<9} {:<14} mend: {}", "", "", self.mend)) }
    }
}

impl Doctor {
    /// Looks at everything and tells.
    ///
    /// # Errors
    /// That something is broken.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        let mut broken = 0_usize;
        let mut tell = |checks: Vec<Check>| {
            broken += checks.iter().filter(|check| check.verdict == Verdict::Broken).count();
            checks.iter().try_for_each(|check| check.print(*out))
        };
        // Where the configuration is wrong, the rest is looked at with the defaults.
        let config = match self.config.load() {
            Ok(config) => {
                tell(vec![Check::works("configuration", "every key is known and every value allowed")])?;
                config
            }
            Err(error) => {
                tell(vec![Check::broken("configuration", error.to_string(), "correct it; the rest is looked at with the defaults")])?;
                Config::default()
            }
        };
        tell(checks::video())?;
        tell(checks::models(&config.models_dir))?;
        let waiting = spinner("opening a session");
        let inference = checks::inference(&config).await;
        waiting.finish_and_clear();
        tell(inference)?;
        tell(checks::folders(&config))?;
        tell(vec![daemon(client, &config).await])?;
        if broken == 0 { Ok(()) } else { Err(Told.into()) }
    }
}

async fn daemon(client: &ClientOptions, config: &Config) -> Check {
    let client = client.or_server_of(&config.server);
    let status = async { anyhow::Ok(client.connect().await?.system().get_status(pb::GetStatusRequest::default()).await?.into_inner()) };
    match status.await {
        Ok(status) => {
            let uptime = status.uptime.and_then(|uptime| Duration::try_from(uptime).ok()).unwrap_or_default();
            Check::works("daemon", format!("doorward {} at {}, up {}", status.version, client.server(), span(uptime)))
        }
        Err(error) => {
            let text = describe(&error).text;
            let (found, mend) = text.split_once("\n  what to do: ").unwrap_or((&text, "see the daemon's log"));
            Check::doubtful("daemon", found.trim_start_matches("error: ").replace('\n', ";"), mend)
        }
    }
}
