//! What is told of NVIDIA's libraries: of those that are missing, of another version, damaged, or lack what they need themselves.
//!
//! In: a C++ compiler, which makes libraries by their names; the loader finds them as it would the real ones.
//! Out: what is found, with the mend, and the device that is chosen. Prints what is left out where the machine has the real ones.
//! Must not know: how libraries are looked for.

use std::path::{Path, PathBuf};
use std::process::Command;

use doorward::config::DeviceChoice;
use doorward::device::{self, Device, DeviceFact};
use libloading::Library;
use tempfile::TempDir;

use crate::driver::{DRIVER_RELEASE, over_the_stand_in_beside};

/// Where the process that runs over the stand-in puts libraries.
const MADE: &str = "DOORWARD_MADE_LIBRARIES";
/// The libraries that a GPU needs, but for the two of TensorRT.
const NEEDED: [&str; 6] = ["libcudart.so.12", "libcublas.so.12", "libcufft.so.11", "libcurand.so.10", "libcudnn.so.9", "libnvrtc.so.12"];
const TENSORRT: [&str; 2] = ["libnvinfer.so.10", "libnvonnxparser.so.10"];
/// Tells the versions of all of them: CUDA 12.8, cuDNN 9.8, TensorRT 10.8. Its parser tells that of its interface alone.
const SOURCE: &str = r#"
#include <cstddef>
extern "C" {
int cudaRuntimeGetVersion(int *version) { return *version = 12080, 0; }
int nvrtcVersion(int *major, int *minor) { return *major = 12, *minor = 8, 0; }
size_t cudnnGetVersion() { return 90800; }
// What an int leaves in the upper half of the register is nobody's.
size_t getInferLibVersion() { return 0xdead000000000000 | 100801; }
int getNvOnnxParserVersion() { return 200; }
static int property(int what, int *number, int major, int minor, int patch) {
    if (what < 0 || what > 2) return 7;
    return *number = what == 0 ? major : what == 1 ? minor : patch, 0;
}
int cublasGetProperty(int what, int *number) { return property(what, number, 12, 4, 5); }
int cufftGetProperty(int what, int *number) { return property(what, number, 11, 2, 1); }
int curandGetProperty(int what, int *number) { return property(what, number, 10, 3, 5); }
}
"#;

/// A folder of libraries that the loader looks into.
struct Folder {
    path: PathBuf,
    /// The library that stands for each of them, and one that needs another which is not there.
    whole: PathBuf,
    needy: PathBuf,
    _workshop: TempDir,
}

impl Folder {
    fn new(path: PathBuf) -> Self {
        let workshop = tempfile::tempdir().unwrap();
        let of = |name: &str| workshop.path().join(name);
        std::fs::write(of("source.cpp"), SOURCE).unwrap();
        let make = |name: &str, more: &[&str]| {
            let mut compiler = Command::new("c++");
            compiler.args(["-fPIC", "-shared", "-o"]).arg(of(name)).arg(of("source.cpp")).args(more);
            assert!(compiler.status().unwrap().success(), "{name} is C++");
        };
        make("libwhole.so", &[]);
        make("libneeded.so.1", &["-Wl,-soname,libneeded.so.1"]);
        make("libneedy.so", &["-Wl,--no-as-needed", of("libneeded.so.1").to_str().unwrap()]);
        Self { path, whole: of("libwhole.so"), needy: of("libneedy.so"), _workshop: workshop }
    }

    /// Leaves nothing in the folder but libraries of these names.
    fn holds(&self, names: &[&str]) {
        for entry in std::fs::read_dir(&self.path).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
        names.iter().for_each(|name| self.put(name, &self.whole));
    }

    fn put(&self, name: &str, library: &Path) {
        std::fs::copy(library, self.path.join(name)).unwrap();
    }
}

/// Runs `body` over the stand-in, whose loader looks into a folder of libraries.
fn run(test: &str, body: impl FnOnce(&Folder)) {
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var_os(MADE).map_or_else(|| folder.path().to_owned(), PathBuf::from);
    over_the_stand_in_beside(test, (&[&path], &[(MADE, &path)]), |_| {
        // SAFETY: NVIDIA's libraries, if they are there: their initialisers run in every program that uses CUDA.
        let is_there = |name: &&&str| unsafe { Library::new(**name) }.is_ok();
        // The compiler of kernels is the real one where it is there, which is as good.
        if let Some(real) = NEEDED[..5].iter().chain(&TENSORRT).find(is_there) {
            return println!("LEFT OUT: {test}: the machine has {real}");
        }
        body(&Folder::new(path.clone()));
    });
}

/// What is told of one library.
fn told(what: &str) -> DeviceFact {
    let facts = device::facts(&device::probe());
    facts.iter().find(|fact| fact.what == what).unwrap_or_else(|| panic!("{what} is looked at: {facts:?}")).clone()
}

