// stats.cpp - EMU_STATS=1: what each kernel asks of memory, as a GPU would count it.
// A warp's lanes run one instruction together, and memory sees one request: the 32-byte sectors
// that the lanes' addresses fall into. Here lanes run one after another, so requests are put
// together afterwards: the k-th time that each lane executes one instruction since the last barrier
// belongs together. Of shared memory's 32 banks, each gives one 4-byte word at a time.
#include <algorithm>
#include <map>
#include <string>
#include <vector>
#include "emu.h"
namespace emu {
struct Record {
    Pc pc;
    uintptr_t p;
    uint32_t turn;           // which k-th time of its lane this is
    uint8_t lane, bytes, access;
    bool shared;
};
struct WarpTrace : std::vector<Record> {};
struct Stats {
    unsigned long long launches, blocks, threads;
    unsigned long long bytes[3], sectors[3];               // global memory: READ, WRITE, ATOMIC
    unsigned long long requests[3], conflicts, barriers;   // shared memory; conflicts: extra turns
    Config config;                                         // of the last launch
    const char* file;
    int line;
};
static std::mutex mutex;
static const char* const NAMES[] = {"loads", "stores", "atomics"};      // by Access
// By kernel; for a report by launch.
static auto& all() {
    static auto* m = new std::map<std::pair<uint32_t, std::string>, Stats>;  // used at exit, too
    return *m;
}
static void print_all() {
    if (!getenv("EMU_STATS")) return;
    for (auto& [name, s] : all()) {
        fprintf(stderr, "emu: stats of %s: %llu launches, %llu blocks, %llu threads\n",
                name.second.c_str(), s.launches, s.blocks, s.threads);
        for (int a = 0; a < 3; a++)
            if (s.bytes[a])
                fprintf(stderr, "     global %-8s %12llu bytes in %llu sectors "
                        "(%.0f%% of their bytes used)\n", NAMES[a], s.bytes[a], s.sectors[a],
                        100.0 * s.bytes[a] / (32.0 * s.sectors[a]));
        if (s.requests[READ] + s.requests[WRITE] + s.requests[ATOMIC])
            fprintf(stderr, "     shared requests of warps: %llu loads, %llu stores, %llu atomics; "
                    "%llu bank conflicts\n", s.requests[READ], s.requests[WRITE],
                    s.requests[ATOMIC], s.conflicts);
        fprintf(stderr, "     barriers %llu\n", s.barriers);
    }
    if (equal_stores)
        fprintf(stderr, "emu: %llu stores of a value that another thread of the block stored there "
                "too\n", (unsigned long long)equal_stores.load());
}
void stats_report(FILE* f) {
    const char* comma = "";
    for (auto& [name, s] : all()) {
        dim3 g = s.config.grid, b = s.config.block;
        fprintf(f, "%s\n  {\"number\": %u, \"kernel\": \"%s\", \"file\": \"%s\", \"line\": %d, "
                "\"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], \"dynamic_shared\": %zu", comma,
                name.first, name.second.c_str(), s.file, s.line, g.x, g.y, g.z, b.x, b.y, b.z,
                s.config.shared);
        for (int a = 0; a < 3; a++)
            fprintf(f, ", \"%s\": {\"global_bytes\": %llu, \"global_sectors\": %llu, "
                    "\"shared_requests\": %llu}", NAMES[a], s.bytes[a], s.sectors[a],
                    s.requests[a]);
        fprintf(f, ", \"bank_conflicts\": %llu, \"barriers\": %llu}", s.conflicts, s.barriers);
        comma = ",";
    }
}
void stats_begin(Launch& launch) {
    if (all().empty()) atexit(print_all);
    Stats& s = all()[{getenv("EMU_REPORT") ? launch.id : 0, launch.kernel.name}];
    s.config = launch.config;
    s.file = launch.kernel.file, s.line = launch.kernel.line;
    s.launches++;
    s.blocks += launch.blocks;
    s.threads += (uint64_t)launch.blocks * launch.threads;
    launch.stats = &s;
}
void stats_access(uintptr_t p, size_t bytes, Access access, Pc pc, bool in_shared) {
    if (!worker.traces) worker.traces = new WarpTrace[MAX_THREADS / WARP];
    WarpTrace& t = worker.traces[worker.thread->number / WARP];
    // A copy's two halves have one address: they are two requests.
    t.push_back({(char*)pc + in_shared, p, 0, (uint8_t)(worker.thread->number % WARP),
                 (uint8_t)std::min<size_t>(bytes, 255), (uint8_t)access, in_shared});
}
// The sectors or words that the lanes of one request touch, each once: how many there are.
static size_t touched(const Record* r, size_t n, size_t unit, uintptr_t* units) {
    uintptr_t* end = units;
    for (size_t i = 0; i < n; i++)
        for (uintptr_t u = r[i].p / unit; u <= (r[i].p + r[i].bytes - 1) / unit; u++) *end++ = u;
    std::sort(units, end);
    return std::unique(units, end) - units;
}
// A request's extra turns: each bank serves one word in a turn. What has 8 bytes a lane goes by half
// warps, what has 16 by quarters: always the same lanes, whether they take part or not.
static uint64_t count_conflicts(const Record* r, size_t n) {
    uint64_t extra = 0;
    const int together = r->bytes > 4 ? (r->bytes > 8 ? 8 : 16) : 32;
    for (size_t first = 0, end; first < n; first = end) {
        for (end = first; end < n && r[end].lane / together == r[first].lane / together;) end++;
        uintptr_t words[32 * 65];
        int most = 1, per_bank[32] = {};
        size_t count = touched(r + first, end - first, 4, words);
        for (size_t i = 0; i < count; i++) most = std::max(most, ++per_bank[words[i] % 32]);
        extra += most - 1;
    }
    return extra;
}
static void flush_warp(int warp) {
    WarpTrace& t = worker.traces[warp];
    Record *r = t.data(), *end = r + t.size();
    struct Turns { uint32_t by_lane[WARP]; };
    std::map<Pc, Turns> so_far;
    for (Record& x : t) x.turn = so_far[x.pc].by_lane[x.lane]++;
    std::sort(r, end, [](const Record& a, const Record& b) {
        return a.pc != b.pc ? a.pc < b.pc : a.turn != b.turn ? a.turn < b.turn : a.lane < b.lane;
    });
    Stats sum = {};
    for (Record *x = r, *next; x < end; x = next) {
        for (next = x + 1; next < end && next->pc == x->pc && next->turn == x->turn;) next++;
        if (x->shared) {
            sum.requests[x->access]++;
            sum.conflicts += count_conflicts(x, next - x);
        } else {
            uintptr_t sectors[64 * 9];
            sum.sectors[x->access] += touched(x, std::min<size_t>(next - x, 64), 32, sectors);
            for (Record* y = x; y < next; y++) sum.bytes[x->access] += y->bytes;
        }
    }
    t.clear();
    std::lock_guard<std::mutex> lock(mutex);
    Stats& s = *worker.launch->stats;
    for (int a = 0; a < 3; a++) {
        s.bytes[a] += sum.bytes[a];
        s.sectors[a] += sum.sectors[a];
        s.requests[a] += sum.requests[a];
    }
    s.conflicts += sum.conflicts;
}
void stats_flush(const Block& block, bool at_barrier) {
    for (int w = 0; worker.traces && w * WARP < block.threads; w++) flush_warp(w);
    if (at_barrier) __atomic_fetch_add(&worker.launch->stats->barriers, 1, __ATOMIC_RELAXED);
}
}  // namespace emu
