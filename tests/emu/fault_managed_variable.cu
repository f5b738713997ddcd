// expect: host code touches managed memory before it has waited
#include <cstdio>
__managed__ int total;
__global__ void count() { atomicAdd(&total, 1); }
int main() {
    total = 0;
    count<<<2, 64>>>();
#ifdef FIXED
    cudaDeviceSynchronize();
#endif
    printf("done %d\n", total);      // FAULT
}
