// expect: names a variable on the device, not an address
#include <cstdio>
__device__ float table[32];
int main() {
    float h[32] = {};
#ifdef FIXED
    cudaMemcpyToSymbol(table, h, sizeof h);
#else
    cudaMemcpy(table, h, sizeof h, cudaMemcpyHostToDevice);      // FAULT
#endif
    printf("done\n");
}
