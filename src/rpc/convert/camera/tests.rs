//! What an operator may say of a camera.

use tonic_types::StatusExt;

use super::*;

fn entrance() -> pb::Camera {
    pb::Camera { id: "entrance".into(), url: "rtsp://cam.example:8554/live?channel=1".into(), ..pb::Camera::default() }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

fn region(name: &str, points: &[(f32, f32)]) -> pb::Region {
    pb::Region { name: name.into(), points: points.iter().map(|&(x, y)| pb::NormalisedPoint { x, y }).collect() }
}

#[test]
fn a_camera_of_defaults_is_an_interior_one_over_tcp() {
    let camera = new_camera(&entrance()).expect("good");
    assert_eq!((camera.role, camera.transport, camera.face_pixels_min), (Role::Interior, Transport::Tcp, 32));
    assert!(camera.enabled && camera.threshold.is_none() && camera.detector_side.is_none() && camera.analysis_fps_max.is_none());
}

#[test]
fn a_camera_comes_back_as_it_was_given() {
    let given = pb::Camera {
        display_name: "Main door".into(),
        role: pb::CameraRole::Entry.into(),
        transport: pb::CameraTransport::Udp.into(),
        lines: vec![region("door", &[(0.1, 0.5), (0.9, 0.5)])],
        zones: vec![region("hall", &[(0.0, 0.0), (1.0, 0.0), (0.5, 1.0)])],
        analysis_fps_max: 12.5,
        detector_side: 320,
        region_of_interest: Some(pb::NormalisedBox { x: 0.1, y: 0.1, width: 0.8, height: 0.9 }),
        face_pixels_min: 48,
        threshold: Some(0.4),
        disabled: true,
        actionable_ms: 2_500,
        snapshots: pb::SnapshotPolicy::Crop.into(),
        blur_others: true,
        rules: vec![pb::EventRule { types: vec![pb::EventType::Entry.into()], days: vec![1, 5], from_minute: 1_320, until_minute: 360 }],
        ..entrance()
    };
    let answered = camera(new_camera(&given).expect("good"));
    let stamped = pb::Camera { create_time: answered.create_time, update_time: answered.update_time, etag: answered.etag.clone(), ..given };
    assert_eq!(answered, stamped);
}

#[test]
fn a_threshold_is_not_dropped_for_a_rate_that_is_stated_beside_it() {
    let both = pb::Camera { threshold: Some(0.6), target_fpir: Some(0.01), ..entrance() };
    let refused = new_camera(&both).expect_err("one of them would not hold");
    assert!(reason(&refused) == "BAD_CAMERA" && refused.message().contains("camera.target_fpir"), "{refused:?}");
    let camera = new_camera(&pb::Camera { threshold: None, ..both }).expect("a rate alone");
    assert_eq!((camera.threshold, camera.target_fpir), (None, Some(0.01)));
}

#[test]
fn bad_urls_are_refused_without_repeating_them() {
    for (url, expected) in [
        ("", "BAD_CAMERA_URL"),
        ("hunter2", "BAD_CAMERA_URL"),
        ("http://cam.example/hunter2", "BAD_CAMERA_URL"),
        ("admin:hunter2@cam.example/live", "BAD_CAMERA_URL"),
        ("rtsp:///hunter2", "BAD_CAMERA_URL"),
        ("file:///etc/hunter2", "BAD_CAMERA_URL"),
        ("rtsp://admin:hunter2@cam.example/live", "CREDENTIAL_IN_URL"),
        ("rtsp://:hunter2@cam.example/live", "CREDENTIAL_IN_URL"),
        ("http://hunter2@cam.example/live", "CREDENTIAL_IN_URL"),
        ("rtsp://cam.example:554/user=admin&password=hunter2&channel=1&stream=0.sdp?", "CREDENTIAL_IN_URL"),
    ] {
        let status = new_camera(&pb::Camera { url: url.into(), ..entrance() }).expect_err(url);
        assert_eq!(reason(&status), expected, "{url}");
        assert!(!format!("{status:?}").contains("hunter2"), "{status:?}");
    }
}

#[test]
fn a_role_or_transport_that_does_not_exist_is_refused_by_name() {
    for (field, wire) in
        [("camera.role", pb::Camera { role: 99, ..entrance() }), ("camera.transport", pb::Camera { transport: -1, ..entrance() })]
    {
        let status = new_camera(&wire).expect_err(field);
        assert_eq!(reason(&status), "BAD_CAMERA", "{field}");
        let violations = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        assert_eq!(violations.first().map(|v| v.field.as_str()), Some(field));
    }
}

#[test]
fn a_masked_change_looks_at_nothing_else() {
    let mut camera = new_camera(&entrance()).expect("good");
    let mask = prost_types::FieldMask { paths: vec!["display_name".into(), "disabled".into()] };
    let wire = pb::Camera { display_name: "Back door".into(), disabled: true, url: "not looked at".into(), ..pb::Camera::default() };
    change(&wire, Some(mask)).expect("good")(&mut camera);
    assert_eq!((camera.display_name.as_str(), camera.enabled, camera.url.host_str()), ("Back door", false, Some("cam.example")));
}

#[test]
fn identity_and_times_cannot_be_changed() {
    for path in ["id", "etag", "has_credential", "create_time", "credential"] {
        let mask = prost_types::FieldMask { paths: vec![path.into()] };
        let status = change(&entrance(), Some(mask)).err().expect(path);
        assert_eq!(reason(&status), "UNKNOWN_FIELD");
        assert!(status.message().contains(path));
    }
}

#[test]
fn a_credential_needs_a_name_and_is_not_repeated() {
    let given =
        |username: &str, password: &str| credential(Some(pb::CameraCredential { username: username.into(), password: password.into() }));
    assert!(given("admin", "").is_ok_and(|c| c.is_some()), "an empty password is one that cameras come with");
    for (username, password) in [("", "hunter2"), ("hunter2\r\nX: y", "p"), ("admin", "hunter2\n")] {
        let status = given(username, password).expect_err(username);
        assert!(!format!("{status:?}").contains("hunter2"), "{status:?}");
    }
}

#[test]
fn an_offline_camera_says_why_and_when_it_is_tried_again() {
    let offline = CameraStatus {
        camera: CameraId::parse("entrance").expect("good"),
        state: CameraState::Offline {
            reason: OfflineReason::Unauthorised,
            message: "the camera wants a password".into(),
            next_attempt_time: Some(Timestamp::from_micros(7_000_000)),
        },
        since: Timestamp::from_micros(5_000_000),
        frames: crate::camera::FrameCounts { received: 9, analysed: 4, dropped_newer: 5, ..Default::default() },
    };
    let wire = status(&offline);
    assert_eq!((wire.connection(), wire.reason.as_str()), (pb::CameraConnection::Offline, "UNAUTHORISED"));
    assert_eq!((wire.since.map(|t| t.seconds), wire.next_attempt_time.map(|t| t.seconds)), (Some(5), Some(7)));
    assert_eq!(wire.frames.map(|f| (f.received, f.analysed, f.dropped["newer"])), Some((9, 4, 5)));
}

#[test]
fn an_online_camera_says_what_decodes_it_where_a_device_could() {
    let said = |decoding| {
        let online = CameraStatus {
            camera: CameraId::parse("entrance").expect("good"),
            state: CameraState::Online { since: Timestamp::from_micros(1), decoding },
            since: Timestamp::from_micros(1),
            frames: crate::camera::FrameCounts::default(),
        };
        let wire = status(&online);
        assert_eq!((wire.connection(), wire.reason.as_str()), (pb::CameraConnection::Online, ""));
        wire.message
    };
    assert_eq!(said(Decoding::OnCpu), "");
    assert_eq!(said(Decoding::OnDevice("cuda:0".into())), "decoded by cuda:0");
    assert_eq!(
        said(Decoding::InPlaceOfDevice("decoded by the CPU until it connects again after 10 min: no decoder".into())),
        "decoded by the CPU until it connects again after 10 min: no decoder"
    );
}
