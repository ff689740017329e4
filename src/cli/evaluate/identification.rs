//! `doorward evaluate identification`: errors of searches among enrolled people, where half of the people are strangers.
//!
//! In: photos of known people. Out: FPIR, FNIR and rank-1, by threshold and by the number of people enrolled, beside what the
//! theory says.
//! Must not know: how photos are compared.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::super::embedding::{EmbeddingOptions, embed};
use super::super::failure::Usage;
use super::super::output::{Output, Table};
use super::{ReportOptions, in_force_line, is_supported, percent};
use crate::calibration::Asked;
use crate::decide::{InForce, Policy};
use crate::evaluate::Folder;
use crate::evaluate::identification::{Known, Rate, Searched, Split, fnir, fpir, pooled, rank_one, search, split, threshold_for};
use crate::event::Purpose;
use crate::figure::{Axis, Figure, Marker, Report, Scale, Section, Series, Style, Table as ReportTable};
use crate::rates::{fpir_of_fmr, rule_of_three};

/// The FPIR at which the FNIR is told.
const FPIR_TOLD: f64 = 0.01;
/// Splits for each number of people.
const SPLITS: usize = 20;

/// Errors of searches among enrolled people, where half of the people are strangers (no daemon needed)
///
/// One photo of each enrolled person is enrolled; their other photos, and one of every stranger, are looked up. With one folder half of
/// its people are enrolled by chance; with two, whoever is in the first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward evaluate identification photos/ --report identification.html --set models_dir=models
  doorward evaluate identification --enrol badges/ --probe visitors/

A folder of photos has a folder for each person: photos/<person>/<photo>.jpg")]
pub struct Identification {
    /// Photos of known people
    #[arg(value_name = "DIR", required_unless_present_all = ["enrol", "probe"], conflicts_with_all = ["enrol", "probe"])]
    dir: Option<PathBuf>,
    /// Photos of the people to enrol: the first of each
    #[arg(long, value_name = "DIR", requires = "probe")]
    enrol: Option<PathBuf>,
    /// Photos to look up: of people who are enrolled, by the names of their folders, and of strangers
    #[arg(long, value_name = "DIR", requires = "enrol")]
    probe: Option<PathBuf>,
    /// What chance begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    report: ReportOptions,
    #[command(flatten)]
    embedding: EmbeddingOptions,
}

/// Errors among so many people.
struct BySize {
    people: usize,
    /// FPIR at the threshold that keeps what is told among all.
    fpir: Rate,
    theory: f64,
    /// FNIR at that threshold, and at the one that keeps the FPIR among so many.
    fnir: Rate,
    fnir_at_fpir: Rate,
}

/// What is told.
struct Found {
    enrolled: usize,
    /// Pictures that were not looked up, since they are those that are enrolled.
    left_out: usize,
    searches: Vec<Searched>,
    in_force: InForce,
    /// FPIR and FNIR as the daemon decides: by each picture's own quality.
    errors_in_force: [Rate; 2],
    /// The threshold that keeps the FPIR that is told.
    at_told: f32,
    by_size: Vec<BySize>,
    seed: u64,
}

