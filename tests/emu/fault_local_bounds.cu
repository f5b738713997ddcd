// expect: out-of-bounds subscript: [8]
#include <cstdio>
__global__ void sums(float* p, int n) {
    float local[8];
#ifdef FIXED
    for (int i = 0; i < n; i++) local[i] = p[i];
#else
    for (int i = 0; i <= n; i++) local[i] = p[i];      // FAULT
#endif
    float sum = 0;
    for (int i = n - 1; i >= 0; i--) sum += local[(i * 3) % n];
    p[threadIdx.x] = sum;
}
int main() {
    float* p;
    cudaMalloc(&p, 256);
    cudaMemset(p, 0, 256);
    sums<<<1, 1>>>(p, 8);
    cudaDeviceSynchronize();
    printf("done\n");
}
