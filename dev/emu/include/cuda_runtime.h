// cuda_runtime.h - the emulator's own: what a .cu file sees of CUDA, for an ordinary C++ compiler.
// Two halves. The first is the language: qualifiers, threadIdx and its family, and what emucc's
// rewriting of launches and of __shared__ needs. The second is the runtime's API, with CUDA's names
// and numbers. Device functions (shuffles, atomics, intrinsics) are in device_functions.h. Macros
// named EMU_... stand for families of functions that differ in little.
#pragma once
#include <assert.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <atomic>
#include <cmath>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>
#include "vector_types.h"

// ---- the language -------------------------------------------------------------------------------
#define __global__
#define __device__
#define __host__
#define __constant__      // emucc registers the variables that are marked so (emu::Symbol below)
#define __managed__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __builtin_assume(condition)
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __attribute__((aligned(n)))
#define CUDART_CB
#define CUDART_VERSION 12040
#define CUDA_VERSION 12040
#define CUDART_INF_F __builtin_inff()
#define CUDART_INF __builtin_inf()
#define CUDART_NAN_F __builtin_nanf("")
#define CUDART_NAN __builtin_nan("")
#define CUDART_PI_F 3.141592654f
#define CUDART_PI 3.1415926535897931
// A thread of a block is a fiber, and a block stays on one thread of the operating system: these
// can be thread_local variables (not macros), set at every switch. A debugger sees them as it sees
// any variable, and a program may have variables of the same names.
extern __thread uint3 threadIdx;
extern __thread uint3 blockIdx;
extern __thread dim3 blockDim;
extern __thread dim3 gridDim;
static const int warpSize = 32;
typedef struct emu_stream* cudaStream_t;
typedef struct emu_event* cudaEvent_t;
namespace emu {
// One static __shared__ variable. emucc turns `__shared__ float tile[32][33];` into a Slot and a
// reference to the place which this block's memory has for it.
struct Slot {
    const char* name;
    std::atomic<int> id{0};
    constexpr Slot(const char* name) : name(name) {}
};
void* shared(Slot& slot, size_t bytes);
void* dynamic_shared();      // extern __shared__
// A __device__, __constant__ or __managed__ variable, known to checks and cudaMemcpyToSymbol.
enum SymbolKind { DEVICE, CONSTANT, MANAGED };
struct Symbol { Symbol(const char* name, const void* address, size_t bytes, SymbolKind kind); };
// What functions of the API take: such a variable, whatever its type, and a kernel.
struct SymbolAddress {
    const void* p;
    template <class T> SymbolAddress(T&& variable)      // CUDA refuses &variable: null
        : p(std::is_lvalue_reference_v<T> ? (const void*)&variable : nullptr) {}
};
struct KernelAddress {
    const void* p;
    template <class F> KernelAddress(F* kernel) : p((const void*)kernel) {}
};
// A launch. body calls the kernel with copies of the arguments, once for each thread of the grid.
struct Config {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
    bool cooperative;
};
inline Config config(dim3 grid, dim3 block, size_t shared = 0, cudaStream_t stream = 0) {
    return {grid, block, shared, stream, false};
}
struct Kernel {
    const char* name;        // as written at the launch: "matmul<float, 16>"
    const char* file;
    int line;
    const void* address;     // of the function, or null where the name leaves it open
    void (*call)(void*);
    void* body;
    size_t body_bytes;
};
void launch_kernel(const Kernel& kernel, const Config& config);
bool not_launched();      // host code has called a kernel without <<<>>>
bool on_device();
// The kernel's function, if its name alone says which: emucc wraps this call into a lambda that
// does not compile for a template whose arguments are deduced, or for one of several overloads.
template <class T, class... P>
inline const void* address_of(void (*f)(P...)) { return (const void*)f; }
template <class A> inline auto address(A find, int) -> decltype(find(0)) { return find(0); }
template <class A> inline const void* address(A, long) { return nullptr; }
template <class Address, class Body>
inline void launch(const char* name, const char* file, int line, Address find, Config config,
                   Body body) {
    launch_kernel({name, file, line, address(find, 0), [](void* p) { (*(Body*)p)(); }, &body,
                   sizeof body}, config);
}
}  // namespace emu

