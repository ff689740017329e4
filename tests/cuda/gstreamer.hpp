//! What GStreamer's CUDA library and elements call beyond what doorward calls by itself.
//!
//! In: calls of the driver's interface. Out: what they would do; pictures are copied when a stream comes by and not before.
//! Included by driver.cpp, whose statics it uses.
//! Must not know: doorward.
#pragma once

static uint64_t pitch_lie;

// Rows apart from each other, from or to either memory.
struct Copy2D {
    size_t from_x, from_y;
    int from_kind;
    const void *from_host;
    uint64_t from_device;
    void *from_array;
    size_t from_pitch;
    size_t to_x, to_y;
    int to_kind;
    void *to_host;
    uint64_t to_device;
    void *to_array;
    size_t to_pitch;
    size_t width, height;
};
enum { HOST = 1, DEVICE = 2 };

// Where a side of a copy lies, after a look whether it lies within what was allocated.
static char *side(int kind, const void *host, uint64_t address, size_t pitch, const Copy2D &copy) {
    if (kind == HOST) return static_cast<char *>(const_cast<void *>(host));
    Memory *memory = memory_at(address);
    const size_t reach = (copy.height - 1) * pitch + copy.width;
    if (!memory || address + reach > reinterpret_cast<uint64_t>(memory->handed) + memory->bytes) {
        accuse("a copy of rows from or to what is no device memory");
        return nullptr;
    }
    if (memory->context != current()) accuse("a copy of rows in another context than its memory's");
    return memory->alias + (address - reinterpret_cast<uint64_t>(memory->handed));
}

static int copy_rows(const Copy2D &copy, Stream *stream) {
    const char *from = side(copy.from_kind, copy.from_host, copy.from_device, copy.from_pitch, copy);
    char *to = side(copy.to_kind, copy.to_host, copy.to_device, copy.to_pitch, copy);
    if (!from || !to || copy.from_x || copy.from_y || copy.to_x || copy.to_y) return INVALID_VALUE;
    if (!pitch_lie && (copy.width > copy.from_pitch || copy.width > copy.to_pitch)) return INVALID_VALUE;
    std::set<uint64_t> devices;
    for (auto [kind, address] : {std::pair{copy.from_kind, copy.from_device}, std::pair{copy.to_kind, copy.to_device}})
        if (kind == DEVICE) devices.insert(reinterpret_cast<uint64_t>(memory_at(address)->handed));
    if (copy.to_kind == DEVICE && is_to_be_read(*memory_at(copy.to_device))) accuse("a surface is let go of while a queued kernel reads it");
    auto work = [=] {
        for (size_t row = 0; row < copy.height; row++) std::memcpy(to + row * copy.to_pitch, from + row * copy.from_pitch, copy.width);
    };
    if (stream)
        stream->work.push_back({work, nullptr, devices, 0, 0, 0, false});
    else
        work();
    return SUCCESS;
}

extern "C" {

int cuGetErrorName(int code, const char **name) {
    *name = code == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : (code == 719 ? "CUDA_ERROR_LAUNCH_FAILED" : (code == 999 ? "CUDA_ERROR_UNKNOWN" : "an error"));
    return SUCCESS;
}
int cuGetErrorString(int, const char **words) { return *words = "an error", SUCCESS; }

int cuDriverGetVersion(int *version) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuDriverGetVersion", false)) return code;
    return *version = 12080, SUCCESS;
}

int cuDeviceGetName(char *name, int bytes, int) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuDeviceGetName", false)) return code;
    return std::snprintf(name, static_cast<size_t>(bytes), "stand-in"), SUCCESS;
}

int cuDeviceCanAccessPeer(int *can, int, int) { return *can = 0, SUCCESS; }

int cuMemAllocPitch_v2(uint64_t *address, size_t *pitch, size_t width, size_t height, unsigned int) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuMemAllocPitch", true)) return code;
    *pitch = pitch_lie ? pitch_lie : (width + 511) / 512 * 512;
    return cuMemAlloc_v2(address, *pitch * height);
}

// Streams are ended by the older name.
int cuStreamDestroy(Stream *stream) { return cuStreamDestroy_v2(stream); }

int cuMemAllocHost_v2(void **pointer, size_t bytes) { return cuMemHostAlloc(pointer, bytes, 0); }

int cuMemcpy2D_v2(const Copy2D *copy) {
    BEGIN("cuMemcpy2D");
    run_default();
    return copy_rows(*copy, nullptr);
}

int cuMemcpy2DAsync_v2(const Copy2D *copy, Stream *stream) {
    BEGIN("cuMemcpy2DAsync");
    return copy_rows(*copy, stream);
}

// It waits for the default stream, and the host's memory need not be pinned.
int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t bytes) {
    BEGIN("cuMemcpyDtoH");
    run_default();
    Memory *memory = memory_at(from);
    if (!memory || from + bytes > reinterpret_cast<uint64_t>(memory->handed) + memory->bytes) {
        accuse("a copy from what is no device memory");
        return INVALID_VALUE;
    }
    std::memcpy(to, memory->alias + (from - reinterpret_cast<uint64_t>(memory->handed)), bytes);
    bytes_down += bytes;
    return SUCCESS;
}

// Lets memory for pictures say that its rows are so far apart; 0 lets it say the truth.
void stub_pitch(uint64_t pitch) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    pitch_lie = pitch;
}

// Looked up and not called.
#define NEVER(name) \
    int name() { return INVALID_VALUE; }
NEVER(cuCtxEnablePeerAccess)
NEVER(cuCtxDisablePeerAccess)
NEVER(cuGraphicsMapResources)
NEVER(cuGraphicsUnmapResources)
NEVER(cuGraphicsResourceSetMapFlags_v2)
NEVER(cuGraphicsSubResourceGetMappedArray)
NEVER(cuGraphicsResourceGetMappedPointer_v2)
NEVER(cuGraphicsUnregisterResource)
NEVER(cuGraphicsGLRegisterImage)
NEVER(cuGraphicsGLRegisterBuffer)
NEVER(cuGLGetDevices_v2)
NEVER(cuTexObjectCreate)
NEVER(cuTexObjectDestroy)
}
