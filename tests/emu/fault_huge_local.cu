// expect: local variables need more than
#include <cstdio>
__global__ void k(float* out, int n) {      // FAULT
#ifdef FIXED
    float list[100];
#else
    float list[70000];      // FAULT2
#endif
    for (int i = 0; i < n; i++) list[i] = i;      // FAULT
    *out = list[n / 2];
}      // FAULT
int main() {
    float* p;
    cudaMalloc(&p, 4);
    k<<<1, 64>>>(p, 100);
    cudaDeviceSynchronize();
}
