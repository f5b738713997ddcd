// expect: out of bounds of shared memory: address
#include <cstdint>
#include <cstdio>
// PTX wants an address of shared memory, which the low half of a pointer is not.
__global__ void load(uint32_t* out) {
    __shared__ alignas(16) uint32_t tile[8][4];
    tile[threadIdx.x / 4][threadIdx.x % 4] = threadIdx.x;
    __syncthreads();
#ifdef FIXED
    uint32_t row = (uint32_t)__cvta_generic_to_shared(tile[threadIdx.x % 8]);
#else
    uint32_t row = (uint32_t)(uintptr_t)tile[threadIdx.x % 8];
#endif
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"      // FAULT
                 : "=r"(out[threadIdx.x]) : "r"(row));
}
int main() {
    uint32_t* out;
    cudaMalloc(&out, 128);
    load<<<1, 32>>>(out);
    cudaDeviceSynchronize();
    printf("done\n");
}
