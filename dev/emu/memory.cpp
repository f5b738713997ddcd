// memory.cpp - device, managed and pinned memory, variables on the device, copies and fills.
//
// Device memory is a reserved range of the host's addresses (the heap). With checks on, it is open
// only while a kernel or the runtime works on it: host code that touches it faults, in libc too.
// Freed memory is not handed out again before the range is used up, so a late access is told from a
// lucky one.
#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>
#include <map>
#include <mutex>
#include <vector>
#include "emu.h"

namespace emu {

char *heap, *managed;
uint32_t *heap_writer, *heap_reader;

struct Memory {
    std::map<char*, Range>
        ranges;  // by start: heap, managed, pinned and registered memory, live or freed
    std::map<char*, Range> symbols;
    char* cursor[2];                     // where the next allocation of heap and managed begins
    char* top[2];                        // no allocation has reached further
    size_t used, total;
    std::mutex mutex;
    bool open;                           // the heap can be touched
    int opened;                          // how many of the runtime's functions want it open
};
const size_t FRONT_GAP = 1 << 20;     // before the first allocation: for negative subscripts
static Memory& memory() {
    static Memory m;
    return m;
}

static void* reserve(size_t bytes, int protection) {
    void* p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != MAP_FAILED) return p;
    fault(nullptr, "cannot reserve %zu GB of addresses (is `ulimit -v` set?)", bytes >> 30);
}

// Called by whatever touches memory first: a symbol's constructor or the first call of the API.
static void memory_init() {
    if (heap) return;
    Memory& m = memory();
    heap = (char*)reserve(2 * HEAP_BYTES, PROT_NONE);
    managed = heap + HEAP_BYTES;
    mprotect(managed, HEAP_BYTES, PROT_READ | PROT_WRITE);
    heap_writer = (uint32_t*)reserve(2 * HEAP_BYTES, PROT_READ | PROT_WRITE);
    heap_reader = (uint32_t*)reserve(2 * HEAP_BYTES, PROT_READ | PROT_WRITE);
    m.top[0] = heap;
    m.top[1] = managed;
    for (int i = 0; i < 2; i++) m.cursor[i] = m.top[i] + FRONT_GAP;
    m.total = (size_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) / 4 * 3;
    if (m.total > HEAP_BYTES / 2) m.total = HEAP_BYTES / 2;
    if (!checking) protect_heap(true);
    catch_signals();
}

