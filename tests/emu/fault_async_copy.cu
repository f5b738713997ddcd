// expect: host code touches memory that an asynchronous copy is still using
#include <cstdio>
int main() {
    int *p, *pinned;
    cudaStream_t stream;
    cudaStreamCreate(&stream);
    cudaMalloc(&p, 128);
    cudaMallocHost(&pinned, 128);
    cudaMemsetAsync(p, 0, 128, stream);
    cudaMemcpyAsync(pinned, p, 128, cudaMemcpyDeviceToHost, stream);      // FAULT2
#ifdef FIXED
    cudaStreamSynchronize(stream);
#endif
    int sum = 0;
    for (int i = 0; i < 32; i++) sum += pinned[i];      // FAULT
    pinned[0] = 1;
    printf("done %d\n", sum);
}
