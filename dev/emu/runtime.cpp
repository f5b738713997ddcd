// runtime.cpp - launches, the device's properties, and the error codes of the CUDA runtime.
#include <algorithm>
#include <map>
#include <numeric>
#include <vector>
#include "emu.h"
// Defined by cuda_runtime.h in the program: __CUDA_ARCH__, and, if it was compiled with checks, 1.
extern "C" int emu_compiled_for;
extern "C" __attribute__((weak)) int emu_built_with_checks;
namespace emu {
bool checking, counting, was_reset;
uint64_t seed;
std::atomic<bool> kernel_runs;
static cudaError_t last_error, sticky_error;
// By a kernel's address: what cudaFuncSetAttribute allows it, and what its variables took.
// (Within functions, as constructors of the program's own variables may come first.)
static auto& opt_ins() { static std::map<const void*, int> m; return m; }
static auto& static_shared() { static std::map<const void*, size_t> m; return m; }
std::recursive_mutex& turns() {
    static std::recursive_mutex m;
    if (worker.thread) fault(EMU_CALLER, "a kernel calls the CUDA runtime: not supported");
    return m;
}
static void start() __attribute__((constructor(101)));
static void start() {
    const char* check = getenv("EMU_CHECK");
    const char* stats = getenv("EMU_STATS");
    const char* order = getenv("EMU_SEED");
    checking = &emu_built_with_checks && !(check && !strcmp(check, "0"));
    counting = checking && stats && strcmp(stats, "0");
    if (checking) begin_report();
    catch_signals();
    seed = order ? strtoull(order, nullptr, 10) : 0;
}

// ---- errors -------------------------------------------------------------------------------------
// The last error is what cudaGetLastError returns and clears. An error inside a kernel is sticky:
// on a GPU the context is lost, and every later call returns it.
cudaError_t set_error(cudaError_t error) {
    if (sticky_error) return sticky_error;
    if (error) last_error = error;
    return error;
}
void set_sticky(cudaError_t error) { sticky_error = last_error = error; }

// ---- launches -----------------------------------------------------------------------------------
// Bytes of dynamic shared memory allowed to a kernel. Where its address is not known, of which of
// several overloads or of a template's instances, any permission counts.
static int opted_in(const Kernel& kernel) {
    int most = 0;
    for (auto& [f, bytes] : opt_ins())
        if (!kernel.address || f == kernel.address) most = std::max(most, bytes);
    return most;
}
static cudaError_t check_launch(const Kernel& kernel, const Config& c) {
    uint64_t threads = (uint64_t)c.block.x * c.block.y * c.block.z;
    uint64_t blocks = (uint64_t)c.grid.x * c.grid.y * c.grid.z;
    if (!threads || threads > MAX_THREADS || c.block.x > 1024 || c.block.y > 1024 ||
        c.block.z > 64 || !blocks || c.grid.x > 0x7fffffff || c.grid.y > 65535 || c.grid.z > 65535)
        return cudaErrorInvalidConfiguration;
    auto known = static_shared().find(kernel.address);
    size_t shared = c.shared + (known == static_shared().end() ? 0 : known->second);
    if (shared > SHARED_DEFAULT && (int64_t)c.shared > opted_in(kernel))
        return cudaErrorInvalidValue;
    if (shared > SHARED_OPTIN) return cudaErrorInvalidValue;
    if (c.cooperative) {
        int per_sm = 0;
        cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, kernel.address, (int)threads,
                                                      shared);
        if (blocks > (uint64_t)per_sm * SM_COUNT) return cudaErrorCooperativeLaunchTooLarge;
    }
    return valid_stream(c.stream);
}
// A launch that failed, and nobody has asked for errors since.
static cudaError_t unasked;
static Launch failed;
void note_launch_error() {
    if (!unasked) return;
    dim3 g = failed.config.grid, b = failed.config.block;
    worker.launch = &failed, worker.block = nullptr, worker.thread = nullptr;
    note(nullptr, "launch error: %s, and nobody asked for it\nit never ran: grid (%u,%u,%u), block "
         "(%u,%u,%u), %zu bytes of dynamic shared memory\ncall cudaGetLastError() after a launch",
         cudaGetErrorString(unasked), g.x, g.y, g.z, b.x, b.y, b.z, failed.config.shared);
    worker.launch = nullptr;
}
// What kernels print, a GPU keeps until the host waits for something. So their stdout is another.
static FILE *output, *shown;     // where it is kept, and where it goes then
static char* kept;
static size_t kept_bytes;
static Launch printed;           // the last launch that printed
void show_output() {
    if (!output) return;
    stdout = shown;
    fflush(output);
    fwrite(kept, 1, kept_bytes, stdout);
    rewind(output);
}
static void run_and_keep_output(Launch& launch) {
    if (!output) output = open_memstream(&kept, &kept_bytes);
    shown = stdout, stdout = output;
    long before = ftell(output);
    run_launch(launch);
    stdout = shown;
    if (ftell(output) > before) printed.kernel = launch.kernel;
}
void note_lost_output() {
    if (!output || fflush(output) || !kept_bytes) return;
    worker.launch = &printed;
    note(nullptr, "%zu bytes that kernels printed were never seen, as the host did not wait\n"
         "call cudaDeviceSynchronize() after the launch", kept_bytes);
    worker.launch = nullptr;
}
void launch_kernel(const Kernel& kernel, const Config& config) {
    static uint32_t launches;
    if (sticky_error) return;
    if (worker.thread)
        fault(nullptr, "a kernel launches a kernel: dynamic parallelism is not supported\n"
              "the inner launch: %s, %s:%d", kernel.name, kernel.file, kernel.line);
    Turn mine;
    if (cudaError_t error = set_error(check_launch(kernel, config))) {
        unasked = error, failed.kernel = kernel, failed.config = config;
        return;
    }
    uint64_t blocks = (uint64_t)config.grid.x * config.grid.y * config.grid.z;
    if (blocks > 0x7fffffff)
        fault(nullptr, "%s: a grid of %llu blocks is more than the emulator runs", kernel.name,
              (unsigned long long)blocks);
    Launch launch{};
    launch.kernel = kernel;
    launch.config = config;
    launch.blocks = (int)blocks;
    launch.threads = config.block.x * config.block.y * config.block.z;
    launch.arguments = kernel.body;
    launch.id = ++launches;
    launch.work = begin_op(config.stream, kernel.name, nullptr);
    std::vector<int> order;
    if (seed) {
        order.resize(blocks);
        std::iota(order.begin(), order.end(), 0);
        uint64_t random = seed ^ launch.id;
        for (size_t i = blocks; i > 1; i--) std::swap(order[i - 1], order[random_next(random) % i]);
        launch.order = order.data();
    }
    if (counting) stats_begin(launch);
    protect_heap(true);
    run_and_keep_output(launch);
    protect_heap(false);
    if (launch.static_shared && kernel.address)
        static_shared()[kernel.address] = launch.static_shared;
    if (launch.abandoned) set_sticky((cudaError_t)launch.abandoned.load());
}
}  // namespace emu
using namespace emu;

