//! The stand-in for the driver: made here, and found by the loader as the real one would be.
//!
//! In: driver.cpp. Out: a process in which libcuda.so is the stand-in, and what it counts.
//! Prints what is left out where there is no C++ compiler.
//! Must not know: what is computed.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use doorward::infer::cuda::{Capability, CudaError, Gpu, Image, Stream};
use libloading::Library;
use tempfile::TempDir;

/// Tells the test that it runs over the stand-in.
const IN_CHILD: &str = "DOORWARD_STAND_IN_DRIVER";

/// The number that the driver's file carries, as NVIDIA's does.
pub const DRIVER_RELEASE: &str = "580.159.04";

/// Where the Python environment has the compiler of kernels, if it is there.
pub fn nvrtc_dir(left_out: &str) -> Option<PathBuf> {
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/lib");
    let pythons = std::fs::read_dir(&libraries).into_iter().flatten().flatten();
    let mut folders = pythons.map(|python| python.path().join("site-packages/nvidia/cuda_nvrtc/lib"));
    let found = folders.find(|folder| folder.join("libnvrtc.so.12").exists());
    if found.is_none() {
        println!("LEFT OUT: {left_out}: NVRTC is not in .venv; run script/bootstrap --for-tests");
    }
    found
}

/// A folder with libcuda.so in it, which is the stand-in; or nothing where there is no C++ compiler.
fn driver_dir(left_out: &str) -> Option<&'static Path> {
    static DRIVER: OnceLock<Option<TempDir>> = OnceLock::new();
    let made = DRIVER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda/driver.cpp");
        let mut compiler = Command::new("c++");
        compiler.args(["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fPIC", "-shared"]);
        let file = format!("libcuda.so.{DRIVER_RELEASE}");
        let status = compiler.args(["-Wl,-soname,libcuda.so.1", "-o"]).arg(folder.path().join(&file)).arg(source).status().ok()?;
        assert!(status.success(), "the stand-in is C++");
        for name in ["libcuda.so.1", "libcuda.so", "libnvcuvid.so.1"] {
            std::os::unix::fs::symlink(&file, folder.path().join(name)).unwrap();
        }
        Some(folder)
    });
    if made.is_none() {
        println!("LEFT OUT: {left_out}: there is no c++ (Debian package g++)");
    }
    made.as_ref().map(TempDir::path)
}

/// Runs the test called `test` again in a process of its own, where the loader looks into `folders`
/// first and `variables` are set; in there, answers true.
pub fn is_child(test: &str, folders: &[&Path], variables: &[(&str, &Path)]) -> bool {
    if std::env::var_os(IN_CHILD).is_some() {
        return true;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(IN_CHILD, "1");
    let before = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let folders = folders.iter().map(PathBuf::from).chain(std::env::split_paths(&before).filter(|folder| !folder.as_os_str().is_empty()));
    child.env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap()).envs(variables.iter().copied());
    let output = child.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(output.status.success(), "{test} over the stand-in: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{test} is the test's name");
    false
}

