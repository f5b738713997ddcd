// expect: out-of-bounds read of 2 bytes
#include <cstdio>
#include <mma.h>
using namespace nvcuda::wmma;      // a template's long name must not hide the line
__global__ void product(float* c, const half* a, const half* b) {
    fragment<matrix_a, 16, 16, 16, half, row_major> fa;
    fragment<matrix_b, 16, 16, 16, half, col_major> fb;
    fragment<accumulator, 16, 16, 16, float> fc;
    fill_fragment(fc, 0.0f);
#ifndef FIXED
    a++;
#endif
    load_matrix_sync(fa, a, 16);      // FAULT
    load_matrix_sync(fb, b, 16);
    mma_sync(fc, fa, fb, fc);
    store_matrix_sync(c, fc, 16, mem_row_major);
}
int main() {
    half *a, *b;
    float* c;
    cudaMalloc(&a, 512);
    cudaMalloc(&b, 512);
    cudaMalloc(&c, 1024);
    cudaMemset(a, 0, 512);
    cudaMemset(b, 0, 512);
    product<<<1, 32>>>(c, a, b);
    cudaDeviceSynchronize();
    printf("done\n");
}
