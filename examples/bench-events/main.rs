//! Measures what it takes to bring events to many subscribers over real connections.
//!
//! Serves a log of its own on loopback and starts its subscribers as other processes, so that nothing is
//! shared but the machine. Prints one JSON object for each figure; `script/bench events` gathers them.
//! `plain` is what one would write otherwise: a tonic stream for each subscriber, fed by a broadcast
//! channel, that encodes and sends every event alone.

mod plain;
mod subscribers;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Parser, Subcommand};
use doorward::cameras::{CameraDefaults, Cameras};
use doorward::clock::{Clock, SystemClock, Timestamp};
use doorward::config::{Config, InferConfig, ServerConfig};
use doorward::decide::Policy;
use doorward::device;
use doorward::enrol::{Enrolment, EnrolmentParts};
use doorward::event::{BoxInFrame, Candidate, Decision, Event, EventKind, Purpose, Rejection, StageTimes, TrackId, VisitId};
use doorward::event_log::EventLog;
use doorward::gallery::Gallery;
use doorward::infer::Engine;
use doorward::ingest::Decode;
use doorward::pb::event_service_server::EventServiceServer;
use doorward::photo::PhotoAnalyst;
use doorward::pipeline::{Pipeline, SceneSettings};
use doorward::recognise::Recogniser;
use doorward::rpc::{RpcParts, Server};
use doorward::store::Store;
use doorward::subject::SubjectUid;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::sync::broadcast;
use tokio_stream::wrappers::TcpListenerStream;
use uuid::Uuid;

use crate::plain::{Plain, plain_event};
use crate::subscribers::Subscribers;

/// The log's own ring, as the daemon has it.
const RECENT_MAX: usize = 4_096;
/// How many events one append holds when they come as fast as they can.
const THICK: u64 = 200;
/// When events come as fast as they can, the next ones wait until the slowest subscriber is no more
/// than this behind, in the log as in the plain stream.
const BEHIND_MAX: u64 = 2_000;
/// What the plain stream's channel holds: it must lose none.
const PLAIN_CHANNEL: usize = 4_096;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Events at a steady rate to many subscribers, of whom some may never read.
    Paced {
        #[arg(long, default_value = "models")]
        models: PathBuf,
        #[arg(long, default_value_t = 100)]
        subscribers: usize,
        /// More subscribers, who never read.
        #[arg(long, default_value_t = 0)]
        idle: usize,
        /// Events a second.
        #[arg(long, default_value_t = 500)]
        rate: u64,
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Events as fast as they can be delivered, by the log or by a plain stream.
    Saturated {
        #[arg(long, default_value = "models")]
        models: PathBuf,
        #[arg(long, default_value_t = 100)]
        subscribers: usize,
        #[arg(long, default_value_t = 50_000)]
        events: u64,
        #[arg(long)]
        plain: bool,
    },
    /// One subscriber that begins with the earliest of many events.
    CatchUp {
        #[arg(long, default_value = "models")]
        models: PathBuf,
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
    },
    /// The other process: subscribers that read until an event, and write down when each event came.
    Subscribe {
        address: SocketAddr,
        #[arg(long)]
        subscribers: usize,
        #[arg(long)]
        until: u64,
        #[arg(long)]
        earliest: bool,
        /// Never read instead.
        #[arg(long)]
        idle: bool,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let facts = match Arguments::parse().what {
        What::Paced { models, subscribers, idle, rate, seconds } => paced(&models, (subscribers, idle), (rate, seconds)).await?,
        What::Saturated { subscribers, events, plain: true, .. } => saturated_plain(subscribers, events).await?,
        What::Saturated { models, subscribers, events, plain: false } => saturated(&models, subscribers, events).await?,
        What::CatchUp { models, events } => catch_up(&models, events).await?,
        What::Subscribe { address, subscribers, until, earliest, idle } => {
            return subscribers::subscribe(address, subscribers, until, (earliest, idle)).await;
        }
    };
    println!("{facts}");
    Ok(())
}

/// The CPU time of this process in nanoseconds.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// This machine's running time in nanoseconds, the same in every process.
fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// An event such as a camera makes: a visit that begins, is decided, and ends.
fn event(number: u64) -> Event {
    let kind = match number % 3 {
        1 => EventKind::VisitStarted,
        2 => EventKind::Unidentified,
        _ => EventKind::VisitEnded,
    };
    let mut event = Event::new(kind, "front-door", Timestamp::from_micros(1_700_000_000_000_000 + number.cast_signed()));
    event.visit = Some(VisitId(Uuid::from_u128(u128::from(number / 3) << 64 | 7)));
    event.track = Some(TrackId(number / 3));
    event.box_in_frame = Some(BoxInFrame { x: 0.412_5, y: 0.219_3, width: 0.081, height: 0.144_2 });
    event.detection_score = Some(0.912_4);
    if kind != EventKind::VisitStarted {
        event.decision = Some(decision());
        event.quality = Some(0.731);
        event.shots.fused = 3;
        event.shots.rejected.insert("blurred".into(), 2);
    }
    if kind == EventKind::Unidentified {
        event.stage_times =
            Some(StageTimes { decode_ms: 8.1, wait_ms: 3.2, detect_ms: 6.4, encode_ms: 4.9, match_ms: 0.2, decide_ms: 0.01 });
    }
    event
}

fn decision() -> Decision {
    Decision {
        purpose: Purpose::Identify,
        subject: None,
        rejection: Some(Rejection::BelowThreshold),
        similarity: Some(0.213_7),
        threshold: 0.363,
        target_rate: None,
        expected_rate: None,
        basis: None,
        scope: None,
        runner_up: Some(Candidate { subject: SubjectUid(Uuid::from_u128(9)), similarity: 0.187_2 }),
        margin: Some(0.026_5),
        gallery_subjects: 412,
        gallery_version: 1_733,
        space: "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79/arcface-1/l2".into(),
        head: None,
    }
}

/// A served log.
struct Serving {
    address: SocketAddr,
    log: EventLog,
    _data: tempfile::TempDir,
}

impl Serving {
    async fn start(models: &Path) -> anyhow::Result<Self> {
        let infer = InferConfig { sessions: 1, ..InferConfig::default() };
        let engine = Engine::open(&infer, models, &device::resolve(&infer.device)?)?;
        let data = tempfile::tempdir()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let store = Store::open(data.path())?;
        let log = EventLog::open(store.clone(), RECENT_MAX).await?;
        let config = ServerConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), connections_max: 4_096, ..ServerConfig::default() };
        let listener = tokio::net::TcpListener::bind(config.listen).await?;
        let server = Server::open(&config, listener).await?;
        let handle = server.handle();
        handle.start(parts(engine, store, &log, clock)).await;
        tokio::spawn(server.serve(std::future::pending()));
        Ok(Self { address: handle.local_address(), log, _data: data })
    }
}