// ---- errors -------------------------------------------------------------------------------------
#define EMU_CUDA_ERRORS(X) \
    X(cudaSuccess, 0, "no error") \
    X(cudaErrorInvalidValue, 1, "invalid argument") \
    X(cudaErrorMemoryAllocation, 2, "out of memory") \
    X(cudaErrorInitializationError, 3, "initialization error") \
    X(cudaErrorInvalidConfiguration, 9, "invalid configuration argument") \
    X(cudaErrorInvalidPitchValue, 12, "invalid pitch argument") \
    X(cudaErrorInvalidSymbol, 13, "invalid device symbol") \
    X(cudaErrorInvalidDevicePointer, 17, "invalid device pointer") \
    X(cudaErrorInvalidMemcpyDirection, 21, "invalid copy direction for memcpy") \
    X(cudaErrorInsufficientDriver, 35, \
      "CUDA driver version is insufficient for CUDA runtime version") \
    X(cudaErrorMissingConfiguration, 52, "__global__ function call is not configured") \
    X(cudaErrorInvalidDeviceFunction, 98, "invalid device function") \
    X(cudaErrorNoDevice, 100, "no CUDA-capable device is detected") \
    X(cudaErrorInvalidDevice, 101, "invalid device ordinal") \
    X(cudaErrorNoKernelImageForDevice, 209, \
      "no kernel image is available for execution on the device") \
    X(cudaErrorInvalidResourceHandle, 400, "invalid resource handle") \
    X(cudaErrorNotReady, 600, "device not ready") \
    X(cudaErrorIllegalAddress, 700, "an illegal memory access was encountered") \
    X(cudaErrorLaunchOutOfResources, 701, "too many resources requested for launch") \
    X(cudaErrorPeerAccessAlreadyEnabled, 704, "peer access is already enabled") \
    X(cudaErrorPeerAccessNotEnabled, 705, "peer access has not been enabled") \
    X(cudaErrorAssert, 710, "device-side assert triggered") \
    X(cudaErrorHostMemoryAlreadyRegistered, 712, \
      "part or all of the requested memory range is already mapped") \
    X(cudaErrorHostMemoryNotRegistered, 713, \
      "pointer does not correspond to a registered memory region") \
    X(cudaErrorLaunchFailure, 719, "unspecified launch failure") \
    X(cudaErrorCooperativeLaunchTooLarge, 720, "too many blocks in cooperative launch") \
    X(cudaErrorNotSupported, 801, "operation not supported") \
    X(cudaErrorUnknown, 999, "unknown error")
#define EMU_ENUM(name, value, ...) name = value,
#define EMU_NAME(name, ...) case name: return #name;
enum cudaError { EMU_CUDA_ERRORS(EMU_ENUM) };
typedef cudaError cudaError_t;
const char* cudaGetErrorName(cudaError_t error);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();

