// expect: race: two threads of a block use the same shared memory
#include <cstdio>
__global__ void reverse(int* p) {
    __shared__ int s[64];
    int t = threadIdx.x;
    s[t] = p[t];            // FAULT2
#ifdef FIXED
    __syncthreads();
#endif
    p[t] = s[63 - t];       // FAULT
}
int main() {
    int* p;
    cudaMalloc(&p, 256);
    cudaMemset(p, 0, 256);
    reverse<<<1, 64>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
