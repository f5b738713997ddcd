// expect: work on two streams without synchronisation
#include <cstdio>
__global__ void put(int* p) { p[threadIdx.x] = threadIdx.x; }
__global__ void get(int* q, const int* p) {
    q[threadIdx.x] = p[threadIdx.x];      // FAULT
}
int main() {
    int *p, *q;
    cudaMalloc(&p, 128);
    cudaMalloc(&q, 128);
    cudaStream_t a, b;
    cudaStreamCreate(&a);
    cudaStreamCreate(&b);
    cudaEvent_t done;
    cudaEventCreate(&done);
    put<<<1, 32, 0, a>>>(p);
#ifdef FIXED
    cudaEventRecord(done, a);
    cudaStreamWaitEvent(b, done);
#endif
    get<<<1, 32, 0, b>>>(q, p);
    cudaDeviceSynchronize();
    printf("done\n");
}
