// races.cpp - the race detector: two threads of a block, one writes, and nothing orders them.
// For each word the last write and two reads are kept, with the writer's clock. Two accesses are
// ordered if a __syncthreads lies between them (the block's epoch has moved on), or a __syncwarp in
// which both took part (vector clocks over the 32 lanes, after Lamport 1978 and FastTrack, Flanagan
// and Freund 2009), or if both are made under the same lock, or if a fence followed the first and a
// look at some flag went before the second. Races between blocks are looked for in grid.cpp.
#include "emu.h"
namespace emu {
std::atomic<uint64_t> equal_stores;
__thread bool is_volatile, is_relaxing;
void race_block_begins(Block& block) {
    if (!worker.races) {
        worker.races = (Races*)aligned_alloc(64, sizeof(Races));
        memset((void*)worker.races, 0, sizeof(Races));
    }
    for (int i = 0; i < block.threads; i++) {
        memset(worker.races->clock[i], 0, sizeof worker.races->clock[i]);
        worker.races->clock[i][i % WARP] = 1;
        worker.races->fence[i] = {};
    }
}
// What this thread did so far is done, for those who look at its flag.
void fence(bool grid) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (!checking || !worker.thread) return;
    race_flush();
    unsigned t = worker.thread->number;
    auto& f = worker.races->fence[t];
    f.clock = worker.races->clock[t][t % WARP]++, f.epoch = worker.block->barriers;
    worker.block->looking = true;
    if (grid) grid_release(*worker.block);
}
// All lanes of mask have met: each now knows what every one of them knew.
void race_syncwarp(int warp, unsigned mask) {
    uint32_t known[WARP] = {}, (*clock)[WARP] = worker.races->clock + warp * WARP;
    each(mask, [&](int l) {
        for (int i = 0; i < WARP; i++) known[i] = clock[l][i] > known[i] ? clock[l][i] : known[i];
    });
    each(mask, [&](int l) {
        memcpy(clock[l], known, sizeof known);
        clock[l][l]++;
    });
}
static inline bool ordered(const Note& n, const Note& now) {
    if (n.epoch < now.epoch || n.thread() == now.thread()) return true;
    if (n.lock() && n.lock() == now.lock()) return true;
    const auto &f = worker.races->fence[n.thread()], &g = worker.races->fence[now.thread()];
    if (f.epoch == now.epoch && g.looked == now.epoch && n.clock <= f.clock) return true;
    // A flag: set behind a fence, or by an atomic operation.
    if (n.strong() && now.strong() &&
        (n.atomic() || now.atomic() || f.epoch == now.epoch || g.epoch == now.epoch)) return true;
    return n.thread() / WARP == now.thread() / WARP &&
           worker.races->clock[now.thread()][n.thread() % WARP] >= n.clock;
}
static uint32_t offset(Pc pc) { return (uint32_t)((const char*)pc - __ehdr_start); }
static Pc full(uint32_t pc) { return __ehdr_start + pc; }
void race(const Conflict& c) {
    static const bool goes_on = !strcmp(getenv("EMU_ALLOW") ?: "", "races");
    static std::atomic<uint64_t> told[61];
    uint64_t lines = line_of(full(c.pc[0])) * 3 + line_of(full(c.pc[1]));
    if (goes_on && told[lines % 61].exchange(lines) == lines) return;
    static Block none;
    if (!worker.block) worker.block = &none, worker.thread = none.thread;      // the launch is over
    blockIdx = c.block, threadIdx = c.thread;
    bool shared = c.p - (uintptr_t)arena < ARENA_BYTES;
    Text first = c.between_blocks ? block_name(c.first) : thread_name(c.first);
    auto tell = goes_on ? note : fault;
    tell(nullptr, "race: two %s the same %s memory and %s: %s\nthis thread %s at %s\n%s %s at %s",
         c.between_blocks ? "blocks use" : "threads of a block use", shared ? "shared" : "global",
         c.between_blocks ? "nothing orders them" : "no barrier orders them",
         describe_address((void*)c.p).s, c.verb[1], where(full(c.pc[1])).s, first.s, c.verb[0],
         where(full(c.pc[0])).s);
}
static Conflict between(uintptr_t p, const Note& first, const char* did, const Note& now,
                        const char* does) {
    return {p, false, first.thread(), {first.pc, now.pc}, {did, does}, blockIdx,
            worker.block->thread[now.thread()].index};
}
static inline bool conflicts(const Note& n, const Note& now) {
    return n.epoch == now.epoch && (n.bytes() & now.bytes()) && !(n.atomic() && now.atomic()) &&
           !ordered(n, now);
}
// What a doubt about a plain read is known by (grid.cpp).
static uint64_t first_look(const Note& n) { return (uint64_t)n.pc | 1ull << 63; }
// A plain read of what another thread changes by atomics. Where shortest paths are relaxed by
// atomicMin, say, everybody reads so: an old value is as good, only work is done again.
static void look(const Note& atomic, const Note& read, const Conflict& c) {
    bool shared = c.p - (uintptr_t)arena < ARENA_BYTES;
    if (shared || !atomic.relaxing()) doubt(first_look(read), c);
}
// Stores have been done. If two threads store the same value to one word, the result does not
// depend on who is last, and real programs do it; so the values are compared only now.
void race_flush() {
    Races* r = worker.races;
    if (!r || !r->stores) return;
    int stores = r->stores;
    r->stores = 0;
    for (const Store* s = r->store; s < r->store + stores; s++) {
        uint32_t value = *(uint32_t*)(s->p & ~(uintptr_t)3), mask = 0;
        for (int i = 0; i < 4; i++)
            if (s->bytes >> i & 1) mask |= 0xffu << 8 * i;
        bool changes = (value ^ s->old) & mask;
        if (s->two && changes)
            race(between(s->p, s->before, "wrote another value", s->now, "writes"));
        equal_stores += s->two;
        if (s->reader.epoch && changes)
            doubt_store(s->now.pc, s->bytes & s->reader.bytes(), true, 0,
                        between(s->p, s->reader, "read", s->now, "writes"));
        if (!changes && s->now.tested()) s->cell->write = s->before;
        if (s->global && worker.launch->blocks > 1) grid_store(*s, value, changes);
    }
}
// A volatile look at a flag, or a volatile store to one, is no race as long as the store's line
// stores one value only; in shared memory, to one word only (doubt_store).
static bool polls(const Note& n, const Note& now) { return n.strong() || now.strong(); }
static inline void remember_read(Cell& c, const Note& now) {
    if (c.read.epoch == now.epoch && c.read.thread() != now.thread()) {
        bool other_warp = c.read.thread() / WARP != now.thread() / WARP;
        if (other_warp || c.read_other.epoch < now.epoch) c.read_other = c.read;
    }
    c.read = now;
}
// The last write is by another thread, and it has not been waited for.
static void after_write(const Note& write, uintptr_t p, const Note& now, Access access) {
    const char* does[] = {"reads", "writes", "has an atomic operation"};
    Conflict c = between(p, write, write.atomic() ? "had an atomic operation" : "wrote", now,
                         does[access]);
    if (access == READ && write.atomic()) look(write, now, c);
    else if (access == READ && (write.tested() || polls(write, now)))
        doubt_store(write.pc, write.bytes() & now.bytes(), true, 0, c);
    else if (access != WRITE || write.atomic()) race(c);      // two stores: see race_flush
}
static inline void word_access(Cell& c, uintptr_t p, const Note& now, Access access, bool global) {
    bool two = conflicts(c.write, now);
    if (two) after_write(c.write, p, now, access);
    if (access == READ) return remember_read(c, now);
    if (access == ATOMIC && c.read.epoch == now.epoch && c.read.thread() == now.thread()) {
        if (!c.read.atomic()) excuse(first_look(c.read));
        c.read.epoch = 0;
    }
    Note reader = {};
    for (const Note* n : {&c.read, &c.read_other}) {
        if (!conflicts(*n, now)) continue;
        if (access == ATOMIC)
            look(now, *n, between(p, *n, "read", now, "has an atomic operation"));
        else if (now.tested() || polls(*n, now)) reader = *n;
        else race(between(p, *n, "read", now, "writes"));
    }
    Races* r = worker.races;
    if (access == WRITE && (global || two || reader.epoch) && r->stores < MOST_STORES)
        r->store[r->stores++] = {p, now.bytes(), *(uint32_t*)(p & ~(uintptr_t)3), &c, now, c.write,
                                 reader, two && !c.write.atomic(), global};
    bool mine = c.write.epoch == now.epoch && c.write.thread() == now.thread();
    if (mine && now.atomic() && !c.write.atomic()) return;      // the plain store says more
    uint32_t bytes = mine && c.write.clock == now.clock ? c.write.who & 0xf0000 : 0;
    c.write = now;
    c.write.who |= bytes;
}
void race_access(uintptr_t p, size_t bytes, Access access, Pc pc, bool in_shared) {
    Races* r = worker.races;
    if (r->stores) race_flush();
    unsigned number = worker.thread->number;
    uint32_t epoch = worker.block->barriers, clock = r->clock[number][number % WARP],
             at = offset(pc), lock = worker.thread->lock;
    bool releases = access == WRITE && lock && lock == lock_number((void*)p);
    bool strong = is_volatile || releases, grid = !in_shared && worker.launch->blocks > 1;
    if (releases) grid_release(*worker.block);
    if (strong || access == ATOMIC) r->fence[number].looked = epoch, worker.block->looking = true;
    for (uintptr_t q = p, end = p + bytes; q < end; q = (q | 3) + 1) {
        uintptr_t word = q / 4, next = (q | 3) + 1;
        uint32_t used = next <= end ? 0xfu << (q & 3) & 0xf : ((1u << (end - q)) - 1) << (q & 3);
        Note now = {epoch, clock, at, number | used << 16 | (uint32_t)strong << 23 |
                                          (uint32_t)(access == ATOMIC) << 24 | lock << 25 |
                                          (uint32_t)(access == ATOMIC && is_relaxing) << 21};
        Cell* c = in_shared ? &r->shared[(q - (uintptr_t)arena) / 4]
                            : &r->global[(word ^ word >> 15) % GLOBAL_CELLS];
        if (c->word != word) {
            c->word = word;
            c->write.epoch = c->read.epoch = c->read_other.epoch = 0;
        }
        if (!in_shared && access == WRITE && c->read.epoch == epoch && c->read.thread() == number)
            now.who |= 1 << 22;
        if (access == READ && c->write.epoch != now.epoch)
            remember_read(*c, now);  // by far the most
        else word_access(*c, q, now, access, !in_shared);
        if (grid && access != WRITE && !strong) grid_access(q, used, access, at);
    }
}
}  // namespace emu
