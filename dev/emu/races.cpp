// races.cpp - the race detector: two threads of a block, one of them writing, and nothing that orders them.
//
// For each word the last write and two reads are kept, with the writer's clock. Two accesses are ordered if a
// __syncthreads lies between them (the block's epoch has moved on), or a __syncwarp in which both took part
// (vector clocks over the 32 lanes, after Lamport 1978 and FastTrack, Flanagan and Freund 2009). Conflicts between
// blocks, which no barrier can order, are outside of this detector.
#include "emu.h"

namespace emu {

struct Note {                    // one access
    uint32_t epoch, clock;       // of the block and of the lane; an epoch before the block's first is no access
    Pc pc;
    uint16_t thread;
    uint8_t bytes, atomic;       // which bytes of the word
};
struct Cell {
    uintptr_t word;              // global memory: whose notes these are
    Note write, read, read_other;    // read_other: of another warp than read
};
const size_t GLOBAL_CELLS = 1 << 16;
struct Races {
    Cell shared[ARENA_BYTES / 4];
    Cell global[GLOBAL_CELLS];   // by hash; a collision forgets, which may miss a race but invents none
    bool pending;                // two stores to one word, perhaps of one value: see race_flush
    bool guessing;               // a plain read of what others change by atomics: see race_access
    uintptr_t p;
    uint32_t old_value;
    uint8_t bytes;
    Note first, second;
};
std::atomic<uint64_t> equal_stores;

void race_block_begins(Block& block) {
    if (!worker.races) worker.races = (Races*)calloc(1, sizeof(Races));
    for (int i = 0; i < block.threads; i++) {
        memset(block.thread[i].clock, 0, sizeof block.thread[i].clock);
        block.thread[i].clock[i % WARP] = 1;
    }
}

// All lanes of mask have met: each now knows what every one of them knew.
void race_syncwarp(Block& block, int warp, unsigned mask) {
    uint32_t known[WARP] = {};
    Thread* lanes = block.thread + warp * WARP;
    for (int l = 0; l < WARP; l++)
        if (mask >> l & 1)
            for (int i = 0; i < WARP; i++) known[i] = lanes[l].clock[i] > known[i] ? lanes[l].clock[i] : known[i];
    for (int l = 0; l < WARP; l++) {
        if (!(mask >> l & 1)) continue;
        memcpy(lanes[l].clock, known, sizeof known);
        lanes[l].clock[l]++;
    }
}

static inline bool ordered(const Note& n, const Block& block, const Thread& t) {
    if (n.epoch < block.barriers || n.thread == t.number) return true;
    return n.thread / WARP == t.number / WARP && t.clock[n.thread % WARP] >= n.clock;
}

[[noreturn]] static void race(uintptr_t p, const Note& first, const Note& second, const char* a, const char* b) {
    char text[600], line[600], name[64];
    describe_address((void*)p, text, sizeof text);
    worker.thread = &worker.block->thread[second.thread];
    threadIdx = worker.thread->index;
    bool shared = p - (uintptr_t)arena < ARENA_BYTES;
    report_begin("race: two threads of a block use the same %s memory and no barrier orders them: %s",
                 shared ? "shared" : "global", text);
    where(second.pc, line, sizeof line);
    report_line("this thread %s at %s", b, line);
    where(first.pc, line, sizeof line);
    thread_name(first.thread, name, sizeof name);
    report_line("%s %s at %s", name, a, line);
    report_end();
}

// Two threads store to one word. If both store the same value the result does not depend on who is last, and real
// programs do it; so wait for the second store to happen, and compare.
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
    if ((value & mask) != (r->old_value & mask)) race(r->p, r->first, r->second, "wrote another value", "writes");
    equal_stores++;
}

static void remember_read(Cell& c, const Note& now, const Block& block) {
    if (c.read.epoch >= block.barriers && c.read.thread != now.thread) {
        bool other_warp = c.read.thread / WARP != now.thread / WARP;
        if (other_warp || c.read_other.epoch < block.barriers) c.read_other = c.read;
    }
    c.read = now;
}

static void word_access(Cell& c, uintptr_t p, const Note& now, Access access, const Block& block, const Thread& t) {
    if (!ordered(c.write, block, t) && (c.write.bytes & now.bytes) && !(c.write.atomic && now.atomic)) {
        bool guess = access == READ && c.write.atomic;
        if (access != WRITE && !guess)
            race(p, c.write, now, "wrote", access == READ ? "reads" : "has an atomic operation");
        if (c.write.atomic && !guess) race(p, c.write, now, "had an atomic operation", "writes");
        Races* r = worker.races;
        r->pending = !guess;
        r->guessing = guess;
        r->p = p;
        r->bytes = c.write.bytes & now.bytes;
        memcpy(&r->old_value, (void*)(p & ~(uintptr_t)3), 4);
        r->first = c.write;
        r->second = now;
    }
    if (access == READ) {
        remember_read(c, now, block);
        return;
    }
    if (access == ATOMIC && c.read.thread == now.thread) c.read.epoch = 0;      // its guess, now checked
    for (const Note* n : {&c.read, &c.read_other})
        if (!ordered(*n, block, t) && (n->bytes & now.bytes) && !(n->atomic && now.atomic))
            race(p, *n, now, "reads", access == WRITE ? "writes" : "has an atomic operation");
    bool same = c.write.epoch == now.epoch && c.write.thread == now.thread && c.write.clock == now.clock;
    uint8_t bytes = same ? c.write.bytes | now.bytes : now.bytes;
    c.write = now;
    c.write.bytes = bytes;
}

// The loop around atomicCAS in CUDA's guide begins with a plain read of the word. That read is a guess, which the
// atomicCAS then checks: it is no race if the thread's next access is an atomic on the same word.
void race_access(uintptr_t p, size_t bytes, Access access, Pc pc, bool in_shared) {
    Races* r = worker.races;
    const Block& block = *worker.block;
    const Thread& t = *worker.thread;
    if (r->guessing && access == ATOMIC && r->p / 4 - p / 4 < (bytes + 3) / 4) r->guessing = false;
    if (r->pending || r->guessing) race_flush();
    Note now = {block.barriers, t.clock[t.number % WARP], pc, (uint16_t)t.number, 0, access == ATOMIC};
    uintptr_t end = p + bytes;
    for (uintptr_t q = p; q < end; q = (q | 3) + 1) {
        uintptr_t word = q / 4, last = end < (word + 1) * 4 ? end : (word + 1) * 4;
        now.bytes = (uint8_t)(((1 << (last - q)) - 1) << (q & 3));
        Cell* c;
        if (in_shared) c = &r->shared[(q - (uintptr_t)arena) / 4];
        else {
            c = &r->global[(word ^ word >> 16) % GLOBAL_CELLS];
            if (c->word != word) {
                *c = {};
                c->word = word;
            }
        }
        if (r->pending) race_flush();      // of this access's last word
        word_access(*c, q, now, access, block, t);
    }
}

}  // namespace emu