// ---- the device ---------------------------------------------------------------------------------
struct cudaUUID_t { char bytes[16]; };
enum cudaComputeMode {
    cudaComputeModeDefault, cudaComputeModeExclusive, cudaComputeModeProhibited,
    cudaComputeModeExclusiveProcess
};
// A property's type, name and value (in terms of ../emu.h); the attribute that asks for it.
#define EMU_DEVICE_PROPERTIES(X) \
    X(size_t, sharedMemPerBlock, SHARED_DEFAULT, MaxSharedMemoryPerBlock, 8) \
    X(size_t, totalConstMem, 64 << 10, TotalConstantMemory, 9) \
    X(size_t, memPitch, 0x7fffffff, MaxPitch, 11) \
    X(size_t, textureAlignment, 512, TextureAlignment, 14) \
    X(size_t, surfaceAlignment, 512, SurfaceAlignment, 30) \
    X(size_t, texturePitchAlignment, 512, TexturePitchAlignment, 51) \
    X(size_t, sharedMemPerMultiprocessor, 228 << 10, MaxSharedMemoryPerMultiprocessor, 81) \
    X(size_t, sharedMemPerBlockOptin, SHARED_OPTIN, MaxSharedMemoryPerBlockOptin, 97) \
    X(size_t, reservedSharedMemPerBlock, 1024, ReservedSharedMemoryPerBlock, 111) \
    X(int, maxThreadsPerBlock, MAX_THREADS, MaxThreadsPerBlock, 1) \
    X(int, warpSize, WARP, WarpSize, 10) \
    X(int, regsPerBlock, 65536, MaxRegistersPerBlock, 12) \
    X(int, clockRate, 1000000, ClockRate, 13) \
    X(int, deviceOverlap, 1, GpuOverlap, 15) \
    X(int, multiProcessorCount, SM_COUNT, MultiProcessorCount, 16) \
    X(int, kernelExecTimeoutEnabled, 0, KernelExecTimeout, 17) \
    X(int, integrated, 0, Integrated, 18) \
    X(int, canMapHostMemory, 1, CanMapHostMemory, 19) \
    X(int, computeMode, cudaComputeModeDefault, ComputeMode, 20) \
    X(int, concurrentKernels, 1, ConcurrentKernels, 31) \
    X(int, ECCEnabled, 0, EccEnabled, 32) \
    X(int, memoryClockRate, 1000000, MemoryClockRate, 36) \
    X(int, memoryBusWidth, 64, GlobalMemoryBusWidth, 37) \
    X(int, l2CacheSize, 1 << 20, L2CacheSize, 38) \
    X(int, maxThreadsPerMultiProcessor, THREADS_PER_SM, MaxThreadsPerMultiProcessor, 39) \
    X(int, asyncEngineCount, 1, AsyncEngineCount, 40) \
    X(int, unifiedAddressing, 1, UnifiedAddressing, 41) \
    X(int, major, emu_compiled_for / 100, ComputeCapabilityMajor, 75) \
    X(int, minor, emu_compiled_for / 10 % 10, ComputeCapabilityMinor, 76) \
    X(int, streamPrioritiesSupported, 1, StreamPrioritiesSupported, 78) \
    X(int, globalL1CacheSupported, 1, GlobalL1CacheSupported, 79) \
    X(int, localL1CacheSupported, 1, LocalL1CacheSupported, 80) \
    X(int, regsPerMultiprocessor, 65536, MaxRegistersPerMultiprocessor, 82) \
    X(int, managedMemory, 1, ManagedMemory, 83) \
    X(int, pageableMemoryAccess, 0, PageableMemoryAccess, 88) \
    X(int, concurrentManagedAccess, 1, ConcurrentManagedAccess, 89) \
    X(int, cooperativeLaunch, 1, CooperativeLaunch, 95) \
    X(int, hostRegisterSupported, 1, HostRegisterSupported, 99) \
    X(int, maxBlocksPerMultiProcessor, BLOCKS_PER_SM, MaxBlocksPerMultiprocessor, 106) \
    X(int, memoryPoolsSupported, 0, MemoryPoolsSupported, 115)
