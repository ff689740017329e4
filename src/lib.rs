//! doorward, a face-recognition daemon for buildings. This page is the map of the house.
//!
//! ```text
//! camera ─▶ ingest ─▶ batch ─▶ infer: detect ─▶ track ─▶ infer: encode ─▶ gallery ─▶ decide ─▶ visit ─▶ event_log ─▶ rpc ─▶ subscribers
//! ```
//!
//! Modules stand below in reading order: a module names only modules of earlier groups, and
//! `tests/tidy.rs` holds it to that. The whole story of a frame is told by [`pipeline`].

// Values: what is spoken about. They know nothing of each other's makers.
pub mod clock;
pub mod frame;

pub mod face;
pub mod subject;

pub mod camera;
pub mod event;

// Foundations.
pub mod config;
pub mod pb;
