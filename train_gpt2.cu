// train_gpt2.cu - the layers of layers.h on a GPU, and the program ./train_gpt2cu.
//
// Each kernel is an equation of layers.h, shared out over threads. Its twin is in train_gpt2.cpp.
//
//     a warp      32 threads that share an instruction while they take the same path, and read each
//                 other's registers (shuffles, which since Volta wait for the lanes that they name)
//     a block     up to 1024 threads on one multiprocessor, with shared memory and a barrier
//     a grid      as many blocks as there is work; they run in any order, and wait for no other
//
// A GPU does dozens of multiply-adds in the time of reading one number from memory: by its data
// sheet an H200 does 33e12 a second in float32 and reads 1.2e12 floats, 28 to 1; with tensor cores
// it is 495e12 and 2.4e12 bfloat16 numbers, 206 to 1. (In FLOPs for a byte, the field's arithmetic
// intensity: 14 and 206.) So all layers but matrix products and attention are as fast as they move
// bytes, and each kernel says how many. The habits that follow from it:
//   - neighbouring threads read neighbouring bytes, 16 each where they can: 512 in a request
//   - what is needed twice stays in registers or in shared memory
//   - numbers are added up in float32, whatever floatX is: in bfloat16's 8 bits, 300 ones make 256
//   - where a block goes on to the row that is gridDim.x further (a grid-stride loop), what all
//     rows share, like weights, stays in registers, and the grid is no larger than what runs at
//     once
//
// No sum is made by atomics, whose order is an accident. A sum over rows that many blocks share is
// made in two steps: every block writes its part to scratch memory, and a second kernel adds the
// parts in order. How many parts there are depends on the sizes and never on the GPU.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>
#include <cublasLt.h>
#include <cuda_runtime.h>
#include "files.h"
#include "layers.h"
#include "numerics.h"
#include "threads.h"

// What floatX is called: by --dtype, in full, and by cuBLASLt.
struct Type {
    const char *dtype, *name;
    cudaDataType cublas;
};
const Type TYPES[] = {{"fp32", "float32", CUDA_R_32F},   // in Precision's order
                      {"bf16", "bfloat16", CUDA_R_16BF},
                      {"fp16", "float16", CUDA_R_16F}};
const Type& TYPE_X = TYPES[PRECISION];
const bool BITS16 = sizeof(floatX) == 2;

// ---- the device ---------------------------------------------------------------------------------

// Of a product: m, n, k, transpose_a, transpose_b, floats, epilogue.
using Sizes = std::array<int, 7>;
using Algorithms = std::vector<cublasLtMatmulAlgo_t>;
using Watcher = std::function<void(const Sizes&, int, const std::function<bool(int)>&)>;

// Everything that outlives a call, all of it.
struct Device {
    bool ready = false;
    std::string name;
    int capability = 0;             // 90 for sm_90
    int multiprocessors = 0;
    cublasLtHandle_t blas = nullptr;
    void* workspace = nullptr;      // cuBLASLt's, WORKSPACE bytes
    float* scratch = nullptr;       // parts of sums between two kernels; grows to the largest need
    size_t scratch_floats = 0;
    void* staging = nullptr;        // host memory that the GPU reads by itself; room for a batch
    size_t staging_bytes = 0;
    cudaEvent_t staged = nullptr;   // the last upload from there is done
    std::map<Sizes, Algorithms> advice;   // for each product, or none: the first is taken
    Watcher watcher;                // of watch_products
};
static Device device;

const size_t WORKSPACE = 32 << 20;   // NVIDIA's advice for Hopper; older GPUs need but 4 MB

// Every call of CUDA goes through cuda_check, and every launch is followed by
// cuda_check(cudaGetLastError()), which sees a launch that was refused. What goes wrong inside a
// kernel is reported by some later call. Macros, since only a macro knows the line that it stands
// in.
#define cuda_check(call) check_cuda(call, #call, __FILE__, __LINE__)
#define blas_check(call) check_blas(call, #call, __FILE__, __LINE__)

static void check_cuda(cudaError_t error, const char* call, const char* file, int line) {
    if (error == cudaSuccess) return;
    bool refused =
        error == cudaErrorInvalidConfiguration || error == cudaErrorNoKernelImageForDevice;
    fail("%s:%d: %s: %s%s", file, line, call, cudaGetErrorString(error),
         error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver
             ? " (does nvidia-smi show a GPU?)"
         : refused ? " (was it built for this GPU? See ARCH in the Makefile)"
                   : " (if a kernel is at fault, CUDA_LAUNCH_BLOCKING=1 in the environment names "
                     "its launch)");
}

static void check_blas(cublasStatus_t status, const char* call, const char* file, int line) {
    if (status != CUBLAS_STATUS_SUCCESS)
        fail("%s:%d: %s: cuBLAS status %d (cublas_api.h names it)", file, line, call, (int)status);
}

void device_init(int threads) {
    use_threads(threads > 0 ? threads : processors());   // for what the host does: first weights
    if (device.ready) return;
    cudaDeviceProp properties;
    cuda_check(cudaSetDevice(0));
    cuda_check(cudaGetDeviceProperties(&properties, 0));
    device.capability = 10 * properties.major + properties.minor;
    device.multiprocessors = properties.multiProcessorCount;
    device.name = properties.name;
    if (PRECISION == BF16 && device.capability < 80)
        fail("%s has compute capability %d.%d, but bfloat16 needs 8.0 (build with PRECISION=fp16)",
             properties.name, properties.major, properties.minor);
    blas_check(cublasLtCreate(&device.blas));
    cuda_check(cudaEventCreateWithFlags(&device.staged, cudaEventDisableTiming));
    device.workspace = device_alloc(WORKSPACE);
    device.ready = true;
}

const char* device_name() {
    static std::string name = device.name + ", " + TYPE_X.name;
    return name.c_str();
}

void* device_alloc(size_t bytes) {
    void* p = nullptr;
    cudaError_t error = cudaMalloc(&p, bytes);
    if (error == cudaErrorMemoryAllocation) {
        size_t free = 0, total = 0;
        cudaMemGetInfo(&free, &total);
        fail("out of memory: %.1f MB are not to be had: %.1f of the GPU's %.1f MB are free "
             "(lower --batch, raise --recompute, or lower --seq)",
             bytes / 1e6, free / 1e6, total / 1e6);
    }
    cuda_check(error);
    return p;
}

void device_free(void* p) {
    cuda_check(cudaFree(p));
}

// Copies wait for all kernels launched before them: everything here runs in one stream, in the
// order of the calls. The processor need not wait as well where there is room to leave a copy of
// the data: in pinned memory, which the GPU reads by itself when it comes to it.
void to_device(void* to, const void* host, size_t bytes) {
    if (bytes > device.staging_bytes) {
        cuda_check(cudaMemcpy(to, host, bytes, cudaMemcpyHostToDevice));
        return;
    }
    cuda_check(cudaEventSynchronize(device.staged));   // or we write what is still being read
    memcpy(device.staging, host, bytes);
    cuda_check(cudaMemcpyAsync(to, device.staging, bytes, cudaMemcpyHostToDevice));
    cuda_check(cudaEventRecord(device.staged));
}

void to_host(void* host, const void* from, size_t bytes) {
    cuda_check(cudaMemcpy(host, from, bytes, cudaMemcpyDeviceToHost));
}

void device_zero(void* p, size_t bytes) {
    cuda_check(cudaMemset(p, 0, bytes));
}

// Room for this many floats, good until the next call. Freeing waits for kernels that still use the
// old room.
static float* scratch(size_t floats) {
    if (floats > device.scratch_floats) {
        cuda_check(cudaFree(device.scratch));
        device.scratch = (float*)device_alloc(floats * sizeof(float));
        device.scratch_floats = floats;
    }
    return device.scratch;
}

// Into how many parts sums over rows are cut: LAYERNORM_PARTS at most, a part for BIAS_ROWS rows,
// and NORM_PARTS at most. Enough to keep any GPU busy; not "as many as fit", or the bits would
// depend on the GPU.
const int LAYERNORM_PARTS = 1024, BIAS_ROWS = 256, NORM_PARTS = 1024;

size_t device_reserve(int B, int T, int C) {
    size_t N = (size_t)B * T, layernorm = std::min<size_t>(N, LAYERNORM_PARTS) * 2 * C;
    size_t bias = (N + BIAS_ROWS - 1) / BIAS_ROWS * 4 * C, norm = 2 * NORM_PARTS;
    scratch(std::max({layernorm, bias, norm}));
    const size_t batch = 3 * N * sizeof(int);   // tokens, targets, and an order of the rows
    if (batch > device.staging_bytes) {
        cuda_check(cudaEventSynchronize(device.staged));
        cuda_check(cudaFreeHost(device.staging));
        cuda_check(cudaMallocHost(&device.staging, batch));
        device.staging_bytes = batch;
    }
    return WORKSPACE + device.scratch_floats * sizeof(float);
}

// ---- vectors and sums ---------------------------------------------------------------------------

// A thread's bite: as many elements as 16 bytes of floatX hold, the widest access there is, in
// registers as float.
const int VEC = 16 / sizeof(floatX);
struct Vec {
    float x[VEC];
};

// The same in memory. alignas lets the compiler copy it with 16-byte instructions.
template <class Number> struct alignas(16) Packed {
    Number x[VEC];
};

// The Vec at p, of which `left` elements exist (0 or less: none); the others are 0. Tails, and rows
// that do not start on a 16-byte boundary because C is odd, go one element at a time: so every
// kernel works for every C.
template <class Number> __device__ inline Vec load(const Number* p, int64_t left) {
    Vec v;
    if (left >= VEC && (uintptr_t)p % 16 == 0) {
        Packed<Number> packed = *(const Packed<Number>*)p;
#pragma unroll
        for (int j = 0; j < VEC; j++) v.x[j] = (float)packed.x[j];
    } else {
#pragma unroll
        for (int j = 0; j < VEC; j++) v.x[j] = j < left ? (float)p[j] : 0.0f;
    }
    return v;
}

template <class Number> __device__ inline void store(Number* p, int64_t left, Vec v) {
    if (left >= VEC && (uintptr_t)p % 16 == 0) {
        Packed<Number> packed;
#pragma unroll
        for (int j = 0; j < VEC; j++) packed.x[j] = (Number)v.x[j];
        *(Packed<Number>*)p = packed;
    } else {
#pragma unroll
        for (int j = 0; j < VEC; j++)
            if (j < left) p[j] = (Number)v.x[j];
    }
}

// Sums over groups of neighbouring lanes (width 4, 16 or 32), the same bits in every lane: in each
// round both partners add the same two numbers.
template <class Number> __device__ inline Number lane_sum(Number x, int width) {
    for (int other = width / 2; other > 0; other /= 2) x += __shfl_xor_sync(0xffffffff, x, other);
    return x;
}

__device__ inline float lane_max(float x, int width) {
    for (int other = width / 2; other > 0; other /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, other));
    return x;
}

// The sum over a block of whole warps, in every thread. sums: 32 numbers of shared memory. Between
// two calls with the same sums there must be a barrier, for instance the one in a call with other
// sums: a slow thread may still be reading the old ones.
template <class Number> __device__ inline Number block_sum(Number x, Number* sums) {
    x = lane_sum(x, 32);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
    __syncthreads();   // all warps' sums are there
    Number total = 0;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) total += sums[warp];
    return total;
}

static int64_t ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

// The shape of a kernel in which a block takes whole rows of C channels, one after the other, and
// thread i has channels i*VEC .. i*VEC+VEC-1 of each: what belongs to a channel, like a weight, is
// then read once and stays in a register.
static int row_threads(const char* layer, int C) {
    int threads = (int)ceil_div(ceil_div(C, VEC), 32) * 32;
    if (threads > 1024)
        fail("%s: %d channels, but on a GPU there can be %d at most", layer, C, 1024 * VEC);
    return threads;
}

// Blocks for one wave: as many as the GPU holds at once. How many a multiprocessor holds is the
// kernel's occupancy, limited by its threads (1,024, 1,536 or 2,048, by the GPU) and registers.
template <class Kernel> static int row_blocks(Kernel* kernel, int N, int threads) {
    int blocks = 0;
    cuda_check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, 0));
    return std::min(N, device.multiprocessors * blocks);
}

