// expect: a shuffle
#include <cstdio>
__global__ void sum(float* p) {
    float v = p[threadIdx.x];
#ifdef FIXED
    for (int d = 16; d > 0; d /= 2) v += __shfl_down_sync(0xffffffff, v, d);
#else
    if (threadIdx.x < 16)
        for (int d = 16; d > 0; d /= 2) v += __shfl_down_sync(0xffffffff, v, d);      // FAULT
#endif
    if (threadIdx.x == 0) p[0] = v;
}
int main() {
    float* p;
    cudaMalloc(&p, 128);
    cudaMemset(p, 0, 128);
    sum<<<1, 32>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
