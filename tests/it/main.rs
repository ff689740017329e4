//! The integration tests, one binary: what the parts do together, through the doors that users have.
//!
//! Must not know: the insides of any stage.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected should panic, in its helpers too")]

mod accuracy;
mod cli;
mod clip;
mod contract;
mod daemon;
mod decisions;
mod enrol;
mod faces;
mod gpu;
mod import;
mod ingest;
mod liveness;
mod model_change;
mod models;
mod notify;
mod reload;
mod replay;
mod rpc;
mod rtsp_server;
mod shadow;
mod starting;
mod stills;
mod store;
mod support;
mod systemd;
