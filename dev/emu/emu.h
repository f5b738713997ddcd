// emu.h - the emulator's own structures, shared by its .cpp files.
// A grid is a list of blocks. Blocks are handed out to the host's threads; a host thread that runs
// blocks is a Worker, and has everything that one block needs at a time: fibers for the block's
// threads, the arena of its shared memory, the notes of the race detector. A block never leaves its
// worker, so all of this is thread_local and needs no lock.
#pragma once
#include <link.h>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include "cuda_runtime.h"
namespace emu {
typedef const void* Pc;      // an address in the program, from which addr2line finds the .cu line
const int MAX_THREADS = 1024, WARP = 32;
const size_t STACK_BYTES = 256 << 10;  // of a thread: its registers, local variables and calls
const size_t SHARED_DEFAULT = 48 << 10;        // shared memory of a block without asking
const size_t SHARED_OPTIN = 227 << 10;         // ... and with cudaFuncSetAttribute
const size_t ARENA_BYTES = 512 << 10;          // room for both and the gaps between variables
const int SM_COUNT = 8, THREADS_PER_SM = 2048, BLOCKS_PER_SM = 32;

// ---- threads, warps, blocks (block.cpp, warp.cpp) -----------------------------------------------
struct Fiber {
    void* sp;                // where its registers lie while it does not run
    char *stack, *top;       // STACK_BYTES, which are used from somewhat below their end
};
enum ThreadState { READY, AT_BARRIER, AT_WARP_OP, AT_GRID_SYNC, EXITED };
struct Thread {
    uint3 index;
    int number;              // in the block; its warp is number / 32 and its lane number % 32
    ThreadState state;
    Fiber* fiber = nullptr;  // null before it starts
    Pc pc = nullptr;         // of the call that it waits in
    Pc place = nullptr;      // the basic block that it is in
    bool touched = false;    // it has used memory there
    uint32_t kernel = STACK_BYTES;       // the depth of its kernel's frame (block.cpp, Place)
    uint32_t ended = 0;      // the epoch in which it exited
    // what it waits for in AT_WARP_OP, and what it gets
    WarpOp op = SYNCWARP;
    unsigned mask = 0;
    int argument = 0, width = 0;
    uint64_t value = 0, result = 0;
    uint32_t lock = 0;       // the one it holds, by a number from 1 to 127 (atomics.cpp), or 0
    char* unset = nullptr;   // what it read of shared memory that nobody had written, and where
    Pc unset_pc = nullptr;
    struct AsyncCopy* copies = nullptr;  // that it has not waited for (emu_ptx.h)
    uint32_t batches = 0;    // of them, committed so far
};
// Calls f with each lane of a mask, the lowest first.
template <class F> inline void each(unsigned mask, F f) {
    for (; mask; mask &= mask - 1) f(__builtin_ctz(mask));
}
const char* name_of(WarpOp op);
inline bool is_shuffle(WarpOp op) { return op >= SHFL_IDX && op <= SHFL_XOR; }
inline bool meets(const Thread& a, const Thread& b) {      // at one operation of their warp
    return a.state == AT_WARP_OP && a.op == b.op && a.mask == b.mask;
}
struct Block {
    uint3 index;
    int threads, alive, waiting;         // waiting: at the barrier
    Thread thread[MAX_THREADS];
    uint32_t alive_lanes[MAX_THREADS / WARP];    // of each warp: those that have not exited
    uint8_t waiting_lanes[MAX_THREADS / WARP];   // ... and how many stand in AT_WARP_OP
    int ready[MAX_THREADS];              // a ring of the numbers of threads that can run
    int ready_first, ready_count;
    int spins;                           // yields since the last real progress
    int barrier_trues;                   // threads whose predicate is true, at this barrier
    bool barrier_all;                    // and whether it is so for all
    int barrier_result;
    Pc barrier_pc;
    uint32_t barrier_depth;              // of the frame that it is called from
    int ended;                           // threads that exited since the last barrier
    bool passed;                         // perhaps one went around a barrier: see Place
    uint32_t barriers;  // how many so far in this worker: the epoch of the race detector
    uint32_t first_epoch;                // its value when the block began
    // Of the races between blocks (grid.cpp):
    uint32_t number, interval;           // the block's in the grid, and where in its life it is
    uint32_t looked;                     // when it looked at another block's flag last
    bool looking;                        // it does so now
};
// Who touches memory: a kernel, or a copy, a fill or cuBLAS.
struct Work {
    const char* call;        // null for a kernel
    Pc pc;
    uint32_t op;             // its number, and so its place in the order of streams (streams.cpp)
    uint32_t ordered_before; // every op up to this one is known to come before it
};
extern std::atomic<uint64_t> equal_stores;       // by several threads to one word, and so no race
struct Launch {
    Kernel kernel;
    Config config;
    int blocks, threads;                 // of the grid, and of a block
    void* arguments;                     // the launch's copy of kernel.body
    uint32_t id;
    Work work;
    std::atomic<int> next;               // the next block to hand out
    std::atomic<uint32_t> progress;      // counts blocks begun, barriers, ends of threads that wait
    std::atomic<int> abandoned;  // cudaError of a kernel that stopped itself (assert, __trap)
    const int* order;                    // of the blocks, or null for 0, 1, 2, ...
    std::atomic<size_t> static_shared;   // bytes of its static __shared__ variables, seen so far
    struct Stats* stats;
};
struct Variable {                        // a static __shared__ one
    uint32_t launch;                     // that it has its place in
    size_t offset, bytes;
    const char* name;
};
struct WarpTrace;
struct Worker {
    Launch* launch;
    Block* block;
    Thread* thread;                      // the one that runs, or null: host code
    char *stacks, *stacks_end;
    Fiber main;                          // the worker's own stack, where blocks are begun and ended
    Fiber* fibers;                       // [number_of_fibers]
    Fiber** free_fibers;
    int number_of_fibers, free_count;
    uint64_t random;
    size_t arena_used;  // of this launch: dynamic part, then static variables with gaps
    Variable variable[256];              // by Slot::id
    Variable* placed[256];               // those of this launch, in the arena's order
    int variables;
    uint32_t shared_valid[ARENA_BYTES / 4];      // word w belongs to a variable if it is launch->id
    uint32_t shared_written[ARENA_BYTES / 4];    // ... and was written by this block (check.cpp)
    uint32_t epoch;                      // see Block::barriers; never goes back
    struct Races* races;
    WarpTrace* traces;
};
extern __thread Worker worker;
extern __thread char arena[ARENA_BYTES] __attribute__((aligned(128)));
void run_launch(Launch& launch);
void wait_here(ThreadState state, Pc pc);      // lets others run until this thread is READY
void become(Thread* thread);                   // also before a message, to speak of that thread
void make_ready(Block& block, int number);
void warp_lane_exited(Block& block, Thread& thread);
bool release_activemask(Block& block);
[[noreturn]] void abandon(cudaError_t error);  // stops the launch from inside a kernel
[[noreturn]] void stalled(Block& block);
void grid_sync();
uint64_t random_next(uint64_t& state);
enum Access { READ, WRITE, ATOMIC };

// ---- memory (memory.cpp) ------------------------------------------------------------------------
struct Range {
    char* start;
    size_t bytes;
    Space space;
    Pc pc = nullptr;                 // where it was allocated
    SymbolKind symbol = DEVICE;
    const char* name = nullptr;
    bool freed = false, address_taken = false;
    Pc freed_at = nullptr;
    mutable uint32_t user = 0, writer = 0;      // the last kernels, of a __managed__ variable
};
// State of a 4-byte word of device or managed memory: 0 never written, INVALID outside allocations,
// else the operation (launch, copy, fill) that wrote it last. TAIL: an allocation ends inside it.
const uint32_t INVALID = 0xffffffff, TAIL = 0x80000000;
const uint32_t HOST_OP = 1;                    // host code, which wrote managed memory
const size_t HEAP_BYTES = (size_t)64 << 30;    // reserved addresses, most of them never used
extern char *heap, *managed;                   // HEAP_BYTES each
extern char* heap_top[2];                      // no allocation of either has reached further
extern uint32_t *heap_writer, *heap_reader;    // state of each word of heap, then of managed
const Range* find_range(const void* p);        // the live allocation or symbol around p, or null
const Range* nearest_range(const void* p);  // the live or freed allocation next to p, for messages
void protect_heap(bool open);
bool heap_is_open();
bool near_symbols(uintptr_t p);                // quickly: could p be in a variable on the device?
inline uint32_t* word_state(uint32_t* table, uintptr_t p) {
    return table + (p - (uintptr_t)heap) / 4;      // managed follows heap
}
inline bool in_heap(uintptr_t p) { return p - (uintptr_t)heap < HEAP_BYTES; }
inline bool in_managed(uintptr_t p) { return p - (uintptr_t)managed < HEAP_BYTES; }
// Behind all allocations there were so far: the state of these words is 0 too.
inline bool is_unused(uintptr_t p) { return p >= (uintptr_t)heap_top[p >= (uintptr_t)managed]; }

// ---- errors and reports (runtime.cpp, report.cpp) -----------------------------------------------
inline cudaError_t ok() { return set_error(cudaSuccess); }
void set_sticky(cudaError_t error);
extern bool checking, counting;                // EMU_CHECK (and built with checks), EMU_STATS
extern bool was_reset;                         // by cudaDeviceReset(), which frees all memory
extern uint64_t seed;                          // EMU_SEED, 0 for none
extern std::atomic<bool> kernel_runs;
// A piece of a message. Not std::string, for the reason that check.cpp begins with.
struct Text {
    char s[800];
    Text(const char* format, ...) __attribute__((format(printf, 2, 3)));
};
// Prints what is wrong (the format's first line), in which kernel, block and thread, at which line
// of the program if pc is not null, and the format's other lines; and exits.
[[noreturn]] void fault(Pc pc, const char* format, ...) __attribute__((format(printf, 2, 3)));
void note(Pc pc, const char* format, ...) __attribute__((format(printf, 2, 3)));      // and goes on
const int FAULT_EXIT_CODE = 66;                // no program's own, and ThreadSanitizer's too
void begin_report();
void note_launch_error();
void note_lost_output();
void show_output();              // of kernels: the host has waited
void note_leaks();
Text where(Pc pc);                             // "file.cu:12 in function"
uint64_t line_of(Pc pc);
Text thread_name(int number);                  // "thread (5,0,0)"
Text block_name(uint32_t number);
Text describe_address(const void* p);          // "byte 40 of d_x of 400 bytes (...)"

// ---- streams (streams.cpp) ----------------------------------------------------------------------
extern bool several_streams;
extern bool op_ordered(uint32_t earlier, uint32_t op);
Work begin_op(cudaStream_t stream, const char* what, Pc pc);
// Host threads take turns with what they share: a launch is over before another call begins.
std::recursive_mutex& turns();
struct Turn : std::lock_guard<std::recursive_mutex> { Turn() : lock_guard(turns()) {} };
struct StreamWork : Turn, Work {   // device memory is open to it
    StreamWork(const char* call, cudaStream_t stream, Pc pc) : Work(begin_op(stream, call, pc)) {
        protect_heap(true);
    }
    ~StreamWork() { protect_heap(false); }
};
void op_waited(cudaStream_t stream);  // the host has waited for the stream
bool host_has_waited(uint32_t op);
// A copy that does not wait uses the host's memory until the host has waited for it.
void host_copy(const void* host, size_t bytes, bool writes, uint32_t op);
uint32_t copy_under_way(uintptr_t p, size_t bytes, Access access);      // the op, or 0
Text describe_op(uint32_t op);
cudaError_t valid_stream(cudaStream_t stream);

// ---- checks (check.cpp, races.cpp) --------------------------------------------------------------
void check_access(const void* p, size_t bytes, Access access, Pc pc);
void* in_shared(uint32_t address, size_t bytes, Pc pc);      // PTX's address as a pointer
void catch_signals();
void check_unwritten();                        // at a barrier and at a block's end
// What shared memory holds before it is written: not a number in every format, and a large integer.
const uint32_t UNSET = 0x7fff7fff;
bool is_unset(uint64_t word);                  // or comes from it
void copy_state(const Work& work, void* dst, const void* src, size_t bytes);
void check_call(const Work& work, const void* p, size_t bytes, Access access);

// ---- races (races.cpp) --------------------------------------------------------------------------
struct Note {                    // one access to a word
    uint32_t epoch, clock;       // of the block and of the lane; older than the block's first: none
    uint32_t pc;                 // as an offset
    uint32_t who;  // in one, which is faster: thread, bytes of the word << 16, relaxing << 21,
                   // tested << 22 (a thread that writes has read it), volatile << 23,
                   // atomic << 24, and the lock held << 25
    unsigned thread() const { return who & 0xffff; }
    unsigned bytes() const { return who >> 16 & 0xf; }
    bool relaxing() const { return who >> 21 & 1; }
    bool tested() const { return who >> 22 & 1; }
    bool strong() const { return who >> 23 & 3; }      // volatile or atomic
    bool atomic() const { return who >> 24 & 1; }
    unsigned lock() const { return who >> 25; }
};
struct alignas(64) Cell {        // what is kept of a word
    Note write, read, read_other;    // read_other: of another warp than read
    uintptr_t word;              // global memory: whose notes these are
};
struct Store {                   // one word of a write whose value is not there yet: see race_flush
    uintptr_t p;
    uint32_t bytes, old;
    Cell* cell;
    Note now, before, reader;    // before: the write before; reader: another thread's read, if any
    bool two, global;            // two: it is another thread's, and not ordered
};
const int GLOBAL_CELLS = 1 << 15, MOST_STORES = 16;
struct Races {
    Cell shared[ARENA_BYTES / 4];
    Cell global[GLOBAL_CELLS];  // by hash; a collision forgets, which may miss a race but invents
                                // none
    uint32_t clock[MAX_THREADS][WARP];  // of each thread: a vector clock over the lanes of its warp
    struct { uint32_t clock, epoch, looked; } fence[MAX_THREADS];      // see race_fence
    Store store[MOST_STORES];
    int stores;
};
// The second access is by the thread that runs, the first by another thread, or by another block.
struct Conflict {
    uintptr_t p;
    bool between_blocks;
    uint32_t first, pc[2];
    const char* verb[2];
    uint3 block, thread;
};
void race(const Conflict& c);
void doubt(uint64_t key, const Conflict& c, uint32_t value = 0, uint32_t writer = 0);
void doubt_store(uint32_t pc, uint32_t bytes, bool tested, uint32_t writer, const Conflict& c);
void excuse(uint64_t key);
void settle_doubts(Launch& launch);
void race_access(uintptr_t p, size_t bytes, Access access, Pc pc, bool in_shared);
void race_flush();               // compare the stores' values, before others run
void race_block_begins(Block& block);
void race_syncwarp(int warp, unsigned mask);
extern __thread bool is_volatile;    // the access under way
extern __thread bool is_relaxing;    // ... is an atomic minimum, maximum or compare-and-swap
inline uint32_t lock_number(const void* p) { return (uintptr_t)p / 4 % 127 + 1; }

// ---- races between blocks (grid.cpp) ------------------------------------------------------------
void grid_begins(bool launch);   // or has met in grid.sync()
void grid_block_begins(Block& block);
void grid_access(uintptr_t p, uint32_t bytes, Access access, uint32_t pc);
void grid_store(const Store& s, uint32_t value, bool changes);      // it has been done
void grid_release(Block& block); // what it did so far is done, for those who look for it

// ---- counters (stats.cpp) -----------------------------------------------------------------------
void stats_access(uintptr_t p, size_t bytes, Access access, Pc pc, bool in_shared);
void stats_flush(const Block& block, bool at_barrier);     // requests so far are complete
void stats_begin(Launch& launch);
void stats_report(FILE* f);
extern "C" __attribute__((visibility("hidden"))) const char __ehdr_start[];    // of the program
const link_map* program();       // or the library, if it is one
#define EMU_CALLER __builtin_return_address(0)
#define EMU_FRAME __builtin_dwarf_cfa()      // where the caller's stack ends
}  // namespace emu