// The shape of a kernel that adds up rows: a block has SUM_COLUMNS columns, a Vec for each lane,
// and its SUM_WARPS warps share the rows. Each ends with this: the warps' sums v are added, and
// thread i gets that of column i.
const int SUM_WARPS = 16, SUM_THREADS = 32 * SUM_WARPS, SUM_COLUMNS = 32 * VEC;

__device__ inline float sum_of_warps(Vec v) {
    __shared__ float sums[SUM_WARPS][SUM_COLUMNS];
    store(&sums[threadIdx.x / 32][threadIdx.x % 32 * VEC], VEC, v);
    __syncthreads();   // all warps' sums are there
    float total = 0;
    if (threadIdx.x < SUM_COLUMNS)
        for (int warp = 0; warp < SUM_WARPS; warp++) total += sums[warp][threadIdx.x];
    return total;
}

// For i < n:  out1[i] += sum_p parts[p,i] if i < n1, and out2[i - n1] += it if not
// parts (n_parts, n): the second step of every sum over rows, for one tensor or for two that one
// kernel has made parts of.  A block has 8 columns, 32 bytes of a row, which is the least that
// memory moves: so 1,024 parts of 2*768 columns give work to 192 blocks. Thread i has column i % 8
// of every 32nd part. Moves 4 * n_parts * n bytes, most of them still in the L2 cache.
const int PART_COLUMNS = 8, PART_ROWS = 32;

__global__ void add_parts_kernel(float* out1, int n1, float* out2, const float* parts, int n_parts,
                                 int n) {
    __shared__ float sums[PART_ROWS][PART_COLUMNS];
    const int row = threadIdx.x / PART_COLUMNS, column = threadIdx.x % PART_COLUMNS;
    const int i = blockIdx.x * PART_COLUMNS + column;
    float sum = 0;
    if (i < n)
        for (int p = row; p < n_parts; p += PART_ROWS) sum += parts[(int64_t)p * n + i];
    sums[row][column] = sum;
    __syncthreads();   // all rows' sums are there
    if (row > 0 || i >= n) return;
    for (int r = 1; r < PART_ROWS; r++) sum += sums[r][column];
    (i < n1 ? out1[i] : out2[i - n1]) += sum;
}

static void add_parts(float* out1, int n1, float* out2, const float* parts, int n_parts, int n) {
    add_parts_kernel<<<(int)ceil_div(n, PART_COLUMNS), PART_ROWS * PART_COLUMNS>>>(
        out1, n1, out2, parts, n_parts, n);
    cuda_check(cudaGetLastError());
}

// ---- encoder ------------------------------------------------------------------------------------

// out[n,c] = wte[tokens[n],c] + wpe[n % T,c]
// out (N, C)   tokens (N)   wte (V, C)   wpe (T, C).  A block takes rows, a thread a Vec of each.
// Moves 3 elements for each of out's and does 1 FLOP: bound by memory. Rows of wte are gathered,
// but each is read from end to end, so that no byte of a request is lost.
__global__ void encoder_forward_kernel(floatX* out, const int* tokens, const floatX* wte,
                                       const floatX* wpe, int N, int T, int C) {
    int c = threadIdx.x * VEC;
    for (int n = blockIdx.x; n < N; n += gridDim.x) {
        Vec token = load(wte + (int64_t)tokens[n] * C + c, C - c);
        Vec position = load(wpe + (int64_t)(n % T) * C + c, C - c);
#pragma unroll
        for (int j = 0; j < VEC; j++) token.x[j] += position.x[j];
        store(out + (int64_t)n * C + c, C - c, token);
    }
}

void encoder_forward(floatX* out, const int* tokens, const floatX* wte, const floatX* wpe, int B,
                     int T, int C) {
    int threads = row_threads("encoder", C);
    int blocks = row_blocks(encoder_forward_kernel, B * T, threads);
    encoder_forward_kernel<<<blocks, threads>>>(out, tokens, wte, wpe, B * T, T, C);
    cuda_check(cudaGetLastError());
}

// dwte[v,c] += sum of dout[n,c] over the rows n with tokens[n] == v
// dwte (V, C)   dout (N, C)   tokens, sorted (N).  Block (i, k): the i-th row of the sorted list,
// columns of part k. Only the block whose row is the first of its token works, and adds all rows of
// that token, which follow it in the list: so a row of dwte has one writer. Half of a text's tokens
// are a few frequent ones with a thousand rows each; hence 16 warps share the rows. Moves N*C
// elements of dout and up to 8*N*C bytes of dwte, for N*C FLOPs.
__global__ void encoder_backward_wte_kernel(float* dwte, const floatX* dout, const int* tokens,
                                            const int* sorted, int N, int C) {
    int i = blockIdx.x, token = tokens[sorted[i]];
    if (i > 0 && tokens[sorted[i - 1]] == token)
        return;   // all threads of the block: none is missed at the barrier below
    int first = blockIdx.y * SUM_COLUMNS, c = first + threadIdx.x % 32 * VEC;
    Vec sum = {};
    for (int k = i + threadIdx.x / 32; k < N && tokens[sorted[k]] == token; k += SUM_WARPS) {
        Vec d = load(dout + (int64_t)sorted[k] * C + c, C - c);
#pragma unroll
        for (int j = 0; j < VEC; j++) sum.x[j] += d.x[j];
    }
    float total = sum_of_warps(sum);
    c = first + threadIdx.x;
    if (threadIdx.x < SUM_COLUMNS && c < C) dwte[(int64_t)token * C + c] += total;
}

// dwpe[t,c] += sum_b dout[b,t,c]
// dwpe (T, C)   dout (B, T, C).  A block takes position t, a thread a Vec, and goes through the B
// sequences. Moves B*T*C elements of dout, and 8*T*C bytes of dwpe.
__global__ void encoder_backward_wpe_kernel(float* dwpe, const floatX* dout, int B, int T, int C) {
    int t = blockIdx.x, c = threadIdx.x * VEC;
    Vec sum = load(dwpe + (int64_t)t * C + c, C - c);
    for (int b = 0; b < B; b++) {
        Vec d = load(dout + ((int64_t)b * T + t) * C + c, C - c);
#pragma unroll
        for (int j = 0; j < VEC; j++) sum.x[j] += d.x[j];
    }
    store(dwpe + (int64_t)t * C + c, C - c, sum);
}

void encoder_backward(float* dwte, float* dwpe, const floatX* dout, const int* tokens,
                      const int* sorted, int B, int T, int C) {
    dim3 grid(B * T, (unsigned)ceil_div(C, SUM_COLUMNS));
    encoder_backward_wte_kernel<<<grid, SUM_THREADS>>>(dwte, dout, tokens, sorted, B * T, C);
    cuda_check(cudaGetLastError());
    encoder_backward_wpe_kernel<<<T, row_threads("encoder", C)>>>(dwpe, dout, B, T, C);
    cuda_check(cudaGetLastError());
}

// ---- layernorm ----------------------------------------------------------------------------------

// For each row x of inp1 + inp2 (inp2 null: of inp1 alone):
//     mean = sum(x) / C      rstd = 1 / sqrt(sum((x - mean)^2) / C + eps)
//     out = (x - mean) * rstd * weight + bias
// out, inp1, inp2 (N, C)   residual (N, C) takes the sum, if there is an inp2   mean, rstd (N)
// weight, bias (C).  blockDim.x >= C / VEC, whole warps. out may be inp1, residual either inp.
// A thread holds its Vec of a row in registers, so that x is read once though it is used three
// times; weight and bias stay in registers for all of a block's rows. Moves 2 elements for each of
// inp1's (4 with inp2), for 8 FLOPs.
__global__ void __launch_bounds__(1024)
layernorm_forward_kernel(floatX* residual, floatX* out, float* mean, float* rstd,
                         const floatX* inp1, const floatX* inp2, const floatX* weight,
                         const floatX* bias, int N, int C) {
    __shared__ float sums[2][32];
    const int c = threadIdx.x * VEC;
    Vec w = load(weight + c, C - c), shift = load(bias + c, C - c);
    for (int n = blockIdx.x; n < N; n += gridDim.x) {
        int64_t at = (int64_t)n * C + c;
        Vec x = load(inp1 + at, C - c);
        if (inp2) {
            Vec x2 = load(inp2 + at, C - c);
#pragma unroll
            for (int j = 0; j < VEC; j++)
                x.x[j] = (float)(floatX)(x.x[j] + x2.x[j]);   // as backward will read it
            store(residual + at, C - c, x);
        }
        float sum = 0, squares = 0;
#pragma unroll
        for (int j = 0; j < VEC; j++) sum += x.x[j];
        float m = block_sum(sum, sums[0]) / C;
        // A second pass, over registers: sum(x^2) - mean^2 would cancel, and lose all digits where
        // |mean| >> deviation.
#pragma unroll
        for (int j = 0; j < VEC; j++) {
            float deviation = c + j < C ? x.x[j] - m : 0.0f;   // beyond C it would be 0 - m
            squares += deviation * deviation;
        }
        float s = rsqrtf(block_sum(squares, sums[1]) / C + LAYERNORM_EPS);
#pragma unroll
        for (int j = 0; j < VEC; j++) x.x[j] = (x.x[j] - m) * s * w.x[j] + shift.x[j];
        store(out + at, C - c, x);
        if (threadIdx.x == 0) {
            mean[n] = m;
            rstd[n] = s;
        }
    }
}

void residual_layernorm_forward(floatX* residual, floatX* out, float* mean, float* rstd,
                                const floatX* inp1, const floatX* inp2, const floatX* weight,
                                const floatX* bias, int B, int T, int C) {
    int threads = row_threads("layernorm", C);
    int blocks = row_blocks(layernorm_forward_kernel, B * T, threads);
    layernorm_forward_kernel<<<blocks, threads>>>(residual, out, mean, rstd, inp1, inp2, weight,
                                                  bias, B * T, C);
    cuda_check(cudaGetLastError());
}

void layernorm_forward(floatX* out, float* mean, float* rstd, const floatX* inp,
                       const floatX* weight, const floatX* bias, int B, int T, int C) {
    residual_layernorm_forward(nullptr, out, mean, rstd, inp, nullptr, weight, bias, B, T, C);
}

// With xhat = (x - mean) * rstd and g = dout * weight, for each row:
//     dinp = dresidual + rstd * (g - sum(g) / C - xhat * sum(g * xhat) / C)
// and over the rows of this block:  parts[block] = (sum(dout * xhat), sum(dout))
// dinp, dout, inp (N, C)   dresidual (N, C), or null for none   mean, rstd (N)   weight (C)
// parts (gridDim.x, 2C), for add_parts.  blockDim.x as in forward. dinp may be dout or dresidual:
// each thread reads its elements before it writes them. Since a thread keeps its channels from row
// to row, the parameters' sums live in registers, and the whole of backward reads its inputs once:
// 3 or 4 elements moved for each of inp's, for 15 FLOPs.
__global__ void __launch_bounds__(1024)
layernorm_backward_kernel(floatX* dinp, float* parts, const floatX* dresidual,
                          const floatX* dout, const floatX* inp, const floatX* weight,
                          const float* mean, const float* rstd, int N, int C) {
    __shared__ float sums[2][32];
    const int c = threadIdx.x * VEC;
    Vec w = load(weight + c, C - c), dw = {}, db = {};
    for (int n = blockIdx.x; n < N; n += gridDim.x) {
        int64_t at = (int64_t)n * C + c;
        Vec d = load(dout + at, C - c), x = load(inp + at, C - c);
        float m = mean[n], s = rstd[n], g_sum = 0, g_xhat_sum = 0;
#pragma unroll
        for (int j = 0; j < VEC; j++) {
            x.x[j] = (x.x[j] - m) * s;   // xhat; beyond C, d and w are 0, and it counts for nothing
            dw.x[j] += d.x[j] * x.x[j];
            db.x[j] += d.x[j];
            d.x[j] *= w.x[j];            // g
            g_sum += d.x[j];
            g_xhat_sum += d.x[j] * x.x[j];
        }
        float g_mean = block_sum(g_sum, sums[0]) / C;
        float g_xhat_mean = block_sum(g_xhat_sum, sums[1]) / C;
        Vec skip = dresidual ? load(dresidual + at, C - c) : Vec{};
#pragma unroll
        for (int j = 0; j < VEC; j++) skip.x[j] += s * (d.x[j] - g_mean - x.x[j] * g_xhat_mean);
        store(dinp + at, C - c, skip);
    }
    float* part = parts + (int64_t)blockIdx.x * 2 * C;
    store(part + c, C - c, dw);
    store(part + C + c, C - c, db);
}

