// cuda_pipeline.h - asynchronous copies to shared memory, done when their thread waits for them.
#pragma once
#include "cuda_runtime.h"
__forceinline__ void __pipeline_memcpy_async(void* dst, const void* src, size_t bytes,
                                             size_t zeros = 0) {
    emu::copy_async(dst, src, bytes, zeros);
}
inline void __pipeline_commit() { emu::commit_copies(); }
inline void __pipeline_wait_prior(size_t batches) { emu::wait_for_copies(batches); }
