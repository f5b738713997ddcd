// expect: host code touches device memory
#include <cstdio>
__device__ int counter;
__global__ void count() { atomicAdd(&counter, 1); }
int main() {
    count<<<2, 32>>>();
    int n;
#ifdef FIXED
    cudaMemcpyFromSymbol(&n, counter, sizeof n);
#else
    cudaDeviceSynchronize();
    n = counter;      // FAULT
#endif
    printf("%d\n", n);
    return n != 64;
}
