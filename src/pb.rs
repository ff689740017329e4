//! The generated code of `proto/doorward/v1`, and nothing else.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

tonic::include_proto!("doorward.v1");

/// The encoded `FileDescriptorSet` of `doorward.v1` and what it imports, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/doorward.bin"));
