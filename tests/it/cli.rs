//! The command line as users meet it: the binary against a daemon with canned answers, or none.
//!
//! In: arguments, files, standard input. Out: what is printed, and exit codes.
//! Drops: nothing. Must not know: any stage.

mod canned;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use canned::{Canned, JPEG};

/// What a run of the binary gave.
#[derive(Debug)]
pub struct Ran {
    pub exit_code: i32,
    pub out: String,
    pub err: String,
}

fn run_with(arguments: &[&str], stdin: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("DOORWARD_")) {
        command.env_remove(name);
    }
    let mut child =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    // A command that wants no input may have ended before it could be written to.
    let _ = child.stdin.take().expect("it is piped").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { exit_code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

pub fn run(arguments: &[&str]) -> Ran {
    run_with(arguments, "")
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).expect("it is writable");
    path.display().to_string()
}

#[test]
fn a_daemon_that_is_not_there_is_exit_code_3_with_the_address_and_the_mend() {
    // Bound and dropped: nobody listens there now.
    let address = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("loopback");
    let ran = run(&["--server", &format!("http://{address}"), "status"]);
    assert_eq!(ran.exit_code, 3, "{ran:?}");
    for part in [address.to_string().as_str(), "refused", "doorward serve", "--server"] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn a_refused_photo_is_told_with_reason_measure_and_mend() {
    let (daemon, folder) = (Canned::start(), tempfile::tempdir().expect("a temporary directory"));
    let photo = file(folder.path(), "anna.jpg", b"photo");
    let ran = run(&["--server", &daemon.url, "subject", "add", "anna", &photo]);
    assert_eq!((ran.exit_code, ran.out.as_str()), (1, ""), "{ran:?}");
    for part in ["the face cannot be used: blurred", "reason: FACE_UNUSABLE", "sharpness: 12.5", "what to do: give a larger, sharper"] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
    let ran = run(&["--server", &daemon.url, "subject", "add", "anna", "/nowhere/anna.jpg"]);
    assert!(ran.exit_code == 1 && ran.err.contains("/nowhere/anna.jpg"), "{ran:?}");
    assert_eq!(daemon.seen.lock().unwrap().request_ids.len(), 1, "a photo that cannot be read is not sent");
}

#[test]
fn one_refused_photo_does_not_keep_the_others_out() {
    let (daemon, folder) = (Canned::start(), tempfile::tempdir().expect("a temporary directory"));
    let photos = [("1.jpg", "good"), ("2.jpg", "bad"), ("3.jpg", "good")].map(|(name, text)| file(folder.path(), name, text.as_bytes()));
    let ran = run(&["--server", &daemon.url, "subject", "add-sample", "anna", &photos[0], &photos[1], "/nowhere.jpg", &photos[2]]);
    assert_eq!((ran.exit_code, ran.out.lines().count()), (4, 2), "{ran:?}");
    let none = run(&["--server", &daemon.url, "subject", "add-sample", "anna", &photos[1]]);
    assert!(none.exit_code == 1 && none.err.contains("none of 1 was added"), "{none:?}");
    assert!(ran.err.contains("2.jpg: no face was found") && ran.err.contains("/nowhere.jpg") && ran.err.contains("2 of 4"), "{ran:?}");
    let mut ids = daemon.seen.lock().unwrap().request_ids.clone();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "every change has an id of its own: {ids:?}");
}

