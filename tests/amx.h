// amx.h - the three AMX instructions that matmul_bf16.h uses, as the architecture's manual defines
// them, for processors without AMX (Intel, Instruction Set Extensions Programming Reference:
// TILELOADD, TILESTORED, TDPBF16PS).
#pragma once
#include <cstring>

#define LEGIBLE_AMX_TARGET

inline thread_local float amx_tiles[8][16][16];   // 8 tiles of 16 rows of 64 bytes

inline void amx_begin() {}

inline void amx_load(int tile, const void* p, int64_t stride) {
    for (int row = 0; row < 16; row++)
        memcpy(amx_tiles[tile][row], (const char*)p + row * stride, 64);
}

inline void amx_store(int tile, void* p, int64_t stride) {
    for (int row = 0; row < 16; row++) memcpy((char*)p + row * stride, amx_tiles[tile][row], 64);
}

// sums[m][n] += a[m][2k] b[k][2n] + a[m][2k+1] b[k][2n+1]
inline void amx_multiply(int sums, int a, int b) {
    auto element = [](int tile, int row, int column) {
        uint16_t bits;
        memcpy(&bits, (const char*)amx_tiles[tile][row] + 2 * column, 2);
        return bits_to_float((uint32_t)bits << 16);
    };
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 16; k++)
            for (int n = 0; n < 16; n++)
                for (int half = 0; half < 2; half++)
                    amx_tiles[sums][m][n] +=
                        element(a, m, 2 * k + half) * element(b, k, 2 * n + half);
}
