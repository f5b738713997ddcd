// expect: race
#include <cstdio>
__global__ void histogram(int* bins, const int* x) {
#ifdef FIXED
    atomicAdd(&bins[x[threadIdx.x]], 1);
#else
    bins[x[threadIdx.x]]++;      // FAULT
#endif
}
int main() {
    int *bins, *x;
    cudaMalloc(&bins, 16);
    cudaMalloc(&x, 256);
    cudaMemset(bins, 0, 16);
    cudaMemset(x, 0, 256);
    histogram<<<1, 64>>>(bins, x);
    cudaDeviceSynchronize();
    printf("done\n");
}
