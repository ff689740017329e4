//! Says what went wrong, why, what was measured, and what to do next.
//!
//! In: the error of a command, often a gRPC status with a `google.rpc.ErrorInfo`. Out: a text for
//! standard error and an exit code.
//! Drops: the closed pipe of a reader that has seen enough (`doorward watch | head`): no failure.
//! Must not know: any command.

use std::error::Error;
use std::fmt::Write;
use std::io::ErrorKind;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::output::printable;

const REFUSED: u8 = 1;
const WRONG_USAGE: u8 = 2;
const UNREACHABLE: u8 = 3;
const PARTLY_REFUSED: u8 = 4;
/// As grep and diff have it, where 1 is an answer.
const NO_ANSWER: u8 = 2;

/// The options contradict each other, or one is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// What is to be said was said, on standard output or in the log: only the exit code remains.
#[derive(Debug, thiserror::Error)]
#[error("the answer was told before")]
pub struct Told;

/// Some were refused and the others were taken, which was told: only the exit code remains.
#[derive(Debug, thiserror::Error)]
#[error("some were refused, and the others were taken")]
pub struct PartlyRefused;

/// A question with yes or no as its exit code was not answered, for this reason: never told by the code of a no, nor by that of a yes.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
pub struct Unanswered(pub anyhow::Error);

/// Nobody answers at the daemon's address.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the daemon at {server}: {reason}")]
pub struct Unreachable {
    server: String,
    reason: String,
}

impl Unreachable {
    /// `server` did not answer, with all that the transport tells of why.
    pub fn new(server: &str, error: &(dyn Error + 'static)) -> Self {
        // The transport's outermost error says only "transport error".
        let reason = in_a_row(anyhow::Chain::new(error.source().unwrap_or(error)));
        Self { server: server.to_owned(), reason }
    }
}

/// An error and what caused it, each once: some errors quote their cause themselves.
pub fn in_a_row<'a>(causes: impl Iterator<Item = &'a (dyn Error + 'static)>) -> String {
    causes.map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        _ if told.contains(&cause) => told,
        _ => format!("{told}: {cause}"),
    })
}

/// What becomes of a command for several photos of which some were refused, each with its reason; the others were `done`.
///
/// # Errors
/// [`PartlyRefused`], or that all were.
pub fn of_several(refused: usize, total: usize, done: &str) -> anyhow::Result<()> {
    match refused {
        0 => Ok(()),
        _ if refused == total => anyhow::bail!("none of {total} was {done}"),
        _ => {
            eprintln!("{refused} of {total} were refused; the others were {done}");
            Err(PartlyRefused.into())
        }
    }
}

/// What is said of an error, and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// For standard error; empty when there is nothing to say.
    pub text: String,
    /// 1 refused or failed, 2 wrong usage or a question without an answer, 3 no daemon reached, 4 partly refused; 0 for a reader that
    /// went away.
    pub exit_code: u8,
}

/// Puts an error into words.
pub fn describe(error: &anyhow::Error) -> Failure {
    if error.is::<Told>() {
        return Failure { text: String::new(), exit_code: REFUSED };
    }
    if let Some(Unanswered(reason)) = error.downcast_ref() {
        let failure = describe(reason);
        return Failure { exit_code: failure.exit_code.max(NO_ANSWER), ..failure };
    }
    if error.is::<PartlyRefused>() {
        return Failure { text: String::new(), exit_code: PARTLY_REFUSED };
    }
    if let Some(status) = error.chain().find_map(|cause| cause.downcast_ref::<Status>()) {
        let exit_code = if status.code() == Code::Unavailable { UNREACHABLE } else { REFUSED };
        return Failure { text: in_words(&context(error), status), exit_code };
    }
    // Only what was written here can be a reader's closed pipe: the daemon's end of a connection
    // that broke stands in the sources of a status, which was told above.
    if error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|io| io.kind() == ErrorKind::BrokenPipe) {
        return Failure { text: String::new(), exit_code: 0 };
    }
    // A parser's complaint has lines, which point at the place.
    let lines: Vec<String> = in_a_row(error.chain()).lines().map(printable).collect();
    let text = format!("error: {}", lines.join("\n  "));
    if error.chain().any(|cause| cause.is::<Unreachable>()) {
        let advice = advice_on_transport(&text);
        return Failure { text: format!("{text}\n  what to do: {advice}"), exit_code: UNREACHABLE };
    }
    let exit_code = if error.chain().any(|cause| cause.is::<Usage>()) { WRONG_USAGE } else { REFUSED };
    Failure { text, exit_code }
}

