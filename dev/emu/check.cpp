// check.cpp - the checks of memory: is an address yours, alive, ever written, and ordered?
// A program with checks is compiled with -fsanitize=thread, which calls a hook before each access
// to memory, in kernels and in host code alike. That sanitizer's library is not linked: the hooks
// are here. Each asks first where the address lies, then what is known of that word. They use no
// templates of the C++ library, of which the linker may keep the program's instrumented copy.
#include <execinfo.h>
#include <signal.h>
#include <unistd.h>
#include "emu.h"
namespace emu {
static const char* verb(Access a) {
    return a == READ ? "read" : a == WRITE ? "write" : "atomic operation";
}
[[noreturn]] static void bad_address(uintptr_t p, size_t bytes, Access access, Pc pc,
                                     const char* what, const char* hint = "") {
    fault(pc, "%s: %s of %zu bytes: %s\n%s", what, verb(access), bytes,
          describe_address((void*)p).s, hint);
}

// ---- words of device memory ---------------------------------------------------------------------
[[noreturn]] static void unordered(uintptr_t p, Access access, const Work& work, uint32_t other,
                                   const char* other_access) {
    fault(work.call ? nullptr : work.pc,
          "work on two streams without synchronisation: %s of %s\n"
          "by     %s\nwhich is not ordered after the %s by %s",
          verb(access), describe_address((void*)p).s, describe_op(work.op).s, other_access,
          describe_op(other).s);
}
[[noreturn]] static void bad_word(uintptr_t p, size_t bytes, Access access, const Work& work) {
    const Range* r = nearest_range((void*)p);
    bool freed = r && r->freed && (char*)p < r->start + r->bytes && (char*)p >= r->start;
    fault(work.pc, "%s%s%s %s of %zu bytes: %s", work.call ? work.call : "", work.call ? ": " : "",
          freed ? "use after cudaFree:" : "out-of-bounds", verb(access), bytes,
          describe_address((void*)p).s);
}
// A word may be touched when its last writer, and, to write, its last reader come before this work.
static inline void touch_word(uintptr_t p, uint32_t* state, uint32_t* reader, size_t bytes,
                              Access access, const Work& work, bool must_be_written) {
    uint32_t s = *state;
    if (s == INVALID || (s == 0 && is_unused(p))) bad_word(p, bytes, access, work);
    if (s & TAIL) {
        const Range* r = find_range((void*)p);
        if (!r || (char*)p + bytes > r->start + r->bytes) bad_word(p, bytes, access, work);
    }
    uint32_t writer = s & ~TAIL;
    if (writer == 0 && access != WRITE && must_be_written)
        fault(work.pc, "read of device memory that was never written: %s",
              describe_address((void*)p).s);
    if (writer > work.ordered_before && writer != work.op && !op_ordered(writer, work.op))
        unordered(p, access, work, writer, "write");
    if (several_streams) {
        if (access != READ && *reader && *reader != work.op && !op_ordered(*reader, work.op))
            unordered(p, access, work, *reader, "last use");
        if (access != WRITE) *reader = work.op;
    }
    if (access != READ) *state = (s & TAIL) | work.op;
}
static inline void touch_words(uintptr_t p, size_t bytes, Access access, const Work& work,
                               bool must_be_written) {
    uint32_t *state = word_state(heap_writer, p), *reader = word_state(heap_reader, p);
    uintptr_t end = p + bytes;
    for (uintptr_t q = p; q < end; q = (q | 3) + 1) {
        uintptr_t next = (q | 3) + 1;
        touch_word(q, state++, reader++, (next < end ? next : end) - q, access, work,
                   must_be_written);
    }
}
static bool tracked(const void* p) { return (uintptr_t)p - (uintptr_t)heap < 2 * HEAP_BYTES; }
void check_call(const Work& work, const void* p, size_t bytes, Access access) {
    // Matrices may be read where nothing was written: of a triangle, say, cuBLAS is given the whole
    // square, and it is the program that ignores the other half of the result.
    if (tracked(p)) touch_words((uintptr_t)p, bytes, access, work, false);
    else if (!find_range(p)) bad_address((uintptr_t)p, bytes, access, work.pc, work.call);
}
static void note_unwritten(const Work& work, uintptr_t p, size_t bytes) {
    static Pc last;
    uintptr_t first = 0;
    size_t count = 0;
    for (uintptr_t q = p; q < p + bytes && work.pc != last; q = (q | 3) + 1)
        if (!(*word_state(heap_writer, q) & ~TAIL) && !count++) first = q;
    if (!count) return;
    last = work.pc;
    note(work.pc, "%s to the host: %zu of its %zu words were never written\nthe first: %s",
         work.call, count, (bytes + 3) / 4, describe_address((void*)first).s);
}
// After a copy the words of dst are written if those of src were.
void copy_state(const Work& work, void* dst, const void* src, size_t bytes) {
    if (tracked(src)) touch_words((uintptr_t)src, bytes, READ, work, false);
    if (tracked(src) && !tracked(dst)) note_unwritten(work, (uintptr_t)src, bytes);
    if (!tracked(dst)) return;
    touch_words((uintptr_t)dst, bytes, WRITE, work, false);
    if (!tracked(src) || (((uintptr_t)dst ^ (uintptr_t)src) & 3)) return;
    uint32_t *to = word_state(heap_writer, (uintptr_t)dst),
             *from = word_state(heap_writer, (uintptr_t)src);
    for (size_t i = 0; i < (((uintptr_t)dst & 3) + bytes + 3) / 4; i++)
        if ((from[i] & ~TAIL) == 0) to[i] &= TAIL;
}

// ---- shared memory ------------------------------------------------------------------------------
static uint32_t stamp() {      // what marks a word that this block has written
    return worker.launch->config.cooperative ? worker.launch->id : worker.block->first_epoch;
}
// A read of a word that nobody has written is no fault by itself: threads outside of a matrix do
// it, and throw the sum away. It is one when the thread then stores what became of the pattern that
// such words hold; but for a copy in shared memory, which is as unwritten. Perhaps the writer is
// only late: so it is reported at the next barrier, and the race detector may name both before.
static __thread struct { char* p; Pc pc; Thread* thread; } unwritten;
static __thread struct { uint16_t* p; size_t bytes; Thread* thread; bool copy; } stored;
static void use_unset(Thread* t) {
    if (!unwritten.pc) unwritten = {t->unset, t->unset_pc, t};
}
bool is_unset(uint64_t x) { return (x >> 16 & 0x7f80) == 0x7f80 && (x & 0x7fffff); }
static void settle_store() {
    auto& s = stored;
    bool used = s.bytes == 2 && (*s.p & 0x7fff) == 0x7fff, copy = s.copy;
    for (size_t i = 0; i + 2 < s.bytes; i += 4) {
        uint32_t word = s.p[i / 2] | (uint32_t)s.p[i / 2 + 1] << 16;
        used |= is_unset(word), copy &= word == UNSET;
    }
    if (used && copy) memset(worker.shared_written + ((char*)s.p - arena) / 4, 0, s.bytes);
    else if (used) use_unset(s.thread);
    s.bytes = 0;
}
static void after_unset(uintptr_t p, size_t bytes, Access access, bool in_shared) {
    settle_store();
    if (access != READ) stored = {(uint16_t*)p, bytes, worker.thread, in_shared};
}
void check_unwritten() {
    settle_store();
    if (!unwritten.pc) return;
    const AsyncCopy* late = nullptr;
    for (int i = 0; i < worker.block->threads && !late; i++) late = worker.block->thread[i].copies;
    Text copy("an asynchronous copy that was not waited for is called at %s",
              late ? where(late->pc).s : "");
    become(unwritten.thread);
    fault(unwritten.pc, "read of shared memory that this block has never written: %s\n%s",
          describe_address(unwritten.p).s, late ? copy.s : "");
}
static void shared_access(uintptr_t p, size_t bytes, Access access, Pc pc, bool must_be_written) {
    size_t first = (p - (uintptr_t)arena) / 4, last = (p + bytes - 1 - (uintptr_t)arena) / 4;
    for (size_t w = first; w <= last; w++) {
        if (last >= ARENA_BYTES / 4 || worker.shared_valid[w] != worker.launch->id)
            bad_address(p, bytes, access, pc, "out of bounds of shared memory");
        if (access != WRITE && must_be_written && worker.shared_written[w] != stamp()) {
            char* word = arena + 4 * w;
            worker.thread->unset = p < (uintptr_t)word ? word : (char*)p;
            worker.thread->unset_pc = pc;
            if (access == ATOMIC) use_unset(worker.thread);
        }
        if (access != READ) worker.shared_written[w] = stamp();
    }
}

// ---- kernels: where does the address lie? -------------------------------------------------------
static bool is_read_only(uintptr_t p) {      // by the program's own list of its segments
    auto file = (const ElfW(Ehdr)*)__ehdr_start;
    auto h = (const ElfW(Phdr)*)(__ehdr_start + file->e_phoff);
    for (int i = 0; i < file->e_phnum; i++) {
        bool constant = h[i].p_type == PT_GNU_RELRO ||
                        (h[i].p_type == PT_LOAD && !(h[i].p_flags & PF_W));
        if (constant && p - (program()->l_addr + h[i].p_vaddr) < h[i].p_memsz) return true;
    }
    return false;
}
template <class T> static bool is_in(const T& variable, uintptr_t p) {
    return p - (uintptr_t)&variable < sizeof variable;
}
static inline void note_access(uintptr_t p, size_t bytes, Access access, Pc pc, bool in_shared) {
    worker.thread->touched = true;
    if (worker.thread->unset_pc) after_unset(p, bytes, access, in_shared);
    race_access(p, bytes, access, pc, in_shared);
    if (counting) stats_access(p, bytes, access, pc, in_shared);
}
// Neither device memory nor shared nor the thread's: symbols, pinned memory, constants or mistakes.
static void other_access(uintptr_t p, size_t bytes, Access access, Pc pc) {
    if (is_in(threadIdx, p) || is_in(blockIdx, p) || is_in(blockDim, p) || is_in(gridDim, p) ||
        p - (uintptr_t)worker.launch->arguments < worker.launch->kernel.body_bytes) return;
    static __thread Range last = {};     // looking a symbol up is slow, and loops read the same one
    if (p - (uintptr_t)last.start >= last.bytes) {
        const Range* r = find_range((void*)p);
        if (!r && access == READ && is_read_only(p)) return;
        bool stack = p - (uintptr_t)worker.stacks < size_t(worker.stacks_end - worker.stacks);
        if (!r && (stack || p < 4096))
            bad_address(p, bytes, access, pc,
                        stack ? "a thread touches local variables that are not its own"
                              : "a kernel uses a null pointer");
        if (!r)
            bad_address(p, bytes, access, pc, "a kernel touches host memory",
                        "malloc, new, std::vector and ordinary variables are the host's: copy them "
                        "to memory of cudaMalloc");
        last = *r;
    }
    if ((char*)p + bytes > last.start + last.bytes)
        bad_address(p, bytes, access, pc, "out of bounds");
    bool constant = last.space == SYMBOL && last.symbol == CONSTANT;
    if (constant && access != READ)
        bad_address(p, bytes, access, pc, "a kernel writes __constant__ memory");
    if (constant) return;
    if (last.space == SYMBOL && last.symbol == MANAGED) {
        const Range* r = find_range((void*)p);
        r->user = worker.launch->work.op;
        if (access != READ) r->writer = r->user;
    }
    note_access(p, bytes, access, pc, false);
}
static inline void kernel_access(uintptr_t p, size_t bytes, Access access, Pc pc,
                                 bool must_be_written) {
    if (p - (uintptr_t)heap < 2 * HEAP_BYTES) {
        const Work& op = worker.launch->work;
        uint32_t* state = word_state(heap_writer, p);
        bool plain = (p & 3) + bytes <= 4 && *state - 1 < TAIL - 1 && !several_streams;
        if (!plain)
            touch_words(p, bytes, access, {nullptr, pc, op.op, op.ordered_before}, must_be_written);
        else if (access != READ) *state = op.op;      // nothing to ask
        note_access(p, bytes, access, pc, false);
    } else if (p - (uintptr_t)arena < ARENA_BYTES) {
        shared_access(p, bytes, access, pc, must_be_written);
        note_access(p, bytes, access, pc, true);
    } else if (p - (uintptr_t)worker.thread->fiber->stack >= STACK_BYTES) {
        other_access(p, bytes, access, pc);
    }
}

// ---- host code ----------------------------------------------------------------------------------
[[noreturn]] static void too_early(uint32_t op, Pc pc) {
    fault(pc, "host code touches managed memory before it has waited for a kernel that uses it\n"
          "used by %s; call cudaDeviceSynchronize() before", describe_op(op).s);
}
static void host_access(uintptr_t p, size_t bytes, Access access, Pc pc) {
    if (!heap || heap_is_open()) return;
    const char* what = "host code touches device memory";
    if (in_heap(p))
        bad_address(p, bytes, access, pc, what, "copy it to the host first, with cudaMemcpy");
    if (in_managed(p)) {
        Turn mine;
        uint32_t *state = word_state(heap_writer, p), waiting = 0;
        for (uintptr_t q = p; q < p + bytes && !waiting; q = (q | 3) + 1, state++) {
            if (*state == INVALID || is_unused(q))
                bad_word(q, bytes, access, {"host code", pc, 0, 0});
            if (!host_has_waited(*state & ~TAIL)) waiting = *state & ~TAIL;
            else if (access != READ) *state = (*state & TAIL) | HOST_OP;
        }
        if (waiting) too_early(waiting, pc);
        return;
    }
    if (uint32_t op = copy_under_way(p, bytes, access))
        fault(pc, "host code touches memory that an asynchronous copy is still using\n"
              "%s; wait for it with cudaStreamSynchronize()", describe_op(op).s);
    if (!near_symbols(p)) return;
    const Range* r = find_range((void*)p);
    if (!r || r->space != SYMBOL) return;
    uint32_t op = access == READ ? r->writer : r->user;
    if (r->symbol == MANAGED && !host_has_waited(op)) too_early(op, pc);
    if (r->symbol != MANAGED)
        bad_address(p, bytes, access, pc, what, "use cudaMemcpyFromSymbol or cudaMemcpyToSymbol");
}
static inline void hook(uintptr_t p, size_t bytes, Access access, Pc pc,
                        bool must_be_written = true) {
    if (!checking) return;
    if (worker.thread) kernel_access(p, bytes, access, pc, must_be_written);
    else host_access(p, bytes, access, pc);
}
void check_access(const void* p, size_t bytes, Access access, Pc pc) {
    hook((uintptr_t)p, bytes, access, pc);
}
// Copies of whole structures: bytes that were never written (padding, say) may travel, and stay so.
static void copied(void* dst, const void* src, size_t bytes) {
    uintptr_t d = (uintptr_t)dst, s = (uintptr_t)src;
    if ((d ^ s) & 3) return;
    for (size_t i = 0; i + 4 <= bytes; i += 4) {
        bool written = true;
        if (tracked((char*)s + i)) written = *word_state(heap_writer, s + i) & ~TAIL;
        else if (s + i - (uintptr_t)arena < ARENA_BYTES)
            written = worker.shared_written[(s + i - (uintptr_t)arena) / 4] == stamp();
        if (written) continue;
        if (tracked((char*)d + i)) *word_state(heap_writer, d + i) &= TAIL;
        else if (d + i - (uintptr_t)arena < ARENA_BYTES)
            worker.shared_written[(d + i - (uintptr_t)arena) / 4] = 0;
    }
}
static void move(void* dst, const void* src, size_t bytes, Pc pc) {
    if (!bytes) return;
    hook((uintptr_t)src, bytes, READ, pc, false);
    hook((uintptr_t)dst, bytes, WRITE, pc);
    if (checking && worker.thread) copied(dst, src, bytes);
    memmove(dst, src, bytes);
}

// ---- asynchronous copies into shared memory -----------------------------------------------------
// Done when their thread waits for them. Until then nobody knows what dst holds, so it is written
// twice: now, to be unwritten (and others may still be reading), and then, with the data.
static void issue_copy(void* dst, const void* src, size_t bytes, size_t zeros, Pc pc) {
    Thread& t = *worker.thread;
    t.copies = new AsyncCopy{t.copies, t.batches, dst, src, pc, bytes, zeros};
    size_t at = (char*)dst - arena;
    if (!checking || at >= ARENA_BYTES) return;
    shared_access((uintptr_t)dst, bytes, WRITE, pc, true);
    race_access((uintptr_t)dst, bytes, WRITE, pc, true);
    for (size_t w = at / 4; (at | bytes) % 4 == 0 && w < (at + bytes) / 4; w++)
        ((uint32_t*)arena)[w] = UNSET, worker.shared_written[w] = 0;
}
void copy_async(void* dst, const void* src, size_t bytes, size_t zeros) {
    issue_copy(dst, src, bytes, zeros, EMU_CALLER);
}
void* in_shared(uint32_t address, size_t bytes, Pc pc) {
    if (checking && address >= ARENA_BYTES)
        fault(pc, "out of bounds of shared memory: address %u\n"
              "PTX takes shared memory's own addresses: __cvta_generic_to_shared(p)", address);
    if (checking && address % bytes)
        fault(pc, "misaligned address: %s, not a multiple of %zu",
              describe_address(arena + address).s, bytes);
    return arena + address;
}
void cp_async(uint32_t dst, const void* src, size_t bytes, size_t present, bool cg) {
    Pc pc = EMU_CALLER;
    if (bytes != 16 && (cg || (bytes != 4 && bytes != 8)))
        fault(pc, "cp.async.%s cannot copy %zu bytes at a time", cg ? "cg" : "ca", bytes);
    if (checking && (uintptr_t)src % bytes)
        fault(pc, "misaligned address: %s, not a multiple of %zu", describe_address(src).s, bytes);
    size_t zeros = present < bytes ? bytes - present : 0;
    issue_copy(in_shared(dst, bytes, pc), src, bytes, zeros, pc);
}
void commit_copies() { worker.thread->batches++; }
void wait_for_all_copies() { commit_copies(), wait_for_copies(0); }
void wait_for_copies(uint32_t but_last) {
    Thread& t = *worker.thread;
    for (AsyncCopy **c = &t.copies, *a; (a = *c);) {
        if (a->batch + but_last < t.batches) {
            size_t copied = a->bytes - a->zeros;
            move(a->dst, a->src, copied, a->pc);
            if (a->zeros) hook((uintptr_t)a->dst + copied, a->zeros, WRITE, a->pc);
            memset((char*)a->dst + copied, 0, a->zeros);
            *c = a->next;
            delete a;
        } else c = &a->next;
    }
}

// ---- faults that the processor finds ------------------------------------------------------------
#ifdef __x86_64__
// A GPU does not stop at a division by zero. So goes on behind the instruction (F6 or F7, with
// prefixes before and an operand's bytes behind) with all ones; and of the lowest by -1, itself.
static void finish_division(Pc pc, ucontext_t* context) {
    greg_t* registers = context->uc_mcontext.gregs;
    const uint8_t* p = (const uint8_t*)registers[REG_RIP];
    int bytes = 4;
    for (; *p == 0x64 || *p == 0x66 || (*p & 0xf0) == 0x40; p++)
        bytes = *p == 0x66 ? 2 : (*p & 0xf8) == 0x48 ? 8 : bytes;
    if (*p == 0xf6) bytes = 1;
    int mode = p[1] >> 6, base = p[1] & 7, length = 2 + (mode == 1) + 4 * (mode == 2);
    if (mode < 3 && base == 4) length++, base = p[2] & 7;
    if (mode == 0 && base == 5) length += 4;
    uint64_t ones = ~0ull >> (64 - 8 * bytes), x = registers[REG_RAX] & ones;
    bool overflow = (p[1] & 0x38) == 0x38 && x == ones / 2 + 1;      // idiv, not div
    uint64_t quotient = overflow ? x : ones, rest = overflow ? 0 : x;
    registers[REG_RAX] = bytes == 1 ? rest << 8 | quotient : quotient;
    if (bytes > 1) registers[REG_RDX] = rest;
    registers[REG_RIP] = (greg_t)(p + length);
    static Pc told[61];
    if (told[(uintptr_t)pc % 61] != pc)
        note(pc, "integer division %s: a GPU goes on, with a result that is not specified",
             overflow ? "of the lowest number by -1" : "by zero");
    told[(uintptr_t)pc % 61] = pc;
}
#else
static void finish_division(Pc, ucontext_t*) {}      // an Arm's division never stops
#endif
static struct sigaction before[NSIG];      // who had the signals: a library's emulator, perhaps
static void on_signal(int number, siginfo_t* info, void* context) {
    uintptr_t p = (uintptr_t)info->si_addr;
    auto other = before[number].sa_sigaction;
    if (!worker.thread && !in_heap(p) && other) return other(number, info, context);
    void* frames[3] = {};
    backtrace(frames, 3);      // 0 is this function, 1 the signal's trampoline
    Pc pc = (char*)frames[2] + 1;
    if (number == SIGFPE && worker.thread) return finish_division(pc, (ucontext_t*)context);
    signal(number, SIG_DFL);
    if (worker.thread && p - (uintptr_t)worker.thread->fiber->stack < 4096)
        fault(pc, "a thread's local variables need more than the %zu bytes of its stack",
              STACK_BYTES);
    fault(pc, "%s: %s",
          worker.thread         ? "a kernel touches an address that is not mapped"
          : heap && in_heap(p)  ? "host code, or a library that it calls, touches device memory"
          : number == SIGFPE    ? "arithmetic error in host code"
                                : "segmentation fault in host code",
          describe_address((void*)p).s);
}
// EMU_TIMEOUT=seconds. Each host thread's timer comes again, until one runs a kernel, or none does.
static void on_timeout(int, siginfo_t*, void*) {
    bool main = gettid() == getpid();
    if (!worker.thread && (worker.launch || kernel_runs || !main)) return;
    void* frames[3] = {};
    backtrace(frames, 3);
    fault((char*)frames[2] + 1, "EMU_TIMEOUT: %s seconds are over, and %s", getenv("EMU_TIMEOUT"),
          worker.thread ? "this kernel runs" : "the host runs, no kernel");
}
static void start_timer() {
    const char* seconds = getenv("EMU_TIMEOUT");
    if (!seconds || atof(seconds) <= 0) return;
    static const clock_t begun = clock64() / 1000000;
    long left = (long)(atof(seconds) * 1000) - (clock64() / 1000000 - begun);
    if (left < 1) left = 1;
    sigevent event = {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = SIGRTMIN;
    event._sigev_un._tid = gettid();
    struct sigaction action = {};
    action.sa_sigaction = on_timeout;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigaction(SIGRTMIN, &action, nullptr);
    timer_t timer;
    itimerspec when = {{0, 50000000}, {left / 1000, left % 1000 * 1000000}};
    if (!timer_create(CLOCK_MONOTONIC, &event, &timer)) timer_settime(timer, 0, &when, nullptr);
}
// Each host thread that runs kernels needs a stack for the handler: the fiber's own may be full.
void catch_signals() {
    static __thread bool done;
    if (done) return;
    done = true;
    stack_t stack = {};
    stack.ss_size = 256 << 10;
    stack.ss_sp = malloc(stack.ss_size);
    sigaltstack(&stack, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    static bool installed;
    for (int s : {SIGSEGV, SIGBUS, SIGFPE})
        if (!installed) sigaction(s, &action, &before[s]);
    installed = true;
    start_timer();
}
}  // namespace emu

// ---- the hooks that the compiler calls ----------------------------------------------------------
using namespace emu;
static __thread struct { void* dst; size_t bytes; Pc pc; } last_write;  // half of a copy, perhaps
#define EMU_HOOK(name, vol, bytes, access) \
    void __tsan_##name##bytes(void* p) { hook((uintptr_t)p, bytes, access, EMU_CALLER); } \
    void __tsan_##vol##bytes(void* p) { \
        is_volatile = true; \
        hook((uintptr_t)p, bytes, access, EMU_CALLER); \
        is_volatile = false; \
        if (access == READ) emu::yield(); \
    }
#define EMU_HOOKS(bytes) \
    EMU_HOOK(read, volatile_read, bytes, READ) EMU_HOOK(write, volatile_write, bytes, WRITE) \
    EMU_HOOK(unaligned_read, unaligned_volatile_read, bytes, READ) \
    EMU_HOOK(unaligned_write, unaligned_volatile_write, bytes, WRITE)
// std::atomic, and the compiler's __atomic functions: order and strength do not matter here.
#define EMU_ATOMIC_HOOK(bits, T, name) \
    T __tsan_atomic##bits##_##name(volatile T* p, T v, int) { \
        hook((uintptr_t)p, bits / 8, ATOMIC, EMU_CALLER); \
        return __atomic_##name(p, v, __ATOMIC_SEQ_CST); \
    }