impl Identification {
    pub(super) async fn run(self, out: Output) -> anyhow::Result<()> {
        self.report.check()?;
        let config = self.embedding.config()?;
        let (embedder, policy) = self.embedding.open_with_policy(&config).await?;
        let mut random = fastrand::Rng::with_seed(self.seed);
        let split = match (&self.dir, &self.enrol, &self.probe) {
            (Some(dir), ..) => {
                let folder = Folder::read(dir)?;
                let faces = known(embed(&embedder, &folder.photos, (None, "looking at photos")).await?);
                let half = folder.people.len() / 2;
                split(&faces, half, &mut random)
            }
            (None, Some(enrol), Some(probe)) => {
                let (enrolled, mut probes) = (Folder::read(enrol)?, Folder::read(probe)?);
                // A person's number is the same in both folders.
                let number = |name: &String, index: usize| {
                    enrolled.people.iter().position(|known| known == name).unwrap_or(enrolled.people.len() + index)
                };
                let numbers: Vec<usize> = probes.people.iter().enumerate().map(|(index, name)| number(name, index)).collect();
                let names: HashMap<usize, String> = numbers.iter().copied().zip(probes.people.iter().cloned()).collect();
                probes.photos.iter_mut().for_each(|photo| photo.person = numbers[photo.person]);
                let mut known_people = known(embed(&embedder, &enrolled.photos, (None, "looking at photos to enrol")).await?);
                known_people.dedup_by_key(|face| face.person);
                let probes = known(embed(&embedder, &probes.photos, (None, "looking at photos to look up")).await?);
                let twice = probes.iter().find_map(|probe| {
                    let is_of_another = |known: &&Known| known.person != probe.person && known.values == probe.values;
                    Some((known_people.iter().find(is_of_another)?.person, probe.person))
                });
                if let Some((known, probe)) = twice {
                    let looked_up = names.get(&probe).map_or("", String::as_str);
                    anyhow::bail!(
                        "a picture of {} is enrolled and looked up as one of {looked_up}: take one of them away",
                        enrolled.people[known]
                    );
                }
                let is_enrolled = |face: &Known| known_people.iter().any(|known| known.person == face.person);
                let (mated, strangers) = probes.into_iter().partition(is_enrolled);
                Some(Split { enrolled: known_people, mated, strangers })
            }
            _ => return Err(Usage("give a folder of photos, or --enrol and --probe".into()).into()),
        };
        let split = split.filter(|split| !split.enrolled.is_empty() && !split.strangers.is_empty());
        let split = split
            .ok_or_else(|| anyhow::anyhow!("there is nobody to enrol, or there are no strangers to look up: give photos of more people"))?;
        anyhow::ensure!(
            !split.mated.is_empty(),
            "nobody who is enrolled has a second photo to be found by: give photos of people with several photos each"
        );
        let (split, left_out) = without_enrolled(split);
        anyhow::ensure!(!split.mated.is_empty(), "all photos of enrolled people are those that are enrolled: give others to look up");
        let found = tokio::task::block_in_place(|| Found { left_out, ..Found::of(&split, &policy, (self.seed, &mut random)) });
        self.report.write(out, || found.report())?;
        found.tell(out)
    }
}

/// The same without searches for the very picture that is enrolled, and how many those were: they find it always.
fn without_enrolled(mut split: Split) -> (Split, usize) {
    let all = split.mated.len();
    let enrolled = &split.enrolled;
    split.mated.retain(|face| enrolled.iter().all(|known| known.values != face.values));
    let left = all - split.mated.len();
    (split, left)
}

fn known(faces: Vec<crate::evaluate::FaceOfPhoto>) -> Vec<Known> {
    faces.into_iter().map(|face| Known { person: face.person, quality: face.quality, values: face.template.values().to_vec() }).collect()
}

/// The search as the daemon decides it: what is left above zero matches.
fn decided(found: &Searched, policy: &Policy, asked: Asked) -> Searched {
    let needed = policy.in_force(Purpose::Identify, None, Asked { quality: found.quality, ..asked }).threshold;
    // A face that breaks a hard limit of quality is not looked up.
    Searched { best: if found.quality > 0.0 && found.best >= needed { 1.0 } else { -1.0 }, ..*found }
}

impl Found {
    fn of(split: &Split, policy: &Policy, (seed, random): (u64, &mut fastrand::Rng)) -> Self {
        let probes: Vec<Known> = split.mated.iter().chain(&split.strangers).cloned().collect();
        let searches = search(&split.enrolled, &probes);
        let asked = Asked { comparisons: split.enrolled.len() as u64, quality: 1.0 };
        let in_force = policy.in_force(Purpose::Identify, None, asked);
        let decided: Vec<Searched> = searches.iter().map(|found| decided(found, policy, asked)).collect();
        let errors_in_force = [fpir(&decided, 0.0, seed), fnir(&decided, 0.0, seed)];
        let at_told = threshold_for(&searches, FPIR_TOLD);
        let by_size = by_size(split, at_told, (seed, random));
        Self { enrolled: split.enrolled.len(), left_out: 0, searches, in_force, errors_in_force, at_told, by_size, seed }
    }

