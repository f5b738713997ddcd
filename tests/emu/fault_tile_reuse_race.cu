// expect: race
#include <cstdio>
// The second barrier of a tiled product: the last warp may still read a tile that the first stores.
__global__ void product(float* c, const float* a, const float* b, int n) {
    __shared__ float as[16][16], bs[16][16];
    int x = threadIdx.x, y = threadIdx.y;
    float sum = 0;
    for (int k = 0; k < n; k += 16) {
        as[y][x] = a[y * n + k + x];      // FAULT
        bs[y][x] = b[(k + y) * 16 + x];      // FAULT
        __syncthreads();
        for (int i = 0; i < 16; i++) sum += as[y][i] * bs[i][x];      // FAULT2
#ifdef FIXED
        __syncthreads();
#endif
    }
    c[y * 16 + x] = sum;
}
int main() {
    float *a, *b, *c;
    cudaMalloc(&a, 16 * 64 * 4);
    cudaMalloc(&b, 16 * 64 * 4);
    cudaMalloc(&c, 16 * 16 * 4);
    cudaMemset(a, 0, 16 * 64 * 4);
    cudaMemset(b, 0, 16 * 64 * 4);
    product<<<1, dim3(16, 16)>>>(c, a, b, 64);
    cudaDeviceSynchronize();
    printf("done\n");
}
