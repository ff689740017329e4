//! Reads `manifest.toml` into entries that are complete and sane.
//!
//! In: TOML. Out: a [`Manifest`], or an error that names the file and the key.
//! Drops nothing: an unknown key is an error.
//! Must not know: the files that the entries name.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::ModelsError;
use crate::device::Device;
use crate::face::TemplateSpace;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The ONNX Runtime library.
    #[serde(skip)]
    Runtime,
    /// Finds faces.
    Detector,
    /// Turns an aligned face into a template.
    Encoder,
    /// Says how much a face looks like a living one and not like a picture of one.
    Antispoof,
}

impl Role {
    /// The manifest's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Runtime => "runtime",
            Self::Detector => "detector",
            Self::Encoder => "encoder",
            Self::Antispoof => "antispoof",
        }
    }
}

/// In which order a model wants the colour planes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// Blue first.
    Bgr,
    /// Red first.
    Rgb,
}

/// How a detector's outputs are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decoder {
    /// Anchor-free cells at strides 8, 16 and 32, five landmarks each.
    Yunet,
}

/// How samples lie in a model's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Layout {
    /// Planes: batch, colour, row, column.
    Nchw,
}

/// A model's input tensor: each sample is `(byte - mean) * scale`, f32.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputEntry {
    /// The tensor's name in the graph.
    pub name: String,
    // Only one layout exists; the key is read so that another one is refused, not misread.
    #[allow(dead_code)]
    layout: Layout,
    /// Order of the colour planes.
    pub colour: Colour,
    /// Subtracted from the byte, in the order of the planes.
    pub mean: [f32; 3],
    /// Multiplies the difference.
    pub scale: f32,
}

/// Which devices a build of ONNX Runtime is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeDevice {
    /// The processor.
    #[default]
    Cpu,
    /// GPUs by CUDA. Nobody needs it who has none, so it may be missing.
    Cuda,
}

impl RuntimeDevice {
    /// The build that runs on `device`.
    pub fn of(device: Device) -> Self {
        match device {
            Device::Cpu => Self::Cpu,
            Device::Cuda(_) => Self::Cuda,
        }
    }
}

/// The ONNX Runtime library.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeEntry {
    /// What it runs on.
    #[serde(default)]
    pub device: RuntimeDevice,
    /// Its name.
    pub name: String,
    /// Its file below the models directory.
    pub file: PathBuf,
    /// Its size as published.
    pub bytes: u64,
    /// SHA-256 of the published file, lower-case hex.
    pub sha256: String,
    /// Its licence.
    pub licence: String,
    /// The package that carries it.
    pub source: String,
    /// SHA-256 of that package.
    pub package_sha256: String,
    /// The libraries of that package that it loads from the folder it lies in.
    #[serde(default)]
    pub beside: Vec<LibraryEntry>,
}

/// A library that a runtime loads from beside it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibraryEntry {
    /// Its file below the models directory.
    pub file: PathBuf,
    /// Its size as published.
    pub bytes: u64,
    /// SHA-256 of the published file, lower-case hex.
    pub sha256: String,
}

/// What every model states.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelEntry {
    /// Its name.
    pub name: String,
    /// Its file below the models directory.
    pub file: PathBuf,
    /// Its size as published.
    pub bytes: u64,
    /// SHA-256 of the published file, lower-case hex.
    pub sha256: String,
    /// Its licence.
    pub licence: String,
    /// Who made it; may be empty.
    pub credit: String,
    /// The package that carries it.
    pub source: String,
    /// SHA-256 of that package.
    pub package_sha256: String,
    /// Its input tensor.
    pub input: InputEntry,
}

/// The model that finds faces.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectorEntry {
    /// What every model states.
    pub model: ModelEntry,
    /// How its outputs are read.
    pub decoder: Decoder,
}

/// The model that turns an aligned face into a template.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderEntry {
    /// What every model states.
    pub model: ModelEntry,
    /// The version of the alignment it was trained for; part of the template space.
    pub alignment: String,
    /// The output tensor that holds the vector.
    pub output: String,
    /// The vector's length, without a projection.
    pub dimension: usize,
    /// What follows the encoder, in the same graph.
    pub projection: Option<ProjectionEntry>,
    /// Cosine similarity from which on two faces are one person.
    pub threshold: f32,
    /// How its similarities are distributed: a file below the models directory that `doorward calibrate` made.
    pub calibration: Option<PathBuf>,
}

