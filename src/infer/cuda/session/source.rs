//! The seam between what is kept for pictures on a GPU and the runtime whose sessions run them.
//!
//! In: shapes, addresses, a stream. Out: sessions of one graph, and their bindings.
//! Drops nothing.
//! Must not know: which runtime it is, what is kept for how long.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use super::super::driver::Stream;
use super::contract::OutputShape;
use super::error::GraphsError;

/// Opens sessions of one graph, as pictures need them: ONNX Runtime's, or in tests what stands for them.
pub trait SessionSource: Send {
    /// What runs the graph.
    type Session: BindingSession;

    /// Opens a session for exactly so many pictures of this height and width. It works in `stream`, which outlives it.
    ///
    /// # Errors
    /// Why there is none.
    fn own(&mut self, pictures_height_width: (usize, usize, usize), stream: &Arc<Stream>) -> Result<Self::Session, GraphsError>;

    /// What the graph answers for one picture of this height and width.
    ///
    /// # Errors
    /// Why it does not say.
    fn outputs(&mut self, height_width: (usize, usize)) -> Result<Vec<OutputShape>, GraphsError>;

    /// The words of a session, as an error that names the graph.
    fn failed(&self, reason: String) -> GraphsError;

    /// What runs the graph, for people, where `engine` is the session for all shapes.
    fn runs_on(&self, engine: Option<&Self::Session>) -> String;

    /// The time, by which what is unused goes and what failed is tried again.
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A session that runs inputs and outputs that were bound to addresses.
pub trait BindingSession: Send {
    /// Inputs and outputs of one shape, bound to addresses.
    type Bound: Send;
    /// Why something failed, in the runtime's words.
    type Error: Display;

    /// Binds an input and outputs, each by its address and shape, for as many runs as there will be.
    ///
    /// # Safety
    /// The memory is the device's, has room for these shapes, and is there whenever the binding is run.
    ///
    /// # Errors
    /// The runtime's.
    unsafe fn bind(&self, input: (u64, [usize; 4]), outputs: &[(&str, u64, Vec<usize>)]) -> Result<Self::Bound, Self::Error>;

    /// Queues a run on an input at `address`, of the shape that was bound. It is not waited for.
    ///
    /// # Safety
    /// As for [`bind`](Self::bind).
    ///
    /// # Errors
    /// The runtime's.
    unsafe fn run(&mut self, bound: &mut Self::Bound, address: u64, shape: [usize; 4]) -> Result<(), Self::Error>;
}
