// expect: out-of-bounds read
#include <cstdio>
__device__ float3 operator+(const float3& a, const float3& b) {
    return make_float3(a.x + b.x, a.y + b.y, a.z + b.z);
}
__device__ float3 pull(float4 a, float4 b, float3 sum) {      // larger than what is inlined anyway
    float3 d = make_float3(b.x - a.x, b.y - a.y, b.z - a.z);
    float inverse = rsqrtf(d.x * d.x + d.y * d.y + d.z * d.z + 0.01f);
    float strength = b.w * inverse * inverse * inverse;
    return sum + make_float3(d.x * strength, d.y * strength, d.z * strength);
}
__device__ float3 all(float4 mine, const float4* p, int n, float3 sum) {
    for (int i = 0; i < n; i++) sum = pull(mine, p[i], sum);      // FAULT
    return sum;
}
__global__ void step(const float4* p, float3* out, int n) {
    float3 sum = {0, 0, 0};
    out[threadIdx.x] = all(p[threadIdx.x], p, n, sum);
}
int main() {
    const int n = 32;
    float4* p;
    float3* out;
    cudaMalloc(&p, n * sizeof *p);
    cudaMalloc(&out, n * sizeof *out);
    cudaMemset(p, 0, n * sizeof *p);
#ifdef FIXED
    step<<<1, n>>>(p, out, n);
#else
    step<<<1, n>>>(p, out, n + 1);
#endif
    printf("%s\n", cudaGetErrorString(cudaDeviceSynchronize()));
    cudaFree(p);
    cudaFree(out);
}
