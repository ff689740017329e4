//! The way over a device, run without one: the real path over a driver that stands in for NVIDIA's.
//!
//! In: a C++ compiler, NVRTC, the models, photos. Prints what is left out where one is missing.
//! Must not know: the insides of any stage.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should panic, in its helpers too")]

mod compile;
mod driver;
mod engine;
#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../it/faces.rs"]
mod faces;
mod faults;
mod flow;
mod graphs;
mod recognise;
mod session;
mod sessions;
