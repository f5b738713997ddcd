// Shuffles, votes, matches and reductions, with masks and widths, as the CUDA guide says of them.
#include <cstdio>
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>
#include "expect.cuh"
namespace cg = cooperative_groups;

__global__ void shuffles() {
    int t = threadIdx.x, lane = t % warpSize;
    EXPECT(__shfl_sync(0xffffffff, t, 5) == t - lane + 5);
    EXPECT(__shfl_sync(0xffffffff, lane, 3, 8) == lane / 8 * 8 + 3);
    EXPECT(__shfl_up_sync(0xffffffff, lane, 1) == (lane ? lane - 1 : 0));
    EXPECT(__shfl_down_sync(0xffffffff, lane, 3, 16) == (lane % 16 + 3 < 16 ? lane + 3 : lane));
    EXPECT(__shfl_xor_sync(0xffffffff, lane * 1.5, 7) == (lane ^ 7) * 1.5);
    long long big = (1LL << 40) + lane;
    EXPECT(__shfl_sync(~0u, big, 31) == (1LL << 40) + 31);
    if (lane < 16) EXPECT(__shfl_xor_sync(0x0000ffff, lane, 8) == (lane ^ 8));
    else EXPECT(__shfl_xor_sync(0xffff0000, lane, 4) == (lane ^ 4));
    __syncwarp();
    EXPECT(__ballot_sync(0xffffffff, lane & 1) == 0xaaaaaaaa);
    EXPECT(__all_sync(0xffffffff, lane < 32) && !__all_sync(0xffffffff, lane));
    EXPECT(__any_sync(0xffffffff, lane == 9));
    EXPECT(__match_any_sync(0xffffffff, lane / 8) == 0xffu << lane / 8 * 8);
    int all;
    EXPECT(__match_all_sync(0xffffffff, 7, &all) == 0xffffffff && all);
    EXPECT(__reduce_add_sync(0xffffffff, lane) == 496);
    EXPECT(__reduce_max_sync(0xffffffff, lane - 40) == -9);
    if (lane % 3 == 0) EXPECT(__popc(__activemask()) == 11);
    EXPECT(__syncthreads_count(t % 4 == 0) == (int)blockDim.x / 4);
    EXPECT(__syncthreads_or(t == 40) && !__syncthreads_and(t));
    EXPECT(__syncthreads_and(1));
    if (lane == 31) return;      // a mask may name lanes that have exited, if nobody reads them
    EXPECT(__shfl_sync(0xffffffff, t, 0) == t - lane);
}

__device__ int any_group(cg::thread_group g) {
    g.sync();
    return g.size() * 1000 + g.thread_rank();
}

__global__ void groups(int* total) {
    cg::thread_block block = cg::this_thread_block();
    cg::thread_block_tile<32> warp = cg::tiled_partition<32>(block);
    auto tile = cg::tiled_partition<4>(warp);
    int t = block.thread_rank();
    EXPECT(warp.meta_group_rank() == t / 32 && warp.thread_rank() == t % 32 && warp.size() == 32);
    EXPECT(cg::reduce(warp, 1.0f, cg::plus<float>()) == 32);
    EXPECT(cg::reduce(tile, t, cg::greater<int>()) == t / 4 * 4 + 3);
    EXPECT(tile.shfl_down(t, 1) == (t % 4 == 3 ? t : t + 1));
    EXPECT(cg::inclusive_scan(warp, 1) == t % 32 + 1 && cg::exclusive_scan(tile, 2) == 2 * (t % 4));
    EXPECT(tile.ballot(t % 4 == 2) == 4 && warp.any(t % 32 == 9));
    if (t % 2) {      // one atomic for all who are here
        cg::coalesced_group active = cg::coalesced_threads();
        EXPECT(active.size() == 16);
        if (active.thread_rank() == 0) atomicAdd(total, active.size());
        EXPECT(active.shfl(t, 0) == t / 32 * 32 + 1);
    }
    cg::sync(block);
    EXPECT(any_group(block) == (int)blockDim.x * 1000 + t && any_group(warp) == 32000 + t % 32);
    EXPECT(any_group(cg::tiled_partition(block, 8)) == 8000 + t % 8);
}

__global__ void whole_grid(int* x) {
    cg::grid_group grid = cg::this_grid();
    __shared__ int mine;
    if (threadIdx.x == 0) mine = blockIdx.x;
    x[grid.thread_rank()] = grid.thread_rank();
    grid.sync();
    unsigned n = grid.size();
    int other = x[n - 1 - grid.thread_rank()];
    grid.sync();
    x[grid.thread_rank()] = other;
    EXPECT(mine == (int)blockIdx.x);
}

template <typename T> __inline__ __device__ T block_sum(T v) {
    static __shared__ T part[32];
    int lane = threadIdx.x % 32, w = threadIdx.x / 32;
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) v += __shfl_down_sync(0xffffffff, v, d);
    if (lane == 0) part[w] = v;
    __syncthreads();
    v = threadIdx.x < blockDim.x / 32 ? part[lane] : T(0);
    if (w == 0)
        for (int d = 16; d > 0; d >>= 1) v += __shfl_down_sync(0xffffffff, v, d);
    return v;
}
__global__ __launch_bounds__(256) void sums() {
    double s = block_sum(threadIdx.x * 0.5);
    __syncthreads();
    float f = block_sum(1.0f);
    if (threadIdx.x == 0) EXPECT(s == 256 * 255 / 4.0 && f == 256);
}

int main() {
    shuffles<<<3, 128>>>();
    int *total, *x, h, xs[128];
    cudaMalloc(&total, sizeof(int));
    cudaMemset(total, 0, sizeof(int));
    groups<<<2, 64>>>(total);
    cudaMemcpy(&h, total, sizeof h, cudaMemcpyDeviceToHost);
    cudaMalloc(&x, sizeof xs);
    void* arguments[] = {&x};
    cudaError_t launched =
        cudaLaunchCooperativeKernel((void*)whole_grid, dim3(4), dim3(32), arguments, 0, 0);
    if (launched != cudaSuccess) return 2;
    cudaMemcpy(xs, x, sizeof xs, cudaMemcpyDeviceToHost);
    for (int i = 0; i < 128; i++)
        if (xs[i] != 127 - i) return 3;
    sums<<<2, 256>>>();
    int failed;
    cudaMemcpyFromSymbol(&failed, failures, sizeof failed);
    return failed || h != 64 ? 1 : 0;
}