#[test]
fn an_import_takes_what_it_can_and_reports_the_rest() {
    let (daemon, folder) = (Canned::start(), tempfile::tempdir().expect("a temporary directory"));
    let people = folder.path().join("people");
    for person in ["anna", "bo", "no id"] {
        std::fs::create_dir_all(people.join(person)).expect("it is writable");
    }
    let photos: [(&str, &[u8]); 6] = [
        ("anna/1.jpg", b"good"),
        ("anna/2.PNG", b"old"),
        ("bo/1,2.jpg", b"bad"),
        ("bo/large.jpg", &[b'g'; 1001]),
        ("bo/note.txt", b"x"),
        ("stray.jpg", b"g"),
    ];
    for (name, bytes) in photos {
        file(&people, name, bytes);
    }
    std::os::unix::fs::symlink(people.join("anna/1.jpg"), people.join("bo/link.jpg")).expect("a link");
    let (dir, report) = (people.display().to_string(), folder.path().join("report.csv"));
    let ran = run(&["--server", &daemon.url, "subject", "import", &dir, "--report", &report.display().to_string()]);
    assert_eq!(ran.exit_code, 4, "{ran:?}");
    assert!(ran.out.contains("1 added, 1 already there, 6 refused; gallery version 9"), "{ran:?}");
    assert!(ran.out.contains("refused: 1 BAD_IMAGE, 2 NOT_A_PHOTO, 1 NO_FACE, 1 ODD_NAME, 1 SYMLINK; "), "{ran:?}");
    assert_eq!(daemon.seen.lock().unwrap().imported, ["anna/1.jpg", "anna/2.PNG", "bo/1,2.jpg"], "only photos that can be read are sent");
    let rows = std::fs::read_to_string(&report).expect("the report");
    assert_eq!(rows.lines().count(), 7, "a heading and a row for each that was refused: {rows}");
    for row in ["photo,subject,status,reason,message,gallery_version", "bo/link.jpg,bo,REFUSED,SYMLINK,", "no id,,REFUSED,ODD_NAME,"] {
        assert!(rows.contains(row), "{row}: {rows}");
    }
    assert!(rows.contains("\"bo/1,2.jpg\",bo,REFUSED,NO_FACE,\"no \"\"face\"\" was found\",\r\n"), "{rows}");

    let named = run(&["--server", &daemon.url, "subject", "import", &dir]);
    assert!(named.exit_code == 4 && named.err.contains("bo/1,2.jpg: NO_FACE: no \"face\" was found"), "{named:?}");
    let json = run(&["--server", &daemon.url, "subject", "import", "--json", "--all", &dir]);
    let lines: Vec<serde_json::Value> = json.out.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let added = lines.iter().filter(|line| line["status"] == "IMPORT_STATUS_ADDED").count();
    assert_eq!((lines.len(), added, &lines[8]["refused_by_reason"]["NOT_A_PHOTO"]), (9, 1, &2.into()), "{json:?}");
}

#[test]
fn an_import_that_ends_early_says_how_far_it_came_and_to_run_it_again() {
    let (daemon, folder) = (Canned::start(), tempfile::tempdir().expect("a temporary directory"));
    let anna = folder.path().join("anna");
    std::fs::create_dir(&anna).expect("it is writable");
    for name in 0..9 {
        file(&anna, &format!("{name}.jpg"), b"good");
    }
    let dir = folder.path().display().to_string();
    let whole = run(&["--server", &daemon.url, "subject", "import", &dir]);
    assert!(whole.exit_code == 0 && whole.out.contains("9 added, 0 already there, 0 refused"), "{whole:?}");
    file(&anna, "4.jpg", b"!");
    let cut = run(&["--server", &daemon.url, "subject", "import", &dir]);
    assert_eq!(cut.exit_code, 3, "{cut:?}");
    assert!(cut.err.contains("after 4 of 9 photos; run it again") && cut.err.contains("reason: STOPPING"), "{cut:?}");
    let nothing = tempfile::tempdir().expect("a temporary directory");
    let empty = run(&["--server", &daemon.url, "subject", "import", &nothing.path().display().to_string()]);
    assert!(empty.exit_code == 1 && empty.err.contains("<subject>/<photo>"), "{empty:?}");
}

#[test]
fn watch_prints_the_event_saves_its_pictures_and_fails_when_the_stream_ends() {
    let (daemon, folder) = (Canned::start(), tempfile::tempdir().expect("a temporary directory"));
    let shots = folder.path().join("shots");
    let ran = run(&["watch", "--no-reconnect", "--server", &daemon.url, "--snapshots", &shots.display().to_string()]);
    assert_eq!(ran.exit_code, 3, "{ran:?}");
    let (line, path) = ran.out.trim_end().split_once(" → ").expect("the path of the picture");
    assert_eq!(line, "2026-11-23T19:00:01Z front-door IDENTIFIED anna \"Anna K.\" similarity 0.71 ≥ 0.363 (of 2) 180 ms");
    assert_eq!(std::fs::read(path).expect("it is there"), JPEG);
    assert!(ran.err.contains("reason: STOPPING") && ran.err.contains("run the command again"), "{ran:?}");
    assert_eq!(std::fs::read_dir(&shots).expect("the folder").count(), 2, "the face and the whole frame, and nothing else");
}

