//! Lets a C++ compiler take the kernels as they are, and runs a grid of them by loops.
//!
//! In: kernels.cu. Out: `run_kernel(name, grid, block, parameters)`.
//! Must not know: the driver; what stands for device memory is told by DEVICE_POINTER.
#pragma once

#include <cstddef>
#include <cstring>

#define __global__
#define __device__
#define __forceinline__ inline

struct Dim3 {
    unsigned int x, y, z;
};

static thread_local Dim3 blockIdx, blockDim, threadIdx;

#include "../../src/infer/cuda/kernels.cu"

template <typename Value>
static Value parameter(void **parameters, int index) {
    Value value;
    std::memcpy(&value, parameters[index], sizeof value);
    return value;
}

// Runs a kernel once for each thread of the grid; false where there is none of that name.
static bool run_kernel(const char *name, Dim3 grid, Dim3 block, void **parameters) {
    const bool is_letterbox = std::strcmp(name, "letterbox_nv12") == 0;
    const bool is_align = std::strcmp(name, "align_nv12") == 0;
    if (!is_letterbox && !is_align && std::strcmp(name, "measure_crops") != 0) {
        return false;
    }
    blockDim = block;
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++)
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++)
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++)
                for (threadIdx.z = 0; threadIdx.z < block.z; threadIdx.z++)
                    for (threadIdx.y = 0; threadIdx.y < block.y; threadIdx.y++)
                        for (threadIdx.x = 0; threadIdx.x < block.x; threadIdx.x++) {
                            if (is_letterbox)
                                letterbox_nv12(parameter<Address>(parameters, 0));
                            else if (is_align)
                                align_nv12(parameter<Address>(parameters, 0), parameter<Tensor>(parameters, 1));
                            else
                                measure_crops(parameter<Address>(parameters, 0), parameter<Tensor>(parameters, 1));
                        }
    return true;
}
