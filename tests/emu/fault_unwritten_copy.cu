// expect: read of device memory that was never written
#include <cstdio>
// cudaMemcpy of memory that was never written is no fault, but the copy was never written either.
__global__ void twice(float4* x) {
    float4 v = x[threadIdx.x];      // FAULT
    x[threadIdx.x] = make_float4(2 * v.x, 2 * v.y, 2 * v.z, 2 * v.w);
}
int main() {
    float4 *x, *y;
    cudaMalloc(&x, 512);
    cudaMalloc(&y, 512);
#ifdef FIXED
    cudaMemset(x, 0, 512);
#endif
    cudaMemcpy(y, x, 512, cudaMemcpyDeviceToDevice);
    twice<<<1, 32>>>(y);
    cudaDeviceSynchronize();
    printf("done\n");
}