// ---- kernels as values --------------------------------------------------------------------------
cudaError_t cudaFuncSetAttribute(KernelAddress f, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return ok();
    Turn mine;
    if (value < 0 || (size_t)value > SHARED_OPTIN) return set_error(cudaErrorInvalidValue);
    opt_ins()[f.p] = value;
    return ok();
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, KernelAddress f) {
    Turn mine;
    *a = {};
    a->sharedSizeBytes = static_shared().count(f.p) ? static_shared()[f.p] : 0;
    a->maxThreadsPerBlock = MAX_THREADS;
    a->numRegs = 32;
    a->ptxVersion = a->binaryVersion = 80;
    a->maxDynamicSharedSizeBytes = opt_ins().count(f.p) ? opt_ins()[f.p] : (int)SHARED_DEFAULT;
    return ok();
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, KernelAddress,
                                                          int block_size, size_t shared) {
    if (block_size <= 0 || block_size > MAX_THREADS) return set_error(cudaErrorInvalidValue);
    int warps = (block_size + WARP - 1) / WARP;
    *blocks = std::min(THREADS_PER_SM / (warps * WARP), BLOCKS_PER_SM);
    if (shared) *blocks = std::min(*blocks, (int)(SHARED_OPTIN / shared));
    return ok();
}

// ---- the codes of errors ------------------------------------------------------------------------
#define EMU_TEXT(name, value, text) case name: return text;
const char* cudaGetErrorName(cudaError_t error) {
    switch (error) { EMU_CUDA_ERRORS(EMU_NAME) }
    return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t error) {
    switch (error) { EMU_CUDA_ERRORS(EMU_TEXT) }
    return "unrecognized error code";
}
cudaError_t cudaPeekAtLastError() {
    unasked = cudaSuccess;
    return last_error;
}
cudaError_t cudaGetLastError() {
    cudaError_t error = cudaPeekAtLastError();
    last_error = sticky_error;
    return error;
}

// ---- the device ---------------------------------------------------------------------------------
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* p, int device) {
    if (device) return set_error(cudaErrorInvalidDevice);
    *p = {};
    snprintf(p->name, sizeof p->name, "CPU emulating CUDA");
    size_t free;
    cudaMemGetInfo(&free, &p->totalGlobalMem);
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = MAX_THREADS;
    p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = 0x7fffffff;
    p->maxGridSize[1] = p->maxGridSize[2] = 65535;
#define EMU_SET(T, name, value, ...) p->name = value;
    EMU_DEVICE_PROPERTIES(EMU_SET)
    return ok();
}
cudaError_t cudaDeviceReset() {
    was_reset = true;
    return cudaDeviceSynchronize();
}

// ---- what a kernel calls ------------------------------------------------------------------------
long long clock64() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}
// assert() in a kernel stops the launch, and the program learns of it from cudaErrorAssert.
extern "C" void __assert_fail(const char* expression, const char* file, unsigned line,
                              const char* function) noexcept {
    fprintf(stderr, "%s:%u: %s: ", file, line, function);
    if (!worker.thread) {
        fprintf(stderr, "Assertion `%s' failed.\n", expression);
        abort();
    }
    fprintf(stderr, "block: [%u,%u,%u], thread: [%u,%u,%u] Assertion `%s` failed.\n", blockIdx.x,
            blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, expression);
    abandon(cudaErrorAssert);
}
