// memory.cpp - device, managed and pinned memory, variables on the device, copies and fills.
// Device memory is a reserved range of the host's addresses (the heap). With checks on, it is open
// only while a kernel or the runtime works on it: host code that touches it faults, in libc too.
// Freed memory is not handed out again before the range is used up: a late access is a fault.
#include <sys/mman.h>
#include <unistd.h>
#include <algorithm>
#include <map>
#include <vector>
#include "emu.h"
namespace emu {
char *heap, *managed, *heap_top[2];
uint32_t *heap_writer, *heap_reader;
struct Memory {
    std::map<char*, Range> ranges;       // by start; live, or freed device and managed memory
    std::map<char*, Range> symbols;
    char* cursor[2];                     // where the next allocation of heap and managed begins
    size_t used, total;
    std::recursive_mutex mutex;          // of ranges and symbols
    int opened;                          // how many of the runtime's functions want the heap open
};
const size_t FRONT_GAP = 1 << 20;     // before the first allocation: for negative subscripts
static Memory& memory() {
    static Memory& m = *new Memory();      // never destroyed: it is looked at when all else is
    return m;
}
static void* reserve(size_t bytes, int protection) {
    void* p = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        fault(nullptr, "cannot reserve %zu GB of addresses (is `ulimit -v` set?)", bytes >> 30);
    madvise(p, bytes, MADV_HUGEPAGE);      // fewer pages for mprotect to walk
    return p;
}
// Called by whatever touches memory first: a symbol's constructor or the first call of the API.
static void memory_init() {
    if (heap) return;
    Memory& m = memory();
    heap = (char*)reserve(2 * HEAP_BYTES, PROT_READ | PROT_WRITE);
    managed = heap + HEAP_BYTES;
    if (checking) mprotect(heap, HEAP_BYTES, PROT_NONE);
    heap_writer = (uint32_t*)reserve(2 * HEAP_BYTES, PROT_READ | PROT_WRITE);
    heap_reader = (uint32_t*)reserve(2 * HEAP_BYTES, PROT_READ | PROT_WRITE);
    heap_top[0] = heap;
    heap_top[1] = managed;
    for (int i = 0; i < 2; i++) m.cursor[i] = heap_top[i] + FRONT_GAP;
    size_t physical = (size_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    m.total = std::min(physical / 4 * 3, HEAP_BYTES / 2);
    catch_signals();
}
void protect_heap(bool open) {
    memory_init();
    if (!checking) return;
    Memory& m = memory();
    m.opened += open ? 1 : -1;
    int protection = open ? PROT_READ | PROT_WRITE : PROT_NONE;
    if (m.opened == open) mprotect(heap, heap_top[0] - heap, protection);
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
    std::lock_guard<std::recursive_mutex> lock(m.mutex);
    const Range* r = lookup(m.ranges, p);
    if (r && !r->freed) return r;
    return lookup(m.symbols, p);
}
const Range* nearest_range(const void* p) {
    Memory& m = memory();
    auto after = m.ranges.upper_bound((char*)p);
    const Range* before = after == m.ranges.begin() ? nullptr : &std::prev(after)->second;
    const Range* behind = after == m.ranges.end() ? nullptr : &after->second;
    if (!before || !behind) return before ? before : behind;
    char* end = before->start + before->bytes;
    return (char*)p - end <= behind->start - (char*)p ? before : behind;
}
static uintptr_t first_symbol = UINTPTR_MAX, last_symbol;
bool near_symbols(uintptr_t p) { return p >= first_symbol && p < last_symbol; }
Symbol::Symbol(const char* name, const void* address, size_t bytes, SymbolKind kind) {
    std::lock_guard<std::recursive_mutex> lock(memory().mutex);
    first_symbol = std::min(first_symbol, (uintptr_t)address);
    last_symbol = std::max(last_symbol, (uintptr_t)address + bytes);
    memory().symbols.insert({(char*)address, {(char*)address, bytes, SYMBOL, nullptr, kind, name}});
}

// ---- allocation ---------------------------------------------------------------------------------
// The words of an allocation: 0 (never written), or INVALID once it is freed.
static void set_state(char* p, size_t bytes, uint32_t state) {
    uint32_t* words = word_state(heap_writer, (uintptr_t)p);
    std::fill(words, words + (bytes + 3) / 4, state);
    if (state != INVALID && bytes % 4) words[bytes / 4] |= TAIL;
    if (several_streams) std::fill_n(word_state(heap_reader, (uintptr_t)p), (bytes + 3) / 4, 0);
}
// An allocation and the gap behind it, as large again, but for the smallest and the largest.
static size_t room_for(size_t bytes) {
    size_t gap = std::min(std::max<size_t>(bytes, 256), (size_t)1 << 20);
    return (bytes + gap + 255) / 256 * 256;
}
// A place for bytes: behind the last one, or, when the range is used up, in the first gap that
// freed allocations have left.
static char* find_place(int which, size_t bytes) {
    Memory& m = memory();
    char* base = which ? managed : heap;
    if ((size_t)(base + HEAP_BYTES - m.cursor[which]) < bytes) m.cursor[which] = base + FRONT_GAP;
    char* p = m.cursor[which];
    for (auto i = m.ranges.lower_bound(p); i != m.ranges.end() && i->first < p + bytes;) {
        if (!i->second.freed) p = i->first + room_for(i->second.bytes);
        i = i->second.freed ? m.ranges.erase(i) : std::next(i);
    }
    if ((size_t)(base + HEAP_BYTES - p) < bytes) return nullptr;
    m.cursor[which] = p + bytes;
    return p;
}
cudaError_t allocate(void** out, size_t bytes, Space space, const cudaStream_t* stream) {
    Turn mine;
    memory_init();
    if (!out) return set_error(cudaErrorInvalidValue);
    if (cudaError_t error = stream ? valid_stream(*stream) : cudaSuccess) return set_error(error);
    *out = nullptr;
    if (bytes == 0) return ok();
    Memory& m = memory();
    std::lock_guard<std::recursive_mutex> lock(m.mutex);
    if (space == PINNED) {
        *out = aligned_alloc(256, (bytes + 255) / 256 * 256);
        if (!*out) return set_error(cudaErrorMemoryAllocation);
        m.ranges[(char*)*out] = {(char*)*out, bytes, PINNED, EMU_CALLER};
        return ok();
    }
    if (bytes > m.total - m.used) return set_error(cudaErrorMemoryAllocation);
    int which = space == MANAGED_MEMORY;
    size_t room = room_for(bytes);
    char* p = find_place(which, room);
    if (!p) return set_error(cudaErrorMemoryAllocation);
    if (checking && p + room > heap_top[which]) {
        uint32_t* fresh = word_state(heap_writer, (uintptr_t)heap_top[which]);
        std::fill(fresh, word_state(heap_writer, (uintptr_t)(p + room)), INVALID);
    }
    heap_top[which] = std::max(heap_top[which], p + room);
    m.ranges[p] = {p, bytes, space, EMU_CALLER};
    m.used += bytes;
    // What libc stores into managed memory is not seen, so all of it counts as written.
    if (checking) set_state(p, bytes, which ? HOST_OP : 0);
    // Of an allocation in the order of a stream, whoever uses the memory comes after it.
    if (checking && stream)
        std::fill_n(word_state(heap_reader, (uintptr_t)p), (bytes + 3) / 4,
                    begin_op(*stream, "cudaMallocAsync", EMU_CALLER).op);
    *out = p;
    return ok();
}
cudaError_t release(void* p, bool pinned, const cudaStream_t* stream) {
    // An argument's destructor. A GPU's threads have the bytes of the host's copy, destroying none.
    if (worker.thread) return ok();
    Turn mine;
    if (cudaError_t error = stream ? valid_stream(*stream) : cudaDeviceSynchronize())
        return set_error(error);
    if (!p) return ok();
    Memory& m = memory();
    std::lock_guard<std::recursive_mutex> lock(m.mutex);
    auto i = m.ranges.find((char*)p);
    if (i == m.ranges.end() || i->second.freed || (i->second.space == PINNED) != pinned) {
        if (!checking) return set_error(cudaErrorInvalidValue);
        bool twice = i != m.ranges.end() && i->second.freed;
        fault(EMU_CALLER, "%s: %s: %s", pinned ? "cudaFreeHost" : "cudaFree",
              twice ? "freed twice" : "not the start of an allocation of its kind",
              describe_address(p).s);
    }
    Range& r = i->second;
    if (pinned) {
        free(p);
        m.ranges.erase(i);
        return ok();
    }
    if (checking && stream)
        check_call(StreamWork("cudaFreeAsync", *stream, EMU_CALLER), p, r.bytes, WRITE);
    m.used -= r.bytes;
    r.freed = true, r.freed_at = EMU_CALLER;
    if (checking) set_state(r.start, r.bytes, INVALID);
    char* first = (char*)(((uintptr_t)p + 4095) / 4096 * 4096);
    char* last = (char*)((uintptr_t)(r.start + r.bytes) / 4096 * 4096);
    if (last > first) madvise(first, last - first, MADV_DONTNEED);
    return ok();
}
void note_leaks() {
    const Range* first = nullptr;
    size_t count = 0, bytes = 0;
    for (auto& [p, r] : memory().ranges) {
        if (r.freed || !r.pc || was_reset) continue;
        if (!first) first = &r;
        count++, bytes += r.bytes;
    }
    if (first)
        note(nullptr, "%zu allocations of %zu bytes were never freed\nthe first: %zu bytes, "
             "allocated at %s", count, bytes, first->bytes, where(first->pc).s);
}
cudaError_t pinned_address(void** device, void* host) {
    const Range* r = find_range(host);
    *device = host;
    return set_error(r && r->space == PINNED ? cudaSuccess : cudaErrorInvalidValue);
}

// ---- copies -------------------------------------------------------------------------------------
static bool on_device(Space space) { return space == DEVICE_MEMORY || space == SYMBOL; }
// The space of one side of a copy or fill; a fault (or an error) unless it is in one allocation.
static cudaError_t check_side(const char* call, const char* name, const Side& side,
                              cudaExtent e, Space* space, Pc pc) {
    char* p = (char*)side.p;
    size_t bytes = side.slice * (e.depth - 1) + side.pitch * (e.height - 1) + e.width;
    const Range* r = find_range(p);
    bool on_heap = in_heap((uintptr_t)p);
    *space = r ? r->space : on_heap ? DEVICE_MEMORY : HOST;
    if (p && (r ? (size_t)(r->start + r->bytes - p) >= bytes : !on_heap)) {
        if (checking && *space == SYMBOL && !r->address_taken && !side.symbol)
            fault(pc, "%s: the %s is '%s', which names a variable on the device, not an address\n"
                  "use cudaMemcpyToSymbol or cudaMemcpyFromSymbol, or ask cudaGetSymbolAddress",
                  call, name, r->name);
        return cudaSuccess;
    }
    if (!checking || !p) return cudaErrorInvalidValue;
    Text place = describe_address(p);
    fault(pc, "%s: %s: the %s has %zu bytes from %s", call,
          strstr(place.s, ", freed at") ? "use after cudaFree" : "out of bounds", name, bytes,
          place.s);
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
static bool is_empty(cudaExtent e) { return !e.width || !e.height || !e.depth; }
template <class F> static void each_row(cudaExtent e, F f) {      // a plain copy is one row
    for (size_t z = 0; z < e.depth; z++)
        for (size_t y = 0; y < e.height; y++) f(y, z);
}
// State travels with the words: to copy what was never written is no fault, to read the copy is.
cudaError_t copy(const char* call, Side dst, Side src, cudaExtent e, cudaMemcpyKind kind,
                 cudaStream_t stream, bool wait) {
    Turn mine;
    Pc pc = EMU_CALLER;
    memory_init();
    if (cudaError_t error = valid_stream(stream)) return set_error(error);
    if (is_empty(e)) return ok();
    if (e.height > 1 && (dst.pitch < e.width || src.pitch < e.width))
        return set_error(cudaErrorInvalidPitchValue);
    Space d, s;
    bool no_symbol = (dst.symbol && !dst.p) || (src.symbol && !src.p);
    cudaError_t error = no_symbol ? cudaErrorInvalidSymbol
                                  : check_side(call, "destination", dst, e, &d, pc);
    if (!error) error = check_side(call, "source", src, e, &s, pc);
    if (!error) error = check_direction(call, d, s, kind, pc);
    if (error) return set_error(error);
    StreamWork work(call, stream, pc);
    each_row(e, [&](size_t y, size_t z) {
        char* to = (char*)dst.p + z * dst.slice + y * dst.pitch;
        char* from = (char*)src.p + z * src.slice + y * src.pitch;
        if (checking) copy_state(work, to, from, e.width);
        memmove(to, from, e.width);
        if (checking && !wait && (d == PINNED || s == PINNED))
            host_copy(d == PINNED ? to : from, e.width, d == PINNED, work.op);
    });
    // Pageable memory of the host makes a copy wait: only pinned memory is used in the background.
    if (wait || d == HOST || s == HOST) op_waited(stream);
    return ok();
}
cudaError_t fill(const char* call, Side p, int value, cudaExtent e, cudaStream_t stream) {
    Turn mine;
    memory_init();
    if (cudaError_t error = valid_stream(stream)) return set_error(error);
    if (is_empty(e)) return ok();
    Space space;
    if (cudaError_t error = check_side(call, "memory", p, e, &space, EMU_CALLER))
        return set_error(error);
    if (space == HOST && !checking) return set_error(cudaErrorInvalidValue);
    if (space == HOST) fault(EMU_CALLER, "%s: fills host memory; it is for device memory", call);
    StreamWork work(call, stream, EMU_CALLER);
    each_row(e, [&](size_t y, size_t z) {
        char* row = (char*)p.p + z * p.slice + y * p.pitch;
        if (checking) check_call(work, row, e.width, WRITE);
        memset(row, value, e.width);
    });
    return ok();
}
Side in_symbol(const char* call, const void* symbol, size_t offset, size_t bytes) {
    auto i = memory().symbols.find((char*)symbol);
    if (i == memory().symbols.end()) return {nullptr, 0, 0, true};
    const Range& r = i->second;
    if (checking && (offset > r.bytes || bytes > r.bytes - offset))
        fault(EMU_CALLER, "%s: out of bounds: %zu bytes at offset %zu of '%s', which has %zu", call,
              bytes, offset, r.name, r.bytes);
    return {r.start + offset, 0, 0, true};
}
cudaError_t symbol_address(void** p, size_t* bytes, const void* symbol) {
    auto i = memory().symbols.find((char*)symbol);
    if (i == memory().symbols.end()) return set_error(cudaErrorInvalidSymbol);
    if (p) *p = i->second.start, i->second.address_taken = true;
    if (bytes) *bytes = i->second.bytes;
    return ok();
}
}  // namespace emu
using namespace emu;
cudaError_t cudaHostRegister(void* p, size_t bytes, unsigned) {
    if (!p || !bytes) return set_error(cudaErrorInvalidValue);
    if (find_range(p)) return set_error(cudaErrorHostMemoryAlreadyRegistered);
    std::lock_guard<std::recursive_mutex> lock(memory().mutex);
    memory().ranges[(char*)p] = {(char*)p, bytes, PINNED, EMU_CALLER};
    return ok();
}
cudaError_t cudaHostUnregister(void* p) {
    std::lock_guard<std::recursive_mutex> lock(memory().mutex);
    return set_error(memory().ranges.erase((char*)p) ? cudaSuccess
                                                     : cudaErrorHostMemoryNotRegistered);
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* a, const void* p) {
    const Range* r = find_range(p);
    Space space = r ? r->space : HOST;
    a->type = space == HOST ? cudaMemoryTypeUnregistered : space == PINNED ? cudaMemoryTypeHost
              : space == MANAGED_MEMORY ? cudaMemoryTypeManaged : cudaMemoryTypeDevice;
    a->device = 0;
    a->devicePointer = space == HOST ? nullptr : (void*)p;
    a->hostPointer = on_device(space) ? nullptr : (void*)p;
    return ok();
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
    memory_init();
    *total = memory().total;
    *free = memory().total - memory().used;
    return ok();
}
cudaError_t cudaMemPrefetchAsync(const void* p, size_t, int, cudaStream_t) {
    const Range* r = find_range(p);
    return set_error(r && r->space == MANAGED_MEMORY ? cudaSuccess : cudaErrorInvalidValue);
}