#define __atomic_exchange(p, v, order) __atomic_exchange_n(p, v, order)
#define EMU_SWAP_HOOK(bits, T, strength) \
    int __tsan_atomic##bits##_compare_exchange_##strength(volatile T* p, T* old, T v, int, int) { \
        hook((uintptr_t)p, bits / 8, ATOMIC, EMU_CALLER); \
        int done = __atomic_compare_exchange_n(p, old, v, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
        if (!done) emu::yield(); \
        return done; \
    }
#define EMU_ATOMIC_HOOKS(bits, T) \
    T __tsan_atomic##bits##_load(const volatile T* p, int) { \
        hook((uintptr_t)p, bits / 8, ATOMIC, EMU_CALLER); \
        if (worker.thread) emu::yield(); \
        return __atomic_load_n(p, __ATOMIC_SEQ_CST); \
    } \
    void __tsan_atomic##bits##_store(volatile T* p, T v, int) { \
        hook((uintptr_t)p, bits / 8, WRITE, EMU_CALLER); \
        __atomic_store_n(p, v, __ATOMIC_SEQ_CST); \
    } \
    EMU_ATOMIC_HOOK(bits, T, exchange) EMU_ATOMIC_HOOK(bits, T, fetch_add) \
    EMU_ATOMIC_HOOK(bits, T, fetch_sub) EMU_ATOMIC_HOOK(bits, T, fetch_and) \
    EMU_ATOMIC_HOOK(bits, T, fetch_or) EMU_ATOMIC_HOOK(bits, T, fetch_xor) \
    EMU_SWAP_HOOK(bits, T, strong) EMU_SWAP_HOOK(bits, T, weak)
