// expect: work on two streams without synchronisation
#include <cstdio>
// A copy overwrites what a kernel on another stream still reads.
__global__ void get(int* q, const int* p) { q[threadIdx.x] = p[threadIdx.x]; }
int main() {
    int *p, *q, h[32] = {};
    cudaMalloc(&p, 128);
    cudaMalloc(&q, 128);
    cudaStream_t a, b;
    cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
    cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
    cudaMemcpy(p, h, sizeof h, cudaMemcpyHostToDevice);
    get<<<1, 32, 0, a>>>(q, p);
#ifdef FIXED
    cudaStreamSynchronize(a);
#endif
    cudaMemcpyAsync(p, h, sizeof h, cudaMemcpyHostToDevice, b);      // FAULT
    cudaDeviceSynchronize();
    printf("done\n");
}
