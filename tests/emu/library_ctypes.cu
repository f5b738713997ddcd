// A library for Python's ctypes, as some courses build their kernels. Called by test_emu.py.
#include <cstdio>
__device__ float factor = 2;
extern __shared__ float room[];
template <int N> __global__ void twice(float* p, int n, int beyond) {
    __shared__ float tile[N];
    int i = blockIdx.x * N + threadIdx.x;
    if (i < n) tile[threadIdx.x] = p[i];
    __syncthreads();
    room[threadIdx.x] = factor;
    if (i < n) p[i == n - 1 ? i + beyond : i] = tile[threadIdx.x] * room[threadIdx.x];      // FAULT
    if (i == 0) printf("from the kernel\n");
}
__global__ void divide(int* p, int by) { *p /= by; }
extern "C" {
void run(float* host, int n, int beyond) {
    float* p;
    cudaMalloc(&p, n * sizeof(float));
    cudaMemcpy(p, host, n * sizeof(float), cudaMemcpyHostToDevice);
    twice<32><<<(n + 31) / 32, 32, 128>>>(p, n, beyond);
    cudaMemcpy(host, p, n * sizeof(float), cudaMemcpyDeviceToHost);
    cudaFree(p);
}
void divide_by_zero() {
    int* p;
    cudaMalloc(&p, sizeof(int));      // never freed
    cudaMemset(p, 1, sizeof(int));
    divide<<<1, 1>>>(p, 0);
    cudaDeviceSynchronize();
}
void* allocate() {
    float* p;
    cudaMalloc(&p, 128);
    return p;
}
void use(float* p) {
    twice<32><<<1, 32, 128>>>(p, 32, 0);
    cudaDeviceSynchronize();
}
}
