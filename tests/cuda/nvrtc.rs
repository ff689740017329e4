//! A compiler of kernels that fails: each of its functions once, over a library that stands in for NVRTC.
//!
//! In: a C++ compiler, which makes the library; the models. Out: errors with the compiler's words, a session on the CPU only with leave.
//! Prints what is left out where a resource is missing.
//! Must not know: how kernels are compiled.

use std::ffi::{CString, c_char, c_int};
use std::path::PathBuf;
use std::process::Command;

use doorward::infer::cuda::{Capability, CudaError, Image};
use libloading::Library;

use crate::driver::{CAPABILITY, over_the_stand_in_beside};
use crate::faces;
use crate::sessions::falls_back_only_with_leave;

/// Where the process that runs over the stand-in finds the library.
const MADE: &str = "DOORWARD_MADE_NVRTC";
/// A compiler for 7.5 and 8.6 that makes nothing of any source, and of which one function fails when it is told to.
const SOURCE: &str = r#"
#include <cstddef>
#include <cstring>
static const char LOG[] = "kernels.cu(12): error: this is no C++", CODE[] = "\x7f" "ELF", PTX[] = "// .entry letterbox_nv12";
static char failing[64];
static int code, programs;
static int answer(const char *name) { return std::strcmp(name, failing) == 0 ? code : 0; }
extern "C" {
void made_up_fail(const char *name, int with) { std::strncpy(failing, name, sizeof failing - 1), code = with; }
int made_up_programs() { return programs; }
int nvrtcGetNumSupportedArchs(int *count) { return *count = 2, answer(__func__); }
int nvrtcGetSupportedArchs(int *known) { return known[0] = 75, known[1] = 86, answer(__func__); }
int nvrtcCreateProgram(void **program, const char *, const char *, int, const char *const *, const char *const *) {
    if (int failed = answer(__func__)) return failed;
    return programs++, *program = failing, 0;
}
int nvrtcDestroyProgram(void **program) { return programs--, *program = nullptr, 0; }
int nvrtcCompileProgram(void *, int, const char *const *) { return answer(__func__); }
int nvrtcGetProgramLogSize(void *, size_t *size) { return *size = sizeof LOG, 0; }
int nvrtcGetProgramLog(void *, char *log) { return std::memcpy(log, LOG, sizeof LOG), 0; }
int nvrtcGetCUBINSize(void *, size_t *size) { return *size = sizeof CODE, answer(__func__); }
int nvrtcGetCUBIN(void *, char *code) { return std::memcpy(code, CODE, sizeof CODE), answer(__func__); }
int nvrtcGetPTXSize(void *, size_t *size) { return *size = sizeof PTX, answer(__func__); }
int nvrtcGetPTX(void *, char *ptx) { return std::memcpy(ptx, PTX, sizeof PTX), answer(__func__); }
}
"#;
/// A device that the compiler knows, and one that is newer than it.
const KNOWN: Capability = CAPABILITY;
const NEWER: Capability = Capability { major: 9, minor: 0 };
/// What it may answer.
const OUT_OF_MEMORY: (c_int, &str) = (1, "NVRTC_ERROR_OUT_OF_MEMORY");
const COMPILATION: (c_int, &str) = (6, "NVRTC_ERROR_COMPILATION");
const INTERNAL: (c_int, &str) = (11, "NVRTC_ERROR_INTERNAL_ERROR");

/// The library that stands in for the compiler.
struct Compiler(Library);

impl Compiler {
    /// Lets a function answer with a code; none for an empty name.
    fn fail(&self, name: &str, code: c_int) {
        let name = CString::new(name).unwrap();
        // SAFETY: the type that the source above has for it; the name ends in a zero.
        unsafe { self.0.get::<unsafe extern "C" fn(*const c_char, c_int)>(b"made_up_fail").unwrap()(name.as_ptr(), code) };
    }

    /// How many programs were made and not given back.
    fn programs(&self) -> c_int {
        // SAFETY: as above.
        unsafe { self.0.get::<unsafe extern "C" fn() -> c_int>(b"made_up_programs").unwrap()() }
    }
}

