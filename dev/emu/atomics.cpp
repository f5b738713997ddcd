// atomics.cpp - atomicAdd and its family: compare-and-swap loops on the host's own atomics, since
// blocks run on several of the host's threads.
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "emu.h"
namespace emu {
template <class T> static uint64_t sum(uint64_t a, uint64_t b) {
    return to_word(T(from_word<T>(a) + from_word<T>(b)));
}
// What *p becomes. Values narrower than 64 bits come zero-extended; bytes says how wide they are.
static uint64_t apply(AtomicOp op, int bytes, uint64_t old, uint64_t v, uint64_t expected) {
    int64_t s_old = bytes == 4 ? (int32_t)old : (int64_t)old,
            s_v = bytes == 4 ? (int32_t)v : (int64_t)v;
    switch (op) {
        case ADD: return old + v;
        case ADD_FLOAT: return sum<float>(old, v);
        case ADD_DOUBLE: return sum<double>(old, v);
        case ADD_HALF: return sum<__half>(old, v);
        case ADD_BF16: return sum<__nv_bfloat16>(old, v);
        case ADD_HALF2: return sum<__half2>(old, v);
        case ADD_BF162: return sum<__nv_bfloat162>(old, v);
        case MIN_SIGNED: return s_v < s_old ? v : old;
        case MIN_UNSIGNED: return v < old ? v : old;
        case MAX_SIGNED: return s_v > s_old ? v : old;
        case MAX_UNSIGNED: return v > old ? v : old;
        case AND: return old & v;
        case OR: return old | v;
        case XOR: return old ^ v;
        case INC: return old >= v ? 0 : old + 1;
        case DEC: return old == 0 || old > v ? v : old - 1;
        case EXCHANGE: return v;
        default: return old == expected ? v : old;
    }
}
template <class T>
static uint64_t swap_until_done(AtomicOp op, T* p, uint64_t v, uint64_t expected) {
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(p, &old, (T)apply(op, sizeof(T), old, v, expected), false,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return old;
}
uint64_t atomic(AtomicOp op, void* p, int bytes, uint64_t v, uint64_t expected) {
    if (checking && worker.thread && worker.thread->lock == lock_number(p))
        grid_release(*worker.block);
    is_relaxing = (op >= MIN_SIGNED && op <= MAX_UNSIGNED) || op == COMPARE_AND_SWAP;
    if (checking) check_access(p, bytes, ATOMIC, EMU_CALLER);
    uint64_t old = bytes == 2 ? swap_until_done(op, (uint16_t*)p, v, expected)
                   : bytes == 4 ? swap_until_done(op, (uint32_t*)p, v, expected)
                                : swap_until_done(op, (uint64_t*)p, v, expected);
    // atomicCAS(lock, 0, x) or atomicExch(lock, x) takes a lock that was 0; what comes next on the
    // same word releases it.
    if (worker.thread) {
        uint32_t lock = lock_number(p), &held = worker.thread->lock;
        bool takes = op == EXCHANGE || (op == COMPARE_AND_SWAP && expected == 0);
        if (takes && old == 0 && v != 0) held = lock;
        else if (held == lock) held = 0;
    }
    // A failed compare-and-swap, an exchange that found what it brought, or a sum with 0, which
    // only looks, may be waiting for another thread.
    if ((op == COMPARE_AND_SWAP && old != expected) || (op == EXCHANGE && old == v) ||
        ((op == ADD || op == OR) && v == 0))
        yield();
    return old;
}
}  // namespace emu
