//! The services over a real connection, on the real stages: enrol, ask, subscribe, steer cameras.
//!
//! In: the models and a few photos of two people. Prints what is left out where they are missing.
//! Must not know: RTSP; the cameras here are disabled.

mod events;
mod import;
pub mod served;

use doorward::pb;
use doorward::pb::camera_service_client::CameraServiceClient;
use doorward::pb::event_service_client::EventServiceClient;
use doorward::pb::gallery_service_client::GalleryServiceClient;
use doorward::pb::recognition_service_client::RecognitionServiceClient;
use doorward::pb::system_service_client::SystemServiceClient;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use self::served::{PATIENCE, bytes, image, new_subject, photo, reason, serve};

#[tokio::test]
async fn an_enrolled_person_is_known_until_erased() {
    let left_out = "enrolment by RPC";
    let Some(served) = serve(left_out, 4_096).await else { return };
    let photos = ["obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg"].map(|name| bytes(name, left_out));
    let [Some(obama), Some(another), Some(third), Some(biden)] = photos else { return };
    let mut gallery = GalleryServiceClient::new(served.channel.clone());
    let mut recognition = RecognitionServiceClient::new(served.channel.clone());
    let identify = |image: &[u8]| pb::IdentifyRequest { image: image.to_vec(), candidates_max: 0 };

    let nobody = recognition.identify(identify(&obama)).await.expect("answered").into_inner();
    assert_eq!(nobody.identifications[0].rejection(), pb::IdentificationRejection::EmptyGallery);

    let created = gallery.create_subject(new_subject("obama", &obama)).await.expect("enrolled").into_inner();
    let subject = created.subject.expect("a subject");
    assert_eq!((subject.sample_count, subject.origin(), created.samples.len()), (1, pb::SubjectOrigin::Rpc, 1));
    assert!(created.samples[0].quality.expect("measured").overall > 0.3);

    let known = recognition.identify(identify(&another)).await.expect("answered").into_inner();
    let matched = known.identifications[0].subject.as_ref().expect("known at once");
    assert_eq!((matched.subject_id.as_str(), matched.display_name.as_str()), ("obama", "OBAMA"));
    assert!(matched.similarity >= known.identifications[0].threshold && known.gallery_version == created.gallery_version);
    let stranger = recognition.identify(identify(&biden)).await.expect("answered").into_inner();
    assert_eq!(stranger.identifications[0].rejection(), pb::IdentificationRejection::BelowThreshold);
    assert_eq!(stranger.identifications[0].candidates[0].subject_id, "obama", "the closest is told, with its similarity");

    let claim = |claim| pb::VerifyRequest { image: third.clone(), claim: Some(claim) };
    let verified = recognition.verify(claim(pb::verify_request::Claim::SubjectId("obama".into()))).await.expect("answered").into_inner();
    assert!(verified.r#match && verified.similarity >= verified.threshold && verified.head == "cosine");
    let other = recognition.verify(claim(pb::verify_request::Claim::OtherImage(biden.clone()))).await.expect("answered").into_inner();
    assert!(!other.r#match);
    let unknown = recognition.verify(claim(pb::verify_request::Claim::SubjectId("nobody".into()))).await.expect_err("no such subject");
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "SUBJECT_NOT_FOUND"));
    let detected = recognition.detect_faces(pb::DetectFacesRequest { image: biden }).await.expect("answered").into_inner();
    assert_eq!((detected.faces.len(), detected.faces[0].landmarks.len()), (1, 5));
    let found = recognition.search(search(&another, &[])).await.expect("answered").into_inner();
    assert_eq!(found.candidates[0].subject_uid, subject.uid);
    let update = pb::UpdateSubjectRequest {
        subject: Some(pb::Subject { id: "obama".into(), watchlists: vec!["guests".into()], ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["watchlists".into()] }),
        ..Default::default()
    };
    gallery.update_subject(update).await.expect("changed");
    for (watchlists, count) in [(&["staff", "guests"][..], 1), (&["staff"], 0)] {
        let found = recognition.search(search(&another, watchlists)).await.expect("answered").into_inner();
        assert_eq!(found.candidates.len(), count, "of {watchlists:?}");
    }
    let many = vec!["w"; 1_001];
    let refused = recognition.search(search(&another, &many)).await.expect_err("too many");
    assert_eq!((refused.code(), refused.message().contains("watchlists")), (Code::InvalidArgument, true));

    let erase = pb::DeleteSubjectRequest { id: "obama".into(), ..Default::default() };
    let receipt = gallery.delete_subject(erase).await.expect("erased").into_inner();
    assert_eq!((receipt.uid, receipt.templates_erased, receipt.samples_erased), (subject.uid, 1, 1));
    let gone = recognition.identify(identify(&obama)).await.expect("answered").into_inner();
    assert!(gone.identifications[0].subject.is_none());
    let gone = gallery.get_subject(pb::GetSubjectRequest { id: "obama".into() }).await.expect_err("erased");
    assert_eq!(gone.code(), Code::NotFound);
}

