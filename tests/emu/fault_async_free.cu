// expect: work on two streams without synchronisation
#include <cstdio>
__global__ void put(int* p) { p[threadIdx.x] = threadIdx.x; }
int main() {
    cudaStream_t a, b;
    cudaStreamCreate(&a);
    cudaStreamCreate(&b);
    cudaEvent_t used;
    cudaEventCreate(&used);
    int* p;
    cudaMallocAsync(&p, 128, a);
    cudaStreamSynchronize(a);
    put<<<1, 32, 0, b>>>(p);
#ifdef FIXED
    cudaEventRecord(used, b);
    cudaStreamWaitEvent(a, used);
#endif
    cudaFreeAsync(p, a);      // FAULT
    cudaDeviceSynchronize();
    printf("done\n");
}
