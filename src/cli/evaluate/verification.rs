//! `doorward evaluate verification`: errors of 1:1 comparisons over a list of pairs.
//!
//! In: a list of pairs, their photos. Out: accuracy by cross-validation, TAR at given FARs, the errors at the threshold in
//! force; curves.
//! Must not know: how photos are compared.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::super::embedding::{EmbeddingOptions, embed};
use super::super::output::{Output, Table};
use super::{ReportOptions, in_force_line, is_supported, percent};
use crate::calibration::{Asked, COSINE};
use crate::decide::InForce;
use crate::evaluate::verification::{Comparison, Share, Verification as Measured, errors_at};
use crate::evaluate::{FaceOfPhoto, PhotoFile, pairs};
use crate::event::Purpose;
use crate::figure::{Axis, Figure, Marker, Report, Scale, Section, Series, Style, Table as ReportTable};

/// Errors of 1:1 comparisons over a list of pairs (no daemon needed)
///
/// The list is CSV (file_a,file_b,same) or the pairs.txt of Labeled Faces in the Wild; each accuracy is measured on one of ten parts by the
/// threshold that is best on the other nine. A photo's face is the one in its middle; a pair of which one photo shows no face is
/// never accepted.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward evaluate verification --pairs pairs.csv photos/
  doorward evaluate verification --pairs lfw/pairs.txt lfw/ --report lfw.html --set models_dir=models
  doorward evaluate verification --pairs pairs.csv photos/ --json | tail -1 | jq .accuracy")]
pub struct Verification {
    /// The list of pairs
    #[arg(long, value_name = "FILE")]
    pairs: PathBuf,
    /// The folder that the list's photos lie in
    dir: PathBuf,
    #[command(flatten)]
    report: ReportOptions,
    #[command(flatten)]
    embedding: EmbeddingOptions,
}

/// What is told.
struct Result {
    /// What made the scores.
    head: &'static str,
    measured: Measured,
    /// Pairs with a face that the daemon refuses to verify.
    unusable: u64,
    in_force: InForce,
    fmr: Share,
    fnmr: Share,
    scores: Vec<Comparison>,
}

impl Verification {
    pub(super) async fn run(self, out: Output) -> anyhow::Result<()> {
        self.report.check()?;
        let pairs = pairs::read(&self.pairs, &self.dir)?;
        let mut paths: Vec<&PathBuf> = pairs.iter().flat_map(|pair| [&pair.a, &pair.b]).collect();
        paths.sort_unstable();
        paths.dedup();
        let photos: Vec<PhotoFile> = paths.iter().map(|path| PhotoFile { person: 0, path: (*path).clone() }).collect();
        let config = self.embedding.config()?;
        let (embedder, policy) = self.embedding.open_with_policy(&config).await?;
        let faces = embed(&embedder, &photos, (None, "looking at photos")).await?;
        let face_of: HashMap<&PathBuf, &FaceOfPhoto> = faces.iter().map(|face| (&photos[face.photo].path, face)).collect();
        let mut unusable = 0;
        let (mut scores, mut decided) = (Vec::with_capacity(pairs.len()), Vec::with_capacity(pairs.len()));
        for pair in &pairs {
            let both = face_of.get(&pair.a).zip(face_of.get(&pair.b));
            anyhow::ensure!(
                pair.same || both.is_none_or(|(a, b)| a.template.values() != b.template.values()),
                "{} and {} are one picture, and the list says that they show two people: take the pair out",
                pair.a.display(),
                pair.b.display()
            );
            let by_head = policy.verifier().zip(both).map(|(head, (a, b))| head.score(a.template.values(), b.template.values()));
            let similarity = both.map(|(a, b)| a.template.similarity(&b.template)).transpose()?;
            let score = by_head.or(similarity);
            scores.push(Comparison { score, same: pair.same, fold: pair.fold });
            // As the daemon decides: by the worse of both pictures. What is left above zero matches.
            let quality = both.map_or(0.0, |(a, b)| a.quality.min(b.quality));
            let needed = policy.in_force(Purpose::Verify, None, Asked { comparisons: 1, quality }).threshold;
            let is_usable = quality > 0.0;
            unusable += u64::from(both.is_some() && !is_usable);
            decided.push(Comparison {
                score: score.filter(|_| is_usable).map(|score| if score >= needed { 1.0 } else { -1.0 }),
                same: pair.same,
                fold: pair.fold,
            });
        }
        let in_force = policy.in_force(Purpose::Verify, None, Asked { comparisons: 1, quality: 1.0 });
        let (fmr, fnmr) = errors_at(&decided, 0.0);
        let head = policy.verifier().map_or(COSINE, |head| head.rule.name());
        let result = Result { unusable, head, measured: Measured::of(&scores), in_force, fmr, fnmr, scores };
        self.report.write(out, || result.report())?;
        result.tell(out)
    }
}

