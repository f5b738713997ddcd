// expect: past the end of an allocation of 4096 bytes
#include <cstdio>
// Far behind its own array, where another one could have been.
__global__ void fill(float* p, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) p[i] = i;      // FAULT
}
int main() {
    float *p, *other;
    cudaMalloc(&p, 4096);
    cudaMalloc(&other, 4096);
#ifdef FIXED
    fill<<<1, 32>>>(p, 1000);
#else
    fill<<<1, 32>>>(p + 1500, 1000);
#endif
    cudaDeviceSynchronize();
    cudaFree(p);
    cudaFree(other);
}
