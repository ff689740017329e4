//! What tests tell the stand-in, and what they ask it: calls that fail, a device that is lost, counts, reads and writes of its memory.
//!
//! In: orders of a test. Out: what was counted, what was done that a real driver would punish.
//! Included by driver.cpp, whose statics it uses.
//! Must not know: doorward.
#pragma once

extern "C" {

// Calls of one function, by its name without a version; of all for none.
uint64_t stub_calls(const char *name) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    return name ? calls[name] : calls_in_all;
}

// Bytes copied up (0), down (1), and read by what stands for a session on the device (2).
uint64_t stub_bytes(int way) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    return way == 0 ? bytes_up : (way == 1 ? bytes_down : bytes_read);
}

// Bytes of device memory that were asked for and not given back.
uint64_t stub_device_bytes() {
    std::lock_guard<std::recursive_mutex> lock(guard);
    uint64_t bytes = 0;
    for (const auto &[address, memory] : device) bytes += memory.bytes;
    return bytes;
}

// The flags that the primary context was retained with.
uint64_t stub_context_flags() {
    std::lock_guard<std::recursive_mutex> lock(guard);
    return flags;
}

// Everything that was made and not given back.
uint64_t stub_held() {
    std::lock_guard<std::recursive_mutex> lock(guard);
    return device.size() + pinned.size() + streams.size() + events.size() + contexts.size() + decoders.size() + static_cast<uint64_t>(modules + retained);
}

// What was done that a real driver would punish, or nothing.
const char *stub_wrong() {
    std::lock_guard<std::recursive_mutex> lock(guard);
    return wrong ? what_was_wrong.c_str() : nullptr;
}

// Lets the `nth` call from the beginning fail with `code`, of all functions or of one; 0 lets none fail.
void stub_fail(const char *name, uint64_t nth, int code) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    calls.clear();
    calls_in_all = 0;
    failed.clear();
    fail_name = name ? name : "";
    fail_at = nth;
    fail_code = code;
    is_for_good = false;
}

// Loses the device: the `nth` call from the beginning and all that follow fail with `code`, until the next `stub_fail`.
void stub_lose(uint64_t nth, int code) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    stub_fail(nullptr, nth, code);
    is_for_good = true;
}

// The first function that was made to fail, or nothing.
const char *stub_failed() {
    std::lock_guard<std::recursive_mutex> lock(guard);
    return failed.empty() ? nullptr : failed.c_str();
}

// How much work is queued and not done.
uint64_t stub_queued() {
    std::lock_guard<std::recursive_mutex> lock(guard);
    uint64_t queued = 0;
    for (Stream *stream : streams) queued += stream->work.size();
    return queued;
}

// Reads device memory as a session on the device does: after what is queued in its stream.
void stub_read(Stream *stream, uint64_t address, void *to, size_t bytes) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    run(stream);
    std::memcpy(to, device_memory(address), bytes);
    bytes_read += bytes;
}

// Writes device memory as a decoder or a session on the device does, at once.
void stub_write(uint64_t address, const void *from, size_t bytes) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (is_to_be_read(*memory_at(address))) accuse("a surface is let go of while a queued kernel reads it");
    std::memcpy(device_memory(address), from, bytes);
}

// Queues a session's answer: written when the stream comes by, and until then its input is read and its output taken.
void stub_answer(Stream *stream, uint64_t input, uint64_t to, const char *from, size_t bytes) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    Memory *const read = memory_at(input), *const written = memory_at(to);
    if (!read || !written) return accuse("a session is given an address that is no device memory");
    const std::string answer(from, bytes);
    const std::set<uint64_t> devices = {reinterpret_cast<uint64_t>(read->handed), reinterpret_cast<uint64_t>(written->handed)};
    stream->work.push_back({[=] { std::memcpy(device_memory(to), answer.data(), bytes); }, nullptr, devices, 0, 0, 0, false});
}
}
