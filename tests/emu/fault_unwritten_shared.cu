// expect: read of shared memory that this block has never written
#include <cstdio>
__global__ void sum(float* out) {
    __shared__ float acc;
#ifdef FIXED
    if (threadIdx.x == 0) acc = 0;
    __syncthreads();
#endif
    atomicAdd(&acc, 1.0f);      // FAULT
    __syncthreads();
    if (threadIdx.x == 0) *out = acc;
}
int main() {
    float* p;
    cudaMalloc(&p, 4);
    sum<<<1, 64>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
