// expect: host code touches device memory: read of 4 bytes
#include <algorithm>
#include <cstdio>
int main() {
    int *p, host[100] = {3, 1, 2};
    cudaMalloc(&p, sizeof host);
    cudaMemcpy(p, host, sizeof host, cudaMemcpyHostToDevice);
#ifdef FIXED
    std::sort(host, host + 100);
#else
    std::sort(p, p + 100);      // FAULT
#endif
    printf("done\n");
}
