// expect: lane 20, which is inactive
#include <cstdio>
__global__ void share(float* p) {
    float v = p[threadIdx.x];
    if (threadIdx.x < 16) {
#ifdef FIXED
        v = __shfl_sync(0x0000ffff, v, 10);
#else
        v = __shfl_sync(0x0000ffff, v, 20);      // FAULT
#endif
    }
    __syncwarp();
    p[threadIdx.x] = v;
}
int main() {
    float* p;
    cudaMalloc(&p, 128);
    cudaMemset(p, 0, 128);
    share<<<1, 32>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
