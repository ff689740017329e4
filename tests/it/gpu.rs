//! What is said and done where a GPU is wanted and none can be used, through the doors that users have.
//!
//! In: the binary, the models. Out: the doctor's verdicts, a start that is refused, a daemon on the CPU that says why.
//! Prints what is left out where a GPU can be used, or the models are missing.
//! Must not know: how a device is looked for; only what the look finds on this machine.

use std::process::Command;

use doorward::config::DeviceChoice;
use doorward::device::{self, Device, Driver};
use doorward::pb::GetStatusRequest;
use doorward::pb::system_service_client::SystemServiceClient;
use serde_json::Value;

use crate::cli::{Ran, run};
use crate::faces;
use crate::support::Daemon;

/// Why the GPU of this number cannot be used here, and the mend; nothing where it can.
fn obstacle(ordinal: u32, left_out: &str) -> Option<(String, String)> {
    let cuda = device::probe();
    let found = cuda.obstacle(ordinal);
    match &found {
        None => println!("LEFT OUT: {left_out}: cuda:{ordinal} can be used here"),
        Some((reason, mend)) if cuda.driver == Driver::Missing => {
            assert!(reason.contains("no NVIDIA driver is installed") && mend.contains("apt-get install nvidia-driver"), "{reason}: {mend}");
        }
        Some(_) => {}
    }
    found
}

/// Why `auto` takes the CPU here, and what would mend that; nothing where it takes a GPU.
fn obstacle_of_auto(left_out: &str) -> Option<(String, String)> {
    match device::resolve(&DeviceChoice::Auto).expect("auto never fails").device {
        Device::Cpu => obstacle(0, left_out),
        gpu @ Device::Cuda(_) => {
            println!("LEFT OUT: {left_out}: {gpu} can be used here");
            None
        }
    }
}

/// What the doctor says of a device, line by line.
fn doctor(device: &str) -> (Ran, Vec<Value>) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let models = faces::models_dir("the doctor on a GPU").expect("the caller asked for them first");
    let settings = [
        format!("models_dir={}", models.display()),
        format!("data_dir={}", folder.path().display()),
        format!("infer.device={device}"),
        // Nobody listens there, so no daemon is asked.
        "server.listen=127.0.0.1:1".to_owned(),
    ];
    let arguments: Vec<&str> = ["doctor", "--json"].into_iter().chain(settings.iter().flat_map(|setting| ["--set", setting])).collect();
    let ran = run(&arguments);
    let told = ran.out.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    (ran, told)
}

fn of<'a>(told: &'a [Value], what: &'a str) -> impl Iterator<Item = &'a Value> {
    told.iter().filter(move |check| check["what"] == what)
}

fn words<'a>(check: &'a Value, key: &str) -> &'a str {
    check[key].as_str().unwrap_or_default()
}

#[test]
fn the_doctor_says_what_keeps_auto_from_the_gpu_with_the_mend_and_is_content_with_the_cpu() {
    const LEFT_OUT: &str = "the doctor where auto finds no GPU";
    let (Some(_), Some((reason, mend))) = (faces::models_dir(LEFT_OUT), obstacle_of_auto(LEFT_OUT)) else { return };
    let (ran, told) = doctor("auto");
    assert_eq!(ran.exit_code, 0, "the CPU can do it, so nothing is broken: {ran:?}");
    let missing: Vec<&Value> = of(&told, "gpu").filter(|check| check["verdict"] == "doubtful").collect();
    assert!(missing.iter().all(|check| !words(check, "mend").is_empty()), "{missing:?}");
    assert!(missing.iter().any(|check| words(check, "mend") == mend), "{mend:?} is what mends it: {told:?}");
    for library in device::missing_libraries() {
        let is_told = |check: &&&Value| words(check, "found").contains(library.name) && words(check, "mend").contains(library.package);
        assert!(missing.iter().any(|check| is_told(&check)), "{library:?} is missing as well: {told:?}");
    }
    assert_eq!(of(&told, "gpu").filter(|check| words(check, "found").starts_with("nvcodec: ")).count(), 1, "GStreamer's part: {told:?}");
    let [device] = of(&told, "device").collect::<Vec<_>>()[..] else { panic!("one device is chosen: {told:?}") };
    assert_eq!((words(device, "verdict"), words(device, "found")), ("works", format!("cpu: {reason}").as_str()));
    assert!(of(&told, "inference").any(|check| check["verdict"] == "works" && words(check, "found").contains("OpenVINO")), "{told:?}");
}

