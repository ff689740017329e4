//! Runs one graph on a GPU for pictures of any size: by the engine, or by sessions that are opened when such pictures come.
//!
//! In: a [`SessionSource`], an engine where there is one, tensors in device memory. Out: outputs in the host's memory.
//! Drops: bindings and sessions of canvases that were used longest ago, beyond [`CANVASES_MAX`] and [`OWN_SESSIONS_MAX`].
//!
//! `TensorRT`'s engine is made for all shapes. The CUDA provider plans its convolutions anew whenever a session's input has another
//! shape than the run before (measured: 0.3 to 1 s on an H200, ONNX Runtime issue 23006): there each shape has a session of its own,
//! and few shapes are run ([`room`](super::super::graph::room)).
//! Must not know: which runtime it is, how its sessions are opened, what outputs mean.

use std::sync::Arc;

use super::super::CudaError;
use super::super::batch::SHAPES_MAX;
use super::super::driver::Stream;
use super::super::graph::{DeviceGraph, DeviceTensor, RunError, room, rooms};
use super::super::memory::DeviceBuffer;
use super::canvas::{Canvas, NoCanvas, Pause, Wanted, layout};
use super::error::GraphsError;
use super::options::Profile;
use super::source::{BindingSession, SessionSource};

/// The most canvases that bindings and memory for outputs are kept for: as many as a batch keeps tensors for.
const CANVASES_MAX: usize = SHAPES_MAX;
/// The most sessions of their own that one graph has; each has memory of its own on the device.
const OWN_SESSIONS_MAX: usize = 24;

/// A graph on a GPU, with bindings for each shape that came.
pub struct GraphSession<S: SessionSource> {
    /// The canvas that was used last stands last. Dropped before the engine.
    canvases: Vec<Canvas<S::Session>>,
    /// `TensorRT`'s session, for every shape of its profile.
    engine: Option<S::Session>,
    source: S,
    profile: Profile,
    /// Dropped last: the sessions work in it.
    stream: Arc<Stream>,
    /// The last run.
    ran: Ran,
    /// While no session is opened.
    pause: Pause,
}

/// A run that came to its end.
#[derive(Clone, Copy, Default)]
struct Ran {
    /// How many pictures it had; none where there was no run, or it failed.
    pictures: usize,
    /// How many it was run with.
    with: usize,
}

impl<S: SessionSource> GraphSession<S> {
    /// A graph whose sessions come from `source` and work in `stream`. Runs the profile's best shape with as many pictures as there
    /// may be, one, and between, so that no frame waits for it.
    ///
    /// # Errors
    /// Why the source opens no session, what a run says, or the driver's call that failed. Nothing is left on the device.
    pub fn open(source: S, engine: Option<S::Session>, (profile, stream): (Profile, &Arc<Stream>)) -> Result<Self, GraphsError> {
        let stream = stream.clone();
        let (ran, pause) = (Ran::default(), Pause::default());
        let mut session = Self { canvases: Vec::new(), engine, source, profile, stream, ran, pause };
        session.warm()?;
        Ok(session)
    }

    fn warm(&mut self) -> Result<(), GraphsError> {
        let [usual, planes, height, width] = self.profile.best;
        let max = self.profile.max[0];
        let input = DeviceBuffer::new(self.stream.gpu(), max * planes * height * width * size_of::<f32>())?;
        let stream = self.stream.clone();
        let mut batches = vec![1, usual, max];
        if self.engine.is_none() {
            batches.extend(rooms(max));
        }
        for batch in batches {
            self.canvas((height, width), (batch, max)).map_err(|error| match error {
                NoCanvas::NotHad(error) => error,
                NoCanvas::Waiting(why) => self.source.failed(why),
            })?;
            self.run(&DeviceTensor::within(&input, [batch, planes, height, width], &stream)).map_err(|error| match error {
                RunError::Failed(reason) | RunError::NoSession { reason, .. } => self.source.failed(reason),
            })?;
        }
        // The bindings of these runs stay; each is given the worker's own address at its next run.
        Ok(())
    }

