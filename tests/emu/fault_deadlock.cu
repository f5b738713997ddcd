// expect: to wait for other blocks takes a cooperative launch
#include <cooperative_groups.h>
#include <cstdio>
__device__ int arrived;
__global__ void meet(int blocks) {
#ifdef FIXED
    cooperative_groups::this_grid().sync();
#else
    atomicAdd(&arrived, 1);
    while (atomicAdd(&arrived, 0) < blocks) {}      // FAULT
#endif
}
int main() {
    int blocks = 100;
    void* arguments[] = {&blocks};
#ifdef FIXED
    cudaLaunchCooperativeKernel(meet, dim3(blocks), dim3(1), arguments);
#else
    cudaLaunchKernel(meet, dim3(blocks), dim3(1), arguments);
#endif
    cudaDeviceSynchronize();
    printf("done\n");
}