#define EMU_MEMBER(T, name, ...) T name;
struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    size_t totalGlobalMem;
    int maxThreadsDim[3], maxGridSize[3];
    EMU_DEVICE_PROPERTIES(EMU_MEMBER)
    int tccDriver, pciBusID, pciDeviceID, pciDomainID, isMultiGpuBoard;      // all these are 0
    int maxTexture1D, maxTexture2D[2], maxTexture3D[3];
    int maxTexture1DLayered[2], maxTexture2DLayered[3], computePreemptionSupported;
    int hostNativeAtomicSupported, canUseHostPointerForRegisteredMem;
    int persistingL2CacheMaxSize, singleToDoublePrecisionPerfRatio, cooperativeMultiDeviceLaunch;
};
#define EMU_ATTRIBUTE(T, property, value, name, number) cudaDevAttr##name = number,
enum cudaDeviceAttr {
    cudaDevAttrMaxBlockDimX = 2, cudaDevAttrMaxBlockDimY, cudaDevAttrMaxBlockDimZ,
    cudaDevAttrMaxGridDimX, cudaDevAttrMaxGridDimY, cudaDevAttrMaxGridDimZ,
    EMU_DEVICE_PROPERTIES(EMU_ATTRIBUTE)
};
enum cudaLimit {
    cudaLimitStackSize, cudaLimitPrintfFifoSize, cudaLimitMallocHeapSize,
    cudaLimitPersistingL2CacheSize = 6
};
enum cudaFuncCache {
    cudaFuncCachePreferNone, cudaFuncCachePreferShared, cudaFuncCachePreferL1,
    cudaFuncCachePreferEqual
};
enum { cudaDeviceScheduleAuto = 0, cudaDeviceScheduleSpin = 1, cudaDeviceScheduleYield = 2,
       cudaDeviceScheduleBlockingSync = 4, cudaDeviceMapHost = 8 };
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaDeviceReset();
cudaError_t cudaMemGetInfo(size_t* free, size_t* total);
inline cudaError_t cudaThreadSynchronize() { return cudaDeviceSynchronize(); }
inline cudaError_t cudaThreadExit() { return cudaDeviceReset(); }
namespace emu {
cudaError_t set_error(cudaError_t error);
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
    cudaDeviceProp p;
    if (cudaError_t error = cudaGetDeviceProperties(&p, device)) return error;
    int x = attribute - cudaDevAttrMaxBlockDimX, gx = attribute - cudaDevAttrMaxGridDimX;
    if (x >= 0 && x < 3) *value = p.maxThreadsDim[x];
    if (gx >= 0 && gx < 3) *value = p.maxGridSize[gx];
#define EMU_GET(T, property, v, name, number) \
    if (attribute == cudaDevAttr##name) *value = (int)p.property;
    EMU_DEVICE_PROPERTIES(EMU_GET)
    return emu::set_error(cudaSuccess);
}
inline cudaError_t cudaSetDevice(int device) {
    return emu::set_error(device ? cudaErrorInvalidDevice : cudaSuccess);
}
#define EMU_ANSWER(name, value, parameters) \
    inline cudaError_t name parameters { *p = value; return emu::set_error(cudaSuccess); }
EMU_ANSWER(cudaGetDeviceCount, 1, (int* p)) EMU_ANSWER(cudaGetDevice, 0, (int* p))
EMU_ANSWER(cudaRuntimeGetVersion, CUDART_VERSION, (int* p))
EMU_ANSWER(cudaDriverGetVersion, CUDART_VERSION, (int* p))
EMU_ANSWER(cudaDeviceCanAccessPeer, 0, (int* p, int, int))
EMU_ANSWER(cudaDeviceGetLimit, (limit == cudaLimitStackSize ? 256 << 10 : 8 << 20),
           (size_t* p, cudaLimit limit))
EMU_ANSWER(cudaDeviceGetStreamPriorityRange, *least = 0; *p = -5, (int* least, int* p))
#define EMU_WITHOUT_EFFECT(name, ...) \
    inline cudaError_t name(__VA_ARGS__) { return emu::set_error(cudaSuccess); }
EMU_WITHOUT_EFFECT(cudaSetDeviceFlags, unsigned)
EMU_WITHOUT_EFFECT(cudaDeviceSetLimit, cudaLimit, size_t)
EMU_WITHOUT_EFFECT(cudaDeviceSetCacheConfig, cudaFuncCache)
EMU_WITHOUT_EFFECT(cudaProfilerStart)
EMU_WITHOUT_EFFECT(cudaProfilerStop)
EMU_WITHOUT_EFFECT(cudaFuncSetCacheConfig, emu::KernelAddress, cudaFuncCache)
enum cudaDataType_t {
    CUDA_R_32F = 0, CUDA_R_64F = 1, CUDA_R_16F = 2, CUDA_R_8I = 3, CUDA_R_32I = 10, CUDA_R_16BF = 14
};
typedef cudaDataType_t cudaDataType;

// ---- memory -------------------------------------------------------------------------------------
enum cudaMemcpyKind {
    cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum { cudaHostAllocDefault = 0, cudaHostAllocPortable = 1, cudaHostAllocMapped = 2,
       cudaHostAllocWriteCombined = 4, cudaHostRegisterDefault = 0, cudaHostRegisterPortable = 1,
       cudaHostRegisterMapped = 2, cudaMemAttachGlobal = 1, cudaMemAttachHost = 2 };
enum cudaMemoryType {
    cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged
};
struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
    void *devicePointer, *hostPointer;
};
enum cudaMemoryAdvise {
    cudaMemAdviseSetReadMostly = 1, cudaMemAdviseUnsetReadMostly, cudaMemAdviseSetPreferredLocation,
    cudaMemAdviseUnsetPreferredLocation, cudaMemAdviseSetAccessedBy, cudaMemAdviseUnsetAccessedBy
};
const int cudaCpuDeviceId = -1, cudaInvalidDeviceId = -2;
struct cudaPitchedPtr { void* ptr; size_t pitch, xsize, ysize; };
struct cudaExtent { size_t width, height, depth; };      // width in bytes
struct cudaPos { size_t x, y, z; };
struct cudaMemcpy3DParms {
    struct cudaArray* srcArray;      // must be null: arrays belong to textures
    cudaPos srcPos;
    cudaPitchedPtr srcPtr;
    struct cudaArray* dstArray;
    cudaPos dstPos;
    cudaPitchedPtr dstPtr;
    cudaExtent extent;
    cudaMemcpyKind kind;
};
inline cudaPitchedPtr make_cudaPitchedPtr(void* p, size_t pitch, size_t xsize, size_t ysize) {
    return {p, pitch, xsize, ysize};
}
inline cudaExtent make_cudaExtent(size_t w, size_t h, size_t d) { return {w, h, d}; }
inline cudaPos make_cudaPos(size_t x, size_t y, size_t z) { return {x, y, z}; }
// What the functions of memory come down to (../memory.cpp). They note the address that they return
// to, so those functions are inlined: a message then names the line of the .cu file.
namespace emu {
enum Space { HOST, DEVICE_MEMORY, MANAGED_MEMORY, PINNED, SYMBOL };
struct Side {                // of a copy or a fill: rows `pitch` bytes apart, and slices of rows
    void* p;
    size_t pitch, slice;
    bool symbol;             // one of the cudaMemcpy...Symbol functions gave it
    Side(const void* p, size_t pitch = 0, size_t slice = 0, bool symbol = false)
        : p((void*)p), pitch(pitch), slice(slice), symbol(symbol) {}
    Side(const cudaPitchedPtr& m, cudaPos at = {})
        : Side((char*)m.ptr + (at.z * m.ysize + at.y) * m.pitch + at.x, m.pitch,
               m.pitch * m.ysize) {}
};
cudaError_t allocate(void** p, size_t bytes, Space space, const cudaStream_t* stream = nullptr);
cudaError_t release(void* p, bool pinned, const cudaStream_t* stream = nullptr);
cudaError_t pinned_address(void** device, void* host);
cudaError_t copy(const char* call, Side dst, Side src, cudaExtent extent, cudaMemcpyKind kind,
                 cudaStream_t stream, bool wait);
cudaError_t fill(const char* call, Side p, int value, cudaExtent extent, cudaStream_t stream);
Side in_symbol(const char* call, const void* symbol, size_t offset, size_t bytes);
cudaError_t symbol_address(void** p, size_t* bytes, const void* symbol);
}  // namespace emu
#define EMU_API __forceinline__ cudaError_t
#define EMU_ALLOCATE(name, space, parameters) \
    template <class T> EMU_API name parameters { \
        return emu::allocate((void**)p, bytes, emu::space); \
    }
EMU_ALLOCATE(cudaMalloc, DEVICE_MEMORY, (T** p, size_t bytes))
EMU_ALLOCATE(cudaMallocManaged, MANAGED_MEMORY, (T** p, size_t bytes, unsigned = 1))
EMU_ALLOCATE(cudaMallocHost, PINNED, (T** p, size_t bytes, unsigned = 0))
EMU_ALLOCATE(cudaHostAlloc, PINNED, (T** p, size_t bytes, unsigned))
template <class T> EMU_API cudaMallocAsync(T** p, size_t bytes, cudaStream_t stream) {
    return emu::allocate((void**)p, bytes, emu::DEVICE_MEMORY, &stream);
}
template <class T> EMU_API cudaMallocPitch(T** p, size_t* pitch, size_t width, size_t height) {
    *pitch = (width + 511) / 512 * 512;
    return emu::allocate((void**)p, *pitch * height, emu::DEVICE_MEMORY);
}
EMU_API cudaMalloc3D(cudaPitchedPtr* p, cudaExtent e) {
    p->xsize = e.width, p->ysize = e.height;
    return cudaMallocPitch(&p->ptr, &p->pitch, e.width, e.height * e.depth);
}
typedef struct emu_pool* cudaMemPool_t;
enum cudaMemPoolAttr { cudaMemPoolAttrReleaseThreshold = 4 };
EMU_ANSWER(cudaDeviceGetDefaultMemPool, nullptr, (cudaMemPool_t* p, int))
EMU_WITHOUT_EFFECT(cudaMemPoolSetAttribute, cudaMemPool_t, cudaMemPoolAttr, void*)
EMU_API cudaFree(void* p) { return emu::release(p, false); }
EMU_API cudaFreeAsync(void* p, cudaStream_t stream) { return emu::release(p, false, &stream); }
EMU_API cudaFreeHost(void* p) { return emu::release(p, true); }
cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void* p);
template <class T> EMU_API cudaHostGetDevicePointer(T** device, void* host, unsigned) {
    return emu::pinned_address((void**)device, host);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p);
