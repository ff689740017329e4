//! `doorward train projection`: a linear projection of templates, by the triplet loss.
//!
//! In: photos of known people. Out: a projection as ONNX, if it is better than none; a picture of how it learnt.
//! Must not know: how the loss is made small.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::super::embedding::{EmbeddingOptions, check_writable, embed};
use super::super::failure::Told;
use super::super::output::{Output, progress};
use super::{json as judged, lines, write};
use crate::evaluate::Folder;
use crate::evaluate::compare::compare;
use crate::evaluate::identification::Known;
use crate::face::dot;
use crate::figure::{Axis, Figure, Marker, Report, Scale, Section, Series, Style, html};
use crate::models::projection_graph;
use crate::train::triplet::{Epoch, Mining, Projection as Learnt, Trained, TripletSettings, fit};
use crate::train::{Labelled, split_people};

/// Learns a projection of templates by the triplet loss (no daemon needed)
///
/// The encoder stays as it is; a linear layer behind it is trained so that a person's photos come closer to each other than to anybody
/// else's (FaceNet's loss). People are split three ways: some are learnt from, some say when to stop, and the rest decide whether it
/// is better than no projection. It makes a template space of its own: docs/changing-the-encoder.md
/// tells how people move to it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward train projection photos/ --output projection.onnx --picture projection.html
  doorward train projection photos/ --dim 64 --margin 0.3 --mining hard --output projection.onnx --set models_dir=models

A folder of photos has a folder for each person: photos/<person>/<photo>.jpg")]
pub struct Projection {
    /// Photos of known people, several of each
    dir: PathBuf,
    /// How many numbers a projected template has
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4096))]
    dim: u16,
    /// How much closer a person's own photo must be than anybody else's
    #[arg(long, default_value_t = 0.2, value_parser = super::positive)]
    margin: f64,
    /// Which photos of others are learnt from
    #[arg(long, value_enum, default_value_t = MiningChoice::SemiHard)]
    mining: MiningChoice,
    /// The length of a step
    #[arg(long, default_value_t = 1e-3, value_parser = super::positive)]
    learning_rate: f64,
    /// The most passes over the photos
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..))]
    epochs_max: u16,
    /// What chance begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The file to write
    #[arg(long, short, value_name = "FILE.onnx")]
    output: PathBuf,
    /// Write a page with the curves of the loss and of the separation
    #[arg(long, value_name = "FILE.html")]
    picture: Option<PathBuf>,
    /// Write it although it is no better
    #[arg(long)]
    even_if_no_better: bool,
    #[command(flatten)]
    embedding: EmbeddingOptions,
}

/// Of more photos that are held out some are left out: every two of them are compared.
const HELD_OUT_MAX: usize = 8_000;

/// Which photos of others are learnt from.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum MiningChoice {
    /// The closest that are farther away than the person's own
    SemiHard,
    /// The closest, against the person's own farthest
    Hard,
}

/// A part of the faces.
struct Part {
    vectors: Vec<Vec<f32>>,
    people: Vec<usize>,
}

impl Part {
    fn labelled(&self) -> Labelled<'_> {
        Labelled { vectors: &self.vectors, people: &self.people }
    }
}

impl Projection {
    pub(super) async fn run(self, out: Output) -> anyhow::Result<()> {
        check_writable(&self.output)?;
        self.picture.as_deref().map_or(Ok(()), check_writable)?;
        let folder = Folder::read(&self.dir)?;
        let config = self.embedding.config()?;
        let embedder = self.embedding.open(&config).await?;
        let faces = embed(&embedder, &folder.photos, (None, "looking at photos")).await?;
        let all = Part {
            vectors: faces.iter().map(|face| face.template.values().to_vec()).collect(),
            people: faces.iter().map(|face| face.person).collect(),
        };
        let (rest, mut held_out) = part(&all, 0.4, self.seed);
        if held_out.people.len() > HELD_OUT_MAX {
            eprintln!("{HELD_OUT_MAX} of {} photos that were held out are compared with each other", held_out.people.len());
            // By person, as they lie: mates stay together.
            held_out.people.truncate(HELD_OUT_MAX);
            held_out.vectors.truncate(HELD_OUT_MAX);
        }
        let (training, validation) = part(&rest, 0.25, self.seed);
        let settings = TripletSettings {
            dimension: self.dim.into(),
            margin: self.margin,
            mining: match self.mining {
                MiningChoice::SemiHard => Mining::SemiHard,
                MiningChoice::Hard => Mining::Hard,
            },
            learning_rate: self.learning_rate,
            epochs_max: self.epochs_max.into(),
            seed: self.seed,
            ..TripletSettings::default()
        };
        let bar = progress(self.epochs_max.into(), "learning");
        let mut told = |epoch: &Epoch| {
            bar.set_position(epoch.number as u64);
            let line = format!(
                "epoch {:>3}  loss {:.4}  active {:>3.0} %  validation {:.4}  separation {:.3}",
                epoch.number,
                epoch.loss,
                100.0 * epoch.active_share,
                epoch.validation_loss,
                epoch.separation
            );
            if !out.json {
                bar.suspend(|| eprintln!("{line}"));
            }
        };
        let trained = tokio::task::block_in_place(|| fit((&training.labelled(), &validation.labelled()), &settings, &mut told))?;
        bar.finish_and_clear();
        let projected = |vector: &[f32]| {
            let mut values = trained.projection.apply(vector);
            let norm = dot(&values, &values).sqrt().max(f32::MIN_POSITIVE);
            values.iter_mut().for_each(|value| *value /= norm);
            values
        };
        // Once each, not once a pair.
        let width = held_out.vectors.first().map_or(0, Vec::len);
        let both = |(vector, person): (&Vec<f32>, &usize)| Known {
            person: *person,
            quality: 1.0,
            values: [vector.clone(), projected(vector)].concat(),
        };
        let held: Vec<Known> = held_out.vectors.iter().zip(&held_out.people).map(both).collect();
        let judgement =
            tokio::task::block_in_place(|| compare(&held, &|a, b| dot(&a[..width], &b[..width]), &|a, b| dot(&a[width..], &b[width..])));
        if let Some(picture) = &self.picture {
            write(picture, html(&report(&trained, &self))?.as_bytes())?;
        }
        let writes = self.even_if_no_better || judgement.is_some_and(|judgement| judgement.is_better());
        let entry = if writes { Some(self.export(&trained.projection)?) } else { None };
        self.tell(out, (&trained, judgement.as_ref()), entry.as_deref())?;
        if writes { Ok(()) } else { Err(Told.into()) }
    }

