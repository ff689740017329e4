//! The encoder is changed, and a gallery moves, as an operator does it: with the binary, against daemons
//! that run.
//!
//! In: the models and photos that `script/bootstrap` takes from the registries; a second encoder that is
//! made of the first. Out: nothing. Prints what is left out where they are missing.
//! Must not know: the insides of any stage.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use doorward::models::Manifest;
use doorward::pb;
use doorward::pb::gallery_service_client::GalleryServiceClient;
use doorward::pb::recognition_service_client::RecognitionServiceClient;
use onnx_rs::ast::TensorProto;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support::{Daemon, resources};

pub const SECOND: &str = "sface-turned-around";

/// The models, and beside them an encoder that answers with the opposite vector: it tells people apart as well
/// as the first does, and a comparison of the two would find nobody.
pub fn with_second_encoder(models_dir: &Path) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let manifest = Manifest::load(models_dir).expect("it is good");
    let calibration = manifest.encoder.calibration.as_ref().expect("the encoder has one");
    for file in [&manifest.detector.model.file, &manifest.encoder.model.file, calibration] {
        fs::copy(models_dir.join(file), dir.path().join(file)).expect("copied");
    }
    let runtime = manifest.runtime().file.parent().expect("it lies in a folder").to_owned();
    std::os::unix::fs::symlink(models_dir.canonicalize().expect("it is there").join(&runtime), dir.path().join(&runtime)).expect("linked");

    let published = fs::read(models_dir.join(&manifest.encoder.model.file)).expect("read");
    let mut model = onnx_rs::parse(&published).expect("a graph");
    let graph = model.graph.as_mut().expect("a graph");
    let mut turned = 0;
    for tensor in &mut graph.initializer {
        // The last step scales and shifts each number of the vector.
        if ["fc1_gamma", "fc1_beta"].contains(&tensor.name()) {
            let values = tensor.as_f32().expect("numbers").iter().map(|value| -value).collect();
            *tensor = TensorProto::from_f32(tensor.name(), tensor.dims().to_vec(), values);
            turned += 1;
        }
    }
    assert_eq!(turned, 2, "the graph is another than this test knows");
    let bytes = onnx_rs::encode(&model);
    fs::write(dir.path().join("turned.onnx"), &bytes).expect("written");
    let sha256: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let text = fs::read_to_string(models_dir.join("manifest.toml")).expect("read");
    let first = &manifest.encoder.model;
    let entry = text[text.rfind("[[model]]").expect("the encoder stands last")..]
        .replace(&first.name, SECOND)
        .replace(&first.file.display().to_string(), "turned.onnx")
        .replace(&format!("bytes = {}", first.bytes), &format!("bytes = {}", bytes.len()))
        .replace(&first.sha256, &sha256)
        // Nobody has measured it yet.
        .replace("calibration = ", "# calibration = ");
    fs::write(dir.path().join("manifest.toml"), format!("{text}\n{entry}")).expect("written");
    dir
}

/// Runs a command of the binary against a daemon, or against none.
fn doorward(server: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["--server", server]).args(arguments).output().expect("it runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A daemon, and the photos it is asked about.
struct House<'a> {
    daemon: Daemon,
    photos: &'a Path,
}

impl House<'_> {
    async fn enrol(&self, id: &str, photo: &str) {
        let subject = pb::Subject { id: id.into(), ..pb::Subject::default() };
        let image = pb::SampleSource { source: Some(pb::sample_source::Source::Image(self.photo(photo))) };
        let request = pb::CreateSubjectRequest { subject: Some(subject), samples: vec![image], ..pb::CreateSubjectRequest::default() };
        GalleryServiceClient::new(self.daemon.channel().await).create_subject(request).await.expect("enrolled");
    }

    fn photo(&self, name: &str) -> Vec<u8> {
        fs::read(self.photos.join(name)).expect("the photo is there")
    }

    /// Who is on a photo, and how similar.
    async fn who(&self, photo: &str) -> Option<(String, f32)> {
        let request = pb::IdentifyRequest { image: self.photo(photo), candidates_max: 0 };
        let answer = RecognitionServiceClient::new(self.daemon.channel().await).identify(request).await.expect("answered").into_inner();
        answer.identifications[0].subject.as_ref().map(|subject| (subject.subject_id.clone(), subject.similarity))
    }

    async fn gallery(&self) -> pb::GetGalleryResponse {
        GalleryServiceClient::new(self.daemon.channel().await).get_gallery(pb::GetGalleryRequest {}).await.expect("answered").into_inner()
    }

    fn export(&self, file: &Path, option: &[&str]) {
        let data_dir = format!("data_dir={}", self.daemon.data_dir().display());
        let file = file.display().to_string();
        said(&doorward(self.daemon.server(), &[&["gallery", "export", &file, "--set", &data_dir], option].concat()));
    }
}

