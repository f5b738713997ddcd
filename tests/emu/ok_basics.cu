// A launch of every shape that programs use: over lines, in a comment, of a template, by macro.
#include <cstdio>
#include <vector>
#include <algorithm>

#define SCALES 4
__constant__ float scale[SCALES];
__device__ int counter, table[2] = {3, 4}, *unused_pointer = nullptr;

// saxpy<<<1, 1>>>(not, a, launch);
#if 0
saxpy<<<1, >>>(nor this
#else
__global__ void saxpy(int n, float a, const float* x, float* y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}
#endif

void saxpy(int n, const float* x, float* y) { saxpy << <1, n>> >(n, 0.0f, x, y); }

// The compiler makes copies of these barriers, for warp 0 and for the others: each is one still.
__global__ void two_roles(float* out) {
    __shared__ float part[64];
    bool first = threadIdx.x < 32;
    for (int i = 0; i < 10000; i++) {
        if (!first) part[threadIdx.x] = i;
        __syncthreads();
        if (first) part[threadIdx.x] = part[threadIdx.x + 32] + 1;
        __syncthreads();
        if (!first) out[blockIdx.x * 64 + threadIdx.x] = part[threadIdx.x - 32];
    }
}

template <typename T, int N>
__global__ void reverse(T* d) {
    T __shared__ tile[N];
    int t = threadIdx.x;
    tile[t] = d[t];
    __syncthreads();
    d[t] = tile[N - 1 - t];
}

__global__ void dynamic_sum(const float* x, float* out, const int* unused) {
    extern __shared__ float part[];
    unsigned t = threadIdx.x;
    part[t] = x[t] * scale[2];
    for (unsigned s = blockDim.x / 2; s > 0; s >>= 1) {
        __syncthreads();
        if (t < s) part[t] += part[t + s];
    }
    if (t == 0) *out = part[0] + table[1];
    atomicAdd(&counter, unused == nullptr);
}

__device__ __noinline__ float weight(float x) { return x > 3 ? 2 * x : x; }

// Threads that return are not waited for, whatever they have called or stored before.
__global__ void leaves_early(float* out, int n) {
    __shared__ float s[64];
    int t = threadIdx.x;
    out += blockIdx.x * blockDim.x;
    if (t >= n) {
        out[t] = weight(t);
        return;
    }
    for (int k = 0; k < 4; k++) {
        for (int j = 0; j < t; j++) out[t] = weight(j);
        if (k == 2 && t >= n / 2) return;
        s[t] = weight(k);
        __syncthreads();
    }
    out[t] = weight(s[0]);
}

// The compiler makes two copies of this barrier, one of them for the threads that then are done.
__global__ void part_of_a_block(int* x, int n) {
    __shared__ int s[64];
    int t = threadIdx.x;
    if (t < n) s[t] = t;
    __syncthreads();
    if (t < n) x[t] = s[n - 1 - t];
}

// g++ -O3 keeps the address of gridDim's offset in a register here.
__device__ int nearest(const float* point, const float* centre, int n) {
    int best = 0;
    float least = 1e9f;
    for (int c = 0; c < n; c++) {
        float d = 0;
        for (int k = 0; k < n; k++)
            d += (point[k] - centre[c * n + k]) * (point[k] - centre[c * n + k]);
        if (d < least) least = d, best = c;
    }
    return best;
}
__global__ void classify(const float* points, int n, const float* centres, int* found, int batch) {
    if (n <= blockDim.x) {
        __shared__ float own[1024];
        if (threadIdx.x < n)
            for (int k = 0; k < n; k++) own[threadIdx.x * n + k] = centres[threadIdx.x * n + k];
        __syncthreads();
        for (int i = 0; i < batch; i++) {
            int at = blockIdx.x * blockDim.x + threadIdx.x + i * blockDim.x * gridDim.x;
            if (at < batch) found[at] = nearest(points + at * n, own, n);
        }
    } else {
        for (int i = 0; i < batch; i++) {
            int at = blockIdx.x * blockDim.x + threadIdx.x + i * blockDim.x * gridDim.x;
            if (at < batch) found[at] = nearest(points + at * n, centres, n);
        }
    }
}

// Shared memory of the whole file. In not_of_the_block a parameter has the same name.
__shared__ int of_the_block[2][32], first_thread;
__device__ int twice() { return 2 * of_the_block[1][threadIdx.x]; }
__device__ int not_of_the_block(int first_thread) { return first_thread + 1; }
__global__ void in_the_file(int* x) {
    if (threadIdx.x == 0) first_thread = 7;
    of_the_block[1][threadIdx.x] = threadIdx.x;
    __syncthreads();
    x[threadIdx.x] = twice() + not_of_the_block(first_thread);
}

// One kernel makes an object with virtual functions, another calls them.
struct Shape { __device__ virtual int corners() = 0; };
struct Square : Shape { __device__ int corners() override { return 4; } };
__global__ void make(Shape* p) { new (p) Square; }
__global__ void ask(Shape* p, int* x) { *x = p->corners(); }

#ifdef __INTELLISENSE__      // an editor that knows no <<<
#define KERNEL_ARGS(grid, block)
#else
#define KERNEL_ARGS(grid, block) << < grid, dim3(block) >> >
#endif

struct Two { std::vector<std::vector<int>> v; };

#define CHECK(call) \
    do { \
        cudaError_t e = (call); \
        if (e) { printf("%s\n", cudaGetErrorString(e)); return 1; } \
    } while (0)

int main() {
    const int n = 1000;
    std::vector<float> x(n, 2), y(n, 1);
    std::vector<std::vector<std::vector<int>>> nested(1);
    const char* text = "saxpy<<<1, 2>>>(in a string)";
    float *dx, *dy;
    CHECK(cudaMalloc(&dx, n * sizeof(float)));
    CHECK(cudaMalloc((void**)&dy, n * sizeof(float)));
    CHECK(cudaMemcpy(dx, x.data(), n * sizeof(float), cudaMemcpyHostToDevice));
    CHECK(cudaMemcpy(dy, y.data(), n * sizeof(float), cudaMemcpyHostToDevice));
    dim3 gridDim((n + 255) / 256), blockDim(256);
    saxpy<<<gridDim,
            blockDim>>>(n,   // how many
                        3.0f,
                        dx, dy);
    saxpy(8, dx, dy);
    saxpy(n, 1.0f, dx, dy);      // no launch: it does nothing, but that error stays
    if (cudaGetLastError() != cudaErrorMissingConfiguration) return 1;
    two_roles<<<4, 64>>>(dy + 512);
    CHECK(cudaGetLastError());
    CHECK(cudaDeviceSynchronize());
    if (n < 0) two_roles<<<1, 64>>>(dy);
    else ::reverse<float, 128 % 96 + (1 > 0 ? 32 : 0)><<<1, 64>>>(dy);
    float s[4] = {0, 0, 0.5f, 0};
    CHECK(cudaMemcpyToSymbol(scale, s, sizeof s));
    dynamic_sum<<<dim3(1, 1), dim3(64, 1, 1), 64 * sizeof(float)>>>(dy, dx, NULL);
    part_of_a_block<<<1, 64>>>((int*)dy, 10);
    leaves_early<<<4, 64>>>(dy + 128, 50);
    in_the_file<<<1, 32>>>((int*)dy + 900);
    classify<<<1, 32>>>(dy, 2, dy, (int*)dy + 950, 4);
    make<<<1, 1>>>((Shape*)(dy + 940));
    ask KERNEL_ARGS((1 > 0 ? 1 : 2),
                    1)((Shape*)(dy + 940), (int*)dy + 932);
    float sum;
    CHECK(cudaMemcpy(&sum, dx, sizeof sum, cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(y.data(), dy, n * sizeof(float), cudaMemcpyDeviceToHost));
    int count;
    CHECK(cudaMemcpyFromSymbol(&count, counter, sizeof count));
    const int* z = (int*)y.data() + 931;
    CHECK(z[0] == 31 * 2 + 8 && z[1] == 4 ? cudaSuccess : cudaErrorUnknown);
    printf("%g %g %d %s %zu\n", sum, y[999], count, text, nested.size());
    CHECK(cudaFree(dx));
    CHECK(cudaFree(dy));
    for (int i = 544; i < 576; i++) CHECK(y[i] == 10000 ? cudaSuccess : cudaErrorUnknown);
    return !(sum == 64 * 7 * 0.5f + 4 && y[999] == 7 && count == 64);
}
