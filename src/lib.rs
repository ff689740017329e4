//! doorward, a face-recognition daemon for buildings. This page is the map of the house.
//!
//! ```text
//! camera ─▶ ingest ─▶ batch ─▶ infer: detect ─▶ track ─▶ infer: encode ─▶ gallery ─▶ decide ─▶ visit ─▶ event_log ─▶ rpc ─▶ subscribers
//! ```
//!
//! Modules stand below in reading order: a module names only modules of earlier groups, and
//! `tests/tidy.rs` holds it to that. The whole story of a frame is told by [`pipeline`].

// The order is the reading order, so rustfmt must not sort it.
#![cfg_attr(rustfmt, rustfmt_skip)]

// Values: what is spoken about. They know nothing of their makers.
pub mod clock;
pub mod frame;
pub mod face;
pub mod subject;
pub mod event;
pub mod telling;
pub mod camera;
pub mod mutation;
pub mod rates;
pub mod shadow;

// Foundations: what everything stands on.
pub mod config;
pub mod device;
pub mod models;
pub mod shutdown;
pub mod telemetry;
pub mod portable;
pub mod calibration;
pub mod figure;
pub mod train;
pub mod head;
pub mod liveness;

// Stages, blind to each other.
pub mod ingest;
pub mod batch;
pub mod infer;
pub mod quality;
pub mod picture;
pub mod track;
pub mod gallery;
pub mod decide;
pub mod visit;
pub mod store;
pub mod event_log;

// The stages together.
pub mod pipeline;
pub mod cameras;
pub mod photo;
pub mod enrol;
pub mod recognise;
pub mod evaluate;

// Edges.
pub mod pb;
pub mod rpc;

// The composition root and the command line.
pub mod app;
pub mod cli;
