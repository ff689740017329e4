//! Tests of looking a gallery through.
//!
//! In: made-up prepared photos. Out: nothing. Must not know: models.

use std::sync::Arc;

use crate::enrol::register::Creation;
use crate::enrol::request::Request;
use crate::enrol::tests::{id, prepared, register};
use crate::enrol::{Allowed, EnrolError, Findings, NewSubject, SubjectFields};

use super::*;

async fn create(register: &Arc<Register>, name: &str, photos: &[(u8, u8)]) {
    let request = Request::create_subject(&NewSubject { id: Some(id(name)), ..NewSubject::default() }).expect("a good request");
    let samples = photos.iter().map(|(who, shot)| prepared(*who, *shot)).collect();
    let allowed = Allowed { duplicate: true, inconsistent: true };
    let creation = Creation { id: Some(id(name)), fields: SubjectFields::default(), samples, allowed };
    register.create(request, creation).await.expect("enrolled");
}

async fn all(register: &Register, threshold: Option<f32>) -> Findings {
    let mut all = Findings::default();
    loop {
        let page = register.check(all.last.take(), threshold).await.expect("checked");
        all.look_alikes.extend(page.look_alikes);
        all.misfits.extend(page.misfits);
        all.subjects += page.subjects;
        all.last = page.last;
        if all.last.is_none() {
            return all;
        }
    }
}

#[tokio::test]
async fn look_alikes_and_photos_that_do_not_fit_are_found_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a directory");
    let (register, _) = self::register(folder.path()).await;
    create(&register, "anna", &[(1, 1), (1, 2)]).await;
    create(&register, "annas-double", &[(1, 3)]).await;
    create(&register, "bo", &[(2, 1), (2, 2), (3, 1)]).await;
    for other in 0..90 {
        create(&register, &format!("c{other}"), &[(4 + other % 12, other / 12)]).await;
    }
    let found = all(&register, Some(0.99)).await;
    assert_eq!(found.subjects, 93, "over several pages");
    let fits = |misfit: &Misfit| (misfit.subject.clone(), misfit.similarity < 0.5);
    assert_eq!(found.misfits.iter().map(fits).collect::<Vec<_>>(), [(id("bo"), true)]);
    let of = |findings: &Findings, name: &str| {
        let of_one = findings.look_alikes.iter().filter(|found| found.subject == id(name));
        of_one.map(|found| found.other.to_string()).collect::<Vec<_>>()
    };
    assert!(found.look_alikes.is_empty(), "nobody is as close as that: {:?}", found.look_alikes);
    let found = all(&register, None).await;
    assert_eq!(of(&found, "anna"), ["annas-double", "annas-double"], "each of her photos");
    assert_eq!(of(&found, "annas-double"), ["anna"]);
    assert_eq!(of(&found, "bo"), [""; 0]);
    assert!(matches!(register.check(None, Some(f32::NAN)).await, Err(EnrolError::BadField { field: "threshold", .. })));
}