cudaError_t cudaMemPrefetchAsync(const void* p, size_t bytes, int device, cudaStream_t stream = 0);
struct cudaMemLocation { int type, id; };      // CUDA 13's form of a device
const int cudaMemLocationTypeDevice = 1, cudaMemLocationTypeHost = 2;
inline cudaError_t cudaMemPrefetchAsync(const void* p, size_t bytes, cudaMemLocation at, unsigned,
                                        cudaStream_t stream = 0) {
    return cudaMemPrefetchAsync(p, bytes, at.id, stream);
}
inline cudaError_t cudaMemAdvise(const void* p, size_t bytes, cudaMemoryAdvise, int device) {
    return cudaMemPrefetchAsync(p, bytes, device);
}
// A function and its ...Async form, which takes a stream as well and does not wait for it.
#define EMU_AND_ASYNC(name, result, ...) \
    EMU_API name(__VA_ARGS__) { \
        const cudaStream_t stream = 0; \
        [[maybe_unused]] const bool wait = true; \
        return result; \
    } \
    EMU_API name##Async(__VA_ARGS__, cudaStream_t stream = 0) { \
        [[maybe_unused]] const bool wait = false; \
        return result; \
    }
EMU_AND_ASYNC(cudaMemcpy, emu::copy(__func__, dst, src, {bytes, 1, 1}, kind, stream, wait),
              void* dst, const void* src, size_t bytes, cudaMemcpyKind kind)
