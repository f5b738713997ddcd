// expect: bytes that kernels printed were never seen
#include <cstdio>
__global__ void hello() { printf("hello from thread %d\n", threadIdx.x); }
int main() {
    hello<<<1, 2>>>();
    cudaDeviceSynchronize();
    hello<<<1, 2>>>();      // FAULT
#ifdef FIXED
    cudaDeviceSynchronize();
#endif
    printf("done\n");
}
