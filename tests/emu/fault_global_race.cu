// expect: race: two threads of a block use the same global memory
#include <cstdio>
__global__ void shift(int* p) {
    int t = threadIdx.x;
    int v = p[(t + 1) % blockDim.x];      // FAULT
#ifdef FIXED
    __syncthreads();
#endif
    p[t] = v;      // FAULT2
}
int main() {
    int* p;
    cudaMalloc(&p, 256);
    cudaMemset(p, 1, 256);
    shift<<<1, 64>>>(p);
    cudaDeviceSynchronize();
    printf("done\n");
}
