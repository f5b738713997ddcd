// expect: two blocks use the same global memory
#include <cstdio>
// Smoothing in place: a barrier orders the threads of a block, and not the block's neighbours.
__global__ void smooth(float* out, const float* in, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float left = in[i > 0 ? i - 1 : 0], right = in[i + 1 < n ? i + 1 : i];      // FAULT
    __syncthreads();
    out[i] = (left + right) / 2;      // FAULT2
}
int main() {
    const int n = 512;
    float host[n], *a, *b;
    for (int i = 0; i < n; i++) host[i] = i * i;
    cudaMalloc(&a, sizeof host);
    cudaMalloc(&b, sizeof host);
    cudaMemcpy(a, host, sizeof host, cudaMemcpyHostToDevice);
#ifdef FIXED
    smooth<<<n / 64, 64>>>(b, a, n);
#else
    smooth<<<n / 64, 64>>>(a, a, n);
#endif
    cudaDeviceSynchronize();
    printf("done\n");
    cudaFree(a);
    cudaFree(b);
}
