// expect: read of shared memory that this block has never written
#include <cuda_pipeline.h>
#include <cstdio>
// Two batches of asynchronous copies, of which only the first is waited for.
__global__ void reverse(float* out, const float* in) {
    __shared__ float tile[2][64];
    int t = threadIdx.x;
    for (int i = 0; i < 2; i++) {
        __pipeline_memcpy_async(&tile[i][t], &in[i * 64 + t], 4);      // FAULT2
        __pipeline_commit();
    }
#ifdef FIXED
    __pipeline_wait_prior(0);
#else
    __pipeline_wait_prior(1);
#endif
    __syncthreads();
    for (int i = 0; i < 2; i++) out[i * 64 + t] = tile[i][63 - t];      // FAULT
}
int main() {
    float *in, *out;
    cudaMalloc(&in, 512);
    cudaMalloc(&out, 512);
    cudaMemset(in, 0, 512);
    reverse<<<1, 64>>>(out, in);
    cudaDeviceSynchronize();
    printf("done\n");
}
