//! Measures the gallery's exact search on random unit vectors.
//!
//! Fills a gallery, then answers each line of standard input with one JSON object: `search N` (the
//! time of a query when N are asked at once, on one core), `cores N` (N queries on one core and on all),
//! `bandwidth` (what one core reads at most), `compare` (whether the answers are those of a plain
//! scan of the same vectors), `publish` (the time to publish one enrolment, and of searches
//! meanwhile) and `erase` (the time until one person is erased from memory). `script/bench gallery` runs it beside FAISS. With `--store`, it puts the same people into a
//! daemon's data directory instead, for `script/bench start`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use doorward::clock::Timestamp;
use doorward::event::Candidate;
use doorward::face::{Quality, Template, TemplateSpace};
use doorward::gallery::{Gallery, GalleryVersion, Row, Search};
use doorward::models::Manifest;
use doorward::mutation::Mutation;
use doorward::store::{Call, Store};
use doorward::subject::{Origin, Sample, SampleId, Subject, SubjectId, SubjectUid};
use fastrand::Rng;
use serde_json::json;
use uuid::Uuid;

/// Subjects that are asked for.
const K: usize = 10;
/// Probes whose answers are compared with those of a plain scan.
const COMPARED: usize = 16;
/// Enrolments whose publication is timed, how many of them beside one search, and how often one comes.
const PUBLISHED: usize = 400;
/// People whose erasure is timed.
const ERASED: usize = 100;
const ENROLMENTS_A_SEARCH: usize = 10;
const ENROLMENT_PAUSE: Duration = Duration::from_millis(2);
/// People that are stored in one commit.
const STORED_TOGETHER: usize = 10_000;

#[derive(Parser)]
struct Arguments {
    /// Templates in the gallery, each of a subject of its own.
    #[arg(long, default_value_t = 1_000_000)]
    templates: usize,
    /// Numbers of a template.
    #[arg(long, default_value_t = 512)]
    dimension: usize,
    /// Queries that are timed.
    #[arg(long, default_value_t = 64)]
    queries: usize,
    /// Seed of the vectors.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A new data directory to put the people into, for the encoder of `--models`.
    #[arg(long, requires = "models")]
    store: Option<PathBuf>,
    /// Where the models lie.
    #[arg(long)]
    models: Option<PathBuf>,
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

fn sample(owner: usize) -> Sample {
    Sample {
        id: sample_id(owner),
        subject: uid(owner),
        quality: Quality::default(),
        content_sha256: [0; 32],
        create_time: Timestamp::default(),
        folder_path: None,
        negative: false,
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if let (Some(data), Some(models)) = (&arguments.store, &arguments.models) {
        let space = Manifest::load(models)?.space();
        return tokio::runtime::Runtime::new()?.block_on(store(data, &space, &arguments));
    }
    let bench = Bench::filled(arguments)?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let answer = match line.split_once(' ').unwrap_or((&line, "")) {
            ("search", together) => bench.search(together.parse()?)?,
            ("cores", together) => bench.cores(together.parse()?)?,
            ("bandwidth", _) => json!({ "read_gb_per_s": read_bandwidth(1) }),
            ("compare", _) => bench.compare()?,
            ("publish", _) => bench.publish()?,
            ("erase", _) => bench.erase()?,
            _ => anyhow::bail!("{line:?} is not known"),
        };
        println!("{answer}");
    }
    Ok(())
}

/// Puts everybody into a new data directory, with a template each of `space` and no photo.
async fn store(data: &Path, space: &TemplateSpace, arguments: &Arguments) -> anyhow::Result<()> {
    let store = Store::open(data)?;
    let mut rng = Rng::with_seed(arguments.seed);
    for first in (0..arguments.templates).step_by(STORED_TOGETHER) {
        let mut mutations = Vec::with_capacity(2 * STORED_TOGETHER);
        for number in first..arguments.templates.min(first + STORED_TOGETHER) {
            let template = random_unit(&mut rng, arguments.dimension)?;
            let template = Template::normalised(space.clone(), template.values())?;
            mutations.push(Mutation::PutSubject(subject(number)?));
            mutations.push(Mutation::PutSample { sample: sample(number), template, photo: Arc::new([]) });
        }
        let call = Call { method: "bench".into(), request_key: None };
        store.mutate(mutations, call, Box::new(|_| Vec::new())).await?;
    }
    Ok(())
}

/// A filled gallery.
struct Bench {
    arguments: Arguments,
    gallery: Gallery,
    probes: Vec<Template>,
}

impl Bench {
    fn filled(arguments: Arguments) -> anyhow::Result<Self> {
        let Arguments { templates, dimension, queries, seed, .. } = arguments;
        let gallery = Gallery::new(space());
        let subjects = (0..templates).map(subject).collect::<anyhow::Result<Vec<_>>>()?;
        let mut rng = Rng::with_seed(seed);
        let rows = (0..templates).map(|number| {
            let (subject, sample, template) = (uid(number), sample_id(number), random_unit(&mut rng, dimension)?);
            anyhow::Ok(Row { subject, sample, negative: false, template })
        });
        gallery.fill(1, subjects, rows)?;
        let mut rng = Rng::with_seed(seed ^ 0xffff);
        let probes = (0..queries.max(COMPARED)).map(|_| random_unit(&mut rng, dimension)).collect::<anyhow::Result<Vec<_>>>()?;
        println!("{}", json!({ "templates": templates, "dimension": dimension, "scanned_bytes_per_template": scanned_bytes(dimension) }));
        Ok(Self { arguments, gallery, probes })
    }

