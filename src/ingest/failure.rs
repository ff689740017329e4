//! Says in a camera's terms why an attempt ended.
//!
//! In: GStreamer's errors, the watchdog's verdict. Out: a reason and a message that says what to do, both without credentials.
//! Must not know: pipelines, retries.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::cuda::DECODER_NAME;
use super::watchdog::{Death, KEYFRAME_WAIT_MAX, SILENCE_MAX};
use crate::camera::{Credential, OfflineReason};

/// Messages are cut to this many characters: they go into logs and replies.
const MESSAGE_CHARS_MAX: usize = 300;

/// Why an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) reason: OfflineReason,
    pub(super) message: String,
    /// What came could be video, and the decoder made nothing of it: another decoder may.
    pub(super) is_of_decoder: bool,
}

/// How far the conversation with the camera has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// The camera has accepted the connection.
    pub(super) is_connected: bool,
    /// Its certificate was refused.
    pub(super) is_untrusted: bool,
    /// The camera has described its streams.
    pub(super) is_described: bool,
    /// One of them is H.264 or H.265 video.
    pub(super) has_video: bool,
}

impl Failure {
    pub(super) fn new(reason: OfflineReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), is_of_decoder: reason == OfflineReason::Undecodable }
    }

    /// What an error message on the bus means.
    pub(super) fn from_error(error: &gst::message::Error, progress: Progress) -> Self {
        let is_from_device = error.src().is_some_and(|element| element.name().starts_with(DECODER_NAME));
        let status = error.details().and_then(|details| details.get::<u32>("rtsp-status-code").ok());
        let (error, debug) = (error.error(), error.debug());
        let said = said(&error, debug.as_deref());
        if progress.is_described && !progress.has_video {
            return Self::no_video();
        }
        if progress.is_untrusted {
            return Self::untrusted();
        }
        match status {
            Some(401 | 403) => {
                return Self::new(OfflineReason::Unauthorised, format!("the camera refuses the credential, or wants one: {said}"));
            }
            Some(404) => {
                return Self::new(OfflineReason::NotFound, format!("the camera knows no such stream; check the path of its URL: {said}"));
            }
            Some(_) => return Self::new(OfflineReason::Other, format!("the camera refuses: {said}")),
            None => {}
        }
        if error.matches(gst::ResourceError::NotAuthorized) {
            Self::new(OfflineReason::Unauthorised, format!("the camera refuses the credential, or wants one: {said}"))
        } else if error.matches(gst::ResourceError::NotFound) {
            Self::new(OfflineReason::NotFound, format!("the camera knows no such stream; check the path of its URL: {said}"))
        } else if error.is::<gst::StreamError>() || is_from_device {
            Self::new(OfflineReason::Undecodable, format!("what the camera sends cannot be decoded: {said}"))
        } else if error.is::<gst::ResourceError>() && !progress.is_connected {
            Self::new(OfflineReason::Unreachable, format!("nobody answers at the camera's address: {said}"))
        } else if error.is::<gst::ResourceError>() {
            Self::new(OfflineReason::Ended, format!("the connection to the camera broke: {said}"))
        } else {
            Self::new(OfflineReason::Other, said)
        }
    }

    /// What the end of the stream means: a camera has no end, so it, or the network, went away.
    pub(super) fn ended() -> Self {
        Self::new(OfflineReason::Ended, "the camera ended the stream or closed the connection")
    }

    /// The camera shows a certificate, and nobody vouches for it or for its name.
    pub(super) fn untrusted() -> Self {
        Self::new(
            OfflineReason::Untrusted,
            "the camera's certificate is not trusted, has expired or names another host; put it, or its authority's, into the file of cameras.ca_file",
        )
    }

    /// None of the streams can be used.
    pub(super) fn no_video() -> Self {
        Self::new(
            OfflineReason::NoVideo,
            "the camera offers no H.264 or H.265 video; choose such a profile in the camera or another path in its URL",
        )
    }

    /// What the watchdog's verdict means.
    pub(super) fn from_death(death: Death, progress: Progress) -> Self {
        let (silence, keyframe_wait) = (SILENCE_MAX.as_secs(), KEYFRAME_WAIT_MAX.as_secs());
        match death {
            Death::NothingCame if !progress.is_connected => {
                Self::new(OfflineReason::Unreachable, format!("nobody answered at the camera's address for {silence} s"))
            }
            Death::NothingCame if !progress.is_described => Self::new(
                OfflineReason::Stalled,
                format!("the camera accepted the connection and has not said for {silence} s what it sends; it may be busy or starting"),
            ),
            Death::NothingCame => {
                Self::new(OfflineReason::Stalled, format!("the camera accepted the connection and sent no video for {silence} s"))
            }
            Death::PacketsCeased => {
                Self::new(OfflineReason::Stalled, format!("the connection stands and no video has come for {silence} s"))
            }
            // No decoder has anything to begin with.
            Death::NoKeyframe => {
                let message = format!("no keyframe came for {keyframe_wait} s; set a keyframe interval of seconds in the camera");
                Self { is_of_decoder: false, ..Self::new(OfflineReason::Undecodable, message) }
            }
            Death::AllSkipped => Self::new(
                OfflineReason::Stalled,
                format!(
                    "no picture could be used for {silence} s: where a packet is lost or decoding falls behind, pictures are skipped up to the \
                     next keyframe; set a keyframe interval of a second or two in the camera"
                ),
            ),
            Death::NothingDecodes => {
                Self::new(OfflineReason::Undecodable, format!("video comes, but nothing of it could be decoded for {silence} s"))
            }
        }
    }

    /// The same; where nothing could be decoded, with why the last picture was refused, if one came.
    pub(super) fn with_refusal(self, why: Option<String>) -> Self {
        match why.filter(|_| self.reason == OfflineReason::Undecodable) {
            Some(why) => Self { message: format!("{}: {why}", self.message), ..self },
            None => self,
        }
    }

    /// The same; where it is the decoder's, with what that warned of, if it did.
    pub(super) fn with_warning(self, heard: Option<String>) -> Self {
        match heard.filter(|_| self.is_of_decoder) {
            Some(heard) => Self { message: format!("{}: {heard}", self.message), ..self },
            None => self,
        }
    }

    /// The same, with nothing of `credential` in its message.
    pub(super) fn scrubbed(self, credential: Option<&Credential>) -> Self {
        let message = scrub(&self.message, credential).chars().take(MESSAGE_CHARS_MAX).collect();
        Self { message, ..self }
    }
}