#[test]
fn the_doctor_calls_a_gpu_broken_that_was_asked_for_by_its_number_and_cannot_be_used() {
    const LEFT_OUT: &str = "the doctor where a GPU that was asked for cannot be used";
    let Some(_) = faces::models_dir(LEFT_OUT) else { return };
    for ordinal in [0, 7] {
        let Some((reason, mend)) = obstacle(ordinal, LEFT_OUT) else { continue };
        let (ran, told) = doctor(&format!("cuda:{ordinal}"));
        assert_eq!(ran.exit_code, 1, "{ran:?}");
        let [device] = of(&told, "device").collect::<Vec<_>>()[..] else { panic!("one device was asked for: {told:?}") };
        assert_eq!(words(device, "verdict"), "broken", "{device}");
        for part in [format!("no usable CUDA device {ordinal}"), reason, mend, "infer.device".to_owned()] {
            assert!(words(device, "found").contains(&part), "{part}: {device}");
        }
        assert!(words(device, "mend").contains("infer.device to auto or cpu"), "{device}");
        assert_eq!(of(&told, "inference").count(), 0, "the CPU is not tried in its place: {told:?}");
    }
}

#[test]
fn a_daemon_that_is_to_use_a_gpu_which_it_cannot_does_not_start_and_says_why() {
    const LEFT_OUT: &str = "a daemon whose GPU cannot be used";
    let Some(_) = faces::models_dir(LEFT_OUT) else { return };
    let folder = tempfile::tempdir().expect("a temporary directory");
    for ordinal in [0, 7] {
        let Some((reason, mend)) = obstacle(ordinal, LEFT_OUT) else { continue };
        let said = Daemon::refusal(&folder.path().join("data"), &[&format!("infer.device=cuda:{ordinal}")]);
        for part in [format!("no usable CUDA device {ordinal}"), reason, mend, "set infer.device to auto or cpu".to_owned()] {
            assert!(said.contains(&part), "{part}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_under_auto_without_a_usable_gpu_runs_on_the_cpu_and_its_status_says_why() {
    const LEFT_OUT: &str = "the status of a daemon under auto without a GPU";
    let (Some(_), Some((reason, mend))) = (faces::models_dir(LEFT_OUT), obstacle_of_auto(LEFT_OUT)) else { return };
    let daemon = Daemon::start(&["infer.device=auto"]).await;
    let status = SystemServiceClient::new(daemon.channel().await).get_status(GetStatusRequest {}).await.expect("it answers").into_inner();
    let inference = status.inference.expect("it infers");
    assert_eq!((inference.device.as_str(), inference.device_reason.as_str()), ("cpu", reason.as_str()));
    assert!(inference.device_facts.iter().any(|fact| fact.mend == mend), "{:?}", inference.device_facts);
    let libraries = inference.device_facts.iter().find(|fact| fact.what == "libraries");
    assert!(libraries.is_none_or(|fact| fact.found.contains("doorward doctor") && fact.mend.is_empty()), "{libraries:?}");
    let is_without_driver = !matches!(device::probe().driver, Driver::Works { .. });
    assert_eq!(libraries.is_some(), is_without_driver, "what is not looked at is told where it is not: {:?}", inference.device_facts);
    let nvcodec = inference.device_facts.iter().find(|fact| fact.what == "nvcodec").expect("GStreamer's part is told, too");
    assert!(!nvcodec.found.is_empty(), "{nvcodec:?}");
    let shown = run(&["--server", daemon.server(), "status"]);
    assert!(shown.exit_code == 0 && shown.out.contains(&reason) && shown.out.contains(&mend), "{shown:?}");
    let chosen = Daemon::start(&["infer.device=cpu"]).await;
    let status = SystemServiceClient::new(chosen.channel().await).get_status(GetStatusRequest {}).await.expect("it answers").into_inner();
    let inference = status.inference.expect("it infers");
    assert_eq!((inference.device_reason.as_str(), inference.device_facts.len()), ("configured", 0), "nobody looked for a GPU");
}

#[test]
fn the_program_needs_no_library_for_gpus_to_start() {
    // The loader lists what it would load, and starts nothing.
    let listed = Command::new(env!("CARGO_BIN_EXE_doorward")).env("LD_TRACE_LOADED_OBJECTS", "1").output().expect("the loader runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("libgstreamer-1.0"), "it is the loader's list: {listed}");
    for library in ["libcuda", "libcudart", "libcudnn", "libcublas", "libnvrtc", "libnvinfer", "libgstcuda", "libonnxruntime"] {
        assert!(!listed.contains(library), "{library}: {listed}");
    }
}
