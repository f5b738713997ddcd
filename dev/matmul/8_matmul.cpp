// Rung 8: matmul.h itself, which the trainer and the runtime call. It stands on all of the above,
// and adds what the other rungs leave on the table and what a program needs:
//
// - No number is packed twice. Here a thread packs the columns that it takes, for all rows of a,
//   which fit into L2 and stay where they lie. Many rows share b's panels, packed by all threads.
// - The next tile's part of c is asked for ahead of time, and b's next rows.
// - A large b whose steps of k follow each other, as a weight's do in forward, is not packed: the
//   two change places, and c is made transposed.
// - Blocks are cut so that each thread has three or more, whatever the shape.
// - Any M, N and K; transposes, which backward needs (they are two strides); +=, bias and GELU,
//   while a tile is in the nearest cache.
// - One set of loops for float32 and bfloat16, which differ in how they pack and in the tile.
#include "ladder.h"

void matmul_float32(float* c, const float* a, const float* b, int M, int N, int K) {
    matmul(c, N, {a, K, 1}, {b, N, 1}, M, N, K);
}

void matmul_bf16(float* c, const float* a, const float* b, int M, int N, int K) {
    matmul(c, N, {a, K, 1}, {b, N, 1}, M, N, K, {}, *bfloat16_kernel());
}
