// expect: a kernel touches host memory: read of 4 bytes
#include <cstdio>
__global__ void scale(float* y, const float* x) {
    y[threadIdx.x] = 2 * x[threadIdx.x];      // FAULT
}
int main() {
    float *y, *x = (float*)malloc(128), *dx;
    for (int i = 0; i < 32; i++) x[i] = i;
    cudaMalloc(&y, 128);
    cudaMalloc(&dx, 128);
    cudaMemcpy(dx, x, 128, cudaMemcpyHostToDevice);
#ifdef FIXED
    scale<<<1, 32>>>(y, dx);
#else
    scale<<<1, 32>>>(y, x);
#endif
    cudaDeviceSynchronize();
    free(x);
    printf("done\n");
}
