// expect: read of shared memory that this block has never written
#include <cuda_bf16.h>
#include <cstdint>
#include <cstdio>
// Of a tile of 16 rows, 15 are written. Tensor cores deal a row's elements out to all lanes.
__global__ void product(float* out) {
    __shared__ alignas(16) __nv_bfloat16 tile[16][8];
    int lane = threadIdx.x;
#ifdef FIXED
    if (lane < 16)
#else
    if (lane < 15)
#endif
        for (int i = 0; i < 8; i++) tile[lane][i] = 1;
    __syncwarp();
    uint32_t b[2], one = 0x3f803f80;
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"      // FAULT
                 : "=r"(b[0]), "=r"(b[1])
                 : "r"((uint32_t)__cvta_generic_to_shared(tile[lane % 16])));
    float c[4] = {};
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %4, %4, %4}, {%5, %6}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(one), "r"(b[0]), "r"(b[1]));
    for (int i = 0; i < 4; i++) out[4 * lane + i] = c[i];
}
int main() {
    float* out;
    cudaMalloc(&out, 512);
    product<<<1, 32>>>(out);
    cudaDeviceSynchronize();
    printf("done\n");
}