/// GStreamer's own words: the message, and the last line of the debug text, which holds the cause.
fn said(error: &gst::glib::Error, debug: Option<&str>) -> String {
    let cause = debug.and_then(|debug| debug.lines().map(str::trim).rfind(|line| !line.is_empty()));
    let cause = cause.map(|cause| cause.rsplit_once("():").map_or(cause, |(_, cause)| cause).trim());
    let message = error.message().trim();
    match cause {
        Some(cause) if cause.is_empty() || message.contains(cause) || cause.starts_with('/') => message.to_owned(),
        Some(cause) if cause.starts_with(message.trim_end_matches('.')) => cause.to_owned(),
        Some(cause) => format!("{message} {cause}"),
        None => message.to_owned(),
    }
}

fn scrub(text: &str, credential: Option<&Credential>) -> String {
    let mut text = text.to_owned();
    for secret in credential.iter().flat_map(|credential| [credential.password.reveal(), &credential.username]) {
        if !secret.is_empty() {
            text = text.replace(secret, "***");
        }
    }
    without_userinfo(&text)
}

/// `text` with the user information of every URL in it taken out.
fn without_userinfo(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("://") {
        let (before, after) = rest.split_at(start + 3);
        clean.push_str(before);
        let authority = after.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(after.len());
        rest = after[..authority].rfind('@').map_or(after, |at| &after[at + 1..]);
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::Secret;

    fn failure(kind: impl gst::MessageErrorDomain, debug: &str, progress: Progress) -> OfflineReason {
        gst::init().expect("GStreamer starts");
        let message = gst::message::Error::builder(kind, "it failed").debug(debug).build();
        let gst::MessageView::Error(error) = message.view() else { panic!("an error was built") };
        Failure::from_error(error, progress).reason
    }

    #[test]
    fn errors_are_told_in_a_cameras_terms() {
        let connected = Progress { is_connected: true, is_described: true, has_video: true, ..Progress::default() };
        let silent = Progress::default();
        let audio_only = Progress { has_video: false, ..connected };
        assert_eq!(failure(gst::ResourceError::OpenReadWrite, "Failed to connect", silent), OfflineReason::Unreachable);
        assert_eq!(failure(gst::ResourceError::NotAuthorized, "", connected), OfflineReason::Unauthorised);
        assert_eq!(failure(gst::ResourceError::NotFound, "", connected), OfflineReason::NotFound);
        assert_eq!(failure(gst::ResourceError::Read, "", connected), OfflineReason::Ended);
        assert_eq!(failure(gst::StreamError::Decode, "", connected), OfflineReason::Undecodable);
        assert_eq!(failure(gst::StreamError::Format, "", audio_only), OfflineReason::NoVideo);
    }

    #[test]
    fn a_camera_that_sends_no_keyframe_is_not_held_against_the_decoder() {
        let is_of_decoder = |death| Failure::from_death(death, Progress::default()).scrubbed(None).is_of_decoder;
        assert!(is_of_decoder(Death::NothingDecodes));
        assert!(!is_of_decoder(Death::NoKeyframe), "another decoder would wait as long");
        assert!(!is_of_decoder(Death::PacketsCeased));
    }

    #[test]
    fn where_nothing_decodes_the_last_refusal_is_named() {
        let of = |death| Failure::from_death(death, Progress::default()).with_refusal(Some("it is YUY2".into())).message;
        assert!(of(Death::NothingDecodes).ends_with("could be decoded for 5 s: it is YUY2"), "{}", of(Death::NothingDecodes));
        assert!(!of(Death::PacketsCeased).contains("YUY2"), "no picture came");
    }

    #[test]
    fn where_nothing_came_it_is_said_how_far_the_camera_answered() {
        let of = |is_connected, is_described| {
            let progress = Progress { is_connected, is_described, ..Progress::default() };
            let Failure { reason, message, .. } = Failure::from_death(Death::NothingCame, progress);
            (reason, message)
        };
        let (reason, message) = of(false, false);
        assert!(reason == OfflineReason::Unreachable && message.contains("nobody answered"), "{message}");
        let (reason, message) = of(true, false);
        assert!(reason == OfflineReason::Stalled && message.contains("has not said for 5 s what it sends"), "{message}");
        let (reason, message) = of(true, true);
        assert!(reason == OfflineReason::Stalled && message.contains("sent no video for 5 s"), "{message}");
    }

    #[test]
    fn what_the_decoder_warned_of_is_told_of_its_own_failures_alone() {
        let of = |reason| Failure::new(reason, "Internal data stream error").with_warning(Some("CUDA_ERROR_UNKNOWN".into())).message;
        assert_eq!(of(OfflineReason::Undecodable), "Internal data stream error: CUDA_ERROR_UNKNOWN");
        assert_eq!(of(OfflineReason::Ended), "Internal data stream error");
    }

    #[test]
    fn no_message_carries_a_credential() {
        let credential = Credential { username: "keeper".into(), password: Secret::new("p@ss/w") };
        let text = "cannot open rtsp://keeper:p@ss/w@10.0.0.1/door (p@ss/w, keeper) nor rtsp://u:v@h/x or rtsp://a@b";
        let failure = Failure::new(OfflineReason::Other, text).scrubbed(Some(&credential));
        for secret in ["keeper", "p@ss/w", "u:v", "a@b"] {
            assert!(!failure.message.contains(secret), "{secret:?} in {:?}", failure.message);
        }
        assert!(failure.message.contains("rtsp://h/x"), "{:?}", failure.message);
    }
}
