// expect: read of device memory that was never written
#include <cstdio>
__global__ void add(float* sum, const float* x) {
    sum[threadIdx.x] += x[threadIdx.x];      // FAULT
}
int main() {
    float *sum, *x;
    cudaMalloc(&sum, 128);
    cudaMalloc(&x, 128);
    cudaMemset(x, 0, 128);
#ifdef FIXED
    cudaMemset(sum, 0, 128);
#endif
    add<<<1, 32>>>(sum, x);
    cudaDeviceSynchronize();
    printf("done\n");
}
