//! The systemd units: how exposed they leave the machine, and that inference runs under their filter.
//!
//! In: `systemd/`, the README's commands, the built daemon, models, a photo. Without systemd's own tools, models or photos, what could not be
//! checked is printed.
//! Must not know: how the daemon recognises.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const EXPOSURE_MAX: f32 = 2.0;
const START_TIMEOUT: Duration = Duration::from_secs(120);

#[test]
fn the_unit_leaves_the_machine_hardly_exposed() {
    let unit = package().join("systemd/doorward.service");
    let Some(said) = systemd_analyze(&["security", "--offline=true", "--no-pager", &unit.to_string_lossy()]) else { return };
    let (_, rating) = said.split_once("Overall exposure level for").expect("systemd-analyze rates the unit");
    let exposure: f32 = rating.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("the rating is a number");
    println!("exposure: {exposure}");
    assert!(exposure <= EXPOSURE_MAX, "exposure {exposure} is above {EXPOSURE_MAX}:\n{said}");
}

#[test]
fn the_watchdog_and_the_reload_are_wired() {
    let unit = settings_of("doorward.service");
    let one = |key: &str| unit.get(key).map(|values| values.join(" ")).unwrap_or_default();
    assert_eq!(one("Type"), "notify");
    assert_eq!(one("NotifyAccess"), "main");
    assert_eq!(one("ExecReload"), "/bin/kill -HUP $MAINPID");
    assert_eq!(one("Restart"), "on-failure");
    assert!(one("WatchdogSec").parse::<u32>().is_ok_and(|seconds| seconds > 0), "the watchdog is on");
    // The daemon takes up to 10 s to end its streams.
    assert!(one("TimeoutStopSec").parse::<u32>().is_ok_and(|seconds| seconds > 10), "systemd waits until the daemon has drained");
}

#[test]
fn a_gpus_devices_are_made_before_the_daemon_is_kept_from_making_them() {
    let (daemon, maker) = (settings_of("doorward.service.d/gpu.conf"), settings_of("doorward-gpu.service"));
    for key in ["Wants", "After"] {
        assert_eq!(daemon.get(key).map(|units| units.join(" ")).as_deref(), Some("doorward-gpu.service"), "{key}");
    }
    // What a unit runs before its daemon is under the rules of its devices, too, and those allow no new ones.
    assert!(!daemon.contains_key("ExecStartPre") && daemon["DeviceAllow"].iter().all(|rule| rule.ends_with(" rw")));
    assert_eq!(maker["Type"], ["oneshot"], "whoever comes after it waits until it is done");
    assert!(maker.contains_key("TimeoutStartSec"), "a GPU that hangs keeps the daemon waiting no longer");
    for confines in ["DevicePolicy", "DeviceAllow", "PrivateDevices", "CapabilityBoundingSet", "User"] {
        assert!(!maker.contains_key(confines), "{confines}");
    }
    // nvidia-modprobe asked for uvm makes nothing else.
    let runs = |arguments: &str| maker["ExecStart"].iter().any(|line| line == &format!("/usr/bin/nvidia-modprobe {arguments}"));
    assert!(runs("-c=255 -c=0") && runs("-u -c=0"), "{:?}", maker["ExecStart"]);
}