/// The model that tells living faces from pictures of faces, as far as it can.
#[derive(Clone, Debug, PartialEq)]
pub struct AntispoofEntry {
    /// What every model states.
    pub model: ModelEntry,
    /// How many times as wide and as high as the face's box the part of the picture is that it sees.
    pub crop_scale: f32,
    /// The side of the square that this part is stretched to, in pixels.
    pub crop_side: u32,
    /// The output tensor, one number a class; their softmax is the share of each.
    pub output: String,
    /// The class of living faces, counted from 0.
    pub live_class: usize,
    /// The least share of the live class that is taken for a living face, as published, 0 to 1.
    pub threshold: f32,
}

/// A matrix that an encoder's vectors are multiplied with: trained by `doorward train projection`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProjectionEntry {
    /// Its file below the models directory.
    pub file: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file, lower-case hex; part of the template space.
    pub sha256: String,
    /// How many numbers a projected vector has.
    pub dimension: usize,
}

/// The alignments that `infer` can make: the five landmarks brought to the `ArcFace` template.
const ALIGNMENTS: [&str; 1] = ["arcface-112-v1"];

/// Everything that inference needs, as `manifest.toml` states it.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The models directory.
    pub dir: PathBuf,
    /// Runtime libraries; the first is for the CPU. Of several for one device the first is used.
    pub runtimes: Vec<RuntimeEntry>,
    /// The one detector.
    pub detector: DetectorEntry,
    /// The encoder in force: the first, until [`with_encoder`](Self::with_encoder) chooses another.
    pub encoder: EncoderEntry,
    /// Every encoder, in the order of the file; each has a name of its own.
    pub encoders: Vec<EncoderEntry>,
    /// The model of `infer.antispoof`, where there is one.
    pub antispoof: Option<AntispoofEntry>,
}

/// The file as it is written. Keys of one role only are checked by [`Reader`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    runtime: Vec<RuntimeEntry>,
    model: Vec<RawModel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawModel {
    role: Role,
    name: String,
    file: PathBuf,
    bytes: u64,
    sha256: String,
    licence: String,
    #[serde(default)]
    credit: String,
    source: String,
    package_sha256: String,
    decoder: Option<Decoder>,
    alignment: Option<String>,
    output: Option<String>,
    dimension: Option<usize>,
    threshold: Option<f32>,
    calibration: Option<PathBuf>,
    projection: Option<ProjectionEntry>,
    crop_scale: Option<f32>,
    crop_side: Option<u32>,
    live_class: Option<usize>,
    input: InputEntry,
}

impl Manifest {
    /// Reads `manifest.toml` in `models_dir`. Opens no other file.
    ///
    /// # Errors
    /// [`ModelsError`], naming the manifest and the key.
    pub fn load(models_dir: &Path) -> Result<Self, ModelsError> {
        let path = models_dir.join("manifest.toml");
        let text = std::fs::read_to_string(&path).map_err(|source| ModelsError::ManifestUnreadable { path: path.clone(), source })?;
        let raw: RawManifest =
            toml::from_str(&text).map_err(|error| ModelsError::ManifestMalformed { path: path.clone(), reason: error.to_string() })?;
        Reader { path: &path }.manifest(models_dir, raw)
    }

    /// The same, with the encoder called `name` in force; `None` leaves the first.
    ///
    /// # Errors
    /// [`ModelsError::NoSuchEncoder`], naming those that there are.
    pub fn with_encoder(mut self, name: Option<&str>) -> Result<Self, ModelsError> {
        let Some(name) = name else { return Ok(self) };
        match self.encoders.iter().find(|encoder| encoder.model.name == name) {
            Some(encoder) => {
                self.encoder = encoder.clone();
                Ok(self)
            }
            None => Err(ModelsError::NoSuchEncoder {
                name: name.to_owned(),
                known: self.encoders.iter().map(|encoder| encoder.model.name.as_str()).collect::<Vec<_>>().join(", "),
                path: self.dir.join("manifest.toml"),
            }),
        }
    }

    /// The runtime library for the CPU.
    pub fn runtime(&self) -> &RuntimeEntry {
        // `load` refuses a manifest whose first runtime is not for the CPU.
        &self.runtimes[0]
    }

    /// The runtime library for `device`, if the manifest has one.
    pub fn runtime_of(&self, device: Device) -> Option<&RuntimeEntry> {
        self.runtimes.iter().find(|runtime| runtime.device == RuntimeDevice::of(device))
    }

