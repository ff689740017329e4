//! `doorward snapshot`: saves the pictures that belong to an event.
//!
//! In: a snapshot id. Out: JPEG files.
//! Drops: nothing.
//! Must not know: where snapshots are kept.

use std::path::PathBuf;

use clap::Args;

use super::client::ClientOptions;
use super::input::write_picture;
use super::output::{Output, moment};
use crate::pb;

/// Saves the best shot of an event as JPEG
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  doorward snapshot 0193b6f2-8c1e-7d7a-a3ce-1f2e3d4c5b6a -o face.jpg
  doorward snapshot 0193b6f2-8c1e-7d7a-a3ce-1f2e3d4c5b6a -o frame.jpg --whole-frame")]
pub struct Snapshot {
    /// The event's snapshot_id
    id: String,
    /// Where to; - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The whole frame instead of the face
    #[arg(long)]
    whole_frame: bool,
}

impl Snapshot {
    /// Does what was asked.
    ///
    /// # Errors
    /// The daemon's refusal, that it cannot be reached, or that the file cannot be written.
    pub async fn run(self, client: &ClientOptions, out: &Output) -> anyhow::Result<()> {
        let request = pb::GetSnapshotRequest { snapshot_id: self.id };
        let response = client.connect().await?.events().get_snapshot(request).await?.into_inner();
        let picture = if self.whole_frame { &response.frame_jpeg } else { &response.crop_jpeg };
        anyhow::ensure!(!picture.is_empty(), "the daemon kept no such picture for this event");
        write_picture(&self.output, picture)?;
        let time = moment(response.capture_time.as_ref());
        match (out.json, self.output.as_os_str() == "-") {
            (_, true) => Ok(()),
            (true, false) => out.object(&serde_json::json!({ "file": self.output, "capture_time": time, "camera_id": response.camera_id })),
            (false, false) => out.line(&format!("{} ({} at {time})", self.output.display(), response.camera_id)),
        }
    }
}