void residual_layernorm_backward(floatX* dinp, float* dweight, float* dbias,
                                 const floatX* dresidual, const floatX* dout,
                                 const floatX* residual, const floatX* weight, const float* mean,
                                 const float* rstd, int B, int T, int C) {
    int N = B * T, n_parts = std::min(N, LAYERNORM_PARTS);
    float* parts = scratch((size_t)n_parts * 2 * C);
    layernorm_backward_kernel<<<n_parts, row_threads("layernorm", C)>>>(
        dinp, parts, dresidual, dout, residual, weight, mean, rstd, N, C);
    cuda_check(cudaGetLastError());
    add_parts(dweight, C, dbias, parts, n_parts, 2 * C);
}

void layernorm_backward(floatX* dinp, float* dweight, float* dbias, const floatX* dout,
                        const floatX* inp, const floatX* weight, const float* mean,
                        const float* rstd, int B, int T, int C) {
    residual_layernorm_backward(dinp, dweight, dbias, nullptr, dout, inp, weight, mean, rstd, B, T,
                                C);
}

// ---- matmul -------------------------------------------------------------------------------------
//
// The products are cuBLASLt's: on tensor cores in 16 bits, and in float32 without TF32, whose 10
// bits are not float32. It also has epilogues: bias and GELU are applied to the sums while they are
// in registers, which saves a kernel that would read and write the whole of out.

// How a matrix lies in memory, said in cuBLAS's way: columns one after the other.
static cublasLtMatrixLayout_t layout(cudaDataType type, int rows, int columns) {
    cublasLtMatrixLayout_t result;
    blas_check(cublasLtMatrixLayoutCreate(&result, type, rows, columns, rows));
    return result;
}

// What a product is, besides its sizes. cuBLAS stores matrices by columns: our row-major (N, C) is
// its (C, N). So our out (N, OC) = inp weight^T is, for cuBLAS, the (OC, N) product weight^T inp,
// and the first factor is weight.
struct Product {
    bool transpose_a, transpose_b;
    bool floats;                       // out is float; if not, floatX
    bool add = false;                  // out += a b; if not, out = a b
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
    const floatX* bias = nullptr;      // (m), where the epilogue has one
    const floatX* pre_gelu = nullptr;  // (m, n): what GELU_AUX writes, and DGELU reads
};

// The algorithms that cuBLASLt's model of this GPU expects to be the fastest, the best first, and
// OFFERS at most: one is enough to train. None is what happens to epilogues. Asking costs some 50
// microseconds, so the answer is kept. It is a function of the sizes only, so that equal calls have
// equal bits.
const int OFFERS = 8;

static Algorithms& advice_for(const Sizes& sizes, cublasLtMatmulDesc_t operation,
                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                              cublasLtMatrixLayout_t d) {
    auto known = device.advice.find(sizes);
    if (known != device.advice.end()) return known->second;
    cublasLtMatmulPreference_t preference;
    blas_check(cublasLtMatmulPreferenceCreate(&preference));
    auto set = [&](cublasLtMatmulPreferenceAttributes_t which, const void* value, size_t bytes) {
        blas_check(cublasLtMatmulPreferenceSetAttribute(preference, which, value, bytes));
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &WORKSPACE, sizeof WORKSPACE);
    // Where m and n are small and k is large, k is cut into parts for many blocks (split-K). Their
    // sums may meet in float32 only: cuBLASLt would also add them up in out, which has floatX.
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction);
    uint32_t alignment = 16;   // bytes, which our tables grant; cuBLASLt would assume 256
    for (auto which :
         {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
          CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES})
        set(which, &alignment, sizeof alignment);
    cublasLtMatmulHeuristicResult_t results[OFFERS] = {};
    int found = 0;
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(device.blas, operation, a, b, d, d,
                                                           preference, OFFERS, results, &found);
    if (status != CUBLAS_STATUS_NOT_SUPPORTED) blas_check(status);
    blas_check(cublasLtMatmulPreferenceDestroy(preference));
    Algorithms& advice = device.advice[sizes];
    for (int i = 0; i < found; i++)
        if (results[i].state == CUBLAS_STATUS_SUCCESS) advice.push_back(results[i].algo);
    return advice;
}

// For dev/bench/gpu_layers.cpp, which asks what the other algorithms would gain: each product, once
// done, is shown to this function (or to nobody, if it is empty): its sizes, how many algorithms
// there are for it, and what does it once more by the i-th of them: false if that cannot.
void watch_products(Watcher watcher) {
    device.watcher = std::move(watcher);
}

// out = a b, or out += a b, in cuBLAS's terms: a (m, k) or, transposed, (k, m); b (k, n) or (n, k);
// out (m, n). Sums in float32. 2*m*n*k FLOPs. False, and nothing done, where cuBLASLt cannot do the
// epilogue.
static bool product(void* out, const floatX* a, const floatX* b, int m, int n, int k,
                    const Product& p) {
    cublasLtMatmulDesc_t operation;
    blas_check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    auto set = [&](cublasLtMatmulDescAttributes_t which, const void* value, size_t bytes) {
        blas_check(cublasLtMatmulDescSetAttribute(operation, which, value, bytes));
    };
    cublasOperation_t op_a = p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t op_b = p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    set(CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a);
    set(CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b);
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, &p.epilogue, sizeof p.epilogue);
    if (p.bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, &p.bias, sizeof p.bias);
    int64_t leading = m;
    if (p.pre_gelu) {
        set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, &p.pre_gelu, sizeof p.pre_gelu);
        set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &leading, sizeof leading);
    }
    const cudaDataType type = TYPE_X.cublas;
    cublasLtMatrixLayout_t layout_a = p.transpose_a ? layout(type, k, m) : layout(type, m, k);
    cublasLtMatrixLayout_t layout_b = p.transpose_b ? layout(type, n, k) : layout(type, k, n);
    cublasLtMatrixLayout_t layout_out = layout(p.floats ? CUDA_R_32F : type, m, n);
    const Sizes sizes = {m, n, k, p.transpose_a, p.transpose_b, p.floats, (int)p.epilogue};
    Algorithms& advice = advice_for(sizes, operation, layout_a, layout_b, layout_out);
    float one = 1, beta = p.add ? 1.0f : 0.0f;
    auto run = [&](const cublasLtMatmulAlgo_t& algorithm) {
        return cublasLtMatmul(device.blas, operation, &one, a, layout_a, b, layout_b, &beta, out,
                              layout_out, out, layout_out, &algorithm, device.workspace, WORKSPACE,
                              0);
    };
    if (!advice.empty()) {
        cublasStatus_t status = run(advice[0]);
        if (status == CUBLAS_STATUS_NOT_SUPPORTED) advice.clear();   // it may see so only now
        else blas_check(status);
    }
    const bool done = !advice.empty();
    if (!done && p.epilogue == CUBLASLT_EPILOGUE_DEFAULT)
        fail("cuBLASLt has no algorithm for a product of m = %d, n = %d, k = %d", m, n, k);
    if (done && device.watcher)
        device.watcher(sizes, (int)advice.size(),
                       [&](int i) { return run(advice[i]) == CUBLAS_STATUS_SUCCESS; });
    for (cublasLtMatrixLayout_t l : {layout_a, layout_b, layout_out})
        blas_check(cublasLtMatrixLayoutDestroy(l));
    blas_check(cublasLtMatmulDescDestroy(operation));
    return done;
}

// From Hopper on, GELU is left to cuBLASLt's epilogues. That they pay there, and not before, is a
// guess (llm.c's too) until dev/gpu_check.sh has measured it. Their second output must have rows of
// a multiple of 16 bytes.
static bool fuses_gelu(int columns) {
    return BITS16 && device.capability >= 90 && columns % 8 == 0;
}

// GELU in its tanh form, x times a sigmoid, and its derivative: gelu() and gelu_derivative() of
// numerics.h with the GPU's own exponential.
__device__ inline float gelu_gate_device(float x) {
    float u = GELU_SCALE * (x + GELU_CUBIC * x * x * x);
    return 1.0f / (1.0f + expf(-2.0f * u));
}

__device__ inline float gelu_derivative_device(float x) {
    float s = gelu_gate_device(x), du = GELU_SCALE * (1.0f + 3.0f * GELU_CUBIC * x * x);
    return s + x * s * (1.0f - s) * 2.0f * du;
}

// x = out + bias (null: without)     out = x; or, with pre_gelu: pre_gelu = x, out = gelu(x)
// out, pre_gelu (N, OC)   bias (OC).  One thread a Vec of a row; grid (N, columns). What the
// epilogue would have done. Moves 2 or 3 elements for each of out's, for at most 12 FLOPs.
__global__ void bias_gelu_kernel(floatX* out, floatX* pre_gelu, const floatX* bias, int OC) {
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * VEC;
    int64_t at = (int64_t)blockIdx.x * OC + c;
    if (c >= OC) return;
    Vec x = load(out + at, OC - c), b = bias ? load(bias + c, OC - c) : Vec{};
#pragma unroll
    for (int j = 0; j < VEC; j++) x.x[j] = (float)(floatX)(x.x[j] + b.x[j]);
    if (pre_gelu) {
        store(pre_gelu + at, OC - c, x);
#pragma unroll
        for (int j = 0; j < VEC; j++) x.x[j] *= gelu_gate_device(x.x[j]);
    }
    store(out + at, OC - c, x);
}

// out = gelu(inp), both (N, C).  Grid as above. Moves 2 elements for each of out's, for 10 FLOPs.
__global__ void gelu_forward_kernel(floatX* out, const floatX* inp, int C) {
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * VEC;
    int64_t at = (int64_t)blockIdx.x * C + c;
    if (c >= C) return;
    Vec x = load(inp + at, C - c);
#pragma unroll
    for (int j = 0; j < VEC; j++) x.x[j] *= gelu_gate_device(x.x[j]);
    store(out + at, C - c, x);
}

// dinp *= gelu'(pre_gelu), both (N, C).  Grid as above. Moves 3 elements for each of dinp's, for
// about 20 FLOPs.
__global__ void gelu_backward_kernel(floatX* dinp, const floatX* pre_gelu, int C) {
    int c = (blockIdx.y * blockDim.x + threadIdx.x) * VEC;
    int64_t at = (int64_t)blockIdx.x * C + c;
    if (c >= C) return;
    Vec d = load(dinp + at, C - c), x = load(pre_gelu + at, C - c);
#pragma unroll
    for (int j = 0; j < VEC; j++) d.x[j] *= gelu_derivative_device(x.x[j]);
    store(dinp + at, C - c, d);
}

// Blocks of 128 Vecs of a row each, for the three kernels above.
static dim3 element_grid(int N, int columns) {
    return dim3(N, (unsigned)ceil_div(columns, 128 * VEC));
}

void matmul_forward(floatX* out, floatX* pre_gelu, const floatX* inp, const floatX* weight,
                    const floatX* bias, int B, int T, int C, int OC) {
    const int N = B * T;
    // cuBLAS: (OC, N) = weight (C, OC)^T inp (C, N)
    Product plain = {true, false, false}, biased = plain, fused = plain;
    biased.epilogue = CUBLASLT_EPILOGUE_BIAS;
    fused.epilogue = CUBLASLT_EPILOGUE_GELU_AUX_BIAS;
    biased.bias = fused.bias = bias;
    fused.pre_gelu = pre_gelu;
    if (bias && pre_gelu && fuses_gelu(OC) && product(out, weight, inp, OC, N, C, fused)) return;
    bool added = bias && product(out, weight, inp, OC, N, C, biased);
    if (!added) product(out, weight, inp, OC, N, C, plain);
    if (!pre_gelu && (added || !bias)) return;
    bias_gelu_kernel<<<element_grid(N, OC), 128>>>(out, pre_gelu, added ? nullptr : bias, OC);
    cuda_check(cudaGetLastError());
}