/// The field that a refusal blames.
fn to_blame(status: &Status) -> String {
    let violations = status.get_details_bad_request().expect("a BadRequest").field_violations;
    violations.into_iter().map(|violation| violation.field).collect()
}

fn search(image: &[u8], watchlists: &[&str]) -> pb::SearchRequest {
    let watchlists = watchlists.iter().map(|&list| list.to_owned()).collect();
    pb::SearchRequest { image: image.to_vec(), candidates_max: 1, watchlists }
}

#[tokio::test]
async fn what_cannot_be_enrolled_is_refused_with_its_reason() {
    let left_out = "refused enrolment";
    let Some(served) = serve(left_out, 4_096).await else { return };
    let photos = ["obama.jpg", "obama2.jpg"].map(|name| bytes(name, left_out));
    let [Some(obama), Some(another)] = photos else { return };
    let mut gallery = GalleryServiceClient::new(served.channel.clone());
    gallery.create_subject(new_subject("obama", &obama)).await.expect("enrolled");
    let flat = {
        let mut png = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_pixel(200, 200, image::Rgb([90, 120, 90])).write_to(&mut png, image::ImageFormat::Png).expect("written");
        png.into_inner()
    };
    let mut check = async |request: pb::CreateSubjectRequest, code, expected: &str| {
        let status = gallery.create_subject(request).await.expect_err(expected);
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{status:?}");
        status
    };
    check(new_subject("x", b"no picture at all"), Code::InvalidArgument, "BAD_IMAGE").await;
    check(new_subject("x", &flat), Code::InvalidArgument, "NO_FACE").await;
    check(new_subject("x", b""), Code::InvalidArgument, "BAD_FIELD").await;
    check(new_subject("../x", &another), Code::InvalidArgument, "BAD_SUBJECT_ID").await;
    check(pb::CreateSubjectRequest { samples: vec![], ..new_subject("x", b"") }, Code::InvalidArgument, "NO_SAMPLE").await;
    check(new_subject("obama", &another), Code::AlreadyExists, "SUBJECT_EXISTS").await;
    check(pb::CreateSubjectRequest { request_id: "again".into(), ..new_subject("x", &another) }, Code::InvalidArgument, "BAD_FIELD").await;
    let duplicate = check(new_subject("x", &another), Code::AlreadyExists, "POSSIBLE_DUPLICATE").await;
    assert_eq!(duplicate.get_details_error_info().expect("an ErrorInfo").metadata["subject_id"], "obama");
    let several = pb::CreateSubjectRequest { samples: vec![image(&another), image(&flat)], ..new_subject("x", b"") };
    let refused = check(several, Code::InvalidArgument, "NO_FACE").await;
    assert!(to_blame(&refused) == "samples[1]" && refused.message().contains("photo 2"), "{refused:?}");
    let listed = gallery.list_subjects(pb::ListSubjectsRequest::default()).await.expect("listed").into_inner();
    assert_eq!(listed.subjects.len(), 1, "nothing of what was refused is stored");
    let claim = Some(pb::verify_request::Claim::OtherImage(flat));
    let mut recognition = RecognitionServiceClient::new(served.channel.clone());
    let refused = recognition.verify(pb::VerifyRequest { image: obama, claim }).await.expect_err("nobody is on the other");
    assert_eq!((reason(&refused).as_str(), to_blame(&refused).as_str()), ("NO_FACE", "other_image"));
}

