//! Two batches on their way at once: while one waits for its graph, the device does everything for another.
//!
//! In: frames of noise, a detector that the test holds. Out: what is done meanwhile.
//! Must not know: models.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use doorward::config::{InferConfig, MirrorChoice};
use doorward::frame::PixelLayout;
use doorward::infer::cuda::{DeviceGraph, DeviceSession, DeviceTensor, Gpu, Graphs, Plan, RunError, Worker};
use doorward::infer::{CutFace, Engine, Lane};

use crate::driver::{StandIn, image, over_the_stand_in};
use crate::engine::{decoded, facts, on_device, request};
use crate::flow::{Decoder, manifest, noise};
use crate::graphs::graphs;

const SIZE: (usize, usize) = (641, 359);
/// How long the test waits for what never comes if batches wait for each other.
const FAILED_AFTER: Duration = Duration::from_secs(60);

/// The two ends that a graph holds while the test holds the graph: it says that it has begun, and waits.
type Held = Arc<Mutex<Option<(SyncSender<()>, Receiver<()>)>>>;

/// A detector that is held at its first run; of several with the same ends, the one that runs first.
struct HeldOnce {
    inner: Box<dyn DeviceGraph>,
    held: Held,
}

impl DeviceGraph for HeldOnce {
    fn run(&mut self, tensor: &DeviceTensor<'_>) -> Result<(), RunError> {
        let held = self.held.lock().unwrap().take();
        if let Some((begun, go)) = held {
            begun.send(()).unwrap();
            go.recv().unwrap();
        }
        self.inner.run(tensor)
    }

    fn output(&self, name: &str) -> Result<&[f32], String> {
        self.inner.output(name)
    }
}

/// An engine of two sessions, as a daemon has on a device, the detector held that runs first.
fn engine(stand_in: &'static StandIn, held: &Held) -> Engine {
    let session = || {
        let held = held.clone();
        let open = move || {
            let gpu = Gpu::open(0)?;
            let (manifest, config) = (manifest(), InferConfig::default());
            let plan = Plan { gpu: &gpu, image: &image(&gpu), manifest: &manifest, config: &config, frames_max: 4 };
            let Graphs { detector, encoder } = graphs(stand_in, &manifest.encoder.output);
            Worker::open(&plan, |_| Ok(Graphs { detector: Box::new(HeldOnce { inner: detector, held: held.clone() }), encoder }))
        };
        DeviceSession::new(Box::new(open)).unwrap()
    };
    Engine::of_device_sessions(vec![session(), session()], facts(MirrorChoice::Off), 4).unwrap()
}

#[test]
fn while_a_batch_waits_for_its_graph_another_is_letterboxed_looked_at_and_encoded() {
    const NAME: &str = "overlap::while_a_batch_waits_for_its_graph_another_is_letterboxed_looked_at_and_encoded";
    over_the_stand_in(NAME, &[], |stand_in| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        std::thread::scope(|scope| scope.spawn(|| runtime.block_on(overlapping(stand_in))).join().unwrap());
        drop(runtime);
        assert_eq!((stand_in.held(), stand_in.wrong()), (0, None));
    });
}

async fn overlapping(stand_in: &'static StandIn) {
    let host = [noise(1, SIZE, PixelLayout::Nv12), noise(2, SIZE, PixelLayout::Nv12)];
    let (begun, has_begun) = sync_channel(1);
    let (go, may_go) = sync_channel(1);
    let engine = Arc::new(engine(stand_in, &Arc::new(Mutex::new(Some((begun, may_go))))));
    let gpu = Gpu::open(0).unwrap();
    let decoders = [0, 1].map(|place: usize| Decoder::new(&gpu, stand_in, host[place].clone()).unwrap());
    let [first, second] = [0, 1].map(|place: usize| decoded(&decoders[place], &host[place]));

    let asked = request(&first);
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.detect(Lane::Live, vec![asked]).await }
    });
    tokio::task::spawn_blocking(move || has_begun.recv_timeout(FAILED_AFTER)).await.unwrap().expect("the first batch is in its graph");
    let launches = stand_in.calls("cuLaunchKernel");

    let meanwhile = async {
        let found = engine.detect(Lane::Live, vec![request(&second)]).await.unwrap();
        let faces = on_device(std::slice::from_ref(&second), &found).into_iter().map(CutFace::Device).collect();
        engine.encode(Lane::Live, faces).await.unwrap()
    };
    let templates = tokio::time::timeout(FAILED_AFTER, meanwhile).await.expect("the second batch does not wait for the first");
    assert_eq!(templates.len(), 1);
    assert_eq!(stand_in.calls("cuLaunchKernel") - launches, 2, "letterboxing and alignment of the second batch");
    assert!(!waiting.is_finished(), "the first is still in its graph");

    go.send(()).unwrap();
    let found = waiting.await.unwrap().unwrap();
    assert_eq!(found[0].len(), 1, "and comes to its end");
    drop((first, second, engine));
}
