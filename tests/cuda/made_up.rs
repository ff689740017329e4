//! Sessions that need no runtime: they read what a binding says and queue an answer that can be told from any other.
//!
//! In: tensors in the stand-in's memory. Out: answers in its memory, once the stream has come by. Told by a test to fail, and what time it is.
//! Must not know: what is kept, and for how long.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use doorward::infer::cuda::{BindingSession, GraphsError, OutputShape, SessionSource, Stream};

use crate::driver::StandIn;

/// What sessions are told, and what they tell.
pub struct Orders {
    now: Instant,
    /// Why no session is opened.
    pub opens_none: Option<&'static str>,
    /// Why every run fails, of pictures of any height or of one. What it queued before is done all the same.
    pub fails: Option<(Option<usize>, &'static str)>,
    /// How many sessions were opened, and how many of these are there.
    pub opened: usize,
    pub alive: usize,
    /// The most that there ever were.
    pub most: usize,
    /// How many bindings were made.
    pub bound: usize,
    /// How many pictures the last run was made with.
    pub ran_with: usize,
}

/// A graph whose sessions are made up.
#[derive(Clone)]
pub struct MadeUp {
    stand_in: &'static StandIn,
    orders: Arc<Mutex<Orders>>,
}

impl MadeUp {
    pub fn new(stand_in: &'static StandIn) -> Self {
        let orders = Orders { now: Instant::now(), opens_none: None, fails: None, opened: 0, alive: 0, most: 0, bound: 0, ran_with: 0 };
        Self { stand_in, orders: Arc::new(Mutex::new(orders)) }
    }

    pub fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap()
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        self.orders().now += time;
    }

    /// A session for any number of pictures, or for exactly so many.
    pub fn session(&self, pictures: Option<usize>, stream: &Arc<Stream>) -> MadeUpSession {
        let mut orders = self.orders();
        orders.opened += 1;
        orders.alive += 1;
        orders.most = orders.most.max(orders.alive);
        MadeUpSession { made_up: self.clone(), pictures, stream: stream.clone() }
    }
}

impl SessionSource for MadeUp {
    type Session = MadeUpSession;

    fn own(&mut self, (pictures, ..): (usize, usize, usize), stream: &Arc<Stream>) -> Result<MadeUpSession, GraphsError> {
        let refused = self.orders().opens_none;
        refused.map_or_else(|| Ok(self.session(Some(pictures), stream)), |why| Err(self.failed(why.to_owned())))
    }

    fn outputs(&mut self, (height, _): (usize, usize)) -> Result<Vec<OutputShape>, GraphsError> {
        let outputs = [("few", vec![5]), ("rows", vec![height, 1]), ("last", vec![1])];
        Ok(outputs.map(|(name, each)| OutputShape { name: name.to_owned(), each }).to_vec())
    }

    fn failed(&self, reason: String) -> GraphsError {
        GraphsError::Provider { model: "made-up".to_owned(), provider: "no", precision: "f32", reason }
    }

    fn runs_on(&self, engine: Option<&MadeUpSession>) -> String {
        if engine.is_some() { "the engine" } else { "sessions of their own" }.to_owned()
    }

    fn now(&self) -> Instant {
        self.orders().now
    }
}

/// What the graph answers for one picture of this width, as `outputs` states it.
pub fn expected(picture: &[f32], width: usize) -> [(&'static str, Vec<f32>); 3] {
    let height = picture.len() / 3 / width;
    let few = picture.iter().copied().step_by(picture.len() / 5).take(5).collect();
    let rows = picture.iter().copied().step_by(width).take(height).collect();
    [("few", few), ("rows", rows), ("last", picture.last().copied().into_iter().collect())]
}

pub struct MadeUpSession {
    made_up: MadeUp,
    /// Exactly so many at once; any number without it.
    pictures: Option<usize>,
    stream: Arc<Stream>,
}

/// Addresses and shapes.
pub struct Bound {
    input: [usize; 4],
    outputs: Vec<(String, u64, Vec<usize>)>,
}

impl BindingSession for MadeUpSession {
    type Bound = Bound;
    type Error = &'static str;

    // SAFETY: nothing is asked of the caller that the stand-in does not check: addresses are looked up when they are used.
    unsafe fn bind(&self, (_, input): (u64, [usize; 4]), outputs: &[(&str, u64, Vec<usize>)]) -> Result<Bound, &'static str> {
        self.made_up.orders().bound += 1;
        assert!(self.pictures.is_none_or(|pictures| pictures == input[0]), "the session is for exactly so many");
        Ok(Bound { input, outputs: outputs.iter().map(|(name, address, shape)| ((*name).to_owned(), *address, shape.clone())).collect() })
    }

    // SAFETY: as for `bind`.
    unsafe fn run(&mut self, bound: &mut Bound, address: u64, shape: [usize; 4]) -> Result<(), &'static str> {
        assert_eq!(bound.input, shape, "a binding is for one shape");
        let [pictures, planes, height, width] = shape;
        let mut values = vec![f32::NAN; pictures * planes * height * width];
        self.made_up.stand_in.read(&self.stream, address, &mut values);
        let each: Vec<_> = values.chunks(planes * height * width).map(|picture| expected(picture, width)).collect();
        for (name, to, shape) in &bound.outputs {
            let of_one = |answer: &[(&str, Vec<f32>)]| answer.iter().find(|(own, _)| own == name).unwrap().1.clone();
            let answer: Vec<f32> = each.iter().flat_map(|answer| of_one(answer)).collect();
            assert_eq!(answer.len(), shape.iter().product::<usize>(), "{name} has room for the answer");
            let bytes: Vec<u8> = answer.iter().flat_map(|value| value.to_ne_bytes()).collect();
            self.made_up.stand_in.answer(&self.stream, (address, *to), &bytes);
        }
        let mut orders = self.made_up.orders();
        orders.ran_with = pictures;
        let fails = orders.fails.filter(|(of_height, _)| of_height.is_none_or(|of_height| of_height == height));
        fails.map_or(Ok(()), |(_, why)| Err(why))
    }
}

impl Drop for MadeUpSession {
    fn drop(&mut self) {
        self.made_up.orders().alive -= 1;
    }
}
