//! Replays files: each frame once, in order, on the file's own time.
//!
//! In: clips whose frames carry their number. Out: assertions.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use doorward::camera::CameraId;
use doorward::clock::{Clock, SimulatedClock, Timestamp};
use doorward::ingest::{self, IngestError};

use super::support::{FPS, FRAMES, Recorder, SeenFrame, small_clip};

const BEGIN: Timestamp = Timestamp::from_micros(5_000_000);

fn replay(file: &Path) -> Result<(u64, Vec<SeenFrame>), IngestError> {
    ingest::init().expect("GStreamer and its plugins are installed");
    let (recorder, clock) = (Recorder::default(), SimulatedClock::at(BEGIN));
    let camera = CameraId::parse("file").expect("a good id");
    let count = ingest::replay(file, &camera, &recorder, &clock)?;
    let frames = recorder.record().frames.clone();
    assert_eq!(frames.last().map(|frame| frame.capture_time), Some(clock.now()), "the clock stands at the last frame");
    Ok((count, frames))
}

fn assert_whole(count: u64, frames: &[SeenFrame]) {
    assert_eq!(count, u64::from(FRAMES));
    assert!(frames.iter().map(|frame| frame.number).eq(0..FRAMES), "each once, in order");
    for (index, frame) in frames.iter().enumerate() {
        let expected = BEGIN.plus(Duration::from_millis(1_000 / u64::from(FPS) * index as u64));
        let off = frame.capture_time.as_micros() - expected.as_micros();
        assert!(off.abs() <= 1, "frame {index} is at {} and not {expected}", frame.capture_time);
        assert_eq!((frame.sequence, frame.decode_time), (index as u64, frame.capture_time));
    }
}

#[test]
fn a_file_is_replayed_whole_in_order_and_on_its_own_time() {
    let (count, frames) = replay(&small_clip()).expect("a good file");
    assert_whole(count, &frames);
    assert_eq!(ingest::decode_only(&small_clip()).expect("a good file"), u64::from(FRAMES));
}

#[test]
fn the_container_does_not_matter() {
    for (name, muxer) in [("clip.mkv", "matroskamux"), ("clip.h264", "video/x-h264,stream-format=byte-stream,alignment=au")] {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
        let description = format!(
            "filesrc location={} ! qtdemux ! h264parse config-interval=-1 ! {muxer} ! filesink location={}",
            small_clip().display(),
            file.display()
        );
        let status = Command::new("gst-launch-1.0").arg("-q").args(description.split(' ')).status();
        if !status.is_ok_and(|status| status.success()) {
            println!("left out: {name}, since gst-launch-1.0 (package gstreamer1.0-tools) cannot make it here");
            continue;
        }
        let (count, frames) = replay(&file).expect("a good file");
        println!("{name}");
        assert_whole(count, &frames);
    }
}

#[test]
fn what_is_no_video_is_refused_with_its_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("notes.mp4");
    std::fs::write(&text, "this is no video at all").expect("written");
    let cut = folder.path().join("cut.mp4");
    let whole = std::fs::read(small_clip()).expect("a clip");
    std::fs::write(&cut, &whole[..whole.len() / 4]).expect("written");
    for file in [text, cut, folder.path().join("absent.mp4")] {
        let Err(IngestError::Replay(message)) = replay(&file) else { panic!("{} was replayed", file.display()) };
        println!("{message}");
        assert!(message.contains(&file.display().to_string()), "{message}");
    }
}
