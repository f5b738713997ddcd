// expect: use after cudaFree: read of 4 bytes
#include <cstdio>
__global__ void add(float* a, const float* b) {
    a[threadIdx.x] += b[threadIdx.x];      // FAULT
}
int main() {
    float *a, *b;
    cudaMalloc(&a, 128);
    cudaMalloc(&b, 128);
    cudaMemset(a, 0, 128);
    cudaMemset(b, 0, 128);
#ifndef FIXED
    cudaFree(b);
#endif
    add<<<1, 32>>>(a, b);
    cudaDeviceSynchronize();
    cudaFree(a);
    printf("done\n");
}
