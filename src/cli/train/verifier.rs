//! `doorward train verifier`: a head that says of two templates whether they are of one person.
//!
//! In: photos of known people, or labelled pairs. Out: a head, if it is better than the cosine.
//! Must not know: how it is fitted.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::json;

use super::super::embedding::{EmbeddingOptions, check_writable, embed};
use super::super::failure::Told;
use super::super::output::Output;
use super::super::threshold::share as share_in_words;
use super::{json as judged, lines, write};
use crate::calibration::Scored;
use crate::evaluate::heads::{Assessed, HeadSettings, Pairs, Panel, all_pairs, assess, learn};
use crate::evaluate::identification::Known;
use crate::evaluate::{Embedder, FaceOfPhoto, Folder, PhotoFile, pairs};
use crate::head::Rule;
use crate::photo::Worsening;
use crate::rates::rule_of_three;
use crate::train::split_people;

/// Trains a head that says of two photos whether they are of one person (no daemon needed)
///
/// A logistic unit is fitted to differences of templates, with weights held near zero, on some of the people; half of the others decide
/// whether it is better than the cosine, and the scores of the rest are its calibration, as they are and made worse (far away, out of
/// focus). Set recognition.verifier to the file to have `Verify` use it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward train verifier --head abs-diff photos/ --output verifier.json
  doorward train verifier --head chi2 pairs.csv --l2 0.01 --output verifier.json --set models_dir=models

A folder of photos has a folder for each person: photos/<person>/<photo>.jpg; photos of a list of pairs lie beside it.")]
pub struct Verifier {
    /// Photos of known people, or a list of pairs (file_a,file_b,same)
    #[arg(value_name = "DIR|PAIRS")]
    photos: PathBuf,
    /// What is made of two templates
    #[arg(long, value_enum, default_value_t = HeadRule::AbsDiff)]
    head: HeadRule,
    /// How strongly weights are held near zero
    #[arg(long, default_value_t = 0.01, value_parser = super::positive)]
    l2: f64,
    /// The share of people that are held out
    #[arg(long, value_name = "SHARE", default_value_t = 0.5, value_parser = share)]
    held_out: f64,
    /// What chance begins with
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The file to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Write it although it is no better
    #[arg(long)]
    even_if_no_better: bool,
    #[command(flatten)]
    embedding: EmbeddingOptions,
}

/// What a head makes of two templates.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum HeadRule {
    /// The distance between them
    Euclidean,
    /// The difference of each number, weighed
    AbsDiff,
    /// The square of each difference over the sum, weighed
    Chi2,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0).ok_or_else(|| "give a share above 0 and below 1".into())
}

/// Of more photos some are left out: every two of those that are held out are compared.
const PHOTOS_MAX: usize = 8_000;

/// Photos with the people that they are of, and the pairs that a list names.
struct Source {
    photos: Vec<PhotoFile>,
    listed: Option<Vec<pairs::Pair>>,
}

impl Source {
    fn read(path: &Path) -> anyhow::Result<Self> {
        if path.is_dir() {
            let mut folder = Folder::read(path)?;
            if let Some(thinned) = folder.thin(PHOTOS_MAX) {
                eprintln!("{thinned}");
            }
            return Ok(Self { photos: folder.photos, listed: None });
        }
        let listed = pairs::read(path, path.parent().unwrap_or(Path::new("")))?;
        let mut paths: Vec<&PathBuf> = listed.iter().flat_map(|pair| [&pair.a, &pair.b]).collect();
        paths.sort_unstable();
        paths.dedup();
        // Whose photo it is says the folder that it lies in.
        let mut numbers: HashMap<&Path, usize> = HashMap::new();
        let mut photos = Vec::with_capacity(paths.len());
        for path in paths {
            let next = numbers.len();
            let person = *numbers.entry(path.parent().unwrap_or(path)).or_insert(next);
            photos.push(PhotoFile { person, path: path.clone() });
        }
        for pair in &listed {
            let of_one_folder = pair.a.parent() == pair.b.parent();
            anyhow::ensure!(
                pair.same == of_one_folder,
                "{} and {} are called {} and lie in {}: people are held out by their folders, so put each person's photos into one of their own",
                pair.a.display(),
                pair.b.display(),
                if pair.same { "one person" } else { "two people" },
                if of_one_folder { "one folder" } else { "two folders" }
            );
        }
        Ok(Self { photos, listed: Some(listed) })
    }

    /// The pairs to learn from, as places in `training`, whose photos are `places` of all.
    fn pairs(&self, training: &[Known], places: &[usize], seed: u64) -> Pairs {
        let Some(listed) = &self.listed else { return all_pairs(training, seed) };
        let place: HashMap<&PathBuf, usize> = places.iter().enumerate().map(|(place, photo)| (&self.photos[*photo].path, place)).collect();
        listed.iter().filter_map(|pair| Some((*place.get(&pair.a)?, *place.get(&pair.b)?))).collect()
    }
}