#[test]
fn decoders_are_looked_for_anew_at_each_start_on_a_gpu() {
    let daemon = settings_of("doorward.service.d/gpu.conf");
    assert_eq!(daemon["Environment"], ["GST_REGISTRY=/tmp/gstreamer-registry.bin"]);
    assert_eq!(settings_of("doorward.service")["PrivateTmp"], ["yes"], "its /tmp is empty at each start");
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    let folder = tempfile::tempdir().unwrap();
    let units = ["doorward.service", "doorward-gpu.service", "doorward.service.d/gpu.conf"];
    std::fs::create_dir(folder.path().join("doorward.service.d")).unwrap();
    for unit in units {
        let mut text = std::fs::read_to_string(package().join("systemd").join(unit)).unwrap();
        // Neither need be installed here.
        for program in ["doorward", "nvidia-modprobe", "nvidia-smi"] {
            text = text.replace(&format!("/usr/bin/{program} "), "/bin/true ");
        }
        std::fs::write(folder.path().join(unit), text).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).args(units[..2].iter().map(|unit| folder.path().join(unit)));
    let Ok(output) = verify.output() else {
        println!("LEFT OUT: systemd-analyze verify: the tool is missing (Debian package systemd)");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    let of_ours: Vec<&str> = said.lines().filter(|line| line.contains("doorward")).collect();
    assert!(output.status.success() && of_ours.is_empty(), "{}: {said}", output.status);
}

#[test]
fn an_upgrade_leaves_the_running_daemon_the_files_that_it_has_open() {
    let readme = std::fs::read_to_string(package().join("README.md")).unwrap();
    let copies = readme.lines().find(|line| line.contains("cp -r") && line.contains("/usr/share/doorward/")).expect("models are installed");
    let folder = tempfile::tempdir().unwrap();
    let installed = folder.path().join("share");
    let install = |version: &str| {
        std::fs::create_dir_all(folder.path().join("models")).unwrap();
        std::fs::write(folder.path().join("models/library.so"), version).unwrap();
        let command = copies.replace("/usr/share/doorward", &installed.to_string_lossy());
        assert!(Command::new("sh").args(["-ec", &command]).current_dir(folder.path()).status().unwrap().success(), "{command}");
    };
    install("old");
    let file = installed.join("models/library.so");
    let held = std::fs::File::open(&file).unwrap();
    install("new");
    assert_eq!((io::read_to_string(held).unwrap().as_str(), std::fs::read_to_string(file).unwrap().as_str()), ("old", "new"));
}

#[test]
fn every_line_of_the_log_has_its_priority_in_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    for json in ["false", "true"] {
        let (log, data) = (folder.path().join(format!("log-{json}")), folder.path().join(format!("data-{json}")));
        let file = std::fs::File::create(&log).unwrap();
        let stream = file.metadata().map(|found| format!("{}:{}", found.dev(), found.ino())).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        // It tells that there are no models, and ends.
        command.args(["serve", "--set", "models_dir=/nowhere", "--set", "server.listen=127.0.0.1:0"]);
        command.env("DOORWARD_LOG__JSON", json).env("DOORWARD_DATA_DIR", data).env("JOURNAL_STREAM", stream);
        assert!(!command.stdin(Stdio::null()).stderr(file).status().unwrap().success());
        let said = std::fs::read_to_string(&log).unwrap();
        let errors: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("<3>")).collect();
        assert!(!errors.is_empty(), "{said}");
        assert!(json == "false" || errors.iter().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{said}");
    }
}

#[test]
fn a_face_is_found_under_the_units_system_call_filter() {
    let Some(allowed) = allowed_system_calls() else { return };
    let photo = package().join("tests/data/photos/obama.jpg");
    let models = std::env::var_os("DOORWARD_MODELS_DIR").map_or_else(|| package().join("models"), PathBuf::from);
    let encoder = models.join("face_recognition_sface_2021dec.onnx");
    for file in [&photo, &encoder] {
        if !file.exists() {
            println!("LEFT OUT: inference under the system-call filter: {} is missing; run script/bootstrap", file.display());
            return;
        }
    }
    let data = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&models, data.path(), filter_program(&allowed));
    let said = daemon.ask(&["detect", "--json", &photo.to_string_lossy()]);
    assert!(said.contains("detection_score"), "a face was found in {}: {said}", photo.display());
}

#[test]
fn the_filter_of_these_tests_refuses_what_the_unit_refuses() {
    let Some(allowed) = allowed_system_calls() else { return };
    // The unit takes @resources away, and with it the right to raise one's priority.
    let mut nice = Command::new("nice");
    let output = confined(nice.args(["-n", "5", "true"]), filter_program(&allowed)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("not permitted"), "setpriority is refused, and nice says so: {said:?}");
}

/// The daemon under the filter; ended when dropped.
struct Daemon {
    child: Child,
    url: String,
}