#[tokio::test]
async fn people_move_to_another_daemon_and_are_known_there_while_it_runs() {
    let Some(photos) = resources("moving a gallery to another daemon") else { return };
    let first = House { daemon: Daemon::start(&[]).await, photos: &photos };
    first.enrol("obama", "obama.jpg").await;
    first.enrol("biden", "biden.jpg").await;
    let outside = tempfile::tempdir().expect("a folder");
    let file = outside.path().join("people.tar");
    first.export(&file, &[]);
    let name = file.display().to_string();
    let second = House { daemon: Daemon::start(&[]).await, photos: &photos };
    let server = second.daemon.server();
    assert!(said(&doorward(server, &["gallery", "import", &name, "--dry-run"])).contains("would import"));
    assert_eq!(second.who("obama2.jpg").await, None, "a dry run changes nothing");

    let whole = fs::read(&file).expect("read");
    let cut = outside.path().join("cut.tar");
    fs::write(&cut, &whole[..whole.len() - 5_000]).expect("written");
    let refused = doorward(server, &["gallery", "import", &cut.display().to_string()]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && told.contains("GALLERY_FILE_CUT") && told.contains("what to do"), "{told}");
    assert_eq!(second.gallery().await.version, 0);

    assert!(said(&doorward(server, &["gallery", "import", &name])).contains("imported: 2 subjects with 2 samples"));
    for photo in ["obama2.jpg", "obama3.jpg", "biden.jpg"] {
        let (there, here) = (first.who(photo).await.expect("known"), second.who(photo).await.expect("known"));
        assert_eq!((there.0, there.1.to_bits()), (here.0, here.1.to_bits()), "{photo}");
    }
}

#[tokio::test]
async fn an_encoder_is_changed_while_people_go_on_being_known() {
    let left_out = "changing the encoder";
    let (Some(photos), Some(models)) = (resources(left_out), crate::faces::models_dir(left_out)) else { return };
    let models = with_second_encoder(&models);
    let models_dir = format!("models_dir={}", models.path().display());
    let outside = tempfile::tempdir().expect("a folder");
    let (data_dir, file) = (outside.path().join("data"), outside.path().join("bare.tar"));
    {
        // Somebody whose photo is nowhere kept.
        let elsewhere = House { daemon: Daemon::start(&[&models_dir]).await, photos: &photos };
        elsewhere.enrol("bare", "obama.jpg").await;
        elsewhere.export(&file, &["--without-photos"]);
    }
    let mut house = House { daemon: Daemon::start_in(&data_dir, &[&models_dir]).await, photos: &photos };
    let server = house.daemon.server().to_owned();
    said(&doorward(&server, &["gallery", "import", &file.display().to_string()]));
    house.enrol("biden", "biden.jpg").await;
    let before = house.gallery().await;

    let unknown = doorward(&server, &["gallery", "reencode", "--encoder", "nobody's"]);
    let told = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(told.contains("ENCODER_UNAVAILABLE") && told.contains(SECOND), "{told}");

    let reencode = {
        let server = server.clone();
        tokio::task::spawn_blocking(move || doorward(&server, &["gallery", "reencode", "--encoder", SECOND]))
    };
    // At least once, and all the while.
    loop {
        assert_eq!(house.who("biden.jpg").await.map(|(who, _)| who).as_deref(), Some("biden"));
        assert_eq!(house.who("obama2.jpg").await.map(|(who, _)| who).as_deref(), Some("bare"));
        if reencode.is_finished() {
            break;
        }
    }
    let ended = reencode.await.expect("it ended");
    let told = String::from_utf8_lossy(&ended.stdout);
    assert_eq!(ended.status.code(), Some(4), "somebody has no template of the new encoder: {told}");
    for part in ["no template for bare", "NO_PHOTO", "made 1 templates", "1 subjects have no template", "infer.encoder"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let after = house.gallery().await;
    assert_eq!((after.version, after.template_space), (before.version, before.template_space.clone()), "nothing has switched yet");

    house.daemon.kill();
    let in_force = format!("infer.encoder={SECOND}");
    house.daemon = Daemon::start_in(&data_dir, &[&models_dir, &in_force]).await;
    let (who, similarity) = house.who("biden.jpg").await.expect("known by the new encoder");
    assert!(who == "biden" && similarity > 0.9, "{who} {similarity}");
    assert_eq!(house.who("obama2.jpg").await, None, "there was no photo to make a template from");
    let now = house.gallery().await;
    assert!(now.template_space != before.template_space && now.template_count == 1 && now.foreign_template_count == 1, "{now:?}");
    house.enrol("obama", "obama.jpg").await;

    // The way back: who came since is encoded for the old encoder, too, and matches at once.
    house.daemon.kill();
    house.daemon = Daemon::start_in(&data_dir, &[&models_dir]).await;
    assert_eq!(house.who("biden.jpg").await.map(|(who, _)| who).as_deref(), Some("biden"));
    assert_eq!(house.gallery().await.foreign_template_count, 1);
    let told = said(&doorward(house.daemon.server(), &["gallery", "reencode"]));
    assert!(told.contains("made 1 templates") && told.contains("is in force"), "{told}");
    assert_eq!(house.gallery().await.foreign_template_count, 0);
    assert!(house.who("obama3.jpg").await.is_some_and(|(who, _)| who == "obama" || who == "bare"));
}
