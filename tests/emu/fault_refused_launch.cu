// expect: note: launch error: invalid configuration argument
#include <cstdio>
// What was never launched is why the next kernel finds nothing.
__global__ void set(int* a) { a[threadIdx.x] = 1; }
__global__ void add(int* a) { a[threadIdx.x] += 1; }      // FAULT
int main() {
    int* a;
    cudaMalloc(&a, 2048 * sizeof(int));
#ifdef FIXED
    set<<<1, 1024>>>(a);
#else
    set<<<1, 2048>>>(a);
#endif
    add<<<1, 64>>>(a);
    cudaDeviceSynchronize();
    printf("done\n");
}
