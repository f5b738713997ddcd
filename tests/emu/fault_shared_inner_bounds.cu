// expect: out-of-bounds subscript: [32] of an array of type 'float [32]'
#include <cstdio>
__global__ void transpose(float* out, const float* in) {
    __shared__ float tile[32][32];
    int x = threadIdx.x, y = threadIdx.y;
    tile[y][x] = in[y * 32 + x];
    __syncthreads();
#ifdef FIXED
    out[y * 32 + x] = tile[x][y];
#else
    out[y * 32 + x] = tile[x][y + 1];      // FAULT
#endif
}
int main() {
    float *in, *out;
    cudaMalloc(&in, 4096);
    cudaMalloc(&out, 4096);
    cudaMemset(in, 0, 4096);
    transpose<<<1, dim3(32, 32)>>>(out, in);
    cudaDeviceSynchronize();
    printf("done\n");
}
