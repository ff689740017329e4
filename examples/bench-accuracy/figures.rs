//! The figures of the accuracy benchmark, from templates of known people.
//!
//! In: templates by person. Out: measured rates beside the rates that were promised, each with its interval.
//! Must not know: photos.

use doorward::calibration::{Asked, Calibration, measure};
use doorward::config::MirrorChoice;
use doorward::evaluate::compare::compare;
use doorward::evaluate::heads::{HeadSettings, all_pairs, learn, scored};
use doorward::evaluate::identification::{Known, Split, fnir, pooled, search, split, threshold_for};
use doorward::face::{TemplateSpace, dot};
use doorward::head::Rule;
use doorward::rates::{Interval, fmr_of_fpir, rule_of_three};
use doorward::train::split_people;
use serde_json::{Map, Value, json};

/// What chance begins with.
pub const SEED: u64 = 1;
const FMRS: [f64; 3] = [1e-2, 1e-3, 1e-4];
const SIZES: [usize; 3] = [100, 200, 400];
const FPIR: f64 = 0.01;
/// Random splits of who is enrolled.
const SPLITS: usize = 20;
/// Parts of the people, of which one is tested by what is calibrated on the others.
const FOLDS: usize = 5;
const RESAMPLES: usize = 400;

/// Rates beside those that were promised.
pub struct Kept {
    /// By target.
    pub measured: Value,
    /// What it costs enrolled people.
    pub fnmr: Value,
    /// `true` where every target lies in its interval, `false` where one does not; `"insufficient"` where one could not be tested.
    pub within: Value,
}

/// Searches beside what was promised.
pub struct Searches {
    /// By the number of people enrolled.
    pub measured: Value,
    /// FNIR at an FPIR of 1 %, half of the people enrolled.
    pub fnir: Value,
    /// As of [`Kept`].
    pub within: Value,
}

fn calibrated(faces: &[Known]) -> Calibration {
    let measured = measure(&scored(faces), (-1.0, 1.0), &dot);
    Calibration::new(&TemplateSpace::new("measured"), "cosine", ("the benchmark's", "bench-accuracy"), measured)
}

fn parted(faces: &[Known], share: f64, seed: u64) -> (Vec<Known>, Vec<Known>) {
    let people: Vec<usize> = faces.iter().map(|face| face.person).collect();
    let (rest, held_out) = split_people(&people, share, seed);
    let of = |places: Vec<usize>| places.into_iter().map(|place| faces[place].clone()).collect();
    (of(rest), of(held_out))
}

/// Everything that was tested held, or did not, or there was nothing to test by.
fn verdict(all: &[Option<bool>]) -> Value {
    match () {
        () if all.contains(&Some(false)) => json!(false),
        () if all.contains(&None) => json!("insufficient"),
        () => json!(true),
    }
}

/// FMR and FNMR of half of the people at thresholds that the other half calibrated, both ways round.
pub fn rates(faces: &[Known]) -> Kept {
    let (a, b) = parted(faces, 0.5, SEED);
    let (mut measured, mut fnmr, mut held) = (Map::new(), Map::new(), Vec::new());
    for target in FMRS {
        let (mut by_half, mut missed) = (Vec::new(), (0_u64, 0_u64));
        for (calibrating, tested) in [(&a, &b), (&b, &a)] {
            let calibration = calibrated(calibrating);
            let found = calibration.threshold(target, Asked { comparisons: 1, quality: 1.0 });
            let (rate, interval, trials) = false_matches(tested, found.threshold);
            let (rejected, mated) = false_non_matches(tested, found.threshold);
            missed = (missed.0 + rejected, missed.1 + mated);
            let is_enough = found.is_supported && target >= rule_of_three(trials);
            held.push(is_enough.then(|| interval.holds(target)));
            eprintln!(
                "FMR target {target:e}: threshold {:.3}, measured {rate:.2e} ({:.1e} to {:.1e})",
                found.threshold, interval.low, interval.high
            );
            by_half.push(json!({ "threshold": found.threshold, "measured": rate, "low": interval.low, "high": interval.high, "comparisons": trials, "supported": is_enough }));
        }
        measured.insert(format!("{target:e}"), by_half.into());
        fnmr.insert(format!("{target:e}"), json!(missed.0 as f64 / missed.1.max(1) as f64));
    }
    Kept { measured: measured.into(), fnmr: fnmr.into(), within: verdict(&held) }
}

/// The share of non-mated comparisons that reach `threshold`, with a bootstrap over people.
fn false_matches(faces: &[Known], threshold: f32) -> (f64, Interval, u64) {
    let (mut reaching, mut trials) = (Vec::new(), 0_u64);
    for (index, a) in faces.iter().enumerate() {
        for b in faces[index + 1..].iter().filter(|b| b.person != a.person) {
            trials += 1;
            if dot(&a.values, &b.values) >= threshold {
                reaching.push((a.person, b.person));
            }
        }
    }
    let people = faces.iter().map(|face| face.person).max().map_or(0, |last| last + 1);
    let present: Vec<usize> = {
        let mut present: Vec<usize> = faces.iter().map(|face| face.person).collect();
        present.dedup();
        present
    };
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut draw = || {
        let mut drawn = vec![0.0_f64; people];
        (0..present.len()).for_each(|_| drawn[present[random.usize(0..present.len())]] += 1.0);
        let all: f64 = faces.iter().map(|face| drawn[face.person]).sum();
        let count: f64 = reaching.iter().map(|(a, b)| drawn[*a] * drawn[*b]).sum();
        count / (all * all / (faces.len() as f64).powi(2) * trials as f64)
    };
    let interval = Interval::of_resamples((0..RESAMPLES).map(|_| draw()).collect()).unwrap_or(Interval { low: 0.0, high: 1.0 });
    (reaching.len() as f64 / trials.max(1) as f64, interval, trials)
}