    fn strangers(&self) -> u64 {
        self.searches.iter().filter(|found| found.is_right.is_none()).count() as u64
    }

    fn is_supported(&self, rate: f64) -> bool {
        rate >= rule_of_three(self.strangers())
    }

    fn tell(&self, out: Output) -> anyhow::Result<()> {
        let (first, missed) = (rank_one(&self.searches, self.seed), fnir(&self.searches, self.at_told, self.seed));
        let [fpir, fnir] = self.errors_in_force;
        if !out.json {
            let mut table = Table::of_facts();
            table.fact("enrolled", format!("{} people, one photo each", self.enrolled));
            table.fact("searches", format!("{} of enrolled people, {} of strangers", first.trials, self.strangers()));
            if self.left_out > 0 {
                table.fact("left out", format!("{} photos that are enrolled", self.left_out));
            }
            table.fact("rank 1", percent(first.rate(), first.interval));
            if self.is_supported(FPIR_TOLD) {
                table.fact(
                    &format!("FNIR at FPIR {FPIR_TOLD}"),
                    format!("{}, at {:.3}", percent(missed.rate(), missed.interval), self.at_told),
                );
            } else {
                table.fact(&format!("FNIR at FPIR {FPIR_TOLD}"), "too few strangers");
            }
            out.table(&table)?;
            out.line(&in_force_line("identify", &self.in_force))?;
            let mut table = Table::of_facts();
            table.fact("FPIR", percent(fpir.rate(), fpir.interval));
            table.fact("FNIR", percent(fnir.rate(), fnir.interval));
            out.table(&table)?;
            let mut sizes = Table::new(["PEOPLE", "FPIR", "BY THE THEORY", "FNIR", "FNIR AT THAT FPIR"]);
            for size in &self.by_size {
                sizes.row([
                    size.people.to_string(),
                    percent(size.fpir.rate(), size.fpir.interval),
                    format!("{:.2} %", 100.0 * size.theory),
                    percent(size.fnir.rate(), size.fnir.interval),
                    if self.is_supported(FPIR_TOLD) {
                        percent(size.fnir_at_fpir.rate(), size.fnir_at_fpir.interval)
                    } else {
                        "too few strangers".into()
                    },
                ]);
            }
            out.line(&format!(
                "at {:.3}, by the number of people enrolled; last, where the threshold keeps an FPIR of {FPIR_TOLD} among so many:",
                self.at_told
            ))?;
            return out.table(&sizes);
        }
        let rate =
            |rate: &Rate| json!({ "rate": rate.rate(), "low": rate.interval.low, "high": rate.interval.high, "searches": rate.trials });
        let by_size: Vec<Value> =
            self.by_size.iter().map(|size| json!({ "people": size.people, "fpir": rate(&size.fpir), "theory": size.theory, "fnir": rate(&size.fnir), "fnir_at_fpir_1pct": rate(&size.fnir_at_fpir) })).collect();
        out.object(&json!({
            "evaluation": "identification", "enrolled": self.enrolled, "left_out": self.left_out, "rank_one": rate(&first), "fnir_at_fpir_1pct": rate(&missed), "threshold_at_fpir_1pct": self.at_told,
            "fpir_1pct_supported": self.is_supported(FPIR_TOLD), "threshold": self.in_force.threshold, "target_fpir": self.in_force.target_rate, "expected_fpir": self.in_force.expected_rate, "target_fpir_supported": is_supported(&self.in_force), "fpir": rate(&fpir),
            "fnir": rate(&fnir), "by_size": by_size, "seed": self.seed,
        }))
    }

