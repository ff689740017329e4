//! Compiles the protos into `OUT_DIR`, and nothing else.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTOS: [&str; 7] = ["policy", "gallery", "recognition", "events", "cameras", "shadow", "system"];

fn main() -> Result<(), Box<dyn Error>> {
    let protos = PROTOS.map(|name| format!("proto/doorward/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(&protos, ["proto"])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out_dir.join("doorward.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_server(false).btree_map(".").compile_fds(descriptors.clone())?;
    // The servers use the same messages, but for the response that carries events: theirs holds events
    // that were encoded before, once for all subscribers.
    let servers = out_dir.join("servers");
    std::fs::create_dir_all(&servers)?;
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(servers)
        .extern_path(".doorward.v1", "crate::pb")
        .extern_path(".doorward.v1.SubscribeResponse", "crate::pb::EncodedSubscribeResponse")
        .compile_fds(descriptors)?;
    Ok(())
}