void gelu_forward(floatX* out, const floatX* inp, int B, int T, int C) {
    gelu_forward_kernel<<<element_grid(B * T, C), 128>>>(out, inp, C);
    cuda_check(cudaGetLastError());
}

// parts[p,o] = sum over the rows n of part p of x[n,o]: the bias gradient. cuBLASLt has an epilogue
// for it, BGRADB, but one that overwrites, in floatX, where gradients add up in float.
// parts (gridDim.x, OC)   x (N, OC).  Part p has the rows p*rows .. p*rows+rows-1. Moves N*OC
// elements, for N*OC FLOPs. Parts are the grid's x, as its y ends at 65,535.
__global__ void column_sums_kernel(float* parts, const floatX* x, int N, int OC, int rows) {
    int first = blockIdx.y * SUM_COLUMNS, c = first + threadIdx.x % 32 * VEC;
    int begin = blockIdx.x * rows, end = min(N, begin + rows);
    Vec sum = {};
    for (int n = begin + threadIdx.x / 32; n < end; n += SUM_WARPS) {
        Vec v = load(x + (int64_t)n * OC + c, OC - c);
#pragma unroll
        for (int j = 0; j < VEC; j++) sum.x[j] += v.x[j];
    }
    float total = sum_of_warps(sum);
    c = first + threadIdx.x;
    if (threadIdx.x < SUM_COLUMNS && c < OC) parts[(int64_t)blockIdx.x * OC + c] = total;
}

void matmul_backward(floatX* dinp, float* dweight, float* dbias, const floatX* dout,
                     const floatX* inp, const floatX* weight, const floatX* pre_gelu, int B, int T,
                     int C, int OC, bool add) {
    const int N = B * T;
    if (dinp) {   // cuBLAS: (C, N) = weight (C, OC) dout (OC, N)
        Product plain = {false, false, false}, fused = plain;
        fused.epilogue = CUBLASLT_EPILOGUE_DGELU;
        fused.pre_gelu = pre_gelu;
        bool done = pre_gelu && fuses_gelu(C) && product(dinp, weight, dout, C, N, OC, fused);
        if (!done) product(dinp, weight, dout, C, N, OC, plain);
        if (!done && pre_gelu) {
            gelu_backward_kernel<<<element_grid(N, C), 128>>>(dinp, pre_gelu, C);
            cuda_check(cudaGetLastError());
        }
    }
    // cuBLAS: (C, OC) = or += inp (C, N) dout^T (N, OC)
    product(dweight, inp, dout, C, OC, N, {false, true, true, add});
    if (!dbias) return;
    int n_parts = (int)ceil_div(N, BIAS_ROWS);
    float* parts = scratch((size_t)n_parts * OC);
    dim3 grid(n_parts, (unsigned)ceil_div(OC, SUM_COLUMNS));
    column_sums_kernel<<<grid, SUM_THREADS>>>(parts, dout, N, OC, BIAS_ROWS);
    cuda_check(cudaGetLastError());
    add_parts(dbias, OC, nullptr, parts, n_parts, OC);
}

// ---- attention ----------------------------------------------------------------------------------
//
// FlashAttention: Dao et al. 2022, arXiv:2205.14135. Forward's loops are those of Dao 2023,
// arXiv:2307.08691: queries outside, keys inside, and one division at the end. Its backward is one
// kernel, whose blocks own keys and add to dq by atomics; here backward is two kernels, which both
// compute scores and dp (7 products for 5), so that no sum's order is an accident. A T x T matrix
// of scores would be the largest buffer of all; here it exists one tile at a time. A block owns OWN
// rows (queries, or keys) of one head of one sequence, and goes through the others, OTHER at a
// time, tile by tile in shared memory.
//
// HS is hs rounded up to 64 or 128: register arrays need a size when the program is compiled. The
// channels from hs to HS hold zeros. There are two forms, one for each floatX.

const int ATTENTION_THREADS = 128;
template <int HS> struct Tile;   // the geometry for one HS

// A tile to rows first .. first+rows-1 of one head: rows below T, channels below hs. head is the
// head's channel 0 in row 0 of the sequence, and rows are `stride` elements apart.
template <int HS, class Number>
__device__ inline void store_tile(floatX* head, int stride, const Number* tile, int first, int rows,
                                  int T, int hs) {
    for (int i = threadIdx.x; i < rows * (HS / VEC); i += ATTENTION_THREADS) {
        int row = i / (HS / VEC), c = i % (HS / VEC) * VEC;
        if (first + row < T && c < hs)
            store(head + (int64_t)(first + row) * stride + c, hs - c,
                  load(tile + row * Tile<HS>::STRIDE + c, VEC));
    }
}

#ifndef LEGIBLE_BF16

// ---- attention on the ordinary units ------------------------------------------------------------
//
// In float32 that is all there is. In float16 too, though a T4 has tensor cores for it: the other
// form's instructions begin with sm_80, where bfloat16 is to be preferred. Tiles are float32, and
// need no more than the 64 KB that the smallest GPU has.
//
// 128 threads make tiles like blocked matrix products do: thread (ty, tx), of 8 x 16, has rows ty,
// ty+8, ty+16, ... and columns tx, tx+16, ... of a tile of scores, and 4 (or twice 4) neighbouring
// channels of those rows of a result. The 16 threads of a row are half a warp. So sums over a row
// are shuffles, and a tile of scores that goes through shared memory, to be read along its rows,
// needs a __syncwarp but no barrier.
//
// Rows of shared memory are 4 floats longer than what they hold: without that, the 16 rows tx would
// all start in the same bank, and their loads would be served one after the other. Rows of scores
// are 16 or 48 apart: the two rows that a warp writes at a time then lie in different halves of the
// 32 banks.

template <int HS> struct Tile {
    static const int OWN = 4096 / HS, OTHER = 2048 / HS;     // rows: 64 and 32, or 32 and 16
    static const int ROWS = OWN / 8, COLUMNS = OTHER / 16;   // of a score tile, per thread
    static const int CHANNELS = HS / 16;                     // of a result, per thread
    static const int STRIDE = HS + 4, SCORE_STRIDE = OTHER == 32 ? 48 : 16;
    static const int OWN_FLOATS = OWN * STRIDE, OTHER_FLOATS = OTHER * STRIDE;
    static const int SCORE_FLOATS = OWN * SCORE_STRIDE;
    static const size_t FORWARD_BYTES =
        sizeof(float) * (OWN_FLOATS + 2 * OTHER_FLOATS + SCORE_FLOATS);
    static const size_t BACKWARD_Q_BYTES = FORWARD_BYTES + sizeof(float) * OWN_FLOATS;
    static const size_t BACKWARD_KV_BYTES = BACKWARD_Q_BYTES;
};

// A tile from there; zeros beyond row T and beyond channel hs.
template <int HS>
__device__ inline void load_tile(float* tile, const floatX* head, int stride, int first, int rows,
                                 int T, int hs) {
    for (int i = threadIdx.x; i < rows * (HS / VEC); i += ATTENTION_THREADS) {
        int row = i / (HS / VEC), c = i % (HS / VEC) * VEC;
        Vec v = load(head + (int64_t)(first + row) * stride + c, first + row < T ? hs - c : 0);
        store(tile + row * Tile<HS>::STRIDE + c, VEC, v);
    }
}

// scores[i][j] = own row (ty + 8i) . other row (tx + 16j), over hs channels. ROWS + COLUMNS reads
// of a float4 are enough for 4 * ROWS * COLUMNS multiply-adds.
template <int HS>
__device__ inline void dot_rows(float (&scores)[Tile<HS>::ROWS][Tile<HS>::COLUMNS],
                                const float* own, const float* other, int hs) {
    typedef Tile<HS> Size;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < Size::ROWS; i++)
#pragma unroll
        for (int j = 0; j < Size::COLUMNS; j++) scores[i][j] = 0;
#pragma unroll 2
    for (int c = 0; c < hs; c += 4) {
        float4 y[Size::COLUMNS];
#pragma unroll
        for (int j = 0; j < Size::COLUMNS; j++)
            y[j] = *(const float4*)&other[(tx + 16 * j) * Size::STRIDE + c];
#pragma unroll
        for (int i = 0; i < Size::ROWS; i++) {
            float4 x = *(const float4*)&own[(ty + 8 * i) * Size::STRIDE + c];
#pragma unroll
            for (int j = 0; j < Size::COLUMNS; j++)
                scores[i][j] += x.x * y[j].x + x.y * y[j].y + x.z * y[j].z + x.w * y[j].w;
        }
    }
}

// result[i] += sum_s p[ty + 8i][s] * other[s], for the thread's channels: 4*tx .. 4*tx+3, and 64
// more where HS is 128.
template <int HS>
__device__ inline void add_rows(float (&result)[Tile<HS>::ROWS][Tile<HS>::CHANNELS], const float* p,
                                const float* other) {
    typedef Tile<HS> Size;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    for (int s = 0; s < Size::OTHER; s += 4) {
        float4 weights[Size::ROWS];
#pragma unroll
        for (int i = 0; i < Size::ROWS; i++)
            weights[i] = *(const float4*)&p[(ty + 8 * i) * Size::SCORE_STRIDE + s];
#pragma unroll
        for (int c = 0; c < Size::CHANNELS; c += 4) {
            const float* column = other + s * Size::STRIDE + 4 * tx + 16 * c;
            float4 y0 = *(const float4*)&column[0], y1 = *(const float4*)&column[Size::STRIDE];
            float4 y2 = *(const float4*)&column[2 * Size::STRIDE],
                   y3 = *(const float4*)&column[3 * Size::STRIDE];
#pragma unroll
            for (int i = 0; i < Size::ROWS; i++) {
                float4 w = weights[i];
                result[i][c] += w.x * y0.x + w.y * y1.x + w.z * y2.x + w.w * y3.x;
                result[i][c + 1] += w.x * y0.y + w.y * y1.y + w.z * y2.y + w.w * y3.y;
                result[i][c + 2] += w.x * y0.z + w.y * y1.z + w.z * y2.z + w.w * y3.z;
                result[i][c + 3] += w.x * y0.w + w.y * y1.w + w.z * y2.w + w.w * y3.w;
            }
        }
    }
}

// A thread's part of a score tile, or of a result, to shared memory.
template <int HS>
__device__ inline void put_scores(float* p,
                                  const float (&scores)[Tile<HS>::ROWS][Tile<HS>::COLUMNS]) {
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < Tile<HS>::ROWS; i++)
#pragma unroll
        for (int j = 0; j < Tile<HS>::COLUMNS; j++)
            p[(ty + 8 * i) * Tile<HS>::SCORE_STRIDE + tx + 16 * j] = scores[i][j];
}

template <int HS>
__device__ inline void put_result(float* tile,
                                  const float (&result)[Tile<HS>::ROWS][Tile<HS>::CHANNELS]) {
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
    for (int i = 0; i < Tile<HS>::ROWS; i++)
#pragma unroll
        for (int c = 0; c < Tile<HS>::CHANNELS; c += 4)
            *(float4*)&tile[(ty + 8 * i) * Tile<HS>::STRIDE + 4 * tx + 16 * c] =
                make_float4(result[i][c], result[i][c + 1], result[i][c + 2], result[i][c + 3]);
}