    /// The space of the encoder's templates: the published file, the alignment, the normalisation and the projection, if there is one. The rewritten graph and the provider are no part of it.
    pub fn space(&self) -> TemplateSpace {
        let EncoderEntry { model, alignment, projection, .. } = &self.encoder;
        let projection = projection.as_ref().map(|projection| format!("/projection-{}", &projection.sha256[..16])).unwrap_or_default();
        TemplateSpace::new(&format!("{}/{alignment}/l2{projection}", &model.sha256[..16]))
    }
}

/// Checks what serde cannot.
struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    fn manifest(&self, dir: &Path, raw: RawManifest) -> Result<Manifest, ModelsError> {
        if raw.runtime.first().is_none_or(|runtime| runtime.device != RuntimeDevice::Cpu) {
            return Err(self.refused("runtime".into(), "the first [[runtime]] entry must be for the CPU (device = \"cpu\")"));
        }
        for runtime in &raw.runtime {
            self.file(&format!("runtime {:?}", runtime.name), &runtime.file, &runtime.sha256)?;
        }
        let (mut detector, mut antispoof, mut encoders) = (None, None, Vec::<EncoderEntry>::new());
        for model in raw.model {
            let entry = format!("model {:?}", model.name);
            self.file(&entry, &model.file, &model.sha256)?;
            match model.role {
                Role::Encoder => {
                    let encoder = self.encoder(&entry, model)?;
                    if encoders.iter().any(|other| other.model.name == encoder.model.name || is_same(other, &encoder)) {
                        let reason = "another encoder has this name, or this file with the same projection, already";
                        return Err(self.refused(format!("{entry}.name"), reason));
                    }
                    encoders.push(encoder);
                }
                Role::Antispoof => {
                    if antispoof.replace(self.antispoof(&entry, model)?).is_some() {
                        return Err(
                            self.refused(format!("{entry}.role"), "another model has this role already; one antispoof model is used")
                        );
                    }
                }
                // `Role::Runtime` cannot be written in the file.
                Role::Detector | Role::Runtime => {
                    if detector.replace(self.detector(&entry, model)?).is_some() {
                        return Err(self.refused(format!("{entry}.role"), "another model has this role already; one detector is used"));
                    }
                }
            }
        }
        let missing = |role: &str| self.refused("model".into(), &format!("an entry with role = \"{role}\" is needed"));
        let detector = detector.ok_or_else(|| missing("detector"))?;
        let encoder = encoders.first().cloned().ok_or_else(|| missing("encoder"))?;
        Ok(Manifest { dir: dir.into(), runtimes: raw.runtime, detector, encoder, encoders, antispoof })
    }

    fn detector(&self, entry: &str, raw: RawModel) -> Result<DetectorEntry, ModelsError> {
        self.none_of(entry, encoders_own(&raw).into_iter().chain(antispoofs_own(&raw)))?;
        self.none_of(entry, [("output", raw.output.is_some()), ("threshold", raw.threshold.is_some())])?;
        let decoder = raw.decoder.ok_or_else(|| self.refused(format!("{entry}.decoder"), "a detector needs it; known: \"yunet\""))?;
        Ok(DetectorEntry { decoder, model: common(raw) })
    }

    fn encoder(&self, entry: &str, mut raw: RawModel) -> Result<EncoderEntry, ModelsError> {
        self.none_of(entry, [("decoder", raw.decoder.is_some())].into_iter().chain(antispoofs_own(&raw)))?;
        let missing = |key: &str| self.refused(format!("{entry}.{key}"), "an encoder needs it");
        let alignment = raw.alignment.take().ok_or_else(|| missing("alignment"))?;
        if !ALIGNMENTS.contains(&alignment.as_str()) {
            return Err(self.refused(format!("{entry}.alignment"), &format!("{alignment:?} is unknown; known: {ALIGNMENTS:?}")));
        }
        let output = raw.output.take().ok_or_else(|| missing("output"))?;
        let dimension = raw.dimension.ok_or_else(|| missing("dimension"))?;
        if !(1..=4096).contains(&dimension) {
            return Err(self.refused(format!("{entry}.dimension"), &format!("{dimension} is not allowed: 1 to 4096")));
        }
        let threshold = raw.threshold.ok_or_else(|| missing("threshold"))?;
        if !(-1.0..=1.0).contains(&threshold) {
            return Err(self.refused(format!("{entry}.threshold"), &format!("{threshold} is not allowed: -1 to 1 (cosine similarity)")));
        }
        let calibration = raw.calibration.take();
        if let Some(file) = &calibration {
            self.below(&format!("{entry}.calibration"), file)?;
        }
        let projection = raw.projection.take();
        if let Some(projection) = &projection {
            self.file(&format!("{entry}.projection"), &projection.file, &projection.sha256)?;
            if !(1..=4096).contains(&projection.dimension) {
                return Err(self.refused(format!("{entry}.projection.dimension"), "1 to 4096 are allowed"));
            }
        }
        Ok(EncoderEntry { alignment, output, dimension, projection, threshold, calibration, model: common(raw) })
    }

    fn antispoof(&self, entry: &str, mut raw: RawModel) -> Result<AntispoofEntry, ModelsError> {
        self.none_of(entry, [("decoder", raw.decoder.is_some())].into_iter().chain(encoders_own(&raw)))?;
        let missing = |key: &str| self.refused(format!("{entry}.{key}"), "an antispoof model needs it");
        let crop_scale = raw.crop_scale.ok_or_else(|| missing("crop_scale"))?;
        let crop_side = raw.crop_side.ok_or_else(|| missing("crop_side"))?;
        let output = raw.output.take().ok_or_else(|| missing("output"))?;
        let live_class = raw.live_class.ok_or_else(|| missing("live_class"))?;
        let threshold = raw.threshold.ok_or_else(|| missing("threshold"))?;
        for (key, is_allowed, allowed) in [
            ("crop_scale", (1.0..=16.0).contains(&crop_scale), "1 to 16 (times the face's box)"),
            ("crop_side", (16..=1024).contains(&crop_side), "16 to 1024 (pixels)"),
            ("live_class", live_class < 1024, "0 to 1023 (the first class is 0)"),
            ("threshold", (0.0..=1.0).contains(&threshold), "0 to 1 (share of the live class)"),
        ] {
            if !is_allowed {
                return Err(self.refused(format!("{entry}.{key}"), &format!("the value is not allowed: {allowed}")));
            }
        }
        Ok(AntispoofEntry { crop_scale, crop_side, output, live_class, threshold, model: common(raw) })
    }

    fn file(&self, entry: &str, file: &Path, sha256: &str) -> Result<(), ModelsError> {
        self.below(&format!("{entry}.file"), file)?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if sha256.len() != 64 || !sha256.bytes().all(hex) {
            return Err(self.refused(format!("{entry}.sha256"), "it must be 64 lower-case hex digits"));
        }
        Ok(())
    }

    fn below(&self, key: &str, file: &Path) -> Result<(), ModelsError> {
        if !file.components().all(|part| matches!(part, Component::Normal(_))) || file.as_os_str().is_empty() {
            return Err(self.refused(key.to_owned(), "it must be a path below the models directory"));
        }
        Ok(())
    }

    fn none_of(&self, entry: &str, keys: impl IntoIterator<Item = (&'static str, bool)>) -> Result<(), ModelsError> {
        match keys.into_iter().find(|(_, present)| *present) {
            Some((key, _)) => Err(self.refused(format!("{entry}.{key}"), "this role has no such key")),
            None => Ok(()),
        }
    }

    fn refused(&self, key: String, reason: &str) -> ModelsError {
        ModelsError::ManifestValue { path: self.path.into(), key, reason: reason.into() }
    }
}

