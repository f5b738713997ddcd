// Rung 6: all cores.
//
// The bottleneck is that one core works and the others do not. Columns of c need nothing from each
// other, so each thread takes 256 of them at a time and packs their part of b for itself; no number
// is written by two. All read a, which is small and stays in the caches.
//
// N / 256 pieces have to go round: 3072 columns are 12 of them, enough for 2 cores or 4, while 8
// would wait for the four that have a second one. matmul.h makes its pieces to measure.
//
// A chain is never cut in two: halves of k would have to be added up in the end, in an order that
// depends on the number of threads, and so would the last bits. `dynamic` hands the next columns to
// whoever is done: a core that something else holds up then does less, and the others do not
// wait for it.
#include "ladder.h"

void threads(float* c, const float* a, const float* b, int M, int N, int K) {
    const int WIDTH = 256;
#pragma omp parallel for schedule(dynamic)
    for (int n = 0; n < N; n += WIDTH) register_tile_columns(c, a, b, M, N, K, n, n + WIDTH);
}
