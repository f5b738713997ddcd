// expect: among the thread's own local variables
#include <cstdio>
__device__ int sum(const int* p, int n) {
    int s = 0;
    for (int i = 0; i < n; i++) s += p[i];      // FAULT
    return s;
}
__global__ void go(int* out, int n) {
    int local[4] = {1, 2, 3, 4};
    *out = sum(local, n);
}
int main() {
    int* p;
    cudaMalloc(&p, 4);
#ifdef FIXED
    go<<<1, 1>>>(p, 4);
#else
    go<<<1, 1>>>(p, 5);
#endif
    cudaDeviceSynchronize();
    printf("done\n");
}
