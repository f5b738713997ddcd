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
template <int WIDTH> __global__ void matrices(unsigned* out) {      // rows of WIDTH 16-bit numbers
    __shared__ alignas(16) unsigned tile[16][WIDTH / 2];
    for (int row = 0; row < 16; row++) tile[row][threadIdx.x] = row;
    __syncwarp();
    unsigned r[4], *row = &tile[threadIdx.x % 16][threadIdx.x / 16 * 4];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((unsigned)__cvta_generic_to_shared(row)));
    out[threadIdx.x] = r[0] + r[1] + r[2] + r[3];
}
__global__ void copies(float* out, const float* in) {
    __shared__ alignas(16) float s[128];
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::
                 "r"((unsigned)__cvta_generic_to_shared(s + 4 * threadIdx.x)),
                 "l"(in + 4 * threadIdx.x), "r"(threadIdx.x < 16 ? 16 : 0));
    asm volatile("cp.async.wait_all;");
    __syncwarp();
    out[threadIdx.x] = s[threadIdx.x];
}
int main() {
    float *in, *out;
    cudaMalloc(&in, 8 * 4096);
    cudaMalloc(&out, 4096);
    cudaMemset(in, 0, 8 * 4096);
    coalesced<<<4, 256>>>(out, in);
    strided<<<4, 256>>>(out, in);
    conflicts<<<1, 32>>>(out);
    matrices<64><<<1, 32>>>((unsigned*)out);
    matrices<72><<<1, 32>>>((unsigned*)out);
    copies<<<1, 32>>>(out, in);
    cudaDeviceSynchronize();
}