#[tokio::test]
async fn subjects_are_changed_listed_and_repeated_safely() {
    let left_out = "changing subjects by RPC";
    let Some(served) = serve(left_out, 4_096).await else { return };
    let photos = ["obama.jpg", "obama2.jpg", "biden.jpg"].map(|name| bytes(name, left_out));
    let [Some(obama), Some(another), Some(biden)] = photos else { return };
    let mut gallery = GalleryServiceClient::new(served.channel.clone());

    let request = pb::CreateSubjectRequest { request_id: uuid::Uuid::new_v4().to_string(), ..new_subject("", &obama) };
    let first = gallery.create_subject(request.clone()).await.expect("enrolled").into_inner();
    let repeat = gallery.create_subject(request).await.expect("answered").into_inner();
    assert_eq!(first, repeat, "a repeat returns the first answer");
    let obama = first.subject.expect("a subject with an id of the daemon's making");
    gallery.create_subject(new_subject("biden", &biden)).await.expect("enrolled");

    let add = pb::CreateSampleRequest { subject_id: obama.id.clone(), sample: Some(image(&another)), ..Default::default() };
    gallery.create_sample(add).await.expect("added");
    let mut samples = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = pb::ListSamplesRequest { subject_id: obama.id.clone(), page_size: 1, page_token };
        let page = gallery.list_samples(page).await.expect("listed").into_inner();
        samples.extend(page.samples);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(samples.len(), 2);
    assert!(samples.iter().all(|s| s.similarity_to_rest.is_some_and(|similarity| similarity > 0.3)));
    let remove = |id: &str| pb::DeleteSampleRequest { subject_id: obama.id.clone(), sample_id: id.into(), ..Default::default() };
    gallery.delete_sample(remove(&samples[0].id)).await.expect("removed");
    let last = gallery.delete_sample(remove(&samples[1].id)).await.expect_err("the last one stays");
    assert_eq!(reason(&last), "NO_SAMPLE");

    let mask = |path: &str| Some(prost_types::FieldMask { paths: vec![path.into()] });
    let renamed = pb::Subject { id: obama.id.clone(), display_name: "B. O.".into(), ..Default::default() };
    let update = pb::UpdateSubjectRequest { subject: Some(renamed), update_mask: mask("display_name"), ..Default::default() };
    let changed = gallery.update_subject(update.clone()).await.expect("changed").into_inner().subject.expect("a subject");
    assert_eq!((changed.display_name.as_str(), &changed.watchlists), ("B. O.", &obama.watchlists));
    let stale = pb::Subject { id: obama.id.clone(), etag: obama.etag, ..Default::default() };
    let stale = gallery.update_subject(pb::UpdateSubjectRequest { subject: Some(stale), ..update.clone() }).await.expect_err("stale");
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "STALE_ETAG"));
    assert_eq!(stale.get_details_error_info().expect("an ErrorInfo").metadata["etag"], changed.etag);
    let bad = gallery.update_subject(pb::UpdateSubjectRequest { update_mask: mask("uid"), ..update }).await.expect_err("immutable");
    assert_eq!(reason(&bad), "UNKNOWN_FIELD");

    let page = |page_token: String| pb::ListSubjectsRequest { page_size: 1, page_token, watchlist: "staff".into() };
    let one = gallery.list_subjects(page(String::new())).await.expect("listed").into_inner();
    let two = gallery.list_subjects(page(one.next_page_token.clone())).await.expect("listed").into_inner();
    assert_eq!((one.subjects.len(), two.subjects.len(), two.next_page_token.as_str()), (1, 1, ""));
    assert!(one.subjects[0].id < two.subjects[0].id);
    let elsewhere = pb::ListSubjectsRequest { page_token: one.next_page_token, ..Default::default() };
    assert_eq!(reason(&gallery.list_subjects(elsewhere).await.expect_err("another list's token")), "BAD_PAGE_TOKEN");
    let facts = gallery.get_gallery(pb::GetGalleryRequest {}).await.expect("answered").into_inner();
    assert_eq!((facts.subject_count, facts.template_count), (2, 2));
}

#[tokio::test]
async fn the_folder_is_read_again_and_says_what_it_refused() {
    let left_out = "reloading the gallery by RPC";
    let Some(served) = serve(left_out, 4_096).await else { return };
    let Some(obama) = photo("obama.jpg", left_out) else { return };
    let folder = served.people.path().join("obama");
    std::fs::create_dir(&folder).expect("made");
    std::fs::copy(obama, folder.join("1.jpg")).expect("copied");
    std::fs::write(folder.join("2.jpg"), "no picture").expect("written");
    let mut gallery = GalleryServiceClient::new(served.channel.clone());
    let report = gallery.reload_gallery(pb::ReloadGalleryRequest::default()).await.expect("reloaded").into_inner();
    assert_eq!((report.subjects_added, report.refused_files.len()), (1, 1));
    assert_eq!((report.refused_files[0].path.as_str(), report.refused_files[0].reason.as_str()), ("obama/2.jpg", "BAD_IMAGE"));
}

