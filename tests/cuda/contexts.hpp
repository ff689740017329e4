//! Contexts, as a driver has them: one primary one, others that are made, and which is a thread's own; and who asks.
//!
//! In: calls of the driver's interface. Out: the context that memory is made in.
//! Included by driver.cpp, whose statics it uses.
//! Must not know: memory, streams.
#pragma once

#include <vector>

static int retained, the_context;
static unsigned int flags;
static std::set<void *> contexts;
static thread_local std::vector<void *> pushed;
// GStreamer goes on, and pops, where its push has failed: a driver answers each call with an error, and nothing more.
static thread_local bool goes_on_without;

static void *current() { return pushed.empty() ? nullptr : pushed.back(); }

static bool is_alive(void *context) { return context == &the_context ? retained > 0 : contexts.count(context) != 0; }

// GStreamer makes streams of its own kind.
static bool is_gstreamer(void *caller) {
    Dl_info info;
    return dladdr(caller, &info) && info.dli_fname && std::strstr(info.dli_fname, "libgst");
}

static void accuse(const std::string &what);
static int begin(const char *name, bool needs_context);

extern "C" {

int cuDevicePrimaryCtxSetFlags_v2(int, unsigned int wanted) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuDevicePrimaryCtxSetFlags", false)) return code;
    if (retained > 0) return PRIMARY_CONTEXT_ACTIVE;
    flags = wanted;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **context, int) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuDevicePrimaryCtxRetain", false)) return code;
    retained++;
    *context = &the_context;
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    const int answer = begin("cuDevicePrimaryCtxRelease", false);
    if (retained-- == 0) accuse("a context is released that nobody retained");
    return answer;
}

int cuCtxSetCurrent(void *context) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuCtxSetCurrent", false)) return code;
    if (!is_alive(context)) accuse("a context is used that nobody retains");
    if (!pushed.empty()) pushed.pop_back();
    pushed.push_back(context);
    return SUCCESS;
}

int cuCtxPushCurrent_v2(void *context) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuCtxPushCurrent", false)) {
        goes_on_without = is_gstreamer(__builtin_return_address(0));
        return code;
    }
    goes_on_without = false;
    if (!is_alive(context)) accuse("a context is pushed that nobody retains");
    pushed.push_back(context);
    return SUCCESS;
}

int cuCtxPopCurrent_v2(void **context) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    const int answer = begin("cuCtxPopCurrent", false);
    if (pushed.empty()) {
        if (!goes_on_without) accuse("a context is popped where none is");
        goes_on_without = false;
        return INVALID_CONTEXT;
    }
    if (context) *context = current();
    pushed.pop_back();
    return answer;
}

int cuCtxCreate_v2(void **context, unsigned int, int) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    if (int code = begin("cuCtxCreate", false)) return code;
    contexts.insert(*context = new int);
    pushed.push_back(*context);
    return SUCCESS;
}

int cuCtxDestroy_v2(void *context) {
    std::lock_guard<std::recursive_mutex> lock(guard);
    const int answer = begin("cuCtxDestroy", false);
    if (!contexts.erase(context)) accuse("a context is destroyed that nobody made");
    else delete static_cast<int *>(context);
    return answer;
}
}
