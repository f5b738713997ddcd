// expect: two blocks use the same global memory
#include <cstdio>
// Each block adds its sum to one word: blocks run in any order, and some at the same time.
__global__ void sum(float* out, const float* in) {
    __shared__ float s[64];
    int t = threadIdx.x;
    s[t] = in[blockIdx.x * blockDim.x + t];
    __syncthreads();
    for (int half = 32; half > 0; half /= 2) {
        if (t < half) s[t] += s[t + half];
        __syncthreads();
    }
#ifdef FIXED
    if (t == 0) atomicAdd(out, s[0]);
#else
    if (t == 0) *out += s[0];      // FAULT
#endif
}
int main() {
    float host[256], *in, *out;
    for (int i = 0; i < 256; i++) host[i] = i;
    cudaMalloc(&in, sizeof host);
    cudaMalloc(&out, 4);
    cudaMemset(out, 0, 4);
    cudaMemcpy(in, host, sizeof host, cudaMemcpyHostToDevice);
    sum<<<4, 64>>>(out, in);
    cudaMemcpy(host, out, 4, cudaMemcpyDeviceToHost);
    printf("%g\n", host[0]);
    cudaFree(in);
    cudaFree(out);
}