/// The keys that only an encoder has, and whether they are there.
fn encoders_own(raw: &RawModel) -> [(&'static str, bool); 4] {
    [
        ("alignment", raw.alignment.is_some()),
        ("dimension", raw.dimension.is_some()),
        ("calibration", raw.calibration.is_some()),
        ("projection", raw.projection.is_some()),
    ]
}

/// The keys that only an antispoof model has, and whether they are there.
fn antispoofs_own(raw: &RawModel) -> [(&'static str, bool); 3] {
    [("crop_scale", raw.crop_scale.is_some()), ("crop_side", raw.crop_side.is_some()), ("live_class", raw.live_class.is_some())]
}

/// Whether two encoders would have the same graph.
fn is_same(a: &EncoderEntry, b: &EncoderEntry) -> bool {
    let projection = |encoder: &EncoderEntry| encoder.projection.as_ref().map(|projection| projection.sha256.clone());
    a.model.file == b.model.file && projection(a) == projection(b)
}

impl EncoderEntry {
    /// How many numbers a template has.
    pub fn template_dimension(&self) -> usize {
        self.projection.as_ref().map_or(self.dimension, |projection| projection.dimension)
    }
}

fn common(raw: RawModel) -> ModelEntry {
    let RawModel { name, file, bytes, sha256, licence, credit, source, package_sha256, input, .. } = raw;
    ModelEntry { name, file, bytes, sha256, licence, credit, source, package_sha256, input }
}
