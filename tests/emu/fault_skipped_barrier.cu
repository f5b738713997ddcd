// expect: divergent barrier
#include <cstdio>
__global__ void copy(int* out) {
    __shared__ int s[64];
    int t = threadIdx.x;
    if (t >= 48) return;      // not waited for
    s[t] = t;
    __syncthreads();
#ifndef FIXED
    if (t < 16)
#endif
        __syncthreads();      // FAULT
    out[t] = s[t];            // FAULT2
}
int main() {
    int* p;
    cudaMalloc(&p, 256);
    copy<<<1, 64>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
