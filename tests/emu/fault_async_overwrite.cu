// expect: race: two threads of a block use the same shared memory
#include <cuda_pipeline.h>
#include <cstdio>
// The next copy into a tile begins while other threads may still be reading the tile. That there is
// a barrier before it ends comes too late.
__global__ void sums(float* out, const float* in) {
    __shared__ float tile[64];
    float sum = 0;
    int t = threadIdx.x;
    for (int i = 0; i < 2; i++) {
        __pipeline_memcpy_async(&tile[t], &in[i * 64 + t], 4);      // FAULT
        __pipeline_commit();
        __syncthreads();
        __pipeline_wait_prior(0);
        __syncthreads();
        sum += tile[63 - t];      // FAULT2
#ifdef FIXED
        __syncthreads();
#endif
    }
    out[t] = sum;
}
int main() {
    float *in, *out;
    cudaMalloc(&in, 512);
    cudaMalloc(&out, 256);
    cudaMemset(in, 0, 512);
    sums<<<1, 64>>>(out, in);
    cudaDeviceSynchronize();
    printf("done\n");
}
