// A header beside the .cu that has device code, as programs do.
#pragma once
template <int N> __global__ void header_sum(int* out, const int* in) {
    __shared__ int part[N], whole;
    part[threadIdx.x] = in[threadIdx.x];
    if (threadIdx.x == 0) whole = 0;
    __syncthreads();
    atomicAdd(&whole, part[N - 1 - threadIdx.x]);
    __syncthreads();
    if (threadIdx.x == 0) *out = whole;
}
inline int* sum_header(const int* in, int n) {
    int* out = NULL;
    cudaMalloc(&out, sizeof(int));
    if (n == 32) header_sum<32><<<1, 32>>>(out, in);
    return out;
}
