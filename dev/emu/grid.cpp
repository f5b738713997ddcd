// grid.cpp - races between blocks: plain accesses of two blocks of one launch to one word, of which
// one changes it, and nothing that orders them.
// No barrier orders blocks but grid.sync(). Real code does without: a block writes, calls
// __threadfence(), and sets a flag or counts itself done; another looks at that flag, by an atomic
// operation or a volatile read, and then reads. So the life of a block is cut into intervals, which
// end at its fences and where it gives back a lock. What it did in an interval is ordered before
// another block's access if the interval was over when that block last looked at any flag. This is
// less than the model of memory asks for: a race may be missed, but none is invented.
#include "emu.h"
namespace emu {
const uint32_t INTERVALS = 1 << 20, WORDS = 1 << 20;      // of a launch; more are not followed
static struct Interval {
    uint32_t block : 31, fenced : 1;     // fenced: not the first one of its block
    std::atomic<uint32_t> ended;         // the time, or 0
} intervals[INTERVALS];
static std::atomic<uint32_t> interval_count, now;
struct Mark {                // one access, in one word, since several of the host's threads mark
    uint64_t interval : 20, pc : 26, bytes : 4;
    uint64_t value : 12;     // three bits of each byte, to know other values by
    uint64_t atomic : 1, tested : 1;
};
// What is kept of a word till another takes its place: its last write, and reads by two blocks.
static struct Word {
    std::atomic<uint64_t> key;           // whose marks these are, and in which launch
    Mark write, read, read_other;
} words[WORDS];
static uint64_t generation;
static Mark load(const Mark& m) {
    Mark copy;
    __atomic_load(&m, &copy, __ATOMIC_RELAXED);
    return copy;
}
static void store(Mark& m, Mark value) { __atomic_store(&m, &value, __ATOMIC_RELAXED); }
// Another host thread may take the place for another word meanwhile: then the mark is withdrawn.
static void put(Word& w, uint64_t key, Mark& m, Mark value) {
    store(m, value);
    if (w.key != key) store(m, {});
}
// Who takes a place closes it, clears the marks, and opens it again: nobody sees those of another.
static Word& find(uintptr_t p, uint64_t* key) {
    Word& w = words[(p / 4 + (p / 4 / WORDS) * 0x9e37) % WORDS];
    *key = (uint64_t)(p / 4) << 18 | generation;
    if (w.key == *key) return w;
    w.key = 0;
    for (Mark* m : {&w.write, &w.read, &w.read_other}) store(*m, {});
    w.key = *key;
    return w;
}
static uint32_t new_interval(uint32_t block, bool fenced) {
    uint32_t i = ++interval_count;
    if (i >= INTERVALS) return 0;
    intervals[i].block = block, intervals[i].fenced = fenced, intervals[i].ended = 0;
    return i;
}
void grid_begins(bool launch) {
    if (!checking) return;
    if (++generation >> 18) {
        generation = 1;
        for (Word& w : words) w.key = 0;
    }
    if (launch) interval_count = 0, now = 1;
}
void grid_block_begins(Block& block) {
    block.interval = new_interval(block.number, false);
    block.looked = 0;
    block.looking = false;
}
void grid_release(Block& block) {
    race_flush();
    if (!block.interval) return;
    intervals[block.interval].ended = ++now;
    block.interval = new_interval(block.number, true);
}
static bool conflicts(Mark m, uint32_t bytes) {
    Block& b = *worker.block;
    if (!(m.bytes & bytes) || m.interval == b.interval) return false;
    const Interval& i = intervals[m.interval];
    if (i.block == b.number) return false;
    uint32_t ended = i.ended;
    if (b.looking) b.looked = now, b.looking = false;
    return !ended || b.looked < ended;
}
static Conflict conflict(uintptr_t p, Mark first, const char* did, uint32_t pc, const char* does) {
    return {p, true, intervals[first.interval].block, {(uint32_t)first.pc, pc}, {did, does},
            blockIdx, threadIdx};
}
// A store is done. One that changes nothing is no part of a race.
void grid_store(const Store& s, uint32_t value, bool changes) {
    const Block& b = *worker.block;
    if (!b.interval || s.now.strong()) return;
    bool tested = s.cell->read.epoch >= b.first_epoch;      // this block has read the word
    Mark m = {b.interval, s.now.pc, s.bytes, 0, false, tested};
    for (int i = 0; i < 4; i++) {
        uint32_t v = value >> 8 * i & 0xff;
        m.value |= ((v ^ v >> 3 ^ v >> 6) & 7) << 3 * i;
    }
    uint64_t key;
    Word& w = find(s.p, &key);
    Mark write = load(w.write);
    bool two = conflicts(write, s.bytes), differ = false;
    if (!changes && two && !write.atomic) equal_stores++;
    if (!changes) return;
    for (int i = 0; i < 4; i++)
        if ((s.bytes & write.bytes) >> i & 1) differ |= (m.value ^ write.value) >> 3 * i & 7;
    if (two && write.atomic ? !intervals[b.interval].fenced : two && differ)
        race(conflict(s.p, write, write.atomic ? "had an atomic operation" : "wrote another value",
                      m.pc, "writes"));
    for (Mark r : {load(w.read), load(w.read_other)})
        if (conflicts(r, s.bytes))
            doubt_store(m.pc, s.bytes & r.bytes, tested, b.number,
                        conflict(s.p, r, "read", m.pc, "writes"));
    if (write.interval == m.interval) m.bytes |= write.bytes;
    put(w, key, w.write, m);
}
void grid_access(uintptr_t p, uint32_t bytes, Access access, uint32_t pc) {
    const Block& b = *worker.block;
    if (!b.interval) return;
    uint64_t key;
    Word& w = find(p, &key);
    Mark write = load(w.write), read = load(w.read), m = {b.interval, pc, bytes, 0, false, false};
    bool two = !write.atomic && conflicts(write, bytes);
    if (access == ATOMIC) {
        // Who gives back a lock or sets a flag by a plain store had a fence before.
        if (two && !intervals[write.interval].fenced)
            race(conflict(p, write, "wrote", pc, "has an atomic operation"));
        m.atomic = true;
        if (write.atomic || write.interval != m.interval) put(w, key, w.write, m);
        return;
    }
    if (two)
        doubt_store(write.pc, bytes & write.bytes, write.tested, intervals[write.interval].block,
                    conflict(p, write, "wrote", pc, "reads"));
    if (read.interval == m.interval) m.bytes |= read.bytes;
    else if (read.interval) put(w, key, w.read_other, read);
    put(w, key, w.read, m);
}

// ---- doubts -------------------------------------------------------------------------------------
// Conflicts of which only the rest of the launch says whether they are races. A plain read of what
// others change by atomic operations is none if some thread follows that very read by an atomic
// operation on the word: it was a first look. For plain reads and stores see doubt_store.
static struct Doubt {
    uint64_t key;
    bool excused;
    uint32_t value, writer;
    Conflict c;
} doubts[64];
static int doubt_count;
static std::mutex mutex;
static Doubt* find_doubt(uint64_t key) {
    Doubt* d = doubts;
    while (d < doubts + doubt_count && d->key != key) d++;
    if (d == doubts + doubt_count) {
        if (doubt_count == 64) return nullptr;
        doubt_count++;
        *d = {key, false, 0, 0, {}};
    }
    return d;
}
void doubt(uint64_t key, const Conflict& c, uint32_t value, uint32_t writer) {
    std::lock_guard<std::mutex> lock(mutex);
    Doubt* d = find_doubt(key);
    if (!d) return;
    if (!d->c.p) d->value = value, d->writer = writer, d->c = c;
    else if (d->value != value) race(c);
    else if (c.between_blocks && (d->writer != writer || d->c.p != c.p)) d->excused = true;
}
void excuse(uint64_t key) {
    std::lock_guard<std::mutex> lock(mutex);
    if (Doubt* d = find_doubt(key)) d->excused = true;
}
// A plain read and a plain store, in global memory. Search in graphs is full of these, and right:
// a line (`level[v] = depth`) stores one value only, and who reads the old one does the work again.
// It stores to many words, or looks at the word before. If it stores other values, it is a race.
void doubt_store(uint32_t pc, uint32_t bytes, bool tested, uint32_t writer, const Conflict& c) {
    uint32_t value = *(uint32_t*)(c.p & ~(uintptr_t)3) >> 8 * __builtin_ctz(bytes);
    if (bytes != 0xf) value &= (1u << 8 * __builtin_popcount(bytes)) - 1;
    uintptr_t offset = c.p - (uintptr_t)arena;
    if (offset < ARENA_BYTES) value ^= (uint32_t)offset << 12;      // a flag is one word
    uint64_t key = (uint64_t)pc << 2 | (c.p >> 2 & 3);      // a vector's words differ
    doubt(key, c, value, writer);
    if (tested) excuse(key);
}
void settle_doubts(Launch& launch) {
    worker.launch = &launch;
    for (Doubt* d = doubts; d < doubts + doubt_count && !launch.abandoned; d++)
        if (!d->excused) race(d->c);
    doubt_count = 0;
    worker.launch = nullptr, worker.block = nullptr, worker.thread = nullptr;
}
}  // namespace emu
