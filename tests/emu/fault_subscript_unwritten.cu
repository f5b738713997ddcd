// expect: before, it read shared memory that was never written
#include <cstdio>
__global__ void k(float* out) {
    __shared__ int count[32];
    float list[8] = {};
    if (threadIdx.x > 0) count[threadIdx.x] = 3;
#ifdef FIXED
    else count[0] = 3;
#endif
    int n = count[threadIdx.x];      // FAULT2
    list[n - 1] = 1;      // FAULT
    out[threadIdx.x] = list[2] + count[threadIdx.x];
}
int main() {
    float* p;
    cudaMalloc(&p, 128);
    k<<<1, 32>>>(p);
    cudaDeviceSynchronize();
}