    fn report(&self) -> Report {
        let first = rank_one(&self.searches, self.seed);
        let told = [fpir(&self.searches, self.at_told, self.seed), fnir(&self.searches, self.at_told, self.seed)];
        let rows = [(self.in_force.threshold, self.errors_in_force), (self.at_told, told)].map(|(threshold, [fpir, fnir])| {
            vec![format!("{threshold:.3}"), percent(fpir.rate(), fpir.interval), percent(fnir.rate(), fnir.interval)]
        });
        let table = ReportTable { header: ["threshold", "FPIR (95 %)", "FNIR (95 %)"].map(str::to_owned).to_vec(), rows: rows.into() };
        Report {
            title: "Identification".into(),
            introduction: vec![format!(
                "{} people are enrolled by one photo each; {} searches are of them and {} of strangers. The closest is the right one in {}. Intervals are of a bootstrap over people.",
                self.enrolled,
                first.trials,
                self.strangers(),
                percent(first.rate(), first.interval)
            )],
            sections: vec![Section {
                heading: "Errors".into(),
                text: vec![format!(
                    "The first threshold is the one in force for good pictures, and its errors are by each picture's quality; the second {}.",
                    if self.is_supported(FPIR_TOLD) {
                        "keeps an FPIR of 1 % on these photos"
                    } else {
                        "is the highest that a stranger reaches: there are too few to tell of 1 %"
                    }
                )],
                tables: vec![table],
                figures: vec![self.by_threshold(), self.by_people(), self.missed_by_people()],
                ..Section::default()
            }],
        }
    }

    fn by_threshold(&self) -> Figure {
        let mut thresholds: Vec<f32> = self.searches.iter().map(|found| found.best).collect();
        thresholds.sort_by(f32::total_cmp);
        let (strangers, mates): (Vec<Searched>, Vec<Searched>) = self.searches.iter().partition(|found| found.is_right.is_none());
        let share = |of: &[Searched], is_error: &dyn Fn(&Searched) -> bool| {
            of.iter().filter(|found| is_error(found)).count() as f64 / of.len().max(1) as f64
        };
        let fpir = |threshold: f32| share(&strangers, &|found| found.best >= threshold);
        let fnir = |threshold: f32| share(&mates, &|found| found.best < threshold || found.is_right != Some(true));
        let curve = |rate: &dyn Fn(f32) -> f64| {
            // A rate holds up to a score that is seen, and changes just above it.
            let steps = thresholds.iter().flat_map(|threshold| [*threshold, threshold.next_up()]);
            steps.map(|threshold| (f64::from(threshold), rate(threshold))).collect()
        };
        Figure {
            title: format!("Errors by threshold, {} people enrolled", self.enrolled),
            caption: "Strangers who are taken for somebody (FPIR), and enrolled people who are not found (FNIR).".into(),
            x: Axis { label: "threshold".into(), scale: Scale::Linear, range: None },
            y: Axis { label: "share of searches".into(), scale: Scale::Linear, range: Some((0.0, 1.0)) },
            series: vec![
                Series { name: "FPIR".into(), points: curve(&fpir), style: Style::Line },
                Series { name: "FNIR".into(), points: curve(&fnir), style: Style::Line },
            ],
            markers: vec![Marker { x: f64::from(self.in_force.threshold), label: format!("in force {:.3}", self.in_force.threshold) }],
        }
    }

    fn missed_by_people(&self) -> Figure {
        let line = |of: fn(&BySize) -> &Rate| self.by_size.iter().map(|size| (size.people as f64, of(size).rate())).collect();
        Figure {
            title: "FNIR by the number of people enrolled".into(),
            caption: format!(
                "Enrolled people who are not found: at {:.3}, and where the threshold keeps an FPIR of 1 % among so many, which it rises for. The areas are 95 % intervals.",
                self.at_told
            ),
            x: Axis { label: "people enrolled".into(), scale: Scale::Log, range: None },
            y: Axis { label: "FNIR".into(), scale: Scale::Linear, range: None },
            series: vec![
                Series { name: "at one threshold".into(), points: band(&self.by_size, |size| &size.fnir), style: Style::Band },
                Series { name: "at one threshold".into(), points: line(|size| &size.fnir), style: Style::Line },
                Series { name: "at an FPIR of 1 %".into(), points: band(&self.by_size, |size| &size.fnir_at_fpir), style: Style::Band },
                Series { name: "at an FPIR of 1 %".into(), points: line(|size| &size.fnir_at_fpir), style: Style::Line },
            ],
            markers: Vec::new(),
        }
    }