#[test]
fn tensorrt_of_another_version_is_named_beside_the_one_that_is_needed_and_the_gpu_does_without() {
    const NAME: &str = "libraries::tensorrt_of_another_version_is_named_beside_the_one_that_is_needed_and_the_gpu_does_without";
    run(NAME, |folder| {
        for other in ["libnvinfer.so.8", "libnvinfer.so.9", "libnvinfer.so.11"] {
            folder.holds(&[&NEEDED[..], &[other]].concat());
            let fact = told("TensorRT");
            let words = format!("libnvinfer.so.10 is not there; {other} is, of another version, which cannot be used");
            assert_eq!((fact.found, fact.mend.as_str()), (words.clone(), "apt-get install libnvinfer10"));
            let resolved = device::resolve(&DeviceChoice::Auto).unwrap();
            assert_eq!((resolved.device, resolved.without_tensorrt), (Device::Cuda(0), Some(words)));
        }
        folder.holds(&NEEDED);
        let fact = told("TensorRT");
        assert!(fact.found.contains("libnvinfer.so.10: cannot open"), "nothing of it is there: {fact:?}");
        folder.holds(&[&NEEDED[..], &TENSORRT, &["libnvinfer.so.8"]].concat());
        let fact = told("TensorRT");
        assert!(fact.found.contains("10.8.1") && fact.mend.is_empty(), "both may be there: {fact:?}");
        assert_eq!(device::resolve(&DeviceChoice::Auto).unwrap().without_tensorrt, None);
    });
}

#[test]
fn every_library_tells_its_version_and_the_driver_its_number() {
    run("libraries::every_library_tells_its_version_and_the_driver_its_number", |folder| {
        folder.holds(&[&NEEDED[..], &TENSORRT[..1], &["libnvonnxparser.so.10.9.0"]].concat());
        std::os::unix::fs::symlink("libnvonnxparser.so.10.9.0", folder.path.join("libnvonnxparser.so.10")).unwrap();
        for (what, version) in [
            ("CUDA runtime", "12.8 (libcudart.so.12)"),
            ("cuBLAS", "12.4.5 (libcublas.so.12)"),
            ("cuFFT", "11.2.1 (libcufft.so.11)"),
            ("cuRAND", "10.3.5 (libcurand.so.10)"),
            ("cuDNN", "9.8.0 (libcudnn.so.9)"),
            ("TensorRT", "10.8.1 (libnvinfer.so.10)"),
            ("TensorRT's parser", "10.9.0 (libnvonnxparser.so.10)"),
        ] {
            assert_eq!(told(what).found, version, "{what}");
        }
        assert!(told("driver").found.starts_with(&format!("{DRIVER_RELEASE}, for CUDA ")), "{:?}", told("driver"));
    });
}

#[test]
fn a_library_that_tells_no_version_is_told_by_its_file() {
    run("libraries::a_library_that_tells_no_version_is_told_by_its_file", |folder| {
        // As Python's packages have it, where no name says more; and a library without the call.
        folder.holds(&[&NEEDED[1..], &TENSORRT].concat());
        std::fs::write(folder.path.join("empty.cpp"), "").unwrap();
        let mut compiler = Command::new("c++");
        let status = compiler.args(["-fPIC", "-shared", "-o"]).arg(folder.path.join(NEEDED[0])).arg(folder.path.join("empty.cpp")).status();
        assert!(status.unwrap().success(), "an empty file is C++");
        assert_eq!(told("CUDA runtime").found, "libcudart.so.12");
        assert_eq!(told("TensorRT's parser").found, "libnvonnxparser.so.10");
    });
}

#[test]
fn cudnn_of_another_version_is_named_with_the_mend_wherever_the_device_is_told_of() {
    const NAME: &str = "libraries::cudnn_of_another_version_is_named_with_the_mend_wherever_the_device_is_told_of";
    run(NAME, |folder| {
        let others: Vec<&str> = NEEDED.iter().copied().filter(|name| *name != "libcudnn.so.9").collect();
        folder.holds(&[&others[..], &["libcudnn.so.8"]].concat());
        let words = "libcudnn.so.9 is not there; libcudnn.so.8 is, of another version, which cannot be used";
        let fact = told("cuDNN");
        assert_eq!((fact.found.as_str(), fact.mend.as_str()), (words, "apt-get install libcudnn9-cuda-12"));
        let resolved = device::resolve(&DeviceChoice::Auto).unwrap();
        assert!(resolved.device == Device::Cpu && resolved.reason == format!("cuDNN: {words}"), "{resolved:?}");
        assert!(resolved.facts.iter().any(|fact| fact.mend == "apt-get install libcudnn9-cuda-12"), "{resolved:?}");
        let error = device::resolve(&DeviceChoice::Cuda(0)).unwrap_err().to_string();
        for part in ["no usable CUDA device 0", words, "apt-get install libcudnn9-cuda-12", "infer.device"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    });
}

#[test]
fn a_library_that_is_there_and_cannot_be_loaded_is_never_called_missing() {
    const NAME: &str = "libraries::a_library_that_is_there_and_cannot_be_loaded_is_never_called_missing";
    run(NAME, |folder| {
        folder.holds(&[&NEEDED[..], &["libnvinfer.so.8"]].concat());
        // Cut, as by a full disk.
        std::fs::write(folder.path.join("libnvinfer.so.10"), b"\x7fELF").unwrap();
        let fact = told("TensorRT");
        let cut = folder.path.join("libnvinfer.so.10").display().to_string();
        assert!(fact.found.starts_with("libnvinfer.so.10 cannot be loaded: ") && fact.found.contains(&cut), "{fact:?}");
        folder.put("libnvinfer.so.10", &folder.needy);
        let fact = told("TensorRT");
        assert!(fact.found.starts_with("libnvinfer.so.10 cannot be loaded: libneeded.so.1: "), "what it lacks is named: {fact:?}");
        assert!(!fact.mend.is_empty());
    });
}