#[test]
fn json_is_one_object_a_line_with_the_protos_names() {
    let (daemon, folder) = (Canned::start(), tempfile::tempdir().expect("a temporary directory"));
    let ran = run(&["watch", "--no-reconnect", "--json", "--server", &daemon.url, "--snapshots", &folder.path().display().to_string()]);
    let event: serde_json::Value = serde_json::from_str(&ran.out).expect("one object");
    assert_eq!((&event["sequence"], &event["type"]), (&41.into(), &"EVENT_TYPE_IDENTIFIED".into()));
    assert_eq!((&event["subject"]["id"], &event["server_time"]), (&"anna".into(), &"2026-11-23T19:00:01.200Z".into()));
    assert!(Path::new(event["face_file"].as_str().expect("a path")).exists(), "{event}");
    let ran = run(&["camera", "list", "--json", "--server", &daemon.url]);
    let cameras: Vec<serde_json::Value> = ran.out.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!((cameras.len(), &cameras[1]["status"]["reason"]), (2, &"UNAUTHORISED".into()));
}

#[test]
fn every_page_of_a_list_is_printed_and_no_name_steers_the_terminal() {
    let daemon = Canned::start();
    let ran = run(&["--server", &daemon.url, "subject", "list"]);
    assert!(ran.exit_code == 0 && ran.out.contains("\nanna ") && ran.out.contains("\nbob "), "{ran:?}");
    assert!(!ran.out.contains('\u{1b}'), "{ran:?}");
}

#[test]
fn cameras_are_listed_with_their_state() {
    let daemon = Canned::start();
    let ran = run(&["--server", &daemon.url, "camera", "list"]);
    let yard = ran.out.lines().find(|line| line.starts_with("yard")).expect("a line");
    assert!(yard.contains("OFFLINE (UNAUTHORISED)") && yard.contains("entry"), "{ran:?}");
}

#[test]
fn the_token_of_the_file_goes_with_every_call() {
    let (daemon, folder) = (Canned::start(), tempfile::tempdir().expect("a temporary directory"));
    let token = file(folder.path(), "token", b"# mine\ns3cret-token\n");
    assert_eq!(run(&["--server", &daemon.url, "--token-file", &token, "subject", "list"]).exit_code, 0);
    assert_eq!(run(&["--server", &daemon.url, "subject", "list"]).exit_code, 0);
    let bearer = Some("Bearer s3cret-token".to_owned());
    assert_eq!(daemon.seen.lock().unwrap().tokens, [bearer.clone(), bearer, None, None], "two pages each time");
}

#[test]
fn only_a_daemon_with_the_known_certificate_is_spoken_to() {
    let ((daemon, certificate), folder) = (Canned::start_guarded(), tempfile::tempdir().expect("a temporary directory"));
    let (ca, token) = (file(folder.path(), "ca.pem", certificate.as_bytes()), file(folder.path(), "token", b"s3cret-token"));
    let ran = run(&["--server", &daemon.url, "--ca-file", &ca, "--token-file", &token, "subject", "list"]);
    assert!(ran.exit_code == 0 && ran.out.contains("anna"), "{ran:?}");
    let (_, stranger) = Canned::start_guarded();
    let other = file(folder.path(), "other.pem", stranger.as_bytes());
    let ran = run(&["--server", &daemon.url, "--ca-file", &other, "--token-file", &token, "subject", "list"]);
    assert!(ran.exit_code == 3 && ran.err.contains("certificate"), "{ran:?}");
    let ran = run(&["--server", &daemon.url, "subject", "list"]);
    assert!(ran.exit_code == 2 && ran.err.contains("--ca-file"), "{ran:?}");
    assert_eq!(daemon.seen.lock().unwrap().tokens.len(), 2, "the token went to nobody else");
}