void protect_heap(bool open) {
    memory_init();
    Memory& m = memory();
    if (checking) {
        m.opened += open ? 1 : -1;
        if (m.open == (m.opened > 0)) return;
    }
    m.open = open;
    size_t bytes = checking ? m.top[0] - heap : HEAP_BYTES;
    if (bytes) mprotect(heap, bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

bool heap_is_open() { return memory().opened > 0; }

// ---- who owns an address ------------------------------------------------------------------------
static const Range* lookup(const std::map<char*, Range>& ranges, const void* p) {
    auto after = ranges.upper_bound((char*)p);
    if (after == ranges.begin()) return nullptr;
    const Range& r = std::prev(after)->second;
    return (char*)p < r.start + r.bytes ? &r : nullptr;
}

const Range* find_range(const void* p) {
    Memory& m = memory();
    const Range* r = lookup(m.ranges, p);
    if (r && !r->freed) return r;
    return lookup(m.symbols, p);
}

const Range* nearest_range(const void* p) {
    Memory& m = memory();
    if (const Range* r = lookup(m.ranges, p)) return r;
    auto after = m.ranges.upper_bound((char*)p);
    const Range* before = after == m.ranges.begin() ? nullptr : &std::prev(after)->second;
    const Range* behind = after == m.ranges.end() ? nullptr : &after->second;
    if (!before || !behind) return before ? before : behind;
    return (char*)p - (before->start + before->bytes) <= behind->start - (char*)p ? before : behind;
}

static uintptr_t first_symbol = UINTPTR_MAX, last_symbol;
bool near_symbols(uintptr_t p) { return p >= first_symbol && p < last_symbol; }

Symbol::Symbol(const char* name, const void* address, size_t bytes, SymbolKind kind) {
    first_symbol = std::min(first_symbol, (uintptr_t)address);
    last_symbol = std::max(last_symbol, (uintptr_t)address + bytes);
    memory().symbols[(char*)address] = {(char*)address, bytes, SYMBOL, kind,
                                        name,           false, false,  nullptr, 0};
}

// ---- allocation ---------------------------------------------------------------------------------
// The words of an allocation: 0 (never written), or INVALID once it is freed.
static void set_state(char* p, size_t bytes, uint32_t state) {
    uint32_t* words = word_state(heap_writer, (uintptr_t)p);
    std::fill(words, words + (bytes + 3) / 4, state);
    if (state != INVALID && bytes % 4) words[bytes / 4] |= TAIL;
    if (several_streams) std::fill_n(word_state(heap_reader, (uintptr_t)p), (bytes + 3) / 4, 0);
}

// A place for bytes: behind the last one, or, when the range is used up, in the first gap that
// freed allocations have left.
static char* find_place(int which, size_t bytes) {
    Memory& m = memory();
    char* base = which ? managed : heap;
    if ((size_t)(base + HEAP_BYTES - m.cursor[which]) < bytes) m.cursor[which] = base + FRONT_GAP;
    char* p = m.cursor[which];
    for (auto i = m.ranges.lower_bound(p); i != m.ranges.end() && i->first < p + bytes;) {
        if (i->second.freed) {
            i = m.ranges.erase(i);
            continue;
        }
        p = i->first + (i->second.bytes + 511) / 256 * 256;
        ++i;
    }
    if ((size_t)(base + HEAP_BYTES - p) < bytes) return nullptr;
    m.cursor[which] = p + bytes;
    return p;
}

static cudaError_t allocate(void** out, size_t bytes, Space space, Pc pc) {
    memory_init();
    if (!out) return set_error(cudaErrorInvalidValue);
    *out = nullptr;
    if (bytes == 0) return set_error(cudaSuccess);
    Memory& m = memory();
    std::lock_guard<std::mutex> lock(m.mutex);
    if (bytes > m.total - m.used) return set_error(cudaErrorMemoryAllocation);
    int which = space == MANAGED_MEMORY;
    size_t room = (bytes + 511) / 256 * 256;     // a gap of 256 bytes or more behind each
    char* p = find_place(which, room);
    if (!p) return set_error(cudaErrorMemoryAllocation);
    if (checking && p + room > m.top[which]) {
        uint32_t* fresh = word_state(heap_writer, (uintptr_t)m.top[which]);
        std::fill(fresh, word_state(heap_writer, (uintptr_t)(p + room)), INVALID);
    }
    if (p + room > m.top[which]) m.top[which] = p + room;
    m.ranges[p] = {p, bytes, space, DEVICE, nullptr, false, false, pc, 0};
    m.used += bytes;
    // What libc stores into managed memory is not seen, so all of it counts as written.
    if (checking) set_state(p, bytes, which ? HOST_OP : 0);
    *out = p;
    return set_error(cudaSuccess);
}

static cudaError_t release(void* p, bool pinned, Pc pc) {
    if (!p) return set_error(cudaSuccess);
    Memory& m = memory();
    std::lock_guard<std::mutex> lock(m.mutex);
    auto i = m.ranges.find((char*)p);
    if (i == m.ranges.end() || i->second.freed || (i->second.space == PINNED) != pinned) {
        if (!checking) return set_error(cudaErrorInvalidValue);
        bool twice = i != m.ranges.end() && i->second.freed;
        fault(pc, "%s: %s: %s", pinned ? "cudaFreeHost" : "cudaFree",
              twice ? "freed twice" : "not the start of an allocation of its kind",
              describe_address(p).s);
    }
    Range& r = i->second;
    if (pinned) {
        free(p);
        m.ranges.erase(i);
        return set_error(cudaSuccess);
    }
    m.used -= r.bytes;
    r.freed = true;
    if (checking) set_state(r.start, r.bytes, INVALID);
    char* first = (char*)(((uintptr_t)p + 4095) / 4096 * 4096);
    char* last = (char*)((uintptr_t)(r.start + r.bytes) / 4096 * 4096);
    if (last > first) madvise(first, last - first, MADV_DONTNEED);
    return set_error(cudaSuccess);
}

static cudaError_t allocate_pinned(void** p, size_t bytes, Pc pc) {
    memory_init();
    *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!*p && bytes) return set_error(cudaErrorMemoryAllocation);
    memory().ranges[(char*)*p] = {(char*)*p, bytes, PINNED, DEVICE, nullptr, false, false, pc, 0};
    return set_error(cudaSuccess);
}

// ---- copies -------------------------------------------------------------------------------------
static bool on_device(Space space) { return space == DEVICE_MEMORY || space == SYMBOL; }

// One side of a copy or fill: its space, and a fault (or an error) unless all its bytes are one
// allocation's.
static cudaError_t check_side(const char* call, const char* side, const void* p, size_t bytes,
                              Space* space, Pc pc) {
    const Range* r = find_range(p);
    *space = r ? r->space : HOST;
    if (in_heap((uintptr_t)p) && !r) *space = DEVICE_MEMORY;
    bool fits = r ? (size_t)(r->start + r->bytes - (char*)p) >= bytes : !in_heap((uintptr_t)p);
    if (fits && p) {
        if (!checking || !r || r->space != SYMBOL || r->address_taken) return cudaSuccess;
        fault(pc, "%s: the %s is '%s', which names a variable on the device, not an address\n"
              "use cudaMemcpyToSymbol or cudaMemcpyFromSymbol, or ask cudaGetSymbolAddress",
              call, side, r->name);
    }
    if (!checking || !p) return cudaErrorInvalidValue;
    fault(pc, "%s: out of bounds: the %s has %zu bytes from %s", call, side, bytes,
          describe_address(p).s);
}

static cudaError_t check_direction(const char* call, Space dst, Space src, cudaMemcpyKind kind,
                                   Pc pc) {
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
        return cudaErrorInvalidMemcpyDirection;
    if (kind == cudaMemcpyDefault) return cudaSuccess;
    bool dst_wrong = to_device ? dst == HOST : on_device(dst);
    bool src_wrong = from_device ? src == HOST : on_device(src);
    if (!dst_wrong && !src_wrong) return cudaSuccess;
    if (!checking) return cudaErrorInvalidValue;
    static const char* names[] = {"cudaMemcpyHostToHost", "cudaMemcpyHostToDevice",
                                  "cudaMemcpyDeviceToHost", "cudaMemcpyDeviceToDevice"};
    fault(pc, "%s: wrong copy direction: %s, but the %s is %s memory", call, names[kind],
          dst_wrong ? "destination" : "source",
          (dst_wrong ? dst : src) == HOST ? "host" : "device");
}

// Rows of width bytes; a plain copy is one row. State travels with the words, so that copying
// memory that was never written is no fault, and reading the copy is one.
static cudaError_t copy(const char* call, void* dst, size_t dpitch, const void* src, size_t spitch,
                        size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t stream,
                        bool wait, Pc pc) {
    memory_init();
    if (cudaError_t error = valid_stream(stream)) return set_error(error);
    if (width == 0 || height == 0) return set_error(cudaSuccess);
    if (height > 1 && (dpitch < width || spitch < width))
        return set_error(cudaErrorInvalidPitchValue);
    Space d, s;
    cudaError_t error = check_side(call, "destination", dst, dpitch * (height - 1) + width, &d, pc);
    if (!error) error = check_side(call, "source", src, spitch * (height - 1) + width, &s, pc);
    if (!error) error = check_direction(call, d, s, kind, pc);
    if (error) return set_error(error);
    uint32_t op = begin_op(stream, call, pc);
    protect_heap(true);
    for (size_t row = 0; row < height; row++) {
        char* to = (char*)dst + row * dpitch;
        const char* from = (const char*)src + row * spitch;
        if (checking) copy_state(to, from, width, op, pc);
        memmove(to, from, width);
        if (checking && !wait && (d == PINNED || s == PINNED))
            host_copy(d == PINNED ? to : from, width, d == PINNED, op);
    }
    protect_heap(false);
    // Pageable memory of the host makes a copy wait: only pinned memory is used in the background.
    if (wait || d == HOST || s == HOST) op_waited(stream);
    return set_error(cudaSuccess);
}

static cudaError_t fill(const char* call, void* p, size_t pitch, int value, size_t width,
                        size_t height, cudaStream_t stream, Pc pc) {
    memory_init();
    if (cudaError_t error = valid_stream(stream)) return set_error(error);
    if (width == 0 || height == 0) return set_error(cudaSuccess);
    Space space;
    if (cudaError_t error = check_side(call, "memory", p, pitch * (height - 1) + width, &space, pc))
        return set_error(error);
    if (space == HOST) {
        if (!checking) return set_error(cudaErrorInvalidValue);
        fault(pc, "%s: fills host memory; it is for device memory", call);
    }
    uint32_t op = begin_op(stream, call, pc);
    protect_heap(true);
    for (size_t row = 0; row < height; row++) {
        if (checking) mark_written((char*)p + row * pitch, width, op, pc);
        memset((char*)p + row * pitch, value, width);
    }
    protect_heap(false);
    return set_error(cudaSuccess);
}

// In three dimensions: slices of rows.
static char* slice(const cudaPitchedPtr& p, const cudaPos& at, size_t z) {
    return (char*)p.ptr + ((at.z + z) * p.ysize + at.y) * p.pitch + at.x;
}
static cudaError_t copy_3d(const char* call, const cudaMemcpy3DParms& m, cudaStream_t stream,
                           bool wait, Pc pc) {
    if (m.srcArray || m.dstArray) return set_error(cudaErrorNotSupported);
    cudaError_t error = cudaSuccess;
    for (size_t z = 0; z < m.extent.depth && !error; z++)
        error = copy(call, slice(m.dstPtr, m.dstPos, z), m.dstPtr.pitch,
                     slice(m.srcPtr, m.srcPos, z), m.srcPtr.pitch, m.extent.width, m.extent.height,
                     m.kind, stream, wait, pc);
    return error;
}
static cudaError_t fill_3d(const char* call, const cudaPitchedPtr& p, int value, cudaExtent e,
                           cudaStream_t stream, Pc pc) {
    cudaError_t error = cudaSuccess;
    for (size_t z = 0; z < e.depth && !error; z++)
        error = fill(call, slice(p, {}, z), p.pitch, value, e.width, e.height, stream, pc);
    return error;
}

cudaError_t copy_symbol(const void* symbol, void* p, size_t bytes, size_t offset, bool to_symbol,
                        cudaMemcpyKind kind, cudaStream_t stream, bool wait) {
    Pc pc = EMU_CALLER;
    auto i = memory().symbols.find((char*)symbol);
    if (i == memory().symbols.end()) return set_error(cudaErrorInvalidSymbol);
    Range& r = i->second;
    const char* call = to_symbol ? "cudaMemcpyToSymbol" : "cudaMemcpyFromSymbol";
    if (offset > r.bytes || bytes > r.bytes - offset) {
        if (!checking) return set_error(cudaErrorInvalidValue);
        fault(pc, "%s: out of bounds: %zu bytes at offset %zu of '%s', which has %zu", call,
              bytes, offset, r.name, r.bytes);
    }
    bool taken = r.address_taken;
    r.address_taken = true;
    char* inside = r.start + offset;
    cudaError_t error = copy(call, to_symbol ? inside : p, 0, to_symbol ? p : inside, 0, bytes, 1,
                             kind, stream, wait, pc);
    r.address_taken = taken;
    return error;
}

cudaError_t symbol_address(void** p, size_t* bytes, const void* symbol) {
    auto i = memory().symbols.find((char*)symbol);
    if (i == memory().symbols.end()) return set_error(cudaErrorInvalidSymbol);
    if (p) *p = i->second.start, i->second.address_taken = true;
    if (bytes) *bytes = i->second.bytes;
    return set_error(cudaSuccess);
}

}  // namespace emu

