// expect: 4 bytes before an allocation of 128 bytes (device memory, allocated at
#include <cstdio>
__global__ void shift(int* out, const int* in) {
    int t = threadIdx.x;
#ifdef FIXED
    out[t] = t > 0 ? in[t - 1] : 0;
#else
    out[t] = in[t - 1];      // FAULT
#endif
}
int main() {
    int *in, *out;
    cudaMalloc(&in, 128);      // FAULT2
    cudaMalloc(&out, 128);
    cudaMemset(in, 0, 128);
    shift<<<1, 32>>>(out, in);
    cudaDeviceSynchronize();
    printf("done\n");
}
