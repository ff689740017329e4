//! The promises of a subscription under kills, stalls, broken connections, restarts and compaction.
//!
//! In: a child, this same binary, that serves a log over gRPC, appends to it and cuts its old end, and
//! is killed with SIGKILL and started again after seeded numbers of events; subscribers that stop
//! reading, hang up and come back. Out: no breach in what the subscribers wrote down.
//! `DOORWARD_CONTRACT_EVENTS` says how many events, `DOORWARD_CONTRACT_SEED` another order of things.
//! Must not know: the log's insides.

mod checker;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use doorward::clock::Timestamp;
use doorward::event::{Event, EventKind};
use doorward::event_log::EventLog;
use doorward::pb;
use doorward::pb::event_service_client::EventServiceClient;
use doorward::pb::subscribe_request::{Earliest, Start};
use doorward::store::Retention;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::rpc::served;
use checker::{Entry, Log, Seen};

/// Where the child keeps its data and listens; without it the child's test does nothing.
const CHILD: &str = "DOORWARD_TEST_CONTRACT_CHILD";
const WRITERS: u64 = 3;
const CAMERAS: [&str; 3] = ["front", "back", "yard"];
/// What the log keeps, in bytes: little enough that whoever stays away for long comes back too late.
const KEPT_BYTES: u64 = 4_000_000;
/// How many newest events are in memory: little enough that most of a catch-up is from disk.
const RECENT_MAX: usize = 256;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
#[ignore = "the child that no_promise_is_broken_by_kills_stalls_and_compaction starts and kills"]
fn child_that_serves_a_log_until_it_is_killed() {
    let Ok(place) = std::env::var(CHILD) else {
        println!("left out: {CHILD} is not set");
        return;
    };
    let (run, address, directory) = place
        .split_once(' ')
        .and_then(|(run, rest)| Some((run, rest.split_once(' ')?)))
        .map(|(run, (a, d))| (run, a, d))
        .expect("three words");
    let address: SocketAddr = address.parse().expect("an address");
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let serving = served::serve_in("", RECENT_MAX, (Path::new(directory), address)).await.expect("it serves");
        let quiet = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> =
            (0..WRITERS).map(|writer| tokio::spawn(write(serving.events.clone(), format!("{run}-{writer}"), Arc::clone(&quiet)))).collect();
        let cutting = tokio::spawn(cut(serving.events.clone()));
        // Until the parent says that it is enough; mostly it kills instead.
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.expect("read").expect("a line");
        quiet.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.expect("it ends");
        }
        say(&format!("NEWEST {}", serving.events.position().sequence));
        cutting.await.expect("until the end");
    });
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n{line}\n").as_bytes()).and_then(|()| out.flush()).expect("the parent reads");
}

async fn write(log: EventLog, name: String, quiet: Arc<AtomicBool>) {
    let mut random = fastrand::Rng::with_seed(name.bytes().map(u64::from).sum());
    let mut written = 0;
    while !quiet.load(Ordering::Relaxed) {
        let count = random.u64(1..60);
        let events = (written..written + count).map(|n| {
            let mut event = Event::new(EventKind::Unidentified, random.choice(CAMERAS).expect("there are some"), Timestamp::from_micros(1));
            event.message = Some(format!("{name}-{n}"));
            event
        });
        log.append(events.collect()).await.expect("appended");
        say(&format!("ACK {name} {written} {count}"));
        written += count;
    }
}