EMU_AND_ASYNC(cudaMemcpy2D, emu::copy(__func__, {dst, dpitch}, {src, spitch}, {width, height, 1},
                                      kind, stream, wait),
              void* dst, size_t dpitch, const void* src, size_t spitch, size_t width,
              size_t height, cudaMemcpyKind kind)
EMU_AND_ASYNC(cudaMemcpy3D, m->srcArray || m->dstArray ? emu::set_error(cudaErrorNotSupported)
                            : emu::copy(__func__, {m->dstPtr, m->dstPos}, {m->srcPtr, m->srcPos},
                                        m->extent, m->kind, stream, wait),
              const cudaMemcpy3DParms* m)
EMU_AND_ASYNC(cudaMemset, emu::fill(__func__, p, value, {bytes, 1, 1}, stream),
              void* p, int value, size_t bytes)
EMU_AND_ASYNC(cudaMemset2D, emu::fill(__func__, {p, pitch}, value, {width, height, 1}, stream),
              void* p, size_t pitch, int value, size_t width, size_t height)
EMU_AND_ASYNC(cudaMemset3D, emu::fill(__func__, p, value, extent, stream),
              cudaPitchedPtr p, int value, cudaExtent extent)
EMU_AND_ASYNC(cudaMemcpyToSymbol,
              emu::copy(__func__, emu::in_symbol(__func__, symbol.p, offset, bytes), src,
                        {bytes, 1, 1}, kind, stream, wait),
              emu::SymbolAddress symbol, const void* src, size_t bytes, size_t offset = 0,
              cudaMemcpyKind kind = cudaMemcpyHostToDevice)
EMU_AND_ASYNC(cudaMemcpyFromSymbol,
              emu::copy(__func__, dst, emu::in_symbol(__func__, symbol.p, offset, bytes),
                        {bytes, 1, 1}, kind, stream, wait),
              void* dst, emu::SymbolAddress symbol, size_t bytes, size_t offset = 0,
              cudaMemcpyKind kind = cudaMemcpyDeviceToHost)
