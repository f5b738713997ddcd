// expect: read of shared memory that this block has never written
#include <cuda_bf16.h>
#include <cstdint>
#include <cstdio>
// Of a tile of 16 rows, 15 are written. Lane 15 reads the last one, for lanes 28 to 31.
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
    uint32_t a[2], zero = 0, one = 0x3f803f80;
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"      // FAULT
                 : "=r"(a[0]), "=r"(a[1])
                 : "r"((uint32_t)__cvta_generic_to_shared(tile[lane % 16])));
    float c[4] = {};
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %6}, {%7, %7}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(zero), "r"(one));
    for (int i = 0; i < 4; i++) out[4 * lane + i] = c[i];
}
int main() {
    float* out;
    cudaMalloc(&out, 512);
    product<<<1, 32>>>(out);
    cudaDeviceSynchronize();
    printf("done\n");
}