/// Runs `body` over the stand-in, in a process of its own.
pub fn over_the_stand_in(test: &str, variables: &[(&str, &Path)], body: impl FnOnce(&'static StandIn)) {
    over_the_stand_in_beside(test, (&[], variables), body);
}

/// The same where the loader finds the libraries of more folders.
pub fn over_the_stand_in_beside(test: &str, (folders, variables): (&[&Path], &[(&str, &Path)]), body: impl FnOnce(&'static StandIn)) {
    if std::env::var_os(IN_CHILD).is_some() {
        return body(StandIn::loaded());
    }
    let Some(driver) = driver_dir(test) else { return };
    let nvrtc = nvrtc_dir("kernels compiled for the stand-in's device");
    let folders: Vec<&Path> = std::iter::once(driver).chain(folders.iter().copied()).chain(nvrtc.as_deref()).collect();
    is_child(test, &folders, variables);
}

/// Kernels for the stand-in, which looks for their names only: from the real compiler where it is
/// there.
pub fn image(gpu: &Gpu) -> Image {
    match Image::compile(gpu.capability().unwrap()) {
        Ok(image) => image,
        Err(CudaError::NoCompiler) => Image::new(b"// .entry letterbox_nv12 .entry align_nv12 .entry measure_crops\n".to_vec()).unwrap(),
        Err(error) => panic!("{error}"),
    }
}

// SAFETY: the types that told.hpp states; each call says what its arguments have to be.
type OfName = unsafe extern "C" fn(*const c_char) -> u64;
type OfWay = unsafe extern "C" fn(c_int) -> u64;
type Number = unsafe extern "C" fn() -> u64;
type Words = unsafe extern "C" fn() -> *const c_char;
type Fail = unsafe extern "C" fn(*const c_char, u64, c_int);
type Lose = unsafe extern "C" fn(u64, c_int);
type Read = unsafe extern "C" fn(*mut c_void, u64, *mut f32, usize);
type Write = unsafe extern "C" fn(u64, *const u8, usize);
// SAFETY: as above, in decoder.hpp and gstreamer.hpp; an answer's in told.hpp.
type Answer = unsafe extern "C" fn(*mut c_void, u64, u64, *const u8, usize);
type Set = unsafe extern "C" fn(u64);
type Teach = unsafe extern "C" fn(*const u8, usize, c_int, c_uint, c_uint, *const u8);

/// What the stand-in counts, and what it is told to do.
pub struct StandIn(Library);

impl StandIn {
    /// The library that cudarc finds, too.
    fn loaded() -> &'static Self {
        static LOADED: OnceLock<StandIn> = OnceLock::new();
        LOADED.get_or_init(|| {
            // SAFETY: it was made for this; loading it runs nothing.
            Self(unsafe { Library::new("libcuda.so") }.unwrap())
        })
    }

    fn symbol<T: Copy>(&self, name: &str) -> T {
        // SAFETY: each caller names the type that told.hpp has for it.
        *unsafe { self.0.get::<T>(name.as_bytes()) }.unwrap()
    }

    /// Calls of one function since the last [`fail`](Self::fail), by its name without a version.
    pub fn calls(&self, name: &str) -> u64 {
        let (name, calls) = (CString::new(name).unwrap(), self.symbol::<OfName>("stub_calls"));
        // SAFETY: the name ends in a zero.
        unsafe { calls(name.as_ptr()) }
    }

    /// Calls of all functions since the last [`fail`](Self::fail).
    pub fn calls_in_all(&self) -> u64 {
        let calls = self.symbol::<OfName>("stub_calls");
        // SAFETY: no name stands for all.
        unsafe { calls(std::ptr::null()) }
    }

    fn bytes(&self, way: c_int) -> u64 {
        // SAFETY: any number is allowed.
        unsafe { self.symbol::<OfWay>("stub_bytes")(way) }
    }

    /// Bytes that were copied to the device.
    pub fn bytes_up(&self) -> u64 {
        self.bytes(0)
    }

    /// Bytes that were copied to the host.
    pub fn bytes_down(&self) -> u64 {
        self.bytes(1)
    }

    /// Bytes that stand-ins for sessions read where they lay.
    pub fn bytes_read(&self) -> u64 {
        self.bytes(2)
    }

    fn number(&self, name: &str) -> u64 {
        // SAFETY: only functions without arguments are asked for.
        unsafe { self.symbol::<Number>(name)() }
    }

    /// How many bytes of the device's memory are taken.
    pub fn device_bytes(&self) -> u64 {
        self.number("stub_device_bytes")
    }

    /// The flags that the primary context has.
    pub fn context_flags(&self) -> u64 {
        self.number("stub_context_flags")
    }

    /// How many things were made and not given back.
    pub fn held(&self) -> u64 {
        self.number("stub_held")
    }

    /// How much work is queued and not done.
    pub fn queued(&self) -> u64 {
        self.number("stub_queued")
    }

    fn words(&self, name: &str) -> Option<String> {
        // SAFETY: only functions without arguments are asked for; the words live until the next call.
        let words = unsafe { self.symbol::<Words>(name)() };
        // SAFETY: they end in a zero.
        (!words.is_null()).then(|| unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned())
    }

    /// What was done that a real driver would punish.
    pub fn wrong(&self) -> Option<String> {
        self.words("stub_wrong")
    }

    /// Lets the `nth` call from now on fail with `code`, of all functions or of one.
    pub fn fail(&self, name: Option<&str>, nth: u64, code: c_int) {
        let fail = self.symbol::<Fail>("stub_fail");
        let name = name.map(|name| CString::new(name).unwrap());
        // SAFETY: the name ends in a zero or is none.
        unsafe { fail(name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()), nth, code) };
    }

    /// Loses the device: the `nth` call from now on and all that follow fail with `code`, and nothing that is queued is done, until
    /// the next [`fail`](Self::fail).
    pub fn lose(&self, nth: u64, code: c_int) {
        let lose = self.symbol::<Lose>("stub_lose");
        // SAFETY: any numbers are allowed.
        unsafe { lose(nth, code) };
    }

    fn set(&self, name: &str, number: u64) {
        // SAFETY: any number is allowed.
        unsafe { self.symbol::<Set>(name)(number) };
    }

    /// Lets memory for pictures say that its rows are so far apart; 0 lets it say the truth.
    pub fn pitch(&self, bytes: u64) {
        self.set("stub_pitch", bytes);
    }

    /// Lets there be so many decoders at once.
    pub fn decoders(&self, most: u64) {
        self.set("stub_decoders", most);
    }

    /// Teaches the decoder what an access unit shows, as rows of luma and rows of pairs.
    pub fn teach(&self, (unit, is_h265): (&[u8], bool), (width, height): (u32, u32), nv12: &[u8]) {
        assert_eq!(nv12.len(), width as usize * (height + height.div_ceil(2)) as usize, "rows lie close to each other");
        let teach = self.symbol::<Teach>("stub_picture");
        // SAFETY: so many bytes are read of both.
        unsafe { teach(unit.as_ptr(), unit.len(), if is_h265 { 8 } else { 4 }, width, height, nv12.as_ptr()) };
    }

    /// Access units that nobody had taught it.
    pub fn unknown(&self) -> u64 {
        self.number("stub_unknown")
    }

    /// The first function that was made to fail.
    pub fn failed(&self) -> Option<String> {
        self.words("stub_failed")
    }

    /// Reads values as a session on the device does: where they lie, after what the stream has queued.
    pub fn read(&self, stream: &Arc<Stream>, address: u64, to: &mut [f32]) {
        let read = self.symbol::<Read>("stub_read");
        // SAFETY: the stream is alive, and there is room for as many values.
        unsafe { read(stream.handle(), address, to.as_mut_ptr(), size_of_val(to)) };
    }

    /// Writes bytes as a decoder or a session on the device does.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        let write = self.symbol::<Write>("stub_write");
        // SAFETY: so many bytes are read; the stand-in checks the address.
        unsafe { write(address, bytes.as_ptr(), bytes.len()) };
    }

    /// Queues the writing of bytes at `to`, as a session does that was given its input at `input`.
    pub fn answer(&self, stream: &Arc<Stream>, (input, to): (u64, u64), bytes: &[u8]) {
        let answer = self.symbol::<Answer>("stub_answer");
        // SAFETY: the stream is alive, and so many bytes are read; the stand-in checks the addresses.
        unsafe { answer(stream.handle(), input, to, bytes.as_ptr(), bytes.len()) };
    }
}

/// The capability of the stand-in's device.
pub const CAPABILITY: Capability = Capability { major: 8, minor: 6 };