extern "C" {
EMU_HOOKS(1) EMU_HOOKS(2) EMU_HOOKS(4) EMU_HOOKS(8) EMU_HOOKS(16)
EMU_ATOMIC_HOOKS(8, uint8_t) EMU_ATOMIC_HOOKS(16, uint16_t)
EMU_ATOMIC_HOOKS(32, uint32_t) EMU_ATOMIC_HOOKS(64, uint64_t)
void __tsan_init() {}
void __tsan_vptr_update(void* p, void*) { hook((uintptr_t)p, sizeof p, WRITE, EMU_CALLER); }
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __tsan_atomic_signal_fence(int) {}
void __tsan_write_range(void* p, size_t bytes) {
    hook((uintptr_t)p, bytes, WRITE, EMU_CALLER);
    last_write = {p, bytes, EMU_CALLER};
}
// float2 and float4 are read as values; other structures may be copied with holes in them.
void __tsan_read_range(void* p, size_t bytes) {
    bool vector = bytes == 8 || bytes == 16;
    hook((uintptr_t)p, bytes, READ, EMU_CALLER, vector);
    bool copy = last_write.bytes == bytes && (char*)EMU_CALLER - (char*)last_write.pc < 64;
    if (checking && worker.thread && !vector && copy) copied(last_write.dst, p, bytes);
    last_write.bytes = 0;
}
void* emu_memmove(void* dst, const void* src, size_t bytes) {
    move(dst, src, bytes, EMU_CALLER);
    return dst;
}
void* emu_memcpy(void* dst, const void* src, size_t bytes) { return emu_memmove(dst, src, bytes); }
void* emu_memset(void* p, int value, size_t bytes) {
    if (bytes) hook((uintptr_t)p, bytes, WRITE, EMU_CALLER);
    return memset(p, value, bytes);
}
// -fsanitize=bounds: a subscript outside of an array, local ones too, of a size the compiler knows.
struct UbsanType { uint16_t kind, info; char name[1]; };
struct UbsanPlace { const char* file; uint32_t line, column; };
struct UbsanBounds { UbsanPlace at; const UbsanType *array, *index; };
void __ubsan_handle_out_of_bounds(UbsanBounds* where, uintptr_t index) {
    if (!checking) return;
    bool is_signed = where->index->info & 1;
    int bits = 1 << (where->index->info >> 1);
    long long value = is_signed && bits <= 32 ? (int)index : (long long)index;
    fault(EMU_CALLER, "out-of-bounds subscript: [%lld] of an array of type %s", value,
          where->array->name);
}
// -fsanitize=alignment: a GPU refuses an address that is no multiple of its type's alignment.
// -fsanitize=object-size: where a pointer comes from a variable that the compiler knows.
struct UbsanMismatch { UbsanPlace at; const UbsanType* type; uint8_t log_alignment, kind; };
void __ubsan_handle_type_mismatch_v1(UbsanMismatch* where, const void* p) {
    if (!checking || !worker.thread) return;
    int alignment = 1 << where->log_alignment;
    if ((uintptr_t)p % alignment)
        fault(EMU_CALLER, "misaligned address: %s, not a multiple of the %d of type %s",
              describe_address(p).s, alignment, where->type->name);
    fault(EMU_CALLER, "out of bounds: no %s is there: %s", where->type->name,
          describe_address(p).s);
}
}
