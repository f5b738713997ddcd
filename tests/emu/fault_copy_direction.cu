// expect: wrong copy direction: cudaMemcpyHostToDevice
#include <cstdio>
int main() {
    float *d, h[32] = {};
    cudaMalloc(&d, sizeof h);
    cudaMemcpy(d, h, sizeof h, cudaMemcpyHostToDevice);
#ifdef FIXED
    cudaMemcpy(h, d, sizeof h, cudaMemcpyDeviceToHost);
#else
    cudaMemcpy(h, d, sizeof h, cudaMemcpyHostToDevice);      // FAULT
#endif
    printf("done\n");
}
