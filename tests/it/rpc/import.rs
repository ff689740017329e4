//! Imports over a real connection, photo by photo: what is told of each, and how an import ends.
//!
//! In: the models and a few photos of two people. Prints what is left out where they are missing.
//! Must not know: the command line.

use std::time::Duration;

use doorward::pb;
use doorward::pb::gallery_service_client::GalleryServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::served::{PATIENCE, Served, bytes, new_subject, reason, serve};

/// An import that is under way, after its first response.
struct Import {
    photos: mpsc::Sender<pb::ImportSubjectsRequest>,
    answers: Streaming<pb::ImportSubjectsResponse>,
}

impl Import {
    async fn begin(served: &Served) -> Result<Self, Status> {
        let (photos, outgoing) = mpsc::channel(1);
        let mut gallery = GalleryServiceClient::new(served.channel.clone());
        let mut answers = gallery.import_subjects(ReceiverStream::new(outgoing)).await?.into_inner();
        let first = answers.message().await?.expect("a first response");
        assert!(first.results.is_empty() && first.image_bytes_max.is_some_and(|max| max > 30 << 20), "{first:?}");
        Ok(Self { photos, answers })
    }

    /// Sends one photo and waits until it is told of.
    async fn take(&mut self, key: &str, id: &str, image: &[u8]) -> pb::ImportResult {
        let subject = Some(pb::Subject { id: id.into(), display_name: id.to_uppercase(), ..Default::default() });
        let request = pb::ImportSubjectsRequest { item_key: key.into(), subject, image: image.to_vec(), ..Default::default() };
        self.photos.send(request).await.expect("it takes photos");
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("told in time");
        let mut results = answer.expect("it goes on").expect("it does not end").results;
        assert_eq!((results.len(), results[0].item_key.as_str(), results[0].subject_id.as_str()), (1, key, id));
        results.remove(0)
    }

    async fn end(mut self) -> Result<(), Status> {
        drop(self.photos);
        match tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("it ends") {
            Ok(more) => {
                assert_eq!(more, None);
                Ok(())
            }
            Err(status) => Err(status),
        }
    }
}

#[tokio::test]
async fn each_photo_is_told_with_its_reason_and_bad_ones_do_not_end_an_import() {
    let left_out = "imports by RPC";
    let Some(served) = serve(left_out, 4_096).await else { return };
    let photos = ["obama.jpg", "obama2.jpg", "biden.jpg"].map(|name| bytes(name, left_out));
    let [Some(obama), Some(another), Some(biden)] = photos else { return };
    let mut gallery = GalleryServiceClient::new(served.channel.clone());
    gallery.create_subject(new_subject("biden", &biden)).await.expect("enrolled");
    let mut import = Import::begin(&served).await.expect("begun");
    let said = |result: pb::ImportResult| (result.status(), result.reason);
    let added = import.take("1", "obama", &obama).await;
    assert_eq!(added.status(), pb::ImportStatus::Added);
    let (known, enrolled) = {
        let request = pb::GetSubjectRequest { id: "obama".into() };
        let subject = gallery.get_subject(request).await.expect("told when it is on disk").into_inner().subject.expect("a subject");
        (gallery.get_gallery(pb::GetGalleryRequest {}).await.expect("known").into_inner(), subject)
    };
    assert_eq!((known.version, known.subject_count), (added.gallery_version, 2), "and matching");
    assert_eq!((enrolled.display_name.as_str(), enrolled.origin()), ("OBAMA", pb::SubjectOrigin::Rpc));
    let refused = |reason: &str| (pb::ImportStatus::Refused, reason.to_owned());
    assert_eq!(said(import.take("2", "../etc", &another).await), refused("BAD_SUBJECT_ID"));
    assert_eq!(said(import.take("3", "obama", b"").await), refused("BAD_FIELD"));
    assert_eq!(said(import.take("4", "obama", b"no picture").await), refused("BAD_IMAGE"));
    assert_eq!(said(import.take("5", "obama", &biden).await), refused("PHOTO_OF_ANOTHER_SUBJECT"));
    let mut copy = biden.clone();
    copy.push(0);
    assert_eq!(said(import.take("6", "obama", &copy).await), refused("POSSIBLE_DUPLICATE"));
    assert_eq!(said(import.take("7", "obama", &obama).await), (pb::ImportStatus::Unchanged, String::new()));
    assert_eq!(said(import.take("8", "obama", &another).await), (pb::ImportStatus::Added, String::new()));
    import.end().await.expect("an orderly end");
    assert_eq!(gallery.get_gallery(pb::GetGalleryRequest {}).await.expect("known").into_inner().template_count, 3);

    // What would end it tells why, and takes nothing back.
    let mut import = Import::begin(&served).await.expect("begun");
    import.take("1", "obama", &obama).await;
    let nameless = pb::ImportSubjectsRequest { item_key: "x".repeat(5000), ..Default::default() };
    import.photos.send(nameless).await.expect("sent");
    let status = import.end().await.expect_err("no name of an item is so long");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "BAD_FIELD"));
    let mut import = Import::begin(&served).await.expect("begun");
    assert_eq!(import.take("1", "obama", &another).await.status(), pb::ImportStatus::Unchanged);
    let huge = pb::ImportSubjectsRequest { item_key: "huge".into(), image: vec![0; 33 << 20], ..Default::default() };
    import.photos.send(huge).await.expect("sent");
    let status = import.end().await.expect_err("more than the daemon reads");
    assert_eq!(reason(&status), "MESSAGE_TOO_LARGE", "{status:?}");
}

#[tokio::test]
async fn imports_have_a_limit_give_their_place_back_and_end_with_the_daemon() {
    let Some(served) = serve("the limit of imports", 4_096).await else { return };
    let mut imports = Vec::new();
    for _ in 0..4 {
        imports.push(Import::begin(&served).await.expect("there is a place"));
    }
    let refused = Import::begin(&served).await.err().expect("each holds photos");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "TOO_MANY_IMPORTS"));
    // A client that leaves gives its place back.
    drop(imports.pop());
    let again = tokio::time::timeout(PATIENCE, async {
        loop {
            match Import::begin(&served).await {
                Ok(import) => return import,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    imports.push(again.await.expect("a place is free"));
    let Served { stop, ended, .. } = served;
    stop.send(()).expect("it serves");
    for mut import in imports {
        let status = import.answers.message().await.expect_err("the daemon stops");
        assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STOPPING"));
    }
    tokio::time::timeout(PATIENCE, ended).await.expect("in time").expect("an orderly end");
}
