// expect: shared memory
#include <cstdio>
__global__ void copy(float* p) {
    __shared__ float a[64];
    __shared__ float b[64];
    float* q = a;
    int i = threadIdx.x;
    b[i] = 1;
#ifdef FIXED
    q[i] = p[i] + b[i];
#else
    q[i + 1] = p[i] + b[i];      // FAULT
#endif
    __syncthreads();
    if (i > 0) p[i] = q[i];
}
int main() {
    float* p;
    cudaMalloc(&p, 64 * sizeof(float));
    cudaMemset(p, 0, 64 * sizeof(float));
    copy<<<1, 64>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
