//! A stand-in for NVIDIA's driver: libcuda.so with the functions that doorward calls, and no device.
//!
//! In: calls of the driver's interface. Out: what they would do, as late as the interface allows.
//! With contexts.hpp, told.hpp for the tests, and gstreamer.hpp and decoder.hpp for what GStreamer calls, one file in the end.
//! Device memory is apart: the address that is handed out cannot be read or written by the host, and
//! kernels run through a second mapping of the same memory. Queued work is done when somebody waits
//! for it and not before, so whoever reads, frees or writes again without waiting is found out.
//! Must not know: what is computed.
#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>

static void *device_memory(uint64_t address);
#define DEVICE_POINTER(type, address) static_cast<type *>(device_memory(address))
#include "memory.hpp"
#include "shim.hpp"

enum { SUCCESS = 0, INVALID_VALUE = 1, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_IMAGE = 200, INVALID_CONTEXT = 201, NOT_FOUND = 500, PRIMARY_CONTEXT_ACTIVE = 708 };

// A place in a stream: reached once everything before it is done.
struct Mark {
    struct Stream *stream = nullptr;
    bool is_reached = false;
};

struct Work {
    std::function<void()> run;
    // What it reads or writes, so that freeing it in the meantime is noticed.
    const void *host = nullptr;
    std::set<uint64_t> devices;
    // Where a copy goes; where a kernel has its parameters, for how many pictures of which kind.
    uint64_t to = 0;
    uint64_t array = 0;
    unsigned int count = 0;
    bool is_letterbox = false;
};

struct Stream {
    std::deque<Work> work;
    // Whether the default stream waits for it.
    bool is_waited_for = false;
};

struct Event {
    std::shared_ptr<Mark> mark;
};

static std::recursive_mutex guard;
static std::map<uint64_t, Memory> device;
static std::map<void *, size_t> pinned;
static std::set<Stream *> streams;
static std::set<Event *> events;
static int modules;
static bool is_initialised;
#include "contexts.hpp"

static std::map<std::string, uint64_t> calls;
static uint64_t calls_in_all, bytes_up, bytes_down, bytes_read, wrong;
static std::string what_was_wrong, fail_name, failed;
static uint64_t fail_at;
static int fail_code;
// Whether all calls from that one on fail.
static bool is_for_good;
static int the_letterbox, the_align, the_measure, the_module;

static void accuse(const std::string &what) {
    wrong++;
    if (what_was_wrong.empty()) what_was_wrong = what;
}

// A lost device does nothing any more of what was queued.
static void lose() {
    for (Stream *stream : streams) stream->work.clear();
}

// Counts a call and says whether it is to fail.
static int begin(const char *name, bool needs_context) {
    calls[name]++;
    calls_in_all++;
    const uint64_t number = fail_name.empty() ? calls_in_all : (fail_name == name ? calls[name] : 0);
    if (fail_at != 0 && (number == fail_at || (is_for_good && number > fail_at))) {
        if (failed.empty()) failed = name;
        if (is_for_good) lose();
        return fail_code;
    }
    if (needs_context && !is_alive(current())) {
        if (!goes_on_without) accuse(std::string(name) + " without a current context");
        return INVALID_CONTEXT;
    }
    return SUCCESS;
}

#define BEGIN(name)                                    \
    std::lock_guard<std::recursive_mutex> lock(guard); \
    if (int code = begin(name, true)) return code

// Real drivers give back what they are told to, and report by the same call what failed before.
#define BEGIN_GIVING_BACK(name)                        \
    std::lock_guard<std::recursive_mutex> lock(guard); \
    const int answer = begin(name, true)

static Memory *memory_at(uint64_t address) {
    auto after = device.upper_bound(address);
    if (after == device.begin()) return nullptr;
    Memory &memory = (--after)->second;
    const uint64_t first = reinterpret_cast<uint64_t>(memory.handed);
    return address < first + memory.bytes ? &memory : nullptr;
}

static void *device_memory(uint64_t address) {
    Memory *memory = memory_at(address);
    if (!memory) {
        // A device would end the kernel and lose the context.
        std::fprintf(stderr, "driver.cpp: a kernel reads %#llx, which is no device memory\n", static_cast<unsigned long long>(address));
        std::abort();
    }
    if (memory->context != &the_context) accuse("a kernel reads memory of another context");
    return memory->alias + (address - reinterpret_cast<uint64_t>(memory->handed));
}

