//! The way over a device, run without one: the real path over a driver that stands in for NVIDIA's.
//!
//! In: a C++ compiler, NVRTC, GStreamer, the models, photos. Prints what is left out where one is missing.
//! Must not know: the insides of any stage.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should panic, in its helpers too")]

mod budget;
#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../it/clip.rs"]
mod clip;
mod compile;
mod decode;
mod driver;
mod engine;
#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../it/faces.rs"]
mod faces;
mod faults;
mod flow;
mod graph_session;
mod graphs;
mod held;
mod libraries;
mod losses;
mod made_up;
mod neighbours;
mod nvrtc;
mod overlap;
mod pipeline;
mod recognise;
mod refusals;
#[allow(dead_code, reason = "the integration tests need more of it")]
#[path = "../it/rtsp_server.rs"]
mod rtsp_server;
mod session;
mod sessions;
