// expect: read of shared memory that this block has never written
// The clean twin reads it, too, in threads outside of the matrix, which store nothing.
#include <cstdio>
__global__ void product(float* out, const float* a, const float* b, int n) {
    __shared__ float ta[4][4], tb[4][4];
    int x = threadIdx.x, y = threadIdx.y, i = blockIdx.y * 4 + y, j = blockIdx.x * 4 + x;
    float sum = 0;
    for (int k = 0; k < n; k += 4) {
        if (i < n && k + x < n) ta[y][x] = a[i * n + k + x];
        if (j < n && k + y < n) tb[y][x] = b[(k + y) * n + j];
        __syncthreads();
#ifdef FIXED
        for (int q = 0; q < 4 && k + q < n; q++)
#else
        for (int q = 0; q < 4; q++)
#endif
            sum += ta[y][q] * tb[q][x];      // FAULT
        __syncthreads();
    }
    if (i < n && j < n) out[i * n + j] = sum;
}
int main() {
    const int n = 3, m = 6;
    float h[m * m] = {}, *a, *b, *out;
    cudaMalloc(&a, sizeof h);
    cudaMalloc(&b, sizeof h);
    cudaMalloc(&out, sizeof h);
    cudaMemcpy(a, h, sizeof h, cudaMemcpyHostToDevice);
    cudaMemcpy(b, h, sizeof h, cudaMemcpyHostToDevice);
    product<<<dim3(2, 2), dim3(4, 4)>>>(out, a, b, m);
    product<<<1, dim3(4, 4)>>>(out, a, b, n);
    cudaMemcpy(h, out, n * n * sizeof(float), cudaMemcpyDeviceToHost);
    printf("%g\n", h[0]);
    cudaFree(a);
    cudaFree(b);
    cudaFree(out);
}
