// expect: two blocks use the same global memory
#include <cstdio>
// Which block comes first? Perhaps not block 0.
__global__ void count(int* total, const int* x) {
#ifndef FIXED
    if (blockIdx.x == 2 && threadIdx.x == 0) *total = 0;      // FAULT
#endif
    __syncthreads();
    if (x[blockIdx.x * blockDim.x + threadIdx.x]) atomicAdd(total, 1);      // FAULT2
}
int main() {
    int *total, *x;
    cudaMalloc(&total, 4);
    cudaMalloc(&x, 1024);
    cudaMemset(total, 1, 4);
    cudaMemset(x, 1, 1024);
    count<<<4, 64>>>(total, x);
    cudaDeviceSynchronize();
    printf("done\n");
    cudaFree(total);
    cudaFree(x);
}