impl Result {
    /// Mean and standard deviation over the folds.
    fn accuracy(&self) -> String {
        let (accuracy, deviation) = self.measured.accuracy();
        match self.measured.folds.len() {
            1 => format!("{:.2} %, at a threshold that is best on these very pairs: there is one fold only", 100.0 * accuracy),
            folds => format!("{:.2} ± {:.2} % over {folds} folds", 100.0 * accuracy, 100.0 * deviation),
        }
    }

    fn tell(&self, out: Output) -> anyhow::Result<()> {
        let (accuracy, deviation) = self.measured.accuracy();
        let (fmr, fnmr) = (self.fmr.interval(), self.fnmr.interval());
        if !out.json {
            let mut table = Table::of_facts();
            table.fact("pairs", format!("{} of one person, {} of two", self.fnmr.trials, self.fmr.trials));
            if self.measured.without_face > 0 {
                table.fact("without a face", format!("{} pairs, never accepted", self.measured.without_face));
            }
            table.fact("accuracy", self.accuracy());
            for at in &self.measured.true_accepts {
                let told = if at.is_supported {
                    percent(at.accepted.rate(), at.accepted.interval())
                } else {
                    "too few pairs of two people".into()
                };
                table.fact(&format!("TAR at FAR {:e}", at.far), told);
            }
            let equal = self.measured.equal_error_rate();
            table
                .fact("equal error rate", equal.map_or("too few pairs show faces to tell".into(), |rate| format!("{:.2} %", 100.0 * rate)));
            out.table(&table)?;
            out.line(&in_force_line("verify", &self.in_force))?;
            let mut table = Table::of_facts();
            if self.unusable > 0 {
                table.fact("refused", format!("{} pairs with a face that is too poor to be used", self.unusable));
            }
            table.fact("FMR", percent(self.fmr.rate(), fmr));
            table.fact("FNMR", percent(self.fnmr.rate(), fnmr));
            return out.table(&table);
        }
        let tar: serde_json::Map<String, serde_json::Value> = self
            .measured
            .true_accepts
            .iter()
            .map(|at| {
                (format!("{:e}", at.far), json!({ "tar": at.accepted.rate(), "threshold": at.threshold, "supported": at.is_supported }))
            })
            .collect();
        out.object(&json!({
            "evaluation": "verification", "head": self.head, "pairs": self.scores.len(), "without_face": self.measured.without_face, "refused": self.unusable, "accuracy": accuracy,
            "accuracy_sd": deviation, "tar_at_far": tar, "equal_error_rate": self.measured.equal_error_rate(),
            "threshold": self.in_force.threshold, "target_fmr": self.in_force.target_rate, "expected_fmr": self.in_force.expected_rate,
            "target_fmr_supported": is_supported(&self.in_force), "fmr": self.fmr.rate(), "fmr_low": fmr.low,
            "fmr_high": fmr.high, "fnmr": self.fnmr.rate(), "fnmr_low": fnmr.low, "fnmr_high": fnmr.high,
        }))
    }

