//! `doorward train`: learns on a site's own photos what the bought-in encoder was not taught.
//!
//! In: photos of known people. Out: a verification head or a projection, and whether it is better on people that it did
//! not learn from. What is not better is not written.
//! Works without a daemon.
//! Must not know: how anything is learnt.

mod projection;
mod verifier;

use std::path::Path;

use anyhow::Context;
use clap::Subcommand;

use super::evaluate::percent;
use super::output::Output;
use super::threshold::share;
use crate::evaluate::compare::Judgement;
use crate::evaluate::identification::Rate;

/// Learns on a site's own photos what the encoder was not taught (no daemon needed)
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  doorward train verifier --head abs-diff photos/ --output verifier.json
  doorward train projection photos/ --dim 128 --output projection.onnx --picture projection.html

What was learnt is compared with what is in force, on people that it did not learn from; what is not better is not written
(exit code 1).")]
pub enum Train {
    Verifier(verifier::Verifier),
    Projection(projection::Projection),
}

impl Train {
    /// Does what was asked.
    ///
    /// # Errors
    /// Photos that cannot be used, or that nothing was learnt; [`Told`](super::failure::Told) when it is not better.
    pub fn run(self, out: Output) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
        match self {
            Self::Verifier(verifier) => runtime.block_on(verifier.run(out)),
            Self::Projection(projection) => runtime.block_on(projection.run(out)),
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number| *number > 0.0 && *number < 1e6).ok_or_else(|| "give a number above 0".into())
}

/// The comparison on people that were held out, in lines.
fn lines(judgement: Option<&Judgement>, (before, after): (&str, &str)) -> Vec<String> {
    let Some(judgement) = judgement else {
        return vec![
            "the people that were held out have too few photos to tell whether it is better: give more photos of more people".into(),
        ];
    };
    let side = |name: &str, rate: Rate| {
        format!("  {name:<12} rejects {} of {} pairs of one person", percent(rate.rate(), rate.interval), rate.trials)
    };
    let points = |rate: f64| format!("{:+.2}", 100.0 * rate);
    let verdict = match () {
        () if judgement.is_better() => "better".to_owned(),
        () if judgement.change.low > 0.0 => "no better, and perhaps worse".to_owned(),
        () if judgement.change.high < 0.0 => {
            format!("by so few people's photos that chance does as well in {:.0} cases of 100: no better", 100.0 * judgement.by_chance)
        }
        () => "no better than chance would make it".to_owned(),
    };
    vec![
        format!(
            "on people that it did not learn from, where both accept {} of {} pairs of two people:",
            share(judgement.fmr),
            judgement.strangers
        ),
        side(before, judgement.before),
        side(after, judgement.after),
        format!("  change       {} to {} points (95 %): {verdict}", points(judgement.change.low), points(judgement.change.high)),
    ]
}

/// The same for scripts.
fn json(judgement: Option<&Judgement>) -> serde_json::Value {
    judgement.map_or(serde_json::Value::Null, |judgement| {
        serde_json::json!({
            "fmr": judgement.fmr, "non_mated": judgement.strangers, "mated": judgement.before.trials, "fnmr_before": judgement.before.rate(),
            "fnmr_before_low": judgement.before.interval.low, "fnmr_before_high": judgement.before.interval.high,
            "fnmr_after": judgement.after.rate(), "fnmr_after_low": judgement.after.interval.low, "fnmr_after_high": judgement.after.interval.high,
            "change_low": judgement.change.low, "change_high": judgement.change.high,
            "by_chance": judgement.by_chance, "better": judgement.is_better(),
        })
    })
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