fn parts(engine: Engine, store: Store, log: &EventLog, clock: Arc<dyn Clock>) -> RpcParts {
    let facts = engine.facts().clone();
    let gallery = Gallery::new(facts.space.clone());
    let photos = PhotoAnalyst::new(engine.clone());
    let policy = Policy::fixed(facts.threshold);
    let enrolment = Enrolment::new(EnrolmentParts {
        photos: photos.clone(),
        store: store.clone(),
        gallery: gallery.clone(),
        clock: Arc::clone(&clock),
        people_dir: None,
        quality_min: 0.0,
        policy: policy.clone(),
    });
    let pipeline = Pipeline::new(engine, gallery.clone(), log.clone(), Arc::clone(&clock));
    RpcParts {
        start_time: clock.now(),
        enrolment,
        recogniser: Recogniser::new(photos, gallery.clone(), facts.space.clone(), policy.clone()),
        cameras: Cameras::new(
            store.clone(),
            pipeline,
            Arc::clone(&clock),
            CameraDefaults { scene: SceneSettings::of(&Config::default(), &policy), ca_file: None, decode: Decode::on_cpu() },
        ),
        events: log.clone(),
        store,
        gallery,
        engine_facts: facts,
        shadow: None,
        clock,
    }
}

/// The value that `part` of the values are not above, in milliseconds.
fn percentile_ms(values: &mut [u64], part: f64) -> f64 {
    values.sort_unstable();
    let index = (part * values.len().saturating_sub(1) as f64) as usize;
    values.get(index).map_or(f64::NAN, |ns| *ns as f64 / 1e6)
}

/// The memory of this process, in megabytes.
fn resident_mb() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1e3)
}