#[test]
fn a_password_comes_from_standard_input_or_a_file_and_is_never_printed() {
    let (daemon, folder) = (Canned::start(), tempfile::tempdir().expect("a temporary directory"));
    let secret = file(folder.path(), "password", b"from file\n");
    let add = ["--server", &daemon.url, "camera", "add", "yard", "rtsp://192.0.2.8/h264", "--username", "admin", "--password-file"];
    let by_stdin = run_with(&[&add[..], &["-"]].concat(), "hunter2\n");
    let by_file = run_with(&[&add[..], &[secret.as_str(), "--json"]].concat(), "");
    assert_eq!((by_stdin.exit_code, by_file.exit_code), (0, 0), "{by_stdin:?} {by_file:?}");
    let stored = [("admin".to_owned(), "hunter2".to_owned()), ("admin".to_owned(), "from file".to_owned())];
    assert_eq!(daemon.seen.lock().unwrap().credentials, stored);
    for ran in [&by_stdin, &by_file] {
        assert!(![&ran.out, &ran.err].iter().any(|text| text.contains("hunter2") || text.contains("from file")), "{ran:?}");
    }
    let unasked = run(&add[..8]);
    assert!(unasked.exit_code == 2 && unasked.err.contains("--password-file"), "{unasked:?}");
    let in_url = run(&["--server", &daemon.url, "camera", "add", "yard", "rtsp://admin:hunter2@192.0.2.8/h264"]);
    assert!(in_url.exit_code == 2 && !in_url.err.contains("hunter2"), "{in_url:?}");
    assert_eq!(daemon.seen.lock().unwrap().credentials.len(), 2, "neither was sent");
}

#[test]
fn an_update_sends_exactly_the_fields_that_were_named() {
    let daemon = Canned::start();
    let ran = run(&["--server", &daemon.url, "subject", "update", "anna", "--name", "Anna", "--reset", "expire"]);
    assert_eq!(ran.exit_code, 0, "{ran:?}");
    assert_eq!(daemon.seen.lock().unwrap().update_masks, [vec!["display_name".to_owned(), "expire_time".to_owned()]]);
    let ran = run(&["--server", &daemon.url, "subject", "update", "anna"]);
    assert_eq!(ran.exit_code, 2, "an empty mask would empty every field: {ran:?}");
}

#[test]
fn verify_answers_by_its_exit_code_too() {
    let (daemon, folder) = (Canned::start(), tempfile::tempdir().expect("a temporary directory"));
    let photo = file(folder.path(), "probe.jpg", b"photo");
    let same = run(&["--server", &daemon.url, "verify", &photo, "--subject", "anna"]);
    assert!(same.exit_code == 0 && same.out.starts_with("same person: similarity 0.800 ≥ 0.363"), "{same:?}");
    let other = run(&["--server", &daemon.url, "verify", &photo, &photo]);
    assert!(other.exit_code == 1 && other.out.starts_with("not the same person: similarity 0.100 < 0.363"), "{other:?}");
    assert_eq!(other.err, "", "a no is no error");
}

#[test]
fn verify_tells_a_photo_that_cannot_be_compared_from_one_of_somebody_else() {
    let (daemon, folder) = (Canned::start(), tempfile::tempdir().expect("a temporary directory"));
    let blurred = file(folder.path(), "blurred.jpg", b"blurred");
    let refused = run(&["--server", &daemon.url, "verify", &blurred, "--subject", "anna"]);
    assert!(refused.exit_code == 2 && refused.out.is_empty() && refused.err.contains("reason: NO_FACE"), "{refused:?}");
    let unread = run(&["--server", &daemon.url, "verify", "/nowhere.jpg", "--subject", "anna"]);
    assert!(unread.exit_code == 2 && unread.err.contains("/nowhere.jpg"), "{unread:?}");
    let gone = run(&["--server", "http://127.0.0.1:1", "verify", &blurred, "--subject", "anna"]);
    assert_eq!(gone.exit_code, 3, "{gone:?}");
}

#[test]
fn detect_draws_the_faces_into_the_picture_the_daemon_saw() {
    let (daemon, folder) = (Canned::start(), tempfile::tempdir().expect("a temporary directory"));
    let [photo, seen, other] = ["photo.png", "seen.png", "other.png"].map(|name| folder.path().join(name));
    image::RgbImage::new(64, 48).save(&photo).expect("it is writable");
    image::RgbImage::new(48, 64).save(&other).expect("it is writable");
    let detect =
        |photo: &Path| run(&["--server", &daemon.url, "detect", &photo.display().to_string(), "--out", &seen.display().to_string()]);
    let ran = detect(&photo);
    assert!(ran.exit_code == 0 && ran.out.contains("1 face in 64×48 pixels") && ran.out.contains("20×20 at 10,20"), "{ran:?}");
    let drawn = image::open(&seen).expect("a picture").into_rgb8();
    assert_ne!(drawn.get_pixel(10, 30), &image::Rgb([0, 0, 0]), "the box's left edge");
    let ran = detect(&other);
    assert!(ran.exit_code == 1 && ran.err.contains("64×48"), "boxes are not drawn into another picture: {ran:?}");
}