fn camera(id: &str) -> pb::Camera {
    pb::Camera { id: id.into(), url: format!("rtsp://192.0.2.1/{id}"), disabled: true, ..Default::default() }
}

#[tokio::test]
async fn cameras_are_made_changed_and_removed_and_their_credentials_never_shown() {
    let Some(served) = serve("cameras by RPC", 4_096).await else { return };
    let mut cameras = CameraServiceClient::new(served.channel.clone());
    let mut watch = cameras.watch_cameras(pb::WatchCamerasRequest::default()).await.expect("watched").into_inner();
    assert!(watch.message().await.expect("no error").expect("at once").statuses.is_empty());

    let credential = || Some(pb::CameraCredential { username: "admin".into(), password: "hunter2".into() });
    let create = |id: &str| pb::CreateCameraRequest { camera: Some(camera(id)), credential: credential(), ..Default::default() };
    let created = cameras.create_camera(create("front")).await.expect("created").into_inner();
    let told = watch.message().await.expect("no error").expect("a change");
    assert_eq!((told.statuses[0].camera_id.as_str(), told.statuses[0].reason.as_str()), ("front", "DISABLED"));
    let exists = cameras.create_camera(create("front")).await.expect_err("it exists");
    assert_eq!((exists.code(), reason(&exists).as_str()), (Code::AlreadyExists, "CAMERA_EXISTS"));
    cameras.create_camera(create("back")).await.expect("created");

    let mut refused = async |camera: pb::Camera, expected: &str| {
        let status =
            cameras.create_camera(pb::CreateCameraRequest { camera: Some(camera), ..Default::default() }).await.expect_err(expected);
        assert_eq!(reason(&status), expected);
        assert!(!format!("{status:?}").contains("hunter2"), "{status:?}");
    };
    refused(pb::Camera { url: "rtsp://admin:hunter2@192.0.2.1/".into(), ..camera("x") }, "CREDENTIAL_IN_URL").await;
    refused(pb::Camera { url: "hunter2".into(), ..camera("x") }, "BAD_CAMERA_URL").await;
    refused(pb::Camera { threshold: Some(7.0), ..camera("x") }, "BAD_CAMERA").await;
    refused(camera("Front Door"), "BAD_CAMERA_ID").await;

    let page = |page_token| pb::ListCamerasRequest { page_size: 1, page_token };
    let one = cameras.list_cameras(page(String::new())).await.expect("listed").into_inner();
    let two = cameras.list_cameras(page(one.next_page_token.clone())).await.expect("listed").into_inner();
    assert_eq!((one.cameras[0].id.as_str(), two.cameras[0].id.as_str(), two.next_page_token.as_str()), ("back", "front", ""));
    let got = cameras.get_camera(pb::GetCameraRequest { id: "front".into() }).await.expect("there").into_inner();
    assert!(got.camera.as_ref().is_some_and(|c| c.has_credential) && got.status.is_some());
    let shown = format!("{created:?}{one:?}{two:?}{got:?}{told:?}");
    assert!(!shown.contains("hunter2") && !shown.contains("admin"));

    let mask = |path: &str| Some(prost_types::FieldMask { paths: vec![path.into()] });
    let named = pb::Camera { display_name: "Main door".into(), ..camera("front") };
    let update = pb::UpdateCameraRequest { camera: Some(named), update_mask: mask("display_name"), ..Default::default() };
    let changed = cameras.update_camera(update).await.expect("changed").into_inner().camera.expect("a camera");
    assert_eq!((changed.display_name.as_str(), changed.disabled, changed.has_credential), ("Main door", true, true));
    let strict = pb::Camera { threshold: Some(0.6), ..camera("front") };
    let update = pb::UpdateCameraRequest { camera: Some(strict), update_mask: mask("threshold"), ..Default::default() };
    cameras.update_camera(update).await.expect("changed");
    let gallery = GalleryServiceClient::new(served.channel.clone()).get_gallery(pb::GetGalleryRequest {}).await;
    let thresholds = gallery.expect("it answers").into_inner().thresholds;
    let of_cameras: Vec<_> = thresholds.iter().filter(|own| own.scope() == pb::PolicyScope::Camera).collect();
    assert!(matches!(of_cameras[..], [own] if own.name == "front" && own.threshold == 0.6), "{of_cameras:?}");

    let moved = |url: &str| {
        let camera = pb::Camera { url: url.into(), ..camera("back") };
        pb::UpdateCameraRequest { camera: Some(camera), update_mask: mask("url"), ..Default::default() }
    };
    for (url, keeps) in [("rtsp://192.0.2.1/another-path", true), ("rtsp://192.0.2.99/another-path", false)] {
        let changed = cameras.update_camera(moved(url)).await.expect("changed").into_inner().camera.expect("a camera");
        assert_eq!((changed.url.as_str(), changed.has_credential), (url, keeps), "a password goes to no other address");
    }
    let wrong = pb::UpdateCameraRequest { camera: Some(camera("front")), update_mask: mask("password"), ..Default::default() };
    assert_eq!(reason(&cameras.update_camera(wrong).await.expect_err("no such field")), "UNKNOWN_FIELD");
    let clear = pb::SetCameraCredentialRequest { camera_id: "front".into(), ..Default::default() };
    cameras.set_camera_credential(clear).await.expect("removed");
    let got = cameras.get_camera(pb::GetCameraRequest { id: "front".into() }).await.expect("there").into_inner();
    assert!(got.camera.is_some_and(|c| !c.has_credential));
    let dark = cameras.get_frame(pb::GetFrameRequest { camera_id: "front".into(), draw_boxes: false }).await.expect_err("it is disabled");
    assert_eq!(reason(&dark), "NO_FRAME");

    cameras.delete_camera(pb::DeleteCameraRequest { id: "front".into(), ..Default::default() }).await.expect("removed");
    loop {
        let told = tokio::time::timeout(PATIENCE, watch.message()).await.expect("within a minute").expect("no error").expect("a change");
        if told.statuses.iter().any(|s| s.camera_id == "front" && s.reason == "REMOVED") {
            break;
        }
    }
    let status = SystemServiceClient::new(served.channel.clone()).get_status(pb::GetStatusRequest {}).await.expect("answered").into_inner();
    assert_eq!((status.camera_count, status.cameras_online, status.models.len()), (1, 0, 2));
    check_cpu(&status.inference.expect("it says what runs"));
}

