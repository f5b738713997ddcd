// expect: a null pointer
#include <cstdio>
__global__ void put(int* p) {
    p[threadIdx.x] = 1;      // FAULT
}
int main() {
    int* p = nullptr;
#ifdef FIXED
    cudaMalloc(&p, 128);
#endif
    put<<<1, 32>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
