// Traffic that can be counted by hand; test_emu.py knows the answers. 1024 floats, blocks of 256.
#include <cstdio>
__global__ void coalesced(float* out, const float* in) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i];
}
__global__ void strided(float* out, const float* in) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i * 8];
}
__global__ void conflicts(float* out) {
    __shared__ float s[32 * 32];
    for (int i = threadIdx.x; i < 1024; i += 32) s[i] = i;
    __syncthreads();
    out[threadIdx.x] = s[threadIdx.x * 32];
}
int main() {
    float *in, *out;
    cudaMalloc(&in, 8 * 4096);
    cudaMalloc(&out, 4096);
    cudaMemset(in, 0, 8 * 4096);
    coalesced<<<4, 256>>>(out, in);
    strided<<<4, 256>>>(out, in);
    conflicts<<<1, 32>>>(out);
    cudaDeviceSynchronize();
}
