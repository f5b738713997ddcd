// The host's side: memory of all kinds, copies of all forms, streams, events, attributes, errors.
#include <cuda_runtime.h>
#include <nvtx3/nvToolsExt.h>
#include <cstdio>
#include <cstring>
#include <vector>
#include "ok_runtime.cuh"

#define EXPECT(x) do { if (!(x)) { printf("line %d: %s\n", __LINE__, #x); return 1; } } while (0)

__constant__ int weights[8];
__device__ float state[4] = {1, 2, 3, 4};
__managed__ int shared_with_host = 7;
struct Pair { int a; double b; };
struct Buffer {      // freed when main is over
    int* p = nullptr;
    ~Buffer() { cudaFree(p); }
} buffer;

__global__ void apply(int* out, Pair p, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        out[i] = weights[i % 8] * p.a + (int)p.b;
}
template <int N> __global__ void store_n(int* out) { out[threadIdx.x] = threadIdx.x * N; }
template <int N> __global__ void store_n_too(int* out) { out[threadIdx.x] = threadIdx.x * N; }
__global__ void big_shared(int* out) {
    extern __shared__ __align__(16) char bytes[];
    int* p = reinterpret_cast<int*>(bytes);
    p[threadIdx.x * 400] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = p[(blockDim.x - 1 - threadIdx.x) * 400];
    if (threadIdx.x == 0) shared_with_host = 8;
}
__global__ void nothing() {}
__global__ void peek() { assert(shared_with_host == 8); }
__global__ void pitched(float* p, size_t pitch, int w, int h) {
    int x = threadIdx.x, y = threadIdx.y;
    if (x < w && y < h) ((float*)((char*)p + y * pitch))[x] = 10 * y + x;
}
template <class F> __global__ void each(float* x, int n, F f) {
    int i = threadIdx.x;
    if (i < n) x[i] = f(x[i]);
}
struct AddTo {
    float a;
    __host__ __device__ float operator()(float x) const { return x + a; }
};
struct Owner {      // the launch's copy is destroyed, but a thread's is only bytes
    int* p;
    bool owns;
    ~Owner() { if (owns) cudaFree(p); }
};
__global__ void owned(Owner o) { o.p[threadIdx.x] = 1; }
__global__ void mapped(int* p) { p[threadIdx.x] += 1; }
static void launch_all(int* out, Pair p, int n, cudaStream_t s) {
    apply<<<2, 32, 0, s>>>(out, p, n);
}