//     score[t,s] = scale * q[t] . k[s]     lse[t] = log sum_{s<=t} e^score[t,s]
//     out[t] = sum_{s<=t} e^(score[t,s] - lse[t]) v[s]
// qkv (B, T, 3C)   out (B, T, C)   lse (B, NH, T).  Block (x, y): head x % NH of sequence x / NH,
// and the y-th tile of queries from the end: the last ones have the most keys, and what takes
// longest should start first.
// The softmax is the online softmax of Milakov and Gimelshein 2018 (arXiv:1805.02867), which goes
// through the keys once: whenever the maximum m of a row grows, what was summed under the old one
// is scaled by e^(m_old - m_new). 2*B*T*T*C FLOPs, and T/OWN/2 readings of k and v: bound by
// arithmetic.
template <int HS>
__global__ void __launch_bounds__(ATTENTION_THREADS)
attention_forward_kernel(floatX* out, float* lse, const floatX* qkv, int T, int C, int NH) {
    typedef Tile<HS> Size;
    extern __shared__ float4 shared[];
    float *q = (float*)shared, *k = q + Size::OWN_FLOATS;
    float *v = k + Size::OTHER_FLOATS, *p = v + Size::OTHER_FLOATS;
    const int hs = C / NH, b = blockIdx.x / NH, h = blockIdx.x % NH;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const int t0 = (gridDim.y - 1 - blockIdx.y) * Size::OWN;
    const float scale = 1.0f / sqrtf((float)hs);
    const floatX* head = qkv + (int64_t)b * T * 3 * C + h * hs;
    load_tile<HS>(q, head, 3 * C, t0, Size::OWN, T, hs);

    float o[Size::ROWS][Size::CHANNELS] = {}, m[Size::ROWS];
    float l[Size::ROWS];   // over this thread's columns only
    for (int i = 0; i < Size::ROWS; i++) {
        m[i] = -INFINITY;
        l[i] = 0;
    }
    for (int s0 = 0; s0 < min(T, t0 + Size::OWN); s0 += Size::OTHER) {
        __syncthreads();   // other warps may still be reading the last tile from k and v
        load_tile<HS>(k, head + C, 3 * C, s0, Size::OTHER, T, hs);
        load_tile<HS>(v, head + 2 * C, 3 * C, s0, Size::OTHER, T, hs);
        __syncthreads();   // k and v, and before the first round q, are complete
        float score[Size::ROWS][Size::COLUMNS];
        dot_rows<HS>(score, q, k, hs);
#pragma unroll
        for (int i = 0; i < Size::ROWS; i++) {
            int t = t0 + ty + 8 * i;
            float most = m[i];
#pragma unroll
            for (int j = 0; j < Size::COLUMNS; j++) {
                score[i][j] = s0 + tx + 16 * j <= t ? scale * score[i][j] : -INFINITY;
                most = fmaxf(most, score[i][j]);
            }
            most = lane_max(most, 16);   // finite: the first tile holds s = 0, which every t sees
            float rescale = expf(m[i] - most);
            m[i] = most;
            l[i] *= rescale;
#pragma unroll
            for (int c = 0; c < Size::CHANNELS; c++) o[i][c] *= rescale;
#pragma unroll
            for (int j = 0; j < Size::COLUMNS; j++) {
                score[i][j] = expf(score[i][j] - most);   // 0 where it was masked
                l[i] += score[i][j];
            }
        }
        put_scores<HS>(p, score);
        __syncwarp();   // a row of p was written, and will be read, by the same half of a warp
        add_rows<HS>(o, p, v);
    }
#pragma unroll
    for (int i = 0; i < Size::ROWS; i++) {
        int t = t0 + ty + 8 * i;
        float total = lane_sum(l[i], 16), inverse = 1.0f / total;
#pragma unroll
        for (int c = 0; c < Size::CHANNELS; c++) o[i][c] *= inverse;
        if (tx == 0 && t < T) lse[(int64_t)blockIdx.x * T + t] = m[i] + logf(total);
    }
    put_result<HS>(q, o);   // nobody but this half of the warp reads these rows of q, and it has
    __syncthreads();        // all rows are there; they leave as they came, 16 bytes a thread
    store_tile<HS>(out + (int64_t)b * T * C + h * hs, C, q, t0, Size::OWN, T, hs);
}

// With p[t,s] = e^(scale * q[t] . k[s] - lse[t]), recomputed, and dp[t,s] = dout[t] . v[s]:
//     dq[t] = sum_{s<=t} scale * p[t,s] * (dp[t,s] - D[t]) * k[s]
// dqkv, qkv (B, T, 3C)   dout (B, T, C)   lse, D (B, NH, T).  Blocks as in forward: OWN queries,
// all keys up to them. 3 products, 3*B*T*T*C FLOPs.
template <int HS>
__global__ void __launch_bounds__(ATTENTION_THREADS)
attention_backward_q_kernel(floatX* dqkv, const floatX* dout, const floatX* qkv,
                            const float* lse, const float* D, int T, int C, int NH) {
    typedef Tile<HS> Size;
    extern __shared__ float4 shared[];
    float *q = (float*)shared, *d = q + Size::OWN_FLOATS, *k = d + Size::OWN_FLOATS;
    float *v = k + Size::OTHER_FLOATS, *ds = v + Size::OTHER_FLOATS;
    const int hs = C / NH, b = blockIdx.x / NH, h = blockIdx.x % NH;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const int t0 = (gridDim.y - 1 - blockIdx.y) * Size::OWN;
    const float scale = 1.0f / sqrtf((float)hs);
    const int64_t at = (int64_t)b * T * 3 * C + h * hs;
    load_tile<HS>(q, qkv + at, 3 * C, t0, Size::OWN, T, hs);
    load_tile<HS>(d, dout + (int64_t)b * T * C + h * hs, C, t0, Size::OWN, T, hs);

    float dq[Size::ROWS][Size::CHANNELS] = {}, lse_t[Size::ROWS], D_t[Size::ROWS];
#pragma unroll
    for (int i = 0; i < Size::ROWS; i++) {
        int t = t0 + ty + 8 * i;
        lse_t[i] = t < T ? lse[(int64_t)blockIdx.x * T + t] : 0;
        D_t[i] = t < T ? D[(int64_t)blockIdx.x * T + t] : 0;
    }
    for (int s0 = 0; s0 < min(T, t0 + Size::OWN); s0 += Size::OTHER) {
        __syncthreads();   // other warps may still be reading the last tile from k and v
        load_tile<HS>(k, qkv + at + C, 3 * C, s0, Size::OTHER, T, hs);
        load_tile<HS>(v, qkv + at + 2 * C, 3 * C, s0, Size::OTHER, T, hs);
        __syncthreads();   // k and v, and before the first round q and d, are complete
        float p[Size::ROWS][Size::COLUMNS], dp[Size::ROWS][Size::COLUMNS];
        dot_rows<HS>(p, q, k, hs);
        dot_rows<HS>(dp, d, v, hs);
#pragma unroll
        for (int i = 0; i < Size::ROWS; i++)
#pragma unroll
            for (int j = 0; j < Size::COLUMNS; j++) {
                int t = t0 + ty + 8 * i, s = s0 + tx + 16 * j;
                bool seen = s <= t && t < T;
                dp[i][j] =
                    seen ? scale * expf(scale * p[i][j] - lse_t[i]) * (dp[i][j] - D_t[i]) : 0.0f;
            }
        put_scores<HS>(ds, dp);
        __syncwarp();   // as in forward
        add_rows<HS>(dq, ds, k);
    }
    put_result<HS>(q, dq);
    __syncthreads();   // all rows are there
    store_tile<HS>(dqkv + at, 3 * C, q, t0, Size::OWN, T, hs);
}

// With p and dp as above, for the queries t >= s:
//     dv[s] = sum_t p[t,s] * dout[t]     dk[s] = sum_t scale * p[t,s] * (dp[t,s] - D[t]) * q[t]
// A block owns OWN keys, and goes through the queries from the first that sees one of them. Its
// tiles of scores are transposed: rows are keys. blockIdx.y counts from the first keys on, which
// have the most queries. 4 products, 4*B*T*T*C FLOPs.
template <int HS>
__global__ void __launch_bounds__(ATTENTION_THREADS)
attention_backward_kv_kernel(floatX* dqkv, const floatX* dout, const floatX* qkv,
                             const float* lse, const float* D, int T, int C, int NH) {
    typedef Tile<HS> Size;
    extern __shared__ float4 shared[];
    float *k = (float*)shared, *v = k + Size::OWN_FLOATS, *q = v + Size::OWN_FLOATS;
    float *d = q + Size::OTHER_FLOATS, *weights = d + Size::OTHER_FLOATS;
    const int hs = C / NH, b = blockIdx.x / NH, h = blockIdx.x % NH;
    const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
    const int s0 = blockIdx.y * Size::OWN;
    const float scale = 1.0f / sqrtf((float)hs);
    const int64_t at = (int64_t)b * T * 3 * C + h * hs;
    load_tile<HS>(k, qkv + at + C, 3 * C, s0, Size::OWN, T, hs);
    load_tile<HS>(v, qkv + at + 2 * C, 3 * C, s0, Size::OWN, T, hs);

    float dk[Size::ROWS][Size::CHANNELS] = {}, dv[Size::ROWS][Size::CHANNELS] = {};
    for (int t0 = s0; t0 < T; t0 += Size::OTHER) {
        __syncthreads();   // other warps may still be reading the last tile from q and d
        load_tile<HS>(q, qkv + at, 3 * C, t0, Size::OTHER, T, hs);
        load_tile<HS>(d, dout + (int64_t)b * T * C + h * hs, C, t0, Size::OTHER, T, hs);
        __syncthreads();   // q and d, and before the first round k and v, are complete
        float p[Size::ROWS][Size::COLUMNS], ds[Size::ROWS][Size::COLUMNS];
        dot_rows<HS>(p, k, q, hs);
        dot_rows<HS>(ds, v, d, hs);
#pragma unroll
        for (int j = 0; j < Size::COLUMNS; j++) {
            int t = t0 + tx + 16 * j;
            float lse_t = t < T ? lse[(int64_t)blockIdx.x * T + t] : 0;
            float D_t = t < T ? D[(int64_t)blockIdx.x * T + t] : 0;
#pragma unroll
            for (int i = 0; i < Size::ROWS; i++) {
                bool seen = s0 + ty + 8 * i <= t && t < T;
                p[i][j] = seen ? expf(scale * p[i][j] - lse_t) : 0.0f;
                ds[i][j] = scale * p[i][j] * (ds[i][j] - D_t);
            }
        }
        put_scores<HS>(weights, p);
        __syncwarp();   // as in forward
        add_rows<HS>(dv, weights, d);
        __syncwarp();   // the other lanes have read p: ds may take its place
        put_scores<HS>(weights, ds);
        __syncwarp();
        add_rows<HS>(dk, weights, q);
    }
    put_result<HS>(k, dk);
    put_result<HS>(v, dv);
    __syncthreads();   // all rows are there
    store_tile<HS>(dqkv + at + C, 3 * C, k, s0, Size::OWN, T, hs);
    store_tile<HS>(dqkv + at + 2 * C, 3 * C, v, s0, Size::OWN, T, hs);
}

#else

// ---- attention on tensor cores ------------------------------------------------------------------
//
// The same in bfloat16, for sm_80 and later. A warp's tensor core does
//     mma.m16n8k16    C (16 x 8, float) += A (16 x 16) B (16 x 8)
// 4,096 FLOPs in an instruction, on matrices that lie in the registers of its 32 lanes. All consist
// of 8 x 8 pieces, the fragments. A lane has two neighbours of one row of each: as bfloat16 in one
// register, as float in two.
//
//     column    0    1    2    3    4    5    6    7        A           B          C
//     row 0    [lane 0 ] [lane 1 ] [lane 2 ] [lane 3 ]
//         1    [     4 ] [     5 ] [     6 ] [     7 ]   a[0] a[2]   b[0]^T    c[0] c[1]
//         2    [     8 ] [     9 ] [    10 ] [    11 ]   a[1] a[3]   b[1]^T    c[2] c[3]
//         ...
//         7    [    28 ] [    29 ] [    30 ] [    31 ]   lane 4*row + column / 2
//
// So lane 6 has of C row 1, columns 4 and 5, in c[0] and c[1], and row 9 in c[2] and c[3]. Of B it
// has the transposed pieces: column 1, rows 4 and 5, in b[0]. (PTX manual, "Matrix Fragments for
// mma.m16n8k16 with floating point type".) Three things follow:
//   - ldmatrix loads four pieces of a tile in shared memory; lane l says where row l % 8 of piece
//     l / 8 lies, 16 bytes. Where a tile's rows are B's columns, as k's are in q . k, pieces are
//     wanted as they lie. Where they are B's rows, as v's are in p v, ldmatrix transposes them.
//   - Scores leave one product as C, and enter the next as A, whose pieces have C's layout: two Cs
//     beside each other, rounded to bfloat16, are an A. They never leave the registers, and nor do
//     the results, which are rows of one warp from beginning to end.
//   - A row of scores lies in 4 lanes: two shuffles give its maximum, and its sum.
//
// cp.async copies from global to shared memory past the registers, while the thread goes on. So two
// tiles of each kind take turns: one is worked on, and the next is on its way.
//
// ldmatrix reads the 8 rows of a piece at once, 4 words of each, and there are 32 banks of a word.
// Rows of HS elements, 128 or 256 bytes, would all begin in bank 0 and be read one after the other:
// that is why they are 16 bytes longer, and begin 4 banks apart.

