// expect: host code touches device memory: write of 4 bytes
#include <cstdio>
int main() {
    float *p, x = 1;
    cudaMalloc(&p, 128);
#ifdef FIXED
    cudaMemcpy(p, &x, sizeof x, cudaMemcpyHostToDevice);
#else
    p[0] = x;      // FAULT
#endif
    cudaFree(p);
    printf("done\n");
}