    /// Makes a canvas of `size` the last one, with room for the outputs of `pictures` pictures, behind which there is memory for so many
    /// as the tensor's `room` says.
    fn canvas(&mut self, size: (usize, usize), (pictures, tensor_room): (usize, usize)) -> Result<(), NoCanvas> {
        let [max, planes, ..] = self.profile.max;
        let is_own = self.engine.is_none() || !self.profile.holds([max, planes, size.0, size.1]);
        let room = if is_own { room(pictures, max) } else { pictures.next_power_of_two().min(max) };
        let owned = self.canvases.iter().filter(|canvas| canvas.own.is_some()).count();
        let waiting_for = self.pause.why(self.source.now());
        // A session that is larger is slower, and far better than none.
        let room_max = if is_own { (waiting_for.is_some() || owned >= OWN_SESSIONS_MAX).then_some(tensor_room) } else { Some(usize::MAX) };
        let wanted = Wanted { size, pictures, room, room_max };
        if let Some(place) = wanted.best_of(self.canvases.iter().map(|canvas| (canvas.size, canvas.room()))) {
            let canvas = self.canvases.remove(place);
            self.canvases.push(canvas);
            return Ok(());
        }
        if let (true, Some(why)) = (is_own, waiting_for) {
            return Err(NoCanvas::Waiting(why.to_owned()));
        }
        self.make_way(size, is_own.then_some(owned));
        let another = self.another((size, room), is_own);
        // A session that was opened in vain took as long as one that is of use.
        if let (true, Err(error)) = (is_own, &another) {
            self.pause.begin(self.source.now(), format!("a session could not be opened a moment ago: {error}"));
        }
        self.canvases.push(another?);
        Ok(())
    }

    /// A canvas with `room` for so many pictures, for a session of its own or for the engine.
    fn another(&mut self, (size, room): ((usize, usize), usize), is_own: bool) -> Result<Canvas<S::Session>, GraphsError> {
        let own = is_own.then(|| self.source.own((room, size.0, size.1), &self.stream)).transpose()?;
        let outputs = self.source.outputs(size)?;
        Ok(Canvas::new(self.stream.gpu(), (size, room), own, outputs)?)
    }

    /// Lets go of what must make way for another canvas of `size`: with a session of its own, beside the `owned` that there are, or
    /// for the engine.
    fn make_way(&mut self, size: (usize, usize), owned: Option<usize>) {
        let goes = match owned {
            Some(owned) if owned >= OWN_SESSIONS_MAX => self.canvases.iter().position(|canvas| canvas.own.is_some()),
            // What has grown too small.
            None => self.canvases.iter().position(|canvas| canvas.size == size && canvas.own.is_none()),
            Some(_) => None,
        };
        let goes = goes.or((self.canvases.len() >= CANVASES_MAX).then_some(0));
        if let Some(place) = goes {
            self.canvases.remove(place);
        }
    }

    fn queue(&mut self, input: &DeviceTensor<'_>) -> Result<usize, RunError> {
        let [pictures, planes, height, width] = input.shape();
        if let Err(error) = self.canvas((height, width), (pictures, input.room())) {
            return Err(error.told(self.canvases.is_empty()));
        }
        let canvas = self.canvases.last_mut().ok_or("there is no canvas")?;
        let run_with = canvas.run_with(pictures);
        if run_with > input.room() {
            return Err(format!("{run_with} pictures are run, and there is memory for {}", input.room()).into());
        }
        let shape = [run_with, planes, height, width];
        let runner = canvas.own.as_mut().or(self.engine.as_mut()).ok_or("there is no session for it")?;
        let (offsets, bytes) = layout(&canvas.outputs, run_with);
        let bound = &mut canvas.bound[run_with - 1];
        if bound.is_none() {
            let begin = canvas.device.address();
            let outputs: Vec<(&str, u64, Vec<usize>)> = canvas
                .outputs
                .iter()
                .zip(offsets)
                .map(|(output, offset)| (output.name.as_str(), begin + offset as u64, [&[run_with], output.each.as_slice()].concat()))
                .collect();
            // SAFETY: the outputs lie in the canvas's memory, which has room for them; it goes after the binding.
            *bound = Some(unsafe { runner.bind((input.address(), shape), &outputs) }.map_err(|error| error.to_string())?);
        }
        let bound = bound.as_mut().ok_or("there is no binding")?;
        // SAFETY: the input, of as many pictures as there is room for, is there until the worker has waited for the stream, and so
        // are the outputs, as above.
        unsafe { runner.run(bound, input.address(), shape) }.map_err(|error| error.to_string())?;
        self.ran.with = run_with;
        Ok(bytes)
    }

