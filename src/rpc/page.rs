//! Page tokens and cursors: texts that a client hands back without looking inside.
//!
//! In: where a page or a response ended. Out: an opaque text, and back again.
//! Must not know: what is listed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::Status;
use uuid::Uuid;

use super::status::{Refusal, bad_field};
use crate::event_log::Position;

/// What a page holds when the caller does not say.
const PAGE_SIZE_DEFAULT: usize = 100;
/// The most a page holds; a larger wish is cut to it (AIP-158).
const PAGE_SIZE_MAX: usize = 1_000;

/// One page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The most entries.
    pub(super) size: usize,
    /// The key that the page before ended with.
    pub(super) after: Option<String>,
}

impl Page {
    /// Reads `page_size` and `page_token` of a list whose name and filters are `query`. A token
    /// belongs to the list and the filters that it was made for.
    pub(super) fn read(size: i32, token: &str, query: &str) -> Result<Self, Status> {
        let size = match usize::try_from(size) {
            Ok(0) => PAGE_SIZE_DEFAULT,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => return Err(bad_field("page_size", "must not be negative; 0 takes 100, at most 1000").into()),
        };
        if token.is_empty() {
            return Ok(Self { size, after: None });
        }
        let text = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(|text| text.rsplit_once('\0')) {
            Some((of, after)) if of == query => Ok(Self { size, after: Some(after.to_owned()) }),
            _ => Err(bad_token()),
        }
    }

    /// Cuts `entries`, which may hold one more than the page, to the page, and answers the token
    /// of the next one; empty when there is none.
    pub(super) fn cut<T>(&self, entries: &mut Vec<T>, query: &str, key: impl Fn(&T) -> String) -> String {
        if entries.len() <= self.size {
            return String::new();
        }
        entries.truncate(self.size);
        entries.last().map(|last| Self::token(query, &key(last))).unwrap_or_default()
    }

    /// The token of the page that comes after `key` in the list `query`.
    pub(super) fn token(query: &str, key: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("{query}\0{key}"))
    }
}

/// The refusal of a token that this list did not make.
pub(super) fn bad_token() -> Status {
    Refusal::invalid("BAD_PAGE_TOKEN", "page_token: no token of this list with these filters; begin again without one")
        .field("page_token")
        .into()
}

/// The resume point just after `sequence` in the log `epoch`. Opaque to clients.
pub(super) fn cursor(epoch: Uuid, sequence: u64) -> String {
    format!("{}-{sequence:x}", epoch.simple())
}

/// The place that a cursor which a client handed back in `field` stands for.
pub(super) fn place(cursor_text: &str, field: &str) -> Result<Position, Status> {
    let parts = cursor_text.split_once('-').and_then(|(epoch, sequence)| {
        Some(Position { epoch: Uuid::try_parse(epoch).ok()?, sequence: u64::from_str_radix(sequence, 16).ok()? })
    });
    // Only what this daemon would write itself: a cursor that was cut or mistyped must not lead elsewhere.
    parts.filter(|at| cursor(at.epoch, at.sequence) == cursor_text).ok_or_else(|| {
        let message = format!("{field}: no cursor of this daemon; hand back one that came with an event or a position, as it is");
        Refusal::invalid("BAD_CURSOR", message).field(field).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_token_leads_to_the_next_page() {
        let page = Page::read(2, "", "subjects/staff").expect("the first page");
        let mut entries = vec!["a", "b", "c"];
        let token = page.cut(&mut entries, "subjects/staff", |e| (*e).to_owned());
        assert_eq!(entries, ["a", "b"]);
        assert_eq!(Page::read(2, &token, "subjects/staff").expect("the next page"), Page { size: 2, after: Some("b".into()) });
        assert_eq!(page.cut(&mut entries, "subjects/staff", |e| (*e).to_owned()), "", "the last page has no token");
    }

    #[test]
    fn a_token_of_another_list_or_filter_is_refused() {
        let page = Page::read(1, "", "subjects/staff").expect("the first page");
        let token = page.cut(&mut vec![1, 2], "subjects/staff", ToString::to_string);
        for (token, query) in [(token.as_str(), "subjects/"), ("%%%", "cameras"), ("AAAA", "cameras"), ("_w", "cameras")] {
            assert_eq!(Page::read(1, token, query).expect_err(token).code(), tonic::Code::InvalidArgument, "{token}");
        }
    }

    #[test]
    fn page_sizes_are_bounded() {
        let size = |size| Page::read(size, "", "q").map(|page| page.size);
        assert_eq!((size(0).ok(), size(7).ok(), size(i32::MAX).ok()), (Some(100), Some(7), Some(1_000)));
        assert_eq!(size(-1).expect_err("negative").code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn a_cursor_leads_back_to_its_place_and_nothing_else_is_one() {
        let epoch = Uuid::from_u128(0xabc);
        for sequence in [0, 1, 255, u64::MAX] {
            assert_eq!(place(&cursor(epoch, sequence), "cursor").expect("a cursor"), Position { epoch, sequence });
        }
        let good = cursor(epoch, 0x1f);
        let hyphenated = format!("{}-1f", epoch.hyphenated());
        for bad in
            ["", "-", "x-1", &good[1..], &good[..33], &good.to_uppercase(), &format!("{good} "), &good.replace("1f", "01f"), &hyphenated]
        {
            assert_eq!(place(bad, "cursor").expect_err(bad).code(), tonic::Code::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn cursors_of_two_events_differ() {
        let epoch = Uuid::from_u128(1);
        assert_ne!(cursor(epoch, 1), cursor(epoch, 2));
        assert_ne!(cursor(epoch, 1), cursor(Uuid::from_u128(2), 1));
    }
}