// Does what a stream has queued, up to a mark where one is given.
static void run(Stream *stream, const Mark *until = nullptr) {
    while (!stream->work.empty() && !(until && until->is_reached)) {
        Work work = std::move(stream->work.front());
        stream->work.pop_front();
        work.run();
    }
}

// Does what the default stream waits for, and nothing that doorward queues.
static void run_default() {
    for (Stream *stream : std::set<Stream *>(streams))
        if (stream->is_waited_for) run(stream);
}

static bool is_used(const void *host, uint64_t address) {
    for (Stream *stream : streams)
        for (const Work &work : stream->work)
            if ((host && work.host == host) || work.devices.count(address)) return true;
    return false;
}

static bool lies_in(const Surface &surface, const Memory &memory) {
    const uint64_t first = reinterpret_cast<uint64_t>(memory.handed);
    return surface.luma < first + memory.bytes && surface.chroma >= first;
}

// What a kernel that is launched now is told of pictures: it lies in device memory, or is on its way there.
static const char *pictures_at(const Stream *stream, uint64_t array) {
    const Work *copied = nullptr;
    for (const Work &work : stream->work)
        if (work.to) copied = &work;
    const bool is_queued = copied && memory_at(copied->to) == memory_at(array);
    return is_queued ? static_cast<const char *>(copied->host) + (array - copied->to) : static_cast<const char *>(device_memory(array));
}

// Whether a kernel that is queued will read a picture in this memory. Its parameters may be queued, too.
static bool is_to_be_read(const Memory &memory) {
    for (Stream *stream : streams) {
        const Work *copied = nullptr;
        for (const Work &work : stream->work) {
            if (work.to) copied = &work;
            if (!work.array) continue;
            const bool is_queued = copied && memory_at(copied->to) == memory_at(work.array);
            const char *at = is_queued ? static_cast<const char *>(copied->host) + (work.array - copied->to)
                                       : static_cast<const char *>(device_memory(work.array));
            for (unsigned int picture = 0; picture < work.count; picture++) {
                Surface surface;
                std::memcpy(&surface, at + picture * (work.is_letterbox ? sizeof(Letterbox) : sizeof(Face)), sizeof surface);
                if (lies_in(surface, memory)) return true;
            }
        }
    }
    return false;
}

extern "C" {

int cuInit(unsigned int) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuInit", false)) return code;
    is_initialised = true;
    return SUCCESS;
}

int cuDeviceGetCount(int *count) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuDeviceGetCount", false)) return code;
    *count = 1;
    return is_initialised ? SUCCESS : NOT_INITIALIZED;
}

int cuDeviceGet(int *found, int ordinal) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuDeviceGet", false)) return code;
    if (!is_initialised) return NOT_INITIALIZED;
    *found = ordinal;
    return ordinal == 0 ? SUCCESS : INVALID_DEVICE;
}

// NVRTC looks into the driver that it finds: a table that says it is this short holds nothing.
int cuGetExportTable(const void **table, const void *) {
    static const uint64_t nothing[8] = {sizeof(uint64_t)};
    *table = nothing;
    return SUCCESS;
}

// An Ampere of the second kind: 8.6.
int cuDeviceGetAttribute(int *value, int attribute, int) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuDeviceGetAttribute", false)) return code;
    if (attribute != 75 && attribute != 76 && attribute != 14) return INVALID_VALUE;
    *value = attribute == 75 ? 8 : (attribute == 76 ? 6 : 512);
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuDeviceTotalMem", false)) return code;
    *bytes = size_t{8} << 30;
    return SUCCESS;
}

int cuStreamCreate(Stream **stream, unsigned int flags) {
    BEGIN("cuStreamCreate");
    if (flags != 1 && !is_gstreamer(__builtin_return_address(0))) accuse("a stream that waits for the default one");
    streams.insert(*stream = new Stream);
    (*stream)->is_waited_for = flags == 0;
    return SUCCESS;
}

int cuStreamDestroy_v2(Stream *stream) {
    BEGIN_GIVING_BACK("cuStreamDestroy");
    if (!streams.count(stream)) return INVALID_VALUE;
    run(stream);
    streams.erase(stream);
    delete stream;
    return answer;
}

