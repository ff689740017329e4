//! A server on the real stages, and what every test of the services needs.
//!
//! In: the models, a few photos. Out: a served connection. Prints what is left out.
//! Must not know: what the tests assert.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::faces;
use doorward::cameras::{CameraDefaults, Cameras};
use doorward::clock::{Clock, SystemClock};
use doorward::config::{Config, ServerConfig};
use doorward::decide::Policy;
use doorward::enrol::{Enrolment, EnrolmentParts};
use doorward::event_log::EventLog;
use doorward::gallery::Gallery;
use doorward::infer::Engine;
use doorward::ingest::Decode;
use doorward::pb;
use doorward::pb::sample_source::Source;
use doorward::photo::PhotoAnalyst;
use doorward::pipeline::{Pipeline, SceneSettings};
use doorward::recognise::Recogniser;
use doorward::rpc::{RpcParts, Server};
use doorward::store::Store;
use tokio::sync::oneshot;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

/// Far beyond what anything here takes, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server on the real stages. One engine serves all tests: its sessions are the machine's cores.
pub struct Served {
    pub address: SocketAddr,
    pub channel: Channel,
    pub events: EventLog,
    pub stop: oneshot::Sender<()>,
    pub ended: tokio::task::JoinHandle<()>,
    pub people: tempfile::TempDir,
    pub _data: Option<tempfile::TempDir>,
}

pub async fn serve(left_out: &str, recent_max: usize) -> Option<Served> {
    let data = tempfile::tempdir().expect("a directory");
    let served = serve_in(left_out, recent_max, (data.path(), SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
    Some(Served { _data: Some(data), ..served })
}

/// A server over the data in a directory that stays.
pub async fn serve_in(left_out: &str, recent_max: usize, (data, listen): (&Path, SocketAddr)) -> Option<Served> {
    static ENGINE: OnceLock<Option<Engine>> = OnceLock::new();
    let models = faces::models_dir(left_out)?;
    let engine = ENGINE.get_or_init(|| Some(faces::engine(&models))).clone()?;
    let people = tempfile::tempdir().expect("a directory");
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = Store::open(data).expect("the store opens");
    let facts = engine.facts().clone();
    let gallery = Gallery::new(facts.space.clone());
    let events = EventLog::open(store.clone(), recent_max).await.expect("a new log");
    let photos = PhotoAnalyst::new(engine.clone());
    let policy = Policy::fixed(facts.threshold);
    let enrolment = EnrolmentParts {
        photos: photos.clone(),
        store: store.clone(),
        gallery: gallery.clone(),
        clock: Arc::clone(&clock),
        people_dir: Some(people.path().into()),
        quality_min: 0.3,
        policy: policy.clone(),
    };
    let enrolment = Enrolment::new(enrolment);
    let pipeline = Pipeline::new(engine, gallery.clone(), events.clone(), Arc::clone(&clock));
    let parts = RpcParts {
        start_time: clock.now(),
        enrolment,
        recogniser: Recogniser::new(photos, gallery.clone(), facts.space.clone(), policy.clone()),
        cameras: Cameras::new(
            store.clone(),
            pipeline,
            Arc::clone(&clock),
            CameraDefaults { scene: scene(&policy), ca_file: None, decode: Decode::on_cpu() },
        ),
        events: events.clone(),
        store,
        gallery,
        engine_facts: facts,
        shadow: None,
        clock,
    };
    let config = ServerConfig { listen, ..ServerConfig::default() };
    let listener = tokio::net::TcpListener::bind(config.listen).await.expect("bound");
    let server = Server::open(&config, listener).await.expect("opened");
    let (handle, address) = (server.handle(), server.handle().local_address());
    handle.start(parts).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(async move {
        let stopped = async move {
            let _ = stopped.await;
        };
        server.serve(stopped).await.expect("an orderly end");
    });
    let channel = connect(address).await;
    Some(Served { address, channel, events, stop, ended, people, _data: None })
}

async fn connect(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).expect("a URI").connect().await.expect("connected")
}

impl Served {
    /// A connection beside the first.
    pub async fn another_channel(&self) -> Channel {
        connect(self.address).await
    }
}

pub fn scene(policy: &Policy) -> SceneSettings {
    SceneSettings { quality_min: 0.3, ..SceneSettings::of(&Config::default(), policy) }
}

/// A photo that `script/bootstrap` took from the registries, else one of the shared test data.
pub fn photo(name: &str, left_out: &str) -> Option<PathBuf> {
    let part = format!("photos/{name}");
    let taken =
        std::env::var_os("DOORWARD_FACES").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data"), PathBuf::from);
    let taken = taken.join(&part);
    if taken.exists() { Some(taken) } else { faces::shared_data(&part, left_out) }
}

pub fn bytes(name: &str, left_out: &str) -> Option<Vec<u8>> {
    photo(name, left_out).map(|path| std::fs::read(path).expect("the photo is readable"))
}

pub fn image(bytes: &[u8]) -> pb::SampleSource {
    pb::SampleSource { source: Some(Source::Image(bytes.to_vec())) }
}

pub fn new_subject(id: &str, photo: &[u8]) -> pb::CreateSubjectRequest {
    pb::CreateSubjectRequest {
        subject: Some(pb::Subject {
            id: id.into(),
            display_name: id.to_uppercase(),
            watchlists: vec!["staff".into()],
            ..Default::default()
        }),
        samples: vec![image(photo)],
        ..Default::default()
    }
}

pub fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo: {status:?}")).reason
}
