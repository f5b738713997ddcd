// expect: read of shared memory that this block has never written
#include <cstdint>
#include <cstdio>
// Three tiles through two buffers. All copies but the last batch must be there; here all but two:
// what is read in the third round is not the first tile, which the buffer held, but nobody knows.
__global__ void sums(float* out, const float* in) {
    __shared__ float tile[2][64];
    float sum = 0;
    int t = threadIdx.x;
    for (int i = 0; i <= 3; i++) {
        if (i < 3)
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::      // FAULT2
                         "r"((uint32_t)__cvta_generic_to_shared(&tile[i % 2][t])),
                         "l"(in + i * 64 + t));
        asm volatile("cp.async.commit_group;");
        if (i == 0) continue;
#ifdef FIXED
        asm volatile("cp.async.wait_group 1;");
#else
        if (i < 3) asm volatile("cp.async.wait_group 1;");
        else asm volatile("cp.async.wait_group 2;");
#endif
        __syncthreads();
        sum += tile[(i - 1) % 2][63 - t];      // FAULT
        __syncthreads();
    }
    out[t] = sum;
}
int main() {
    float *in, *out;
    cudaMalloc(&in, 768);
    cudaMalloc(&out, 256);
    cudaMemset(in, 0, 768);
    sums<<<1, 64>>>(out, in);
    cudaDeviceSynchronize();
    printf("done\n");
}