int main() {
    cudaDeviceProp prop;
    int count = 0, device = -1;
    EXPECT(cudaGetDeviceCount(&count) == cudaSuccess && count >= 1);
    EXPECT(cudaGetDevice(&device) == cudaSuccess);
    EXPECT(cudaGetDeviceProperties(&prop, 0) == cudaSuccess);
    EXPECT(prop.warpSize == 32 && prop.maxThreadsPerBlock == 1024);
    EXPECT(prop.computeMode != cudaComputeModeProhibited && prop.maxTexture2D[1] == 0);

    int h[8] = {1, 2, 3, 4, 5, 6, 7, 8}, *d, back[100];
    EXPECT(cudaMemcpyToSymbol(weights, h, sizeof h) == cudaSuccess);
    EXPECT(cudaMalloc(&d, 100 * sizeof(int)) == cudaSuccess);
    cudaStream_t s;
    cudaEvent_t start, stop;
    EXPECT(!cudaStreamCreate(&s) && !cudaEventCreate(&start) && !cudaEventCreate(&stop));
    cudaEventRecord(start, s);
    nvtxRangePush("all");
    launch_all(d, Pair{3, 4.5}, 100, s);
    nvtxRangePop();
    cudaEventRecord(stop, s);
    float ms = -1;
    EXPECT(cudaEventElapsedTime(&ms, start, stop) == cudaErrorNotReady && ms == -1);
    EXPECT(cudaGetLastError() == cudaErrorNotReady);
    EXPECT(cudaMemcpyAsync(back, d, sizeof back, cudaMemcpyDeviceToHost, s) == cudaSuccess);
    EXPECT(cudaStreamSynchronize(s) == cudaSuccess && back[9] == 2 * 3 + 4);
    EXPECT(cudaEventSynchronize(stop) == cudaSuccess);
    EXPECT(!cudaEventElapsedTime(&ms, start, stop) && ms >= 0);

    Owner owner = {nullptr, true};
    EXPECT(cudaMalloc(&owner.p, 128) == cudaSuccess);
    owned<<<2, 32>>>(owner);
    owner.owns = false;

    nothing<<<1, 2048>>>();
    EXPECT(cudaGetLastError() == cudaErrorInvalidConfiguration);
    EXPECT(cudaGetLastError() == cudaSuccess);
    nothing<<<0, 32>>>();
    EXPECT(cudaPeekAtLastError() == cudaErrorInvalidConfiguration);
    EXPECT(cudaGetLastError() == cudaErrorInvalidConfiguration);
    big_shared<<<1, 32, 60000>>>(d);
    EXPECT(cudaGetLastError() == cudaErrorInvalidValue);
    EXPECT(!cudaFuncSetAttribute(big_shared, cudaFuncAttributeMaxDynamicSharedMemorySize, 60000));
    big_shared<<<1, 32, 60000>>>(d);
    EXPECT(cudaGetLastError() == cudaSuccess);
    EXPECT(cudaDeviceSynchronize() == cudaSuccess);
    peek<<<1, 1>>>();
    EXPECT(shared_with_host == 8);      // while the kernel reads it too
    EXPECT(!cudaMemcpy(back, d, 32 * sizeof(int), cudaMemcpyDefault));
    EXPECT(back[0] == 31 && back[31] == 0);
    EXPECT(!cudaFuncSetAttribute(store_n<1>, cudaFuncAttributeMaxDynamicSharedMemorySize, 50000));
    store_n<1><<<1, 32, 50000>>>(d);
    EXPECT(cudaGetLastError() == cudaSuccess);
    store_n_too<1><<<1, 32, 50000>>>(d);      // the permission was for another template
    EXPECT(cudaGetLastError() == cudaErrorInvalidValue);
    void* huge = d;
    EXPECT(cudaMalloc(&huge, (size_t)1 << 50) == cudaErrorMemoryAllocation);
    EXPECT(cudaGetLastError() == cudaErrorMemoryAllocation);
    EXPECT(strcmp(cudaGetErrorString(cudaErrorMemoryAllocation), "out of memory") == 0);
    EXPECT(cudaFree(0) == cudaSuccess);
    const char* name = cudaGetErrorName(cudaErrorInvalidConfiguration);
    EXPECT(!strcmp(name, "cudaErrorInvalidConfiguration"));

    float *p2, rows[4 * 5];
    size_t pitch;
    EXPECT(cudaMallocPitch(&p2, &pitch, 5 * sizeof(float), 4) == cudaSuccess && pitch >= 20);
    pitched<<<1, dim3(8, 8)>>>(p2, pitch, 5, 4);
    EXPECT(!cudaMemcpy2D(rows, 5 * sizeof(float), p2, pitch, 5 * sizeof(float), 4,
                         cudaMemcpyDeviceToHost));
    EXPECT(rows[13] == 23);
    each<<<1, 32>>>(p2, 5, AddTo{0.5f});
    EXPECT(!cudaMemcpy(rows, p2, sizeof(float), cudaMemcpyDeviceToHost) && rows[0] == 0.5f);
    EXPECT(!cudaMemset2D(p2, pitch, 0, 20, 4));
    cudaPitchedPtr box, flat = make_cudaPitchedPtr(rows, 2 * sizeof(float), 2, 5);   // 2 x 5 x 2
    cudaMemcpy3DParms in = {}, out = {};
    in.extent = out.extent = make_cudaExtent(2 * sizeof(float), 5, 2);
    EXPECT(!cudaMalloc3D(&box, in.extent) && !cudaMemset3D(box, 0, in.extent));
    for (int i = 0; i < 20; i++) rows[i] = i;
    in.srcPtr = out.dstPtr = flat, in.dstPtr = out.srcPtr = box;
    in.kind = out.kind = cudaMemcpyDefault;
    EXPECT(!cudaMemcpy3D(&in));
    EXPECT(!cudaMemcpy(&rows[0], (char*)box.ptr + 9 * box.pitch, 4, cudaMemcpyDefault));
    EXPECT(rows[0] == 18 && !cudaMemcpy3D(&out) && rows[0] == 0 && rows[19] == 19);
    float first;
    EXPECT(!cudaMemcpyFromSymbol(&first, state, sizeof first, 2 * sizeof(float)) && first == 3);
    void* address;
    size_t size;
    EXPECT(!cudaGetSymbolAddress(&address, state));
    EXPECT(!cudaGetSymbolSize(&size, state) && size == 16);
    EXPECT(!cudaMemcpy(&first, address, 4, cudaMemcpyDeviceToHost) && first == 1);

    int *pinned, *seen, *m;
    EXPECT(!cudaHostAlloc(&pinned, 128, cudaHostAllocMapped));
    EXPECT(!cudaHostGetDevicePointer(&seen, pinned, 0));
    for (int i = 0; i < 32; i++) pinned[i] = i;
    mapped<<<1, 32>>>(seen);
    EXPECT(!cudaDeviceSynchronize() && pinned[31] == 32);
    EXPECT(!cudaMallocManaged(&m, 128));
    for (int i = 0; i < 32; i++) m[i] = i;
    mapped<<<1, 32>>>(m);
    EXPECT(!cudaDeviceSynchronize() && m[31] == 32);
    cudaPointerAttributes attributes;
    EXPECT(!cudaPointerGetAttributes(&attributes, m) && attributes.type == cudaMemoryTypeManaged);
    int blocks, grid, block;
    EXPECT(!cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, nothing, 256, 0) && blocks >= 1);
    EXPECT(!cudaOccupancyMaxPotentialBlockSize(&grid, &block, nothing, 0, 0) && block > 0);
    cudaFuncAttributes fa;
    EXPECT(!cudaFuncGetAttributes(&fa, nothing) && fa.maxThreadsPerBlock > 0);
    int* beside = sum_header(d, 32);
    EXPECT(beside && !cudaMemcpy(back, beside, 4, cudaMemcpyDeviceToHost) && back[0] == 496);
    void (*kernel)(int*) = mapped;
    kernel<<<1, 32>>>(m);
    EXPECT(!cudaDeviceSynchronize() && m[0] == 2);
    std::vector<void*> all = {d, p2, m, beside};
    for (void* p : all) EXPECT(cudaFree(p) == cudaSuccess);
    EXPECT(!cudaFreeHost(pinned) && !cudaStreamDestroy(s));
    EXPECT(!cudaMalloc(&buffer.p, 128));
    cudaMemPool_t pool;
    uint64_t threshold = UINT64_MAX;
    EXPECT(!cudaDeviceGetDefaultMemPool(&pool, 0));
    EXPECT(!cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
    EXPECT(!cudaEventDestroy(start) && !cudaEventDestroy(stop));
    return 0;
}
