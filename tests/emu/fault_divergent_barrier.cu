// expect: divergent barrier
#include <cstdio>
__global__ void half(int* p) {
    __shared__ int s[64];
    int t = threadIdx.x;
#ifdef FIXED
    s[t] = p[t];
    __syncthreads();
    if (t < 32) p[t] = s[t + 32];
    __syncthreads();
#else
    s[t] = p[t];
    if (t < 32) {
        __syncthreads();      // FAULT
        p[t] = s[t];
    } else {
        p[t] = s[t];
        __syncthreads();      // FAULT2
    }
#endif
}
int main() {
    int* p;
    cudaMalloc(&p, 256);
    cudaMemset(p, 0, 256);
    half<<<1, 64>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