template <int HS> struct Tile {
    static const int OWN = 64;                                      // 4 warps' 16 rows
    static const int OTHER = 4096 / HS, OTHER_QUERIES = 2048 / HS;  // 64 and 32, or 32 and 16
    static const int STRIDE = HS + 8;
    static const int OWN_SIZE = OWN * STRIDE, OTHER_SIZE = OTHER * STRIDE;
    static const int QUERIES_SIZE = OTHER_QUERIES * STRIDE;
    static const size_t FORWARD_BYTES = sizeof(floatX) * (OWN_SIZE + 4 * OTHER_SIZE);
    static const size_t BACKWARD_Q_BYTES = sizeof(floatX) * (2 * OWN_SIZE + 4 * OTHER_SIZE);
    static const size_t BACKWARD_KV_BYTES =
        sizeof(floatX) * (2 * OWN_SIZE + 4 * QUERIES_SIZE) + sizeof(float) * 4 * OTHER_QUERIES;
};

const float LOG2E = 1.44269504f;   // e^x = 2^(x * LOG2E), and 2^x is what the hardware has

__device__ inline uint32_t shared_address(const void* p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

// 16 bytes, not to be kept in the L1 cache, and 4; zeros if they do not exist, and then nothing is
// read.
__device__ inline void copy_16(floatX* to, const floatX* from, bool exists) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(exists ? 16 : 0)
                 : "memory");
}

__device__ inline void copy_4(float* to, const float* from, bool exists) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)),
                 "l"(from), "r"(exists ? 4 : 0)
                 : "memory");
}

// For this thread's own copies: others' are seen after a barrier.
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_all;" ::: "memory");
}

