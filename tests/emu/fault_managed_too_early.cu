// expect: host code touches managed memory before it has waited
#include <cstdio>
__global__ void put(int* p) { p[threadIdx.x] = threadIdx.x; }
int main() {
    int* p;
    cudaMallocManaged(&p, 128);
    for (int i = 0; i < 32; i++) p[i] = -1;
    put<<<1, 32>>>(p);
#ifdef FIXED
    cudaDeviceSynchronize();
#endif
    printf("%d\n", p[31]);      // FAULT
}
