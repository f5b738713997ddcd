// expect: freed twice
#include <cstdio>
int main() {
    float* p;
    cudaMalloc(&p, 4);
    cudaFree(p);      // FAULT
#ifndef FIXED
    cudaFree(p);      // FAULT
#endif
}
