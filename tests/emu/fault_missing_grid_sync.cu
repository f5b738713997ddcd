// expect: two blocks use the same global memory
#include <cooperative_groups.h>
#include <cstdio>
__global__ void two_phases(int* a, int* b, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    a[i] = i * i;      // FAULT
#ifdef FIXED
    cooperative_groups::this_grid().sync();
#endif
    b[i] = a[n - 1 - i];      // FAULT2
}
int main() {
    int *a, *b, n = 256;
    cudaMalloc(&a, n * 4);
    cudaMalloc(&b, n * 4);
    cudaMemset(a, 0, n * 4);
    void* arguments[] = {&a, &b, &n};
    cudaLaunchCooperativeKernel((void*)two_phases, dim3(4), dim3(64), arguments);
    cudaDeviceSynchronize();
    printf("done\n");
    cudaFree(a);
    cudaFree(b);
}
