//! `doorward calibrate`: measures which similarities strangers reach, so that thresholds stand for error rates.
//!
//! In: photos of known people, or the enrolled people themselves. Out: a calibration, and what it says.
//! Works beside the daemon and changes nothing of it: the configuration names the file that is used.
//! Must not know: how scores are counted.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::embedding::{EmbeddingOptions, check_writable, embed};
use super::failure::Usage;
use super::output::{Output, Table, printable};
use super::threshold::share;
use crate::calibration::{Asked, Calibration, PEOPLE_MIN, Scored, measure};
use crate::config::{Config, MirrorChoice};
use crate::decide::TARGET_RATE_DEFAULT;
use crate::evaluate::Folder;
use crate::face::dot;
use crate::models::Manifest;
use crate::photo::Worsening;
use crate::rates::{rule_of_three, wilson};
use crate::store;

/// More faces than this are not compared with each other: a million times a million comparisons would take days.
const FACES_MAX: usize = 4_000;
/// Two people's photos are this alike only by mistake: mates of good photos are.
const TWINS: f32 = 0.7;
/// So many of them are named.
const TWINS_TOLD: usize = 5;
/// Rates that are shown.
const SHOWN_RATES: [f64; 5] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5];

/// Measures which similarities strangers reach, so that thresholds stand for error rates (no daemon needed)
///
/// Every photo is compared with every other person's, as it is and made worse (far away, out of focus), since poor pictures
/// have scores of their own. The more people, the lower the rates that can be promised: 3 errors in as many comparisons as there
/// are is the lowest (the rule of three).
///
/// Set recognition.calibration to the file to use it in the daemon.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward calibrate photos/ --output site.calibration.json --set models_dir=models
  doorward calibrate photos/ --source \"badge photos of the Oslo office, 2026\" --output oslo.calibration.json
  sudo -u doorward doorward calibrate --from-gallery --config /etc/doorward/doorward.toml --output gallery.calibration.json

A folder of photos has a folder for each person: photos/<person>/<photo>.jpg")]
pub struct Calibrate {
    /// Photos of known people: DIR/<person>/<photo>
    #[arg(value_name = "DIR", required_unless_present = "from_gallery", conflicts_with = "from_gallery")]
    dir: Option<PathBuf>,
    /// Compare the enrolled people with each other; for poor pictures the calibration in force is kept. Who looked too much like somebody
    /// else was refused when enrolling, so this may only make thresholds stricter than the encoder's own calibration does
    #[arg(long)]
    from_gallery: bool,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Whose photos these are, which the file tells
    #[arg(long, value_name = "TEXT", default_value = "a site's own photos")]
    source: String,
    /// Leave out photos that were made worse: faster, and poor pictures are then judged like good ones
    #[arg(long)]
    as_they_are: bool,
    #[command(flatten)]
    embedding: EmbeddingOptions,
}

impl Calibrate {
    /// Does what was asked.
    ///
    /// # Errors
    /// Photos or models that cannot be used, or a file that cannot be written.
    pub fn run(self, out: Output) -> anyhow::Result<()> {
        check_writable(&self.output)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
        let calibration = runtime.block_on(self.calibration())?;
        write(&self.output, &calibration)?;
        tell(&calibration, &self.output, out)
    }

    async fn calibration(&self) -> anyhow::Result<Calibration> {
        if self.from_gallery {
            let config = self.embedding.config()?;
            return tokio::task::block_in_place(|| of_gallery(&config));
        }
        let Some(dir) = &self.dir else { return Err(Usage("give a folder of photos".into()).into()) };
        let mut folder = Folder::read(dir)?;
        check_people(folder.people.len() as u64)?;
        if let Some(thinned) = folder.thin(FACES_MAX) {
            eprintln!("{thinned}");
        }
        let config = self.embedding.config()?;
        let embedder = self.embedding.open(&config).await?;
        let mut scored = Vec::new();
        let mut ways = vec![(None, "as they are")];
        if !self.as_they_are {
            ways.extend(Worsening::ALL.map(|worsening| (Some(worsening), worsening.name())));
        }
        for way in ways {
            let faces = embed(&embedder, &folder.photos, way).await?;
            scored.extend(faces.into_iter().map(|face| Scored {
                person: face.person,
                photo: face.photo,
                quality: face.quality,
                is_worsened: face.worsening.is_some(),
                values: face.template.values().to_vec(),
            }));
        }
        tell_twins(&scored, &folder);
        let measured = tokio::task::block_in_place(|| measure(&scored, (-1.0, 1.0), &dot));
        check_people(measured.people)?;
        let command = format!("doorward calibrate DIR --source {:?}{}", self.source, if self.as_they_are { " --as-they-are" } else { "" });
        Ok(Calibration::new(embedder.space(), "cosine", (&self.source, &command), measured).with_mirror(config.infer.mirror))
    }
}

/// Refuses what would show nothing of strangers.
fn check_people(people: u64) -> anyhow::Result<()> {
    anyhow::ensure!(
        people >= PEOPLE_MIN,
        "there are faces of {people} people, and fewer than {PEOPLE_MIN} show nothing of strangers: give photos of more people"
    );
    Ok(())
}

