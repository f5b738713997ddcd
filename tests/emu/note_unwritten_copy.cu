// expect: note: cudaMemcpy to the host: 28 of its 100 words were never written
#include <cstdio>
__global__ void fill(int* p, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) p[i] = i;
}
int main() {
    const int n = 100;
    int host[n], *p;
    cudaMalloc(&p, sizeof host);
#ifdef FIXED
    fill<<<(n + 35) / 36, 36>>>(p, n);
#else
    fill<<<n / 36, 36>>>(p, n);
#endif
    cudaMemcpy(host, p, sizeof host, cudaMemcpyDeviceToHost);      // FAULT
    printf("%d\n", host[n - 1]);
    cudaFree(p);
}
