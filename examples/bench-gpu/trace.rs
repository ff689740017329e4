//! What a GPU did while something ran, from NVIDIA's own records of it (CUPTI): each copy and each kernel, of doorward's and of the
//! libraries that it uses alike.
//!
//! In: work. Out: the bytes that were copied, and how long the device was busy with what. Without the library an error says so.
//! Must not know: what the work is.

use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, anyhow};
use cudarc::cupti::result::{CuptiError, activity};
use cudarc::cupti::sys::{self, CUpti_ActivityKind as Kind, CUpti_ActivityMemcpyKind as Way};
use cudarc::driver::sys::CUcontext;
use doorward::infer::cuda::KERNEL_NAMES;

/// What is recorded: kernels without making them wait for each other.
const KINDS: [Kind; 2] = [Kind::CUPTI_ACTIVITY_KIND_MEMCPY, Kind::CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL];
/// The library fills buffers of this size, aligned as its records are.
const BUFFER: Layout = match Layout::from_size_align(4 << 20, 8) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};
/// Flushing hands over what is whole and what is not.
const FORCED: u32 = 1;

/// What the device did in some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Doing {
    /// Doorward's own kernels: letterboxing, alignment, measures.
    Kernels,
    /// Everybody else's, which are the graphs'.
    Graphs,
    /// Copies to the device, or within it.
    Copies,
    /// Copies from the device.
    CopiesToHost,
}

/// One thing that the device did, in nanoseconds of its own clock.
struct Span {
    doing: Doing,
    stream: u32,
    bytes: u64,
    begin: u64,
    end: u64,
}

static SPANS: Mutex<Vec<Span>> = Mutex::new(Vec::new());

/// What was recorded.
pub struct Record {
    /// The bytes that came from the device to the host.
    pub bytes_to_host: u64,
    /// The largest of the copies that brought them.
    pub largest_to_host: u64,
    /// How long the device did something, of all streams together: in nanoseconds.
    pub busy_ns: u64,
    /// How long it worked for two streams or more at once.
    pub overlapped_ns: u64,
    /// Nanoseconds by what was done, each copy and kernel counted by itself.
    pub by_doing_ns: BTreeMap<Doing, u64>,
}

/// Why nothing can be recorded, where it cannot.
pub fn obstacle() -> Option<String> {
    // SAFETY: it only tries to load the library; what calls it panics where there is none, so this has to come first.
    if !unsafe { sys::is_culib_present() } {
        return Some("libcupti.so.12 is not there; apt-get install cuda-cupti-12-8".to_owned());
    }
    // Another profiler, or a virtual GPU, may not let it.
    recorded(|| Ok(())).err().map(|error| format!("{error:#}"))
}

/// Does `work` and tells what the device did meanwhile, and what `work` answers. Only where there is no [`obstacle`].
pub fn recorded<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(Record, T)> {
    let failed = |error: CuptiError| anyhow!("CUPTI: {error:?}");
    activity::register_callbacks(Some(requested), Some(completed)).map_err(failed)?;
    for kind in KINDS {
        activity::enable(kind).map_err(failed).context("recording what the GPU does")?;
    }
    spans().clear();
    let answer = work();
    activity::flush_all(FORCED).map_err(failed)?;
    for kind in KINDS {
        activity::disable(kind).map_err(failed)?;
    }
    let record = Record::of(&std::mem::take(&mut *spans()));
    Ok((record, answer?))
}

fn spans() -> std::sync::MutexGuard<'static, Vec<Span>> {
    SPANS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    fn of(spans: &[Span]) -> Self {
        let mut by_doing_ns = BTreeMap::new();
        for span in spans {
            *by_doing_ns.entry(span.doing).or_default() += span.end.saturating_sub(span.begin);
        }
        let to_host = || spans.iter().filter(|span| span.doing == Doing::CopiesToHost).map(|span| span.bytes);
        let (bytes_to_host, largest_to_host) = (to_host().sum(), to_host().max().unwrap_or_default());
        let (busy_ns, overlapped_ns) = busy(spans);
        Self { bytes_to_host, largest_to_host, busy_ns, overlapped_ns, by_doing_ns }
    }
}

/// How long one stream or more, and two or more, had something running.
fn busy(spans: &[Span]) -> (u64, u64) {
    let mut edges: Vec<(u64, i32, u32)> =
        spans.iter().flat_map(|span| [(span.begin, 1, span.stream), (span.end, -1, span.stream)]).collect();
    // Where one thing ends as another begins they do not overlap.
    edges.sort_unstable();
    let (mut running, mut last) = (BTreeMap::<u32, i32>::new(), 0);
    let (mut one, mut two) = (0, 0);
    for (at, step, stream) in edges {
        let streams = running.values().filter(|count| **count > 0).count();
        one += if streams >= 1 { at - last } else { 0 };
        two += if streams >= 2 { at - last } else { 0 };
        *running.entry(stream).or_default() += step;
        last = at;
    }
    (one, two)
}

extern "C" fn requested(buffer: *mut *mut u8, size: *mut usize, records_max: *mut usize) {
    // SAFETY: the library asks for memory, which it gives back to `completed`, and the three places are its own.
    unsafe {
        *buffer = alloc(BUFFER);
        *size = if (*buffer).is_null() { 0 } else { BUFFER.size() };
        *records_max = 0;
    }
}

extern "C" fn completed(_: CUcontext, _: u32, buffer: *mut u8, _: usize, valid: usize) {
    if buffer.is_null() {
        return;
    }
    let mut record = std::ptr::null_mut();
    // SAFETY: the buffer holds so many valid bytes, which the library walks through by itself.
    while unsafe { activity::get_next_record(buffer, valid, &raw mut record) }.is_ok() {
        // SAFETY: the record is of the kind that it says, as the library writes it, and lies in the buffer until the end.
        if let Some(span) = unsafe { span_of(record) } {
            spans().push(span);
        }
    }
    // SAFETY: `requested` gave it, with this layout.
    unsafe { dealloc(buffer, BUFFER) };
}

/// # Safety
/// `record` is one of the library's, which begins as its kind's first layout of CUDA 12 does.
unsafe fn span_of(record: *const sys::CUpti_Activity) -> Option<Span> {
    // SAFETY: the caller's; records are packed to eight bytes and so may not be borrowed, only read.
    unsafe {
        match (*record).kind {
            Kind::CUPTI_ACTIVITY_KIND_MEMCPY => {
                let copy = record.cast::<sys::CUpti_ActivityMemcpy6>();
                let is_to_host = (*copy).copyKind == Way::CUPTI_ACTIVITY_MEMCPY_KIND_DTOH as u8;
                let doing = if is_to_host { Doing::CopiesToHost } else { Doing::Copies };
                Some(Span { doing, stream: (*copy).streamId, bytes: (*copy).bytes, begin: (*copy).start, end: (*copy).end })
            }
            Kind::CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL => {
                let kernel = record.cast::<sys::CUpti_ActivityKernel9>();
                let name = (*kernel).name;
                let is_own = !name.is_null() && KERNEL_NAMES.iter().any(|own| CStr::from_ptr(name) == *own);
                let doing = if is_own { Doing::Kernels } else { Doing::Graphs };
                Some(Span { doing, stream: (*kernel).streamId, bytes: 0, begin: (*kernel).start, end: (*kernel).end })
            }
            _ => None,
        }
    }
}
