// expect: a local variable of another thread
#include <cstdio>
__global__ void pass(int* out) {
    __shared__ int* where;
    int mine = threadIdx.x;
    if (threadIdx.x == 0) where = &mine;
    __syncthreads();
#ifdef FIXED
    out[threadIdx.x] = __shfl_sync(0xffffffff, mine, 0);
#else
    out[threadIdx.x] = *where;      // FAULT
#endif
    __syncthreads();
}
int main() {
    int* p;
    cudaMalloc(&p, 128);
    pass<<<1, 32>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
