// expect: two blocks use the same global memory
#include <cstdio>
__device__ unsigned done;
// The last block adds up what all have written. The count says that a block is done; it takes a
// fence, too, for what it wrote to be seen.
__global__ void sum(int* total, int* part) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        part[blockIdx.x] = blockIdx.x * 7 + 1;      // FAULT2
#ifdef FIXED
        __threadfence();
#endif
        last = atomicInc(&done, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        int s = 0;
        for (int i = 0; i < gridDim.x; i++) s += part[i];      // FAULT
        *total = s;
    }
}
int main() {
    int *total, *part;
    cudaMalloc(&total, 4);
    cudaMalloc(&part, 64 * 4);
    sum<<<64, 32>>>(total, part);
    cudaDeviceSynchronize();
    printf("done\n");
    cudaFree(total);
    cudaFree(part);
}