/// Runs `body` over the stand-in, whose loader finds the made-up compiler before any other.
fn run(test: &str, body: impl FnOnce(&Compiler)) {
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var_os(MADE).map_or_else(|| folder.path().to_owned(), PathBuf::from);
    let library = path.join("libnvrtc.so.12");
    if std::env::var_os(MADE).is_none() {
        let source = path.join("nvrtc.cpp");
        std::fs::write(&source, SOURCE).unwrap();
        let mut compiler = Command::new("c++");
        let Ok(status) = compiler.args(["-fPIC", "-shared", "-o"]).arg(&library).arg(&source).status() else {
            return println!("LEFT OUT: {test}: there is no c++ (Debian package g++)");
        };
        assert!(status.success(), "the compiler is C++");
        // As the package for developers has it, by which it is looked for first.
        std::os::unix::fs::symlink(&library, path.join("libnvrtc.so")).unwrap();
    }
    over_the_stand_in_beside(test, (&[&path], &[(MADE, &path)]), |stand_in| {
        // SAFETY: it was made for this; loading it runs nothing.
        let compiler = Compiler(unsafe { Library::new(&library) }.unwrap());
        body(&compiler);
        assert_eq!((compiler.programs(), stand_in.held(), stand_in.wrong()), (0, 0, None), "all is given back");
    });
}

#[test]
fn a_compiler_of_which_any_function_fails_is_told_by_the_function_and_its_words() {
    run("nvrtc::a_compiler_of_which_any_function_fails_is_told_by_the_function_and_its_words", |compiler| {
        let all = [
            ("nvrtcGetNumSupportedArchs", INTERNAL, "nvrtcGetNumSupportedArchs answered", KNOWN),
            ("nvrtcGetSupportedArchs", INTERNAL, "nvrtcGetSupportedArchs answered", KNOWN),
            ("nvrtcCreateProgram", OUT_OF_MEMORY, "nvrtcCreateProgram answered", KNOWN),
            ("nvrtcCompileProgram", COMPILATION, "for sm_86: kernels.cu(12): error: this is no C++", KNOWN),
            ("nvrtcCompileProgram", OUT_OF_MEMORY, "for compute_86: kernels.cu(12)", NEWER),
            ("nvrtcGetCUBINSize", INTERNAL, "nvrtcGetCUBINSize answered", KNOWN),
            ("nvrtcGetCUBIN", OUT_OF_MEMORY, "nvrtcGetCUBIN answered", KNOWN),
            ("nvrtcGetPTXSize", INTERNAL, "nvrtcGetPTX answered", NEWER),
            ("nvrtcGetPTX", OUT_OF_MEMORY, "nvrtcGetPTX answered", NEWER),
        ];
        for (name, (code, code_name), words, capability) in all {
            compiler.fail(name, code);
            let error = Image::compile(capability).unwrap_err();
            assert!(matches!(error, CudaError::Compile { .. }), "{name}: {error:?}");
            let told = error.to_string();
            for part in ["the kernels cannot be compiled", words, code_name] {
                assert!(told.contains(part), "{name}, {part}: {told}");
            }
            assert_eq!(compiler.programs(), 0, "{name}: the program is given back");
            compiler.fail("", 0);
            Image::compile(capability).unwrap_or_else(|error| panic!("after {name}: {error}"));
        }
    });
}

#[test]
fn where_the_kernels_cannot_be_compiled_the_cpu_analyses_where_it_may_and_else_the_engine_does_not_open() {
    const NAME: &str = "nvrtc::where_the_kernels_cannot_be_compiled_the_cpu_analyses_where_it_may_and_else_the_engine_does_not_open";
    let Some(models) = faces::models_dir(NAME) else { return };
    run(NAME, |compiler| {
        compiler.fail("nvrtcCompileProgram", COMPILATION.0);
        let words = ["the kernels cannot be compiled", COMPILATION.1, "kernels.cu(12): error: this is no C++", "a newer NVRTC"];
        falls_back_only_with_leave(&models, &words);
    });
}
