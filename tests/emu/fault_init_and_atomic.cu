// expect: no barrier orders them: shared memory
#include <cstdio>
__global__ void count(int* out, const int* x, int n) {
    __shared__ int bins[32];
    if (threadIdx.x < 32) bins[threadIdx.x] = 0;      // FAULT
#ifdef FIXED
    __syncthreads();
#endif
    for (int i = threadIdx.x; i < n; i += blockDim.x) atomicAdd(&bins[x[i] % 32], 1);      // FAULT2
    __syncthreads();
    if (threadIdx.x < 32) out[threadIdx.x] = bins[threadIdx.x];
}
int main() {
    int *x, *out, host[256];
    for (int i = 0; i < 256; i++) host[i] = i;      // thread t counts only in bin t % 32
    cudaMalloc(&x, sizeof host);
    cudaMalloc(&out, 128);
    cudaMemcpy(x, host, sizeof host, cudaMemcpyHostToDevice);
    count<<<1, 128>>>(out, x, 256);
    cudaDeviceSynchronize();
    printf("done\n");
}
