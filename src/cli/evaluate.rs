//! `doorward evaluate`: how often the chain errs, on photos of known people and on events that were corrected.
//!
//! In: photos, lists of pairs, the daemon's log. Out: rates with their intervals; a report with curves.
//! Photos are looked at without a daemon.
//! Must not know: how a rate is found.

mod events;
mod identification;
mod verification;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};

use super::client::ClientOptions;
use super::embedding::check_writable;
use super::output::Output;
use super::threshold::share;
use crate::decide::InForce;
use crate::event::ThresholdBasis;
use crate::figure::{Report, html};
use crate::rates::Interval;

/// How often the chain errs: on photos of known people, and at the door
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  doorward evaluate verification --pairs pairs.csv photos/ --report verification.html
  doorward evaluate identification photos/ --report identification.html
  doorward evaluate events")]
pub enum Evaluate {
    Verification(verification::Verification),
    Identification(identification::Identification),
    Events(events::Events),
}

/// Where a report goes.
#[derive(Debug, Args)]
struct ReportOptions {
    /// Write a page with curves, which loads nothing from anywhere
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
}

impl Evaluate {
    /// Does what was asked.
    ///
    /// # Errors
    /// Photos or lists that cannot be used, models that cannot be opened, a daemon that is not reached.
    pub fn run(self, client: &ClientOptions, out: Output) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
        runtime.block_on(async {
            match self {
                Self::Verification(verification) => verification.run(out).await,
                Self::Identification(identification) => identification.run(out).await,
                Self::Events(events) => events.run(client, out).await,
            }
        })
    }
}

impl ReportOptions {
    /// Refuses a page that cannot be written, before the work that it is about.
    fn check(&self) -> anyhow::Result<()> {
        self.report.as_deref().map_or(Ok(()), check_writable)
    }

    /// Writes the page, where one is wanted, and says so.
    fn write(&self, out: Output, report: impl FnOnce() -> Report) -> anyhow::Result<()> {
        let Some(path) = &self.report else { return Ok(()) };
        write(path, &html(&report())?)?;
        if out.json { Ok(()) } else { out.line(&format!("report: {}", path.display())) }
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What decides in the daemon, which the rates below it are measured at.
fn in_force_line(what: &str, in_force: &InForce) -> String {
    let asked = match (in_force.basis, in_force.target_rate) {
        (ThresholdBasis::Calibrated, Some(rate)) => format!(", for a rate of {}", share(rate)),
        (ThresholdBasis::Unsupported, Some(_)) if in_force.expected_rate.is_none() => {
            ", of which no rate is promised, since faces are looked at otherwise than those of the calibration".into()
        }
        (ThresholdBasis::Unsupported, Some(rate)) => {
            format!(", the strictest that the calibration supports; a rate of {} is not", share(rate))
        }
        (ThresholdBasis::Published, _) => ", as published".into(),
        _ => ", as set by the operator".into(),
    };
    format!("at {:.3}, which is in force to {what}{asked}:", in_force.threshold)
}

/// Whether a target rate is promised; `None` where none decides.
fn is_supported(in_force: &InForce) -> Option<bool> {
    in_force.target_rate.map(|_| in_force.basis == ThresholdBasis::Calibrated)
}

/// `1.23 % (0.80 to 1.90)`.
pub(super) fn percent(rate: f64, interval: Interval) -> String {
    format!("{:.2} % ({:.2} to {:.2})", 100.0 * rate, 100.0 * interval.low, 100.0 * interval.high)
}
