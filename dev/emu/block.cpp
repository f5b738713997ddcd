// block.cpp - blocks and their threads: fibers, who runs next, barriers, handing out blocks.
// A GPU runs a block's threads at the same time; here they take turns. A turn ends where a thread
// has to wait for others: at __syncthreads, in a shuffle, at its end. So a program that forgets to
// wait gets another order than it hoped for, and EMU_SEED chooses other orders still.
#include <sys/mman.h>
#include <omp.h>
#include <algorithm>
#include "emu.h"
__thread uint3 threadIdx;
__thread uint3 blockIdx;
__thread dim3 blockDim;
__thread dim3 gridDim;
namespace emu {
__thread Worker worker;
__thread char arena[ARENA_BYTES] __attribute__((aligned(128)));

// ---- switching fibers ---------------------------------------------------------------------------
// emu_switch(save, sp) keeps the callee-saved registers on the stack that it leaves, stores that
// stack's pointer in *save, moves to the other stack and restores: about 60 ns, most cache misses.
extern "C" void emu_switch(void** save, void* sp);
extern "C" void emu_fiber_entry();
#if defined(__x86_64__)
asm(R"(
    .text
    .globl emu_switch
emu_switch:
    pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
    ret
    .type emu_switch, @function
    .size emu_switch, . - emu_switch
)");
const int RETURN_WORD = 6, FRAME_WORDS = 8;
#elif defined(__aarch64__)
asm(R"(
    .text
    .globl emu_switch
emu_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0];  stp x21, x22, [sp, #16];   stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]; stp x27, x28, [sp, #64];   stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96];   stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]; stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0];  ldp x21, x22, [sp, #16];   ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]; ldp x27, x28, [sp, #64];   ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96];   ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]; ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
    .type emu_switch, %function
    .size emu_switch, . - emu_switch
)");
const int RETURN_WORD = 11, FRAME_WORDS = 20;
#else
#error "the emulator switches stacks by hand, and knows how on x86-64 and 64-bit Arm"
#endif
// A stack as if emu_fiber_entry had just been about to start. Stacks lie a power of two apart, so
// their tops would share a few cache sets: each begins a little lower than the one before.
static void prepare(Fiber* fiber) {
    size_t number = (fiber->stack - worker.stacks) / STACK_BYTES;
    fiber->top = fiber->stack + STACK_BYTES - 64 - number * 192 % 8192;
    void** frame = (void**)fiber->top - FRAME_WORDS;
    memset(frame, 0, sizeof(void*) * FRAME_WORDS);
    frame[RETURN_WORD] = (void*)emu_fiber_entry;
    fiber->sp = frame;
}
// Fibers for up to `count` threads, also of later launches. Each stack ends in a page that faults.
static void need_fibers(int count) {
    if (count <= worker.number_of_fibers) return;
    if (worker.stacks) munmap(worker.stacks, worker.stacks_end - worker.stacks);
    size_t bytes = STACK_BYTES * count;
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        fault(nullptr, "no address space for %d threads of %zu bytes of stack", count, STACK_BYTES);
    worker.stacks = (char*)p;
    worker.stacks_end = worker.stacks + bytes;
    worker.fibers = (Fiber*)realloc(worker.fibers, sizeof(Fiber) * count);
    worker.free_fibers = (Fiber**)realloc(worker.free_fibers, sizeof(Fiber*) * count);
    for (int i = 0; i < count; i++) {
        worker.fibers[i].stack = worker.stacks + i * STACK_BYTES;
        mprotect(worker.fibers[i].stack, 4096, PROT_NONE);
    }
    worker.number_of_fibers = count;
}

// ---- who runs next ------------------------------------------------------------------------------
uint64_t random_next(uint64_t& state) {        // splitmix64
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}
void make_ready(Block& block, int number) {
    block.thread[number].state = READY;
    int place = block.ready_first + block.ready_count++;
    block.ready[place < block.threads ? place : place - block.threads] = number;
}
static int take_ready(Block& block) {
    if (seed) {      // any of those that can run, instead of the one that has waited longest
        int pick = block.ready_first + random_next(worker.random) % block.ready_count;
        if (pick >= block.threads) pick -= block.threads;
        std::swap(block.ready[pick], block.ready[block.ready_first]);
    }
    int number = block.ready[block.ready_first];
    if (++block.ready_first == block.threads) block.ready_first = 0;
    block.ready_count--;
    return number;
}
// The next thread to run, or null when every thread has exited or waits for the whole grid.
static Thread* next_thread(Block& block) {
    while (block.ready_count == 0) {
        if (release_activemask(block)) continue;
        for (int i = 0; i < block.threads; i++)
            if (block.thread[i].state == AT_BARRIER || block.thread[i].state == AT_WARP_OP)
                stalled(block);
        return nullptr;
    }
    return &block.thread[take_ready(block)];
}
void become(Thread* thread) {
    worker.thread = thread;
    if (thread) threadIdx = thread->index;
}
static void switch_from(Fiber* fiber, Thread* next) {
    if (!next) {
        become(nullptr);
        emu_switch(&fiber->sp, worker.main.sp);
        return;
    }
    if (!next->fiber) {
        next->fiber = worker.free_fibers[--worker.free_count];
        prepare(next->fiber);
    }
    become(next);
    emu_switch(&fiber->sp, next->fiber->sp);
}
void wait_here(ThreadState state, Pc pc) {
    Block& block = *worker.block;
    Thread* thread = worker.thread;
    if (checking) race_flush();
    thread->pc = pc;
    if (state != READY) thread->state = state;
    Thread* next = next_thread(block);
    if (next != thread) switch_from(thread->fiber, next);
}
// Nobody but waiting threads for so many seconds: what they wait for does not come.
static void check_progress() {
    const int PATIENCE = 5;
    static __thread uint32_t seen, seen_in;
    static __thread time_t since;
    const Launch& l = *worker.launch;
    time_t now = time(nullptr);
    if (seen != l.progress || seen_in != l.id) seen = l.progress, seen_in = l.id, since = now;
    if (now - since < PATIENCE) return;
    Text idle("%d blocks have not begun: to wait for other blocks takes a cooperative launch",
              l.blocks - l.next);
    fault(EMU_CALLER, "deadlock: for %d seconds all threads that run have waited in loops\n%s",
          PATIENCE, l.next < l.blocks && !l.config.cooperative ? idle.s : "");
}
// Loops that wait for another thread's store must let it run. When threads do nothing but wait like
// this, those in __activemask cannot hope for more company either.
void yield() {
    if (!worker.thread) return;
    Block& block = *worker.block;
    if (worker.launch->abandoned) abandon((cudaError_t)worker.launch->abandoned.load());
    if (++block.spins > 2 * block.threads) {
        block.spins = 0;
        if (release_activemask(block)) return;
        check_progress();
        if (worker.launch->config.cooperative) {      // another block may have what they wait for
            Thread* thread = worker.thread;
            if (checking) race_flush();
            make_ready(block, thread->number);
            return switch_from(thread->fiber, nullptr);
        }
    }
    if (block.ready_count == 0) return;
    make_ready(block, worker.thread->number);
    wait_here(READY, nullptr);
}
static void finish_barrier(Block& block);
// A fiber runs one thread after another: a kernel that never waits needs one stack for all threads.
extern "C" void emu_fiber_entry() {
    for (;;) {
        Thread* thread = worker.thread;
        Block& block = *worker.block;
        worker.launch->kernel.call(worker.launch->arguments);
        if (checking) race_flush();
        thread->state = EXITED;
        thread->ended = block.barriers;
        block.alive--, block.ended++;
        if (block.spins) worker.launch->progress++;
        block.spins = 0;
        warp_lane_exited(block, *thread);
        if (block.waiting && block.waiting == block.alive) finish_barrier(block);
        Fiber* fiber = thread->fiber;
        Thread* next = next_thread(block);
        if (next && !next->fiber) {
            next->fiber = fiber;
            become(next);
            continue;
        }
        worker.free_fibers[worker.free_count++] = fiber;
        switch_from(fiber, next);      // and never back: prepare() will start this stack afresh
    }
}

// ---- where threads have been --------------------------------------------------------------------
// A thread that returns before a barrier is not waited for, and one that takes a branch around it
// looks much the same: both end while others wait. But what lies behind the branch is code that the
// others come to later, and an early return is not. So with checks g++ calls us at the start of
// each basic block (-fsanitize-coverage=trace-pc), and we note who was where, and when.
struct Place {
    Pc pc;                         // of a basic block
    uint32_t depth;                // of its function's frame in the stack
    uint32_t when[MAX_THREADS];    // the epoch in which each thread was here last
    // The epoch in which a thread, the passer, was here and then ended, while those that came to
    // the next barrier were not here on their way.
    uint32_t passed;
    int passer;
    Pc barrier;
};
const uint32_t MAX_PLACES = 1 << 14;      // of one program; what comes after them is not noted
struct Places {
    Place place[MAX_PLACES];
    uint32_t count;
    struct Known { Pc pc; Place* place; } known[2 * MAX_PLACES];      // by the hash of pc
};
static __thread Places* places;
static uint32_t depth(const void* frame) {
    return (uint32_t)(worker.thread->fiber->top - (char*)frame);
}
static __attribute__((noinline)) void add_place(Places::Known& known, Pc pc, const void* frame) {
    if (places->count == MAX_PLACES) return;
    Place& p = places->place[places->count++];
    p.pc = pc;
    p.depth = depth(frame);
    known = {pc, p.depth < worker.thread->kernel ? nullptr : &p};      // null: what calls kernels
}
static inline void enter_place(Pc pc, const void* frame) {
    uint32_t i = (uintptr_t)pc * 0x9e3779b97f4a7c15 >> 32;
    Places::Known* known = &places->known[i % (2 * MAX_PLACES)];
    while (known->pc && known->pc != pc) known = &places->known[++i % (2 * MAX_PLACES)];
    if (!known->pc) add_place(*known, pc, frame);
    if (!known->place) return;
    worker.thread->place = pc;
    worker.thread->touched = false;
    known->place->when[worker.thread->number] = worker.epoch;
}
// Where emucc has each kernel begin. Host code that calls a kernel without <<<>>> comes here too.
bool on_device() { return worker.thread; }
bool not_launched() {
    if (worker.thread) worker.thread->kernel = depth(EMU_FRAME);
    return !worker.thread && set_error(cudaErrorMissingConfiguration);
}
// At a barrier that opens though threads have ended since the last one.
static void find_passed(Block& block) {
    for (uint32_t n = 0; n < places->count; n++) {
        Place& p = places->place[n];
        const Thread* passer = nullptr;
        bool before = false;      // others were there on their way to the barrier
        for (int i = 0; i < block.threads && !before; i++) {
            if (p.when[i] != block.barriers) continue;
            const Thread& t = block.thread[i];
            before = t.state != EXITED;
            // What a thread only returns through, or calls, others may have called later.
            bool returns = t.place == p.pc && !t.touched;
            bool called = p.depth != block.barrier_depth && p.depth != t.kernel;
            if (!before && !returns && !called) passer = &t;
        }
        if (!passer || before || p.passed >= block.first_epoch) continue;
        p.passed = block.barriers, p.passer = passer->number, p.barrier = block.barrier_pc;
        block.passed = true;
    }
}
static void check_passed(Block& block) {
    for (uint32_t n = 0; n < places->count; n++) {
        const Place& p = places->place[n];
        bool all = p.passed >= block.first_epoch;      // who came to the barrier came here after it
        for (int i = 0; i < block.threads && all; i++)
            all = block.thread[i].ended <= p.passed || p.when[i] > p.passed;
        if (!all) continue;
        become(&block.thread[p.passer]);
        fault(p.barrier, "divergent barrier: a thread has ended without coming to this "
              "__syncthreads()\nit took a way around it, to %s", where(p.pc).s);
    }
}

// ---- the barrier --------------------------------------------------------------------------------
// Opens when all threads that have not exited have come: CUDA demands, to the same barrier.
static void finish_barrier(Block& block) {
    if (checking) race_flush();
    if (checking) check_unwritten();
    if (checking && block.ended) find_passed(block);
    block.ended = 0;
    block.barrier_result = block.barrier_trues | (block.barrier_all ? 1 << 30 : 0);
    block.barrier_trues = 0;
    block.barrier_all = true;
    block.waiting = 0;
    block.spins = 0;
    worker.launch->progress++;
    block.barriers = ++worker.epoch;
    if (counting) stats_flush(block, true);
    for (int i = 0; i < block.threads; i++)
        if (block.thread[i].state == AT_BARRIER) make_ready(block, i);
}
static int barrier(int predicate, Pc pc, const void* frame) {
    Thread* thread = worker.thread;
    if (!thread) fault(pc, "__syncthreads() was called by host code");
    Block& block = *worker.block;
    bool other = checking && block.waiting && block.barrier_pc != pc;
    if (other && line_of(block.barrier_pc) != line_of(pc))
        fault(pc, "divergent barrier: threads of one block wait at different __syncthreads()\n"
              "another thread waits at %s", where(block.barrier_pc).s);
    block.barrier_pc = pc;
    block.barrier_depth = depth(frame);
    block.waiting++;
    block.barrier_trues += predicate != 0;
    block.barrier_all &= predicate != 0;
    thread->state = AT_BARRIER;
    thread->pc = pc;
    if (block.waiting == block.alive) finish_barrier(block);
    wait_here(thread->state, pc);
    return block.barrier_result;
}
// Nobody can run, but not everybody is done.
[[noreturn]] void stalled(Block& block) {
    auto first = [&](ThreadState state) {
        int i = 0;
        while (i < block.threads && block.thread[i].state != state) i++;
        return i < block.threads ? &block.thread[i] : nullptr;
    };
    Thread* thread = first(AT_WARP_OP) ? first(AT_WARP_OP) : first(AT_BARRIER);
    become(thread);
    if (thread->state == AT_BARRIER)
        fault(thread->pc,
              "divergent barrier: some threads wait at __syncthreads(), others for the grid");
    Thread* missing = nullptr;
    int base = thread->number / WARP * WARP;
    for (int l = 0; l < WARP && !missing && base + l < block.threads; l++) {
        Thread& other = block.thread[base + l];
        if ((thread->mask >> l & 1) && !meets(other, *thread)) missing = &other;
    }
    Text elsewhere("the others have ended");
    if (missing)
        elsewhere = {"lane %d, %s, waits elsewhere: %s", missing->number % WARP,
                     thread_name(missing->number).s, where(missing->pc).s};
    fault(thread->pc, "a %s waits for lanes that are inactive: its mask is %08x\n%s",
          name_of(thread->op), thread->mask, elsewhere.s);
}
void grid_sync() {
    if (!worker.launch->config.cooperative)
        fault(EMU_CALLER,
              "grid.sync() in a kernel that was not launched by cudaLaunchCooperativeKernel");
    wait_here(AT_GRID_SYNC, EMU_CALLER);
}
// A whole block has ended without coming: on a GPU the others wait for ever.
[[noreturn]] static void never_meets(Block& waits, const Block& ended) {
    Thread* t = waits.thread;
    while (t->state != AT_GRID_SYNC) t++;
    worker.block = &waits, blockIdx = waits.index;
    become(t);
    fault(t->pc, "divergent barrier: grid.sync() waits for %s, which has ended",
          block_name(ended.number).s);
}
void abandon(cudaError_t error) {
    worker.launch->abandoned = error;
    void* nowhere;
    become(nullptr);
    emu_switch(&nowhere, worker.main.sp);
    abort();      // nobody comes back
}

// ---- blocks -------------------------------------------------------------------------------------
static void begin_block(Block& block, int number) {
    const Config& c = worker.launch->config;
    block.index = {number % c.grid.x, number / c.grid.x % c.grid.y, number / c.grid.x / c.grid.y};
    block.threads = block.alive = worker.launch->threads;
    block.waiting = block.ready_first = block.ready_count = block.spins = 0;
    block.barrier_trues = block.ended = 0;
    block.barrier_all = true;
    block.passed = false;
    block.number = number;
    for (int w = 0; w * WARP < block.threads; w++) {
        int lanes = block.threads - w * WARP;
        block.alive_lanes[w] = lanes >= WARP ? 0xffffffff : (1u << lanes) - 1;
        block.waiting_lanes[w] = 0;
    }
    uint3 index = {0, 0, 0};
    for (int i = 0; i < block.threads; i++) {
        block.thread[i] = {index, i, READY};
        block.ready[i] = i;
        if (++index.x == c.block.x) index.x = 0, index.y++;
        if (index.y == c.block.y) index.y = 0, index.z++;
    }
    block.ready_count = block.threads;
    block.barriers = block.first_epoch = ++worker.epoch;
    worker.launch->progress++;
    if (!checking) return;
    std::fill_n((uint32_t*)arena, worker.arena_used / 4, UNSET);
    race_block_begins(block), grid_block_begins(block);
}
// Runs a block until its threads have exited or all wait for the grid.
static void continue_block(Block& block) {
    worker.block = &block;
    blockIdx = block.index;
    block.barriers = ++worker.epoch;
    Thread* next = next_thread(block);
    if (next) switch_from(&worker.main, next);
    worker.thread = nullptr;
    if (checking && !worker.launch->abandoned && !block.ready_count) check_unwritten();
    if (block.passed && !block.alive && !worker.launch->config.cooperative) check_passed(block);
    if (counting) stats_flush(block, false);
}
// The next bytes of the arena, and a gap.
static void* new_shared(size_t bytes) {
    size_t start = worker.arena_used;
    worker.arena_used += (bytes + 127) / 128 * 128 + 128;
    for (size_t w = start / 4; checking && w < (start + bytes + 3) / 4; w++)
        worker.shared_valid[w] = worker.launch->id, ((uint32_t*)arena)[w] = UNSET;
    return arena + start;
}
static void enter(Launch& launch) {
    need_fibers(launch.config.cooperative ? launch.threads * launch.blocks : launch.threads);
    // A launch that was abandoned left threads in the middle: take their stacks back.
    worker.free_count = worker.number_of_fibers;
    for (int i = 0; i < worker.free_count; i++)
        worker.free_fibers[worker.free_count - 1 - i] = &worker.fibers[i];
    worker.launch = &launch;
    if (worker.races) worker.races->stores = 0;
    worker.random = seed * 0x9e3779b97f4a7c15 + launch.id;
    worker.variables = 0;
    worker.arena_used = 0;
    new_shared(launch.config.shared);
    catch_signals();
    if (!places) places = (Places*)calloc(1, sizeof(Places));
    blockDim = launch.config.block;
    gridDim = launch.config.grid;
}
static void run_blocks(Launch& launch) {
    static __thread Block block = {};
    enter(launch);
    for (int i; !launch.abandoned && (i = launch.next++) < launch.blocks;) {
        int number = launch.order ? launch.order[i] : i;
        begin_block(block, number);
        worker.random = (seed + launch.id) * 0x9e3779b97f4a7c15 + number;
        continue_block(block);
    }
    worker.launch = nullptr, worker.block = nullptr;
}
// A cooperative grid may wait for all of its blocks, so all of them must be under way at once. They
// share one worker; shared memory is copied out of the arena while another block has its turn.
static void run_cooperative(Launch& launch) {
    enter(launch);
    struct Paused { Block block; char arena[ARENA_BYTES]; };
    Paused* all = (Paused*)calloc(launch.blocks, sizeof(Paused));
    for (int i = 0; i < launch.blocks; i++) {
        begin_block(all[i].block, i);
        if (checking) std::fill_n((uint32_t*)all[i].arena, ARENA_BYTES / 4, UNSET);
    }
    for (int alive = 1; alive && !launch.abandoned;) {
        bool met = true;      // at grid.sync(): nobody has anything else to do
        Block *waits = nullptr, *ended = nullptr;
        for (int i = 0; i < launch.blocks; i++) {
            Block& block = all[i].block;
            met = met && !block.ready_count;
            (block.alive ? waits : ended) = &block;
        }
        if (met && waits && ended) never_meets(*waits, *ended);
        if (met) grid_begins(false);
        alive = 0;
        for (int i = 0; i < launch.blocks && !launch.abandoned; i++) {
            Paused& paused = all[launch.order ? launch.order[i] : i];
            Block& block = paused.block;
            for (int t = 0; met && t < launch.threads; t++)
                if (block.thread[t].state == AT_GRID_SYNC) make_ready(block, t);
            alive += block.alive;
            if (!block.ready_count) continue;
            memcpy(arena, paused.arena, ARENA_BYTES);
            continue_block(block);
            memcpy(paused.arena, arena, ARENA_BYTES);
        }
    }
    free(all);
    worker.launch = nullptr, worker.block = nullptr;
}
void run_launch(Launch& launch) {
    grid_begins(true);
    kernel_runs = true;
    int workers = std::min(omp_get_max_threads(), launch.blocks);
    if (launch.config.cooperative) run_cooperative(launch);
    else if (workers == 1 || omp_in_parallel()) run_blocks(launch);
    else {
#pragma omp parallel num_threads(workers)
        run_blocks(launch);
    }
    kernel_runs = false;
    settle_doubts(launch);
}

// ---- shared memory ------------------------------------------------------------------------------
// The arena holds the dynamic part, then each static variable as it is first met, with a gap of 128
// bytes or more behind each, where a subscript lands that runs off the end.
void* dynamic_shared() { return arena; }
void* shared(Slot& slot, size_t bytes) {
    static std::atomic<int> slots{0};
    int id = slot.id.load(std::memory_order_acquire);
    if (id == 0) {
        int fresh = ++slots;
        id = slot.id.compare_exchange_strong(id, fresh) ? fresh : id;
    }
    if (id >= 256) fault(nullptr, "more than 255 __shared__ variables in one program");
    Variable& v = worker.variable[id];
    if (v.launch == worker.launch->id) return arena + v.offset;
    size_t used = bytes, dynamic = worker.launch->config.shared;
    for (int i = 0; i < worker.variables; i++) used += worker.placed[i]->bytes;
    if (used > SHARED_DEFAULT || used + dynamic > SHARED_OPTIN)
        fault(nullptr, "too much shared memory: %zu bytes of __shared__ variables up to '%s', and "
              "%zu dynamic\na block may have %zu bytes of static shared memory, %zu in all",
              used, slot.name, dynamic, SHARED_DEFAULT, SHARED_OPTIN);
    worker.launch->static_shared = used;
    v = {worker.launch->id, worker.arena_used, bytes, slot.name};
    worker.placed[worker.variables++] = &v;
    return new_shared(bytes);
}
}  // namespace emu
void __syncthreads() { emu::barrier(0, EMU_CALLER, EMU_FRAME); }
int __syncthreads_count(int p) { return emu::barrier(p, EMU_CALLER, EMU_FRAME) & ~(1 << 30); }
int __syncthreads_and(int p) { return emu::barrier(p, EMU_CALLER, EMU_FRAME) >> 30 & 1; }
int __syncthreads_or(int p) { return (emu::barrier(p, EMU_CALLER, EMU_FRAME) & ~(1 << 30)) != 0; }
void __trap() { emu::abandon(cudaErrorLaunchFailure); }
extern "C" void __sanitizer_cov_trace_pc() {
    if (emu::checking && emu::worker.thread) emu::enter_place(EMU_CALLER, EMU_FRAME);
}
