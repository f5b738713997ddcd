// expect: work on two streams without synchronisation
#include <cstdio>
__global__ void put(int* p) {
    p[threadIdx.x] = threadIdx.x;      // FAULT
}
int main() {
    cudaStream_t a, b;
    cudaStreamCreate(&a);
    cudaStreamCreate(&b);
    cudaEvent_t allocated;
    cudaEventCreate(&allocated);
    int* p;
    cudaMallocAsync(&p, 128, a);      // FAULT2
#ifdef FIXED
    cudaEventRecord(allocated, a);
    cudaStreamWaitEvent(b, allocated);
#endif
    put<<<1, 32, 0, b>>>(p);
    cudaStreamSynchronize(b);
    cudaFreeAsync(p, a);
    cudaDeviceSynchronize();
    printf("done\n");
}