    /// The median time of a query when `together` are asked at once, on one core.
    fn search(&self, together: usize) -> anyhow::Result<serde_json::Value> {
        let version = self.gallery.current();
        let mut times = Vec::new();
        for probes in self.probes.chunks_exact(together) {
            times.push(time_of(&version, probes, Some(1))? / together as f64);
        }
        let scanned = self.arguments.templates * scanned_bytes(self.arguments.dimension);
        let gb_per_s = (scanned as f64 / 1e9) / (median(&times) * together as f64 / 1e3);
        Ok(json!({ "query_ms": median(&times), "scan_gb_per_s": gb_per_s }))
    }

    /// The median times of `together` queries at once on one core and on all, in turns; and how much
    /// faster all read memory than one does.
    fn cores(&self, together: usize) -> anyhow::Result<serde_json::Value> {
        let version = self.gallery.current();
        let (mut one, mut all) = (Vec::new(), Vec::new());
        for probes in self.probes.chunks_exact(together) {
            one.push(time_of(&version, probes, Some(1))?);
            all.push(time_of(&version, probes, None)?);
        }
        let cores = std::thread::available_parallelism()?.get();
        let memory_ratio = read_bandwidth(cores) / read_bandwidth(1);
        Ok(json!({ "cores": cores, "one_ms": median(&one), "all_ms": median(&all), "memory_ratio": memory_ratio }))
    }

    /// Whether the gallery answers as a plain scan over the same vectors, made once more.
    fn compare(&self) -> anyhow::Result<serde_json::Value> {
        let version = self.gallery.current();
        let probes: Vec<&Template> = self.probes[..COMPARED].iter().collect();
        let wanted = plain_answers(&probes, &self.arguments)?;
        let together = version.search_all(&probes, &Search::best(K))?;
        let one_by_one = probes.iter().map(|probe| version.search(probe, K)).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({ "identical": together == wanted && one_by_one == wanted }))
    }

    /// Milliseconds to publish one enrolment each, without the store; and of searches in turns with
    /// nothing beside them and with an enrolment every few milliseconds.
    fn publish(&self) -> anyhow::Result<serde_json::Value> {
        let (mut quiet, mut busy, mut published) = (Vec::new(), Vec::new(), Vec::new());
        let mut enrolments = self.enrolments(PUBLISHED)?.into_iter();
        for probe in self.probes.iter().cycle().take(PUBLISHED / ENROLMENTS_A_SEARCH) {
            quiet.push(time_of(&self.gallery.current(), std::slice::from_ref(probe), Some(1))?);
            let beside: Vec<_> = enrolments.by_ref().take(ENROLMENTS_A_SEARCH).collect();
            let (time, mut times) = std::thread::scope(|scope| {
                let writer = scope.spawn(|| self.enrol(beside));
                let time = time_of(&self.gallery.current(), std::slice::from_ref(probe), Some(1));
                (time, writer.join().unwrap_or_default())
            });
            busy.push(time?);
            published.append(&mut times);
        }
        published.sort_by(f64::total_cmp);
        let p99 = published.get(published.len() * 99 / 100);
        Ok(json!({
            "publish_ms_p50": median(&published), "publish_ms_p99": p99,
            "search_ms_quiet": median(&quiet), "search_ms_while_published": median(&busy),
        }))
    }

