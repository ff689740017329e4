//! The kernels as a library for a C++ compiler: memory has one address, the host's.
//!
//! In: kernels.cu through the shim. Out: `doorward_run_kernel`.
//! Must not know: drivers.
#include "shim.hpp"

extern "C" int doorward_run_kernel(const char *name, const unsigned int *grid, const unsigned int *block, void **parameters) {
    return run_kernel(name, Dim3{grid[0], grid[1], grid[2]}, Dim3{block[0], block[1], block[2]}, parameters) ? 0 : 1;
}
