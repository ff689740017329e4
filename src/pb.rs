//! The generated code of `proto/doorward/v1`, and nothing else.
#![allow(missing_docs, clippy::all, clippy::pedantic)]

tonic::include_proto!("doorward.v1");
include!(concat!(env!("OUT_DIR"), "/servers/doorward.v1.rs"));

/// The encoded `FileDescriptorSet` of `doorward.v1` and what it imports, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/doorward.bin"));

/// [`SubscribeResponse`] as the server sends it: the same bytes on the wire, where an encoded message
/// and a text of bytes look alike, so that an event is encoded once for all its subscribers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct EncodedSubscribeResponse {
    /// Each an encoded [`Event`].
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub events: Vec<prost::bytes::Bytes>,
    #[prost(message, optional, tag = "2")]
    pub position: Option<Position>,
    #[prost(message, optional, tag = "3")]
    pub server_time: Option<prost_types::Timestamp>,
    #[prost(bool, tag = "4")]
    pub caught_up: bool,
    #[prost(bool, tag = "5")]
    pub disk_full: bool,
}
