// emu_ptx.h - what emucc makes of the inline PTX that feeds tensor cores: ldmatrix, mma, cp.async.
#pragma once
namespace emu {
// ---- asynchronous copies to shared memory (../check.cpp) ----------------------------------------
// Done when their thread waits for them; meanwhile dst is as if nobody had written it.
struct AsyncCopy {
    AsyncCopy* next;
    unsigned batch;
    void* dst;
    const void *src, *pc;    // pc: of its line, for messages
    size_t bytes, zeros;     // of dst; and how many of them, the last ones, are set to 0 instead
};
void copy_async(void* dst, const void* src, size_t bytes, size_t zeros = 0);
void commit_copies();        // those so far are a batch
void wait_for_copies(unsigned but_last);
void wait_for_all_copies();
// cp.async: of 4, 8 or 16 bytes, .cg of 16 only; the first `present` come from src.
void cp_async(uint32_t dst, const void* src, size_t bytes, size_t present, bool cg);
template <bool CG, class P>
__forceinline__ void cp_async(uint32_t dst, P src, size_t bytes, size_t present = 16) {
    cp_async(dst, (const void*)src, bytes, present, CG);
}

// ---- tensor cores (../warp.cpp) -----------------------------------------------------------------
// Registers go in and out by value, which no check has to look at.
struct Fragments { uint32_t x[4]; };
struct Sums { float x[4]; };
Fragments load_matrices(uint32_t address, int count, bool transposed);
Sums multiply(bool bfloat16, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
              uint32_t b1, float c0, float c1, float c2, float c3);
template <int N, bool TRANSPOSED, class... R>
__forceinline__ void ldmatrix(uint32_t address, R&... registers) {
    static_assert(sizeof...(R) == N, "ldmatrix: .x1, .x2 and .x4 need 1, 2 and 4 registers");
    Fragments f = load_matrices(address, N, TRANSPOSED);
    int i = 0;
    ((registers = f.x[i++]), ...);
}
template <bool BFLOAT16, class... Multiplicands>
__forceinline__ void mma(float& d0, float& d1, float& d2, float& d3, Multiplicands... abc) {
    Sums d = multiply(BFLOAT16, abc...);
    d0 = d.x[0], d1 = d.x[1], d2 = d.x[2], d3 = d.x[3];
}
}  // namespace emu
// PTX has 32-bit addresses for shared memory; here they count from its start.
__forceinline__ size_t __cvta_generic_to_shared(const void* p) {
    return (const char*)p - (const char*)emu::dynamic_shared();
}
