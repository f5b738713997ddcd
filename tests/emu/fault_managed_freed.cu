// expect: host code: use after cudaFree: read of 4 bytes
#include <cstdio>
__global__ void set(int* a) { a[threadIdx.x] = threadIdx.x; }
int main() {
    int* a;
    cudaMallocManaged(&a, 256);
    set<<<1, 64>>>(a);
    cudaDeviceSynchronize();
#ifdef FIXED
    printf("%d\n", a[63]);
    cudaFree(a);
#else
    cudaFree(a);
    printf("%d\n", a[63]);      // FAULT
#endif
}
