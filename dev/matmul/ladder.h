// ladder.h - the rungs: eight ways to the same product, each in a file of its own.
//
//     c (M, N) = a (M, K) b (K, N)      three matrices of floats, each row behind the last
//
// Preconditions, so that a rung shows its idea and no edges (the last rung has them all):
// M % MR == 0, N % 256 == 0, K % KC == 0; c overlaps neither a nor b.
// Each element is one chain of K fused multiply-adds in the order of k, on every rung: all results
// in float32 have the same bits.
#pragma once
#include "../../matmul.h"

typedef void Product(float* c, const float* a, const float* b, int M, int N, int K);

Product naive, reordered, tiled, packed, register_tile, threads, bf16;
Product matmul_float32, matmul_bf16;   // the last rung, both ways

// What rung 5 does to columns n0 .. n1-1 of c; rung 6 gives each thread some of them.
void register_tile_columns(float* c, const float* a, const float* b, int M, int N, int K, int n0,
                           int n1);
