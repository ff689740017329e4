//! Serves a clip on loopback as a camera would, for demos and tests. Prints its URL when ready.
//!
//! In: arguments (`--help` tells). Out: a real RTSP server.
//! Must not know: doorward.

use std::io::Write;

use clap::Parser;

#[path = "../tests/it/rtsp_server.rs"]
mod rtsp_server;

fn main() -> anyhow::Result<()> {
    let camera = rtsp_server::TestCamera::parse();
    rtsp_server::serve(&camera, |url| {
        println!("{url}");
        let _ = std::io::stdout().flush();
    })
}
