// cooperative_groups.h - groups of threads as objects: the block, tiles of a warp, the grid.
// Each is a thin dress over device_functions.h: a tile's sync is __syncwarp with the tile's mask.
#pragma once
#include "cuda_pipeline.h"
namespace emu { void grid_sync(); }
namespace cooperative_groups {
class thread_block {
public:
    static constexpr unsigned thread_rank_of(uint3 i, dim3 n) {
        return (i.z * n.y + i.y) * n.x + i.x;
    }
    __forceinline__ static void sync() { __syncthreads(); }
    static unsigned thread_rank() { return thread_rank_of(threadIdx, blockDim); }
    static unsigned size() { return blockDim.x * blockDim.y * blockDim.z; }
    static unsigned num_threads() { return size(); }
    static dim3 group_index() { return blockIdx; }
    static dim3 thread_index() { return threadIdx; }
    static dim3 group_dim() { return blockDim; }
    static dim3 dim_threads() { return blockDim; }
};
inline thread_block this_thread_block() { return {}; }
class grid_group {
public:
    __forceinline__ void sync() const { emu::grid_sync(); }
    bool is_valid() const { return true; }
    static unsigned long long size() { return num_blocks() * thread_block::size(); }
    static unsigned long long num_threads() { return size(); }
    static unsigned long long num_blocks() { return 1ull * gridDim.x * gridDim.y * gridDim.z; }
    static unsigned long long block_rank() {
        return thread_block::thread_rank_of(blockIdx, gridDim);
    }
    static unsigned long long thread_rank() {
        return block_rank() * thread_block::size() + thread_block::thread_rank();
    }
    static dim3 group_dim() { return gridDim; }
    static dim3 dim_blocks() { return gridDim; }
    static dim3 block_index() { return blockIdx; }
};
inline grid_group this_grid() { return {}; }
// Lanes of one warp: those in mask. What tiles and coalesced groups have in common.
class emu_lanes {
protected:
    unsigned mask, count, rank;
    // The lane that is number i of the group.
    int lane_of(unsigned i) const {
        unsigned rest = mask, first = __builtin_ctz(mask);
        if (mask >> first == ~0u >> (32 - count)) return first + i;      // lanes in a row
        for (; i > 0; i--) rest &= rest - 1;
        return __builtin_ctz(rest);
    }
    unsigned packed(unsigned lanes) const {      // a mask of lanes as a mask of ranks
        unsigned result = 0;
        for (unsigned i = 0; i < count; i++) result |= (lanes >> lane_of(i) & 1) << i;
        return result;
    }
    // One lane reads from any other by __shfl_sync, since ranks need not be lanes in a row.
    template <class T> __forceinline__ T read(T v, unsigned from) const {
        if constexpr (sizeof(T) <= 8) return __shfl_sync(mask, v, lane_of(from));
        else {
            static_assert(sizeof(T) % 4 == 0, "a group's shuffle moves whole words");
            unsigned words[sizeof(T) / 4];
            __builtin_memcpy(words, &v, sizeof v);
            for (unsigned& w : words) w = __shfl_sync(mask, w, lane_of(from));
            __builtin_memcpy((void*)&v, words, sizeof v);
            return v;
        }
    }
public:
    emu_lanes(unsigned mask)
        : mask(mask), count(__popc(mask)), rank(__popc(mask & ((1u << emu::lane()) - 1))) {}
    unsigned emu_mask() const { return mask; }
    unsigned thread_rank() const { return rank; }
    unsigned size() const { return count; }
    unsigned num_threads() const { return count; }
    __forceinline__ void sync() const { __syncwarp(mask); }
#define EMU_GROUP_SHUFFLE(name, from) \
    template <class T> __forceinline__ T name(T v, unsigned n) const { return read(v, from); }
    EMU_GROUP_SHUFFLE(shfl, n % count)
    EMU_GROUP_SHUFFLE(shfl_up, rank < n ? rank : rank - n)
    EMU_GROUP_SHUFFLE(shfl_down, rank + n >= count ? rank : rank + n)
    EMU_GROUP_SHUFFLE(shfl_xor, (rank ^ n) < count ? rank ^ n : rank)
    __forceinline__ int any(int p) const { return __any_sync(mask, p); }
    __forceinline__ int all(int p) const { return __all_sync(mask, p); }
    __forceinline__ unsigned ballot(int p) const { return packed(__ballot_sync(mask, p)); }
    template <class T> __forceinline__ unsigned match_any(T v) const {
        return packed(__match_any_sync(mask, v));
    }
    template <class T> __forceinline__ unsigned match_all(T v, int& all) const {
        return packed(__match_all_sync(mask, v, &all));
    }
};
template <unsigned N, class Parent = void> class thread_block_tile : public emu_lanes {
    static_assert(N <= 32 && (N & (N - 1)) == 0,
                  "the emulator has tiles of 1, 2, 4, 8, 16 and 32 threads");
    static unsigned tile_mask() {      // without the lanes that a small block does not have
        unsigned first = emu::lane() / N * N,
                 left = thread_block::size() - thread_block::thread_rank() / 32 * 32;
        unsigned lanes = N == 32 ? 0xffffffffu : ((1u << (N & 31)) - 1) << first;
        return left >= 32 ? lanes : lanes & ((1u << left) - 1);
    }
public:
    thread_block_tile() : emu_lanes(tile_mask()) {}
    thread_block_tile(const emu_lanes&) : thread_block_tile() {}
    static constexpr unsigned size() { return N; }
    static constexpr unsigned num_threads() { return N; }
    unsigned meta_group_rank() const { return thread_block::thread_rank() / N; }
    unsigned meta_group_size() const { return (thread_block::size() + N - 1) / N; }
};
class coalesced_group : public emu_lanes {
public:
    coalesced_group(unsigned mask) : emu_lanes(mask) {}
    unsigned meta_group_rank() const { return 0; }
    unsigned meta_group_size() const { return 1; }
};
// Any group within a block, and tiles whose size is known only when the program runs.
class thread_group : public emu_lanes {
    bool block = false;
public:
    thread_group(unsigned mask) : emu_lanes(mask) {}
    thread_group(const emu_lanes& lanes) : emu_lanes(lanes) {}
    thread_group(const thread_block&) : emu_lanes(0xffffffff), block(true) {
        rank = thread_block::thread_rank();
        count = thread_block::size();
    }
    __forceinline__ void sync() const {
        if (block) __syncthreads();
        else __syncwarp(mask);
    }
};
template <unsigned N, class Parent> thread_block_tile<N, Parent> tiled_partition(const Parent&) {
    return {};
}
inline thread_group tiled_partition(const thread_group&, unsigned n) {
    unsigned first = emu::lane() / n * n;
    return (n >= 32 ? 0xffffffffu : ((1u << n) - 1)) << (n >= 32 ? 0 : first);
}
__forceinline__ coalesced_group coalesced_threads() { return coalesced_group(__activemask()); }
template <class Group> __forceinline__ coalesced_group binary_partition(const Group& g, bool p) {
    unsigned ballot = __ballot_sync(g.emu_mask(), p);
    return coalesced_group(p ? ballot : g.emu_mask() & ~ballot);
}
template <class Group, class T>
__forceinline__ coalesced_group labeled_partition(const Group& g, T label) {
    return coalesced_group(__match_any_sync(g.emu_mask(), label));
}
template <class Group> __forceinline__ void sync(const Group& g) { g.sync(); }
template <class Group> unsigned thread_rank(const Group& g) { return g.thread_rank(); }
template <class Group> unsigned group_size(const Group& g) { return g.size(); }

// ---- reduce and scan ----------------------------------------------------------------------------
#define EMU_OPERATOR(name, value) \
    template <class T> struct name { T operator()(T a, T b) const { return value; } };
EMU_OPERATOR(plus, a + b) EMU_OPERATOR(less, b < a ? b : a) EMU_OPERATOR(greater, a < b ? b : a)
EMU_OPERATOR(bit_and, a & b) EMU_OPERATOR(bit_or, a | b) EMU_OPERATOR(bit_xor, a ^ b)
// Halves the number of sums in each round, as a GPU does, so that a float's rounding is of that
// kind too.
template <class Group, class T, class Op> __forceinline__ T reduce(const Group& g, T v, Op op) {
    T all[32], sums[32];      // sums: of no address that others know, so that no check is due
    emu::warp_collect(g.emu_mask(), &v, sizeof v, all);
    memcpy((void*)sums, all, sizeof all);
    for (unsigned n = g.size(), half; n > 1; n = half) {
        half = (n + 1) / 2;
        for (unsigned i = 0; i < n / 2; i++) sums[i] = op(sums[i], sums[i + half]);
    }
    return sums[0];
}
template <class Group, class T, class Op = plus<T>>
__forceinline__ T inclusive_scan(const Group& g, T v, Op op = Op()) {
    for (unsigned d = 1; d < g.size(); d *= 2) {
        T other = g.shfl_up(v, d);
        if (g.thread_rank() >= d) v = op(other, v);
    }
    return v;
}
template <class Group, class T, class Op = plus<T>>
__forceinline__ T exclusive_scan(const Group& g, T v, Op op = Op()) {
    T before = g.shfl_up(inclusive_scan(g, v, op), 1);
    return g.thread_rank() == 0 ? T() : before;
}

// ---- memcpy_async -------------------------------------------------------------------------------
// By the group's threads in turn. wait() is also the barrier that others need to see the copy.
template <class Group, class T>
__forceinline__ void memcpy_async(const Group& g, T* dst, const T* src, size_t bytes) {
    for (size_t i = g.thread_rank(); i < bytes / sizeof(T); i += g.size())
        emu::copy_async(dst + i, src + i, sizeof(T));
    emu::commit_copies();
}
template <unsigned N, class Group> __forceinline__ void wait_prior(const Group& g) {
    emu::wait_for_copies(N);
    g.sync();
}
template <class Group> __forceinline__ void wait(const Group& g) { wait_prior<0>(g); }
}  // namespace cooperative_groups