/// Holds that what runs is told as it is on a CPU, whose precision and by that whose provider follow from the processor.
fn check_cpu(inference: &pb::InferenceStatus) {
    assert!(inference.sessions > 0 && !inference.template_space.is_empty(), "{inference:?}");
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").expect("Linux tells of its processor");
    let has_bf16 = ["amx_bf16", "avx512_bf16"].iter().any(|feature| cpuinfo.split_whitespace().any(|word| word == *feature));
    let (provider, precision) = if has_bf16 { ("OpenVINO", "bf16") } else { ("CPU (detector), OpenVINO (encoder)", "f32") };
    let told = [&inference.device, &inference.provider, &inference.precision].map(String::as_str);
    assert_eq!(told, ["cpu", provider, precision], "{inference:?}");
    assert!(inference.precision_reason.contains("the processor has"), "{inference:?}");
    assert!(!inference.device_reason.is_empty() && !inference.runtime_version.is_empty(), "{inference:?}");
}

#[tokio::test]
async fn an_operator_sees_the_cameras_however_many_subscribers_there_are() {
    let Some(served) = serve("as many subscribers as there may be", 4_096).await else { return };
    // A connection may have 128 calls open, and one more would wait.
    let (mut connections, mut streams) = (Vec::new(), Vec::new());
    let refused = loop {
        if streams.len() % 100 == 0 {
            connections.push(served.another_channel().await);
        }
        let mut client = EventServiceClient::new(connections[streams.len() / 100].clone());
        match client.subscribe(pb::SubscribeRequest::default()).await {
            Ok(stream) => streams.push(stream),
            Err(refused) => break refused,
        }
        assert!(streams.len() < 2_000, "nobody is refused");
    };
    assert_eq!((reason(&refused).as_str(), streams.len()), ("TOO_MANY_SUBSCRIBERS", 1_024));
    let watched = CameraServiceClient::new(served.channel.clone()).watch_cameras(pb::WatchCamerasRequest::default()).await;
    let states = watched.expect("there is a place for it").into_inner().message().await.expect("no error").expect("all at once");
    assert!(states.statuses.is_empty(), "{states:?}");
}