async fn paced(models: &Path, (subscribers, idle): (usize, usize), (rate, seconds): (u64, u64)) -> anyhow::Result<serde_json::Value> {
    let serving = Serving::start(models).await?;
    let last = rate * seconds;
    let never = (idle > 0).then(|| Subscribers::start(serving.address, idle, &["--idle"], 1)).transpose()?;
    let reading = Subscribers::start(serving.address, subscribers, &[], last)?;
    let before_mb = resident_mb()?;
    // When each was handed to the log, and when it was committed.
    let (mut begun, committed) = (HashMap::new(), Arc::new(Mutex::new(HashMap::new())));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(rate)?);
    let mut appends = tokio::task::JoinSet::new();
    for number in 1..=last {
        ticks.tick().await;
        begun.insert(number, now_ns());
        let (log, committed) = (serving.log.clone(), Arc::clone(&committed));
        let told = move |appended: doorward::store::Appended| {
            committed.lock().map(|mut times| times.insert(appended.first, now_ns())).ok();
        };
        appends.spawn(async move { log.append_then(vec![event(number)], told).await });
    }
    while let Some(appended) = appends.join_next().await {
        appended??;
    }
    let after_mb = resident_mb()?;
    let came = tokio::task::spawn_blocking(move || reading.times()).await??;
    if let Some(never) = never {
        never.end()?;
    }
    let committed = committed.lock().map_err(|_| anyhow::anyhow!("the writer panicked"))?;
    // Appends of one moment may reach the log in another order, which changes a time by one tick.
    let mut whole: Vec<u64> = came.iter().filter_map(|(sequence, at)| Some(at.saturating_sub(*begun.get(sequence)?))).collect();
    let mut from_commit: Vec<u64> = came.iter().filter_map(|(sequence, at)| Some(at.saturating_sub(*committed.get(sequence)?))).collect();
    let mut commits: Vec<u64> = committed.iter().filter_map(|(sequence, at)| Some(at.saturating_sub(*begun.get(sequence)?))).collect();
    anyhow::ensure!(whole.len() as u64 == last * subscribers as u64, "{} deliveries", whole.len());
    Ok(json!({
        "subscribers": subscribers, "idle": idle, "rate": rate,
        "p50_ms": percentile_ms(&mut whole, 0.5), "p99_ms": percentile_ms(&mut whole, 0.99),
        "commit_p99_ms": percentile_ms(&mut commits, 0.99),
        "from_commit_p50_ms": percentile_ms(&mut from_commit, 0.5), "from_commit_p99_ms": percentile_ms(&mut from_commit, 0.99),
        "server_mb_before": before_mb, "server_mb_after": after_mb,
    }))
}

async fn saturated(models: &Path, subscribers: usize, events: u64) -> anyhow::Result<serde_json::Value> {
    let serving = Serving::start(models).await?;
    let reading = Subscribers::start(serving.address, subscribers, &[], events)?;
    let began = (now_ns(), cpu_ns());
    for first in (1..=events).step_by(THICK as usize) {
        serving.log.append((first..(first + THICK).min(events + 1)).map(event).collect()).await?;
        while serving.log.subscribers().iter().any(|subscriber| subscriber.lag > BEHIND_MAX) {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
    let came = tokio::task::spawn_blocking(move || reading.times()).await??;
    rate("log", (subscribers, events), began, &came)
}

/// What came of events that were offered since `began`, in running time and in CPU time of this process.
fn rate(what: &str, (subscribers, events): (usize, u64), began: (u64, u64), came: &[(u64, u64)]) -> anyhow::Result<serde_json::Value> {
    let cpu_us = (cpu_ns() - began.1) as f64 / 1e3;
    let deliveries = came.len() as f64;
    anyhow::ensure!(came.len() as u64 == events * subscribers as u64, "{deliveries} deliveries");
    let last = came.iter().map(|(_, at)| *at).max().context("nothing came")?;
    let seconds = (last - began.0) as f64 / 1e9;
    Ok(json!({ "what": what, "deliveries_per_s": deliveries / seconds, "server_cpu_us_per_delivery": cpu_us / deliveries }))
}

async fn saturated_plain(subscribers: usize, events: u64) -> anyhow::Result<serde_json::Value> {
    let (sender, _) = broadcast::channel(PLAIN_CHANNEL);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = EventServiceServer::new(Plain(sender.clone()));
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    let reading = Subscribers::start(address, subscribers, &[], events)?;
    let began = (now_ns(), cpu_ns());
    for number in 1..=events {
        let _ = sender.send(Arc::new(plain_event(number, &event(number))));
        while number % THICK == 0 && sender.len() as u64 > BEHIND_MAX {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
    let came = tokio::task::spawn_blocking(move || reading.times()).await??;
    rate("plain", (subscribers, events), began, &came)
}

async fn catch_up(models: &Path, events: u64) -> anyhow::Result<serde_json::Value> {
    let serving = Serving::start(models).await?;
    for first in (1..=events).step_by(5_000) {
        serving.log.append((first..(first + 5_000).min(events + 1)).map(event).collect()).await?;
    }
    eprintln!("{events} events are in the log");
    let began = Instant::now();
    let reading = Subscribers::start(serving.address, 1, &["--earliest"], events)?;
    let came = tokio::task::spawn_blocking(move || reading.times()).await??;
    let seconds = began.elapsed().as_secs_f64();
    anyhow::ensure!(came.len() as u64 == events && came.iter().map(|(sequence, _)| *sequence).eq(1..=events), "{} came", came.len());
    Ok(json!({ "events": events, "events_per_s": events as f64 / seconds, "seconds": seconds }))
}
