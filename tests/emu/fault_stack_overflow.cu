// expect: need more than
#include <cstdio>
__device__ int depth(volatile int* p, int n) {      // FAULT
    volatile char room[1000];
    room[n % 1000] = 1;      // FAULT
    return n == 0 ? room[0] : depth(p, n - 1) + room[n % 1000];      // FAULT
}
__global__ void go(int* p) {
#ifdef FIXED
    *p = depth(p, 20);
#else
    *p = depth(p, 2000);
#endif
}
int main() {
    int* p;
    cudaMalloc(&p, 4);
    go<<<1, 1>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
