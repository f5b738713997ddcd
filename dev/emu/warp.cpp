// warp.cpp - shuffles, votes, matches: what the 32 lanes of a warp do together.
// On a GPU since Volta every lane has its own program counter, and the _sync functions name the
// lanes that must take part. So does the emulator: a lane waits until all lanes in its mask have
// come to the same operation with the same mask.
#include "emu_float16.h"
#include "emu.h"
namespace emu {
unsigned lane() { return worker.thread->number % WARP; }
unsigned warp_number() { return worker.thread->number / WARP; }
// Which lane a shuffle reads from; its own where CUDA says that the value stays unchanged.
static int source_lane(const Thread& t) {
    int me = t.number % WARP, first = me & ~(t.width - 1), from = me;
    if (t.op == SHFL_IDX) from = first | (t.argument & (t.width - 1));
    if (t.op == SHFL_UP) from = me - t.argument < first ? me : me - t.argument;
    if (t.op == SHFL_DOWN) from = me + t.argument >= first + t.width ? me : me + t.argument;
    if (t.op == SHFL_XOR) from = (me ^ t.argument) >= first + t.width ? me : me ^ t.argument;
    return from;
}
const char* name_of(WarpOp op) {
    return is_shuffle(op)   ? "shuffle"
           : op == SYNCWARP ? "__syncwarp()"
           : op == LDMATRIX ? "ldmatrix"
           : op == MMA      ? "mma"
           : op == COLLECT  ? "wmma operation or a group's reduction" : "warp's vote or reduction";
}
static void inactive_lane(const Thread& t, int from, const char* why) {
    become((Thread*)&t);
    fault(t.pc, "a %s reads lane %d, which is inactive: %s\n"
          "this thread is lane %d, its mask %08x", name_of(t.op), from, why, t.number % WARP,
          t.mask);
}
static const char* const GONE = "it has ended without coming here";
static uint64_t reduce(WarpOp op, uint64_t a, uint64_t b) {
    int sa = (int)a, sb = (int)b;
    unsigned ua = (unsigned)a, ub = (unsigned)b;
    switch (op) {
        case REDUCE_ADD: return ua + ub;
        case REDUCE_MIN: return (unsigned)(sb < sa ? sb : sa);
        case REDUCE_MAX: return (unsigned)(sb > sa ? sb : sa);
        case REDUCE_UMIN: return ub < ua ? ub : ua;
        case REDUCE_UMAX: return ub > ua ? ub : ua;
        case REDUCE_AND: return ua & ub;
        case REDUCE_OR: return ua | ub;
        default: return ua ^ ub;
    }
}
// The first lane's `all` is put together from every lane's `mine`, and copied to the other lanes.
static void collect(Thread* lanes, unsigned present) {
    const Thread& t = lanes[__builtin_ctz(present)];
    if (present != t.mask && checking)
        inactive_lane(t, __builtin_ctz(t.mask & ~present), GONE);
    char *all = (char*)t.result, *end = all;
    each(t.mask, [&](int l) {
        if (present >> l & 1) memcpy(end, (const void*)lanes[l].value, t.argument);
        end += t.argument;
    });
    each(present & (present - 1), [&](int l) { memcpy((void*)lanes[l].result, all, end - all); });
}
// ---- tensor cores, by the PTX manual's tables for ldmatrix and mma.m16n8k16 ---------------------
// A fragment is an 8 x 8 matrix of 16-bit elements, two in each lane: lane 4g + t has columns 2t
// and 2t + 1 of row g. ldmatrix brings up to four, or their transposes: lanes 0 to 7 give the
// addresses of the first one's rows, 8 to 15 the second's, ...
struct Matrices {            // a lane's part of an ldmatrix: it gives a row, and gets fragments
    int count;
    bool transposed;
    Fragments fragments;
    uint16_t row[8];
};
static void deal_matrices(Thread* lanes) {
    auto part = [&](int l) -> Matrices& { return *(Matrices*)lanes[l].value; };
    for (int l = 0; l < WARP; l++) {
        Matrices& m = part(l);
        for (int i = 0; i < 2 * m.count; i++) {
            int first = i / 2 * 8, g = l / 4, column = l % 4 * 2 + i % 2;
            uint16_t x = m.transposed ? part(first + column).row[g] : part(first + g).row[column];
            m.fragments.x[i / 2] |= (uint32_t)x << i % 2 * 16;
        }
    }
}
// a (16 x 16) is four fragments: rows 0 to 7 and 8 to 15 of columns 0 to 7, then of columns 8 to
// 15. b (16 x 8) is two, transposed: rows 0 to 7, and 8 to 15. c (16 x 8) is two, of floats.
struct Product {             // a lane's part of mma.m16n8k16: c += a b
    bool bfloat16;
    uint32_t a[4], b[2];
    Sums c;
};
static void multiply_fragments(Thread* lanes) {
    float a[16][16], b[16][8], c[16][8];
    auto part = [&](int l) -> Product& { return *(Product*)lanes[l].value; };
    auto element = [](const Product& p, const uint32_t* fragments, int i) {
        uint16_t x = (uint16_t)(fragments[i / 2] >> i % 2 * 16);
        return p.bfloat16 ? bf16_value(x) : half_value(x);
    };
    auto of_c = [&](int l, int i) -> float& { return c[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2]; };
    for (int l = 0; l < WARP; l++) {
        int g = l / 4, column = l % 4 * 2;
        for (int i = 0; i < 8; i++)
            a[g + i / 2 % 2 * 8][column + i % 2 + i / 4 * 8] = element(part(l), part(l).a, i);
        for (int i = 0; i < 4; i++) {
            b[column + i % 2 + i / 2 * 8][g] = element(part(l), part(l).b, i);
            of_c(l, i) = part(l).c.x[i];
        }
    }
    for (int row = 0; row < 16; row++)
        for (int k = 0; k < 16; k++)
            for (int column = 0; column < 8; column++)
                c[row][column] = __fmaf_rn(a[row][k], b[k][column], c[row][column]);
    for (int l = 0; l < WARP; l++)
        for (int i = 0; i < 4; i++) part(l).c.x[i] = of_c(l, i);
}
// What one lane has read without its being written, all have in their fragments.
static void use_tensor_cores(WarpOp op, Thread* lanes, unsigned present) {
    if (present != 0xffffffff) {
        if (checking)
            inactive_lane(lanes[__builtin_ctz(present)], __builtin_ctz(~present),
                          "tensor cores need a whole warp");
        return;
    }
    op == MMA ? multiply_fragments(lanes) : deal_matrices(lanes);
    const Thread* unset = nullptr;
    each(present, [&](int l) { unset = lanes[l].unset_pc ? &lanes[l] : unset; });
    if (unset)
        each(present, [&](int l) {
            lanes[l].unset = unset->unset, lanes[l].unset_pc = unset->unset_pc;
        });
}
static uint64_t shuffled(const Thread& t, Thread* lanes, unsigned present, const Block& block) {
    int from = source_lane(t);
    if (present >> from & 1) return lanes[from].value;
    if (checking)
        inactive_lane(t, from, !(t.mask >> from & 1)                       ? "it is not in the mask"
                               : &lanes[from] >= block.thread + block.threads
                                   ? "the block has no such thread"
                                   : GONE);
    return 0;
}
// All lanes in `present` have come: each gets its result and may go on.
static void complete(Block& block, int base, unsigned present) {
    Thread* lanes = block.thread + base;
    const Thread& first = lanes[__builtin_ctz(present)];
    WarpOp op = first.op;
    unsigned ballot = 0;
    uint64_t total = first.value;
    bool equal = true;
    if (op == COLLECT) collect(lanes, present);
    if (op == LDMATRIX || op == MMA) use_tensor_cores(op, lanes, present);
    each(present, [&](int l) {
        ballot |= (unsigned)(lanes[l].value != 0) << l;
        if (&lanes[l] != &first && op >= REDUCE_ADD) total = reduce(op, total, lanes[l].value);
        equal = equal && lanes[l].value == first.value;
    });
    each(present, [&](int l) {
        Thread& t = lanes[l];
        unsigned like_me = 0;
        if (op == MATCH_ANY)
            each(present, [&](int k) { like_me |= (unsigned)(lanes[k].value == t.value) << k; });
        t.result = is_shuffle(op)     ? shuffled(t, lanes, present, block)
                   : op == MATCH_ANY  ? like_me
                   : op == BALLOT     ? ballot
                   : op == ALL        ? ballot == present
                   : op == ANY        ? ballot != 0
                   : op == UNI        ? equal
                   : op == MATCH_ALL  ? (equal ? present : 0)
                   : op == ACTIVEMASK ? present
                                      : total;
    });
    if (op == SYNCWARP && checking) {
        race_flush();
        race_syncwarp(base / WARP, present);
    }
    block.spins = 0;
    block.waiting_lanes[base / WARP] -= (uint8_t)__builtin_popcount(present);
    each(present, [&](int l) { make_ready(block, base + l); });
}
// If every lane named in the mask of thread t has come or has exited, lets them go on.
static void try_complete(Block& block, const Thread& t) {
    int base = t.number / WARP * WARP;
    unsigned expected = t.mask & block.alive_lanes[base / WARP];
    if (block.waiting_lanes[base / WARP] < __builtin_popcount(expected)) return;
    for (int l = 0; l < WARP; l++)
        if ((expected >> l & 1) && !meets(block.thread[base + l], t)) return;
    complete(block, base, expected);
}
void warp_lane_exited(Block& block, Thread& thread) {
    int base = thread.number / WARP * WARP;
    block.alive_lanes[base / WARP] &= ~(1u << thread.number % WARP);
    for (int l = 0; block.waiting_lanes[base / WARP] && l < WARP && base + l < block.threads; l++) {
        Thread& t = block.thread[base + l];
        if (t.state == AT_WARP_OP && t.op != ACTIVEMASK && (t.mask >> (thread.number % WARP) & 1))
            try_complete(block, t);
    }
}
// __activemask has no mask to wait for. A GPU answers with the lanes that happen to run together;
// here a lane waits until no other thread can run: those that then stand at the same call.
bool release_activemask(Block& block) {
    bool released = false;
    for (int base = 0; base < block.threads; base += WARP) {
        unsigned present = 0;
        Pc pc = nullptr;
        for (int l = 0; l < WARP && base + l < block.threads; l++) {
            Thread& t = block.thread[base + l];
            if (t.state != AT_WARP_OP || t.op != ACTIVEMASK || (present && t.pc != pc)) continue;
            present |= 1u << l;
            pc = t.pc;
        }
        if (!present) continue;
        complete(block, base, present);
        released = true;
    }
    return released;
}
static uint64_t meet(WarpOp op, unsigned mask, uint64_t value, int argument, int width, Pc pc) {
    Thread& t = *worker.thread;
    t.op = op, t.mask = mask, t.value = value, t.argument = argument, t.width = width;
    t.state = AT_WARP_OP;
    t.pc = pc;
    worker.block->waiting_lanes[t.number / WARP]++;
    if (op != ACTIVEMASK) {
        if (!(mask >> (t.number % WARP) & 1))
            fault(t.pc, "a warp operation is called by lane %d, which its mask %08x does not name",
                  t.number % WARP, mask);
        try_complete(*worker.block, t);
    }
    wait_here(t.state, t.pc);
    const Thread& from = worker.block->thread[t.number / WARP * WARP + source_lane(t)];
    if (is_shuffle(op) && from.unset_pc && is_unset(t.result))
        t.unset = from.unset, t.unset_pc = from.unset_pc;
    return t.result;
}
uint64_t warp(WarpOp op, unsigned mask, uint64_t value, int argument, int width) {
    return meet(op, mask, value, argument, width, EMU_CALLER);
}
void warp_collect(unsigned mask, const void* mine, size_t bytes, void* all) {
    worker.thread->result = (uint64_t)all;
    meet(COLLECT, mask, (uint64_t)mine, (int)bytes, WARP, EMU_CALLER);
}
Fragments load_matrices(uint32_t address, int count, bool transposed) {
    Matrices m = {count, transposed, {}, {}};
    if (lane() < 8u * count) {
        void* row = in_shared(address, sizeof m.row, EMU_CALLER);
        check_access(row, sizeof m.row, READ, EMU_CALLER);
        memcpy(m.row, row, sizeof m.row);
    }
    meet(LDMATRIX, 0xffffffff, (uint64_t)&m, 0, WARP, EMU_CALLER);
    return m.fragments;
}
Sums multiply(bool bfloat16, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
              uint32_t b1, float c0, float c1, float c2, float c3) {
    Product p = {bfloat16, {a0, a1, a2, a3}, {b0, b1}, {{c0, c1, c2, c3}}};
    meet(MMA, 0xffffffff, (uint64_t)&p, 0, WARP, EMU_CALLER);
    return p.c;
}
}  // namespace emu
