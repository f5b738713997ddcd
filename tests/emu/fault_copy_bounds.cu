// expect: out of bounds
#include <cstdio>
int main() {
    float *d, h[64] = {};
    cudaMalloc(&d, 32 * sizeof(float));
#ifdef FIXED
    cudaMemcpy(d, h, 32 * sizeof(float), cudaMemcpyHostToDevice);
#else
    cudaMemcpy(d, h, 64 * sizeof(float), cudaMemcpyHostToDevice);      // FAULT
#endif
    printf("done\n");
}
