#include <cstdio>
#include <cstring>
__global__ void good(int* p) { p[blockIdx.x * blockDim.x + threadIdx.x] = 1; }
__global__ void bad(int* p) {
    if (blockIdx.x == 1 && threadIdx.x == 5) p[80] = 1;      // fault
}
__global__ void endless(int* p) {
    volatile int x = 0;
    while (x < 1) *p = x;      // endless
}
__global__ void print(int i) { printf("print %d\n", i); }
int main(int, char** arguments) {
    int* p;
    cudaMalloc(&p, 256);      // notes
    good<<<2, 32>>>(p);
    if (!strcmp(arguments[1], "fault")) bad<<<2, 32>>>(p);
    if (!strcmp(arguments[1], "endless")) endless<<<1, 1>>>(p);
    if (!strcmp(arguments[1], "host"))
        for (volatile int i = 0; i >= 0;) i = 0;      // host
    print<<<1, 1>>>(1);
    printf("the host\n");
    good<<<1, 2048, 4>>>(p);      // notes
    cudaDeviceSynchronize();
    print<<<1, 1>>>(2);
    return 1;
}
