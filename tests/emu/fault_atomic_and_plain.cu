// expect: race
#include <cstdio>
__global__ void count(int* out) {
    __shared__ int n;
    if (threadIdx.x == 0) n = 0;
    __syncthreads();
    atomicAdd(&n, 1);      // FAULT2
#ifdef FIXED
    __syncthreads();
#endif
    if (threadIdx.x == 0) *out = n;      // FAULT
}
int main() {
    int* p;
    cudaMalloc(&p, 4);
    count<<<1, 64>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