    /// Writes the graph and answers the lines that name it in the manifest.
    fn export(&self, projection: &Learnt) -> anyhow::Result<String> {
        let graph = projection_graph((projection.input_dimension, projection.dimension), &projection.values);
        write(&self.output, &graph)?;
        let file = self.output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let sha256: String = Sha256::digest(&graph).iter().map(|byte| format!("{byte:02x}")).collect();
        let (bytes, dimension) = (graph.len(), projection.dimension);
        Ok(format!("[model.projection]\nfile = {file:?}\nbytes = {bytes}\nsha256 = {sha256:?}\ndimension = {dimension}"))
    }

    fn tell(
        &self,
        out: Output,
        (trained, judgement): (&Trained, Option<&crate::evaluate::compare::Judgement>),
        entry: Option<&str>,
    ) -> anyhow::Result<()> {
        let (first, best) = (trained.epochs.first(), trained.epochs.get(trained.best));
        let separation = |epoch: Option<&Epoch>| epoch.map(|epoch| epoch.separation).unwrap_or_default();
        if out.json {
            return out.object(&json!({
                "epochs": trained.epochs.len().saturating_sub(1), "best_epoch": trained.best, "separation_before": separation(first),
                "separation_after": separation(best), "judgement": judged(judgement), "written": entry.map(|_| &self.output), "manifest": entry, "seed": self.seed,
            }));
        }
        out.line(&format!(
            "best of {} epochs: {}; separation of those who say when to stop {:.3}, and {:.3} without it; seed {}",
            trained.epochs.len().saturating_sub(1),
            trained.best,
            separation(best),
            separation(first),
            self.seed
        ))?;
        lines(judgement, ("as it is", "projected")).iter().try_for_each(|line| out.line(line))?;
        let Some(entry) = entry else {
            return out.line("not written: templates stay as they are; --even-if-no-better writes it all the same");
        };
        out.line(&format!(
            "{}: put it into models_dir, and into manifest.toml a copy of the encoder's entry with a name of its own, without its calibration, and with",
            self.output.display()
        ))?;
        entry.lines().try_for_each(|line| out.line(line))?;
        out.line("then calibrate it (`doorward calibrate … --set infer.encoder=NAME`), make templates for it (`doorward gallery reencode --encoder NAME`) and set infer.encoder; docs/changing-the-encoder.md has the steps")
    }
}

/// The photos of some people, and of the rest.
fn part(all: &Part, share: f64, seed: u64) -> (Part, Part) {
    let (rest, held_out) = split_people(&all.people, share, seed);
    let of = |places: Vec<usize>| Part {
        vectors: places.iter().map(|place| all.vectors[*place].clone()).collect(),
        people: places.iter().map(|place| all.people[*place]).collect(),
    };
    (of(rest), of(held_out))
}

fn report(trained: &Trained, asked: &Projection) -> Report {
    let curve = |value: fn(&Epoch) -> f64| trained.epochs.iter().map(|epoch| (epoch.number as f64, value(epoch))).collect::<Vec<_>>();
    let figure = |title: &str, caption: &str, (label, series): (&str, Vec<Series>)| Figure {
        title: title.into(),
        caption: caption.into(),
        x: Axis { label: "epoch".into(), scale: Scale::Linear, range: None },
        y: Axis { label: label.into(), scale: Scale::Linear, range: None },
        series,
        markers: vec![Marker { x: trained.best as f64, label: "kept".into() }],
    };
    let line = |name: &str, points: Vec<(f64, f64)>| Series { name: name.into(), points, style: Style::Line };
    // Nothing was learnt before the first epoch.
    let learning = |value: fn(&Epoch) -> f64| curve(value).into_iter().skip(1).collect::<Vec<_>>();
    let figures = vec![
        figure(
            "Triplet loss",
            "The mean of max(|a - p|² - |a - n|² + margin, 0) over the triplets that were learnt from, and over those of the people who say when to stop.",
            ("loss", vec![line("learnt from", learning(|epoch| epoch.loss)), line("validation", curve(|epoch| epoch.validation_loss))]),
        ),
        figure(
            "Separation",
            "How far apart the similarities of one person and of two people lie, in standard deviations, among the people who say when to stop.",
            ("d'", vec![line("validation", curve(|epoch| epoch.separation))]),
        ),
        figure(
            "Active triplets",
            "The share of triplets that still break the margin.",
            ("share", vec![line("learnt from", learning(|epoch| epoch.active_share))]),
        ),
    ];
    Report {
        title: "Projection by the triplet loss".into(),
        introduction: vec![format!(
            "{} numbers, margin {}, learning rate {}, seed {}.",
            asked.dim, asked.margin, asked.learning_rate, asked.seed
        )],
        sections: vec![Section { heading: "How it learnt".into(), figures, ..Section::default() }],
    }
}
