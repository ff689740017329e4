//! Compares everybody with everybody and counts the scores.
//!
//! In: templates of known people, as good as they came and made worse. Out: histograms by the probe's
//! quality, each rate with an interval by a bootstrap over people.
//! Must not know: photos, files, which model made the templates.

use std::collections::BTreeMap;

use super::{Band, Histogram, Spread};
use crate::rates::Interval;

/// Where bands of quality begin.
const BANDS: [f32; 3] = [0.0, 0.25, 0.5];
/// The width of a bin of cosines: finer than any threshold is worth.
const STEP: f32 = 0.002;
/// Rates that are given an interval.
const SPREAD_AT: [f64; 5] = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5];
/// A rate is given an interval only where this many scores reach its threshold.
const SPREAD_COUNT_MIN: f64 = 5.0;
const RESAMPLES: usize = 400;
const SEED: u64 = 20_261_125;

/// A face to be compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Whose, as a number.
    pub person: usize,
    /// Which photo it was made from: a photo is not compared with itself made worse.
    pub photo: usize,
    /// Overall quality, 0 to 1.
    pub quality: f32,
    /// Whether the photo was made worse: such a face is a probe, and nobody is enrolled from it.
    pub is_worsened: bool,
    /// The template's numbers.
    pub values: Vec<f32>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// How many people were compared.
    pub people: u64,
    /// How many photos.
    pub photos: u64,
    /// By quality, upwards.
    pub bands: Vec<Band>,
}

/// A score of two people.
struct NonMated {
    people: [u32; 2],
    score: f32,
}

/// The scores of one band, while they are gathered.
struct Gathered {
    mated: Histogram,
    non_mated: Vec<NonMated>,
}

/// Compares every probe with every reference that is another photo, by `score` in `[low, high]`.
pub fn measure(faces: &[Scored], (low, high): (f32, f32), score: &dyn Fn(&[f32], &[f32]) -> f32) -> Measured {
    let histogram = Histogram::over(low, high, STEP * (high - low) / 2.0);
    let mut bands: Vec<Gathered> = BANDS.iter().map(|_| Gathered { mated: histogram.clone(), non_mated: Vec::new() }).collect();
    let references: Vec<(usize, &Scored)> = faces.iter().enumerate().filter(|(_, face)| !face.is_worsened).collect();
    let number = numbers(&references);
    for (index, probe) in faces.iter().enumerate() {
        // Of two good photos either may be the probe, and they are compared once.
        for (_, reference) in references.iter().filter(|(other, face)| face.photo != probe.photo && (probe.is_worsened || *other > index)) {
            // The worse of both says how good the comparison is.
            let quality = probe.quality.min(reference.quality);
            let band = &mut bands[BANDS.iter().rposition(|begins| quality >= *begins).unwrap_or(0)];
            let score = score(&probe.values, &reference.values);
            match (number.get(&probe.person), number.get(&reference.person)) {
                (Some(a), Some(b)) if a != b => band.non_mated.push(NonMated { people: [*a, *b], score }),
                _ => band.mated.add(score),
            }
        }
    }
    let photos = references.len() as u64;
    let gathered = BANDS.iter().zip(bands).filter(|(_, gathered)| !gathered.non_mated.is_empty());
    let mut bands: Vec<Band> = gathered.map(|(begins, gathered)| band(*begins, gathered, (&histogram, number.len()))).collect();
    // Probes worse than any that were seen are treated as the worst that were.
    if let Some(worst) = bands.first_mut() {
        worst.quality_min = 0.0;
    }
    Measured { people: number.len() as u64, photos, bands }
}

/// The people, numbered from 0.
fn numbers(references: &[(usize, &Scored)]) -> BTreeMap<usize, u32> {
    let mut number = BTreeMap::new();
    for (_, face) in references {
        let next = u32::try_from(number.len()).unwrap_or(u32::MAX);
        number.entry(face.person).or_insert(next);
    }
    number
}

fn band(quality_min: f32, Gathered { mated, non_mated: scores }: Gathered, (empty, people): (&Histogram, usize)) -> Band {
    let mut non_mated = empty.clone();
    scores.iter().for_each(|comparison| non_mated.add(comparison.score));
    let unsure = Band { pairs: pairs(&scores, people), ..Band::new(quality_min, (non_mated, mated), people as u64) };
    let spread = spread(&unsure, &scores, people);
    Band { spread, ..unsure }
}

/// How many different pairs of people the scores are of.
fn pairs(scores: &[NonMated], people: usize) -> u64 {
    let mut compared = vec![0_u64; (people * people).div_ceil(64)];
    for NonMated { people: [a, b], .. } in scores {
        let at = *a.min(b) as usize * people + *a.max(b) as usize;
        compared[at / 64] |= 1 << (at % 64);
    }
    compared.iter().map(|pairs| u64::from(pairs.count_ones())).sum()
}

/// How far the FMR at each rate's threshold varies when the people are drawn anew, with replacement, from those that there
/// are (Bolle, Ratha and Pankanti, Error analysis of pattern recognition systems, 2004: the subsets bootstrap).
fn spread(band: &Band, scores: &[NonMated], people: usize) -> Vec<Spread> {
    let total = scores.len() as f64;
    let thresholds: Vec<(f64, f32)> =
        SPREAD_AT.iter().filter(|rate| **rate * total >= SPREAD_COUNT_MIN).map(|rate| (*rate, band.threshold(*rate))).collect();
    let Some(lowest) = thresholds.iter().map(|(_, threshold)| *threshold).reduce(f32::min) else { return Vec::new() };
    let high: Vec<&NonMated> = scores.iter().filter(|comparison| comparison.score >= lowest).collect();
    // In how many comparisons each person takes part.
    let mut parts = vec![0.0_f64; people];
    scores.iter().flat_map(|comparison| comparison.people).for_each(|person| parts[person as usize] += 1.0);
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut rates = vec![Vec::with_capacity(RESAMPLES); thresholds.len()];
    for _ in 0..RESAMPLES {
        let mut drawn = vec![0.0_f64; people];
        (0..people).for_each(|_| drawn[random.usize(0..people)] += 1.0);
        // The comparisons of the people drawn: every two people were compared about as often as each takes part.
        let share = parts.iter().zip(&drawn).map(|(parts, drawn)| parts * drawn).sum::<f64>() / (2.0 * total);
        let mut reaching = vec![0.0; thresholds.len()];
        for comparison in &high {
            let [a, b] = comparison.people.map(|person| drawn[person as usize]);
            for (reaching, (_, threshold)) in reaching.iter_mut().zip(&thresholds) {
                *reaching += if comparison.score >= *threshold { a * b } else { 0.0 };
            }
        }
        rates.iter_mut().zip(reaching).for_each(|(rates, reaching)| rates.push(reaching / (share * share * total)));
    }
    let interval = |((rate, _), rates): ((f64, f32), Vec<f64>)| {
        let Interval { low, high } = Interval::of_resamples(rates)?;
        Some(Spread { rate, low, high })
    };
    thresholds.into_iter().zip(rates).filter_map(interval).collect()
}