inline cudaError_t cudaGetSymbolAddress(void** p, emu::SymbolAddress symbol) {
    return emu::symbol_address(p, nullptr, symbol.p);
}
inline cudaError_t cudaGetSymbolSize(size_t* bytes, emu::SymbolAddress symbol) {
    return emu::symbol_address(nullptr, bytes, symbol.p);
}

// ---- streams and events -------------------------------------------------------------------------
#define cudaStreamLegacy ((cudaStream_t)0x1)
#define cudaStreamPerThread ((cudaStream_t)0x2)
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1, cudaEventDefault = 0,
       cudaEventBlockingSync = 1, cudaEventDisableTiming = 2, cudaEventInterprocess = 4 };
typedef void (*cudaStreamCallback_t)(cudaStream_t stream, cudaError_t status, void* data);
typedef void (*cudaHostFn_t)(void* data);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t f, void* data);
inline cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t f, void* data,
                                         unsigned) {
    auto call = [=] { f(stream, cudaSuccess, data); };
    return cudaLaunchHostFunc(stream, [](void* p) { (*(decltype(call)*)p)(); }, &call);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
inline cudaError_t cudaStreamCreate(cudaStream_t* s) { return cudaStreamCreateWithFlags(s, 0); }
inline cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int) {
    return cudaStreamCreateWithFlags(stream, flags);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
inline cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
inline cudaError_t cudaEventCreate(cudaEvent_t* event, unsigned flags = 0) {
    return cudaEventCreateWithFlags(event, flags);
}
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream = 0);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
inline cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaEventSynchronize(event); }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t stop);

// ---- kernels as values: attributes, occupancy, launches without <<<>>> --------------------------
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9,
    cudaFuncAttributeNonPortableClusterSizeAllowed = 13
};
enum cudaSharedCarveout {
    cudaSharedmemCarveoutDefault = -1, cudaSharedmemCarveoutMaxL1 = 0,
    cudaSharedmemCarveoutMaxShared = 100
};
struct cudaFuncAttributes {
    size_t sharedSizeBytes, constSizeBytes, localSizeBytes;
    int maxThreadsPerBlock, numRegs, ptxVersion, binaryVersion, cacheModeCA;
    int maxDynamicSharedSizeBytes, preferredShmemCarveout;
};
cudaError_t cudaFuncSetAttribute(emu::KernelAddress f, cudaFuncAttribute attribute, int value);
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, emu::KernelAddress f);
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, emu::KernelAddress f,
                                                          int block_size, size_t shared);
inline cudaError_t cudaOccupancyMaxPotentialBlockSize(int* min_grid, int* block_size,
                                                      emu::KernelAddress f, size_t shared = 0,
                                                      int limit = 0) {
    cudaDeviceProp p;
    cudaGetDeviceProperties(&p, 0);
    *block_size = limit > 0 && limit < p.maxThreadsPerBlock ? limit : p.maxThreadsPerBlock;
    *min_grid = 0;
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(min_grid, f, *block_size, shared);
    *min_grid *= p.multiProcessorCount;
    return emu::set_error(cudaSuccess);
}
// emucc strips a cast to void* from the kernel: its type says how to read the arguments.
#define EMU_LAUNCH(name, cooperative) \
    template <class... P> \
    cudaError_t name(void (*f)(P...), dim3 grid, dim3 block, void** p, size_t shared = 0, \
                     cudaStream_t stream = 0, const char* file = __builtin_FILE(), \
                     int line = __builtin_LINE()) { \
        int i = 0; \
        std::tuple<std::decay_t<P>...> arguments{*(std::decay_t<P>*)p[i++]...}; \
        auto body = [f, arguments] { std::apply(f, arguments); }; \
        emu::launch("(a kernel given by its address)", file, line, (const void*)f, \
                    {grid, block, shared, stream, cooperative}, body); \
        return cudaPeekAtLastError(); \
    }
EMU_LAUNCH(cudaLaunchKernel, false) EMU_LAUNCH(cudaLaunchCooperativeKernel, true)
#include "device_functions.h"
#include "emu_ptx.h"
#ifdef __CUDACC__   // what the program tells the emulator of how it was compiled
extern "C" {
__attribute__((weak)) int emu_compiled_for = __CUDA_ARCH__;
#ifdef EMU_CHECKED
__attribute__((weak)) int emu_built_with_checks = 1;
#endif
}
#endif
