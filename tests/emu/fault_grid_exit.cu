// expect: divergent barrier: grid.sync() waits for block (2,0,0), which has ended
#include <cooperative_groups.h>
#include <cstdio>
// The last block has nothing to do and returns: the others would wait for ever.
__global__ void mirror(int* a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
#ifdef FIXED
    if (i < n) a[i] = i;
#else
    if (i >= n) return;
    a[i] = i;
#endif
    cooperative_groups::this_grid().sync();      // FAULT
    if (i < n) a[n + i] = a[n - 1 - i];
}
int main() {
    int *a, n = 64;
    cudaMalloc(&a, 2 * n * sizeof(int));
    void* arguments[] = {&a, &n};
    cudaLaunchCooperativeKernel((void*)mirror, dim3(3), dim3(32), arguments);
    cudaDeviceSynchronize();
    printf("done\n");
}
