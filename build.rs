//! Compiles the protos into `OUT_DIR`, and nothing else.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTOS: [&str; 5] = ["gallery", "recognition", "events", "cameras", "system"];

fn main() -> Result<(), Box<dyn Error>> {
    let protos = PROTOS.map(|name| format!("proto/doorward/v1/{name}.proto"));
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(&protos, ["proto"])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out_dir.join("doorward.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