using namespace emu;

cudaError_t cudaMalloc(void** p, size_t bytes) {
    return allocate(p, bytes, DEVICE_MEMORY, EMU_CALLER);
}
cudaError_t cudaMallocAsync(void** p, size_t bytes, cudaStream_t) {
    return allocate(p, bytes, DEVICE_MEMORY, EMU_CALLER);
}
cudaError_t cudaMallocManaged(void** p, size_t bytes, unsigned) {
    return allocate(p, bytes, MANAGED_MEMORY, EMU_CALLER);
}
cudaError_t cudaMallocHost(void** p, size_t bytes, unsigned) {
    return allocate_pinned(p, bytes, EMU_CALLER);
}
cudaError_t cudaHostAlloc(void** p, size_t bytes, unsigned) {
    return allocate_pinned(p, bytes, EMU_CALLER);
}
cudaError_t cudaMallocPitch(void** p, size_t* pitch, size_t width, size_t height) {
    *pitch = (width + 511) / 512 * 512;
    return allocate(p, *pitch * height, DEVICE_MEMORY, EMU_CALLER);
}
cudaError_t cudaMalloc3D(cudaPitchedPtr* p, cudaExtent e) {
    p->xsize = e.width, p->ysize = e.height;
    return cudaMallocPitch(&p->ptr, &p->pitch, e.width, e.height * e.depth);
}
cudaError_t cudaFree(void* p) {
    cudaDeviceSynchronize();
    return release(p, false, EMU_CALLER);
}
cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return release(p, false, EMU_CALLER); }
cudaError_t cudaFreeHost(void* p) {
    cudaDeviceSynchronize();
    return release(p, true, EMU_CALLER);
}
cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned) {
    if (!p || !bytes) return set_error(cudaErrorInvalidValue);
    if (find_range(p)) return set_error(cudaErrorHostMemoryAlreadyRegistered);
    memory().ranges[(char*)p] = {(char*)p, bytes, PINNED, DEVICE,
                                 nullptr,  false, false,  EMU_CALLER, 0};
    return set_error(cudaSuccess);
}
cudaError_t cudaHostUnregister(void* p) {
    return set_error(memory().ranges.erase((char*)p) ? cudaSuccess
                                                     : cudaErrorHostMemoryNotRegistered);
}
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
    const Range* r = find_range(host);
    if (!r || r->space != PINNED) return set_error(cudaErrorInvalidValue);
    *device = host;
    return set_error(cudaSuccess);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
    const Range* r = find_range(p);
    Space space = r ? r->space : HOST;
    a->type = space == HOST ? cudaMemoryTypeUnregistered : space == PINNED ? cudaMemoryTypeHost
              : space == MANAGED_MEMORY ? cudaMemoryTypeManaged : cudaMemoryTypeDevice;
    a->device = 0;
    a->devicePointer = space == HOST ? nullptr : (void*)p;
    a->hostPointer = on_device(space) ? nullptr : (void*)p;
    return set_error(cudaSuccess);
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    memory_init();
    *total = memory().total;
    *free = memory().total - memory().used;
    return set_error(cudaSuccess);
}