async fn cut(log: EventLog) {
    let always = Timestamp::from_micros(i64::MIN);
    let kept = Retention { events_since: always, event_bytes_max: KEPT_BYTES, snapshots_since: always, snapshot_bytes_max: u64::MAX };
    loop {
        log.prune(kept).await.expect("pruned");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A child that runs, and what it has acknowledged.
struct Daemon {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Daemon {
    fn start(run: u64, address: SocketAddr, directory: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this binary"));
        command.args(["--exact", "contract::child_that_serves_a_log_until_it_is_killed", "--ignored", "--nocapture"]);
        command.env(CHILD, format!("{run} {address} {}", directory.display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the child starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        Self { child, lines }
    }

    /// The names of the next acknowledged events; `None` once it says that it is quiet, with the newest.
    fn next(&mut self) -> Result<Vec<String>, u64> {
        loop {
            let line = self.lines.next().expect("it goes on").expect("text");
            let words: Vec<_> = line.split(' ').collect();
            match words.as_slice() {
                ["ACK", name, first, count] => {
                    let (first, count): (u64, u64) = (first.parse().expect("a number"), count.parse().expect("a number"));
                    return Ok((first..first + count).map(|n| format!("{name}-{n}")).collect());
                }
                ["NEWEST", newest] => return Err(newest.parse().expect("a number")),
                _ => {}
            }
        }
    }

    fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it has ended");
        let mut rest = Vec::new();
        for line in self.lines.map_while(Result::ok) {
            if let ["ACK", name, first, count] = line.split(' ').collect::<Vec<_>>().as_slice() {
                let (first, count): (u64, u64) = (first.parse().expect("a number"), count.parse().expect("a number"));
                rest.extend((first..first + count).map(|n| format!("{name}-{n}")));
            }
        }
        rest
    }
}

/// How a subscriber behaves.
#[derive(Clone)]
struct Habit {
    name: &'static str,
    camera: Option<&'static str>,
    /// Of a thousand responses, how many are followed by a stall, and by hanging up.
    stalls: u64,
    hangs_up: u64,
    stall_ms_max: u64,
}

/// One subscriber, and what it wrote down.
struct Subscriber {
    habit: Habit,
    address: SocketAddr,
    /// The event to stop at, once it is known.
    newest: Arc<AtomicU64>,
    random: fastrand::Rng,
    /// The last cursor and the sequence it stands for.
    cursor: Option<(String, u64)>,
    entries: Vec<Entry>,
}

impl Subscriber {
    /// Subscribes again and again, each time from the last cursor, until it has seen the newest.
    async fn run(mut self) -> Log {
        while self.cursor.as_ref().is_none_or(|(_, at)| *at < self.newest.load(Ordering::Relaxed)) {
            let Err(status) = self.session().await else { continue };
            if status.code() == Code::OutOfRange {
                let info = status.get_details_error_info().expect("a reason");
                assert_eq!(info.reason, "CURSOR_TOO_OLD", "{status:?}");
                self.entries.push(Entry::Refused { oldest: info.metadata["oldest_sequence"].parse().expect("a number") });
                self.cursor = None;
                continue;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Log { subscriber: self.habit.name.into(), camera: self.habit.camera.map(str::to_owned), entries: self.entries }
    }

    /// One subscription, until it breaks, hangs up or has seen the newest.
    async fn session(&mut self) -> Result<(), Status> {
        let away = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        let mut client = EventServiceClient::connect(format!("http://{}", self.address)).await.map_err(away)?;
        let start = self.cursor.as_ref().map_or(Start::Earliest(Earliest {}), |(cursor, _)| Start::Cursor(cursor.clone()));
        let camera_ids = self.habit.camera.iter().map(|&camera| camera.to_owned()).collect();
        let request = pb::SubscribeRequest { start: Some(start), camera_ids, allow_missing: true, ..Default::default() };
        let mut stream = client.subscribe(request).await?.into_inner();
        let mut has_begun = false;
        while let Some(response) = stream.message().await? {
            let position = response.position.as_ref().expect("every response has one");
            if !has_begun {
                has_begun = true;
                assert!(response.events.is_empty(), "the first response only says where the stream stands");
                self.entries.push(Entry::Began { asked: self.cursor.as_ref().map(|(_, at)| *at), position: position.sequence });
            }
            // Now and then the connection breaks in the middle of a response.
            let hangs_up = self.random.u64(0..1_000) < self.habit.hangs_up;
            let taken = if hangs_up { self.random.usize(0..=response.events.len()) } else { response.events.len() };
            for event in response.events.iter().take(taken) {
                let (epoch, camera, name) = (event.epoch.clone(), event.camera_id.clone(), event.message.clone());
                self.entries.push(Entry::Event(Seen { epoch, sequence: event.sequence, camera, name }));
                self.cursor = Some((event.cursor.clone(), event.sequence));
            }
            if hangs_up {
                return Ok(());
            }
            self.entries.push(Entry::Position(position.sequence));
            self.cursor = Some((position.cursor.clone(), position.sequence));
            if position.sequence >= self.newest.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.random.u64(0..1_000) < self.habit.stalls {
                tokio::time::sleep(Duration::from_millis(self.random.u64(1..=self.habit.stall_ms_max))).await;
            }
        }
        Err(Status::unavailable("the stream ended without a status"))
    }
}

const HABITS: [Habit; 6] = [
    Habit { name: "witness", camera: None, stalls: 0, hangs_up: 0, stall_ms_max: 1 },
    Habit { name: "restless", camera: None, stalls: 0, hangs_up: 60, stall_ms_max: 1 },
    Habit { name: "slow", camera: None, stalls: 500, hangs_up: 5, stall_ms_max: 30 },
    Habit { name: "often away", camera: None, stalls: 20, hangs_up: 20, stall_ms_max: 4_000 },
    Habit { name: "front only", camera: Some("front"), stalls: 50, hangs_up: 20, stall_ms_max: 100 },
    Habit { name: "yard only", camera: Some("yard"), stalls: 5, hangs_up: 40, stall_ms_max: 2_000 },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_promise_is_broken_by_kills_stalls_and_compaction() {
    if crate::faces::models_dir("the contract of subscriptions").is_none() {
        return;
    }
    let (events, seed) = (number("DOORWARD_CONTRACT_EVENTS", 100_000), number("DOORWARD_CONTRACT_SEED", 20_26));
    println!("seed {seed}, {events} events");
    let mut random = fastrand::Rng::with_seed(seed);
    let directory = tempfile::tempdir().expect("a directory");
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let newest = Arc::new(AtomicU64::new(u64::MAX));
    let subscribers: Vec<_> = HABITS
        .into_iter()
        .map(|habit| Subscriber { habit, address, newest: Arc::clone(&newest), random: random.fork(), cursor: None, entries: Vec::new() })
        .map(|subscriber| tokio::spawn(subscriber.run()))
        .collect();
    let path = directory.path().to_owned();
    let turns = 8;
    let (acknowledged, daemon) = tokio::task::spawn_blocking(move || {
        let mut acknowledged = BTreeSet::new();
        for turn in 0.. {
            let mut daemon = Daemon::start(turn, address, &path);
            let enough = (acknowledged.len() as u64 + events / turns / 2 + random.u64(0..events / turns)).min(events);
            while (acknowledged.len() as u64) < enough {
                acknowledged.extend(daemon.next().expect("it is not quiet"));
            }
            if acknowledged.len() as u64 >= events {
                writeln!(daemon.child.stdin.as_mut().expect("piped"), "enough").expect("it reads");
                let last = loop {
                    match daemon.next() {
                        Ok(names) => acknowledged.extend(names),
                        Err(last) => break last,
                    }
                };
                newest.store(last, Ordering::Relaxed);
                return (acknowledged, daemon);
            }
            acknowledged.extend(daemon.kill());
        }
        unreachable!("it ends with enough events")
    })
    .await
    .expect("the daemons ran");
    let mut logs = Vec::new();
    for subscriber in subscribers {
        logs.push(tokio::time::timeout(Duration::from_secs(120), subscriber).await.expect("it catches up").expect("no panic"));
    }
    daemon.kill();
    let truth = checker::truth(&logs[0]);
    let mut breaches = checker::breaches_of_witness(&logs[0], &acknowledged);
    for log in &logs[1..] {
        breaches.extend(checker::breaches(log, &truth));
    }
    for log in &logs {
        let count = |is: fn(&Entry) -> bool| log.entries.iter().filter(|entry| is(entry)).count();
        println!(
            "{}: {} events, {} sessions, {} times too late",
            log.subscriber,
            count(|e| matches!(e, Entry::Event(_))),
            count(|e| matches!(e, Entry::Began { .. })),
            count(|e| matches!(e, Entry::Refused { .. }))
        );
    }
    breaches.truncate(20);
    assert_eq!(breaches, [], "seed {seed}");
    assert!(truth.len() >= acknowledged.len(), "{} of {} events were seen", truth.len(), acknowledged.len());
    assert!(logs.iter().all(|log| log.entries.iter().filter(|e| matches!(e, Entry::Began { .. })).count() > 3), "nobody was ever cut off");
    assert!(logs.iter().any(|log| log.entries.iter().any(|e| matches!(e, Entry::Refused { .. }))), "nobody ever came too late");
}
