//! Holds the whole way over a real device to the host's path, value by value, where there is one.
//!
//! In: noise. Out: the greatest difference. Prints what is left out without a device or NVRTC.
//! Must not know: models' insides.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::config::InferConfig;

/// What a graph was given last.
type Given = Arc<Mutex<Vec<f32>>>;

/// A graph that keeps its input, sees nobody and makes all faces the same.
struct Kept {
    given: Given,
    pinned: Option<PinnedBuffer>,
    outputs: HashMap<String, Vec<f32>>,
    /// What the encoder answers by which name; nothing for the detector.
    template: Option<(String, usize)>,
}

impl DeviceGraph for Kept {
    fn run(&mut self, tensor: &DeviceTensor<'_>) -> Result<(), RunError> {
        let bytes = tensor.len() * size_of::<f32>();
        if self.pinned.as_ref().is_none_or(|pinned| pinned.as_slice().len() < bytes) {
            self.pinned = Some(PinnedBuffer::new(tensor.stream().gpu(), bytes).map_err(|error| error.to_string())?);
        }
        let pinned = self.pinned.as_mut().ok_or("no memory")?;
        tensor.fetch(pinned).map_err(|error| error.to_string())?;
        let values = pinned.as_slice()[..bytes].as_chunks::<4>().0.iter().map(|value| f32::from_ne_bytes(*value));
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) = values.collect();
        let [pictures, _, height, width] = tensor.shape();
        if let Some((name, dimension)) = &self.template {
            self.outputs.insert(name.clone(), vec![1.0; pictures * dimension]);
            return Ok(());
        }
        for (name, of_cell) in [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)] {
            for stride in [8, 16, 32] {
                let values = vec![0.0; pictures * (width / stride) * (height / stride) * of_cell];
                self.outputs.insert(format!("{name}_{stride}"), values);
            }
        }
        Ok(())
    }

    fn output(&self, name: &str) -> Result<&[f32], String> {
        self.outputs.get(name).map(Vec::as_slice).ok_or_else(|| name.to_owned())
    }
}

/// Loads NVRTC from the Python environment, where it is: the loader then finds it by its name.
fn load_nvrtc() {
    let pythons = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/lib")).into_iter().flatten().flatten();
    let libraries = pythons.map(|python| python.path().join("site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12"));
    if let Some(library) = libraries.into_iter().find(|library: &PathBuf| library.exists()) {
        // SAFETY: it is NVIDIA's, and loading it has no effect but to be there. It is never unloaded.
        std::mem::forget(unsafe { Library::new(library) });
    }
}

/// A device and kernels for it, or nothing where one is missing.
fn device() -> Option<(Arc<Gpu>, Image)> {
    load_nvrtc();
    let opened = Gpu::open(0).and_then(|gpu| Ok((gpu.clone(), Image::compile(gpu.capability()?)?)));
    match opened {
        Ok(opened) => Some(opened),
        Err(error) => {
            println!("LEFT OUT: the kernels on a real device: {error}");
            None
        }
    }
}

/// A worker whose graphs keep what they are given: the detector, then the encoder.
fn keeping((gpu, image): &(Arc<Gpu>, Image), manifest: &Manifest) -> (Worker, [Given; 2]) {
    let given = [Given::default(), Given::default()];
    let kept = |given: &Given, template| Box::new(Kept { given: given.clone(), pinned: None, outputs: HashMap::new(), template });
    let template = Some((manifest.encoder.output.clone(), manifest.encoder.template_dimension()));
    let graphs = Graphs { detector: kept(&given[0], None), encoder: kept(&given[1], template) };
    let plan = Plan { gpu, image, manifest, config: &InferConfig::default(), frames_max: 4 };
    (Worker::open(&plan, |_| Ok(graphs)).expect("it opens"), given)
}