cudaError_t cudaMemcpy(void* dst, const void* src, size_t bytes, cudaMemcpyKind kind) {
    return copy("cudaMemcpy", dst, 0, src, 0, bytes, 1, kind, 0, true, EMU_CALLER);
}
cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t s) {
    return copy("cudaMemcpyAsync", dst, 0, src, 0, bytes, 1, kind, s, false, EMU_CALLER);
}
cudaError_t cudaMemcpyPeer(void* dst, int, const void* src, int, size_t bytes) {
    return copy("cudaMemcpyPeer", dst, 0, src, 0, bytes, 1, cudaMemcpyDeviceToDevice, 0, true,
                EMU_CALLER);
}
cudaError_t cudaMemcpy2D(void* dst, size_t dpitch, const void* src, size_t spitch, size_t width,
                         size_t height, cudaMemcpyKind kind) {
    return copy("cudaMemcpy2D", dst, dpitch, src, spitch, width, height, kind, 0, true, EMU_CALLER);
}
cudaError_t cudaMemcpy2DAsync(void* dst, size_t dpitch, const void* src, size_t spitch,
                              size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t s) {
    return copy("cudaMemcpy2DAsync", dst, dpitch, src, spitch, width, height, kind, s, false,
                EMU_CALLER);
}
cudaError_t cudaMemcpy3D(const cudaMemcpy3DParms* p) {
    return copy_3d("cudaMemcpy3D", *p, 0, true, EMU_CALLER);
}
cudaError_t cudaMemcpy3DAsync(const cudaMemcpy3DParms* p, cudaStream_t s) {
    return copy_3d("cudaMemcpy3DAsync", *p, s, false, EMU_CALLER);
}
cudaError_t cudaMemset3D(cudaPitchedPtr p, int value, cudaExtent e) {
    return fill_3d("cudaMemset3D", p, value, e, 0, EMU_CALLER);
}
cudaError_t cudaMemset3DAsync(cudaPitchedPtr p, int value, cudaExtent e, cudaStream_t s) {
    return fill_3d("cudaMemset3DAsync", p, value, e, s, EMU_CALLER);
}
cudaError_t cudaMemset(void* p, int value, size_t bytes) {
    return fill("cudaMemset", p, 0, value, bytes, 1, 0, EMU_CALLER);
}
cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t s) {
    return fill("cudaMemsetAsync", p, 0, value, bytes, 1, s, EMU_CALLER);
}
cudaError_t cudaMemset2D(void* p, size_t pitch, int value, size_t width, size_t height) {
    return fill("cudaMemset2D", p, pitch, value, width, height, 0, EMU_CALLER);
}
cudaError_t cudaMemset2DAsync(void* p, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t s) {
    return fill("cudaMemset2DAsync", p, pitch, value, width, height, s, EMU_CALLER);
}
cudaError_t cudaMemPrefetchAsync(const void* p, size_t, int, cudaStream_t) {
    const Range* r = find_range(p);
    return set_error(r && r->space == MANAGED_MEMORY ? cudaSuccess : cudaErrorInvalidValue);
}
cudaError_t cudaMemAdvise(const void* p, size_t, cudaMemoryAdvise, int) {
    return cudaMemPrefetchAsync(p, 0, 0, 0);
}
