// expect: a kernel touches host memory: write of 4 bytes
#include <cstdio>
__global__ void count(int* n) {
    atomicAdd(n, 0);
    *n = 5;      // FAULT2
}
__global__ void put(int* n) {
    *n = 5;      // FAULT
}
int main() {
    int n = 0, *d;
    cudaMalloc(&d, sizeof(int));
#ifdef FIXED
    put<<<1, 1>>>(d);
    count<<<1, 1>>>(d);
    cudaMemcpy(&n, d, sizeof n, cudaMemcpyDeviceToHost);
#else
    put<<<1, 1>>>(&n);
#endif
    cudaDeviceSynchronize();
    printf("%d\n", n);
    return n != 5;
}
