// expect: out-of-bounds write of 4 bytes: 
#include <cstdio>
__global__ void fill(float* p, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
#ifdef FIXED
    if (i < n)
#endif
        p[i] = i + n;      // FAULT
}
int main() {
    float* p;
    cudaMalloc(&p, 100 * sizeof(float));
    fill<<<1, 128>>>(p, 100);
    cudaDeviceSynchronize();
    cudaFree(p);
    printf("done\n");
}
