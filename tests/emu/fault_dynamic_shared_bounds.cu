// expect: of 128 dynamic ones
#include <cstdio>
__global__ void copy(float* p) {
    extern __shared__ float s[];
    s[threadIdx.x] = p[threadIdx.x];      // FAULT
    __syncthreads();
    p[threadIdx.x] = s[blockDim.x - 1 - threadIdx.x];
}
int main() {
    float* p;
    cudaMalloc(&p, 256);
    cudaMemset(p, 0, 256);
#ifdef FIXED
    copy<<<1, 64, 64 * sizeof(float)>>>(p);
#else
    copy<<<1, 64, 32 * sizeof(float)>>>(p);
#endif
    cudaDeviceSynchronize();
    printf("done\n");
}
