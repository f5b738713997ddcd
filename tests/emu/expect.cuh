// What kernels check, counted in `failures`; the line and the thread are printed.
#pragma once
#include <cstdio>

__device__ int failures;
__device__ void expect(bool ok, int line) {
    if (!ok) {
        atomicAdd(&failures, 1);
        printf("line %d, thread %d\n", line, threadIdx.x);
    }
}
#define EXPECT(condition) expect(condition, __LINE__)
