// expect: misaligned address
#include <cstdio>
__global__ void sums(float* out, const float* p, int skip) {
    float4 v = *(const float4*)(p + skip);      // FAULT
    out[threadIdx.x] = v.x + v.y + v.z + v.w;
}
int main() {
    float *p, *out;
    cudaMalloc(&p, 64 * sizeof(float));
    cudaMalloc(&out, 32 * sizeof(float));
    cudaMemset(p, 0, 64 * sizeof(float));
#ifdef FIXED
    sums<<<1, 32>>>(out, p, 4);
#else
    sums<<<1, 32>>>(out, p, 2);      // in the middle of a vector
#endif
    cudaDeviceSynchronize();
    printf("done\n");
}