#[test]
fn a_reload_that_refused_photos_says_so_by_its_exit_code() {
    let daemon = Canned::start();
    for json in [&[][..], &["--json"]] {
        let ran = run(&[&["--server", &daemon.url, "reload"], json].concat());
        assert!(ran.exit_code == 4 && ran.out.contains("anna/2.jpg"), "{ran:?}");
    }
}

#[test]
fn a_wrong_configuration_is_refused_before_anything_opens() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let config = file(folder.path(), "doorward.toml", b"[recognition]\nthreshold = 1.5\n");
    let ran = run(&["serve", "--config", &config]);
    assert_eq!(ran.exit_code, 2, "{ran:?}");
    for part in [config.as_str(), "recognition.threshold", "1.5", "-1 to 1"] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
    let file = folder.path().join("file").display().to_string();
    for command in ["backup", "restore", "export"] {
        assert_eq!(run(&["gallery", command, &file, "--config", &config]).exit_code, 2, "{command}: wrong usage");
    }
}

#[test]
fn the_models_are_listed_without_a_daemon_and_a_missing_one_is_named_with_its_hash() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let manifest = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/manifest.toml")).expect("the manifest");
    file(folder.path(), "manifest.toml", &manifest);
    let dir = folder.path().display().to_string();
    let ran = run(&["models", "list", "--models-dir", &dir]);
    assert!(ran.exit_code == 0 && ran.out.contains("encoder") && ran.out.contains("sface-2021dec"), "{ran:?}");
    assert!(ran.out.contains("not installed: optional; script/bootstrap --gpu takes it"), "{ran:?}");
    let ran = run(&["models", "verify", "--models-dir", &dir]);
    assert!(ran.out.lines().any(|line| line.starts_with("absent  runtime") && line.contains("onnxruntime-gpu")), "{ran:?}");
    assert!(ran.exit_code == 1 && ran.out.contains("face_recognition_sface_2021dec.onnx") && ran.out.contains("0ba9fbfa01b5"), "{ran:?}");
    assert_eq!(run(&["models", "install", "--models-dir", &dir]).exit_code, 1);
}

#[test]
fn completions_are_a_script_of_the_shell() {
    let ran = run(&["completions", "bash"]);
    assert_eq!(ran.exit_code, 0, "{ran:?}");
    let mut shell = Command::new("bash").args(["-n"]).stdin(Stdio::piped()).spawn().expect("bash is there");
    shell.stdin.take().expect("it is piped").write_all(ran.out.as_bytes()).expect("it reads");
    assert!(shell.wait().expect("it ends").success() && ran.out.contains("doorward__subcmd__watch"), "bash reads it without complaint");
}

#[test]
fn the_doctor_finds_what_would_keep_the_daemon_from_deciding() {
    let Some(models) = crate::faces::models_dir("the doctor on decisions") else { return };
    let folder = tempfile::tempdir().expect("a temporary directory");
    let set = |key: &str| ["--set".to_owned(), format!("{key}={}", folder.path().join("none.json").display())];
    let models = ["models_dir".to_owned() + "=" + &models.display().to_string(), format!("data_dir={}", folder.path().display())];
    let models = models.map(|setting| ["--set".to_owned(), setting]).concat();
    for (key, what) in [("recognition.calibration", "decisions"), ("recognition.verifier", "decisions"), ("shadow.calibration", "shadow")] {
        let arguments: Vec<String> = ["doctor".to_owned()].into_iter().chain(models.clone()).chain(set(key)).collect();
        let ran = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let told = ran.out.lines().find(|line| line.contains(what)).unwrap_or_default();
        assert!(ran.exit_code == 1 && told.starts_with("broken") && told.contains("none.json"), "{key}: {ran:?}");
    }
}
