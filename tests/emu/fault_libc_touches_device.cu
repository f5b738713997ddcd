// expect: host code, or a library that it calls, touches device memory
#include <stdio.h>
int main() {
    char* p;
    cudaMalloc(&p, 128);
    cudaMemset(p, 'x', 128);
#ifdef FIXED
    char h[4] = {};
    cudaMemcpy(h, p, 3, cudaMemcpyDeviceToHost);
    puts(h);
#else
    puts(p);      // FAULT
#endif
    printf("done\n");
}