    fn by_people(&self) -> Figure {
        let x = |size: &BySize| size.people as f64;
        let band = band(&self.by_size, |size| &size.fpir);
        Figure {
            title: format!("FPIR by the number of people enrolled, at {:.3}", self.at_told),
            caption: "The more people, the more a stranger looks like one of them. The theory is 1 − (1 − FMR)^N with the FMR of these photos; the area is the 95 % interval.".into(),
            x: Axis { label: "people enrolled".into(), scale: Scale::Log, range: None },
            y: Axis { label: "FPIR".into(), scale: Scale::Linear, range: None },
            series: vec![
                Series { name: "measured".into(), points: band, style: Style::Band },
                Series { name: "measured".into(), points: self.by_size.iter().map(|size| (x(size), size.fpir.rate())).collect(), style: Style::Line },
                Series { name: "theory".into(), points: self.by_size.iter().map(|size| (x(size), size.theory)).collect(), style: Style::Dashed },
            ],
            markers: Vec::new(),
        }
    }
}

/// An interval around a curve by the number of people.
fn band(sizes: &[BySize], of: impl Fn(&BySize) -> &Rate) -> Vec<(f64, f64)> {
    let lower = sizes.iter().map(|size| (size.people as f64, of(size).interval.low));
    lower.chain(sizes.iter().rev().map(|size| (size.people as f64, of(size).interval.high))).collect()
}

/// Errors at `threshold` among 1, 2, 5, 10, … of the enrolled people, drawn anew several times.
fn by_size(split: &Split, threshold: f32, (seed, random): (u64, &mut fastrand::Rng)) -> Vec<BySize> {
    let reaching = |known| search(std::slice::from_ref(known), &split.strangers).iter().filter(|found| found.best >= threshold).count();
    let comparisons = (split.enrolled.len() * split.strangers.len()).max(1);
    let fmr = split.enrolled.iter().map(reaching).sum::<usize>() as f64 / comparisons as f64;
    let steps = (0..).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_usize.pow(power)));
    let mut sizes: Vec<usize> = steps.take_while(|size| *size < split.enrolled.len()).collect();
    sizes.push(split.enrolled.len());
    let measured = |people: usize| {
        // By stranger, and by whoever is looked for: how often it ended in an error, of how many searches.
        let mut strangers = vec![(0_u64, 0_u64); split.strangers.len()];
        let mut mated = [vec![(0_u64, 0_u64); split.mated.len()], vec![(0_u64, 0_u64); split.mated.len()]];
        for _ in 0..SPLITS {
            let mut enrolled = split.enrolled.clone();
            random.shuffle(&mut enrolled);
            let enrolled = &enrolled[..people];
            let of_strangers = search(enrolled, &split.strangers);
            let thresholds = [threshold, threshold_for(&of_strangers, FPIR_TOLD)];
            for (count, found) in strangers.iter_mut().zip(of_strangers) {
                count.0 += u64::from(found.best >= threshold);
                count.1 += 1;
            }
            for (place, found) in search(enrolled, &split.mated).into_iter().enumerate().filter(|(_, found)| found.is_right.is_some()) {
                for (counts, threshold) in mated.iter_mut().zip(thresholds) {
                    counts[place].0 += u64::from(found.best < threshold || found.is_right != Some(true));
                    counts[place].1 += 1;
                }
            }
        }
        let [fnir, fnir_at_fpir] = mated.map(|counts| pooled(&by_person(&split.mated, counts), seed));
        BySize { people, fpir: pooled(&strangers, seed), theory: fpir_of_fmr(fmr, people as u64), fnir, fnir_at_fpir }
    };
    sizes.into_iter().map(measured).collect()
}

/// Counts by person instead of by face, without who was never looked for.
fn by_person(faces: &[Known], counts: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut people = std::collections::BTreeMap::<usize, (u64, u64)>::new();
    for (face, (events, trials)) in faces.iter().zip(counts).filter(|(_, (_, trials))| *trials > 0) {
        let of = people.entry(face.person).or_default();
        (of.0, of.1) = (of.0 + events, of.1 + trials);
    }
    people.into_values().collect()
}