    /// Milliseconds until one person is gone from memory each, without the store.
    fn erase(&self) -> anyhow::Result<serde_json::Value> {
        let apart = (self.arguments.templates / ERASED).max(1);
        let mut times = Vec::new();
        for owner in (0..self.arguments.templates).step_by(apart).take(ERASED) {
            let (mutation, version) = ([Mutation::EraseSubject(uid(owner))], self.gallery.current().version() + 1);
            let before = self.gallery.current().template_count();
            let began = Instant::now();
            self.gallery.apply(version, &mutation);
            times.push(milliseconds(began.elapsed()));
            anyhow::ensure!(self.gallery.current().template_count() + 1 == before, "one row goes with one person");
        }
        times.sort_by(f64::total_cmp);
        Ok(json!({ "erase_ms_p50": median(&times), "erase_ms_p99": times.get(times.len() * 99 / 100) }))
    }

    fn enrolments(&self, count: usize) -> anyhow::Result<Vec<[Mutation; 2]>> {
        let mut rng = Rng::with_seed(self.arguments.seed ^ 0xaaaa);
        let first = self.arguments.templates;
        let enrolment = |owner: usize| {
            let put = Mutation::PutSample {
                sample: sample(owner),
                template: random_unit(&mut rng, self.arguments.dimension)?,
                photo: Arc::new([]),
            };
            Ok([Mutation::PutSubject(subject(owner)?), put])
        };
        (first..first + count).map(enrolment).collect()
    }

    fn enrol(&self, enrolments: Vec<[Mutation; 2]>) -> Vec<f64> {
        let enrol = |mutations: [Mutation; 2]| {
            std::thread::sleep(ENROLMENT_PAUSE);
            let version = self.gallery.current().version() + 1;
            let began = Instant::now();
            self.gallery.apply(version, &mutations);
            milliseconds(began.elapsed())
        };
        enrolments.into_iter().map(enrol).collect()
    }
}

/// Six bits a number, and two numbers a row.
fn scanned_bytes(dimension: usize) -> usize {
    dimension.div_ceil(16) * 12 + size_of::<(f32, f32)>()
}

/// Milliseconds of one search for all `probes`.
fn time_of(version: &GalleryVersion, probes: &[Template], cores_max: Option<usize>) -> anyhow::Result<f64> {
    let probes: Vec<&Template> = probes.iter().collect();
    let began = Instant::now();
    let found = version.search_all(&probes, &Search { cores_max, ..Search::best(K) })?;
    let time = milliseconds(began.elapsed());
    anyhow::ensure!(found.iter().all(|found| found.len() == K), "fewer than {K} candidates");
    Ok(time)
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Gigabytes a second that so many cores read: the best of some sums over memory that no cache holds.
fn read_bandwidth(cores: usize) -> f64 {
    let numbers: Vec<u64> = (0..64 << 20).collect();
    let once = || {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for part in numbers.chunks(numbers.len().div_ceil(cores)) {
                scope.spawn(|| std::hint::black_box(part.iter().fold(0_u64, |sum, number| sum.wrapping_add(*number))));
            }
        });
        size_of_val(numbers.as_slice()) as f64 / 1e9 / began.elapsed().as_secs_f64()
    };
    (0..10).map(|_| once()).fold(0.0, f64::max)
}

/// The answers of a plain scan over the same vectors, made once more.
fn plain_answers(probes: &[&Template], arguments: &Arguments) -> anyhow::Result<Vec<Vec<Candidate>>> {
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
    Ok(best)
}
