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
struct Matrices {            // a lane's part of an ldmatrix: gives a row, and gets its fragments
    uint32_t address;
    int count;
    bool transposed;
    uint32_t fragment[4];
    uint16_t row[8];
};
void load_matrices(Matrices& m);
struct Product {             // a lane's part of mma.m16n8k16: c += a b
    bool bfloat16;
    uint32_t a[4], b[2];
    float c[4];
};
void multiply(Product& p);
template <int N, bool TRANSPOSED, class... R>
__forceinline__ void ldmatrix(uint32_t address, R&... fragment) {
    static_assert(sizeof...(R) == N, "ldmatrix: .x1, .x2 and .x4 need 1, 2 and 4 registers");
    Matrices m = {address, N, TRANSPOSED, {}, {}};
    load_matrices(m);
    const uint32_t* f = m.fragment;
    ((fragment = *f++), ...);
}
template <bool BFLOAT16>
__forceinline__ void mma(float& d0, float& d1, float& d2, float& d3, uint32_t a0, uint32_t a1,
                         uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1, float c0, float c1,
                         float c2, float c3) {
    Product p = {BFLOAT16, {a0, a1, a2, a3}, {b0, b1}, {c0, c1, c2, c3}};
    multiply(p);
    d0 = p.c[0], d1 = p.c[1], d2 = p.c[2], d3 = p.c[3];
}
}  // namespace emu
// PTX has 32-bit addresses for shared memory; here they count from its start.
__forceinline__ size_t __cvta_generic_to_shared(const void* p) {
    return (const char*)p - (const char*)emu::dynamic_shared();
}
