//! Memory that stands for a device's: mapped twice, once for kernels and once for nobody.
//!
//! In: sizes. Out: an address that the host can neither read nor write, and where the memory really is.
//! Must not know: the driver.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

struct Memory {
    char *handed;
    char *alias;
    char *mapping;
    size_t mapped;
    size_t bytes;
    // The context that it was made in.
    void *context = nullptr;
};

static void allocate(size_t bytes, Memory &memory) {
    const size_t page = 4096, rounded = (bytes + 255) / 256 * 256, size = (rounded + page - 1) / page * page;
    const int file = memfd_create("device", 0);
    if (file < 0 || ftruncate(file, static_cast<off_t>(size)) != 0) std::abort();
    // A page of nothing on both sides; the memory ends where the last one begins.
    memory.mapped = size + 2 * page;
    memory.mapping = static_cast<char *>(mmap(nullptr, memory.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char *alias = static_cast<char *>(mmap(memory.mapping + page, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0));
    char *handed = static_cast<char *>(mmap(nullptr, size, PROT_NONE, MAP_SHARED, file, 0));
    close(file);
    if (alias == MAP_FAILED || handed == MAP_FAILED) std::abort();
    memory.alias = alias + (size - rounded);
    memory.handed = handed + (size - rounded);
    memory.bytes = bytes;
    std::memset(memory.alias, 0xA5, bytes);
}

static void release(const Memory &memory) {
    const size_t page = 4096;
    munmap(memory.handed - reinterpret_cast<uint64_t>(memory.handed) % page, memory.mapped - 2 * page);
    munmap(memory.mapping, memory.mapped);
}
