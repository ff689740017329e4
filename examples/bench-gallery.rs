//! Measures the gallery's exact search on random unit vectors, on one core.
//!
//! Prints one JSON object: milliseconds of CPU a query, the memory bandwidth that this machine
//! reads with in the same run, the time to publish one enrolment, and whether the answers are
//! those of a plain scan of the same vectors. `script/bench gallery` runs it beside FAISS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use doorward::clock::Timestamp;
use doorward::event::Candidate;
use doorward::face::{Quality, Template, TemplateSpace};
use doorward::gallery::{Gallery, GalleryVersion};
use doorward::mutation::Mutation;
use doorward::subject::{Origin, Sample, SampleId, Subject, SubjectId, SubjectUid};
use fastrand::Rng;
use uuid::Uuid;

/// Subjects that are asked for.
const K: usize = 10;
/// Probes whose answers are compared with those of a plain scan.
const COMPARED: usize = 16;
/// Enrolments whose publication is timed.
const PUBLISHED: u32 = 200;

#[derive(Parser)]
struct Arguments {
    /// Templates in the gallery, each of a subject of its own.
    #[arg(long, default_value_t = 1_000_000)]
    templates: usize,
    /// Numbers of a template.
    #[arg(long, default_value_t = 512)]
    dimension: usize,
    /// Queries that are timed.
    #[arg(long, default_value_t = 40)]
    queries: usize,
    /// Seed of the vectors.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn space() -> TemplateSpace {
    TemplateSpace::new("bench")
}

/// A unit vector of any direction: normal numbers (Box and Muller, 1958), normalised.
fn random_unit(rng: &mut Rng, dimension: usize) -> anyhow::Result<Template> {
    let mut values = Vec::with_capacity(dimension + 1);
    while values.len() < dimension {
        let (radius, angle) = ((-2.0 * (1.0 - rng.f32()).ln()).sqrt(), rng.f32() * std::f32::consts::TAU);
        values.extend([radius * angle.cos(), radius * angle.sin()]);
    }
    Ok(Template::normalised(space(), &values[..dimension])?)
}

fn subject(number: usize) -> anyhow::Result<Subject> {
    Ok(Subject {
        id: SubjectId::parse(&format!("s{number}"))?,
        uid: uid(number),
        display_name: String::new(),
        watchlists: Vec::new(),
        attributes: BTreeMap::new(),
        consent_reference: String::new(),
        expire_time: None,
        origin: Origin::Rpc,
        create_time: Timestamp::default(),
        update_time: Timestamp::default(),
        revision: 1,
    })
}

fn uid(number: usize) -> SubjectUid {
    SubjectUid(Uuid::from_u128(number as u128))
}

fn sample_id(number: usize) -> SampleId {
    SampleId(Uuid::from_u128(number as u128))
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Arguments { templates, dimension, queries, seed } = arguments;
    let gallery = Gallery::new(space());
    let subjects = (0..templates).map(subject).collect::<anyhow::Result<Vec<_>>>()?;
    let mut rng = Rng::with_seed(seed);
    let rows = (0..templates).map_while(|number| Some((uid(number), sample_id(number), random_unit(&mut rng, dimension).ok()?)));
    let began = Instant::now();
    gallery.fill(1, subjects, rows);
    let fill_s = began.elapsed().as_secs_f64();
    anyhow::ensure!(gallery.current().template_count() == templates as u64, "a vector had no direction");

    let mut rng = Rng::with_seed(seed ^ 0xffff);
    let probes = (0..queries.max(COMPARED)).map(|_| random_unit(&mut rng, dimension)).collect::<anyhow::Result<Vec<_>>>()?;
    let version = gallery.current();
    let times = times(&version, &probes[..queries])?;
    let bandwidth = read_bandwidth();
    let scanned = templates * (dimension + 2 * size_of::<f32>());
    let median_ms = median(&times);
    let is_identical = is_identical(&version, &probes[..COMPARED], &arguments)?;
    drop(version);
    let published = publish(&gallery, &arguments)?;
    println!(
        "{}",
        serde_json::json!({
            "templates": templates, "dimension": dimension, "fill_s": fill_s,
            "query_ms": median_ms,
            "scanned_bytes_per_template": scanned / templates,
            "scan_gb_per_s": scanned as f64 / 1e9 / (median_ms / 1e3),
            "read_gb_per_s": bandwidth,
            "bandwidth_share": scanned as f64 / 1e9 / (median_ms / 1e3) / bandwidth,
            "identical": is_identical,
            "publish_ms_p50": median(&published), "publish_ms_p99": published[published.len() * 99 / 100],
        })
    );
    Ok(())
}

/// Milliseconds of each query, after one that warms up.
fn times(version: &GalleryVersion, probes: &[Template]) -> anyhow::Result<Vec<f64>> {
    version.search(&probes[0], K)?;
    let timed = probes.iter().map(|probe| {
        let began = Instant::now();
        let found = version.search(probe, K)?;
        anyhow::ensure!(found.len() == K, "{} candidates", found.len());
        Ok(milliseconds(began.elapsed()))
    });
    timed.collect()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Gigabytes a second that one core reads: the best of some sums over memory that no cache holds.
fn read_bandwidth() -> f64 {
    let numbers: Vec<u64> = (0..64 << 20).collect();
    let once = || {
        let began = Instant::now();
        let sum = numbers.iter().fold(0_u64, |sum, number| sum.wrapping_add(*number));
        std::hint::black_box(sum);
        size_of_val(numbers.as_slice()) as f64 / 1e9 / began.elapsed().as_secs_f64()
    };
    (0..10).map(|_| once()).fold(0.0, f64::max)
}

/// Whether the gallery answers as a plain scan over the same vectors, made once more.
fn is_identical(version: &GalleryVersion, probes: &[Template], arguments: &Arguments) -> anyhow::Result<bool> {
    let mut best: Vec<Vec<Candidate>> = vec![Vec::new(); probes.len()];
    let mut rng = Rng::with_seed(arguments.seed);
    for number in 0..arguments.templates {
        let row = random_unit(&mut rng, arguments.dimension)?;
        for (probe, best) in probes.iter().zip(&mut best) {
            let similarity = row.similarity(probe)?;
            let is_behind = |other: &Candidate| other.similarity < similarity;
            if best.len() < K || best.last().is_some_and(is_behind) {
                // Subjects come by rising uid: an equal one that came before stays before.
                let place = best.iter().position(is_behind).unwrap_or(best.len());
                best.insert(place, Candidate { subject: uid(number), similarity });
                best.truncate(K);
            }
        }
    }
    for (probe, best) in probes.iter().zip(best) {
        if version.search(probe, K)? != best {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Milliseconds to publish one enrolment each, sorted; the store is not asked.
fn publish(gallery: &Gallery, arguments: &Arguments) -> anyhow::Result<Vec<f64>> {
    let mut rng = Rng::with_seed(arguments.seed ^ 0xaaaa);
    let mut times = Vec::new();
    for number in 0..PUBLISHED {
        let owner = arguments.templates + number as usize;
        let id = sample_id(owner);
        let now = Timestamp::default();
        let sample =
            Sample { id, subject: uid(owner), quality: Quality::default(), content_sha256: [0; 32], create_time: now, folder_path: None };
        let put = Mutation::PutSample { sample, template: random_unit(&mut rng, arguments.dimension)?, photo: Arc::new([]) };
        let mutations = [Mutation::PutSubject(subject(owner)?), put];
        let began = Instant::now();
        gallery.apply(u64::from(number) + 2, &mutations);
        times.push(milliseconds(began.elapsed()));
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}
