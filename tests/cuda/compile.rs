//! Every kernel, compiled by the real compiler for every generation of devices that is served.
//!
//! In: NVRTC. Prints what is left out without it.
//! Must not know: drivers.

use doorward::infer::cuda::{Capability, CudaError, Gpu, Image, KERNEL_NAMES};

use crate::driver::{is_child, nvrtc_dir};

/// Turing, Ampere of the second kind, Ada, Hopper.
const SERVED: [(i32, i32); 4] = [(7, 5), (8, 6), (8, 9), (9, 0)];

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn every_kernel_compiles_for_every_device_that_is_served() {
    const NAME: &str = "compile::every_kernel_compiles_for_every_device_that_is_served";
    let Some(folder) = nvrtc_dir("kernels compiled for devices") else { return };
    if !is_child(NAME, &[&folder], &[]) {
        return;
    }
    for (major, minor) in SERVED {
        let image = Image::compile(Capability { major, minor }).unwrap_or_else(|error| panic!("{major}.{minor}: {error}"));
        assert!(image.bytes().starts_with(b"\x7fELF"), "{major}.{minor} is machine code");
        for name in KERNEL_NAMES {
            let section = [b".text.", name.to_bytes_with_nul()].concat();
            assert!(contains(image.bytes(), &section), "{major}.{minor} has {name:?}");
        }
        println!("{major}.{minor}: {} bytes of machine code", image.bytes().len());
    }
    // A device that the compiler does not know yet gets PTX of the newest that it knows.
    let image = Image::compile(Capability { major: 99, minor: 9 }).unwrap();
    assert!(contains(image.bytes(), b".entry letterbox_nv12") && image.bytes().ends_with(&[0]), "it is PTX");
    let too_old = Image::compile(Capability { major: 3, minor: 0 }).unwrap_err();
    assert!(too_old.to_string().contains("3.0 is older"), "{too_old}");
}

#[test]
fn without_a_driver_and_a_compiler_there_is_an_error_and_no_panic() {
    const NAME: &str = "compile::without_a_driver_and_a_compiler_there_is_an_error_and_no_panic";
    if !is_child(NAME, &[], &[]) {
        return;
    }
    // A machine that has them may answer something else, but never by a panic.
    if let Err(error) = Gpu::open(10_000) {
        assert!(matches!(error, CudaError::NoDriver | CudaError::Call { .. }), "{error}");
    }
    if let Err(error) = Image::compile(Capability { major: 8, minor: 6 }) {
        assert!(matches!(error, CudaError::NoCompiler), "{error}");
        assert!(error.to_string().contains("libnvrtc.so.12"), "{error}");
    }
}