// A real one fails when nothing of the stream is queued any more, and GStreamer goes on as if it had not failed. Doorward is held to
// more: what it waits for in vain stays queued.
int cuStreamSynchronize(Stream *stream) {
    BEGIN_GIVING_BACK("cuStreamSynchronize");
    if (answer && !is_gstreamer(__builtin_return_address(0))) return answer;
    if (!stream) return run_default(), answer;
    if (!streams.count(stream)) return INVALID_VALUE;
    run(stream);
    return answer;
}

int cuStreamWaitEvent(Stream *stream, Event *event, unsigned int) {
    BEGIN("cuStreamWaitEvent");
    if (!streams.count(stream) || !events.count(event)) return INVALID_VALUE;
    if (std::shared_ptr<Mark> mark = event->mark) {
        stream->work.push_back({[mark] {
                                    if (!mark->is_reached && streams.count(mark->stream)) run(mark->stream, mark.get());
                                },
                                nullptr,
                                {},
                                0,
                                0,
                                0,
                                false});
    }
    return SUCCESS;
}

int cuEventCreate(Event **event, unsigned int flags) {
    BEGIN("cuEventCreate");
    if (!(flags & 2)) accuse("an event that takes times");
    events.insert(*event = new Event);
    return SUCCESS;
}

int cuEventDestroy_v2(Event *event) {
    BEGIN_GIVING_BACK("cuEventDestroy");
    if (!events.erase(event)) return INVALID_VALUE;
    delete event;
    return answer;
}

int cuEventRecord(Event *event, Stream *stream) {
    BEGIN("cuEventRecord");
    if (!streams.count(stream) || !events.count(event)) return INVALID_VALUE;
    auto mark = std::make_shared<Mark>();
    mark->stream = stream;
    event->mark = mark;
    stream->work.push_back({[mark] { mark->is_reached = true; }, nullptr, {}, 0, 0, 0, false});
    return SUCCESS;
}

int cuEventSynchronize(Event *event) {
    BEGIN("cuEventSynchronize");
    if (!events.count(event)) return INVALID_VALUE;
    if (event->mark && !event->mark->is_reached && streams.count(event->mark->stream)) run(event->mark->stream, event->mark.get());
    return SUCCESS;
}

int cuModuleLoadData(void **module, const char *image) {
    BEGIN("cuModuleLoadData");
    // A cubin states how long it is; PTX ends in a zero.
    size_t size = std::strlen(image);
    if (std::memcmp(image, "\x7f" "ELF", 4) == 0) {
        uint64_t sections;
        uint16_t each, count;
        std::memcpy(&sections, image + 0x28, 8);
        std::memcpy(&each, image + 0x3a, 2);
        std::memcpy(&count, image + 0x3c, 2);
        size = sections + static_cast<size_t>(each) * count;
    }
    const std::string text(image, size);
    if (text.find("letterbox_nv12") == std::string::npos || text.find("align_nv12") == std::string::npos) return INVALID_IMAGE;
    modules++;
    *module = &the_module;
    return SUCCESS;
}

int cuModuleGetFunction(int **function, void *module, const char *name) {
    BEGIN("cuModuleGetFunction");
    if (module != &the_module || modules == 0) return INVALID_VALUE;
    if (std::strcmp(name, "letterbox_nv12") == 0)
        *function = &the_letterbox;
    else if (std::strcmp(name, "align_nv12") == 0)
        *function = &the_align;
    else if (std::strcmp(name, "measure_crops") == 0)
        *function = &the_measure;
    else
        return NOT_FOUND;
    return SUCCESS;
}

int cuModuleUnload(void *) {
    BEGIN_GIVING_BACK("cuModuleUnload");
    if (modules-- == 0) accuse("a module is unloaded twice");
    return answer;
}

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
    BEGIN("cuMemAlloc");
    if (bytes == 0) return INVALID_VALUE;
    Memory memory;
    allocate(bytes, memory);
    memory.context = current();
    *address = reinterpret_cast<uint64_t>(memory.handed);
    device[*address] = memory;
    return SUCCESS;
}

int cuMemFree_v2(uint64_t address) {
    BEGIN_GIVING_BACK("cuMemFree");
    auto found = device.find(address);
    if (found == device.end()) {
        accuse("device memory is freed twice");
        return INVALID_VALUE;
    }
    if (is_used(nullptr, address) || is_to_be_read(found->second)) accuse("device memory is freed while queued work uses it");
    release(found->second);
    device.erase(found);
    return answer;
}