#[test]
fn a_real_device_letterboxes_and_aligns_as_the_host_does() {
    let Some(device) = device() else { return };
    let manifest = Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).expect("it is good");
    let (mut worker, given) = keeping(&device, &manifest);
    let (detector, encoder) = (&manifest.detector.model.input, &manifest.encoder.model.input);
    let mut random = fastrand::Rng::with_seed(15);
    let mut greatest = 0.0_f32;
    for (width, height, side) in [(3, 5, 32), (99, 77, 160), (333, 201, 224), (641, 361, 640), (1281, 719, 640), (1920, 1080, 640)] {
        let region = random.bool().then_some(NormalisedRect { x: 0.1, y: 0.2, width: 0.7, height: 0.6 });
        let size = Size { width, height };
        let noise = [0; 4].map(|_| Noise::new(&mut random, size));
        let requests = noise.iter().map(|noise| SurfaceRequest {
            surface: worker.upload(&noise.frame).expect("it goes up"),
            detector_side: Some(side),
            region_of_interest: region,
            score_min: None,
            face_pixels_min: 0,
        });
        let requests = requests.collect();
        let mut batch = worker.prepare(requests).expect("it is prepared");
        worker.detect(&mut batch).expect("it is looked at");
        let placement = Placement::new(size, region, side, CanvasShape::Fitted);
        let mut expected = vec![0.0; 3 * (placement.canvas.width * placement.canvas.height) as usize];
        let found = given[0].lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert_eq!(found.len(), 4 * expected.len());
        for (found, noise) in found.chunks(expected.len()).zip(&noise) {
            Letterbox::default().fill_tensor(&noise.frame, &placement, &mut Target { input: detector, values: &mut expected });
            greatest = greatest.max(greatest_difference(found, &expected, detector));
        }
        let faces: Vec<FaceRequest> = (0..16)
            .map(|face| {
                let scale = [0.3, 1.0, 2.1, 5.0][face / 4];
                let shift = (random.f32() * width as f32 - 40.0, random.f32() * height as f32 - 40.0);
                FaceRequest { frame: face % 4, landmarks: placed(scale, random.f32() * 6.3, shift), is_mirrored: random.bool() }
            })
            .collect();
        assert_eq!(worker.encode(&mut batch, &faces).expect("they are encoded").len(), faces.len());
        let mut expected = vec![0.0; 3 * ALIGNED_SIDE * ALIGNED_SIDE];
        let found = given[1].lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (found, face) in found.chunks(expected.len()).zip(&faces) {
            let aligned = align(&noise[face.frame].frame, &face.landmarks);
            let aligned = if face.is_mirrored { aligned.mirrored() } else { aligned };
            fill_face(&aligned, &mut Target { input: encoder, values: &mut expected });
            greatest = greatest.max(greatest_difference(found, &expected, encoder));
        }
    }
    println!("a real device: greatest difference {greatest} levels");
    assert!(greatest <= DIFFERENCE_MAX, "{greatest} levels");
}

#[test]
fn a_real_device_measures_as_the_host_does() {
    /// In parts: sums are rounded in another order.
    const PARTS_MAX: f32 = 1e-3;
    let Some(device) = device() else { return };
    let manifest = Manifest::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models")).expect("it is good");
    let (mut worker, _) = keeping(&device, &manifest);
    let mut random = fastrand::Rng::with_seed(16);
    let noise = Noise::new(&mut random, Size { width: 641, height: 361 });
    let surface = worker.upload(&noise.frame).expect("it goes up");
    // More than one launch holds.
    let faces: Vec<(Surface, Landmarks)> = (0..70)
        .map(|_| {
            let shift = (random.f32() * 500.0, random.f32() * 250.0);
            (surface.clone(), placed(0.5 + random.f32() * 2.0, random.f32() * 6.3, shift))
        })
        .collect();
    let measured = worker.measure(&faces).expect("they are measured");
    assert_eq!(measured.len(), faces.len());
    let mut most = 0.0_f32;
    for (found, (_, landmarks)) in measured.iter().zip(&faces) {
        let expected = crate::quality::photometry(&align(&noise.frame, landmarks));
        for (found, expected) in
            [(found.sharpness, expected.sharpness), (found.brightness, expected.brightness), (found.contrast, expected.contrast)]
        {
            assert!(found.is_finite(), "{found}");
            most = most.max((found - expected).abs() / expected.abs().max(1e-3));
        }
    }
    println!("a real device: measures at most {most} parts apart");
    assert!(most <= PARTS_MAX, "{most}");
}