    /// Brings the outputs of what was queued on the last canvas: one copy of all, and the only wait, which is behind everything that
    /// was queued.
    fn fetched(&mut self, bytes: usize) -> Result<(), RunError> {
        let canvas = self.canvases.last_mut().ok_or("there is no canvas")?;
        self.stream.fetch(&canvas.device, &mut canvas.pinned, bytes).map_err(|error| error.to_string())?;
        canvas.health.ran_well(self.source.now());
        Ok(())
    }

    /// A run on the last canvas failed: where another session may do better, this one goes.
    fn note_failure(&mut self) {
        // What was queued may still read the input and write outputs, whatever is let go of next: these or the caller's own.
        let is_at_rest = self.at_rest().is_ok();
        let Some(canvas) = self.canvases.last_mut() else { return };
        canvas.health.failed();
        if canvas.health.is_broken() && is_at_rest {
            self.canvases.pop();
            self.pause.begin(self.source.now(), "a session failed at its run a moment ago".into());
        }
    }

    /// Waits for what is queued; where that fails twice, nothing runs any more.
    fn at_rest(&self) -> Result<(), CudaError> {
        self.stream.synchronise().or_else(|_| self.stream.synchronise())
    }
}

impl<S: SessionSource> DeviceGraph for GraphSession<S> {
    fn run(&mut self, input: &DeviceTensor<'_>) -> Result<(), RunError> {
        // Nothing of an earlier run is shown after one that failed.
        self.ran = Ran::default();
        let (pictures, max) = (input.shape()[0], self.profile.max[0]);
        if !(1..=max).contains(&pictures) {
            return Err(format!("{pictures} pictures at once, and the graph was opened for 1 to {max}").into());
        }
        if !Arc::ptr_eq(input.stream(), &self.stream) {
            return Err("the input is made in another stream than the graph works in".into());
        }
        match self.queue(input).and_then(|bytes| self.fetched(bytes)) {
            Ok(()) => {
                self.ran.pictures = pictures;
                Ok(())
            }
            Err(error) => {
                if matches!(error, RunError::Failed(_)) {
                    self.note_failure();
                }
                Err(error)
            }
        }
    }

    fn output(&self, name: &str) -> Result<&[f32], String> {
        let Ran { pictures, with } = self.ran;
        let canvas = self.canvases.last().filter(|_| pictures > 0).ok_or("the graph has not run")?;
        let place = canvas.outputs.iter().position(|output| output.name == name);
        let place = place.ok_or_else(|| format!("the graph has no output {name:?}"))?;
        let (offsets, _) = layout(&canvas.outputs, with);
        let bytes = &canvas.pinned.as_slice()[offsets[place]..][..pictures * canvas.outputs[place].values() * size_of::<f32>()];
        // SAFETY: any four bytes are an f32.
        let (before, values, after) = unsafe { bytes.align_to::<f32>() };
        if before.is_empty() && after.is_empty() { Ok(values) } else { Err("the outputs are not aligned".into()) }
    }

    fn runs_on(&self) -> String {
        self.source.runs_on(self.engine.as_ref())
    }

    fn give_back_unused(&mut self) {
        // A run that failed may still write outputs.
        if self.at_rest().is_ok() {
            // What is in use, or usual, comes again at once, and where memory is wanting its session could not be opened a second time.
            let ([.., height, width], now, before) = (self.profile.best, self.source.now(), self.canvases.len());
            self.canvases.retain(|canvas| canvas.size == (height, width) || canvas.health.is_in_use(now));
            self.ran = Ran::default();
            if self.canvases.len() < before {
                // What was freed is for whoever found none, not for the next session.
                self.pause.begin(now, "memory was wanting a moment ago".into());
            }
        }
    }
}

impl<S: SessionSource> Drop for GraphSession<S> {
    fn drop(&mut self) {
        // A run that failed may have left work behind that writes outputs.
        if let Err(error) = self.at_rest() {
            error.tell("a GPU could not be waited for before its session was closed");
        }
    }
}