/// The enrolled people compared with each other, beside the daemon.
fn of_gallery(config: &Config) -> anyhow::Result<Calibration> {
    let manifest = Manifest::load(&config.models_dir)?.with_encoder(config.infer.encoder.as_deref())?;
    let space = manifest.space();
    let in_force = config.recognition.calibration.clone().or(manifest.encoder.calibration.map(|file| manifest.dir.join(file)));
    let in_force =
        in_force.context("there is no calibration in force, which poor pictures would be judged by: calibrate on photos first")?;
    let in_force = Calibration::load(&in_force, &space).context(
        "the calibration in force cannot be taken for poor pictures: name the one of photos with --set recognition.calibration=FILE",
    )?;
    let mirror = config.infer.mirror;
    if in_force.mirror != mirror {
        eprintln!("poor pictures keep a calibration that was made with infer.mirror = \"{}\"", in_force.mirror.name());
    }
    if in_force.mirror != mirror || mirror != MirrorChoice::Off {
        eprintln!(
            "whoever was enrolled before infer.mirror was \"{}\" has templates of then: enrol them again first, or this is of both",
            mirror.name()
        );
    }
    let templates = store::templates(&config.data_dir, &space)?;
    let every = templates.len().div_ceil(FACES_MAX).max(1);
    if every > 1 {
        eprintln!("of {} templates every {every}th is compared", templates.len());
    }
    let mut numbers = HashMap::new();
    let mut scored = Vec::new();
    for (photo, (subject, template)) in templates.iter().enumerate().step_by(every) {
        let next = numbers.len();
        let person = *numbers.entry(*subject).or_insert(next);
        scored.push(Scored { person, photo, quality: 1.0, is_worsened: false, values: template.values().to_vec() });
    }
    let measured = measure(&scored, (-1.0, 1.0), &dot);
    check_people(measured.people)?;
    let calibration = in_force.with_good(measured, ("the gallery's own people", "doorward calibrate --from-gallery"));
    Ok(calibration.with_mirror(config.infer.mirror))
}

fn write(path: &Path, calibration: &Calibration) -> anyhow::Result<()> {
    let mut text = calibration.to_json()?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// What the calibration says: a row for each band and rate.
fn tell(calibration: &Calibration, path: &Path, out: Output) -> anyhow::Result<()> {
    let mut table = Table::new(["QUALITY", "FMR", "THRESHOLD", "95 % INTERVAL OF THE FMR", "FNMR THERE"]);
    let mut rows = Vec::new();
    for band in &calibration.bands {
        for rate in SHOWN_RATES {
            let found = calibration.threshold(rate, Asked { comparisons: 1, quality: band.quality_min });
            let (rejected, mated) = calibration.fnmr(found.threshold, band.quality_min);
            let fnmr = wilson(rejected, mated);
            rows.push(json!({
                "quality_min": band.quality_min, "comparisons": calibration.comparisons(band.quality_min), "target_fmr": rate, "fmr": found.rate,
                "threshold": found.threshold, "fmr_low": found.interval.low, "fmr_high": found.interval.high,
                "supported": found.is_supported, "mated": mated, "fnmr": rejected as f64 / mated.max(1) as f64,
                "fnmr_low": fnmr.low, "fnmr_high": fnmr.high,
            }));
            if !found.is_supported {
                table.row([
                    format!("from {}", band.quality_min),
                    format!("{rate:e}"),
                    "-".into(),
                    "too few comparisons".into(),
                    String::new(),
                ]);
                continue;
            }
            table.row([
                format!("from {}", band.quality_min),
                format!("{rate:e}"),
                format!("{:.3}", found.threshold),
                format!("{:.1e} to {:.1e}", found.interval.low, found.interval.high),
                if mated == 0 {
                    "-".into()
                } else {
                    format!(
                        "{:.2} % ({:.2} to {:.2}, {mated} pairs)",
                        100.0 * rejected as f64 / mated as f64,
                        100.0 * fnmr.low,
                        100.0 * fnmr.high
                    )
                },
            ]);
        }
    }
    if out.json {
        return out.object(&json!({
            "file": path, "space": calibration.space, "people": calibration.people, "photos": calibration.photos, "rates": rows,
        }));
    }
    out.table(&table)?;
    let lowest = rule_of_three(calibration.comparisons(1.0));
    let (people, photos, lowest_told) = (calibration.people, calibration.photos, share(lowest));
    out.line(&format!("{}: {photos} photos of {people} people; supports false match rates from {lowest_told}", path.display()))?;
    if lowest > TARGET_RATE_DEFAULT {
        return out
            .line("these are too few people to promise much: below that rate the encoder's own calibration decides where it is stricter");
    }
    out.line("set recognition.calibration to it to use it")
}

/// Names photos of different people that look like one person: a photo in a wrong folder makes strangers look alike.
fn tell_twins(faces: &[Scored], folder: &Folder) {
    let good: Vec<&Scored> = faces.iter().filter(|face| !face.is_worsened).collect();
    let mut twins: Vec<(f32, &Scored, &Scored)> = Vec::new();
    for (index, a) in good.iter().enumerate() {
        let alike = good[index + 1..].iter().filter(|b| b.person != a.person).map(|b| (dot(&a.values, &b.values), *a, *b));
        twins.extend(alike.filter(|(similarity, ..)| *similarity >= TWINS));
    }
    twins.sort_by(|a, b| b.0.total_cmp(&a.0));
    let path = |face: &Scored| printable(&folder.photos[face.photo].path.display().to_string());
    for (similarity, a, b) in twins.iter().take(TWINS_TOLD) {
        eprintln!("{} and {} look like one person ({similarity:.2}): is one of them in the wrong folder?", path(a), path(b));
    }
}