impl Daemon {
    fn start(models: &Path, data: &Path, filter: Vec<libc::sock_filter>) -> Self {
        // The port is free again when the daemon binds it; nothing else asks for it in between.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command
            .arg("serve")
            .env("DOORWARD_MODELS_DIR", models)
            .env("DOORWARD_DATA_DIR", data)
            .env("DOORWARD_SERVER__LISTEN", address.to_string());
        let child = confined(command.stdin(Stdio::null()), filter).spawn().unwrap();
        let mut daemon = Self { child, url: format!("http://{address}") };
        daemon.wait_until_ready();
        daemon
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.client(&["status"]).status().unwrap().success() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended under the filter: {ended:?}; its log stands above");
            assert!(Instant::now() < deadline, "the daemon was not ready within {START_TIMEOUT:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let output = self.client(arguments).stdout(Stdio::piped()).stderr(Stdio::inherit()).output().unwrap();
        assert!(output.status.success(), "doorward {arguments:?}: {}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.args(["--server", &self.url]).args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes `command` run under `filter` and without new privileges, as the unit has it.
fn confined(command: &mut Command, filter: Vec<libc::sock_filter>) -> &mut Command {
    let confine = move || {
        let program = libc::sock_fprog { len: u16::try_from(filter.len()).map_err(io::Error::other)?, filter: filter.as_ptr().cast_mut() };
        // SAFETY: prctl is async-signal-safe, and `program` points into `filter`, which the closure
        // owns and the kernel only reads; nothing allocates between fork and exec.
        let refused = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
                || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&program)) != 0
        };
        if refused { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: `confine` calls nothing that is unsafe between fork and exec, see there.
    unsafe { command.pre_exec(confine) }
}

/// A filter that lets the allowed calls through and refuses others with EPERM, as the unit does.
fn filter_program(allowed: &BTreeSet<u32>) -> Vec<libc::sock_filter> {
    // Offsets in `struct seccomp_data`, and linux/audit.h.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANSWER: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    // When equal, go on; else skip the next step.
    let when = |k| libc::sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k };
    let unless = |k| libc::sock_filter { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k };
    let refusal = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let mut program = vec![step(LOAD, ARCHITECTURE), unless(AUDIT_ARCH_X86_64), step(ANSWER, refusal), step(LOAD, NUMBER)];
    program.extend(allowed.iter().flat_map(|number| [when(*number), step(ANSWER, libc::SECCOMP_RET_ALLOW)]));
    program.push(step(ANSWER, refusal));
    program
}

/// The numbers of the calls that the unit's `SystemCallFilter=` lines leave.
fn allowed_system_calls() -> Option<BTreeSet<u32>> {
    if !cfg!(target_arch = "x86_64") {
        println!("LEFT OUT: the system-call filter: its numbers are known for x86-64 only");
        return None;
    }
    let header = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";
    let Ok(numbers) = std::fs::read_to_string(header) else {
        println!("LEFT OUT: the system-call filter: {header} is missing; run script/bootstrap");
        return None;
    };
    let numbers: BTreeMap<&str, u32> = numbers
        .lines()
        .filter_map(|line| line.strip_prefix("#define __NR_")?.split_once(' '))
        .filter_map(|(name, number)| Some((name, number.trim().parse().ok()?)))
        .collect();
    let groups = groups(&systemd_analyze(&["syscall-filter", "--no-pager"])?);
    // systemd lets these through whatever the filter says.
    let mut names = expand("@default", &groups);
    for line in settings_of("doorward.service").get("SystemCallFilter").into_iter().flatten() {
        let (is_removal, list) = line.strip_prefix('~').map_or((false, line.as_str()), |list| (true, list));
        for name in list.split_whitespace().flat_map(|name| expand(name, &groups)) {
            if is_removal {
                names.remove(&name)
            } else {
                names.insert(name)
            };
        }
    }
    names.extend(expand("@default", &groups));
    assert!(names.len() > 100, "the unit's filter was read: {names:?}");
    Some(names.iter().filter_map(|name| numbers.get(name.as_str()).copied()).collect())
}

/// The groups as `systemd-analyze syscall-filter` lists them: a name, then its members indented.
fn groups(listing: &str) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for line in listing.lines() {
        if line.starts_with('@') {
            current = Some(line.trim().to_owned());
        } else if let (Some(group), true) = (&current, line.starts_with("    ") && !line.contains('#')) {
            groups.entry(group.clone()).or_default().push(line.trim().to_owned());
        } else if !line.is_empty() && !line.starts_with(' ') {
            current = None;
        }
    }
    groups
}

fn expand(name: &str, groups: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return BTreeSet::from([name.to_owned()]);
    }
    let members = groups.get(name).unwrap_or_else(|| panic!("systemd-analyze knows no group {name}"));
    members.iter().flat_map(|member| expand(member, groups)).collect()
}

/// A unit's settings; one that stands several times keeps every value.
fn settings_of(unit: &str) -> BTreeMap<String, Vec<String>> {
    let unit = std::fs::read_to_string(package().join("systemd").join(unit)).unwrap();
    let mut settings: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in unit.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')) {
        settings.entry(key.to_owned()).or_default().push(value.to_owned());
    }
    settings
}

fn systemd_analyze(arguments: &[&str]) -> Option<String> {
    let Ok(output) = Command::new("systemd-analyze").args(arguments).output() else {
        println!("LEFT OUT: systemd-analyze {}: the tool is missing (Debian package systemd)", arguments.join(" "));
        return None;
    };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "systemd-analyze {arguments:?}: {}\n{said}", String::from_utf8_lossy(&output.stderr));
    Some(said)
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