impl Verifier {
    pub(super) async fn run(self, out: Output) -> anyhow::Result<()> {
        check_writable(&self.output)?;
        let source = Source::read(&self.photos)?;
        let config = self.embedding.config()?;
        let embedder = self.embedding.open(&config).await?;
        let faces = embed(&embedder, &source.photos, (None, "looking at photos")).await?;
        let people: Vec<usize> = faces.iter().map(|face| face.person).collect();
        anyhow::ensure!(
            faces.windows(2).any(|two| two[0].person == two[1].person),
            "nobody has two photos to learn from: give folders with several photos of each person"
        );
        let (training, held_out) = split_people(&people, self.held_out, self.seed);
        let photos: Vec<usize> = training.iter().map(|place| faces[*place].photo).collect();
        let panel = Panel::of(&held_out.iter().map(|place| people[*place]).collect::<Vec<_>>(), self.seed)?;
        let of = |places: &[usize]| places.iter().map(|place| &faces[held_out[*place]]).collect::<Vec<_>>();
        let (judging, calibrating) = (of(&panel.judging), of(&panel.calibrating));
        let judges = judging.iter().map(|face| face.person).collect::<BTreeSet<_>>().len();
        let (training, judging) = (known(training.iter().map(|place| &faces[*place])), known(judging.into_iter()));
        let rule = match self.head {
            HeadRule::Euclidean => Rule::Euclidean,
            HeadRule::AbsDiff => Rule::AbsDiff,
            HeadRule::Chi2 => Rule::Chi2,
        };
        let command =
            format!("doorward train verifier --head {} --l2 {} --held-out {} --seed {}", rule.name(), self.l2, self.held_out, self.seed);
        let settings = HeadSettings {
            rule,
            l2: self.l2,
            seed: self.seed,
            space: embedder.space(),
            mirror: config.infer.mirror,
            origin: ("a site's own photos", &command),
        };
        let pairs = source.pairs(&training, &photos, self.seed);
        let learnt = tokio::task::block_in_place(|| learn(&training, &pairs, &settings))?;
        let counts = [learnt.mated, learnt.non_mated];
        let calibrating = scored(&embedder, &source.photos, calibrating.into_iter()).await?;
        let assessed = tokio::task::block_in_place(|| assess(learnt, &judging, &calibrating, &settings));
        let is_better = assessed.judgement.is_some_and(|judgement| judgement.is_better());
        let writes = is_better || self.even_if_no_better;
        if writes {
            write(&self.output, assessed.head.to_json()?.as_bytes())?;
        }
        self.tell(out, (counts, &assessed, (judges, panel.is_one)), writes)?;
        if writes { Ok(()) } else { Err(Told.into()) }
    }

    fn tell(
        &self,
        out: Output,
        ([mated, non_mated], assessed, (judges, is_one)): ([usize; 2], &Assessed, (usize, bool)),
        is_written: bool,
    ) -> anyhow::Result<()> {
        let (rule, judgement, calibration) = (assessed.head.rule, assessed.judgement.as_ref(), &assessed.head.calibration);
        if out.json {
            return out.object(&json!({
                "head": rule.name(), "pairs_mated": mated, "pairs_non_mated": non_mated, "judgement": judged(judgement),
                "people_judging": judges, "people_calibrating": calibration.people, "judges_calibrate": is_one,
                "written": is_written.then_some(&self.output), "seed": self.seed,
            }));
        }
        let name = rule.name();
        out.line(&format!("{name}: learnt from {mated} pairs of one person and {non_mated} of two people; seed {}", self.seed))?;
        lines(judgement, ("cosine", name)).iter().try_for_each(|line| out.line(line))?;
        if is_one {
            out.line(&format!(
                "{} people are held out, too few to part them: those who judged it are also its calibration, whose rates may be a little too good",
                judges
            ))?;
        }
        out.line(&if is_written {
            let lowest = share_in_words(rule_of_three(calibration.comparisons(1.0)));
            format!(
                "{}: calibrated by {} people, which supports false match rates from {lowest}; set recognition.verifier to it to have Verify use it",
                self.output.display(),
                calibration.people
            )
        } else {
            "not written: the cosine stays; --even-if-no-better writes it all the same".into()
        })
    }
}

fn known<'a>(faces: impl Iterator<Item = &'a FaceOfPhoto>) -> Vec<Known> {
    faces.map(|face| Known { person: face.person, quality: face.quality, values: face.template.values().to_vec() }).collect()
}

/// These faces, and those of the same photos made worse.
async fn scored<'a>(
    embedder: &Embedder,
    photos: &[PhotoFile],
    faces: impl Iterator<Item = &'a FaceOfPhoto>,
) -> anyhow::Result<Vec<Scored>> {
    let one = |face: &FaceOfPhoto, photo: usize| Scored {
        person: face.person,
        photo,
        quality: face.quality,
        is_worsened: face.worsening.is_some(),
        values: face.template.values().to_vec(),
    };
    let mut all: Vec<Scored> = faces.map(|face| one(face, face.photo)).collect();
    let places: Vec<usize> = all.iter().map(|face| face.photo).collect();
    let of_them: Vec<PhotoFile> = places.iter().map(|place| photos[*place].clone()).collect();
    for worsening in Worsening::ALL {
        let worse = embed(embedder, &of_them, (Some(worsening), worsening.name())).await?;
        all.extend(worse.iter().map(|face| one(face, places[face.photo])));
    }
    Ok(all)
}