int cuMemHostAlloc(void **pointer, size_t bytes, unsigned int) {
    BEGIN("cuMemHostAlloc");
    *pointer = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pinned[*pointer] = bytes;
    return SUCCESS;
}

int cuMemFreeHost(void *pointer) {
    BEGIN_GIVING_BACK("cuMemFreeHost");
    auto found = pinned.find(pointer);
    if (found == pinned.end()) {
        accuse("pinned memory is freed twice");
        return INVALID_VALUE;
    }
    if (is_used(pointer, 0)) accuse("pinned memory is freed while a queued copy uses it");
    munmap(pointer, found->second);
    pinned.erase(found);
    return answer;
}

// Both copies begin where the host's memory begins, which is how doorward uses them.
static int copy(Stream *stream, void *host, uint64_t address, size_t bytes, bool is_up) {
    Memory *memory = memory_at(address);
    auto found = pinned.find(host);
    if (!streams.count(stream) || !memory || found == pinned.end() || bytes > found->second ||
        address + bytes > reinterpret_cast<uint64_t>(memory->handed) + memory->bytes) {
        accuse("a copy from or to what is no pinned or no device memory");
        return INVALID_VALUE;
    }
    (is_up ? bytes_up : bytes_down) += bytes;
    char *there = memory->alias + (address - reinterpret_cast<uint64_t>(memory->handed));
    const std::string queued(static_cast<const char *>(host), is_up ? bytes : 0);
    stream->work.push_back({[=] {
                                if (is_up && std::memcmp(queued.data(), host, bytes) != 0) accuse("pinned memory is written before its copy is done");
                                is_up ? std::memcpy(there, host, bytes) : std::memcpy(host, there, bytes);
                            },
                            host,
                            {reinterpret_cast<uint64_t>(memory->handed)},
                            is_up ? address : 0,
                            0,
                            0,
                            false});
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, Stream *stream) {
    BEGIN("cuMemcpyHtoDAsync");
    return copy(stream, const_cast<void *>(from), to, bytes, true);
}

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, Stream *stream) {
    BEGIN("cuMemcpyDtoHAsync");
    return copy(stream, to, from, bytes, false);
}

int cuLaunchKernel(int *function, unsigned int x, unsigned int y, unsigned int z, unsigned int across, unsigned int down, unsigned int deep,
                   unsigned int, Stream *stream, void **parameters, void **) {
    BEGIN("cuLaunchKernel");
    if (!streams.count(stream) || modules == 0 || x == 0 || y == 0 || z == 0 || y > 65535 || z > 65535 || across * down * deep > 1024) {
        accuse("a launch that a driver refuses");
        return INVALID_VALUE;
    }
    // The driver copies parameters before it comes back; what they point at is read when the kernel runs.
    Address array = parameter<Address>(parameters, 0);
    const bool is_letterbox = function == &the_letterbox, is_measure = function == &the_measure;
    const char *name = is_letterbox ? "letterbox_nv12" : is_measure ? "measure_crops" : "align_nv12";
    Tensor tensor = {};
    std::set<uint64_t> addresses = {array};
    if (is_letterbox) {
        const char *at = pictures_at(stream, array);
        for (unsigned int picture = 0; picture < z; picture++) {
            Letterbox letterbox;
            std::memcpy(&letterbox, at + picture * sizeof letterbox, sizeof letterbox);
            addresses.insert(letterbox.canvas.values);
        }
    } else {
        tensor = parameter<Tensor>(parameters, 1);
        addresses.insert(tensor.values);
    }
    std::set<uint64_t> devices;
    for (uint64_t address : addresses)
        if (Memory *memory = memory_at(address)) devices.insert(reinterpret_cast<uint64_t>(memory->handed));
    stream->work.push_back({[=]() mutable {
                                void *both[] = {&array, &tensor};
                                run_kernel(name, Dim3{x, y, z}, Dim3{across, down, deep}, both);
                            },
                            nullptr,
                            devices,
                            0,
                            // Only the other two are told of pictures there.
                            is_measure ? 0 : array,
                            z,
                            is_letterbox});
    return SUCCESS;
}

} // extern "C"

#include "gstreamer.hpp"
#include "decoder.hpp"
#include "told.hpp"
