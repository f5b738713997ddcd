// expect: read of shared memory that this block has never written
#include <cstdio>
__global__ void march(float* out, const float* in, int n) {
    __shared__ float previous[32], now[32];
    int t = threadIdx.x, i = t - 1;
    if (i >= 0 && i < n) now[t] = in[i];
    for (int step = 0; step < 4; step++) {
        __syncthreads();
#ifdef FIXED
        if (t > 1 && i < n && step > 0)      // the halo is copied, but nobody uses it
#else
        if (t > 0 && i < n && step > 0)
#endif
            out[i] = previous[t - 1] + now[t];      // FAULT
        __syncthreads();
        previous[t] = now[t];
    }
}
int main() {
    float h[30] = {}, *in, *out;
    cudaMalloc(&in, sizeof h);
    cudaMalloc(&out, sizeof h);
    cudaMemcpy(in, h, sizeof h, cudaMemcpyHostToDevice);
    cudaMemset(out, 0, sizeof h);
    march<<<1, 32>>>(out, in, 30);
    cudaMemcpy(h, out, sizeof h, cudaMemcpyDeviceToHost);
    printf("done\n");
    cudaFree(in);
    cudaFree(out);
}