    fn report(&self) -> Report {
        let rows = self.measured.true_accepts.iter().map(|at| {
            let told = if at.is_supported { percent(at.accepted.rate(), at.accepted.interval()) } else { "too few pairs".into() };
            vec![format!("TAR at FAR {:e}", at.far), told, format!("{:.3}", at.threshold)]
        });
        let in_force = [("FMR", self.fmr), ("FNMR", self.fnmr)].map(|(name, share)| {
            vec![
                format!("{name} in force, by each picture's quality"),
                percent(share.rate(), share.interval()),
                format!("{:.3}", self.in_force.threshold),
            ]
        });
        let table =
            ReportTable { header: ["", "share (95 %)", "threshold"].map(str::to_owned).to_vec(), rows: rows.chain(in_force).collect() };
        Report {
            title: "Verification".into(),
            introduction: vec![format!(
                "{} pairs of one person and {} of two people. Accuracy {}: mean and standard deviation over folds, each tested by the threshold that is best on the others, where there are others.",
                self.fnmr.trials,
                self.fmr.trials,
                self.accuracy()
            )],
            sections: vec![Section {
                heading: "Errors".into(),
                text: Vec::new(),
                tables: vec![table],
                figures: vec![self.det(), self.roc(), self.histogram()],
                ..Section::default()
            }],
        }
    }

    fn det(&self) -> Figure {
        let points = self.measured.curve.iter().map(|(_, fmr, fnmr)| (*fmr, *fnmr)).collect();
        Figure {
            title: "Detection error trade-off".into(),
            caption:
                "Each point is a threshold: strangers that it accepts against mates that it rejects. Lower and further left is better."
                    .into(),
            x: axis("false match rate", Scale::NormalDeviate, Some((0.5 / self.fmr.trials.max(2) as f64, 0.4))),
            y: axis("false non-match rate", Scale::NormalDeviate, Some((0.5 / self.fnmr.trials.max(2) as f64, 0.4))),
            series: vec![Series { name: self.head.into(), points, style: Style::Line }],
            markers: Vec::new(),
        }
    }

    fn roc(&self) -> Figure {
        let lowest = 1.0 / self.fmr.trials.max(1) as f64;
        let points = self.measured.curve.iter().rev().map(|(_, fmr, fnmr)| (*fmr, 1.0 - fnmr)).collect();
        Figure {
            title: "Receiver operating characteristic".into(),
            caption: "Mates accepted against strangers accepted, by threshold.".into(),
            x: axis("false accept rate", Scale::Log, Some((lowest, 1.0))),
            y: axis("true accept rate", Scale::Linear, None),
            series: vec![Series { name: self.head.into(), points, style: Style::Line }],
            markers: Vec::new(),
        }
    }

    fn histogram(&self) -> Figure {
        const BINS: usize = 60;
        let all = self.scores.iter().filter_map(|pair| pair.score).map(f64::from);
        let (low, high) = all.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), score| (low.min(score), high.max(score)));
        let step = ((high - low) / BINS as f64).max(1e-6);
        let series = [(false, "two people"), (true, "one person")].map(|(same, name)| {
            let scores: Vec<f64> =
                self.scores.iter().filter(|pair| pair.same == same).filter_map(|pair| pair.score).map(f64::from).collect();
            let bin_of = |score: f64| (((score - low) / step) as usize).min(BINS - 1);
            let share = |bin: usize| scores.iter().filter(|score| bin_of(**score) == bin).count() as f64 / scores.len().max(1) as f64;
            let first = scores.iter().map(|score| bin_of(*score)).min().unwrap_or(0);
            let last = scores.iter().map(|score| bin_of(*score)).max().unwrap_or(0);
            let mut points: Vec<(f64, f64)> = (first..=last).map(|bin| (low + step * bin as f64, share(bin))).collect();
            points.push((low + step * (last + 1) as f64, 0.0));
            Series { name: name.into(), points, style: Style::Steps }
        });
        let label = if self.head == COSINE { "cosine similarity".to_owned() } else { format!("score of {}", self.head) };
        Figure {
            title: "Scores".into(),
            caption: "How many pairs of either kind have which score.".into(),
            x: axis(&label, Scale::Linear, None),
            y: axis("share of pairs", Scale::Linear, None),
            series: series.into(),
            markers: vec![Marker { x: f64::from(self.in_force.threshold), label: format!("in force {:.3}", self.in_force.threshold) }],
        }
    }
}

fn axis(label: &str, scale: Scale, range: Option<(f64, f64)>) -> Axis {
    Axis { label: label.into(), scale, range }
}