/// What to do about a daemon that was not reached, going by what the transport tells.
fn advice_on_transport(told: &str) -> &'static str {
    if told.contains("certificate") {
        "give the certificate that signed the daemon's by --ca-file, and the name that it was made for in --server"
    } else if told.contains("InvalidContentType") {
        "the daemon speaks without TLS there: write http:// in --server"
    } else {
        "start it with `doorward serve`, or name another with --server URL"
    }
}

/// Whether an error is about the one photo that was sent, so that the next is worth a try: a file
/// that cannot be read, or a refusal of what was sent. A daemon that is gone, too busy or does not
/// let the caller in will not answer the next one differently.
pub fn is_about_this_alone(error: &anyhow::Error) -> bool {
    match error.chain().find_map(|cause| cause.downcast_ref::<Status>()) {
        Some(status) => matches!(
            status.code(),
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::OutOfRange
        ),
        None => error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|io| io.kind() != ErrorKind::BrokenPipe),
    }
}

/// What was being done when the status came: the contexts that were put around it.
fn context(error: &anyhow::Error) -> String {
    error.chain().take_while(|cause| !cause.is::<Status>()).fold(String::new(), |text, cause| format!("{text}{cause}: "))
}

fn in_words(context: &str, status: &Status) -> String {
    let message = if status.message().is_empty() { status.code().description() } else { status.message() };
    let mut text = format!("error: {}", printable(&format!("{context}{}", as_options(message))));
    let info = status.get_details_error_info();
    let reason = info.as_ref().map_or("", |info| info.reason.as_str());
    if !reason.is_empty() {
        let _ = write!(text, "\n  reason: {}", printable(reason));
    }
    for violation in status.get_details_bad_request().into_iter().flat_map(|request| request.field_violations) {
        let _ = write!(text, "\n  field: {}", printable(&violation.field));
    }
    let mut measured: Vec<_> = info.iter().flat_map(|info| &info.metadata).collect();
    measured.sort();
    for (name, value) in measured {
        let _ = write!(text, "\n  {}: {}", printable(name), printable(value));
    }
    if let Some(wait) = status.get_details_retry_info().and_then(|retry| retry.retry_delay) {
        let _ = write!(text, "\n  try again after: {}", super::output::span(wait));
    }
    if let Some(advice) = advice_on(reason).or_else(|| advice_on_code(status.code())) {
        let _ = write!(text, "\n  what to do: {advice}");
    }
    text
}

/// What requests may allow, as the API calls it; the options of the commands are called alike.
const ALLOWANCES: [&str; 4] = ["allow_duplicate", "allow_inconsistent", "allow_mass_removal", "allow_missing"];