// Inlined by force, as all that take fragments: an array whose address is passed on is no register.
__device__ __forceinline__ void load_pieces(uint32_t (&piece)[4], const floatX* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(piece[0]), "=r"(piece[1]), "=r"(piece[2]), "=r"(piece[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void load_pieces_transposed(uint32_t (&piece)[4], const floatX* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(piece[0]), "=r"(piece[1]), "=r"(piece[2]), "=r"(piece[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Rows first .. first+rows-1 of one head begin their way into a tile, as load_tile of float32 has
// it. Rows that do not lie on 16 bytes come by way of registers, and are there at once.
template <int HS>
__device__ inline void fetch_tile(floatX* tile, const floatX* head, int stride, int first, int rows,
                                  int T, int hs) {
    for (int i = threadIdx.x; i < rows * (HS / VEC); i += ATTENTION_THREADS) {
        int row = i / (HS / VEC), c = i % (HS / VEC) * VEC, left = first + row < T ? hs - c : 0;
        floatX* to = tile + row * Tile<HS>::STRIDE + c;
        const floatX* from = head + (int64_t)(first + row) * stride + c;
        if (hs % VEC == 0) copy_16(to, from, left > 0);
        else store(to, VEC, load(from, left));
    }
}

// The i-th pair of tiles with these rows, to the i % 2-th of two places.
template <int HS>
__device__ inline void fetch_pair(floatX* places, int i, int rows, const floatX* head1, int stride1,
                                  const floatX* head2, int stride2, int T, int hs) {
    floatX* first = places + i % 2 * 2 * rows * Tile<HS>::STRIDE;
    fetch_tile<HS>(first, head1, stride1, i * rows, rows, T, hs);
    fetch_tile<HS>(first + rows * Tile<HS>::STRIDE, head2, stride2, i * rows, rows, T, hs);
}

// scores = own . other: 16 rows by 8*PIECES rows, over hs channels. own is this warp's first row.
// ldmatrix reads a byte for each 8 to 13 FLOPs, and shared memory gives a multiprocessor 128 in a
// cycle, in which an H200's could do 4,270 FLOPs: it can come to 24 to 38% of its peak here.
template <int HS, int PIECES>
__device__ __forceinline__ void dot_rows(float (&scores)[PIECES][4], const floatX* own,
                                         const floatX* other, int hs) {
    const int lane = threadIdx.x % 32, STRIDE = Tile<HS>::STRIDE;
    own += lane % 16 * STRIDE + lane / 16 * 8;   // pieces: above, below; then to the right
    other += (lane % 8 + lane / 16 * 8) * STRIDE + lane / 8 % 2 * 8;   // left, right; then below
#pragma unroll
    for (int j = 0; j < PIECES; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) scores[j][e] = 0;
#pragma unroll(PIECES == 2 ? 1 : 4)   // dk and dv of 128 channels leave few registers
    for (int c = 0; c < hs; c += 16) {
        uint32_t a[4], b[4];
        load_pieces(a, own + c);
#pragma unroll
        for (int j = 0; j < PIECES; j += 2) {
            load_pieces(b, other + 8 * j * STRIDE + c);
            multiply_add(scores[j], a, b[0], b[1]);
            multiply_add(scores[j + 1], a, b[2], b[3]);
        }
    }
}

__device__ inline uint32_t round_pair(float x, float y) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
    uint32_t word;
    memcpy(&word, &pair, sizeof word);
    return word;
}

// result += weights other, where weights (16 x 8*PIECES) are a result of dot_rows. 16 FLOPs a byte.
template <int HS, int PIECES>
__device__ __forceinline__ void add_rows(float (&result)[HS / 8][4],
                                         const float (&weights)[PIECES][4], const floatX* other) {
    const int lane = threadIdx.x % 32, STRIDE = Tile<HS>::STRIDE;
    other += lane % 16 * STRIDE + lane / 16 * 8;   // pieces: above, below; then to the right
#pragma unroll
    for (int j = 0; j < PIECES; j += 2) {
        const float(&left)[4] = weights[j], (&right)[4] = weights[j + 1];
        uint32_t a[4] = {round_pair(left[0], left[1]), round_pair(left[2], left[3]),
                         round_pair(right[0], right[1]), round_pair(right[2], right[3])};
#pragma unroll
        for (int c = 0; c < HS; c += 16) {
            uint32_t b[4];
            load_pieces_transposed(b, other + 8 * j * STRIDE + c);
            multiply_add(result[c / 8], a, b[0], b[1]);
            multiply_add(result[c / 8 + 1], a, b[2], b[3]);
        }
    }
}

// A warp's result to its rows of a tile.
template <int HS>
__device__ __forceinline__ void put_result(floatX* tile, const float (&result)[HS / 8][4]) {
    const int lane = threadIdx.x % 32;
    tile += lane / 4 * Tile<HS>::STRIDE + lane % 4 * 2;
#pragma unroll
    for (int c = 0; c < HS / 8; c++)
#pragma unroll
        for (int e = 0; e < 4; e += 2)
            *(__nv_bfloat162*)&tile[4 * e * Tile<HS>::STRIDE + 8 * c] =
                __floats2bfloat162_rn(result[c][e], result[c][e + 1]);
}

// As in float32, but that the softmax's exponents are of 2, which is what the hardware has: with
// a = scale * LOG2E and m[t] the largest q[t] . k[s] so far,
//     p[t,s] = 2^(a * q[t] . k[s] - a * m[t])     out[t] = sum_{s<=t} p[t,s] v[s] / sum p[t,s]
// qkv (B, T, 3C)   out (B, T, C)   lse (B, NH, T), natural.  Blocks of OWN queries, a warp 16 of
// them. 2 products, 2*B*T*T*C FLOPs, and T/OWN/2 readings of k and v.
template <int HS>
__global__ void __launch_bounds__(ATTENTION_THREADS)
attention_forward_kernel(floatX* out, float* lse, const floatX* qkv, int T, int C, int NH) {
    typedef Tile<HS> Size;
    extern __shared__ float4 shared[];
    floatX *q = (floatX*)shared, *kv = q + Size::OWN_SIZE;
    const int hs = C / NH, b = blockIdx.x / NH, h = blockIdx.x % NH, lane = threadIdx.x % 32;
    const int t0 = (gridDim.y - 1 - blockIdx.y) * Size::OWN, end = min(T, t0 + Size::OWN);
    const int first = threadIdx.x / 32 * 16;   // this warp's rows of the tile: 16 from here
    const int row = t0 + first + lane / 4, column = lane % 4 * 2;   // the lane's first element
    const float scale = LOG2E / sqrtf((float)hs);
    const floatX* head = qkv + (int64_t)b * T * 3 * C + h * hs;
    auto fetch = [&](int i) {
        fetch_pair<HS>(kv, i, Size::OTHER, head + C, 3 * C, head + 2 * C, 3 * C, T, hs);
    };
    fetch_tile<HS>(q, head, 3 * C, t0, Size::OWN, T, hs);
    fetch(0);

    float o[HS / 8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {};   // rows row and row + 8
    for (int i = 0; i * Size::OTHER < end; i++) {
        wait_for_copies();   // for this thread's part of tiles i
        __syncthreads();     // all parts are there, and nobody reads tiles i - 1 any more
        if ((i + 1) * Size::OTHER < end) fetch(i + 1);
        const int s0 = i * Size::OTHER;
        if (s0 > t0 + first + 15 || t0 + first >= T) continue;   // it sees none of them
        const floatX *k = kv + i % 2 * 2 * Size::OTHER_SIZE, *v = k + Size::OTHER_SIZE;
        float score[Size::OTHER / 8][4];
        dot_rows<HS>(score, q + first * Size::STRIDE, k, hs);
        if (s0 + Size::OTHER - 1 > t0 + first)   // the diagonal goes through
#pragma unroll
            for (int j = 0; j < Size::OTHER / 8; j++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (s0 + 8 * j + column + e % 2 > row + e / 2 * 8) score[j][e] = -INFINITY;
#pragma unroll
        for (int e = 0; e < 4; e += 2) {
            float most = m[e / 2];
#pragma unroll
            for (int j = 0; j < Size::OTHER / 8; j++)
                most = fmaxf(most, fmaxf(score[j][e], score[j][e + 1]));
            most = lane_max(most, 4);   // finite, as in float32
            float rescale = exp2f(scale * (m[e / 2] - most)), scaled = scale * most;
            m[e / 2] = most;
            l[e / 2] *= rescale;
#pragma unroll
            for (int c = 0; c < HS / 8; c++) {
                o[c][e] *= rescale;
                o[c][e + 1] *= rescale;
            }
#pragma unroll
            for (int j = 0; j < Size::OTHER / 8; j++) {
                score[j][e] = exp2f(scale * score[j][e] - scaled);
                score[j][e + 1] = exp2f(scale * score[j][e + 1] - scaled);
                l[e / 2] += score[j][e] + score[j][e + 1];
            }
        }
        add_rows<HS>(o, score, v);
    }
#pragma unroll
    for (int e = 0; e < 4; e += 2) {
        float total = lane_sum(l[e / 2], 4), inverse = 1.0f / total;
#pragma unroll
        for (int c = 0; c < HS / 8; c++) {
            o[c][e] *= inverse;
            o[c][e + 1] *= inverse;
        }
        int t = row + 4 * e;
        if (column == 0 && t < T)
            lse[(int64_t)blockIdx.x * T + t] = scale / LOG2E * m[e / 2] + logf(total);
    }
    __syncwarp();   // nobody but this warp reads these rows of q, and now all its lanes have
    put_result<HS>(q + first * Size::STRIDE, o);
    __syncthreads();   // all rows are there
    store_tile<HS>(out + (int64_t)b * T * C + h * hs, C, q, t0, Size::OWN, T, hs);
}

//     p[t,s] = 2^(a * q[t] . k[s] - LOG2E * lse[t])     ds[t,s] = p[t,s] * (dout[t] . v[s] - D[t])
//     dq[t] = scale * sum_{s<=t} ds[t,s] * k[s]
// dqkv, qkv (B, T, 3C)   dout (B, T, C)   lse, D (B, NH, T).  Blocks as in forward. 3 products,
// 3*B*T*T*C FLOPs, and T/OWN/2 readings of k and v. Beyond the diagonal p may be infinite: ds is
// chosen to be 0 there, since 0 times it would be NaN.
template <int HS>
__global__ void __launch_bounds__(ATTENTION_THREADS)
attention_backward_q_kernel(floatX* dqkv, const floatX* dout, const floatX* qkv,
                            const float* lse, const float* D, int T, int C, int NH) {
    typedef Tile<HS> Size;
    extern __shared__ float4 shared[];
    floatX *q = (floatX*)shared, *d = q + Size::OWN_SIZE, *kv = d + Size::OWN_SIZE;
    const int hs = C / NH, b = blockIdx.x / NH, h = blockIdx.x % NH, lane = threadIdx.x % 32;
    const int t0 = (gridDim.y - 1 - blockIdx.y) * Size::OWN, end = min(T, t0 + Size::OWN);
    const int first = threadIdx.x / 32 * 16;   // as in forward
    const int row = t0 + first + lane / 4, column = lane % 4 * 2;
    const float scale = LOG2E / sqrtf((float)hs);
    const int64_t at = (int64_t)b * T * 3 * C + h * hs;
    const floatX* head = qkv + at;
    auto fetch = [&](int i) {
        fetch_pair<HS>(kv, i, Size::OTHER, head + C, 3 * C, head + 2 * C, 3 * C, T, hs);
    };
    fetch_tile<HS>(q, head, 3 * C, t0, Size::OWN, T, hs);
    fetch_tile<HS>(d, dout + (int64_t)b * T * C + h * hs, C, t0, Size::OWN, T, hs);
    fetch(0);

    float dq[HS / 8][4] = {}, lse_t[2], D_t[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
        int t = row + 8 * r;
        lse_t[r] = t < T ? LOG2E * lse[(int64_t)blockIdx.x * T + t] : 0;
        D_t[r] = t < T ? D[(int64_t)blockIdx.x * T + t] : 0;
    }
    for (int i = 0; i * Size::OTHER < end; i++) {
        wait_for_copies();
        __syncthreads();   // as in forward
        if ((i + 1) * Size::OTHER < end) fetch(i + 1);
        const int s0 = i * Size::OTHER;
        if (s0 > t0 + first + 15 || t0 + first >= T) continue;
        const floatX *k = kv + i % 2 * 2 * Size::OTHER_SIZE, *v = k + Size::OTHER_SIZE;
        float p[Size::OTHER / 8][4], ds[Size::OTHER / 8][4];
        dot_rows<HS>(p, q + first * Size::STRIDE, k, hs);
        dot_rows<HS>(ds, d + first * Size::STRIDE, v, hs);
        const bool diagonal = s0 + Size::OTHER - 1 > t0 + first;
#pragma unroll
        for (int j = 0; j < Size::OTHER / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                bool seen = !diagonal || s0 + 8 * j + column + e % 2 <= row + e / 2 * 8;
                p[j][e] = exp2f(scale * p[j][e] - lse_t[e / 2]);
                ds[j][e] = seen ? p[j][e] * (ds[j][e] - D_t[e / 2]) : 0.0f;
            }
        add_rows<HS>(dq, ds, k);
    }
#pragma unroll
    for (int c = 0; c < HS / 8; c++)
#pragma unroll
        for (int e = 0; e < 4; e++) dq[c][e] *= scale / LOG2E;   // once, not each ds
    __syncwarp();   // as in forward
    put_result<HS>(q + first * Size::STRIDE, dq);
    __syncthreads();   // all rows are there
    store_tile<HS>(dqkv + at, 3 * C, q, t0, Size::OWN, T, hs);
}

// With p and ds as above, for the queries t >= s:
//     dv[s] = sum_t p[t,s] * dout[t]     dk[s] = scale * sum_t ds[t,s] * q[t]
// The products are transposed: a warp has 16 keys, and a row of scores is a key's. 4 products,
// 4*B*T*T*C FLOPs, and T/OWN/2 readings of q and dout. Three blocks are to share a multiprocessor's
// 65,536 registers: at most 168 a thread.
template <int HS>
__global__ void __launch_bounds__(ATTENTION_THREADS, 3)
attention_backward_kv_kernel(floatX* dqkv, const floatX* dout, const floatX* qkv,
                             const float* lse, const float* D, int T, int C, int NH) {
    typedef Tile<HS> Size;
    const int OTHER = Size::OTHER_QUERIES;
    extern __shared__ float4 shared[];
    floatX *k = (floatX*)shared, *v = k + Size::OWN_SIZE, *qd = v + Size::OWN_SIZE;
    float* lse_D = (float*)(qd + 4 * Size::QUERIES_SIZE);   // of the queries in q, then in d
    const int hs = C / NH, b = blockIdx.x / NH, h = blockIdx.x % NH, lane = threadIdx.x % 32;
    const int s0 = blockIdx.y * Size::OWN, first = threadIdx.x / 32 * 16;
    const int row = s0 + first + lane / 4, column = lane % 4 * 2;
    const float scale = LOG2E / sqrtf((float)hs);
    const int64_t at = (int64_t)b * T * 3 * C + h * hs;
    const floatX *head = qkv + at, *dhead = dout + (int64_t)b * T * C + h * hs;
    auto fetch = [&](int i) {
        fetch_pair<HS>(qd, i, OTHER, head, 3 * C, dhead, C, T, hs);
        int j = threadIdx.x % OTHER, t = i * OTHER + j;
        if ((int)threadIdx.x < 2 * OTHER)
            copy_4(&lse_D[i % 2 * 2 * OTHER + threadIdx.x],
                   ((int)threadIdx.x < OTHER ? lse : D) + (int64_t)blockIdx.x * T + t, t < T);
    };
    fetch_tile<HS>(k, head + C, 3 * C, s0, Size::OWN, T, hs);
    fetch_tile<HS>(v, head + 2 * C, 3 * C, s0, Size::OWN, T, hs);
    fetch(s0 / OTHER);

    float dk[HS / 8][4] = {}, dv[HS / 8][4] = {};
    for (int i = s0 / OTHER; i * OTHER < T; i++) {
        wait_for_copies();
        __syncthreads();   // as in forward, with lse and D
        if ((i + 1) * OTHER < T) fetch(i + 1);
        const int t0 = i * OTHER;
        if (t0 + OTHER <= s0 + first || s0 + first >= T) continue;   // all queries come before
        const floatX *q = qd + i % 2 * 2 * Size::QUERIES_SIZE, *d = q + Size::QUERIES_SIZE;
        const float* statistics = lse_D + i % 2 * 2 * OTHER + column;
        float p[OTHER / 8][4], ds[OTHER / 8][4];
        dot_rows<HS>(p, k + first * Size::STRIDE, q, hs);
        const bool diagonal = t0 < s0 + first + 15;
#pragma unroll
        for (int j = 0; j < OTHER / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                bool seen = !diagonal || row + e / 2 * 8 <= t0 + 8 * j + column + e % 2;
                float exponent = scale * p[j][e] - LOG2E * statistics[8 * j + e % 2];
                p[j][e] = seen ? exp2f(exponent) : 0.0f;
            }
        add_rows<HS>(dv, p, d);
        dot_rows<HS>(ds, v + first * Size::STRIDE, d, hs);
#pragma unroll
        for (int j = 0; j < OTHER / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                ds[j][e] = p[j][e] * (ds[j][e] - statistics[OTHER + 8 * j + e % 2]);
        add_rows<HS>(dk, ds, q);
    }
#pragma unroll
    for (int c = 0; c < HS / 8; c++)
#pragma unroll
        for (int e = 0; e < 4; e++) dk[c][e] *= scale / LOG2E;
    __syncwarp();   // as in forward
    put_result<HS>(k + first * Size::STRIDE, dk);
    put_result<HS>(v + first * Size::STRIDE, dv);
    __syncthreads();   // all rows are there
    store_tile<HS>(dqkv + at + C, 3 * C, k, s0, Size::OWN, T, hs);
    store_tile<HS>(dqkv + at + 2 * C, 3 * C, v, s0, Size::OWN, T, hs);
}

#endif

// D[b,h,t] = dout[b,t,h] . out[b,t,h], over the hs channels of head h
// dout, out (B, T, C)   D (B, NH, T).  16 threads a dot product. Moves 2 elements for each of
// out's, for 2 FLOPs.
__global__ void attention_D_kernel(float* D, const floatX* dout, const floatX* out, int B, int T,
                                   int C, int NH) {
    const int hs = C / NH;
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 16, count = (int64_t)B * T * NH;
    float sum = 0;
    if (i < count)   // the shuffles below need every lane, those beyond the end as well
        for (int c = threadIdx.x % 16 * VEC; c < hs; c += 16 * VEC) {
            Vec a = load(dout + i * hs + c, hs - c), b = load(out + i * hs + c, hs - c);
#pragma unroll
            for (int j = 0; j < VEC; j++) sum += a.x[j] * b.x[j];
        }
    sum = lane_sum(sum, 16);
    int64_t n = i / NH, h = i % NH, b = n / T, t = n % T;
    if (i < count && threadIdx.x % 16 == 0) D[(b * NH + h) * T + t] = sum;
}

// More than 48 KB of shared memory must be asked for.
template <class Kernel> static void grant_shared(Kernel* kernel, size_t bytes) {
    cuda_check(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes));
}

template <int HS>
static void launch_forward(floatX* out, float* lse, const floatX* qkv, int B, int T, int C,
                           int NH) {
    const size_t bytes = Tile<HS>::FORWARD_BYTES;
    dim3 grid(B * NH, (unsigned)ceil_div(T, Tile<HS>::OWN));
    grant_shared(attention_forward_kernel<HS>, bytes);
    attention_forward_kernel<HS><<<grid, ATTENTION_THREADS, bytes>>>(out, lse, qkv, T, C, NH);
    cuda_check(cudaGetLastError());
}

template <int HS>
static void launch_backward(floatX* dqkv, const floatX* dout, const floatX* qkv, const float* lse,
                            const float* D, int B, int T, int C, int NH) {
    const size_t bytes_q = Tile<HS>::BACKWARD_Q_BYTES, bytes_kv = Tile<HS>::BACKWARD_KV_BYTES;
    dim3 grid(B * NH, (unsigned)ceil_div(T, Tile<HS>::OWN));
    grant_shared(attention_backward_q_kernel<HS>, bytes_q);
    attention_backward_q_kernel<HS><<<grid, ATTENTION_THREADS, bytes_q>>>(dqkv, dout, qkv, lse, D,
                                                                          T, C, NH);
    cuda_check(cudaGetLastError());
    grant_shared(attention_backward_kv_kernel<HS>, bytes_kv);
    attention_backward_kv_kernel<HS><<<grid, ATTENTION_THREADS, bytes_kv>>>(dqkv, dout, qkv, lse, D,
                                                                            T, C, NH);
    cuda_check(cudaGetLastError());
}

void attention_forward(floatX* out, float* lse, const floatX* qkv, int B, int T, int C, int NH) {
    int hs = C / NH;
    if (hs > 128)
        fail("attention: heads of %d channels; on a GPU, 128 at most (raise --heads)", hs);
    if (hs <= 64) launch_forward<64>(out, lse, qkv, B, T, C, NH);
    else launch_forward<128>(out, lse, qkv, B, T, C, NH);
}

void attention_backward(floatX* dqkv, float* D, const floatX* dout, const floatX* qkv,
                        const floatX* out, const float* lse, int B, int T, int C, int NH) {
    attention_D_kernel<<<(unsigned)ceil_div((int64_t)B * T * NH, 16), 256>>>(D, dout, out, B, T, C,
                                                                             NH);
    cuda_check(cudaGetLastError());
    if (C / NH <= 64) launch_backward<64>(dqkv, dout, qkv, lse, D, B, T, C, NH);
    else launch_backward<128>(dqkv, dout, qkv, lse, D, B, T, C, NH);
}

// ---- classifier ---------------------------------------------------------------------------------

// losses[n] = log(sum_v e^logits[n,v]) - logits[n,target]
// dlogits[n,v] = (e^logits[n,v] / sum - [v == target]) * dloss for v < V, and 0 for V <= v < Vp
// logits (N, Vp)   dlogits (N, Vp), may be logits, or null: not wanted   losses, targets (N).
// A block a row of some 50,000. Two passes: the first finds maximum and sum together, rescaling as
// attention does, and the second writes. What the second reads has just passed through the L2
// cache. Moves 2 elements (of memory) for each logit, for about 25 FLOPs.
__global__ void __launch_bounds__(1024)
classifier_kernel(float* losses, floatX* dlogits, const floatX* logits, const int* targets,
                  float dloss, int V, int Vp) {
    __shared__ float maxima[32], sums[32];
    const int64_t n = blockIdx.x;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int target = targets[n];
    const floatX* x = logits + n * Vp;
    const float x_target = (float)x[target];   // now: the second pass may write over it
    const float LOWEST = -3.402823466e38f;     // not -infinity: -infinity - -infinity is NaN
    float m = LOWEST, sum = 0;
    for (int v = threadIdx.x * VEC; v < V; v += blockDim.x * VEC) {
        Vec logit = load(x + v, Vp - v);
        float most = m;
#pragma unroll
        for (int j = 0; j < VEC; j++) {
            if (v + j >= V) logit.x[j] = -INFINITY;
            most = fmaxf(most, logit.x[j]);
        }
        sum *= expf(m - most);
        m = most;
#pragma unroll
        for (int j = 0; j < VEC; j++) sum += expf(logit.x[j] - m);
    }
    float most = lane_max(m, 32);
    sum = lane_sum(sum * expf(m - most), 32);
    if (lane == 0) {
        maxima[warp] = most;
        sums[warp] = sum;
    }
    __syncthreads();   // the warps' maxima and sums are there; now each warp adds them up
    m = lane < warps ? maxima[lane] : LOWEST;
    sum = lane < warps ? sums[lane] : 0;
    most = lane_max(m, 32);
    sum = lane_sum(sum * expf(m - most), 32);
    if (threadIdx.x == 0) losses[n] = logf(sum) + most - x_target;
    if (!dlogits) return;
    const float factor = dloss / sum;
    for (int v = threadIdx.x * VEC; v < Vp; v += blockDim.x * VEC) {
        Vec d = load(x + v, Vp - v);   // this thread's own elements, before anyone has written them
#pragma unroll
        for (int j = 0; j < VEC; j++) {
            d.x[j] = v + j < V ? expf(d.x[j] - most) * factor : 0.0f;
            if (v + j == target) d.x[j] -= dloss;
        }
        store(dlogits + n * Vp + v, Vp - v, d);
    }
}

void classifier(float* losses, floatX* dlogits, const floatX* logits, const int* targets,
                float dloss, int B, int T, int V, int Vp) {
    int threads = (int)std::min<int64_t>(1024, ceil_div(ceil_div(V, VEC), 32) * 32);
    classifier_kernel<<<B * T, threads>>>(losses, dlogits, logits, targets, dloss, V, Vp);
    cuda_check(cudaGetLastError());
}

// total[0] = sum_n losses[n].  One block: 4*N bytes are little, and its order is always the same.
__global__ void sum_losses_kernel(double* total, const float* losses, int N) {
    __shared__ double sums[32];
    double sum = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) sum += losses[n];
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) *total = sum;
}

void sum_losses(double* total, const float* losses, int N) {
    sum_losses_kernel<<<1, 1024>>>(total, losses, N);
    cuda_check(cudaGetLastError());
}

// ---- the optimizer ------------------------------------------------------------------------------

// parts[block] = sum of squares of the elements that this block meets in a grid-stride loop.
// grads (n)   parts (gridDim.x).  In double: squares of 1e20 are infinite
// in float, and double units, though few, keep up with memory. Moves 4*n bytes, for 2*n FLOPs.
__global__ void square_sums_kernel(double* parts, const float* grads, size_t n) {
    __shared__ double sums[32];
    double sum = 0;
    const size_t step = (size_t)gridDim.x * blockDim.x * VEC;
    for (size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * VEC; i < n; i += step) {
        Vec g = load(grads + i, (int64_t)(n - i));
#pragma unroll
        for (int j = 0; j < VEC; j++) sum += (double)g.x[j] * g.x[j];
    }
    sum = block_sum(sum, sums);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

float grad_norm(const float* grads, size_t n) {
    const int THREADS = 512;
    int n_parts = (int)std::min<int64_t>(NORM_PARTS, ceil_div((int64_t)n, THREADS * VEC));
    double* parts = (double*)scratch(2 * NORM_PARTS);   // a double has the room of two floats
    square_sums_kernel<<<n_parts, THREADS>>>(parts, grads, n);
    cuda_check(cudaGetLastError());
    std::vector<double> host(n_parts);
    to_host(host.data(), parts, sizeof(double) * n_parts);
    double total = 0;
    for (double part : host) total += part;
    return (float)sqrt(total);
}

// grads = 0 for all tensors whose gradient is no product's.  Block (i, k): part k of tensor i.
__global__ void zero_gradients_kernel(float* grads, const Tensor* tensors) {
    const Tensor t = tensors[blockIdx.x];
    if (t.product) return;
    const size_t step = (size_t)gridDim.y * blockDim.x * VEC;
    for (size_t i = (blockIdx.y * blockDim.x + threadIdx.x) * VEC; i < t.count; i += step)
        store(grads + t.first + i, (int64_t)(t.count - i), Vec{});
}

void zero_gradients(float* grads, const Tensor* tensors, int n_tensors) {
    zero_gradients_kernel<<<dim3(n_tensors, 16), 256>>>(grads, tensors);
    cuda_check(cudaGetLastError());
}

// Does element i's tensor decay? It is the last that begins at i or before, found by halving: 8
// steps for the 148 tensors of 124M, in the L1 cache.
__device__ inline bool decays(const Tensor* tensors, int n_tensors, size_t i) {
    int low = 0;
    for (int high = n_tensors; high - low > 1;) {
        int middle = (low + high) / 2;
        (tensors[middle].first <= i ? low : high) = middle;
    }
    return tensors[low].decay;
}

// AdamW's numbers, each rounded to float once.
struct AdamWFloats {
    float lr, beta1, rest1, beta2, rest2, correction1, correction2, eps, weight_decay, grad_scale;
};

// g = grad_scale * grads     m = beta1 m + (1 - beta1) g     v = beta2 v + (1 - beta2) g^2
// master -= lr * (m / correction1 / (sqrt(v / correction2) + eps) + weight_decay * master)
// params = master
// master, grads, m, v (n) float   params (n) floatX, may be master   tensors: null if all decay.
// A thread a Vec, which lies in one tensor: they begin at multiples of 64. All tensors in one
// launch, with what lies between them, which is 0 and stays so. Reads 16 and writes 12 bytes (14
// with 16-bit params) an element, for 16 FLOPs: four streams in and three or four out, all
// coalesced.
__global__ void adamw_kernel(floatX* params, float* master, const float* grads, float* m_buffer,
                             float* v_buffer, size_t n, AdamWFloats a, const Tensor* tensors,
                             int n_tensors) {
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * VEC;
    if (i >= n) return;
    int64_t left = (int64_t)(n - i);
    Vec w = load(master + i, left), g = load(grads + i, left);
    Vec m = load(m_buffer + i, left), v = load(v_buffer + i, left);
    if (tensors && !decays(tensors, n_tensors, i)) a.weight_decay = 0;
#pragma unroll
    for (int j = 0; j < VEC; j++) {
        float gradient = a.grad_scale * g.x[j];
        m.x[j] = a.beta1 * m.x[j] + a.rest1 * gradient;
        v.x[j] = a.beta2 * v.x[j] + a.rest2 * gradient * gradient;
        float mhat = m.x[j] / a.correction1, vhat = v.x[j] / a.correction2;
        w.x[j] -= a.lr * (mhat / (sqrtf(vhat) + a.eps) + a.weight_decay * w.x[j]);
    }
    store(m_buffer + i, left, m);
    store(v_buffer + i, left, v);
    store(master + i, left, w);
    if ((void*)params != (void*)master) store(params + i, left, w);
}

void adamw_update(floatX* params, float* master, const float* grads, float* m, float* v, size_t n,
                  AdamW a, const Tensor* tensors, int n_tensors) {
    const double correction1 = 1 - power(a.beta1, a.step), correction2 = 1 - power(a.beta2, a.step);
    AdamWFloats floats = {(float)a.lr, (float)a.beta1, (float)(1 - a.beta1), (float)a.beta2,
                          (float)(1 - a.beta2), (float)correction1, (float)correction2,
                          (float)a.eps, (float)a.weight_decay, a.grad_scale};
    adamw_kernel<<<(unsigned)ceil_div((int64_t)n, 256 * VEC), 256>>>(params, master, grads, m, v, n,
                                                                     floats, tensors, n_tensors);
    cuda_check(cudaGetLastError());
}

// ---- the GPU's peak -----------------------------------------------------------------------------

// Dense peaks by the makers' data sheets, in TFLOP/s: 16 bits with float32 sums on tensor cores,
// and float32 on the ordinary units. Names are cudaGetDeviceProperties's, and must be equal: a GPU
// whose name merely resembles one of these (a laptop's, a part of one under MIG) has another peak,
// and is measured.
struct Peak {
    const char* name;
    double bits16, float32;
};

const Peak PEAKS[] = {
    {"NVIDIA H200", 989.4, 66.9},            {"NVIDIA H100 80GB HBM3", 989.4, 66.9},
    {"NVIDIA H100 PCIe", 756, 51.2},         {"NVIDIA H100 NVL", 835, 60},
    {"NVIDIA A100-SXM4-40GB", 312, 19.5},    {"NVIDIA A100-SXM4-80GB", 312, 19.5},
    {"NVIDIA A100-PCIE-40GB", 312, 19.5},    {"NVIDIA A100 80GB PCIe", 312, 19.5},
    {"NVIDIA A10", 125, 31.2},               {"NVIDIA A40", 149.7, 37.4},
    {"NVIDIA L4", 121, 30.3},                {"NVIDIA L40S", 362, 91.6},
    {"NVIDIA GeForce RTX 3090", 71, 35.6},   {"NVIDIA GeForce RTX 4090", 165.2, 82.6},
    {"NVIDIA RTX A6000", 154.8, 38.7},       {"Tesla T4", 65, 8.1},
};

// Numbers in [-1, 1) without order: a product of zeros is faster than any real one, since no bits
// toggle.
__global__ void fill_kernel(floatX* x, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = (floatX)((float)(uint32_t)(i * 2654435761u) / 2147483648.0f - 1.0f);
}

// Seconds of one product of two n x n matrices.
static double seconds_of_product(floatX* out, const floatX* a, const floatX* b, int n) {
    float sink;
    product(out, a, b, n, n, n, {true, false, false});   // the first also loads cuBLAS's kernels
    to_host(&sink, out, sizeof sink);                    // and waits
    auto start = std::chrono::steady_clock::now();
    product(out, a, b, n, n, n, {true, false, false});
    to_host(&sink, out, sizeof sink);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void device_dtype(const char* dtype) {
    if (*dtype && strcmp(dtype, TYPE_X.dtype) != 0)
        fail("--dtype %s: this program was built for %s (make train_gpt2cu PRECISION=%s)", dtype,
             TYPE_X.dtype, dtype);
}

bool device_profile() { return false; }

double device_peak_flops() {
    for (const Peak& peak : PEAKS)
        if (device.name == peak.name)
            return 1e12 * (BITS16 ? peak.bits16 : peak.float32);
    // Unknown: the best product of cuBLAS, on matrices that grow until one takes 10 ms.
    double best = 0;
    for (int n = 512, slow = 0; n <= 8192 && !slow; n *= 2) {
        int elements = n * n;
        floatX* x[3];
        for (floatX*& p : x) {
            p = (floatX*)device_alloc(sizeof(floatX) * elements);
            fill_kernel<<<(unsigned)ceil_div(elements, 256), 256>>>(p, elements);
            cuda_check(cudaGetLastError());
        }
        for (int run = 0; run < 3; run++) {
            double seconds = seconds_of_product(x[0], x[1], x[2], n);
            best = std::max(best, 2.0 * n * n * n / seconds);
            slow = seconds > 0.01;
        }
        for (floatX* p : x) device_free(p);
    }
    return best;
}

#include "trainer.h"
