// cuda_pipeline.h - asynchronous copies to shared memory, done when their thread waits for them.
#pragma once
#include "cuda_runtime.h"
namespace emu {              // a thread's list of copies (../check.cpp)
struct AsyncCopy {
    AsyncCopy* next;
    unsigned batch;
    void* dst;
    const void *src, *pc;    // pc: of its line, for messages
    size_t bytes;
};
void copy_async(void* dst, const void* src, size_t bytes);
void commit_copies();        // those so far are a batch
void wait_for_copies(unsigned but_last);
}  // namespace emu
__forceinline__ void __pipeline_memcpy_async(void* dst, const void* src, size_t bytes,
                                             size_t zeros = 0) {
    emu::copy_async(dst, src, bytes - zeros);
    if (zeros) memset((char*)dst + bytes - zeros, 0, zeros);
}
inline void __pipeline_commit() { emu::commit_copies(); }
inline void __pipeline_wait_prior(size_t batches) { emu::wait_for_copies(batches); }