/// A message that names a field by which a request allows something, with the option that sets it here.
pub fn as_options(message: &str) -> String {
    let word = |word: &str| if ALLOWANCES.contains(&word) { format!("--{}", word.replace('_', "-")) } else { word.to_owned() };
    message.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// What to do about a reason of the daemon's.
fn advice_on(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "NO_FACE" => "give a photo that shows the face from the front; `doorward detect PHOTO --out seen.jpg` shows what is found",
        "SEVERAL_FACES" => "crop the photo to the one person; `doorward detect PHOTO --out seen.jpg` numbers the faces",
        "FACE_UNUSABLE" => "give a larger, sharper, evenly lit photo from the front",
        "POSSIBLE_DUPLICATE" => "look at the other subject (`doorward subject show ID`); --allow-duplicate enrols it all the same",
        "INCONSISTENT_SAMPLE" => "see that the photo shows the same person; where it does, --allow-inconsistent takes it all the same",
        "DISK_FULL" => "free space where data_dir lies, then run the command again",
        "SUBJECT_EXISTS" => "choose another id, or add the photo with `doorward subject add-sample`",
        "SUBJECT_NOT_FOUND" => "`doorward subject list` shows who is enrolled",
        "SAMPLE_NOT_FOUND" => "`doorward subject samples ID` shows the samples",
        "SNAPSHOT_NOT_FOUND" => {
            "pictures are kept for events.snapshot_retention_days, no longer than their events, and go with the person they show"
        }
        "BAD_IMAGE" => "give a whole JPEG or PNG file of a usual size",
        "BAD_CAMERA_ID" => "choose one of a-z, 0-9 and '-', at most 63 characters",
        "BAD_SUBJECT_ID" => "choose one of letters, digits, '-', '_' and '.', at most 128 bytes",
        "TOO_MANY_SAMPLES" => "enrol with fewer photos, and add the others with `doorward subject add-sample`",
        "NO_SAMPLE" => "give at least one photo",
        "NO_TEMPLATE" => "the subject's templates are another encoder's: `doorward gallery reencode` makes them anew from the photos",
        "TEMPLATE_SPACE_MISMATCH" => "the encoder has changed: `doorward gallery reencode` makes templates anew from the photos",
        "CAMERA_EXISTS" => "choose another id, or change it with `doorward camera update`",
        "CAMERA_NOT_FOUND" => "`doorward camera list` shows the cameras",
        "BAD_CAMERA_URL" => "write it like rtsp://192.0.2.7:554/stream1",
        "CREDENTIAL_IN_URL" => "give the URL without user, password and token, and those by --username and --password-file",
        "NO_SHADOW" => "systemd/doorward.toml shows what [shadow] can state",
        "NO_FRAME" => "`doorward camera watch ID` says whether it is online",
        "STALE_ETAG" => "somebody changed it meanwhile: look again, and repeat with the new etag or without one",
        "REQUEST_ID_REUSED" => "repeat the command: every run has an id of its own",
        "NO_ENROLMENT_FOLDER" => "set people_dir in the daemon's configuration and start it again",
        "FOLDER_UNREADABLE" => "let the daemon's user read the folder",
        "MASS_REMOVAL" => "see what would go with --dry-run; --allow-mass-removal does it all the same",
        "ENCODER_UNAVAILABLE" => {
            "`doorward models list` shows the encoders; a new one is added to manifest.toml and its file put beside it"
        }
        "REENCODE_BUSY" | "IMPORT_BUSY" => "wait until it has ended, then run the command again",
        "NO_GALLERY_FILE" => "give a file that `doorward gallery export` wrote; `tar -tf FILE` lists what it holds",
        "GALLERY_FILE_VERSION" => "export again with a doorward of this version, or import with the one that wrote it",
        "GALLERY_FILE_CUT" | "GALLERY_FILE_ALTERED" => {
            "copy the file again from where it was exported; unpacked, `sha256sum --check SHA256SUMS` names what differs"
        }
        "GALLERY_FILE_BAD_LINE" | "GALLERY_FILE_BAD_TEMPLATE" => {
            "docs/gallery-file.md says what a file must hold; one that `doorward gallery export` wrote does"
        }
        "VERSION_NOT_FOUND" => "`doorward gallery versions` lists those that are kept",
        "INFERENCE_NO_ROOM" => "free the GPU's memory, which something else may hold, and try again; cameras go on meanwhile",
        "INFERENCE_BUSY" | "INFERENCE_NOT_NOW" => "wait a moment and try again: cameras go first, or a GPU is opened anew",
        "TOO_MANY_IMPORTS" => "wait until another import has ended, then run the command again",
        "CURSOR_TOO_OLD" => {
            "what came next was deleted (events.retention_days, events.size_max_mb): note the gap, and begin with --from earliest and without the old --resume file"
        }
        "CURSOR_OTHER_EPOCH" => {
            "the cursor is another daemon's, or a backup was put back since: begin with --from earliest and without the old --resume file"
        }
        "CURSOR_IN_FUTURE" | "BAD_CURSOR" => "give a cursor as it came with an event, or --from earliest",
        "WATCHLIST_NOT_FOUND" => "`doorward subject list` shows who is on which list; --allow-missing waits for the first",
        "EVENT_IS_A_CORRECTION" => "give the cursor that the message names, or say who it was with --was ID",
        "EVENT_NAMES_NOBODY" => "say who it was with --was ID, or enrol whom it shows with --enrol ID",
        "EVENT_NOT_FOUND" => "`doorward event list` shows those that are kept",
        "NEGATIVE_SHOWS_SUBJECT" => "look at the photo: it must show somebody else; --allow-inconsistent takes it all the same",
        "STARTING" => "wait until it has started, then run the command again; its log tells how far it is",
        "STOPPING" => "wait until the daemon is back, then run the command again",
        "MESSAGE_TOO_LARGE" => "give a smaller photo, or fewer at once, or raise server.message_bytes_max",
        "UNKNOWN_METHOD" | "UNKNOWN_SERVICE" => {
            "the daemon is of another version than this client: compare `doorward status` and `doorward --version`"
        }
        "INFERENCE_FAILED" | "STORE_FAILED" | "STORE_LOCKED" | "PANICKED" => {
            "the daemon's log says more; `doorward doctor` checks the machine"
        }
        _ => return None,
    })
}