fn false_non_matches(faces: &[Known], threshold: f32) -> (u64, u64) {
    let pairs = faces.iter().enumerate().flat_map(|(index, a)| faces[index + 1..].iter().map(move |b| (a, b)));
    let mated = pairs.filter(|(a, b)| a.person == b.person);
    mated.fold((0, 0), |(rejected, count), (a, b)| (rejected + u64::from(dot(&a.values, &b.values) < threshold), count + 1))
}

/// FPIR among 100, 200 and 400 people, whose other people are strangers, over random splits. Each stranger is judged by a
/// calibration in which neither the stranger nor a fifth of the others is.
pub fn searches(faces: &[Known]) -> Searches {
    let people = faces.iter().map(|face| face.person).max().map_or(0, |last| last + 1);
    let fold_of = |person: usize| (person * 7_919) % FOLDS;
    let calibrations: Vec<Calibration> =
        (0..FOLDS).map(|fold| calibrated(&faces.iter().filter(|face| fold_of(face.person) != fold).cloned().collect::<Vec<_>>())).collect();
    let mut random = fastrand::Rng::with_seed(SEED);
    let (mut measured, mut held) = (Map::new(), Vec::new());
    for size in SIZES {
        let asked = Asked { comparisons: size as u64, quality: 1.0 };
        let thresholds: Vec<_> = calibrations.iter().map(|calibration| calibration.threshold(FPIR, asked)).collect();
        let mut counts = vec![(0_u64, 0_u64); people];
        let mut strangers_least = usize::MAX;
        for _ in 0..SPLITS {
            let Some(Split { enrolled, strangers, .. }) = split(faces, size, &mut random) else { continue };
            strangers_least = strangers_least.min(strangers.len());
            for found in search(&enrolled, &strangers) {
                counts[found.person].0 += u64::from(found.best >= thresholds[fold_of(found.person)].threshold);
                counts[found.person].1 += 1;
            }
        }
        counts.retain(|(_, trials)| *trials > 0);
        let rate = pooled(&counts, SEED);
        let is_enough = thresholds.iter().all(|threshold| threshold.is_supported)
            && strangers_least != usize::MAX
            && FPIR >= rule_of_three(strangers_least as u64);
        held.push(is_enough.then(|| rate.interval.holds(FPIR)));
        eprintln!(
            "FPIR target {FPIR} among {size}: threshold {:.3}, measured {:.4} ({:.4} to {:.4}); an FMR of {:.1e} is asked of each comparison",
            thresholds[0].threshold,
            rate.rate(),
            rate.interval.low,
            rate.interval.high,
            fmr_of_fpir(FPIR, size as u64)
        );
        measured.insert(
            size.to_string(),
            json!({ "threshold": thresholds[0].threshold, "measured": rate.rate(), "low": rate.interval.low, "high": rate.interval.high,
                    "strangers": (strangers_least != usize::MAX).then_some(strangers_least), "supported": is_enough }),
        );
    }
    let fnir = split(faces, people / 2, &mut random).map_or(Value::Null, |half| {
        let probes: Vec<Known> = half.mated.iter().chain(&half.strangers).cloned().collect();
        let found = search(&half.enrolled, &probes);
        let threshold = threshold_for(&found, FPIR);
        let rate = fnir(&found, threshold, SEED);
        eprintln!("FNIR at an FPIR of {FPIR} among {}: {:.4} ({:.4} to {:.4})", half.enrolled.len(), rate.rate(), rate.interval.low, rate.interval.high);
        json!({ "rate": rate.rate(), "low": rate.interval.low, "high": rate.interval.high, "enrolled": half.enrolled.len(), "threshold": threshold,
                "supported": FPIR >= rule_of_three(half.strangers.len() as u64) })
    });
    Searches { measured: measured.into(), fnir, within: verdict(&held) }
}

/// The four heads, each trained on half of the people and tested on the other half.
pub fn heads(faces: &[Known], space: &TemplateSpace) -> anyhow::Result<Value> {
    let (training, tested) = parted(faces, 0.5, SEED);
    let pairs = all_pairs(&training, SEED);
    let mut heads = Map::new();
    for rule in [Rule::Euclidean, Rule::AbsDiff, Rule::Chi2] {
        let settings =
            HeadSettings { rule, l2: 0.01, seed: SEED, space, mirror: MirrorChoice::Off, origin: ("the benchmark's", "bench-accuracy") };
        let learnt = learn(&training, &pairs, &settings)?;
        let Some(judgement) = compare(&tested, &dot, &|a, b| learnt.head.score(a, b)) else { continue };
        let of = |rate: f64| json!({ "fnmr": rate, "at_fmr": judgement.fmr, "mated": judgement.before.trials });
        heads.entry("cosine").or_insert_with(|| of(judgement.before.rate()));
        heads.insert(rule.name().to_owned(), of(judgement.after.rate()));
        eprintln!(
            "{:<9} FNMR {:.4} at FMR {:e}; the cosine {:.4}",
            rule.name(),
            judgement.after.rate(),
            judgement.fmr,
            judgement.before.rate()
        );
    }
    Ok(heads.into())
}
