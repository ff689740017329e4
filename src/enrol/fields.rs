//! What may be stated of a subject: limits, checked before anything is encoded or stored.
//!
//! In: fields as they were given. Out: fields that can be stored, or which one is wrong and why.
//! Must not know: photos, the store.

use super::{EnrolError, SAMPLES_A_CALL_MAX, SubjectFields};
use crate::subject::{DISPLAY_NAME_BYTES_MAX, Subject};

const WATCHLISTS_MAX: usize = 32;
const WATCHLIST_BYTES_MAX: usize = 64;
const ATTRIBUTES_MAX: usize = 64;
const ATTRIBUTE_NAME_BYTES_MAX: usize = 64;
const ATTRIBUTE_VALUE_BYTES_MAX: usize = 1024;
const CONSENT_REFERENCE_BYTES_MAX: usize = 512;

impl SubjectFields {
    /// The same fields, watchlists sorted and without repeats, when all are within their limits.
    pub(super) fn checked(mut self) -> Result<Self, EnrolError> {
        if let Some(name) = &self.display_name {
            check_text("display_name", name, DISPLAY_NAME_BYTES_MAX)?;
        }
        if let Some(watchlists) = &mut self.watchlists {
            watchlists.sort();
            watchlists.dedup();
            check_count("watchlists", watchlists.len(), WATCHLISTS_MAX)?;
            for watchlist in watchlists.iter() {
                check_name("watchlists", watchlist, WATCHLIST_BYTES_MAX)?;
            }
        }
        if let Some(attributes) = &self.attributes {
            check_count("attributes", attributes.len(), ATTRIBUTES_MAX)?;
            for (name, value) in attributes {
                check_name("attributes", name, ATTRIBUTE_NAME_BYTES_MAX)?;
                check_text("attributes", value, ATTRIBUTE_VALUE_BYTES_MAX)?;
            }
        }
        if let Some(reference) = &self.consent_reference {
            check_text("consent_reference", reference, CONSENT_REFERENCE_BYTES_MAX)?;
        }
        Ok(self)
    }

    /// Writes what is stated into `subject`.
    pub(super) fn write_to(self, subject: &mut Subject) {
        let Self { display_name, watchlists, attributes, consent_reference, expire_time } = self;
        subject.display_name = display_name.unwrap_or(std::mem::take(&mut subject.display_name));
        subject.watchlists = watchlists.unwrap_or(std::mem::take(&mut subject.watchlists));
        subject.attributes = attributes.unwrap_or(std::mem::take(&mut subject.attributes));
        subject.consent_reference = consent_reference.unwrap_or(std::mem::take(&mut subject.consent_reference));
        subject.expire_time = expire_time.unwrap_or(subject.expire_time);
    }
}

/// One call brings one to ten samples.
pub(super) fn check_sample_count(count: usize) -> Result<(), EnrolError> {
    if count == 0 {
        return Err(EnrolError::NoSample);
    }
    check_count("samples", count, SAMPLES_A_CALL_MAX)
}

fn check_count(field: &'static str, count: usize, max: usize) -> Result<(), EnrolError> {
    if count <= max {
        return Ok(());
    }
    Err(EnrolError::BadField { field, reason: format!("there are {count}; give at most {max}") })
}

fn check_name(field: &'static str, name: &str, bytes_max: usize) -> Result<(), EnrolError> {
    if name.trim().is_empty() {
        return Err(EnrolError::BadField { field, reason: "a name is empty".into() });
    }
    check_text(field, name, bytes_max)
}

/// Control characters would let a name write lines of its own into logs and terminals.
fn check_text(field: &'static str, text: &str, bytes_max: usize) -> Result<(), EnrolError> {
    if text.len() > bytes_max {
        return Err(EnrolError::BadField { field, reason: format!("it has {} bytes; give at most {bytes_max}", text.len()) });
    }
    if text.chars().any(char::is_control) {
        return Err(EnrolError::BadField { field, reason: "control characters are not allowed".into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn refused_field(fields: SubjectFields) -> Option<&'static str> {
        match fields.checked() {
            Ok(_) => None,
            Err(EnrolError::BadField { field, .. }) => Some(field),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn what_is_too_much_or_unprintable_is_refused_by_name() {
        let attributes = |count: usize, name: &str, value: &str| {
            let all: BTreeMap<String, String> = (0..count).map(|n| (format!("{name}{n}"), value.to_owned())).collect();
            SubjectFields { attributes: Some(all), ..SubjectFields::default() }
        };
        let lists = |lists: Vec<String>| SubjectFields { watchlists: Some(lists), ..SubjectFields::default() };
        let name = |name: &str| SubjectFields { display_name: Some(name.into()), ..SubjectFields::default() };
        assert_eq!(refused_field(name(&"x".repeat(256))), None);
        assert_eq!(refused_field(name(&"x".repeat(257))), Some("display_name"));
        assert_eq!(refused_field(name("Anna\nroot")), Some("display_name"));
        assert_eq!(refused_field(lists((0..32).map(|n| n.to_string()).collect())), None);
        assert_eq!(refused_field(lists((0..33).map(|n| n.to_string()).collect())), Some("watchlists"));
        assert_eq!(refused_field(lists(vec![" ".into()])), Some("watchlists"));
        assert_eq!(refused_field(lists(vec!["x".repeat(65)])), Some("watchlists"));
        assert_eq!(refused_field(attributes(64, "a", &"v".repeat(1024))), None);
        assert_eq!(refused_field(attributes(65, "a", "v")), Some("attributes"));
        assert_eq!(refused_field(attributes(1, &"n".repeat(64), "v")), Some("attributes"));
        assert_eq!(refused_field(attributes(1, "a", &"v".repeat(1025))), Some("attributes"));
        let consent = SubjectFields { consent_reference: Some("c".repeat(513)), ..SubjectFields::default() };
        assert_eq!(refused_field(consent), Some("consent_reference"));
    }

    #[test]
    fn watchlists_are_sorted_without_repeats() {
        let fields = SubjectFields { watchlists: Some(["vip", "staff", "vip"].map(String::from).to_vec()), ..SubjectFields::default() };
        assert_eq!(fields.checked().expect("good lists").watchlists, Some(["staff", "vip"].map(String::from).to_vec()));
    }

    #[test]
    fn a_call_brings_one_to_ten_samples() {
        assert!(matches!(check_sample_count(0), Err(EnrolError::NoSample)));
        assert!(check_sample_count(10).is_ok());
        assert!(matches!(check_sample_count(11), Err(EnrolError::BadField { field: "samples", .. })));
    }
}
