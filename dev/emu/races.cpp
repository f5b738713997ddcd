// races.cpp - the race detector: two threads of a block, one of them writing, and nothing that
// orders them.
//
// For each word the last write and two reads are kept, with the writer's clock. Two accesses are
// ordered if a __syncthreads lies between them (the block's epoch has moved on), or a __syncwarp in
// which both took part (vector clocks over the 32 lanes, after Lamport 1978 and FastTrack, Flanagan
// and Freund 2009), or if both are made under the same lock. Conflicts between blocks, which no
// barrier can order, are outside of this detector.
#include "emu.h"

namespace emu {

std::atomic<uint64_t> equal_stores;

void race_block_begins(Block& block) {
    if (!worker.races) {
        worker.races = (Races*)aligned_alloc(64, sizeof(Races));
        memset((void*)worker.races, 0, sizeof(Races));
    }
    for (int i = 0; i < block.threads; i++) {
        memset(worker.races->clock[i], 0, sizeof worker.races->clock[i]);
        worker.races->clock[i][i % WARP] = 1;
    }
}

// All lanes of mask have met: each now knows what every one of them knew.
void race_syncwarp(int warp, unsigned mask) {
    uint32_t known[WARP] = {}, (*clock)[WARP] = worker.races->clock + warp * WARP;
    for (int l = 0; l < WARP; l++)
        if (mask >> l & 1)
            for (int i = 0; i < WARP; i++)
                known[i] = clock[l][i] > known[i] ? clock[l][i] : known[i];
    for (int l = 0; l < WARP; l++) {
        if (!(mask >> l & 1)) continue;
        memcpy(clock[l], known, sizeof known);
        clock[l][l]++;
    }
}

static inline bool ordered(const Note& n, const Note& now) {
    if (n.epoch < now.epoch || n.thread() == now.thread()) return true;
    if (n.lock() && n.lock() == now.lock()) return true;
    return n.thread() / WARP == now.thread() / WARP &&
           worker.races->clock[now.thread()][n.thread() % WARP] >= n.clock;
}

extern "C" const char __executable_start;
static uint32_t offset(Pc pc) { return (uint32_t)((const char*)pc - &__executable_start); }
static Pc full(uint32_t pc) { return &__executable_start + pc; }

[[noreturn]] static void race(uintptr_t p, const Note& first, const Note& second, const char* a,
                              const char* b) {
    become(&worker.block->thread[second.thread()]);
    bool shared = p - (uintptr_t)arena < ARENA_BYTES;
    fault(nullptr,
          "race: two threads of a block use the same %s memory and no barrier orders them: %s\n"
          "this thread %s at %s\n%s %s at %s",
          shared ? "shared" : "global", describe_address((void*)p).s, b, where(full(second.pc)).s,
          thread_name(first.thread()).s, a, where(full(first.pc)).s);
}

// Two threads store to one word. If both store the same value the result does not depend on who is
// last, and real programs do it; so wait for the second store to happen, and compare.
void race_flush() {
    Races* r = worker.races;
    if (!r) return;
    if (r->guessing) race(r->p, r->first, r->second, "had an atomic operation", "reads");
    if (!r->pending) return;
    r->pending = false;
    uint32_t value;
    memcpy(&value, (void*)(r->p & ~(uintptr_t)3), 4);
    uint32_t mask = 0;
    for (int i = 0; i < 4; i++)
        if (r->bytes >> i & 1) mask |= 0xffu << 8 * i;
    if ((value & mask) != (r->old_value & mask))
        race(r->p, r->first, r->second, "wrote another value", "writes");
    equal_stores++;
}

static inline void remember_read(Cell& c, const Note& now) {
    if (c.read.epoch == now.epoch && c.read.thread() != now.thread()) {
        bool other_warp = c.read.thread() / WARP != now.thread() / WARP;
        if (other_warp || c.read_other.epoch < now.epoch) c.read_other = c.read;
    }
    c.read = now;
}

// Two threads use a word, one of them writes, and neither has waited for the other.
static void conflict(const Cell& c, uintptr_t p, const Note& now, Access access) {
    bool guess = access == READ && c.write.atomic();
    if (access != WRITE && !guess)
        race(p, c.write, now, "wrote", access == READ ? "reads" : "has an atomic operation");
    if (c.write.atomic() && !guess) race(p, c.write, now, "had an atomic operation", "writes");
    Races* r = worker.races;
    r->pending = !guess, r->guessing = guess;
    r->p = p;
    r->bytes = c.write.bytes() & now.bytes();
    memcpy(&r->old_value, (void*)(p & ~(uintptr_t)3), 4);
    r->first = c.write, r->second = now;
}

static inline void word_access(Cell& c, uintptr_t p, const Note& now, Access access) {
    if (c.write.epoch == now.epoch && !ordered(c.write, now) && (c.write.bytes() & now.bytes()) &&
        !(c.write.atomic() && now.atomic()))
        conflict(c, p, now, access);
    if (access == READ) {
        remember_read(c, now);
        return;
    }
    if (access == ATOMIC && c.read.thread() == now.thread())
        c.read.epoch = 0;  // its guess, now checked
    for (const Note* n : {&c.read, &c.read_other})
        if (n->epoch == now.epoch && !ordered(*n, now) && (n->bytes() & now.bytes()) &&
            !(n->atomic() && now.atomic()))
            race(p, *n, now, "reads", access == WRITE ? "writes" : "has an atomic operation");
    bool mine = c.write.epoch == now.epoch && c.write.thread() == now.thread();
    if (mine && now.atomic() && !c.write.atomic()) return;      // the plain store says more
    uint32_t bytes = mine && c.write.clock == now.clock ? c.write.who & 0xf0000 : 0;
    c.write = now;
    c.write.who |= bytes;
}

// The loop around atomicCAS in CUDA's guide begins with a plain read of the word. That read is a
// guess, which the atomicCAS then checks: it is no race if the thread's next access is an atomic on
// the same word.
void race_access(uintptr_t p, size_t bytes, Access access, Pc pc, bool in_shared) {
    Races* r = worker.races;
    if (r->guessing && access == ATOMIC && r->p / 4 - p / 4 < (bytes + 3) / 4) r->guessing = false;
    if (r->pending || r->guessing) race_flush();
    unsigned number = worker.thread->number;
    uint32_t epoch = worker.block->barriers, clock = r->clock[number][number % WARP],
             at = offset(pc);
    for (uintptr_t q = p, end = p + bytes; q < end; q = (q | 3) + 1) {
        uintptr_t word = q / 4, next = (q | 3) + 1;
        uint32_t used = next <= end ? 0xfu << (q & 3) & 0xf : ((1u << (end - q)) - 1) << (q & 3);
        Note now = {epoch, clock, at, number | used << 16 | (uint32_t)(access == ATOMIC) << 24 |
                                          worker.thread->lock << 25};
        Cell* c = in_shared ? &r->shared[(q - (uintptr_t)arena) / 4]
                            : &r->global[(word ^ word >> 15) % GLOBAL_CELLS];
        if (c->word != word) {
            c->word = word;
            c->write.epoch = c->read.epoch = c->read_other.epoch = 0;
        }
        if (r->pending) race_flush();      // of this access's last word
        if (access == READ && c->write.epoch != now.epoch)
            remember_read(*c, now);  // by far the most
        else word_access(*c, q, now, access);
    }
}

}  // namespace emu