/// What to do about a status without a reason that is known here.
fn advice_on_code(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::Unavailable => "the daemon stopped or cannot be reached: wait until it is back, then run the command again",
        Code::Unauthenticated => "give a token that the daemon knows: --token-file FILE (or DOORWARD_TOKEN_FILE)",
        Code::PermissionDenied => "ask with a token that may do this",
        Code::DeadlineExceeded => "the daemon is overloaded or far away: try again, or raise server.request_timeout_ms",
        Code::Unimplemented => "the daemon is of another version than this client: compare `doorward status` and `doorward --version`",
        Code::OutOfRange => "give a smaller photo, or fewer at once, or raise server.message_bytes_max",
        // Without a reason of the daemon's it was most likely the connection that broke.
        Code::Internal | Code::Unknown | Code::DataLoss => {
            "see whether the daemon runs and whether it wants https:// (`doorward doctor`); its log may say more"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use anyhow::Context;
    use tonic_types::ErrorDetails;

    use super::*;

    fn refusal(code: Code, reason: &str, message: &str, metadata: &[(&str, &str)]) -> Status {
        let metadata: HashMap<_, _> = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Status::with_error_details(code, message, ErrorDetails::with_error_info(reason, "doorward.v1", metadata))
    }

    #[test]
    fn a_refused_photo_is_told_with_what_was_measured_and_what_to_do() {
        let measured = [("sharpness", "12.5"), ("fault", "blurred")];
        let status = refusal(Code::InvalidArgument, "FACE_UNUSABLE", "the face cannot be used: blurred", &measured);
        let failure = describe(&Err::<(), _>(status).context("photo anna.jpg").expect_err("refused"));
        assert_eq!(
            failure.text,
            "error: photo anna.jpg: the face cannot be used: blurred\n  reason: FACE_UNUSABLE\n  fault: blurred\n  sharpness: 12.5\n  \
             what to do: give a larger, sharper, evenly lit photo from the front"
        );
        assert_eq!(failure.exit_code, 1);
    }

    #[test]
    fn a_field_and_a_wait_are_told() {
        let mut details = ErrorDetails::with_error_info("INFERENCE_BUSY", "doorward.v1", HashMap::new());
        details.add_bad_request_violation("camera.url", "no scheme").set_retry_info(Some(std::time::Duration::from_secs(1)));
        let text = describe(&Status::with_error_details(Code::ResourceExhausted, "busy", details).into()).text;
        assert!(text.contains("\n  field: camera.url") && text.contains("\n  try again after: 1.0 s"), "{text}");
    }

    #[test]
    fn what_a_request_may_allow_is_told_as_the_option_that_allows_it() {
        let status = refusal(Code::AlreadyExists, "POSSIBLE_DUPLICATE", "enrolled as bob; allow_duplicate enrols it all the same", &[]);
        let text = describe(&status.into()).text;
        assert!(text.starts_with("error: enrolled as bob; --allow-duplicate enrols it all the same\n"), "{text}");
    }

    #[test]
    fn a_reason_nobody_knows_still_gets_the_advice_of_its_code() {
        let failure = describe(&refusal(Code::Unauthenticated, "BRAND_NEW", "who are you?", &[]).into());
        assert!(failure.text.contains("reason: BRAND_NEW") && failure.text.contains("--token-file"), "{}", failure.text);
        let bare = describe(&Status::new(Code::Unimplemented, "").into());
        assert!(bare.text.contains("another version"), "{}", bare.text);
    }

    #[test]
    fn exit_codes_tell_refusal_usage_and_absence_apart() {
        let twice = anyhow::anyhow!("disk full").context("cannot write x: disk full");
        assert_eq!(describe(&twice).text, "error: cannot write x: disk full", "a cause is told once");
        let code = |error: anyhow::Error| describe(&error).exit_code;
        assert_eq!(code(Status::not_found("no").into()), 1);
        assert_eq!(code(anyhow::anyhow!("disk full")), 1);
        assert_eq!(code(anyhow::Error::new(Usage("both".into())).context("verify")), 2);
        assert_eq!(code(Status::unavailable("gone").into()), 3);
        assert_eq!(describe(&PartlyRefused.into()), Failure { text: String::new(), exit_code: 4 });
        assert_eq!(code(Unanswered(Status::not_found("no").into()).into()), 2, "1 would be an answer");
        assert_eq!(code(Unanswered(std::io::Error::from(ErrorKind::BrokenPipe).into()).into()), 2, "and so would 0");
        assert_eq!(code(Unanswered(Status::unavailable("gone").into()).into()), 3);
        let nobody = std::io::Error::new(ErrorKind::ConnectionRefused, "connection refused");
        let unreachable = describe(&Unreachable::new("http://127.0.0.1:1", &nobody).into());
        assert_eq!(unreachable.exit_code, 3);
        assert!(unreachable.text.contains("http://127.0.0.1:1: connection refused") && unreachable.text.contains("doorward serve"));
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let gone = anyhow::Error::from(std::io::Error::from(ErrorKind::BrokenPipe)).context("printing");
        assert_eq!(describe(&gone), Failure { text: String::new(), exit_code: 0 });
        let broken = Status::from_error(Box::new(std::io::Error::from(ErrorKind::BrokenPipe)));
        assert_ne!(describe(&broken.into()).exit_code, 0, "a connection that broke is one");
    }

    #[test]
    fn what_the_daemon_sends_cannot_steer_the_terminal() {
        let text = describe(&refusal(Code::NotFound, "X\u{1b}[2J", "\u{1b}]0;owned\u{7}", &[("a\n", "b\r")]).into()).text;
        assert!(!text.contains(|c: char| c.is_control() && c != '\n') && !text.contains("a\n:"), "{text:?}");
    }
}
